//! A loaded project: every key typed, every reference checked, in long forms only.

use crate::error::{Error, Result};
use crate::node::Node;
use crate::schema::duration;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Texts by name.
pub type Dict = BTreeMap<String, Option<String>>;

/// A project.
#[derive(Debug, Default)]
pub struct Project {
    /// Its name: labels, and the beginning of its resources' names.
    pub name: String,
    /// Its directory.
    pub directory: PathBuf,
    /// The files that it was loaded from.
    pub files: Vec<PathBuf>,
    /// The files of variables that were named.
    pub env_files: Vec<PathBuf>,
    /// Every file that was looked for to load it, there or not.
    pub read: Vec<PathBuf>,
    /// The variables that it was loaded with.
    pub environment: BTreeMap<String, String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Services that are on.
    pub services: BTreeMap<String, Service>,
    /// Services whose profiles are off.
    pub disabled: BTreeMap<String, Service>,
    /// Networks by key.
    pub networks: BTreeMap<String, Network>,
    /// Volumes by key.
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets by key.
    pub secrets: BTreeMap<String, Secret>,
    /// Configs by key.
    pub configs: BTreeMap<String, Secret>,
    /// The checked tree, with places.
    pub model: Option<Node>,
}

/// A service. Names are those of the specification.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Service {
    #[serde(skip)]
    pub name: String,
    /// `x-task` as the operator wrote it, with its places: it makes the service a task, which `up` does not start.
    #[serde(skip)]
    pub task: Option<Node>,
    pub annotations: Dict,
    pub attach: Option<bool>,
    pub blkio_config: Option<Blkio>,
    pub build: Option<Build>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub cgroup: Option<String>,
    pub cgroup_parent: Option<String>,
    pub command: Option<Vec<String>>,
    pub configs: Vec<Delivered>,
    pub container_name: Option<String>,
    pub cpu_count: Option<i64>,
    pub cpu_percent: Option<f64>,
    pub cpu_period: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpu_rt_period: Option<i64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpu_shares: Option<i64>,
    pub cpus: Option<f64>,
    pub cpuset: Option<String>,
    pub credential_spec: Option<Value>,
    pub depends_on: BTreeMap<String, Dependency>,
    pub deploy: Option<Deploy>,
    pub develop: Option<Develop>,
    pub device_cgroup_rules: Vec<String>,
    pub devices: Vec<Device>,
    pub dns: Vec<String>,
    pub dns_opt: Vec<String>,
    pub dns_search: Vec<String>,
    pub domainname: Option<String>,
    pub entrypoint: Option<Vec<String>>,
    pub environment: Dict,
    pub expose: Vec<String>,
    pub external_links: Vec<String>,
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    pub gpus: Option<Value>,
    pub group_add: Vec<String>,
    pub healthcheck: Option<Healthcheck>,
    pub hostname: Option<String>,
    pub image: Option<String>,
    pub init: Option<bool>,
    pub ipc: Option<String>,
    pub isolation: Option<String>,
    pub labels: Dict,
    pub links: Vec<String>,
    pub logging: Option<Logging>,
    pub mac_address: Option<String>,
    pub mem_limit: Option<i64>,
    pub mem_reservation: Option<i64>,
    pub mem_swappiness: Option<i64>,
    pub memswap_limit: Option<i64>,
    pub models: Option<Value>,
    pub network_mode: Option<String>,
    pub networks: BTreeMap<String, Option<Attachment>>,
    pub oom_kill_disable: Option<bool>,
    pub oom_score_adj: Option<i64>,
    pub pid: Option<String>,
    pub pids_limit: Option<i64>,
    pub platform: Option<String>,
    pub ports: Vec<Port>,
    pub post_start: Vec<Hook>,
    pub pre_start: Vec<Hook>,
    pub pre_stop: Vec<Hook>,
    pub privileged: Option<bool>,
    pub profiles: Vec<String>,
    pub provider: Option<Value>,
    pub pull_policy: Option<String>,
    pub pull_refresh_after: Option<String>,
    pub read_only: Option<bool>,
    pub restart: Option<String>,
    pub runtime: Option<String>,
    pub scale: Option<i64>,
    pub secrets: Vec<Delivered>,
    pub security_opt: Vec<String>,
    pub shm_size: Option<i64>,
    pub stdin_open: Option<bool>,
    pub stop_grace_period: Option<String>,
    pub stop_signal: Option<String>,
    pub storage_opt: Dict,
    pub sysctls: Dict,
    pub tmpfs: Vec<String>,
    pub tty: Option<bool>,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub use_api_socket: Option<bool>,
    pub user: Option<String>,
    pub userns_mode: Option<String>,
    pub uts: Option<String>,
    pub volumes: Vec<Mount>,
    pub volumes_from: Vec<String>,
    pub working_dir: Option<String>,
}

/// `build`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Build {
    pub additional_contexts: Dict,
    pub args: Dict,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    pub context: String,
    pub dockerfile: Option<String>,
    pub dockerfile_inline: Option<String>,
    pub entitlements: Vec<String>,
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    pub labels: Dict,
    pub network: Option<String>,
    pub no_cache: Option<bool>,
    pub no_cache_filter: Vec<String>,
    pub platforms: Vec<String>,
    pub pull: Option<bool>,
    pub secrets: Vec<Delivered>,
    pub shm_size: Option<i64>,
    pub ssh: Dict,
    pub tags: Vec<String>,
    pub target: Option<String>,
    pub ulimits: BTreeMap<String, Ulimit>,
}

/// A secret or config that a service gets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Delivered {
    pub source: String,
    pub target: Option<String>,
    pub uid: Option<String>,
    pub gid: Option<String>,
    pub mode: Option<u32>,
}

/// A dependency's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Condition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

impl Condition {
    /// As the specification spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceStarted => "service_started",
            Self::ServiceHealthy => "service_healthy",
            Self::ServiceCompletedSuccessfully => "service_completed_successfully",
        }
    }
}

/// A dependency.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Dependency {
    pub condition: Condition,
    #[serde(default)]
    pub restart: bool,
    #[serde(default)]
    pub required: bool,
}

/// `deploy`, as far as one engine does it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Deploy {
    pub labels: Dict,
    pub mode: Option<String>,
    pub replicas: Option<i64>,
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
}

/// `deploy.resources`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Resources {
    pub limits: Limits,
    pub reservations: Limits,
}

/// `deploy.resources.limits`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Limits {
    pub cpus: Option<f64>,
    pub memory: Option<i64>,
    pub pids: Option<i64>,
    pub devices: Option<Value>,
}

/// `deploy.restart_policy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct RestartPolicy {
    pub condition: Option<String>,
    pub max_attempts: Option<i64>,
}

/// `develop`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Develop {
    pub watch: Vec<WatchRule>,
}

/// A rule of `develop.watch`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct WatchRule {
    pub action: String,
    pub path: PathBuf,
    pub target: Option<String>,
    pub ignore: Vec<String>,
    pub include: Vec<String>,
    pub initial_sync: bool,
    pub exec: Option<Hook>,
}

/// A device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Device {
    pub source: String,
    pub target: Option<String>,
    pub permissions: Option<String>,
}

/// `healthcheck`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Healthcheck {
    pub disable: bool,
    pub interval: Option<String>,
    pub retries: Option<i64>,
    pub start_interval: Option<String>,
    pub start_period: Option<String>,
    pub test: Vec<String>,
    pub timeout: Option<String>,
}

/// `logging`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Logging {
    pub driver: Option<String>,
    pub options: Dict,
}

/// How a service is on a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Attachment {
    pub aliases: Vec<String>,
    pub driver_opts: Dict,
    pub gw_priority: Option<f64>,
    pub interface_name: Option<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    pub link_local_ips: Vec<String>,
    pub mac_address: Option<String>,
    pub priority: Option<f64>,
}

/// A published port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Port {
    pub host_ip: Option<String>,
    pub target: u16,
    pub published: Option<String>,
    pub protocol: Option<String>,
    pub mode: Option<String>,
}

/// A command at a point of a container's life.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Hook {
    pub command: Vec<String>,
    pub environment: Dict,
    pub image: Option<String>,
    pub per_replica: bool,
    pub privileged: bool,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    /// `x-once`, of `pre_start`: the volume that it prepares once, or false.
    #[serde(rename = "x-once")]
    pub once: Option<Value>,
}

/// `blkio_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Blkio {
    pub device_read_bps: Vec<Rate>,
    pub device_read_iops: Vec<Rate>,
    pub device_write_bps: Vec<Rate>,
    pub device_write_iops: Vec<Rate>,
    pub weight: Option<u16>,
    pub weight_device: Vec<Weight>,
}

/// A device's rate.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Rate {
    pub path: String,
    pub rate: i64,
}

/// A device's weight.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Weight {
    pub path: String,
    pub weight: usize,
}

/// A limit.
#[derive(Clone, Copy, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

/// A mount.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Mount {
    #[serde(rename = "type")]
    pub kind: String,
    pub source: Option<String>,
    pub target: String,
    pub read_only: bool,
    pub consistency: Option<String>,
    pub bind: Option<BindOptions>,
    pub volume: Option<VolumeOptions>,
    pub tmpfs: Option<TmpfsOptions>,
    pub image: Option<ImageOptions>,
}

/// `bind`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct BindOptions {
    pub propagation: Option<String>,
    pub create_host_path: Option<bool>,
    pub recursive: Option<String>,
    pub selinux: Option<String>,
}

/// `volume`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct VolumeOptions {
    pub labels: Dict,
    pub nocopy: Option<bool>,
    pub subpath: Option<String>,
}

/// `tmpfs`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct TmpfsOptions {
    pub size: Option<i64>,
    pub mode: Option<i64>,
}

/// `image`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ImageOptions {
    pub subpath: Option<String>,
}

/// A network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Network {
    pub name: String,
    pub driver: Option<String>,
    pub driver_opts: Dict,
    pub ipam: Option<Ipam>,
    pub external: bool,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub labels: Dict,
}

/// `ipam`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Ipam {
    pub driver: Option<String>,
    pub config: Vec<Pool>,
    pub options: Dict,
}

/// An address pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Pool {
    pub subnet: Option<String>,
    pub ip_range: Option<String>,
    pub gateway: Option<String>,
    pub aux_addresses: Dict,
}

/// A volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Volume {
    pub name: String,
    pub driver: Option<String>,
    pub driver_opts: Dict,
    pub external: bool,
    pub labels: Dict,
}

/// A secret or a config.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Secret {
    pub name: String,
    pub file: Option<PathBuf>,
    pub environment: Option<String>,
    pub content: Option<String>,
    pub external: bool,
    /// `x-command`: a command of this machine prints it.
    #[serde(rename = "x-command")]
    pub command: Option<Value>,
}

fn typed<T: serde::de::DeserializeOwned>(node: &Node, path: &str) -> Result<T> {
    serde_json::from_value(without_null(node.json()))
        .map_err(|error| Error::at(&node.place, format!("{path}: {error}")))
}

/// A key without a value is a key that is not there, but for names without one.
fn without_null(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let keeps = |key: &str| ["networks", "environment", "args", "labels"].contains(&key);
            let own = |(key, value): (String, Value)| match value {
                Value::Null => None,
                value if keeps(&key) => Some((key, value)),
                value => Some((key, without_null(value))),
            };
            Value::Object(map.into_iter().filter_map(own).collect())
        }
        other => other,
    }
}

impl Project {
    /// The types of a checked tree.
    pub(crate) fn typed(name: &str, model: Node) -> Result<Self> {
        let mut project = Self { name: name.to_owned(), ..Self::default() };
        for (key, entry) in model.get("services").and_then(Node::as_map).into_iter().flatten() {
            let mut service: Service = typed(&entry.node, &format!("services.{key}"))?;
            key.clone_into(&mut service.name);
            service.task = entry.node.get("x-task").cloned();
            project.services.insert(key.clone(), service);
        }
        project.networks = section(&model, "networks")?;
        project.volumes = section(&model, "volumes")?;
        project.secrets = section(&model, "secrets")?;
        project.configs = section(&model, "configs")?;
        project.model = Some(model);
        Ok(project)
    }

    /// Splits services by profile. Named services, and what they need, are on whatever their profiles are.
    pub(crate) fn activate(&mut self, profiles: &[String], named: &[String]) -> Result<()> {
        for name in named {
            if !self.services.contains_key(name) {
                return Err(self.no_service(name));
            }
        }
        let on = |service: &Service| {
            service.profiles.is_empty()
                || service.profiles.iter().any(|profile| profiles.contains(profile))
                || profiles.iter().any(|profile| profile == "*")
        };
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        let mut open: Vec<String> = named.to_vec();
        while let Some(name) = open.pop() {
            if let Some(service) = self.services.get(&name)
                && wanted.insert(name)
            {
                open.extend(
                    service.depends_on.iter().filter(|(_, need)| need.required).map(|(name, _)| name.clone()),
                );
            }
        }
        let all = std::mem::take(&mut self.services);
        for (name, service) in all {
            if on(&service) || wanted.contains(&name) {
                self.services.insert(name, service);
            } else {
                self.disabled.insert(name, service);
            }
        }
        for (name, service) in &self.services {
            for (need, dependency) in &service.depends_on {
                if dependency.required
                    && let Some(off) = self.disabled.get(need)
                {
                    return Err(Error::project(format!(
                        "service {need} is required by {name} but is disabled. Can be enabled by profiles [{}]",
                        off.profiles.join(" ")
                    )));
                }
            }
        }
        Ok(())
    }

    /// A service that is on.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn service(&self, name: &str) -> Result<&Service> {
        self.services.get(name).ok_or_else(|| self.no_service(name))
    }

    fn no_service(&self, name: &str) -> Error {
        let text = format!("no such service: {name}");
        let known = self.services.keys().chain(self.disabled.keys()).map(String::as_str);
        match crate::error::meant(name, known) {
            Some(known) => Error::project(format!("{text}\ndid you mean '{known}'?")),
            None => Error::project(text),
        }
    }

    /// The tree of a service.
    pub fn node(&self, service: &str) -> Option<&Node> {
        self.model.as_ref()?.at(&["services", service])
    }
}

fn section<T: serde::de::DeserializeOwned>(model: &Node, name: &str) -> Result<BTreeMap<String, T>> {
    let entries = model.get(name).and_then(Node::as_map).into_iter().flatten();
    entries.map(|(key, entry)| Ok((key.clone(), typed(&entry.node, &format!("{name}.{key}"))?))).collect()
}

/// What a pull policy that looks at an image's age wants, in nanoseconds.
pub(crate) fn refresh(policy: &str, after: Option<&str>) -> Option<i64> {
    match policy {
        "daily" => duration("1d"),
        "weekly" => duration("1w"),
        "refresh" => after.map_or(Some(0), duration),
        other => duration(other.strip_prefix("every_")?),
    }
}

impl Service {
    /// How many containers it wants.
    pub fn replicas(&self) -> i64 {
        self.scale.or_else(|| self.deploy.as_ref().and_then(|deploy| deploy.replicas)).unwrap_or(1)
    }

    /// Nanoseconds after which `pull_policy` wants the image pulled again; `None`: never for its age.
    pub fn refreshes_after(&self) -> Option<i64> {
        refresh(self.pull_policy.as_deref()?, self.pull_refresh_after.as_deref())
    }

    /// Whether it is a task: `up` does not start it by itself.
    pub fn is_task(&self) -> bool {
        self.task.is_some()
    }

    /// The service's container as a `pre_start` step changes it.
    pub fn step(&self, hook: &Hook) -> Self {
        let mut own = self.clone();
        own.healthcheck = None;
        own.task = None;
        own.command = Some(hook.command.clone()).filter(|words| !words.is_empty()).or(own.command);
        if hook.image.is_some() || !hook.command.is_empty() {
            own.entrypoint = Some(Vec::new());
        }
        own.image = hook.image.clone().or(own.image);
        own.user = hook.user.clone().or(own.user);
        own.working_dir = hook.working_dir.clone().or(own.working_dir);
        own.environment.extend(hook.environment.clone());
        own.privileged = if hook.privileged { Some(true) } else { own.privileged };
        own
    }

    /// The volume, by its key, that a `pre_start` step prepares once: the one that `x-once` names, else the only one that the
    /// service can write to. `None`: the step runs whenever the service starts.
    ///
    /// # Errors
    /// The volume that is named is not the service's.
    pub fn once(&self, hook: &Hook) -> Result<Option<&str>> {
        let volumes = self.volumes.iter().filter(|mount| mount.kind == "volume" && !mount.read_only);
        let mut volumes: BTreeSet<&str> = volumes.filter_map(|mount| mount.source.as_deref()).collect();
        match &hook.once {
            Some(Value::Bool(false)) => Ok(None),
            Some(Value::String(name)) => match volumes.get(name.as_str()) {
                Some(name) => Ok(Some(*name)),
                None => Err(Error::project(format!(
                    "services.{}.pre_start.x-once: the service writes to no volume {name}",
                    self.name
                ))),
            },
            Some(other) => Err(Error::project(format!(
                "services.{}.pre_start.x-once: {other} is neither a volume nor false",
                self.name
            ))),
            None if hook.per_replica || volumes.len() > 1 => Ok(None),
            None => Ok(volumes.pop_first()),
        }
    }

    /// Its image's name, given or by the project's.
    pub fn image_name(&self, project: &str) -> String {
        self.image.clone().unwrap_or_else(|| format!("{project}-{}", self.name))
    }
}
