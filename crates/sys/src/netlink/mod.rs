//! Netlink (`netlink(7)`): messages with attributes, requests with acknowledgements, dumps; and the network
//! namespaces that sockets belong to. A socket belongs for ever to the namespace in which it was made.

mod conntrack;
pub mod nft;
pub mod route;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// One receive buffer: what the kernel puts into one datagram of a dump.
const BUFFER: usize = 32 << 10;

/// One message: its netlink header is filled in when it is sent.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this type with its family's own header (`ifinfomsg`, `nfgenmsg`, …).
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(header);
        let mut message = Self { bytes };
        message.pad();
        message
    }
    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // Attributes of ours are far below 64 KiB.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }
    /// Adds a number in the machine's byte order.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }
    /// Adds a number in network byte order.
    pub fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }
    /// Adds a text with its terminating NUL.
    pub fn put_text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }
    /// Adds what `fill` adds, nested in one attribute.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
    /// Adds bytes that are no attribute (a header inside a nested attribute).
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }
    fn flags(&mut self, more: u16) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }
    fn finish(&mut self, sequence: u32) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// One answer of a dump or query.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Message type.
    pub kind: u16,
    /// What follows the netlink header.
    pub payload: Vec<u8>,
}

/// The attributes in these bytes; malformed ones end the iteration.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get((length + 3) & !3..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// A netlink socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self { fd, sequence: 0 })
    }
    /// `NETLINK_ROUTE` in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of `socket(2)`.
    pub fn route() -> io::Result<Self> {
        // Zero, the default, is NETLINK_ROUTE.
        Self::open(None)
    }
    /// `NETLINK_NETFILTER` in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of `socket(2)`.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER))
    }
    /// Sends messages in one datagram, each to be acknowledged, and waits for all of them: they are carried out in
    /// order, also those after one that failed. The first error is returned, with the message's place.
    ///
    /// # Errors
    /// What the kernel answered, or those of `send(2)` and `recv(2)`.
    pub fn request(&mut self, mut messages: Vec<Message>) -> Result<(), Refused> {
        for message in &mut messages {
            message.flags(ACK);
        }
        let first = self.send(messages.iter_mut().collect()).map_err(|error| Refused { place: 0, error })?;
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let mut failed = None;
        let mut left = count;
        let mut answers = Answers::new();
        while left > 0 {
            let answer = answers.next(&self.fd).map_err(|error| Refused { place: 0, error })?;
            let place = answer.sequence.wrapping_sub(first);
            if place < count && answer.kind == NLMSG_ERROR {
                left -= 1;
                if let Some(error) = answer.error()
                    && failed.is_none()
                {
                    failed = Some(Refused { place: place as usize, error });
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
    /// Sends a query and collects its answers.
    ///
    /// # Errors
    /// What the kernel answered, or those of `send(2)` and `recv(2)`.
    pub fn query(&mut self, mut message: Message, dump: bool) -> io::Result<Vec<Reply>> {
        message.flags(if dump { DUMP } else { ACK });
        let sequence = self.send(vec![&mut message])?;
        let mut replies = Vec::new();
        let mut answers = Answers::new();
        loop {
            let answer = answers.next(&self.fd)?;
            if answer.sequence != sequence {
                continue;
            }
            match answer.kind {
                NLMSG_DONE => return Ok(replies),
                NLMSG_ERROR => return answer.error().map_or(Ok(replies), Err),
                kind => replies.push(Reply { kind, payload: answer.payload }),
            }
        }
    }
    /// Sends a batch (nfnetlink: all or nothing) whose last but one message is to be acknowledged.
    fn transact(&mut self, mut messages: Vec<Message>) -> io::Result<()> {
        let last = messages.len().saturating_sub(2);
        messages[last].flags(ACK);
        let first = self.send(messages.iter_mut().collect())?;
        let last = first.wrapping_add(u32::try_from(last).unwrap_or(0));
        let mut answers = Answers::new();
        loop {
            let answer = answers.next(&self.fd)?;
            if answer.kind != NLMSG_ERROR || answer.sequence.wrapping_sub(first) > messages.len() as u32 {
                continue;
            }
            match answer.error() {
                Some(error) => return Err(error),
                None if answer.sequence == last => return Ok(()),
                None => {}
            }
        }
    }
    /// Returns the sequence number of the first message.
    fn send(&mut self, messages: Vec<&mut Message>) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.finish(self.sequence);
            bytes.extend_from_slice(&message.bytes);
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        Ok(first)
    }
}

/// A message that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// Its place among those that were sent.
    pub place: usize,
    /// Why.
    pub error: io::Error,
}

struct Answer {
    kind: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Answer {
    fn error(&self) -> Option<io::Error> {
        let code = self
            .payload
            .get(..4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(-libc::EIO, i32::from_ne_bytes);
        (code != 0).then(|| io::Error::from_raw_os_error(-code))
    }
}

/// Datagrams taken apart.
struct Answers {
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl Answers {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER], at: 0, end: 0 }
    }
    fn next(&mut self, fd: &OwnedFd) -> io::Result<Answer> {
        while self.at + HEADER > self.end {
            self.end = loop {
                match rustix::net::recv(fd, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                    Ok((_, count)) => break count.min(self.buffer.len()),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            };
            self.at = 0;
        }
        let bytes = &self.buffer[self.at..self.end];
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let length = (word(0) as usize).clamp(HEADER, bytes.len());
        let answer = Answer {
            kind: u16::from_ne_bytes([bytes[4], bytes[5]]),
            sequence: word(8),
            payload: bytes[HEADER..length].to_vec(),
        };
        self.at += (length + 3) & !3;
        Ok(answer)
    }
}

/// The network namespace of the calling thread.
///
/// # Errors
/// Those of `open(2)`: /proc is not mounted.
pub fn namespace() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Excludes everybody else on this machine who takes the same lock in the same network namespace, whatever their
/// root: the lock is on the namespace's own inode, so it leaves no file. Held until the descriptor is closed.
///
/// # Errors
/// Those of `open(2)` and `flock(2)`.
pub fn lock_namespace() -> io::Result<OwnedFd> {
    let fd = namespace()?;
    crate::lock::wait(&fd, FlockOperation::LockExclusive)?;
    Ok(fd)
}

/// Runs `work` in a thread of its own inside a network namespace; the calling thread never leaves its own.
///
/// # Errors
/// Those of `setns(2)`, or the thread cannot be made.
pub fn within<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    apart(
        || rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).map_err(io::Error::from),
        work,
    )
}

/// A new network namespace, held by the descriptor alone, with its loopback up.
///
/// # Errors
/// Those of `unshare(2)`, or loopback cannot be set up.
pub fn new_namespace() -> io::Result<OwnedFd> {
    let enter = || {
        // SAFETY: only the network namespace of this new thread changes; no memory, descriptor or working directory is unshared.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .map_err(io::Error::from)
    };
    apart(enter, || {
        Socket::route()?.request(vec![route::set_up(1)]).map_err(|refused| refused.error)?;
        namespace()
    })?
}

fn apart<T: Send>(
    enter: impl FnOnce() -> io::Result<()> + Send,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn_scoped(scope, move || enter().map(|()| work()))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread in another network namespace panicked")))
    })
}
