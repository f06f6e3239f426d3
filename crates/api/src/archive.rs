//! `/containers/{id}/archive`, `export`, `changes`, and `/commit`: a container's files.

use crate::input::{Params, bytes};
use crate::{Failure, Shared, bridge, call};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine as _;
use engine::changes::Change;
use engine::commit::CommitRequest;
use engine::container::Delivery;
use engine::copy::{PathStat, PutOptions};
use engine::model::container::ContainerPath;
use engine::model::image::RunConfig;
use engine::model::{Error, Reference, Result};
use serde_json::{Value, json};

const TAR: &str = "application/x-tar";
const STAT: &str = "x-docker-container-path-stat";

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/containers/{id}/archive", get(get_archive).head(head_archive).put(put_archive))
        .route("/containers/{id}/export", get(export))
        .route("/containers/{id}/changes", get(changes))
        .route("/commit", post(commit))
        .route("/cauldron/v1/containers/{id}/files", put(deliver))
}

fn path_of(params: &Params) -> Result<String> {
    match params.text("path") {
        "" => Err(Error::invalid("missing \"path\" parameter: path cannot be empty")),
        path => Ok(path.to_owned()),
    }
}

/// Go's `os.FileMode` of an `st_mode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let bit = |from: u32, to: u32| if mode & from != 0 { 1 << to } else { 0 };
    kind | mode & 0o777 | bit(0o4000, 23) | bit(0o2000, 22) | bit(0o1000, 20)
}

fn stat_header(stat: &PathStat) -> HeaderValue {
    let json = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": stat.modified,
        "linkTarget": stat.link_target,
    });
    let text = base64::engine::general_purpose::STANDARD.encode(json.to_string());
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

async fn stat(engine: &Shared, id: String, path: String) -> Result<HeaderValue, Failure> {
    let stat = call(engine, move |engine| engine.stat_path(&id, &path)).await?;
    Ok(stat_header(&stat))
}

async fn head_archive(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let header = stat(&engine, id, path_of(&params)?).await?;
    Ok(([(STAT, header)], StatusCode::OK).into_response())
}

async fn get_archive(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let path = path_of(&params)?;
    let header = stat(&engine, id.clone(), path.clone()).await?;
    let mut response =
        bridge::stream(&engine, TAR, move |engine, sink| engine.get_archive(&id, &path, sink)).await?;
    response.headers_mut().insert(STAT, header);
    Ok(response)
}

async fn put_archive(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<StatusCode, Failure> {
    let path = path_of(&params)?;
    let options =
        PutOptions { keep_kinds: params.flag("noOverwriteDirNonDir"), as_user: params.flag("copyUIDGID") };
    let archive = bridge::reader(body);
    call(&engine, move |engine| engine.put_archive(&id, &path, archive, options)).await?;
    Ok(StatusCode::OK)
}

/// A file to deliver, on the wire.
#[derive(serde::Deserialize)]
struct File {
    /// Absolute, in the container.
    target: String,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default)]
    mode: u32,
    /// Base64.
    content: String,
}

/// Sets the files that a container gets in memory at its next start: secrets and configs, which no inspect shows.
async fn deliver(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    Json(files): Json<Vec<File>>,
) -> Result<StatusCode, Failure> {
    let read = |file: File| -> Result<Delivery> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(&file.content);
        let bytes = bytes.map_err(|error| {
            Error::invalid(format!("{}: malformed content", file.target)).caused_by(error)
        })?;
        let target = ContainerPath::try_from(file.target)?;
        Ok(Delivery { target, bytes, uid: file.uid, gid: file.gid, mode: file.mode })
    };
    let files: Vec<Delivery> = files.into_iter().map(read).collect::<Result<_>>()?;
    call(&engine, move |engine| engine.deliver(&id, &files)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn export(State(engine): State<Shared>, Path(id): Path<String>) -> Result<Response, Failure> {
    bridge::stream(&engine, "application/octet-stream", move |engine, sink| engine.export(&id, sink)).await
}

async fn changes(State(engine): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Failure> {
    let changes = call(&engine, move |engine| engine.changes(&id)).await?;
    let number = |change| match change {
        Change::Modified => 0,
        Change::Added => 1,
        Change::Deleted => 2,
    };
    let list: Vec<Value> =
        changes.into_iter().map(|(path, change)| json!({ "Path": path, "Kind": number(change) })).collect();
    Ok(Json(if list.is_empty() { Value::Null } else { list.into() }))
}

/// The configuration in the body of `POST /commit`: what it names wins over the container's own.
fn commit_config(body: &[u8]) -> Result<Option<RunConfig>> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let bad = |error| Error::invalid("invalid JSON in the request's body").caused_by(error);
    let mut value: Value = serde_json::from_slice(body).map_err(bad)?;
    let Some(fields) = value.as_object_mut() else { return Ok(None) };
    fields.retain(|_, field| !field.is_null());
    for key in ["Cmd", "Entrypoint"] {
        if let Some(word @ Value::String(_)) = fields.get(key).cloned() {
            fields.insert(key.to_owned(), Value::Array(vec![word]));
        }
    }
    serde_json::from_value(value).map(Some).map_err(bad)
}

async fn commit(State(engine): State<Shared>, params: Params, body: Body) -> Result<Response, Failure> {
    let config = commit_config(&bytes(body).await?)?;
    let container = params.text("container").to_owned();
    let (repo, tag) = (params.text("repo"), params.text("tag"));
    let reference = match (repo, tag) {
        ("", _) => None,
        (repo, "") => Some(Reference::parse(repo)?),
        (repo, tag) => Some(Reference::parse(&format!("{repo}:{tag}"))?),
    };
    let changes: Vec<String> = params
        .all("changes")
        .flat_map(str::lines)
        .map(str::to_owned)
        .filter(|line| !line.trim().is_empty())
        .collect();
    let request = CommitRequest {
        reference,
        author: params.text("author").to_owned(),
        comment: params.text("comment").to_owned(),
        pause: params.flag_or("pause", true),
        changes,
        config,
    };
    let id = call(&engine, move |engine| engine.commit(&container, request)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id.to_string() }))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_go() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o020_666), 1 << 26 | 1 << 21 | 0o666);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
    }
}
