//! epoll with typed tokens.

use rustix::event::epoll;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

pub use rustix::event::epoll::EventFlags;

/// Readable.
pub const IN: EventFlags = EventFlags::IN;
/// News in a file of the kernel's.
pub const NEWS: EventFlags = EventFlags::PRI;
/// Writable.
pub const OUT: EventFlags = EventFlags::OUT;

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `monitor.sock`.
    Listener,
    /// A connection.
    Client(usize),
    /// A session's pidfd.
    Process(usize),
    /// A session's stdout (0) or stderr (1).
    Output(usize, usize),
    /// A session's stdin.
    Stdin(usize),
    /// A session's set-up channel.
    Channel(usize),
    /// The socket of a published port.
    Port,
    /// The relay's pidfd.
    Relay,
    /// The subscription to changes of the firewall.
    Firewall,
    /// The pidfd of what restores it.
    Restore,
    /// The kernel's word of its out-of-memory killer.
    Memory,
    /// A socket of the resolver's.
    Resolver(Part),
}

/// A socket of the resolver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Queries over UDP.
    Datagrams,
    /// Connections for queries over TCP.
    Listener,
    /// One of them.
    Stream(usize),
    /// A query that waits for a name server.
    Forward(usize),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, index) = match self {
            Self::Listener => (0, 0),
            Self::Client(index) => (1, index),
            Self::Process(index) => (2, index),
            Self::Output(index, stream) => (3 + stream as u64, index),
            Self::Stdin(index) => (5, index),
            Self::Channel(index) => (6, index),
            Self::Port => (7, 0),
            Self::Relay => (8, 0),
            Self::Memory => (15, 0),
            Self::Resolver(Part::Datagrams) => (9, 0),
            Self::Resolver(Part::Listener) => (10, 0),
            Self::Resolver(Part::Stream(index)) => (11, index),
            Self::Resolver(Part::Forward(index)) => (12, index),
            Self::Firewall => (13, 0),
            Self::Restore => (14, 0),
        };
        kind << 32 | index as u64
    }
    fn unpack(word: u64) -> Self {
        let index = (word & 0xffff_ffff) as usize;
        match word >> 32 {
            1 => Self::Client(index),
            2 => Self::Process(index),
            3 => Self::Output(index, 0),
            4 => Self::Output(index, 1),
            5 => Self::Stdin(index),
            6 => Self::Channel(index),
            7 => Self::Port,
            8 => Self::Relay,
            15 => Self::Memory,
            9 => Self::Resolver(Part::Datagrams),
            10 => Self::Resolver(Part::Listener),
            11 => Self::Resolver(Part::Stream(index)),
            12 => Self::Resolver(Part::Forward(index)),
            13 => Self::Firewall,
            14 => Self::Restore,
            _ => Self::Listener,
        }
    }
}

/// One epoll instance.
pub struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    /// An empty one.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }
    /// Watches a descriptor.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn add(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.pack()), flags)?)
    }
    /// Changes what is watched for.
    pub fn change(&self, fd: impl AsFd, token: Token, flags: EventFlags) {
        let _ = epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token.pack()), flags);
    }
    /// Watches it no more.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }
    /// What is ready now, or after a wait. Process ends come last, so that output before them is seen first.
    pub fn wait(&self, timeout: Option<Duration>) -> Vec<(Token, EventFlags)> {
        // One millisecond more: a wait that ends early would spin.
        let timeout =
            timeout.and_then(|time| rustix::event::Timespec::try_from(time + Duration::from_millis(1)).ok());
        let mut events = Vec::with_capacity(16);
        if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let mut ready: Vec<_> =
            events.iter().map(|event| (Token::unpack(event.data.u64()), event.flags)).collect();
        ready.sort_by_key(|(token, _)| match token {
            Token::Process(0) => 2,
            Token::Process(_) => 1,
            _ => 0,
        });
        ready
    }
}
