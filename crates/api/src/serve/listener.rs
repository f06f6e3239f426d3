//! Listening sockets: unix sockets of our own, TCP, and those that systemd passes.

use engine::model::error::Context as _;
use engine::model::{Error, Result};
use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::host::{Host, Place};
use super::{Options, supervisor};
use crate::access::Access;

/// A bound socket and what may be done there.
pub(super) struct Listener {
    socket: Socket,
    pub(super) access: Access,
    /// As `-H` would name it, with the port that was chosen.
    pub(super) address: String,
    /// Ours to remove in the end.
    pub(super) file: Option<SocketFile>,
}

enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A unix socket's file, removed in the end unless another one has taken its place.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |meta: &std::fs::Metadata| (meta.dev(), meta.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| same(&meta)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// The next connection.
    pub(super) async fn accept(&self) -> std::io::Result<Stream> {
        match &self.socket {
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
        }
    }

    /// Binds what a host names: several sockets where the name has several addresses, or systemd passed several.
    ///
    /// # Errors
    /// It cannot be listened on, or everyone on the network would be root here.
    pub(super) async fn bind(host: &Host, options: &Options) -> Result<Vec<Self>> {
        let access = || host.access.clone();
        match &host.place {
            Place::Unix(path) => {
                let (socket, file) = bind_unix(path, options)?;
                let address = format!("unix://{}", path.display());
                Ok(vec![Self { socket: Socket::Unix(socket), access: access(), address, file: Some(file) }])
            }
            Place::Tcp(name, port) => {
                let port = port.unwrap_or(if options.tls.is_some() { 2376 } else { 2375 });
                let what = || format!("listen on tcp://{name}:{port}");
                let addresses = tokio::net::lookup_host((name.as_str(), port)).await.context(what)?;
                let mut all = Vec::new();
                for address in addresses {
                    reachable_by_few(address.ip(), options)?;
                    let socket = TcpListener::bind(address).await.context(what)?;
                    let address = format!("tcp://{}", socket.local_addr().context(what)?);
                    all.push(Self { socket: Socket::Tcp(socket), access: access(), address, file: None });
                    if port == 0 {
                        // Another address of the name would get another port.
                        break;
                    }
                }
                Ok(all)
            }
            Place::Inherited(wanted) => supervisor::passed(wanted.as_deref())?
                .into_iter()
                .map(|index| {
                    let what = || format!("listen on fd://{}", index + 3);
                    let socket = engine::system::passed_socket(index).context(what)?;
                    let (socket, address) = adopt(socket, options).context(what)?;
                    Ok(Self { socket, access: access(), address, file: None })
                })
                .collect(),
        }
    }
}

/// Whoever reaches the API is root on this machine: a port for other machines needs mutual TLS, or a flag that says
/// what it does.
fn reachable_by_few(address: IpAddr, options: &Options) -> Result<()> {
    let verified = options.tls.as_ref().is_some_and(|tls| tls.verify);
    if address.is_loopback() || verified || options.insecure {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "listen on tcp://{address}: without verified client certificates TCP is served on loopback only"
    ))
    .hint(
        "whoever reaches this port is root on this machine: use --tlsverify (see \"cauldron tls\"), or accept that with \
         --insecure-tcp-without-authentication",
    ))
}

/// Binds with no permissions for anybody, then gives the socket its owner and mode: nobody connects in between.
fn bind_unix(path: &Path, options: &Options) -> Result<(UnixListener, SocketFile)> {
    let what = || format!("listen on unix://{}", path.display());
    remove_stale(path)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(what)?;
    }
    let owner = options.group.as_deref().map(group_id).transpose()?;
    let listener = bind_closed(path).context(what)?;
    let meta = std::fs::symlink_metadata(path).context(what)?;
    // From here on the file is removed whatever happens.
    let file = SocketFile { path: path.to_owned(), identity: (meta.dev(), meta.ino()) };
    if let Some(gid) = owner {
        std::os::unix::fs::chown(path, None, Some(gid)).context(what)?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(options.mode)).context(what)?;
    Ok((listener, file))
}

/// The socket's file takes its mode from the socket, as it is before it is bound (`unix_bind`, Linux): the umask, which is
/// the whole process's, is left alone.
fn bind_closed(path: &Path) -> std::io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::empty())?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A group's number, by name or as it is.
fn group_id(group: &str) -> Result<u32> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let text = std::fs::read_to_string("/etc/group").context(|| "read /etc/group")?;
    let gid = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    gid.ok_or_else(|| Error::not_found(format!("group {group:?}: there is none on this machine")))
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !meta.file_type().is_socket() {
        return Err(Error::conflict(format!("listen on unix://{shown}: a file is in the way")));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::conflict(format!("listen on unix://{shown}: another process listens there")));
    }
    std::fs::remove_file(path).context(|| format!("remove {shown}"))
}

/// A socket that was passed, which must be one that listens.
fn adopt(socket: OwnedFd, options: &Options) -> Result<(Socket, String)> {
    use rustix::net::{AddressFamily, sockopt};
    let what = || "take over the passed socket";
    if !sockopt::socket_acceptconn(&socket).map_err(std::io::Error::from).context(what)? {
        return Err(Error::invalid("the passed socket does not listen"));
    }
    let family = sockopt::socket_domain(&socket).map_err(std::io::Error::from).context(what)?;
    if family == AddressFamily::UNIX {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true).context(what)?;
        let path = listener.local_addr().ok().and_then(|address| Some(address.as_pathname()?.to_owned()));
        let shown = path.map_or_else(|| "fd://".to_owned(), |path| format!("unix://{}", path.display()));
        return Ok((Socket::Unix(UnixListener::from_std(listener).context(what)?), shown));
    }
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true).context(what)?;
    let address: SocketAddr = listener.local_addr().context(what)?;
    reachable_by_few(address.ip(), options)?;
    Ok((Socket::Tcp(TcpListener::from_std(listener).context(what)?), format!("tcp://{address}")))
}
