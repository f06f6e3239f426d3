//! What a container's resolver (127.0.0.11) answers: names of its networks by itself, the rest for others to say.
//!
//! A network's names are a [`zone`]: a text of one line a member. The resolver of a container looks through the zones of its
//! networks in the order of its endpoints; the first that knows a name answers, with every address that the name has there.
//! A name that is known and has no record of the asked type gets an empty answer, never "no such name": a client that asks for
//! an IPv6 address of a container without one must not conclude that there is no such container.

pub mod message;
pub mod zone;

use crate::ContainerId;
use crate::container::HostPath;
use message::{Code, Query};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The address of the resolver inside a container: Docker's.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Seconds that an address of a container may be kept: it may be another one after its next start.
const TTL: u32 = 60;

/// What a container's resolver is told: `resolver.json` in its run directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its networks, in the order in which they are asked.
    pub networks: Vec<Network>,
    /// Names that only this container knows others by.
    pub links: Vec<Link>,
    /// Name servers for the rest, in order.
    pub servers: Vec<Server>,
    /// The servers are this machine's, whatever they are at the time.
    #[serde(default)]
    pub host_servers: bool,
    /// Whether anything may be asked outside: false where all networks are internal.
    pub external: bool,
}

/// A network and where its zone lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The file with its zone.
    pub zone: HostPath,
}

/// A name that stands for a container in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The name.
    pub alias: String,
    /// The network.
    pub network: String,
    /// The container; `None`: it was not there yet when this was written.
    pub container: Option<ContainerId>,
    /// What the container was called then: whoever has this name in the network is meant where the container is not known.
    pub target: String,
}

/// A name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Where.
    pub address: SocketAddr,
    /// Asked from inside the container: its own loopback (`--dns 127.0.0.1`).
    pub inside: bool,
}

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This is sent back.
    Reply(Vec<u8>),
    /// A name server is asked.
    Forward,
}

/// Answers a query from the zones, or says that a name server must. `zones` are the texts of `config.networks`. `room`: bytes of
/// an answer; `turn` says which of several addresses comes first.
pub fn decide(query: &Query<'_>, config: &Config, zones: &[&str], room: usize, turn: usize) -> Decision {
    use message::{ANY, AXFR, INTERNET, IXFR};
    let refused = |code| Decision::Reply(query.reply(code, &[], room));
    if query.opcode() != 0 {
        return refused(Code::NotImplemented);
    }
    if matches!(query.kind, AXFR | IXFR) || !matches!(query.class, INTERNET | ANY) {
        return refused(Code::Refused);
    }
    if query.kind == message::PTR
        && let Some(names) = zone::reverse(&query.name).and_then(|ip| names_of(ip, config, zones))
    {
        let records: Vec<_> = names.into_iter().map(|name| message::Record::Name(TTL, name)).collect();
        return Decision::Reply(query.reply(Code::Success, &records, room));
    }
    let Some(mut addresses) = addresses(&query.name, config, zones) else {
        return if config.external && !config.servers.is_empty() {
            Decision::Forward
        } else {
            refused(Code::ServerFailure)
        };
    };
    addresses.retain(|ip| match query.kind {
        message::A => ip.is_ipv4(),
        message::AAAA => ip.is_ipv6(),
        ANY => true,
        _ => false,
    });
    let count = addresses.len().max(1);
    addresses.rotate_left(turn % count);
    let records: Vec<_> = addresses.into_iter().map(|ip| message::Record::Address(TTL, ip)).collect();
    Decision::Reply(query.reply(Code::Success, &records, room))
}

/// The addresses of a name; `None` where no network knows it. `name.network` is a name in that network alone.
fn addresses(name: &str, config: &Config, zones: &[&str]) -> Option<Vec<IpAddr>> {
    let all = || config.networks.iter().zip(zones);
    let within = |name: &str, (network, zone): (&Network, &&str)| {
        let linked = config.links.iter().find(|link| {
            link.network == network.name && link.alias.trim_end_matches('.').eq_ignore_ascii_case(name)
        });
        linked
            .and_then(|link| match &link.container {
                Some(container) => zone::of_container(zone, container),
                None => zone::addresses(zone, &link.target),
            })
            .or_else(|| zone::addresses(zone, name))
    };
    all().find_map(|place| within(name, place)).or_else(|| {
        all().find_map(|(network, zone)| {
            let dot = name.len().checked_sub(network.name.len() + 1)?;
            let suffix = name.get(dot..)?.strip_prefix('.')?;
            suffix.eq_ignore_ascii_case(&network.name).then(|| within(&name[..dot], (network, zone)))?
        })
    })
}

fn names_of(ip: IpAddr, config: &Config, zones: &[&str]) -> Option<Vec<String>> {
    config.networks.iter().zip(zones).find_map(|(network, zone)| {
        zone::name_of(zone, ip).map(|name| vec![format!("{name}.{}", network.name)])
    })
}

#[cfg(test)]
mod tests {
    use super::message::tests::{question, texts};
    use super::*;

    fn id(digit: char) -> ContainerId {
        ContainerId::parse(&digit.to_string().repeat(64)).expect("an id")
    }

    fn config() -> Config {
        let network = |name: &str| Network { name: name.to_owned(), zone: HostPath("/zone".into()) };
        Config {
            networks: vec![network("back"), network("front")],
            links: vec![
                Link {
                    alias: "store".to_owned(),
                    network: "back".to_owned(),
                    container: Some(id('a')),
                    target: "gone".to_owned(),
                },
                Link {
                    alias: "later".to_owned(),
                    network: "back".to_owned(),
                    container: None,
                    target: "db".to_owned(),
                },
            ],
            servers: vec![Server { address: SocketAddr::from(([192, 0, 2, 53], 53)), inside: false }],
            host_servers: false,
            external: true,
        }
    }

    fn zones() -> [String; 2] {
        let line = |digit, ips: &[&str], names: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
            zone::line(&id(digit), &ips, names.iter().copied())
        };
        [
            line('a', &["10.1.0.2", "fd00::2"], &["db", "data", "aaaaaaaaaaaa"])
                + &line('b', &["10.1.0.3"], &["web1", "web"])
                + &line('c', &["10.1.0.4"], &["web2", "web"]),
            line('a', &["10.2.0.2"], &["db"]) + &line('d', &["10.2.0.9"], &["proxy"]),
        ]
    }

    fn ask(name: &str, kind: u16) -> Option<Vec<String>> {
        let zones = zones();
        let bytes = question(name, kind, None);
        let query = Query::parse(&bytes).expect("a query");
        match decide(&query, &config(), &[&zones[0], &zones[1]], 512, 0) {
            Decision::Forward => None,
            Decision::Reply(bytes) => Some(texts(&bytes)),
        }
    }

    #[test]
    fn names_of_the_networks() {
        for (name, kind, expected) in [
            ("db", message::A, Some(vec!["0", "10.1.0.2"])),
            ("DB", message::A, Some(vec!["0", "10.1.0.2"])),
            ("db", message::AAAA, Some(vec!["0", "fd00::2"])),
            ("aaaaaaaaaaaa", message::A, Some(vec!["0", "10.1.0.2"])),
            ("store", message::A, Some(vec!["0", "10.1.0.2"])),
            ("web", message::A, Some(vec!["0", "10.1.0.3", "10.1.0.4"])),
            ("web", message::AAAA, Some(vec!["0"])),
            ("web", 15, Some(vec!["0"])),
            ("proxy", message::A, Some(vec!["0", "10.2.0.9"])),
            ("db.front", message::A, Some(vec!["0", "10.2.0.2"])),
            ("proxy.back", message::A, None),
            ("example.org", message::A, None),
            ("front", message::A, None),
            (".front", message::A, None),
            ("2.0.1.10.in-addr.arpa", message::PTR, Some(vec!["0", "db.back"])),
            ("9.0.2.10.in-addr.arpa", message::PTR, Some(vec!["0", "proxy.front"])),
            ("1.0.0.127.in-addr.arpa", message::PTR, None),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn several_addresses_take_turns() {
        let zones = zones();
        let bytes = question("web", message::A, None);
        let query = Query::parse(&bytes).expect("a query");
        let Decision::Reply(bytes) = decide(&query, &config(), &[&zones[0], &zones[1]], 512, 1) else {
            panic!("known")
        };
        assert_eq!(texts(&bytes), ["0", "10.1.0.4", "10.1.0.3"]);
    }

    #[test]
    fn internal_networks_ask_nobody() {
        let bytes = question("example.org", message::A, None);
        let query = Query::parse(&bytes).expect("a query");
        let closed = Config { external: false, ..config() };
        let Decision::Reply(bytes) = decide(&query, &closed, &["", ""], 512, 0) else {
            panic!("no forwarding")
        };
        assert_eq!(texts(&bytes), ["2"]);
    }

    #[test]
    fn transfers_and_other_classes_are_refused() {
        let zones = zones();
        let mut bytes = question("db", message::A, None);
        let end = bytes.len();
        bytes[end - 1] = 3;
        let chaos = Query::parse(&bytes).expect("a query");
        let transfer = question("db", message::AXFR, None);
        let transfer = Query::parse(&transfer).expect("a query");
        for query in [chaos, transfer] {
            let Decision::Reply(bytes) = decide(&query, &config(), &[&zones[0], &zones[1]], 512, 0) else {
                panic!("refused")
            };
            assert_eq!(texts(&bytes), ["5"]);
        }
    }
}
