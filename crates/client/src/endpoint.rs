//! Which engine: flags, environment and the Docker CLI's contexts (`~/.docker/contexts`), decided purely from
//! what is passed in, but for the context's files.

use crate::{Error, Options, Result};
use sha2::Digest;
use std::path::{Path, PathBuf};

/// Where the embedded engine keeps things.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Durable state.
    pub root: PathBuf,
    /// State that dies with the boot.
    pub run_root: PathBuf,
    /// The configuration file, where one is named.
    pub config: Option<PathBuf>,
}

/// TLS as `--tls`, `--tlsverify`, `--tlscacert`, `--tlscert`, `--tlskey` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Speak TLS.
    pub enabled: bool,
    /// Verify the engine's certificate.
    pub verify: bool,
    /// The certificate authority; the system's store is never used.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Our key.
    pub key: Option<PathBuf>,
}

/// A resolved engine.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// In this process.
    Embedded(Roots),
    /// Behind a unix socket.
    Unix(PathBuf),
    /// Behind TCP, with TLS where there are files.
    Tcp {
        /// `host:port`.
        address: String,
        /// TLS, where it is on.
        tls: Option<TlsFiles>,
    },
    /// Behind `ssh [-p port] destination cauldron system dial-stdio`, or `docker` there.
    Ssh {
        /// `user@host`.
        destination: String,
        /// Where not 22.
        port: Option<u16>,
        /// A unix socket there, where it is not the engine's usual one.
        socket: Option<String>,
    },
}

pub(crate) fn resolve(options: &Options, env: impl Fn(&str) -> Option<String>) -> Result<Endpoint> {
    if options.host.is_some() && options.context.is_some() {
        return Err(Error::Options(
            "conflicting options: either specify --host or --context, not both".to_owned(),
        ));
    }
    match choice(options, &env) {
        Choice::Host(host) => parse(&host, with_defaults(&options.tls, &env)),
        Choice::Context(context) => from_context(&context, options, &env),
        Choice::Nothing => Ok(Endpoint::Embedded(options.roots.clone())),
    }
}

/// Who says which engine it is.
enum Choice {
    Host(String),
    Context(String),
    Nothing,
}

/// Flags, then the environment, then what `context use` chose.
fn choice(options: &Options, env: &impl Fn(&str) -> Option<String>) -> Choice {
    if let Some(host) = &options.host {
        return Choice::Host(host.clone());
    }
    if let Some(context) = &options.context {
        return Choice::Context(context.clone());
    }
    if let Some(host) = env("CAULDRON_HOST").or_else(|| env("DOCKER_HOST")) {
        return Choice::Host(host);
    }
    let chosen = env("DOCKER_CONTEXT").or_else(|| chosen_context(&options.client_dir(env)));
    chosen.map_or(Choice::Nothing, Choice::Context)
}

/// The name of the context in force; `None` where a host or nothing is named.
pub fn current_context(options: &Options) -> Option<String> {
    match choice(options, &|name: &str| std::env::var(name).ok().filter(|value| !value.is_empty())) {
        Choice::Context(name) => Some(name),
        Choice::Host(_) | Choice::Nothing => None,
    }
}

/// What `context use` chose: `currentContext` of `config.json`.
pub fn chosen_context(dir: &Path) -> Option<String> {
    let bytes = std::fs::read(dir.join("config.json")).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let name = value["currentContext"].as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The name of a context's directories: the digest of its name.
pub fn context_id(name: &str) -> String {
    hex(&sha2::Sha256::digest(name.as_bytes()))
}

impl Options {
    /// Where the client keeps contexts and credentials: `--config`, `DOCKER_CONFIG`, `~/.docker`.
    fn client_dir(&self, env: &impl Fn(&str) -> Option<String>) -> PathBuf {
        self.config.clone().unwrap_or_else(|| docker_dir(env))
    }
}

fn docker_dir(env: &impl Fn(&str) -> Option<String>) -> PathBuf {
    match env("DOCKER_CONFIG") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env("HOME").unwrap_or_else(|| "/root".to_owned())).join(".docker"),
    }
}

/// `--tlsverify` and `DOCKER_TLS_VERIFY` look for `{ca,cert,key}.pem` in `DOCKER_CERT_PATH` or `~/.docker`.
fn with_defaults(tls: &TlsFiles, env: &impl Fn(&str) -> Option<String>) -> Option<TlsFiles> {
    let mut tls = tls.clone();
    if env("DOCKER_TLS_VERIFY").is_some() {
        tls.verify = true;
    }
    if env("DOCKER_TLS").is_some() || tls.verify {
        tls.enabled = true;
    }
    if !tls.enabled {
        return None;
    }
    let dir = env("DOCKER_CERT_PATH").map_or_else(|| docker_dir(env), PathBuf::from);
    let default = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    tls.ca = tls.ca.or_else(|| default("ca.pem"));
    tls.cert = tls.cert.or_else(|| default("cert.pem"));
    tls.key = tls.key.or_else(|| default("key.pem"));
    Some(tls)
}

fn parse(host: &str, tls: Option<TlsFiles>) -> Result<Endpoint> {
    let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
    let address = |port: u16| {
        let rest = rest.trim_end_matches('/');
        let rest = if rest.is_empty() { "localhost" } else { rest };
        let has_port = rest.rsplit_once(':').is_some_and(|(host, port)| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']'))
        });
        if has_port { rest.to_owned() } else { format!("{rest}:{port}") }
    };
    match scheme {
        "unix" => {
            let path = if rest.is_empty() { "/var/run/docker.sock" } else { rest };
            Ok(Endpoint::Unix(PathBuf::from(path)))
        }
        "tcp" => {
            let port = if tls.is_some() { 2376 } else { 2375 };
            Ok(Endpoint::Tcp { address: address(port), tls })
        }
        "http" => Ok(Endpoint::Tcp { address: address(2375), tls: None }),
        "https" => Ok(Endpoint::Tcp {
            address: address(2376),
            tls: Some(tls.unwrap_or(TlsFiles { enabled: true, verify: true, ..TlsFiles::default() })),
        }),
        "ssh" => {
            let (rest, socket) = match rest.find('/') {
                Some(at) => (&rest[..at], Some(rest[at..].to_owned()).filter(|path| path != "/")),
                None => (rest, None),
            };
            let (destination, port) = match rest.rsplit_once(':') {
                Some((destination, port)) => {
                    let port =
                        port.parse().map_err(|_| Error::Options(format!("invalid port in host {host}")))?;
                    (destination, Some(port))
                }
                None => (rest, None),
            };
            if destination.is_empty() || destination.starts_with('-') {
                return Err(Error::Options(format!("invalid ssh host: {host}")));
            }
            Ok(Endpoint::Ssh { destination: destination.to_owned(), port, socket })
        }
        _ => Err(Error::Options(format!(
            "unable to parse host \"{host}\": use unix://, tcp://, http://, https:// or ssh://"
        ))),
    }
}

fn from_context(name: &str, options: &Options, env: &impl Fn(&str) -> Option<String>) -> Result<Endpoint> {
    if name == "default" || name == "embedded" {
        return Ok(Endpoint::Embedded(options.roots.clone()));
    }
    let dir = options.client_dir(env).join("contexts");
    let id = context_id(name);
    let meta = dir.join("meta").join(&id).join("meta.json");
    let unknown = || {
        Error::Options(format!(
            "context \"{name}\": context not found: open {}: no such file or directory",
            meta.display()
        ))
    };
    let text = std::fs::read(&meta).map_err(|_| unknown())?;
    let value: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| Error::Options(format!("context \"{name}\": {}: {error}", meta.display())))?;
    let docker = &value["Endpoints"]["docker"];
    let host = docker["Host"].as_str().unwrap_or_default();
    if host.is_empty() {
        return Ok(Endpoint::Embedded(options.roots.clone()));
    }
    let skip_verify = docker["SkipTLSVerify"].as_bool().unwrap_or(false);
    parse(host, context_tls(&dir.join("tls").join(&id).join("docker"), skip_verify))
}

fn context_tls(dir: &Path, skip_verify: bool) -> Option<TlsFiles> {
    let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    (ca.is_some() || cert.is_some() || skip_verify).then_some(TlsFiles {
        enabled: true,
        verify: !skip_verify,
        ca,
        cert,
        key,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> String {
        match parse(host, None) {
            Ok(Endpoint::Unix(path)) => format!("unix {}", path.display()),
            Ok(Endpoint::Tcp { address, tls }) => {
                format!("tcp {address}{}", if tls.is_some() { " tls" } else { "" })
            }
            Ok(Endpoint::Ssh { destination, port, socket }) => {
                format!("ssh {destination} {port:?} {}", socket.unwrap_or_default())
            }
            Ok(Endpoint::Embedded(_)) => "embedded".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(at("unix:///run/x.sock"), "unix /run/x.sock");
        assert_eq!(at("tcp://10.0.0.1"), "tcp 10.0.0.1:2375");
        assert_eq!(at("10.0.0.1:99"), "tcp 10.0.0.1:99");
        assert_eq!(at("tcp://[::1]:99"), "tcp [::1]:99");
        assert_eq!(at("https://h"), "tcp h:2376 tls");
        assert_eq!(at("ssh://me@h:22"), "ssh me@h Some(22) ");
        assert_eq!(at("ssh://h/run/x.sock"), "ssh h None /run/x.sock");
        assert!(at("ssh://-oProxyCommand=x").starts_with("invalid ssh host"));
        assert!(at("npipe://x").starts_with("unable to parse host"));
    }

    #[test]
    fn order() {
        let mut options = Options::default();
        let env = |name: &str| (name == "DOCKER_HOST").then(|| "unix:///d".to_owned());
        assert!(matches!(resolve(&options, |_| None), Ok(Endpoint::Embedded(_))));
        assert!(matches!(resolve(&options, env), Ok(Endpoint::Unix(path)) if path == Path::new("/d")));
        options.host = Some("unix:///h".to_owned());
        assert!(matches!(resolve(&options, env), Ok(Endpoint::Unix(path)) if path == Path::new("/h")));
        options.context = Some("x".to_owned());
        assert!(resolve(&options, env).is_err());
    }
}
