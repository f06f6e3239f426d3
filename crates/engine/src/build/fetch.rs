//! Files that `ADD` fetches by HTTP.

use model::error::Context as _;
use model::{Digest, Error, Kind, Result, limits};
use std::io::Read as _;

use super::archive;

/// A file fetched by `ADD`.
pub(super) struct Fetched {
    /// What the server calls it.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
    /// `Last-Modified`, seconds since the epoch.
    pub modified: Option<i64>,
}

/// Fetches a URL; with a checksum, it must be what was fetched.
pub(super) fn fetch(url: &str, checksum: Option<&str>) -> Result<Fetched> {
    let failed =
        |error: ureq::Error| Error::new(Kind::Unavailable, format!("ADD failed: get {url}")).caused_by(error);
    let expected = checksum.map(Digest::parse).transpose()?;
    let mut response = ureq::get(url).call().map_err(failed)?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let modified = header("last-modified").and_then(archive::http_date);
    let named = header("content-disposition").and_then(file_name);
    let mut bytes = Vec::new();
    let mut body = response.body_mut().as_reader().take(limits::LAYER_BYTES);
    body.read_to_end(&mut bytes).context(|| format!("ADD failed: read {url}"))?;
    if let Some(expected) = expected {
        let got = Digest::of(&bytes);
        if got != expected {
            return Err(
                Error::invalid(format!("digest mismatch {got}: {expected}")).within(format!("ADD {url}"))
            );
        }
    }
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.splitn(4, '/').nth(3).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    Ok(Fetched { name: named.unwrap_or_else(|| name.to_owned()), bytes, modified })
}

/// The file's name in a `Content-Disposition` (RFC 6266): the last component, whatever the server puts before it.
fn file_name(header: &str) -> Option<String> {
    let value = header.split(';').map(str::trim).find_map(|part| part.strip_prefix("filename="))?;
    let name = value.trim_matches('"').rsplit(['/', '\\']).next().unwrap_or_default();
    (!matches!(name, "" | "." | "..")).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_names_a_file_and_no_path() {
        assert_eq!(file_name("attachment; filename=\"a.tar\"").as_deref(), Some("a.tar"));
        assert_eq!(file_name("attachment; filename=../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(file_name("attachment; filename=\"..\""), None);
        assert_eq!(file_name("inline"), None);
    }
}
