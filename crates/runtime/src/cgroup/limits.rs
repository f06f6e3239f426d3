//! Limits: Docker's numbers to the kernel's files.

use model::container::{BlkioThrottle, HostPath, Resources};
use model::error::Context as _;
use model::{Error, Result};
use std::path::Path;

use super::{Cgroup, write};

/// One file to write. `optional`: its absence only means that this kernel cannot.
struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
    optional: bool,
}

impl Cgroup {
    /// Sets what is asked for and leaves the rest.
    ///
    /// # Errors
    /// Names the file that refused, and the value.
    pub fn set_limits(&self, resources: &Resources) -> Result<()> {
        let unified = |controller: &str| self.dir(controller).is_some_and(|(_, unified)| unified);
        let mut settings = memory(resources, unified("memory"));
        settings.extend(cpu(resources, unified("cpu"), unified("cpuset")));
        settings.extend(others(resources, unified("pids"), unified("blkio"))?);
        self.order_memory(&mut settings);
        for setting in settings {
            let Some((dir, _)) = self.dir(setting.controller) else { continue };
            let file = dir.join(setting.file);
            match write(&file, &setting.value) {
                Err(error) if setting.optional && error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.context(|| format!("write {:?} to {}", setting.value, file.display()))?,
            }
        }
        Ok(())
    }
    /// v1 keeps `limit <= memsw` at any moment: where the new limit is above the present memsw, memsw goes first.
    fn order_memory(&self, settings: &mut [Setting]) {
        let at = |name: &str, settings: &[Setting]| settings.iter().position(|setting| setting.file == name);
        let limit = at("memory.limit_in_bytes", settings);
        let (Some(limit), Some(swap)) = (limit, at("memory.memsw.limit_in_bytes", settings)) else { return };
        let present =
            self.dir("memory").and_then(|(dir, _)| read_number(&dir.join("memory.memsw.limit_in_bytes")));
        let wanted = settings[limit].value.parse::<u64>().unwrap_or(u64::MAX);
        if present.is_some_and(|present| wanted > present) {
            settings.swap(limit, swap);
        }
    }
}

pub(super) fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn memory(resources: &Resources, unified: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |v1: &'static str, v2: &'static str, value: String, optional| {
        let file = if unified { v2 } else { v1 };
        if !file.is_empty() {
            settings.push(Setting { controller: "memory", file, value, optional });
        }
    };
    if let Some(limit) = resources.memory.filter(|&limit| limit > 0) {
        add("memory.limit_in_bytes", "memory.max", limit.to_string(), false);
    }
    // As much swap as memory, unless said otherwise (moby `adaptContainerSettings`).
    let both = resources.memory_swap.filter(|&both| both != 0).or_else(|| {
        resources
            .memory
            .filter(|&limit| limit > 0)
            .and_then(|limit| i64::try_from(limit.saturating_mul(2)).ok())
    });
    if let Some(both) = both {
        let value = match (unified, both) {
            (true, -1) => "max".to_owned(),
            (true, both) => (both as u64).saturating_sub(resources.memory.unwrap_or(0)).to_string(),
            (false, both) => both.to_string(),
        };
        add("memory.memsw.limit_in_bytes", "memory.swap.max", value, true);
    }
    if let Some(soft) = resources.memory_reservation.filter(|&soft| soft > 0) {
        add("memory.soft_limit_in_bytes", "memory.low", soft.to_string(), true);
    }
    if let Some(swappiness) = resources.memory_swappiness {
        add("memory.swappiness", "", swappiness.to_string(), true);
    }
    if resources.oom_kill_disable {
        add("memory.oom_control", "", "1".to_owned(), true);
    }
    settings
}

fn cpu(resources: &Resources, unified: bool, unified_set: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add =
        |controller, file, value: String| settings.push(Setting { controller, file, value, optional: false });
    if let Some(shares) = resources.cpu_shares.filter(|&shares| shares > 0) {
        match unified {
            // 2..=262144 to 1..=10000 (the OCI runtime specification's conversion).
            true => {
                add("cpu", "cpu.weight", (1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142).to_string())
            }
            false => add("cpu", "cpu.shares", shares.to_string()),
        }
    }
    let period = resources.cpu_period.filter(|&period| period > 0);
    let quota = resources.cpu_quota.filter(|&quota| quota != 0);
    let (period, quota) = match resources.nano_cpus.filter(|&nano| nano > 0) {
        Some(nano) => (Some(100_000), Some((nano / 10_000) as i64)),
        None => (period, quota),
    };
    if unified && (period.is_some() || quota.is_some()) {
        let quota =
            quota.filter(|&quota| quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        add("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
    } else {
        if let Some(period) = period {
            add("cpu", "cpu.cfs_period_us", period.to_string());
        }
        if let Some(quota) = quota {
            add("cpu", "cpu.cfs_quota_us", quota.to_string());
        }
    }
    let _ = unified_set;
    for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            add("cpuset", file, value.clone());
        }
    }
    settings
}

fn others(resources: &Resources, unified_pids: bool, unified_io: bool) -> Result<Vec<Setting>> {
    let _ = unified_pids;
    let mut settings = Vec::new();
    if let Some(limit) = resources.pids_limit.filter(|&limit| limit != 0) {
        let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        settings.push(Setting { controller: "pids", file: "pids.max", value, optional: false });
    }
    if let Some(weight) = resources.blkio_weight.filter(|&weight| weight > 0) {
        let (file, value) = match unified_io {
            true => ("io.weight", 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990),
            false => ("blkio.weight", u64::from(weight)),
        };
        settings.push(Setting { controller: "blkio", file, value: value.to_string(), optional: true });
    }
    for (device, weight) in &resources.blkio_weight_device {
        let (major, minor) = device_number(device)?;
        let file = if unified_io { "io.bfq.weight" } else { "blkio.bfq.weight_device" };
        let value = format!("{major}:{minor} {weight}");
        settings.push(Setting { controller: "blkio", file, value, optional: true });
    }
    for (which, device, rate) in &resources.blkio_throttle {
        let (major, minor) = device_number(device)?;
        let (v1, v2) = match which {
            BlkioThrottle::ReadBps => ("blkio.throttle.read_bps_device", "rbps"),
            BlkioThrottle::WriteBps => ("blkio.throttle.write_bps_device", "wbps"),
            BlkioThrottle::ReadIops => ("blkio.throttle.read_iops_device", "riops"),
            BlkioThrottle::WriteIops => ("blkio.throttle.write_iops_device", "wiops"),
        };
        let (file, value) = match unified_io {
            true => ("io.max", format!("{major}:{minor} {v2}={rate}")),
            false => (v1, format!("{major}:{minor} {rate}")),
        };
        settings.push(Setting { controller: "blkio", file, value, optional: false });
    }
    Ok(settings)
}

/// Major and minor number of a device of the host.
fn device_number(device: &HostPath) -> Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let number = std::fs::metadata(device).context(|| format!("stat {}", device.as_ref().display()))?.rdev();
    if number == 0 {
        return Err(Error::invalid(format!("{} is no device", device.as_ref().display())));
    }
    Ok((rustix::fs::major(number), rustix::fs::minor(number)))
}
