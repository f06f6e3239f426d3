//! Connection tracking over nfnetlink (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`): only what published UDP
//! ports need. A flow that is tracked goes where it went, whatever the rules say by now.

use super::{Message, Socket, attributes};
use std::io;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ANY_FAMILY: u8 = 0;
const UDP: u8 = 17;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;

/// Source and destination of one direction of a UDP flow.
struct Tuple<'a> {
    source: &'a [u8],
    destination: &'a [u8],
    port: u16,
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn tuple(bytes: &[u8]) -> Option<Tuple<'_>> {
    let (addresses, protocol) = (find(bytes, 1)?, find(bytes, 2)?);
    if find(protocol, 1)? != [UDP] {
        return None;
    }
    // CTA_IP_V4_SRC and DST are 1 and 2, CTA_IP_V6_SRC and DST 3 and 4.
    let address = |v4, v6| find(addresses, v4).or_else(|| find(addresses, v6));
    let port = find(protocol, 3)?.try_into().ok().map(u16::from_be_bytes)?;
    Some(Tuple { source: address(1, 3)?, destination: address(2, 4)?, port })
}

/// Whether a tracked flow is one to this machine's port: redirected, or not translated at all. Masqueraded flows to
/// another machine's port of that number are none.
fn leads_to_port(entry: &[u8], ports: &[u16]) -> Option<bool> {
    let (original, reply) = (tuple(find(entry, ORIGINAL)?)?, tuple(find(entry, REPLY)?)?);
    let redirected = reply.source != original.destination;
    Some(ports.contains(&original.port) && (redirected || reply.destination == original.source))
}

impl Socket {
    /// Forgets the UDP flows that lead to these ports of this machine. The kernel goes through all of its table, which
    /// takes some 20 ms however few flows there are.
    ///
    /// # Errors
    /// Those of netlink: the kernel cannot list tracked flows.
    pub fn forget_udp_flows(&mut self, ports: &[u16]) -> io::Result<()> {
        let message = |kind: u16, family: u8| Message::new(SUBSYSTEM << 8 | kind, 0, &[family, 0, 0, 0]);
        for reply in self.query(message(GET, ANY_FAMILY), true)? {
            let Some(entry) = reply.payload.get(4..) else { continue };
            if leads_to_port(entry, ports) != Some(true) {
                continue;
            }
            let mut delete = message(DELETE, reply.payload[0]);
            if let Some(original) = find(entry, ORIGINAL) {
                delete.nest(ORIGINAL, |nest| {
                    nest.raw(original);
                });
            }
            if let Some(id) = find(entry, ID) {
                delete.put(ID, id);
            }
            // One that has ended meanwhile is as good as forgotten.
            let _ = self.query(delete, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(source: [u8; 4], destination: [u8; 4], port: u16) -> impl Fn(&mut Message) {
        move |message: &mut Message| {
            message.nest(1, |ip| {
                ip.put(1, &source).put(2, &destination);
            });
            message.nest(2, |protocol| {
                protocol.put(1, &[UDP]).put(2, &[0, 9]).put(3, &port.to_be_bytes());
            });
        }
    }

    fn entry(original: impl Fn(&mut Message), reply: impl Fn(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(0, 0, &[]);
        message.nest(ORIGINAL, original).nest(REPLY, reply);
        message.bytes[16..].to_vec()
    }

    #[test]
    fn only_flows_to_this_machine_are_meant() {
        let (client, host, container, far) = ([192, 0, 2, 2], [192, 0, 2, 1], [10, 88, 0, 2], [9, 9, 9, 9]);
        let redirected = entry(flow(client, host, 53), flow(container, client, 9));
        let local = entry(flow(client, host, 53), flow(host, client, 9));
        let masqueraded = entry(flow(container, far, 53), flow(far, host, 9));
        assert_eq!(leads_to_port(&redirected, &[53]), Some(true));
        assert_eq!(leads_to_port(&redirected, &[54]), Some(false));
        assert_eq!(leads_to_port(&local, &[54, 53]), Some(true));
        assert_eq!(leads_to_port(&masqueraded, &[53]), Some(false));
        assert_eq!(leads_to_port(&[0xff; 40], &[53]), None);
    }
}
