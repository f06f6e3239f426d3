//! After the end: what a run leaves behind is given back, by the monitor's last deed (`system reap`), by whoever
//! starts or removes the container next, or by whoever finds one whose monitor was killed. All of it is idempotent.

use model::container::{ContainerSpec, IpcMode, Lifecycle, NetworkMode};
use model::error::Context as _;
use model::state::Live;
use model::{ContainerId, Error, Result};
use std::path::Path;

use super::lookup::{Container, cgroup_of, read_json};
use crate::Engine;

/// Exit code of a container whose monitor was killed: it was killed with it.
const KILLED: i32 = 137;
/// Exit code of a container that ended with the machine (Docker's).
const LOST: i32 = 255;

impl Engine {
    /// Gives back what the last run of a container holds; with `--rm` the container itself. Does nothing where it
    /// runs (again). Also finishes the removal of one that was only renamed away.
    ///
    /// # Errors
    /// All of them, attached to the first.
    pub fn reap(&self, id: &ContainerId) -> Result<()> {
        let Some(lock) = self.lock_container(id)? else {
            return self.finish_removal(id);
        };
        let mut container = self.load(id)?;
        if container.live.is_some() {
            return Ok(());
        }
        if container.ended_unseen() {
            self.end_unseen(&mut container)?;
        } else {
            self.settle(&container)?;
        }
        if *container.lifecycle() == Lifecycle::RemoveOnExit && !container.state.finished_at.is_never() {
            self.remove_found(&container, lock, true)?;
        }
        Ok(())
    }
    /// Brings a container that ended unseen to a proper end, unless somebody else has it in hand.
    pub(crate) fn recover(&self, container: Container) -> Result<Container> {
        let Some(lock) = self.try_lock_container(container.id())? else {
            return Ok(container);
        };
        let mut now = self.load(container.id())?;
        if !now.ended_unseen() {
            return Ok(now);
        }
        self.end_unseen(&mut now)?;
        if *now.lifecycle() == Lifecycle::RemoveOnExit {
            self.remove_found(&now, lock, true)?;
            return Err(Error::not_found(format!("No such container: {}", now.id())));
        }
        Ok(now)
    }
    /// Writes down how a container ended that nobody saw end, and settles it. Under its lock.
    pub(crate) fn end_unseen(&self, container: &mut Container) -> Result<()> {
        let recorded: Option<Live> = read_json(&container.run_dir.join("live.json"))?;
        let this_boot = recorded
            .is_some_and(|live| sys::process::boot_id().is_ok_and(|boot| live.boot_id.trim() == boot));
        container.state.exit_code = if this_boot { KILLED } else { LOST };
        container.state.finished_at = crate::now();
        if container.state.error.is_empty() && this_boot {
            "the container's monitor was killed".clone_into(&mut container.state.error);
        }
        self.write_state(container)?;
        sys::failpoint!("reap: end recorded");
        self.container_event(container, "die", &[("exitCode", &container.state.exit_code.to_string())]);
        let failures: Vec<Error> =
            [runtime::clean_up(&container.cgroup()).err(), self.settle(container).err()]
                .into_iter()
                .flatten()
                .collect();
        first_with_rest(failures)
    }
    /// Releases the network and the run directory of a container that does not run. Under its lock.
    pub(crate) fn settle(&self, container: &Container) -> Result<()> {
        let mut failures = Vec::new();
        if matches!(container.spec.network, NetworkMode::Attached(_)) {
            failures.extend(self.release_network(container.id()).err());
            sys::failpoint!("reap: endpoints released");
        }
        if container.spec.namespaces.ipc == IpcMode::Shareable {
            failures.extend(super::facts::unmount_shm(&container.run_dir).err());
        }
        let running =
            |id: &ContainerId| runtime::live(&self.store.layout.run(id)).is_ok_and(|live| live.is_some());
        failures.extend(self.release_volumes(&container.spec.mounts, running).err());
        if container.run_dir.join("bundle.json").exists() {
            self.volume_events(container, false);
        }
        failures.extend(clear_run_dir(&container.run_dir).err());
        first_with_rest(failures)
    }
    /// What is left of a container whose directory is in the trash, or gone.
    pub(crate) fn finish_removal(&self, id: &ContainerId) -> Result<()> {
        let mut failures = Vec::new();
        let run_dir = self.store.layout.run(id);
        failures.extend(super::facts::unmount_shm(&run_dir).err());
        failures.extend(remove_tree(&run_dir).err());
        sys::failpoint!("reap: run directory removed");
        let trash = self.store.layout.trash().join(id.as_str());
        match read_json::<ContainerSpec>(&trash.join("spec.json")) {
            Ok(Some(spec)) => {
                // The monitor's affair, if it was not killed before it came to that.
                failures.extend(runtime::clean_up(&cgroup_of(&spec)).err());
                if matches!(spec.network, NetworkMode::Attached(_)) {
                    failures.extend(self.release_network(id).err());
                }
                sys::failpoint!("reap: network released");
                if trash.join("with-volumes").exists() {
                    failures.extend(self.remove_anonymous_volumes(&spec.mounts).err());
                }
                let running = |id: &ContainerId| {
                    runtime::live(&self.store.layout.run(id)).is_ok_and(|live| live.is_some())
                };
                failures.extend(self.release_volumes(&spec.mounts, running).err());
            }
            // Partly deleted, or nothing but leases left.
            Ok(None) => failures.extend(self.release_network(id).err()),
            Err(error) => failures.push(error),
        }
        failures.extend(remove_tree(&trash).err());
        first_with_rest(failures)
    }
    /// Emits a container's event.
    pub(crate) fn container_event(&self, container: &Container, action: &str, more: &[(&str, &str)]) {
        let spec = &container.spec;
        self.emit_container(action, &spec.id, container.name(), &spec.image_name, &spec.labels, more);
    }
}

/// Removes what a run left in the run directory; clients that already wait for the next start stay.
fn clear_run_dir(run_dir: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(|| format!("read directory {}", run_dir.display())),
    };
    let mut waiting = false;
    for entry in entries {
        let entry = entry.context(|| format!("read directory {}", run_dir.display()))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(runtime::WAITING.as_bytes()) {
            waiting = true;
        } else {
            remove_tree(&path)?;
        }
    }
    if !waiting {
        // A client may have come in between: then it stays.
        let _ = std::fs::remove_dir(run_dir);
    }
    Ok(())
}

/// Removes a file or a tree of ours; one that is gone, or going, is no error.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    sys::fs::remove(path).context(|| format!("remove {}", path.display()))
}

/// The first failure with the others attached, or success.
pub(crate) fn first_with_rest(failures: Vec<Error>) -> Result<()> {
    let mut failures = failures.into_iter();
    match failures.next() {
        Some(first) => Err(first.with_undo_failures(failures)),
        None => Ok(()),
    }
}
