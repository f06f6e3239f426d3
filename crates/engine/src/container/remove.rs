//! Removing: the directory goes to the trash by one rename, so that name and id are free at once; then what it held.

use model::container::{Lifecycle, Mount, MountSource};
use model::error::Context as _;
use model::state::Status;
use model::{Error, Kind, Result};

use super::lookup::{Container, ContainerLock};
use super::reap::first_with_rest;
use crate::Engine;

/// How a container is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// With its anonymous volumes.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// Docker's text for one that runs (without `force`), or does not exist.
    pub fn remove_container(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let id = self.container_id(name)?;
        for _ in 0..3 {
            let (container, lock) = self.find_locked(id.as_str()).map_err(|error| renamed(error, name))?;
            if container.live.is_none() {
                return self.remove_found(&container, lock, options.volumes);
            }
            if !options.force {
                return Err(refusal(&container));
            }
            drop(lock);
            self.kill_and_wait(&container)?;
            if *container.lifecycle() == Lifecycle::RemoveOnExit && self.load(&id).is_err() {
                return Ok(());
            }
        }
        Err(Error::conflict(format!("cannot remove container \"/{name}\": it is started again and again")))
    }
    /// Removes a container that does not run, under its lock.
    pub(crate) fn remove_found(
        &self,
        container: &Container,
        lock: ContainerLock,
        volumes: bool,
    ) -> Result<()> {
        self.discard(container, volumes)?;
        if *container.lifecycle() != Lifecycle::RemoveOnExit {
            let containers = self.store.layout.containers();
            sys::fs::sync(&containers).context(|| format!("sync {}", containers.display()))?;
            self.sync_names()?;
        }
        drop(lock);
        let failures: Vec<Error> = self.finish_removal(container.id()).err().into_iter().collect();
        first_with_rest(failures)
    }
    /// The quick part of a removal, under the lock: name and id are free when it returns. The rest is
    /// [`Engine::reap`]'s.
    pub(crate) fn discard(&self, container: &Container, volumes: bool) -> Result<()> {
        let id = container.id();
        let anonymous = |mount: &Mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. });
        if volumes && container.spec.mounts.iter().any(anonymous) {
            // Another name of a file that is there: a full disk has room for it.
            let mark = container.dir.join("with-volumes");
            match std::fs::hard_link(container.dir.join("spec.json"), &mark) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).context(|| format!("create {}", mark.display()));
                }
                _ => {}
            }
        }
        let trash = self.store.layout.trash().join(id.as_str());
        std::fs::rename(&container.dir, &trash).context(|| format!("remove container {id}"))?;
        sys::failpoint!("remove: in the trash");
        // A name whose container is gone counts as free: nobody notices where this does not come to pass.
        self.free_name(container.name(), id)?;
        self.container_event(container, "destroy", &[]);
        Ok(())
    }
    /// The quick part of a `--rm` container's removal, by whoever waits for it. True: it is gone.
    ///
    /// # Errors
    /// The directory cannot be renamed.
    pub(crate) fn discard_if_over(&self, container: &Container) -> Result<bool> {
        let Some(lock) = self.lock_container(container.id())? else {
            return Ok(true);
        };
        let now = match self.load(container.id()) {
            Ok(now) => now,
            Err(error) if error.kind() == Kind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        if now.live.is_some()
            || *now.lifecycle() != Lifecycle::RemoveOnExit
            || now.state.finished_at.is_never()
        {
            return Ok(false);
        }
        self.discard(&now, true)?;
        drop(lock);
        // Whoever sees the container gone sees its volumes gone.
        self.remove_anonymous_volumes(&now.spec.mounts)?;
        Ok(true)
    }
}

fn renamed(error: Error, name: &str) -> Error {
    if error.kind() == Kind::NotFound {
        Error::not_found(format!("No such container: {name}"))
    } else {
        error
    }
}

fn refusal(container: &Container) -> Error {
    let name = container.name();
    let (state, hint) = match container.status() {
        Status::Paused => ("paused", "unpause and then stop the container before removing or force remove"),
        Status::Restarting => ("restarting", "stop the container before removing or force remove"),
        _ => ("running", "stop the container before removing or force remove"),
    };
    Error::conflict(format!("cannot remove container \"/{name}\": container is {state}: {hint}"))
}
