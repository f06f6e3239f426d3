//! Bytes between processes, the log and clients.

use super::client::{Client, Purpose};
use super::poll::{self, EventFlags, Token};
use super::session::{PIECE, Session};
use super::{Monitor, record};
use std::io::Read as _;

impl Monitor {
    /// Watches a session's outputs unless a client holds them back.
    pub(super) fn watch_outputs(&mut self, index: usize) {
        let held = self.clients.iter().flatten().any(|client| {
            matches!(client.purpose, Purpose::Attached(session, _) if session == index)
                && !client.closing
                && !client.queue.is_empty()
        });
        let Some(session) = &mut self.sessions[index] else { return };
        if session.watched != held {
            return;
        }
        for (stream, output) in session.outputs.iter().enumerate() {
            if let Some(output) = output {
                if held {
                    self.poll.remove(output);
                } else {
                    let _ = self.poll.add(output, Token::Output(index, stream), poll::IN);
                }
            }
        }
        session.watched = !held;
    }
    pub(super) fn output_ready(&mut self, index: usize, stream: usize) {
        let Some(mut session) = self.sessions.get_mut(index).and_then(Option::take) else { return };
        if session.watched {
            let mut buffer = [0; PIECE];
            if let Some(length) = session.read(stream, &mut buffer) {
                self.deliver(index, &mut session, stream, &buffer[..length]);
            }
        }
        self.sessions[index] = Some(session);
        self.watch_outputs(index);
    }
    /// To the log first, then to whoever listens.
    fn deliver(&mut self, index: usize, session: &mut Session, stream: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if session.logged {
            self.log.write(stream as u8 + 1, bytes, record::now());
        }
        if let Some((probe, _)) = &mut session.probe {
            let room = model::health::OUTPUT_BYTES.saturating_sub(probe.output.len());
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(room)]);
            probe.output.push_str(&text);
        }
        let raw = session.terminal.is_some();
        for at in 0..self.clients.len() {
            let Some(client) = &mut self.clients[at] else { continue };
            let wanted = match client.purpose {
                Purpose::Attached(of, streams) => {
                    of == index
                        && !client.closing
                        && (if raw {
                            streams.stdout || streams.stderr
                        } else if stream == 0 {
                            streams.stdout
                        } else {
                            streams.stderr
                        })
                }
                _ => false,
            };
            if wanted && client.output(stream as u8 + 1, raw, bytes).is_err() {
                self.drop_client(at);
            } else if wanted {
                self.watch_client(at);
            }
        }
    }
    /// Takes all that an ended process left in its pipes; waits for nobody who still holds their other ends.
    pub(super) fn drain(&mut self, index: usize, session: &mut Session) {
        for client in self.clients.iter().flatten() {
            if matches!(client.purpose, Purpose::Attached(of, _) if of == index) {
                let _ = sys::socket::set_send_buffer(&client.stream, 1 << 20);
            }
        }
        let mut buffer = [0; PIECE];
        for stream in 0..2 {
            if let Some(output) = &session.outputs[stream] {
                self.poll.remove(output);
            }
            while let Some(length) = session.read(stream, &mut buffer) {
                if length == 0 {
                    break;
                }
                self.deliver(index, session, stream, &buffer[..length]);
            }
        }
    }
    pub(super) fn stdin_ready(&mut self, index: usize) {
        if let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) {
            session.pump_stdin();
        }
        self.watch_stdin(index);
    }
    /// Watches stdin while something is queued for it, and lets its clients send again when nothing is.
    pub(super) fn watch_stdin(&mut self, index: usize) {
        if let Some(session) = self.sessions.get(index).and_then(Option::as_ref)
            && let Some(stdin) = &session.stdin
        {
            self.poll.remove(stdin);
            if !session.stdin_queue.is_empty() {
                let _ = self.poll.add(stdin, Token::Stdin(index), poll::OUT);
            }
        }
        for at in 0..self.clients.len() {
            if self.clients[at]
                .as_ref()
                .is_some_and(|client| matches!(client.purpose, Purpose::Attached(of, _) if of == index))
            {
                self.watch_client(at);
            }
        }
    }
    /// Registers a connection.
    pub(super) fn add_client(&mut self, client: Client) -> usize {
        let at = self.clients.iter().position(Option::is_none).unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let _ = self.poll.add(&client.stream, Token::Client(at), poll::IN);
        self.clients[at] = Some(client);
        at
    }
    pub(super) fn watch_client(&mut self, at: usize) {
        let Some(client) = self.clients[at].as_ref() else { return };
        let full = match client.purpose {
            Purpose::Attached(index, _) => self
                .sessions
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(|session| !session.stdin_queue.is_empty()),
            _ => false,
        };
        let mut flags = EventFlags::empty();
        if !client.input_ended && !full && !client.closing {
            flags |= poll::IN;
        }
        if !client.queue.is_empty() {
            flags |= poll::OUT;
        }
        self.poll.change(&client.stream, Token::Client(at), flags);
    }
    pub(super) fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(std::os::unix::net::UnixListener::accept)
        {
            if stream.set_nonblocking(true).is_ok() {
                self.add_client(Client::new(stream, Purpose::Asking(Vec::new())));
            }
        }
    }
    pub(super) fn client_ready(&mut self, at: usize, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_mut) else { return };
        if flags.contains(poll::OUT) {
            let gone = client.pump().is_err();
            if gone || (client.closing && client.queue.is_empty()) {
                self.drop_client(at);
                return;
            }
            let session = match client.purpose {
                Purpose::Attached(index, _) => Some(index),
                _ => None,
            };
            self.watch_client(at);
            if let Some(index) = session {
                self.watch_outputs(index);
            }
        }
        if flags.contains(poll::IN) {
            self.client_sent(at, flags.contains(EventFlags::HUP));
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) && !flags.contains(poll::IN) {
            self.drop_client(at);
        }
    }
    /// Reads what a client sent. `gone`: it closed its connection altogether, not only its sending side; one that leaves
    /// a terminal (detach keys) has not said that its input is at an end.
    fn client_sent(&mut self, at: usize, gone: bool) {
        let Some(client) = &mut self.clients[at] else { return };
        let (index, streams) = match client.purpose {
            Purpose::Asking(_) => {
                match client.request() {
                    Ok(Some(request)) => self.handle(at, request),
                    Ok(None) => {}
                    Err(_) => self.drop_client(at),
                }
                return;
            }
            Purpose::Attached(index, streams) => (index, streams),
            Purpose::Waiting | Purpose::Starting(..) => return self.drop_client(at),
        };
        let mut buffer = [0; PIECE];
        let length = match client.stream.read(&mut buffer) {
            Ok(length) => length,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) =>
            {
                return;
            }
            Err(_) => return self.drop_client(at),
        };
        client.input_ended = length == 0;
        if let (true, Some(session)) = (streams.stdin, self.sessions[index].as_mut()) {
            if length > 0 && session.stdin.is_some() {
                session.stdin_queue.extend_from_slice(&buffer[..length]);
                session.pump_stdin();
            } else if length == 0 && session.stdin_once && !(gone && session.terminal.is_some()) {
                session.end_stdin();
            } else if length == 0 && session.terminal.is_none() && session.stdin.is_some() {
                // Stdin is to stay open for others: this client has said all it had to say and is detached, as by Docker.
                client.closing = true;
                if client.queue.is_empty() {
                    self.drop_client(at);
                }
            }
        }
        self.watch_stdin(index);
        if self.clients[at].is_some() {
            self.watch_client(at);
        }
    }
    /// Forgets a connection. The last word of a client that was to be the only one closes stdin.
    pub(super) fn drop_client(&mut self, at: usize) {
        let Some(client) = self.clients[at].take() else { return };
        self.poll.remove(&client.stream);
        if let Purpose::Attached(index, streams) = client.purpose {
            if let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut)
                && streams.stdin
                && session.stdin_once
                && session.terminal.is_none()
                && !client.input_ended
            {
                session.stdin_ends = true;
                session.pump_stdin();
            }
            self.watch_outputs(index);
        }
    }
    /// A run is over: attached clients get the rest and their end of file, waiting ones their answer.
    pub(super) fn release_clients(&mut self) {
        for slot in &mut self.clients {
            let over = slot.as_ref().is_some_and(|client| match client.purpose {
                Purpose::Attached(..) | Purpose::Waiting | Purpose::Starting(..) => true,
                Purpose::Asking(_) => self.listener.is_none(),
            });
            let Some(mut client) = slot.take_if(|_| over) else { continue };
            self.poll.remove(&client.stream);
            if matches!(client.purpose, Purpose::Waiting) {
                client.queue.extend(crate::wire::frame(&Ok::<(), crate::wire::Failure>(())));
            }
            // What its buffer has no room for gets ten seconds.
            let _ = client.stream.set_nonblocking(false);
            let _ = client.stream.set_write_timeout(Some(std::time::Duration::from_secs(10)));
            let _ = client.pump();
        }
    }
}
