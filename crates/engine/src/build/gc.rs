//! What the build cache takes, and how it is kept within bounds.
//!
//! A cached step's time of use is its record's time of modification, which each use sets; a cache mount's is its directory's. After a
//! build, when the cache may have outgrown its budget or nobody has looked for an hour, what was not used for longest goes:
//! upper layers before those below them, since a step is found through the ones below. `build/kept.json` says when that was,
//! and how much there has been since; it is a hint, and without it the cache is looked at. Layers that images have cost
//! nothing. All of it is asked of `store`'s collection, which deletes nothing that is in use.

use model::container::parse_size;
use model::error::Context as _;
use model::filter::Filters;
use model::time::Timestamp;
use model::{Digest, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use sys::fs::Lock;

use crate::Engine;
use crate::container::lookup::{read_json, write_json};
use crate::container::reap::remove_tree;

/// How long a look at the cache holds.
const LOOK: i64 = 3600;

/// `[build-cache]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Budget {
    /// Whether builds keep the cache within the budget.
    pub gc: bool,
    /// Bytes (`20g`) of layers and mounts that no image shares.
    pub max_size: String,
    /// Days that an unused step is kept.
    pub max_age_days: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { gc: true, max_size: "20g".to_owned(), max_age_days: 30 }
    }
}

impl Budget {
    /// # Errors
    /// The size is not one.
    pub(crate) fn bytes(&self) -> Result<u64> {
        parse_size(&self.max_size)
            .ok_or_else(|| Error::invalid(format!("build-cache.max-size: invalid size {:?}", self.max_size)))
    }
}

/// What a prune of the build cache took away.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Keys of the cached steps and names of cache mounts.
    pub deleted: Vec<String>,
    /// Bytes.
    pub bytes: u64,
}

/// Something in the build cache.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The step's key, or the mount's name.
    pub key: String,
    /// `regular` or `exec.cachemount`.
    pub kind: &'static str,
    /// What the step does.
    pub text: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub used: Timestamp,
    /// Bytes: of a step's layer, or of a mount's files.
    pub bytes: u64,
    /// An image has the layer too.
    pub shared: bool,
    /// A build has the mount now.
    pub in_use: bool,
    path: PathBuf,
    /// Of a step: its layer, and the one below.
    chain: Option<(Digest, Option<Digest>)>,
}

/// What a prune may take.
#[derive(Clone, Debug, Default)]
pub struct Prune {
    /// `id` (a prefix), `type`, `shared`, `inuse`, `description`, `label`.
    pub filters: Filters,
    /// Only what was not used since.
    pub unused_since: Option<Timestamp>,
    /// Stop as soon as no more than these bytes are left.
    pub keep: Option<u64>,
}

/// `build/kept.json`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Kept {
    looked: Timestamp,
    /// Bytes then, those that images share among them: images go without our being told.
    bytes: u64,
    /// Bytes made since.
    made: u64,
}

impl Engine {
    /// What is in the build cache, what was not used for longest first.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn build_cache(&self) -> Result<Vec<Cached>> {
        let of_images = self.chains_of_images()?;
        let mut cached = Vec::new();
        for (path, record) in self.all_records()? {
            let chain = record.chain();
            // Its layer is gone: there is nothing to keep.
            let bytes = self.store.layer(&chain)?.map_or(0, |layer| layer.size);
            cached.push(Cached {
                key: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                kind: "regular",
                created: record.made(),
                used: used(&path).unwrap_or(record.made()),
                bytes,
                shared: of_images.contains(&chain),
                in_use: false,
                chain: Some((chain, record.parent)),
                text: record.text,
                path,
            });
        }
        for entry in std::fs::read_dir(self.cache_mounts()).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let used = used(&path).unwrap_or(Timestamp::NEVER);
            let in_use = !matches!(self.lock_mount(&name), Ok(Some(_)));
            cached.push(Cached {
                kind: "exec.cachemount",
                text: "cache mount".to_owned(),
                created: used,
                used,
                bytes: crate::container::tree_bytes(&path, 0)?,
                shared: false,
                in_use,
                chain: None,
                key: name,
                path,
            });
        }
        order(&mut cached);
        Ok(cached)
    }
    fn chains_of_images(&self) -> Result<HashSet<Digest>> {
        let mut chains = HashSet::new();
        for image in self.store.images()? {
            let mut chain = None;
            for diff_id in &image.config.rootfs.diff_ids {
                let this = model::digest::chain_id(chain.as_ref(), diff_id);
                chains.insert(this.clone());
                chain = Some(this);
            }
        }
        Ok(chains)
    }
    fn lock_mount(&self, name: &str) -> Result<Option<Lock>> {
        Lock::try_exclusive(self.store.layout.lock(&format!("mount-{name}")))
            .context(|| format!("lock the cache mount {name}"))
    }
    /// Forgets cached steps and cache mounts, what was not used for longest first, and collects what only they held.
    ///
    /// # Errors
    /// A filter that does not exist here. A record or a directory cannot be removed.
    pub fn prune_build_cache(&self, wish: &Prune) -> Result<Pruned> {
        let filters = &wish.filters;
        filters.check(&[
            "until",
            "unused-for",
            "id",
            "label",
            "type",
            "shared",
            "inuse",
            "description",
            "private",
        ])?;
        self.sweep_steps()?;
        let mut pruned = Pruned::default();
        let cached = self.build_cache()?;
        let mut left = size_of(&cached);
        for entry in &cached {
            if wish.keep.is_some_and(|keep| left <= keep) {
                break;
            }
            let young = wish.unused_since.is_some_and(|since| entry.used > since);
            if young || !chosen(filters, entry) || !self.forget(entry, &mut pruned)? {
                continue;
            }
            left = left.saturating_sub(if entry.shared { 0 } else { entry.bytes });
        }
        pruned.bytes += self.store.collect(&|| self.layers_in_use())?.bytes;
        Ok(pruned)
    }
    fn forget(&self, entry: &Cached, pruned: &mut Pruned) -> Result<bool> {
        if entry.chain.is_none() {
            // In use: it stays.
            let Ok(Some(_lock)) = self.lock_mount(&entry.key) else { return Ok(false) };
            remove_tree(&entry.path)?;
            pruned.bytes += entry.bytes;
        } else if let Err(error) = std::fs::remove_file(&entry.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).context(|| format!("remove {}", entry.path.display()));
        }
        sys::failpoint!("build cache: forgotten");
        pruned.deleted.push(entry.key.clone());
        Ok(true)
    }
    /// After a build that made so many bytes: keeps the cache within its budget, where that is due.
    ///
    /// # Errors
    /// As [`Engine::prune_build_cache`].
    pub(super) fn keep_within_budget(&self, made: u64) -> Result<()> {
        let budget = &self.config.build_cache;
        if !budget.gc {
            return Ok(());
        }
        let max = budget.bytes()?;
        let path = self.store.layout.build_cache().join("kept.json");
        // One that cannot be read is as good as none.
        let kept = read_json::<Kept>(&path).ok().flatten().unwrap_or_default();
        let now = crate::now();
        let made = kept.made.saturating_add(made);
        // A clock that was set back is no reason to wait.
        let is_recent = (0..LOOK).contains(&now.seconds.saturating_sub(kept.looked.seconds));
        if is_recent && (kept.bytes.saturating_add(made) <= max || made <= max / 20) {
            return if made == kept.made { Ok(()) } else { write_json(&path, &Kept { made, ..kept }, false) };
        }
        let since = now.seconds.saturating_sub(i64::from(budget.max_age_days) * 86_400);
        let old = Prune { unused_since: Some(Timestamp { seconds: since, nanos: 0 }), ..Prune::default() };
        self.prune_build_cache(&old)?;
        if size_of(&self.build_cache()?) > max {
            // A tenth is made free, so that the next build does not find it full again.
            self.prune_build_cache(&Prune { keep: Some(max - max / 10), ..Prune::default() })?;
        }
        let bytes = self.build_cache()?.iter().map(|entry| entry.bytes).sum();
        write_json(&path, &Kept { looked: now, bytes, made: 0 }, false)
    }
}

fn size_of(cached: &[Cached]) -> u64 {
    // Two keys may have given one layer.
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for entry in cached.iter().filter(|entry| !entry.shared) {
        if entry.chain.as_ref().is_none_or(|(chain, _)| seen.insert(chain)) {
            bytes += entry.bytes;
        }
    }
    bytes
}

/// Says that a cached step or a mount is used now.
pub(super) fn touch(path: &std::path::Path) {
    // Where it cannot be said it is forgotten a little early.
    let _ = std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

fn used(path: &std::path::Path) -> Option<Timestamp> {
    Some(Timestamp::from_system(std::fs::metadata(path).ok()?.modified().ok()?))
}

fn chosen(filters: &Filters, entry: &Cached) -> bool {
    let truth = |value: bool| if value { "true" } else { "false" };
    // Nothing here has a label.
    filters.get("label").is_empty()
        && filters.exact("type", entry.kind)
        && filters.prefix("id", &entry.key)
        && filters.exact("description", &entry.text)
        && filters.exact("shared", truth(entry.shared))
        && filters.exact("private", truth(!entry.shared))
        && filters.exact("inuse", truth(entry.in_use))
}

/// What was not used for longest first. A layer counts as used when one above it was, and goes after it.
fn order(cached: &mut [Cached]) {
    let mut at: HashMap<Digest, usize> = HashMap::new();
    for (index, entry) in cached.iter().enumerate() {
        if let Some((chain, _)) = &entry.chain {
            at.insert(chain.clone(), index);
        }
    }
    let below =
        |index: usize| cached[index].chain.as_ref().and_then(|(_, parent)| at.get(parent.as_ref()?)).copied();
    let mut last: Vec<Timestamp> = cached.iter().map(|entry| entry.used).collect();
    let mut depth = vec![0usize; cached.len()];
    for index in 0..cached.len() {
        let (mut next, used) = (below(index), cached[index].used);
        // No image has more layers, so that a record that names itself does no harm.
        while let Some(parent) = next.filter(|_| depth[index] <= model::limits::LAYERS) {
            depth[index] += 1;
            last[parent] = last[parent].max(used);
            next = below(parent);
        }
    }
    let mut keyed: Vec<(Timestamp, std::cmp::Reverse<usize>, Cached)> = cached
        .iter()
        .enumerate()
        .map(|(index, entry)| (last[index], std::cmp::Reverse(depth[index]), entry.clone()))
        .collect();
    keyed.sort_by(|a, b| (a.0, a.1, &a.2.key).cmp(&(b.0, b.1, &b.2.key)));
    for (place, (.., entry)) in cached.iter_mut().zip(keyed) {
        *place = entry;
    }
}

/// The moment that lies so far back.
pub(super) fn ago(age: Duration) -> Timestamp {
    let now = crate::now();
    Timestamp { seconds: now.seconds.saturating_sub_unsigned(age.as_secs()), ..now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, used: i64, chain: Option<(&str, Option<&str>)>) -> Cached {
        let digest = |name: &str| Digest::of(name.as_bytes());
        Cached {
            key: key.to_owned(),
            kind: "regular",
            text: String::new(),
            created: Timestamp::NEVER,
            used: Timestamp { seconds: used, nanos: 0 },
            bytes: 10,
            shared: false,
            in_use: false,
            path: PathBuf::new(),
            chain: chain.map(|(own, below)| (digest(own), below.map(digest))),
        }
    }

    #[test]
    fn what_others_stand_on_goes_after_them() {
        let mut cached = vec![
            entry("base", 1, Some(("a", None))),
            entry("middle", 2, Some(("b", Some("a")))),
            entry("old", 3, Some(("c", Some("a")))),
            entry("top", 9, Some(("d", Some("b")))),
            entry("mount", 5, None),
            entry("itself", 4, Some(("e", Some("e")))),
        ];
        order(&mut cached);
        let keys: Vec<&str> = cached.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["old", "itself", "mount", "top", "middle", "base"]);
        cached.push(entry("twin", 9, Some(("d", Some("b")))));
        assert_eq!(size_of(&cached), 60, "a layer of two keys is there once");
    }
}
