//! The new root and what is mounted inside it.
//!
//! Targets are made and opened inside the root (openat2) and mounted on through their descriptor, so a link swapped in
//! between leads nowhere else (CVE-2021-30465). procfs and sysfs are never mounted through a link (CVE-2019-19921,
//! CVE-2023-27561, CVE-2023-28642), nothing of the user's goes on top of procfs but a short list, and a mask is the real null
//! device (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).

use model::bundle::{Bundle, MountOp, MountOpSource, Namespace, Rootfs};
use model::container::{ContainerPath, HostPath, Propagation};
use model::error::Context as _;
use model::{Error, Result};
use rustix::fs::{FileType, OFlags, ResolveFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use sys::mount::{Setting, attr, propagation};

use super::{Source, Stage};

/// `PROC_SUPER_MAGIC`.
const PROC_MAGIC: i64 = 0x9fa0;
/// What may be mounted over in procfs (runc's list: files that lxcfs provides, and harmless ones).
const PROC_TARGETS: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Whether a descriptor is on procfs.
pub fn is_proc(fd: impl AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC_MAGIC)
}

/// Mounts the root file system at the run directory (of this mount namespace only): `pivot_root` wants it attached.
pub fn root(bundle: &Bundle) -> Result<OwnedFd> {
    let Rootfs::Overlay { lower, upper, work, volatile, .. } = &bundle.rootfs;
    let bytes = |path: &'_ HostPath| path.0.as_os_str().as_bytes().to_vec();
    let lower: Vec<Vec<u8>> = lower.iter().map(bytes).collect();
    let (upper, work) = (bytes(upper), bytes(work));
    let mut options: Vec<Setting<'_>> = lower.iter().map(|path| Setting::Text("lowerdir+", path)).collect();
    options.extend([Setting::Text("upperdir", &upper), Setting::Text("workdir", &work)]);
    // Plain upper directories, whatever the module's defaults: they become layers.
    options.extend([
        Setting::Text("redirect_dir", b"off"),
        Setting::Text("metacopy", b"off"),
        Setting::Text("index", b"off"),
    ]);
    if *volatile {
        options.push(Setting::Flag("volatile"));
    }
    let root = sys::mount::create("overlay", "overlay", &options, 0)
        .context(|| format!("mount the overlay of container {}", bundle.id.short()))?;
    sys::mount::attach_at(&root, &bundle.run_dir)
        .context(|| format!("attach the root file system at {}", bundle.run_dir.0.display()))?;
    Ok(root)
}

/// Makes the bundle's mounts in order.
pub fn make(stage: &mut Stage<'_>, root: &OwnedFd) -> Result<()> {
    let init = stage.init;
    let mut read_only_later = Vec::new();
    for (op, source) in init.bundle.mounts.iter().zip(&init.sources) {
        let what = || format!("mount {}", op.target);
        match (&op.source, source) {
            (MountOpSource::Bind { recursive, propagation, .. }, Some(source)) => {
                bind(op, source, *recursive, *propagation, root).context(what)?;
            }
            (MountOpSource::Bind { .. }, None) => {
                return Err(Error::internal(format!("mount {}: no source", op.target)));
            }
            (MountOpSource::Copy { path, uid, gid, mode }, _) => {
                let copied = copy(path, (*uid, *gid, *mode), &init.bundle.run_dir);
                let source = Source { mount: copied.context(what)?, directory: false };
                bind(op, &source, false, Propagation::RPrivate, root).context(what)?;
            }
            (MountOpSource::Fs { fstype, .. }, _) if fstype == "cgroup" => {
                stage.join_cgroups()?;
                cgroups(stage, op, root).context(what)?;
            }
            (MountOpSource::Fs { fstype, options }, _) => {
                let mount = file_system(op, fstype, options, root).context(what)?;
                if op.read_only && fstype == "tmpfs" {
                    read_only_later.push(mount);
                }
            }
        }
    }
    for mount in read_only_later {
        sys::mount::set_attributes(&mount, attr::RDONLY, 0, false).context(|| "make a mount read-only")?;
    }
    Ok(())
}

/// A file's copy in a tmpfs, as a detached mount. A file of a detached mount can be cloned from Linux 6.15 on only, so the
/// tmpfs is attached for the moment, on top of the run directory in this mount namespace.
fn copy(path: &HostPath, (uid, gid, mode): (u32, u32, u32), run_dir: &HostPath) -> Result<OwnedFd> {
    use rustix::fs::{Gid, Mode, Uid};
    let what = || format!("copy {}", path.0.display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::open(&path.0, flags, Mode::empty()).map_err(std::io::Error::from).context(what)?;
    let memory = sys::mount::create(
        "tmpfs",
        "tmpfs",
        &[Setting::Text("mode", b"755")],
        attr::NOSUID | attr::NODEV | attr::NOEXEC,
    )
    .context(|| "create tmpfs")?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = rustix::fs::openat(&memory, "file", flags, Mode::from_raw_mode(0o600))
        .map_err(std::io::Error::from)
        .context(what)?;
    let (mut from, mut to) = (std::fs::File::from(from), std::fs::File::from(to));
    std::io::copy(&mut from, &mut to).context(what)?;
    let owned = rustix::fs::fchown(&to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    owned
        .and_then(|()| rustix::fs::fchmod(&to, Mode::from_raw_mode(mode & 0o7777)))
        .map_err(std::io::Error::from)
        .context(what)?;
    drop(to);
    sys::mount::attach_at(&memory, run_dir).context(what)?;
    let mount = sys::mount::clone_path(run_dir.0.join("file"), false).context(what);
    rustix::mount::unmount(&run_dir.0, rustix::mount::UnmountFlags::DETACH)
        .map_err(std::io::Error::from)
        .context(what)?;
    mount
}

fn attributes(op: &MountOp) -> u64 {
    let bit = |set: bool, bit: u64| if set { bit } else { 0 };
    bit(op.read_only, attr::RDONLY)
        | bit(op.nosuid, attr::NOSUID)
        | bit(op.nodev, attr::NODEV)
        | bit(op.noexec, attr::NOEXEC)
}

fn file_system(
    op: &MountOp,
    fstype: &str,
    options: &[(String, Option<String>)],
    root: &OwnedFd,
) -> Result<OwnedFd> {
    // `source` is what /proc/mounts names it by: `shm`, as Docker's users know it.
    let named = options.iter().find(|(name, _)| name == "source").and_then(|(_, value)| value.as_deref());
    let settings: Vec<Setting<'_>> = options
        .iter()
        .filter(|(name, _)| name != "source")
        .map(|(name, value)| match value {
            Some(value) => Setting::Text(name, value.as_bytes()),
            None => Setting::Flag(name),
        })
        .collect();
    let mut set = attributes(op);
    if fstype == "tmpfs" {
        set &= !attr::RDONLY;
    }
    let mount = sys::mount::create(fstype, named.unwrap_or(fstype), &settings, set)
        .context(|| format!("create {fstype}"))?;
    let target = directory(root, &op.target)?;
    if op.target.as_str() == "/proc" && fstype != "proc" {
        return Err(fake_proc());
    }
    if matches!(fstype, "proc" | "sysfs") {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(root, op.target.relative(), flags, rustix::fs::Mode::empty(), resolve)
            .map_err(|_| Error::invalid(format!("{} is a symbolic link in the image", op.target)))?;
    } else {
        refuse_proc(&target, &op.target)?;
    }
    sys::mount::attach(&mount, &target).context(|| "attach")?;
    Ok(mount)
}

fn directory(root: &OwnedFd, path: &ContainerPath) -> Result<OwnedFd> {
    sys::fs::create_dir_in_root(root, path.relative(), 0o755).context(|| "create mountpoint")
}

/// What stands in for procfs would be believed: the engine writes security attributes and parameters there (CVE-2019-16884).
fn fake_proc() -> Error {
    Error::invalid("\"/proc\" cannot be mounted because it is not of type proc")
}

fn refuse_proc(target: &OwnedFd, path: &ContainerPath) -> Result<()> {
    if is_proc(target) && !PROC_TARGETS.contains(&path.as_str()) {
        return Err(Error::invalid(format!(
            "{path:?} cannot be mounted because it is inside /proc",
            path = path.as_str()
        )));
    }
    Ok(())
}

fn bind(op: &MountOp, source: &Source, recursive: bool, how: Propagation, root: &OwnedFd) -> Result<()> {
    let (kind, deep) = match how {
        Propagation::Private => (propagation::PRIVATE, false),
        Propagation::RPrivate => (propagation::PRIVATE, true),
        Propagation::Slave => (propagation::SLAVE, false),
        Propagation::RSlave => (propagation::SLAVE, true),
        Propagation::Shared => (propagation::SHARED, false),
        Propagation::RShared => (propagation::SHARED, true),
    };
    sys::mount::set_attributes(&source.mount, 0, kind, deep).context(|| "set propagation")?;
    let set = attributes(op);
    if set != 0 {
        // Read-only all the way down where the kernel can, as Docker from 25 on.
        sys::mount::set_attributes(&source.mount, set, 0, recursive)
            .or_else(|_| sys::mount::set_attributes(&source.mount, set, 0, false))
            .context(|| "set attributes")?;
    }
    let target = if source.directory {
        directory(root, &op.target)?
    } else {
        sys::fs::create_file_in_root(root, op.target.relative(), 0o755, 0o755)
            .context(|| "create mountpoint")?
    };
    match (op.target.as_str(), is_proc(&source.mount)) {
        ("/proc", true) => {}
        ("/proc", false) => return Err(fake_proc()),
        _ => refuse_proc(&target, &op.target)?,
    }
    let is_directory = FileType::from_raw_mode(
        rustix::fs::fstat(&target).map_err(std::io::Error::from).context(|| "stat")?.st_mode,
    ) == FileType::Directory;
    if is_directory != source.directory {
        return Err(Error::invalid(
            "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type",
        ));
    }
    sys::mount::attach(&source.mount, &target).context(|| "attach")
}

/// The container's own part of each hierarchy: one directory for v2; for v1 and hybrid a tmpfs with a directory each.
/// They are binds of the container's groups, which look like roots, as the cgroup namespace says.
fn cgroups(stage: &Stage<'_>, op: &MountOp, root: &OwnedFd) -> Result<()> {
    let groups = stage.init.cgroup.groups();
    let set = attributes(op);
    let whole = stage.init.bundle.namespaces.cgroup == Namespace::Host;
    let target = directory(root, &op.target)?;
    let clone = |hierarchy: &sys::cgroup::Hierarchy, dir: &std::path::Path| -> Result<OwnedFd> {
        let from = if whole && hierarchy.unified { &hierarchy.mount } else { dir };
        let mount = sys::mount::clone_path(from, false).context(|| format!("open {}", from.display()))?;
        sys::mount::set_attributes(&mount, set, propagation::PRIVATE, false).context(|| "set attributes")?;
        Ok(mount)
    };
    if let [(hierarchy, dir)] = groups
        && hierarchy.unified
    {
        return sys::mount::attach(clone(hierarchy, dir)?, &target).context(|| "attach");
    }
    let base = sys::mount::create("tmpfs", "tmpfs", &[Setting::Text("mode", b"755")], set & !attr::RDONLY)
        .context(|| "create tmpfs")?;
    sys::mount::attach(&base, &target).context(|| "attach")?;
    for (hierarchy, dir) in groups {
        let Some(name) = hierarchy.mount.file_name() else { continue };
        let inside = sys::fs::create_dir_in_root(&base, std::path::Path::new(name), 0o755)
            .context(|| "create mountpoint")?;
        sys::mount::attach(clone(hierarchy, dir)?, &inside).context(|| "attach")?;
        for controller in &hierarchy.controllers {
            let plain = !controller.starts_with("name=") && controller.as_str() != name;
            if plain && hierarchy.controllers.len() > 1 {
                let _ = rustix::fs::symlinkat(name, &base, controller.as_str());
            }
        }
    }
    sys::mount::set_attributes(&base, set, 0, false).context(|| "make read-only")
}

/// Makes the new root the root.
pub fn enter(bundle: &Bundle, root: &OwnedFd) -> Result<()> {
    let Rootfs::Overlay { read_only, .. } = &bundle.rootfs;
    if *read_only {
        sys::mount::set_attributes(root, attr::RDONLY, 0, false).context(|| "make the root read-only")?;
    }
    sys::mount::pivot(root).context(|| "change the root")
}

/// Masks and makes read-only, once inside.
pub fn restrict(bundle: &Bundle) -> Result<()> {
    if bundle.masked_paths.is_empty() && bundle.readonly_paths.is_empty() {
        return Ok(());
    }
    let root = sys::fs::open_root("/").context(|| "open the root")?;
    for path in &bundle.readonly_paths {
        let Some(target) = existing(&root, path)? else { continue };
        let mount = sys::mount::clone_fd(&target, true).context(|| format!("open {path}"))?;
        sys::mount::set_attributes(&mount, attr::RDONLY, 0, true)
            .and_then(|()| sys::mount::attach(&mount, &target))
            .context(|| format!("make {path} read-only"))?;
    }
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in &bundle.masked_paths {
        let Some(target) = existing(&root, path)? else { continue };
        let what = || format!("mask {path}");
        let stat = rustix::fs::fstat(&target).map_err(std::io::Error::from).context(what)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // Copies are taken of what is attached: a detached mount that is thrown away costs an RCU grace period.
        let cover = match (directory, &empty) {
            (true, Some(empty)) => sys::mount::clone_fd(empty, false).context(what)?,
            (true, None) => {
                sys::mount::create("tmpfs", "tmpfs", &[Setting::Text("size", b"0")], attr::RDONLY)
                    .context(|| "create tmpfs")?
            }
            (false, _) => {
                let null = match null.take() {
                    Some(fd) => null.insert(fd),
                    None => null.insert(null_device(&root)?),
                };
                sys::mount::clone_fd(&*null, false).context(what)?
            }
        };
        sys::mount::attach(&cover, &target).context(what)?;
        if directory && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

fn existing(root: &OwnedFd, path: &ContainerPath) -> Result<Option<OwnedFd>> {
    match sys::fs::open_in_root(root, path.relative(), OFlags::PATH, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).context(|| format!("open {path}")),
    }
}

/// The null device of the container, checked to be it.
fn null_device(root: &OwnedFd) -> Result<OwnedFd> {
    let null = sys::fs::open_in_root(root, "dev/null", OFlags::PATH | OFlags::NOFOLLOW, 0)
        .context(|| "open /dev/null")?;
    if is_null(&null) {
        Ok(null)
    } else {
        Err(Error::invalid("/dev/null of the container is not the null device"))
    }
}

/// Whether this is character device 1:3.
pub fn is_null(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
}
