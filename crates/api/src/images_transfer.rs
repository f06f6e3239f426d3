//! `/images`: create (pull, import), push, get (save), load; `/auth`, `/distribution`, and bases from a distribution.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::bootstrap::Base;
use engine::model::image::{Platform, RunConfig};
use engine::model::{Error, Kind, Reference, Result};
use engine::transfer::{Credentials, Progress, domain_of};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;

use crate::bridge::{Sink, reader, stream};
use crate::input::{Body as JsonBody, Params};
use crate::{Failure, Shared, call};

const JSON: &str = "application/json";
const TAR: &str = "application/x-tar";
/// Docker's header is URL-safe base64, with padding or without.
const HEADER_BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/get", get(save))
        .route("/images/{name}/get", get(save_one))
        .route("/images/{name}/push", post(push))
        .route("/auth", post(auth))
        .route("/distribution/{name}/json", get(distribution))
        .route("/cauldron/v1/distribution/{name}/manifest", get(manifest))
        .route("/images/search", get(search))
        .route("/cauldron/v1/images/bootstrap", post(bootstrap))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    username: String,
    password: String,
    auth: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

impl AuthConfig {
    /// What it says; nothing where it says nothing that makes sense, as in Docker.
    fn credentials(self) -> Option<Credentials> {
        if !self.registrytoken.is_empty() {
            return Some(Credentials::Bearer(self.registrytoken));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credentials::Identity(self.identitytoken));
        }
        if !self.username.is_empty() {
            return Some(Credentials::Basic { user: self.username, password: self.password });
        }
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(&self.auth)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = decoded.as_deref()?.split_once(':')?;
        Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

/// `X-Registry-Auth`. A malformed one counts as none, as in Docker: what needs credentials is then refused by the registry.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    header::<AuthConfig>(headers, "x-registry-auth").ok().flatten().unwrap_or_default().credentials()
}

/// The credentials of a push, which have to be there: in the header, or as the body of old clients.
async fn push_credentials(headers: &HeaderMap, body: Body) -> Result<Option<Credentials>, Failure> {
    if headers.get("x-registry-auth").is_some_and(|value| !value.is_empty()) {
        return Ok(credentials(headers));
    }
    let bytes = crate::input::bytes(body).await?;
    let config: Result<Option<AuthConfig>, _> = serde_json::from_slice(&bytes);
    config.map(|config| config.unwrap_or_default().credentials()).map_err(|error| {
        let why = if error.is_eof() { "EOF".to_owned() } else { error.to_string() };
        Error::invalid(format!("Bad parameters and missing X-Registry-Auth: {why}")).into()
    })
}

/// A registry that cannot be reached is an internal error in Docker's API.
fn unreachable(failure: Failure) -> Failure {
    match failure.0.kind() {
        Kind::Unavailable => {
            let error = Error::internal(failure.0.to_string());
            Failure(match failure.0.hint_text() {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
        _ => failure,
    }
}

/// JSON in URL-safe base64.
pub(crate) fn header<T: DeserializeOwned>(headers: &HeaderMap, name: &str) -> Result<Option<T>> {
    let bad = || Error::invalid(format!("malformed header {name}"));
    let Some(value) = headers.get(name) else { return Ok(None) };
    if value.is_empty() {
        return Ok(None);
    }
    // Some clients send the ordinary alphabet.
    let text = value.to_str().map_err(|_| bad())?.replace('+', "-").replace('/', "_");
    let bytes = HEADER_BASE64.decode(text).map_err(|error| bad().caused_by(error))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice::<Option<T>>(&bytes).map_err(|error| bad().caused_by(error))
}

/// Credentials by the domain of references.
pub(crate) fn by_registry(given: BTreeMap<String, AuthConfig>) -> Result<BTreeMap<String, Credentials>> {
    let mut found = BTreeMap::new();
    for (server, config) in given {
        if let Some(credentials) = config.credentials() {
            found.insert(domain_of(&server), credentials);
        }
    }
    Ok(found)
}

/// One step in Docker's shape.
pub(crate) fn step(sink: &Sink, progress: &Progress) -> Result<()> {
    let mut message = json!({ "status": progress.status });
    if !progress.id.is_empty() {
        message["id"] = json!(progress.id);
    }
    if let Some((current, total)) = progress.bytes {
        message["progressDetail"] = json!({ "current": current, "total": total });
        message["progress"] = json!(bar(current, total));
    } else if !progress.id.is_empty() && !progress.status.starts_with("Pulling from") {
        message["progressDetail"] = json!({});
    }
    sink.message(&message)
}

/// Docker's own bar, for clients that print it as it comes.
fn bar(current: u64, total: u64) -> String {
    let filled = usize::try_from(current.saturating_mul(50) / total.max(1)).unwrap_or(50).min(50);
    let megabytes = |bytes: u64| {
        format!("{:.4}", bytes as f64 / 1e6).trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let head = if filled < 50 { ">" } else { "" };
    format!(
        "[{}{head}{}]  {}MB/{}MB",
        "=".repeat(filled),
        " ".repeat(50 - filled - head.len()),
        megabytes(current),
        megabytes(total)
    )
}

async fn create(
    State(engine): State<Shared>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let platform = params.platform()?;
    if !params.text("fromImage").is_empty() {
        let credentials = credentials(&headers);
        let mut reference = Reference::parse(params.text("fromImage"))?;
        let tag = params.text("tag");
        if !tag.is_empty() {
            reference = match engine::model::Digest::parse(tag) {
                Ok(digest) => reference.at_digest(digest),
                Err(_) => reference.retagged(tag)?,
            };
        }
        let all = reference.tag().is_none() && reference.digest().is_none();
        return stream(&engine, JSON, move |engine, sink| {
            engine.pull(&reference, all, platform.as_ref(), credentials, &|progress| step(&sink, &progress))
        })
        .await
        .map_err(unreachable);
    }
    if params.text("fromSrc") != "-" {
        return Err(Error::invalid(
            "fromSrc: only - (the request's body) is taken: the engine fetches no URL",
        )
        .into());
    }
    let reference = match (params.text("repo"), params.text("tag")) {
        ("", _) => None,
        (repo, "") => Some(Reference::parse(repo)?),
        (repo, tag) => Some(Reference::parse(repo)?.retagged(tag)?),
    };
    let message = match params.text("message") {
        "" => "Imported from -".to_owned(),
        text => text.to_owned(),
    };
    let changes: Vec<String> = params.all("changes").map(str::to_owned).collect();
    let source = reader(body);
    stream(&engine, JSON, move |engine, sink| {
        let config = changed(&changes)?;
        let id = engine.import_image(source, reference.as_ref(), config, &message, platform)?;
        sink.message(&json!({ "status": id.as_str() }))
    })
    .await
}

fn changed(changes: &[String]) -> Result<RunConfig> {
    let mut config = RunConfig::default();
    for line in changes.iter().flat_map(|change| change.lines()).filter(|line| !line.trim().is_empty()) {
        engine::model::change::apply(&mut config, line)?;
    }
    Ok(config)
}

async fn load(State(engine): State<Shared>, params: Params, body: Body) -> Result<Response, Failure> {
    let quiet = params.flag("quiet");
    let source = reader(body);
    stream(&engine, JSON, move |engine, sink| {
        let report = |progress: Progress| {
            if quiet && progress.bytes.is_some() { Ok(()) } else { step(&sink, &progress) }
        };
        match engine.load_images(source, &report) {
            Ok(all) => all
                .into_iter()
                .try_for_each(|loaded| sink.message(&json!({ "stream": format!("{loaded}\n") }))),
            // Docker answers 200 whatever comes, and clients look for the message.
            Err(error) => sink.failure(&error),
        }
    })
    .await
}

async fn save(State(engine): State<Shared>, params: Params) -> Result<Response, Failure> {
    let names: Vec<String> = params
        .all("names")
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    save_names(&engine, names, params.platform()?).await
}

async fn save_one(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    save_names(&engine, vec![name], params.platform()?).await
}

async fn save_names(
    engine: &Shared,
    names: Vec<String>,
    platform: Option<Platform>,
) -> Result<Response, Failure> {
    stream(engine, TAR, move |engine, sink| {
        engine.check_saved(&names)?;
        for name in &names {
            engine.require_platform(name, platform.as_ref())?;
        }
        engine.save_images(&names, std::io::BufWriter::with_capacity(128 << 10, sink))
    })
    .await
}

async fn push(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let credentials = push_credentials(&headers, body).await?;
    let mut reference = Reference::parse(&name)?;
    if !params.text("tag").is_empty() {
        reference = reference.retagged(params.text("tag"))?;
    }
    stream(&engine, JSON, move |engine, sink| {
        let pushed = |tag: &str, digest: &engine::model::Digest, size: u64| {
            sink.message(&json!({ "progressDetail": {}, "aux": { "Tag": tag, "Digest": digest.as_str(), "Size": size } }))
        };
        engine.push(&reference, credentials, &|progress| step(&sink, &progress), &pushed)
    })
    .await
    .map_err(unreachable)
}

async fn auth(
    State(engine): State<Shared>,
    JsonBody(config): JsonBody<AuthConfig>,
) -> Result<Response, Failure> {
    let server = config.serveraddress.clone();
    let credentials = config
        .credentials()
        .ok_or_else(|| Error::invalid("credentials are missing: want username and password"))?;
    let token = call(&engine, move |engine| engine.login(&server, credentials)).await.map_err(unreachable)?;
    Ok(Json(json!({ "Status": "Login Succeeded", "IdentityToken": token })).into_response())
}

async fn distribution(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let credentials = credentials(&headers);
    let reference = Reference::parse(&name)?;
    let found = call(&engine, move |engine| engine.inspect_distribution(&reference, credentials))
        .await
        .map_err(unreachable)?;
    let descriptor = json!({ "mediaType": found.descriptor.media_type, "digest": found.descriptor.digest, "size": found.descriptor.size });
    Ok(Json(json!({ "Descriptor": descriptor, "Platforms": found.platforms })).into_response())
}

/// A manifest as it is, which Docker's clients fetch themselves.
async fn manifest(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let credentials = credentials(&headers);
    let reference = Reference::parse(&name)?;
    let insecure = params.flag("insecure");
    let (bytes, kind, digest) =
        call(&engine, move |engine| engine.registry_manifest(&reference, credentials, insecure)).await?;
    let descriptor = json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
    Ok(Json(json!({ "Descriptor": descriptor, "Manifest": String::from_utf8_lossy(&bytes) })).into_response())
}

/// What a search gives where nothing else is asked for, and at most.
const FOUND: usize = 25;
const MOST_FOUND: usize = 100;

async fn search(
    State(engine): State<Shared>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let credentials = credentials(&headers);
    let limit = params.number::<i64>("limit")?.unwrap_or(0);
    let limit = match usize::try_from(limit) {
        Ok(0) => FOUND,
        Ok(limit) if limit <= MOST_FOUND => limit,
        _ => {
            return Err(
                Error::invalid(format!("limit {limit} is outside the range of [1, {MOST_FOUND}]")).into()
            );
        }
    };
    let filters = params.filters()?;
    let flag = |name: &str| filters.get(name).first().map(|value| value == "true" || value == "1");
    let (official, automated) = (flag("is-official"), flag("is-automated"));
    let stars = filters.get("stars").iter().filter_map(|value| value.parse::<u64>().ok()).max().unwrap_or(0);
    let term = params.text("term").to_owned();
    if term.is_empty() {
        return Err(Error::invalid("search: a term is missing").into());
    }
    let found = call(&engine, move |engine| engine.search(&term, limit, credentials)).await?;
    let fits = found.iter().filter(|found| {
        found.star_count >= stars
            && official.is_none_or(|official| found.is_official == official)
            && automated.is_none_or(|automated| found.is_automated == automated)
    });
    let found: Vec<_> = fits
        .map(|found| {
            json!({
                "name": found.name, "description": found.description, "star_count": found.star_count,
                "is_official": found.is_official, "is_automated": found.is_automated
            })
        })
        .collect();
    Ok(Json(found).into_response())
}

/// What `/cauldron/v1/images/bootstrap` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BootstrapRequest {
    /// `debian:bookworm`.
    distribution: String,
    /// Name of the image, where it is not the distribution's.
    tag: String,
    mirror: String,
    include: Vec<String>,
    variant: String,
}

async fn bootstrap(
    State(engine): State<Shared>,
    JsonBody(request): JsonBody<BootstrapRequest>,
) -> Result<Response, Failure> {
    let distribution = Reference::parse(&request.distribution)?;
    let image = match request.tag.as_str() {
        "" => distribution.clone(),
        name => Reference::parse(name)?,
    };
    let base = Base {
        distribution,
        image: image.with_default_tag(),
        mirror: Some(request.mirror).filter(|mirror| !mirror.is_empty()),
        include: request.include,
        variant: Some(request.variant).filter(|variant| !variant.is_empty()),
    };
    stream(&engine, JSON, move |engine, sink| {
        let id = engine.bootstrap(&base, &|line| sink.message(&json!({ "status": line })))?;
        sink.message(&json!({ "status": format!("{} is {id}", base.image.familiar()), "aux": { "ID": id } }))
    })
    .await
}
