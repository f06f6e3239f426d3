//! A compressed stream on its way to a tree: one thread inflates and hashes, the caller's unpacks.

use flate2::read::MultiGzDecoder;
use model::{Digest, Error, Result, limits};
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes handed from thread to thread at a time, and how many such pieces may wait.
const PIECE: usize = 256 << 10;
const WAITING: usize = 8;
/// KiB that unpacking xz may take: `xz -9` needs 65 MiB, `--lzma2=dict=128MiB` twice that.
const XZ_MEMORY_KIB: u32 = 160 << 10;

/// Inflates a stream (compressed or plain, see [`decompress`]), lets `consume` read it, and returns what that
/// returned with the digest of the inflated bytes, to the last one.
///
/// # Errors
/// Those of `consume`, of the source, or a bomb.
pub fn unpack_compressed<T>(
    source: impl Read + Send,
    consume: impl FnOnce(&mut Pieces) -> Result<T>,
) -> Result<(T, Digest)> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(WAITING);
        let inflater = scope.spawn(move || inflate(source, &sender));
        let mut pieces = Pieces { receiver, piece: Vec::new(), at: 0, over: false };
        let result = consume(&mut pieces).and_then(|value| {
            // What follows the archive's end marker counts for the digest.
            io::copy(&mut pieces, &mut io::sink())
                .map_err(|error| Error::invalid("read the archive").caused_by(error))?;
            Ok(value)
        });
        drop(pieces);
        let digest = inflater.join().map_err(|_| Error::internal("inflating the archive panicked"))?;
        result.map(|value| (value, digest))
    })
}

/// Opens a stream for reading without its compression: gzip, zstd, xz or bzip2 by its first bytes.
///
/// # Errors
/// It cannot be read.
pub fn decompress<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(PIECE, source);
    let magic = loop {
        match source.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(bytes) => break bytes.get(..6).unwrap_or(bytes).to_vec(),
        }
    };
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(source))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            // 128 MiB: what `zstd --long` needs and no more (RFC 8878, section 3.1.1.1.2 leaves the limit to us).
            decoder.window_log_max(27)?;
            Ok(Box::new(decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, XZ_MEMORY_KIB)))
        }
        [b'B', b'Z', b'h', ..] => Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(source))),
        _ => Ok(Box::new(source)),
    }
}

fn inflate(source: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) -> Digest {
    let mut hasher = Sha256::new();
    if let Err(error) = try_inflate(source, sender, &mut hasher) {
        // The receiver is gone only where it failed by itself.
        let _ = sender.send(Err(error));
    }
    Digest::from_bytes(hasher.finalize().into())
}

fn try_inflate(
    source: impl Read,
    sender: &SyncSender<io::Result<Vec<u8>>>,
    hasher: &mut Sha256,
) -> io::Result<()> {
    let mut plain = guarded(source)?;
    loop {
        let mut piece = vec![0; PIECE];
        let mut filled = 0;
        while filled < PIECE {
            match plain.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        piece.truncate(filled);
        hasher.update(&piece);
        if sender.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
}

/// As [`decompress`], but a bomb is an error.
///
/// # Errors
/// As [`decompress`].
pub fn guarded<'a>(source: impl Read + 'a) -> io::Result<Guarded<'a>> {
    let compressed = Rc::new(Cell::new(0u64));
    let plain = decompress(Counted { source, count: Rc::clone(&compressed) })?;
    Ok(Guarded { plain, compressed, total: 0 })
}

/// A decompressed stream that ends with an error where it is out of proportion.
pub struct Guarded<'a> {
    plain: Box<dyn Read + 'a>,
    compressed: Rc<Cell<u64>>,
    total: u64,
}

impl Read for Guarded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        self.total += count as u64;
        let bomb = self.total > limits::RATIO_FREE_BYTES
            && self.total / limits::LAYER_RATIO > self.compressed.get().max(1);
        if bomb {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it unpacks to more than 1100 times its size",
            ));
        }
        if self.total > limits::LAYER_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it unpacks to more than 256 GiB"));
        }
        Ok(count)
    }
}

struct Counted<R> {
    source: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// The inflated bytes as they arrive.
pub struct Pieces {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    over: bool,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() && !self.over {
            self.at = 0;
            self.piece.clear();
            match self.receiver.recv() {
                Ok(Ok(piece)) => self.piece = piece,
                Ok(Err(error)) => {
                    self.over = true;
                    return Err(error);
                }
                Err(_) => self.over = true,
            }
        }
        Ok(&self.piece[self.at..])
    }
    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        self.consume(count);
        Ok(count)
    }
}
