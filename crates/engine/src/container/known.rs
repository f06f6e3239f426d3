//! The containers that run, as a process that lives long knows them: each is read once, and again after something of its
//! own has changed.
//!
//! The kernel tells what changed: inotify, for the directories of a container and of its network, a pidfd for its monitor.
//! Both are looked at before anything is answered, and the kernel queues an event before the call that caused it returns:
//! an answer is never older than its question. A directory is watched before what is in it is read. What cannot be
//! watched (the limits of inotify or of descriptors) is read each time.

use model::error::Context as _;
use model::{ContainerId, Result};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::inspect::NetworkView;
use super::lookup::{Container, ids_in};
use crate::Engine;

/// A container in a list.
#[derive(Debug)]
pub struct Listed {
    /// As it is.
    pub container: Container,
    /// Its network as it is.
    pub view: NetworkView,
    /// What a caller wrote of it, without what time alone changes; it lasts as long as it is true.
    pub written: OnceLock<Box<[u8]>>,
}

/// Directories and monitors that are watched, and what was read.
pub(crate) struct Known {
    inotify: OwnedFd,
    epoll: OwnedFd,
    watched: HashMap<i32, Dir>,
    monitors: HashMap<u64, ContainerId>,
    /// The last token given to a monitor.
    last: u64,
    /// `None` where it does not run.
    read: HashMap<ContainerId, Option<Arc<Listed>>>,
    pidfds: HashMap<ContainerId, (u64, OwnedFd)>,
    /// Those that run, newest first; absent while something must be read.
    list: Option<Arc<[Arc<Listed>]>>,
}

/// What a watched directory is.
enum Dir {
    /// The one that has a directory for each container that may run.
    Runs,
    /// A container's own.
    Own(ContainerId),
    /// Its run directory.
    Run(ContainerId),
    /// Its endpoints.
    Endpoints(ContainerId),
}

impl Dir {
    /// The container that a change of this file is about, where it is about what lists show.
    fn changed(&self, name: &[u8]) -> Option<&ContainerId> {
        match self {
            Self::Own(id) => {
                [&b"spec.json"[..], b"state.json", b"changes.json"].contains(&name).then_some(id)
            }
            Self::Run(id) => (name == b"live.json").then_some(id),
            Self::Endpoints(id) => name.ends_with(b".json").then_some(id),
            Self::Runs => None,
        }
    }
}

/// The token of the inotify instance.
const CHANGES: u64 = 0;
/// How many ends of monitors are taken at once.
const ENDS: usize = 64;

impl Known {
    /// Nothing, yet.
    pub(crate) fn new(runs: &Path) -> Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .map_err(std::io::Error::from)
            .context(|| "watch for changes (fs.inotify.max_user_instances)")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .and_then(|epoll| {
                epoll::add(&epoll, &inotify, EventData::new_u64(CHANGES), EventFlags::IN).map(|()| epoll)
            })
            .map_err(std::io::Error::from)
            .context(|| "make an epoll instance")?;
        let mut known = Self {
            inotify,
            epoll,
            watched: HashMap::new(),
            monitors: HashMap::new(),
            last: CHANGES,
            read: HashMap::new(),
            pidfds: HashMap::new(),
            list: None,
        };
        sys::fs::private_dir(runs).context(|| format!("create {}", runs.display()))?;
        known
            .watch(runs, Dir::Runs)
            .map_err(std::io::Error::from)
            .context(|| format!("watch {}", runs.display()))?;
        Ok(known)
    }
    fn watch(&mut self, dir: &Path, what: Dir) -> rustix::io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        let watch = inotify::add_watch(&self.inotify, dir, flags)?;
        self.watched.insert(watch, what);
        Ok(())
    }
    /// The containers that run, newest first.
    pub(crate) fn running(&mut self, engine: &Engine) -> Result<Arc<[Arc<Listed>]>> {
        self.take_news()?;
        if let Some(list) = &self.list {
            return Ok(Arc::clone(list));
        }
        let ids: HashSet<ContainerId> = ids_in(&engine.store.layout.runs())?.into_iter().collect();
        self.read.retain(|id, _| ids.contains(id));
        let mut list = Vec::with_capacity(ids.len());
        let mut complete = true;
        for id in ids {
            let listed = match self.read.get(&id) {
                Some(listed) => listed.clone(),
                None => {
                    let watched = self.watch_container(engine, &id);
                    let listed = engine.read_listed(&id)?.map(Arc::new);
                    let sure = watched.is_ok_and(|endpoints| {
                        endpoints || listed.as_ref().is_none_or(|listed| !listed.container.has_endpoints())
                    });
                    if sure && self.watch_monitor(listed.as_deref(), &id) {
                        self.read.insert(id, listed.clone());
                    } else {
                        complete = false;
                    }
                    listed
                }
            };
            list.extend(listed);
        }
        let gone: Vec<ContainerId> =
            self.pidfds.keys().filter(|id| self.read.get(*id).is_none_or(Option::is_none)).cloned().collect();
        gone.iter().for_each(|id| self.forget_monitor(id));
        list.sort_by_key(|listed| std::cmp::Reverse(listed.container.spec.created));
        let list: Arc<[Arc<Listed>]> = list.into();
        self.list = complete.then(|| Arc::clone(&list));
        Ok(list)
    }
    /// Forgets what has changed.
    fn take_news(&mut self) -> Result<()> {
        loop {
            let mut events = Vec::with_capacity(ENDS);
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error)).context(|| "look for changes"),
            }
            if events.is_empty() {
                return Ok(());
            }
            for event in events {
                let token = event.data.u64();
                if token == CHANGES {
                    self.take_changes()?;
                } else if let Some(id) = self.monitors.remove(&token) {
                    self.forget(&id);
                    self.forget_monitor(&id);
                }
            }
        }
    }
    fn take_changes(&mut self) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut changed = Vec::new();
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(std::io::Error::from(error)).context(|| "read changes"),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.read.clear();
                self.list = None;
            } else if event.events().contains(ReadFlags::IGNORED) {
                // The directory is gone, and with it what was known of it.
                match self.watched.remove(&event.wd()) {
                    Some(Dir::Own(id) | Dir::Run(id) | Dir::Endpoints(id)) => changed.push(id),
                    Some(Dir::Runs) | None => self.list = None,
                }
            } else {
                let name = event.file_name().map_or(&b""[..], std::ffi::CStr::to_bytes);
                match self.watched.get(&event.wd()) {
                    Some(Dir::Runs) => self.list = None,
                    Some(dir) => changed.extend(dir.changed(name).cloned()),
                    None => {}
                }
            }
        }
        changed.iter().for_each(|id| self.forget(id));
        Ok(())
    }
    fn forget(&mut self, id: &ContainerId) {
        self.read.remove(id);
        self.list = None;
    }
    fn forget_monitor(&mut self, id: &ContainerId) {
        if let Some((token, _)) = self.pidfds.remove(id) {
            self.monitors.remove(&token);
        }
    }
    /// Whether there are endpoints to watch.
    fn watch_container(&mut self, engine: &Engine, id: &ContainerId) -> rustix::io::Result<bool> {
        self.watch(&engine.store.layout.container(id), Dir::Own(id.clone()))?;
        self.watch(&engine.store.layout.run(id), Dir::Run(id.clone()))?;
        match self.watch(&engine.networks.endpoint_dir(id), Dir::Endpoints(id.clone())) {
            Err(Errno::NOENT) => Ok(false),
            result => result.map(|()| true),
        }
    }
    /// Whether the end of its monitor will be told, where it has one.
    fn watch_monitor(&mut self, listed: Option<&Listed>, id: &ContainerId) -> bool {
        self.forget_monitor(id);
        let Some(live) = listed.and_then(|listed| listed.container.live.as_ref()) else { return true };
        let Ok(pidfd) = sys::process::pidfd(live.monitor_pid) else { return false };
        let token = self.last + 1;
        // The same process still: the descriptor is its.
        let watched = sys::process::start_time(live.monitor_pid)
            .is_ok_and(|(time, alive)| alive && time == live.monitor_start_time)
            && epoll::add(&self.epoll, &pidfd, EventData::new_u64(token), EventFlags::IN).is_ok();
        if watched {
            self.last = token;
            self.monitors.insert(token, id.clone());
            self.pidfds.insert(id.clone(), (token, pidfd));
        }
        watched
    }
}

impl Engine {
    /// From now on the containers that run are kept in memory: for a process that is asked often.
    ///
    /// # Errors
    /// The user's inotify instances are exhausted.
    pub fn keep_known(&self) -> Result<()> {
        let known = Known::new(&self.store.layout.runs())?;
        *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(known);
        Ok(())
    }
    /// The containers that run, where they are kept in memory.
    pub(super) fn known(&self) -> Option<Result<Arc<[Arc<Listed>]>>> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.as_mut().map(|known| known.running(self))
    }
    /// A container that runs, with its network; one that ended unseen is brought to a proper end.
    fn read_listed(&self, id: &ContainerId) -> Result<Option<Listed>> {
        match self.load(id) {
            Ok(container) if container.live.is_some() => self.listed(container).map(Some),
            Ok(container) if container.ended_unseen() => self.recover(container).map(|_| None),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == model::Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
    pub(super) fn listed(&self, container: Container) -> Result<Listed> {
        let view = self.network_view(&container)?;
        Ok(Listed { container, view, written: OnceLock::new() })
    }
}
