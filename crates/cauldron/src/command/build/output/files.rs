//! The files of a result, on this machine: a directory that gets them, or one file.
//!
//! What an image holds is not to be trusted: everything is unpacked into a new directory beside the target, which nothing leads
//! out of, and moved to its place name by name; a link in the target is replaced and never followed. Files belong to
//! whoever runs this; set-user-id bits, devices, pipes and sockets stay behind.

use crate::fail::{Failure, file};
use std::fs::{File, Metadata, Permissions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

/// Mode bits that a file may bring.
const MODE: u32 = 0o1777;
/// Directories within directories.
const DEPTH: usize = 512;

/// A name beside a path, on the same file system.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name =
        format!(".{}.{what}-{}", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id());
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).join(name)
}

/// Makes the directory that a path lies in.
///
/// # Errors
/// Names it.
pub fn make_parent(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(file("create", parent))
}

/// A file in the making beside its place; gone unless it is published.
pub struct Aside(PathBuf);

impl Aside {
    /// Beside this path.
    ///
    /// # Errors
    /// The directory cannot be made, or the path is a directory.
    pub fn new(path: &Path) -> Result<Self, Failure> {
        if path.is_dir() {
            return Err(Failure::new(format!("destination {} is a directory", path.display())));
        }
        make_parent(path)?;
        Ok(Self(beside(path, "part")))
    }

    /// Opened for writing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn file(&self) -> Result<File, Failure> {
        File::options().write(true).create_new(true).open(&self.0).map_err(file("create", &self.0))
    }

    /// Takes its place.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn publish(self, path: &Path) -> Result<(), Failure> {
        std::fs::rename(&self.0, path).map_err(file("write", path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After publishing the name is gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A directory in the making beside its place, of this user alone; gone when it is dropped.
pub struct Staging {
    pub path: PathBuf,
}

impl Staging {
    /// Beside this path; inside of it, where it has no name of its own.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(target: &Path) -> Result<Self, Failure> {
        let target = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let is_root = target.file_name().is_none() || target.parent().is_none();
        let path = if is_root { target.join(".cauldron-output") } else { beside(&target, "part") };
        make_parent(&path)?;
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(file("create", &path))?;
        Ok(Self { path })
    }

    /// Moves everything to its place.
    ///
    /// # Errors
    /// Names what is in the way.
    pub fn merge(self, target: &Path) -> Result<(), Failure> {
        std::fs::create_dir_all(target).map_err(file("create", target))?;
        let target = std::fs::canonicalize(target).map_err(file("resolve", target))?;
        merge(&self.path, &target, 0)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // There is nobody to tell; the name says whose it was.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Moves what is in a directory into another: directories are merged, anything else is replaced.
fn merge(from: &Path, to: &Path, depth: usize) -> Result<(), Failure> {
    if depth > DEPTH {
        return Err(Failure::new(format!("{}: directories lie too deep", to.display())));
    }
    for entry in std::fs::read_dir(from).map_err(file("read", from))? {
        let entry = entry.map_err(file("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let new = std::fs::symlink_metadata(&source).map_err(file("read", &source))?;
        match std::fs::symlink_metadata(&target) {
            Ok(old) if old.is_dir() && new.is_dir() => {
                merge(&source, &target, depth + 1)?;
                dress(&target, &new)?;
                continue;
            }
            Ok(old) if old.is_dir() => std::fs::remove_dir_all(&target).map_err(file("replace", &target))?,
            // A file is replaced by the renaming itself.
            Ok(_) if new.is_dir() => std::fs::remove_file(&target).map_err(file("replace", &target))?,
            _ => {}
        }
        std::fs::rename(&source, &target).map_err(file("write", &target))?;
    }
    Ok(())
}

/// Mode and time of a directory that was merged.
fn dress(path: &Path, like: &Metadata) -> Result<(), Failure> {
    std::fs::set_permissions(path, Permissions::from_mode(like.mode() & MODE))
        .map_err(file("write", path))?;
    let set = like.modified().and_then(|time| File::open(path)?.set_modified(time));
    set.map_err(file("write", path))
}

/// A path of an archive below a directory; `None` for the directory itself or what would leave it.
fn below(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!out.as_os_str().is_empty()).then_some(out)
}

/// Unpacks a stream and moves it to its place. Says what was left out.
///
/// # Errors
/// The stream is malformed, or something cannot be written.
pub fn directory(source: impl Read, target: &Path) -> Result<Vec<String>, Failure> {
    let staging = Staging::new(target)?;
    let skipped = unpack(source, &staging.path)?;
    staging.merge(target)?;
    Ok(skipped)
}

fn unpack(source: impl Read, dir: &Path) -> Result<Vec<String>, Failure> {
    let wrong = |error: std::io::Error| Failure::new(format!("unpack the result: {error}"));
    let (mut skipped, mut directories) = (Vec::new(), Vec::new());
    let mut archive = tar::Archive::new(source);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_mask(!MODE & 0o7777);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let name = entry.path().map_err(wrong)?.into_owned();
        let Some(path) = below(&name) else { continue };
        let header = entry.header();
        let kind = header.entry_type();
        if kind.is_dir() {
            // Its own mode and time come last: they may forbid what goes into it.
            let (mode, time) = (header.mode().map_err(wrong)?, header.mtime().map_err(wrong)?);
            directories.push((path, mode & MODE, time));
        } else if matches!(kind, tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo) {
            skipped.push(format!("left out: /{}, a device or a pipe", path.display()));
            continue;
        }
        if !entry.unpack_in(dir).map_err(wrong)? {
            return Err(Failure::new(format!("unpack the result: {} leads out of it", name.display())));
        }
        if kind.is_dir() {
            let path = dir.join(below(&name).unwrap_or_default());
            std::fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(file("write", &path))?;
        }
    }
    for (path, mode, time) in directories.into_iter().rev() {
        let path = dir.join(path);
        let found = std::fs::symlink_metadata(&path).map_err(file("read", &path))?;
        if !found.is_dir() {
            continue;
        }
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
        let set = File::open(&path).and_then(|dir| dir.set_modified(time));
        set.and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(mode)))
            .map_err(file("write", &path))?;
    }
    Ok(skipped)
}

/// Writes one file of a stream: the one that is named, else the only one there is.
///
/// # Errors
/// There is no such file, or several.
pub fn single(source: impl Read, wanted: Option<&str>, target: &Path) -> Result<Vec<String>, Failure> {
    let wrong = |error: std::io::Error| Failure::new(format!("read the result: {error}"));
    let wanted = wanted.map(|path| below(Path::new(path)).unwrap_or_default());
    let mut found: Option<(PathBuf, Aside, u32)> = None;
    let mut archive = tar::Archive::new(source);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let Some(path) = below(&entry.path().map_err(wrong)?) else { continue };
        let is_wanted = wanted.as_ref().is_none_or(|wanted| *wanted == path);
        if !is_wanted || entry.header().entry_type().is_dir() {
            continue;
        }
        if let Some((first, ..)) = &found {
            return Err(Failure::new(format!(
                "the result has several files (/{}, /{}): say which one with src=",
                first.display(),
                path.display()
            )));
        }
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(Failure::new(format!("/{} of the result is not a regular file", path.display())));
        }
        let place = if target.is_dir() {
            target.join(path.file_name().unwrap_or_default())
        } else {
            target.to_owned()
        };
        let aside = Aside::new(&place)?;
        std::io::copy(&mut entry, &mut aside.file()?).map_err(file("write", &place))?;
        found = Some((path, aside, entry.header().mode().map_err(wrong)? & 0o777));
    }
    let Some((path, aside, mode)) = found else {
        return Err(Failure::new(match &wanted {
            Some(wanted) => format!("the result has no file /{}", wanted.display()),
            None => "the result has no file".to_owned(),
        }));
    };
    let place =
        if target.is_dir() { target.join(path.file_name().unwrap_or_default()) } else { target.to_owned() };
    std::fs::set_permissions(&aside.0, Permissions::from_mode(mode)).map_err(file("write", &place))?;
    aside.publish(&place)?;
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cauldron-output-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn member(archive: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, mode: u32, data: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        header.set_size(if is_link { 0 } else { data.len() as u64 });
        // As a hostile engine would: the name is not looked at.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if is_link {
            header.as_mut_bytes()[157..157 + data.len()].copy_from_slice(data.as_bytes());
        }
        header.set_cksum();
        archive.append(&header, if is_link { &[] } else { data.as_bytes() }).unwrap();
    }

    #[test]
    fn a_directory_is_merged_and_links_are_not_followed() {
        use tar::EntryType::{Char, Directory, Regular, Symlink};
        let dir = scratch("merge");
        let (target, outside) = (dir.join("target"), dir.join("outside"));
        std::fs::create_dir_all(target.join("d")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(target.join("kept"), "kept").unwrap();
        std::fs::write(target.join("d/old"), "old").unwrap();
        symlink(&outside, target.join("link")).unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        member(&mut archive, Directory, "d/", 0o555, "");
        member(&mut archive, Regular, "d/new", 0o4755, "new");
        member(&mut archive, Directory, "link/", 0o755, "");
        member(&mut archive, Regular, "link/file", 0o600, "file");
        member(&mut archive, Symlink, "away", 0o777, "/etc/passwd");
        member(&mut archive, Char, "device", 0o666, "");
        let bytes = archive.into_inner().unwrap();
        let skipped = directory(bytes.as_slice(), &target).unwrap();
        assert_eq!(skipped, ["left out: /device, a device or a pipe"]);
        assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "kept");
        assert_eq!(std::fs::read_to_string(target.join("d/old")).unwrap(), "old");
        let found = std::fs::metadata(target.join("d/new")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o755, 1_000_000_000));
        let found = std::fs::metadata(target.join("d")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o555, 1_000_000_000));
        assert!(std::fs::symlink_metadata(target.join("link")).unwrap().is_dir());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(std::fs::read_link(target.join("away")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2, "something is left beside the target");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nothing_leads_out_and_nothing_is_left() {
        use tar::EntryType::{Link, Regular, Symlink};
        let dir = scratch("escape");
        let target = dir.join("in/target");
        std::fs::create_dir_all(dir.join("in")).unwrap();
        for hostile in [
            &[(Symlink, "l", ".."), (Regular, "l/escaped", "x")][..],
            &[(Symlink, "l", "/"), (Regular, "l/tmp/cauldron-escaped", "x")],
            &[(Link, "hard", "/etc/passwd")],
            &[(Link, "hard", "../../escaped")],
        ] {
            let mut archive = tar::Builder::new(Vec::new());
            for (kind, name, data) in hostile {
                member(&mut archive, *kind, name, 0o644, data);
            }
            let bytes = archive.into_inner().unwrap();
            assert!(directory(bytes.as_slice(), &target).is_err(), "{hostile:?}");
            assert_eq!(std::fs::read_dir(dir.join("in")).unwrap().count(), 0, "{hostile:?}");
        }
        // `..` in a name means nothing.
        let mut archive = tar::Builder::new(Vec::new());
        member(&mut archive, Regular, "../escaped", 0o644, "x");
        directory(archive.into_inner().unwrap().as_slice(), &target).unwrap();
        assert!(!dir.join("in/escaped").exists() && !dir.join("escaped").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn one_file() {
        use tar::EntryType::{Directory, Regular};
        let dir = scratch("single");
        let mut archive = tar::Builder::new(Vec::new());
        member(&mut archive, Directory, "bin/", 0o755, "");
        member(&mut archive, Regular, "bin/tool", 0o755, "tool");
        let one = archive.get_ref().clone();
        member(&mut archive, Regular, "bin/other", 0o644, "other");
        let two = archive.into_inner().unwrap();
        let target = dir.join("installed");
        single(one.as_slice(), None, &target).unwrap();
        assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o7777, 0o755);
        assert!(single(two.as_slice(), None, &target).unwrap_err().message.contains("src="));
        single(two.as_slice(), Some("/bin/other"), &dir).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("other")).unwrap(), "other");
        assert!(single(two.as_slice(), Some("/no"), &target).unwrap_err().message.contains("no file /no"));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
