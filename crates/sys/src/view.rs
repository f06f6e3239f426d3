//! A mount namespace of one thread's own: mounts made in it are seen by nobody else and go with it.

use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Runs `work` on a new thread in a mount namespace of its own, where nothing that is mounted travels to others.
///
/// # Errors
/// Those of `unshare(2)` and `mount(2)`; `EIO` where the thread panicked.
pub fn with_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            // SAFETY: CLONE_NEWNS (which implies CLONE_FS) changes this new thread alone: its root, working directory and
            // mounts. Descriptors, memory and every other thread stay as they are.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
            rustix::mount::mount_change(
                c"/",
                MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
            )?;
            Ok(work())
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EIO)))
    })
}

/// Attaches a detached mount to a directory, seen by this thread's mount namespace.
///
/// # Errors
/// Those of `move_mount(2)`.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// A detached copy of what is mounted (or of a directory or file) at a path of the host.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn copy_of(path: impl AsRef<Path>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path.as_ref(), flags)?)
}

/// A detached copy of the mount that `root` lies in, a mount of the namespace `mounts`, without what is mounted below it.
/// Only a thread in that namespace may copy it: one of its own joins, copies and ends.
///
/// # Errors
/// Those of `unshare(2)`, `setns(2)` and `open_tree(2)`; `EIO` where the thread panicked.
pub fn plain_copy_of(mounts: impl AsFd + Send, root: impl AsFd + Send) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            crate::process::unshare(libc::CLONE_FS as u64)?;
            crate::process::join(mounts, crate::process::namespace::MOUNT)?;
            crate::mount::clone_fd(root, false)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EIO)))
    })
}

/// Makes a mount that [`attach`] attached read-only.
///
/// # Errors
/// Those of `mount(2)`.
pub fn make_read_only(target: impl AsFd) -> io::Result<()> {
    Ok(rustix::mount::mount_remount(
        crate::fs::proc_path(&target),
        MountFlags::BIND | MountFlags::RDONLY,
        c"",
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_seen_inside_only() {
        let dir = std::env::temp_dir().join(format!("cauldron-view-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("from")).unwrap();
        std::fs::create_dir_all(dir.join("to")).unwrap();
        std::fs::write(dir.join("from/file"), "x").unwrap();
        let inside = with_private_mounts(|| {
            attach(copy_of(dir.join("from"), true)?, crate::fs::open_root(dir.join("to"))?)?;
            make_read_only(crate::fs::open_root(dir.join("to"))?)?;
            assert!(std::fs::write(dir.join("to/file"), "y").is_err());
            std::fs::read_to_string(dir.join("to/file"))
        });
        assert_eq!(inside.unwrap().unwrap(), "x");
        assert!(!dir.join("to/file").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
