//! What only the machine can tell about a container that is to be started: directories, devices, namespaces.

use model::bundle::{DeviceNode, DeviceRule, FirewallWatch, MountOp, Namespace, NamespaceSet};
use model::container::{ContainerPath, Device, HostPath, IpcMode, NamespaceMode, NetworkMode};
use model::error::Context as _;
use model::launch::{Facts, parse_device_rule};
use model::{ContainerId, Error, Result};
use rustix::fs::{FileType, Mode};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::links::EtcFiles;
use super::lookup::Container;
use crate::Engine;

/// Parts of the host's /dev that a privileged container does not get nodes of: they are file systems of their own.
const NOT_DEVICES: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
/// Nodes and links that the runtime makes in every /dev.
const OWN_DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx"];
/// Device nodes of a directory that are looked at, at most.
const DEVICES: usize = 16_384;

impl Engine {
    /// The facts of a container, with its network's part already known.
    pub(crate) fn facts(&self, container: &Container, etc: &EtcFiles, mounts: Vec<MountOp>) -> Result<Facts> {
        let spec = &container.spec;
        let (devices, device_rules) = devices(container)?;
        let (shm, mqueue) = self.shared_memory(container)?;
        let rw = container.rw_dir();
        let program = std::env::current_exe().context(|| "find the engine's own program")?;
        let program = program.to_string_lossy();
        let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let on_exit = argv(&[&program, "system", "reap", spec.id.as_str()]);
        let firewall = matches!(spec.network, NetworkMode::Attached(_)).then(|| FirewallWatch {
            table: self.networks.firewall_table(),
            lock: HostPath(self.networks.firewall_lock()),
            restore: argv(&[&program, "system", "restore-firewall"]),
        });
        Ok(Facts {
            name: container.name().to_owned(),
            container_dir: HostPath(container.dir.clone()),
            run_dir: HostPath(container.run_dir.clone()),
            events_log: HostPath(self.store.layout.events()),
            lower: self.store.lower_of_container(&spec.layers)?,
            upper: HostPath(rw.join("upper")),
            work: HostPath(rw.join("work")),
            volatile: *container.lifecycle() == model::container::Lifecycle::RemoveOnExit,
            mounts,
            files: etc.files.clone(),
            namespaces: self.namespaces(container)?,
            shm,
            mqueue,
            hostname: etc.hostname.clone(),
            link_env: etc.link_env.clone(),
            devices,
            device_rules,
            more_masked_paths: thermal_paths(),
            cgroup: container.cgroup(),
            resources: container.resources().clone(),
            lifecycle: container.lifecycle().clone(),
            log: HostPath(container.log_path()),
            stop_signal: container.stop_signal()?,
            on_exit,
            on_exit_env: self.on_exit_env(),
            firewall,
        })
    }
    fn on_exit_env(&self) -> Vec<(String, String)> {
        let pair = |name: &str, path: &Path| (name.to_owned(), path.to_string_lossy().into_owned());
        let mut env =
            vec![pair("CAULDRON_ROOT", &self.roots.root), pair("CAULDRON_RUN_ROOT", &self.roots.run_root)];
        env.extend(
            sys::failpoint::environment()
                .map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned())),
        );
        // Whatever context the user has chosen meanwhile.
        env.push(("DOCKER_CONTEXT".to_owned(), "default".to_owned()));
        env.extend(self.roots.config.as_deref().map(|path| pair("CAULDRON_CONFIG", path)));
        env
    }
    fn namespaces(&self, container: &Container) -> Result<NamespaceSet> {
        let spaces = &container.spec.namespaces;
        let from = |mode: &NamespaceMode, kind: &str| match mode {
            NamespaceMode::Private => Ok(Namespace::New),
            NamespaceMode::Host => Ok(Namespace::Host),
            NamespaceMode::Join(id) => self.namespace_of(id, kind).map(Namespace::Path),
        };
        Ok(NamespaceSet {
            net: match &container.spec.network {
                NetworkMode::None => Namespace::New,
                NetworkMode::Attached(_) => Namespace::Passed,
                NetworkMode::Host => Namespace::Host,
                NetworkMode::Join(id) => Namespace::Path(self.namespace_of(id, "net")?),
            },
            pid: from(&spaces.pid, "pid")?,
            ipc: match &spaces.ipc {
                IpcMode::Private | IpcMode::Shareable | IpcMode::None => Namespace::New,
                IpcMode::Host => Namespace::Host,
                IpcMode::Join(id) => Namespace::Path(self.namespace_of(id, "ipc")?),
            },
            uts: match (&spaces.uts, &container.spec.network) {
                (NamespaceMode::Private, NetworkMode::Join(id)) if container.spec.hostname.is_empty() => {
                    Namespace::Path(self.namespace_of(id, "uts")?)
                }
                (mode, _) => from(mode, "uts")?,
            },
            cgroup: from(&spaces.cgroup, "cgroup")?,
        })
    }
    /// The path of a running container's namespace.
    pub(crate) fn namespace_of(&self, id: &ContainerId, kind: &str) -> Result<PathBuf> {
        let other = self.find(id.as_str())?;
        let live = other.running().map_err(|_| {
            Error::conflict(format!("cannot join {kind} namespace of a non running container: {id}"))
        })?;
        Ok(PathBuf::from(format!("/proc/{}/ns/{kind}", live.pid)))
    }
    /// Where /dev/shm and /dev/mqueue come from, where they are not the container's own.
    fn shared_memory(&self, container: &Container) -> Result<(Option<HostPath>, Option<HostPath>)> {
        let path = |text: &str| Some(HostPath(PathBuf::from(text)));
        match &container.spec.namespaces.ipc {
            IpcMode::Private | IpcMode::None => Ok((None, None)),
            // A fresh mqueue shows the queues of the namespace that it is mounted in: the host's.
            IpcMode::Host => Ok((path("/dev/shm"), None)),
            IpcMode::Shareable => {
                let shm = container.run_dir.join("shm");
                mount_shm(&shm, container.spec.shm_bytes)?;
                Ok((Some(HostPath(shm)), None))
            }
            IpcMode::Join(id) => {
                let other = self.find(id.as_str())?;
                if other.spec.namespaces.ipc != IpcMode::Shareable {
                    return Err(Error::conflict(format!(
                        "cannot join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                    )));
                }
                Ok((Some(HostPath(other.run_dir.join("shm"))), None))
            }
        }
    }
}

fn mount_shm(shm: &Path, bytes: u64) -> Result<()> {
    unmount_shm(shm.parent().unwrap_or(shm))?;
    std::fs::create_dir_all(shm).context(|| format!("create {}", shm.display()))?;
    let options = std::ffi::CString::new(format!("mode=1777,size={bytes}"))
        .map_err(|_| Error::internal("tmpfs options"))?;
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("shm", shm, "tmpfs", flags, options.as_c_str())
        .map_err(std::io::Error::from)
        .context(|| format!("mount {}", shm.display()))
}

/// Unmounts the /dev/shm that a shareable container had on the host. Idempotent.
pub(crate) fn unmount_shm(run_dir: &Path) -> Result<()> {
    use rustix::mount::UnmountFlags;
    let shm = run_dir.join("shm");
    match rustix::mount::unmount(&shm, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL | rustix::io::Errno::NOTDIR) => {
            Ok(())
        }
        Err(error) => Err(std::io::Error::from(error)).context(|| format!("unmount {}", shm.display())),
    }
}

/// Nodes and rules of `--device`, `--device-cgroup-rule` and `--privileged`.
fn devices(container: &Container) -> Result<(Vec<DeviceNode>, Vec<DeviceRule>)> {
    let security = &container.spec.security;
    let mut nodes = Vec::new();
    let mut rules = Vec::new();
    if security.privileged {
        walk(Path::new("/dev"), &ContainerPath::root().join("/dev"), &mut nodes)?;
        // These every container has, made by the runtime.
        nodes.retain(|node| !OWN_DEVICES.contains(&node.path.as_str()));
    }
    for device in &security.devices {
        let first = nodes.len();
        add_device(device, &mut nodes)?;
        rules.extend(nodes[first..].iter().map(|node| DeviceRule {
            allow: true,
            kind: node.kind,
            major: Some(node.major),
            minor: Some(node.minor),
            access: device.permissions.clone(),
        }));
    }
    for text in &security.device_rules {
        rules.push(parse_device_rule(text)?);
    }
    Ok((nodes, rules))
}

fn add_device(device: &Device, nodes: &mut Vec<DeviceNode>) -> Result<()> {
    let host = device.host.0.display();
    let gather = |error: std::io::Error| {
        Error::invalid(format!("error gathering device information while adding custom device \"{host}\""))
            .caused_by(error)
    };
    let meta = std::fs::metadata(&device.host).map_err(gather)?;
    if meta.is_dir() {
        return walk(&device.host.0, &device.container, nodes);
    }
    match node(&meta, &device.container) {
        Some(node) => {
            nodes.push(node);
            Ok(())
        }
        None => Err(Error::invalid(format!(
            "error gathering device information while adding custom device \"{host}\": not a device node"
        ))),
    }
}

fn node(meta: &std::fs::Metadata, path: &ContainerPath) -> Option<DeviceNode> {
    let kind = match FileType::from_raw_mode(meta.mode()) {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return None,
    };
    Some(DeviceNode {
        path: path.clone(),
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: Mode::from_raw_mode(meta.mode()).bits() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Every device node below a directory of the host; links are not followed.
fn walk(dir: &Path, target: &ContainerPath, nodes: &mut Vec<DeviceNode>) -> Result<()> {
    for entry in std::fs::read_dir(dir).context(|| format!("read directory {}", dir.display()))? {
        let entry = entry.context(|| format!("read directory {}", dir.display()))?;
        let name = entry.file_name();
        let Some(text) = name.to_str().filter(|text| !NOT_DEVICES.contains(text)) else { continue };
        // It may be gone again.
        let Ok(meta) = std::fs::symlink_metadata(entry.path()) else { continue };
        let path = target.join(text);
        if meta.is_dir() {
            walk(&entry.path(), &path, nodes)?;
        } else if let Some(node) = node(&meta, &path) {
            if nodes.len() >= DEVICES {
                return Err(Error::new(
                    model::Kind::ResourceExhausted,
                    format!("more than {DEVICES} device nodes below {}", dir.display()),
                ));
            }
            nodes.push(node);
        }
    }
    Ok(())
}

/// `thermal_throttle` of each processor: hidden, as Docker does (it tells of the neighbours).
fn thermal_paths() -> Vec<ContainerPath> {
    // All processors are alike: one look says whether there is any.
    if !Path::new("/sys/devices/system/cpu/cpu0/thermal_throttle").exists() {
        return Vec::new();
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (0..count)
        .map(|cpu| ContainerPath::root().join(&format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle")))
        .collect()
}
