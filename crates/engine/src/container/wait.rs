//! Waiting for a container to stop running, to exit once more, or to be gone.
//!
//! A wait is an attached client that wants no stream: the monitor ends it when the exit code is written. Not inotify: closing
//! its last watch waits for the kernel's next grace period (`fsnotify_wait_marks_destroyed`, 6 to 14 ms), and so does the exit
//! of a process that did not close it.

use model::container::Lifecycle;
use model::error::Context as _;
use model::filter::Filters;
use model::state::{State, Status};
use model::time::Timestamp;
use model::{ContainerId, Error, Kind, Result};
use runtime::{Attached, Streams};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::lookup::{Container, read_json};
use crate::Engine;

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// It does not run (now, or any more).
    #[default]
    NotRunning,
    /// It exits after this call.
    NextExit,
    /// It is removed.
    Removed,
}

impl Condition {
    /// Docker's words.
    ///
    /// # Errors
    /// Another word.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(Error::invalid(format!("invalid condition: {text:?}"))),
        }
    }
}

/// A wait that was registered: whatever happens from now on is seen.
pub struct Waiter {
    id: ContainerId,
    condition: Condition,
    /// The last exit before this wait.
    before: State,
    /// When it was registered.
    since: Timestamp,
    /// Ends when the container's process does; `None` where nobody would tell.
    line: Mutex<Option<Attached>>,
    dir: PathBuf,
    run_dir: PathBuf,
}

/// How long a wait sleeps before it looks by itself: a monitor that was killed tells nobody, and neither does the removal of a
/// container that never ran.
pub const LOOK: Duration = Duration::from_secs(1);
/// How long it sleeps where no monitor would tell anything.
pub const BLIND: Duration = Duration::from_millis(100);

impl Waiter {
    /// What becomes readable when the monitor has something to say. The caller waits for it for [`LOOK`] at most, for
    /// [`BLIND`] where there is nothing; then comes [`Waiter::heard`], and [`Engine::poll`] again.
    ///
    /// # Errors
    /// Descriptors are exhausted.
    pub fn line(&self) -> Result<Option<OwnedFd>> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = match line.as_ref() {
            Some(Attached::Now(stream)) => stream.as_fd(),
            Some(Attached::WhenStarted(listener)) => listener.as_fd(),
            None => return Ok(None),
        };
        Ok(Some(socket.try_clone_to_owned().context(|| "wait for the container's monitor")?))
    }
    /// Goes on after a sleep; `told`: what [`Waiter::line`] gave has become readable.
    ///
    /// # Errors
    /// The monitor cannot be heard.
    pub fn heard(&self, told: bool) -> Result<()> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        match line.take() {
            // Started: from here on the stream tells.
            Some(Attached::WhenStarted(listener)) if told => {
                let (stream, _) = listener.accept().context(|| "hear from the container's monitor")?;
                *line = Some(Attached::Now(stream));
            }
            // Over: the caller looks, and comes back only if the container goes on.
            Some(Attached::Now(_)) if told => {}
            same => *line = same.or_else(|| register(&self.dir, &self.run_dir)),
        }
        Ok(())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // A socket that waits for a start has a name; the monitor would find nobody behind it.
        if let Ok(Some(Attached::WhenStarted(listener))) = self.line.get_mut().map(Option::take)
            && let Some(path) = listener.local_addr().ok().as_ref().and_then(|address| address.as_pathname())
            && let Some(name) = path.file_name()
        {
            let _ = std::fs::remove_file(self.run_dir.join(name));
        }
    }
}

/// Registers with the monitor that is there, or with the one that will be.
fn register(dir: &Path, run_dir: &Path) -> Option<Attached> {
    dir.exists().then(|| runtime::attach(run_dir, Streams::default()).ok()).flatten()
}

impl Engine {
    /// Registers a wait. The caller then waits for it, without missing anything in between.
    ///
    /// # Errors
    /// There is no such container.
    pub fn waiter(&self, name: &str, condition: Condition) -> Result<Waiter> {
        let container = self.find(name)?;
        let since = crate::now();
        let line = Mutex::new(register(&container.dir, &container.run_dir));
        // Looked at again, now that an exit is told.
        let before = self.load(container.id()).map_or(container.state, |now| now.state);
        Ok(Waiter {
            id: container.spec.id.clone(),
            condition,
            before,
            since,
            line,
            dir: container.dir,
            run_dir: container.run_dir,
        })
    }
    /// One look: the exit code once it is over, and why the container could not be started where that is so.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn poll(&self, waiter: &Waiter) -> Result<Option<(i32, String)>> {
        let container = match self.find(waiter.id.as_str()) {
            Ok(container) => container,
            Err(error) if error.kind() == Kind::NotFound => return self.last_words(waiter).map(Some),
            Err(error) => return Err(error),
        };
        let outcome =
            |container: &Container| Some((container.state.exit_code, container.state.error.clone()));
        let exited = container.state.finished_at > waiter.before.finished_at;
        Ok(match waiter.condition {
            Condition::NotRunning if container.live.is_none() => outcome(&container),
            // A restart is not waited through.
            Condition::NotRunning
                if exited
                    && (container.status() == Status::Restarting
                        || container.state.started_at > waiter.before.started_at) =>
            {
                outcome(&container)
            }
            Condition::NextExit if exited => outcome(&container),
            Condition::Removed
                if exited
                    && container.live.is_none()
                    && *container.lifecycle() == Lifecycle::RemoveOnExit =>
            {
                if self.discard_if_over(&container)? { outcome(&container) } else { None }
            }
            _ => None,
        })
    }
    /// The outcome of a container that is gone: its record may still be in the trash.
    fn last_words(&self, waiter: &Waiter) -> Result<(i32, String)> {
        let trash = self.store.layout.trash().join(waiter.id.as_str());
        let state: Option<State> = read_json(&trash.join("state.json")).unwrap_or_default();
        if let Some(state) = state {
            return Ok((state.exit_code, state.error));
        }
        // The trash is empty already: whoever removed it was faster. The monitor told how it ended before that.
        match self.told_exit(waiter)? {
            Some(code) => Ok((code, String::new())),
            None => Ok((waiter.before.exit_code, waiter.before.error.clone())),
        }
    }
    /// The exit code of the last `die` event since the wait was registered.
    fn told_exit(&self, waiter: &Waiter) -> Result<Option<i32>> {
        let mut filters = Filters::default();
        for (key, value) in [("type", "container"), ("event", "die"), ("container", waiter.id.as_str())] {
            filters.add(key, value);
        }
        let told = self.events(filters, Some(waiter.since), None)?.read()?;
        Ok(told.last().and_then(|event| event.actor.attributes.get("exitCode")?.parse().ok()))
    }
}
