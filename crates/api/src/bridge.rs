//! Between the synchronous engine and asynchronous bodies: a request's body as a reader, a writer as a response's body,
//! and Docker's streams of JSON messages.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use engine::Engine;
use engine::model::{Error, Kind, Result};
use futures_util::StreamExt as _;
use std::io::{self, Read, Write};
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::{Failure, Shared};

/// Chunks that wait between the two sides.
const WAITING: usize = 16;
/// Bytes of one chunk.
const CHUNK: usize = 128 << 10;

/// A request's body, read by a blocking thread.
pub(crate) struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

/// Pumps a body to a reader.
pub(crate) fn reader(body: Body) -> BodyReader {
    let (sender, chunks) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let mut stream = body.into_data_stream();
        while let Some(chunk) = stream.next().await {
            if sender.send(chunk.map_err(io::Error::other)).await.is_err() {
                return;
            }
        }
    });
    BodyReader { chunks, current: Bytes::new() }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Where an engine call writes a response's body. Cloneable; lines of several threads do not mix.
#[derive(Clone)]
pub(crate) struct Sink(mpsc::Sender<Result<Bytes>>);

impl Sink {
    /// Sends one JSON message.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) fn message(&self, message: &serde_json::Value) -> Result<()> {
        let mut line = message.to_string();
        line.push_str("\r\n");
        self.send(line.into())
    }
    /// Resolves when the client is gone.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
    /// Sends Docker's message of a failure.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) fn failure(&self, error: &Error) -> Result<()> {
        self.send(failure_line(error))
    }
    fn send(&self, bytes: Bytes) -> Result<()> {
        self.0.blocking_send(Ok(bytes)).map_err(|_| Error::new(Kind::Cancelled, "the client is gone"))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK);
        self.send(Bytes::copy_from_slice(&bytes[..count]))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs an engine call whose output is the response. What fails before the first byte is an ordinary error response; what
/// fails later is Docker's `errorDetail` message (`json`), or breaks the body off.
pub(crate) async fn stream(
    engine: &Shared,
    kind: &'static str,
    work: impl FnOnce(&Engine, Sink) -> Result<()> + Send + 'static,
) -> std::result::Result<Response, Failure> {
    let engine = Arc::clone(engine);
    let (sender, mut receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = work(&engine, Sink(sender.clone())) {
            // Nobody to tell where the client is gone.
            let _ = sender.blocking_send(Err(engine.explain(error)));
        }
    });
    let first = match receiver.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(Failure(error)),
        None => Bytes::new(),
    };
    let json = kind == "application/json";
    let rest = futures_util::stream::unfold(receiver, move |mut receiver| async move {
        let item = match receiver.recv().await? {
            Ok(bytes) => Ok(bytes),
            Err(error) if json => Ok(failure_line(&error)),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        Some((item, receiver))
    });
    let body = Body::from_stream(futures_util::stream::once(async { Ok(first) }).chain(rest));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

fn failure_line(error: &Error) -> Bytes {
    let text = match error.hint_text() {
        Some(hint) => format!("{error}\n{hint}"),
        None => error.to_string(),
    };
    let mut line = serde_json::json!({ "errorDetail": { "message": text }, "error": text }).to_string();
    line.push_str("\r\n");
    line.into()
}
