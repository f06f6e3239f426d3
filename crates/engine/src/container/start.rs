//! Starting: addresses are reserved, files written, the monitor sets the container up while the network is connected;
//! then the process runs. Every step has its undo.

use model::bundle::Bundle;
use model::container::{Lifecycle, NetworkMode, PortBinding};
use model::error::Context as _;
use model::state::Status;
use model::{Error, Kind, Result, launch};
use net::{Endpoint, Networks};
use std::os::fd::AsFd as _;

use super::lookup::Container;
use crate::Engine;
use crate::undo::Undo;

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// [`Kind::NotModified`] for one that runs. [`Kind::CommandNotFound`] and [`Kind::CannotExecute`] where the process
    /// could not be executed; its state then says so.
    pub fn start_container(&self, name: &str) -> Result<Vec<String>> {
        let (container, lock) = self.find_locked(name)?;
        match container.status() {
            Status::Paused => {
                return Err(Error::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Running | Status::Restarting => {
                return Err(Error::new(
                    Kind::NotModified,
                    format!("container {} is already started", container.id()),
                ));
            }
            _ => {}
        }
        let (id, removed) = (container.id().clone(), *container.lifecycle() == Lifecycle::RemoveOnExit);
        match self.start_found(container) {
            Err(error) if removed => {
                let failures =
                    self.load(&id).and_then(|container| self.remove_found(&container, lock, true)).err();
                Err(error.with_undo_failures(failures))
            }
            result => result,
        }
    }
    /// Starts a container that does not run, under its lock.
    pub(crate) fn start_found(&self, mut container: Container) -> Result<Vec<String>> {
        // What the last run left is given back first; its own `reap` then finds nothing to do.
        if container.run_dir.join("bundle.json").exists() {
            self.settle(&container)?;
        }
        // A person's start begins the count of restarts anew, and takes an earlier stop back.
        if container.state.stopped_by_user || container.state.restart_count > 0 {
            container.state.stopped_by_user = false;
            container.state.restart_count = 0;
            self.write_state(&container)?;
        }
        let mut undo = Undo::new();
        match self.launch(&container, &mut undo) {
            Ok(warnings) => {
                undo.keep();
                Ok(warnings)
            }
            Err(error) => {
                let error = undo.roll_back(error);
                self.note_failure(&mut container, &error)?;
                Err(error)
            }
        }
    }
    fn launch<'a>(&'a self, container: &Container, undo: &mut Undo<'a>) -> Result<Vec<String>> {
        let id = container.id().clone();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        if let NetworkMode::Attached(_) = container.spec.network {
            let owner = id.clone();
            undo.push(move || self.networks.release(&owner));
            for wanted in container.endpoint_specs() {
                endpoints.push(self.reserve_endpoint(container, wanted)?);
            }
        }
        sys::failpoint!("start: addresses reserved");
        let monitor = runtime::spawn(&container.run_dir)?;
        let etc = self.write_etc(container, &endpoints)?;
        // Until it shows as running: whoever puts another directory in a volume's place then sees it in use.
        let _volumes =
            if container.spec.mounts.is_empty() { None } else { Some(self.store.share_volumes()?) };
        let mut mounts = self.resolve_mounts(container)?;
        mounts.extend(container.deliveries()?);
        sys::fs::private_dir(&container.run_dir)
            .context(|| format!("create {}", container.run_dir.display()))?;
        let bundle: Bundle = launch::bundle(&container.spec, self.facts(container, &etc, mounts)?);
        let (netns, mine) = match &container.spec.network {
            NetworkMode::Attached(_) => {
                let netns = Networks::new_namespace()?;
                let mine = netns.try_clone().context(|| "duplicate the network namespace")?;
                (Some(netns), Some(mine))
            }
            NetworkMode::None | NetworkMode::Host | NetworkMode::Join(_) => (None, None),
        };
        let prepared = monitor.prepare(&bundle, netns)?;
        sys::failpoint!("start: monitor started");
        if let Some(netns) = &mine {
            self.connect_endpoints(container, endpoints, netns.as_fd(), &ports(container))?;
        }
        sys::failpoint!("start: network connected");
        prepared.start()?;
        self.volume_events(container, true);
        sys::failpoint!("start: running");
        let mut warnings = runtime::warnings(&container.run_dir);
        warnings.extend(self.opened(container)?);
        warnings.extend(Self::propagation_warnings(container));
        Ok(warnings)
    }
    /// What has become reachable from other machines, where the configuration wants that told.
    fn opened(&self, container: &Container) -> Result<Option<String>> {
        if self.config.publish != net::PublishPolicy::Announce {
            return Ok(None);
        }
        let mut open = self.networks.ports(container.id())?;
        open.retain(|port| !port.host_ip.is_loopback());
        let open: Vec<String> = open
            .iter()
            .map(|port| {
                let address = std::net::SocketAddr::new(port.host_ip, port.host_port);
                format!("{address} -> {}", port.container)
            })
            .collect();
        let name = container.name();
        Ok((!open.is_empty()).then(|| format!("open to other machines: {} of {name}", open.join(", "))))
    }
    /// A start that failed leaves its reason and an exit code, as Docker does.
    fn note_failure(&self, container: &mut Container, error: &Error) -> Result<()> {
        let now = self.load(container.id())?;
        container.state = now.state;
        container.state.exit_code = match error.kind() {
            Kind::CommandNotFound => 127,
            Kind::CannotExecute => 126,
            _ => 128,
        };
        container.state.error = error.to_string();
        if container.state.finished_at < container.state.started_at {
            container.state.finished_at = crate::now();
        }
        self.write_state(container)?;
        self.settle(container)
    }
}

/// The ports to publish: `-p`, and with `-P` every exposed one that `-p` does not name.
pub(crate) fn ports(container: &Container) -> Vec<PortBinding> {
    let NetworkMode::Attached(attachment) = &container.spec.network else { return Vec::new() };
    let mut ports = attachment.ports.clone();
    if attachment.publish_all {
        for port in &container.spec.exposed_ports {
            if !ports.iter().any(|binding| binding.container == *port) {
                ports.push(PortBinding { container: *port, host_ip: None, host_ports: None });
            }
        }
    }
    ports
}
