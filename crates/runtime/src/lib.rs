//! A bundle becomes a living process.
//!
//! One monitor a container: the engine's own binary, re-executed, single-threaded, with no server above it. It
//! clones the container's init, which interprets the bundle's set-up operations and executes the process; it
//! owns the log, the attach socket, restarts, health checks and the exit code. Killing whoever started a
//! container never touches it; killing its monitor kills the container, so that none lives unseen.
//!
//! Run directory (`/run/cauldron/<id>`): `bundle.json`, `live.json` (written by the monitor before `start`
//! returns, removed after `state.json` has the exit code), `monitor.sock`, `execs/<id>.json`,
//! `attach/<n>.sock` (waiting clients, see [`attach`]).
//!
//! This crate never imports `store` or `net`: mounts come as paths, the network as a descriptor.

use model::bundle::{Bundle, Process};
use model::container::Resources;
use model::state::Live;
use model::{Error, Kind, Result};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A monitor whose container is set up and waits before `execve`. Dropped without [`Prepared::start`], it is
/// killed and leaves nothing.

mod cgroup;
mod init;
mod seccomp;
mod wire;
pub struct Prepared {}

/// Starts the monitor and lets the container's init do its set-up, while the caller goes on (with the network,
/// say). `netns` is the new network namespace where the bundle says [`model::bundle::Namespace::Passed`].
///
/// # Errors
/// The monitor cannot be started.
pub fn prepare(_bundle: &Bundle, _netns: Option<OwnedFd>) -> Result<Prepared> {
    Err(Error::new(Kind::NotImplemented, "prepare"))
}

impl Prepared {
    /// The process id of the container's init on the host, once it exists (its /proc entry names its namespaces).
    ///
    /// # Errors
    /// Set-up failed.
    pub fn pid(&mut self) -> Result<i32> {
        Err(Error::new(Kind::NotImplemented, "pid"))
    }
    /// Lets the process run; returns when `execve` has succeeded, with `live.json` and `state.json` written and
    /// every waiting attach client connected.
    ///
    /// # Errors
    /// Set-up or `execve` failed: [`Kind::CommandNotFound`], [`Kind::CannotExecute`] or another kind. `state.json`
    /// then has exit code 127, 126 or 128 and the error, and nothing of the container lives.
    pub fn start(self) -> Result<Live> {
        Err(Error::new(Kind::NotImplemented, "start"))
    }
}

/// The monitor's role: `main` calls this, before any thread exists, when the binary was re-executed as one.
/// Returns `None` where `args` (argv) are not a monitor's.
pub fn role(_args: &[std::ffi::OsString]) -> Option<std::process::ExitCode> {
    None
}

/// The live part of a container, if it is true: right boot, monitor alive with the recorded start time.
///
/// # Errors
/// `live.json` exists and cannot be read.
pub fn live(_run_dir: &Path) -> Result<Option<Live>> {
    Ok(None)
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
    /// To one that is not started yet: a socket in `attach/` that the monitor will connect to before the process runs.
    WhenStarted(std::os::unix::net::UnixListener),
}

/// Attaches to a running container, or registers to be attached when it starts.
///
/// # Errors
/// The socket cannot be reached or made.
pub fn attach(_run_dir: &Path, _streams: Streams) -> Result<Attached> {
    Err(Error::new(Kind::NotImplemented, "attach"))
}

/// Sends a signal to the container's process (through a pidfd, so never to a stranger).
///
/// # Errors
/// The container does not run.
pub fn kill(_live: &Live, _signal: i32) -> Result<()> {
    Err(Error::new(Kind::NotImplemented, "kill"))
}

/// Tells the monitor that a person wants the container stopped: no restart follows; `signal` is sent at once where given.
///
/// # Errors
/// The monitor cannot be reached.
pub fn request_stop(_run_dir: &Path, _signal: Option<i32>) -> Result<()> {
    Err(Error::new(Kind::NotImplemented, "request_stop"))
}

/// Waits until the monitor of this container is done with the current run (exit code written), or the time is over.
/// `None` waits for ever. True: it is over.
///
/// # Errors
/// The wait itself failed.
pub fn wait_exit(_live: &Live, _timeout: Option<std::time::Duration>) -> Result<bool> {
    Err(Error::new(Kind::NotImplemented, "wait_exit"))
}

/// Freezes or thaws (cgroup freezer) and records it in `live.json`.
///
/// # Errors
/// The freezer cannot be written.
pub fn set_paused(_run_dir: &Path, _cgroup: &str, _paused: bool) -> Result<()> {
    Err(Error::new(Kind::NotImplemented, "set_paused"))
}

/// Changes the terminal's size, of the container or of one of its execs.
///
/// # Errors
/// The monitor cannot be reached, or there is no terminal.
pub fn resize(_run_dir: &Path, _exec: Option<&str>, _rows: u16, _columns: u16) -> Result<()> {
    Err(Error::new(Kind::NotImplemented, "resize"))
}

/// Applies new limits to a running container.
///
/// # Errors
/// Names the file that refused and the value.
pub fn update(_run_dir: &Path, _cgroup: &str, _resources: &Resources) -> Result<()> {
    Err(Error::new(Kind::NotImplemented, "update"))
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
pub fn exec(_run_dir: &Path, _id: &str, _process: &Process, _streams: Streams, _detach: bool) -> Result<Option<UnixStream>> {
    Err(Error::new(Kind::NotImplemented, "exec"))
}

/// The state of an exec.
///
/// # Errors
/// There is no such exec.
pub fn exec_state(_run_dir: &Path, _id: &str) -> Result<ExecState> {
    Err(Error::new(Kind::NotImplemented, "exec_state"))
}

/// Process ids (on the host) of a container.
///
/// # Errors
/// The cgroup cannot be read.
pub fn pids(_cgroup: &str) -> Result<Vec<i32>> {
    Err(Error::new(Kind::NotImplemented, "pids"))
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
}

/// Reads the counters of a container.
///
/// # Errors
/// The cgroup is gone.
pub fn usage(_cgroup: &str) -> Result<Usage> {
    Err(Error::new(Kind::NotImplemented, "usage"))
}

/// Counters of the interfaces in a process's network namespace: (name, rx bytes, rx packets, rx errors, rx dropped,
/// tx bytes, tx packets, tx errors, tx dropped), loopback left out.
///
/// # Errors
/// The process is gone.
pub fn interface_counters(_pid: i32) -> Result<Vec<(String, [u64; 8])>> {
    Err(Error::new(Kind::NotImplemented, "interface_counters"))
}
