//! What `x-task` says: parsed once, at the door. Pure.
//!
//! Only what the operator wrote configures a task: nothing here looks at an image.

mod parse;
#[cfg(test)]
mod tests;

use crate::schedule::{Policy, Schedule};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How many runs are kept in the history unless `keep` says otherwise.
pub const KEPT_RUNS: u64 = 100;
/// Runs of one task at the same time, at most.
pub const MOST_PARALLEL: u64 = 256;

/// A task's definition.
#[derive(Clone, Debug)]
pub struct Definition {
    /// A helper of this volume, to be run once.
    pub once: Option<Once>,
    /// One run for each of these containers.
    pub each: Option<Each>,
    /// Mount the target's volumes.
    pub volumes_from: VolumesFrom,
    /// When.
    pub schedule: Option<Schedule>,
    /// What becomes of missed slots.
    pub policy: Policy,
    /// What happens when the task is due while it runs.
    pub overlap: Overlap,
    /// Time limit of one try.
    pub timeout: Option<Duration>,
    /// Tries after the first one.
    pub retries: Retries,
    /// Targets at the same time.
    pub parallel: usize,
    /// Steps in the target before the run, undone after it.
    pub before: Vec<Step>,
    /// Steps in the target after the run, also after a failed one.
    pub after: Vec<Step>,
    /// Tasks that run when this one succeeded.
    pub on_success: Vec<String>,
    /// Tasks that run when this one failed.
    pub on_failure: Vec<String>,
    /// How much of the history stays.
    pub keep: Keep,
    /// Tasks with the same lock do not run at the same time.
    pub lock: Option<String>,
    /// Limits.
    pub resources: Resources,
    /// Who is told.
    pub notify: Notify,
    /// What it leaves is a backup.
    pub backup: Option<Backup>,
    /// Let the process gain privileges (set-user-id programs); off unless asked for.
    pub new_privileges: bool,
}

impl Default for Definition {
    /// A task that runs when it is told to.
    fn default() -> Self {
        Self {
            once: None,
            each: None,
            volumes_from: VolumesFrom::No,
            schedule: None,
            policy: Policy::default(),
            overlap: Overlap::Forbid,
            timeout: None,
            retries: Retries::default(),
            parallel: 1,
            before: Vec::new(),
            after: Vec::new(),
            on_success: Vec::new(),
            on_failure: Vec::new(),
            keep: Keep { runs: KEPT_RUNS, age: None },
            lock: None,
            resources: Resources::default(),
            notify: Notify::default(),
            backup: None,
            new_privileges: false,
        }
    }
}

/// A helper that runs once for a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Once {
    /// The volume, by its name in the compose file or on the command line.
    pub volume: String,
    /// A migration's number.
    pub version: Option<u64>,
}

/// Which running containers are the targets: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Each {
    /// Labels, `KEY` or `KEY=VALUE`.
    pub label: Vec<String>,
    /// Patterns of names, with `*` and `?`; one must match.
    pub name: Vec<String>,
    /// Networks; one must match.
    pub network: Vec<String>,
    /// Compose services; one must match. Of the same project, where the task has one.
    pub service: Vec<String>,
    /// Images, as named or by id; one must match.
    pub image: Vec<String>,
    /// The target's name in the task's container.
    pub link: Option<String>,
    /// No target is no failure.
    pub optional: bool,
}

/// Whether the target's volumes are mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum VolumesFrom {
    /// Not at all.
    #[default]
    No,
    /// As they are.
    ReadWrite,
    /// Read-only.
    ReadOnly,
}

/// What happens when a task is due while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// The new run does not happen.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The old run is stopped first.
    Replace,
}

/// Tries after the first one, each put off twice as long as the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How many.
    pub max: u64,
    /// Before the first.
    pub backoff: Duration,
    /// At most.
    pub most: Duration,
}

impl Default for Retries {
    /// None.
    fn default() -> Self {
        Self { max: 0, backoff: Duration::from_secs(1), most: Duration::from_secs(3600) }
    }
}

impl Retries {
    /// How long to wait before try `attempt` (the first is 1).
    pub fn wait(&self, attempt: u64) -> Duration {
        let doublings = u32::try_from(attempt.saturating_sub(2)).unwrap_or(u32::MAX).min(30);
        self.backoff.saturating_mul(1 << doublings).min(self.most)
    }
}

/// A step in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command; `undo` is run after the task, where there is one.
    Exec {
        /// The command.
        command: Vec<String>,
        /// What takes it back.
        undo: Vec<String>,
    },
    /// Paused, resumed afterwards.
    Pause,
    /// Stopped, started afterwards.
    Stop,
}

/// How much of the history stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Runs.
    pub runs: u64,
    /// And none older than this.
    pub age: Option<Duration>,
}

/// What a task's container leaves in a directory is kept as a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The directory of this machine that has them.
    pub to: PathBuf,
    /// Where the container finds a directory to write to.
    pub mount: String,
    /// The task that checks one: it finds it at `mount`, and its failure is the backup's.
    pub verify: Option<String>,
    /// The task that puts one back: it finds it at `mount`.
    pub restore: Option<String>,
    /// For whom they are encrypted.
    pub encrypt: Option<Encrypt>,
    /// How many stay, of each target.
    pub keep: BackupKeep,
}

/// Encryption by `age`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encrypt {
    /// Public keys.
    pub recipients: Vec<String>,
    /// Files with public keys.
    pub recipients_files: Vec<PathBuf>,
    /// The file with the key that decrypts, where it is on this machine.
    pub identity: Option<PathBuf>,
}

/// How many backups of a target stay: those that both limits keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupKeep {
    /// The newest ones.
    pub count: Option<u64>,
    /// None older than this.
    pub age: Option<Duration>,
}

impl Backup {
    /// Takes paths that are not absolute from a directory on.
    pub fn resolve(&mut self, directory: &std::path::Path) {
        // Without the dots that mean nothing.
        self.to = directory.join(&self.to).components().collect();
        let encrypt = self.encrypt.iter_mut();
        for path in
            encrypt.flat_map(|encrypt| encrypt.recipients_files.iter_mut().chain(&mut encrypt.identity))
        {
            *path = directory.join(&path);
        }
    }
}

/// Limits of a task's container; what is not given comes from the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<i64>,
    /// Billionths of a processor.
    pub nano_cpus: Option<i64>,
    /// Processes.
    pub pids: Option<i64>,
}

/// Who is told about a run's outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// An address that gets the outcome as JSON.
    pub webhook: Option<String>,
    /// A file that has such an address, where the address itself is a secret.
    pub webhook_file: Option<String>,
    /// A command of this machine that gets it on its standard input and in its environment.
    pub command: Vec<String>,
    /// When.
    pub on: When,
}

/// Which outcomes are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// All.
    #[default]
    Always,
    /// Failures.
    Failure,
    /// Successes.
    Success,
}

/// A key that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Below `x-task`.
    pub path: Vec<String>,
    /// Why.
    pub message: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x-task")?;
        for part in &self.path {
            write!(f, ".{part}")?;
        }
        write!(f, ": {}", self.message)
    }
}
