//! `/containers/{id}/attach`, `attach/ws`, `logs` and `resize`: a container's streams.

use crate::hijack::{Far, First, Hijack, content_type};
use crate::{ApiVersion, Failure, Shared, call, input::Params, websocket};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State, WebSocketUpgrade};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use engine::attach::{Attached, Streams};
use engine::log::{Logs, Next};
use engine::model::detach::{self, Detach};
use engine::model::log::Show;
use engine::model::{Error, Result};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/attach/ws", get(attach_websocket))
        .route("/containers/{id}/logs", get(logs))
        .route("/containers/{id}/resize", post(resize))
}

/// Rows and columns of `h` and `w`.
pub(crate) fn size(params: &Params) -> Result<(u16, u16)> {
    let rows = params.number("h")?.ok_or_else(|| Error::invalid("invalid resize height: h is missing"))?;
    let columns = params.number("w")?.ok_or_else(|| Error::invalid("invalid resize width: w is missing"))?;
    Ok((rows, columns))
}

/// The detach sequence that a client asks for, of a terminal.
pub(crate) fn detach_keys(text: &str) -> Result<Detach> {
    Ok(Detach::new(if text.is_empty() { detach::DEFAULT.to_vec() } else { detach::parse(text)? }))
}

async fn resize(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    let (rows, columns) = size(&params)?;
    call(&engine, move |engine| engine.resize(&id, rows, columns)).await?;
    Ok(StatusCode::OK)
}

async fn attach(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Result<Response, Failure> {
    Ok(attachment(engine, id, &params).await?.answer(request))
}

/// `GET …/attach/ws`: the same over a websocket, without frames.
async fn attach_websocket(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    version: ApiVersion,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Failure> {
    Ok(websocket::answer(attachment(engine, id, &params).await?, upgrade, version))
}

async fn attachment(engine: Shared, id: String, params: &Params) -> Result<Hijack, Failure> {
    let streams =
        Streams { stdin: params.flag("stdin"), stdout: params.flag("stdout"), stderr: params.flag("stderr") };
    let (stream, with_logs) = (params.flag("stream"), params.flag("logs"));
    let keys = detach_keys(params.text("detachKeys"))?;
    let (container, far, first) = call(&engine, move |engine| {
        let container = engine.find(&id)?;
        let first = if with_logs {
            let raw = container.spec.process.tty;
            let show = Show { stdout: streams.stdout, stderr: streams.stderr, raw, ..Show::default() };
            First::Logs(Box::new(engine.logs(&id, show, None, false)?))
        } else {
            First::Bytes(Vec::new())
        };
        if !stream {
            return Ok((container, Far::Nothing, first));
        }
        let (container, attached) = engine.attach(&id, streams)?;
        let far = match attached {
            Attached::Now(stream) => Far::Now(stream),
            Attached::WhenStarted(listener) => Far::Later(listener),
        };
        Ok((container, far, first))
    })
    .await?;
    let tty = container.spec.process.tty;
    let stdin = streams.stdin && container.spec.process.open_stdin;
    Ok(Hijack {
        far,
        first,
        multiplexed: !tty,
        framed_far: !tty,
        stdin,
        detach: (tty && stdin).then_some(keys),
        at_end: Some(Box::new(move |detached| {
            if detached {
                engine.detached(&container);
            }
        })),
    })
}

async fn logs(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    version: ApiVersion,
) -> Result<Response, Failure> {
    let (since, until) = (params.time("since")?, params.time("until")?);
    // Docker reads everything that is no number as `all`.
    let tail = params.text("tail").parse::<u64>().ok();
    let follow = params.flag("follow");
    let mut show = Show {
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        timestamps: params.flag("timestamps"),
        details: params.flag("details"),
        raw: false,
        since,
        until,
    };
    let (logs, tty) = call(&engine, move |engine| {
        let of = engine.log_of(&id)?;
        show.raw = of.tty;
        Ok((engine.logs(of.id.as_str(), show, tail, follow)?, of.tty))
    })
    .await?;
    let stream = Following::new(logs)?;
    let body = futures_util::stream::unfold(stream, |mut stream| async {
        stream.next().await.map(|piece| (piece, stream))
    });
    Ok(([(header::CONTENT_TYPE, content_type(!tty, version))], Body::from_stream(body)).into_response())
}

/// A log, piece by piece, followed without a thread.
struct Following {
    logs: Logs,
    watch: Option<AsyncFd<OwnedFd>>,
    next: Next,
    started: bool,
}

impl Following {
    fn new(logs: Logs) -> Result<Self, Failure> {
        let watch = logs.watch().map(crate::poll::readable).transpose()?;
        Ok(Self { logs, watch, next: Next::More, started: false })
    }
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            match self.next {
                Next::Over => return None,
                Next::More => {}
                Next::Wait => self.watch.as_ref()?.readable().await.ok()?.clear_ready(),
            }
            let mut out = Vec::new();
            match self.logs.read(&mut out) {
                Ok(next) => self.next = next,
                Err(error) => return Some(Err(std::io::Error::other(error))),
            }
            // The first piece may be empty: it makes the head of the answer go out.
            let first = !std::mem::replace(&mut self.started, true);
            if first || !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
    }
}
