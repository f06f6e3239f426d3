//! Stopping, killing, pausing. No lock is held while a process takes its time.

use model::container::Lifecycle;
use model::state::Status;
use model::{Error, Kind, Result, signal};
use std::time::{Duration, Instant};

use super::lookup::Container;
use crate::Engine;

/// Seconds between the stop signal and SIGKILL where nothing else is asked.
const STOP_SECONDS: i64 = 10;

impl Engine {
    /// Stops a container: its stop signal, and SIGKILL after `seconds` (-1: never). No restart follows.
    ///
    /// # Errors
    /// [`Kind::NotModified`] for one that does not run.
    pub fn stop_container(&self, name: &str, seconds: Option<i64>, signal: Option<&str>) -> Result<()> {
        let signal = signal.filter(|text| !text.is_empty()).map(signal::parse).transpose()?;
        let container = self.find(name)?;
        if container.live.is_none() {
            return Err(Error::new(
                Kind::NotModified,
                format!("container {} is not running", container.id()),
            ));
        }
        self.stop_found(&container, seconds, signal)?;
        self.container_event(&container, "stop", &[]);
        Ok(())
    }
    /// Stops a container that runs, and waits until its end is written down.
    pub(crate) fn stop_found(
        &self,
        container: &Container,
        seconds: Option<i64>,
        signal: Option<i32>,
    ) -> Result<()> {
        let Some(live) = &container.live else { return Ok(()) };
        let number = match signal {
            Some(number) => number,
            None => container.stop_signal()?,
        };
        if container.status() == Status::Paused {
            runtime::set_paused(&container.run_dir, &container.cgroup(), false)?;
        }
        let reached = runtime::request_stop(&container.run_dir, Some(number));
        if let Err(error) = reached
            && !runtime::wait_exit(live, Some(Duration::ZERO))?
        {
            return Err(error.within(format!("stop container {}", container.id())));
        }
        self.container_event(container, "kill", &[("signal", &number.to_string())]);
        let seconds = seconds.or(container.spec.stop.timeout).unwrap_or(STOP_SECONDS);
        let timeout = u64::try_from(seconds).ok().map(Duration::from_secs);
        if runtime::wait_exit(live, timeout)? {
            return Ok(());
        }
        self.kill_and_wait(container)
    }
    /// SIGKILL, no restart, and the end written down.
    pub(crate) fn kill_and_wait(&self, container: &Container) -> Result<()> {
        let Some(live) = &container.live else { return Ok(()) };
        if container.status() == Status::Paused {
            runtime::set_paused(&container.run_dir, &container.cgroup(), false)?;
        }
        self.container_event(container, "kill", &[("signal", "9")]);
        let asked = runtime::request_stop(&container.run_dir, Some(signal::KILL));
        let limit = Instant::now() + Duration::from_secs(30);
        if runtime::wait_exit(live, Some(limit.saturating_duration_since(Instant::now())))? {
            return Ok(());
        }
        Err(asked.err().unwrap_or_else(|| {
            Error::internal(format!("kill container {}: its process did not end within 30 s", container.id()))
                .hint("a process that waits for a device or a network file system cannot be killed before that answers")
        }))
    }
    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// An unknown signal, or a container that does not run (Docker's text).
    pub fn kill_container(&self, name: &str, text: Option<&str>) -> Result<()> {
        let number = match text.filter(|text| !text.is_empty()) {
            Some(text) => signal::parse(text)?,
            None => signal::KILL,
        };
        let container =
            self.find(name).map_err(|error| error.within(format!("cannot kill container: {name}")))?;
        let Some(live) = container.live.as_ref().filter(|live| !live.restarting || number == signal::KILL)
        else {
            return Err(Error::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                container.id()
            )));
        };
        // A person's SIGKILL or stop signal is the end: a restart policy does not undo it (moby `containerKill`).
        let ends = number == signal::KILL || number == container.stop_signal()?;
        let sent = if ends && matches!(container.lifecycle(), Lifecycle::Restart(_)) {
            runtime::request_stop(&container.run_dir, Some(number))
        } else {
            runtime::kill(live, number)
        };
        sent.map_err(|error| error.within(format!("cannot kill container: {name}")))?;
        if number == signal::KILL && container.status() == Status::Paused {
            runtime::set_paused(&container.run_dir, &container.cgroup(), false)?;
        }
        self.container_event(&container, "kill", &[("signal", &number.to_string())]);
        if number == signal::KILL {
            runtime::wait_exit(live, Some(Duration::from_secs(STOP_SECONDS.unsigned_abs())))?;
        }
        Ok(())
    }
    /// Freezes a container's processes.
    ///
    /// # Errors
    /// It does not run, or is paused already.
    pub fn pause_container(&self, name: &str) -> Result<()> {
        let (container, _lock) = self.find_locked(name)?;
        container.running()?;
        if container.status() == Status::Paused {
            return Err(Error::conflict(format!("Container {} is already paused", container.id())));
        }
        runtime::set_paused(&container.run_dir, &container.cgroup(), true)?;
        self.container_event(&container, "pause", &[]);
        Ok(())
    }
    /// Thaws them.
    ///
    /// # Errors
    /// It is not paused.
    pub fn unpause_container(&self, name: &str) -> Result<()> {
        let (container, _lock) = self.find_locked(name)?;
        if container.status() != Status::Paused {
            return Err(Error::conflict(format!("Container {} is not paused", container.id())));
        }
        runtime::set_paused(&container.run_dir, &container.cgroup(), false)?;
        self.container_event(&container, "unpause", &[]);
        Ok(())
    }
}

impl Container {
    /// The number of the signal that stops it.
    ///
    /// # Errors
    /// The image names one that does not exist.
    pub(crate) fn stop_signal(&self) -> Result<i32> {
        match self.spec.stop.signal.as_str() {
            "" => Ok(signal::TERM),
            text => signal::parse(text),
        }
    }
}
