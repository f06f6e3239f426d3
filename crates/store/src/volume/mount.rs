//! The local driver's options: `type`, `o` and `device`, as `mount(8)` would take them.
//!
//! A bind is not mounted here: containers bind the device itself. Every other type is mounted on `_data` when the
//! first container needs it and stays until nobody does.

use model::{Error, Kind, Result};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::Volume;

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The directory to bind into the container.
    pub path: PathBuf,
    /// `o=ro`.
    pub read_only: bool,
}

/// `o`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    /// What the file system itself is told.
    data: Vec<String>,
}

/// Checks the options of a new volume.
///
/// # Errors
/// An unknown option, or a missing one, in Docker's words.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    if options.is_empty() {
        return Ok(());
    }
    for name in options.keys() {
        match name.as_str() {
            "type" | "o" | "device" => {}
            "size" => return Err(Error::invalid("quota size requested but no quota support")),
            other => return Err(Error::invalid(format!("invalid option: {other:?}"))),
        }
    }
    for name in ["device", "type"] {
        if !options.contains_key(name) {
            return Err(Error::invalid(format!("missing required option: {name:?}")));
        }
    }
    if options.values().any(|value| value.contains('\0')) {
        return Err(Error::invalid("a driver option has a NUL byte"));
    }
    Ok(())
}

fn parse(text: &str) -> Options {
    let mut parsed = Options { flags: MountFlags::empty(), data: Vec::new() };
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (set, flag) = match option {
            "defaults" | "auto" | "noauto" | "user" | "nouser" | "_netdev" => continue,
            "ro" => (true, MountFlags::RDONLY),
            "rw" => (false, MountFlags::RDONLY),
            "bind" => (true, MountFlags::BIND),
            "rbind" => (true, MountFlags::BIND | MountFlags::REC),
            "nosuid" => (true, MountFlags::NOSUID),
            "suid" => (false, MountFlags::NOSUID),
            "nodev" => (true, MountFlags::NODEV),
            "dev" => (false, MountFlags::NODEV),
            "noexec" => (true, MountFlags::NOEXEC),
            "exec" => (false, MountFlags::NOEXEC),
            "sync" => (true, MountFlags::SYNCHRONOUS),
            "async" => (false, MountFlags::SYNCHRONOUS),
            "dirsync" => (true, MountFlags::DIRSYNC),
            "noatime" => (true, MountFlags::NOATIME),
            "atime" => (false, MountFlags::NOATIME),
            "nodiratime" => (true, MountFlags::NODIRATIME),
            "relatime" => (true, MountFlags::RELATIME),
            "strictatime" => (true, MountFlags::STRICTATIME),
            other => {
                parsed.data.push(other.to_owned());
                continue;
            }
        };
        parsed.flags.set(flag, set);
    }
    parsed
}

/// Makes a volume's files present and says where. The volume's directory is locked.
pub(super) fn mount(volume: &Volume) -> Result<Mounted> {
    let option = |name: &str| volume.options.get(name).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let mut options = parse(option("o"));
    let read_only = options.flags.contains(MountFlags::RDONLY);
    if options.flags.contains(MountFlags::BIND) {
        let path = PathBuf::from(device);
        if !path.is_absolute() || !path.exists() {
            return Err(failed(volume, device, &options, Errno::NOENT));
        }
        return Ok(Mounted { path, read_only });
    }
    let mounted = Mounted { path: volume.data.clone(), read_only };
    if is_mounted(&volume.data)? {
        return Ok(mounted);
    }
    if matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3") {
        resolve_address(&mut options.data)?;
    }
    let data = CString::new(options.data.join(",")).unwrap_or_default();
    match rustix::mount::mount(device, &volume.data, kind, options.flags, data.as_c_str()) {
        Ok(()) => Ok(mounted),
        Err(Errno::NODEV) => Err(Error::new(Kind::NotImplemented, format!("failed to mount local volume {}: this kernel has no {kind:?} file system", volume.name))
            .hint("load the kernel module, or mount it on the host and use `--opt type=none --opt o=bind --opt device=DIR`")),
        Err(error) => Err(failed(volume, device, &options, error)),
    }
}

fn failed(volume: &Volume, device: &str, options: &Options, error: Errno) -> Error {
    let kind = if error == Errno::NOENT { Kind::NotFound } else { Kind::InvalidArgument };
    let message = format!(
        "failed to mount local volume: mount {device}:{}, flags: 0x{:x}",
        volume.data.display(),
        options.flags.bits()
    );
    let message = if options.data.is_empty() {
        message
    } else {
        format!("{message}, data: {}", options.data.join(","))
    };
    Error::new(kind, message).caused_by(std::io::Error::from(error))
}

/// The kernel takes addresses only: `addr=HOST` is looked up.
fn resolve_address(options: &mut [String]) -> Result<()> {
    use std::net::ToSocketAddrs as _;
    for option in options {
        let Some(host) = option.strip_prefix("addr=") else { continue };
        if host.parse::<std::net::IpAddr>().is_ok() {
            continue;
        }
        let address = (host, 0)
            .to_socket_addrs()
            .map_err(|error| {
                Error::new(
                    Kind::Unavailable,
                    format!("error resolving passed in network volume address {host}"),
                )
                .caused_by(error)
            })?
            .next()
            .ok_or_else(|| {
                Error::new(
                    Kind::Unavailable,
                    format!("error resolving passed in network volume address {host}: it has no address"),
                )
            })?;
        *option = format!("addr={}", address.ip());
    }
    Ok(())
}

/// Whether something is mounted on this directory.
fn is_mounted(path: &Path) -> Result<bool> {
    match rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => {
            Err(Error::internal(format!("look at {}", path.display())).caused_by(std::io::Error::from(error)))
        }
    }
}

/// Unmounts what is mounted on this directory, if anything is.
pub(super) fn unmount(path: &Path) -> Result<()> {
    while is_mounted(path)? {
        rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(|error| {
            Error::internal(format!("unmount {}", path.display())).caused_by(std::io::Error::from(error))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_apart() {
        let parsed = parse("size=1m,ro,uid=7,,nosuid,rw,noexec,exec");
        assert_eq!(parsed.flags, MountFlags::NOSUID);
        assert_eq!(parsed.data, ["size=1m", "uid=7"]);
        assert!(parse("rbind,ro").flags.contains(MountFlags::BIND | MountFlags::REC | MountFlags::RDONLY));
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        let options = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>()
        };
        assert!(check(&options(&[])).is_ok());
        assert!(check(&options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")])).is_ok());
        let message = |pairs| check(&options(pairs)).unwrap_err().to_string();
        assert_eq!(message(&[("colour", "red")]), "invalid option: \"colour\"");
        assert_eq!(message(&[("type", "tmpfs")]), "missing required option: \"device\"");
        assert_eq!(message(&[("device", "/x")]), "missing required option: \"type\"");
    }
}
