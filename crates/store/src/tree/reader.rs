//! Reads the members of a tar stream, one after the other. What is malformed is refused with the member's name.

use model::{Error, Result, limits};
use std::io::BufRead;

use super::header::{self, BLOCK, Block, Field, Kind, Member, Pax};
use super::shown;

/// Bytes of a PAX header or of a GNU long name (Go's archive/tar takes as many).
const EXTENSION_BYTES: u64 = 1 << 20;
/// Pieces of one sparse file.
const SPARSE_PIECES: usize = 1 << 20;

/// An archive being read.
pub struct Reader<R> {
    source: R,
    /// Bytes of the current member's data, and of its padding, that were not read yet.
    left: u64,
    padding: u64,
    members: u64,
    /// The name of the member last seen, for errors.
    last: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// An archive from its beginning.
    pub fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, members: 0, last: Vec::new() }
    }
    /// Members seen so far.
    pub fn members(&self) -> u64 {
        self.members
    }
    /// The next member; `None` at the end.
    ///
    /// # Errors
    /// Names the member.
    pub fn next(&mut self) -> Result<Option<Member>> {
        let (mut pax, mut long_name, mut long_link) = (Pax::default(), None, None);
        self.skip()?;
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            self.begin_data(&block)?;
            match block.flag() {
                b'x' | b'X' => pax = Pax::parse(&self.extension()?).map_err(|why| self.bad(why))?,
                // Docker ignores global records; archives of git carry a comment there.
                b'g' => drop(self.extension()?),
                b'L' => long_name = Some(c_string(self.extension()?)),
                b'K' => long_link = Some(c_string(self.extension()?)),
                _ => {
                    self.members += 1;
                    if self.members > limits::LAYER_ENTRIES {
                        return Err(
                            self.bad(&format!("the archive has more than {} members", limits::LAYER_ENTRIES))
                        );
                    }
                    return self.member(&block, &pax, long_name, long_link).map(Some);
                }
            }
            self.skip()?;
        }
    }
    /// The next piece of the current member's data; empty at its end. [`Reader::consume`] what was used.
    ///
    /// # Errors
    /// The archive ends too early.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let last = &self.last;
        let left = self.left;
        let bytes = fill(&mut self.source).map_err(|error| broken(last, error))?;
        if bytes.is_empty() {
            return Err(bad(last, "the archive ends within it"));
        }
        let usable = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(&bytes[..usable])
    }
    /// Moves on in the data.
    pub fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.left -= count as u64;
    }
    /// Reads the source to its end.
    ///
    /// # Errors
    /// The source is broken.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            let count = fill(&mut self.source).map_err(|error| broken(&self.last, error))?.len();
            if count == 0 {
                return Ok(());
            }
            self.source.consume(count);
        }
    }

    fn bad(&self, why: &str) -> Error {
        bad(&self.last, why)
    }
    /// A header block; `None` at the end marker, or where the stream ends between two members.
    fn header(&mut self) -> Result<Option<Block>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.is_zero() {
            return match self.block()? {
                Some(second) if !second.is_zero() => Err(self.bad("a lone zero block follows it")),
                _ => Ok(None),
            };
        }
        if !block.checksum_fits() {
            return Err(match self.last.is_empty() {
                true => Error::invalid("not a tar archive: its first header is malformed"),
                false => self.bad("the header after it is malformed"),
            });
        }
        self.last = block.path();
        Ok(Some(block))
    }
    fn block(&mut self) -> Result<Option<Block>> {
        let mut block = Block([0; BLOCK]);
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = fill(&mut self.source).map_err(|error| broken(&self.last, error))?;
            if bytes.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(self.bad("the archive ends within the header after it"));
            }
            let count = bytes.len().min(BLOCK - filled);
            block.0[filled..filled + count].copy_from_slice(&bytes[..count]);
            self.source.consume(count);
            filled += count;
        }
        Ok(Some(block))
    }
    fn begin_data(&mut self, block: &Block) -> Result<()> {
        let size = block.field(Field::Size).and_then(|size| u64::try_from(size).ok());
        self.set_data(size.ok_or_else(|| self.bad("its size is malformed"))?);
        Ok(())
    }
    fn set_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }
    /// Skips the rest of the current member.
    fn skip(&mut self) -> Result<()> {
        while self.left > 0 {
            let count = self.data()?.len();
            self.consume(count);
        }
        while self.padding > 0 {
            let bytes = fill(&mut self.source).map_err(|error| broken(&self.last, error))?;
            if bytes.is_empty() {
                return Err(self.bad("the archive ends within it"));
            }
            let count = bytes.len().min(self.padding as usize);
            self.source.consume(count);
            self.padding -= count as u64;
        }
        Ok(())
    }
    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > EXTENSION_BYTES {
            return Err(self.bad(&format!("its extended header is longer than {EXTENSION_BYTES} bytes")));
        }
        let mut bytes = Vec::with_capacity(self.left as usize);
        while self.left > 0 {
            let piece = self.data()?;
            bytes.extend_from_slice(piece);
            let count = piece.len();
            self.consume(count);
        }
        Ok(bytes)
    }

    fn member(
        &mut self,
        block: &Block,
        pax: &Pax,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
    ) -> Result<Member> {
        let path = pax.get("GNU.sparse.name").or(pax.get("path")).map(<[u8]>::to_vec);
        let path = path.or(name).unwrap_or_else(|| block.path());
        self.last.clone_from(&path);
        let kind = match block.flag() {
            b'0' | b'7' | b'S' | 0 if path.ends_with(b"/") && block.flag() != b'S' => Kind::Directory,
            b'0' | b'7' | b'S' | 0 => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(self.bad(&format!("unhandled tar header type {:?}", char::from(other)))),
        };
        let number = |field| block.field(field).ok_or("a number in its header is malformed");
        let fields = || -> Result<Member, &'static str> {
            let id = |key, field| -> Result<u32, &'static str> {
                let id = match pax.number(key)? {
                    Some(id) => i64::try_from(id).map_err(|_| "its owner is out of range")?,
                    None => number(field)?,
                };
                u32::try_from(id).map_err(|_| "its owner is out of range")
            };
            let device = |field| -> Result<u32, &'static str> {
                if !matches!(kind, Kind::Char | Kind::Block) {
                    return Ok(0);
                }
                u32::try_from(number(field)?).map_err(|_| "its device number is out of range")
            };
            Ok(Member {
                kind,
                link: pax.get("linkpath").map(<[u8]>::to_vec).or(link).unwrap_or_else(|| block.link()),
                mode: (number(Field::Mode)? & 0o7777) as u32,
                uid: id("uid", Field::Uid)?,
                gid: id("gid", Field::Gid)?,
                mtime: match pax.get("mtime") {
                    Some(text) => header::time(text).ok_or("its time is malformed")?,
                    None => (number(Field::Mtime)?, 0),
                },
                size: match pax.number("size")? {
                    Some(size) => size,
                    None => u64::try_from(number(Field::Size)?).map_err(|_| "its size is malformed")?,
                },
                device: (device(Field::Major)?, device(Field::Minor)?),
                xattrs: pax.xattrs(),
                sparse: None,
                path: Vec::new(),
            })
        };
        let mut member = fields().map_err(|why| self.bad(why))?;
        member.path = path;
        // Only files have data, whatever the field says (as Go's archive/tar).
        self.set_data(if kind == Kind::File { member.size } else { 0 });
        if kind == Kind::File {
            self.sparse(&mut member, block, pax)?;
        } else {
            member.size = 0;
        }
        Ok(member)
    }
    /// Finds out whether a file is sparse, and checks its map.
    fn sparse(&mut self, member: &mut Member, block: &Block, pax: &Pax) -> Result<()> {
        let malformed = "its sparse map is malformed";
        let stored = self.left;
        let (real, pieces) = if block.flag() == b'S' && block.is_gnu() {
            let real = block.field(Field::RealSize).and_then(|size| u64::try_from(size).ok());
            let real = real.ok_or_else(|| self.bad(malformed))?;
            (real, self.old_sparse_map(block)?)
        } else if pax.get("GNU.sparse.major").is_some_and(|major| major != b"0") {
            let real = pax.number("GNU.sparse.realsize").map_err(|why| self.bad(why))?;
            let real = real.ok_or_else(|| self.bad(malformed))?;
            (real, self.sparse_map_in_data()?)
        } else if let Some(real) = pax.number("GNU.sparse.size").map_err(|why| self.bad(why))? {
            let numbers = match pax.get("GNU.sparse.map") {
                Some(map) => {
                    map.split(|&byte| byte == b',').map(header::decimal).collect::<Option<Vec<u64>>>()
                }
                None => Some(pax.sparse.clone()),
            };
            let numbers =
                numbers.filter(|numbers| numbers.len() % 2 == 0).ok_or_else(|| self.bad(malformed))?;
            (real, numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
        } else {
            return Ok(());
        };
        let mut end = 0u64;
        let mut sum = 0u64;
        for &(offset, length) in &pieces {
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= real);
            end = next.ok_or_else(|| self.bad(malformed))?;
            sum += length;
        }
        let header_bytes = stored - self.left;
        if sum != self.left || header_bytes > stored {
            return Err(self.bad(malformed));
        }
        member.size = real;
        member.sparse = Some(pieces);
        Ok(())
    }
    fn old_sparse_map(&mut self, block: &Block) -> Result<Vec<(u64, u64)>> {
        let malformed = |this: &Self| this.bad("its sparse map is malformed");
        let (mut pieces, mut more) = block.sparse().ok_or_else(|| malformed(self))?;
        while more {
            let next = self.block()?.ok_or_else(|| self.bad("the archive ends within it"))?;
            let (further, again) = next.sparse_extension().ok_or_else(|| malformed(self))?;
            pieces.extend(further);
            if pieces.len() > SPARSE_PIECES {
                return Err(self.bad("its sparse map is too long"));
            }
            more = again;
        }
        Ok(pieces)
    }
    /// PAX format 1.0: decimal lines at the beginning of the data, padded to a block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut line: Vec<u8> = Vec::new();
        loop {
            if self.left < BLOCK as u64 {
                return Err(self.bad("its sparse map is malformed"));
            }
            let block = self.block()?.ok_or_else(|| self.bad("the archive ends within it"))?;
            self.left -= BLOCK as u64;
            for &byte in &block.0 {
                let wanted =
                    numbers.first().map_or(1, |&count| (count as usize).saturating_mul(2).saturating_add(1));
                if numbers.len() >= wanted {
                    break;
                }
                if byte == b'\n' {
                    let number =
                        header::decimal(&line).ok_or_else(|| self.bad("its sparse map is malformed"))?;
                    if numbers.is_empty() && number > SPARSE_PIECES as u64 {
                        return Err(self.bad("its sparse map is too long"));
                    }
                    numbers.push(number);
                    line.clear();
                } else if line.len() < 20 {
                    line.push(byte);
                } else {
                    return Err(self.bad("its sparse map is malformed"));
                }
            }
            if let Some(&count) = numbers.first()
                && numbers.len() == count as usize * 2 + 1
            {
                return Ok(numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
            }
        }
    }
}

fn fill<R: BufRead>(source: &mut R) -> std::io::Result<&[u8]> {
    loop {
        match source.fill_buf() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // Borrow again: the checker does not see that the first borrow ended.
            Ok(_) => return source.fill_buf(),
            Err(error) => return Err(error),
        }
    }
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn bad(member: &[u8], why: &str) -> Error {
    Error::invalid(format!("archive member {}: {why}", shown(member)))
}

fn broken(member: &[u8], error: std::io::Error) -> Error {
    let what = if member.is_empty() {
        "read the archive".to_owned()
    } else {
        format!("archive member {}: read", shown(member))
    };
    Error::invalid(what).caused_by(error)
}
