//! Limits and devices of a request.

use bollard_stubs::models::{ContainerUpdateBody, HostConfig};
use engine::model::container::{
    BlkioThrottle, ContainerPath, Device, HostPath, Resources, Ulimit, parse_set,
};
use engine::model::{Error, Result};

const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
/// Docker's least `--memory`.
const MIN_MEMORY: u64 = 6 << 20;

/// A number that means "not set" at 0 or below.
fn positive(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

/// `--memory`: 0 is not set; what is below zero is too little.
fn memory(value: Option<i64>) -> Result<Option<u64>> {
    match u64::try_from(value.unwrap_or_default()) {
        Ok(0) => Ok(None),
        Ok(bytes) if bytes >= MIN_MEMORY => Ok(Some(bytes)),
        _ => Err(Error::invalid("Minimum memory limit allowed is 6MB")),
    }
}

fn word(value: Option<&String>) -> Option<String> {
    value.filter(|text| !text.is_empty()).cloned()
}

/// Limits of a create request.
pub(super) fn convert(host: &HostConfig, warnings: &mut Vec<String>) -> Result<Resources> {
    let mut throttle = Vec::new();
    for (which, list) in [
        (BlkioThrottle::ReadBps, &host.blkio_device_read_bps),
        (BlkioThrottle::WriteBps, &host.blkio_device_write_bps),
        (BlkioThrottle::ReadIops, &host.blkio_device_read_iops),
        (BlkioThrottle::WriteIops, &host.blkio_device_write_iops),
    ] {
        for device in list.iter().flatten() {
            let path = HostPath(device.path.clone().unwrap_or_default().into());
            throttle.push((which, path, positive(device.rate).unwrap_or_default()));
        }
    }
    let score = host.oom_score_adj.unwrap_or_default();
    if !(-1000..=1000).contains(&score) {
        return Err(Error::invalid(format!(
            "Invalid value {score}, range for oom score adj is [-1000, 1000]"
        )));
    }
    let memory = memory(host.memory)?;
    // Docker's default, which a later change of the memory alone leaves as it is.
    let twice = memory.and_then(|memory| i64::try_from(memory.saturating_mul(2)).ok());
    let resources = Resources {
        memory,
        memory_swap: host.memory_swap.filter(|value| *value != 0).or(twice),
        memory_reservation: positive(host.memory_reservation),
        memory_swappiness: swappiness(host.memory_swappiness)?,
        oom_kill_disable: host.oom_kill_disable.unwrap_or_default(),
        oom_score_adj: (score != 0).then(|| i32::try_from(score).unwrap_or_default()),
        nano_cpus: positive(host.nano_cpus),
        cpu_shares: positive(host.cpu_shares),
        cpu_period: positive(host.cpu_period),
        cpu_quota: host.cpu_quota.filter(|value| *value != 0),
        cpuset_cpus: word(host.cpuset_cpus.as_ref()),
        cpuset_mems: word(host.cpuset_mems.as_ref()),
        pids_limit: host.pids_limit.filter(|value| *value != 0),
        blkio_weight: host.blkio_weight.filter(|value| *value != 0),
        blkio_throttle: throttle,
        blkio_weight_device: weights(host)?,
        ulimits: ulimits(host)?,
        cgroup_parent: word(host.cgroup_parent.as_ref()),
    };
    check(&resources)?;
    if resources.memory.is_none() && resources.memory_swap.is_some_and(|swap| swap > 0) {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if let Some(parent) = &resources.cgroup_parent
        && parent.split('/').any(|part| part == "..")
    {
        return Err(Error::invalid(format!("invalid cgroup parent {parent:?}")));
    }
    if resources.oom_kill_disable && resources.memory.is_none() {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    Ok(resources)
}

/// Limits of an update request: what is 0 stays.
pub(super) fn update(body: &ContainerUpdateBody) -> Result<Resources> {
    let resources = Resources {
        memory: memory(body.memory)?,
        memory_swap: body.memory_swap.filter(|value| *value != 0),
        memory_reservation: positive(body.memory_reservation),
        nano_cpus: positive(body.nano_cpus),
        cpu_shares: positive(body.cpu_shares),
        cpu_period: positive(body.cpu_period),
        cpu_quota: body.cpu_quota.filter(|value| *value != 0),
        cpuset_cpus: word(body.cpuset_cpus.as_ref()),
        cpuset_mems: word(body.cpuset_mems.as_ref()),
        pids_limit: body.pids_limit.filter(|value| *value != 0),
        blkio_weight: body.blkio_weight.filter(|value| *value != 0),
        ..Resources::default()
    };
    check(&resources)?;
    Ok(resources)
}

/// Docker's checks (moby `verifyPlatformContainerResources`).
fn check(limits: &Resources) -> Result<()> {
    let fail = |text: String| Err(Error::invalid(text));
    if let (Some(memory), Some(swap)) = (limits.memory, limits.memory_swap)
        && swap > 0
        && swap.unsigned_abs() < memory
    {
        return fail("Minimum memoryswap limit should be larger than memory limit, see usage".to_owned());
    }
    if let (Some(memory), Some(reserved)) = (limits.memory, limits.memory_reservation)
        && memory < reserved
    {
        return fail(
            "Minimum memory limit can not be less than memory reservation limit, see usage".to_owned(),
        );
    }
    if limits.nano_cpus.is_some() && limits.cpu_period.is_some() {
        return fail("Conflicting options: Nano CPUs and CPU Period cannot both be set".to_owned());
    }
    if limits.nano_cpus.is_some() && limits.cpu_quota.is_some() {
        return fail("Conflicting options: Nano CPUs and CPU Quota cannot both be set".to_owned());
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if limits.nano_cpus.is_some_and(|nano| nano > cpus as u64 * 1_000_000_000) {
        return fail(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if limits.cpu_period.is_some_and(|period| !(1000..=1_000_000).contains(&period)) {
        return fail(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)".to_owned(),
        );
    }
    if limits.cpu_quota.is_some_and(|quota| (0..1000).contains(&quota)) {
        return fail("CPU cfs quota can not be less than 1ms (i.e. 1000)".to_owned());
    }
    check_set(limits.cpuset_cpus.as_ref(), "/sys/devices/system/cpu/online", "cpus", "CPUs")?;
    check_set(limits.cpuset_mems.as_ref(), "/sys/devices/system/node/online", "mems", "memory nodes")?;
    if limits.blkio_weight.is_some_and(|weight| !(10..=1000).contains(&weight)) {
        return fail("Range of blkio weight is from 10 to 1000".to_owned());
    }
    Ok(())
}

/// -1 is the kernel's own.
fn swappiness(value: Option<i64>) -> Result<Option<u64>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value @ 0..=100) => Ok(Some(value.unsigned_abs())),
        Some(value) => {
            Err(Error::invalid(format!("invalid value: {value}, valid memory swappiness range is 0-100")))
        }
    }
}

/// `--blkio-weight-device`.
fn weights(host: &HostConfig) -> Result<Vec<(HostPath, u16)>> {
    let read = |asked: &bollard_stubs::models::ResourcesBlkioWeightDevice| {
        let path = asked.path.clone().unwrap_or_default();
        match u16::try_from(asked.weight.unwrap_or_default()) {
            Ok(weight @ (0 | 10..=1000)) => Ok((HostPath(path.into()), weight)),
            _ => Err(Error::invalid(format!("range of blkio weight is from 10 to 1000: {path}"))),
        }
    };
    host.blkio_weight_device.iter().flatten().map(read).collect()
}

/// The numbers of a set, and whether they are all among what the machine has (moby `isCpusetListAvailable`).
fn check_set(asked: Option<&String>, online: &str, singular: &str, what: &str) -> Result<()> {
    let Some(asked) = asked else { return Ok(()) };
    let wanted = parse_set(asked).ok_or_else(|| {
        Error::invalid(format!("Invalid value {asked} for cpuset {singular}: invalid format: {asked}"))
    })?;
    let Ok(available) = std::fs::read_to_string(online) else { return Ok(()) };
    let available = available.trim();
    let Some(there) = parse_set(available) else { return Ok(()) };
    if wanted.is_subset(&there) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Requested {what} are not available - requested {asked}, available: {available}"
    )))
}

fn ulimits(host: &HostConfig) -> Result<Vec<Ulimit>> {
    let mut limits = Vec::new();
    for asked in host.ulimits.iter().flatten() {
        let name = asked.name.clone().unwrap_or_default();
        if !ULIMITS.contains(&name.as_str()) {
            return Err(Error::invalid(format!("invalid ulimit type: {name}")));
        }
        let (soft, hard) = (asked.soft.unwrap_or_default(), asked.hard.unwrap_or_default());
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        limits.push(Ulimit { name, soft, hard });
    }
    Ok(limits)
}

/// `--device`.
pub(super) fn devices(host: &HostConfig) -> Result<Vec<Device>> {
    if let Some(request) = host.device_requests.iter().flatten().next() {
        let driver = request.driver.clone().unwrap_or_default();
        let capabilities = request.capabilities.clone().unwrap_or_default();
        let shown: Vec<String> = capabilities.iter().map(|set| format!("[{}]", set.join(" "))).collect();
        return Err(Error::invalid(format!(
            "could not select device driver {driver:?} with capabilities: [{}]",
            shown.join(" ")
        )));
    }
    let mut devices = Vec::new();
    for asked in host.devices.iter().flatten() {
        let path = asked.path_on_host.clone().unwrap_or_default();
        let target = asked
            .path_in_container
            .clone()
            .filter(|target| !target.is_empty())
            .unwrap_or_else(|| path.clone());
        let permissions = asked
            .cgroup_permissions
            .clone()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "rwm".to_owned());
        if !permissions.bytes().all(|b| b"rwm".contains(&b)) {
            return Err(Error::invalid(format!("bad mode specified: {permissions}")));
        }
        devices.push(Device {
            host: HostPath(path.into()),
            container: ContainerPath::parse(&target)?,
            permissions,
        });
    }
    Ok(devices)
}
