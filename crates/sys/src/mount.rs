//! Mounts through descriptors (the mount API of Linux 5.2 and `mount_setattr(2)` of 5.12): nothing is looked up by name
//! twice.

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

/// `MOUNT_ATTR_RDONLY` and its like (`mount_setattr(2)`).
pub mod attr {
    /// Not writable.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits are ignored.
    pub const NOSUID: u64 = 0x2;
    /// No devices.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
}

/// `MS_PRIVATE` and its like.
pub mod propagation {
    /// Nothing travels.
    pub const PRIVATE: u64 = 1 << 18;
    /// From the peer group only.
    pub const SLAVE: u64 = 1 << 19;
    /// Both ways.
    pub const SHARED: u64 = 1 << 20;
}

/// One option of a new file system.
pub enum Setting<'a> {
    /// `name=value`.
    Text(&'a str, &'a [u8]),
    /// `name`.
    Flag(&'a str),
}

/// A new file system, mounted nowhere yet; its descriptor is its root (`O_PATH`).
///
/// # Errors
/// Those of `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, with what the kernel logged about it.
pub fn create(fstype: &str, source: &str, options: &[Setting<'_>], attributes: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explain = |error: rustix::io::Errno| explained(&context, error.into());
    rustix::mount::fsconfig_set_string(&context, "source", source).map_err(explain)?;
    for option in options {
        match option {
            Setting::Text(name, value) => rustix::mount::fsconfig_set_string(&context, *name, *value),
            Setting::Flag(name) => rustix::mount::fsconfig_set_flag(&context, *name),
        }
        .map_err(explain)?;
    }
    rustix::mount::fsconfig_create(&context).map_err(explain)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(explain)
}

/// Adds the message that the kernel left in the context's log (`e overlay: …`).
fn explained(context: &OwnedFd, error: io::Error) -> io::Error {
    let mut buffer = [0u8; 512];
    match rustix::io::read(context, &mut buffer) {
        Ok(length) if length > 2 => {
            let text = String::from_utf8_lossy(&buffer[2..length]).trim().to_owned();
            io::Error::new(error.kind(), format!("{error} ({text})"))
        }
        _ => error,
    }
}

/// A detached copy of the mount at a path of the host (followed), with what is below where `recursive`.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn clone_path(path: impl AsRef<Path>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path.as_ref(), flags)?)
}

/// A detached copy of what a descriptor shows.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn clone_fd(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(fd, c"", flags)?)
}

/// Attaches a detached mount on top of what `target` shows.
///
/// # Errors
/// Those of `move_mount(2)`.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// Attaches a detached mount at a path of the host.
///
/// # Errors
/// Those of `move_mount(2)`.
pub fn attach_at(mount: impl AsFd, path: impl AsRef<Path>) -> io::Result<()> {
    Ok(rustix::mount::move_mount(
        mount,
        c"",
        rustix::fs::CWD,
        path.as_ref(),
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes ([`attr`]) and, where not 0, the propagation of a mount, or of a whole tree.
///
/// # Errors
/// Those of `mount_setattr(2)`.
pub fn set_attributes(mount: impl AsFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = Attributes { set, clear: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: `empty` is NUL-terminated, `attributes` has the layout of `struct mount_attr` and its size is passed;
    // the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Cuts the whole mount namespace off from its peers.
///
/// # Errors
/// Those of `mount(2)`.
pub fn make_all_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?)
}

/// Makes `root` (a mount's root) the root of this mount namespace and lets go of the old one.
///
/// # Errors
/// Those of `pivot_root(2)`, `umount2(2)`.
pub fn pivot(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}
