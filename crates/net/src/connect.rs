//! Connecting, disconnecting and releasing: what the kernel gets for a lease, and how it is taken back.
//!
//! The bridge of a network goes with its last endpoint, the firewall table with the last bridge: nothing is left on a
//! machine where nothing runs. Deleting takes the kernel tens of milliseconds (RCU), so callers release in the background.

use model::error::Context as _;
use model::network::NetworkSpec;
use model::{ContainerId, Error, Result};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::firewall::{self, Firewall, Forward, Segment, State};
use crate::ports::leads_out;
use crate::record::names;
use crate::{Endpoint, Networks, Publish, PublishedPort, kernel, parent};

impl Networks {
    /// Joins a namespace to the reserved endpoints, in order, and publishes ports on the first that can.
    ///
    /// # Errors
    /// The kernel refused, or a host port is taken (by which container, where it is ours). What was done is undone.
    /// [`model::Kind::Unavailable`]: another engine took the subnet meanwhile; reserve again.
    pub fn connect(
        &self,
        container: &ContainerId,
        endpoints: &[Endpoint],
        netns: BorrowedFd<'_>,
        publish: &Publish<'_>,
    ) -> Result<Vec<PublishedPort>> {
        let _lock = self.kernel_lock()?;
        let mut firewall = Firewall::open(&self.config().instance)?;
        let all = self.by_precedence(container)?;
        let connected = self.join(endpoints, &all, netns, &mut firewall).and_then(|()| {
            let Some(way) = leads_out(&all) else { return Ok(Vec::new()) };
            if !publish.ports.is_empty() {
                return self.publish(container, way, publish, &mut firewall);
            }
            self.lead_ports(container, (&all, endpoints), &mut firewall).map(|()| Vec::new())
        });
        connected.map_err(|error| {
            let failures = endpoints
                .iter()
                .filter_map(|endpoint| kernel::delete(&kernel::host_interface(endpoint)).err());
            error.with_undo_failures(failures.collect::<Vec<_>>())
        })
    }
    /// Ports that are open move to another endpoint if one of the new ones has the default route now.
    fn lead_ports(
        &self,
        container: &ContainerId,
        (all, new): (&[Endpoint], &[Endpoint]),
        firewall: &mut Firewall,
    ) -> Result<()> {
        let ports = self.ports(container)?;
        let is_new = |endpoint: &Endpoint| new.iter().any(|new| new.id == endpoint.id);
        let before: Vec<Endpoint> = all.iter().filter(|endpoint| !is_new(endpoint)).cloned().collect();
        match (leads_out(&before), leads_out(all)) {
            (Some(old), Some(now)) if old.id != now.id && !ports.is_empty() => {
                firewall.unpublish(&forwards_to(old, &ports))?;
                kernel::allow_hairpin(now)?;
                firewall.publish(&forwards_to(now, &ports))
            }
            _ => Ok(()),
        }
    }
    fn join(
        &self,
        endpoints: &[Endpoint],
        all: &[Endpoint],
        netns: BorrowedFd<'_>,
        firewall: &mut Firewall,
    ) -> Result<()> {
        for endpoint in endpoints {
            let network = self.get(&endpoint.network)?;
            if parent::is_parented(&network.driver) {
                parent::plug(&network, endpoint, netns)?;
            } else {
                still_leased(&network, endpoint)?;
                let (bridge, mtu) = self.ensure(&network, firewall)?;
                sys::failpoint!("network: bridge made");
                kernel::plug(endpoint, (bridge, mtu), netns)?;
                if !self.segment(&network).talk {
                    kernel::isolate(endpoint)?;
                }
            }
        }
        sys::failpoint!("network: plugged in");
        kernel::configure(endpoints, all, netns)
    }
    /// The network's bridge and its place in the firewall.
    fn ensure(&self, network: &NetworkSpec, firewall: &mut Firewall) -> Result<(u32, u32)> {
        let segment = self.segment(network);
        let instance = &self.config().instance;
        let state = firewall.state()?;
        let bridge = if state == State::Whole {
            kernel::ensure_bridge(network, instance).and_then(|(index, mtu, made)| {
                if made {
                    firewall.add_segment(&segment)?;
                }
                Ok((index, mtu))
            })
        } else {
            // First use, or somebody flushed the machine's rules: everything that is recorded goes in. The table and
            // the bridge cost a millisecond each, on locks of their own: side by side.
            let (segments, forwards) = (self.segments(Some(network))?, self.forwards()?);
            std::thread::scope(|scope| {
                let thread = std::thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn_scoped(scope, || firewall.create(state, &segments, &forwards))
                    .context(|| "start a thread for the firewall")?;
                let bridge = kernel::ensure_bridge(network, instance);
                let table =
                    thread.join().unwrap_or_else(|_| Err(Error::internal("the firewall's thread panicked")));
                let (index, mtu, _) = bridge?;
                table.map(|()| (index, mtu))
            })
        };
        // What was made stays until `release` finds nobody on the network.
        bridge.and_then(|made| firewall.allow_in_foreign(&segment.bridge).map(|()| made))
    }
    fn publish(
        &self,
        container: &ContainerId,
        endpoint: &Endpoint,
        publish: &Publish<'_>,
        firewall: &mut Firewall,
    ) -> Result<Vec<PublishedPort>> {
        let published = self.take_ports(container, endpoint, publish, firewall)?;
        let opened = kernel::allow_hairpin(endpoint)
            .and_then(|()| firewall.publish(&forwards_to(endpoint, &published)));
        match opened {
            Ok(()) => Ok(published),
            Err(error) => {
                let _files = self.files_lock()?;
                Err(error.with_undo_failures(self.free_ports(container, &published).err()))
            }
        }
    }
    /// Takes one endpoint away from a container, whose namespace is given if it runs.
    ///
    /// # Errors
    /// It is not connected.
    pub fn disconnect(
        &self,
        container: &ContainerId,
        network: &str,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let network = self.get(network)?;
        let _lock = self.kernel_lock()?;
        let endpoints = self.by_precedence(container)?;
        let way = leads_out(&endpoints).map(|endpoint| endpoint.id.clone());
        let (mine, others): (Vec<Endpoint>, Vec<Endpoint>) =
            endpoints.into_iter().partition(|endpoint| endpoint.network_id == network.id);
        let Some(endpoint) = mine.first() else {
            return Err(Error::new(
                model::Kind::PermissionDenied,
                format!("container {container} is not connected to network {}", network.name),
            ));
        };
        let mut failures = Vec::new();
        let mut firewall = Firewall::open(&self.config().instance)?;
        let ports = self.ports(container)?;
        let leads_here = way.as_ref() == Some(&endpoint.id) && !ports.is_empty();
        if leads_here {
            failures.extend(firewall.unpublish(&forwards_to(endpoint, &ports)).err());
            firewall.forget_flows(&ports);
        }
        if let Some(netns) = netns {
            failures.extend(kernel::unplug(endpoint, &others, netns).err());
        }
        if leads_here {
            match leads_out(&others) {
                Some(next) => failures.extend(firewall.publish(&forwards_to(next, &ports)).err()),
                None => {
                    let _files = self.files_lock()?;
                    failures.extend(self.free_ports(container, &ports).err());
                }
            }
        }
        {
            let _files = self.files_lock()?;
            failures.extend(self.forget(container, endpoint).err());
        }
        failures.extend(self.dismantle(&network, &mut firewall).err());
        all_of(failures)
    }
    /// Gives back every lease, port and record of a container whose namespace is gone. Idempotent. Removes this
    /// root's bridge and table with the last endpoint.
    ///
    /// # Errors
    /// All of them, joined.
    pub fn release(&self, container: &ContainerId) -> Result<()> {
        let dir = self.endpoint_dir(container);
        if !dir.exists() {
            return Ok(());
        }
        let lock = self.kernel_lock()?;
        let endpoints = self.endpoints(container)?;
        let mut failures = Vec::new();
        let mut firewall = Firewall::open(&self.config().instance)?;
        let ports = self.ports(container)?;
        if !ports.is_empty() {
            for endpoint in &endpoints {
                failures.extend(firewall.unpublish(&forwards_to(endpoint, &ports)).err());
            }
        }
        {
            let _files = self.files_lock()?;
            failures.extend(self.free_ports(container, &ports).err());
            for endpoint in &endpoints {
                failures.extend(self.forget(container, endpoint).err());
            }
            if endpoints.is_empty() {
                failures.extend(self.forget_strays(container).err());
            }
            if let Err(error) = std::fs::remove_dir_all(&dir)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                failures.push(Error::internal(format!("remove {}", dir.display())).caused_by(error));
            }
        }
        sys::failpoint!("network: leases given back");
        for endpoint in &endpoints {
            if let Ok(network) = self.get(&endpoint.network) {
                failures.extend(self.dismantle(&network, &mut firewall).err());
            }
        }
        // The rest waits for RCU and is nobody else's: the next container need not wait for it. The namespace's death
        // takes the pairs away, but whoever still holds the namespace must not keep them.
        drop(lock);
        firewall.forget_flows(&ports);
        for endpoint in &endpoints {
            failures.extend(kernel::delete(&kernel::host_interface(endpoint)).err());
        }
        all_of(failures)
    }
    /// The name of the firewall table (`inet`).
    pub fn firewall_table(&self) -> String {
        firewall::table_name(&self.config().instance)
    }
    /// Whoever has the lock on this file watches over the firewall.
    pub fn firewall_lock(&self) -> PathBuf {
        self.config().run_dir.join("watch.lock")
    }
    /// Puts back what somebody else took of the firewall: all of the table where a part is missing, and what foreign
    /// firewalls must let through. A table that nobody needs is removed.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn restore_firewall(&self) -> Result<()> {
        let _lock = self.kernel_lock()?;
        let mut firewall = Firewall::open(&self.config().instance)?;
        let (state, segments) = (firewall.state()?, self.segments(None)?);
        let state = if state == State::Whole && !firewall.is_whole()? { State::Damaged } else { state };
        match state {
            State::Whole | State::Damaged if segments.is_empty() => return firewall.remove(),
            State::Missing if segments.is_empty() => return Ok(()),
            State::Missing | State::Damaged => firewall.create(state, &segments, &self.forwards()?)?,
            // Elements may be missing all the same; one that is there is left as it is.
            State::Whole => {
                firewall.complete(&segments)?;
                firewall.publish(&self.forwards()?)?;
            }
        }
        segments.iter().try_for_each(|segment| firewall.allow_in_foreign(&segment.bridge))
    }
    /// Removes the bridge of a network that nobody is on, and the table with the last bridge.
    fn dismantle(&self, network: &NetworkSpec, firewall: &mut Firewall) -> Result<()> {
        if !names(&self.lease_dir(network))?.is_empty() {
            return Ok(());
        }
        if network.driver != "bridge" {
            return parent::dismantle(network);
        }
        let segment = self.segment(network);
        let mut failures = Vec::new();
        failures.extend(firewall.forget_in_foreign(&segment.bridge).err());
        if self.in_use()?.is_empty() {
            failures.extend(firewall.remove().err());
        } else {
            failures.extend(firewall.remove_segment(&segment).err());
        }
        failures.extend(kernel::delete(&segment.bridge).err());
        all_of(failures)
    }
    /// The bridge networks that have leases.
    pub(crate) fn in_use(&self) -> Result<Vec<NetworkSpec>> {
        let mut used = self.list()?;
        used.retain(|network| {
            network.driver == "bridge"
                && names(&self.lease_dir(network)).is_ok_and(|leases| !leases.is_empty())
        });
        Ok(used)
    }
    fn segments(&self, also: Option<&NetworkSpec>) -> Result<Vec<Segment>> {
        let mut used = self.in_use()?;
        let missing = also.filter(|also| used.iter().all(|network| network.id != also.id));
        used.extend(missing.cloned());
        Ok(used.iter().map(|network| self.segment(network)).collect())
    }
    fn segment(&self, network: &NetworkSpec) -> Segment {
        let is_on = |key: &str| network.options.get(key).is_none_or(|value| value != "false");
        Segment {
            bridge: kernel::bridge_name(network, &self.config().instance),
            subnets: network.subnets.iter().map(|subnet| subnet.net).collect(),
            internal: network.internal,
            masquerade: is_on("com.docker.network.bridge.enable_ip_masquerade"),
            talk: is_on("com.docker.network.bridge.enable_icc"),
        }
    }
    /// Every recorded port and where it leads.
    fn forwards(&self) -> Result<Vec<Forward>> {
        let mut all = Vec::new();
        for container in self.holders()? {
            let ports = self.ports(&container)?;
            if ports.is_empty() {
                continue;
            }
            let endpoints = self.by_precedence(&container)?;
            all.extend(
                leads_out(&endpoints).map(|endpoint| forwards_to(endpoint, &ports)).unwrap_or_default(),
            );
        }
        Ok(all)
    }
}

/// What the kernel can translate: never between the families, and not `::1`. The rest is the relay's.
fn forwards_to(endpoint: &Endpoint, ports: &[PublishedPort]) -> Vec<Forward> {
    let forwards = ports.iter().filter(|port| port.host_ip != Ipv6Addr::LOCALHOST).filter_map(|port| {
        let to = if port.host_ip.is_ipv4() {
            endpoint.ipv4.map(IpAddr::V4)
        } else {
            endpoint.ipv6.map(IpAddr::V6)
        };
        Some(Forward { port: port.clone(), to: to? })
    });
    forwards.collect()
}

/// An endpoint's address is of its network as that is now: a subnet may have been chosen again since.
fn still_leased(network: &NetworkSpec, endpoint: &Endpoint) -> Result<()> {
    let known = |ip: IpAddr| network.subnets.iter().any(|subnet| subnet.net.contains(ip));
    match endpoint.ipv4.filter(|ip| !known(IpAddr::V4(*ip))) {
        None => Ok(()),
        Some(ip) => Err(Error::new(
            model::Kind::Unavailable,
            format!("network {}: another subnet than that of {ip} was chosen meanwhile", network.name),
        )
        .hint("start the container again")),
    }
}

fn all_of(failures: Vec<Error>) -> Result<()> {
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => Err(first.with_undo_failures(failures.collect::<Vec<_>>())),
    }
}
