//! One stage: from its base through its instructions.

use model::digest::chain_id;
use model::dockerfile::instruction::{Copy, Instruction, Stage, Step};
use model::dockerfile::plan::{CacheKey, Origin};
use model::dockerfile::scope::{Argument, DEFAULT_PATH, Scope};
use model::dockerfile::{self, effect};
use model::image::{History, ImageConfig, Platform};
use model::time::Timestamp;
use model::{Digest, Error, Kind, Reference, Result};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use store::snapshot::Writable;

use super::named::Named;
use super::{Begin, Builder, Built, Event, Failed, Message};
use crate::container::names::fill_random;

/// A stage as far as it has come.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The image so far; its layers are in `rootfs`.
    pub config: ImageConfig,
    /// `ARG`s of this stage.
    pub args: Vec<Argument>,
    /// See [`Scope::values`].
    pub values: Vec<(String, String)>,
    /// Whether this stage has had a `CMD`.
    pub cmd_set: bool,
}

impl State {
    /// The chain id of the uppermost layer.
    pub(super) fn chain(&self) -> Option<Digest> {
        let layers = &self.config.rootfs.diff_ids;
        layers.iter().fold(None, |chain, layer| Some(chain_id(chain.as_ref(), layer)))
    }
    pub(super) fn scope(&self) -> Scope {
        Scope { env: self.config.config.env.clone(), args: self.args.clone(), values: self.values.clone() }
    }
    /// A step that makes no layer has the time of what it stands on, so that a build of nothing but cached steps gives the
    /// same image.
    fn remember(&mut self, text: String, empty_layer: bool, created: Option<Timestamp>) {
        let last =
            || self.config.history.iter().rev().find_map(|history| history.created).or(self.config.created);
        let created = created.or_else(last).or_else(|| Some(crate::now()));
        self.config.history.push(History {
            created,
            created_by: Some(text),
            author: None,
            comment: Some("buildkit.dockerfile.v0".to_owned()),
            empty_layer,
        });
    }
    /// The image's configuration as it would be recorded now.
    pub(super) fn sealed(&self, labels: &BTreeMap<String, String>) -> ImageConfig {
        let mut config = self.config.clone();
        if !labels.is_empty() {
            config.config.labels.get_or_insert_default().extend(labels.clone());
        }
        let last = config.history.iter().rev().find_map(|history| history.created);
        config.created = last.or(config.created);
        config
    }
    /// The first twelve digits of the id that the image so far would have; the last step's is the image's own.
    fn short(&self, labels: &BTreeMap<String, String>) -> String {
        let json = serde_json::to_vec(&self.sealed(labels)).unwrap_or_default();
        Digest::of(&json).short().to_owned()
    }
}

/// The name of images that show the state before a step that failed.
const KEPT: &str = "build-debug";

/// How a stage's steps are announced.
struct Announced {
    /// Of its `FROM` among all steps, and how many there are.
    numbers: (usize, usize),
    name: String,
    text: String,
    /// Steps that make files, `FROM` among them; without the base image's triggers, which are not known yet.
    places: usize,
}

/// Whether a step makes files.
fn makes(step: &&Step) -> bool {
    matches!(step.instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_))
}

impl Announced {
    fn new(build: &super::Build<'_>, stage: &Stage) -> Self {
        let index = build.dockerfile.stages.iter().position(|other| std::ptr::eq(other, stage));
        let index = index.unwrap_or_default();
        let name = match (&stage.name, build.dockerfile.stages.len()) {
            (Some(name), _) => name.clone(),
            (None, 1) => String::new(),
            (None, _) => format!("stage-{index}"),
        };
        let numbers = build.plan.step_numbers(&build.dockerfile, index);
        let places = 1 + stage.steps.iter().filter(makes).count();
        Self { numbers, name, text: stage.text.clone(), places }
    }
    fn base(&self) -> Event {
        let (number, all) = self.numbers;
        let (text, stage) = (self.text.clone(), self.name.clone());
        Event::Begin(Begin { text, number: Some((number, all)), stage, place: Some((1, self.places)) })
    }
    /// The triggers of the base image, then the stage's own steps.
    fn steps<'a>(&self, triggers: &'a [Step], stage: &'a Stage) -> Vec<(Event, &'a Step)> {
        let (first, all) = self.numbers;
        let of = self.places + triggers.iter().filter(makes).count();
        let mut place = 1;
        let own = stage.steps.iter().enumerate().map(|(at, step)| (Some((first + at + 1, all)), step));
        let announced = |(number, step): (Option<(usize, usize)>, &'a Step)| {
            place += usize::from(makes(&step));
            let place = makes(&step).then_some((place, of));
            let (text, stage) = (step.text.clone(), self.name.clone());
            (Event::Begin(Begin { text, number, stage, place }), step)
        };
        triggers.iter().map(|step| (None, step)).chain(own).map(announced).collect()
    }
}

impl Builder<'_> {
    /// Builds one stage whose needs are met.
    pub(super) fn stage(&self) -> Built<State> {
        let index = self.index;
        let stage = &self.dockerfile.stages[index];
        let from = Announced::new(self, stage);
        self.tell(from.base())?;
        let mut state = match self.plan.bases[index].clone() {
            Origin::Scratch => self.scratch(self.platform_of(index)?.as_ref()),
            // The values of its arguments too: they are inherited.
            Origin::Stage(base) => State { args: Vec::new(), ..self.finished(base)?.clone() },
            Origin::Named(name) => {
                let based = self.based_on(index, &name);
                based.map_err(|failed| self.failed_in(stage.lines, None, failed))?
            }
        };
        state.cmd_set = false;
        let id = match &self.plan.bases[index] {
            Origin::Scratch => String::new(),
            Origin::Named(name) => match self.engine.store.resolve_image(name) {
                Ok(image) => image.short().to_owned(),
                Err(_) => state.short(&self.options.labels),
            },
            Origin::Stage(_) => state.short(&self.options.labels),
        };
        self.tell(Event::Done(id))?;
        let triggers = dockerfile::triggers(&state.config.config.on_build.take().unwrap_or_default())?;
        if !triggers.is_empty() {
            let s = if triggers.len() == 1 { "" } else { "s" };
            self.say(format!("# Executing {} build trigger{s}\n", triggers.len()))?;
        }
        for (begin, step) in from.steps(&triggers, stage) {
            self.tell(begin)?;
            let before = self.options.keep_failed.then(|| state.clone());
            self.step(index, &mut state, step)
                .map_err(|failed| self.failed_in(step.lines, before.as_ref(), failed))?;
            self.tell(Event::Done(state.short(&self.options.labels)))?;
        }
        Ok(state)
    }
    /// Says where it failed, and keeps the state before the step where that is wanted.
    fn failed_in(&self, lines: (usize, usize), before: Option<&State>, mut failed: Failed) -> Failed {
        if failed.error.kind() == Kind::Cancelled {
            return failed;
        }
        let mut known = failed.step.take().unwrap_or_default();
        known.stage = self.index;
        known.excerpt = super::message::excerpt(&self.file, &self.text, lines);
        if let Some(before) = before {
            match self.keep(before) {
                Ok(name) => known.before = Some(name),
                Err(error) => failed.error = failed.error.with_undo_failures(Some(error)),
            }
        }
        if failed.code.is_none() {
            failed.error = self.located(lines, failed.error);
        }
        failed.step = Some(known);
        failed
    }
    /// An image of a state, for a look at it: its arguments are variables there.
    fn keep(&self, state: &State) -> Result<String> {
        let mut config = state.sealed(&BTreeMap::new());
        for (name, value) in &state.values {
            effect::set_env(&mut config.config.env, name, value);
        }
        config.created.get_or_insert_with(crate::now);
        let image = self.engine.store.put_image(&config, &BTreeMap::new())?;
        let name = Reference::parse(&format!("{KEPT}:{}", image.id.short()))?;
        self.engine.store.tag(&name, &image.id)?;
        Ok(name.familiar())
    }
    fn located(&self, lines: (usize, usize), error: Error) -> Error {
        if error.hint_text().is_some() || error.kind() == Kind::Cancelled {
            return error;
        }
        error.hint(dockerfile::excerpt(&self.file, &self.text, lines))
    }
    /// `FROM --platform`.
    fn platform_of(&self, index: usize) -> Result<Option<Platform>> {
        let text = self.plan.platforms.get(index).and_then(Option::as_deref);
        text.map(crate::transfer::parse_platform).transpose()
    }
    /// The image or the named context that a stage starts from.
    fn based_on(&self, index: usize, name: &str) -> Built<State> {
        let platform = self.platform_of(index)?;
        match self.named(name)?.as_deref() {
            None => Ok(self.image(name, platform.as_ref())?),
            Some(Named::Image(image)) => Ok(self.image(image, platform.as_ref())?),
            Some(Named::Files { .. }) => {
                let mut state = self.scratch(platform.as_ref());
                let copy = Copy {
                    sources: vec!["/".to_owned()],
                    target: "/".to_owned(),
                    from: Some(name.to_owned()),
                    ..Copy::default()
                };
                self.copy_step(index, &mut state, &copy)?;
                Ok(state)
            }
        }
    }
    fn scratch(&self, platform: Option<&Platform>) -> State {
        let mut state = State::default();
        let platform = platform.unwrap_or(&self.platform);
        state.config.architecture.clone_from(&platform.architecture);
        state.config.os.clone_from(&platform.os);
        state.config.variant.clone_from(&platform.variant);
        state.config.config.env.push(format!("PATH={DEFAULT_PATH}"));
        state.config.config.working_dir = "/".to_owned();
        state
    }
    /// An image by name, for a platform where one was asked for: one that is here, else pulled.
    pub(super) fn image(&self, name: &str, platform: Option<&Platform>) -> Result<State> {
        let store = &self.engine.store;
        let platform = platform.or(self.options.platform.as_ref());
        let here = store.image(name);
        let fits = |image: &store::image::Image| {
            platform.is_none_or(|wanted| {
                wanted.os == image.config.os
                    && wanted.architecture == image.config.architecture
                    && (wanted.variant.is_none() || wanted.variant == image.config.variant)
            })
        };
        let image = match here {
            Ok(image) if !self.options.pull && fits(&image) => image,
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            here => {
                let reference = Reference::parse(name)?.with_default_tag();
                let report = |progress| (self.report)(Message::Pull(progress));
                let credentials = self.options.credentials.get(reference.domain()).cloned();
                let pulled = self.engine.pull(&reference, false, platform, credentials, &report);
                match (pulled, here) {
                    (Ok(()), _) => store.image(name)?,
                    (Err(error), Ok(image)) if error.kind() != Kind::Cancelled && !fits(&image) => {
                        let have = format!("{}/{}", image.config.os, image.config.architecture);
                        return Err(error.within(format!(
                            "image {name} is here for the platform {have}, which is not the one that was asked for"
                        )));
                    }
                    // `--pull` of what only exists here.
                    (Err(error), Ok(image)) if error.kind() != Kind::Cancelled => image,
                    (Err(error), _) => return Err(error),
                }
            }
        };
        let mut state = State { config: image.config, ..State::default() };
        let env = &mut state.config.config.env;
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        Ok(state)
    }
    fn step(&self, index: usize, state: &mut State, step: &Step) -> Built<()> {
        let escape = self.dockerfile.escape;
        let instruction = state.scope().expanded(&step.instruction, escape)?;
        match &instruction {
            Instruction::Arg(args) => {
                let mut scope = state.scope();
                for (name, default) in args {
                    let default = default.as_ref().map(|text| scope.expand(text, escape)).transpose()?;
                    scope.declare(name, default.as_deref(), &self.global);
                }
                let text = effect::arg_text(&scope.args[state.args.len()..]);
                (state.args, state.values) = (scope.args, scope.values);
                state.remember(text, true, None);
            }
            Instruction::Run(run) => self.run_step(index, state, run)?,
            Instruction::Copy(copy) => self.copy_step(index, state, copy)?,
            Instruction::Workdir(path) => self.workdir(state, path)?,
            Instruction::User(user) if user.is_empty() => {
                return Err(Error::invalid("USER is empty after expansion").into());
            }
            other => {
                if let Instruction::Env(pairs) = other {
                    let mut scope = state.scope();
                    pairs.iter().for_each(|(name, _)| scope.hide(name));
                    state.values = scope.values;
                }
                if let Some(text) = effect::apply(&mut state.config, other, &mut state.cmd_set)? {
                    state.remember(text, true, None);
                }
            }
        }
        Ok(())
    }
    /// `WORKDIR` makes the directory where it is missing.
    fn workdir(&self, state: &mut State, path: &str) -> Built<()> {
        let dir = effect::working_dir(&state.config.config).join(path);
        state.config.config.working_dir = dir.as_str().to_owned();
        let text = format!("WORKDIR {dir}");
        // What has no layer yet has no directory either.
        let lower = self.engine.store.lower(&state.config.rootfs.diff_ids)?;
        let view = (!state.config.rootfs.diff_ids.is_empty())
            .then(|| self.engine.store.mount_detached(&lower, None))
            .transpose()?;
        if let Some(view) = &view
            && sys::fs::open_in_root(view, dir.relative(), OFlags::PATH | OFlags::DIRECTORY, 0).is_ok()
        {
            state.remember(text, true, None);
            return Ok(());
        }
        drop(view);
        let mut key = CacheKey::new("workdir");
        key.part(state.chain().map_or(String::new(), |chain| chain.to_string())).part(dir.as_str());
        // What is made belongs to the user that `USER` set; one whom the image does not know owns nothing.
        let user = state.config.config.user.clone();
        key.part(&user);
        let owner = |root: &OwnedFd| super::archive::owner(root, &user).ok().filter(|_| !user.is_empty());
        self.layer(state, &key.finish(), text, |writable| {
            let root = self.engine.store.mount_detached(&lower, Some(writable))?;
            super::copy::make_dirs(&root, dir.relative(), owner(&root))?;
            Ok(())
        })
    }
    fn copy_step(&self, index: usize, state: &mut State, copy: &Copy) -> Built<()> {
        let text = effect::copy_text(copy);
        let prepared = self.prepare_copy(index, state, copy)?;
        let key = prepared.key(state.chain().as_ref());
        let lower = self.engine.store.lower(&state.config.rootfs.diff_ids)?;
        self.layer(state, &key, text, |writable| {
            let root = self.engine.store.mount_detached(&lower, Some(writable))?;
            Ok(prepared.write(&root)?)
        })
    }
    /// When a cached step must have been made to be used here; `None`: none is.
    fn oldest_cached(&self) -> Option<Timestamp> {
        let is_this = |name: &str| {
            let own = self.dockerfile.stages[self.index].name.as_deref();
            own.is_some_and(|own| own.eq_ignore_ascii_case(name)) || name == self.index.to_string()
        };
        if self.options.no_cache || self.options.no_cache_stages.iter().any(|name| is_this(name)) {
            return None;
        }
        let limits = &self.options.cache_ttl;
        let limit = limits.iter().find(|(name, _)| is_this(name)).map(|(_, limit)| limit).or(limits.get(""));
        let Some(limit) = limit else { return Some(Timestamp::NEVER) };
        Some(super::gc::ago(*limit))
    }
    /// The layer of a cached step: here, or in a cache that was given.
    fn cached_anywhere(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        oldest: Timestamp,
        text: &str,
    ) -> Result<Option<(Digest, Timestamp)>> {
        match self.engine.cached_layer(key, parent, oldest)? {
            None => self.carried_layer(key, parent, oldest, text, self.report),
            found => Ok(found),
        }
    }
    /// A step that makes a layer: found in the cache, or made and recorded.
    pub(super) fn layer(
        &self,
        state: &mut State,
        key: &Digest,
        text: String,
        make: impl FnOnce(&Writable) -> Built<()>,
    ) -> Built<()> {
        let parent = state.chain();
        // What was made for another time has other times in it.
        let dated = self.epoch.map(|epoch| {
            let mut dated = CacheKey::new("epoch");
            dated.part(key.as_str()).part(epoch.seconds.to_le_bytes());
            dated.finish()
        });
        let key = dated.as_ref().unwrap_or(key);
        if let Some(oldest) = self.oldest_cached()
            && let Some((diff_id, created)) = self.cached_anywhere(key, parent.as_ref(), oldest, &text)?
        {
            self.tell(Event::Cached)?;
            self.used(key, parent.as_ref(), &diff_id, created);
            state.config.rootfs.diff_ids.push(diff_id);
            state.remember(text, false, Some(created));
            return Ok(());
        }
        if state.config.rootfs.diff_ids.len() >= model::limits::LAYERS {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("max depth exceeded: an image has {} layers at most", model::limits::LAYERS),
            )
            .into());
        }
        let mut random = [0u8; 32];
        fill_random(&mut random)?;
        let step = self.engine.begin_step(random)?;
        let mut writable = self.engine.store.create_writable(&step.dir.join("rw"))?;
        writable.volatile = true;
        let made = make(&writable)
            .and_then(|()| match self.epoch {
                Some(epoch) => Ok(self.engine.store.clamp_times(&writable, epoch.seconds)?),
                None => Ok(()),
            })
            .and_then(|()| Ok(self.engine.store.commit_layer(parent.as_ref(), &writable, true)?));
        let ended = self.engine.end_step(step);
        let (diff_id, bytes) =
            made.map_err(|failed| Failed { error: failed.error.with_undo_failures(ended.err()), ..failed })?;
        let created = self.epoch.unwrap_or_else(crate::now);
        self.made.fetch_add(bytes, Ordering::Relaxed);
        self.engine.record_layer(key, parent.as_ref(), &diff_id, created, &text)?;
        self.used(key, parent.as_ref(), &diff_id, created);
        state.config.rootfs.diff_ids.push(diff_id);
        state.remember(text, false, Some(created));
        Ok(())
    }
}
