//! What a container is asked to be. Made once, from an API request, at the API's door; kept unchanged in
//! `containers/<id>/spec.json`.

mod path;
mod resources;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use path::{ContainerPath, HostPath};
pub use resources::{BlkioThrottle, Resources, Ulimit};

use crate::{ContainerId, Digest, Error, Reference, Result, time::Timestamp};

/// What says nothing is not written: lists read many records, and most of each would be defaults.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A container as it was asked for, with the image's defaults already merged in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its identifier.
    pub id: ContainerId,
    /// The name it was created with, without the slash; a rename is kept beside the specification.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// The image as the user named it.
    pub image_name: String,
    /// The image's id (the digest of its configuration).
    pub image: Digest,
    /// The image's layers (diff ids, lowest first): it starts whatever became of the image's record.
    pub layers: Vec<Digest>,
    /// The process.
    #[serde(default, skip_serializing_if = "is_default")]
    pub process: ProcessSpec,
    /// Host name; empty means the first 12 digits of the id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostname: String,
    /// NIS domain name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub domainname: String,
    /// Labels, the image's included.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Mounts, with volume names resolved (anonymous ones got theirs).
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// `--volumes-from`, as asked (`ID[:ro|:rw]`); its mounts are already part of `mounts`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub volumes_from: Vec<String>,
    /// The network.
    pub network: NetworkMode,
    /// Name resolution.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resolver: Resolver,
    /// Ports that the container says it listens on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exposed_ports: Vec<Port>,
    /// Other namespaces.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespaces: Namespaces,
    /// What it may do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub security: Security,
    /// Initial limits; `update` keeps later ones beside the specification.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// Whether it stays, goes or comes back after it has exited.
    pub lifecycle: Lifecycle,
    /// How it is stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: StopSpec,
    /// Where its output goes.
    pub log: LogSpec,
    /// Health check; `None` where neither image nor user wants one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub healthcheck: Option<Healthcheck>,
    /// `--read-only`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only_rootfs: bool,
    /// `--init` asked for explicitly. Reaping is on either way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: Option<bool>,
    /// `--shm-size`, bytes.
    pub shm_bytes: u64,
    /// `--sysctl`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// `--annotation`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// `--cidfile`, kept for inspect only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cidfile: String,
    /// `--runtime`, kept for inspect only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: String,
}

/// The process that a container, an exec or a build step runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Entrypoint; with `command` it makes the argument vector.
    #[serde(default, skip_serializing_if = "is_default")]
    pub entrypoint: Vec<String>,
    /// Command.
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    /// `NAME=value`, in order, the image's first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// Working directory; made if missing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub working_dir: String,
    /// `USER[:GROUP]`, names or numbers, resolved against the container's own passwd when it starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: String,
    /// `--group-add`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub additional_groups: Vec<String>,
    /// `-t`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tty: bool,
    /// `-i`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub open_stdin: bool,
    /// Close stdin when the first attached client is gone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin_once: bool,
    /// Which streams the creator said it would attach (kept for inspect).
    #[serde(default, skip_serializing_if = "is_default")]
    pub attach_stdin: bool,
    /// See `attach_stdin`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attach_stdout: bool,
    /// See `attach_stdin`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attach_stderr: bool,
    /// Rows and columns of the first terminal size, where known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub console_size: Option<(u16, u16)>,
}

impl ProcessSpec {
    /// The argument vector.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.command).cloned().collect()
    }
}

/// One mount into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it appears.
    pub target: ContainerPath,
    /// What appears there.
    pub source: MountSource,
    /// Not writable.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// What is shown.
        path: HostPath,
        /// How later mounts travel.
        propagation: Propagation,
        /// Make a missing source, as `-v` does; `--mount` refuses it.
        create_source: bool,
        /// Without what is mounted below the source (`bind-nonrecursive`, `bind-recursive=disabled`).
        non_recursive: bool,
    },
    /// A named or anonymous volume.
    Volume {
        /// Its name.
        name: String,
        /// It got its name from us and goes with `--rm` or `rm -v`.
        anonymous: bool,
        /// Copy what the image has at the target into the volume while it is empty.
        copy: bool,
        /// Only this directory of the volume (`volume-subpath`).
        subpath: Option<String>,
        /// `volume-driver`, kept for inspect only: `local`.
        driver: String,
    },
    /// A fresh tmpfs.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: Option<u32>,
        /// Further options as given to `--tmpfs` (`noexec`, `uid=…`), checked against a list.
        options: Vec<String>,
    },
}

/// Mount propagation (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Propagation {
    Private,
    #[default]
    RPrivate,
    Shared,
    RShared,
    Slave,
    RSlave,
}

/// Which network a container gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// Another container's namespace.
    Join(ContainerId),
    /// One or several networks.
    Attached(Attachment),
}

/// Networks, and what only an attached container can have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// In order: the first is the one that `--network` named.
    pub endpoints: Vec<EndpointSpec>,
    /// `-p`.
    pub ports: Vec<PortBinding>,
    /// `-P`.
    pub publish_all: bool,
    /// `--link` on the default bridge.
    pub links: Vec<Link>,
}

/// How names are resolved, whatever the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// `--dns`.
    pub servers: Vec<String>,
    /// `--dns-search`.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
    /// `--add-host`, `name:address` (`host-gateway` allowed).
    pub extra_hosts: Vec<String>,
}

/// One endpoint as asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// Network name or id, as given; `bridge` is the default network.
    pub network: String,
    /// `--ip`.
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<std::net::Ipv6Addr>,
    /// `--mac-address`.
    pub mac: Option<String>,
    /// `--network-alias`.
    pub aliases: Vec<String>,
    /// Links on a user-defined network, `container:alias`.
    pub links: Vec<Link>,
    /// `--link-local-ip`: more addresses of the interface.
    #[serde(default)]
    pub link_local: Vec<std::net::IpAddr>,
    /// `gw-priority`: the highest gives the default route.
    #[serde(default)]
    pub gw_priority: i64,
    /// Driver options, kept for inspect.
    pub driver_opts: BTreeMap<String, String>,
}

/// A legacy link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The container, by name or id as it was given.
    pub container: String,
    /// The name it is known by inside.
    pub alias: String,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port inside a container: `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl Port {
    /// Parses `80`, `80/tcp`, `53/UDP`.
    ///
    /// # Errors
    /// An invalid argument that shows the text.
    pub fn parse(text: &str) -> Result<Self> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" | "" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(Error::invalid(format!("port {text:?}: the protocol is tcp, udp or sctp"))),
        };
        match number.parse::<u16>() {
            Ok(number) if number > 0 => Ok(Self { number, protocol }),
            _ => Err(Error::invalid(format!("port {text:?}: want a number from 1 to 65535"))),
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

/// `-p` of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// Inside.
    pub container: Port,
    /// Address on the host; `None` is every address.
    pub host_ip: Option<std::net::IpAddr>,
    /// First and last port on the host to choose from; `None` is any free one.
    pub host_ports: Option<(u16, u16)>,
}

/// Namespaces other than network and mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// `--pid`.
    pub pid: NamespaceMode,
    /// `--ipc`.
    pub ipc: IpcMode,
    /// `--uts`: private or host.
    pub uts: NamespaceMode,
    /// `--cgroupns`: private or host.
    pub cgroup: NamespaceMode,
    /// `--userns`: private means the host's unless the engine remaps.
    pub user: NamespaceMode,
}

/// Where a namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// A new one (the engine's default).
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's.
    Join(ContainerId),
}

/// `--ipc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    /// A new namespace that others may not join.
    #[default]
    Private,
    /// A new namespace that others may join.
    Shareable,
    /// A new namespace without /dev/shm.
    None,
    /// The host's.
    Host,
    /// Another container's.
    Join(ContainerId),
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`, normalised: `NET_ADMIN`, `ALL`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`, normalised.
    pub cap_drop: Vec<String>,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=…`.
    pub seccomp: Seccomp,
    /// Paths to hide; `None` hides Docker's own, an empty list none (`systempaths=unconfined`).
    pub masked_paths: Option<Vec<ContainerPath>>,
    /// Paths that are readable only; as above.
    pub readonly_paths: Option<Vec<ContainerPath>>,
    /// All of `--security-opt` as given, for inspect.
    pub options: Vec<String>,
    /// `--device`.
    pub devices: Vec<Device>,
    /// `--device-cgroup-rule`: `c 1:3 rwm`.
    pub device_rules: Vec<String>,
}

/// The seccomp profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default profile (none where privileged).
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON, as text: it was read by the client.
    Profile(String),
}

/// `--device HOST[:CONTAINER[:rwm]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host: a device node, or a directory of them.
    pub host: HostPath,
    /// Inside.
    pub container: ContainerPath,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// What happens after the process has exited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifecycle {
    /// The container stays.
    #[default]
    Keep,
    /// `--rm`: it goes, with its anonymous volumes.
    RemoveOnExit,
    /// It is started again.
    Restart(RestartPolicy),
}

/// `--restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Whatever happened.
    Always,
    /// Unless a person stopped it.
    UnlessStopped,
    /// After a failure only, so many times (0: without end).
    OnFailure {
        /// How often at most.
        max_retries: u32,
    },
}

/// How a container is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// `--stop-signal`, as given; empty is SIGTERM.
    pub signal: String,
    /// `--stop-timeout`, seconds; -1 waits for ever; `None` is 10.
    pub timeout: Option<i64>,
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// `json-file`, `local` (stored as json-file) or `none`.
    pub driver: String,
    /// `--log-opt`, with those of the configuration.
    pub options: BTreeMap<String, String>,
    /// Bytes of one file.
    pub max_bytes: u64,
    /// Files kept.
    pub max_files: u32,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            driver: "json-file".to_owned(),
            options: BTreeMap::new(),
            max_bytes: crate::limits::LOG_FILE_BYTES,
            max_files: crate::limits::LOG_FILES,
        }
    }
}

/// A health check as images and requests carry it; durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", script]`; empty inherits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    /// Between two checks; 0 inherits (30 s).
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one check; 0 inherits (30 s).
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Failures in this time do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks in the start period; 0 is 5 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy; 0 inherits (3).
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl ContainerSpec {
    /// A container of this image with nothing asked for: what the builder's steps start from.
    pub fn new(
        id: ContainerId,
        created: Timestamp,
        image_name: &str,
        image: Digest,
        layers: Vec<Digest>,
    ) -> Self {
        Self {
            id,
            name: String::new(),
            created,
            image_name: image_name.to_owned(),
            image,
            layers,
            process: ProcessSpec::default(),
            hostname: String::new(),
            domainname: String::new(),
            labels: BTreeMap::new(),
            mounts: Vec::new(),
            volumes_from: Vec::new(),
            network: NetworkMode::Attached(Attachment::default()),
            resolver: Resolver::default(),
            exposed_ports: Vec::new(),
            namespaces: Namespaces::default(),
            security: Security::default(),
            resources: Resources::default(),
            lifecycle: Lifecycle::Keep,
            stop: StopSpec::default(),
            log: LogSpec::default(),
            healthcheck: None,
            read_only_rootfs: false,
            init: None,
            shm_bytes: crate::launch::SHM_BYTES,
            sysctls: BTreeMap::new(),
            annotations: BTreeMap::new(),
            cidfile: String::new(),
            runtime: String::new(),
        }
    }
    /// The reference under which the image was asked for, where the name is one (it may be an image id).
    pub fn image_reference(&self) -> Option<Reference> {
        Reference::parse(&self.image_name).ok()
    }
}

impl ContainerSpec {
    /// Merges in what the image says where the user said nothing (moby `daemon/commit.go`, `merge`): user, working
    /// directory, command, entrypoint, environment, labels, ports, stop signal, health check. Volumes are the
    /// engine's business.
    pub fn merge_image(&mut self, image: &crate::image::RunConfig) {
        let process = &mut self.process;
        if process.user.is_empty() {
            process.user.clone_from(&image.user);
        }
        if process.working_dir.is_empty() {
            process.working_dir.clone_from(&image.working_dir);
        }
        // A name without a value keeps the image's out; it is still shown, as Docker does.
        fn name(entry: &str) -> &str {
            entry.split_once('=').map_or(entry, |(name, _)| name)
        }
        let of_image =
            image.env.iter().filter(|entry| !process.env.iter().any(|own| name(own) == name(entry)));
        let of_image: Vec<String> = of_image.cloned().collect();
        process.env.extend(of_image);
        if process.entrypoint.is_empty() {
            if process.command.is_empty() {
                process.command = image.cmd.clone().unwrap_or_default();
            }
            process.entrypoint = image.entrypoint.clone().unwrap_or_default();
        }
        // `--entrypoint ""` takes the image's away.
        if process.entrypoint == [""] {
            process.entrypoint.clear();
        }
        for (name, value) in image.labels.iter().flatten() {
            self.labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let exposed = image.exposed_ports.iter().flatten().filter_map(|(text, _)| Port::parse(text).ok());
        self.exposed_ports.extend(exposed);
        self.exposed_ports.sort_unstable();
        self.exposed_ports.dedup();
        if self.stop.signal.is_empty() {
            self.stop.signal = image.stop_signal.clone().unwrap_or_default();
        }
        self.healthcheck = match (self.healthcheck.take(), &image.healthcheck) {
            (None, inherited) => inherited.clone(),
            (Some(asked), Some(inherited)) => Some(asked.over(inherited)),
            (Some(asked), None) => Some(asked),
        };
    }
}

impl Healthcheck {
    /// This one, with `base`'s values where it says nothing.
    fn over(self, base: &Self) -> Self {
        let or = |value: i64, inherited: i64| if value == 0 { inherited } else { value };
        Self {
            test: self.test.filter(|test| !test.is_empty()).or_else(|| base.test.clone()),
            interval: or(self.interval, base.interval),
            timeout: or(self.timeout, base.timeout),
            start_period: or(self.start_period, base.start_period),
            start_interval: or(self.start_interval, base.start_interval),
            retries: or(self.retries, base.retries),
        }
    }
}

/// A boolean as Go's `strconv.ParseBool` takes it.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl LogSpec {
    /// What `--log-opt` knows.
    pub const OPTIONS: [&str; 10] = [
        "max-size",
        "max-file",
        "compress",
        "labels",
        "labels-regex",
        "env",
        "env-regex",
        "tag",
        "mode",
        "max-buffer-size",
    ];
    /// Fills in options that were not asked for, and reads `max-size` and `max-file`.
    ///
    /// # Errors
    /// Docker's texts for a malformed size or number.
    pub fn apply_defaults(&mut self, defaults: &BTreeMap<String, String>) -> Result<()> {
        if self.driver != "none" {
            for (name, value) in defaults {
                self.options.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let option = |name: &str| self.options.get(name);
        if let Some(text) = option("max-size")
            && text != "-1"
        {
            self.max_bytes = parse_size(text)
                .filter(|bytes| *bytes > 0)
                .ok_or_else(|| Error::invalid(format!("invalid value for max-size: {text}: invalid size")))?;
        }
        if let Some(text) = option("max-file") {
            self.max_files = text.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
                Error::invalid(format!("invalid value for max-file: {text}: must be a positive number"))
            })?;
        }
        if let Some(text) = self.options.get("compress")
            && go_bool(text).is_none()
        {
            return Err(Error::invalid(format!("invalid value for compress: {text}: want true or false")));
        }
        if self.driver == "json-file" && self.compresses() && self.max_files < 2 {
            return Err(Error::invalid("compress cannot be true when max-file is less than 2"));
        }
        Ok(())
    }
    /// Whether older files are compressed.
    pub fn compresses(&self) -> bool {
        self.options.get("compress").and_then(|text| go_bool(text)).unwrap_or_default()
    }
}

/// A list of processors or memory nodes as the kernel writes it, `0-2,7`; `None` where it is malformed or names one above
/// 8191.
pub fn parse_set(text: &str) -> Option<std::collections::BTreeSet<u16>> {
    let mut set = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

/// `10m`, `1.5g`, `64kb`, `1024`: bytes, in powers of 1024 as Docker reads sizes of memory and logs.
pub fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor: u64 = match lower[digits.len()..].trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let bytes = number * factor as f64;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}
