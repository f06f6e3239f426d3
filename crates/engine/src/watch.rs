//! Waiting for files to change: an inotify descriptor that a caller polls, synchronously or through its event loop.
//! It says only *that* something changed; what changed is read from the files themselves.

use model::Result;
use model::error::Context as _;
use rustix::fs::inotify;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Directories that are watched for files that are written, made or moved in them.
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The user's inotify instances are exhausted (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .map_err(std::io::Error::from)
            .context(|| "watch for changes (fs.inotify.max_user_instances)")?;
        Ok(Self { inotify })
    }
    /// Adds a directory. One that does not exist is not watched: false.
    ///
    /// # Errors
    /// The watch cannot be added.
    pub fn add(&self, dir: &Path) -> Result<bool> {
        use inotify::WatchFlags as Flags;
        let flags = Flags::MODIFY
            | Flags::CREATE
            | Flags::MOVED_TO
            | Flags::DELETE
            | Flags::DELETE_SELF
            | Flags::ONLYDIR;
        match inotify::add_watch(&self.inotify, dir, flags) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(std::io::Error::from(error)).context(|| format!("watch {}", dir.display())),
        }
    }
    /// Forgets what was reported so far, so that the descriptor is readable again only after another change.
    pub fn clear(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while reader.next().is_ok() {}
    }
    /// Waits for a change; false when the time is over.
    ///
    /// # Errors
    /// The wait itself failed.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let timeout = timeout.map(|time| rustix::time::Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut fds = [rustix::event::PollFd::new(&self.inotify, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(std::io::Error::from(error)).context(|| "wait for a change"),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
