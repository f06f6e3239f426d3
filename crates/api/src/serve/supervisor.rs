//! What systemd and other supervisors expect of a server: passed sockets, word of being ready, a file with its pid.

use engine::model::error::Context as _;
use engine::model::{Error, Result};
use std::fs::File;
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// Tells systemd how the service is (sd_notify(3)). Without systemd it does nothing; a lost message is no failure.
pub(super) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}

/// `RELOADING=1` with the time that systemd wants beside it (`Type=notify-reload`).
pub(super) fn notify_reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// Numbers and names of the passed sockets that `wanted` means (sd_listen_fds(3)): all, one number, or one name.
///
/// # Errors
/// There is none.
pub(super) fn passed(wanted: Option<&str>) -> Result<Vec<usize>> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let ours = variable("LISTEN_PID") == std::process::id().to_string();
    let count = if ours { variable("LISTEN_FDS").parse().unwrap_or(0) } else { 0 };
    let found = choose(count, &variable("LISTEN_FDNAMES"), wanted);
    if found.is_empty() {
        let which = wanted.map_or(String::new(), |wanted| format!(" {wanted:?}"));
        return Err(Error::invalid(format!("listen on fd://: no socket{which} was passed by systemd"))
            .hint("fd:// is for a service with a .socket unit"));
    }
    Ok(found)
}

/// Positions, from 0; descriptors begin at 3.
fn choose(count: usize, names: &str, wanted: Option<&str>) -> Vec<usize> {
    let names: Vec<&str> = names.split(':').collect();
    let fits = |index: &usize| match wanted {
        None => true,
        Some(wanted) => wanted.parse() == Ok(index + 3) || names.get(*index) == Some(&wanted),
    };
    (0..count).filter(fits).collect()
}

/// A file with this process's id, locked while it lives and removed at its end.
pub(super) struct PidFile {
    path: PathBuf,
    _held: File,
}

impl PidFile {
    /// # Errors
    /// Another living process holds it.
    pub(super) fn write(path: &Path) -> Result<Self> {
        let what = || format!("pid file {}", path.display());
        let mut file = File::options().create(true).truncate(false).write(true).open(path).context(what)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::conflict(format!("{}: another server runs with it", what())));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error).context(what),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).context(what)?;
        Ok(Self { path: path.to_owned(), _held: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_sockets() {
        assert_eq!(choose(3, "a:b:a", None), [0, 1, 2]);
        assert_eq!(choose(3, "a:b:a", Some("a")), [0, 2]);
        assert_eq!(choose(3, "", Some("4")), [1]);
        assert!(choose(0, "a", None).is_empty() && choose(2, "a:b", Some("9")).is_empty());
    }
}
