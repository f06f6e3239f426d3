//! The oldest form of a hijacked connection: an attach or exec request without `Upgrade` is answered by `200` and the
//! connection is raw from then on, both ways, without a length or chunks.
//!
//! HTTP libraries hand a connection over after `101` only. So the head of such a request gets the upgrade added on its
//! way in, and the `101` of its answer becomes `200` on its way out. It is done for a connection's first request, which
//! is where clients of this kind send it.
//!
//! The same first request may hold what Go's server takes and HTTP libraries refuse: people write
//! `curl --unix-socket … 'http://docker/containers/json?filters={"status":["running"]}'`. Such bytes of its first line are
//! percent-encoded on their way in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A head that is longer passes as it is: HTTP's own limits then apply.
const HEAD_BYTES: usize = 64 << 10;

/// A connection whose first request may be of the oldest form.
pub(super) struct Raw<S> {
    stream: S,
    reading: Reading,
    writing: Writing,
}

enum Reading {
    /// The first request's head, as far as it has come.
    Head(Vec<u8>),
    /// What is to be handed on before the stream, and how much of it was.
    Rest(Vec<u8>, usize),
    Stream,
}

enum Writing {
    /// The first answer's head, as far as it has come.
    Head(Vec<u8>),
    /// What is to be sent before the stream, and how much of it was.
    Rest(Vec<u8>, usize),
    Stream,
}

impl<S> Raw<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, reading: Reading::Head(Vec::new()), writing: Writing::Stream }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The name of a header line, in lower case.
fn name(line: &str) -> String {
    line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether this may be the start of a request of the oldest form.
fn may_be(bytes: &[u8]) -> bool {
    let start = b"POST /";
    bytes.iter().zip(start).all(|(one, other)| one == other)
}

/// Whether a head asks for a connection without upgrading it.
fn is_oldest_form(head: &str) -> bool {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let path = words.nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    if words.next() != Some("HTTP/1.1") {
        return false;
    }
    let attach = path.contains("/containers/") && path.ends_with("/attach");
    let exec = path.contains("/exec/") && path.ends_with("/start");
    // The body of an attach request is its input already; that of exec is what to start.
    let other = |line: &str| match name(line).as_str() {
        "upgrade" | "transfer-encoding" => true,
        "content-length" => attach && !line.trim_end().ends_with(": 0"),
        _ => false,
    };
    (attach || exec) && !lines.any(other)
}

/// A `101` head as the `200` of the oldest form; any other as it is.
fn rewritten(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    if !text.starts_with("HTTP/1.1 101 ") {
        return head.to_vec();
    }
    let kept =
        text.split("\r\n").skip(1).filter(|line| !["connection", "upgrade"].contains(&name(line).as_str()));
    let lines: Vec<&str> = std::iter::once("HTTP/1.1 200 OK").chain(kept).collect();
    lines.join("\r\n").into_bytes()
}

/// Whether a request line may hold this byte only encoded.
fn is_odd(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// A request line with odd bytes encoded.
fn encoded(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    for byte in line {
        if is_odd(*byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    out
}

impl<S: AsyncRead + Unpin> Raw<S> {
    /// Collects the first head and decides what becomes of it.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Reading::Head(head) = &mut self.reading {
            let mut piece = [0; 4096];
            let mut buffer = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let over = buffer.filled().is_empty();
            head.extend_from_slice(buffer.filled());
            let line = head.iter().position(|byte| *byte == b'\n');
            let end = end_of_head(head);
            if let Some(end) = end
                && may_be(head)
                && std::str::from_utf8(&head[..end]).is_ok_and(is_oldest_form)
            {
                head.splice(end - 2..end - 2, *b"Connection: Upgrade\r\nUpgrade: tcp\r\n");
                self.writing = Writing::Head(Vec::new());
            }
            if over || end.is_some() || (line.is_some() && !may_be(head)) || head.len() > HEAD_BYTES {
                let mut head = std::mem::take(head);
                if let Some(line) = line.filter(|line| head[..*line].iter().any(|byte| is_odd(*byte))) {
                    let encoded = encoded(&head[..line]);
                    head.splice(..line, encoded);
                }
                self.reading = Reading::Rest(head, 0);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Raw<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_head(context))?;
        if let Reading::Rest(bytes, done) = &mut self.reading {
            let count = buffer.remaining().min(bytes.len() - *done);
            buffer.put_slice(&bytes[*done..*done + count]);
            *done += count;
            if *done == bytes.len() {
                self.reading = Reading::Stream;
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> Raw<S> {
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Writing::Rest(bytes, done) = &mut self.writing {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &bytes[*done..]))?;
            *done += count;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if *done == bytes.len() {
                self.writing = Writing::Stream;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Raw<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Writing::Head(head) = &mut self.writing {
            head.extend_from_slice(bytes);
            let end = end_of_head(head).or_else(|| (head.len() > HEAD_BYTES).then_some(head.len()));
            if let Some(end) = end {
                let mut out = rewritten(&head[..end]);
                out.extend_from_slice(&head[end..]);
                self.writing = Writing::Rest(out, 0);
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Writing::Stream = self.writing {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(context, first)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_requests_are_of_the_oldest_form() {
        let head = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        assert!(is_oldest_form(&head("POST /v1.24/containers/x/attach?stream=1", "")));
        assert!(is_oldest_form(&head("POST /containers/x/attach", "Content-Length: 0\r\n")));
        assert!(is_oldest_form(&head("POST /exec/x/start", "content-length: 9\r\n")));
        assert!(!is_oldest_form(&head("POST /containers/x/attach", "UPGRADE: tcp\r\n")));
        assert!(!is_oldest_form(&head("POST /containers/x/attach", "Content-Length: 5\r\n")));
        assert!(!is_oldest_form(&head("POST /exec/x/start", "Transfer-Encoding: chunked\r\n")));
        assert!(!is_oldest_form(&head("POST /containers/x/start", "")));
        assert!(!is_oldest_form("POST /containers/x/attach HTTP/1.0\r\n\r\n"));
    }

    #[test]
    fn odd_bytes_of_the_first_line_are_encoded() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let through = |pieces: &[&str]| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut client, server) = tokio::io::duplex(1 << 20);
                for piece in pieces {
                    client.write_all(piece.as_bytes()).await.unwrap();
                }
                drop(client);
                let mut got = String::new();
                Raw::new(server).read_to_string(&mut got).await.unwrap();
                got
            })
        };
        let plain = "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n{\"a\"}";
        assert_eq!(through(&[plain]), plain);
        for method in ["GET", "POST"] {
            assert_eq!(
                through(&[method, " /x?f={\"a", "\":[1]} HTTP/1.1\r\nA: \"b\"\r\n\r\n{\"c\"}"]),
                format!("{method} /x?f=%7B%22a%22:[1]%7D HTTP/1.1\r\nA: \"b\"\r\n\r\n{{\"c\"}}")
            );
        }
        let long = "x\"".repeat(HEAD_BYTES);
        assert_eq!(through(&[&long, "\n"]), format!("{long}\n"));
        assert_eq!(through(&[]), "");
    }

    #[test]
    fn only_a_switch_is_rewritten() {
        let switch =
            b"HTTP/1.1 101 UPGRADED\r\ncontent-type: a\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n";
        assert_eq!(rewritten(switch), b"HTTP/1.1 200 OK\r\ncontent-type: a\r\n\r\n");
        let other = b"HTTP/1.1 404 Not Found\r\nconnection: Upgrade\r\n\r\n";
        assert_eq!(rewritten(other), other);
    }
}
