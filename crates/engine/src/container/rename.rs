//! Renaming.

use model::container::Lifecycle;
use model::{Error, Kind, Result};

use super::lookup::Container;
use crate::Engine;

impl Engine {
    /// Gives a container another name.
    ///
    /// # Errors
    /// Docker's texts: the name is taken, malformed, or its own.
    pub fn rename_container(&self, name: &str, new: &str) -> Result<()> {
        let new = new.strip_prefix('/').unwrap_or(new);
        if new.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let (mut container, _lock) = self.find_locked(name)?;
        let old = container.name().to_owned();
        if old == new {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        self.take_name(new, container.id())
            .map_err(|error| error.within("Error when allocating new name"))?;
        container.changes.name = Some(new.to_owned());
        if let Err(error) = self.write_changes(&container) {
            return Err(error.with_undo_failures(self.free_name(new, container.id()).err()));
        }
        self.free_name(&old, container.id())?;
        self.sync_names()?;
        if container.live.is_some() {
            self.networks.rename(container.id(), |endpoint| container.dns_names(&endpoint.spec))?;
            tell_monitor(&container, Some(new.to_owned()), None)?;
        }
        self.container_event(&container, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }
}

/// Tells a container's monitor of another name or policy. One that ends just now need not know: what is written down
/// holds from the next start on.
pub(super) fn tell_monitor(
    container: &Container,
    name: Option<String>,
    lifecycle: Option<Lifecycle>,
) -> Result<()> {
    match runtime::change(&container.run_dir, name, lifecycle) {
        Err(error) if matches!(error.kind(), Kind::Conflict | Kind::Unavailable) => Ok(()),
        told => told,
    }
}
