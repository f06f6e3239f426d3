//! Waiting for a container to stop running, to exit once more, or to be gone.

use model::container::Lifecycle;
use model::filter::Filters;
use model::state::State;
use model::time::Timestamp;
use model::{ContainerId, Error, Kind, Result};
use std::path::PathBuf;
use std::time::Duration;

use super::lookup::{Container, read_json};
use crate::Engine;
use crate::watch::Watch;

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
    watch: Watch,
    dir: PathBuf,
}

impl Waiter {
    /// Whether there was an exit since, or the container is gone.
    fn state_changed(&self) -> Result<bool> {
        let state: Option<State> = read_json(&self.dir.join("state.json"))?;
        Ok(match state {
            Some(state) => state.finished_at != self.before.finished_at,
            None => !self.dir.exists(),
        })
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
        let watch = Watch::new()?;
        watch.add(&container.dir)?;
        watch.add(&self.store.layout.trash())?;
        // Looked at again, now that every change is reported.
        let before = self.load(container.id()).map_or(container.state, |now| now.state);
        Ok(Waiter { id: container.spec.id, condition, before, since, watch, dir: container.dir })
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
            // Every line of the log wakes the watch: only the state's file says whether to look at everything. A
            // monitor that was killed writes nothing at all.
            while waiter.watch.wait(Some(Duration::from_secs(1)))? {
                waiter.watch.clear();
                if waiter.state_changed()? {
                    break;
                }
            }
        }
    }
    /// One look.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn poll(&self, waiter: &Waiter) -> Result<Option<(i32, String)>> {
        waiter.watch.clear();
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
