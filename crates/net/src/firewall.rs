//! The firewall as data: one nf_tables table an engine (`inet cauldron` or `inet cauldron-<instance>`), whose rules
//! never change; networks and published ports are elements of its sets and maps.
//!
//! What the rules say: containers reach each other within one network and the world outside (masqueraded), unless the
//! network is internal; networks are closed to each other and to the outside but for published ports and answers.
//! Published ports work from outside, from this host (its loopback too) and from containers through any address of
//! the host. Packets from elsewhere to 127.0.0.0/8 are dropped before anything redirects them (the hole of
//! CVE-2020-8558 and of loopback-only published ports).
//!
//! An accept here does not overrule a drop elsewhere: where `DOCKER-USER` exists, the `FORWARD` chain of iptables drops
//! by policy, or firewalld rejects what it does not know, two accepting rules a bridge go there; the table above still
//! decides for our bridges. Nothing else of the machine's firewall is touched. Rules of `iptables-legacy` are not in
//! nf_tables: where those drop, they are the administrator's to change (`info` says so).

use model::Result;
use model::container::Protocol;
use model::error::Context as _;
use model::network::Cidr;
use std::net::IpAddr;
use sys::netlink::Socket;
use sys::netlink::nft::{self, Batch, Element, Expression as Is, Hook, INET, Set, Verdict, datatype};

use crate::PublishedPort;

/// Where foreign firewalls keep rules that are ours to add: (family, table, chain, only where its policy is to drop).
/// The first four are those of iptables and whatever builds on it (Docker, ufw), the last is firewalld's.
const FOREIGN: [(u8, &str, &str, bool); 5] = [
    (nft::IPV4, "filter", "DOCKER-USER", false),
    (nft::IPV4, "filter", "FORWARD", true),
    (nft::IPV6, "filter", "DOCKER-USER", false),
    (nft::IPV6, "filter", "FORWARD", true),
    (INET, "firewalld", "filter_FORWARD", false),
];
const ESTABLISHED_RELATED: u32 = 0b110;
const DESTINATION_CHANGED: u32 = 1 << 5;
const TCP: u8 = 6;
/// The flag in the byte of TCP's flags.
const SYN: u8 = 2;
const LOOPBACK6: [u8; 16] = std::net::Ipv6Addr::LOCALHOST.octets();
const TYPE_LOCAL: [u8; 4] = 2u32.to_ne_bytes();

/// A bridge and what the rules must know of it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) bridge: String,
    pub(crate) subnets: Vec<Cidr>,
    pub(crate) internal: bool,
    pub(crate) masquerade: bool,
    pub(crate) talk: bool,
}

/// A published port and where it leads.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) port: PublishedPort,
    pub(crate) to: IpAddr,
}

/// One engine's table.
pub(crate) struct Firewall {
    socket: Socket,
    table: String,
}

impl Firewall {
    pub(crate) fn open(instance: &str) -> Result<Self> {
        let socket = Socket::netfilter().context(|| "open a netfilter socket")?;
        Ok(Self { socket, table: table_name(instance) })
    }
    /// The table's name.
    pub(crate) fn name(&self) -> &str {
        &self.table
    }
    fn commit(&mut self, batch: Batch) -> Result<()> {
        let table = &self.table;
        self.socket.commit(batch).context(|| format!("change firewall table inet {table}")).map_err(|error| {
            match error.kind() {
                model::Kind::NotFound => {
                    error.hint("the kernel lacks nf_tables, or a part of it (nft_nat, nft_masq, nft_fib)")
                }
                _ => error,
            }
        })
    }
    /// Whether all chains have all of their rules.
    pub(crate) fn is_whole(&mut self) -> Result<bool> {
        let mut uses: std::collections::BTreeMap<&str, u32> =
            CHAINS.iter().map(|(chain, ..)| (*chain, 0)).collect();
        uses.insert(PUBLISH, 0);
        // What the kernel counts for a chain: its rules, and the jumps to it.
        rules(&mut |chain: &'static str, rule: &[Is<'_>]| {
            *uses.entry(chain).or_default() += 1;
            let jumps = rule.iter().filter(|part| matches!(part, Is::Verdict(Verdict::Jump(_)))).count();
            *uses.entry(PUBLISH).or_default() += u32::try_from(jumps).unwrap_or(0);
        });
        for (chain, wanted) in uses {
            let what = || format!("look at chain {chain} of firewall table inet {}", self.table);
            if self.socket.chain_rules(INET, &self.table, chain).context(what)? != Some(wanted) {
                return Ok(false);
            }
        }
        Ok(true)
    }
    /// How the table is, as far as one look tells: cheap, for every start of a container.
    pub(crate) fn state(&mut self) -> Result<State> {
        let table = &self.table;
        let what = || format!("look for firewall table inet {table}");
        Ok(match self.socket.chain_rules(INET, table, "forward").context(what)? {
            Some(0) => State::Damaged,
            Some(_) => State::Whole,
            None if self.socket.has_table(INET, table).context(what)? => State::Damaged,
            None => State::Missing,
        })
    }
    /// Makes the table with its rules and these elements, in one transaction. One that is there is replaced.
    pub(crate) fn create(&mut self, state: State, segments: &[Segment], forwards: &[Forward]) -> Result<()> {
        let mut batch = Batch::new();
        if state != State::Missing {
            batch.delete_table(INET, &self.table);
        }
        skeleton(&mut batch, &self.table);
        for (set, elements) in all_elements(segments) {
            batch.add(INET, &self.table, set, &elements);
        }
        for forward in forwards {
            let (map, element) = forward_element(forward);
            batch.add(INET, &self.table, map, &[element]);
        }
        self.commit(batch)
    }
    /// Adds a bridge.
    pub(crate) fn add_segment(&mut self, segment: &Segment) -> Result<()> {
        let mut batch = Batch::new();
        for (set, elements) in segment_elements(segment) {
            batch.add(INET, &self.table, set, &elements);
        }
        self.commit(batch)
    }
    /// Adds what sets lack: one by one, because a range that is there already is an error.
    pub(crate) fn complete(&mut self, segments: &[Segment]) -> Result<()> {
        for (set, elements) in all_elements(segments) {
            let mut batch = Batch::new();
            batch.add(INET, &self.table, set, &elements);
            match self.commit(batch) {
                Err(error) if error.kind() == model::Kind::AlreadyExists => {}
                result => result?,
            }
        }
        Ok(())
    }
    /// Takes a bridge out.
    pub(crate) fn remove_segment(&mut self, segment: &Segment) -> Result<()> {
        let mut batch = Batch::new();
        for (set, elements) in segment_elements(segment) {
            batch.remove(INET, &self.table, set, &elements);
        }
        forgive_missing(self.commit(batch))
    }
    /// Opens ports. An element that a crash has left is replaced.
    pub(crate) fn publish(&mut self, forwards: &[Forward]) -> Result<()> {
        match self.commit(elements(&self.table, forwards, true)) {
            Err(_) if !forwards.is_empty() => {
                self.unpublish(forwards)?;
                self.commit(elements(&self.table, forwards, true))
            }
            result => result,
        }
    }
    /// Forgets the UDP flows that lead to these ports: a flow that the kernel tracks goes where it went, whether or not
    /// that container is there, for as long as datagrams come. Flows from before a port was opened need nothing: they reach the
    /// monitor's socket, and its relay. Where the kernel cannot list flows they end by themselves.
    pub(crate) fn forget_flows(&mut self, ports: &[PublishedPort]) {
        let mut numbers: Vec<u16> = ports
            .iter()
            .filter(|port| port.container.protocol == Protocol::Udp)
            .map(|port| port.host_port)
            .collect();
        numbers.dedup();
        if !numbers.is_empty() {
            let _ = self.socket.forget_udp_flows(&numbers);
        }
    }
    /// Closes ports: one that is not there does not keep the others open.
    pub(crate) fn unpublish(&mut self, forwards: &[Forward]) -> Result<()> {
        match self.commit(elements(&self.table, forwards, false)) {
            Err(error) if error.kind() == model::Kind::NotFound => {}
            result => return result,
        }
        for forward in forwards {
            forgive_missing(self.commit(elements(&self.table, std::slice::from_ref(forward), false)))?;
        }
        Ok(())
    }
    /// Removes the table.
    pub(crate) fn remove(&mut self) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete_table(INET, &self.table);
        forgive_missing(self.commit(batch))
    }
    /// The tables of other engines of this machine.
    pub(crate) fn others(&mut self) -> Result<Vec<String>> {
        let mut tables = self.socket.tables(INET).context(|| "list firewall tables")?;
        tables.retain(|name| name.starts_with("cauldron") && *name != self.table);
        Ok(tables)
    }
    /// Which of these engines publishes this port, if one does: its table's name.
    pub(crate) fn published_by(&mut self, others: &[String], port: &PublishedPort) -> Result<Option<String>> {
        let (map, key) = forward_key(port);
        for table in others {
            if self.socket.has_element(INET, table, map, &key).unwrap_or(false) {
                return Ok(Some(table.clone()));
            }
        }
        Ok(None)
    }
    /// Lets a bridge's packets through foreign firewalls that drop what they do not know.
    pub(crate) fn allow_in_foreign(&mut self, bridge: &str) -> Result<()> {
        for (family, table, chain, only_dropping) in FOREIGN {
            let what = || format!("firewall chain {table} {chain}");
            let Some(policy) = self.socket.chain_policy(family, table, chain).context(what)? else {
                continue;
            };
            if only_dropping && policy != 0 {
                continue;
            }
            let comment = comment(bridge);
            if self.socket.rules_with_comment(family, table, chain, &comment).context(what)?.is_empty() {
                let name = [bridge.as_bytes(), &[0]].concat();
                let mut batch = Batch::new();
                for key in [nft::META_IN, nft::META_OUT] {
                    let rule = [Is::Meta(key, 1), Is::Compare(1, true, &name), Is::Verdict(Verdict::Accept)];
                    batch.rule(family, (table, chain), &rule, true, &comment);
                }
                self.socket.commit(batch).context(what).map_err(|error| match error.kind() {
                    model::Kind::PermissionDenied => error.hint(format!(
                        "another program owns that table: let it accept what comes from and goes to {bridge}"
                    )),
                    _ => error,
                })?;
            }
        }
        Ok(())
    }
    /// Takes the rules of [`Self::allow_in_foreign`] away.
    pub(crate) fn forget_in_foreign(&mut self, bridge: &str) -> Result<()> {
        for (family, table, chain, _) in FOREIGN {
            let what = || format!("firewall chain {table} {chain}");
            let handles =
                self.socket.rules_with_comment(family, table, chain, &comment(bridge)).context(what)?;
            let mut batch = Batch::new();
            for handle in handles {
                batch.delete_rule(family, (table, chain), handle);
            }
            self.socket.commit(batch).context(what)?;
        }
        Ok(())
    }
}

/// How an engine's table is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not at all.
    Missing,
    /// Somebody took its rules, or a part of it.
    Damaged,
    /// As it was made.
    Whole,
}

/// The name of an engine's table.
pub(crate) fn table_name(instance: &str) -> String {
    if instance.is_empty() { "cauldron".to_owned() } else { format!("cauldron-{instance}") }
}

fn elements(table: &str, forwards: &[Forward], add: bool) -> Batch {
    let mut batch = Batch::new();
    for forward in forwards {
        let (map, element) = forward_element(forward);
        if add {
            batch.add(INET, table, map, &[element]);
        } else {
            batch.remove(INET, table, map, &[element]);
        }
    }
    batch
}

fn comment(bridge: &str) -> String {
    format!("cauldron {bridge}")
}

fn forgive_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == model::Kind::NotFound => Ok(()),
        other => other,
    }
}

/// The chain that other chains of ours jump to.
const PUBLISH: &str = "publish";
/// Chains with hooks: name, type, hook, priority.
const CHAINS: [(&str, &str, u32, i32); 5] = [
    ("guard", "filter", 0, -300),
    ("prerouting", "nat", 0, -100),
    ("output", "nat", 3, -100),
    ("postrouting", "nat", 4, 100),
    ("forward", "filter", 2, 0),
];

/// Tables, chains, sets and rules: what never changes.
fn skeleton(batch: &mut Batch, table: &str) {
    batch.table(INET, table);
    let (name, two_names) = (datatype::INTERFACE, datatype::concat(&[datatype::INTERFACE; 2]));
    let mut set = |name, key, data, interval| batch.set(INET, table, &Set { name, key, data, interval });
    set("bridges", (name, 16), None, false);
    set("internal", (name, 16), None, false);
    set("within", (two_names, 32), None, false);
    for (suffix, address, width) in [("4", datatype::IPV4, 4), ("6", datatype::IPV6, 16)] {
        let data = Some((datatype::concat(&[address, datatype::PORT]), width + 4));
        let any = (datatype::concat(&[datatype::PROTOCOL, datatype::PORT]), 8);
        let one = (datatype::concat(&[address, datatype::PROTOCOL, datatype::PORT]), width + 8);
        let names: [&str; 4] = if suffix == "4" {
            ["networks4", "masquerade4", "ports4", "anywhere4"]
        } else {
            ["networks6", "masquerade6", "ports6", "anywhere6"]
        };
        set(names[0], (address, width), None, true);
        set(names[1], (address, width), None, true);
        set(names[2], one, data, false);
        set(names[3], any, data, false);
    }
    batch.chain(INET, table, PUBLISH, None);
    for (chain, kind, number, priority) in CHAINS {
        batch.chain(INET, table, chain, Some(Hook { kind, number, priority }));
    }
    rules(&mut |chain: &'static str, rule: &[Is<'_>]| batch.rule(INET, (table, chain), rule, false, ""));
}

fn rules(rule: &mut impl FnMut(&'static str, &[Is<'_>])) {
    let lo = nft::interface("lo");
    let (v4, v6) = ([nft::IPV4], [nft::IPV6]);
    rule(
        "guard",
        &[
            Is::Meta(nft::META_IN, 1),
            Is::Compare(1, false, &lo),
            Is::Meta(nft::META_FAMILY, 1),
            Is::Compare(1, true, &v4),
            Is::Payload(1, 16, 1, 1),
            Is::Compare(1, true, &[127]),
            Is::Verdict(Verdict::Drop),
        ],
    );
    for chain in ["prerouting", "output"] {
        rule(
            chain,
            &[
                Is::DestinationType(1),
                Is::Compare(1, true, &TYPE_LOCAL),
                Is::Verdict(Verdict::Jump("publish")),
            ],
        );
    }
    // Only what opens a connection is led: one that was under way while the rules were gone is the relay's.
    rule(
        "publish",
        &[
            Is::Meta(nft::META_PROTOCOL, 1),
            Is::Compare(1, true, &[TCP]),
            Is::Payload(2, 13, 1, 1),
            Is::MaskByte(1, SYN),
            Is::Compare(1, true, &[0]),
            Is::Verdict(Verdict::Return),
        ],
    );
    // Registers: an IPv4 address takes 8, protocol and port the next two; an IPv6 address takes 8 to 11.
    for (family, byte, offset, width, one, any) in
        [(nft::IPV4, &v4, 16, 4, "ports4", "anywhere4"), (nft::IPV6, &v6, 24, 16, "ports6", "anywhere6")]
    {
        let after = 8 + width / 4;
        let of_family = [Is::Meta(nft::META_FAMILY, 1), Is::Compare(1, true, byte)];
        if family == nft::IPV6 {
            // What is for ::1 stays on this host: its answers could not be translated. The relay carries it.
            let here = [Is::Payload(1, offset, width, 1), Is::Compare(1, true, &LOOPBACK6)];
            rule("publish", &[of_family[0], of_family[1], here[0], here[1], Is::Verdict(Verdict::Return)]);
        }
        rule(
            "publish",
            &[
                of_family[0],
                of_family[1],
                Is::Payload(1, offset, width, 1),
                Is::Meta(nft::META_PROTOCOL, after),
                Is::Payload(2, 2, 2, after + 1),
                Is::Lookup(one, 1, Some(1)),
                Is::Dnat(family, 1, after),
            ],
        );
        rule(
            "publish",
            &[
                of_family[0],
                of_family[1],
                Is::Meta(nft::META_PROTOCOL, 1),
                Is::Payload(2, 2, 2, 9),
                Is::Lookup(any, 1, Some(1)),
                Is::Dnat(family, 1, after),
            ],
        );
    }
    let to_bridge = [Is::Meta(nft::META_OUT, 1), Is::Lookup("bridges", 1, None)];
    let status =
        [Is::Conntrack(nft::CT_STATUS, 1), Is::Mask(1, DESTINATION_CHANGED), Is::Compare(1, false, &[0; 4])];
    let sources = [(&v4, 12, 4, "networks4", "masquerade4"), (&v6, 8, 16, "networks6", "masquerade6")];
    for (byte, offset, width, networks, _) in sources {
        let [a, b] = to_bridge;
        let [c, d, e] = status;
        let family = [Is::Meta(nft::META_FAMILY, 1), Is::Compare(1, true, byte)];
        let from = [Is::Payload(1, offset, width, 1), Is::Lookup(networks, 1, None)];
        rule("postrouting", &[a, b, c, d, e, family[0], family[1], from[0], from[1], Is::Masquerade]);
    }
    rule("postrouting", &[to_bridge[0], to_bridge[1], Is::Verdict(Verdict::Return)]);
    for (byte, offset, width, _, masquerade) in sources {
        rule(
            "postrouting",
            &[
                Is::Meta(nft::META_FAMILY, 1),
                Is::Compare(1, true, byte),
                Is::Payload(1, offset, width, 1),
                Is::Lookup(masquerade, 1, None),
                Is::Masquerade,
            ],
        );
    }
    forward_rules(rule);
}

fn forward_rules(rule: &mut impl FnMut(&'static str, &[Is<'_>])) {
    let accept = Is::Verdict(Verdict::Accept);
    let drop = Is::Verdict(Verdict::Drop);
    let [a, b] = [Is::Meta(nft::META_OUT, 1), Is::Lookup("bridges", 1, None)];
    rule(
        "forward",
        &[Is::Meta(nft::META_IN, 1), Is::Meta(nft::META_OUT, 2), Is::Lookup("within", 1, None), accept],
    );
    rule("forward", &[Is::Meta(nft::META_IN, 1), Is::Lookup("internal", 1, None), drop]);
    rule("forward", &[Is::Meta(nft::META_OUT, 1), Is::Lookup("internal", 1, None), drop]);
    for (key, bits) in [(nft::CT_STATE, ESTABLISHED_RELATED), (nft::CT_STATUS, DESTINATION_CHANGED)] {
        rule(
            "forward",
            &[a, b, Is::Conntrack(key, 1), Is::Mask(1, bits), Is::Compare(1, false, &[0; 4]), accept],
        );
    }
    rule("forward", &[a, b, drop]);
}

fn plain(key: Vec<u8>) -> Element {
    Element { key, data: None, end: false }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The two elements that make a range: its first address, and the one after its last.
fn range(subnet: &Cidr) -> Vec<Element> {
    let first = octets(subnet.network().address);
    let mut end = first.clone();
    // Add one at the prefix's last bit.
    let mut carry = subnet.prefix > 0;
    let (mut at, bit) = (usize::from(subnet.prefix.saturating_sub(1)) / 8, (subnet.prefix + 7) % 8);
    let mut step = 1u8 << (7 - bit);
    while carry {
        let (sum, over) = end[at].overflowing_add(step);
        end[at] = sum;
        carry = over && at > 0;
        if over && at == 0 {
            // The range ends with the last address there is: it needs no end.
            return vec![plain(first)];
        }
        at = at.saturating_sub(1);
        step = 1;
    }
    vec![plain(first), Element { key: end, data: None, end: true }]
}

/// What the sets of a table with these bridges hold.
fn all_elements(segments: &[Segment]) -> impl Iterator<Item = (&'static str, Vec<Element>)> {
    let loopback = Cidr { address: IpAddr::from([127, 0, 0, 0]), prefix: 8 };
    std::iter::once(("networks4", range(&loopback))).chain(segments.iter().flat_map(segment_elements))
}

fn segment_elements(segment: &Segment) -> Vec<(&'static str, Vec<Element>)> {
    let name = nft::interface(&segment.bridge).to_vec();
    let mut all = vec![("bridges", vec![plain(name.clone())])];
    if segment.internal {
        all.push(("internal", vec![plain(name.clone())]));
    }
    if segment.talk {
        all.push(("within", vec![plain([name.clone(), name].concat())]));
    }
    for subnet in &segment.subnets {
        let v4 = subnet.address.is_ipv4();
        all.push((if v4 { "networks4" } else { "networks6" }, range(subnet)));
        if segment.masquerade && !segment.internal {
            all.push((if v4 { "masquerade4" } else { "masquerade6" }, range(subnet)));
        }
    }
    all
}

fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn padded_port(port: u16) -> [u8; 4] {
    let [a, b] = port.to_be_bytes();
    [a, b, 0, 0]
}

fn forward_key(port: &PublishedPort) -> (&'static str, Vec<u8>) {
    let service = [[protocol(port.container.protocol), 0, 0, 0], padded_port(port.host_port)].concat();
    match (port.host_ip.is_unspecified(), port.host_ip.is_ipv4()) {
        (true, true) => ("anywhere4", service),
        (true, false) => ("anywhere6", service),
        (false, v4) => (if v4 { "ports4" } else { "ports6" }, [octets(port.host_ip), service].concat()),
    }
}

fn forward_element(forward: &Forward) -> (&'static str, Element) {
    let (map, key) = forward_key(&forward.port);
    let data = [octets(forward.to), padded_port(forward.port.container.number).to_vec()].concat();
    (map, Element { key, data: Some(data), end: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_after_their_last_address() {
        let ends = |text: &str| {
            range(&Cidr::parse(text).expect("a subnet")).into_iter().map(|e| e.key).collect::<Vec<_>>()
        };
        assert_eq!(ends("10.88.0.0/16"), [vec![10, 88, 0, 0], vec![10, 89, 0, 0]]);
        assert_eq!(ends("10.255.255.7/24"), [vec![10, 255, 255, 0], vec![11, 0, 0, 0]]);
        assert_eq!(ends("192.168.0.0/20"), [vec![192, 168, 0, 0], vec![192, 168, 16, 0]]);
        assert_eq!(ends("10.0.0.4/30"), [vec![10, 0, 0, 4], vec![10, 0, 0, 8]]);
        assert_eq!(ends("255.255.255.0/24"), [vec![255, 255, 255, 0]]);
        assert_eq!(ends("10.0.0.5/32"), [vec![10, 0, 0, 5], vec![10, 0, 0, 6]]);
    }
}
