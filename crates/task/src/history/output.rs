//! What a process printed: the beginning and the end of it, compressed.
//!
//! Stored as zstd over frames `[stream u8, length u32 big-endian, bytes]`; stream 0 is the note of what was left out.

use std::collections::VecDeque;

/// Bytes from the beginning.
const HEAD: usize = 256 * 1024;
/// Bytes from the end.
const TAIL: usize = 768 * 1024;
/// Bytes that an entry may unpack to.
const UNPACKED: usize = 2 * (HEAD + TAIL);
const LEVEL: i32 = 3;

/// Output as it is stored.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// `None`: nothing was printed.
    pub compressed: Option<Vec<u8>>,
    /// All that was printed, also what was left out.
    pub bytes: u64,
}

/// Takes output as it comes.
#[derive(Default)]
pub struct Recorder {
    head: Vec<(u8, Vec<u8>)>,
    head_bytes: usize,
    tail: VecDeque<(u8, Vec<u8>)>,
    tail_bytes: usize,
    left_out: u64,
    total: u64,
}

impl Recorder {
    /// Stream 1 is stdout, 2 is stderr.
    pub fn write(&mut self, stream: u8, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.head_bytes < HEAD {
            let (now, rest) = bytes.split_at(bytes.len().min(HEAD - self.head_bytes));
            self.head_bytes += now.len();
            match self.head.last_mut() {
                Some((last, text)) if *last == stream => text.extend_from_slice(now),
                _ => self.head.push((stream, now.to_vec())),
            }
            bytes = rest;
        }
        if bytes.is_empty() {
            return;
        }
        self.tail_bytes += bytes.len();
        match self.tail.back_mut() {
            // Pieces of a size that can be dropped one by one.
            Some((last, text)) if *last == stream && text.len() + bytes.len() <= 64 * 1024 => {
                text.extend_from_slice(bytes)
            }
            _ => self.tail.push_back((stream, bytes.to_vec())),
        }
        while self.tail_bytes > TAIL {
            let Some((_, front)) = self.tail.front_mut() else { break };
            let over = self.tail_bytes - TAIL;
            let gone = over.min(front.len());
            if gone == front.len() {
                self.tail.pop_front();
            } else {
                front.drain(..gone);
            }
            self.tail_bytes -= gone;
            self.left_out += gone as u64;
        }
    }

    /// The last lines of what was printed, on either stream.
    pub fn last_lines(&self, count: usize) -> String {
        let mut bytes: Vec<u8> = Vec::new();
        for (_, piece) in self.head.iter().chain(&self.tail) {
            bytes.extend_from_slice(piece);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Compresses.
    pub fn finish(self) -> Captured {
        if self.total == 0 {
            return Captured::default();
        }
        let mut frames = Vec::new();
        let mut frame = |stream: u8, bytes: &[u8]| {
            frames.push(stream);
            frames.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            frames.extend_from_slice(bytes);
        };
        for (stream, bytes) in &self.head {
            frame(*stream, bytes);
        }
        if self.left_out > 0 {
            frame(0, format!("\n… {} bytes left out …\n", self.left_out).as_bytes());
        }
        for (stream, bytes) in &self.tail {
            frame(*stream, bytes);
        }
        Captured { compressed: zstd::bulk::compress(&frames, LEVEL).ok(), bytes: self.total }
    }
}

/// The pieces of an entry, each with its stream; what is damaged ends it.
pub(super) fn unpack(compressed: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let frames = zstd::bulk::decompress(compressed, UNPACKED).unwrap_or_default();
    let mut rest = &frames[..];
    let mut pieces = Vec::new();
    while let [stream, a, b, c, d, tail @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(bytes) = tail.get(..length) else { break };
        pieces.push((*stream, bytes.to_vec()));
        rest = &tail[length..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end() {
        let mut recorder = Recorder::default();
        recorder.write(1, b"first\n");
        for number in 0..400_000 {
            recorder.write(1, format!("line {number}\n").as_bytes());
        }
        recorder.write(2, b"last\n");
        assert_eq!(recorder.last_lines(2), "line 399999\nlast");
        let captured = recorder.finish();
        assert!(captured.bytes > 4_000_000);
        let pieces = unpack(&captured.compressed.unwrap());
        assert!(pieces[0].1.starts_with(b"first\n"));
        assert_eq!(pieces.last().unwrap(), &(2, b"last\n".to_vec()));
        assert!(
            pieces
                .iter()
                .any(|(stream, text)| *stream == 0 && String::from_utf8_lossy(text).contains("left out"))
        );
        let kept: usize = pieces.iter().map(|(_, text)| text.len()).sum();
        assert!(kept <= HEAD + TAIL + 64, "{kept}");
    }

    #[test]
    fn damaged() {
        assert!(unpack(b"nonsense").is_empty());
        assert!(Recorder::default().finish().compressed.is_none());
    }
}
