//! `/events`

use crate::{Failure, Shared, call, input::Params};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use engine::event::Events;
use engine::model::event::Event;
use engine::model::time::Timestamp;
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::io::unix::AsyncFd;

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router.route("/events", get(events))
}

/// `GET /events`: what happened since, then what happens, until.
async fn events(State(engine): State<Shared>, params: Params) -> Result<Response, Failure> {
    let (filters, since, until) = (params.filters()?, params.time("since")?, params.time("until")?);
    let events = call(&engine, move |engine| engine.events(filters, since, until)).await?;
    let stream = Following::new(events)?;
    let body = Body::from_stream(futures_util::stream::unfold(stream, |mut stream| async {
        stream.next().await.map(|piece| (piece, stream))
    }));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The log, followed without a thread: the event loop waits on its inotify descriptor.
struct Following {
    events: Events,
    watch: AsyncFd<OwnedFd>,
    deadline: Option<tokio::time::Instant>,
    started: bool,
    over: bool,
}

impl Following {
    fn new(events: Events) -> Result<Self, Failure> {
        let deadline = events.until().map(|until| {
            let now = Timestamp::from_system(std::time::SystemTime::now());
            let left = until.total_nanos().saturating_sub(now.total_nanos());
            tokio::time::Instant::now() + std::time::Duration::from_nanos(left.max(0).unsigned_abs())
        });
        let watch = crate::poll::readable(events.as_fd())?;
        Ok(Self { events, watch, deadline, started: false, over: false })
    }
    /// The next piece of the answer; `None` at its end.
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        while !self.over {
            if self.started {
                let ready = self.watch.readable();
                match self.deadline {
                    None => ready.await.ok()?.clear_ready(),
                    Some(deadline) => match tokio::time::timeout_at(deadline, ready).await {
                        Ok(ready) => ready.ok()?.clear_ready(),
                        Err(_) => self.over = true,
                    },
                }
            }
            let first = !std::mem::replace(&mut self.started, true);
            let events = match self.events.read() {
                Ok(events) => events,
                Err(error) => return Some(Err(std::io::Error::other(error))),
            };
            let mut lines = Vec::new();
            for event in &events {
                lines.extend(wire(event));
            }
            // The first piece may be empty: it makes the head of the answer go out, so that the client knows that
            // it is listening.
            if first || !lines.is_empty() {
                return Some(Ok(lines.into()));
            }
        }
        None
    }
}

/// One event as a line, with the fields of API 1.21 that tools still read.
fn wire(event: &Event) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Wire<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<&'a str>,
        #[serde(flatten)]
        event: &'a Event,
    }
    let old = matches!(event.kind.as_str(), "container" | "image");
    let from = event.actor.attributes.get("image").map(String::as_str);
    let line = Wire {
        status: old.then_some(event.action.as_str()),
        id: old.then_some(event.actor.id.as_str()),
        from: from.filter(|_| event.kind == "container"),
        event,
    };
    let mut text = serde_json::to_vec(&line).unwrap_or_default();
    text.push(b'\n');
    text
}
