//! Restarting by a person.

use model::Result;
use model::container::Lifecycle;

use crate::Engine;

impl Engine {
    /// Stops a container, where it runs, and starts it again. One with `--rm` stays, as in Docker.
    ///
    /// # Errors
    /// Those of stop and start.
    pub fn restart_container(
        &self,
        name: &str,
        seconds: Option<i64>,
        signal: Option<&str>,
    ) -> Result<Vec<String>> {
        let id = self.container_id(name)?;
        let signal = signal.filter(|text| !text.is_empty()).map(model::signal::parse).transpose()?;
        let mut container = self.find(id.as_str())?;
        // With `--rm` its monitor, and whoever waits for it, would take it away at its end: they wait for the lock, and then
        // see it run.
        let mut lock = None;
        if *container.lifecycle() == Lifecycle::RemoveOnExit {
            let (now, held) = self.find_locked(id.as_str())?;
            (container, lock) = (now, Some(held));
        }
        if container.live.is_some() {
            self.stop_found(&container, seconds, signal)?;
        }
        let (container, _lock) = match lock {
            Some(held) => {
                // The overlay of the last run was volatile and says so: the kernel mounts it again only without that mark
                // (Documentation/filesystems/overlayfs.rst). Nothing was lost meanwhile: the machine runs on.
                super::reap::remove_tree(&container.rw_dir().join("work/work/incompat"))?;
                (self.load(&id)?, held)
            }
            None => self.find_locked(id.as_str())?,
        };
        let warnings = match container.live {
            None => self.start_found(container)?,
            Some(_) => Vec::new(),
        };
        let container = self.load(&id)?;
        self.container_event(&container, "restart", &[]);
        Ok(warnings)
    }
}
