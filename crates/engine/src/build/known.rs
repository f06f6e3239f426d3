//! What is known of a context's files: their digests, so that an unchanged file is not read again.
//!
//! `build/known/<hash>` holds, for the context directory whose device and inode the hash is of, one fixed record a file:
//! inode, size, times of modification and change, SHA-256. A record counts only where all of these are as they were.
//! A file that changed shortly before it was read is not recorded: a second change within the clock's tick would
//! not show in its times. Only file systems whose inode numbers and times can be relied on take part. The file is
//! replaced atomically; two builds that write it do no harm, since a missing record only costs reading.

use model::error::Context as _;
use model::{Digest, Result};
use rustix::fs::Stat;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Engine;

const MAGIC: &[u8; 8] = b"cldknow1";
/// Bytes of a record.
const RECORD: usize = 72;
/// Records that are kept of a context, at most.
const RECORDS: usize = 500_000;
/// A file must have been left alone for so many seconds before it is recorded.
const QUIET: i64 = 2;
/// `statfs(2)`: ext2 to ext4, XFS, Btrfs, tmpfs.
const TRUSTED: [i64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// What tells that a file is as it was.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    size: i64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Look {
    #[allow(clippy::cast_possible_truncation, reason = "nanoseconds are below 2^30")]
    fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
            changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }
}

/// The digests of one context's files.
pub(super) struct Known {
    path: PathBuf,
    device: u64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    read: bool,
    changed: bool,
    records: HashMap<u64, (Look, [u8; 32])>,
}

impl Known {
    /// Of the context with this directory; `None` where its file system is not one to rely on.
    pub(super) fn of(engine: &Engine, root: &OwnedFd) -> Option<Self> {
        let kind = rustix::fs::fstatfs(root).ok()?.f_type;
        let stat = rustix::fs::fstat(root).ok()?;
        if !TRUSTED.iter().any(|trusted| i128::from(kind) == i128::from(*trusted)) {
            return None;
        }
        let name = Digest::of(format!("{} {}", stat.st_dev, stat.st_ino).as_bytes()).short().to_owned();
        let path = engine.store.layout.build_cache().join("known").join(name);
        Some(Self { path, device: stat.st_dev, table: Mutex::default() })
    }
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.read {
            table.read = true;
            // One that cannot be read is as good as none.
            table.records =
                std::fs::read(&self.path).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default();
        }
        table
    }
    /// The digest of a file that looks like this.
    pub(super) fn get(&self, stat: &Stat) -> Option<Digest> {
        if stat.st_dev != self.device {
            return None;
        }
        let (look, digest) = *self.table().records.get(&stat.st_ino)?;
        (look == Look::of(stat)).then(|| Digest::from_bytes(digest))
    }
    /// Records the digest of a file that looked like this before and after it was read, `now` seconds after 1970.
    pub(super) fn put(&self, before: &Stat, after: &Stat, now: i64, digest: [u8; 32]) {
        let stat = after;
        let same = before.st_ino == after.st_ino && Look::of(before) == Look::of(after);
        let last = stat.st_mtime.max(stat.st_ctime);
        if !same || stat.st_dev != self.device || last > now.saturating_sub(QUIET) {
            return;
        }
        let mut table = self.table();
        if table.records.len() < RECORDS || table.records.contains_key(&stat.st_ino) {
            table.records.insert(stat.st_ino, (Look::of(stat), digest));
            table.changed = true;
        }
    }
    /// Keeps what was learnt for the next build.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self) -> Result<()> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.changed {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(MAGIC.len() + table.records.len() * RECORD);
        bytes.extend(MAGIC);
        for (inode, (look, digest)) in &table.records {
            bytes.extend(inode.to_le_bytes());
            bytes.extend(look.size.to_le_bytes());
            for (seconds, nanoseconds) in [look.modified, look.changed] {
                bytes.extend(seconds.to_le_bytes());
                bytes.extend(nanoseconds.to_le_bytes());
            }
            bytes.extend(digest);
        }
        let dir = self.path.parent().unwrap_or(&self.path);
        sys::fs::private_dir(dir).context(|| format!("create {}", dir.display()))?;
        sys::fs::replace_file(&self.path, &bytes, 0o600, false)
            .context(|| format!("write {}", self.path.display()))
    }
}

/// The records of a file; `None` where it is not one of ours.
fn parse(bytes: &[u8]) -> Option<HashMap<u64, (Look, [u8; 32])>> {
    let records = bytes.strip_prefix(MAGIC)?;
    if records.len() % RECORD != 0 || records.len() / RECORD > RECORDS {
        return None;
    }
    let mut all = HashMap::with_capacity(records.len() / RECORD);
    for record in records.chunks_exact(RECORD) {
        let long = |at: usize| Some(i64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
        let look =
            Look { size: long(8)?, modified: (long(16)?, short(24)?), changed: (long(28)?, short(36)?) };
        let inode = u64::from_le_bytes(record.get(..8)?.try_into().ok()?);
        all.insert(inode, (look, record.get(40..)?.try_into().ok()?));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn stat(path: &Path) -> Stat {
        rustix::fs::stat(path).unwrap()
    }

    #[test]
    fn a_record_counts_for_the_same_file_only() {
        let dir = std::env::temp_dir().join(format!("cauldron-known-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("file");
        std::fs::write(&file, "one").unwrap();
        let before = stat(&file);
        let known = || Known { path: dir.join("known"), device: before.st_dev, table: Mutex::default() };
        let first = known();
        first.put(&before, &before, before.st_ctime + 1, [7; 32]);
        assert_eq!(first.get(&before), None, "it changed a moment ago");
        // Only the seconds and the size differ: a file system may keep no more.
        let mut changed = before;
        changed.st_size += 1;
        first.put(&before, &changed, before.st_ctime + 60, [7; 32]);
        assert_eq!((first.get(&before), first.get(&changed)), (None, None), "it changed while it was read");
        first.put(&before, &before, before.st_ctime + 60, [7; 32]);
        assert_eq!(first.get(&before), Some(Digest::from_bytes([7; 32])));
        first.save().unwrap();
        // Another process reads what was saved.
        assert_eq!(known().get(&before), Some(Digest::from_bytes([7; 32])));
        // The same size and time of modification, but changed since.
        std::fs::write(&file, "two").unwrap();
        let time = std::time::UNIX_EPOCH
            + std::time::Duration::new(before.st_mtime as u64, before.st_mtime_nsec as u32);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        let after = stat(&file);
        assert_eq!((after.st_mtime, after.st_size), (before.st_mtime, before.st_size));
        assert_eq!(known().get(&after), None);
        // Half a record is no record.
        let bytes = std::fs::read(dir.join("known")).unwrap();
        std::fs::write(dir.join("known"), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(known().get(&before), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
