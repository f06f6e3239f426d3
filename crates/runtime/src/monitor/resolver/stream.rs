//! Queries over TCP (RFC 1035 section 4.2.2, RFC 7766): each with its length in front, several on one connection.

use model::dns::message::QUERY_BYTES;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Origin, Resolver};
use crate::monitor::poll::{self, EventFlags, Part, Poll, Token};

/// Connections at a time.
const STREAMS: usize = 32;
/// So long one may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Answers that a client has not taken: beyond, it is dropped.
const QUEUE_BYTES: usize = 256 << 10;

/// A client's connection.
pub(super) struct Stream {
    socket: TcpStream,
    serial: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    pub(super) deadline: Instant,
}

impl Stream {
    /// Reads what is there, a query or so. False: the client is gone.
    fn read(&mut self) -> bool {
        let mut piece = [0; 1024];
        match self.socket.read(&mut piece) {
            Ok(0) => return false,
            Ok(length) => self.input.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return false,
        }
        self.deadline = Instant::now() + IDLE;
        self.input
            .first_chunk::<2>()
            .is_none_or(|length| usize::from(u16::from_be_bytes(*length)) <= QUERY_BYTES)
    }
    /// The next whole query.
    fn query(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(*self.input.first_chunk::<2>()?));
        let query = self.input.get(2..2 + length)?.to_vec();
        self.input.drain(..2 + length);
        Some(query)
    }
    /// Sends what is queued. False: the client is gone.
    fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return false,
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        self.output.len() <= QUEUE_BYTES
    }
}

impl Resolver {
    pub(super) fn accept(&mut self, poll: &Poll) {
        for _ in 0..super::BURST {
            let Ok((socket, _)) = self.listener.accept() else { return };
            let free = self.streams.iter().position(Option::is_none);
            let at = match free {
                Some(at) => at,
                None if self.streams.len() < STREAMS => {
                    self.streams.push(None);
                    self.streams.len() - 1
                }
                // Closed at once: the client sees it and may come again.
                None => continue,
            };
            let watched = socket
                .set_nonblocking(true)
                .and_then(|()| poll.add(&socket, Token::Resolver(Part::Stream(at)), poll::IN));
            if watched.is_ok() {
                self.serial += 1;
                let deadline = Instant::now() + IDLE;
                let (input, output) = (Vec::new(), Vec::new());
                self.streams[at] = Some(Stream { socket, serial: self.serial, input, output, deadline });
            }
        }
    }
    pub(super) fn stream_ready(&mut self, poll: &Poll, at: usize, flags: EventFlags) {
        let Some(stream) = self.streams.get_mut(at).and_then(Option::as_mut) else { return };
        let serial = stream.serial;
        let alive = (!flags.contains(poll::OUT) || stream.write()) && (flags == poll::OUT || stream.read());
        if !alive {
            self.streams[at] = None;
            return;
        }
        loop {
            // An answer may have ended the connection.
            let Some(stream) = self.streams[at].as_mut() else { return };
            let Some(query) = stream.query() else { break };
            self.ask(poll, &query, Origin::Stream(at, serial));
        }
        self.watch_stream(poll, at);
    }
    pub(super) fn answer_stream(&mut self, poll: &Poll, at: usize, serial: u64, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(at).and_then(Option::as_mut) else { return };
        let Ok(length) = u16::try_from(bytes.len()) else { return };
        if stream.serial != serial {
            return;
        }
        stream.output.extend_from_slice(&length.to_be_bytes());
        stream.output.extend_from_slice(bytes);
        if stream.write() {
            self.watch_stream(poll, at);
        } else {
            self.streams[at] = None;
        }
    }
    fn watch_stream(&self, poll: &Poll, at: usize) {
        if let Some(stream) = &self.streams[at] {
            let flags = if stream.output.is_empty() { poll::IN } else { poll::IN | poll::OUT };
            poll.change(&stream.socket, Token::Resolver(Part::Stream(at)), flags);
        }
    }
}
