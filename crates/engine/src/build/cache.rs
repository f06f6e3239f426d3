//! Cached steps, the directories of steps that run, and their end.

use model::digest::chain_id;
use model::error::Context as _;
use model::time::Timestamp;
use model::{ContainerId, Digest, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use sys::fs::Lock;

use crate::Engine;
use crate::container::lookup::{read_json, write_json};
use crate::container::reap::remove_tree;

/// `records/<key>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    diff_id: Digest,
    pub parent: Option<Digest>,
    created: Timestamp,
    /// When the step was carried out, where that is not the time that it is given in the image.
    #[serde(default)]
    made: Option<Timestamp>,
    pub text: String,
}

impl Record {
    pub fn made(&self) -> Timestamp {
        self.made.unwrap_or(self.created)
    }
    pub fn chain(&self) -> Digest {
        chain_id(self.parent.as_ref(), &self.diff_id)
    }
}

/// A step that runs: its directory, under a lock that dies with us.
pub(super) struct Running {
    /// `steps/<id>`: its name is the container's id.
    pub dir: PathBuf,
    _lock: Lock,
}

impl Engine {
    fn records(&self) -> PathBuf {
        self.store.layout.build_cache().join("records")
    }
    fn steps(&self) -> PathBuf {
        self.store.layout.build_cache().join("steps")
    }
    pub(super) fn cache_mounts(&self) -> PathBuf {
        self.store.layout.build_cache().join("mounts")
    }
    /// The layer that a step with this key made since `oldest`, and its time in the image, if it is there.
    pub(super) fn cached_layer(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        oldest: Timestamp,
    ) -> Result<Option<(Digest, Timestamp)>> {
        let path = self.records().join(format!("{}.json", key.hex()));
        // A record that cannot be read is as good as none: the step is made again and writes it anew.
        let Ok(Some(record)) = read_json::<Record>(&path) else { return Ok(None) };
        let too_old = oldest != Timestamp::NEVER && record.made() < oldest;
        if too_old || record.parent.as_ref() != parent || self.store.layer(&record.chain())?.is_none() {
            return Ok(None);
        }
        super::gc::touch(&path);
        Ok(Some((record.diff_id, record.created)))
    }
    pub(super) fn record_layer(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        diff_id: &Digest,
        created: Timestamp,
        text: &str,
    ) -> Result<()> {
        let records = self.records();
        sys::fs::private_dir(&records).context(|| format!("create {}", records.display()))?;
        let record = Record {
            diff_id: diff_id.clone(),
            parent: parent.cloned(),
            created,
            made: Some(crate::now()),
            text: text.to_owned(),
        };
        write_json(&records.join(format!("{}.json", key.hex())), &record, false)
    }
    /// The layers (chain ids) that cached steps need.
    pub(crate) fn cached_chains(&self) -> Result<Vec<Digest>> {
        Ok(self.all_records()?.into_iter().map(|(_, record)| record.chain()).collect())
    }
    pub(super) fn all_records(&self) -> Result<Vec<(PathBuf, Record)>> {
        let records = self.records();
        let entries = match std::fs::read_dir(&records) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(|| format!("read {}", records.display())),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.context(|| format!("read {}", records.display()))?.path();
            if let Ok(Some(record)) = read_json::<Record>(&path) {
                found.push((path, record));
            }
        }
        Ok(found)
    }
    pub(super) fn begin_step(&self, random: [u8; 32]) -> Result<Running> {
        let id = ContainerId::from_bytes(random);
        self.begin(self.steps().join(id.as_str()))
    }
    /// A directory that the next build removes where this one does not: made and locked before a sweep may see it.
    pub(super) fn begin(&self, dir: PathBuf) -> Result<Running> {
        use std::os::unix::fs::DirBuilderExt as _;
        let _making =
            Lock::shared(self.store.layout.lock("build-steps")).context(|| "lock the build steps")?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.context(|| format!("create {}", dir.display()))?;
        let lock = Lock::exclusive(dir.join("lock")).context(|| format!("lock {}", dir.display()))?;
        Ok(Running { dir, _lock: lock })
    }
    pub(super) fn end_step(&self, step: Running) -> Result<()> {
        remove_tree(&step.dir)
    }
    /// Where contexts that came as streams are unpacked.
    pub(super) fn contexts(&self) -> PathBuf {
        self.store.layout.build_cache().join("contexts")
    }
    /// Where secrets and scripts of running steps lie: it dies with the boot.
    pub(super) fn scratch(&self) -> PathBuf {
        self.store.layout.run_root.join("build")
    }
    /// Clears what builds that were killed left: their containers, networks and directories.
    pub(crate) fn sweep_steps(&self) -> Result<()> {
        let making = Lock::try_exclusive(self.store.layout.lock("build-steps"));
        let Some(_making) = making.context(|| "lock the build steps")? else { return Ok(()) };
        for dir in self.abandoned() {
            if dir.starts_with(self.steps())
                && let Some(Ok(id)) = dir.file_name().map(|name| ContainerId::parse(&name.to_string_lossy()))
            {
                self.release_step(&id)?;
            }
            remove_tree(&dir)?;
        }
        Ok(())
    }
    /// What [`Engine::sweep_steps`] would clear; nothing, where somebody is making a step just now.
    pub(crate) fn stale_steps(&self) -> Result<Vec<PathBuf>> {
        let making = Lock::try_exclusive(self.store.layout.lock("build-steps"));
        let making = making.context(|| "lock the build steps")?;
        Ok(making.map(|_making| self.abandoned()).unwrap_or_default())
    }
    /// Directories whose lock nobody holds.
    fn abandoned(&self) -> Vec<PathBuf> {
        let parents = [self.steps(), self.contexts(), self.scratch()];
        let entries = parents.iter().filter_map(|parent| std::fs::read_dir(parent).ok()).flatten().flatten();
        let held = |dir: &PathBuf| {
            let lock = dir.join("lock");
            lock.exists() && !matches!(Lock::try_exclusive(&lock), Ok(Some(_)))
        };
        entries.map(|entry| entry.path()).filter(|dir| !held(dir)).collect()
    }
    /// Whatever of a step's container lives or is held. Idempotent.
    pub(super) fn release_step(&self, id: &ContainerId) -> Result<()> {
        let run_dir = self.store.layout.run(id);
        if let Ok(Some(live)) = runtime::live(&run_dir) {
            runtime::kill(&live, 9)?;
            runtime::wait_exit(&live, None)?;
        }
        self.networks.release(id)?;
        remove_tree(&run_dir)
    }
}
