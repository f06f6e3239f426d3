//! What the runtime is given: everything resolved, nothing left to look up but what only the container's own
//! root can tell (users, PATH). The engine makes it from a [`ContainerSpec`](crate::container::ContainerSpec);
//! it is written to the run directory as `bundle.json` and dies with the boot.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::ContainerId;
use crate::container::{
    ContainerPath, Healthcheck, HostPath, Lifecycle, Propagation, Protocol, Resources, Seccomp, Ulimit,
};

/// A container that is ready to be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// Whose it is.
    pub id: ContainerId,
    /// The name, for events.
    pub name: String,
    /// The image name, for events.
    pub image_name: String,
    /// Labels, for events.
    pub labels: std::collections::BTreeMap<String, String>,
    /// `containers/<id>`: `state.json` and the log are written here.
    pub container_dir: HostPath,
    /// `/run/cauldron/<id>`: sockets and `live.json`.
    pub run_dir: HostPath,
    /// The events log (`model::event`), appended to.
    pub events_log: HostPath,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Mounts in the order in which they are made, parents first.
    pub mounts: Vec<MountOp>,
    /// Where each namespace comes from.
    pub namespaces: NamespaceSet,
    /// Host name to set (a new UTS namespace only).
    pub hostname: String,
    /// NIS domain name to set.
    pub domainname: String,
    /// The process.
    pub process: Process,
    /// Put the built-in init between the monitor and the process: reaps and forwards signals. False where the pid
    /// namespace is not ours.
    pub reaper: bool,
    /// `net.*`, `kernel.*`, … of the new namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Device nodes to make in /dev beyond the standard ones.
    pub devices: Vec<DeviceNode>,
    /// Cgroup device rules in order, `a *:* rwm` style; the first is normally "deny all".
    pub device_rules: Vec<DeviceRule>,
    /// Hidden under /dev/null or an empty tmpfs.
    pub masked_paths: Vec<ContainerPath>,
    /// Remounted read-only.
    pub readonly_paths: Vec<ContainerPath>,
    /// Cgroup path below each hierarchy's root: `cauldron/<id>` or below `--cgroup-parent`.
    pub cgroup: String,
    /// Limits.
    pub resources: Resources,
    /// Where output goes.
    pub log: LogTarget,
    /// Whether the monitor starts it again.
    pub lifecycle: Lifecycle,
    /// The health check to run, with all defaults filled in.
    pub healthcheck: Option<Healthcheck>,
    /// Signal number that stops it.
    pub stop_signal: i32,
    /// What the monitor executes in its own place when all is over: argv, argv[0] being the program's path.
    pub on_exit: Vec<String>,
    /// The environment of `on_exit`, and of what restores the firewall.
    pub on_exit_env: Vec<(String, String)>,
    /// The engine's firewall, for a container that needs it.
    pub firewall: Option<FirewallWatch>,
}

/// What a monitor must know to watch over the firewall. One monitor of an engine does, the one that has the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallWatch {
    /// The engine's own table (`inet`).
    pub table: String,
    /// Who has this lock watches.
    pub lock: HostPath,
    /// What restores the rules: argv, argv[0] being the program's path.
    pub restore: Vec<String>,
}

/// A host port that a container's monitor holds while the container lives, so that nobody else takes it; `ports.json`
/// in the run directory is a list of them. The kernel's address translation takes packets before they reach the
/// socket; those that it cannot translate are carried to `to` by a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPort {
    /// The protocol.
    pub protocol: Protocol,
    /// On the host.
    pub host: SocketAddr,
    /// Of the container.
    pub to: SocketAddr,
}

/// The root file system of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay, mounted inside the container's mount namespace: nothing to unmount on the host.
    Overlay {
        /// Read-only directories, the uppermost first.
        lower: Vec<HostPath>,
        /// The writable directory.
        upper: HostPath,
        /// Overlay's work directory, on the same file system as `upper`.
        work: HostPath,
        /// Skip every fsync: for `--rm` and build steps only.
        volatile: bool,
        /// `--read-only`.
        read_only: bool,
    },
}

/// One mount to make inside the new root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOp {
    /// Where. Missing directories (or an empty file, for a file source) are made, inside the root.
    pub target: ContainerPath,
    /// What.
    pub source: MountOpSource,
    /// `MS_RDONLY`.
    pub read_only: bool,
    /// `MS_NOSUID`.
    pub nosuid: bool,
    /// `MS_NODEV`.
    pub nodev: bool,
    /// `MS_NOEXEC`.
    pub noexec: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountOpSource {
    /// A file or directory of the host, opened before the root changes.
    Bind {
        /// On the host.
        path: HostPath,
        /// With what is mounted below.
        recursive: bool,
        /// How later mounts travel.
        propagation: Propagation,
        /// Only this directory or file below `path`, which other containers can write: it is opened from `path`'s
        /// descriptor with `RESOLVE_IN_ROOT` (`volume-subpath`; CVE-2021-25741 was its like elsewhere).
        subpath: Option<ContainerPath>,
    },
    /// A copy of a host's file in a memory file system of its own: what is secret is on no disk that the container sees.
    Copy {
        /// On the host.
        path: HostPath,
        /// Owner in the container.
        uid: u32,
        /// Group in the container.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
    /// A new file system: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup` (the engine's view of it, whatever the version).
    Fs {
        /// Its type.
        fstype: String,
        /// Its options.
        options: Vec<(String, Option<String>)>,
    },
}

/// Namespaces: made, or joined through a path under /proc or one of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSet {
    /// Network.
    pub net: Namespace,
    /// Process ids.
    pub pid: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Cgroup root.
    pub cgroup: Namespace,
}

/// One namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one.
    #[default]
    New,
    /// The host's.
    Host,
    /// That of this process, held open by the launcher and passed as a descriptor.
    Path(PathBuf),
    /// The network namespace whose descriptor is passed to the launcher (network only).
    Passed,
}

/// A process to execute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Arguments; the program is looked up in the PATH of `env`, inside the container.
    pub argv: Vec<String>,
    /// Environment. `HOME` is added from passwd where it is missing.
    pub env: Vec<String>,
    /// Working directory; made where missing (`create_cwd`).
    pub cwd: String,
    /// Make a missing working directory (containers), or fail (exec).
    pub create_cwd: bool,
    /// `USER[:GROUP]`.
    pub user: String,
    /// More groups, names or numbers.
    pub additional_groups: Vec<String>,
    /// A pseudo-terminal.
    pub tty: bool,
    /// Keep stdin open.
    pub open_stdin: bool,
    /// Close stdin after the first client.
    pub stdin_once: bool,
    /// Rows, columns.
    pub console_size: Option<(u16, u16)>,
    /// Effective, permitted and bounding set; names without `CAP_`. Inheritable and ambient stay empty
    /// (CVE-2022-24769).
    pub capabilities: Vec<String>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// The filter.
    pub seccomp: Seccomp,
    /// Resource limits; what the kernel refuses for want of CAP_SYS_RESOURCE is clamped with one warning.
    pub ulimits: Vec<Ulimit>,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
}

/// A device node to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Where.
    pub path: ContainerPath,
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One device cgroup rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `a`, `b` or `c`.
    pub kind: char,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTarget {
    /// Docker's json-file format, rotated.
    JsonFile {
        /// The current file; older ones get `.1`, `.2`.
        path: HostPath,
        /// Bytes of one file.
        max_bytes: u64,
        /// Files kept.
        max_files: u32,
        /// Older files are compressed (`.1.gz`).
        #[serde(default)]
        compress: bool,
        /// What each entry says of the container (`labels`, `env` and `tag` of `--log-opt`).
        #[serde(default)]
        attributes: std::collections::BTreeMap<String, String>,
    },
    /// Nowhere.
    None,
}
