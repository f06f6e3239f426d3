//! From a choice of engine to a client of the Docker Engine API.
//!
//! With no host named the engine is this very process: the API's Router is served over an in-memory connection,
//! so there is one code path whether the engine is here, behind a socket, behind TLS or behind ssh. Two faces
//! over one transport: [`Client::docker`] is a typed bollard client; the raw calls of [`Client`] pass JSON through as
//! it came (so that `inspect` shows every field an engine sends), hijack connections, and reach `/cauldron/v1/…`.
//!
//! One connection a request: attach, wait and start of one container must not queue behind each other.

pub mod authority;
mod call;
mod demultiplex;
mod endpoint;
mod error;
mod tls;
mod transport;

pub use call::{Body, Chunks, Client, Lines, body_channel, encode, query};
pub use demultiplex::Demultiplexer;
pub use endpoint::{Endpoint, Roots, TlsFiles, chosen_context, context_id, current_context};
pub use error::{Error, Result};
pub use transport::Io;

pub use api::failpoint;
pub use bollard;
pub use hyper::Method;

/// An answer whose body is unread.
pub type Response = hyper::Response<hyper::body::Incoming>;

/// How to find the engine.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-H`: unix://, tcp://, http://, https:// or ssh://.
    pub host: Option<String>,
    /// `--context`: a context of the Docker CLI.
    pub context: Option<String>,
    /// `--tls*`.
    pub tls: TlsFiles,
    /// `--config`: contexts and credentials.
    pub config: Option<std::path::PathBuf>,
    /// Where the embedded engine keeps things.
    pub roots: Roots,
}

/// Finds the engine and returns its client. Nothing is sent yet.
///
/// The order: `host`, `context`, `CAULDRON_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the context that
/// `context use` chose, embedded.
///
/// # Errors
/// The host or context is malformed or unknown, certificates cannot be read, or the embedded engine cannot be opened.
pub fn connect(options: &Options) -> Result<Client> {
    let endpoint =
        endpoint::resolve(options, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
    Ok(Client::new(transport::Transport::open(&endpoint)?, endpoint))
}
