//! Connections on `monitor.sock` and to the sockets of clients that waited for the start.
//!
//! A client that does not read holds the process's output back, as Docker's does: nothing is lost on the way to a pager.
//! Its queue holds no more than what was read at once. After [`STALLED`] without progress it is dropped, and the container
//! goes on; the log has all of it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::Streams;
use crate::wire::{FRAME_BYTES, Request};

/// How long a client may stand still with output waiting for it.
pub const STALLED: Duration = Duration::from_secs(3600);

/// What a connection is for.
pub enum Purpose {
    /// A request is being read.
    Asking(Vec<u8>),
    /// It gets a session's output and may send its stdin.
    Attached(usize, Streams),
    /// It waits for the end of this run.
    Waiting,
    /// It waits for its exec to start; then it gets the streams, unless detached.
    Starting(Streams, bool),
}

/// One connection.
pub struct Client {
    /// Not blocking.
    pub stream: UnixStream,
    /// What for.
    pub purpose: Purpose,
    /// What it has not taken yet.
    pub queue: Vec<u8>,
    /// Since when it has taken nothing.
    pub stalled: Option<Instant>,
    /// It sends no more.
    pub input_ended: bool,
    /// Goes when the queue is empty.
    pub closing: bool,
}

impl Client {
    /// A new connection.
    pub fn new(stream: UnixStream, purpose: Purpose) -> Self {
        Self { stream, purpose, queue: Vec::new(), stalled: None, input_ended: false, closing: false }
    }
    /// Sends, queueing what the socket does not take.
    ///
    /// # Errors
    /// The client is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.queue.extend_from_slice(bytes);
        self.pump()
    }
    /// Sends what is queued.
    ///
    /// # Errors
    /// The client is gone.
    pub fn pump(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.queue.len() {
            match self.stream.write(&self.queue[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.queue.drain(..sent);
        if self.queue.is_empty() {
            self.queue = Vec::new();
            self.stalled = None;
        } else if sent > 0 || self.stalled.is_none() {
            self.stalled = Some(Instant::now());
        }
        Ok(())
    }
    /// Output of stream 1 or 2, in Docker's format.
    ///
    /// # Errors
    /// The client is gone.
    pub fn output(&mut self, stream: u8, raw: bool, bytes: &[u8]) -> io::Result<()> {
        if !raw {
            let length = (bytes.len() as u32).to_be_bytes();
            self.queue.extend_from_slice(&[stream, 0, 0, 0, length[0], length[1], length[2], length[3]]);
        }
        self.send(bytes)
    }
    /// Reads a request as far as it has come.
    ///
    /// # Errors
    /// The client is gone, or sends something else.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        let Purpose::Asking(buffer) = &mut self.purpose else { return Ok(None) };
        loop {
            let wanted = match buffer.first_chunk::<4>() {
                None => 4 - buffer.len(),
                Some(length) => {
                    let length = u32::from_be_bytes(*length) as usize;
                    if length > FRAME_BYTES {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    if buffer.len() == 4 + length {
                        let request = serde_json::from_slice(&buffer[4..])?;
                        *buffer = Vec::new();
                        return Ok(Some(request));
                    }
                    4 + length - buffer.len()
                }
            };
            // Never beyond the request: what follows is stdin.
            let mut piece = [0; 4096];
            let wanted = wanted.min(piece.len());
            match self.stream.read(&mut piece[..wanted]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => buffer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
