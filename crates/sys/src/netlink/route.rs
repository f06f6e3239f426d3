//! rtnetlink (`rtnetlink(7)`): links, addresses and routes.

use super::{CREATE, EXCL, Message, REPLACE, Socket, attributes};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const NO_LINK_LOCAL: u8 = 1;
const IFF_UP: u32 = 1;
const IFA_F_NODAD: u8 = 2;
const MAIN_TABLE: u8 = 254;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: counters are most of an answer, and nobody here reads them.
const WITHOUT_STATISTICS: u32 = 1 << 3;

fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        header[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    header
}

fn family(address: IpAddr) -> u8 {
    // Both are below 256.
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// Sets a link up.
pub fn set_up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &link_header(index, true))
}

/// Keeps the kernel from giving a link a link-local IPv6 address when it comes up.
pub fn no_link_local(index: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, &link_header(index, false));
    message.nest(IFLA_AF_SPEC, |spec| {
        spec.nest(libc::AF_INET6 as u16, |inet6| {
            inet6.put(IFLA_INET6_ADDR_GEN_MODE, &[NO_LINK_LOCAL]);
        });
    });
    message
}

/// Makes a bridge without spanning tree, up.
pub fn new_bridge(name: &str, mac: [u8; 6], mtu: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &link_header(0, true));
    message.put_text(IFLA_IFNAME, name).put(IFLA_ADDRESS, &mac).put_u32(IFLA_MTU, mtu);
    message.nest(IFLA_LINKINFO, |info| {
        info.put_text(1, "bridge");
    });
    message
}

/// Makes a pair of linked interfaces: one here, a port of the bridge, up; its peer in another namespace, down.
pub fn new_veth(
    name: &str,
    master: u32,
    mtu: u32,
    peer: &str,
    mac: [u8; 6],
    namespace: BorrowedFd<'_>,
) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &link_header(0, true));
    message.put_text(IFLA_IFNAME, name).put_u32(IFLA_MTU, mtu).put_u32(IFLA_MASTER, master);
    message.nest(IFLA_LINKINFO, |info| {
        info.put_text(1, "veth");
        info.nest(2, |data| {
            data.nest(1, |far| {
                far.raw(&link_header(0, false)).put_text(IFLA_IFNAME, peer).put(IFLA_ADDRESS, &mac);
                far.put_u32(IFLA_MTU, mtu).put(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
            });
        });
    });
    message
}

/// A kind of interface that is a child of another one (`linux/if_link.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    /// Its mode.
    Macvlan(u32),
    /// Its mode and flags.
    Ipvlan(u16, u16),
}

/// `MACVLAN_MODE_*`.
pub const MACVLAN_PRIVATE: u32 = 1;
/// See above.
pub const MACVLAN_VEPA: u32 = 2;
/// See above.
pub const MACVLAN_BRIDGE: u32 = 4;
/// See above.
pub const MACVLAN_PASSTHRU: u32 = 8;
/// `IPVLAN_MODE_*`.
pub const IPVLAN_L2: u16 = 0;
/// See above.
pub const IPVLAN_L3: u16 = 1;
/// See above.
pub const IPVLAN_L3S: u16 = 2;
/// `IPVLAN_F_*`.
pub const IPVLAN_PRIVATE: u16 = 1;
/// See above.
pub const IPVLAN_VEPA: u16 = 2;

/// Makes a child of `parent` in another namespace, down. An ipvlan interface has its parent's MAC.
pub fn new_child(name: &str, parent: u32, kind: Sub, mac: [u8; 6], namespace: BorrowedFd<'_>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &link_header(0, false));
    message.put_text(IFLA_IFNAME, name).put_u32(IFLA_LINK, parent);
    if matches!(kind, Sub::Macvlan(_)) {
        message.put(IFLA_ADDRESS, &mac);
    }
    message.put(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    message.nest(IFLA_LINKINFO, |info| match kind {
        Sub::Macvlan(mode) => {
            info.put_text(1, "macvlan").nest(2, |data| {
                data.put_u32(1, mode);
            });
        }
        Sub::Ipvlan(mode, flags) => {
            info.put_text(1, "ipvlan").nest(2, |data| {
                data.put(1, &mode.to_ne_bytes()).put(2, &flags.to_ne_bytes());
            });
        }
    });
    message
}

/// Makes a pair of linked interfaces, both here: the first up, its peer down (it cannot be up before it has one).
pub fn new_wire(name: &str, peer: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &link_header(0, true));
    message.put_text(IFLA_IFNAME, name);
    message.nest(IFLA_LINKINFO, |info| {
        info.put_text(1, "veth");
        info.nest(2, |data| {
            data.nest(1, |far| {
                far.raw(&link_header(0, false)).put_text(IFLA_IFNAME, peer);
            });
        });
    });
    message
}

/// How a bridge treats one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortMode {
    /// `IFLA_BRPORT_MODE`: a frame may leave by the port by which it came. With bridge-netfilter a redirected packet may
    /// have to.
    Hairpin = 4,
    /// `IFLA_BRPORT_ISOLATED`: no frame passes between isolated ports; the bridge's own address is reached.
    Isolated = 33,
}

/// Sets a port (named) of a bridge to a mode, beside those that it has.
pub fn set_port_mode(port: &str, mode: PortMode) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, &link_header(0, false));
    message.put_text(IFLA_IFNAME, port);
    message.nest(IFLA_LINKINFO, |info| {
        info.put_text(4, "bridge").nest(5, |data| {
            data.put(mode as u16, &[1]);
        });
    });
    message
}

/// Deletes a link by name.
pub fn delete_link(name: &str) -> Message {
    let mut message = Message::new(RTM_DELLINK, 0, &link_header(0, false));
    message.put_text(IFLA_IFNAME, name);
    message
}

/// Gives a link an address; IPv6 ones are used at once, without looking for a duplicate.
pub fn new_address(index: u32, ip: IpAddr, prefix: u8) -> Message {
    let mut header = [family(ip), prefix, IFA_F_NODAD, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(ip);
    let mut message = Message::new(RTM_NEWADDR, CREATE | EXCL, &header);
    message.put(1, &bytes).put(2, &bytes);
    if let IpAddr::V4(v4) = ip
        && prefix < 31
    {
        let host = u32::MAX >> prefix;
        message.put(4, &(u32::from(v4) | host).to_be_bytes());
    }
    message
}

/// The default route through a gateway, in place of the one that is there.
pub fn default_route(gateway: IpAddr) -> Message {
    // family, dst_len, src_len, tos, table, protocol (boot), scope (universe), type (unicast), flags
    let header = [family(gateway), 0, 0, 0, MAIN_TABLE, 3, 0, 1, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, CREATE | REPLACE, &header);
    message.put(5, &octets(gateway));
    message
}

/// The default route straight through a link.
pub fn default_route_through(link: u32, v6: bool) -> Message {
    let any = if v6 { IpAddr::from([0u8; 16]) } else { IpAddr::from([0u8; 4]) };
    let scope = if v6 { 0 } else { 253 };
    let header = [family(any), 0, 0, 0, MAIN_TABLE, 3, scope, 1, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, CREATE | REPLACE, &header);
    message.put_u32(4, link);
    message
}

/// A link.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its MTU.
    pub mtu: u32,
    /// The number of the bridge that it is a port of; 0 for none.
    pub master: u32,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The destination: address and prefix length.
    pub to: (IpAddr, u8),
    /// The link.
    pub link: u32,
    /// Its metric: the lowest wins.
    pub metric: u32,
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let number = |wanted: u16| {
        attributes(payload.get(16..)?).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| word(value))
    };
    Some(Link {
        index: word(payload.get(4..8)?)?,
        mtu: number(IFLA_MTU).unwrap_or(1500),
        master: number(IFLA_MASTER).unwrap_or(0),
    })
}

impl Socket {
    /// The link of this name.
    ///
    /// # Errors
    /// Those of netlink but `ENODEV`.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = Message::new(RTM_GETLINK, 0, &link_header(0, false));
        message.put_text(IFLA_IFNAME, name).put_u32(IFLA_EXT_MASK, WITHOUT_STATISTICS);
        match self.query(message, false) {
            Ok(replies) => Ok(replies.first().and_then(|reply| parse_link(&reply.payload))),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
    /// The link of this number.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn link_by_index(&mut self, index: u32) -> io::Result<Option<Link>> {
        let replies = self.query(Message::new(RTM_GETLINK, 0, &link_header(index, false)), false)?;
        Ok(replies.first().and_then(|reply| parse_link(&reply.payload)))
    }
    /// All links: (name, link).
    ///
    /// # Errors
    /// Those of netlink.
    pub fn links(&mut self) -> io::Result<Vec<(String, Link)>> {
        let mut message = Message::new(RTM_GETLINK, 0, &link_header(0, false));
        message.put_u32(IFLA_EXT_MASK, WITHOUT_STATISTICS);
        let replies = self.query(message, true)?;
        let named = replies.iter().filter_map(|reply| {
            let link = parse_link(&reply.payload)?;
            let (_, name) = attributes(reply.payload.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
            Some((String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned(), link))
        });
        Ok(named.collect())
    }
    /// All addresses: (address, prefix length, link).
    ///
    /// # Errors
    /// Those of netlink.
    pub fn addresses(&mut self) -> io::Result<Vec<(IpAddr, u8, u32)>> {
        let replies = self.query(Message::new(RTM_GETADDR, 0, &[0; 8]), true)?;
        let found = replies.iter().filter_map(|reply| {
            let payload = &reply.payload;
            let rest = || attributes(payload.get(8..).unwrap_or(&[]));
            let local = rest().find(|(kind, _)| *kind == 2).or_else(|| rest().find(|(kind, _)| *kind == 1));
            Some((address(local?.1)?, *payload.get(1)?, word(payload.get(4..8)?)?))
        });
        Ok(found.collect())
    }
    /// The routes of the main table.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let replies = self.query(Message::new(RTM_GETROUTE, 0, &[0; 12]), true)?;
        let found = replies.iter().filter_map(|reply| {
            let header = reply.payload.get(..12)?;
            if header[4] != MAIN_TABLE || header[7] != 1 {
                return None;
            }
            let mut to = match i32::from(header[0]) {
                libc::AF_INET => IpAddr::from([0u8; 4]),
                libc::AF_INET6 => IpAddr::from([0u8; 16]),
                _ => return None,
            };
            let (mut link, mut metric) = (0, 0);
            for (kind, value) in attributes(&reply.payload[12..]) {
                match kind {
                    1 => to = address(value)?,
                    4 => link = word(value)?,
                    6 => metric = word(value)?,
                    _ => {}
                }
            }
            Some(Route { to: (to, header[1]), link, metric })
        });
        Ok(found.collect())
    }
}
