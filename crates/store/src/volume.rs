//! Volumes: `volumes/<name>/{_data/,volume.json}`.
//!
//! A volume is made complete under a temporary name and renamed into place; it is removed by renaming it to `trash/`.
//! Whoever makes volumes for a container holds [`Store::share_volumes`] until the container's record names them;
//! whoever removes volumes holds [`Store::own_volumes`], so that nothing is removed between the two.
//!
//! The image's content is copied into `_populate/` first, renamed to `_populated/` when complete, then moved into
//! `_data/` entry by entry: a copy that was interrupted is finished or forgotten, never left half-way. The volume's
//! directory itself is locked (`flock`) meanwhile. Volumes of another file system (`type=tmpfs`) are mounted on
//! `_data` while they are in use.

mod draft;
mod mount;

use model::error::Context as _;
use model::time::Timestamp;
use model::{Error, Kind, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::fs::Lock;

use crate::{Store, copy};
pub use draft::Mark;
pub use mount::Mounted;

/// Longest name: with the record's own names it must stay below `NAME_MAX`.
const NAME_BYTES: usize = 250;

/// A volume's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// A new one for each volume, also one of the same name made again.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options (`type`, `o`, `device` of the local driver).
    pub options: BTreeMap<String, String>,
    /// It got its name from us.
    pub anonymous: bool,
    /// What worked on it once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// The id of the volume that this is a draft of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_of: Option<String>,
    /// `_data`.
    #[serde(skip)]
    pub data: PathBuf,
}

/// Keeps volumes from being removed, or made, while it lives.
#[derive(Debug)]
pub struct VolumesLock(#[allow(dead_code)] Lock);

/// A name for an anonymous volume: 64 hexadecimal digits.
pub fn random_name() -> Result<String> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context(|| "get random bytes for a volume's name")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_random_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Docker's rule for volume names.
///
/// # Errors
/// An invalid argument in Docker's words.
pub fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if name.len() > NAME_BYTES {
        return Err(Error::invalid(format!("volume name is too long: {NAME_BYTES} characters at most")));
    }
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(Error::invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

impl Store {
    /// Held by whoever makes volumes for a container, until the container's record names them.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn share_volumes(&self) -> Result<VolumesLock> {
        let path = self.layout.lock("volumes");
        Lock::shared(&path).map(VolumesLock).context(|| format!("lock {}", path.display()))
    }
    /// Held by whoever removes volumes, from the look for users to the removal.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn own_volumes(&self) -> Result<VolumesLock> {
        let path = self.layout.lock("volumes");
        Lock::exclusive(&path).map(VolumesLock).context(|| format!("lock {}", path.display()))
    }

    /// Makes a volume, or returns the one of that name (Docker's idempotent create). True: it is new.
    ///
    /// # Errors
    /// A malformed name, or options that contradict the existing volume.
    pub fn create_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
        anonymous: bool,
        now: Timestamp,
    ) -> Result<(Volume, bool)> {
        check_name(name).context(|| format!("create {name}"))?;
        mount::check(options).context(|| format!("create {name}"))?;
        if let Some(existing) = self.find_volume(name)? {
            return agreeing(existing, options).map(|volume| (volume, false));
        }
        let id = random_name()?;
        let mut volume = Volume {
            name: name.to_owned(),
            data: PathBuf::new(),
            created: now,
            labels: labels.clone(),
            options: options.clone(),
            anonymous,
            marks: Vec::new(),
            draft_of: None,
            id,
        };
        let temporary = self.layout.volumes().join(format!(".new-{}", &volume.id[..16]));
        let dir = self.layout.volume(name);
        let made = write_volume(&temporary, &volume).and_then(|()| {
            sys::failpoint!("volume: written");
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &temporary,
                rustix::fs::CWD,
                &dir,
                RenameFlags::NOREPLACE,
            )
            .map_err(std::io::Error::from)
            .context(|| format!("rename {} to {}", temporary.display(), dir.display()))
        });
        // An anonymous volume's record is not waited for, nor is its name.
        let made = if anonymous { made } else { made.and_then(|()| self.sync_volume_names()) };
        match made {
            Ok(()) => {
                volume.data = dir.join("_data");
                Ok((volume, true))
            }
            Err(error) => {
                let removed =
                    std::fs::remove_dir_all(&temporary).context(|| format!("remove {}", temporary.display()));
                if error.kind() == Kind::AlreadyExists {
                    removed?;
                    return agreeing(self.volume(name)?, options).map(|volume| (volume, false));
                }
                Err(error.within(format!("create volume {name}")).with_undo_failures(removed.err()))
            }
        }
    }

    /// One volume.
    ///
    /// # Errors
    /// `get NAME: no such volume`.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        self.find_volume(name)?.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }
    /// One volume, if there is one of that name.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn find_volume(&self, name: &str) -> Result<Option<Volume>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let dir = self.layout.volume(name);
        let path = dir.join("volume.json");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.context(|| format!("read {}", path.display()))?,
        };
        if bytes.is_empty() && is_random_name(name) {
            // An anonymous volume's record is not waited for, and a machine that lost its power may have its name alone.
            return Ok(Some(Volume {
                name: name.to_owned(),
                id: name.to_owned(),
                created: Timestamp::NEVER,
                labels: BTreeMap::new(),
                options: BTreeMap::new(),
                anonymous: true,
                marks: Vec::new(),
                draft_of: None,
                data: dir.join("_data"),
            }));
        }
        let mut volume: Volume = serde_json::from_slice(&bytes).map_err(|error| {
            Error::internal(format!("volume {name}: read {}", path.display())).caused_by(error)
        })?;
        if volume.name != name {
            // What the commit of a draft left when it was killed.
            return Ok(None);
        }
        volume.data = dir.join("_data");
        Ok(Some(volume))
    }
    /// All volumes, by name.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let dir = self.layout.volumes();
        let mut volumes = Vec::new();
        for entry in std::fs::read_dir(&dir).context(|| format!("read directory {}", dir.display()))? {
            let name = entry.context(|| format!("read directory {}", dir.display()))?.file_name();
            // One that is gone by now was removed meanwhile; a name with a leading dot is being made.
            if let Some(volume) = name.to_str().map(|name| self.find_volume(name)).transpose()?.flatten() {
                volumes.push(volume);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }
    /// Removes a volume. The caller has checked that no container uses it and holds [`Store::own_volumes`].
    ///
    /// # Errors
    /// There is no such volume, or a deletion failed.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let volume = self.volume(name)?;
        let dir = self.layout.volume(name);
        mount::unmount(&volume.data)?;
        let trash = self.layout.trash().join(format!("volume-{}", &volume.id[..16.min(volume.id.len())]));
        std::fs::rename(&dir, &trash)
            .context(|| format!("remove volume {name}: rename {}", dir.display()))?;
        sys::failpoint!("volume: in the trash");
        if !volume.anonymous {
            self.sync_volume_names()?;
        }
        std::fs::remove_dir_all(&trash)
            .context(|| format!("remove volume {name}: delete {}", trash.display()))
    }
    /// Waits until the volumes that there are now are on the disk.
    fn sync_volume_names(&self) -> Result<()> {
        let dir = self.layout.volumes();
        sys::fs::sync(&dir).context(|| format!("sync {}", dir.display()))
    }
    /// Bytes that a volume's files take up on disk; hard links count once. What is mounted on it is not looked into.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn volume_usage(&self, volume: &Volume) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let mut seen = std::collections::HashSet::new();
        let mut queue = vec![volume.data.clone()];
        let mut total = 0u64;
        let device = std::fs::symlink_metadata(&volume.data).map_or(0, |meta| meta.dev());
        while let Some(dir) = queue.pop() {
            let entries = match std::fs::read_dir(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.context(|| format!("read directory {}", dir.display()))?,
            };
            for entry in entries.flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && meta.dev() == device {
                    queue.push(entry.path());
                } else if meta.nlink() < 2 || seen.insert(meta.ino()) {
                    total += if meta.is_file() { meta.len() } else { 0 };
                }
            }
        }
        Ok(total)
    }

    /// Copies a directory of an image (opened by descriptor, read-only view) into an empty volume: contents, owner and
    /// mode of the directory itself. Does nothing to a volume that has entries.
    ///
    /// # Errors
    /// Names what could not be copied; the volume is then empty again.
    pub fn populate_volume(&self, name: &str, from: BorrowedFd<'_>) -> Result<()> {
        let volume = self.volume(name)?;
        let dir = self.layout.volume(name);
        let held =
            rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(std::io::Error::from)
                .context(|| format!("open {}", dir.display()))?;
        sys::lock::wait(&held, FlockOperation::LockExclusive)
            .context(|| format!("lock {}", dir.display()))?;
        let populated = if volume.options.is_empty() {
            populate(&dir, from, !volume.anonymous)
        } else {
            self.populate_mounted(&volume, from)
        };
        populated.context(|| format!("copy the image's content into volume {name}"))
    }
    /// A volume of another file system is filled in place: nothing could be renamed into it.
    fn populate_mounted(&self, volume: &Volume, from: BorrowedFd<'_>) -> Result<()> {
        let mounted = mount::mount(volume)?;
        if mounted.read_only || !is_empty(&mounted.path)? {
            return Ok(());
        }
        let target = open_directory(&mounted.path)?;
        copy::copy_tree(from, target.as_fd()).map_err(|error| match copy::clear_directory(&mounted.path) {
            Ok(()) => error,
            Err(undo) => error.with_undo_failures([undo]),
        })
    }
    /// Where a volume's files are: makes sure that they are mounted there.
    ///
    /// # Errors
    /// The kernel refused to mount what the options name.
    pub fn mount_volume(&self, name: &str) -> Result<Mounted> {
        let volume = self.volume(name)?;
        if volume.options.is_empty() {
            return Ok(Mounted { path: volume.data, read_only: false });
        }
        let held = open_directory(&self.layout.volume(name))?;
        sys::lock::wait(&held, FlockOperation::LockExclusive).context(|| format!("lock volume {name}"))?;
        mount::mount(&volume)
    }
    /// Unmounts what [`Store::mount_volume`] mounted. The caller knows that no running container uses the volume. Does
    /// nothing to a volume that is gone or not mounted.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn unmount_volume(&self, name: &str) -> Result<()> {
        match self.find_volume(name)? {
            Some(volume) if !volume.options.is_empty() => {
                let held = open_directory(&self.layout.volume(name))?;
                sys::lock::wait(&held, FlockOperation::LockExclusive)
                    .context(|| format!("lock volume {name}"))?;
                mount::unmount(&volume.data)
            }
            _ => Ok(()),
        }
    }
}

fn agreeing(volume: Volume, options: &BTreeMap<String, String>) -> Result<Volume> {
    if options.is_empty() || *options == volume.options {
        return Ok(volume);
    }
    Err(Error::conflict(format!(
        "create {0}: a volume of that name exists with other driver options",
        volume.name
    ))
    .hint(format!("see `volume inspect {0}`; remove it first, or choose another name", volume.name)))
}

fn write_volume(dir: &Path, volume: &Volume) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let make = |path: &Path, mode: u32| {
        std::fs::DirBuilder::new()
            .mode(mode)
            .create(path)
            .context(|| format!("create directory {}", path.display()))
    };
    make(dir, 0o700)?;
    let data = dir.join("_data");
    make(&data, 0o755)?;
    // Whatever the umask: other users than root live in containers.
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755))
        .context(|| format!("set the mode of {}", data.display()))?;
    let text = serde_json::to_vec_pretty(volume)
        .map_err(|error| Error::internal("write a volume's record").caused_by(error))?;
    let path = dir.join("volume.json");
    let file = sys::fs::private_file(&path, &text).context(|| format!("write {}", path.display()))?;
    if !volume.anonymous {
        file.sync_all().context(|| format!("sync {}", path.display()))?;
    }
    Ok(())
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(std::io::Error::from)
        .context(|| format!("open directory {}", path.display()))
}

fn is_empty(path: &Path) -> Result<bool> {
    Ok(std::fs::read_dir(path).context(|| format!("read directory {}", path.display()))?.next().is_none())
}

/// Fills `_data` of a plain volume, through `_populate` and `_populated`. The volume's directory is locked. `wait`: a loss of
/// power leaves all of the copy or nothing.
fn populate(dir: &Path, from: BorrowedFd<'_>, wait: bool) -> Result<()> {
    let (staging, staged, data) = (dir.join("_populate"), dir.join("_populated"), dir.join("_data"));
    let exists = |path: &Path| path.try_exists().context(|| format!("look for {}", path.display()));
    if exists(&staged)? {
        return move_entries(&staged, &data);
    }
    if exists(&staging)? {
        std::fs::remove_dir_all(&staging).context(|| format!("remove {}", staging.display()))?;
    }
    if !is_empty(&data)? {
        return Ok(());
    }
    std::fs::create_dir(&staging).context(|| format!("create {}", staging.display()))?;
    let copied = open_directory(&staging).and_then(|target| {
        copy::copy_tree(from, target.as_fd())?;
        if wait && !is_empty(&staging)? {
            let synced = rustix::fs::syncfs(&target).map_err(std::io::Error::from);
            synced.context(|| format!("sync {}", staging.display()))?;
        }
        std::fs::rename(&staging, &staged).context(|| format!("rename {}", staging.display()))
    });
    if let Err(error) = copied {
        let undone = std::fs::remove_dir_all(&staging).context(|| format!("remove {}", staging.display()));
        return Err(error.with_undo_failures(undone.err()));
    }
    sys::failpoint!("volume: staged");
    move_entries(&staged, &data)
}

/// Moves what was staged into the volume, then gives the volume's root the attributes of the image's directory.
fn move_entries(staged: &Path, data: &Path) -> Result<()> {
    let (source, target) = (open_directory(staged)?, open_directory(data)?);
    let what = || format!("move {} into {}", staged.display(), data.display());
    // Before the moves change its time.
    let stat = rustix::fs::fstat(&source).map_err(std::io::Error::from).context(what)?;
    for name in copy::names(source.as_fd()).map_err(std::io::Error::from).context(what)? {
        match rustix::fs::renameat_with(&source, &name, &target, &name, RenameFlags::NOREPLACE) {
            // Somebody wrote there meanwhile: theirs is newer.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::internal(what()).caused_by(std::io::Error::from(error))),
        }
    }
    copy::copy_attributes(source.as_fd(), target.as_fd(), &stat)
        .map_err(std::io::Error::from)
        .context(what)?;
    std::fs::remove_dir_all(staged).context(|| format!("remove {}", staged.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["ab", "a1", "A_b.c-d", "0x", &"a".repeat(64)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "_a", ".a", "-a", "a/b", "a b", "../x", "a\0b", "ü2", &"a".repeat(251)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
