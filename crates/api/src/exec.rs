//! `/exec` and `/containers/{id}/exec`

use crate::hijack::{Far, First, Hijack};
use crate::{Failure, Shared, call, input::Body, input::Params, streams};
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::Engine;
use engine::exec::ExecRequest;
use engine::model::log::{Stream, frame};
use engine::model::{Error, Result};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

/// Docker's `ExecConfig`; every field may be absent or null.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    user: Option<String>,
    privileged: Option<bool>,
    tty: Option<bool>,
    console_size: Option<(u16, u16)>,
    attach_stdin: Option<bool>,
    attach_stdout: Option<bool>,
    attach_stderr: Option<bool>,
    // docker-py writes it so; Go reads names in any case.
    #[serde(alias = "detachKeys")]
    detach_keys: Option<String>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    cmd: Option<Vec<String>>,
}

/// Docker's `ExecStartConfig`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Start {
    detach: Option<bool>,
    tty: Option<bool>,
    console_size: Option<(u16, u16)>,
}

async fn create(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    Body(config): Body<Config>,
) -> Result<Response, Failure> {
    let request = ExecRequest {
        argv: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        tty: config.tty.unwrap_or_default(),
        privileged: config.privileged.unwrap_or_default(),
        stdin: config.attach_stdin.unwrap_or_default(),
        stdout: config.attach_stdout.unwrap_or_default(),
        stderr: config.attach_stderr.unwrap_or_default(),
        detach_keys: config.detach_keys.unwrap_or_default(),
        console_size: config.console_size,
    };
    let id = call(&engine, move |engine| engine.exec_create(&id, &request)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))).into_response())
}

/// `POST /exec/{id}/start`. The process starts when the answer's head is out: clients lose output that comes together with
/// it. So a failure goes into the stream, as Docker's does; clients then ask the exec for its exit code, 126 or 127.
///
/// As in Docker, the `Tty` of this request says whether the stream has frames, whatever the exec has.
async fn start(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    // A client that upgrades sends its JSON with a length; what comes after it is the process's input.
    let Body(config) = Body::<Start>::from_request(Request::new(body), &engine).await?;
    let request = Request::from_parts(parts, axum::body::Body::empty());
    let detach = config.detach.unwrap_or_default();
    let exec = call(&engine, move |engine| engine.exec(&id)).await?;
    let keys = streams::detach_keys(&exec.request.detach_keys)?;
    let (claimed, size) = (exec.clone(), config.console_size);
    if detach {
        let started = move |engine: &Engine| {
            engine.exec_claim(&claimed)?;
            engine.exec_start(&claimed, true, size)
        };
        call(&engine, started).await?;
        return Ok(StatusCode::OK.into_response());
    }
    call(&engine, move |engine| engine.exec_claim(&claimed)).await?;
    let framed = !config.tty.unwrap_or_default();
    let (started, on) = (exec.clone(), Arc::clone(&engine));
    let far = Far::Start(Box::new(move || {
        on.exec_start(&started, false, size).map_err(|error| message(framed, &error))
    }));
    let (tty, stdin) = (exec.request.tty, exec.request.stdin);
    let hijack = Hijack {
        far,
        first: First::Bytes(Vec::new()),
        multiplexed: framed,
        framed_far: !tty,
        stdin,
        detach: (tty && stdin).then_some(keys),
        at_end: Some(Box::new(move |detached| {
            if detached {
                engine.exec_detached(&exec);
            }
        })),
    };
    Ok(hijack.answer(request))
}

/// An error as the process's output.
fn message(framed: bool, error: &Error) -> Vec<u8> {
    let text = format!("{error}\r\n");
    if !framed {
        return text.into_bytes();
    }
    let mut framed = Vec::new();
    frame(Stream::Stdout, text.as_bytes(), &mut framed);
    framed
}

async fn resize(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    let (rows, columns) = streams::size(&params)?;
    call(&engine, move |engine| engine.exec_resize(&id, rows, columns)).await?;
    Ok(StatusCode::OK)
}

async fn inspect(State(engine): State<Shared>, Path(id): Path<String>) -> Result<Response, Failure> {
    let exec = call(&engine, move |engine| engine.exec(&id)).await?;
    let state = exec.state.clone().unwrap_or_default();
    let request = &exec.request;
    let keys = match request.detach_keys.as_str() {
        "" => Vec::new(),
        text => engine::model::detach::parse(text)?,
    };
    let (entrypoint, arguments) =
        request.argv.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    let mut body = json!({
        "ID": exec.id,
        "Running": state.running,
        "ExitCode": state.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": request.privileged,
        },
        "OpenStdin": request.stdin,
        "OpenStdout": request.stdout,
        "OpenStderr": request.stderr,
        "CanRemove": false,
        "ContainerID": exec.container.as_str(),
        "DetachKeys": STANDARD.encode(keys),
        "Pid": state.pid,
    });
    if !request.user.is_empty() {
        body["ProcessConfig"]["user"] = json!(request.user);
    }
    Ok(Json(body).into_response())
}
