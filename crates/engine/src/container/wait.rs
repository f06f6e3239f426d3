//! Waiting for a container to stop running, to exit once more, or to be gone.
//!
//! A wait is an attached client that wants no stream: the monitor ends it when the exit code is written. Not inotify: closing
//! its last watch waits for the kernel's next grace period (`fsnotify_wait_marks_destroyed`, 6 to 14 ms), and so does the exit
//! of a process that did not close it.

use model::container::Lifecycle;
use model::error::Context as _;
use model::filter::Filters;
use model::state::State;
use model::time::Timestamp;
use model::{ContainerId, Error, Kind, Result};
use runtime::{Attached, Streams};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl Waiter {
    /// Sleeps until the monitor says something, or it is time to look.
    fn sleep(&self) -> Result<()> {
        let mut line = self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let told = match line.as_ref() {
            Some(Attached::Now(stream)) => readable(stream)?,
            Some(Attached::WhenStarted(listener)) => readable(listener)?,
            None => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                false
            }
        };
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
            let _ = std::fs::remove_file(self.run_dir.join("attach").join(name));
        }
    }
}

/// Registers with the monitor that is there, or with the one that will be.
fn register(dir: &Path, run_dir: &Path) -> Option<Attached> {
    dir.exists().then(|| runtime::attach(run_dir, Streams::default()).ok()).flatten()
}

fn readable(socket: &impl std::os::fd::AsFd) -> Result<bool> {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut fds, Some(&LOOK)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(Error::internal("wait for the container's monitor").caused_by(error)),
    }
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
            id: container.spec.id,
            condition,
            before,
            since,
            line,
            dir: container.dir,
            run_dir: container.run_dir,
        })
    }
    /// Waits to the end: the exit code, and why the container could not be started where that is so.
    ///
    /// # Errors
    /// The wait itself failed.
    pub fn wait(&self, waiter: &Waiter) -> Result<(i32, String)> {
        loop {
            if let Some(done) = self.poll(waiter)? {
                return Ok(done);
            }
            waiter.sleep()?;
        }
    }
    /// One look.
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
