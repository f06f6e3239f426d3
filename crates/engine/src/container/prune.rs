//! Pruning: every container that does not run.

use model::error::Context as _;
use model::filter::Filters;
use model::time::Timestamp;
use model::{ContainerId, Kind, Result};
use std::collections::BTreeMap;

use crate::Engine;

/// What a prune took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids.
    pub containers: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes containers that do not run. Filters: `until` (already a time), `label`, `label!`.
    ///
    /// # Errors
    /// An unknown filter; a container that cannot be removed stops it.
    pub fn prune_containers(&self, filters: &Filters, until: Option<Timestamp>) -> Result<Pruned> {
        filters.check(&["label", "label!", "until"])?;
        let mut pruned = Pruned::default();
        for container in self.containers()? {
            let labels = &container.spec.labels;
            let wanted = container.live.is_none()
                && until.is_none_or(|until| container.spec.created < until)
                && filters.labels("label", labels)
                && filters.labels_absent("label!", labels);
            if !wanted {
                continue;
            }
            let Some(lock) = self.lock_container(container.id())? else { continue };
            let now = match self.load(container.id()) {
                Ok(now) => now,
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if now.live.is_some() {
                continue;
            }
            let bytes = now.size_rw()?;
            self.remove_found(&now, lock, false)?;
            pruned.reclaimed += bytes;
            pruned.containers.push(now.spec.id.as_str().to_owned());
        }
        self.empty_trash()?;
        let reclaimed = BTreeMap::from([("reclaimed".to_owned(), pruned.reclaimed.to_string())]);
        self.emit("container", "prune", "", reclaimed);
        Ok(pruned)
    }
    /// Finishes removals that nobody finished: whoever renamed the container away was killed before it was deleted.
    pub(crate) fn empty_trash(&self) -> Result<()> {
        let trash = self.store.layout.trash();
        for entry in
            std::fs::read_dir(&trash).context(|| format!("read directory {}", trash.display()))?.flatten()
        {
            let id = entry.file_name().to_str().and_then(|name| ContainerId::parse(name).ok());
            if let Some(id) = id.filter(|_| entry.path().join("id").exists()) {
                self.finish_removal(&id)?;
            }
        }
        Ok(())
    }
}
