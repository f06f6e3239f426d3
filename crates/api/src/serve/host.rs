//! What `-H` of `serve` says: where to listen, and what may be done there.

use engine::model::{Error, Result};
use std::path::PathBuf;

use crate::access::Access;

/// A listener: a place, and what those who connect there may do.
///
/// `unix://PATH`, `tcp://ADDRESS:PORT` or `fd://[NAME|NUMBER]`, then optionally `?read-only` and `allow=…` as of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub(super) place: Place,
    pub(super) access: Access,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A unix socket's path.
    Unix(PathBuf),
    /// A host name or address, and a port; `None` is the protocol's own (2375, or 2376 with TLS).
    Tcp(String, Option<u16>),
    /// Sockets that systemd listens on: all of them, or those of this name or number.
    Inherited(Option<String>),
}

/// Where `unix://` listens, as dockerd.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

impl Host {
    /// Parses what `-H` takes. What may be done there is `access`, further restricted by what the text says.
    ///
    /// # Errors
    /// Another scheme, a malformed address, an unknown capability.
    pub fn parse(text: &str, access: &Access) -> Result<Self> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let access =
            access.restricted(query).map_err(|error| Error::invalid(format!("host {text:?}: {error}")))?;
        Ok(Self { place: Place::parse(place)?, access })
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        let malformed = |what: &str| Error::invalid(format!("host {text:?}: {what}"));
        match text.split_once("://") {
            Some(("unix", "")) => Ok(Self::Unix(DEFAULT_SOCKET.into())),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("fd", "" | "*")) => Ok(Self::Inherited(None)),
            Some(("fd", name)) => Ok(Self::Inherited(Some(name.to_owned()))),
            Some(("tcp", address)) => {
                let address = address.trim_end_matches('/');
                let (host, port) = split_port(address).ok_or_else(|| malformed("want tcp://ADDRESS:PORT"))?;
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                if host.contains(['/', '@', '[', ']']) {
                    return Err(malformed("want tcp://ADDRESS:PORT"));
                }
                // As dockerd: no address means every one of this machine's, no word at all means loopback.
                let host = match (host, address) {
                    ("", "") => "127.0.0.1",
                    ("", _) => "0.0.0.0",
                    (host, _) => host,
                };
                Ok(Self::Tcp(host.to_owned(), port))
            }
            _ => Err(malformed("want unix://PATH, tcp://ADDRESS:PORT or fd://")),
        }
    }
}

/// `a:1` → (`a`, 1), `[::1]` → (`[::1]`, none).
fn split_port(address: &str) -> Option<(&str, Option<u16>)> {
    match address.rsplit_once(':') {
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => Some((address, None)),
        Some((_, port)) if port.ends_with(']') => Some((address, None)),
        Some((host, port)) => port.parse().ok().map(|port| (host, Some(port))),
        None => Some((address, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |text: &str| Place::parse(text).map_err(|error| error.to_string());
        let tcp = |host: &str, port| Ok(Place::Tcp(host.to_owned(), port));
        assert_eq!(place("unix:///run/x.sock"), Ok(Place::Unix("/run/x.sock".into())));
        assert_eq!(place("unix://"), Ok(Place::Unix(DEFAULT_SOCKET.into())));
        assert_eq!(place("fd://"), Ok(Place::Inherited(None)));
        assert_eq!(place("fd://docker"), Ok(Place::Inherited(Some("docker".to_owned()))));
        assert_eq!(place("tcp://"), tcp("127.0.0.1", None));
        assert_eq!(place("tcp://:2375"), tcp("0.0.0.0", Some(2375)));
        assert_eq!(place("tcp://127.0.0.1:0/"), tcp("127.0.0.1", Some(0)));
        assert_eq!(place("tcp://localhost"), tcp("localhost", None));
        assert_eq!(place("tcp://[::1]:99"), tcp("::1", Some(99)));
        assert_eq!(place("tcp://[::1]"), tcp("::1", None));
        assert_eq!(place("tcp://::1"), tcp("::1", None));
        for bad in ["", "http://x", "tcp://x:port", "tcp://a:99999", "tcp://a/b:1", "/run/x.sock"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_listener_may_be_restricted() {
        let full = Access::default();
        let host = Host::parse("unix:///x?read-only&allow=containers:read,logs", &full).unwrap();
        assert_eq!(host.place, Place::Unix("/x".into()));
        assert_ne!(host.access, full);
        assert!(Host::parse("unix:///x?allow=nothing", &full).is_err());
        assert!(Host::parse("unix:///x?readonly", &full).is_err());
    }
}
