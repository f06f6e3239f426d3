//! Renaming.

use model::{Error, Kind, Result};
use runtime::Changed;

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
            let changed = Changed { name: Some(new.to_owned()), ..Changed::default() };
            tell_monitor(&container, changed)?;
        }
        self.container_event(&container, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }
}

/// Tells a container's monitor what has changed. One that ends just now need not know: what is written down holds from the
/// next start on.
pub(super) fn tell_monitor(container: &Container, changed: Changed) -> Result<()> {
    let limits = changed.resources.is_some();
    match runtime::change(&container.run_dir, changed) {
        Err(_) if runtime::live(&container.run_dir)?.is_none() => Ok(()),
        Err(error) if !limits && matches!(error.kind(), Kind::Conflict | Kind::Unavailable) => Ok(()),
        told => told,
    }
}
