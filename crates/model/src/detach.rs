//! Detach keys: the sequence that takes a terminal's client away from a container and leaves it running.

use crate::{Error, Result};

/// `ctrl-p,ctrl-q`, Docker's default.
pub const DEFAULT: &[u8] = &[0x10, 0x11];
/// Keys of one sequence, at most.
const KEYS: usize = 32;

/// Parses `ctrl-p,ctrl-q`: single characters, or `ctrl-` and one of `a-z`, `@`, `[`, `\`, `]`, `^`, `_`.
///
/// # Errors
/// Names the malformed key.
pub fn parse(text: &str) -> Result<Vec<u8>> {
    let mut keys = Vec::new();
    for key in text.split(',') {
        let bytes = key.as_bytes();
        let byte = match (bytes, key.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([byte], _) => *byte,
            (_, Some([letter @ b'a'..=b'z'])) => letter - b'a' + 1,
            (_, Some([sign @ (b'[' | b'\\' | b']' | b'^' | b'_')])) => sign - b'@',
            (_, Some(b"@")) => 0,
            _ => {
                return Err(Error::invalid(format!(
                    "invalid detach keys ({text}) provided: unknown key {key:?}"
                )));
            }
        };
        keys.push(byte);
    }
    if keys.len() > KEYS {
        return Err(Error::invalid(format!("invalid detach keys provided: more than {KEYS}")));
    }
    Ok(keys)
}

/// Looks for the sequence in what a client types. What may be its beginning is held back until the next byte.
#[derive(Clone, Debug)]
pub struct Detach {
    keys: Vec<u8>,
    held: usize,
}

impl Detach {
    /// Looks for these keys; an empty sequence never comes.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, held: 0 }
    }
    /// Appends to `out` what is to be passed on of `input`. True: the sequence is complete, and the rest is dropped.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for &byte in input {
            while self.held > 0 && self.keys[self.held] != byte {
                let kept = self.fall_back();
                out.extend_from_slice(&self.keys[..self.held - kept]);
                self.held = kept;
            }
            if self.keys[self.held] == byte {
                self.held += 1;
            } else {
                out.push(byte);
            }
            if self.held == self.keys.len() {
                self.held = 0;
                return true;
            }
        }
        false
    }
    /// How much of the held beginning is itself the beginning of the sequence, when its next byte is another one.
    fn fall_back(&self) -> usize {
        let held = &self.keys[..self.held];
        (1..self.held).rev().find(|&length| held.ends_with(&self.keys[..length])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_docker_keys() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("ctrl-@,a,ctrl-[,ctrl-_,ctrl-z").unwrap(), [0, b'a', 27, 31, 26]);
        for bad in ["", "ctrl-", "ctrl-A", "ab", "ctrl-p,", "ctrl-pp"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn holds_back_only_a_possible_beginning() {
        let run = |keys: &[u8], pieces: &[&[u8]]| {
            let mut detach = Detach::new(keys.to_vec());
            let mut out = Vec::new();
            let found = pieces.iter().any(|piece| detach.feed(piece, &mut out));
            (String::from_utf8(out).unwrap(), found)
        };
        assert_eq!(run(b"pq", &[b"abpqc"]), ("ab".into(), true));
        assert_eq!(run(b"pq", &[b"abp", b"q"]), ("ab".into(), true));
        assert_eq!(run(b"pq", &[b"p", b"pq"]), ("p".into(), true));
        assert_eq!(run(b"pq", &[b"pxp"]), ("px".into(), false));
        assert_eq!(run(b"aab", &[b"aaab"]), ("a".into(), true));
        assert_eq!(run(b"", &[b"abc"]), ("abc".into(), false));
    }
}
