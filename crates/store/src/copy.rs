//! Copies a directory tree between two directory descriptors: contents with their holes, hard links, owners, modes,
//! extended attributes (ACLs and file capabilities among them), device nodes and times.
//!
//! Nothing is resolved through a symbolic link: every directory is opened from the tree's own root with `openat2`
//! (`RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), so at most four descriptors are open however deep the tree is.

use model::error::Context as _;
use model::{Error, Kind, Result, limits};
use rustix::fs::{
    self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// Opens a directory of a tree by its path relative to the root (empty for the root itself).
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// The names in a directory, sorted, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The extended attributes of one directory entry, which is not followed.
pub(crate) fn xattrs(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let path = entry_path(dir, name);
    let list = match grown(|buffer| fs::llistxattr(path.as_c_str(), buffer)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        list => list?,
    };
    let mut found = Vec::new();
    for key in list.split(|&b| b == 0).filter(|key| !key.is_empty()) {
        let Ok(key) = CString::new(key) else { continue };
        match grown(|buffer| fs::lgetxattr(path.as_c_str(), key.as_c_str(), buffer)) {
            Ok(value) => found.push((key, value)),
            // Listed but not for us to read, or gone meanwhile.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Calls with a small buffer and, where that is too small, with the largest that the kernel knows (`XATTR_SIZE_MAX`).
fn grown(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0u8; 512];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; 65_536];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

/// A path to one entry of an open directory for the calls that have no `at` form.
fn entry_path(dir: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).unwrap_or_default()
}

/// Copies everything below `from` into `to`, which is empty, and gives `to` the owner, mode, extended attributes
/// and times of `from`.
///
/// # Errors
/// Names the path that could not be copied. What was copied until then stays: the caller removes it.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut copy = Copy { from, to, links: HashMap::new(), dirs: Vec::new() };
    let root = fs::fstat(from).map_err(|error| failed(b"", error))?;
    let mut queue = vec![(Vec::new(), root)];
    while let Some((path, stat)) = queue.pop() {
        copy.directory(&path, &mut queue).map_err(|(path, error)| failed(&path, error))?;
        copy.dirs.push((path, stat));
    }
    copy.finish_directories().map_err(|(path, error)| failed(&path, error))
}

fn failed(path: &[u8], error: Errno) -> Error {
    let kind = match error {
        Errno::NOSPC | Errno::DQUOT => Kind::ResourceExhausted,
        _ => Kind::Internal,
    };
    let error = std::io::Error::from(error);
    Error::new(kind, format!("copy /{}", String::from_utf8_lossy(path))).caused_by(error)
}

type At = (Vec<u8>, Errno);

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// Where a file with several links was copied to first.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Directories whose attributes are set at the end, deepest last.
    dirs: Vec<(Vec<u8>, Stat)>,
}

impl Copy<'_> {
    fn directory(&mut self, path: &[u8], queue: &mut Vec<(Vec<u8>, Stat)>) -> Result<(), At> {
        let at = |error| (path.to_owned(), error);
        let source = open_dir(self.from, path).map_err(at)?;
        let target = open_dir(self.to, path).map_err(at)?;
        for name in names(source.as_fd()).map_err(at)? {
            let mut child = path.to_owned();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(name.to_bytes());
            if child.len() > limits::PATH_BYTES {
                return Err((child, Errno::NAMETOOLONG));
            }
            match self.entry(source.as_fd(), target.as_fd(), &name, &child) {
                Ok(Some(stat)) => queue.push((child, stat)),
                Ok(None) => {}
                Err(error) => return Err((child, error)),
            }
        }
        Ok(())
    }

    /// Copies one entry. A directory is only made; its status is returned for the queue.
    fn entry(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> rustix::io::Result<Option<Stat>> {
        let stat = fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            fs::mkdirat(target, name, Mode::RWXU)?;
            return Ok(Some(stat));
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                fs::linkat(self.to, first.as_slice(), target, name, AtFlags::empty())?;
                return Ok(None);
            }
            self.links.insert(key, path.to_owned());
        }
        match kind {
            FileType::RegularFile => copy_file(source, target, name, stat.st_size as u64)?,
            FileType::Symlink => {
                let link = fs::readlinkat(source, name, Vec::new())?;
                fs::symlinkat(link, target, name)?;
            }
            kind => fs::mknodat(target, name, kind, Mode::RUSR, stat.st_rdev)?,
        }
        attributes(source, name, target, name, &stat)?;
        Ok(None)
    }

    fn finish_directories(&self) -> Result<(), At> {
        for (path, stat) in self.dirs.iter().rev() {
            let at = |error| (path.clone(), error);
            let source = open_dir(self.from, path).map_err(at)?;
            let target = open_dir(self.to, path).map_err(at)?;
            attributes(source.as_fd(), c".", target.as_fd(), c".", stat).map_err(at)?;
        }
        Ok(())
    }
}

/// Owner first (it clears setuid bits and capabilities), then mode, extended attributes, times.
fn attributes(
    source: BorrowedFd<'_>,
    from: &CStr,
    target: BorrowedFd<'_>,
    to: &CStr,
    stat: &Stat,
) -> rustix::io::Result<()> {
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::chownat(target, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        fs::chmodat(target, to, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let path = entry_path(target, to);
    for (key, value) in xattrs(source, from)? {
        match fs::lsetxattr(path.as_c_str(), key.as_c_str(), &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    };
    fs::utimensat(target, to, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives one directory the owner, mode, extended attributes and times that another had at the time of `stat`.
pub(crate) fn copy_attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
) -> rustix::io::Result<()> {
    attributes(from, c".", to, c".", stat)
}

/// Copies the data of a regular file, leaving its holes holes.
fn copy_file(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
    size: u64,
) -> rustix::io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let input = fs::openat(source, name, flags | OFlags::RDONLY, Mode::empty())?;
    let output = fs::openat(
        target,
        name,
        flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
        Mode::RUSR | Mode::WUSR,
    )?;
    let mut at = 0u64;
    while at < size {
        let start = match fs::seek(&input, fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = match fs::seek(&input, fs::SeekFrom::Hole(start)) {
            Ok(end) if end > start => end,
            _ => size,
        };
        copy_range(&input, &output, start, end)?;
        at = end;
    }
    fs::ftruncate(&output, size)
}

fn copy_range(input: &OwnedFd, output: &OwnedFd, mut start: u64, end: u64) -> rustix::io::Result<()> {
    let mut buffer = Vec::new();
    while start < end {
        let (mut from, mut to) = (start, start);
        let want = usize::try_from(end - start).unwrap_or(usize::MAX).min(1 << 30);
        let done = match fs::copy_file_range(input, Some(&mut from), output, Some(&mut to), want) {
            Ok(done) => done,
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                buffer.resize(1 << 18, 0u8);
                let read = rustix::io::pread(input, &mut buffer[..want.min(1 << 18)], start)?;
                let mut written = 0;
                while written < read {
                    written += rustix::io::pwrite(output, &buffer[written..read], start + written as u64)?;
                }
                read
            }
            Err(error) => return Err(error),
        };
        if done == 0 {
            return Ok(());
        }
        start += done as u64;
    }
    Ok(())
}

/// Removes everything in a directory, not the directory itself.
///
/// # Errors
/// Names the directory; what could be removed is gone.
pub(crate) fn clear_directory(path: &std::path::Path) -> Result<()> {
    for entry in std::fs::read_dir(path).context(|| format!("read directory {}", path.display()))? {
        let entry = entry.context(|| format!("read directory {}", path.display()))?;
        let kind = entry.file_type().context(|| format!("look at {}", entry.path().display()))?;
        let removed = if kind.is_dir() {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        removed.context(|| format!("remove {}", entry.path().display()))?;
    }
    Ok(())
}
