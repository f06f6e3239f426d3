//! One connection a request, whatever is underneath.

use crate::{Endpoint, Error, Result, tls};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

/// A connection's two directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Router = axum::routing::RouterIntoService<axum::body::Body>;

/// Bytes in flight in each direction of an in-process connection.
const DUPLEX_BYTES: usize = 256 * 1024;

/// Opens connections to one engine.
#[derive(Clone)]
pub(crate) enum Transport {
    Embedded(Router),
    Unix(PathBuf),
    Tcp(String),
    Tls { address: String, config: Arc<rustls::ClientConfig> },
    Ssh { destination: String, port: Option<u16>, socket: Option<String> },
}

impl Transport {
    pub(crate) fn open(endpoint: &Endpoint) -> Result<Self> {
        Ok(match endpoint {
            Endpoint::Embedded(roots) => {
                let engine = api::open(roots.root.clone(), roots.run_root.clone(), roots.config.clone())
                    .map_err(|failure| Error::Engine { status: 500, message: failure.text() })?;
                Self::Embedded(api::router(engine))
            }
            Endpoint::Unix(path) => Self::Unix(path.clone()),
            Endpoint::Tcp { address, tls: None } => Self::Tcp(address.clone()),
            Endpoint::Tcp { address, tls: Some(files) } => {
                Self::Tls { address: address.clone(), config: tls::config(files)? }
            }
            Endpoint::Ssh { destination, port, socket } => {
                Self::Ssh { destination: destination.clone(), port: *port, socket: socket.clone() }
            }
        })
    }

    /// Sends one request on a connection of its own. An upgraded connection stays with the response.
    pub(crate) async fn send<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        relative(&mut request)?;
        let io = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| Error::Connect(format!("{}: {error}", self.name())))?;
        tokio::spawn(async move {
            // A broken connection is reported by the response or its body.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.map_err(|error| {
            Error::Connect(format!("error during connect: {}: {}", self.name(), chain(&error)))
        })
    }

    pub(crate) async fn connect(&self) -> Result<Box<dyn Io>> {
        let failed = |error: std::io::Error| {
            Error::Connect(format!(
                "Cannot connect to the engine at {}: {error}. Is it running?\nWithout -H, DOCKER_HOST or a context, cauldron needs no daemon.",
                self.name()
            ))
        };
        Ok(match self {
            Self::Embedded(router) => {
                let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
                tokio::spawn(serve(router.clone(), far));
                Box::new(near)
            }
            Self::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await.map_err(failed)?),
            Self::Tcp(address) => Box::new(tokio::net::TcpStream::connect(address).await.map_err(failed)?),
            Self::Tls { address, config } => {
                let stream = tokio::net::TcpStream::connect(address).await.map_err(failed)?;
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                let name = rustls_pki_types::ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                    .map_err(|error| Error::Options(format!("host {host}: {error}")))?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name, stream).await.map_err(failed)?)
            }
            Self::Ssh { destination, port, socket } => {
                Box::new(ssh(destination, *port, socket.as_deref()).map_err(failed)?)
            }
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Embedded(_) => "the embedded engine".to_owned(),
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls { address, .. } => format!("tcp://{address}"),
            Self::Ssh { destination, .. } => format!("ssh://{destination}"),
        }
    }
}

/// HTTP/1 wants a `Host` and only path and query; bollard's custom transports are handed an absolute URI.
fn relative<B>(request: &mut Request<B>) -> Result<()> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() =
        path.parse::<Uri>().map_err(|error| Error::Options(format!("malformed request {path}: {error}")))?;
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("docker"));
    Ok(())
}

async fn serve(router: Router, io: tokio::io::DuplexStream) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let request = request.map(axum::body::Body::new);
        router.clone().call(request)
    });
    // A client that goes away is no error.
    let _ = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await;
}

/// The standard streams of `ssh … dial-stdio` as one connection; dropped, the child is killed.
struct Piped {
    _child: tokio::process::Child,
    stdin: Option<tokio::process::ChildStdin>,
    stdout: tokio::process::ChildStdout,
}

/// What is executed there. A Cauldron has no daemon to dial: its `dial-stdio` serves its engine on the pipe.
fn remote_command(socket: Option<&str>) -> String {
    let host =
        socket.map_or_else(String::new, |path| format!("--host {} ", quoted(&format!("unix://{path}"))));
    let script = format!(
        "if command -v cauldron >/dev/null 2>&1; then exec cauldron {host}system dial-stdio; else exec docker {host}system dial-stdio; fi"
    );
    format!("exec sh -c {}", quoted(&script))
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn ssh(destination: &str, port: Option<u16>, socket: Option<&str>) -> std::io::Result<Piped> {
    let mut command = tokio::process::Command::new("ssh");
    if let Some(port) = port {
        command.arg("-p").arg(port.to_string());
    }
    let mut child = command
        .args(["-o", "ConnectTimeout=30", "-T", "--", destination, &remote_command(socket)])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let gone = || std::io::Error::other("ssh has no standard streams");
    let stdin = child.stdin.take().ok_or_else(gone)?;
    let stdout = child.stdout.take().ok_or_else(gone)?;
    Ok(Piped { _child: child, stdin: Some(stdin), stdout })
}

impl AsyncRead for Piped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(context, bytes),
            None => std::task::Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }
    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(context),
            None => std::task::Poll::Ready(Ok(())),
        }
    }
    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.stdin = None;
        std::task::Poll::Ready(Ok(()))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_socket_is_an_argument_whatever_its_name() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = std::env::temp_dir().join(format!("cauldron-ssh-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let program = dir.join("cauldron");
        std::fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let told = |socket: Option<&str>| {
            let output = std::process::Command::new("/bin/sh")
                .args(["-c", &remote_command(socket)])
                .env("PATH", format!("{}:/bin:/usr/bin", dir.display()))
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(told(None), "system\ndial-stdio\n");
        let odd = "/run/it's; $(echo odd) `x`.sock";
        assert_eq!(told(Some(odd)), format!("--host\nunix://{odd}\nsystem\ndial-stdio\n"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
