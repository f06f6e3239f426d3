//! Unix sockets: message pairs that carry descriptors, and sockets whose path would be too long (`sun_path` has 108
//! bytes) reached through a directory descriptor; and sockets that hold a port.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Bytes of one message.
pub const MESSAGE_BYTES: usize = 16 << 10;

/// A connected pair of message sockets (`SOCK_SEQPACKET`).
///
/// # Errors
/// Those of `socketpair(2)`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Bytes that were sent and that the other end has not read (a unix socket) or not acknowledged (TCP).
///
/// # Errors
/// Those of `ioctl(2)` with `SIOCOUTQ` (`unix(7)`, `tcp(7)`).
pub fn unread(socket: impl AsFd) -> io::Result<usize> {
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: this request writes one int, which the getter provides.
    let count: i32 = unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) }?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Sends one message, with a descriptor where given.
///
/// # Errors
/// Those of `sendmsg(2)`; never SIGPIPE.
pub fn send(socket: impl AsFd, message: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = fd {
        fds = [fd.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    loop {
        match rustix::net::sendmsg(
            socket.as_fd(),
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Receives one message of at most [`MESSAGE_BYTES`] and the descriptor that came with it. An empty message means that
/// the other end is closed.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut buffer)];
        let length = match rustix::net::recvmsg(socket.as_fd(), parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        {
            // The other end closed with something of ours unread. Said once; what it sent before comes after.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => continue,
            other => other?.bytes,
        };
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last().or(fd);
            }
        }
        buffer.truncate(length);
        buffer.shrink_to_fit();
        return Ok((buffer, fd));
    }
}

fn reachable(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let name = path.file_name().ok_or(rustix::io::Errno::INVAL)?;
    let dir = crate::fs::open_root(path.parent().unwrap_or(Path::new(".")))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((dir, short))
}

/// Connects to a socket by a path of any length.
///
/// # Errors
/// Those of `connect(2)`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_dir, short) = reachable(path)?;
    UnixStream::connect(short)
}

/// Listens on a socket at a path of any length.
///
/// # Errors
/// Those of `bind(2)` and `listen(2)`.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let (_dir, short) = reachable(path)?;
    UnixListener::bind(short)
}

/// Lets a socket hold so many bytes that its reader has not taken yet, beyond the system's limit where allowed.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn set_send_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    match rustix::net::sockopt::set_socket_send_buffer_size_force(socket.as_fd(), bytes) {
        Err(rustix::io::Errno::PERM) => Ok(rustix::net::sockopt::set_socket_send_buffer_size(socket, bytes)?),
        other => Ok(other?),
    }
}

/// A transport whose ports can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Takes a port for oneself: a socket that listens (UDP: is bound), not blocking, for the address's family alone. A
/// socket that is bound and does not listen would not do: with `SO_REUSEADDR` others may bind beside it. `None`: the
/// kernel lacks the protocol or the family, so nobody can have the port.
///
/// # Errors
/// `EADDRINUSE`: somebody has it. `EADDRNOTAVAIL`: the address is not this machine's.
pub fn hold_port(transport: Transport, address: SocketAddr) -> io::Result<Option<OwnedFd>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SocketType::STREAM, None),
        Transport::Udp => (SocketType::DGRAM, None),
        Transport::Sctp => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match rustix::net::socket_with(family, kind, flags, protocol) {
        Ok(socket) => socket,
        Err(
            rustix::io::Errno::PROTONOSUPPORT
            | rustix::io::Errno::SOCKTNOSUPPORT
            | rustix::io::Errno::AFNOSUPPORT,
        ) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if transport == Transport::Tcp {
        // Old connections in TIME_WAIT are no obstacle, listeners are.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if transport != Transport::Udp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(Some(socket))
}

/// Connections that wait to be accepted on a held port.
const BACKLOG: i32 = 128;

/// A descriptor that the process was started with, counted from 3 (sd_listen_fds(3)), as one of our own. The one that
/// was passed is from then on closed by `execve`.
///
/// # Errors
/// `EBADF`: there is none.
pub fn passed(index: usize) -> io::Result<OwnedFd> {
    let number = index.checked_add(3).and_then(|number| i32::try_from(number).ok());
    let number = number.ok_or(rustix::io::Errno::BADF)?;
    // SAFETY: the descriptor is only looked at within this function, by calls that answer EBADF where it is not open;
    // nothing of ours is closed or taken over.
    let passed = unsafe { BorrowedFd::borrow_raw(number) };
    let own = rustix::io::fcntl_dupfd_cloexec(passed, 3)?;
    rustix::io::fcntl_setfd(passed, rustix::io::FdFlags::CLOEXEC)?;
    Ok(own)
}
