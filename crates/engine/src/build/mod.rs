//! The builder: a Dockerfile and a context become an image. It runs a `RUN` through the same runtime as any container.
//!
//! Under `build/` of the root: `records/<key hex>.json` (one cached step each: key → layer), `kept.json` (see [`gc`]), `mounts/<hash>/` (the
//! directories of `RUN --mount=type=cache`), `known/` (digests of contexts' files, see [`known`]), `steps/<container id>/` (the step that runs now: its writable snapshot,
//! `state.json`, `etc` files; whoever builds holds a lock on it, and what a killed build left is cleared by the next).
//!
//! A record is written atomically after its layer was committed, so a killed build leaves the cache whole; two builds
//! that make the same step both commit, and the second finds the layer there. A lease on the store keeps layers from
//! being collected meanwhile. Nothing of the context is ever opened but below its directory's descriptor.

mod agent;
pub mod archive;
mod cache;
mod cache_export;
mod cache_import;
mod context;
mod copy;
mod fetch;
mod foreign;
mod gc;
pub mod git;
mod known;
mod layout;
mod message;
mod mount;
mod named;
mod run;
mod solve;
mod source;
mod stage;

use model::build_cache::Step;
use model::dockerfile::lint::{self, Choice, Inputs};
use model::dockerfile::plan::{Plan, context_name};
use model::dockerfile::scope::{Global, Platforms};
use model::dockerfile::syntax::Warning;
use model::dockerfile::{self, Dockerfile};
use model::image::{ImageConfig, Platform};
use model::time::Timestamp;
use model::{Digest, Error, Reference, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

pub use cache_export::{CachePlace, CacheTarget};
pub use cache_import::CacheSource;
pub use gc::{Budget, Cached, Prune, Pruned};
pub use message::{Begin, Built, Event, Failed, FailedStep, Message, Report};
pub use named::Remote;
pub use solve::Cancel;

use crate::Engine;
use crate::transfer::{Access, Credentials};
use context::Context;
use named::Named;
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
    /// Tell what happens when it happens; else one stage after the other, so that their words are not mixed.
    pub interleave: bool,
    /// Keep the state before a step that fails as an image.
    pub keep_failed: bool,
    /// Annotations of the image's manifest.
    pub annotations: BTreeMap<String, String>,
    /// Stages, by name or number, that use no cached step.
    pub no_cache_stages: Vec<String>,
    /// How old a cached step may be, by the stage's name or number; the one without a name is for every other stage.
    pub cache_ttl: BTreeMap<String, Duration>,
    /// `--cache-from`.
    pub cache_from: Vec<CacheSource>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheTarget>,
    /// `--cache-to type=inline`: the image carries its cache.
    pub inline_cache: bool,
    /// For base images, by registry (a reference's domain).
    pub credentials: BTreeMap<String, Credentials>,
}

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
    /// `SOURCE_DATE_EPOCH`: nothing in the image is newer.
    epoch: Option<Timestamp>,
    /// Bytes of the layers that were made.
    made: &'a AtomicU64,
    /// `--cache-from`, once a step was not found here.
    imported: OnceLock<cache_import::Imported>,
    /// Steps whose layers are in this build.
    used: Mutex<Vec<Step>>,
    /// Steps that run now, to be killed where another stage fails.
    cancel: &'a Cancel,
}

/// One stage of a build, with a voice of its own.
struct Builder<'a> {
    build: &'a Build<'a>,
    report: Report<'a>,
    /// The stage's index.
    index: usize,
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
    /// [`model::Kind::Cancelled`] where it was told to stop: what ran is killed and removed then.
    pub fn build(&self, options: &Options, report: Report<'_>, cancel: &Cancel) -> Built<Digest> {
        let made = AtomicU64::new(0);
        let built = self.build_leased(options, report, cancel, &made);
        // What was built is there, whether or not the cache could be tidied: the next build tries again.
        let tidied = self.keep_within_budget(made.into_inner());
        if let (Ok(_), Err(error)) = (&built, tidied) {
            report(Message::Stream(format!("the build cache was not tidied: {error}\n")))?;
        }
        built
    }
    fn build_leased(
        &self,
        options: &Options,
        report: Report<'_>,
        cancel: &Cancel,
        made: &AtomicU64,
    ) -> Built<Digest> {
        let tags = options.tags.iter().map(|tag| tag_of(tag)).collect::<Result<Vec<_>>>()?;
        let _lease = self.store.lease()?;
        self.sweep_steps()?;
        let build = self.prepared(options, cancel, made)?;
        build.refuse_warnings()?;
        build.refuse_foreign()?;
        let solved = build.solve(report);
        // Worth it after a failure too: the next attempt reads less.
        let saved = build.known.as_ref().map_or(Ok(()), known::Known::save);
        solved?;
        saved?;
        let config = build.config_of_target()?;
        let image = self.store.put_image(&config, &options.annotations)?.id;
        build.export_caches(&config, report)?;
        let say = |text: String| report(Message::Stream(text));
        match lint::summary(&build.warnings()?.0) {
            summary if summary.is_empty() => {}
            summary => report(Message::Warnings(summary))?,
        }
        report(Message::Image(image.clone()))?;
        say(format!("Successfully built {}\n", image.short()))?;
        for tag in tags {
            self.store.tag(&tag, &image)?;
            self.emit_image("tag", &image, &tag.familiar());
            say(format!("Successfully tagged {}\n", tag.familiar()))?;
        }
        Ok(image)
    }
    /// Looks at the Dockerfile and builds nothing: what `--check` shows, and how many warnings there are.
    ///
    /// # Errors
    /// The Dockerfile cannot be read or understood.
    pub fn lint_build(&self, options: &Options) -> Result<(String, usize)> {
        let (cancel, made) = (Cancel::default(), AtomicU64::new(0));
        let build = self.prepared(options, &cancel, &made)?;
        let (warnings, _) = build.warnings()?;
        Ok((lint::report(&build.file, &build.text, &warnings), warnings.len()))
    }
    /// Everything that is known before the first stage.
    fn prepared<'a>(
        &'a self,
        options: &'a Options,
        cancel: &'a Cancel,
        made: &'a AtomicU64,
    ) -> Result<Build<'a>> {
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
        Ok(Build {
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
            epoch: epoch(&options.build_args)?,
            made,
            imported: OnceLock::new(),
            used: Mutex::default(),
            cancel,
        })
    }
}

fn tag_of(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text)?;
    if reference.digest().is_some() {
        return Err(Error::invalid(format!("build tag cannot contain a digest: {text:?}")));
    }
    Ok(reference.with_default_tag())
}

/// The time of `SOURCE_DATE_EPOCH` (reproducible-builds.org), if it is given.
fn epoch(args: &BTreeMap<String, String>) -> Result<Option<Timestamp>> {
    let Some(text) = args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.parse().map_err(|_| Error::invalid(format!("invalid SOURCE_DATE_EPOCH: {text:?}")))?;
    Ok(Some(Timestamp { seconds, nanos: 0 }))
}

/// The image is of this time, and nothing that was done for it later.
fn clamp(config: &mut ImageConfig, epoch: Timestamp) {
    for history in &mut config.history {
        history.created = history.created.map(|created| created.min(epoch));
    }
    config.created = Some(epoch);
}

impl Build<'_> {
    /// The build checks' warnings, and whether they are errors.
    fn warnings(&self) -> Result<(Vec<Warning>, bool)> {
        let syntax = dockerfile::syntax::parse(&self.file, &self.text)?;
        let directive = syntax.directives.get("check");
        let choice = self.options.build_args.get("BUILDKIT_DOCKERFILE_CHECK").or(directive);
        let choice = Choice::parse(choice.map_or("", String::as_str))?;
        let image = |name: &str| match self.named(name).ok()?.as_deref() {
            Some(Named::Files { .. }) => None,
            Some(Named::Image(other)) => self.engine.store.image(other).ok().map(|image| image.config),
            None => self.engine.store.image(name).ok().map(|image| image.config),
        };
        let inputs = Inputs {
            global: &self.global,
            plan: &self.plan,
            ignore: &self.context.ignore,
            platform: &self.platform,
            image: &image,
        };
        Ok((lint::check(&syntax, &self.dockerfile, &choice, &inputs), choice.error))
    }
    /// `# check=error=true`.
    fn refuse_warnings(&self) -> Result<()> {
        let (warnings, error) = self.warnings()?;
        if !error || warnings.is_empty() {
            return Ok(());
        }
        let names: std::collections::BTreeSet<&str> = warnings.iter().map(|warning| warning.check).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        Err(Error::invalid(format!("lint violation found for rules: {names}"))
            .hint(lint::summary(&warnings).trim_end().to_owned()))
    }
    /// The configuration of the target stage's image.
    fn config_of_target(&self) -> Result<ImageConfig> {
        let mut config = self.finished(self.plan.target)?.sealed(&self.options.labels);
        if let Some(epoch) = self.epoch {
            clamp(&mut config, epoch);
        }
        config.created.get_or_insert_with(crate::now);
        config.inline_cache = self.inline_cache(&config)?;
        Ok(config)
    }
    /// How the registry of this reference is reached.
    fn access(&self, reference: &Reference) -> Access {
        self.engine.access(self.options.credentials.get(reference.domain()).cloned())
    }
    fn finished(&self, index: usize) -> Result<&State> {
        self.states
            .get(index)
            .and_then(OnceLock::get)
            .ok_or_else(|| Error::internal(format!("stage {index} is not built yet")))
    }
}

impl Builder<'_> {
    fn tell(&self, event: Event) -> Result<()> {
        self.cancel.check()?;
        (self.report)(Message::Step(self.index, event))
    }
    fn say(&self, text: impl Into<String>) -> Result<()> {
        self.tell(Event::Note(text.into()))
    }
}
