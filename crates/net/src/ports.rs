//! Host ports: which are free, who has them. Under the lock on files.
//!
//! A port is recorded here, led to its container by the firewall, and held by the container's monitor, which has a
//! socket on it for as long as the container lives.

use model::bundle::HeldPort;
use model::container::{PortBinding, Protocol};
use model::error::Context as _;
use model::{ContainerId, Error, Kind, Result, limits};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use sys::socket::Transport;

use crate::firewall::Firewall;
use crate::lease::{PORTS, remove};
use crate::record::{names, read_json, write_json};
use crate::{Endpoint, Networks, Publish, PublishPolicy, PublishedPort, holder};

/// The network option that says where its ports are published.
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// Where free ports are chosen from, unless the kernel says otherwise: its own range for local ports.
const EPHEMERAL: (u16, u16) = (32768, 60999);

impl Networks {
    /// A container's open ports.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn ports(&self, container: &ContainerId) -> Result<Vec<PublishedPort>> {
        Ok(read_json(&self.endpoint_dir(container).join(PORTS))?.unwrap_or_default())
    }
    /// What the monitor shall hold for a container: its open ports, each with the address that it leads to.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn held_by(&self, container: &ContainerId) -> Result<Vec<HeldPort>> {
        let ports = self.ports(container)?;
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let endpoints = self.by_precedence(container)?;
        let Some(endpoint) = leads_out(&endpoints) else {
            return Ok(Vec::new());
        };
        let held = ports.iter().filter_map(|port| {
            let (v4, v6) = (endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6));
            let to = if port.host_ip.is_ipv4() { v4.or(v6) } else { v6.or(v4) }?;
            Some(HeldPort {
                protocol: port.container.protocol,
                host: SocketAddr::new(port.host_ip, port.host_port),
                to: SocketAddr::new(to, port.container.number),
            })
        });
        Ok(held.take(limits::HELD_PORTS).collect())
    }
    /// Chooses and records host ports for these bindings. What was taken is given back where one fails.
    pub(crate) fn take_ports(
        &self,
        container: &ContainerId,
        endpoint: &Endpoint,
        publish: &Publish<'_>,
        firewall: &mut Firewall,
    ) -> Result<Vec<PublishedPort>> {
        let defaults = self.default_addresses(endpoint)?;
        let others = firewall.others()?;
        let _lock = self.files_lock()?;
        let mut taken = self.held_ports()?;
        let mut mine: Vec<PublishedPort> = Vec::new();
        for binding in publish.ports {
            let mut addresses = binding.host_ip.map_or_else(|| defaults.clone(), |ip| vec![ip]);
            if binding.host_ip.is_none() && binding.container.protocol == Protocol::Sctp {
                // No relay carries SCTP.
                addresses.retain(|ip| ip.is_ipv4() || endpoint.ipv6.is_some());
            }
            let mut check = |port: &PublishedPort| {
                let endpoint = (endpoint, publish.name);
                self.check(endpoint, port, (&taken, &others), firewall, publish.name_of)
            };
            match self.take_one(container, binding, &addresses, &mut check) {
                Ok(ports) => {
                    taken.extend(ports.iter().map(|port| (Held::of(port), container.as_str().to_owned())));
                    mine.extend(ports);
                }
                Err(error) => {
                    let failures = mine.iter().filter_map(|port| remove(&self.port_path(port)).err());
                    return Err(error.with_undo_failures(failures.collect::<Vec<_>>()));
                }
            }
        }
        let mut all = self.ports(container)?;
        all.extend(mine.iter().cloned());
        write_json(&self.endpoint_dir(container).join(PORTS), &all, false)?;
        Ok(mine)
    }
    /// Where a port is published that names no address: every address, IPv6 ones too where this machine has IPv6.
    fn default_addresses(&self, endpoint: &Endpoint) -> Result<Vec<IpAddr>> {
        let network = self.get(&endpoint.network)?;
        let option = network.options.get(HOST_BINDING).filter(|text| !text.is_empty());
        let option: Option<IpAddr> = option
            .map(|text| {
                text.parse().map_err(|_| Error::invalid(format!("{HOST_BINDING}={text}: want an address")))
            })
            .transpose()?;
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut addresses = match option.filter(|ip| *ip != any).or(self.config().publish_address) {
            Some(ip) if ip != any => return Ok(vec![ip]),
            _ if self.config().publish == PublishPolicy::Loopback => {
                vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            _ => vec![any, IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        };
        if !has_ipv6() {
            addresses.pop();
        }
        Ok(addresses)
    }
    fn take_one(
        &self,
        container: &ContainerId,
        binding: &PortBinding,
        addresses: &[IpAddr],
        check: &mut dyn FnMut(&PublishedPort) -> Result<()>,
    ) -> Result<Vec<PublishedPort>> {
        let (first, last) = binding.host_ports.unwrap_or_else(ephemeral_range);
        let mut refused = None;
        for host_port in first..=last {
            let ports: Vec<PublishedPort> = addresses
                .iter()
                .map(|ip| PublishedPort { container: binding.container, host_ip: *ip, host_port })
                .collect();
            match ports.iter().try_for_each(&mut *check) {
                Ok(()) => {
                    for port in &ports {
                        let path = self.port_path(port);
                        std::os::unix::fs::symlink(container.as_str(), &path)
                            .context(|| format!("create {}", path.display()))?;
                    }
                    return Ok(ports);
                }
                Err(error) if matches!(error.kind(), Kind::Internal) => refused = Some(error),
                // No other port would be better.
                Err(error) => return Err(error),
            }
        }
        let error = refused.unwrap_or_else(|| Error::invalid(format!("invalid port range {first}-{last}")));
        Err(if first == last {
            error
        } else {
            Error::new(Kind::ResourceExhausted, "all ports are allocated").caused_by(error)
        })
    }
    /// Whether a port is free, and allowed.
    fn check(
        &self,
        (endpoint, name): (&Endpoint, &str),
        port: &PublishedPort,
        (taken, others): (&[(Held, String)], &[String]),
        firewall: &mut Firewall,
        name_of: &dyn Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let wanted = Held::of(port);
        let address = SocketAddr::new(port.host_ip, port.host_port);
        if self.config().publish == PublishPolicy::Loopback && !port.host_ip.is_loopback() {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!(
                    "publishing {} on {address} would open it to other machines, which the configuration forbids (publish = \"loopback\")",
                    port.container
                ),
            )
            .hint("publish on 127.0.0.1, or leave the address out"));
        }
        let refused = |why: &str| {
            Error::internal(format!(
                "driver failed programming external connectivity on endpoint {name} ({}): Bind for {address} failed: {why}",
                endpoint.id
            ))
        };
        if let Some((_, owner)) = taken.iter().find(|(held, _)| held.conflicts(&wanted)) {
            let who = name_of(owner).unwrap_or_else(|| owner.get(..12).unwrap_or(owner).to_owned());
            return Err(refused("port is already allocated").hint(format!("container {who} publishes it")));
        }
        if let Some(table) = firewall.published_by(others, port)? {
            return Err(refused("port is already allocated")
                .hint(format!("another engine of this machine publishes it (firewall table inet {table})")));
        }
        match sys::socket::hold_port(transport(wanted.protocol), address) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let hint = match holder::process(wanted.protocol, port.host_port) {
                    Some((pid, program)) => format!("process {pid} ({program}) of this host has it"),
                    None => format!("\"ss -lpn 'sport = :{}'\" shows which process has it", port.host_port),
                };
                Err(refused("port is already allocated: address already in use").hint(hint))
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                Err(refused("cannot assign requested address")
                    .hint(format!("no interface of this machine has the address {}", port.host_ip)))
            }
            Err(error) => Err(refused("cannot be bound").caused_by(error)),
        }
    }
    fn held_ports(&self) -> Result<Vec<(Held, String)>> {
        let dir = self.config().run_dir.join("ports");
        let held = names(&dir)?.into_iter().filter_map(|name| {
            let owner = std::fs::read_link(dir.join(&name)).ok()?;
            Some((Held::parse(&name)?, owner.to_string_lossy().into_owned()))
        });
        Ok(held.collect())
    }
    fn port_path(&self, port: &PublishedPort) -> PathBuf {
        self.config().run_dir.join("ports").join(Held::of(port).to_string())
    }
    /// Gives these ports back.
    pub(crate) fn free_ports(&self, container: &ContainerId, ports: &[PublishedPort]) -> Result<()> {
        let kept: Vec<PublishedPort> =
            self.ports(container)?.into_iter().filter(|port| !ports.contains(port)).collect();
        for port in ports {
            remove(&self.port_path(port))?;
        }
        let record = self.endpoint_dir(container).join(PORTS);
        if kept.is_empty() { remove(&record) } else { write_json(&record, &kept, false) }
    }
}

/// A host port that somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    protocol: Protocol,
    port: u16,
    ip: IpAddr,
}

impl Held {
    fn of(port: &PublishedPort) -> Self {
        Self { protocol: port.container.protocol, port: port.host_port, ip: port.host_ip }
    }
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let protocol = match parts.next()? {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        };
        Some(Self { protocol, port: parts.next()?.parse().ok()?, ip: parts.next()?.parse().ok()? })
    }
    fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && self.ip.is_ipv4() == other.ip.is_ipv4()
            && (self.ip == other.ip || self.ip.is_unspecified() || other.ip.is_unspecified())
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.protocol.as_str(), self.port, self.ip)
    }
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    }
}

/// Whether this machine has IPv6 at all (Docker asks the same question).
fn has_ipv6() -> bool {
    let loopback = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
    matches!(sys::socket::hold_port(Transport::Udp, loopback), Ok(Some(_)))
}

/// The endpoint that ports lead to: of those with a gateway (an internal network has none), the one with the default route, so that
/// answers go back the way by which questions came. `endpoints` are in order of precedence.
pub(crate) fn leads_out(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    endpoints
        .iter()
        .find(|endpoint| endpoint.bridged && (endpoint.gateway.is_some() || endpoint.gateway6.is_some()))
}

fn ephemeral_range() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse::<u16>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first > 0 && first <= last => (first, last),
        _ => EPHEMERAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_conflict_with_every_address() {
        let held = |text: &str| Held::parse(text).expect("a port");
        assert!(held("tcp-80-0.0.0.0").conflicts(&held("tcp-80-127.0.0.1")));
        assert!(held("tcp-80-127.0.0.1").conflicts(&held("tcp-80-127.0.0.1")));
        assert!(!held("tcp-80-127.0.0.1").conflicts(&held("tcp-80-127.0.0.2")));
        assert!(!held("tcp-80-0.0.0.0").conflicts(&held("udp-80-0.0.0.0")));
        assert!(!held("tcp-80-0.0.0.0").conflicts(&held("tcp-80-::")));
        assert_eq!(held("tcp-80-fd00::1").to_string(), "tcp-80-fd00::1");
        assert!(Held::parse("tcp-x-1.2.3.4").is_none());
    }
}
