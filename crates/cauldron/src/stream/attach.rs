//! The attach loop: stdin in, frames or raw bytes out, detach keys, half-close.

use super::Demultiplexer;
use crate::fail::Failure;
use std::io::{Read, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Which of our ends take part.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Send stdin.
    pub stdin: bool,
    /// Print stdout.
    pub stdout: bool,
    /// Print stderr.
    pub stderr: bool,
    /// The stream is a terminal's: raw, not frames.
    pub tty: bool,
}

/// How an attached stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process closed it.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

/// A sequence of keys, such as `ctrl-p,ctrl-q`, found in what is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`, `a`, `ctrl-[`; empty is Docker's default.
    ///
    /// # Errors
    /// A key is unknown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let mut keys = Vec::new();
        for key in text.split(',') {
            let byte = match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(control), _) => match control.as_bytes() {
                    [letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => {
                        letter.to_ascii_uppercase() & 0x1f
                    }
                    _ => return Err(format!("invalid detach keys ({text}) provided")),
                },
                (None, [byte]) => *byte,
                _ => return Err(format!("invalid detach keys ({text}) provided")),
            };
            keys.push(byte);
        }
        Ok(Self { keys, matched: 0 })
    }

    /// What of the typed bytes goes on, and whether the keys are complete. A beginning of the sequence is held back.
    fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
            } else {
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = usize::from(self.keys.first() == Some(byte));
                if self.matched == 0 {
                    out.push(*byte);
                }
            }
        }
        (out, false)
    }
}

/// Copies until the process closes its side. Without stdin, ours is never read.
///
/// # Errors
/// The connection broke, or stdout is closed.
pub async fn copy<S>(stream: S, ends: Ends, keys: Option<DetachKeys>) -> Result<End, Failure>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let output = output(reader, ends);
    if !ends.stdin {
        // The write half is kept: closing it would close the process's stdin for others.
        let end = output.await;
        drop(writer);
        return end;
    }
    let mut input = tokio::spawn(input(writer, keys));
    tokio::pin!(output);
    tokio::select! {
        end = &mut output => {
            input.abort();
            return end;
        }
        detached = &mut input => {
            if matches!(detached, Ok(true)) {
                return Ok(End::Detached);
            }
        }
    }
    output.await
}

/// True: the detach keys were typed.
async fn input<W: AsyncWrite + Unpin>(mut writer: W, mut keys: Option<DetachKeys>) -> bool {
    let mut typed = stdin();
    while let Some(bytes) = typed.recv().await {
        let (bytes, detach) = match &mut keys {
            Some(keys) => keys.feed(&bytes),
            None => (bytes, false),
        };
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            // The process does not read any more; its output goes on.
            return false;
        }
        if detach {
            return true;
        }
    }
    let _ = writer.shutdown().await;
    // The half that is closed stays until the output is over.
    std::future::pending::<()>().await;
    false
}

/// Our stdin, read by a thread of its own: a file or a terminal cannot be polled alike.
fn stdin() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
    receiver
}

async fn output<R: AsyncRead + Unpin>(mut reader: R, ends: Ends) -> Result<End, Failure> {
    let mut splitter = Demultiplexer::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => return Ok(End::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // A remote engine may reset the connection when the process is over.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(End::Closed),
            Err(error) => return Err(Failure::new(format!("the stream broke: {error}"))),
        };
        let bytes = &buffer[..count];
        if ends.tty {
            print(1, bytes, ends)?;
        } else {
            splitter.feed(bytes, |stream, bytes| print(stream, bytes, ends))?;
        }
    }
}

fn print(stream: u8, bytes: &[u8], ends: Ends) -> Result<(), Failure> {
    let written = if stream == 2 {
        if !ends.stderr {
            return Ok(());
        }
        std::io::stderr().write_all(bytes)
    } else {
        if !ends.stdout {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    };
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::silent(141),
        _ => Failure::new(format!("write: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.feed(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.feed(b"c\x10\x11d"), (b"c".to_vec(), true));
        assert!(DetachKeys::parse("ctrl-1").is_err() && DetachKeys::parse("ab").is_err());
        assert_eq!(DetachKeys::parse("ctrl-[,a").unwrap().keys, [0x1b, b'a']);
    }
}
