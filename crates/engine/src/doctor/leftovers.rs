//! Directories, names, mounts and files that nobody owns any more.

use model::container::MountSource;
use model::error::Context as _;
use model::finding::Examination;
use model::{ContainerId, Kind, Result};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use sys::fs::Lock;

use crate::Engine;
use crate::container::lookup::has_spec;
use crate::container::reap::remove_tree;

/// A draft without a container is left alone for so long: the copying itself may take a while.
const DRAFT_SECONDS: i64 = 3600;

impl Engine {
    /// Containers whose making was interrupted. Whoever makes one shares the store's lock. False: others keep it.
    pub(super) fn check_half_made(&self, look: &mut Examination) -> Result<bool> {
        let Some(_quiet) = self.store.quiet()? else { return Ok(false) };
        for id in self.container_ids()? {
            let dir = self.store.layout.container(&id);
            if has_spec(&dir) {
                for path in temporary_files(&dir)? {
                    let problem = "whoever wrote it is gone and never finished it";
                    look.found(("file", path.display()), problem, "delete it", || remove_tree(&path));
                }
                continue;
            }
            let problem = "whoever made this container is gone and never finished it";
            look.found(("container", id.short()), problem, "delete it", || {
                let trash = self.store.layout.trash().join(id.as_str());
                std::fs::rename(&dir, &trash).context(|| format!("remove container {id}"))?;
                self.finish_removal(&id)
            });
        }
        Ok(true)
    }
    /// Names whose container is gone.
    pub(super) fn check_names(&self, look: &mut Examination) -> Result<()> {
        for name in names(&self.store.layout.names())? {
            let path = self.store.layout.names().join(&name);
            match self.name_owner(&name)? {
                Some(owner) if self.store.layout.container(&owner).exists() => {
                    self.check_second_name(look, &name, &owner)?;
                }
                Some(owner) => {
                    let problem = format!("container {} has it, which is gone", owner.short());
                    look.found(("name", &name), problem, "free it", || self.free_name(&name, &owner));
                }
                // Gone since, or no name at all.
                None if !path.exists() => {}
                None => look.found(("name", path.display()), "it names no container", "delete it", || {
                    remove_tree(&path)
                }),
            }
        }
        Ok(())
    }
    /// A name beside the one that its container has: a renaming was interrupted.
    fn check_second_name(&self, look: &mut Examination, name: &str, owner: &ContainerId) -> Result<()> {
        let Some(_lock) = self.try_lock_container(owner)? else { return Ok(()) };
        if let Ok(container) = self.load(owner)
            && container.name() != name
        {
            let problem = format!("container {} is called {} now", owner.short(), container.name());
            look.found(("name", name), problem, "free it", || self.free_name(name, owner));
        }
        Ok(())
    }
    /// Run directories without a container, and sockets of clients that no longer wait.
    pub(super) fn check_run_dirs(&self, look: &mut Examination) -> Result<()> {
        let parent = self.store.layout.run_root.join("containers");
        for name in names(&parent)? {
            let path = parent.join(&name);
            let Ok(id) = ContainerId::parse(&name) else {
                look.manual(("directory", path.display()), "it belongs to no container", "delete it");
                continue;
            };
            if !self.is_known(&id) {
                let problem = "its container is gone";
                look.found(("directory", path.display()), problem, "delete it", || self.finish_removal(&id));
                continue;
            }
            for name in names(&path)? {
                let Some(socket) = name.strip_prefix(runtime::WAITING) else { continue };
                let pid = socket.split_once('-').and_then(|(pid, _)| pid.parse::<i32>().ok());
                if pid.is_some_and(|pid| sys::process::start_time(pid).is_err()) {
                    let socket = path.join(&name);
                    let problem = "the client that waited here is gone";
                    look.found(("socket", socket.display()), problem, "delete it", || {
                        remove_tree(&socket)?;
                        // The directory goes with the last client, unless the container holds it.
                        let _ = std::fs::remove_dir(&path);
                        Ok(())
                    });
                }
            }
        }
        Ok(())
    }
    /// What was renamed away to be deleted, by somebody who did not get to it.
    pub(super) fn check_trash(&self, look: &mut Examination) -> Result<()> {
        for name in names(&self.store.layout.trash())? {
            let path = self.store.layout.trash().join(&name);
            let problem = "whoever removed it did not finish";
            look.found(("directory", path.display()), problem, "finish its removal", || {
                match ContainerId::parse(&name) {
                    Ok(id) => self.finish_removal(&id),
                    Err(_) => remove_tree(&path),
                }
            });
        }
        Ok(())
    }
    /// Directories of build steps that were killed.
    pub(super) fn check_build(&self, look: &mut Examination) -> Result<()> {
        for path in self.stale_steps()? {
            let problem = "the build that made it was killed";
            look.found(("build", path.display()), problem, "delete it", || self.sweep_steps());
        }
        Ok(())
    }
    /// The directory of a build step whose container has this id.
    pub(super) fn step_dir(&self, id: &ContainerId) -> PathBuf {
        self.store.layout.build_cache().join("steps").join(id.as_str())
    }
    pub(super) fn step_is_busy(&self, id: &ContainerId) -> bool {
        let lock = self.step_dir(id).join("lock");
        lock.exists() && matches!(Lock::try_exclusive(&lock), Ok(None))
    }
    /// Mounts that stayed on the host: the shared memory of a container, a volume of another file system.
    pub(super) fn check_mounts(&self, look: &mut Examination) -> Result<()> {
        let text = std::fs::read("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
        let runs = self.store.layout.run_root.join("containers");
        let mut used: Option<BTreeSet<String>> = None;
        for target in text.split(|byte| *byte == b'\n').filter_map(mount_point) {
            let remedy = "unmount it";
            if let Ok(below) = target.strip_prefix(&runs) {
                let owner = below.components().next().map(|part| part.as_os_str().to_string_lossy());
                let owner = owner.and_then(|name| ContainerId::parse(&name).ok());
                if owner.is_none_or(|owner| !self.lives(&owner)) {
                    let problem = "its container does not run";
                    look.found(("mount", target.display()), problem, remedy, || unmount(&target));
                }
            } else if let Ok(below) = target.strip_prefix(self.store.layout.volumes()) {
                let mut parts = below.components().map(|part| part.as_os_str());
                let (Some(name), Some(data), None) = (parts.next(), parts.next(), parts.next()) else {
                    continue;
                };
                if data != OsStr::new("_data") {
                    continue;
                }
                let name = name.to_string_lossy();
                let used = match &used {
                    Some(used) => used,
                    None => used.insert(self.volumes_in_use()?),
                };
                if !used.contains(name.as_ref()) {
                    let problem = "no running container has this volume";
                    look.found(("mount", target.display()), problem, remedy, || {
                        self.store.unmount_volume(&name)
                    });
                }
            }
        }
        Ok(())
    }
    /// Copies of volumes for helpers that were killed. A helper makes its container right after the copy.
    pub(super) fn check_drafts(&self, look: &mut Examination) -> Result<()> {
        let _quiet = self.store.own_volumes()?;
        let (volumes, used) = (self.store.volumes()?, self.used_volumes()?);
        for draft in volumes.iter().filter(|volume| !used.contains_key(&volume.name)) {
            let Some(of) = &draft.draft_of else { continue };
            let is_old = draft.created.seconds < crate::now().seconds.saturating_sub(DRAFT_SECONDS);
            if is_old || !volumes.iter().any(|volume| volume.id == *of) {
                let problem = "it was copied for a helper, and no container has it";
                look.found(("volume", &draft.name), problem, "delete it", || {
                    self.store.remove_draft(&draft.name)
                });
            }
        }
        Ok(())
    }
    /// The volumes of containers that run or are being started.
    fn volumes_in_use(&self) -> Result<BTreeSet<String>> {
        let mut used = BTreeSet::new();
        for id in self.container_ids()? {
            match self.load(&id) {
                Ok(container) if self.lives(&id) => {
                    used.extend(container.spec.mounts.clone().into_iter().filter_map(|mount| {
                        match mount.source {
                            MountSource::Volume { name, .. } => Some(name),
                            _ => None,
                        }
                    }));
                }
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(used)
    }
}

/// Where a line of mountinfo is mounted (proc_pid_mountinfo(5)): the fifth field, blanks as octal escapes.
pub(crate) fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                path.push(value);
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    Some(PathBuf::from(OsStr::from_bytes(&path)))
}

fn unmount(target: &Path) -> Result<()> {
    use rustix::mount::UnmountFlags;
    rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(std::io::Error::from)
        .context(|| format!("unmount {}", target.display()))
}

fn temporary_files(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(names(dir)?
        .into_iter()
        .filter(|name| sys::fs::is_temporary(name))
        .map(|name| dir.join(name))
        .collect())
}

/// The names in a directory; none where it is missing.
fn names(dir: &Path) -> Result<Vec<String>> {
    sys::fs::names(dir).context(|| format!("read directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points() {
        let line = b"36 35 98:0 / /mnt/a\\040b\\134c rw,noatime shared:1 - ext4 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/mnt/a b\\c")));
        assert_eq!(mount_point(b"36 35 98:0 / /x\\04"), Some(PathBuf::from("/x\\04")));
        assert_eq!(mount_point(b"36 35"), None);
    }
}
