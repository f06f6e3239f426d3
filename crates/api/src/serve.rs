//! The Router on sockets: unix (0660) and TCP on loopback, several at once, until SIGTERM or SIGINT.

use crate::Shared;
use crate::hijack::Peer;
use axum::body::Body;
use axum::http::Request;
use engine::model::error::Context as _;
use engine::model::{Error, Result};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tower::Service as _;

/// How long running requests are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix://PATH`.
    Unix(PathBuf),
    /// `tcp://ADDRESS:PORT`, on loopback only: whoever reaches the API is root.
    Tcp(SocketAddr),
}

impl Host {
    /// Parses what `-H` takes.
    ///
    /// # Errors
    /// Another scheme, a malformed address, or plain TCP off loopback.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            return match path {
                "" => Err(Error::invalid(format!("host {text:?}: a path is missing"))),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return Err(Error::invalid(format!("host {text:?}: want unix://PATH or tcp://ADDRESS:PORT")));
        };
        let address = address.trim_end_matches('/').replace("localhost:", "127.0.0.1:");
        let address: SocketAddr =
            address.parse().map_err(|error| Error::invalid(format!("host {text:?}")).caused_by(error))?;
        if !address.ip().is_loopback() {
            return Err(Error::invalid(format!("host {text:?}: plain TCP is served on loopback only"))
                .hint("whoever reaches this port is root on this machine"));
        }
        Ok(Self::Tcp(address))
    }
}

/// A bound socket.
enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// Serves the API on these hosts until SIGTERM or SIGINT. `ready` is called once all of them listen, with the addresses
/// as they are (a port 0 was chosen).
///
/// # Errors
/// A host cannot be listened on.
pub fn serve(engine: &Shared, hosts: &[Host], ready: impl FnOnce(&[String])) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the event loop")?;
    let result = runtime.block_on(run(engine, hosts, ready));
    runtime.shutdown_timeout(GRACE);
    result
}

async fn run(engine: &Shared, hosts: &[Host], ready: impl FnOnce(&[String])) -> Result<()> {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for host in hosts {
        let (listener, address) = bind(host).await?;
        listeners.push(listener);
        addresses.push(address);
    }
    let mut terminate = signal(SignalKind::terminate()).context(|| "wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context(|| "wait for SIGINT")?;
    ready(&addresses);
    let (stop, stopping) = watch::channel(false);
    let sockets: Vec<PathBuf> = listeners
        .iter()
        .filter_map(|listener| if let Listener::Unix(_, path) = listener { Some(path.clone()) } else { None })
        .collect();
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(accept(listener, Arc::clone(engine), stopping.clone())))
        .collect();
    drop(stopping);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    for socket in sockets {
        let _ = std::fs::remove_file(socket);
    }
    let _ = stop.send(true);
    for task in accepting {
        let _ = task.await;
    }
    // Each connection holds a receiver until it is done.
    let _ = tokio::time::timeout(GRACE, stop.closed()).await;
    Ok(())
}

async fn bind(host: &Host) -> Result<(Listener, String)> {
    match host {
        Host::Unix(path) => {
            let shown = format!("unix://{}", path.display());
            let what = || format!("listen on {shown}");
            remove_stale(path)?;
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).context(what)?;
            }
            let listener = UnixListener::bind(path).context(what)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).context(what)?;
            Ok((Listener::Unix(listener, path.clone()), shown.clone()))
        }
        Host::Tcp(address) => {
            let what = || format!("listen on tcp://{address}");
            let listener = TcpListener::bind(address).await.context(what)?;
            let bound = listener.local_addr().context(what)?;
            Ok((Listener::Tcp(listener), format!("tcp://{bound}")))
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(Error::conflict(format!("listen on unix://{}: a file is in the way", path.display())));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::conflict(format!(
            "listen on unix://{}: another process listens there",
            path.display()
        )));
    }
    std::fs::remove_file(path).context(|| format!("remove {}", path.display()))
}

async fn accept(listener: Listener, engine: Shared, mut stopping: watch::Receiver<bool>) {
    loop {
        let stop = stopping.clone();
        tokio::select! {
            _ = stopping.changed() => return,
            accepted = async {
                match &listener {
                    Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
                    Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                }
            } => match accepted {
                Ok(Stream::Unix(stream)) => drop(tokio::spawn(connection(stream, Arc::clone(&engine), stop))),
                Ok(Stream::Tcp(stream)) => {
                    let _ = stream.set_nodelay(true);
                    drop(tokio::spawn(connection(stream, Arc::clone(&engine), stop)));
                }
                // Out of descriptors, say: let some connections end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

async fn connection<S>(stream: S, engine: Shared, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
{
    let router = crate::router(engine);
    let peer = stream.as_fd().try_clone_to_owned().ok().map(|socket| Peer(Arc::new(socket)));
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let mut router = router.clone();
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        async move { router.call(request.map(Body::new)).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // A client that goes away is no error.
        _ = &mut connection => return,
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tcp_stays_on_loopback() {
        assert_eq!(Host::parse("unix:///run/x.sock").unwrap(), Host::Unix("/run/x.sock".into()));
        assert!(matches!(Host::parse("tcp://127.0.0.1:0").unwrap(), Host::Tcp(_)));
        assert!(matches!(Host::parse("tcp://localhost:2375").unwrap(), Host::Tcp(_)));
        for bad in
            ["", "unix://", "tcp://0.0.0.0:2375", "tcp://192.0.2.1:2375", "http://x", "tcp://127.0.0.1"]
        {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }
}
