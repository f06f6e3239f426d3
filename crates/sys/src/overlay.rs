//! Overlay file systems through the new mount API (`fsopen(2)`): no 4 kB limit for the options, no escaping of paths.

use rustix::fd::OwnedFd;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// The writable side of an overlay.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    /// What is written goes here.
    pub upper: &'a Path,
    /// Scratch space on the same file system.
    pub work: &'a Path,
    /// Never flush: `fsync(2)` and unmounting do not wait for the disk (kernel 5.10).
    pub volatile: bool,
}

/// A detached overlay mount, gone with its descriptor. `lower` has the uppermost directory first and is not empty;
/// without `upper` the mount is read-only, and a single lower directory needs `filler`, an empty directory below it
/// (the kernel wants two).
///
/// Features that would make the upper directory's content depend on the layers below (redirects, metadata-only
/// copies, the index) are off: it stays what a layer's archive is made from.
///
/// # Errors
/// Those of `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`; `EINVAL` mostly means a directory that cannot be a layer.
pub fn mount_detached<'p>(
    lower: impl IntoIterator<Item = &'p Path>,
    upper: Option<Upper<'_>>,
    filler: &Path,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &Path| rustix::mount::fsconfig_set_string(context.as_fd(), key, value);
    set("source", Path::new("overlay"))?;
    let mut count = 0;
    for directory in lower {
        set("lowerdir+", directory)?;
        count += 1;
    }
    if count == 0 || (count == 1 && upper.is_none()) {
        set("lowerdir+", filler)?;
    }
    for (key, value) in
        [("index", "off"), ("redirect_dir", "off"), ("metacopy", "off"), ("nfs_export", "off")]
    {
        set(key, Path::new(value))?;
    }
    if let Some(upper) = upper {
        if upper.volatile {
            // Left by an earlier mount of the same directories, which were not lost: no reboot came between.
            match std::fs::remove_dir_all(upper.work.join("work/incompat/volatile")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            rustix::mount::fsconfig_set_flag(context.as_fd(), "volatile")?;
        }
        set("upperdir", upper.upper)?;
        set("workdir", upper.work)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    // A view for the host to read and write files in: nothing of it is executed, and no device of an image's is opened.
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if upper.is_none() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
