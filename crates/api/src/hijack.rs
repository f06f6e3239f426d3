//! Connections that stop being HTTP: attach and exec take over the connection and copy bytes both ways.
//!
//! A client that sends `Upgrade: tcp` gets `101 UPGRADED` and a raw connection. One that does not (curl, old clients) gets
//! `200` and the output as the body; its input is the request's body.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use engine::log::Next;
use engine::model::detach::Detach;
use hyper_util::rt::TokioIo;
use std::os::fd::OwnedFd;
use std::os::unix::net as std_net;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::ApiVersion;

/// Without frames: a terminal's bytes.
pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Frames of stdout and stderr.
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// The container's end of the connection.
pub(crate) enum Far {
    /// Connected.
    Now(std_net::UnixStream),
    /// Will connect when the container starts. The socket's file is removed afterwards.
    Later(std_net::UnixListener),
    /// Nothing more to come: only what is in `Hijack::first`.
    Nothing,
}

/// Sent before anything else, in the stream's format.
pub(crate) enum First {
    /// An error message, say.
    Bytes(Vec<u8>),
    /// What the container wrote so far.
    Logs(Box<engine::log::Logs>),
}

/// Called when the connection is over; true: the client left by the detach keys.
pub(crate) type AtEnd = Box<dyn FnOnce(bool) + Send>;

/// What to do with a connection.
pub(crate) struct Hijack {
    /// The container's end.
    pub far: Far,
    /// What comes first.
    pub first: First,
    /// Whether the stream has frames.
    pub multiplexed: bool,
    /// Pass the client's bytes on.
    pub stdin: bool,
    /// Keys that end the connection and leave the process running.
    pub detach: Option<Detach>,
    /// The client's connection, where it is a socket.
    pub peer: Option<Peer>,
    /// Called before the client sees the end.
    pub at_end: Option<AtEnd>,
}

/// A connection's socket, an extension of its requests: tells a client that only stopped sending from one that is gone.
#[derive(Clone)]
pub(crate) struct Peer(pub Arc<OwnedFd>);

impl Peer {
    /// The other end is closed altogether (a unix socket says so; TCP does not).
    fn is_gone(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).is_ok()
            && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

/// The content type that this client expects of a stream.
pub(crate) fn content_type(multiplexed: bool, version: ApiVersion) -> HeaderValue {
    HeaderValue::from_static(if multiplexed && version >= ApiVersion(1, 42) {
        MULTIPLEXED_STREAM
    } else {
        RAW_STREAM
    })
}

impl Hijack {
    /// Answers the request and goes on with the connection in the background.
    pub(crate) fn answer(mut self, mut request: Request) -> Response {
        self.peer = request.extensions().get::<Peer>().cloned();
        let version = request.extensions().get::<ApiVersion>().copied().unwrap_or(ApiVersion(u32::MAX, 0));
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(header::CONTENT_TYPE, content_type(self.multiplexed, version));
        if request.headers().contains_key(header::UPGRADE) {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
            response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"));
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                // A client that is gone before the upgrade is complete leaves nothing to do.
                if let Ok(upgraded) = upgrade.await {
                    self.run(TokioIo::new(upgraded)).await;
                }
            });
        } else {
            let (near, far) = tokio::io::duplex(64 << 10);
            let (output, input) = tokio::io::split(near);
            tokio::spawn(self.run(far));
            tokio::spawn(feed(request.into_body(), input));
            *response.body_mut() = Body::from_stream(tokio_util::io::ReaderStream::new(output));
        }
        response
    }

    /// Copies both ways until the output ends, the client is gone or the detach keys came.
    async fn run<C: AsyncRead + AsyncWrite + Unpin>(self, client: C) {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        if send_first(self.first, &mut to_client).await.is_err() {
            return;
        }
        let Some(mut far) = connect(self.far).await else {
            let _ = to_client.shutdown().await;
            return;
        };
        // Borrowed halves: an owned one shuts its direction down when it is dropped, which a terminal takes for Ctrl-D.
        let (mut from_far, mut to_far) = far.split();
        {
            let output = tokio::io::copy(&mut from_far, &mut to_client);
            let input = input(&mut from_client, &mut to_far, self.stdin, self.detach, self.peer.as_ref());
            tokio::pin!(output, input);
            let mut detached = false;
            tokio::select! {
                _ = &mut output => {}
                end = &mut input => match end {
                    End::OfInput => drop(output.await),
                    End::Detached => detached = true,
                    End::Broken => {}
                }
            }
            if let Some(tell) = self.at_end {
                tell(detached);
            }
        }
        let _ = to_client.shutdown().await;
    }
}

async fn send_first<W: AsyncWrite + Unpin>(first: First, client: &mut W) -> std::io::Result<()> {
    match first {
        First::Bytes(bytes) => client.write_all(&bytes).await?,
        First::Logs(mut logs) => {
            let mut piece = Vec::new();
            while logs.read(&mut piece).map_err(std::io::Error::other)? == Next::More {
                client.write_all(&piece).await?;
                piece.clear();
            }
            client.write_all(&piece).await?;
        }
    }
    client.flush().await
}

/// The connection to the container; waits for a container that is not started yet.
async fn connect(far: Far) -> Option<UnixStream> {
    let stream = match far {
        Far::Now(stream) => stream,
        Far::Nothing => return None,
        Far::Later(listener) => {
            let path =
                listener.local_addr().ok().and_then(|address| address.as_pathname().map(ToOwned::to_owned));
            listener.set_nonblocking(true).ok()?;
            let listener = UnixListener::from_std(listener).ok()?;
            let accepted = listener.accept().await;
            if let Some(path) = path {
                let _ = std::fs::remove_file(path);
            }
            return accepted.ok().map(|(stream, _)| stream);
        }
    };
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()
}

/// Why the client's bytes ended.
enum End {
    /// The client has no more, or the process takes no more: the output goes on.
    OfInput,
    /// The detach keys came.
    Detached,
    /// The connection broke: nobody is there to read the output either.
    Broken,
}

/// Passes the client's bytes on and closes the far side's input at their end.
async fn input<R, W>(
    from: &mut R,
    to: &mut W,
    stdin: bool,
    mut detach: Option<Detach>,
    peer: Option<&Peer>,
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 32 << 10];
    let mut out = Vec::new();
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => count,
            Err(_) => return End::Broken,
        };
        if !stdin {
            continue;
        }
        out.clear();
        let detached = match &mut detach {
            Some(detach) => detach.feed(&buffer[..count], &mut out),
            None => {
                out.extend_from_slice(&buffer[..count]);
                false
            }
        };
        if to.write_all(&out).await.is_err() {
            return End::OfInput;
        }
        if detached {
            return End::Detached;
        }
    }
    if peer.is_some_and(Peer::is_gone) {
        return End::Broken;
    }
    if stdin {
        let _ = to.shutdown().await;
    }
    End::OfInput
}

/// A plain request's body as the process's input.
async fn feed<W: AsyncWrite + Unpin>(mut body: Body, mut input: W) {
    use http_body_util::BodyExt as _;
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && input.write_all(&data).await.is_err()
        {
            return;
        }
    }
    let _ = input.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::model::detach;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn hijack(far: Far, detach: Option<Detach>) -> Hijack {
        Hijack {
            far,
            first: First::Bytes(b"log\n".to_vec()),
            multiplexed: false,
            stdin: true,
            detach,
            peer: None,
            at_end: None,
        }
    }

    #[test]
    fn copies_both_ways_and_passes_half_close_on() {
        runtime().block_on(async {
            let (near, far) = std_net::UnixStream::pair().unwrap();
            let (client, server) = tokio::io::duplex(64);
            let task = tokio::spawn(hijack(Far::Now(near), None).run(server));
            far.set_nonblocking(true).unwrap();
            let mut process = UnixStream::from_std(far).unwrap();
            let (mut read, mut write) = tokio::io::split(client);
            write.write_all(b"input").await.unwrap();
            write.shutdown().await.unwrap();
            let mut got = String::new();
            process.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "input");
            process.write_all(b"output after the input's end").await.unwrap();
            drop(process);
            let mut got = String::new();
            read.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "log\noutput after the input's end");
            task.await.unwrap();
        });
    }

    #[test]
    fn detach_keys_end_the_connection_only() {
        runtime().block_on(async {
            let (near, far) = std_net::UnixStream::pair().unwrap();
            let (client, server) = tokio::io::duplex(64);
            let detach = Detach::new(detach::DEFAULT.to_vec());
            let task = tokio::spawn(hijack(Far::Now(near), Some(detach)).run(server));
            far.set_nonblocking(true).unwrap();
            let mut process = UnixStream::from_std(far).unwrap();
            let (mut read, mut write) = tokio::io::split(client);
            write.write_all(b"ls\n\x10\x11lost").await.unwrap();
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            task.await.unwrap();
            let mut typed = String::new();
            process.read_to_string(&mut typed).await.unwrap();
            assert_eq!(typed, "ls\n");
        });
    }

    #[test]
    fn waits_for_a_container_that_starts_later() {
        let path = std::env::temp_dir().join(format!("cauldron-hijack-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = std_net::UnixListener::bind(&path).unwrap();
        runtime().block_on(async {
            let (mut client, server) = tokio::io::duplex(64);
            let task = tokio::spawn(hijack(Far::Later(listener), None).run(server));
            let mut process = UnixStream::connect(&path).await.unwrap();
            process.write_all(b"hello").await.unwrap();
            drop(process);
            let mut got = String::new();
            client.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "log\nhello");
            task.await.unwrap();
        });
        assert!(!path.exists());
    }
}
