//! Queries for others to answer: asked of the name servers in turn, over the protocol by which they came. Each has a socket of its
//! own, connected, so that only its server can answer, on a port that nobody can guess.

use model::dns::Server;
use model::dns::message::{Code, Query, is_failure};
use model::error::Context as _;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::{Origin, Resolver, inside};
use crate::monitor::poll::{self, EventFlags, Part, Poll, Token};

/// Queries under way at a time.
const FORWARDS: usize = 128;
/// Name servers that are asked: `MAXNS` of resolv.conf(5).
const SERVERS: usize = 3;
/// How long each may take. A client's patience is five seconds as a rule (`timeout` of resolv.conf(5)).
const WAIT: Duration = Duration::from_secs(2);
/// Bytes of an answer over UDP: more than any client of ours may ask for.
const DATAGRAM_BYTES: usize = 8192;

/// A query under way.
pub(super) struct Forward {
    query: Vec<u8>,
    origin: Origin,
    socket: Socket,
    /// The server that was asked first.
    first: usize,
    /// Servers that were asked, the present one included.
    asked: usize,
    /// What a server said that could not answer.
    failure: Option<Vec<u8>>,
    pub(super) deadline: Instant,
}

enum Socket {
    None,
    Datagram(UdpSocket),
    Stream {
        socket: TcpStream,
        /// What is still to be sent.
        output: Vec<u8>,
        input: Vec<u8>,
    },
}

/// What a server's socket had to say.
enum Heard {
    Nothing,
    Answer(Vec<u8>),
    Gone,
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

impl Socket {
    fn open(address: SocketAddr, query: &[u8], origin: Origin) -> io::Result<Self> {
        match origin {
            Origin::Datagram(_) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                socket.send(query)?;
                Ok(Self::Datagram(socket))
            }
            Origin::Stream(..) => {
                // A query was read with a length of 16 bits.
                let length = (query.len() as u16).to_be_bytes();
                let output = [&length, query].concat();
                Ok(Self::Stream { socket: connect(address)?, output, input: Vec::new() })
            }
        }
    }
    fn hear(&mut self, flags: EventFlags) -> Heard {
        match self {
            Self::None => Heard::Nothing,
            Self::Datagram(socket) => {
                let mut buffer = vec![0; DATAGRAM_BYTES];
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        buffer.truncate(length);
                        Heard::Answer(buffer)
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                        Heard::Nothing
                    }
                    // Its host says that nobody listens there.
                    Err(_) => Heard::Gone,
                }
            }
            Self::Stream { socket, output, input } => {
                if !output.is_empty() && flags.contains(poll::OUT) {
                    match socket.write(output) {
                        Ok(length) => drop(output.drain(..length)),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => return Heard::Gone,
                    }
                }
                if flags == poll::OUT { Heard::Nothing } else { read(socket, input) }
            }
        }
    }
}

fn read(socket: &mut TcpStream, input: &mut Vec<u8>) -> Heard {
    let mut piece = [0; 4096];
    match socket.read(&mut piece) {
        Ok(0) => return Heard::Gone,
        Ok(length) => input.extend_from_slice(&piece[..length]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(_) => return Heard::Gone,
    }
    let Some(length) = input.first_chunk::<2>() else { return Heard::Nothing };
    let end = 2 + usize::from(u16::from_be_bytes(*length));
    input.get(2..end).map_or(Heard::Nothing, |answer| Heard::Answer(answer.to_vec()))
}

impl Resolver {
    pub(super) fn forward(&mut self, poll: &Poll, query: &[u8], origin: Origin) {
        let at = match self.forwards.iter().position(Option::is_none) {
            Some(at) => at,
            None if self.forwards.len() < FORWARDS => {
                self.forwards.push(None);
                self.forwards.len() - 1
            }
            None => return self.fail(poll, query, origin),
        };
        self.forwards[at] = Some(Forward {
            query: query.to_vec(),
            origin,
            socket: Socket::None,
            first: self.first,
            asked: 0,
            failure: None,
            deadline: Instant::now(),
        });
        self.next_server(poll, at);
    }
    fn fail(&mut self, poll: &Poll, query: &[u8], origin: Origin) {
        if let Some(query) = Query::parse(query) {
            self.answer(poll, origin, &query.reply(Code::ServerFailure, &[], query.room()));
        }
    }
    fn servers(&self) -> usize {
        self.config.servers.len().min(SERVERS)
    }
    /// Asks the next name server; with none left, says so.
    pub(super) fn next_server(&mut self, poll: &Poll, at: usize) {
        let Some(mut forward) = self.forwards[at].take() else { return };
        let count = self.servers();
        if forward.asked == 1 && self.first == forward.first {
            // The next query need not wait for the one that did not answer.
            self.first = (self.first + 1) % count.max(1);
        }
        forward.socket = Socket::None;
        while forward.asked < count {
            let server = self.config.servers[(forward.first + forward.asked) % count];
            forward.asked += 1;
            if let Ok(socket) = self.open_socket(server, &forward.query, forward.origin)
                && watch(poll, at, &socket).is_ok()
            {
                forward.socket = socket;
                forward.deadline = Instant::now() + WAIT;
                self.forwards[at] = Some(forward);
                return;
            }
        }
        match forward.failure {
            Some(failure) => self.answer(poll, forward.origin, &failure),
            None => self.fail(poll, &forward.query, forward.origin),
        }
    }
    fn open_socket(&self, server: Server, query: &[u8], origin: Origin) -> model::Result<Socket> {
        let open = || Socket::open(server.address, query, origin).context(|| "ask a name server");
        if server.inside { inside(&self.netns, open) } else { open() }
    }
    pub(super) fn forward_ready(&mut self, poll: &Poll, at: usize, flags: EventFlags) {
        let Some(forward) = self.forwards.get_mut(at).and_then(Option::as_mut) else { return };
        match forward.socket.hear(flags) {
            Heard::Nothing => {
                if let Socket::Stream { socket, output, .. } = &forward.socket
                    && output.is_empty()
                {
                    poll.change(socket, Token::Resolver(Part::Forward(at)), poll::IN);
                }
            }
            Heard::Gone => self.next_server(poll, at),
            Heard::Answer(answer) => self.heard(poll, at, answer),
        }
    }
    fn heard(&mut self, poll: &Poll, at: usize, answer: Vec<u8>) {
        let count = self.servers();
        let Some(forward) = self.forwards[at].as_mut() else { return };
        let Some(query) = Query::parse(&forward.query) else { return };
        if !query.is_answered_by(&answer) {
            // Over UDP the true answer may still come.
            if matches!(forward.socket, Socket::Stream { .. }) {
                self.next_server(poll, at);
            }
            return;
        }
        if is_failure(&answer) && forward.asked < count {
            forward.failure = Some(answer);
            return self.next_server(poll, at);
        }
        let too_large = matches!(forward.origin, Origin::Datagram(_)) && answer.len() > query.room();
        let answer = if too_large { query.truncated() } else { answer };
        let origin = forward.origin;
        self.forwards[at] = None;
        if self.forwards.iter().all(Option::is_none) {
            self.forwards = Vec::new();
        }
        self.answer(poll, origin, &answer);
    }
}

fn watch(poll: &Poll, at: usize, socket: &Socket) -> io::Result<()> {
    let token = Token::Resolver(Part::Forward(at));
    match socket {
        Socket::None => Ok(()),
        Socket::Datagram(socket) => poll.add(socket, token, poll::IN),
        Socket::Stream { socket, .. } => poll.add(socket, token, poll::IN | poll::OUT),
    }
}
