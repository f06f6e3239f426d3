//! Docker's multiplexed stream: `[stream, 0, 0, 0, length u32 BE]` and payload.

/// Splits frames as bytes come, in whatever pieces.
#[derive(Default)]
pub struct Demultiplexer {
    header: Vec<u8>,
    stream: u8,
    left: usize,
}

impl Demultiplexer {
    /// Gives each piece of payload with its stream (1 is stdout, 2 is stderr).
    ///
    /// # Errors
    /// `sink` failed.
    pub fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(u8, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = (8 - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if let [stream, _, _, _, a, b, c, d] = self.header[..] {
                    self.stream = stream;
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let take = self.left.min(bytes.len());
            sink(self.stream, &bytes[..take])?;
            bytes = &bytes[take..];
            self.left -= take;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        let stream = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x02de";
        for size in 1..stream.len() {
            let (mut one, mut two) = (Vec::new(), Vec::new());
            let mut splitter = Demultiplexer::default();
            for piece in stream.chunks(size) {
                splitter
                    .feed(piece, |stream, bytes| -> Result<(), ()> {
                        if stream == 2 {
                            two.extend_from_slice(bytes)
                        } else {
                            one.extend_from_slice(bytes)
                        }
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!((&one[..], &two[..]), (&b"abc"[..], &b"de"[..]));
        }
    }
}
