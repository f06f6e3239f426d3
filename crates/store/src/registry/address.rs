//! Addresses: which host a URL means, which hosts are one, which may speak plain HTTP.

use model::network::Cidr;
use model::{Error, Kind, Result};
use std::net::{IpAddr, ToSocketAddrs as _};
use ureq::http::Uri;

/// `https://host:port` of a URL, lower case, with the port always there.
pub(super) fn origin(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return String::new() };
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    format!("{scheme}://{}:{port}", uri.host().unwrap_or_default().to_ascii_lowercase())
}

/// Host and port of a URL as written.
pub(super) fn host_of(url: &str) -> String {
    url.parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(|authority| authority.to_string()))
        .map(|authority| authority.rsplit('@').next().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

/// The host alone.
pub(super) fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

pub(super) fn is_loopback(host: &str) -> bool {
    let host = without_port(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `insecure-registries` names this host. A range of addresses covers a name that leads into it, as in Docker.
pub(super) fn is_listed(entries: &[String], host: &str) -> bool {
    let bare = without_port(host);
    if entries.iter().any(|entry| entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(bare)) {
        return true;
    }
    let ranges: Vec<Cidr> = entries.iter().filter_map(|entry| Cidr::parse(entry).ok()).collect();
    if ranges.is_empty() {
        return false;
    }
    let covered = |address: IpAddr| ranges.iter().any(|range| range.contains(address));
    match bare.parse::<IpAddr>() {
        Ok(address) => covered(address),
        Err(_) => {
            (bare, 443).to_socket_addrs().is_ok_and(|mut found| found.any(|address| covered(address.ip())))
        }
    }
}

/// The URL that a `Location` means to who asked for `base`. Plain HTTP only where `insecure`.
///
/// # Errors
/// It leads to another scheme, or to plain HTTP.
pub(super) fn resolve(base: &str, location: &str, insecure: bool) -> Result<String> {
    let url = if location.starts_with("https://") || location.starts_with("http://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", base.split(':').next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin(base))
    } else if location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) {
        return Err(Error::new(
            Kind::PermissionDenied,
            format!("{}: the registry sends us to {location:?}", without_query(base)),
        ));
    } else {
        let stem = without_query(base);
        format!("{}/{location}", stem.rsplit_once('/').map_or(stem, |(stem, _)| stem))
    };
    if url.starts_with("http://") && !insecure {
        return Err(Error::new(
            Kind::PermissionDenied,
            format!("{}: the registry sends us to plain HTTP at {}", without_query(base), host_of(&url)),
        ));
    }
    Ok(url)
}

/// A URL as it may be shown: what follows the question mark may be a secret.
pub(super) fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(origin("https://Host/v2/x?y"), "https://host:443");
        assert_eq!(origin("http://host:5000/"), "http://host:5000");
        assert_ne!(origin("http://host/"), origin("https://host/"));
        assert_eq!(host_of("https://user:word@host:5000/x"), "host:5000");
        assert!(is_loopback("localhost:5000") && is_loopback("127.9.9.9") && is_loopback("[::1]:5000"));
        assert!(!is_loopback("localhost.example.org") && !is_loopback("128.0.0.1:5000"));
    }

    #[test]
    fn insecure_registries() {
        let listed = |entry: &str, host: &str| is_listed(&[entry.to_owned()], host);
        assert!(listed("10.0.0.0/8", "10.1.2.3:5000") && listed("reg.lan", "reg.lan:5000"));
        assert!(listed("REG.lan:1", "reg.lan:1") && listed("127.0.0.0/8", "localhost:5000"));
        assert!(!listed("10.0.0.0/8", "11.1.2.3") && !listed("reg.lan:1", "reg.lan:2"));
        assert!(!listed("10.0.0.0/8", "localhost") && !is_listed(&[], "reg.lan"));
    }

    #[test]
    fn locations() {
        let to = |location: &str| resolve("https://h:1/v2/a/b?c=d", location, false);
        assert_eq!(to("/x?y").unwrap(), "https://h:1/x?y");
        assert_eq!(to("z").unwrap(), "https://h:1/v2/a/z");
        assert_eq!(to("//other/x").unwrap(), "https://other/x");
        assert_eq!(to("https://other/x").unwrap(), "https://other/x");
        for bad in ["http://other/x", "file:///etc/passwd", "ftp://x", "gopher:x"] {
            assert!(to(bad).is_err(), "{bad}");
        }
        assert!(resolve("http://h/v2/", "http://other/x", true).is_ok());
    }
}
