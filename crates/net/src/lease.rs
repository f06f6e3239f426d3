//! Address leases and endpoint records: files only, no kernel work.

use model::container::EndpointSpec;
use model::error::Context as _;
use model::network::{NetworkSpec, Subnet};
use model::{ContainerId, Error, Kind, NetworkId, Result};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::record::{CHOSEN, names, private_dir, random, read_json, write_json};
use crate::{Endpoint, Networks, choose, kernel, parent};

/// The driver option that names an endpoint's interface inside.
const IFNAME_OPTION: &str = "com.docker.network.endpoint.ifname";

impl Networks {
    /// Leases addresses for one endpoint, which answers to these names: files only, no kernel work.
    ///
    /// # Errors
    /// No such network, an address out of the subnet or taken (by whom), an exhausted subnet.
    pub fn reserve(
        &self,
        container: &ContainerId,
        wanted: &EndpointSpec,
        names_of_it: &[String],
    ) -> Result<Endpoint> {
        let _lock = self.files_lock()?;
        let mut network = self.get(&wanted.network)?;
        if network.driver != "bridge" && !parent::is_parented(&network.driver) {
            return Err(Error::invalid(format!(
                "container cannot be connected to the {} network together with others",
                network.name
            )));
        }
        let dir = self.endpoint_dir(container);
        let record = dir.join(format!("{}.json", network.name));
        if record.exists() {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!(
                    "endpoint with name {} already exists in network {}",
                    container.short(),
                    network.name
                ),
            ));
        }
        let leases = self.lease_dir(&network);
        if network.driver == "bridge" && names(&leases)?.is_empty() {
            self.make_sure_of_subnets(&mut network)?;
        }
        private_dir(&leases)?;
        private_dir(&dir)?;
        let mut held = Vec::new();
        let leased = self.fill(container, &network, wanted, &mut held);
        let made = leased.and_then(|mut endpoint| {
            endpoint.names = names_of_it.to_vec();
            held.push(record.clone());
            sys::failpoint!("network: addresses leased");
            write_json(&record, &endpoint, false)?;
            self.announce(container, &endpoint)?;
            Ok(endpoint)
        });
        made.map_err(|error| {
            let failures = held.iter().filter_map(|path| remove(path).err()).collect::<Vec<_>>();
            // Only where this was to be its first endpoint.
            let _ = std::fs::remove_dir(&dir);
            error.with_undo_failures(failures)
        })
    }
    fn fill(
        &self,
        container: &ContainerId,
        network: &NetworkSpec,
        wanted: &EndpointSpec,
        held: &mut Vec<PathBuf>,
    ) -> Result<Endpoint> {
        let v4 = network.subnets.iter().find(|subnet| subnet.net.address.is_ipv4());
        let v6 = network.subnets.iter().find(|subnet| subnet.net.address.is_ipv6());
        let static_ip = wanted.ipv4.map(IpAddr::V4).into_iter().chain(wanted.ipv6.map(IpAddr::V6)).next();
        if static_ip.is_some() && network.name == "bridge" {
            return Err(Error::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if wanted.ipv4.is_some() && network.options.contains_key(CHOSEN) {
            return Err(Error::invalid(
                "invalid endpoint settings: user specified IP address is supported only when connecting to networks with user configured subnets",
            )
            .hint("give the network a --subnet"));
        }
        let mut lease = |subnet: Option<&Subnet>, ip: Option<IpAddr>| match (subnet, ip) {
            (Some(subnet), ip) => self.lease(container, network, subnet, ip, held).map(Some),
            (None, None) => Ok(None),
            (None, Some(ip)) => Err(out_of_subnet(ip, network)),
        };
        let ipv4 = lease(v4, wanted.ipv4.map(IpAddr::V4))?;
        let ipv6 = lease(v6, wanted.ipv6.map(IpAddr::V6))?;
        let mac = match &wanted.mac {
            Some(text) if !text.is_empty() => choose::parse_mac(text)
                .ok_or_else(|| Error::invalid(format!("invalid MAC address: {text}")))?,
            _ => ipv4.or(ipv6).map_or([0x02, 0x42, 0, 0, 0, 0], choose::mac),
        };
        let gateway = |subnet: Option<&Subnet>| {
            subnet
                .and_then(|subnet| subnet.gateway)
                .filter(|_| !network.internal && !parent::is_routed(network))
        };
        Ok(Endpoint {
            id: NetworkId::from_bytes(random()).as_str().to_owned(),
            network: network.name.clone(),
            network_id: network.id.clone(),
            ipv4: ipv4.and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
            ipv4_prefix: v4.map_or(0, |subnet| subnet.net.prefix),
            gateway: gateway(v4).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
            ipv6: ipv6.and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
            ipv6_prefix: v6.map_or(0, |subnet| subnet.net.prefix),
            gateway6: gateway(v6).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
            mac: choose::mac_text(mac),
            interface: self.free_interface(container, wanted)?,
            names: Vec::new(),
            routed: parent::is_routed(network) && !network.internal,
            bridged: network.driver == "bridge",
            spec: wanted.clone(),
        })
    }
    fn lease(
        &self,
        container: &ContainerId,
        network: &NetworkSpec,
        subnet: &Subnet,
        ip: Option<IpAddr>,
        held: &mut Vec<PathBuf>,
    ) -> Result<IpAddr> {
        let dir = self.lease_dir(network);
        let taken: BTreeSet<IpAddr> = names(&dir)?.iter().filter_map(|name| name.parse().ok()).collect();
        let ip = match ip {
            Some(ip) if !choose::is_usable(subnet, ip) => return Err(out_of_subnet(ip, network)),
            Some(ip) => ip,
            None => choose::address(subnet, &taken).ok_or_else(|| {
                Error::new(
                    Kind::ResourceExhausted,
                    format!(
                        "no available IPv4 addresses on this network's address pools: {} ({})",
                        network.name, network.id
                    ),
                )
            })?,
        };
        let path = dir.join(ip.to_string());
        match std::os::unix::fs::symlink(container.as_str(), &path) {
            Ok(()) => {
                held.push(path);
                Ok(ip)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let owner = std::fs::read_link(&path).map(|target| target.to_string_lossy().into_owned());
                let owner = owner.unwrap_or_default();
                Err(Error::new(Kind::PermissionDenied, format!("Address already in use: {ip}")).hint(
                    format!(
                        "container {} has it in network {}",
                        owner.get(..12).unwrap_or(&owner),
                        network.name
                    ),
                ))
            }
            Err(error) => Err(error).context(|| format!("create {}", path.display())),
        }
    }
    fn free_interface(&self, container: &ContainerId, wanted: &EndpointSpec) -> Result<String> {
        let used: Vec<String> =
            self.endpoints(container)?.into_iter().map(|endpoint| endpoint.interface).collect();
        if let Some(name) = wanted.driver_opts.get(IFNAME_OPTION) {
            kernel::check_name(name)?;
            if name == "lo" || used.contains(name) {
                return Err(Error::invalid(format!(
                    "{IFNAME_OPTION}={name}: the container has that interface"
                )));
            }
            return Ok(name.clone());
        }
        let free = (0..).map(|number: u32| format!("eth{number}")).find(|name| !used.contains(name));
        Ok(free.unwrap_or_default())
    }
    /// A container's endpoints in order of precedence: the first that has a gateway gives the default route. The higher
    /// `gw-priority` comes first, then the network's name decides, as in Docker.
    pub(crate) fn by_precedence(&self, container: &ContainerId) -> Result<Vec<Endpoint>> {
        let mut all = self.endpoints(container)?;
        all.sort_by(|a, b| {
            b.spec.gw_priority.cmp(&a.spec.gw_priority).then_with(|| a.network.cmp(&b.network))
        });
        Ok(all)
    }
    /// A container's endpoints, in the order in which they were made.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn endpoints(&self, container: &ContainerId) -> Result<Vec<Endpoint>> {
        let dir = self.endpoint_dir(container);
        let mut all: Vec<Endpoint> = Vec::new();
        for name in names(&dir)?.iter().filter(|name| name.ends_with(".json") && *name != PORTS) {
            all.extend(read_json(&dir.join(name))?);
        }
        let number = |endpoint: &Endpoint| {
            endpoint.interface.trim_start_matches("eth").parse::<u32>().unwrap_or(u32::MAX)
        };
        all.sort_by_key(number);
        Ok(all)
    }
    /// Who is on a network.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn members(&self, network: &str) -> Result<Vec<(ContainerId, Endpoint)>> {
        let network = self.get(network)?;
        let dir = self.lease_dir(&network);
        let mut ids = BTreeSet::new();
        for name in names(&dir)? {
            let owner = std::fs::read_link(dir.join(&name)).ok();
            ids.extend(owner.and_then(|owner| ContainerId::parse(&owner.to_string_lossy()).ok()));
        }
        let mut members = Vec::new();
        for id in ids {
            let record = self.endpoint_dir(&id).join(format!("{}.json", network.name));
            if let Some(endpoint) = read_json(&record)? {
                members.push((id, endpoint));
            }
        }
        Ok(members)
    }
    /// Gives back the addresses and the record of one endpoint.
    pub(crate) fn forget(&self, container: &ContainerId, endpoint: &Endpoint) -> Result<()> {
        let leases = self.config().run_dir.join("leases").join(endpoint.network_id.as_str());
        let addresses = endpoint.ipv4.map(IpAddr::V4).into_iter().chain(endpoint.ipv6.map(IpAddr::V6));
        for ip in addresses {
            let path = leases.join(ip.to_string());
            if std::fs::read_link(&path).is_ok_and(|owner| owner.as_os_str() == container.as_str()) {
                remove(&path)?;
            }
        }
        self.withdraw(container, endpoint)?;
        remove(&self.endpoint_dir(container).join(format!("{}.json", endpoint.network)))
    }
    /// Leases of a container that no record names: it died in between.
    pub(crate) fn forget_strays(&self, container: &ContainerId) -> Result<()> {
        let leases = self.config().run_dir.join("leases");
        for network in names(&leases)? {
            let dir = leases.join(network);
            for name in names(&dir)? {
                let path = dir.join(name);
                if std::fs::read_link(&path).is_ok_and(|owner| owner.as_os_str() == container.as_str()) {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }
    pub(crate) fn lease_dir(&self, network: &NetworkSpec) -> PathBuf {
        self.config().run_dir.join("leases").join(network.id.as_str())
    }
    /// Where the records of a container's endpoints and ports are, while it has any.
    pub fn endpoint_dir(&self, container: &ContainerId) -> PathBuf {
        self.config().run_dir.join("endpoints").join(container.as_str())
    }
}

/// The record of open ports beside those of endpoints; no network has a slash in its name, nor this name's start.
pub(crate) const PORTS: &str = "+ports.json";

fn out_of_subnet(ip: IpAddr, network: &NetworkSpec) -> Error {
    Error::invalid(format!("invalid address {ip}: It does not belong to any of this network's subnets"))
        .hint(format!("network {} has {}", network.name, subnets(network)))
}

fn subnets(network: &NetworkSpec) -> String {
    network.subnets.iter().map(|subnet| subnet.net.to_string()).collect::<Vec<_>>().join(", ")
}

/// Removes a file or a directory; one that is not there is as good as removed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    sys::fs::remove(path).context(|| format!("remove {}", path.display()))
}
