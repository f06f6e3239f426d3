//! Files of a container: `cp`, `export` and what they share, a descriptor of the container's root.
//!
//! A running container's root is `/proc/PID/root`, with everything that is mounted there. A stopped one's is mounted for
//! the occasion, with its volumes, in a mount namespace of a thread's own, under the container's lock: nothing to unmount,
//! whatever happens. Every path is opened below that root with `RESOLVE_IN_ROOT` (CVE-2018-15664); nothing of the container
//! is executed or loaded (CVE-2019-14271).

use model::container::{ContainerPath, MountSource};
use model::error::Context as _;
use model::time::Timestamp;
use model::{Error, Result};
use rustix::fs::{FileType, OFlags, Stat};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use store::snapshot::Writable;
use store::tree::{Pack, Unpack, Whiteouts};

use crate::Engine;
use crate::container::Container;

/// What is known of a path in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// The last component, as it was asked for.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// `st_mode`.
    pub mode: u32,
    /// When it was last written.
    pub modified: Timestamp,
    /// Where a link leads, as an absolute path in the container; empty for what is none.
    pub link_target: String,
}

/// How an archive is put into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    /// Refuse to replace a directory by something else, and the other way round.
    pub keep_kinds: bool,
    /// Give everything to the container's user instead of the archive's owners.
    pub as_user: bool,
}

/// A path as a client asks for it.
struct Asked {
    path: ContainerPath,
    /// It ends in `/` or `/.`: a link in its last component is followed, and it must be a directory.
    contents: bool,
}

impl Asked {
    fn parse(text: &str) -> Result<Self> {
        let path = ContainerPath::root().join(text);
        if text.contains('\0') {
            return Err(Error::invalid("a path with a NUL byte"));
        }
        let contents = path.as_str() == "/" || text.ends_with('/') || text.ends_with("/.");
        Ok(Self { path, contents })
    }
    fn base(&self) -> &str {
        self.path.as_str().rsplit('/').next().unwrap_or_default()
    }
    /// Opens it (`O_PATH`).
    fn open(&self, root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
        let mut flags = OFlags::PATH;
        flags |= if self.contents { OFlags::DIRECTORY } else { OFlags::NOFOLLOW };
        sys::fs::open_in_root(root, self.path.relative(), flags, 0).map_err(|error| {
            let text = format!("Could not find the file {} in container {name}", self.path);
            match error.kind() {
                std::io::ErrorKind::NotFound => Error::not_found(text),
                std::io::ErrorKind::NotADirectory => {
                    Error::invalid(format!("{} is not a directory", self.path))
                }
                _ => Error::invalid(text).caused_by(error),
            }
        })
    }
}

impl Engine {
    /// What a path in a container is. A link in the last component is not followed.
    ///
    /// # Errors
    /// Docker's text for a path that is not there.
    pub fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let asked = Asked::parse(path)?;
        let container = self.find(name)?;
        self.with_root(&container, |root| stat(&asked, root, name))
    }
    /// Writes what is at a path as a tar, members named by its last component (`.` for a directory's contents).
    ///
    /// # Errors
    /// Names the file that could not be read.
    pub fn get_archive(&self, name: &str, path: &str, archive: impl Write + Send) -> Result<()> {
        let asked = Asked::parse(path)?;
        let container = self.find(name)?;
        self.with_root(&container, |root| {
            let file = asked.open(root, name)?;
            let kind = stat_of(&file)?.st_mode;
            let base = if path.ends_with("/.") || asked.base().is_empty() { "." } else { asked.base() };
            let how = Pack { whiteouts: Whiteouts::Plain, base: base.as_bytes().to_vec() };
            let mut archive = BufWriter::with_capacity(128 << 10, archive);
            if FileType::from_raw_mode(kind) == FileType::Directory {
                store::tree::pack(file.as_fd(), b"", &mut archive, &how)?;
            } else {
                let (parent, name) = sys::fs::parent_in_root(root, asked.path.relative())
                    .context(|| format!("open {} in container {}", asked.path, container.id()))?;
                let name = std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str());
                store::tree::pack(parent.as_fd(), name, &mut archive, &how)?;
            }
            archive.flush().context(|| "write the archive")
        })?;
        self.container_event(&container, "archive-path", &[]);
        Ok(())
    }
    /// Unpacks a tar (plain, gzip, zstd) into a directory of a container.
    ///
    /// # Errors
    /// The directory is not there, is none or is read-only; the archive is refused (the member is named).
    pub fn put_archive(
        &self,
        name: &str,
        path: &str,
        archive: impl Read + Send,
        options: PutOptions,
    ) -> Result<()> {
        let asked = Asked { contents: true, ..Asked::parse(path)? };
        let container = self.find(name)?;
        refuse_read_only(&container, &asked.path)?;
        self.with_root(&container, |root| {
            let dir = asked.open(root, name).map_err(|error| match error.kind() {
                model::Kind::InvalidArgument => {
                    Error::invalid("extraction point is not a directory").caused_by(error)
                }
                _ => error,
            })?;
            let dir = sys::fs::open_in_root(&dir, ".", OFlags::RDONLY | OFlags::DIRECTORY, 0)
                .context(|| format!("open {} in container {}", asked.path, container.id()))?;
            let owner = if options.as_user { Some(user_of(&container, root)?) } else { None };
            let how = Unpack { whiteouts: Whiteouts::Plain, owner, keep_kinds: options.keep_kinds };
            let plain = store::tree::stream::decompress(archive).context(|| "read the archive")?;
            store::tree::unpack(dir.as_fd(), BufReader::with_capacity(128 << 10, plain), &how).map(drop)
        })?;
        self.container_event(&container, "extract-to-dir", &[]);
        Ok(())
    }
    /// Writes a container's file system, without its volumes, as a tar.
    ///
    /// # Errors
    /// Names the file that could not be read.
    pub fn export(&self, name: &str, archive: impl Write) -> Result<()> {
        let container = self.find(name)?;
        let view = self.plain_view(&container)?;
        let mut archive = BufWriter::with_capacity(128 << 10, archive);
        store::archive::write_tree(view.as_fd(), &mut archive)?;
        archive.flush().context(|| "write the archive")?;
        self.container_event(&container, "export", &[]);
        Ok(())
    }
    /// A container's image and what it changed, without what is mounted there. A running one's is its own overlay: a second
    /// one over the same upper directory would show what the kernel leaves undefined.
    fn plain_view(&self, container: &Container) -> Result<OwnedFd> {
        let what = || format!("open the root of container {}", container.id());
        if let Some(live) = container.live.as_ref().filter(|live| live.pid > 0)
            && let Ok(mounts) = std::fs::File::open(format!("/proc/{}/ns/mnt", live.pid))
            && let Some(root) = live_root(container)?
        {
            return sys::view::plain_copy_of(mounts, root).context(what);
        }
        let (container, _lock) = self.find_locked(container.id().as_str())?;
        if container.live.is_some() {
            return Err(being_started(&container));
        }
        let mut lower = vec![model::container::HostPath(container.rw_dir().join("upper"))];
        lower.extend(self.store.lower(&container.spec.layers)?);
        self.store.mount_detached(&lower, None)
    }
    /// Runs `work` with a container's root.
    fn with_root<T: Send>(
        &self,
        container: &Container,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        if let Some(root) = live_root(container)? {
            return work(root.as_fd());
        }
        let (container, lock) = self.find_locked(container.id().as_str())?;
        if container.live.is_some() {
            drop(lock);
            // It was started meanwhile. Between two runs its monitor may mount it at any moment.
            container.running()?;
            let root = live_root(&container)?.ok_or_else(|| being_started(&container))?;
            return work(root.as_fd());
        }
        sys::view::with_private_mounts(|| {
            let root = self.mount_stopped(&container)?;
            work(root.as_fd())
        })
        .context(|| format!("mount container {}", container.id()))?
    }
    /// Mounts a stopped container's root with its volumes and binds, in the calling thread's private namespace.
    fn mount_stopped(&self, container: &Container) -> Result<OwnedFd> {
        let what = || format!("mount container {}", container.id());
        let rw = container.rw_dir();
        let writable = Writable { upper: rw.join("upper"), work: rw.join("work"), volatile: false };
        let lower = self.store.lower_of_container(&container.spec.layers)?;
        let overlay = self.store.mount_detached(&lower, Some(&writable))?;
        let place = self.store.layout.run_root.join("view");
        sys::fs::private_dir(&place).context(what)?;
        sys::view::attach(overlay, sys::fs::open_root(&place).context(what)?).context(what)?;
        let root = sys::fs::open_root(&place).context(what)?;
        for mount in &container.spec.mounts {
            let source = match &mount.source {
                MountSource::Tmpfs { .. } => continue,
                MountSource::Bind { path, .. } => path.0.clone(),
                MountSource::Volume { name, .. } => match self.store.mount_volume(name) {
                    Ok(mounted) => mounted.path,
                    Err(error) if error.kind() == model::Kind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            // What is not there any more cannot be shown; what was never started has no mount points yet.
            let Ok(tree) = sys::view::copy_of(&source, true) else { continue };
            let target = if source.is_dir() {
                sys::fs::create_dir_in_root(&root, mount.target.relative(), 0o755)
            } else {
                sys::fs::create_file_in_root(&root, mount.target.relative(), 0o644, 0o755)
            };
            sys::view::attach(tree, target.context(what)?).context(what)?;
            if mount.read_only {
                let target =
                    sys::fs::open_in_root(&root, mount.target.relative(), OFlags::PATH, 0).context(what)?;
                sys::view::make_read_only(target).context(what)?;
            }
        }
        if container.spec.read_only_rootfs {
            sys::view::make_read_only(&root).context(what)?;
        }
        Ok(root)
    }
}

/// Nothing is put where the container itself cannot write: on a read-only mount, or on a read-only root beside all mounts.
fn refuse_read_only(container: &Container, path: &ContainerPath) -> Result<()> {
    let covers = |target: &ContainerPath| {
        let target = target.as_str();
        path.as_str().strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let spec = &container.spec;
    let mount = spec.mounts.iter().filter(|mount| covers(&mount.target));
    match mount.max_by_key(|mount| mount.target.as_str().len()) {
        Some(mount) if mount.read_only => Err(Error::invalid("mounted volume is marked read-only")),
        None if spec.read_only_rootfs => Err(Error::invalid("container rootfs is marked read-only")),
        _ => Ok(()),
    }
}

/// The root of a container that runs, with all that is mounted there.
fn live_root(container: &Container) -> Result<Option<OwnedFd>> {
    let Some(live) = container.live.as_ref().filter(|live| live.pid > 0) else { return Ok(None) };
    let what = || format!("open the root of container {}", container.id());
    let root = match sys::fs::open_root(format!("/proc/{}/root", live.pid)) {
        Ok(root) => root,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(what),
    };
    // The process may have ended, and its number have gone to another, before the root was opened.
    let now = runtime::live(&container.run_dir)?;
    let same = now.is_some_and(|now| (now.pid, now.start_time) == (live.pid, live.start_time));
    Ok(same.then_some(root))
}

fn being_started(container: &Container) -> Error {
    Error::conflict(format!("container {} is being started", container.id()))
}

fn stat_of(file: &OwnedFd) -> Result<Stat> {
    rustix::fs::fstat(file).map_err(std::io::Error::from).context(|| "stat a file of a container")
}

fn stat(asked: &Asked, root: BorrowedFd<'_>, name: &str) -> Result<PathStat> {
    let file = asked.open(root, name)?;
    let stat = stat_of(&file)?;
    let mut link_target = String::new();
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        let target = rustix::fs::readlinkat(&file, c"", Vec::new())
            .map_err(std::io::Error::from)
            .context(|| format!("read link {}", asked.path))?;
        let parent = asked.path.join("..");
        link_target = parent.join(&target.to_string_lossy()).as_str().to_owned();
    }
    let name = match asked.base() {
        "" => "/",
        base => base,
    };
    Ok(PathStat {
        name: name.to_owned(),
        size: stat.st_size,
        mode: stat.st_mode,
        modified: Timestamp {
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        },
        link_target,
    })
}

/// User and group of a container's process, names looked up in its own passwd and group.
fn user_of(container: &Container, root: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let read = |path| {
        let bytes = sys::fs::read_in_root(root, path, model::limits::PASSWD_BYTES).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let user = container.spec.process.user.as_str();
    let who = model::user::resolve(user, &[], &read("etc/passwd"), &read("etc/group"))?;
    Ok((who.uid, who.gid))
}
