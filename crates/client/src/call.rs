//! Raw calls: JSON in and out as it is, streams, hijacked connections.

use crate::transport::{Transport, chain};
use crate::{Endpoint, Error, Result};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Bytes of an error answer that are read at most.
const ERROR_BYTES: usize = 1024 * 1024;
/// Bytes of one line of a JSON stream at most.
const LINE_BYTES: usize = 16 * 1024 * 1024;

/// A client of one engine. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    endpoint: Endpoint,
}

impl Client {
    pub(crate) fn new(transport: Transport, endpoint: Endpoint) -> Self {
        Self { transport, endpoint }
    }

    /// The typed face of the same engine.
    ///
    /// # Errors
    /// Never in practice: nothing is sent.
    pub fn docker(&self) -> Result<bollard::Docker> {
        let transport = self.transport.clone();
        let send = move |request: bollard::BollardRequest| {
            let transport = transport.clone();
            async move {
                let sent = transport.send(request).await;
                sent.map_err(|error| bollard::errors::Error::IOError { err: std::io::Error::other(error) })
            }
        };
        let day = 24 * 60 * 60;
        Ok(bollard::Docker::connect_with_custom_transport(
            send,
            Some("http://docker"),
            day,
            bollard::API_DEFAULT_VERSION,
        )?)
    }

    /// Whether the engine is this process.
    pub fn embedded(&self) -> bool {
        matches!(self.endpoint, Endpoint::Embedded(_))
    }

    /// Where the engine is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A bare connection to the engine, for whoever speaks the API over it (`system dial-stdio`).
    ///
    /// # Errors
    /// The engine is not there.
    pub async fn dial(&self) -> Result<Box<dyn crate::Io>> {
        self.transport.connect().await
    }

    /// Sends a request; an answer of 400 and above is an error with the engine's words.
    ///
    /// # Errors
    /// The engine is not there, or says no.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let response = self.transport.send(request).await?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(refusal(response).await);
        }
        Ok(response)
    }

    /// One call with a JSON body or none; the answer with its body unread.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>> {
        self.send(request(method, path, body)?).await
    }

    /// One call whose answer is JSON; [`Value::Null`] where there is none.
    ///
    /// # Errors
    /// As [`Client::send`]; the answer is not JSON.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = self.bytes(method, path, body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Protocol(format!("{path}: malformed answer: {error}")))
    }

    /// One call whose answer is read whole.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn bytes(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes> {
        let response = self.call(method, path, body).await?;
        let collected = response.into_body().collect().await;
        collected
            .map(|body| body.to_bytes())
            .map_err(|error| Error::Protocol(format!("{path}: {}", chain(&error))))
    }

    /// `GET` of JSON.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, None).await
    }

    /// `POST` without a body whose answer does not matter.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(&self, path: &str) -> Result<()> {
        self.bytes(Method::POST, path, None).await.map(|_| ())
    }

    /// `POST` without a body; what the engine did differently from what was asked, for the user to know.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post_warned(&self, path: &str) -> Result<Vec<String>> {
        let response = self.call(Method::POST, path, None).await?;
        let warnings = response.headers().get_all("cauldron-warning").iter();
        Ok(warnings.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect())
    }

    /// A call whose answer is a stream of JSON objects.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn lines(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Lines> {
        Ok(Lines::new(self.call(method, path, body).await?))
    }

    /// A request with headers and a body that need not be JSON.
    ///
    /// # Errors
    /// As [`Client::send`]; a header is malformed.
    pub async fn upload(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            let wrong = || Error::Options(format!("malformed header {name}"));
            let name: HeaderName = name.parse().map_err(|_| wrong())?;
            request = request.header(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        self.send(request.body(body).map_err(|error| Error::Options(format!("{path}: {error}")))?).await
    }

    /// A call that turns its connection into a stream of the process's bytes (attach, exec).
    ///
    /// # Errors
    /// As [`Client::send`]; the engine does not hand the connection over.
    pub async fn hijack(&self, path: &str, body: Option<&Value>) -> Result<TokioIo<Upgraded>> {
        let mut request = request(Method::POST, path, body)?;
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Protocol(format!("{path}: the engine did not hand its connection over")));
        }
        let upgraded = hyper::upgrade::on(response).await;
        upgraded.map(TokioIo::new).map_err(|error| Error::Protocol(format!("{path}: {}", chain(&error))))
    }
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Result<Request<Body>> {
    let mut request = Request::builder().method(method).uri(path);
    let bytes = match body {
        Some(value) => {
            request = request.header(CONTENT_TYPE, "application/json");
            Bytes::from(value.to_string())
        }
        None => Bytes::new(),
    };
    let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    request.body(body).map_err(|error| Error::Options(format!("malformed request {path}: {error}")))
}

async fn refusal(response: Response<Incoming>) -> Error {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ERROR_BYTES).collect().await;
    let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|value| value["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
    let message = if message.is_empty() { format!("the engine answered {status}") } else { message };
    Error::Engine { status: status.as_u16(), message }
}

/// A stream of JSON objects, one or more a chunk, split by white space as Docker's streams are.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    over: bool,
}

impl Lines {
    /// The answer's body as JSON objects.
    pub fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new(), over: false }
    }

    /// The next object; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or what came is not JSON.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(value) = self.take()? {
                return Ok(Some(value));
            }
            if self.over {
                return Ok(None);
            }
            if self.buffer.len() > LINE_BYTES {
                return Err(Error::Protocol("the engine's stream has an oversized message".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(Error::Protocol(format!("stream broke: {}", chain(&error)))),
                None => self.over = true,
            }
        }
    }

    fn take(&mut self) -> Result<Option<Value>> {
        let mut stream = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        let next = stream.next();
        let used = stream.byte_offset();
        match next {
            None => Ok(None),
            Some(Ok(value)) => {
                let _ = self.buffer.split_to(used);
                Ok(Some(value))
            }
            Some(Err(error)) if error.is_eof() && !self.over => Ok(None),
            Some(Err(error)) if error.is_eof() => Ok(None),
            Some(Err(error)) => Err(Error::Protocol(format!("malformed stream: {error}"))),
        }
    }
}

/// An answer's body, piece by piece.
pub struct Chunks {
    body: Incoming,
}

impl Chunks {
    /// The body of an answer.
    pub fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body() }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Error::Protocol(format!("stream broke: {}", chain(&error))))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A body that is fed while it is sent: the sender's end and the body.
pub fn body_channel(capacity: usize) -> (tokio::sync::mpsc::Sender<std::io::Result<Bytes>>, Body) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(capacity);
    let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let frames = futures_util::StreamExt::map(stream, |chunk| chunk.map(Frame::data));
    (sender, http_body_util::StreamBody::new(frames).boxed_unsync())
}

/// Percent-encodes a path segment or query value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A path with its query: empty values are left out.
pub fn query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut out = path.to_owned();
    let mut separator = '?';
    for (name, value) in pairs {
        if !value.is_empty() {
            out.push(separator);
            out.push_str(name);
            out.push('=');
            out.push_str(&encode(&value));
            separator = '&';
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let pairs = [("all", "1".to_owned()), ("limit", String::new()), ("filters", "{\"a\"}".to_owned())];
        assert_eq!(query("/x", pairs), "/x?all=1&filters=%7B%22a%22%7D");
    }
}
