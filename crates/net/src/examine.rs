//! Examines what networks left behind: leases, records and ports of containers that are gone, bridges and pairs that
//! nobody is on, a firewall table without a bridge.

use model::error::Context as _;
use model::finding::Examination;
use model::{ContainerId, Result};
use std::collections::BTreeSet;
use std::path::PathBuf;
use sys::netlink::Socket;

use crate::firewall::{Firewall, State};
use crate::lease::remove;
use crate::record::names;
use crate::{Networks, kernel};

/// Letters of an endpoint's id in the name of its interface on the host.
const PAIR_DIGITS: usize = 11;

impl Networks {
    /// Looks at this engine's part of the machine. `lives` tells whether a container runs, or is just being started or
    /// stopped by somebody; `release` gives back what one holds, unless that has changed meanwhile.
    ///
    /// # Errors
    /// A record or the kernel's lists cannot be read.
    pub fn examine(
        &self,
        look: &mut Examination,
        lives: &dyn Fn(&ContainerId) -> bool,
        release: &dyn Fn(&ContainerId) -> Result<()>,
    ) -> Result<()> {
        for container in self.holders()?.iter().filter(|container| !lives(container)) {
            let problem = "it holds addresses, ports or an endpoint, and does not run";
            look.found(("lease", container), problem, "give them back", || release(container));
        }
        let _kernel = self.kernel_lock()?;
        {
            let _files = self.files_lock()?;
            self.check_links_to_owners(look, lives)?;
            self.check_records(look)?;
        }
        self.check_kernel(look)
    }
    /// Leases and ports are links to their owner's id.
    fn check_links_to_owners(
        &self,
        look: &mut Examination,
        lives: &dyn Fn(&ContainerId) -> bool,
    ) -> Result<()> {
        let holders: BTreeSet<ContainerId> = self.holders()?.into_iter().collect();
        let run = &self.config().run_dir;
        let leases = run.join("leases");
        let mut dirs: Vec<(&str, PathBuf)> =
            names(&leases)?.into_iter().map(|network| ("lease", leases.join(network))).collect();
        dirs.push(("port", run.join("ports")));
        for (kind, dir) in dirs {
            for name in names(&dir)? {
                let path = dir.join(name);
                let Ok(target) = std::fs::read_link(&path) else { continue };
                let owner = ContainerId::parse(&target.to_string_lossy()).ok();
                if !owner.is_some_and(|owner| holders.contains(&owner) || lives(&owner)) {
                    let problem = format!("its owner {} has no record of it", target.display());
                    look.found((kind, path.display()), problem, "delete it", || remove(&path));
                }
            }
        }
        Ok(())
    }
    /// Directories of networks that are gone, or never came to be.
    fn check_records(&self, look: &mut Examination) -> Result<()> {
        let known: BTreeSet<String> =
            self.list()?.into_iter().map(|network| network.id.as_str().to_owned()).collect();
        let leases = self.config().run_dir.join("leases");
        for network in names(&leases)?.into_iter().filter(|network| !known.contains(network)) {
            let path = leases.join(network);
            // One with leases in it is reported lease by lease.
            if names(&path)?.is_empty() {
                let problem = "the network that these leases belong to is gone";
                look.found(("lease", path.display()), problem, "delete it", || remove(&path));
            }
        }
        for name in names(&self.config().dir)? {
            let path = self.config().dir.join(name);
            if path.is_dir() && !path.join("network.json").exists() {
                let problem = "whoever made this network is gone and never finished it";
                look.found(("network", path.display()), problem, "delete it", || remove(&path));
            }
        }
        Ok(())
    }
    fn check_kernel(&self, look: &mut Examination) -> Result<()> {
        let instance = self.config().instance.as_str();
        let used: BTreeSet<String> =
            self.in_use()?.iter().map(|network| kernel::bridge_name(network, instance)).collect();
        let mut socket = Socket::route().context(|| "open a route socket")?;
        let links = socket.links().context(|| "list interfaces")?;
        drop(socket);
        let pairs: BTreeSet<String> = self
            .holders()?
            .iter()
            .filter_map(|container| self.endpoints(container).ok())
            .flatten()
            .map(|endpoint| kernel::host_interface(&endpoint))
            .collect();
        let bridges: Vec<&(String, sys::netlink::route::Link)> =
            links.iter().filter(|(name, _)| self.is_bridge_of_ours(name)).collect();
        for (name, link) in &links {
            let port_of_ours = bridges.iter().any(|(_, bridge)| bridge.index == link.master);
            if port_of_ours && is_pair(name) && !pairs.contains(name) {
                let problem = "it joins a bridge of this engine, and no container's record names it";
                look.found(("interface", name), problem, "delete it", || kernel::delete(name));
            }
        }
        for (name, _) in bridges.iter().filter(|(name, _)| !used.contains(name)) {
            look.found(("bridge", name), "nobody is on its network", "delete it", || {
                Firewall::open(instance)?.forget_in_foreign(name)?;
                kernel::delete(name)
            });
        }
        let mut firewall = Firewall::open(instance)?;
        if used.is_empty() && firewall.state()? != State::Missing {
            let table = firewall.name().to_owned();
            let problem = "no container is on a network";
            look.found(("firewall", format!("table inet {table}")), problem, "delete it", || {
                firewall.remove()
            });
        }
        Ok(())
    }
    /// By its name: a network's record, or the form that only this engine gives.
    fn is_bridge_of_ours(&self, name: &str) -> bool {
        let instance = self.config().instance.as_str();
        let form = format!("cld{instance}-");
        let digits = name.strip_prefix(&form);
        name == kernel::default_bridge(instance)
            || digits.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

fn is_pair(name: &str) -> bool {
    name.strip_prefix("veth")
        .is_some_and(|rest| rest.len() == PAIR_DIGITS && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}
