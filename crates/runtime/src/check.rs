//! Examines what containers left in the kernel: monitors whose container is gone, control groups without a monitor.

use model::error::Context as _;
use model::finding::Examination;
use model::{ContainerId, Result};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::cgroup::Cgroup;
use crate::launch::MONITOR;

/// Longest command line that is looked at, in bytes.
const COMMAND_LINE: u64 = 64 << 10;
/// How long a killed process may take to end.
const DYING: std::time::Duration = std::time::Duration::from_secs(10);

/// A process that serves a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servant {
    /// Its number.
    pub pid: i32,
    /// The run directory that it is the monitor of; `None` for one that gives back what a container held.
    pub run_dir: Option<PathBuf>,
}

/// The monitors of containers, of all engines of this machine, and the processes that monitors became after their
/// container's end (`on_exit`) whose environment says `run_root`.
///
/// # Errors
/// /proc cannot be read.
pub fn servants(run_root: &Path) -> Result<Vec<Servant>> {
    let ours = [b"CAULDRON_RUN_ROOT=", run_root.as_os_str().as_bytes()].concat();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context(|| "read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(line) = read(pid, "cmdline") else { continue };
        let mut words = line.split(|byte| *byte == 0);
        let (name, first, second) = (words.next(), words.next(), words.next());
        if name == Some(MONITOR.as_bytes()) {
            let run_dir = first.map(|dir| PathBuf::from(OsStr::from_bytes(dir)));
            found.push(Servant { pid, run_dir });
        } else if first == Some(b"system")
            && second == Some(b"reap")
            && read(pid, "environ").is_some_and(|env| env.split(|byte| *byte == 0).any(|pair| pair == ours))
        {
            found.push(Servant { pid, run_dir: None });
        }
    }
    Ok(found)
}

/// A file of a process; `None` where it is gone, or a kernel thread.
fn read(pid: i32, file: &str) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/{file}")).ok()?;
    file.take(COMMAND_LINE).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

/// Looks for monitors under `run_root` whose container `exists` denies, and for control groups below `parents` of
/// containers that `exists` knows and `lives` denies. A group of an unknown name is another engine's affair: engines
/// share the parent.
///
/// # Errors
/// /proc cannot be read.
pub fn check(
    look: &mut Examination,
    run_root: &Path,
    parents: &BTreeSet<String>,
    exists: &dyn Fn(&ContainerId) -> bool,
    lives: &dyn Fn(&ContainerId) -> bool,
) -> Result<()> {
    let servants = servants(run_root)?;
    let mut served = BTreeSet::new();
    for servant in &servants {
        let Some(run_dir) = &servant.run_dir else { continue };
        let name = run_dir.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let Ok(id) = ContainerId::parse(&name) else { continue };
        if run_dir.starts_with(run_root) && !exists(&id) {
            let problem = format!("it is the monitor of container {}, which is gone", id.short());
            look.found(("process", servant.pid), problem, "kill it", || kill(servant.pid));
        }
        served.insert(id);
    }
    for parent in parents {
        for id in groups(parent)?.into_iter().filter(|id| !served.contains(id)) {
            let path = format!("{parent}/{id}");
            if exists(&id) && !lives(&id) {
                let problem = "no monitor serves it";
                look.found(("cgroup", &path), problem, "kill what is in it and remove it", || {
                    crate::clean_up(&path)
                });
            }
        }
    }
    Ok(())
}

fn kill(pid: i32) -> Result<()> {
    let what = || format!("kill process {pid}");
    let pidfd = sys::process::pidfd(pid).context(what)?;
    sys::process::signal(&pidfd, 9).context(what)?;
    sys::process::wait_end(&pidfd, DYING).context(what).map(drop)
}

/// The containers that have a control group below this one.
fn groups(parent: &str) -> Result<BTreeSet<ContainerId>> {
    let parent = Cgroup::at(parent)?;
    let entries = parent.groups().iter().filter_map(|(_, dir)| std::fs::read_dir(dir).ok()).flatten();
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| ContainerId::parse(&name).ok()).collect())
}
