//! `COPY` and `ADD`: sources gathered and hashed first, so that the cache can be asked, then written into the step's view.
//!
//! A directory's contents are copied, not itself; a target with a trailing slash, or several sources, is a directory;
//! what comes from the context belongs to root unless `--chown` says otherwise, what comes from a stage keeps its owner.

use model::container::HostPath;
use model::dockerfile::chmod::Chmod;
use model::dockerfile::effect;
use model::dockerfile::instruction::Copy;
use model::dockerfile::plan::{CacheKey, Origin};
use model::dockerfile::remote::{Git, is_http};
use model::error::Context as _;
use model::ignore::Ignore;
use model::{Digest, Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::archive;
use super::fetch::{Fetched, fetch};
use super::git::{Checkout, Wanted};
use super::named::Named;
use super::source::{Item, Source, Tree, cleaned};
use super::stage::State;
use super::{Builder, Built};

/// The tree that a `COPY` reads.
enum From {
    /// The build context.
    Context,
    /// A stage, an image or another directory, opened for this, and what is left out of it.
    Root(OwnedFd, Ignore),
}

/// A repository that `ADD` checked out.
struct Repository {
    /// What makes it another one.
    key: [String; 3],
    root: OwnedFd,
    sources: Vec<Source>,
    _checkout: Checkout,
}

/// A `COPY` that is ready to be written.
pub(super) struct Prepared<'a> {
    copy: Copy,
    root: Option<OwnedFd>,
    context: &'a OwnedFd,
    sources: Vec<Source>,
    fetched: Vec<Fetched>,
    repositories: Vec<Repository>,
    keep_owner: bool,
    target: PathBuf,
    target_is_dir: bool,
}

impl Builder<'_> {
    pub(super) fn prepare_copy(&self, index: usize, state: &State, copy: &Copy) -> Built<Prepared<'_>> {
        let from = match &copy.from {
            None => From::Context,
            Some(name) => self.root_of(index, name)?,
        };
        let exclude = Ignore::from_patterns(copy.exclude.iter().map(String::as_str))?;
        let (mut sources, mut fetched, mut repositories) = (Vec::new(), Vec::new(), Vec::new());
        {
            let (root, ignore, known) = match &from {
                From::Context => (&self.context.root, &self.context.ignore, self.known.as_ref()),
                From::Root(root, ignore) => (root, ignore, None),
            };
            let tree = Tree { root, ignore, exclude, known };
            for given in &copy.sources {
                if let Some(git) = Git::parse(given).filter(|_| copy.add) {
                    repositories.push(self.repository(&git.checked()?, copy)?);
                } else if copy.add && is_http(given) {
                    fetched.push(fetch(given, copy.checksum.as_deref())?);
                } else if copy.checksum.is_some() {
                    let text = "checksum can't be specified for non-HTTP(S) or git sources";
                    return Err(Error::invalid(text).into());
                } else if let Some((above, pattern)) = given.split_once("/./").filter(|_| copy.parents) {
                    // What stands before the pivot is not kept.
                    let found = tree.find(&format!("{above}/{pattern}"), true)?;
                    let above = cleaned(above);
                    sources.extend(found.into_iter().map(|mut source| {
                        source.given =
                            source.given.strip_prefix(&above).map(Path::to_owned).unwrap_or(source.given);
                        source
                    }));
                } else {
                    sources.extend(tree.find(given, copy.parents)?);
                }
            }
        }
        let dir = effect::working_dir(&state.config.config);
        let target = dir.join(&copy.target);
        let last = copy.target.rsplit('/').next().unwrap_or_default();
        let slash = matches!(last, "" | "." | "..");
        let files = sources.len() + fetched.len() + repositories.len() + copy.files.len();
        let several = files > 1
            && !(sources.len() + repositories.len() == files
                && sources.iter().all(|source| source.items[0].kind() == FileType::Directory));
        if several && !slash && !copy.parents {
            let keyword = if copy.add { "ADD" } else { "COPY" };
            return Err(Error::invalid(format!("When using {keyword} with more than one source file, the destination must be a directory and end with a /")).into());
        }
        Ok(Prepared {
            copy: copy.clone(),
            keep_owner: self.keeps_owners(copy)?,
            root: match from {
                From::Context => None,
                From::Root(root, _) => Some(root),
            },
            context: &self.context.root,
            sources,
            fetched,
            repositories,
            target: PathBuf::from(target.relative()),
            target_is_dir: slash || several || copy.parents,
        })
    }
    /// What `--from` names, opened for reading.
    fn root_of(&self, index: usize, name: &str) -> Result<From> {
        if let Some(Named::Files { dir, ignore, .. }) = self.named(name)?.as_deref() {
            let root = sys::fs::open_root(dir).context(|| format!("build context {name}"))?;
            return Ok(From::Root(root, ignore.clone()));
        }
        let lower = self.lower_of(index, name)?;
        Ok(From::Root(self.engine.store.mount_detached(&lower, None)?, Ignore::default()))
    }
    /// What comes from an image keeps its owners; a context's files belong to root, whoever works on them.
    fn keeps_owners(&self, copy: &Copy) -> Result<bool> {
        let Some(name) = &copy.from else { return Ok(false) };
        Ok(!matches!(self.named(name)?.as_deref(), Some(Named::Files { .. })))
    }
    /// Checks out what `ADD` names.
    fn repository(&self, git: &Git, copy: &Copy) -> Result<Repository> {
        let wanted = Wanted {
            keep_git_dir: copy.keep_git_dir,
            checksum: copy.checksum.as_deref(),
            local: false,
            agent: self.options.agents.get("default").map(PathBuf::as_path),
        };
        let checkout = self.engine.checkout(git, wanted)?;
        let root =
            sys::fs::open_root(&checkout.dir).context(|| format!("open the checkout of {}", git.url))?;
        let (ignore, exclude) =
            (Ignore::default(), Ignore::from_patterns(copy.exclude.iter().map(String::as_str))?);
        let sources = Tree { root: &root, ignore: &ignore, exclude, known: None }.find("/", false)?;
        let commit = checkout.commit.clone();
        let key = [commit, git.subdir.clone().unwrap_or_default(), copy.keep_git_dir.to_string()];
        Ok(Repository { key, root, sources, _checkout: checkout })
    }
    /// The directories of the stage or image that `--from` or `from=` names in an instruction of the stage `index`.
    pub(super) fn lower_of(&self, index: usize, name: &str) -> Result<Vec<HostPath>> {
        let layers = match model::dockerfile::plan::origin(&self.dockerfile, name, index) {
            Origin::Scratch => Vec::new(),
            Origin::Stage(stage) => self.finished(stage)?.config.rootfs.diff_ids.clone(),
            Origin::Named(image) => {
                let image = match self.named(&image)?.as_deref() {
                    Some(Named::Image(other)) => other.clone(),
                    _ => image,
                };
                self.image(&image, None)?.config.rootfs.diff_ids
            }
        };
        self.engine.store.lower(&layers)
    }
}

impl Prepared<'_> {
    fn root(&self) -> &OwnedFd {
        self.root.as_ref().unwrap_or(self.context)
    }
    /// The key: what is copied (no times), from where it will lie, whose, onto what.
    pub(super) fn key(&self, parent: Option<&Digest>) -> Digest {
        let mut key = CacheKey::new(if self.copy.add { "add" } else { "copy" });
        key.part(parent.map_or("", Digest::as_str)).part(self.target.as_os_str().as_encoded_bytes());
        key.part([
            u8::from(self.target_is_dir),
            u8::from(self.copy.parents),
            self.copy.unpack.map_or(2, u8::from),
        ]);
        key.list(self.copy.chown.iter()).list(self.copy.chmod.iter());
        for source in &self.sources {
            key.part(source.name.as_encoded_bytes());
            if self.copy.parents {
                key.part(source.given.as_os_str().as_encoded_bytes());
            }
            for item in &source.items {
                key.part(item.below.as_os_str().as_encoded_bytes()).part(item.stat.st_mode.to_le_bytes());
                if self.keep_owner {
                    key.part(item.stat.st_uid.to_le_bytes()).part(item.stat.st_gid.to_le_bytes());
                }
                key.part(item.link.as_ref().map_or(&[][..], |link| link.as_encoded_bytes()));
                key.part(item.digest.as_ref().map_or("", Digest::as_str));
            }
        }
        for file in &self.fetched {
            key.part(&file.name).part(Digest::of(&file.bytes).as_str());
        }
        for repository in &self.repositories {
            key.list(&repository.key).list(&self.copy.exclude);
        }
        for file in &self.copy.files {
            key.part(&file.name).part(&file.content);
        }
        key.finish()
    }
    /// Writes everything below the root of the step's view.
    pub(super) fn write(&self, root: &OwnedFd) -> Result<()> {
        let owner = self.copy.chown.as_deref().map(|chown| super::archive::owner(root, chown)).transpose()?;
        let mode = self.copy.chmod.as_deref().map(Chmod::parse).transpose()?;
        let nothing = Ignore::default();
        let writer = |from, keep_owner| Writer {
            root,
            tree: Tree { root: from, ignore: &nothing, exclude: Ignore::default(), known: None },
            owner,
            mode: mode.clone(),
            keep_owner,
            links: BTreeMap::new(),
        };
        for repository in &self.repositories {
            let mut writer = writer(&repository.root, false);
            repository.sources.iter().try_for_each(|source| writer.tree(&self.target, &source.items))?;
        }
        let mut writer = writer(self.root(), self.keep_owner);
        for source in &self.sources {
            self.write_source(&mut writer, source)?;
        }
        for file in &self.fetched {
            let unpack = self.copy.unpack == Some(true);
            if unpack && archive::is_archive(file.bytes.as_slice()) {
                let dir = make_dirs(root, &self.target, owner)?;
                archive::unpack(&dir, file.bytes.as_slice())?;
                continue;
            }
            if file.name.is_empty() && self.target_is_dir {
                return Err(Error::invalid("cannot determine filename from url: name the target file"));
            }
            writer.plain(
                &self.place(root, OsStr::new(&file.name), owner)?,
                &file.bytes,
                0o600,
                // Where the server does not say, it is the epoch (BuildKit).
                Some(file.modified.unwrap_or(0)),
            )?;
        }
        for file in &self.copy.files {
            writer.plain(
                &self.place(root, OsStr::new(&file.name), owner)?,
                file.content.as_bytes(),
                0o644,
                None,
            )?;
        }
        Ok(())
    }
    fn write_source(&self, writer: &mut Writer<'_>, source: &Source) -> Result<()> {
        let top = &source.items[0];
        if self.copy.parents {
            let parent = source.given.parent().unwrap_or(Path::new(""));
            let dir = self.target.join(parent);
            self.make_parents(writer, source)?;
            if top.kind() == FileType::Directory {
                let place = dir.join(&source.name);
                writer.tree(&place, &source.items)?;
                return writer.dress_directory(&place, top);
            }
            return writer.file(&dir.join(&source.name), top);
        }
        if top.kind() == FileType::Directory {
            return writer.tree(&self.target, &source.items);
        }
        if self.copy.add && self.copy.unpack != Some(false) && top.kind() == FileType::RegularFile {
            let file = std::fs::File::from(writer.tree.open_item(top)?);
            let mut start = Vec::new();
            file.take(archive::MAGIC_BYTES)
                .read_to_end(&mut start)
                .context(|| format!("read {}", top.path.display()))?;
            let file = std::fs::File::from(writer.tree.open_item(top)?);
            if archive::may_be_archive(&start) && archive::is_archive(file) {
                let dir = make_dirs(writer.root, &self.target, writer.owner)?;
                let file = std::fs::File::from(writer.tree.open_item(top)?);
                return archive::unpack(&dir, file)
                    .map_err(|error| error.within(format!("ADD {}", top.path.display())));
            }
        }
        let place = self.place(writer.root, &source.name, writer.owner)?;
        writer.file(&place, top)
    }
    /// `--parents`: the directories above a source, like those that it lies in.
    fn make_parents(&self, writer: &Writer<'_>, source: &Source) -> Result<()> {
        make_dirs(writer.root, &self.target, writer.owner)?;
        let above = source.given.components().count();
        let from: PathBuf = {
            let all: Vec<_> = source.items[0].path.components().collect();
            all[..all.len().saturating_sub(above)].iter().collect()
        };
        let parents = source.given.parent().unwrap_or(Path::new(""));
        for parent in
            parents.ancestors().filter(|path| !path.as_os_str().is_empty()).collect::<Vec<_>>().iter().rev()
        {
            let place = self.target.join(parent);
            if sys::fs::open_in_root(writer.root, &place, OFlags::PATH | OFlags::DIRECTORY, 0).is_ok() {
                continue;
            }
            make_dirs(writer.root, &place, writer.owner)?;
            let path = from.join(parent);
            let shown = || format!("read {}", path.display());
            let fd = writer.tree.open(&path, OFlags::PATH | OFlags::DIRECTORY).context(shown)?;
            let stat = rustix::fs::fstat(&fd).map_err(std::io::Error::from).context(shown)?;
            let item = Item { path: path.clone(), below: PathBuf::new(), stat, link: None, digest: None };
            writer.dress_directory(&place, &item)?;
        }
        Ok(())
    }
    /// Where a file goes: into the target where that is a directory, else it is the target.
    fn place(&self, root: &OwnedFd, name: &OsStr, owner: Option<(u32, u32)>) -> Result<PathBuf> {
        let is_dir =
            || sys::fs::open_in_root(root, &self.target, OFlags::PATH | OFlags::DIRECTORY, 0).is_ok();
        if self.target_is_dir || is_dir() {
            make_dirs(root, &self.target, owner)?;
            return Ok(self.target.join(name));
        }
        if let Some(parent) = self.target.parent() {
            make_dirs(root, parent, owner)?;
        }
        Ok(self.target.clone())
    }
}

/// Makes a directory and what is missing above it (0755), and gives what was made to an owner.
pub(super) fn make_dirs(
    root: &OwnedFd,
    path: impl AsRef<Path>,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd> {
    let path = path.as_ref();
    let shown = || format!("create directory /{}", path.display());
    let (mut at, mut missing) = (PathBuf::new(), Vec::new());
    for part in path.components() {
        at.push(part);
        if !missing.is_empty() || sys::fs::open_in_root(root, &at, OFlags::PATH, 0).is_err() {
            missing.push(at.clone());
        }
    }
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let dir = sys::fs::create_dir_in_root(root, path, 0o755).context(shown)?;
    for made in missing {
        let fd = sys::fs::open_in_root(root, &made, OFlags::RDONLY | OFlags::DIRECTORY, 0).context(shown)?;
        // Whatever the umask.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(std::io::Error::from).context(shown)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(std::io::Error::from)
                .context(shown)?;
        }
    }
    Ok(dir)
}

struct Writer<'a> {
    root: &'a OwnedFd,
    tree: Tree<'a>,
    owner: Option<(u32, u32)>,
    mode: Option<Chmod>,
    keep_owner: bool,
    /// Where the first of several names of one file went.
    links: BTreeMap<(u64, u64), PathBuf>,
}

impl Writer<'_> {
    /// Copies a directory's contents into a target directory.
    fn tree(&mut self, target: &Path, items: &[Item]) -> Result<()> {
        make_dirs(self.root, target, self.owner)?;
        let mut directories = Vec::new();
        for item in items {
            let place = target.join(&item.below);
            if item.kind() != FileType::Directory {
                self.file(&place, item)?;
                continue;
            }
            // The target itself is no copy: what was there stays as it is, else it is made like any other (BuildKit).
            if !item.below.as_os_str().is_empty() {
                self.directory(&place)?;
                directories.push((place, item));
            }
        }
        for (place, item) in directories.into_iter().rev() {
            self.dress_directory(&place, item)?;
        }
        Ok(())
    }
    fn dress_directory(&self, place: &Path, item: &Item) -> Result<()> {
        let fd = sys::fs::open_in_root(self.root, place, OFlags::RDONLY | OFlags::DIRECTORY, 0)
            .context(|| format!("open /{}", place.display()))?;
        self.dress(fd.as_fd(), item, place)
    }
    fn directory(&self, place: &Path) -> Result<()> {
        let (parent, name) = parent(self.root, place)?;
        match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
            Ok(_) => Err(Error::invalid(format!("cannot copy to non-directory: /{}", place.display()))),
            Err(_) => rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755))
                .map_err(std::io::Error::from)
                .context(|| format!("create directory /{}", place.display())),
        }
    }
    /// Copies one file, link or node to exactly this place, over whatever is no directory there.
    fn file(&mut self, place: &Path, item: &Item) -> Result<()> {
        let (parent, name) = parent(self.root, place)?;
        let shown = || format!("create /{}", place.strip_prefix(".").unwrap_or(place).display());
        clear(&parent, &name, place)?;
        match item.kind() {
            FileType::RegularFile => {
                let inode = (item.stat.st_dev, item.stat.st_ino);
                if item.stat.st_nlink > 1
                    && let Some(first) = self.links.get(&inode)
                {
                    let (from, other) = self::parent(self.root, first)?;
                    return rustix::fs::linkat(&from, &other, &parent, &name, AtFlags::empty())
                        .map_err(std::io::Error::from)
                        .context(shown);
                }
                let source = std::fs::File::from(self.tree.open_item(item)?);
                let mut target = create(&parent, &name).context(shown)?;
                // What was hashed is what may be cached: a file that changes meanwhile is refused.
                let copied = std::io::copy(&mut source.take(u64::MAX), &mut target).context(shown)?;
                if copied != u64::try_from(item.stat.st_size).unwrap_or(0) {
                    return Err(Error::conflict(format!(
                        "{} changed while it was copied",
                        item.path.display()
                    )));
                }
                if item.stat.st_nlink > 1 {
                    self.links.insert(inode, place.to_owned());
                }
                self.dress(target.as_fd(), item, place)
            }
            FileType::Symlink => {
                let link = item.link.as_deref().unwrap_or_default();
                rustix::fs::symlinkat(link, &parent, &name).map_err(std::io::Error::from).context(shown)?;
                let (uid, gid) = self.owner_of(item);
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&parent, &name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
                    .and_then(|()| rustix::fs::utimensat(&parent, &name, &times(&item.stat), flags))
                    .map_err(std::io::Error::from)
                    .context(shown)
            }
            kind => {
                let mode = Mode::from_raw_mode(item.stat.st_mode & 0o7777);
                rustix::fs::mknodat(&parent, &name, kind, mode, item.stat.st_rdev)
                    .map_err(std::io::Error::from)
                    .context(shown)?;
                let (uid, gid) = self.owner_of(item);
                rustix::fs::chownat(
                    &parent,
                    &name,
                    Some(Uid::from_raw(uid)),
                    Some(Gid::from_raw(gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(std::io::Error::from)
                .context(shown)
            }
        }
    }
    fn plain(&self, place: &Path, bytes: &[u8], mode: u32, modified: Option<i64>) -> Result<()> {
        let (parent, name) = parent(self.root, place)?;
        let shown = || format!("create /{}", place.strip_prefix(".").unwrap_or(place).display());
        clear(&parent, &name, place)?;
        let mut file = create(&parent, &name).context(shown)?;
        file.write_all(bytes).context(shown)?;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode_of(mode, false))))
            .map_err(std::io::Error::from)
            .context(shown)?;
        if let Some(seconds) = modified {
            let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&file, &times).map_err(std::io::Error::from).context(shown)?;
        }
        Ok(())
    }
    fn mode_of(&self, mode: u32, directory: bool) -> u32 {
        self.mode.as_ref().map_or(mode, |chmod| chmod.apply(mode, directory))
    }
    fn owner_of(&self, item: &Item) -> (u32, u32) {
        self.owner.unwrap_or(if self.keep_owner { (item.stat.st_uid, item.stat.st_gid) } else { (0, 0) })
    }
    /// Owner, mode, extended attributes and times, in the order in which they do not undo each other.
    fn dress(&self, fd: BorrowedFd<'_>, item: &Item, place: &Path) -> Result<()> {
        let shown = || format!("set the attributes of /{}", place.display());
        let (uid, gid) = self.owner_of(item);
        let directory = item.kind() == FileType::Directory;
        let mode = Mode::from_raw_mode(self.mode_of(item.stat.st_mode & 0o7777, directory));
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| rustix::fs::fchmod(fd, mode))
            .map_err(std::io::Error::from)
            .context(shown)?;
        self.attributes(fd, item).map_err(std::io::Error::from).context(shown)?;
        rustix::fs::futimens(fd, &times(&item.stat)).map_err(std::io::Error::from).context(shown)
    }
    /// `user.*` and file capabilities travel; what a file system or a security module keeps for itself does not.
    fn attributes(&self, fd: BorrowedFd<'_>, item: &Item) -> rustix::io::Result<()> {
        let Ok(source) = self.tree.open(&item.path, OFlags::RDONLY | OFlags::NONBLOCK) else { return Ok(()) };
        let mut list = vec![0u8; 64 << 10];
        let Ok(length) = rustix::fs::flistxattr(&source, &mut list) else { return Ok(()) };
        for name in list[..length]
            .split(|byte| *byte == 0)
            .filter(|name| name.starts_with(b"user.") || *name == b"security.capability")
        {
            let mut value = vec![0u8; 64 << 10];
            if let Ok(length) = rustix::fs::fgetxattr(&source, name, &mut value) {
                rustix::fs::fsetxattr(fd, name, &value[..length], rustix::fs::XattrFlags::empty())?;
            }
        }
        Ok(())
    }
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = rustix::fs::Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

fn parent(root: &OwnedFd, place: &Path) -> Result<(OwnedFd, std::ffi::OsString)> {
    sys::fs::parent_in_root(root, place).context(|| format!("open the parent of /{}", place.display()))
}

/// Makes room: whatever is at a place goes, a directory excepted.
fn clear(parent: &OwnedFd, name: &OsStr, place: &Path) -> Result<()> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(_) => Ok(()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Err(Error::invalid(format!("cannot overwrite directory /{} with a file", place.display())))
        }
        Ok(_) => rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .map_err(std::io::Error::from)
            .context(|| format!("replace /{}", place.display())),
    }
}

fn create(parent: &OwnedFd, name: &OsStr) -> std::io::Result<std::fs::File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?.into())
}
