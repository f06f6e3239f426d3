//! Registries: the OCI distribution protocol (and Docker's token authentication), blocking, over `ureq`.
//!
//! Owns nothing on disk. What it pulls goes through [`Ingest`](crate::blob::Ingest), so every blob is verified while it
//! arrives, and goes on where it broke off; manifests and configurations are bounded and verified in memory. Credentials go to the registry that they
//! are for and to the token server that it names, over TLS or to loopback, and never follow a redirect to another host.

mod address;
mod auth;
mod http;
mod layers;
mod platform;
mod pull;
mod push;
mod refusal;
mod retry;
mod search;
mod tls;
mod token;

use model::{Digest, Error, Reference, Result};

pub use platform::{host_platform, parse_platform};
pub use pull::{Inspected, Pulled, select};
pub use push::Pushed;
pub use search::Found;
/// How a user proves who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password (or access token).
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// A refresh token, from a login with `offline_token`.
    Identity(String),
    /// A ready bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    /// Never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// For the registry of the reference at hand only.
    pub credentials: Option<Credentials>,
    /// Registries (`host`, `host:port` or an address range) whose certificate is not checked and that may speak plain
    /// HTTP. Loopback always may.
    pub insecure: Vec<String>,
    /// Mirrors (URLs) of docker.io, asked first and without credentials.
    pub mirrors: Vec<String>,
    /// Layers that are downloaded at the same time.
    pub downloads: usize,
    /// Layers that are uploaded at the same time.
    pub uploads: usize,
}

impl Default for Access {
    /// No credentials, no mirrors; three layers down and five up at a time, as in Docker.
    fn default() -> Self {
        Self { credentials: None, insecure: Vec::new(), mirrors: Vec::new(), downloads: 3, uploads: 5 }
    }
}

/// One step of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is about: the first digits of a layer's digest, a tag, or nothing.
    pub id: String,
    /// Docker's word: `Downloading`, `Pull complete`, …
    pub status: String,
    /// Bytes done and bytes in all.
    pub bytes: Option<(u64, u64)>,
}

impl Progress {
    /// A step without bytes.
    pub fn new(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: id.into(), status: status.into(), bytes: None }
    }
}

/// Told of every step, from several threads. An error stops the transfer: the listener is gone.
pub type Report<'a> = &'a (dyn Fn(Progress) -> Result<()> + Sync);

/// The registry (a reference's domain) that a server address of a login means: `https://index.docker.io/v1/` is
/// `docker.io`.
pub fn domain_of(address: &str) -> String {
    let rest =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let host = rest.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => model::reference::DEFAULT_DOMAIN.to_owned(),
        host => host.to_owned(),
    }
}

/// Checks credentials against a registry. Returns an identity token where the registry gives one.
///
/// # Errors
/// They are wrong ([`Kind::Unauthorized`]), or the registry cannot be reached.
pub fn login(domain: &str, access: &Access) -> Result<String> {
    let client = http::Client::connect(domain, Vec::new(), access)?;
    client.login()
}

/// All tags of a repository.
///
/// # Errors
/// As for a pull.
pub fn tags(reference: &Reference, access: &Access) -> Result<Vec<String>> {
    pull::tags(reference, access)
}

/// What a registry has under a name, without pulling it.
///
/// # Errors
/// As for a pull.
pub fn inspect(reference: &Reference, access: &Access) -> Result<Inspected> {
    pull::inspect(reference, access)
}

/// A manifest or index as it is: its bytes, media type and digest.
///
/// # Errors
/// As for a pull.
pub fn manifest(reference: &Reference, access: &Access) -> Result<(Vec<u8>, String, Digest)> {
    pull::raw(reference, access)
}

/// A manifest that need be no image's, and its configuration.
///
/// # Errors
/// As for a pull.
pub fn artifact(reference: &Reference, access: &Access) -> Result<(model::image::Manifest, Vec<u8>)> {
    pull::artifact(reference, access)
}

/// Repositories that a registry finds for a term (`[HOST/]TERM`), `limit` at most.
///
/// # Errors
/// It has no search, says no, or cannot be reached.
pub fn search(term: &str, limit: usize, access: &Access) -> Result<Vec<Found>> {
    search::search(term, limit, access)
}

/// What a document's bytes must be.
fn verified(what: &str, bytes: &[u8], expected: &Digest) -> Result<()> {
    let digest = Digest::of(bytes);
    if digest == *expected {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} {expected}: the registry sent other content, with the digest {digest}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_addresses() {
        for (address, domain) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
        ] {
            assert_eq!(domain_of(address), domain);
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = Credentials::Basic { user: "me".to_owned(), password: "secret".to_owned() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
