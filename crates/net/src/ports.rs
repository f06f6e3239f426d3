//! Host ports: which are free, who has them. Under the lock on files.

use model::container::{PortBinding, Protocol};
use model::error::Context as _;
use model::{ContainerId, Error, Kind, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::firewall::Firewall;
use crate::lease::{PORTS, remove};
use crate::record::{names, read_json, write_json};
use crate::{Networks, PublishedPort};

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
    /// Chooses and records host ports for these bindings. What was taken is given back where one fails.
    pub(crate) fn take_ports(
        &self,
        container: &ContainerId,
        bindings: &[PortBinding],
        ipv6: bool,
        firewall: &mut Firewall,
    ) -> Result<Vec<PublishedPort>> {
        let _lock = self.files_lock()?;
        let mut taken = self.held_ports()?;
        let mut mine: Vec<PublishedPort> = Vec::new();
        for binding in bindings {
            match self.take_one(container, binding, ipv6, &taken, firewall) {
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
    fn take_one(
        &self,
        container: &ContainerId,
        binding: &PortBinding,
        ipv6: bool,
        taken: &[(Held, String)],
        firewall: &mut Firewall,
    ) -> Result<Vec<PublishedPort>> {
        let addresses = match binding.host_ip.or(self.config().publish_address) {
            Some(ip) => vec![ip],
            None if ipv6 => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
            None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        };
        let (first, last) = binding.host_ports.unwrap_or_else(ephemeral_range);
        let mut refused = None;
        for host_port in first..=last {
            let ports: Vec<PublishedPort> = addresses
                .iter()
                .map(|ip| PublishedPort { container: binding.container, host_ip: *ip, host_port })
                .collect();
            match ports.iter().try_for_each(|port| check(container, port, taken, firewall)) {
                Ok(()) => {
                    for port in &ports {
                        let path = self.port_path(port);
                        std::os::unix::fs::symlink(container.as_str(), &path)
                            .context(|| format!("create {}", path.display()))?;
                    }
                    return Ok(ports);
                }
                Err(error) => refused = Some(error),
            }
        }
        let error = refused.unwrap_or_else(|| Error::invalid(format!("invalid port range {first}-{last}")));
        Err(if first == last {
            error
        } else {
            Error::new(Kind::ResourceExhausted, "all ports are allocated").caused_by(error)
        })
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

fn check(
    container: &ContainerId,
    port: &PublishedPort,
    taken: &[(Held, String)],
    firewall: &mut Firewall,
) -> Result<()> {
    let wanted = Held::of(port);
    let address = SocketAddr::new(port.host_ip, port.host_port);
    let refused = |why: &str| {
        Error::internal(format!(
            "driver failed programming external connectivity on endpoint {}: Bind for {address} failed: {why}",
            container.short()
        ))
    };
    if let Some((_, owner)) = taken.iter().find(|(held, _)| held.conflicts(&wanted)) {
        return Err(refused("port is already allocated")
            .hint(format!("container {} publishes it", owner.get(..12).unwrap_or(owner))));
    }
    if let Some(table) = firewall.published_elsewhere(port)? {
        return Err(refused("port is already allocated")
            .hint(format!("another engine of this machine publishes it (firewall table inet {table})")));
    }
    match probe(wanted.protocol, address) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(refused("port is already allocated: address already in use").hint(format!(
                "a process of this host has it; \"ss -lpn 'sport = :{}'\" shows which",
                port.host_port
            )))
        }
        Err(error) => Err(refused("cannot be bound").caused_by(error)),
    }
}

/// Whether the port could be bound now: nobody on the host listens there.
fn probe(protocol: Protocol, address: SocketAddr) -> std::io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, transport) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
    };
    let socket = match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, transport) {
        Ok(socket) => socket,
        // A kernel without SCTP or IPv6 has nobody listening there.
        Err(rustix::io::Errno::PROTONOSUPPORT | rustix::io::Errno::AFNOSUPPORT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if protocol == Protocol::Tcp {
        // Old connections in TIME_WAIT are no obstacle, listeners are.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(rustix::net::bind(&socket, &address)?)
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
