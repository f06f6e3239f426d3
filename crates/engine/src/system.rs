//! What the engine and its machine are: read from the kernel each time, never stored.

use model::Result;
use model::error::Context as _;
use model::state::Status;
use std::path::Path;

use crate::Engine;

/// The machine and what this root holds.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Containers that run, are paused, are stopped.
    pub containers: (usize, usize, usize),
    /// Images.
    pub images: usize,
    /// Kernel release.
    pub kernel: String,
    /// Kernel version text.
    pub kernel_version: String,
    /// `x86_64`.
    pub machine: String,
    /// Host name.
    pub host_name: String,
    /// `PRETTY_NAME` and `VERSION_ID` of /etc/os-release.
    pub os: (String, String),
    /// Processors online.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// 1 or 2; hybrid set-ups count as 1.
    pub cgroup_version: u8,
    /// The machine forwards IPv4.
    pub ipv4_forwarding: bool,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A file system with fewer free bytes, or inodes, is named as the one that is full.
const SHORT_OF: (u64, u64) = (64 << 20, 1000);

impl Engine {
    /// Reads it.
    ///
    /// # Errors
    /// A container's record cannot be read.
    pub fn info(&self) -> Result<Info> {
        let mut info = machine();
        for container in self.containers()? {
            match container.status() {
                Status::Running | Status::Restarting => info.containers.0 += 1,
                Status::Paused => info.containers.1 += 1,
                _ => info.containers.2 += 1,
            }
        }
        info.images = self.store.images()?.len();
        if !info.ipv4_forwarding {
            info.warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
        }
        if has_legacy_rules() {
            info.warnings.push(
                "WARNING: rules of iptables-legacy are loaded: where their FORWARD chain drops, containers are cut off until it accepts their bridges"
                    .to_owned(),
            );
        }
        Ok(info)
    }
    /// Bytes of all layers that images need, each counted once.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn layers_size(&self) -> Result<u64> {
        let mut chains = std::collections::BTreeMap::new();
        for image in self.store.images()? {
            let mut chain = None;
            for diff_id in &image.config.rootfs.diff_ids {
                let this = model::digest::chain_id(chain.as_ref(), diff_id);
                if !chains.contains_key(&this) {
                    let size = self.store.layer(&this)?.map_or(0, |layer| layer.size);
                    chains.insert(this.clone(), size);
                }
                chain = Some(this);
            }
        }
        Ok(chains.values().sum())
    }
    /// Says how much room is left, where that is the reason for an error.
    #[must_use]
    pub fn explain(&self, error: model::Error) -> model::Error {
        if !error.is_out_of_space() {
            return error;
        }
        let room = |path: &Path| {
            let stat = rustix::fs::statvfs(path).ok()?;
            let full = stat.f_bavail.saturating_mul(stat.f_frsize) < SHORT_OF.0 || stat.f_favail < SHORT_OF.1;
            full.then(|| {
                format!(
                    "{} has {} bytes and {} inodes free",
                    path.display(),
                    stat.f_bavail.saturating_mul(stat.f_frsize),
                    stat.f_favail
                )
            })
        };
        let rooms: Vec<String> =
            [&self.roots.root, &self.roots.run_root].into_iter().filter_map(|path| room(path)).collect();
        let rooms =
            if rooms.is_empty() { "a file system or a quota is full".to_owned() } else { rooms.join(", ") };
        let before = error.hint_text().map(|hint| format!("{hint}\n")).unwrap_or_default();
        error.hint(format!(
            "{before}{rooms}; remove what is not needed (`cauldron system df`, `cauldron system prune`), or choose another place with --root",
        ))
    }
    /// Where this engine keeps things.
    pub fn roots(&self) -> &crate::Roots {
        &self.roots
    }
}

/// A socket that a supervisor passed to this process (sd_listen_fds(3)), counted from 0.
///
/// # Errors
/// There is none.
pub fn passed_socket(index: usize) -> Result<std::os::fd::OwnedFd> {
    sys::socket::passed(index).context(|| format!("take the passed descriptor {}", index + 3))
}

/// Whether filter rules of the older kernel interface are there, which cannot be seen through nf_tables.
fn has_legacy_rules() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"].iter().any(|path| {
        std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == "filter"))
    })
}

/// The machine alone.
pub fn machine() -> Info {
    let name = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/etc/os-release");
    let field = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .unwrap_or_default();
    Info {
        kernel: text(name.release()),
        kernel_version: text(name.version()),
        machine: text(name.machine()),
        host_name: text(name.nodename()),
        os: (field("PRETTY_NAME"), field("VERSION_ID")),
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory: memory * 1024,
        cgroup_version: if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 },
        ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        ..Info::default()
    }
}
