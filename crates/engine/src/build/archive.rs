//! Archives that a build is given: contexts as tar streams, and what `ADD` unpacks. Also owners by name and HTTP's dates.

use model::error::Context as _;
use model::time::Timestamp;
use model::{Error, Kind, Result, limits};
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use store::tree::{self, Unpack, Whiteouts};

/// Bytes that tell an archive.
pub(super) const MAGIC_BYTES: u64 = 512;

/// Whether these first bytes are those of a tar archive or of a compression that may hold one.
pub(super) fn may_be_archive(start: &[u8]) -> bool {
    let compressed: [&[u8]; 4] =
        [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z', 0]];
    compressed.iter().any(|magic| start.starts_with(magic)) || is_header(start)
}

/// Whether a stream is a tar archive, its compression taken off.
pub(super) fn is_archive(source: impl Read) -> bool {
    let Ok(plain) = inflate(source) else { return false };
    let mut start = Vec::new();
    plain.take(MAGIC_BYTES).read_to_end(&mut start).is_ok() && is_header(&start)
}

/// A tar header by its checksum (POSIX ustar; the old format has no magic).
fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.get(..512) else { return false };
    let field = std::str::from_utf8(&block[148..156]).unwrap_or_default().trim_matches(['\0', ' ']);
    let Ok(expected) = u32::from_str_radix(field, 8) else { return false };
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    sum == expected && block[0] != 0
}

fn inflate<'a>(source: impl Read + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
    store::tree::stream::decompress(source)
}

/// Unpacks an archive below a directory; its members keep their owners.
pub(super) fn unpack(dir: &OwnedFd, source: impl Read) -> Result<()> {
    let plain = inflate(source).context(|| "read the archive")?;
    let plain = BufReader::with_capacity(256 << 10, plain.take(limits::LAYER_BYTES));
    let how = Unpack { whiteouts: Whiteouts::Plain, owner: None, keep_kinds: false };
    tree::unpack(dir.as_fd(), plain, &how).map(drop)
}

/// Unpacks a build context that came as a stream, with any compression, into an empty directory.
///
/// # Errors
/// It is no archive, or a member would leave the directory.
pub fn unpack_context(dir: &Path, source: impl Read) -> Result<()> {
    let root = sys::fs::open_root(dir).context(|| format!("open {}", dir.display()))?;
    unpack(&root, source).map_err(|error| error.within("unpack the build context"))
}

/// Whether these bytes are a context archive; what is none is a Dockerfile.
pub fn is_context(bytes: &[u8]) -> bool {
    is_archive(bytes)
}

/// Fetches a URL.
///
/// # Errors
/// The server does not answer, or refuses, or sends more than `limit` bytes.
pub fn download(url: &str, limit: u64) -> Result<Vec<u8>> {
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Error::invalid(format!("remote context {url}: only http and https URLs are supported")));
    }
    let failed = |error: ureq::Error| Error::new(Kind::Unavailable, format!("get {url}")).caused_by(error);
    let mut response = ureq::get(url).call().map_err(failed)?;
    let mut bytes = Vec::new();
    response
        .body_mut()
        .as_reader()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("read {url}"))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(Kind::ResourceExhausted, format!("{url} is longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// A directory for a context that came as a stream; gone when it is dropped, or with the next build.
pub struct Unpacked {
    files: std::path::PathBuf,
    running: super::cache::Running,
}

impl Unpacked {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.files
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What cannot be removed now, the next build looks for.
        let _ = crate::container::reap::remove_tree(&self.running.dir);
    }
}

impl crate::Engine {
    /// Makes an empty directory for a context that comes as a stream.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new_context(&self) -> Result<Unpacked> {
        let mut random = [0u8; 32];
        crate::container::names::fill_random(&mut random)?;
        let name = model::ContainerId::from_bytes(random);
        let running = self.begin(self.contexts().join(name.short()))?;
        let files = running.dir.join("files");
        std::fs::create_dir(&files).context(|| format!("create {}", files.display()))?;
        Ok(Unpacked { files, running })
    }
}

/// `USER[:GROUP]` of `--chown`: numbers, or names from the image's own files. A user without a group has its passwd
/// group; a number that passwd does not need to know has the same number as its group.
pub(super) fn owner(root: &OwnedFd, text: &str) -> Result<(u32, u32)> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let unknown = |what: &str, name: &str| {
        Error::invalid(format!("unable to convert {what} {name:?} to a number: no such {what} in the image"))
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let line = entry(root, "etc/passwd", user)?.ok_or_else(|| unknown("user", user))?;
            let number = |index: usize| line.get(index).and_then(|field| field.parse().ok());
            number(2).zip(number(3)).ok_or_else(|| unknown("user", user))?
        }
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        None => own_group,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                let line = entry(root, "etc/group", group)?.ok_or_else(|| unknown("group", group))?;
                line.get(2).and_then(|field| field.parse().ok()).ok_or_else(|| unknown("group", group))?
            }
        },
    };
    Ok((uid, gid))
}

fn entry(root: &OwnedFd, file: &str, name: &str) -> Result<Option<Vec<String>>> {
    let bytes = match sys::fs::read_in_root(root, file, limits::PASSWD_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(
                Error::new(Kind::InvalidArgument, format!("read /{file} in the image")).caused_by(error)
            );
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    Ok(lines.find(|fields| fields.first().is_some_and(|first| first == name)))
}

/// `Tue, 24 Nov 2026 06:00:00 GMT` (RFC 9110, section 5.6.7) in seconds since the epoch.
pub(super) fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    Timestamp::parse(&format!("{year}-{month:02}-{day:0>2}T{time}Z")).map(|time| time.seconds)
}

/// The path by which another process of ours reaches a descriptor of this one, as long as it is open.
pub(super) fn shared_path(fd: &OwnedFd) -> std::path::PathBuf {
    std::path::PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_headers() {
        assert_eq!(http_date("Thu, 01 Jan 1970 00:01:00 GMT"), Some(60));
        assert_eq!(http_date("yesterday"), None);
        assert!(!is_header(&[0; 512]) && !is_header(b"short"));
        assert!(may_be_archive(b"BZh9") && !may_be_archive(b"#!/bin/sh"));
    }
}
