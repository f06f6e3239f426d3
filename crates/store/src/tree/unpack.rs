//! A tar stream becomes a tree below a directory.

use model::{Error, Kind as ErrorKind, Result, limits};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawMode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufRead, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use super::header::{Kind, Member};
use super::reader::Reader;
use super::{Below, Unpack, Unpacked, Whiteouts, shown};

/// What marks a whiteout, an opaque directory, and the leftovers of aufs.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

/// Unpacks a whole archive.
pub fn run(
    root: BorrowedFd<'_>,
    archive: impl BufRead,
    how: &Unpack,
    below: Option<Below<'_>>,
) -> Result<Unpacked> {
    let mut reader = Reader::new(archive);
    let mut tree = Tree {
        root,
        how: *how,
        below: below.map(|open| (open, OnceCell::new())),
        parent: None,
        setgid: false,
        as_root: rustix::process::geteuid().is_root() && rustix::process::getegid().is_root(),
        whited_out: HashSet::new(),
        opaque: HashSet::new(),
        directories: Vec::new(),
        size: 0,
    };
    while let Some(member) = reader.next()? {
        tree.member(&member, &mut reader)?;
    }
    reader.drain()?;
    tree.finish()?;
    Ok(Unpacked { entries: reader.members(), size: tree.size })
}

struct Tree<'a> {
    root: BorrowedFd<'a>,
    how: Unpack,
    /// The layers below, opened when they are first asked for.
    below: Option<(Below<'a>, OnceCell<OwnedFd>)>,
    /// The directory that the last member lay in.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Some directory has the setgid bit: what is made may have got another group than ours.
    setgid: bool,
    /// What we make belongs to root.
    as_root: bool,
    /// Names that this archive whited out (they concern the layers below, not what follows here).
    whited_out: HashSet<Vec<u8>>,
    /// Directories that hide all of what the layers below have in them.
    opaque: HashSet<Vec<u8>>,
    /// Times of directories, set at the end.
    directories: Vec<(Vec<u8>, (i64, u32))>,
    size: u64,
}

/// Where a member goes: its directory, opened, and its name there.
struct Place<'p> {
    dir: BorrowedFd<'p>,
    name: &'p OsStr,
}

type Failed = rustix::io::Result<()>;

impl Tree<'_> {
    fn member<R: BufRead>(&mut self, member: &Member, reader: &mut Reader<R>) -> Result<()> {
        let refuse = |why: &str| Error::invalid(format!("archive member {}: {why}", shown(&member.path)));
        let path = clean(&member.path).map_err(refuse)?;
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path.as_slice()),
        };
        let overlay = self.how.whiteouts == Whiteouts::Overlay;
        if overlay && parent.split(|&byte| byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
            if path.starts_with(AUFS) {
                return Ok(());
            }
            return Err(refuse("it lies below a whiteout"));
        }
        if self.parent.as_ref().is_none_or(|(cached, _)| cached != parent) {
            let dir = self.directory(parent).map_err(|error| failed(&member.path, error))?;
            self.parent = Some((parent.to_vec(), dir));
        }
        let Some((cached, dir)) = self.parent.take() else { return Err(refuse("no directory")) };
        let place = Place { dir: dir.as_fd(), name: OsStr::from_bytes(name) };
        let mut replaced = false;
        let done = if overlay && name.starts_with(WHITEOUT) {
            match &name[WHITEOUT.len()..] {
                _ if name == OPAQUE => {
                    self.opaque.insert(cached.clone());
                    opaque(place.dir).map_err(|error| failed(&member.path, error))
                }
                b"" | b"." | b".." => Err(refuse("it is no whiteout of anything")),
                _ if name.starts_with(AUFS) => Ok(()),
                hidden => {
                    let place = Place { dir: place.dir, name: OsStr::from_bytes(hidden) };
                    let hidden =
                        if parent.is_empty() { hidden.to_vec() } else { [parent, b"/", hidden].concat() };
                    self.whiteout(&place, hidden).map_err(|error| failed(&member.path, error))
                }
            }
        } else {
            self.make(member, &path, &place, reader, &mut replaced)
        };
        if !replaced {
            self.parent = Some((cached, dir));
        }
        done
    }

    /// Opens the directory of a member, making it and what leads to it (0755) where it is missing.
    fn directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = |path: &[u8]| {
            sys::fs::open_in_root(self.root, OsStr::from_bytes(path), flags, 0)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        let mut missing = Vec::new();
        let mut rest = path;
        let mut dir = loop {
            match open(rest) {
                Err(Errno::NOENT) if !rest.is_empty() => {
                    let slash = rest.iter().rposition(|&byte| byte == b'/');
                    missing.push(&rest[slash.map_or(0, |slash| slash + 1)..]);
                    rest = &rest[..slash.unwrap_or(0)];
                }
                other => break other?,
            }
        };
        for name in missing.into_iter().rev() {
            // A dangling link in the way is refused here with EEXIST.
            fs::mkdirat(&dir, name, Mode::RWXU)?;
            fs::chmodat(&dir, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            dir = fs::openat(&dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        }
        Ok(dir)
    }

    fn whiteout(&mut self, place: &Place<'_>, path: Vec<u8>) -> Failed {
        match fs::statat(place.dir, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            // A member of this archive: the whiteout concerns the layers below, which a file hides and a directory
            // must be told to hide.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                opaque(fs::openat(place.dir, place.name, flags, Mode::empty())?.as_fd())?;
                self.opaque.insert(path);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                fs::mknodat(place.dir, place.name, FileType::CharacterDevice, Mode::empty(), 0)?;
                self.whited_out.insert(path);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn make<R: BufRead>(
        &mut self,
        member: &Member,
        path: &[u8],
        place: &Place<'_>,
        reader: &mut Reader<R>,
        replaced: &mut bool,
    ) -> Result<()> {
        let fail = |error| failed(&member.path, error);
        if !self.how.keep_kinds && member.kind == Kind::File {
            // The most common case first: nothing is there.
            match create_file(place) {
                Ok(file) => return self.file(file, member, reader),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(fail(error)),
            }
        }
        let there = self.make_room(member, path, place, replaced)?;
        match member.kind {
            Kind::File => {
                let file = create_file(place).map_err(fail)?;
                self.file(file, member, reader)
            }
            Kind::Directory => self.make_directory(member, path, place, there).map_err(fail),
            Kind::HardLink => self.hard_link(member, place),
            Kind::Symlink => {
                if member.link.is_empty() || member.link.contains(&0) {
                    return Err(Error::invalid(format!(
                        "archive member {}: its target is malformed",
                        shown(&member.path)
                    )));
                }
                fs::symlinkat(member.link.as_slice(), place.dir, place.name).map_err(fail)?;
                self.attributes(member, place).map_err(fail)
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match member.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = fs::makedev(member.device.0, member.device.1);
                fs::mknodat(place.dir, place.name, kind, Mode::empty(), device).map_err(fail)?;
                self.attributes(member, place).map_err(fail)
            }
        }
    }

    /// Removes what is in the way. True: a directory is there and stays, because the member is one too.
    fn make_room(
        &mut self,
        member: &Member,
        path: &[u8],
        place: &Place<'_>,
        replaced: &mut bool,
    ) -> Result<bool> {
        let fail = |error| failed(&member.path, error);
        let stat = match fs::statat(place.dir, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(fail(error)),
        };
        let there = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let wanted = member.kind == Kind::Directory;
        if there && wanted {
            return Ok(true);
        }
        if self.how.keep_kinds && there != wanted {
            let (old, new) =
                if there { ("directory", "non-directory") } else { ("non-directory", "directory") };
            let name = String::from_utf8_lossy(path);
            return Err(Error::invalid(format!("cannot overwrite {old} {name:?} with {new} {name:?}")));
        }
        *replaced = true;
        if there {
            let tree = sys::fs::proc_path(place.dir).join(place.name);
            std::fs::remove_dir_all(&tree)
                .map_err(|error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        } else {
            fs::unlinkat(place.dir, place.name, AtFlags::empty()).map_err(fail)?;
        }
        Ok(false)
    }

    fn make_directory(&mut self, member: &Member, path: &[u8], place: &Place<'_>, there: bool) -> Failed {
        if !there {
            fs::mkdirat(place.dir, place.name, Mode::RWXU)?;
        }
        if !there && self.whited_out.remove(path) {
            self.opaque.insert(path.to_vec());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            opaque(fs::openat(place.dir, place.name, flags, Mode::empty())?.as_fd())?;
        }
        self.setgid |= member.mode & 0o2000 != 0;
        self.attributes(member, place)?;
        self.directories.push((path.to_vec(), member.mtime));
        Ok(())
    }

    fn hard_link(&mut self, member: &Member, place: &Place<'_>) -> Result<()> {
        let refuse = |why: &str| {
            Error::invalid(format!(
                "archive member {}: hard link to {}: {why}",
                shown(&member.path),
                shown(&member.link)
            ))
        };
        let target = clean(&member.link).map_err(refuse)?;
        let (parent, name) = match target.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&target[..0], target.as_slice()),
        };
        if name.is_empty() {
            return Err(refuse("it is the root"));
        }
        let parent =
            sys::fs::open_in_root(self.root, OsStr::from_bytes(parent), OFlags::PATH | OFlags::DIRECTORY, 0);
        let linked =
            parent.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)).and_then(|parent| {
                let stat = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let whiteout =
                    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
                if whiteout && self.how.whiteouts == Whiteouts::Overlay {
                    // Gone by this archive's own word: not to be looked for below.
                    return Err(Errno::STALE);
                }
                fs::linkat(&parent, name, place.dir, place.name, AtFlags::empty())
            });
        let linked = match linked {
            Err(Errno::NOENT) => self.link_below(&target, place),
            Err(Errno::STALE) => Err(Errno::NOENT),
            other => other,
        };
        linked.map_err(|error| refuse(&std::io::Error::from(error).to_string()))
    }

    /// A hard link to a file that only the layers below have: the file is copied up to its own place in this layer, with
    /// the directories that lead to it, and then linked.
    fn link_below(&mut self, target: &[u8], place: &Place<'_>) -> Failed {
        let Some((open, cell)) = &self.below else { return Err(Errno::NOENT) };
        let is_below = |dir: &[u8]| {
            dir.is_empty()
                || target.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        // Gone by this archive's own word.
        if self.whited_out.iter().chain(&self.opaque).any(|gone| is_below(gone)) {
            return Err(Errno::NOENT);
        }
        let below = match cell.get() {
            Some(below) => below,
            None => {
                let opened = open().map_err(|_| Errno::NOENT)?;
                cell.get_or_init(|| opened)
            }
        };
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        // Looked at before it is opened: opening a device does something.
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let from = sys::fs::open_in_root(below, OsStr::from_bytes(target), flags, 0).map_err(errno)?;
        let stat = fs::fstat(&from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::NOENT);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let from = fs::open(sys::fs::proc_path(&from), flags, Mode::empty())?;
        let (parent, name) = match target.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&target[..0], target),
        };
        let dir = self.directory_as_below(below, parent)?;
        let own = Place { dir: dir.as_fd(), name: OsStr::from_bytes(name) };
        let mut to = std::fs::File::from(create_file(&own)?);
        let mut from = std::fs::File::from(from);
        self.size = self.size.saturating_add(std::io::copy(&mut from, &mut to).map_err(errno)?);
        copy_attributes(&from, &stat, &to)?;
        fs::linkat(&dir, name, place.dir, place.name, AtFlags::empty())
    }

    /// Opens a directory of this layer; it and what leads to it are made like those below where they are missing.
    fn directory_as_below(&self, below: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let mut dir = sys::fs::open_in_root(self.root, ".", flags, 0).map_err(errno)?;
        let mut done: Vec<u8> = Vec::new();
        for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            if !done.is_empty() {
                done.push(b'/');
            }
            done.extend_from_slice(part);
            match fs::mkdirat(&dir, part, Mode::RWXU) {
                Ok(()) => {
                    let made = fs::openat(&dir, part, flags | OFlags::CLOEXEC, Mode::empty())?;
                    let like =
                        sys::fs::open_in_root(below, OsStr::from_bytes(&done), flags, 0).map_err(errno)?;
                    copy_attributes(&like, &fs::fstat(&like)?, &made)?;
                    dir = made;
                }
                Err(Errno::EXIST) => dir = fs::openat(&dir, part, flags | OFlags::CLOEXEC, Mode::empty())?,
                Err(error) => return Err(error),
            }
        }
        Ok(dir)
    }

    /// Writes a file's data and gives it its attributes.
    fn file<R: BufRead>(&mut self, file: OwnedFd, member: &Member, reader: &mut Reader<R>) -> Result<()> {
        let mut file = std::fs::File::from(file);
        let fail =
            |error: std::io::Error| failed(&member.path, Errno::from_io_error(&error).unwrap_or(Errno::IO));
        self.size = self.size.saturating_add(member.size);
        match &member.sparse {
            None => copy_data(&mut file, member.size, reader, &fail)?,
            Some(pieces) => {
                for &(offset, length) in pieces {
                    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).map_err(fail)?;
                    copy_data(&mut file, length, reader, &fail)?;
                }
                file.set_len(member.size).map_err(fail)?;
            }
        }
        let (uid, gid) = self.owner(member);
        let set = || -> Failed {
            if uid != 0 || gid != 0 || self.setgid || !self.as_root {
                fs::fchown(&file, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)))?;
            }
            for (name, value) in wanted_xattrs(member, self.how.whiteouts) {
                allowed(fs::fsetxattr(&file, name, value, XattrFlags::empty()))?;
            }
            fs::fchmod(&file, Mode::from_raw_mode(member.mode as RawMode))?;
            fs::futimens(&file, &times(member.mtime))
        };
        set().map_err(|error| failed(&member.path, error))
    }

    fn owner(&self, member: &Member) -> (u32, u32) {
        self.how.owner.unwrap_or((member.uid, member.gid))
    }
    /// Owner, extended attributes, mode and time of what is no file. In this order: a change of owner takes setuid bits
    /// and capabilities away.
    fn attributes(&self, member: &Member, place: &Place<'_>) -> Failed {
        let (uid, gid) = self.owner(member);
        let (uid, gid) = (fs::Uid::from_raw(uid), fs::Gid::from_raw(gid));
        fs::chownat(place.dir, place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if !member.xattrs.is_empty() {
            let path = sys::fs::proc_path(place.dir).join(place.name);
            for (name, value) in wanted_xattrs(member, self.how.whiteouts) {
                allowed(fs::lsetxattr(&path, name, value, XattrFlags::empty()))?;
            }
        }
        if member.kind != Kind::Symlink {
            // Not followed: it is no link, we made it just now or saw that it is a directory.
            fs::chmodat(
                place.dir,
                place.name,
                Mode::from_raw_mode(member.mode as RawMode),
                AtFlags::empty(),
            )?;
        }
        fs::utimensat(place.dir, place.name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Sets the times of directories, which what was made in them has changed.
    fn finish(&mut self) -> Result<()> {
        for (path, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(dir) = sys::fs::open_in_root(self.root, OsStr::from_bytes(&path), flags, 0) else {
                // A later member replaced it.
                continue;
            };
            fs::utimensat(fs::CWD, sys::fs::proc_path(&dir), &times(mtime), AtFlags::empty())
                .map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

fn copy_data<R: BufRead>(
    file: &mut std::fs::File,
    mut length: u64,
    reader: &mut Reader<R>,
    fail: &dyn Fn(std::io::Error) -> Error,
) -> Result<()> {
    while length > 0 {
        let piece = reader.data()?;
        let count = piece.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        if count == 0 {
            return Err(fail(Errno::IO.into()));
        }
        file.write_all(&piece[..count]).map_err(fail)?;
        reader.consume(count);
        length -= count as u64;
    }
    Ok(())
}

fn create_file(place: &Place<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(place.dir, place.name, flags, Mode::RUSR | Mode::WUSR)
}

fn opaque(dir: BorrowedFd<'_>) -> Failed {
    fs::setxattr(sys::fs::proc_path(dir), c"trusted.overlay.opaque", b"y", XattrFlags::empty())
}

/// Attributes of the archive that may be set: in a layer, none that overlay would take for its own.
fn wanted_xattrs(member: &Member, whiteouts: Whiteouts) -> impl Iterator<Item = (&[u8], &[u8])> {
    let overlays = |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let found = member.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    found.filter(move |(name, _)| whiteouts == Whiteouts::Plain || !overlays(name))
}

/// A file system or a kernel that does not take an attribute is no failure, as in Docker.
fn allowed(result: Failed) -> Failed {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        other => other,
    }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Cleans a member's name: no leading slash, `.`, empty parts; `..` within what went before it. Why it is refused
/// otherwise.
pub fn clean(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut parts: Vec<&[u8]> = Vec::new();
    if path.len() > limits::PATH_BYTES {
        return Err("its name is longer than 4096 bytes");
    }
    if path.contains(&0) {
        return Err("its name has a NUL byte");
    }
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or("it is outside of the archive's root")?;
            }
            part => parts.push(part),
        }
    }
    if parts.len() > limits::PATH_DEPTH {
        return Err("it lies deeper than 512 directories");
    }
    Ok(parts.join(&b'/'))
}

/// Owner, extended attributes, mode and times of one open file for another.
fn copy_attributes(from: impl AsFd, stat: &fs::Stat, to: impl AsFd) -> Failed {
    let (from, to) = (from.as_fd(), to.as_fd());
    fs::fchown(to, Some(fs::Uid::from_raw(stat.st_uid)), Some(fs::Gid::from_raw(stat.st_gid)))?;
    let mut names = vec![0; fs::flistxattr(from, &mut [] as &mut [u8])?];
    let length = fs::flistxattr(from, &mut names[..])?;
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; fs::fgetxattr(from, name, &mut [] as &mut [u8])?];
        let length = fs::fgetxattr(from, name, &mut value[..])?;
        allowed(fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()))?;
    }
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    let access = time(stat.st_atime, stat.st_atime_nsec);
    fs::futimens(
        to,
        &Timestamps { last_access: access, last_modification: time(stat.st_mtime, stat.st_mtime_nsec) },
    )
}

fn failed(path: &[u8], error: Errno) -> Error {
    let kind = match error {
        Errno::NOSPC | Errno::DQUOT => ErrorKind::ResourceExhausted,
        Errno::PERM | Errno::ACCESS => ErrorKind::PermissionDenied,
        Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::EXIST | Errno::INVAL => {
            ErrorKind::InvalidArgument
        }
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("archive member {}", shown(path))).caused_by(std::io::Error::from(error))
}
