//! Files: opened below a root that is not trusted (`openat2(2)` with `RESOLVE_IN_ROOT`), replaced atomically, locked.
//!
//! A path inside a container or an image goes through the `*_in_root` functions only. They follow symbolic links
//! as the container would see them, never leave the root, even when a process inside changes the tree meanwhile,
//! and never follow the magic links of procfs.

use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Symbolic links followed in one path, as the kernel's `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;
/// How often an `EAGAIN` of `openat2` (a rename raced with `..`) is tried again.
const MAX_RACES: usize = 128;

/// Opens a directory of the host as a root for the `*_in_root` functions (`O_PATH`).
///
/// # Errors
/// Those of `open(2)`; `ENOTDIR` where it is no directory.
pub fn open_root(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path.as_ref(), flags, Mode::empty())?)
}

/// Opens `path` below `root`: absolute links and `..` stay inside it. `O_CLOEXEC` is added.
///
/// # Errors
/// Those of `openat2(2)`; `ELOOP` for a magic link of procfs.
pub fn open_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    let path = match path.as_ref() {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        path => path,
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mode = if flags.intersects(OFlags::CREATE | OFlags::TMPFILE) {
        Mode::from_raw_mode(mode)
    } else {
        Mode::empty()
    };
    for _ in 0..MAX_RACES {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// A regular file of our own, whole. Three system calls where `std::fs::read` takes six: records are many and small. A read that
/// comes back short is the last one, as it is on every local file system (and for the one-record files of /proc).
///
/// # Errors
/// Those of `open(2)` and `read(2)`.
pub fn read_file(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut first = [std::mem::MaybeUninit::<u8>::uninit(); 4096];
    let (head, rest) = loop {
        match rustix::io::read(&file, &mut first) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut bytes = head.to_vec();
    if rest.is_empty() {
        io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes)?;
    }
    Ok(bytes)
}

/// Makes a directory and its missing parents below `root`, follows links (dangling ones too: their target is made),
/// and returns it (`O_PATH`).
///
/// # Errors
/// Those of `openat2(2)` and `mkdirat(2)`; `ENOTDIR` where something else is in the way.
pub fn create_dir_in_root(root: impl AsFd, path: impl AsRef<Path>, mode: u32) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    match open_in_root(root, path.as_ref(), OFlags::PATH | OFlags::DIRECTORY, 0) {
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
        other => return other,
    }
    let (dir, _) = walk(root, path.as_ref(), mode, false)?;
    Ok(dir)
}

/// Makes an empty regular file and its missing parent directories below `root` where nothing exists, and returns
/// what is there (`O_PATH`). An existing file is neither truncated nor opened for writing.
///
/// # Errors
/// Those of `openat2(2)` and `mkdirat(2)`.
pub fn create_file_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    mode: u32,
    dir_mode: u32,
) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    match open_in_root(root, path.as_ref(), OFlags::PATH, 0) {
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
        other => return other,
    }
    let (dir, name) = walk(root, path.as_ref(), dir_mode, true)?;
    let Some(name) = name else { return Ok(dir) };
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(&dir, name.as_os_str(), flags, Mode::from_raw_mode(mode))?;
    open_in_root(dir, Path::new(&name), OFlags::PATH | OFlags::NOFOLLOW, 0)
}

/// The directory that holds the last component of `path` (links before it are followed, it is not), and that
/// component: for `mknodat`, `symlinkat`, `unlinkat`, `renameat`. Parents must exist.
///
/// # Errors
/// Those of `openat2(2)`; `EINVAL` where the path has no last component.
pub fn parent_in_root(root: impl AsFd, path: impl AsRef<Path>) -> io::Result<(OwnedFd, OsString)> {
    let path = path.as_ref();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let dir = open_in_root(root, parent, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    Ok((dir, name.to_owned()))
}

/// Walks `path` component by component, following links inside the root and making missing directories. With
/// `leave_last`, the last component (after links) is not made: its name is returned when it does not exist.
fn walk(
    root: BorrowedFd<'_>,
    path: &Path,
    mode: u32,
    leave_last: bool,
) -> io::Result<(OwnedFd, Option<OsString>)> {
    let mut todo: VecDeque<OsString> = components(path).collect();
    let mut done = PathBuf::new();
    let mut dir = open_in_root(root, ".", OFlags::PATH | OFlags::DIRECTORY, 0)?;
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            done.pop();
            dir = open_in_root(root, &done, OFlags::PATH | OFlags::DIRECTORY, 0)?;
            continue;
        }
        let last = leave_last && todo.is_empty();
        let entry = match open_in_root(&dir, Path::new(&name), OFlags::PATH | OFlags::NOFOLLOW, 0) {
            Ok(entry) => entry,
            Err(error) if error.raw_os_error() != Some(Errno::NOENT.raw_os_error()) => return Err(error),
            Err(_) if last => return Ok((dir, Some(name))),
            Err(_) => {
                match rustix::fs::mkdirat(&dir, name.as_os_str(), Mode::from_raw_mode(mode)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open_in_root(&dir, Path::new(&name), OFlags::PATH | OFlags::NOFOLLOW, 0)?
            }
        };
        match rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) {
            rustix::fs::FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&entry, c"", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    done = PathBuf::new();
                    dir = open_in_root(root, ".", OFlags::PATH | OFlags::DIRECTORY, 0)?;
                }
                for component in components(target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(component);
                }
            }
            rustix::fs::FileType::Directory => {
                done.push(&name);
                dir = entry;
            }
            _ if last => return Ok((entry, None)),
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok((dir, None))
}

fn components(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

/// Reads a regular file below `root` whole: at most `limit` bytes, never from a device or a pipe.
///
/// # Errors
/// Those of `openat2(2)` and `read(2)`; `EINVAL` for what is no regular file; `EFBIG` beyond the limit.
pub fn read_in_root(root: impl AsFd, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, 0)?;
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Errno::INVAL.into());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Errno::FBIG.into());
    }
    Ok(bytes)
}

/// The path under /proc by which calls that take no descriptor reach this one. Only for paths whose last component
/// was opened by us.
pub fn proc_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Replaces a file of ours atomically: a new file beside it, then `rename(2)`. With `sync`, the bytes are on the disk
/// before the name is, and the name before this returns. Readers see the old content or the new one.
///
/// # Errors
/// Those of `open(2)`, `write(2)`, `fsync(2)`, `rename(2)`; the new file is removed then.
pub fn replace_file(path: impl AsRef<Path>, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let path = path.as_ref();
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let serial = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{serial}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(&temporary, flags, Mode::from_raw_mode(mode))?);
    let written = file.write_all(bytes).and_then(|()| if sync { file.sync_all() } else { Ok(()) });
    crate::failpoint!("{}: written", point(name));
    if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    crate::failpoint!("{}: named", point(name));
    match path.parent() {
        Some(parent) if sync => self::sync(parent),
        _ => Ok(()),
    }
}

/// As [`replace_file`], but where the file system is full, a file that is there already is overwritten in place: its blocks
/// are its own. What was longer is blanked out with spaces, which JSON does not mind. Not atomic then: for records
/// without which nothing could be ended or removed, and room be made.
///
/// # Errors
/// As [`replace_file`]; the old content stands where the new one is larger than the file's own blocks.
pub fn update_file(path: impl AsRef<Path>, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let path = path.as_ref();
    match replace_file(path, bytes, mode, sync) {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            overwrite(path, bytes).map_err(|_| error)
        }
        other => other,
    }
}

fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    // Of 512 bytes, whatever the file system's own are (stat(2)).
    let own = std::os::unix::fs::MetadataExt::blocks(&metadata).saturating_mul(512);
    if bytes.len() as u64 > own.max(metadata.len()) {
        return Err(Errno::NOSPC.into());
    }
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().max(length.min(OVERWRITTEN)), b' ');
    file.write_all_at(&padded, 0)
}

/// Bytes up to which a longer file is blanked out when it is overwritten.
const OVERWRITTEN: usize = 1 << 20;

/// A failpoint's part for a file: its name, digits and the like left out.
fn point(name: &std::ffi::OsStr) -> std::borrow::Cow<'_, str> {
    let name = name.to_string_lossy();
    let digits = name.bytes().take_while(u8::is_ascii_hexdigit).count();
    if digits >= 12 { name[digits..].to_owned().into() } else { name }
}

/// Whether this is the name of what [`replace_file`] has not finished.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// The names in a directory; none where it is missing. Names that are not UTF-8 are none of ours and left out.
///
/// # Errors
/// Those of `open(2)` and `getdents(2)`.
pub fn names(dir: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Deletes a file or a tree of ours; one that is gone, or going (two may delete it at once), is as good as deleted. A link is
/// deleted, not what it leads to.
///
/// # Errors
/// Those of `unlink(2)` and `rmdir(2)`.
pub fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    for _ in 0..3 {
        let removed = match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
            Ok(_) => std::fs::remove_file(path),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        match removed {
            // Somebody else deleted a part of it: what is left comes next.
            Err(error) if gone(&error) => {}
            other => return other,
        }
    }
    Ok(())
}

/// Makes a directory and those above it, 0700 whatever the umask.
///
/// # Errors
/// Those of `mkdir(2)`.
pub fn private_dir(path: impl AsRef<Path>) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes or replaces a file of ours in place, 0600 whatever the umask. Not atomic: for what is given its name later.
///
/// # Errors
/// Those of `open(2)` and `write(2)`.
pub fn private_file(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Waits until the names in a directory, or a file's content, are on the disk.
///
/// # Errors
/// Those of `open(2)` and `fsync(2)`.
pub fn sync(path: impl AsRef<Path>) -> io::Result<()> {
    let path = if path.as_ref().as_os_str().is_empty() { Path::new(".") } else { path.as_ref() };
    std::fs::File::open(path)?.sync_all()
}

/// A lock on a file (`flock(2)`), held until it is dropped or its process dies.
#[derive(Debug)]
pub struct Lock {
    file: OwnedFd,
}

impl Lock {
    /// Waits for the exclusive lock on this file, which is made where it is missing and never removed.
    ///
    /// # Errors
    /// Those of `open(2)` and [`crate::lock::wait`].
    pub fn exclusive(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::take(path.as_ref(), FlockOperation::LockExclusive)
    }
    /// As [`Lock::exclusive`], for a lock that is held for as long as a work takes.
    ///
    /// # Errors
    /// As [`Lock::exclusive`].
    pub fn exclusive_long(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = Self::open(path.as_ref())?;
        crate::lock::wait_long(&file, FlockOperation::LockExclusive)?;
        Ok(Self { file })
    }
    /// Waits for the shared lock.
    ///
    /// # Errors
    /// Those of `open(2)` and `flock(2)`.
    pub fn shared(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::take(path.as_ref(), FlockOperation::LockShared)
    }
    /// The exclusive lock, if nobody has it.
    ///
    /// # Errors
    /// Those of `open(2)` and `flock(2)`.
    pub fn try_exclusive(path: impl AsRef<Path>) -> io::Result<Option<Self>> {
        Self::attempt(Self::take(path.as_ref(), FlockOperation::NonBlockingLockExclusive))
    }
    /// The shared lock, if nobody has the exclusive one.
    ///
    /// # Errors
    /// Those of `open(2)` and `flock(2)`.
    pub fn try_shared(path: impl AsRef<Path>) -> io::Result<Option<Self>> {
        Self::attempt(Self::take(path.as_ref(), FlockOperation::NonBlockingLockShared))
    }
    fn attempt(taken: io::Result<Self>) -> io::Result<Option<Self>> {
        match taken {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
    fn open(path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?)
    }
    fn take(path: &Path, operation: FlockOperation) -> io::Result<Self> {
        let file = Self::open(path)?;
        crate::lock::wait(&file, operation)?;
        Ok(Self { file })
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temp(PathBuf);
    impl Temp {
        fn new(name: &str) -> Self {
            let serial = TEMPORARY.fetch_add(1, Ordering::Relaxed);
            let path =
                std::env::temp_dir().join(format!("cauldron-sys-{name}-{}-{serial}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }
    impl Drop for Temp {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_never_leave_the_root() {
        let temp = Temp::new("links");
        let root_path = temp.0.join("root");
        std::fs::create_dir(&root_path).unwrap();
        std::os::unix::fs::symlink("/etc", root_path.join("a")).unwrap();
        std::os::unix::fs::symlink("../../../..", root_path.join("up")).unwrap();
        std::os::unix::fs::symlink("/deep/dangling", root_path.join("d")).unwrap();
        std::os::unix::fs::symlink("loop", root_path.join("loop")).unwrap();
        let root = open_root(&root_path).unwrap();
        create_dir_in_root(&root, "/a/x", 0o755).unwrap();
        assert!(root_path.join("etc/x").is_dir());
        create_dir_in_root(&root, "up/y", 0o755).unwrap();
        assert!(root_path.join("y").is_dir());
        create_file_in_root(&root, "d/file", 0o644, 0o755).unwrap();
        assert!(root_path.join("deep/dangling/file").is_file());
        create_file_in_root(&root, "d", 0o644, 0o755).unwrap();
        assert!(open_in_root(&root, "a/passwd", OFlags::PATH, 0).is_err());
        assert!(create_dir_in_root(&root, "loop/x", 0o755).is_err());
        assert!(create_dir_in_root(&root, "deep/dangling/file/x", 0o755).is_err());
    }

    #[test]
    fn files_are_replaced_and_locks_exclude() {
        let temp = Temp::new("replace");
        let path = temp.0.join("state.json");
        replace_file(&path, b"one", 0o600, true).unwrap();
        replace_file(&path, b"two", 0o600, false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&temp.0).unwrap().count(), 1);
        let lock = temp.0.join("lock");
        let held = Lock::exclusive(&lock).unwrap();
        assert!(Lock::try_shared(&lock).unwrap().is_none());
        drop(held);
        let _one = Lock::shared(&lock).unwrap();
        let _two = Lock::try_shared(&lock).unwrap().unwrap();
        assert!(Lock::try_exclusive(&lock).unwrap().is_none());
    }

    #[test]
    fn reads_only_regular_files_of_bounded_size() {
        let temp = Temp::new("read");
        std::fs::write(temp.0.join("f"), "12345").unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            temp.0.join("p"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let root = open_root(&temp.0).unwrap();
        assert_eq!(read_in_root(&root, "f", 5).unwrap(), b"12345");
        assert!(read_in_root(&root, "f", 4).is_err());
        assert!(read_in_root(&root, "p", 4).is_err());
    }
}
