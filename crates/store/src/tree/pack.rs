//! A tree becomes a tar stream: PAX where ustar does not suffice, sorted, numeric owners, whole seconds.

use model::{Error, Kind as ErrorKind, Result, limits};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use super::header::{BLOCK, XATTR};
use super::{Pack, Whiteouts, shown};
use crate::copy;

/// A file whose holes are at least this long and half of it keeps them in the archive (PAX sparse format 1.0).
const SPARSE_BYTES: u64 = 16 << 20;

/// Packs `path` below `root`.
pub fn run(root: BorrowedFd<'_>, path: &[u8], archive: impl Write, how: &Pack) -> Result<u64> {
    let mut writer = Writer { archive, links: HashMap::new(), size: 0, whiteouts: how.whiteouts };
    let start =
        super::unpack::clean(path).map_err(|why| Error::invalid(format!("{}: {why}", shown(path))))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let top = sys::fs::open_in_root(root, OsStr::from_bytes(&start), flags, 0);
    let top = top.map_err(|error| failed(path, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let stat = fs::fstat(&top).map_err(|error| failed(path, error))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        if !how.base.is_empty() {
            writer.entry(top.as_fd(), c".", &how.base, &stat)?;
        }
        writer.directory(top.as_fd(), b"", &how.base)?;
    } else {
        let (dir, name) = sys::fs::parent_in_root(root, OsStr::from_bytes(&start))
            .map_err(|error| failed(path, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let name =
            std::ffi::CString::new(name.into_encoded_bytes()).map_err(|_| failed(path, Errno::INVAL))?;
        let base = if how.base.is_empty() { name.to_bytes() } else { &how.base };
        writer.entry(dir.as_fd(), &name, base, &stat)?;
    }
    writer.archive.write_all(&[0; 2 * BLOCK]).map_err(unwritten)?;
    Ok(writer.size)
}

struct Writer<W> {
    archive: W,
    /// Where a file with several links was packed first.
    links: HashMap<(u64, u64), Vec<u8>>,
    size: u64,
    whiteouts: Whiteouts,
}

/// What goes into a header.
#[derive(Default)]
struct Header<'a> {
    path: &'a [u8],
    flag: u8,
    link: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
    device: (u32, u32),
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write> Writer<W> {
    /// Packs what is in a directory: `below` is its path from the tree's top, `name` its name in the archive.
    fn directory(&mut self, top: BorrowedFd<'_>, below: &[u8], name: &[u8]) -> Result<()> {
        let mut stack = vec![(below.to_vec(), name.to_vec(), None::<std::vec::IntoIter<std::ffi::CString>>)];
        while let Some((below, name, entries)) = stack.pop() {
            let dir = match copy::open_dir(top, &below) {
                Ok(dir) => dir,
                // It went away meanwhile: a running container's tree.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(&name, error)),
            };
            let mut entries = match entries {
                Some(entries) => entries,
                None => copy::names(dir.as_fd()).map_err(|error| failed(&name, error))?.into_iter(),
            };
            while let Some(entry) = entries.next() {
                let join = |base: &[u8]| match base {
                    b"" => entry.to_bytes().to_vec(),
                    base => [base, b"/", entry.to_bytes()].concat(),
                };
                let path = join(&name);
                if path.len() > limits::PATH_BYTES {
                    return Err(failed(&path, Errno::NAMETOOLONG));
                }
                let stat = match fs::statat(&dir, entry.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(failed(&path, error)),
                };
                self.entry(dir.as_fd(), &entry, &path, &stat)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let child = join(&below);
                    stack.push((below, name, Some(entries)));
                    stack.push((child, path, None));
                    break;
                }
            }
        }
        Ok(())
    }

    /// Packs one entry, a directory without what is in it.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], stat: &Stat) -> Result<()> {
        let fail = |error| failed(path, error);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let overlay = self.whiteouts == Whiteouts::Overlay;
        if overlay && kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return self.header(&Header {
                path: &whiteout(path),
                flag: b'0',
                mode: 0o600,
                ..Header::default()
            });
        }
        let mut header = Header {
            path,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
            ..Header::default()
        };
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let first = first.clone();
                return self.header(&Header { flag: b'1', link: &first, ..header });
            }
            self.links.insert(key, path.to_vec());
        }
        let xattrs = match copy::xattrs(dir, name) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(fail)?,
        };
        let opaque =
            xattrs.iter().any(|(key, value)| key.as_bytes() == b"trusted.overlay.opaque" && value == b"y");
        header.records = records(xattrs);
        match kind {
            FileType::RegularFile => return self.file(dir, name, header),
            FileType::Directory => {
                let slashed = [path, b"/"].concat();
                self.header(&Header { flag: b'5', path: &slashed, ..header })?;
                if overlay && opaque {
                    let (uid, gid, mode) = (stat.st_uid, stat.st_gid, stat.st_mode & 0o777);
                    let marker = [path, b"/.wh..wh..opq"].concat();
                    return self.header(&Header {
                        path: &marker,
                        flag: b'0',
                        mode,
                        uid,
                        gid,
                        ..Header::default()
                    });
                }
                return Ok(());
            }
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new()).map_err(fail)?;
                return self.header(&Header { flag: b'2', link: target.as_bytes(), ..header });
            }
            FileType::CharacterDevice => header.flag = b'3',
            FileType::BlockDevice => header.flag = b'4',
            FileType::Fifo => header.flag = b'6',
            // A socket has no meaning without the process that listens: left out, as Docker and GNU tar do.
            _ => return Ok(()),
        }
        if kind != FileType::Fifo {
            header.device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        }
        self.header(&header)
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, mut header: Header<'_>) -> Result<()> {
        let fail = |error| failed(header.path, error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match fs::openat(dir, name, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        let stat = fs::fstat(&file).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = stat.st_size as u64;
        self.size = self.size.saturating_add(size);
        header.flag = b'0';
        header.size = size;
        if size >= SPARSE_BYTES && (stat.st_blocks as u64).saturating_mul(512) < size / 2 {
            let pieces = data_pieces(&file, size).map_err(fail)?;
            return self.sparse_file(&file, header, &pieces);
        }
        self.header(&header)?;
        self.data(&file, size, header.path)?;
        self.pad(size)
    }
    /// PAX sparse format 1.0 (GNU tar manual, "PAX Format, Version 1.0").
    fn sparse_file(
        &mut self,
        file: &std::fs::File,
        mut header: Header<'_>,
        pieces: &[(u64, u64)],
    ) -> Result<()> {
        let mut map = format!("{}\n", pieces.len()).into_bytes();
        for (offset, length) in pieces {
            map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
        }
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let path = header.path;
        let mut record =
            |key: &str, value: &[u8]| header.records.push((key.as_bytes().to_vec(), value.to_vec()));
        record("GNU.sparse.major", b"1");
        record("GNU.sparse.minor", b"0");
        record("GNU.sparse.name", path);
        record("GNU.sparse.realsize", header.size.to_string().as_bytes());
        header.size = map.len() as u64 + pieces.iter().map(|(_, length)| length).sum::<u64>();
        let (dir, base) = split(path);
        let renamed = [dir, b"GNUSparseFile.0/", base].concat();
        self.header(&Header { path: &renamed, ..header })?;
        self.archive.write_all(&map).map_err(unwritten)?;
        let mut written = 0;
        for &(offset, length) in pieces {
            let mut file = file;
            io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map_err(|error| unread(path, error))?;
            self.data(file, length, path)?;
            written += length;
        }
        self.pad(written)
    }
    /// Exactly so many bytes: a file that shrinks meanwhile is filled with zeros, one that grows is cut.
    fn data(&mut self, mut file: &std::fs::File, length: u64, path: &[u8]) -> Result<()> {
        let mut buffer = vec![0; (256 << 10).min(length as usize)];
        let mut left = length;
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match file.read(&mut buffer[..wanted]) {
                Ok(0) => {
                    buffer[..wanted].fill(0);
                    wanted
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unread(path, error)),
            };
            self.archive.write_all(&buffer[..count]).map_err(unwritten)?;
            left -= count as u64;
        }
        Ok(())
    }
    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.archive.write_all(&[0; BLOCK][..padding]).map_err(unwritten)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<()> {
        let mut records = header.records.clone();
        let (prefix, name) = ustar_name(header.path).unwrap_or_else(|| {
            records.push((b"path".to_vec(), header.path.to_vec()));
            (&[], &header.path[..header.path.len().min(100)])
        });
        if header.link.len() > 100 {
            records.push((b"linkpath".to_vec(), header.link.to_vec()));
        }
        let mut number = |key: &str, value: i64, digits: u32| {
            let fits = (0..1 << (3 * digits)).contains(&value);
            if !fits {
                records.push((key.as_bytes().to_vec(), value.to_string().into_bytes()));
            }
            if fits { value as u64 } else { 0 }
        };
        let uid = number("uid", header.uid.into(), 7);
        let gid = number("gid", header.gid.into(), 7);
        let mtime = number("mtime", header.mtime, 11);
        let size = number("size", i64::try_from(header.size).unwrap_or(i64::MAX), 11);
        if !records.is_empty() {
            records.sort();
            let body = pax_body(&records);
            let (dir, base) = split(header.path.strip_suffix(b"/").unwrap_or(header.path));
            let mut title = [dir, b"PaxHeaders.0/", base].concat();
            title.truncate(100);
            let mut block = Ustar::new(&title, b"", b'x');
            block.octal(100..108, 0o644);
            block.octal(108..116, 0);
            block.octal(116..124, 0);
            block.octal(124..136, body.len() as u64);
            block.octal(136..148, 0);
            self.archive.write_all(&block.finish()).map_err(unwritten)?;
            self.archive.write_all(&body).map_err(unwritten)?;
            self.pad(body.len() as u64)?;
        }
        let mut block = Ustar::new(name, prefix, header.flag);
        block.octal(100..108, header.mode.into());
        block.octal(108..116, uid);
        block.octal(116..124, gid);
        block.octal(124..136, size);
        block.octal(136..148, mtime);
        block.bytes(157..257, &header.link[..header.link.len().min(100)]);
        if matches!(header.flag, b'3' | b'4') {
            block.number(329..337, header.device.0.into());
            block.number(337..345, header.device.1.into());
        }
        self.archive.write_all(&block.finish()).map_err(unwritten)
    }
}

/// A ustar block in the making.
struct Ustar([u8; BLOCK]);

impl Ustar {
    fn new(name: &[u8], prefix: &[u8], flag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.bytes(0..100, name);
        block.bytes(345..500, prefix);
        block.bytes(257..265, b"ustar\x0000");
        block.0[156] = flag;
        block
    }
    fn bytes(&mut self, range: std::ops::Range<usize>, bytes: &[u8]) {
        self.0[range.start..range.start + bytes.len()].copy_from_slice(bytes);
    }
    fn octal(&mut self, range: std::ops::Range<usize>, value: u64) {
        let digits = range.len() - 1;
        self.bytes(range, format!("{value:0digits$o}\0").as_bytes());
    }
    /// Octal, or GNU's base 256 where it is too large.
    fn number(&mut self, range: std::ops::Range<usize>, value: u64) {
        if value < 1 << (3 * (range.len() - 1)) {
            return self.octal(range, value);
        }
        self.0[range.start] = 0x80;
        let bytes = &value.to_be_bytes()[8 - (range.len() - 1)..];
        self.bytes(range.start + 1..range.end, bytes);
    }
    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.bytes(148..156, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// Name and prefix as ustar splits them; `None` where they do not fit.
fn ustar_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // The name keeps a directory's trailing slash and must not be empty.
    let until = path.len() - 1;
    let slash = path[..until.min(156)].iter().rposition(|&byte| byte == b'/').filter(|&slash| slash > 0)?;
    (path.len() - slash - 1 <= 100).then(|| (&path[..slash], &path[slash + 1..]))
}

/// Directory with its slash, and base name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1))
}

fn whiteout(path: &[u8]) -> Vec<u8> {
    let (dir, base) = split(path);
    [dir, b".wh.", base].concat()
}

fn pax_body(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        length = rest + length.to_string().len();
        body.extend_from_slice(format!("{length} ").as_bytes());
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

/// Attributes that belong to the file rather than to this host or to overlay.
fn records(xattrs: Vec<(std::ffi::CString, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let keep = |name: &[u8]| {
        let own = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        let kept = [b"user.".as_slice(), b"trusted.", b"security.capability", b"system.posix_acl_"];
        !own && kept.iter().any(|prefix| name.starts_with(prefix))
    };
    let kept = xattrs.into_iter().filter(|(name, _)| keep(name.to_bytes()));
    kept.map(|(name, value)| ([XATTR, name.to_bytes()].concat(), value)).collect()
}

/// Where a file has data, as the file system tells (`SEEK_DATA`, `SEEK_HOLE`). Ends with an empty piece at the end of
/// the file where that is a hole, as GNU tar writes it.
fn data_pieces(file: &std::fs::File, size: u64) -> rustix::io::Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match fs::seek(file, fs::SeekFrom::Data(at)) {
            Ok(data) if data < size => data,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = fs::seek(file, fs::SeekFrom::Hole(data))?.min(size);
        pieces.push((data, end - data));
        at = end;
    }
    if at < size || pieces.is_empty() {
        pieces.push((size, 0));
    }
    fs::seek(file, fs::SeekFrom::Start(0))?;
    Ok(pieces)
}

fn failed(path: &[u8], error: Errno) -> Error {
    let kind = if error == Errno::NOENT { ErrorKind::NotFound } else { ErrorKind::Internal };
    Error::new(kind, format!("archive {}", shown(path))).caused_by(io::Error::from(error))
}

fn unread(path: &[u8], error: io::Error) -> Error {
    Error::internal(format!("archive {}: read", shown(path))).caused_by(error)
}

fn unwritten(error: io::Error) -> Error {
    let kind =
        if error.kind() == io::ErrorKind::BrokenPipe { ErrorKind::Cancelled } else { ErrorKind::Internal };
    Error::new(kind, "write the archive").caused_by(error)
}
