//! Volumes: made by name or by a container, listed with who uses them, removed when nobody does.
//!
//! Who uses a volume is read from the containers' own specifications, never kept twice. The store's lock on volumes is
//! shared by whoever makes a container and exclusive for whoever removes volumes.

use model::container::{Mount, MountSource};
use model::error::Context as _;
use model::filter::Filters;
use model::{ContainerId, Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

pub use store::volume::{Mark, Mounted, Volume};

use crate::Engine;
use crate::container::read_json;

/// The label that Docker gives to volumes whose name it made up.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// What a prune took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names.
    pub volumes: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// What a prune takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneScope {
    /// Anonymous volumes only: Docker's default since API 1.42; `all=true` among the filters widens it.
    Anonymous,
    /// Every volume that nobody uses: Docker's before API 1.42.
    All,
}

impl Engine {
    /// Makes a volume, or returns the one of that name. Without a name it gets one of 64 digits.
    ///
    /// # Errors
    /// An unknown driver, a malformed name or option.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        driver: &str,
        mut labels: BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<Volume> {
        if !matches!(driver, "" | "local") {
            let name = name.unwrap_or_default();
            return Err(Error::not_found(format!(
                "create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
            ))
            .hint("only the built-in driver \"local\" exists; it takes --opt type, o and device"));
        }
        let anonymous = name.is_none_or(str::is_empty);
        let name = match name {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => store::volume::random_name()?,
        };
        if anonymous {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let (volume, new) = self.store.create_volume(&name, &labels, options, anonymous, crate::now())?;
        if new {
            self.emit_volume("create", &volume.name);
        }
        Ok(volume)
    }
    /// One volume.
    ///
    /// # Errors
    /// `get NAME: no such volume`.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        self.store.volume(name)
    }
    /// Volumes that the filters `name`, `label`, `label!`, `driver` and `dangling` let pass.
    ///
    /// # Errors
    /// An unknown filter, or an unreadable record.
    pub fn volumes(&self, filters: &Filters) -> Result<Vec<Volume>> {
        filters.check(&["dangling", "driver", "label", "label!", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let used = if dangling.is_some() { self.used_volumes()? } else { BTreeMap::new() };
        let names = filters.patterns("name");
        let mut volumes = self.store.volumes()?;
        volumes.retain(|volume| {
            dangling.is_none_or(|dangling| dangling != used.contains_key(&volume.name))
                && names.hold(&volume.name)
                && filters.exact("driver", "local")
                && filters.labels("label", &volume.labels)
                && filters.labels_absent("label!", &volume.labels)
        });
        Ok(volumes)
    }
    /// Bytes of a volume's files, and how many containers have it: what `system df` shows.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn volume_usage(&self, volume: &Volume) -> Result<(u64, usize)> {
        let users = self.used_volumes()?.remove(&volume.name).map_or(0, |users| users.len());
        Ok((self.store.volume_usage(volume)?, users))
    }
    /// Removes a volume that no container has. With `force` a missing one is no error.
    ///
    /// # Errors
    /// `remove NAME: volume is in use - [ID, …]`, or there is no such volume.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let _lock = self.store.own_volumes()?;
        if force && self.store.find_volume(name)?.is_none() {
            return Ok(());
        }
        self.store.volume(name)?;
        if let Some(users) = self.used_volumes()?.get(name) {
            let ids: Vec<&str> = users.iter().map(ContainerId::as_str).collect();
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", ids.join(", "))));
        }
        self.store.remove_volume(name)?;
        self.emit_volume("destroy", name);
        Ok(())
    }
    /// A copy of a volume to work on: see [`Store::draft_volume`](store::Store::draft_volume).
    ///
    /// # Errors
    /// A running container has the volume, or it cannot be copied.
    pub fn draft_volume(&self, name: &str) -> Result<Volume> {
        // Shared: others make containers while it is copied.
        let _lock = self.store.share_volumes()?;
        let volume = self.store.volume(name)?;
        self.unused_by_running(name)?;
        for draft in self.store.drafts_of(&volume)? {
            self.unused_by_running(&draft)?;
        }
        let draft = self.store.draft_volume(name, crate::now())?;
        self.emit_volume("create", &draft.name);
        Ok(draft)
    }
    /// Puts a draft in its volume's place, with a mark of whose work it is.
    ///
    /// # Errors
    /// It is no draft, or a running container has either.
    pub fn commit_draft(&self, name: &str, mark: Mark) -> Result<Volume> {
        let _lock = self.store.own_volumes()?;
        self.unused_by_running(name)?;
        if let Some((volume, _)) = name.rsplit_once(".draft-") {
            self.unused_by_running(volume)?;
        }
        let volume = self.store.commit_draft(name, mark)?;
        self.emit_volume("destroy", name);
        Ok(volume)
    }
    /// Throws a draft away. Does nothing where there is none of that name.
    ///
    /// # Errors
    /// It is no draft, or a container has it.
    pub fn remove_draft(&self, name: &str) -> Result<()> {
        let _lock = self.store.own_volumes()?;
        self.unused_by_running(name)?;
        self.store.remove_draft(name)?;
        self.emit_volume("destroy", name);
        Ok(())
    }
    /// Forgets marks of a volume: a helper's, or all.
    ///
    /// # Errors
    /// There is no such volume.
    pub fn forget_marks(&self, name: &str, helper: Option<&str>) -> Result<Volume> {
        let _lock = self.store.own_volumes()?;
        self.store.retain_marks(name, |mark| helper.is_some_and(|helper| mark.helper != helper))
    }
    fn unused_by_running(&self, name: &str) -> Result<()> {
        let Some(users) = self.used_volumes()?.remove(name) else { return Ok(()) };
        let mut running = Vec::new();
        for id in users {
            match self.find(id.as_str()) {
                // One that restarts has its mounts again in a moment.
                Ok(container) if container.live.is_some() => running.push(container.name().to_owned()),
                Err(error) if error.kind() != model::Kind::NotFound => return Err(error),
                _ => {}
            }
        }
        if running.is_empty() {
            return Ok(());
        }
        Err(Error::conflict(format!("volume {name} is in use by running containers: {}", running.join(", ")))
            .hint("stop them first"))
    }
    /// Removes volumes that no container has. Filters: `label`, `label!` and `all`.
    ///
    /// # Errors
    /// An unknown filter. A volume that cannot be removed stops it; those before are gone.
    pub fn prune_volumes(&self, filters: &Filters, scope: PruneScope) -> Result<Pruned> {
        filters.check(&["all", "label", "label!"])?;
        let all = filters.boolean("all")?.unwrap_or(false) || scope == PruneScope::All;
        let _lock = self.store.own_volumes()?;
        let used = self.used_volumes()?;
        let mut pruned = Pruned::default();
        for volume in self.store.volumes()? {
            let wanted = (all || volume.anonymous)
                && !used.contains_key(&volume.name)
                && filters.labels("label", &volume.labels)
                && filters.labels_absent("label!", &volume.labels);
            if wanted {
                let bytes = self.store.volume_usage(&volume)?;
                self.store.remove_volume(&volume.name)?;
                self.emit_volume("destroy", &volume.name);
                pruned.reclaimed += bytes;
                pruned.volumes.push(volume.name);
            }
        }
        let reclaimed = BTreeMap::from([("reclaimed".to_owned(), pruned.reclaimed.to_string())]);
        self.emit("volume", "prune", "", reclaimed);
        Ok(pruned)
    }
    /// Removes the anonymous volumes of a container that is gone, unless another container has them.
    ///
    /// # Errors
    /// Every volume is tried; what failed is attached to the first error.
    pub fn remove_anonymous_volumes(&self, mounts: &[Mount]) -> Result<()> {
        let anonymous: BTreeSet<&str> = mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Volume { name, anonymous: true, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect();
        if anonymous.is_empty() {
            return Ok(());
        }
        let _lock = self.store.own_volumes()?;
        let used = self.used_volumes()?;
        let mut failures = Vec::new();
        for name in anonymous {
            if used.contains_key(name) || self.store.find_volume(name)?.is_none_or(|volume| !volume.anonymous)
            {
                continue;
            }
            match self.store.remove_volume(name) {
                Ok(()) => self.emit_volume("destroy", name),
                Err(error) => failures.push(error),
            }
        }
        let mut failures = failures.into_iter();
        match failures.next() {
            Some(first) => Err(first.with_undo_failures(failures)),
            None => Ok(()),
        }
    }
    /// Unmounts the volumes of a container that has stopped (`type=tmpfs` and the like), unless a container for which
    /// `running` says yes has them too.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn release_volumes(&self, mounts: &[Mount], running: impl Fn(&ContainerId) -> bool) -> Result<()> {
        let mut used = None;
        for mount in mounts {
            let MountSource::Volume { name, .. } = &mount.source else { continue };
            let Some(volume) = self.store.find_volume(name)? else { continue };
            if volume.options.is_empty() {
                continue;
            }
            let used = match &used {
                Some(used) => used,
                None => used.insert(self.used_volumes()?),
            };
            if !used.get(name).is_some_and(|users| users.iter().any(&running)) {
                self.store.unmount_volume(name)?;
            }
        }
        Ok(())
    }
    /// Which containers have which volume, from their specifications.
    ///
    /// # Errors
    /// A specification cannot be read.
    pub fn used_volumes(&self) -> Result<BTreeMap<String, BTreeSet<ContainerId>>> {
        #[derive(Deserialize)]
        struct Mounts {
            /// Always there: a damaged file must not pass for one without mounts.
            id: ContainerId,
            #[serde(default)]
            mounts: Vec<Mount>,
        }
        let dir = self.store.layout.containers();
        let mut used: BTreeMap<String, BTreeSet<ContainerId>> = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).context(|| format!("read directory {}", dir.display()))? {
            let name = entry.context(|| format!("read directory {}", dir.display()))?.file_name();
            let Some(id) = name.to_str().and_then(|name| ContainerId::parse(name).ok()) else { continue };
            let path = self.store.layout.container(&id).join("spec.json");
            // Without one it is being made, or was removed meanwhile.
            let Some(spec) = read_json::<Mounts>(&path)? else { continue };
            for mount in spec.mounts {
                if let MountSource::Volume { name, .. } = mount.source {
                    used.entry(name).or_default().insert(spec.id.clone());
                }
            }
        }
        Ok(used)
    }
    fn emit_volume(&self, action: &str, name: &str) {
        self.emit("volume", action, name, BTreeMap::from([("driver".to_owned(), "local".to_owned())]));
    }
}
