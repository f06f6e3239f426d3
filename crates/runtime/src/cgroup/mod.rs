//! A container's control groups: one directory of the same path in each hierarchy (v1, hybrid or v2).
//!
//! Made by the monitor while init mounts. Nobody is moved in by writing a pid into `cgroup.procs` (up to 16 ms): init is
//! born in the v2 group (`CLONE_INTO_CGROUP`) and writes `0` into each v1 `tasks` itself.

mod limits;
mod usage;

use model::bundle::DeviceRule;
use model::container::Resources;
use model::error::Context as _;
use model::{Error, Kind, Result};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use sys::cgroup::{Hierarchy, write};

pub use usage::usage;

/// The directories of one container.
pub struct Cgroup {
    groups: Vec<(Hierarchy, PathBuf)>,
}

impl Cgroup {
    /// Finds out where they are; makes nothing.
    ///
    /// # Errors
    /// /proc cannot be read; a path that would leave the hierarchy.
    pub fn at(path: &str) -> Result<Self> {
        let relative = Path::new(path.trim_start_matches('/'));
        let plain = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return Err(Error::invalid(format!("cgroup path {path:?}")));
        }
        let found = sys::cgroup::hierarchies().context(|| "read /proc/self/cgroup")?;
        Ok(Self {
            groups: found
                .into_iter()
                .map(|hierarchy| (hierarchy.clone(), hierarchy.mount.join(relative)))
                .collect(),
        })
    }
    /// All hierarchies with this container's directory.
    pub fn groups(&self) -> &[(Hierarchy, PathBuf)] {
        &self.groups
    }
    /// The directory where a controller is, and whether that is v2.
    pub fn dir(&self, controller: &str) -> Option<(&Path, bool)> {
        self.groups
            .iter()
            .find(|(hierarchy, _)| hierarchy.controllers.iter().any(|name| name == controller))
            .or_else(|| self.groups.iter().find(|(hierarchy, _)| hierarchy.unified))
            .map(|(hierarchy, dir)| (dir.as_path(), hierarchy.unified))
    }
    /// Makes the v2 directory, if there is a v2 hierarchy, for a child to be born in.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create_unified(&self) -> Result<Option<OwnedFd>> {
        let Some((hierarchy, dir)) = self.groups.iter().find(|(hierarchy, _)| hierarchy.unified) else {
            return Ok(None);
        };
        enable_controllers(&hierarchy.mount, dir);
        make(dir)?;
        Ok(Some(sys::fs::open_root(dir).context(|| format!("open {}", dir.display()))?))
    }
    /// The v2 directory, if there is a v2 hierarchy.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn unified(&self) -> Result<Option<OwnedFd>> {
        let group = self.groups.iter().find(|(hierarchy, _)| hierarchy.unified);
        let open = |(_, dir): &(Hierarchy, PathBuf)| {
            sys::fs::open_root(dir).context(|| format!("open {}", dir.display()))
        };
        group.map(open).transpose()
    }
    /// The v2 directory that a process is in now, which must be below this container's.
    ///
    /// # Errors
    /// It is elsewhere, or cannot be opened.
    pub fn unified_of(&self, pid: i32) -> Result<Option<OwnedFd>> {
        let Some((hierarchy, dir)) = self.groups.iter().find(|(hierarchy, _)| hierarchy.unified) else {
            return Ok(None);
        };
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).context(|| format!("read {file}"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let now = hierarchy.mount.join(path);
        let inside = now.strip_prefix(dir).is_ok_and(|below| {
            below.components().all(|part| matches!(part, std::path::Component::Normal(_)))
        });
        if !inside {
            return Err(Error::conflict(format!("cgroup {} is not below {}", now.display(), dir.display())));
        }
        sys::fs::open_root(&now).map(Some).context(|| format!("open {}", now.display()))
    }
    /// Makes the v1 directories and sets all limits.
    ///
    /// # Errors
    /// Names the file that refused, and the value.
    pub fn create(&self, resources: &Resources, rules: &[DeviceRule]) -> Result<()> {
        for (hierarchy, dir) in self.groups.iter().filter(|(hierarchy, _)| !hierarchy.unified) {
            make(dir)?;
            if hierarchy.controllers.iter().any(|name| name == "cpuset") {
                fill_cpuset(&hierarchy.mount, dir);
            }
        }
        self.set_limits(resources)?;
        self.set_devices(rules)
    }
    /// Lets this process and its children into the v1 groups.
    ///
    /// # Errors
    /// Names the file.
    pub fn join(&self) -> Result<()> {
        for (_, dir) in self.groups.iter().filter(|(hierarchy, _)| !hierarchy.unified) {
            let tasks = dir.join("tasks");
            write(&tasks, "0").context(|| format!("join cgroup {}", tasks.display()))?;
        }
        Ok(())
    }
    fn set_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        let dir = match self.dir("devices") {
            None => return Ok(()),
            Some((dir, true)) => return restrict_devices(dir, rules),
            Some((dir, false)) => dir,
        };
        for rule in rules {
            let file = dir.join(if rule.allow { "devices.allow" } else { "devices.deny" });
            let number =
                |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
            let whole = rule.kind == 'a' && rule.major.is_none() && rule.minor.is_none();
            let text = match whole {
                true => "a".to_owned(),
                false => {
                    format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access)
                }
            };
            write(&file, &text).context(|| format!("write {text:?} to {}", file.display()))?;
        }
        Ok(())
    }
    /// Process ids of everything inside.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where the group is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let (dir, _) =
            self.dir("pids").ok_or_else(|| Error::new(Kind::NotFound, "no cgroup hierarchy is mounted"))?;
        let file = dir.join("cgroup.procs");
        let text = std::fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }
    /// Kills what is left inside. The pids are looked up and signalled through pidfds after checking again that they are inside.
    pub fn kill(&self) {
        if let Some((_, dir)) = self.groups.iter().find(|(hierarchy, _)| hierarchy.unified)
            && write(&dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for _ in 0..16 {
            let Ok(pids) = self.pids() else { return };
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                let Ok(pidfd) = sys::process::pidfd(pid) else { continue };
                if self.pids().is_ok_and(|again| again.contains(&pid)) {
                    let _ = sys::process::signal(&pidfd, 9);
                }
            }
        }
    }
    /// How often the kernel's out-of-memory killer struck inside.
    pub fn oom_kills(&self) -> u64 {
        let Some((dir, unified)) = self.dir("memory") else { return 0 };
        let file = if unified { "memory.events" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }
    /// A descriptor that tells when the out-of-memory killer is called in: an eventfd on v1; on v2 (true) `memory.events`,
    /// which is always readable and has news with `POLLPRI`. `None` where there is no memory controller.
    ///
    /// # Errors
    /// Those of `eventfd(2)`, and of the controller's files.
    pub fn watch_oom(&self) -> std::io::Result<Option<(OwnedFd, bool)>> {
        let Some((dir, unified)) = self.dir("memory") else { return Ok(None) };
        if unified {
            return Ok(Some((std::fs::File::open(dir.join("memory.events"))?.into(), true)));
        }
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let told = rustix::event::eventfd(0, flags)?;
        let control = std::fs::File::open(dir.join("memory.oom_control"))?;
        let line = format!("{} {}", told.as_raw_fd(), control.as_raw_fd());
        write(&dir.join("cgroup.event_control"), &line)?;
        Ok(Some((told, false)))
    }
    /// Freezes or thaws everything inside and waits until it is so.
    ///
    /// # Errors
    /// Names the file.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let (dir, unified) = self
            .dir("freezer")
            .ok_or_else(|| Error::new(Kind::NotFound, "no cgroup hierarchy is mounted"))?;
        let (file, value) = match (unified, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let file = dir.join(file);
        write(&file, value).context(|| format!("write {value:?} to {}", file.display()))?;
        for _ in 0..1000 {
            let done = match unified {
                true => std::fs::read_to_string(dir.join("cgroup.events"))
                    .is_ok_and(|text| text.contains(&format!("frozen {value}"))),
                false => std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == value),
            };
            if done {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err(Error::new(Kind::Unavailable, format!("{} does not become {value}", file.display())))
    }
    /// Removes the directories (and what the container made below them). What is busy is tried again for a while: a
    /// killed process leaves its group a moment after its death.
    ///
    /// # Errors
    /// Names the first directory that stays.
    pub fn remove(&self) -> Result<()> {
        let mut left: Vec<&PathBuf> = self.groups.iter().map(|(_, dir)| dir).collect();
        for round in 0..200 {
            left.retain(|dir| !remove_tree(dir));
            if left.is_empty() {
                return Ok(());
            }
            if round > 1 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        Err(Error::internal(format!("cgroup {} is still busy", left[0].display())))
    }
}

/// v2: the rules as an eBPF program.
fn restrict_devices(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    let may = |rule: &DeviceRule, what: char| rule.access.contains(what);
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| sys::device::Rule {
            allow: rule.allow,
            kind: rule.kind,
            major: rule.major,
            minor: rule.minor,
            mknod: may(rule, 'm'),
            read: may(rule, 'r'),
            write: may(rule, 'w'),
        })
        .collect();
    let cgroup = sys::fs::open_root(dir).context(|| format!("open {}", dir.display()))?;
    sys::device::restrict(cgroup, &rules).context(|| format!("set device rules of {}", dir.display()))
}

fn remove_tree(dir: &Path) -> bool {
    match std::fs::remove_dir(dir) {
        Ok(()) => return true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
        Err(_) => {}
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    std::fs::remove_dir(dir).is_ok()
}

fn make(dir: &Path) -> Result<()> {
    match std::fs::create_dir(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => std::fs::create_dir_all(dir).context(|| format!("create cgroup {}", dir.display())),
    }
}

/// v1: a cpuset without processors and memory takes no tasks. Filled from the parent, level by level.
fn fill_cpuset(mount: &Path, dir: &Path) {
    let Ok(below) = dir.strip_prefix(mount) else { return };
    let mut parent = mount.to_path_buf();
    for part in below.components() {
        let child = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let empty = std::fs::read_to_string(child.join(file)).is_ok_and(|text| text.trim().is_empty());
            if let (true, Ok(value)) = (empty, std::fs::read_to_string(parent.join(file))) {
                let _ = write(&child.join(file), value.trim());
            }
        }
        parent = child;
    }
}

/// v2: passes controllers down to the container's group. Where our own processes sit in the root of a delegated tree
/// (a container that runs containers), they go to a leaf first: a group with controllers for its children has none.
fn enable_controllers(mount: &Path, dir: &Path) {
    let Ok(below) = dir.strip_prefix(mount) else { return };
    let mut at = mount.to_path_buf();
    for part in below.components() {
        let wanted = std::fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        let control = at.join("cgroup.subtree_control");
        let present = std::fs::read_to_string(&control).unwrap_or_default();
        for name in wanted.split_ascii_whitespace() {
            if !present.split_ascii_whitespace().any(|known| known == name) {
                let text = format!("+{name}");
                if write(&control, &text).is_err_and(|error| error.raw_os_error() == Some(16)) && at == mount
                {
                    move_to_leaf(mount);
                    let _ = write(&control, &text);
                }
            }
        }
        at = at.join(part);
        let _ = std::fs::create_dir(&at);
    }
}

fn move_to_leaf(mount: &Path) {
    let leaf = mount.join("init");
    let _ = std::fs::create_dir(&leaf);
    for pid in std::fs::read_to_string(mount.join("cgroup.procs")).unwrap_or_default().lines() {
        let _ = write(&leaf.join("cgroup.procs"), pid);
    }
}
