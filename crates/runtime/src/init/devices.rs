//! /dev: nodes, links, the terminal.

use model::bundle::{Bundle, DeviceNode, MountOpSource};
use model::container::ContainerPath;
use model::error::Context as _;
use model::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use std::os::fd::OwnedFd;

use crate::wire::{self, FromInit};

/// Name, major, minor: all 0666.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the standard nodes where /dev is ours (not a bind of the user's), and the asked ones. Returns the first.
pub fn make(bundle: &Bundle, root: &OwnedFd) -> Result<bool> {
    let bound = bundle
        .mounts
        .iter()
        .any(|op| op.target.as_str() == "/dev" && matches!(op.source, MountOpSource::Bind { .. }));
    if !bound {
        let dev = sys::fs::create_dir_in_root(root, "dev", 0o755).context(|| "create /dev")?;
        for (name, major, minor) in NODES {
            node(&dev, name, FileType::CharacterDevice, (major, minor), 0o666, (0, 0))?;
        }
        for (name, target) in LINKS {
            match rustix::fs::symlinkat(target, &dev, name) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => {
                    return Err(std::io::Error::from(error)).context(|| format!("link /dev/{name}"));
                }
            }
        }
    }
    for device in &bundle.devices {
        asked(device, root)?;
    }
    Ok(!bound)
}

fn asked(device: &DeviceNode, root: &OwnedFd) -> Result<()> {
    let path = device.path.as_str();
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = sys::fs::create_dir_in_root(root, if parent.is_empty() { "." } else { parent }, 0o755)
        .context(|| format!("create {parent}"))?;
    let kind = match device.kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    node(&dir, name, kind, (device.major, device.minor), device.mode & 0o7777, (device.uid, device.gid))
}

fn node(
    dir: &OwnedFd,
    name: &str,
    kind: FileType,
    number: (u32, u32),
    mode: u32,
    owner: (u32, u32),
) -> Result<()> {
    let what = || format!("create device {name}");
    let device = rustix::fs::makedev(number.0, number.1);
    match rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), device) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            let there = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map_err(std::io::Error::from)
                .context(what)?;
            if there.st_rdev == device && FileType::from_raw_mode(there.st_mode) == kind {
                return Ok(());
            }
            return Err(Error::invalid(format!("create device {name}: something else has that name")));
        }
        // Where making nodes is not allowed, the host's own is shown.
        Err(rustix::io::Errno::PERM) => {
            let source = sys::mount::clone_path(format!("/dev/{name}"), false).context(what)?;
            let target = sys::fs::create_file_in_root(dir, name, 0o666, 0o755).context(what)?;
            return sys::mount::attach(&source, &target).context(what);
        }
        Err(error) => return Err(std::io::Error::from(error)).context(what),
    }
    if owner != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_err(std::io::Error::from)
            .context(what)?;
    }
    Ok(())
}

/// The container's terminal; its other end is also put at /dev/console.
pub fn terminal(bundle: &Bundle, root: &OwnedFd, console: bool, channel: &OwnedFd) -> Result<OwnedFd> {
    let peer = open_terminal(root, bundle.process.console_size, channel)?;
    if console {
        let path = ContainerPath::root().join("/dev/console");
        let target = sys::fs::create_file_in_root(root, path.relative(), 0o600, 0o755)
            .context(|| "create /dev/console")?;
        let mount = sys::mount::clone_fd(&peer, false).context(|| "mount /dev/console")?;
        sys::mount::attach(&mount, &target).context(|| "mount /dev/console")?;
    }
    Ok(peer)
}

/// Opens a terminal of the container's own devpts and sends the controlling end to the monitor. Everything goes through
/// descriptors (CVE-2025-52565).
pub fn open_terminal(root: &OwnedFd, size: Option<(u16, u16)>, channel: &OwnedFd) -> Result<OwnedFd> {
    let ours = sys::fs::open_in_root(root, "dev/pts/ptmx", sys::pty::open_flags() | OFlags::NOFOLLOW, 0)
        .context(|| "open /dev/pts/ptmx")?;
    let stat = rustix::fs::fstat(&ours).map_err(std::io::Error::from).context(|| "stat /dev/pts/ptmx")?;
    if stat.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(Error::invalid("/dev/pts/ptmx of the container is no terminal multiplexer"));
    }
    let peer = sys::pty::peer(&ours).context(|| "open a terminal")?;
    if let Some((rows, columns)) = size {
        sys::pty::resize(&ours, rows, columns).context(|| "set the terminal's size")?;
    }
    sys::socket::send(channel, &wire::encode(&FromInit::Terminal), Some(&ours))
        .context(|| "send the terminal to the monitor")?;
    Ok(peer)
}
