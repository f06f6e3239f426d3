//! Backups: what a task's container leaves in a directory is kept, once it is complete and its check has passed.
//!
//! ```text
//! <to>/[PROJECT/]TASK/                      readable by its owner alone
//!   .part-<run>[-TARGET]/data/              what the container writes into, and nothing else looks at
//!   <time>-<run>[-TARGET]/backup.json       what it is: target, image, times, files with sizes and SHA-256
//!   <time>-<run>[-TARGET]/data/             the files; `*.age` where they are encrypted
//! ```
//!
//! A part becomes a backup by one rename, after its files and `backup.json` were synced and its check has succeeded: what has a
//! time in its name is whole. The files come from a container, so nothing here follows a link of theirs: what is no regular file
//! or directory fails the backup. A part whose run's lock is free was left by a killed run; the next one removes it.

mod age;
mod prune;

use crate::definition::Backup;
use crate::error::{Context as _, Error, Result};
use crate::history::Key;
use crate::home::{Home, Lock, write};
use crate::run::{new_id, run_lock};
use jiff::Timestamp;
pub use prune::doomed;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Files of one backup at most.
const MOST_FILES: usize = 10_000;
/// Directories in one another at most.
const DEPTH: usize = 32;
/// Backups of one task that are looked at.
const MOST_BACKUPS: usize = 100_000;
/// Bytes of a `backup.json` at most.
const NOTE_BYTES: u64 = 16 * 1024 * 1024;
/// What a directory's name begins with as long as it is no backup.
const PART: &str = ".part-";

/// A backup, as its `backup.json` says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Taken {
    /// The task with its project.
    pub task: String,
    /// The run.
    pub run: String,
    /// The target's name; empty where the task has none.
    pub target: String,
    /// The digest of the image that wrote it.
    pub image: String,
    /// When the run began to write.
    pub started: Timestamp,
    /// When it was whole.
    pub finished: Timestamp,
    /// When its check had passed, where it has one.
    pub verified: Option<Timestamp>,
    /// Whether its files are encrypted.
    pub encrypted: bool,
    /// The files.
    pub files: Vec<Kept>,
    /// Where it is.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A file of a backup.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Kept {
    /// Below `data`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal, as it lies there.
    pub sha256: String,
}

impl Taken {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Where a task's backups are.
fn place(backup: &Backup, key: &Key) -> PathBuf {
    if key.project.is_empty() {
        backup.to.join(&key.task)
    } else {
        backup.to.join(&key.project).join(&key.task)
    }
}

/// A backup that is not whole yet; it is removed unless it becomes one.
pub struct Part {
    dir: PathBuf,
    kept: bool,
    started: Timestamp,
}

impl Part {
    /// An empty one.
    ///
    /// # Errors
    /// A directory cannot be made, or `age` is needed and not there.
    pub fn begin(backup: &Backup, key: &Key, run: &str, target: &str) -> Result<Self> {
        if backup.encrypt.is_some() {
            age::there()?;
        }
        let place = place(backup, key);
        private_dir(&place)?;
        let dash = if target.is_empty() { "" } else { "-" };
        let dir = place.join(format!("{PART}{run}{dash}{target}"));
        if dir.exists() {
            // An earlier try of this run.
            std::fs::remove_dir_all(&dir).context(|| format!("remove {}", dir.display()))?;
        }
        private_dir(&dir)?;
        let part = Self { dir, kept: false, started: Timestamp::now() };
        let data = part.data();
        std::fs::create_dir(&data).context(|| format!("create directory {}", data.display()))?;
        // The container's user may be anyone; nobody else gets here.
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777))
            .context(|| format!("change {}", data.display()))?;
        Ok(part)
    }

    /// What the container gets.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Makes it a backup: encrypted where that is asked for, noted, synced, renamed.
    ///
    /// # Errors
    /// It has no files, or something that is no file; or it cannot be read or written.
    pub fn keep(mut self, backup: &Backup, mut taken: Taken) -> Result<Taken> {
        let data = self.data();
        let names = files(&data)?;
        if names.is_empty() {
            return Err(Error::new(format!(
                "nothing was written to {}: there is nothing to keep",
                backup.mount
            )));
        }
        let sealed = self.dir.join("sealed");
        for mut name in names {
            let mut path = data.join(&name);
            if let Some(encrypt) = &backup.encrypt {
                name.push_str(".age");
                let to = sealed.join(&name);
                private_dir(to.parent().unwrap_or(&sealed))?;
                age::encrypt(encrypt, &path, &to)?;
                path = to;
            }
            let (bytes, sha256) = sum(&path, true)?;
            taken.files.push(Kept { name, bytes, sha256 });
        }
        if backup.encrypt.is_some() {
            std::fs::remove_dir_all(&data).context(|| format!("remove {}", data.display()))?;
            std::fs::rename(&sealed, &data).context(|| format!("rename {}", sealed.display()))?;
        }
        taken.encrypted = backup.encrypt.is_some();
        taken.started = self.started;
        taken.finished = Timestamp::now();
        let note = serde_json::to_vec_pretty(&taken).context(|| "write backup.json")?;
        write(&self.dir.join("backup.json"), &note)?;
        for dir in [&data, &self.dir] {
            sync_dir(dir)?;
        }
        let base = self.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stamp = taken.finished.strftime("%Y%m%dT%H%M%SZ");
        taken.path = self.dir.with_file_name(format!("{stamp}-{}", base.trim_start_matches(PART)));
        client::failpoint!("task: backup written");
        std::fs::rename(&self.dir, &taken.path)
            .context(|| format!("rename {} to {}", self.dir.display(), taken.path.display()))?;
        self.kept = true;
        client::failpoint!("task: backup kept");
        sync_dir(self.dir.parent().unwrap_or(&self.dir))?;
        Ok(taken)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Puts a directory of this machine into a container's request.
pub fn mount(body: &mut Value, from: &Path, at: &str, read_only: bool) {
    let mount =
        json!({"Type": "bind", "Source": from.display().to_string(), "Target": at, "ReadOnly": read_only});
    match &mut body["HostConfig"]["Mounts"] {
        Value::Array(mounts) => mounts.push(mount),
        none => *none = json!([mount]),
    }
}

/// A task's backups, the newest first. What is no whole backup is left out.
///
/// # Errors
/// The directory cannot be read.
pub fn all(backup: &Backup, key: &Key) -> Result<Vec<Taken>> {
    let place = place(backup, key);
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.context(|| format!("read directory {}", place.display()))?,
    };
    for entry in entries.take(MOST_BACKUPS) {
        let path = entry.context(|| format!("read directory {}", place.display()))?.path();
        let part = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PART));
        if part {
            continue;
        }
        let note = path.join("backup.json");
        let Ok(file) = File::open(&note) else { continue };
        let mut bytes = Vec::new();
        file.take(NOTE_BYTES).read_to_end(&mut bytes).context(|| format!("read {}", note.display()))?;
        let taken: Taken = serde_json::from_slice(&bytes).context(|| format!("read {}", note.display()))?;
        found.push(Taken { path, ..taken });
    }
    found.sort_by(|a, b| (b.finished, &b.path).cmp(&(a.finished, &a.path)));
    Ok(found)
}

/// Removes backups of a target that `keep` does not keep, and what killed runs left.
///
/// # Errors
/// A directory cannot be read or removed.
pub fn prune(home: &Home, backup: &Backup, key: &Key, target: &str) -> Result<()> {
    let mut own = all(backup, key)?;
    own.retain(|taken| taken.target == target);
    for taken in doomed(&own, &backup.keep, backup.verify.is_some(), Timestamp::now()) {
        // It is no backup any more from here on.
        let base = taken.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let aside =
            taken.path.with_file_name(format!("{PART}{}", base.split_once('-').unwrap_or_default().1));
        client::failpoint!("task: backup to be pruned");
        std::fs::rename(&taken.path, &aside).context(|| format!("remove {}", taken.path.display()))?;
        client::failpoint!("task: backup aside");
        std::fs::remove_dir_all(&aside).context(|| format!("remove {}", aside.display()))?;
    }
    let place = place(backup, key);
    for entry in std::fs::read_dir(&place).context(|| format!("read directory {}", place.display()))? {
        let path = entry.context(|| format!("read directory {}", place.display()))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(rest) = name.strip_prefix(PART) else { continue };
        let lock = run_lock(rest.split('-').next().unwrap_or_default());
        if let Some(free) = home.try_lock(&lock)? {
            std::fs::remove_dir_all(&path).context(|| format!("remove {}", path.display()))?;
            home.release(free, &lock);
        }
    }
    Ok(())
}

/// Checks that a backup is what was written.
///
/// # Errors
/// A file is missing or was changed.
pub fn intact(taken: &Taken) -> Result<()> {
    for kept in &taken.files {
        let path = taken.path.join("data").join(&kept.name);
        let (bytes, sha256) = sum(&path, false)?;
        if (bytes, &sha256) != (kept.bytes, &kept.sha256) {
            return Err(Error::new(format!(
                "{} is not as it was written: its checksum differs",
                path.display()
            )));
        }
    }
    Ok(())
}

/// A backup's files as they were written, for as long as this lives.
pub struct Opened {
    data: PathBuf,
    _aside: Option<Aside>,
}

/// A directory with what was decrypted, and the lock that says that somebody needs it.
struct Aside {
    dir: PathBuf,
    home: Home,
    name: String,
    lock: Option<Lock>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
        if let Some(lock) = self.lock.take() {
            self.home.release(lock, &self.name);
        }
    }
}

impl Opened {
    /// Checks a backup, and decrypts it into a directory beside it where it is encrypted.
    ///
    /// # Errors
    /// It was changed, or it cannot be decrypted.
    pub fn open(home: &Home, backup: &Backup, taken: &Taken) -> Result<Self> {
        intact(taken)?;
        let data = taken.path.join("data");
        if !taken.encrypted {
            return Ok(Self { data, _aside: None });
        }
        let identity = backup.encrypt.as_ref().and_then(|encrypt| encrypt.identity.as_ref());
        let identity = identity.ok_or_else(|| {
            Error::new(format!("{} is encrypted", taken.path.display()))
                .hint("say which key decrypts it: x-task.backup.encrypt.identity, or --identity FILE")
        })?;
        age::there()?;
        let run = new_id()?;
        let name = run_lock(&run);
        let lock = Some(home.lock(&name)?);
        let dir = taken.path.with_file_name(format!("{PART}{run}-open"));
        private_dir(&dir)?;
        let own =
            Self { data: dir.join("data"), _aside: Some(Aside { dir, home: home.clone(), name, lock }) };
        private_dir(&own.data)?;
        for kept in &taken.files {
            let to = own.data.join(kept.name.strip_suffix(".age").unwrap_or(&kept.name));
            if let Some(dir) = to.parent() {
                private_dir(dir)?;
            }
            age::decrypt(identity, &data.join(&kept.name), &to)?;
        }
        // Only what is above keeps others out: the container's user may be anyone.
        readable(&own.data)?;
        Ok(own)
    }
    /// The directory that has the files.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// Lets everyone read what is below a directory of ours.
fn readable(path: &Path) -> Result<()> {
    let kind = std::fs::symlink_metadata(path).context(|| format!("look at {}", path.display()))?;
    let mode = if kind.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .context(|| format!("change {}", path.display()))?;
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).context(|| format!("read directory {}", path.display()))? {
            readable(&entry.context(|| format!("read directory {}", path.display()))?.path())?;
        }
    }
    Ok(())
}

/// The files below a directory that a container wrote, by name.
fn files(data: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut open = vec![(data.to_owned(), String::new(), 0)];
    while let Some((dir, prefix, depth)) = open.pop() {
        for entry in std::fs::read_dir(&dir).context(|| format!("read directory {}", dir.display()))? {
            let entry = entry.context(|| format!("read directory {}", dir.display()))?;
            let shown = entry.path();
            let kind = entry.file_type().context(|| format!("look at {}", shown.display()))?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| Error::new(format!("{}: the name is not UTF-8", shown.display())))?;
            let name = format!("{prefix}{name}");
            if kind.is_dir() && depth < DEPTH {
                open.push((shown, format!("{name}/"), depth + 1));
            } else if kind.is_file() && names.len() < MOST_FILES {
                names.push(name);
            } else if kind.is_file() || kind.is_dir() {
                return Err(Error::new(format!(
                    "more than {MOST_FILES} files, or {DEPTH} directories in one another: pack them into one"
                )));
            } else {
                return Err(Error::new(format!("{name} is neither a file nor a directory")));
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Size and checksum of a file, which is synced on the way where it is new.
fn sum(path: &Path, sync: bool) -> Result<(u64, String)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(std::io::Error::from)
        .context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).context(|| format!("read {}", path.display()))?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        hash.update(&buffer[..count]);
    }
    if sync {
        file.sync_all().context(|| format!("sync {}", path.display()))?;
    }
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn sync_dir(dir: &Path) -> Result<()> {
    crate::home::sync(dir).context(|| format!("sync {}", dir.display()))
}

fn private_dir(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.context(|| format!("create directory {}", path.display()))
}
