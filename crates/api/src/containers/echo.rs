//! `HostConfig` as inspect shows it: what was asked, Docker's defaults where nothing was, and what is in force now.

use engine::Engine;
use engine::container::Container;
use engine::model::Result;
use engine::model::container::{ContainerPath, IpcMode, Lifecycle, NamespaceMode, RestartPolicy};
use engine::model::{capability, launch};
use serde_json::{Map, Value, json};

use super::inspect::network_mode;

pub(super) fn host_config(engine: &Engine, container: &Container) -> Result<Value> {
    let mut value = defaults();
    if let Value::Object(asked) = container.host_config()? {
        for (key, asked) in asked {
            if !asked.is_null() {
                value.insert(key, asked);
            }
        }
    }
    in_force(container, &mut value);
    let links = engine.shown_links(container);
    value.insert("Links".to_owned(), if links.is_empty() { Value::Null } else { json!(links) });
    Ok(Value::Object(value))
}

/// Docker's `HostConfig` of a container for which nothing was asked.
fn defaults() -> Map<String, Value> {
    let mut map = Map::new();
    let mut all =
        |keys: &[&str], value: Value| map.extend(keys.iter().map(|key| ((*key).to_owned(), value.clone())));
    all(
        &[
            "Binds",
            "VolumesFrom",
            "CapAdd",
            "CapDrop",
            "ExtraHosts",
            "GroupAdd",
            "Links",
            "SecurityOpt",
            "DeviceCgroupRules",
            "DeviceRequests",
            "MemorySwappiness",
            "OomKillDisable",
            "PidsLimit",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "BlkioWeightDevice",
            "BlkioDeviceReadBps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteIOps",
            "Devices",
            "Ulimits",
        ],
        Value::Null,
    );
    all(
        &[
            "ContainerIDFile",
            "VolumeDriver",
            "Cgroup",
            "PidMode",
            "UTSMode",
            "UsernsMode",
            "Isolation",
            "CgroupParent",
            "CpusetCpus",
            "CpusetMems",
        ],
        Value::String(String::new()),
    );
    all(&["AutoRemove", "Privileged", "PublishAllPorts", "ReadonlyRootfs"], Value::Bool(false));
    all(
        &[
            "OomScoreAdj",
            "CpuShares",
            "Memory",
            "NanoCpus",
            "BlkioWeight",
            "CpuPeriod",
            "CpuQuota",
            "CpuRealtimePeriod",
            "CpuRealtimeRuntime",
            "MemoryReservation",
            "MemorySwap",
            "CpuCount",
            "CpuPercent",
            "IOMaximumIOps",
            "IOMaximumBandwidth",
        ],
        0.into(),
    );
    all(&["PortBindings"], json!({}));
    all(&["ConsoleSize"], json!([0, 0]));
    map
}

fn in_force(container: &Container, value: &mut Map<String, Value>) {
    let spec = &container.spec;
    let mut set = |key: &str, now: Value| {
        value.insert(key.to_owned(), now);
    };
    let (policy, retries) = match container.lifecycle() {
        Lifecycle::Keep | Lifecycle::RemoveOnExit => ("no", 0),
        Lifecycle::Restart(RestartPolicy::Always) => ("always", 0),
        Lifecycle::Restart(RestartPolicy::UnlessStopped) => ("unless-stopped", 0),
        Lifecycle::Restart(RestartPolicy::OnFailure { max_retries }) => ("on-failure", *max_retries),
    };
    set("RestartPolicy", json!({ "Name": policy, "MaximumRetryCount": retries }));
    set("NetworkMode", network_mode(container).into());
    set("LogConfig", json!({ "Type": spec.log.driver, "Config": spec.log.options }));
    set("ShmSize", spec.shm_bytes.into());
    set("Runtime", if spec.runtime.is_empty() { "runc".into() } else { spec.runtime.as_str().into() });
    set(
        "IpcMode",
        match &spec.namespaces.ipc {
            IpcMode::Private => "private".into(),
            IpcMode::Shareable => "shareable".into(),
            IpcMode::None => "none".into(),
            IpcMode::Host => "host".into(),
            IpcMode::Join(id) => format!("container:{id}").into(),
        },
    );
    set(
        "CgroupnsMode",
        if spec.namespaces.cgroup == NamespaceMode::Host { "host".into() } else { "private".into() },
    );
    let (masked, readonly) = launch::hidden_paths(&spec.security);
    let paths = |paths: Vec<ContainerPath>| match spec.security.privileged {
        true => Value::Null,
        false => json!(paths.iter().map(ContainerPath::as_str).collect::<Vec<_>>()),
    };
    set("MaskedPaths", paths(masked));
    set("ReadonlyPaths", paths(readonly));
    let capabilities = |list: &[String]| match list {
        [] => Value::Null,
        list => json!(list.iter().map(|name| capability::shown(name)).collect::<Vec<_>>()),
    };
    set("CapAdd", capabilities(&spec.security.cap_add));
    set("CapDrop", capabilities(&spec.security.cap_drop));
    let limits = container.resources();
    set("Memory", limits.memory.unwrap_or_default().into());
    set("MemorySwap", limits.memory_swap.unwrap_or_default().into());
    set("MemoryReservation", limits.memory_reservation.unwrap_or_default().into());
    set("NanoCpus", limits.nano_cpus.unwrap_or_default().into());
    set("CpuShares", limits.cpu_shares.unwrap_or_default().into());
    set("CpuPeriod", limits.cpu_period.unwrap_or_default().into());
    set("CpuQuota", limits.cpu_quota.unwrap_or_default().into());
    set("CpusetCpus", limits.cpuset_cpus.clone().unwrap_or_default().into());
    set("CpusetMems", limits.cpuset_mems.clone().unwrap_or_default().into());
    set("PidsLimit", limits.pids_limit.map_or(Value::Null, Into::into));
    set("BlkioWeight", limits.blkio_weight.unwrap_or_default().into());
}
