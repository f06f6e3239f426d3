//! Tar headers: the 512-byte block of ustar and GNU tar, and PAX records (POSIX.1-2017, pax, "ustar Interchange Format"
//! and "pax Extended Header"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files").

use std::collections::BTreeMap;

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// Prefix of PAX records that hold extended attributes.
pub const XATTR: &[u8] = b"SCHILY.xattr.";

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Directory.
    Directory,
    /// FIFO.
    Fifo,
}

/// A member of an archive, its data excluded.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Length of the file, holes included.
    pub size: u64,
    /// Device number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Data pieces (offset, length) of a sparse file, in order.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// The raw block.
pub struct Block(pub [u8; BLOCK]);

impl Block {
    /// All zero: the end.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }
    /// Whether the checksum is right (unsigned, or signed as old tars wrote it).
    pub fn checksum_fits(&self) -> bool {
        let Some(stored) = number(&self.0[148..156]) else { return false };
        let bytes = || {
            self.0.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte })
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        stored == unsigned || stored == signed
    }
    /// The type flag.
    pub fn flag(&self) -> u8 {
        self.0[156]
    }
    /// GNU tar's magic.
    pub fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }
    /// Name, with the ustar prefix where there is one.
    pub fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }
    /// Link target.
    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }
    /// A numeric field.
    pub fn field(&self, name: Field) -> Option<i64> {
        let range = match name {
            Field::Mode => 100..108,
            Field::Uid => 108..116,
            Field::Gid => 116..124,
            Field::Size => 124..136,
            Field::Mtime => 136..148,
            Field::Major => 329..337,
            Field::Minor => 337..345,
            Field::RealSize => 483..495,
        };
        number(&self.0[range])
    }
    /// Old GNU sparse pieces in the header, and whether more blocks of them follow.
    pub fn sparse(&self) -> Option<(Vec<(u64, u64)>, bool)> {
        Some((pieces(&self.0[386..482])?, self.0[482] != 0))
    }
    /// Old GNU sparse pieces in an extension block, and whether another one follows.
    pub fn sparse_extension(&self) -> Option<(Vec<(u64, u64)>, bool)> {
        Some((pieces(&self.0[..504])?, self.0[504] != 0))
    }
}

/// Numeric fields of a header.
#[derive(Clone, Copy)]
pub enum Field {
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Major,
    Minor,
    /// Length of an old GNU sparse file.
    RealSize,
}

fn pieces(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for piece in bytes.chunks_exact(24) {
        if piece[0] == 0 {
            break;
        }
        found.push((number(&piece[..12])?.try_into().ok()?, number(&piece[12..])?.try_into().ok()?));
    }
    Some(found)
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}

/// Octal with blanks around it, or GNU's base 256 (two's complement after the first bit).
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = i128::from(field[0] & 0x3f);
        if negative {
            value -= 0x40;
        }
        for &byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(i128::from(byte))?;
        }
        return value.try_into().ok();
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(blank).unwrap_or(digits.len())];
    let mut value: i64 = 0;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// Records of a PAX header. The last one of a key counts; GNU's sparse pieces (format 0.0, one key many times) are
/// kept apart.
#[derive(Clone, Debug, Default)]
pub struct Pax {
    /// Key and value.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes`, in turn.
    pub sparse: Vec<u64>,
}

impl Pax {
    /// Parses `LENGTH KEY=VALUE\n…`; what is wrong otherwise.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or("malformed PAX record")?;
            let length = decimal(&bytes[..space]).ok_or("malformed PAX record length")? as usize;
            if length < space + 3 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err("PAX record length does not fit");
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|&byte| byte == b'=').ok_or("PAX record without '='")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.is_empty() || key.contains(&0) {
                return Err("malformed PAX key");
            }
            if matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name") && value.contains(&0) {
                return Err("NUL byte in a name");
            }
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                pax.sparse.push(decimal(value).ok_or("malformed sparse map")?);
            } else {
                pax.records.insert(key.to_vec(), value.to_vec());
            }
            bytes = &bytes[length..];
        }
        Ok(pax)
    }
    /// A record that is there and not empty (an empty one withdraws the field).
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }
    /// A decimal record.
    pub fn number(&self, key: &str) -> Result<Option<u64>, &'static str> {
        self.get(key).map(|value| decimal(value).ok_or("malformed number in a PAX record")).transpose()
    }
    /// The extended attributes.
    pub fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let found = self
            .records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())));
        found.filter(|(name, _)| !name.is_empty()).collect()
    }
}

/// Unsigned decimal.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        digit.is_ascii_digit().then(|| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?
    })
}

/// `[-]SECONDS[.FRACTION]` as seconds and nanoseconds.
pub fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&byte| byte == b'.');
    let seconds: i64 = decimal(&text[..dot.unwrap_or(text.len())])?.try_into().ok()?;
    let mut nanos = 0u32;
    if let Some(dot) = dot {
        let mut scale = 100_000_000;
        for &digit in &text[dot + 1..] {
            if !digit.is_ascii_digit() {
                return None;
            }
            nanos += u32::from(digit - b'0') * scale;
            scale /= 10;
        }
    }
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_notation() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]), Some(0xffff_fffe));
        assert_eq!(number(&[0xff; 8]), Some(-1));
        assert_eq!(number(&[0xbf; 12]), None);
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1."), Some((1, 0)));
        assert_eq!(time(b"x"), None);
        assert_eq!(decimal(b"18446744073709551616"), None);
    }

    #[test]
    fn pax_records_are_checked() {
        let pax = Pax::parse(b"12 path=a\nb\n9 path=c\n16 mtime=12.345\n").unwrap();
        assert_eq!(pax.get("path"), Some(b"c".as_slice()), "the last one counts");
        assert_eq!(Pax::parse(b"12 path=a\nb\n").unwrap().get("path"), Some(b"a\nb".as_slice()));
        let bad: [&[u8]; 7] = [
            b"8 path=a\n",
            b"x path=a\n",
            b"12 path=a\0b\n",
            b"6 abc\n",
            b"99999999999999999999 a=b\n",
            b"5 =b\n",
            b"0 a=b\n",
        ];
        for bad in bad {
            assert!(Pax::parse(bad).is_err(), "{bad:?}");
        }
    }
}
