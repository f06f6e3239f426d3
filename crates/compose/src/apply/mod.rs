//! Carrying out: containers, networks and volumes at the engine, in parallel as far as dependencies allow.

mod create;
mod deliver;
mod hooks;
mod images;
mod stop;
mod up;
mod wait;

pub use create::{Made, Oneoff, oneoff, resources};
pub use deliver::{deliver, delivers};
pub use hooks::run_hook;
pub use images::{BuildHow, Images, build, ensure, image_of, pull};
pub use stop::{Down, down, kill, pause, remove, restart, start, stop, unpause};
pub use up::{Standing, Up, reached, up};
pub use wait::{finished, settled};

use crate::error::{Error, Result};
use crate::project::{Build, Project};
use client::Client;
use futures_util::future::LocalBoxFuture;
use std::path::PathBuf;
use std::rc::Rc;

/// Something that happened, for the user to see: `Container p-web-1 Started`.
#[derive(Clone, Debug)]
pub struct Event {
    /// `Container`, `Network`, `Volume`, `Image`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// `Creating`, `Created`, …
    pub status: String,
}

/// An image to build.
#[derive(Clone, Debug)]
pub struct BuildJob {
    /// The service that it is for.
    pub service: String,
    /// The image's name.
    pub image: String,
    /// How.
    pub build: Build,
    /// `platform` of the service.
    pub platform: Option<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--pull`.
    pub pull: bool,
    /// Without output.
    pub quiet: bool,
    /// Secrets by id.
    pub secrets: Vec<(String, BuildSecret)>,
}

/// A build's secret.
#[derive(Clone)]
pub enum BuildSecret {
    /// A file of the host.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for BuildSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// An image to pull.
#[derive(Clone, Debug)]
pub struct PullJob {
    /// The image's name.
    pub image: String,
    /// `platform` of the service.
    pub platform: Option<String>,
    /// Without output.
    pub quiet: bool,
}

/// A helper that a service needs, a service or a `pre_start` step, and that runs once: the ledger decides whether it runs.
#[derive(Clone)]
pub struct OnceJob {
    /// The project.
    pub project: Rc<Project>,
    /// The task's service, or the one with the step.
    pub service: String,
    /// The step of its `pre_start`; `None`: the service is the task.
    pub step: Option<usize>,
}

/// Does a job.
pub type Work<J> = Rc<dyn Fn(J) -> LocalBoxFuture<'static, Result<()>>>;

/// The engine, and what the caller does for us: credentials, contexts and terminals are its own.
#[derive(Clone)]
pub struct Host {
    /// The engine.
    pub client: Client,
    /// Told what happens.
    pub report: Rc<dyn Fn(&Event)>,
    /// Told what the user should know.
    pub warn: Rc<dyn Fn(&str)>,
    /// Builds.
    pub build: Work<BuildJob>,
    /// Pulls.
    pub pull: Work<PullJob>,
    /// Runs helpers by their ledger; without it they are ordinary one-shot containers.
    pub once: Option<Work<OnceJob>>,
    /// The directory that remembers what containers were given of secrets and configs; without it nothing is made anew for them.
    pub deliveries: Option<PathBuf>,
    /// Services that are worked on at a time; 0 is all.
    pub parallel: usize,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

impl Host {
    /// Reports something.
    pub fn tell(&self, kind: &'static str, name: &str, status: &str) {
        (self.report)(&Event { kind, name: name.to_owned(), status: status.to_owned() });
    }
}

fn about(what: impl Into<String>) -> impl FnOnce(client::Error) -> Error {
    let what = what.into();
    move |error| Error::Engine(what, error)
}
