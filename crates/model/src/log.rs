//! A container's output: Docker's json-file lines at rest, and Docker's stream frames on a connection.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Bytes of one line at rest: an entry of [`LOG_LINE_BYTES`](crate::limits::LOG_LINE_BYTES) with every byte escaped,
/// and attributes. Longer lines are not ours and are skipped.
pub const STORED_LINE_BYTES: usize = 1 << 20;
/// Bytes before each payload of a multiplexed stream.
pub const FRAME_HEADER: usize = 8;

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output; all of a terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its number in a frame.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What was written, normally with its newline.
    pub log: String,
    /// Where.
    pub stream: Stream,
    /// `--log-opt labels=…`, `env=…`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

/// Reads one line; `None` for what is no entry (a line cut by a crash).
pub fn parse(line: &[u8]) -> Option<Entry> {
    serde_json::from_slice(line).ok()
}

/// Appends a frame.
pub fn frame(stream: Stream, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&[stream.number(), 0, 0, 0]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&payload[..length as usize]);
}

/// Takes frames away: the payloads alone, in whatever pieces the stream comes.
#[derive(Clone, Debug, Default)]
pub struct Unframe {
    header: Vec<u8>,
    left: usize,
}

impl Unframe {
    /// Appends the payloads of the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = bytes.len().min(FRAME_HEADER - self.header.len());
                self.header.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if let [_, _, _, _, length @ ..] = self.header.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.left = u32::from_be_bytes(length) as usize;
                    self.header.clear();
                }
                continue;
            }
            let take = bytes.len().min(self.left);
            out.extend_from_slice(&bytes[..take]);
            self.left -= take;
            bytes = &bytes[take..];
        }
    }
}

/// How entries are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Show {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A time before each entry, with nine digits after the second.
    pub timestamps: bool,
    /// Attributes before each entry.
    pub details: bool,
    /// As a terminal's bytes, without frames.
    pub raw: bool,
    /// Not what is older.
    pub since: Option<Timestamp>,
    /// Not what is newer.
    pub until: Option<Timestamp>,
}

impl Show {
    /// Appends an entry as a client gets it, or nothing where it is not wanted.
    pub fn render(&self, entry: &Entry, out: &mut Vec<u8>) {
        let wanted = match entry.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        if !wanted || self.since.is_some_and(|since| entry.time < since) || self.is_past(entry) {
            return;
        }
        let mut text = String::new();
        if self.timestamps {
            let whole = Timestamp { nanos: 0, ..entry.time }.to_string();
            text = format!("{}.{:09}Z ", whole.trim_end_matches('Z'), entry.time.nanos);
        }
        if self.details {
            let pairs: Vec<String> =
                entry.attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            text.push_str(&pairs.join(","));
            text.push(' ');
        }
        text.push_str(&entry.log);
        if self.raw {
            out.extend_from_slice(text.as_bytes());
        } else {
            frame(entry.stream, text.as_bytes(), out);
        }
    }
    /// Whether this entry and all that follow are newer than wanted.
    pub fn is_past(&self, entry: &Entry) -> bool {
        self.until.is_some_and(|until| entry.time > until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        br#"{"log":"hi\n","stream":"stderr","attrs":{"tier":"web"},"time":"2026-11-24T05:47:51.5Z"}"#;

    #[test]
    fn renders_frames_times_and_details() {
        let entry = parse(LINE).unwrap();
        let mut out = Vec::new();
        Show { stdout: true, ..Show::default() }.render(&entry, &mut out);
        assert!(out.is_empty());
        Show { stderr: true, ..Show::default() }.render(&entry, &mut out);
        assert_eq!(out, b"\x02\0\0\0\0\0\0\x03hi\n");
        out.clear();
        Show { stderr: true, timestamps: true, details: true, raw: true, ..Show::default() }
            .render(&entry, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "2026-11-24T05:47:51.500000000Z tier=web hi\n");
    }

    #[test]
    fn keeps_to_since_and_until() {
        let entry = parse(LINE).unwrap();
        let shown = |since: Option<&str>, until: Option<&str>| {
            let mut out = Vec::new();
            let time = |text: Option<&str>| text.map(|text| Timestamp::parse(text).unwrap());
            Show { stderr: true, since: time(since), until: time(until), ..Show::default() }
                .render(&entry, &mut out);
            !out.is_empty()
        };
        assert!(shown(Some("2026-11-24T05:47:51Z"), Some("2026-11-24T05:47:52Z")));
        assert!(!shown(Some("2026-11-24T05:47:52Z"), None));
        assert!(!shown(None, Some("2026-11-24T05:47:51Z")));
    }

    #[test]
    fn what_is_no_entry_is_skipped() {
        for bad in [
            "",
            "{",
            "null",
            r#"{"log":"x"}"#,
            r#"{"log":"x","stream":"other","time":"2026-11-24T05:47:51Z"}"#,
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
