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
use engine::model::log::{Stream, Unframe, frame};
use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net as std_net;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::ApiVersion;

/// Without frames: a terminal's bytes.
pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Frames of stdout and stderr.
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// Bytes on the way in one direction.
pub(crate) const BUFFER: usize = 32 << 10;

/// The container's end of the connection.
pub(crate) enum Far {
    /// Connected.
    Now(std_net::UnixStream),
    /// Will connect when the container starts. The socket's file is removed afterwards.
    Later(std_net::UnixListener),
    /// Connects when the answer is out. What failed instead is sent in its place.
    Start(Box<dyn FnOnce() -> Result<Option<std_net::UnixStream>, Vec<u8>> + Send>),
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
    /// Whether the client's stream has frames.
    pub multiplexed: bool,
    /// Whether the container's has.
    pub framed_far: bool,
    /// Pass the client's bytes on.
    pub stdin: bool,
    /// Keys that end the connection and leave the process running.
    pub detach: Option<Detach>,
    /// Called before the client sees the end.
    pub at_end: Option<AtEnd>,
}

/// A connection's socket, an extension of its requests: tells a client that only stopped sending from one that is gone.
#[derive(Clone)]
pub(crate) struct Peer(pub Arc<OwnedFd>);

impl Peer {
    /// The other end is closed altogether, not only for sending. A unix socket says so at once; TCP once it was told that
    /// nobody is there, by an answer to data or to a probe.
    fn is_gone(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).is_ok()
            && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

/// How a client's going away shows while nothing is sent.
pub(crate) enum Gone {
    /// On its socket.
    Peer(Peer),
    /// By dropping the other end.
    Dropped(oneshot::Receiver<()>),
    /// When something is sent next.
    Unknown,
}

impl Gone {
    /// Ends when the client is gone.
    async fn wait(self) {
        match self {
            Self::Peer(peer) => {
                if let Ok(socket) = crate::poll::writable(peer.0.as_fd()) {
                    // Each change of the socket wakes this up; most are room for more bytes.
                    while let Ok(mut ready) = socket.writable().await {
                        if peer.is_gone() {
                            return;
                        }
                        ready.clear_ready();
                    }
                }
                std::future::pending().await
            }
            Self::Dropped(receiver) => drop(receiver.await),
            Self::Unknown => std::future::pending().await,
        }
    }
}

/// Waits until the client has read the answer's head, but not for long. Some clients (docker-py) lose the output that they
/// find behind it in one read; dockerd is slow enough for them.
async fn head_read(peer: Option<&Peer>) {
    let Some(peer) = peer else { return };
    for _ in 0..200 {
        if engine::attach::unread(peer.0.as_fd()) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
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
    pub(crate) fn answer(self, mut request: Request) -> Response {
        let gone = request.extensions().get::<Peer>().cloned().map_or(Gone::Unknown, Gone::Peer);
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
                    self.run(TokioIo::new(upgraded), gone).await;
                }
            });
        } else {
            let (near, far) = tokio::io::duplex(BUFFER);
            let (output, input) = tokio::io::split(near);
            let (alive, dropped) = oneshot::channel::<()>();
            tokio::spawn(self.run(far, Gone::Dropped(dropped)));
            tokio::spawn(feed(request.into_body(), input));
            let output = tokio_util::io::ReaderStream::new(output);
            *response.body_mut() = Body::from_stream(output.inspect(move |_| {
                let _ = &alive;
            }));
        }
        response
    }

    /// Copies both ways until the output ends, the client is gone or the detach keys came.
    pub(crate) async fn run<C: AsyncRead + AsyncWrite + Unpin>(self, client: C, gone: Gone) {
        let Self { far, first, multiplexed, framed_far, stdin, detach, at_end } = self;
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let peer = match &gone {
            Gone::Peer(peer) => Some(peer.clone()),
            _ => None,
        };
        let copying = async {
            send_first(first, &mut to_client, peer.as_ref()).await.ok()?;
            let mut far = match connect(far).await {
                Ok(far) => far?,
                Err(message) => {
                    head_read(peer.as_ref()).await;
                    let _ = to_client.write_all(&message).await;
                    return None;
                }
            };
            head_read(peer.as_ref()).await;
            // Borrowed halves: an owned one shuts its direction down when it is dropped, which a terminal takes for
            // Ctrl-D.
            let (mut from_far, mut to_far) = far.split();
            let output = output(&mut from_far, &mut to_client, framed_far, multiplexed);
            let input = input(&mut from_client, &mut to_far, stdin, detach);
            tokio::pin!(output, input);
            tokio::select! {
                _ = &mut output => Some(false),
                end = &mut input => match end {
                    End::OfInput => {
                        let _ = output.await;
                        Some(false)
                    }
                    End::Detached => Some(true),
                    End::Broken => Some(false),
                }
            }
        };
        let detached = tokio::select! {
            detached = copying => detached,
            () = gone.wait() => Some(false),
        };
        if let (Some(detached), Some(tell)) = (detached, at_end) {
            tell(detached);
        }
        let _ = to_client.shutdown().await;
    }
}

async fn send_first<W: AsyncWrite + Unpin>(
    first: First,
    client: &mut W,
    peer: Option<&Peer>,
) -> std::io::Result<()> {
    if matches!(&first, First::Bytes(bytes) if bytes.is_empty()) {
        return Ok(());
    }
    head_read(peer).await;
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

/// Copies the container's output to the client, with frames put around it or taken away where the two differ.
async fn output<R, W>(from: &mut R, to: &mut W, framed: bool, multiplexed: bool) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if framed == multiplexed {
        return tokio::io::copy(from, to).await.map(drop);
    }
    let mut buffer = vec![0; 32 << 10];
    let mut out = Vec::new();
    let mut unframe = Unframe::default();
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        out.clear();
        if multiplexed {
            frame(Stream::Stdout, &buffer[..count], &mut out);
        } else {
            unframe.feed(&buffer[..count], &mut out);
        }
        to.write_all(&out).await?;
        to.flush().await?;
    }
}

/// The connection to the container; waits for a container that is not started yet.
async fn connect(far: Far) -> Result<Option<UnixStream>, Vec<u8>> {
    let stream = match far {
        Far::Start(start) => match tokio::task::spawn_blocking(start).await {
            Ok(started) => started?,
            Err(_) => None,
        },
        Far::Later(listener) => return Ok(accept(listener).await),
        Far::Now(stream) => Some(stream),
        Far::Nothing => None,
    };
    let stream = stream.filter(|stream| stream.set_nonblocking(true).is_ok());
    Ok(stream.and_then(|stream| UnixStream::from_std(stream).ok()))
}

/// The connection that comes when the container starts.
async fn accept(listener: std_net::UnixListener) -> Option<UnixStream> {
    let path = listener.local_addr().ok().and_then(|address| Some(address.as_pathname()?.to_owned()));
    let _socket = path.map(Removed);
    listener.set_nonblocking(true).ok()?;
    let listener = UnixListener::from_std(listener).ok()?;
    listener.accept().await.ok().map(|(stream, _)| stream)
}

/// A socket's file, removed whether a container came or the client left before.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
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
async fn input<R, W>(from: &mut R, to: &mut W, stdin: bool, mut detach: Option<Detach>) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
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
            framed_far: false,
            stdin: true,
            detach,
            at_end: None,
        }
    }

    #[test]
    fn copies_both_ways_and_passes_half_close_on() {
        runtime().block_on(async {
            let (near, far) = std_net::UnixStream::pair().unwrap();
            let (client, server) = tokio::io::duplex(64);
            let task = tokio::spawn(hijack(Far::Now(near), None).run(server, Gone::Unknown));
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
            let task = tokio::spawn(hijack(Far::Now(near), Some(detach)).run(server, Gone::Unknown));
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
            let task = tokio::spawn(hijack(Far::Later(listener), None).run(server, Gone::Unknown));
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
