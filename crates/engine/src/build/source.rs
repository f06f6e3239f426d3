//! What `COPY` and `ADD` copy: found below a root's descriptor, listed, and hashed for the cache.

use model::error::Context as _;
use model::ignore::{Ignore, component_matches, is_pattern};
use model::{Digest, Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::known::Known;

/// Entries that one `COPY` takes at most.
const ENTRIES: usize = 5_000_000;
/// From so many files on, two threads read them.
const MANY: usize = 64;

/// One file, directory or link to copy.
pub(super) struct Item {
    /// Relative to the root that it is read from.
    pub path: PathBuf,
    /// Relative to the target; empty for the top itself.
    pub below: PathBuf,
    /// As it is now.
    pub stat: Stat,
    /// Of a link.
    pub link: Option<OsString>,
    /// Of a regular file's bytes.
    pub digest: Option<Digest>,
}

impl Item {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// One source as given, resolved.
pub(super) struct Source {
    /// The name that a file keeps in a target directory.
    pub name: OsString,
    /// The path as it was given, cleaned (for `--parents`).
    pub given: PathBuf,
    /// It, and what is below it; the first is the top.
    pub items: Vec<Item>,
}

/// A tree to copy from.
pub(super) struct Tree<'a> {
    /// Opened.
    pub root: &'a OwnedFd,
    /// What is left out.
    pub ignore: &'a Ignore,
    /// `--exclude`.
    pub exclude: Ignore,
    /// Digests that are known already.
    pub known: Option<&'a Known>,
}

/// `path` relative to a root, without `.`, `..` and empty components.
pub(super) fn cleaned(path: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

impl Tree<'_> {
    /// Finds what a source names; patterns may match several, or nothing. With `deep`, `**` is any number of directories
    /// (as `--parents` has it), else it is `*`.
    pub(super) fn find(&self, given: &str, deep: bool) -> Result<Vec<Source>> {
        let path = cleaned(given);
        let paths = if is_pattern(given) { self.matching(&path, deep)? } else { vec![path] };
        let mut sources = Vec::new();
        for path in paths {
            sources.extend(self.source(path)?);
        }
        Ok(sources)
    }
    fn left_out(&self, path: &Path) -> bool {
        self.ignore.excludes(&path.to_string_lossy())
    }
    fn matching(&self, pattern: &Path, deep: bool) -> Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        let parts: Vec<_> = pattern.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        for (at, part) in parts.iter().enumerate() {
            let mut next = Vec::new();
            for base in found {
                if deep && part == "**" {
                    // As the last component it wants at least one.
                    self.below(&base, at + 1 == parts.len(), &mut next)?;
                    continue;
                }
                if !is_pattern(part) {
                    next.push(base.join(&**part));
                    continue;
                }
                let Ok(dir) = self.open(&base, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
                for name in names(&dir, &base)? {
                    if component_matches(part, &name.to_string_lossy())? {
                        next.push(base.join(name));
                    }
                }
            }
            found = next;
        }
        let excluded = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            self.exclude.excludes(&path.to_string_lossy()) || self.exclude.excludes(&name.to_string_lossy())
        };
        found.retain(|path| self.open(path, OFlags::PATH).is_ok() && !self.left_out(path) && !excluded(path));
        Ok(found)
    }
    /// A directory and the directories below it, links not followed; or everything in it.
    fn below(&self, base: &Path, all: bool, found: &mut Vec<PathBuf>) -> Result<()> {
        let Ok(dir) = self.open(base, OFlags::RDONLY | OFlags::DIRECTORY) else { return Ok(()) };
        if found.len() >= ENTRIES {
            return Err(Error::invalid(format!("{}: more than {ENTRIES} entries", base.display())));
        }
        if !all {
            found.push(base.to_owned());
        }
        for name in names(&dir, base)? {
            let path = base.join(&name);
            let stat = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW);
            let is_dir = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if all {
                found.push(path);
            } else if is_dir
                && (!self.left_out(&path) || self.ignore.may_include_below(&path.to_string_lossy()))
            {
                self.below(&path, false, found)?;
            }
        }
        Ok(())
    }
    /// Opens below the root; a link, in the last component too, is followed inside it.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> std::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        sys::fs::open_in_root(self.root, path, flags, 0)
    }
    fn source(&self, path: PathBuf) -> Result<Option<Source>> {
        let absent = || {
            Error::not_found(format!(
                "COPY failed: file not found in build context or excluded by .dockerignore: stat {}: file does not exist",
                path.display()
            ))
        };
        let top = self.open(&path, OFlags::PATH).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => absent(),
            _ => Error::invalid(format!("open {} in the build context", path.display())).caused_by(error),
        })?;
        let stat = rustix::fs::fstat(&top)
            .map_err(std::io::Error::from)
            .context(|| format!("stat {}", path.display()))?;
        let name = path.file_name().map(OsString::from).unwrap_or_default();
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let out = !path.as_os_str().is_empty() && self.left_out(&path);
        if out && !(is_dir && self.ignore.may_include_below(&path.to_string_lossy())) {
            return Err(absent());
        }
        let mut items =
            vec![Item { path: path.clone(), below: PathBuf::new(), stat, link: None, digest: None }];
        if is_dir {
            self.walk(&path, Path::new(""), &mut items)?;
            if out && items.len() == 1 {
                return Err(absent());
            }
        }
        self.hash(&mut items)?;
        Ok(Some(Source { name, given: path, items }))
    }
    /// Lists what is below a directory, parents first; a directory that is left out comes only with what is let in.
    fn walk(&self, dir: &Path, below: &Path, items: &mut Vec<Item>) -> Result<()> {
        let fd = self
            .open(dir, OFlags::RDONLY | OFlags::DIRECTORY)
            .context(|| format!("read {}", dir.display()))?;
        for name in names(&fd, dir)? {
            let (path, below) = (dir.join(&name), below.join(&name));
            let stat = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(std::io::Error::from)
                .context(|| format!("stat {}", path.display()))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let text = path.to_string_lossy();
            let out = self.left_out(&path) || self.exclude.excludes(&below.to_string_lossy());
            if out
                && !(kind == FileType::Directory
                    && (self.ignore.may_include_below(&text)
                        || self.exclude.may_include_below(&below.to_string_lossy())))
            {
                continue;
            }
            let link = match kind {
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&fd, &name, Vec::new());
                    let target = target
                        .map_err(std::io::Error::from)
                        .context(|| format!("read link {}", path.display()))?;
                    Some(OsString::from_vec(target.into_bytes()))
                }
                // A socket means nothing outside of its host.
                FileType::Socket => continue,
                _ => None,
            };
            let before = items.len();
            if before >= ENTRIES {
                return Err(Error::invalid(format!("{}: more than {ENTRIES} entries", dir.display())));
            }
            items.push(Item { path: path.clone(), below: below.clone(), stat, link, digest: None });
            if kind == FileType::Directory {
                self.walk(&path, &below, items)?;
                if out && items.len() == before + 1 {
                    items.pop();
                }
            }
        }
        Ok(())
    }
    /// Fills in the digests of regular files: those that are known, and the others by reading, on two threads where
    /// there are many.
    fn hash(&self, items: &mut [Item]) -> Result<()> {
        let is_file = |item: &&mut Item| item.kind() == FileType::RegularFile;
        let mut unknown: Vec<&mut Item> = Vec::new();
        for item in items.iter_mut().filter(is_file) {
            match self.known.and_then(|known| known.get(&item.stat)) {
                Some(digest) => item.digest = Some(digest),
                None => unknown.push(item),
            }
        }
        let half = if unknown.len() < MANY { unknown.len() } else { unknown.len() / 2 };
        let (mine, theirs) = unknown.split_at_mut(half);
        std::thread::scope(|scope| {
            let other = (!theirs.is_empty()).then(|| scope.spawn(|| self.read_each(theirs)));
            self.read_each(mine)?;
            other.map_or(Ok(()), |other| {
                other.join().unwrap_or_else(|_| Err(Error::internal("reading the context panicked")))
            })
        })
    }
    fn read_each(&self, items: &mut [&mut Item]) -> Result<()> {
        let mut buffer = vec![0u8; 64 << 10];
        for item in items {
            let mut file = std::fs::File::from(self.open_item(item)?);
            let what = || format!("read {}", item.path.display());
            let mut hasher = Sha256::new();
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => hasher.update(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).context(what),
                }
            }
            let digest: [u8; 32] = hasher.finalize().into();
            if let Some(known) = self.known {
                let after = rustix::fs::fstat(&file).map_err(std::io::Error::from).context(what)?;
                known.put(&item.stat, &after, crate::now().seconds, digest);
            }
            item.digest = Some(Digest::from_bytes(digest));
        }
        Ok(())
    }
    /// A regular file's content. Only the top of a source may be a link.
    pub(super) fn open_item(&self, item: &Item) -> Result<OwnedFd> {
        let flags = if item.below.as_os_str().is_empty() {
            OFlags::RDONLY
        } else {
            OFlags::RDONLY | OFlags::NOFOLLOW
        };
        self.open(&item.path, flags | OFlags::NONBLOCK).context(|| format!("open {}", item.path.display()))
    }
}

/// The names in a directory, sorted.
fn names(dir: impl AsFd, path: &Path) -> Result<Vec<OsString>> {
    let read = || -> rustix::io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        Ok(names)
    };
    read().map_err(std::io::Error::from).context(|| format!("read {}", path.display()))
}
