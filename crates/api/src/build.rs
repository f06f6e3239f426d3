//! `/build`: the classic builder's request and stream, and the same for a directory of this machine.
//!
//! `POST /build` takes the context as a tar stream (plain, gzip or zstd), or `remote=` a git repository or
//! the URL of a tar archive or a Dockerfile. `POST /cauldron/v1/build` takes [`LocalBuild`] as JSON: the engine reads the context directory itself.
//! Secrets come with the header `X-Build-Secrets`. What Docker's API lacks is in [`More`]; its `steps` asks for events instead of text: `{"step": {"stage": n, …}}`. A client
//! that numbers them knows what runs at the same time.
//! Both answer with one JSON message a line: `{"stream": …}`, `{"status": …}` while a base image is pulled,
//! `{"aux": {"ID": "sha256:…"}}`, and on failure `{"errorDetail": {"code": n, "message": …}, "error": …}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use engine::Engine;
use engine::build::{self, Cancel, Event, Message, Options, Prune};
use engine::model::{Error, Result};
use engine::transfer::parse_platform;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bridge::{Sink, reader, stream};
use crate::containers::until;
use crate::images_transfer::{AuthConfig, by_registry, header};
use crate::input::{Body as JsonBody, Params};
use crate::{Failure, Shared, call};

const JSON: &str = "application/json";

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/build", post(classic))
        .route("/build/prune", post(prune))
        .route("/build/cancel", post(cancel))
        .route("/cauldron/v1/build", post(local))
}

/// The body of `POST /cauldron/v1/build`. Paths are the engine's machine's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalBuild {
    /// A name for it, for who wants to cancel it (`POST /build/cancel?id=`).
    pub id: String,
    /// The context directory.
    pub context_dir: PathBuf,
    /// Below the context, or absolute; empty is `Dockerfile`.
    pub dockerfile: String,
    /// Its text, where it is no file.
    pub dockerfile_text: Option<String>,
    /// Names for the image.
    pub tags: Vec<String>,
    /// A name without a value declares nothing.
    pub build_args: BTreeMap<String, Option<String>>,
    /// The stage to build.
    pub target: String,
    /// Labels for the image.
    pub labels: BTreeMap<String, String>,
    /// Use no cached step.
    pub no_cache: bool,
    /// Pull base images even where they are here.
    pub pull: bool,
    /// `default`, `none`, `host`, or a network's name.
    pub network: String,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// The only output is the image's id.
    pub quiet: bool,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    /// Values in base64, by id.
    pub secrets: BTreeMap<String, String>,
    /// Where the context comes from if it is no directory: a git repository, or the URL of an archive or a Dockerfile.
    /// Without it and without a directory the context is empty.
    pub remote: String,
    /// Other contexts, by name: directories, repositories, URLs of archives, `docker-image://NAME`.
    pub contexts: BTreeMap<String, String>,
    /// Sockets of ssh agents, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// Entitlements: `network.host`, `security.insecure`.
    pub allow: Vec<String>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub shm_bytes: Option<u64>,
    /// Credentials for base images, by registry.
    credentials: BTreeMap<String, AuthConfig>,
    /// What Docker's API does not know.
    pub more: More,
}

/// What a build can be asked beyond Docker's API: `more` of [`LocalBuild`], or `POST /build?cauldron=<JSON>`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct More {
    /// Answer with `{"step": …}` messages, as things happen, instead of the classic builder's text.
    pub steps: bool,
    /// Build nothing: show the build checks' warnings, and `{"aux": {"Warnings": n}}`.
    pub check: bool,
    /// Keep the state before a step that fails as an image.
    pub keep_failed: bool,
    /// Annotations of the image's manifest.
    pub annotations: BTreeMap<String, String>,
    /// Stages that use no cached step.
    pub no_cache_stages: Vec<String>,
    /// Seconds that a cached step may be old, by stage; the empty name is for all others.
    pub cache_ttl: BTreeMap<String, u64>,
    /// Caches to use: a registry's tag, or a directory with an OCI layout (of this machine's own builds only).
    pub cache_from: Vec<CachePlace>,
    /// Where this build's cache goes.
    pub cache_to: Vec<CacheTo>,
    /// The image carries its cache.
    pub inline_cache: bool,
}

/// A place for a cache: one of both.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CachePlace {
    /// A repository's tag.
    pub reference: String,
    /// An OCI layout.
    pub directory: PathBuf,
    /// The name of the manifest in the layout.
    pub tag: String,
}

/// A cache that is exported.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheTo {
    /// Where it goes.
    pub place: CachePlace,
    /// Every step, not only those whose layers are in the image.
    pub max: bool,
    /// A failure does not fail the build.
    pub ignore_error: bool,
}

impl More {
    /// Directories are this machine's: a request from elsewhere names none.
    fn without_directories(&self) -> Result<()> {
        let places = self.cache_from.iter().chain(self.cache_to.iter().map(|to| &to.place));
        match places.map(|place| &place.directory).find(|dir| !dir.as_os_str().is_empty()) {
            None => Ok(()),
            Some(dir) => Err(Error::invalid(format!(
                "a cache in the directory {}: it would be one of the engine's machine; use type=registry",
                dir.display()
            ))),
        }
    }
    fn onto(self, options: Options) -> Options {
        let from = |place: CachePlace| match place.reference.is_empty() {
            true => build::CacheSource::Directory(place.directory, place.tag),
            false => build::CacheSource::Registry(place.reference),
        };
        let to = |to: CacheTo| build::CacheTarget {
            place: match to.place.reference.is_empty() {
                true => build::CachePlace::Directory(to.place.directory, to.place.tag),
                false => build::CachePlace::Registry(to.place.reference),
            },
            max: to.max,
            ignore_error: to.ignore_error,
        };
        let seconds = |(stage, seconds)| (stage, Duration::from_secs(seconds));
        Options {
            interleave: self.steps,
            keep_failed: self.keep_failed,
            annotations: self.annotations,
            no_cache_stages: self.no_cache_stages,
            cache_ttl: self.cache_ttl.into_iter().map(seconds).collect(),
            cache_from: options.cache_from.into_iter().chain(self.cache_from.into_iter().map(from)).collect(),
            cache_to: self.cache_to.into_iter().map(to).collect(),
            inline_cache: self.inline_cache,
            ..options
        }
    }
}

/// How a build is told.
struct How {
    /// The client's name for it, for who wants to cancel it.
    id: String,
    /// Nothing but the image's id.
    quiet: bool,
    /// Events instead of text.
    steps: bool,
    /// Nothing is built, the checks' report is told.
    check: bool,
    /// Standard error in red, in text.
    mark_errors: bool,
}

async fn local(
    State(engine): State<Shared>,
    JsonBody(body): JsonBody<LocalBuild>,
) -> std::result::Result<Response, Failure> {
    let options = Options {
        context: body.context_dir,
        dockerfile: body.dockerfile,
        dockerfile_text: body.dockerfile_text,
        tags: body.tags,
        build_args: given(body.build_args),
        labels: body.labels,
        target: body.target,
        no_cache: body.no_cache,
        pull: body.pull,
        network: body.network,
        platform: platform(&body.platform)?,
        extra_hosts: body.extra_hosts,
        secrets: secrets(body.secrets)?,
        contexts: body.contexts,
        agents: body.agents,
        allow: body.allow,
        memory: body.memory,
        shm_bytes: body.shm_bytes,
        credentials: by_registry(body.credentials)?,
        ..Options::default()
    };
    let how = How {
        id: body.id,
        quiet: body.quiet,
        steps: body.more.steps,
        check: body.more.check,
        mark_errors: false,
    };
    let options = body.more.onto(options);
    let remote = body.remote;
    stream(&engine, JSON, move |engine, sink| {
        if !options.context.as_os_str().is_empty() {
            return run(engine, &options, &how, &sink);
        }
        let mut options = options;
        if remote.is_empty() {
            let empty = engine.new_context()?;
            empty.path().clone_into(&mut options.context);
            return run(engine, &options, &how, &sink);
        }
        let fetched = fetch(engine, &mut options, &remote, true, &sink)?;
        let done = run(engine, &options, &how, &sink);
        drop(fetched);
        done
    })
    .await
}

async fn classic(
    State(engine): State<Shared>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> std::result::Result<Response, Failure> {
    let options = Options {
        dockerfile: params.text("dockerfile").to_owned(),
        tags: params.all("t").filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        build_args: given(map(&params, "buildargs")?),
        labels: given(map(&params, "labels")?),
        target: params.text("target").to_owned(),
        no_cache: params.flag("nocache"),
        pull: params.flag("pull"),
        network: params.text("networkmode").to_owned(),
        platform: platform(params.text("platform"))?,
        extra_hosts: params
            .all("extrahosts")
            .flat_map(|hosts| hosts.split(','))
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect(),
        memory: params.number::<u64>("memory")?.filter(|bytes| *bytes > 0),
        shm_bytes: params.number::<u64>("shmsize")?.filter(|bytes| *bytes > 0),
        credentials: by_registry(header(&headers, "x-registry-config")?.unwrap_or_default())?,
        cache_from: images(&params)?,
        secrets: secrets(header(&headers, "x-build-secrets")?.unwrap_or_default())?,
        ..Options::default()
    };
    let more: More = match params.text("cauldron") {
        "" => More::default(),
        text => serde_json::from_str(text)
            .map_err(|error| Error::invalid("parameter cauldron").caused_by(error))?,
    };
    more.without_directories()?;
    let how = How {
        id: params.text("buildid").to_owned(),
        quiet: params.flag("q"),
        steps: more.steps,
        check: more.check,
        mark_errors: true,
    };
    let options = more.onto(options);
    let remote = params.text("remote").to_owned();
    let body = reader(body);
    stream(&engine, JSON, move |engine, sink| {
        let mut options = options;
        if remote.is_empty() || remote == "client-session" {
            let unpacked = engine.new_context()?;
            unpacked.path().clone_into(&mut options.context);
            build::archive::unpack_context(&options.context, body)?;
            return run(engine, &options, &how, &sink);
        }
        let fetched = fetch(engine, &mut options, &remote, false, &sink)?;
        let done = run(engine, &options, &how, &sink);
        drop(fetched);
        done
    })
    .await
}

/// Fetches the context; what is no archive is the Dockerfile. It is there as long as the result is held.
fn fetch(
    engine: &Engine,
    options: &mut Options,
    remote: &str,
    local: bool,
    sink: &Sink,
) -> Result<build::Remote> {
    sink.message(&json!({ "stream": format!("Downloading build context from remote url: {remote}\n") }))?;
    let fetched = engine.fetch_context(remote, local, options.agents.get("default").map(PathBuf::as_path))?;
    fetched.dir().clone_into(&mut options.context);
    if let Some(text) = fetched.dockerfile() {
        options.dockerfile_text = Some(text.to_owned());
    }
    Ok(fetched)
}

fn looked_at(engine: &Engine, options: &Options, sink: &Sink) -> Result<()> {
    let (report, count) = engine.lint_build(options)?;
    sink.message(&json!({ "stream": report }))?;
    sink.message(&json!({ "aux": { "Warnings": count } }))
}

/// What fails before anything was told is an error of the request.
fn run(engine: &Engine, options: &Options, how: &How, sink: &Sink) -> Result<()> {
    let How { quiet, steps, check, mark_errors, .. } = *how;
    if check {
        return looked_at(engine, options, sink);
    }
    let told = AtomicBool::new(false);
    let report = |message: Message| {
        told.store(true, Ordering::Relaxed);
        match message {
            Message::Stream(_) | Message::Step(..) | Message::Pull(_) if quiet => Ok(()),
            Message::Step(stage, event) if steps => sink.message(&step(stage, event)),
            Message::Step(_, event) => sink.message(&json!({ "stream": event.classic(mark_errors) })),
            // The classic builder's clients know nothing of them.
            Message::Warnings(_) if quiet || (mark_errors && !steps) => Ok(()),
            Message::Stream(text) | Message::Warnings(text) => sink.message(&json!({ "stream": text })),
            Message::Pull(progress) => crate::images_transfer::step(sink, &progress),
            Message::Image(id) => {
                sink.message(&json!({ "aux": { "ID": id } }))?;
                if quiet { sink.message(&json!({ "stream": format!("{id}\n") })) } else { Ok(()) }
            }
        }
    };
    let running = Running::new(&how.id, sink);
    let built = engine.build(options, &report, &running.cancel);
    drop(running);
    match built {
        Ok(_) => Ok(()),
        Err(failed) if !told.load(Ordering::Relaxed) => Err(failed.error),
        Err(failed) => {
            let error = engine.explain(failed.error);
            let message = match error.hint_text() {
                Some(hint) => format!("{error}\n{hint}"),
                None => error.to_string(),
            };
            let mut detail = json!({ "message": message });
            if let Some(code) = failed.code {
                detail["code"] = json!(code);
            }
            if let Some(step) = failed.step.filter(|_| steps) {
                detail["step"] = json!({
                    "stage": step.stage, "excerpt": step.excerpt, "command": step.command, "before": step.before,
                });
            }
            sink.message(&json!({ "errorDetail": detail, "error": message }))
        }
    }
}

/// Builds that run in this process and have a name.
static RUNNING: Mutex<BTreeMap<String, Arc<Cancel>>> = Mutex::new(BTreeMap::new());

/// A build that runs: it is stopped by its name, and when its client goes away.
struct Running {
    id: String,
    cancel: Arc<Cancel>,
    watch: tokio::task::JoinHandle<()>,
}

impl Running {
    fn new(id: &str, sink: &Sink) -> Self {
        let cancel = Arc::new(Cancel::default());
        if !id.is_empty() {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), Arc::clone(&cancel));
        }
        let (gone, stopped) = (sink.clone(), Arc::clone(&cancel));
        let watch = tokio::runtime::Handle::current().spawn(async move {
            gone.closed().await;
            // It waits for a container to take its signal.
            let _ = tokio::task::spawn_blocking(move || stopped.stop()).await;
        });
        Self { id: id.to_owned(), cancel, watch }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watch.abort();
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

async fn cancel(State(engine): State<Shared>, params: Params) -> std::result::Result<StatusCode, Failure> {
    let id = params.text("id").to_owned();
    let known = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
    // One that is over, or was never there, is cancelled: as Docker answers.
    call(&engine, move |_| {
        known.iter().for_each(|cancel| cancel.stop());
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// An event as a message.
fn step(stage: usize, event: Event) -> Value {
    json!({ "step": match event {
        Event::Begin(begin) => {
            json!({ "stage": stage, "begin": { "text": begin.text, "stage": begin.stage, "place": begin.place } })
        }
        Event::Running(id) => json!({ "stage": stage, "running": id }),
        Event::Cached => json!({ "stage": stage, "cached": true }),
        Event::Output { error, text } => json!({ "stage": stage, "output": text, "error": error }),
        Event::Note(text) => json!({ "stage": stage, "note": text }),
        Event::Done(id) => json!({ "stage": stage, "done": id }),
    } })
}

async fn prune(State(engine): State<Shared>, params: Params) -> std::result::Result<Json<Value>, Failure> {
    let filters = params.filters()?;
    let until = filters
        .get("until")
        .iter()
        .chain(filters.get("unused-for"))
        .next()
        .map(|text| until(text).ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'"))))
        .transpose()?;
    // The newer names of the API 1.48, and the one before.
    let mut keep = None;
    for name in ["max-used-space", "reserved-space", "keep-storage"] {
        keep = keep.or(params.number::<u64>(name)?.filter(|bytes| *bytes > 0));
    }
    let wish = Prune { filters, unused_since: until, keep };
    let pruned = call(&engine, move |engine| engine.prune_build_cache(&wish)).await?;
    let deleted = Some(pruned.deleted).filter(|deleted| !deleted.is_empty());
    Ok(Json(json!({ "CachesDeleted": deleted, "SpaceReclaimed": pruned.bytes })))
}

fn given(map: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    map.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
}

/// Values in base64, by id.
fn secrets(given: BTreeMap<String, String>) -> Result<BTreeMap<String, Vec<u8>>> {
    use base64::Engine as _;
    let decode = |(id, text): (String, String)| match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(value) => Ok((id, value)),
        Err(error) => Err(Error::invalid(format!("secret {id}: its value is not base64")).caused_by(error)),
    };
    given.into_iter().map(decode).collect()
}

/// `cachefrom`: images of this engine, as the classic builder has it.
fn images(params: &Params) -> Result<Vec<build::CacheSource>> {
    let names: Option<Vec<String>> = match params.text("cachefrom") {
        "" => None,
        text => serde_json::from_str(text)
            .map_err(|error| Error::invalid("parameter cachefrom").caused_by(error))?,
    };
    Ok(names.unwrap_or_default().into_iter().map(build::CacheSource::Image).collect())
}

fn map(params: &Params, name: &str) -> Result<BTreeMap<String, Option<String>>> {
    match params.text(name) {
        "" => Ok(BTreeMap::new()),
        text => serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("parameter {name}")).caused_by(error)),
    }
}

fn platform(text: &str) -> Result<Option<engine::model::image::Platform>> {
    if text.is_empty() { Ok(None) } else { parse_platform(text).map(Some) }
}
