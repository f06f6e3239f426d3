//! A bundle becomes a living process.
//!
//! One monitor a container: the engine's own binary, re-executed, single-threaded, with no server above it. It
//! clones the container's init, which interprets the bundle's set-up operations and executes the process; it
//! owns the log, the attach socket, restarts, health checks and the exit code. Killing whoever started a
//! container never touches it; killing its monitor kills the container, so that none lives unseen.
//!
//! Run directory (`/run/cauldron/<id>`): `bundle.json`, `live.json` (written by the monitor before `start`
//! returns, removed after `state.json` has the exit code), `monitor.sock`, `ports.json`, `execs/<id>.json`,
//! `attach.<pid>-<n>.<letters>` (sockets of waiting clients, see [`attach`]).
//!
//! This crate never imports `store` or `net`: mounts come as paths, the network as a descriptor.

mod cgroup;
pub mod check;
mod init;
mod launch;
mod monitor;
mod relay;
mod seccomp;
mod wire;

use model::bundle::{HeldPort, Process};
use model::container::{Lifecycle, Resources};
use model::error::Context as _;
use model::state::Live;
use model::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub use launch::{Prepared, Spawned};
use wire::Request;

/// Starts a container's monitor. It takes a moment to get ready: the caller meanwhile makes the bundle.
///
/// # Errors
/// The monitor cannot be started.
pub fn spawn(run_dir: &Path) -> Result<Spawned> {
    launch::spawn(run_dir)
}

/// The roles of monitor and relay: `main` calls this, before any thread exists, when the binary was re-executed as one.
/// Returns `None` where `args` (argv) are neither's.
pub fn role(args: &[std::ffi::OsString]) -> Option<std::process::ExitCode> {
    match args {
        [name, run_dir] if name == launch::MONITOR => Some(monitor::main(Path::new(run_dir))),
        [name, doors @ ..] if name == relay::RELAY => Some(relay::main(doors)),
        _ => None,
    }
}

/// The live part of a container, if it is true: right boot, monitor alive with the recorded start time.
///
/// # Errors
/// `live.json` exists and cannot be read.
pub fn live(run_dir: &Path) -> Result<Option<Live>> {
    launch::reap();
    let path = run_dir.join("live.json");
    let bytes = match sys::fs::read_file(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(|| format!("read {}", path.display())),
    };
    let live: Live = wire::decode(&bytes).context(|| format!("read {}", path.display()))?;
    let alive = sys::process::start_time(live.monitor_pid)
        .is_ok_and(|(time, alive)| alive && time == live.monitor_start_time);
    Ok((alive && monitor::record::boot_id()? == live.boot_id).then_some(live))
}

/// What was done differently from what was asked when the container last started (limits clamped to the machine's).
pub fn warnings(run_dir: &Path) -> Vec<String> {
    std::fs::read_to_string(run_dir.join("warnings")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Kills what a dead monitor may have left (a process that changed its user has lost its parent death signal) and
/// removes the cgroups.
///
/// # Errors
/// A cgroup stays busy.
pub fn clean_up(cgroup: &str) -> Result<()> {
    let cgroup = cgroup::Cgroup::at(cgroup)?;
    cgroup.kill();
    cgroup.remove()
}

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Streams {
    /// Sends stdin; `shutdown(SHUT_WR)` closes the process's stdin.
    pub stdin: bool,
    /// Wants stdout.
    pub stdout: bool,
    /// Wants stderr.
    pub stderr: bool,
}

/// An attached client. Bytes read are Docker's stream format: raw with a terminal, else frames of
/// `[stream, 0, 0, 0, length u32 BE]` and payload. Bytes written are stdin. End of file means that the process
/// has exited (and its exit code is in `state.json`) or that the monitor is gone.
pub enum Attached {
    /// To a running container.
    Now(UnixStream),
    /// To one that is not started yet: a socket in the run directory that the monitor will connect to before the process runs.
    WhenStarted(std::os::unix::net::UnixListener),
}

/// Attaches to a running container, or registers to be attached when it starts.
///
/// # Errors
/// The socket cannot be reached or made.
pub fn attach(run_dir: &Path, streams: Streams) -> Result<Attached> {
    static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    if live(run_dir)?.is_some() {
        return Ok(Attached::Now(wire::call(monitor_socket(run_dir)?, &Request::Attach(streams))?));
    }
    sys::fs::private_dir(run_dir).context(|| format!("create directory {}", run_dir.display()))?;
    let letters = format!(
        "{}{}{}",
        if streams.stdin { "i" } else { "" },
        if streams.stdout { "o" } else { "" },
        if streams.stderr { "e" } else { "" }
    );
    let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = run_dir.join(format!("{WAITING}{}-{serial}.{letters}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    Ok(Attached::WhenStarted(sys::socket::listen(&path).context(|| format!("listen on {}", path.display()))?))
}

/// What the names of waiting clients' sockets begin with, in the run directory.
pub const WAITING: &str = "attach.";

/// The streams that the name of a waiting client's socket asks for; `None` for any other file.
fn streams_of(name: &str) -> Option<Streams> {
    let (_, letters) = name.strip_prefix(WAITING)?.split_once('.')?;
    Some(Streams {
        stdin: letters.contains('i'),
        stdout: letters.contains('o'),
        stderr: letters.contains('e'),
    })
}

fn monitor_socket(run_dir: &Path) -> Result<UnixStream> {
    let path = run_dir.join("monitor.sock");
    sys::socket::connect(&path)
        .map_err(|error| Error::new(Kind::Conflict, "the container is not running").caused_by(error))
}

/// Sends a signal to the container's process (through a pidfd, so never to a stranger).
///
/// # Errors
/// The container does not run.
pub fn kill(live: &Live, signal: i32) -> Result<()> {
    let gone = || Error::new(Kind::Conflict, "the container is not running");
    let pidfd = sys::process::pidfd(live.pid).map_err(|_| gone())?;
    match sys::process::start_time(live.pid) {
        Ok((time, _)) if time == live.start_time => {}
        _ => return Err(gone()),
    }
    match sys::process::signal(&pidfd, signal) {
        Err(error) if error.raw_os_error() == Some(3) => Err(gone()),
        other => other.context(|| format!("send signal {signal}")),
    }
}

/// Tells the monitor that a person wants the container stopped: no restart follows; `signal` is sent at once where given.
///
/// # Errors
/// The monitor cannot be reached.
pub fn request_stop(run_dir: &Path, signal: Option<i32>) -> Result<()> {
    wire::call(monitor_socket(run_dir)?, &Request::Stop(signal)).map(drop)
}

/// Waits until the monitor of this container is done with the current run (exit code written), or the time is over.
/// `None` waits for ever. True: it is over.
///
/// # Errors
/// The wait itself failed.
pub fn wait_exit(live: &Live, timeout: Option<std::time::Duration>) -> Result<bool> {
    let Ok(stream) = monitor_socket(&live.run_dir) else { return Ok(true) };
    stream
        .set_read_timeout(timeout.map(|time| time.max(std::time::Duration::from_millis(1))))
        .context(|| "set a timeout")?;
    let mut stream = stream;
    let request = wire::frame(&Request::Wait { pid: live.pid, start_time: live.start_time });
    if std::io::Write::write_all(&mut stream, &request).is_err() {
        return Ok(true);
    }
    loop {
        // Any answer, and its end too, says that this run is over.
        match std::io::Read::read(&mut stream, &mut [0; 64]) {
            Ok(_) => {
                launch::reap();
                return Ok(true);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                return Ok(false);
            }
            Err(_) => return Ok(true),
        }
    }
}

/// Freezes or thaws (cgroup freezer) and records it in `live.json`. The monitor does both; `cgroup` is its own.
///
/// # Errors
/// The freezer cannot be written.
pub fn set_paused(run_dir: &Path, cgroup: &str, paused: bool) -> Result<()> {
    let _ = cgroup;
    wire::call(monitor_socket(run_dir)?, &Request::Pause(paused)).map(drop)
}

/// Changes the terminal's size, of the container or of one of its execs.
///
/// # Errors
/// The monitor cannot be reached.
pub fn resize(run_dir: &Path, exec: Option<&str>, rows: u16, columns: u16) -> Result<()> {
    let request = Request::Resize { exec: exec.map(str::to_owned), rows, columns };
    wire::call(monitor_socket(run_dir)?, &request).map(drop)
}

/// What may change while a container runs; `None` leaves a thing as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Changed {
    /// The new name, for events.
    pub name: Option<String>,
    /// What happens after the next exit (`update --restart`).
    pub lifecycle: Option<Lifecycle>,
    /// New limits, for this run and those that follow it.
    pub resources: Option<Box<Resources>>,
}

/// Tells the monitor of a running container what has changed.
///
/// # Errors
/// [`Kind::Conflict`] where it cannot be reached; names the file that refused a limit and the value.
pub fn change(run_dir: &Path, changed: Changed) -> Result<()> {
    wire::call(monitor_socket(run_dir)?, &Request::Change(changed)).map(drop)
}

/// Writes down which host ports the monitor shall hold, and tells it where the container runs. Before
/// [`Prepared::start`] the file is enough: start fails where a port cannot be held.
///
/// # Errors
/// A port is taken, or the file cannot be written.
pub fn set_ports(run_dir: &Path, ports: &[HeldPort]) -> Result<()> {
    let path = run_dir.join(monitor::PORTS);
    if ports.is_empty() && !path.exists() {
        return Ok(());
    }
    sys::fs::replace_file(&path, &wire::encode(&ports), 0o600, false)
        .context(|| format!("write {}", path.display()))?;
    match live(run_dir)? {
        Some(_) => wire::call(monitor_socket(run_dir)?, &Request::Ports).map(drop),
        None => Ok(()),
    }
}

/// Where a container's resolver finds its configuration ([`model::dns::Config`]). Written before the start by whoever wants
/// names to be resolved, replaced whole whenever they change: the monitor looks by itself.
pub fn resolver_path(run_dir: &Path) -> std::path::PathBuf {
    run_dir.join("resolver.json")
}

/// Tells the monitor of a running container that its resolver's configuration is there, which was not at its start.
///
/// # Errors
/// The monitor cannot be reached, or cannot make the resolver's sockets.
pub fn resolve(run_dir: &Path) -> Result<()> {
    wire::call(monitor_socket(run_dir)?, &Request::Resolve).map(drop)
}

/// Asks the monitor of a running container to watch over the firewall, if no other does.
///
/// # Errors
/// The monitor cannot be reached.
pub fn watch_firewall(run_dir: &Path) -> Result<()> {
    wire::call(monitor_socket(run_dir)?, &Request::Watch).map(drop)
}

/// What an exec became; kept in `execs/<id>.json`, written before its stream ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExecState {
    /// On the host; 0 before it was started.
    pub pid: i32,
    /// Whether it runs.
    pub running: bool,
    /// Once it has exited.
    pub exit_code: Option<i32>,
}

/// Runs another process in a running container, as a child of the monitor, under its cgroup, seccomp filter and
/// namespaces. Returns when `execve` has succeeded; the stream is there unless `detach`.
///
/// # Errors
/// As [`Prepared::start`]; the exec's state has the exit code too.
pub fn exec(
    run_dir: &Path,
    id: &str,
    process: &Process,
    streams: Streams,
    detach: bool,
) -> Result<Option<UnixStream>> {
    let request = Request::Exec { id: id.to_owned(), process: Box::new(process.clone()), streams, detach };
    let stream = wire::call(monitor_socket(run_dir)?, &request)?;
    Ok((!detach).then_some(stream))
}

/// The state of an exec.
///
/// # Errors
/// There is no such exec.
pub fn exec_state(run_dir: &Path, id: &str) -> Result<ExecState> {
    let path = monitor::record::exec_path(run_dir, id)?;
    let bytes = std::fs::read(path)
        .map_err(|_| Error::new(Kind::NotFound, format!("No such exec instance: {id}")))?;
    wire::decode(&bytes)
}

/// Process ids (on the host) of a container.
///
/// # Errors
/// The cgroup cannot be read.
pub fn pids(cgroup: &str) -> Result<Vec<i32>> {
    cgroup::Cgroup::at(cgroup)?.pids()
}

/// One reading of the cgroup's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, nanoseconds.
    pub cpu_total: u64,
    /// In user mode, nanoseconds.
    pub cpu_user: u64,
    /// In the kernel, nanoseconds.
    pub cpu_system: u64,
    /// Of each processor, nanoseconds; of a version 1 hierarchy only.
    pub cpu_each: Vec<u64>,
    /// Of the whole machine, nanoseconds.
    pub machine_cpu: u64,
    /// Processors online.
    pub online_cpus: u32,
    /// Throttling: periods, throttled periods, throttled nanoseconds.
    pub throttling: (u64, u64, u64),
    /// Bytes of memory in use.
    pub memory: u64,
    /// The most that was in use, where the kernel tells.
    pub memory_max_usage: u64,
    /// The limit in bytes; the machine's memory where there is none.
    pub memory_limit: u64,
    /// `memory.stat`, by the kernel's names.
    pub memory_stat: std::collections::BTreeMap<String, u64>,
    /// Processes.
    pub pids: u64,
    /// Their limit; 0 is none.
    pub pids_limit: u64,
    /// Block I/O by (major, minor, operation): bytes.
    pub blkio_bytes: Vec<(u64, u64, String, u64)>,
    /// Block I/O by (major, minor, operation): operations.
    pub blkio_ops: Vec<(u64, u64, String, u64)>,
    /// Block I/O is counted by a version 1 hierarchy.
    pub blkio_legacy: bool,
}

/// Reads the counters of a container.
///
/// # Errors
/// The cgroup is gone.
pub fn usage(cgroup: &str) -> Result<Usage> {
    cgroup::usage(cgroup)
}

/// Counters of the interfaces in a process's network namespace: (name, rx bytes, rx packets, rx errors, rx dropped,
/// tx bytes, tx packets, tx errors, tx dropped), loopback left out.
///
/// # Errors
/// The process is gone.
pub fn interface_counters(pid: i32) -> Result<Vec<(String, [u64; 8])>> {
    let path = format!("/proc/{pid}/net/dev");
    let text = std::fs::read_to_string(&path).context(|| format!("read {path}"))?;
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let fields: Vec<u64> = rest.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
        let name = name.trim();
        (name != "lo" && fields.len() >= 12).then(|| {
            (
                name.to_owned(),
                [fields[0], fields[1], fields[2], fields[3], fields[8], fields[9], fields[10], fields[11]],
            )
        })
    };
    Ok(text.lines().skip(2).filter_map(line).collect())
}
