//! Control groups: which controller lies where (v1, v2, or some on each), found out from /proc/self/cgroup and
//! /proc/self/mountinfo. Files are written by the caller.

use std::io;
use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its v1 controllers (`memory`; `cpu`, `cpuacct`; `name=systemd`); empty for v2.
    pub controllers: Vec<String>,
    /// Whether it is the v2 hierarchy.
    pub unified: bool,
}

/// All hierarchies, v1 first.
///
/// # Errors
/// /proc cannot be read.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let groups = std::fs::read_to_string("/proc/self/cgroup")?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(parse(&groups, &mounts))
}

fn parse(groups: &str, mounts: &str) -> Vec<Hierarchy> {
    let known: Vec<&str> = groups
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .collect();
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let mut right = right.split(' ');
        let unified = match right.next() {
            Some("cgroup2") => true,
            Some("cgroup") => false,
            _ => continue,
        };
        let options = right.nth(1).unwrap_or_default();
        let controllers: Vec<String> = match unified {
            true => Vec::new(),
            false => options.split(',').filter(|name| known.contains(name)).map(str::to_owned).collect(),
        };
        let again = found.iter().any(|other| other.unified == unified && other.controllers == controllers);
        if !again && (unified || !controllers.is_empty()) {
            found.push(Hierarchy { mount: PathBuf::from(mount), controllers, unified });
        }
    }
    found.sort_by_key(|hierarchy| hierarchy.unified);
    found
}

/// Writes a control file in one call.
///
/// # Errors
/// Those of `open(2)` and `write(2)`.
pub fn write(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
            42 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n";
        let found = parse("2:cpu,cpuacct:/x\n1:name=systemd:/\n0::/\n", mounts);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert!(found[2].unified && found[2].mount == Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(parse("0::/\n", "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n").len(), 1);
    }
}
