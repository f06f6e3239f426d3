//! The builder: a Dockerfile and a context become an image. It runs a `RUN` through the same runtime as any container.
//!
//! Under `build/` of the root: `records/<key hex>.json` (one cached step each: key → layer), `mounts/<hash>/` (the
//! directories of `RUN --mount=type=cache`), `known/` (digests of contexts' files, see [`known`]), `steps/<container id>/` (the step that runs now: its writable snapshot,
//! `state.json`, `etc` files; whoever builds holds a lock on it, and what a killed build left is cleared by the next).
//!
//! A record is written atomically after its layer was committed, so a killed build leaves the cache whole; two builds
//! that make the same step both commit, and the second finds the layer there. A lease on the store keeps layers from
//! being collected meanwhile. Nothing of the context is ever opened but below its directory's descriptor.

mod agent;
pub mod archive;
mod cache;
mod context;
mod copy;
mod fetch;
pub mod git;
mod known;
mod mount;
mod named;
mod run;
mod solve;
mod source;
mod stage;

use model::dockerfile::plan::{Plan, context_name};
use model::dockerfile::scope::{Global, Platforms};
use model::dockerfile::{self, Dockerfile};
use model::image::Platform;
use model::{Digest, Error, Reference, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

pub use cache::{Cached, Pruned};
pub use named::Remote;

use crate::Engine;
use crate::transfer::Progress;
use context::Context;
use stage::State;

/// What a build is asked to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The context directory, on this machine.
    pub context: PathBuf,
    /// The Dockerfile: below the context, or absolute. Empty is `Dockerfile`.
    pub dockerfile: String,
    /// Its text, where it does not come from a file.
    pub dockerfile_text: Option<String>,
    /// `--tag`.
    pub tags: Vec<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--target`.
    pub target: String,
    /// Use no cached step (the new ones are recorded).
    pub no_cache: bool,
    /// Ask the registry for base images even where they are here.
    pub pull: bool,
    /// `--network`: `default` (or empty), `none`, `host`, or a network's name.
    pub network: String,
    /// `--platform`; `None` is this machine's.
    pub platform: Option<Platform>,
    /// `--add-host`.
    pub extra_hosts: Vec<String>,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// `--build-context NAME=…`: a directory, or what [`named`] knows.
    pub contexts: BTreeMap<String, String>,
    /// `--ssh`: sockets of agents, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// `--allow`: `network.host`, `security.insecure`.
    pub allow: Vec<String>,
    /// `--memory`, bytes.
    pub memory: Option<u64>,
    /// `--shm-size`, bytes.
    pub shm_bytes: Option<u64>,
    /// Show a step's standard error in red, as the classic builder's messages are.
    pub mark_errors: bool,
}

/// What a build says while it goes on.
#[derive(Clone, Debug)]
pub enum Message {
    /// Text for people: steps and the output of commands.
    Stream(String),
    /// A base image is being pulled.
    Pull(Progress),
    /// The image's id.
    Image(Digest),
}

/// Told of every message; an error stops the build (the listener is gone).
pub type Report<'a> = &'a (dyn Fn(Message) -> Result<()> + Sync);

/// Why a build failed.
#[derive(Debug)]
pub struct Failed {
    /// The exit code of the command that failed.
    pub code: Option<i32>,
    /// The error.
    pub error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { code: None, error }
    }
}

/// A build's result.
pub type Built<T> = std::result::Result<T, Failed>;

/// One build: what its stages share.
struct Build<'a> {
    engine: &'a Engine,
    options: &'a Options,
    dockerfile: Dockerfile,
    /// The Dockerfile's name and text, for errors.
    file: String,
    text: String,
    plan: Plan,
    global: Global,
    platform: Platform,
    context: Context,
    /// `--build-context`s that were looked at.
    named: named::Contexts,
    /// Digests of the context's files.
    known: Option<known::Known>,
    /// Finished stages.
    states: Vec<OnceLock<State>>,
    /// Steps that run now, to be killed where another stage fails; `None` once one has.
    running: Mutex<Option<Vec<model::state::Live>>>,
}

/// One stage of a build, with a voice of its own.
struct Builder<'a> {
    build: &'a Build<'a>,
    report: Report<'a>,
}

impl<'a> std::ops::Deref for Builder<'a> {
    type Target = Build<'a>;
    fn deref(&self) -> &Build<'a> {
        self.build
    }
}

impl Engine {
    /// Builds an image.
    ///
    /// # Errors
    /// Names the Dockerfile's line, the file, or the command with its exit code. Steps that succeeded stay cached.
    pub fn build(&self, options: &Options, report: Report<'_>) -> Built<Digest> {
        let tags = options.tags.iter().map(|tag| tag_of(tag)).collect::<Result<Vec<_>>>()?;
        let _lease = self.store.lease()?;
        self.sweep_steps()?;
        let context = Context::open(&options.context, &options.dockerfile)?;
        let text = match &options.dockerfile_text {
            Some(text) => text.clone(),
            None => context.dockerfile()?,
        };
        let file =
            if options.dockerfile.is_empty() { "Dockerfile".to_owned() } else { options.dockerfile.clone() };
        let dockerfile = dockerfile::parse(&file, &text)?;
        let host = store::registry::host_platform();
        let platform = options.platform.clone().unwrap_or_else(|| host.clone());
        let global = Global::new(
            &dockerfile.global_args,
            &options.build_args,
            Platforms { build: &host, target: &platform },
            &options.target,
            dockerfile.escape,
        )?;
        let replaced = options.contexts.keys().map(|name| context_name(name)).collect();
        let plan = Plan::new(&dockerfile, &global, &options.target, &replaced, (&file, &text))?;
        let states = dockerfile.stages.iter().map(|_| OnceLock::new()).collect();
        let build = Build {
            engine: self,
            options,
            dockerfile,
            file,
            text,
            plan,
            global,
            platform,
            known: known::Known::of(self, &context.root),
            context,
            named: named::Contexts::default(),
            states,
            running: Mutex::new(Some(Vec::new())),
        };
        let solved = build.solve(report);
        // Worth it after a failure too: the next attempt reads less.
        let saved = build.known.as_ref().map_or(Ok(()), known::Known::save);
        solved?;
        saved?;
        let image = build.image_of_target()?;
        let say = |text: String| report(Message::Stream(text));
        report(Message::Image(image.clone()))?;
        say(format!("Successfully built {}\n", image.short()))?;
        for tag in tags {
            self.store.tag(&tag, &image)?;
            self.emit_image("tag", &image, &tag.familiar());
            say(format!("Successfully tagged {}\n", tag.familiar()))?;
        }
        Ok(image)
    }
}

fn tag_of(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text)?;
    if reference.digest().is_some() {
        return Err(Error::invalid(format!("build tag cannot contain a digest: {text:?}")));
    }
    Ok(reference.with_default_tag())
}

impl Build<'_> {
    /// Records the image of the target stage.
    fn image_of_target(&self) -> Result<Digest> {
        let mut config = self.finished(self.plan.target)?.sealed(&self.options.labels);
        config.created.get_or_insert_with(crate::now);
        Ok(self.engine.store.put_image(&config)?.id)
    }
    fn finished(&self, index: usize) -> Result<&State> {
        self.states
            .get(index)
            .and_then(OnceLock::get)
            .ok_or_else(|| Error::internal(format!("stage {index} is not built yet")))
    }
}

impl Builder<'_> {
    fn say(&self, text: impl Into<String>) -> Result<()> {
        (self.report)(Message::Stream(text.into()))
    }
}
