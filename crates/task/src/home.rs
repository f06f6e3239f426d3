//! Where tasks are kept: `<root>/tasks/`, readable by its owner alone.
//!
//! ```text
//! history.db                 runs, tries, schedules' states (SQLite, write-ahead log)
//! definitions/<name>.json    tasks made on the command line
//! projects/<name>.json       compose projects whose schedules run
//! commands/<name>.json       tasks that are installed as commands
//! deliveries/<project>.json  which secrets and configs a project's containers were given, as digests: written by `up`
//! locks/<what>               flock: a task that runs, a run that lives, a lock that tasks share, a helper's volume
//! ```

use crate::error::{Context as _, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// The directory.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
}

/// A lock that is held while this lives, also through `kill -9`.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] OwnedFd);

impl Home {
    /// Below an engine's durable root. Directories are made when they are first needed.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        let home = Self { dir: root.join("tasks") };
        for dir in ["", "definitions", "projects", "commands", "locks"] {
            private_dir(&home.dir.join(dir))?;
        }
        Ok(home)
    }
    /// The history.
    pub fn history(&self) -> PathBuf {
        self.dir.join("history.db")
    }
    /// Where tasks of the command line are.
    pub fn definitions(&self) -> PathBuf {
        self.dir.join("definitions")
    }
    /// Where installed commands are.
    pub fn commands(&self) -> PathBuf {
        self.dir.join("commands")
    }
    /// Where projects are.
    pub fn projects(&self) -> PathBuf {
        self.dir.join("projects")
    }
    /// Gives up the lock of something that never comes again, and its file with it. Other lock files stay: whoever waits
    /// for one would hold another.
    pub fn release(&self, lock: Lock, what: &str) {
        // Unlinked while it is held: who opened it meanwhile finds it free, and the thing over.
        let _ = std::fs::remove_file(self.lock_path(what));
        drop(lock);
    }
    fn lock_path(&self, what: &str) -> PathBuf {
        let name: String = what
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        self.dir.join("locks").join(name)
    }
    fn lock_file(&self, what: &str) -> Result<OwnedFd> {
        let path = self.lock_path(what);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(std::io::Error::from)
            .context(|| format!("open lock {}", path.display()))
    }
    /// Takes a lock if it is free.
    ///
    /// # Errors
    /// Its file cannot be opened.
    pub fn try_lock(&self, what: &str) -> Result<Option<Lock>> {
        let file = self.lock_file(what)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(std::io::Error::from(error)).context(|| format!("lock {what}")),
        }
    }
    /// Waits for a lock; blocks the thread.
    ///
    /// # Errors
    /// Its file cannot be opened.
    pub fn lock(&self, what: &str) -> Result<Lock> {
        let file = self.lock_file(what)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error)).context(|| format!("lock {what}")),
            }
        }
    }
    /// As [`Home::lock`], off the event loop.
    ///
    /// # Errors
    /// As [`Home::lock`].
    pub async fn wait_lock(&self, what: &str) -> Result<Lock> {
        if let Some(lock) = self.try_lock(what)? {
            return Ok(lock);
        }
        let (home, what) = (self.clone(), what.to_owned());
        tokio::task::spawn_blocking(move || home.lock(&what))
            .await
            .map_err(|error| crate::Error::new(format!("wait for a lock: {error}")))?
    }
    /// As [`Home::wait_lock`], until `stop` becomes true: then `None`.
    ///
    /// # Errors
    /// As [`Home::lock`].
    pub async fn wait_lock_unless(&self, what: &str, stop: &watch::Receiver<bool>) -> Result<Option<Lock>> {
        let mut stop = stop.clone();
        tokio::select! {
            biased;
            // True, or nobody is left who could say so.
            _ = stop.wait_for(|stop| *stop) => Ok(None),
            lock = self.wait_lock(what) => lock.map(Some),
        }
    }
}

fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("create directory {}", path.display()))
}

/// Replaces a file by one that only its owner may read: written aside, synced, renamed.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), sync)
    })();
    written.context(|| format!("write {}", path.display()))
}

/// Waits until the names in a directory are on the disk.
pub(crate) fn sync(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_lock_ends_with_the_stop() {
        let dir = std::env::temp_dir().join(format!("cauldron-home-lock-{}", std::process::id()));
        let home = Home::open(&dir).unwrap();
        let held = home.try_lock("shared-disk").unwrap().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (tell, stop) = watch::channel(false);
        let waited = runtime.block_on(async {
            let told = async { tell.send(true).unwrap() };
            tokio::join!(home.wait_lock_unless("shared-disk", &stop), told).0
        });
        assert!(waited.unwrap().is_none());
        drop(held);
        runtime.shutdown_background();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
