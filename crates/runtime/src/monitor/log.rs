//! The container's log in Docker's json-file format: one object a line, lines longer than 16 KiB in pieces, bytes that are
//! no UTF-8 as U+FFFD, files rotated by size, older ones compressed where that was asked for, by a process of its own. Only
//! the monitor writes it.

use model::bundle::LogTarget;
use model::error::Context as _;
use model::time::Timestamp;
use model::{Result, limits};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use sys::process::Forked;

/// An open log.
pub struct Log {
    target: Option<Target>,
    /// What has no line end yet, of stdout and stderr.
    partial: [Vec<u8>; 2],
}

struct Target {
    /// Made with the first entry: many containers say nothing.
    file: Option<File>,
    path: PathBuf,
    size: u64,
    max_bytes: u64,
    max_files: u32,
    compress: bool,
    /// The process that compresses the newest of the older files.
    compressing: Option<i32>,
    /// `"attrs":{…},` or nothing.
    attributes: String,
}

impl Log {
    /// Goes on with what is there.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn open(target: &LogTarget) -> Result<Self> {
        let target = match target {
            LogTarget::None => None,
            LogTarget::JsonFile { path, max_bytes, max_files, compress, attributes } => {
                let size = match std::fs::metadata(&path.0) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                    found => found.context(|| format!("stat log {}", path.0.display()))?.len(),
                };
                Some(Target {
                    file: None,
                    path: path.0.clone(),
                    size,
                    max_bytes: *max_bytes,
                    max_files: (*max_files).max(1),
                    compress: *compress,
                    compressing: None,
                    attributes: match attributes.is_empty() {
                        true => String::new(),
                        false => format!(
                            "\"attrs\":{},",
                            String::from_utf8_lossy(&crate::wire::encode(attributes))
                        ),
                    },
                })
            }
        };
        Ok(Self { target, partial: [Vec::new(), Vec::new()] })
    }
    /// Takes output of stream 1 or 2.
    pub fn write(&mut self, stream: u8, mut bytes: &[u8], now: Timestamp) {
        let Some(target) = &mut self.target else { return };
        let partial = &mut self.partial[usize::from(stream == 2)];
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let room = limits::LOG_LINE_BYTES - partial.len();
            let line = bytes.iter().take(room).position(|&byte| byte == b'\n').map(|at| at + 1);
            let take = line.unwrap_or(room.min(bytes.len()));
            let full = line.is_some() || take == room;
            match (full, partial.is_empty()) {
                (true, true) => target.entry(&mut entries, &bytes[..take], stream, now),
                (true, false) => {
                    partial.extend_from_slice(&bytes[..take]);
                    target.entry(&mut entries, partial, stream, now);
                    partial.clear();
                }
                (false, _) => partial.extend_from_slice(&bytes[..take]),
            }
            bytes = &bytes[take..];
        }
        target.append(&entries);
    }
    /// Writes what had no line end, and waits until older files are compressed.
    pub fn flush(&mut self, now: Timestamp) {
        let Some(target) = &mut self.target else { return };
        for (index, partial) in self.partial.iter_mut().enumerate() {
            if !partial.is_empty() {
                let mut entries = Vec::new();
                target.entry(&mut entries, partial, index as u8 + 1, now);
                target.append(&entries);
                partial.clear();
            }
        }
        target.compressed();
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).mode(0o640).open(path)
}

impl Target {
    /// Adds an entry to those that are still to be written; those before it go to the old file where the file is full.
    fn entry(&mut self, entries: &mut Vec<u8>, line: &[u8], stream: u8, now: Timestamp) {
        let before = entries.len();
        entry(entries, line, stream, &self.attributes, now);
        if self.size + before as u64 > 0 && self.size + entries.len() as u64 > self.max_bytes {
            self.append(&entries[..before]);
            entries.drain(..before);
            self.rotate();
        }
    }
    /// A full disk loses log lines, never the container.
    fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.file = open(&self.path).ok();
        }
        if self.file.as_mut().is_some_and(|file| file.write_all(entries).is_ok()) {
            self.size += entries.len() as u64;
        }
    }
    fn rotate(&mut self) {
        self.compressed();
        for number in (1..self.max_files.saturating_sub(1)).rev() {
            for ending in ["", GZIP] {
                let _ = std::fs::rename(self.older(number, ending), self.older(number + 1, ending));
            }
        }
        let newest = self.older(1, "");
        let gone = if self.max_files > 1 {
            std::fs::rename(&self.path, &newest)
        } else {
            std::fs::remove_file(&self.path)
        };
        if gone.is_ok() {
            (self.file, self.size) = (None, 0);
            if self.compress && self.max_files > 1 {
                self.compressing = start_compressing(&newest, &self.older(1, GZIP));
            }
        }
    }
    fn older(&self, number: u32, ending: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}{ending}"));
        PathBuf::from(name)
    }
    /// Waits for the file that is being compressed: it must keep its name so long.
    fn compressed(&mut self) {
        if let Some(pid) = self.compressing.take() {
            let _ = sys::process::wait(pid, true);
        }
    }
}

/// The ending of a compressed file.
const GZIP: &str = ".gz";

/// Compresses in a process of its own: the container's other affairs do not wait. One that fails leaves the file as it is.
fn start_compressing(from: &Path, to: &Path) -> Option<i32> {
    match sys::process::fork(0, None) {
        Ok(Forked::Parent(pid, _)) => Some(pid),
        Ok(Forked::Child) => {
            sys::process::reset_signals();
            let done = compress(from, to);
            sys::process::exit_now(i32::from(done.is_err()))
        }
        Err(_) => None,
    }
}

/// The compressed file takes the other's place when it is whole. Its time stays: readers know a file again by it.
fn compress(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut source = File::open(from)?;
    let target = File::options().create(true).write(true).truncate(true).mode(0o640).open(&part)?;
    let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::default());
    std::io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.set_modified(source.metadata()?.modified()?)?;
    std::fs::rename(&part, to)?;
    std::fs::remove_file(from)
}

/// One line of the file.
fn entry(out: &mut Vec<u8>, line: &[u8], stream: u8, attributes: &str, now: Timestamp) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        escape(out, chunk.valid());
        // Go, and so Docker, replaces byte by byte.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    let name = if stream == 2 { "stderr" } else { "stdout" };
    let _ = writeln!(out, "\",\"stream\":\"{name}\",{attributes}\"time\":\"{now}\"}}");
}

fn escape(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let mut out = Vec::new();
        entry(&mut out, b"a\"<\x01\xff\xfe\xc3\xa9\n", 2, "", Timestamp { seconds: 1, nanos: 0 });
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"log\":\"a\\\"\\u003c\\u0001\\ufffd\\ufffd\u{e9}\\n\",\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:01Z\"}\n"
        );
    }
}
