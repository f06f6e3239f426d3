//! `/build`: the classic builder's request and stream, and the same for a directory of this machine.
//!
//! `POST /build` takes the context as a tar stream (plain, gzip or zstd), or `remote=` a git repository or
//! the URL of a tar archive or a Dockerfile. `POST /cauldron/v1/build` takes [`LocalBuild`] as JSON: the engine reads the context directory itself.
//! Both answer with one JSON message a line: `{"stream": …}`, `{"status": …}` while a base image is pulled,
//! `{"aux": {"ID": "sha256:…"}}`, and on failure `{"errorDetail": {"code": n, "message": …}, "error": …}`.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use engine::Engine;
use engine::build::{self, Message, Options};
use engine::model::{Error, Result};
use engine::transfer::parse_platform;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bridge::{Sink, reader, stream};
use crate::containers::until;
use crate::input::{Body as JsonBody, Params};
use crate::{Failure, Shared, call};

const JSON: &str = "application/json";

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/build", post(classic))
        .route("/build/prune", post(prune))
        .route("/cauldron/v1/build", post(local))
}

/// The body of `POST /cauldron/v1/build`. Paths are the engine's machine's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalBuild {
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
}

async fn local(
    State(engine): State<Shared>,
    JsonBody(body): JsonBody<LocalBuild>,
) -> std::result::Result<Response, Failure> {
    use base64::Engine as _;
    let decode = |(id, text): (String, String)| match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(value) => Ok((id, value)),
        Err(error) => Err(Error::invalid(format!("secret {id}: its value is not base64")).caused_by(error)),
    };
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
        secrets: body.secrets.into_iter().map(decode).collect::<Result<_>>()?,
        contexts: body.contexts,
        agents: body.agents,
        allow: body.allow,
        memory: body.memory,
        shm_bytes: body.shm_bytes,
        mark_errors: false,
    };
    let (quiet, remote) = (body.quiet, body.remote);
    stream(&engine, JSON, move |engine, sink| {
        if !options.context.as_os_str().is_empty() {
            return run(engine, &options, quiet, &sink);
        }
        let mut options = options;
        if remote.is_empty() {
            let empty = engine.new_context()?;
            empty.path().clone_into(&mut options.context);
            return run(engine, &options, quiet, &sink);
        }
        let fetched = fetch(engine, &mut options, &remote, true, &sink)?;
        let done = run(engine, &options, quiet, &sink);
        drop(fetched);
        done
    })
    .await
}

async fn classic(
    State(engine): State<Shared>,
    params: Params,
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
        mark_errors: true,
        memory: params.number::<u64>("memory")?.filter(|bytes| *bytes > 0),
        shm_bytes: params.number::<u64>("shmsize")?.filter(|bytes| *bytes > 0),
        ..Options::default()
    };
    let (quiet, remote) = (params.flag("q"), params.text("remote").to_owned());
    let body = reader(body);
    stream(&engine, JSON, move |engine, sink| {
        let mut options = options;
        if remote.is_empty() || remote == "client-session" {
            let unpacked = engine.new_context()?;
            unpacked.path().clone_into(&mut options.context);
            build::archive::unpack_context(&options.context, body)?;
            return run(engine, &options, quiet, &sink);
        }
        let fetched = fetch(engine, &mut options, &remote, false, &sink)?;
        let done = run(engine, &options, quiet, &sink);
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

/// What fails before anything was told is an error of the request.
fn run(engine: &Engine, options: &Options, quiet: bool, sink: &Sink) -> Result<()> {
    let told = AtomicBool::new(false);
    let report = |message: Message| {
        told.store(true, Ordering::Relaxed);
        match message {
            Message::Stream(_) | Message::Pull(_) if quiet => Ok(()),
            Message::Stream(text) => sink.message(&json!({ "stream": text })),
            Message::Pull(progress) => crate::images_transfer::step(sink, &progress),
            Message::Image(id) => {
                sink.message(&json!({ "aux": { "ID": id } }))?;
                if quiet { sink.message(&json!({ "stream": format!("{id}\n") })) } else { Ok(()) }
            }
        }
    };
    match engine.build(options, &report) {
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
            sink.message(&json!({ "errorDetail": detail, "error": message }))
        }
    }
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
    let pruned = call(&engine, move |engine| engine.prune_build_cache(&filters, until)).await?;
    let deleted = Some(pruned.deleted).filter(|deleted| !deleted.is_empty());
    Ok(Json(json!({ "CachesDeleted": deleted, "SpaceReclaimed": pruned.bytes })))
}

fn given(map: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    map.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
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
