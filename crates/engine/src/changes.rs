//! What a container changed in its file system: read off the overlay's upper directory, against the image below it.

use model::error::Context as _;
use model::{Result, limits};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::Engine;
use crate::container::Container;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was there and is another now.
    Modified,
    /// It was not there.
    Added,
    /// It is not there any more.
    Deleted,
}

/// Paths that every container gets from the engine: their mount points are no changes.
const OURS: [&str; 8] =
    ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv", "/etc/mtab"];

impl Engine {
    /// The changes of a container, by path.
    ///
    /// # Errors
    /// Names the path that could not be read.
    pub fn changes(&self, name: &str) -> Result<Vec<(String, Change)>> {
        let container = self.find(name)?;
        let image = self.store.mount_detached(&self.store.lower(&container.spec.layers)?, None)?;
        let upper = container.rw_dir().join("upper");
        let root = sys::fs::open_root(&upper).context(|| format!("open {}", upper.display()))?;
        let mut walk = Walk { image: image.as_fd(), container: &container, found: Vec::new() };
        walk.dir(&root, "", 0)?;
        walk.found.sort();
        Ok(walk.found)
    }
}

struct Walk<'a> {
    image: BorrowedFd<'a>,
    container: &'a Container,
    found: Vec<(String, Change)>,
}

impl Walk<'_> {
    /// Walks a directory; true where it holds something of the engine's own and no change beside it.
    fn dir(&mut self, dir: &OwnedFd, path: &str, depth: usize) -> Result<bool> {
        if depth > limits::PATH_DEPTH {
            return Ok(false);
        }
        let (start, mut ours) = (self.found.len(), false);
        let what = || format!("read directory {path}/ of container {}", self.container.id());
        let listing = sys::fs::open_in_root(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY, 0).context(what)?;
        let entries = rustix::fs::Dir::read_from(&listing).map_err(std::io::Error::from).context(what)?;
        for entry in entries {
            let entry = entry.map_err(std::io::Error::from).context(what)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = format!("{path}/{}", name.to_string_lossy());
            if OURS.contains(&below.as_str()) {
                ours = true;
            } else {
                self.entry(&listing, name, &below, depth)?;
            }
        }
        Ok(ours && self.found.len() == start)
    }
    fn entry(&mut self, dir: &OwnedFd, name: &CStr, path: &str, depth: usize) -> Result<()> {
        let what = || format!("read {path} of container {}", self.container.id());
        let now = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(std::io::Error::from)
            .context(what)?;
        let before = self.before(path);
        let kind = FileType::from_raw_mode(now.st_mode);
        if kind == FileType::CharacterDevice && now.st_rdev == 0 {
            if before.is_some() {
                self.found.push((path.to_owned(), Change::Deleted));
            }
            return Ok(());
        }
        let change = match before {
            None => Some(Change::Added),
            Some(before) if kind == FileType::Directory && same(&before, &now) => None,
            Some(_) => Some(Change::Modified),
        };
        let at = self.found.len();
        self.found.extend(change.map(|change| (path.to_owned(), change)));
        if kind == FileType::Directory {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty())
                .map_err(std::io::Error::from)
                .context(what)?;
            let start = std::mem::take(&mut self.found);
            let only_ours = self.dir(&below, path, depth + 1)?;
            let inside = std::mem::replace(&mut self.found, start);
            // Its time changed because mount points were made in it.
            if only_ours && change == Some(Change::Modified) {
                self.found.truncate(at);
            }
            self.found.extend(inside);
        }
        Ok(())
    }
    /// What the image has at this path.
    fn before(&self, path: &str) -> Option<Stat> {
        let file = sys::fs::open_in_root(
            self.image,
            path.trim_start_matches('/'),
            OFlags::PATH | OFlags::NOFOLLOW,
            0,
        );
        rustix::fs::fstat(file.ok()?).ok()
    }
}

/// A directory that is in the upper directory only because of what is below it: copied up, times and all.
fn same(before: &Stat, now: &Stat) -> bool {
    before.st_mode == now.st_mode
        && (before.st_uid, before.st_gid) == (now.st_uid, now.st_gid)
        && (before.st_mtime, before.st_mtime_nsec) == (now.st_mtime, now.st_mtime_nsec)
}
