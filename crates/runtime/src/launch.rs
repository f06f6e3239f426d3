//! The launcher's side: a monitor is started, watched through the control socket, and let go.

use model::bundle::Bundle;
use model::error::Context as _;
use model::state::Live;
use model::{Error, Kind, Result};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::wire::{self, BUNDLE, FromMonitor, GO};

/// argv[0] of a monitor.
pub const MONITOR: &str = "cauldron-monitor";

/// Monitors that this process has started and not reaped: they outlive the call that made them.
static STARTED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Reaps monitors that have ended, so that a long-lived server collects no zombies.
pub fn reap() {
    if let Ok(mut started) = STARTED.lock() {
        started.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// A monitor that waits for its bundle. Dropped without [`Spawned::prepare`], it ends and leaves nothing.
pub struct Spawned(Prepared);

/// A monitor whose container is set up and waits before `execve`. Dropped without [`Prepared::start`], it is
/// killed and leaves nothing.
pub struct Prepared {
    child: Option<Child>,
    control: Option<OwnedFd>,
    pid: Option<i32>,
}

/// See [`crate::spawn`].
pub fn spawn(run_dir: &Path) -> Result<Spawned> {
    reap();
    let (control, theirs) = sys::socket::pair().context(|| "make a socket pair")?;
    let child = Command::new("/proc/self/exe")
        .arg0(MONITOR)
        .arg(run_dir)
        .env_clear()
        .envs(sys::failpoint::environment())
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context(|| "start the container's monitor")?;
    Ok(Spawned(Prepared { child: Some(child), control: Some(control), pid: None }))
}

impl Spawned {
    /// Gives the monitor its bundle; it lets the container's init do its set-up, while the caller goes on (with the network,
    /// say). `netns` is the new network namespace where the bundle says [`model::bundle::Namespace::Passed`].
    ///
    /// # Errors
    /// The bundle cannot be written, or the monitor is gone.
    pub fn prepare(self, bundle: &Bundle, netns: Option<OwnedFd>) -> Result<Prepared> {
        let run_dir = &bundle.run_dir.0;
        let what = || format!("create directory {}", run_dir.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir).context(what)?;
        let path = run_dir.join("bundle.json");
        sys::fs::replace_file(&path, &wire::encode(bundle), 0o600, false)
            .context(|| format!("write {}", path.display()))?;
        if let Some(control) = &self.0.control {
            sys::socket::send(control, &[BUNDLE], netns.as_ref())
                .context(|| "tell the container's monitor to set up")?;
        }
        Ok(self.0)
    }
}

impl Prepared {
    fn receive(&self) -> Result<FromMonitor> {
        let gone = || Error::new(Kind::Internal, "the container's monitor ended unexpectedly");
        let control = self.control.as_ref().ok_or_else(gone)?;
        let (message, _) = sys::socket::receive(control).context(|| "hear from the container's monitor")?;
        if message.is_empty() { Err(gone()) } else { wire::decode(&message) }
    }
    /// The process id of the container's init on the host, once it exists (its /proc entry names its namespaces).
    ///
    /// # Errors
    /// Set-up failed.
    pub fn pid(&mut self) -> Result<i32> {
        if let Some(pid) = self.pid {
            return Ok(pid);
        }
        match self.receive()? {
            FromMonitor::Pid(pid) => {
                self.pid = Some(pid);
                Ok(pid)
            }
            FromMonitor::Failed(failure) => Err(failure.into()),
            FromMonitor::Started(_) => Err(Error::internal("malformed message of the monitor's")),
        }
    }
    /// Lets the process run; returns when `execve` has succeeded, with `live.json` and `state.json` written and
    /// every waiting attach client connected.
    ///
    /// # Errors
    /// Set-up or `execve` failed: [`Kind::CommandNotFound`], [`Kind::CannotExecute`] or another kind. `state.json`
    /// then has exit code 127, 126 or 128 and the error, and nothing of the container lives.
    pub fn start(mut self) -> Result<Live> {
        if let Some(control) = &self.control {
            // A monitor that has failed already does not hear it, but has said why.
            let _ = sys::socket::send(control, &[GO], None);
        }
        self.pid()?;
        match self.receive()? {
            FromMonitor::Started(live) => {
                if let (Some(child), Ok(mut started)) = (self.child.take(), STARTED.lock()) {
                    started.push(child);
                }
                Ok(live)
            }
            FromMonitor::Failed(failure) => Err(failure.into()),
            FromMonitor::Pid(_) => Err(Error::internal("malformed message of the monitor's")),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.control = None;
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}
