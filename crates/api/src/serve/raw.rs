//! The oldest form of a hijacked connection: an attach or exec request without `Upgrade` is answered by `200` and the
//! connection is raw from then on, both ways, without a length or chunks.
//!
//! HTTP libraries hand a connection over after `101` only. So the head of such a request gets the upgrade added on its
//! way in, and the `101` of its answer becomes `200` on its way out. It is done for a connection's first request, which
//! is where clients of this kind send it.

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

impl<S: AsyncRead + Unpin> Raw<S> {
    /// Collects the first head and decides what becomes of it.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Reading::Head(head) = &mut self.reading {
            let mut piece = [0; 4096];
            let mut buffer = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let over = buffer.filled().is_empty();
            head.extend_from_slice(buffer.filled());
            let end = end_of_head(head);
            if let Some(end) = end
                && may_be(head)
                && std::str::from_utf8(&head[..end]).is_ok_and(is_oldest_form)
            {
                head.splice(end - 2..end - 2, *b"Connection: Upgrade\r\nUpgrade: tcp\r\n");
                self.writing = Writing::Head(Vec::new());
            }
            if over || end.is_some() || !may_be(head) || head.len() > HEAD_BYTES {
                self.reading = Reading::Rest(std::mem::take(head), 0);
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
    fn only_a_switch_is_rewritten() {
        let switch =
            b"HTTP/1.1 101 UPGRADED\r\ncontent-type: a\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n";
        assert_eq!(rewritten(switch), b"HTTP/1.1 200 OK\r\ncontent-type: a\r\n\r\n");
        let other = b"HTTP/1.1 404 Not Found\r\nconnection: Upgrade\r\n\r\n";
        assert_eq!(rewritten(other), other);
    }
}
