//! The relay: carries what reaches a published port's own socket to the container, byte for byte.
//!
//! Published ports are the kernel's work (address translation), and normally nothing arrives here. What it cannot
//! translate does: from an IPv6 address to a container that has only IPv4, from `::1`, and everything while the
//! machine's firewall rules are gone. The monitor, which holds the sockets, executes the engine's binary as a relay when
//! one of them becomes readable; the relay ends by itself when it has been idle for [`IDLE`], or with its monitor. It
//! was started with: argv, one `protocol:descriptor:address` a socket. It holds no capabilities and opens no file.

use model::container::Protocol;
use model::limits::RELAY_CONNECTIONS;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// argv[0] of a relay.
pub const RELAY: &str = "cauldron-relay";
/// So long after the last connection it ends.
const IDLE: Duration = Duration::from_secs(10);
/// A sender of datagrams that has been silent so long is forgotten.
const SILENCE: Duration = Duration::from_secs(90);
/// How long nothing is accepted after the machine had no descriptors left.
const BREATH: Duration = Duration::from_millis(100);
/// Bytes that are carried at once.
const PIECE: usize = 32 << 10;
/// Datagrams that are taken from one socket before the others have their turn.
const BURST: usize = 64;

/// The argument that names one socket.
pub fn door(protocol: Protocol, descriptor: i32, to: SocketAddr) -> String {
    format!("{}:{descriptor}:{to}", protocol.as_str())
}

/// The relay's `main`.
pub fn main(args: &[OsString]) -> ExitCode {
    let _ = sys::process::die_with_parent();
    let _ = rustix::thread::set_name(c"cauldron-relay");
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
    let _ = sys::capability::set(0);
    let doors: Option<Vec<Door>> = args.iter().map(|arg| Door::parse(arg)).collect();
    match doors {
        Some(doors) if !doors.is_empty() => {
            Relay { doors, lines: Vec::new(), flows: Vec::new(), quiet: Instant::now(), breath: None }.run();
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(125),
    }
}

/// A published port's socket.
struct Door {
    socket: Socket,
    to: SocketAddr,
}

enum Socket {
    Stream(TcpListener),
    Datagram(UdpSocket),
}

impl Door {
    fn parse(arg: &OsStr) -> Option<Self> {
        let mut parts = arg.to_str()?.splitn(3, ':');
        let (protocol, descriptor, to) = (parts.next()?, parts.next()?, parts.next()?);
        let fd = sys::process::copy_of(descriptor.parse().ok()?).ok()?;
        let socket = match protocol {
            "tcp" => Socket::Stream(TcpListener::from(fd)),
            "udp" => Socket::Datagram(UdpSocket::from(fd)),
            _ => return None,
        };
        Some(Self { socket, to: to.parse().ok()? })
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Half {
    bytes: Vec<u8>,
    at: usize,
    /// The source has sent its last.
    ended: bool,
    /// And the other end was told.
    told: bool,
}

impl Half {
    fn waits(&self) -> bool {
        self.at < self.bytes.len()
    }
    /// Carries what can be carried now.
    fn carry(&mut self, mut from: &TcpStream, mut to: &TcpStream, space: &mut [u8]) -> io::Result<()> {
        loop {
            while self.waits() {
                match to.write(&self.bytes[self.at..]) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => self.at += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.ended {
                if !self.told {
                    self.told = true;
                    to.shutdown(Shutdown::Write)?;
                }
                return Ok(());
            }
            match from.read(space) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.bytes.clear();
                    self.bytes.extend_from_slice(&space[..count]);
                    self.at = 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // An idle connection keeps no buffer.
                    self.bytes = Vec::new();
                    self.at = 0;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A connection: the client's end and the container's.
struct Line {
    client: TcpStream,
    container: TcpStream,
    connected: bool,
    inward: Half,
    outward: Half,
    over: bool,
}

impl Line {
    /// Connects on to the container.
    fn open(client: TcpStream, to: SocketAddr) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let container = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&container, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => {
                reset(&client);
                return Err(error.into());
            }
        }
        let container = TcpStream::from(container);
        for end in [&client, &container] {
            end.set_nodelay(true)?;
        }
        let half = Half::default;
        Ok(Self { client, container, connected: false, inward: half(), outward: half(), over: false })
    }
    fn wanted(&self) -> (PollFlags, PollFlags) {
        let mut wanted = (PollFlags::empty(), PollFlags::empty());
        if !self.connected {
            wanted.1 = PollFlags::OUT;
            return wanted;
        }
        for (half, from_client) in [(&self.inward, true), (&self.outward, false)] {
            let (source, sink) =
                if from_client { (&mut wanted.0, &mut wanted.1) } else { (&mut wanted.1, &mut wanted.0) };
            if half.waits() {
                *sink |= PollFlags::OUT;
            } else if !half.ended {
                *source |= PollFlags::IN;
            }
        }
        wanted
    }
    fn ready(&mut self, client: PollFlags, container: PollFlags, space: &mut [u8]) {
        if !self.connected {
            match self.container.take_error() {
                Ok(None) if container.contains(PollFlags::OUT) => self.connected = true,
                Ok(None) if (client | container).contains(PollFlags::ERR) => self.over = true,
                Ok(None) => return,
                _ => {
                    // The container refused: so does its port.
                    reset(&self.client);
                    self.over = true;
                }
            }
        }
        if self.over {
            return;
        }
        let carried = self
            .inward
            .carry(&self.client, &self.container, space)
            .and_then(|()| self.outward.carry(&self.container, &self.client, space));
        let broken = carried.is_err() || (client | container).contains(PollFlags::ERR);
        if broken {
            reset(&self.client);
            reset(&self.container);
        }
        self.over = broken || (self.inward.told && self.outward.told);
    }
}

/// Closing it will say that the connection broke, not that it ended.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// A sender of datagrams, with the socket that stands for it towards the container.
struct Flow {
    door: usize,
    client: SocketAddr,
    socket: UdpSocket,
    last: Instant,
}

impl Flow {
    fn open(door: usize, client: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        Ok(Self { door, client, socket, last: Instant::now() })
    }
    /// What the container sent goes to the sender.
    fn answer(&mut self, doors: &[Door], space: &mut [u8]) {
        let Socket::Datagram(socket) = &doors[self.door].socket else { return };
        for _ in 0..BURST {
            match self.socket.recv(space) {
                Ok(count) => {
                    self.last = Instant::now();
                    let _ = socket.send_to(&space[..count], self.client);
                }
                // Nothing more, or nobody listens there: that is not the sender's to know.
                Err(_) => return,
            }
        }
    }
}

struct Relay {
    doors: Vec<Door>,
    lines: Vec<Line>,
    flows: Vec<Flow>,
    /// Since when there is nothing to do.
    quiet: Instant,
    /// Until when nothing is accepted.
    breath: Option<Instant>,
}

impl Relay {
    fn run(&mut self) {
        let mut space = vec![0; PIECE];
        loop {
            let now = Instant::now();
            self.flows.retain(|flow| now.duration_since(flow.last) < SILENCE);
            self.breath = self.breath.filter(|until| *until > now);
            if !self.lines.is_empty() || !self.flows.is_empty() {
                self.quiet = now;
            } else if now.duration_since(self.quiet) >= IDLE {
                return;
            }
            let Ok(ready) = self.wait(now) else { return };
            for (flow, flags) in self.flows.iter_mut().zip(&ready.flows) {
                if !flags.is_empty() {
                    flow.answer(&self.doors, &mut space);
                }
            }
            for (line, (client, container)) in self.lines.iter_mut().zip(&ready.lines) {
                if !(*client | *container).is_empty() {
                    line.ready(*client, *container, &mut space);
                }
            }
            // Last: what they add has not been waited for.
            for (door, _) in ready.doors.iter().enumerate().filter(|(_, flags)| !flags.is_empty()) {
                self.door_ready(door, &mut space);
            }
            self.lines.retain(|line| !line.over);
        }
    }
    fn wait(&self, now: Instant) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(self.doors.len() + self.flows.len() + 2 * self.lines.len());
        for door in &self.doors {
            let (fd, full) = match &door.socket {
                Socket::Stream(listener) => (listener.as_fd(), self.lines.len() >= RELAY_CONNECTIONS),
                Socket::Datagram(socket) => (socket.as_fd(), false),
            };
            let shut = full || self.breath.is_some();
            fds.push(PollFd::from_borrowed_fd(fd, if shut { PollFlags::empty() } else { PollFlags::IN }));
        }
        fds.extend(self.flows.iter().map(|flow| PollFd::new(&flow.socket, PollFlags::IN)));
        // An end from which nothing is wanted now is left out: its hang-up would be reported again and again.
        for line in &self.lines {
            let ends = [(&line.client, line.wanted().0), (&line.container, line.wanted().1)];
            fds.extend(
                ends.iter()
                    .filter(|(_, wanted)| !wanted.is_empty())
                    .map(|(end, wanted)| PollFd::new(*end, *wanted)),
            );
        }
        let silent = self.flows.iter().map(|flow| flow.last + SILENCE).min();
        let idle = (self.lines.is_empty() && self.flows.is_empty()).then(|| self.quiet + IDLE);
        let timeout = silent.into_iter().chain(idle).chain(self.breath).min().and_then(|at| {
            // One millisecond more: a wait that ends early would spin.
            Timespec::try_from(at.saturating_duration_since(now) + Duration::from_millis(1)).ok()
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut flags = fds.iter().map(PollFd::revents);
        let doors = flags.by_ref().take(self.doors.len()).collect();
        let flows = flags.by_ref().take(self.flows.len()).collect();
        let mut seen = |wanted: PollFlags| {
            if wanted.is_empty() { PollFlags::empty() } else { flags.next().unwrap_or(PollFlags::empty()) }
        };
        let wanted = self.lines.iter().map(Line::wanted);
        let lines = wanted.map(|(client, container)| (seen(client), seen(container))).collect();
        Ok(Ready { doors, flows, lines })
    }
    fn door_ready(&mut self, at: usize, space: &mut [u8]) {
        let door = &self.doors[at];
        match &door.socket {
            Socket::Stream(listener) => match listener.accept() {
                Ok((client, _)) => self.lines.extend(Line::open(client, door.to)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // One that is gone already, or no descriptors are left.
                Err(_) => self.breath = Some(Instant::now() + BREATH),
            },
            Socket::Datagram(socket) => {
                for _ in 0..BURST {
                    let Ok((count, client)) = socket.recv_from(space) else { return };
                    let known = self.flows.iter().position(|flow| flow.door == at && flow.client == client);
                    let place = match known {
                        Some(place) => place,
                        None => match Flow::open(at, client, door.to) {
                            Ok(flow) if self.flows.len() < RELAY_CONNECTIONS => {
                                self.flows.push(flow);
                                self.flows.len() - 1
                            }
                            _ => continue,
                        },
                    };
                    let flow = &mut self.flows[place];
                    flow.last = Instant::now();
                    // Datagrams may be lost.
                    let _ = flow.socket.send(&space[..count]);
                }
            }
        }
    }
}

/// What happened, each in the order of what was waited for.
struct Ready {
    doors: Vec<PollFlags>,
    flows: Vec<PollFlags>,
    lines: Vec<(PollFlags, PollFlags)>,
}
