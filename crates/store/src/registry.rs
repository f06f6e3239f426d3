//! Registries: the OCI distribution protocol (and Docker's token authentication), blocking, over `ureq`.
//!
//! Owns nothing on disk. What it pulls goes through [`Ingest`](crate::blob::Ingest), so every blob is verified while it
//! arrives; manifests and configurations are bounded and verified in memory. Credentials go to the registry that they
//! are for and to the token server that it names, over TLS or to loopback, and never follow a redirect to another host.

mod address;
mod auth;
mod http;
mod pull;
mod push;
mod refusal;
mod retry;
mod tls;
mod token;

use model::image::Platform;
use model::{Digest, Error, Reference, Result};

pub(crate) use pull::select;
pub use pull::{Inspected, Pulled};
pub use push::Pushed;

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
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// For the registry of the reference at hand only.
    pub credentials: Option<Credentials>,
    /// Registries (`host`, `host:port` or an address range) whose certificate is not checked and that may speak plain
    /// HTTP. Loopback always may.
    pub insecure: Vec<String>,
    /// Mirrors (URLs) of docker.io, asked first and without credentials.
    pub mirrors: Vec<String>,
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

/// The platform of this machine, in Go's words.
pub fn host_platform() -> Platform {
    Platform {
        architecture: go_architecture(std::env::consts::ARCH).to_owned(),
        os: "linux".to_owned(),
        variant: None,
    }
}

/// Parses `[os/]architecture[/variant]`.
///
/// # Errors
/// Anything else, and what is not linux.
pub fn parse_platform(text: &str) -> Result<Platform> {
    let bad = || Error::invalid(format!("invalid platform {text:?}: want linux/ARCHITECTURE[/VARIANT]"));
    let parts: Vec<&str> = text.split('/').collect();
    let valid = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    if !parts.iter().all(valid) {
        return Err(bad());
    }
    let (os, architecture, variant) = match parts[..] {
        ["linux"] => return Ok(host_platform()),
        [architecture] => ("linux", architecture, None),
        [os, architecture] => (os, architecture, None),
        [os, architecture, variant] => (os, architecture, Some(variant)),
        _ => return Err(bad()),
    };
    Ok(Platform {
        architecture: go_architecture(&architecture.to_ascii_lowercase()).to_owned(),
        os: os.to_ascii_lowercase(),
        variant: variant.map(str::to_ascii_lowercase),
    })
}

fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "powerpc64" => "ppc64le",
        "armhf" => "arm",
        other => other,
    }
}

/// `linux/amd64`.
pub(crate) fn platform_text(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if let Some(variant) = &platform.variant {
        text.push('/');
        text.push_str(variant);
    }
    text
}

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
    fn platforms() {
        let text = |text: &str| parse_platform(text).map(|platform| platform_text(&platform));
        assert_eq!(text("linux/amd64").unwrap(), "linux/amd64");
        assert_eq!(text("x86_64").unwrap(), "linux/amd64");
        assert_eq!(text("Linux/arm64/v8").unwrap(), "linux/arm64/v8");
        assert_eq!(text("aarch64").unwrap(), "linux/arm64");
        for bad in ["", "a/b/c/d", "linux/", "/amd64", "li nux/amd64"] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
    }

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
