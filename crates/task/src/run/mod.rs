//! Runs a task: its locks, its targets, tries with a time limit and retries, what is undone afterwards, and the history.
//!
//! A run belongs to one process and holds the lock `run-<id>` until it is over; `task-<key>` unless runs may overlap;
//! `shared-<name>` where the definition names a lock. Whoever finds an unfinished run without its lock takes back what it left
//! ([`recover`]).

mod attempt;
mod recover;
mod step;

use crate::definition::{Definition, Overlap};
use crate::error::{Error, Result};
use crate::history::{History, Key, Unrun};
use crate::home::{Home, Lock};
use crate::target::{self, Target};
use client::{Client, Method};
use futures_util::StreamExt as _;
use jiff::Timestamp;
pub use recover::{interrupt, lives, recover, status, unfinished};
use serde_json::Value;
use std::cell::RefCell;
use std::time::Duration;
use step::Undo;
use tokio::sync::watch;

/// The exit code of a run that was over its time limit, as of timeout(1).
pub const TIMED_OUT: u8 = 124;
/// The exit code of a run that could not be done.
pub const NOT_RUN: u8 = 125;
/// Why a run that was told to stop did not do its work.
pub const STOPPED: &str = "stopped";
/// Lines of a failed run's output that its error shows.
pub const LAST_LINES: usize = 10;

/// A task with its container.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// Its name.
    pub key: Key,
    /// What `x-task` says.
    pub definition: Definition,
    /// The body of `POST /containers/create`, with all its networks.
    pub body: Value,
    /// Secrets and configs, put in before it starts.
    pub deliveries: Vec<compose::body::Delivery>,
    /// The image's platform, where it is not the engine's.
    pub platform: String,
    /// The task that checks its backups.
    pub verify: Option<Box<Task>>,
}

impl Task {
    /// The image as it is named.
    pub fn image(&self) -> &str {
        self.body["Image"].as_str().unwrap_or_default()
    }
}

/// What runs need.
pub struct Runner<'a> {
    /// The engine.
    pub client: Client,
    /// Locks.
    pub home: Home,
    /// What ran.
    pub history: History,
    /// Is told what happens.
    pub listener: &'a dyn Fn(Event),
}

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// These are the targets; one without a name where the task has none.
    Targets(Vec<String>),
    /// A try begins.
    Started {
        /// Target's name.
        target: String,
        /// 1 for the first.
        attempt: u64,
    },
    /// The process printed something.
    Output {
        /// Target's name.
        target: String,
        /// 1 stdout, 2 stderr.
        stream: u8,
        /// What.
        bytes: Vec<u8>,
    },
    /// A try is over.
    Ended(Ended),
    /// Something that a person should know, though the run goes on.
    Warning(String),
}

/// How a target's try ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Target's name.
    pub target: String,
    /// 1 for the first.
    pub attempt: u64,
    /// The process's code, or 124 or 125.
    pub code: u8,
    /// Why it failed, where the code does not say it.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// Another try follows after this.
    pub retry: Option<Duration>,
    /// The last lines that a failed try printed.
    pub last_lines: String,
}

/// What a run is asked for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The run's id, where somebody chose it already.
    pub id: Option<String>,
    /// The time that the schedule meant.
    pub slot: Option<Timestamp>,
    /// `manual`, `schedule`, `after TASK`.
    pub cause: String,
    /// These targets only.
    pub targets: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Its id; empty where it did not begin.
    pub run: String,
    /// One code for all.
    pub code: u8,
    /// Why it failed, or did not begin.
    pub error: Option<String>,
    /// The last try of each target.
    pub targets: Vec<Ended>,
}

/// A new run's id.
///
/// # Errors
/// The kernel gave no random bytes.
pub fn new_id() -> Result<String> {
    let mut bytes = [0u8; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::new(format!("get random bytes for a run's id: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The lock of a task that runs.
fn task_lock(key: &Key) -> String {
    format!("task-{key}")
}

/// The lock of a run that lives.
pub(crate) fn run_lock(id: &str) -> String {
    format!("run-{id}")
}

/// State of a run that its tries share.
struct Run<'a> {
    runner: &'a Runner<'a>,
    task: &'a Task,
    id: String,
    slot: Option<Timestamp>,
    image_id: String,
    undo: RefCell<Vec<Undo>>,
    stop: watch::Receiver<bool>,
}

impl Runner<'_> {
    /// Runs a task to its end. `stop` becoming true stops its containers and undoes what is to be undone.
    ///
    /// # Errors
    /// The history or a lock does not work. A run that failed is no error but an outcome.
    pub async fn run(&self, task: &Task, ask: Ask, stop: watch::Receiver<bool>) -> Result<Outcome> {
        let key = &task.key;
        let _single = match self.exclude(task, &stop).await? {
            Ok(lock) => lock,
            Err(text) => return self.skipped(task, &ask, text),
        };
        recover(self, Some(key)).await?;
        let id = match ask.id {
            Some(id) => id,
            None => new_id()?,
        };
        let live = self.home.lock(&run_lock(&id))?;
        if !self.history.begin(&id, key, ask.slot, &ask.cause, Timestamp::now())? {
            let error = Some("this slot was run already".to_owned());
            self.home.release(live, &run_lock(&id));
            return Ok(Outcome { code: 0, error, ..Outcome::default() });
        }
        client::failpoint!("task: begun");
        let outcome = self.locked(task, &id, ask.slot, &ask.targets, stop).await;
        let outcome = match outcome {
            Ok(outcome) => Outcome { run: id.clone(), ..outcome },
            Err(error) => Outcome {
                run: id.clone(),
                code: NOT_RUN,
                error: Some(error.to_string()),
                targets: Vec::new(),
            },
        };
        client::failpoint!("task: not finished");
        self.history.finish(&id, i64::from(outcome.code), outcome.error.as_deref(), Timestamp::now())?;
        client::failpoint!("task: finished");
        self.history.prune(key, &task.definition.keep, Timestamp::now())?;
        self.home.release(live, &run_lock(&id));
        Ok(outcome)
    }

    /// Waits until no run of a task goes on.
    ///
    /// # Errors
    /// The history or a lock does not work.
    pub async fn ended(&self, key: &Key) -> Result<()> {
        for run in self.history.unfinished()? {
            if run.project == key.project && run.task == key.task {
                drop(self.home.wait_lock(&run_lock(&run.id)).await?);
            }
        }
        recover(self, Some(key)).await
    }

    /// A run that did not begin: a scheduled one leaves a trace.
    fn skipped(&self, task: &Task, ask: &Ask, text: String) -> Result<Outcome> {
        let mut run = String::new();
        if let Some(slot) = ask.slot {
            let error = format!("skipped: {text}");
            let unrun = Unrun { slot, cause: &ask.cause, exit_code: 1, error: &error };
            run = self.history.note_unrun(&task.key, &task.definition.keep, unrun, Timestamp::now())?;
        }
        Ok(Outcome { run, code: 1, error: Some(text), targets: Vec::new() })
    }

    /// The task's own lock, as its policy on overlaps wants it.
    async fn exclude(
        &self,
        task: &Task,
        stop: &watch::Receiver<bool>,
    ) -> Result<Result<Option<Lock>, String>> {
        let name = task_lock(&task.key);
        match task.definition.overlap {
            Overlap::Allow => Ok(Ok(None)),
            Overlap::Forbid => Ok(match self.home.try_lock(&name)? {
                Some(lock) => Ok(Some(lock)),
                None => Err("it is running already".to_owned()),
            }),
            Overlap::Replace => {
                if let Some(lock) = self.home.try_lock(&name)? {
                    return Ok(Ok(Some(lock)));
                }
                interrupt(self, &task.key)?;
                Ok(match self.home.wait_lock_unless(&name, stop).await? {
                    Some(lock) => Ok(Some(lock)),
                    None => Err(STOPPED.to_owned()),
                })
            }
        }
    }

    async fn locked(
        &self,
        task: &Task,
        id: &str,
        slot: Option<Timestamp>,
        only: &[String],
        stop: watch::Receiver<bool>,
    ) -> Result<Outcome> {
        let _shared = match &task.definition.lock {
            Some(name) => match self.home.wait_lock_unless(&format!("shared-{name}"), &stop).await? {
                Some(lock) => Some(lock),
                None => return Err(Error::new(STOPPED)),
            },
            None => None,
        };
        let mut targets = self.targets(task).await?;
        if !only.is_empty() {
            if let Some(unknown) =
                only.iter().find(|name| !targets.iter().flatten().any(|target| target.name == **name))
            {
                return Err(Error::new(format!("{unknown} is no target of task {}", task.key)));
            }
            targets.retain(|target| target.as_ref().is_none_or(|target| only.contains(&target.name)));
        }
        let name =
            |target: &Option<Target>| target.as_ref().map(|target| target.name.clone()).unwrap_or_default();
        (self.listener)(Event::Targets(targets.iter().map(name).collect()));
        if targets.is_empty() {
            let each = task.definition.each.clone().unwrap_or_default();
            let text = format!("no running container matches {}", target::describe(&each));
            return Ok(Outcome { code: u8::from(!each.optional), error: Some(text), ..Outcome::default() });
        }
        let image = self.client.get(&format!("/images/{}/json", client::encode(task.image()))).await?;
        let run = Run {
            runner: self,
            task,
            id: id.to_owned(),
            slot,
            image_id: image["Id"].as_str().unwrap_or_default().to_owned(),
            undo: RefCell::default(),
            stop,
        };
        let run = &run;
        let parallel = task.definition.parallel.min(targets.len());
        let ended: Vec<Result<Ended>> =
            futures_util::stream::iter(targets.iter().map(|target| run.target(target.as_ref())))
                .buffered(parallel.max(1))
                .collect()
                .await;
        Ok(summary(ended.into_iter().collect::<Result<_>>()?))
    }

    async fn targets(&self, task: &Task) -> Result<Vec<Option<Target>>> {
        let Some(each) = &task.definition.each else { return Ok(vec![None]) };
        let found = self.client.json(Method::GET, "/containers/json", None).await?;
        Ok(target::select(&found, each, &task.key.project).into_iter().map(Some).collect())
    }
}

/// One code for many runs: 0 where all succeeded, the code that all failures share, else 1.
fn summary(targets: Vec<Ended>) -> Outcome {
    let failed: Vec<&Ended> = targets.iter().filter(|ended| ended.code != 0).collect();
    let code = match failed.first() {
        None => 0,
        Some(first) if failed.iter().all(|ended| ended.code == first.code) => first.code,
        Some(_) => 1,
    };
    let error = match failed.as_slice() {
        [] => None,
        [one] => Some(one.reason()),
        many => Some(format!("{} of {} targets failed", many.len(), targets.len())),
    };
    Outcome { run: String::new(), code, error, targets }
}

impl Ended {
    /// Why it failed, in one line.
    pub fn reason(&self) -> String {
        let text = self.error.clone().unwrap_or_else(|| format!("exit code {}", self.code));
        if self.target.is_empty() { text } else { format!("{}: {text}", self.target) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(codes: &[u8]) -> u8 {
        summary(codes.iter().map(|code| Ended { code: *code, ..Ended::default() }).collect()).code
    }

    #[test]
    fn one_truthful_code() {
        assert_eq!(code(&[0, 0, 0]), 0);
        assert_eq!(code(&[0, 3, 0, 3]), 3);
        assert_eq!(code(&[0, 3, 4]), 1);
        assert_eq!(code(&[7]), 7);
    }
}
