//! Finding containers: by name, id or unambiguous prefix of one; loading what is known of them; the lock.

use model::container::{ContainerSpec, EndpointSpec, Lifecycle, Link, NetworkMode, Resources};
use model::error::Context as _;
use model::state::{Live, State, Status};
use model::{ContainerId, Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Engine;

/// What was changed after a container was made; `changes.json`. What is absent is as the specification says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// The name, without the slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The restart policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Links on the default bridge, after `rm --link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
    /// Networks, after `network connect` and `disconnect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<EndpointSpec>>,
}

/// A container as it is now.
#[derive(Clone, Debug)]
pub struct Container {
    /// As it was asked for.
    pub spec: Arc<ContainerSpec>,
    /// What was changed since.
    pub changes: Changes,
    /// What became of it.
    pub state: State,
    /// Its live part, verified: present while its monitor runs it.
    pub live: Option<Live>,
    /// `containers/<id>`.
    pub dir: PathBuf,
    /// Its run directory.
    pub run_dir: PathBuf,
}

impl Container {
    /// Its identifier.
    pub fn id(&self) -> &ContainerId {
        &self.spec.id
    }
    /// Its name now, without the slash.
    pub fn name(&self) -> &str {
        self.changes.name.as_deref().unwrap_or(&self.spec.name)
    }
    /// Its status.
    pub fn status(&self) -> Status {
        Status::of(&self.state, self.live.as_ref())
    }
    /// Whether its process lives, frozen or not.
    pub fn is_running(&self) -> bool {
        matches!(self.status(), Status::Running | Status::Paused)
    }
    /// The live part of a container that runs.
    ///
    /// # Errors
    /// Docker's text for one that does not.
    pub fn running(&self) -> Result<&Live> {
        match &self.live {
            Some(live) if live.restarting => Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                self.id()
            ))),
            Some(live) => Ok(live),
            None => Err(Error::conflict(format!("container {} is not running", self.id()))),
        }
    }
    /// The limits in force.
    pub fn resources(&self) -> &Resources {
        self.changes.resources.as_ref().unwrap_or(&self.spec.resources)
    }
    /// What happens after it has exited.
    pub fn lifecycle(&self) -> &Lifecycle {
        self.changes.lifecycle.as_ref().unwrap_or(&self.spec.lifecycle)
    }
    /// The networks that it is (or will be) attached to.
    pub fn endpoint_specs(&self) -> &[EndpointSpec] {
        match (&self.changes.endpoints, &self.spec.network) {
            (Some(changed), _) => changed,
            (None, NetworkMode::Attached(attachment)) => &attachment.endpoints,
            (None, _) => &[],
        }
    }
    /// Whether it may be on networks of its own.
    pub(crate) fn has_endpoints(&self) -> bool {
        matches!(self.spec.network, NetworkMode::Attached(_))
    }
    /// Its links on the default bridge.
    pub fn links(&self) -> &[Link] {
        match (&self.changes.links, &self.spec.network) {
            (Some(changed), _) => changed,
            (None, NetworkMode::Attached(attachment)) => &attachment.links,
            (None, _) => &[],
        }
    }
    /// Its cgroup, below each hierarchy's root.
    pub fn cgroup(&self) -> String {
        cgroup_of(&self.spec)
    }
    /// Its log file.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}-json.log", self.id()))
    }
    /// Where its overlay's upper and work directories are.
    pub fn rw_dir(&self) -> PathBuf {
        self.dir.join("rw")
    }
    /// It ended without anybody writing down how: the monitor was killed, or the machine went down.
    pub(crate) fn ended_unseen(&self) -> bool {
        self.live.is_none()
            && !self.state.started_at.is_never()
            && self.state.finished_at < self.state.started_at
    }
}

/// The control group of a container, below each hierarchy's root.
pub(crate) fn cgroup_of(spec: &ContainerSpec) -> String {
    let parent = spec.resources.cgroup_parent.as_deref().unwrap_or("").trim_matches('/');
    let parent = if parent.is_empty() { "cauldron" } else { parent };
    format!("{parent}/{}", spec.id)
}

/// The exclusive lock of one container, held until it is dropped.
#[derive(Debug)]
pub struct ContainerLock {
    #[allow(dead_code, reason = "held, not read")]
    dir: OwnedFd,
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("No such container: {name}"))
}

/// From so many containers on, two threads read them.
const MANY: usize = 24;

impl Engine {
    /// Finds a container: by full id, by name (with or without a slash before it), by an unambiguous prefix of its id.
    /// One that ended unseen is first brought to a proper end.
    ///
    /// # Errors
    /// `No such container: x`, or an ambiguous prefix.
    pub fn find(&self, name: &str) -> Result<Container> {
        let container = self.load(&self.container_id(name)?).map_err(|error| match error.kind() {
            model::Kind::NotFound => no_such(name),
            _ => error,
        })?;
        if container.ended_unseen() { self.recover(container) } else { Ok(container) }
    }
    /// Finds a container and takes its lock; what is returned was read under it.
    ///
    /// # Errors
    /// Those of [`Engine::find`].
    pub fn find_locked(&self, name: &str) -> Result<(Container, ContainerLock)> {
        let id = self.container_id(name)?;
        let lock = self.lock_container(&id)?.ok_or_else(|| no_such(name))?;
        let mut container = self.load(&id).map_err(|error| match error.kind() {
            model::Kind::NotFound => no_such(name),
            _ => error,
        })?;
        if container.ended_unseen() {
            self.end_unseen(&mut container)?;
        }
        Ok((container, lock))
    }
    /// The id that a name, id or prefix means.
    ///
    /// # Errors
    /// Those of [`Engine::find`].
    pub fn container_id(&self, name: &str) -> Result<ContainerId> {
        if name.is_empty() {
            return Err(Error::invalid("Container name cannot be empty"));
        }
        if let Ok(id) = ContainerId::parse(name)
            && has_spec(&self.store.layout.container(&id))
        {
            return Ok(id);
        }
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Some(id) = self.name_owner(bare)? {
            return Ok(id);
        }
        if bare.len() >= 64 || !bare.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(no_such(name));
        }
        let mut found = self.container_ids()?.into_iter().filter(|id| id.as_str().starts_with(bare));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(no_such(name)),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("multiple IDs found with provided prefix: {name}")))
            }
        }
    }
    /// All ids, in no order.
    pub(crate) fn container_ids(&self) -> Result<Vec<ContainerId>> {
        ids_in(&self.store.layout.containers())
    }
    /// All containers, newest first. Those that ended unseen are brought to a proper end.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        self.load_all(&self.container_ids()?)
    }
    /// As [`Engine::containers`], but only those that may live: they have a run directory.
    ///
    /// # Errors
    /// A record cannot be read.
    pub(crate) fn live_containers(&self) -> Result<Vec<Container>> {
        self.load_all(&ids_in(&self.store.layout.runs())?)
    }
    fn load_all(&self, ids: &[ContainerId]) -> Result<Vec<Container>> {
        // Reading is system calls and parsing: with many containers a second processor halves it.
        let (mine, theirs) = ids.split_at(if ids.len() < MANY { ids.len() } else { ids.len() / 2 });
        let mut all = std::thread::scope(|scope| {
            let other = (!theirs.is_empty()).then(|| scope.spawn(|| self.load_each(theirs)));
            let mut all = self.load_each(mine)?;
            if let Some(other) = other {
                let rest = other.join().map_err(|_| model::Error::internal("reading containers panicked"))?;
                all.extend(rest?);
            }
            Ok::<_, model::Error>(all)
        })?;
        all.sort_by_key(|container: &Container| std::cmp::Reverse(container.spec.created));
        Ok(all)
    }
    fn load_each(&self, ids: &[ContainerId]) -> Result<Vec<Container>> {
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            match self.load(id) {
                Ok(container) if container.ended_unseen() => all.push(self.recover(container)?),
                Ok(container) => all.push(container),
                // It is being made, or was removed meanwhile.
                Err(error) if error.kind() == model::Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
    /// What is known of a container, as it is.
    ///
    /// # Errors
    /// It does not exist ([`model::Kind::NotFound`]), or a record cannot be read.
    pub fn load(&self, id: &ContainerId) -> Result<Container> {
        let dir = self.store.layout.container(id);
        let run_dir = self.store.layout.run(id);
        let spec = self.specs.get(id, &dir.join("spec.json"))?.ok_or_else(|| no_such(id.as_str()))?;
        let changes = read_json(&dir.join("changes.json"))?.unwrap_or_default();
        // The live part first: a container that exits in between then shows as exited, never as one that ended unseen.
        let mut live = runtime::live(&run_dir)?;
        // A damaged one (a machine that went down while its disk was full, say) must not keep a container from being ended
        // and removed, nor the others from being listed. The doctor finds it.
        let state: State = read_json(&dir.join("state.json")).ok().flatten().unwrap_or_default();
        if live.is_none() && state.finished_at < state.started_at {
            live = runtime::live(&run_dir)?;
        }
        Ok(Container { spec, changes, state, live, dir, run_dir })
    }
    /// Takes a container's lock; `None` where it does not exist (any more).
    pub(crate) fn lock_container(&self, id: &ContainerId) -> Result<Option<ContainerLock>> {
        self.flock(id, FlockOperation::LockExclusive)
    }
    /// Takes it if nobody has it; `None` also where somebody has.
    pub(crate) fn try_lock_container(&self, id: &ContainerId) -> Result<Option<ContainerLock>> {
        self.flock(id, FlockOperation::NonBlockingLockExclusive)
    }
    fn flock(&self, id: &ContainerId, operation: FlockOperation) -> Result<Option<ContainerLock>> {
        let path = self.store.layout.container(id);
        let what = || format!("lock container {id}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(std::io::Error::from(error)).context(what),
        };
        match sys::lock::wait(&dir, operation) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            other => other.context(what)?,
        }
        let held = rustix::fs::fstat(&dir).map_err(std::io::Error::from).context(what)?;
        match rustix::fs::stat(&path) {
            Ok(now) if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino) => {
                Ok(Some(ContainerLock { dir }))
            }
            _ => Ok(None),
        }
    }
    pub(crate) fn write_changes(&self, container: &Container) -> Result<()> {
        write_json(&container.dir.join("changes.json"), &container.changes, true)
    }
    pub(crate) fn write_state(&self, container: &Container) -> Result<()> {
        let path = container.dir.join("state.json");
        let what = || format!("write {}", path.display());
        let bytes =
            serde_json::to_vec(&container.state).map_err(|error| Error::internal(what()).caused_by(error))?;
        // On a full disk too: what fills it must be possible to end.
        sys::fs::update_file(&path, &bytes, 0o600, true).context(what)
    }
}

/// The containers' identifiers among a directory's entries.
pub(super) fn ids_in(dir: &Path) -> Result<Vec<ContainerId>> {
    let what = || format!("read directory {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(what)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.context(what)?;
        ids.extend(entry.file_name().to_str().and_then(|name| ContainerId::parse(name).ok()));
    }
    Ok(ids)
}

/// Specifications that were read: `spec.json` never changes after it is there, so that one is read once by a process and from
/// then on only looked for.
#[derive(Debug, Default)]
pub(crate) struct Specs(Mutex<HashMap<ContainerId, Arc<ContainerSpec>>>);

/// So many are kept.
const SPECS: usize = 4096;

impl Specs {
    fn get(&self, id: &ContainerId, path: &Path) -> Result<Option<Arc<ContainerSpec>>> {
        let known = self.locked().get(id).cloned();
        if known.is_some() && path.exists() {
            return Ok(known);
        }
        let read = read_json(path)?.map(Arc::new);
        let mut all = self.locked();
        match &read {
            None => drop(all.remove(id)),
            Some(spec) => {
                if all.len() >= SPECS {
                    all.clear();
                }
                all.insert(id.clone(), Arc::clone(spec));
            }
        }
        Ok(read)
    }
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Arc<ContainerSpec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a container's directory has a specification: without one it is no container yet. An empty one is what a loss of
/// power left of a container that nobody was told of.
pub(crate) fn has_spec(dir: &Path) -> bool {
    std::fs::metadata(dir.join("spec.json")).is_ok_and(|spec| spec.len() > 0)
}

/// Reads a record of ours; `None` where it is missing, or empty: what a loss of power leaves of one that nobody waited for.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match sys::fs::read_file(path) {
        Ok(bytes) => bytes,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).context(|| format!("read {}", path.display())),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::internal(format!("read {}", path.display())).caused_by(error))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, sync: bool) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::internal(format!("write {}", path.display())).caused_by(error))?;
    sys::fs::replace_file(path, &bytes, 0o600, sync).context(|| format!("write {}", path.display()))
}
