//! One connection: TLS where it is on, then HTTP/1 with limits, so that a client that sends little or reads slowly costs
//! little and not for long.

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service as _;

use super::listener::Stream;
use super::raw::Raw;
use crate::hijack::Peer;

/// A client gets so long to say hello.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client gets so long to send a request's head, and a connection without a request lasts so long.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a request's head, and bytes of a connection's buffers.
const HEAD_BYTES: usize = 128 << 10;
/// Header fields of a request.
const HEADERS: usize = 128;

/// What a connection goes to.
pub(super) type Router = axum::routing::RouterIntoService<Body>;

/// Serves a connection until its client or the server has had enough.
///
/// # Errors
/// The client was not let in by TLS.
pub(super) async fn serve(
    stream: Stream,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stopping: watch::Receiver<bool>,
) -> Result<(), String> {
    let stream = match stream {
        Stream::Unix(stream) => {
            let peer = peer(&stream);
            http(stream, peer, router, stopping).await;
            return Ok(());
        }
        Stream::Tcp(stream) => stream,
    };
    let _ = stream.set_nodelay(true);
    keep_alive(&stream);
    let peer = peer(&stream);
    let Some(config) = tls else {
        http(stream, peer, router, stopping).await;
        return Ok(());
    };
    let from = stream.peer_addr().map_or_else(|_| "a client".to_owned(), |address| address.to_string());
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE, accept).await {
        Ok(Ok(stream)) => http(stream, peer, router, stopping).await,
        Ok(Err(error)) => return Err(format!("TLS handshake with {from}: {error}")),
        Err(_) => return Err(format!("TLS handshake with {from}: timed out")),
    }
    Ok(())
}

fn peer(stream: &impl AsFd) -> Option<Peer> {
    stream.as_fd().try_clone_to_owned().ok().map(|socket| Peer(Arc::new(socket)))
}

/// A client whose machine is gone, or that closed a connection on which nothing is sent, is noticed within two minutes.
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    let seconds = Duration::from_secs;
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, seconds(30));
    let _ = sockopt::set_tcp_keepintvl(stream, seconds(10));
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
    // Milliseconds: sent bytes that nobody acknowledges.
    let _ = sockopt::set_tcp_user_timeout(stream, 60_000);
}

async fn http<S>(stream: S, peer: Option<Peer>, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let mut router = router.clone();
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        async move { router.call(request.map(Body::new)).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(Raw::new(stream)), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // A client that goes away is no error.
        _ = &mut connection => return,
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
