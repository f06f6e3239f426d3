//! Networks: made, listed with who is on them, connected to containers that run or do not, removed when nobody is left.
//!
//! A container's wishes are in its specification and, once changed, in `changes.json`; what is in force while it runs is
//! the network crate's, names too: the resolvers of the members read them there.

use model::container::{EndpointSpec, NetworkMode};
use model::error::Context as _;
use model::filter::Filters;
use model::network::NetworkSpec;
use model::time::Timestamp;
use model::{ContainerId, Error, Kind, Result};
use net::Endpoint;
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub use net::NetworkRequest;

use crate::Engine;
use crate::container::{Container, start};

/// Names that cannot be removed, pruned or made.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];
/// How often a connection is tried where other engines of this machine take the subnet each time.
const TRIES: usize = 8;

/// One container of a network.
#[derive(Clone, Debug)]
pub struct Member {
    /// The container.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its place in the network.
    pub endpoint: Endpoint,
}

impl Engine {
    /// Networks by name. Filters: `driver`, `id`, `label`, `name`, `scope`, `type` and `dangling`.
    ///
    /// # Errors
    /// An unknown filter, or a record that cannot be read.
    pub fn networks(&self, filters: &Filters) -> Result<Vec<NetworkSpec>> {
        filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        if let Some(bad) =
            filters.get("type").iter().find(|kind| !matches!(kind.as_str(), "custom" | "builtin"))
        {
            return Err(Error::invalid(format!("invalid filter 'type={bad}'")));
        }
        let dangling = filters.boolean("dangling")?;
        let used = if dangling.is_some() { self.used_networks()? } else { BTreeSet::new() };
        let (ids, names) = (filters.patterns("id"), filters.patterns("name"));
        let mut all = self.networks.list()?;
        all.retain(|network| {
            let builtin = is_predefined(&network.name);
            filters.exact("driver", &network.driver)
                && filters.exact("scope", "local")
                && filters.exact("type", if builtin { "builtin" } else { "custom" })
                && ids.hold(network.id.as_str())
                && names.hold(&network.name)
                && filters.labels("label", &network.labels)
                && dangling.is_none_or(|wanted| wanted == (!builtin && !used.contains(network.id.as_str())))
        });
        Ok(all)
    }
    /// One network by name, id or unambiguous id prefix.
    ///
    /// # Errors
    /// There is no such network.
    pub fn network(&self, name: &str) -> Result<NetworkSpec> {
        self.networks.get(name)
    }
    /// The containers that are on a network now, by name.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn network_members(&self, network: &NetworkSpec) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for (id, endpoint) in self.networks.members(&network.name)? {
            match self.load(&id) {
                Ok(container) if container.live.is_some() => {
                    members.push(Member { name: container.name().to_owned(), id, endpoint });
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(members)
    }
    /// Makes a network.
    ///
    /// # Errors
    /// The name is taken, a subnet overlaps, the pools are exhausted.
    pub fn create_network(&self, request: NetworkRequest) -> Result<NetworkSpec> {
        let network = self.networks.create(request)?;
        self.emit_network("create", &network, None);
        Ok(network)
    }
    /// Removes a network.
    ///
    /// # Errors
    /// It is predefined, or containers are on it (named).
    pub fn remove_network(&self, name: &str) -> Result<()> {
        let network = self.networks.get(name)?;
        let removed = match self.networks.remove(network.id.as_str()) {
            Err(error)
                if error.kind() == Kind::PermissionDenied
                    && !is_predefined(&network.name)
                    && self.reclaim_leases()? =>
            {
                self.networks.remove(network.id.as_str())?
            }
            result => result?,
        };
        self.emit_network("destroy", &removed, None);
        Ok(())
    }
    /// Removes networks that no container wants. Filters: `until` (already a time), `label`, `label!`.
    ///
    /// # Errors
    /// An unknown filter. A network that somebody took meanwhile is left.
    pub fn prune_networks(&self, filters: &Filters, until: Option<Timestamp>) -> Result<Vec<String>> {
        filters.check(&["label", "label!", "until"])?;
        let used = self.used_networks()?;
        let mut removed = Vec::new();
        for network in self.networks.list()? {
            let wanted = !is_predefined(&network.name)
                && !used.contains(network.id.as_str())
                && until.is_none_or(|until| network.created < until)
                && filters.labels("label", &network.labels)
                && filters.labels_absent("label!", &network.labels);
            if wanted && self.remove_network(network.id.as_str()).is_ok() {
                removed.push(network.name);
            }
        }
        self.emit("network", "prune", "", BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]));
        Ok(removed)
    }
    /// Connects a container, at once if it runs and from its next start on.
    ///
    /// # Errors
    /// It is connected already, its network is the host's, none or another container's, or an address is taken.
    pub fn connect_network(&self, name: &str, container: &str, mut wanted: EndpointSpec) -> Result<()> {
        let network = self.networks.get(name)?;
        let (mut container, _lock) = self.find_locked(container)?;
        check_mode(&container)?;
        if matches!(network.driver.as_str(), "host" | "null") {
            return Err(Error::invalid(format!(
                "container cannot be connected to network {}: it is for containers that are on no other",
                network.name
            )));
        }
        if self.wish(&container, &network).is_some() {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("endpoint with name {} already exists in network {}", container.name(), network.name),
            ));
        }
        wanted.network.clone_from(&network.name);
        if container.is_running() {
            self.connect_running(&container, &network, &wanted)?;
        }
        let mut wishes = container.endpoint_specs().to_vec();
        wishes.push(wanted);
        self.keep_wishes(&mut container, wishes)?;
        if container.is_running() {
            self.emit_network("connect", &network, Some(container.id()));
            self.refresh_names(&container)?;
        }
        Ok(())
    }
    fn connect_running(
        &self,
        container: &Container,
        network: &NetworkSpec,
        wanted: &EndpointSpec,
    ) -> Result<()> {
        let netns = namespace(container)?;
        // Its ports are closed while no network of it leads out.
        let open = !self.networks.ports(container.id())?.is_empty();
        let ports = if open { Vec::new() } else { start::ports(container) };
        let name_of = |id: &str| self.name_of(id);
        let publish = net::Publish { ports: &ports, name: container.name(), name_of: &name_of };
        for last in (0..TRIES).rev() {
            let endpoint = self.reserve_endpoint(container, wanted)?;
            let connected = self.networks.connect(container.id(), &[endpoint], netns.as_fd(), &publish);
            let Err(error) = connected.and_then(|_| self.hold_ports(container)) else { break };
            let undone = self.networks.disconnect(container.id(), &network.name, None);
            if error.kind() != Kind::Unavailable || last == 0 || undone.is_err() {
                return Err(error.with_undo_failures(undone.err()));
            }
            self.networks.choose_again(&network.name)?;
        }
        Ok(())
    }
    /// Disconnects a container. `force`: also one that is gone.
    ///
    /// # Errors
    /// It is not connected.
    pub fn disconnect_network(&self, name: &str, container: &str, force: bool) -> Result<()> {
        let network = self.networks.get(name)?;
        let (mut container, _lock) = match self.find_locked(container) {
            Err(error) if force && error.kind() == Kind::NotFound => {
                return self.reclaim_leases().map(drop);
            }
            found => found?,
        };
        check_mode(&container)?;
        let Some(place) = self.wish(&container, &network) else {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("container {} is not connected to network {}", container.id(), network.name),
            ));
        };
        if container.is_running() {
            let netns = namespace(&container)?;
            self.networks.disconnect(container.id(), &network.name, Some(netns.as_fd()))?;
            self.hold_ports(&container)?;
        }
        let mut wishes = container.endpoint_specs().to_vec();
        wishes.remove(place);
        self.keep_wishes(&mut container, wishes)?;
        if container.is_running() {
            self.emit_network("disconnect", &network, Some(container.id()));
            self.refresh_names(&container)?;
        }
        Ok(())
    }
    /// Leases one endpoint. Where addresses are taken, the leases of containers that do not live are reclaimed first.
    pub(crate) fn reserve_endpoint(&self, container: &Container, wanted: &EndpointSpec) -> Result<Endpoint> {
        let reserve = || self.networks.reserve(container.id(), wanted, &container.dns_names(wanted));
        match reserve() {
            Err(error)
                if matches!(error.kind(), Kind::ResourceExhausted | Kind::PermissionDenied)
                    && self.reclaim_leases()? =>
            {
                reserve()
            }
            result => result,
        }
    }
    /// Connects what was reserved, with events.
    pub(crate) fn connect_endpoints(
        &self,
        container: &Container,
        endpoints: Vec<Endpoint>,
        netns: BorrowedFd<'_>,
        ports: &[model::container::PortBinding],
    ) -> Result<()> {
        let connected = self.connect_reserved(container, endpoints, netns, ports)?;
        self.hold_ports(container)?;
        for endpoint in &connected {
            self.emit_network("connect", &self.networks.get(&endpoint.network)?, Some(container.id()));
        }
        Ok(())
    }
    fn name_of(&self, id: &str) -> Option<String> {
        Some(self.load(&ContainerId::parse(id).ok()?).ok()?.name().to_owned())
    }
    /// Has the container's monitor hold the ports that are open now.
    fn hold_ports(&self, container: &Container) -> Result<()> {
        runtime::set_ports(&container.run_dir, &self.networks.held_by(container.id())?)
    }
    /// Connects what was reserved. Where another engine of this machine took the subnet in between, the endpoints are
    /// reserved and the container's files written once more. Returns what is connected.
    pub(crate) fn connect_reserved(
        &self,
        container: &Container,
        mut endpoints: Vec<Endpoint>,
        netns: BorrowedFd<'_>,
        ports: &[model::container::PortBinding],
    ) -> Result<Vec<Endpoint>> {
        let id = container.id();
        let name_of = |id: &str| self.name_of(id);
        let publish = net::Publish { ports, name: container.name(), name_of: &name_of };
        let mut reclaimed = false;
        for last in (0..TRIES).rev() {
            match self.networks.connect(id, &endpoints, netns, &publish) {
                Ok(_) => break,
                // A port may be recorded for a container that ended unseen.
                Err(_) if !ports.is_empty() && !reclaimed && last > 0 && self.reclaim_leases()? => {
                    reclaimed = true;
                }
                Err(error) if error.kind() == Kind::Unavailable && last > 0 => {
                    self.networks.release(id)?;
                    for endpoint in &endpoints {
                        self.networks.choose_again(&endpoint.network)?;
                    }
                    endpoints = container
                        .endpoint_specs()
                        .iter()
                        .map(|wanted| self.reserve_endpoint(container, wanted))
                        .collect::<Result<_>>()?;
                    self.write_etc(container, &endpoints)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(endpoints)
    }
    /// Puts back what somebody else took of the firewall.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn restore_firewall(&self) -> Result<()> {
        self.networks.restore_firewall()
    }
    /// Gives back all that a container has of the network, the watch over the firewall too.
    pub(crate) fn release_network(&self, id: &ContainerId) -> Result<()> {
        let endpoints = self.networks.endpoints(id)?;
        self.networks.release(id)?;
        for endpoint in &endpoints {
            if let Ok(network) = self.networks.get(&endpoint.network) {
                self.emit_network("disconnect", &network, Some(id));
            }
        }
        self.pass_watch()
    }
    /// Has another monitor watch over the firewall where the one that did is gone.
    fn pass_watch(&self) -> Result<()> {
        let holders = self.networks.holders()?;
        if holders.is_empty() {
            return Ok(());
        }
        let path = self.networks.firewall_lock();
        let free = sys::fs::Lock::try_exclusive(&path).context(|| format!("lock {}", path.display()))?;
        if free.is_none() {
            return Ok(());
        }
        drop(free);
        // One that ends just now cannot: then the next one.
        let _ = holders.iter().find(|id| runtime::watch_firewall(&self.store.layout.run(id)).is_ok());
        Ok(())
    }
    /// Releases whatever containers that are gone, or ended unseen, still hold. True: there was something.
    pub(crate) fn reclaim_leases(&self) -> Result<bool> {
        let before = self.networks.holders()?;
        for id in &before {
            match self.load(id) {
                Ok(container) if container.live.is_some() => {}
                Ok(_) => {
                    // Whoever has the lock is starting or settling it.
                    if let Some(_lock) = self.try_lock_container(id)?
                        && self.load(id).is_ok_and(|container| container.live.is_none())
                    {
                        self.networks.release(id)?;
                    }
                }
                Err(error) if error.kind() == Kind::NotFound => self.networks.release(id)?,
                Err(error) => return Err(error),
            }
        }
        Ok(self.networks.holders()?.len() < before.len())
    }
    /// Where in a container's wishes a network is.
    fn wish(&self, container: &Container, network: &NetworkSpec) -> Option<usize> {
        let is_this =
            |spec: &EndpointSpec| self.networks.get(&spec.network).is_ok_and(|found| found.id == network.id);
        container.endpoint_specs().iter().position(is_this)
    }
    fn keep_wishes(&self, container: &mut Container, wishes: Vec<EndpointSpec>) -> Result<()> {
        container.changes.endpoints = Some(wishes);
        self.write_changes(container)
    }
    /// Ids of the networks that a container wants, running or not.
    fn used_networks(&self) -> Result<BTreeSet<String>> {
        let mut used = BTreeSet::new();
        for container in self.containers()? {
            for spec in container.endpoint_specs() {
                used.extend(
                    self.networks.get(&spec.network).ok().map(|network| network.id.as_str().to_owned()),
                );
            }
        }
        Ok(used)
    }
    fn emit_network(&self, action: &str, network: &NetworkSpec, container: Option<&ContainerId>) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.clone()),
        ]);
        attributes.extend(container.map(|id| ("container".to_owned(), id.as_str().to_owned())));
        self.emit("network", action, network.id.as_str(), attributes);
    }
}

fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name)
}

fn check_mode(container: &Container) -> Result<()> {
    match &container.spec.network {
        NetworkMode::Attached(_) => Ok(()),
        NetworkMode::None => Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )),
        NetworkMode::Host => Err(Error::invalid(
            "container cannot be disconnected from host network or connected to host network",
        )),
        NetworkMode::Join(_) => Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
    }
}

/// A running container's network namespace.
fn namespace(container: &Container) -> Result<OwnedFd> {
    let live = container.running()?;
    let path = format!("/proc/{}/ns/net", live.pid);
    let open = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let fd = open.map_err(std::io::Error::from).context(|| format!("open {path}"))?;
    // The process may have ended, and its number been given away, before the descriptor was there.
    match runtime::live(&container.run_dir)? {
        Some(now) if now.pid == live.pid => Ok(fd),
        _ => Err(Error::conflict(format!("container {} is not running", container.id()))),
    }
}
