//! One connection: TLS where it is on, then HTTP/1 with limits, so that a client that sends little or reads slowly costs
//! little and not for long.

use axum::body::Body;
use axum::http::{Request, Uri, header};
use axum::response::IntoResponse as _;
use engine::model::{Error, Kind};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service as _;

use super::listener::Stream;
use super::raw::Raw;
use crate::Failure;
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
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    router: Router,
    stopping: watch::Receiver<bool>,
) -> Result<(), String> {
    let stream = match stream {
        Stream::Unix(stream) => {
            let peer = peer(&stream);
            http(stream, peer, router, Pages::Any, stopped(stopping)).await;
            return Ok(());
        }
        Stream::Tcp(stream) => stream,
    };
    let _ = stream.set_nodelay(true);
    keep_alive(&stream);
    let peer = peer(&stream);
    let Some(mut tls) = tls else {
        let on_loopback = stream.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let pages = if on_loopback { Pages::OwnNameOnly } else { Pages::OwnOnly };
        http(stream, peer, router, pages, stopped(stopping)).await;
        return Ok(());
    };
    let from = stream.peer_addr().map_or_else(|_| "a client".to_owned(), |address| address.to_string());
    let config = Arc::clone(&tls.borrow_and_update());
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    // Who was let in by files that are no longer in force must be let in again: it may have been revoked.
    let over = async move {
        tokio::select! {
            () = stopped(stopping) => {}
            _ = tls.changed() => {}
        }
    };
    match tokio::time::timeout(HANDSHAKE, accept).await {
        Ok(Ok(stream)) => http(stream, peer, router, Pages::OwnOnly, over).await,
        Ok(Err(error)) => return Err(format!("TLS handshake with {from}: {error}")),
        Err(_) => return Err(format!("TLS handshake with {from}: timed out")),
    }
    Ok(())
}

/// Ends when the server does. Each connection holds the receiver until it is done.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error says that the server is gone already.
    let _ = stopping.changed().await;
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

/// What a browser could be made to send here is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// No browser reaches a unix socket.
    Any,
    /// Requests of other machines' pages are refused: browsers tell whose page it is. A browser may even have a client
    /// certificate, which it sends whatever page asks.
    OwnOnly,
    /// As `OwnOnly`, and the server must be called by an address or a name of this machine: on loopback, where nobody
    /// authenticates, a name that somebody lets point here would make any page one of ours (DNS rebinding).
    OwnNameOnly,
}

impl Pages {
    fn refuse(self, request: &Request<Incoming>) -> Option<&'static str> {
        let text = |name: header::HeaderName| {
            request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
        };
        if self != Self::Any && text(header::ORIGIN).is_some_and(|origin| !is_of_this_machine(origin)) {
            return Some("requests of web pages are refused");
        }
        if self == Self::OwnNameOnly && text(header::HOST).is_some_and(|host| !is_a_plain_name(host)) {
            return Some(
                "where nobody authenticates, this port is to be called by an address or as localhost, not by another name",
            );
        }
        None
    }
}

/// An address, or a name without a dot (`localhost`, `docker`): no name that the world's DNS gives out.
fn is_a_plain_name(host: &str) -> bool {
    let Ok(host) = host.parse::<axum::http::uri::Authority>() else { return host.is_empty() };
    let name = host.host().trim_matches(['[', ']']);
    name.parse::<IpAddr>().is_ok() || !name.trim_end_matches('.').contains('.')
}

/// `http://localhost:3000` and loopback addresses.
fn is_of_this_machine(origin: &str) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let host = origin.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn http<S>(stream: S, peer: Option<Peer>, router: Router, pages: Pages, over: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let mut router = router.clone();
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        async move {
            if let Some(text) = pages.refuse(&request) {
                return Ok(Failure(Error::new(Kind::PermissionDenied, text)).into_response());
            }
            router.call(request.map(Body::new)).await
        }
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
        () = over => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::{is_a_plain_name, is_of_this_machine};

    #[test]
    fn whose_page_it_is() {
        for own in ["http://localhost", "http://localhost:3000", "http://127.0.0.1:8080", "https://[::1]:1"] {
            assert!(is_of_this_machine(own), "{own}");
        }
        for foreign in [
            "null",
            "",
            "http://evil.example",
            "http://localhost.evil.example",
            "http://192.0.2.1",
            "http://127.0.0.1.evil.example",
        ] {
            assert!(!is_of_this_machine(foreign), "{foreign}");
        }
    }

    #[test]
    fn by_which_name_it_was_called() {
        for plain in ["", "docker", "localhost:2375", "127.0.0.1", "192.0.2.1:2375", "[::1]:2375"] {
            assert!(is_a_plain_name(plain), "{plain}");
        }
        for name in
            ["evil.example", "evil.example:2375", "localhost.evil.example", "127.0.0.1.evil.example", "a b"]
        {
            assert!(!is_a_plain_name(name), "{name}");
        }
    }
}
