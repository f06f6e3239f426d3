//! Counters.

use model::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::Path;

use super::Cgroup;
use super::limits::read_number;
use crate::Usage;

/// Clock ticks of /proc/stat are hundredths of a second on every Linux (`USER_HZ`).
const TICK: u64 = 10_000_000;

/// Reads the counters of a container.
///
/// # Errors
/// The cgroup is gone.
pub fn usage(path: &str) -> Result<Usage> {
    let cgroup = Cgroup::at(path)?;
    if !cgroup.groups().iter().any(|(_, dir)| dir.is_dir()) {
        return Err(Error::new(Kind::NotFound, format!("cgroup {path} does not exist")));
    }
    let mut usage = Usage::default();
    machine(&mut usage);
    cpu(&cgroup, &mut usage);
    memory(&cgroup, &mut usage);
    if let Some((dir, _)) = cgroup.dir("pids") {
        usage.pids = read_number(&dir.join("pids.current"))
            .unwrap_or_else(|| cgroup.pids().map_or(0, |pids| pids.len() as u64));
        usage.pids_limit = read_number(&dir.join("pids.max")).unwrap_or(0);
    }
    block(&cgroup, &mut usage);
    Ok(usage)
}

fn machine(usage: &mut Usage) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    for line in stat.lines().take_while(|line| line.starts_with("cpu")) {
        match line.strip_prefix("cpu ") {
            // user nice system idle iowait irq softirq steal, as moby counts them.
            Some(rest) => {
                let ticks: u64 =
                    rest.split_ascii_whitespace().take(8).filter_map(|field| field.parse::<u64>().ok()).sum();
                usage.machine_cpu = ticks * TICK;
            }
            None => usage.online_cpus += 1,
        }
    }
}

/// Lines of `name value`.
fn table(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn cpu(cgroup: &Cgroup, usage: &mut Usage) {
    if let Some((dir, unified)) = cgroup.dir("cpuacct") {
        if unified {
            let stat = table(&dir.join("cpu.stat"));
            let nanos = |name: &str| stat.get(name).copied().unwrap_or(0) * 1000;
            (usage.cpu_total, usage.cpu_user, usage.cpu_system) =
                (nanos("usage_usec"), nanos("user_usec"), nanos("system_usec"));
        } else {
            usage.cpu_total = read_number(&dir.join("cpuacct.usage")).unwrap_or(0);
            let each = std::fs::read_to_string(dir.join("cpuacct.usage_percpu")).unwrap_or_default();
            usage.cpu_each = each.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            let stat = table(&dir.join("cpuacct.stat"));
            usage.cpu_user = stat.get("user").copied().unwrap_or(0) * TICK;
            usage.cpu_system = stat.get("system").copied().unwrap_or(0) * TICK;
        }
    }
    if let Some((dir, unified)) = cgroup.dir("cpu") {
        let stat = table(&dir.join("cpu.stat"));
        let get = |name: &str| stat.get(name).copied().unwrap_or(0);
        let time = if unified { get("throttled_usec") * 1000 } else { get("throttled_time") };
        usage.throttling = (get("nr_periods"), get("nr_throttled"), time);
    }
}

fn memory(cgroup: &Cgroup, usage: &mut Usage) {
    let Some((dir, unified)) = cgroup.dir("memory") else { return };
    let (current, most, limit) = match unified {
        true => ("memory.current", "memory.peak", "memory.max"),
        false => ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes"),
    };
    usage.memory = read_number(&dir.join(current)).unwrap_or(0);
    usage.memory_max_usage = read_number(&dir.join(most)).unwrap_or(0);
    usage.memory_stat = table(&dir.join("memory.stat"));
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next()?.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(u64::MAX, |kilobytes| kilobytes * 1024);
    usage.memory_limit = read_number(&dir.join(limit)).unwrap_or(machine).min(machine);
}

fn block(cgroup: &Cgroup, usage: &mut Usage) {
    let Some((dir, unified)) = cgroup.dir("blkio") else { return };
    if unified {
        for line in std::fs::read_to_string(dir.join("io.stat")).unwrap_or_default().lines() {
            let mut words = line.split_ascii_whitespace();
            let Some((major, minor)) = words.next().and_then(device) else { continue };
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                let value = value.parse().unwrap_or(0);
                match name {
                    "rbytes" => usage.blkio_bytes.push((major, minor, "read".to_owned(), value)),
                    "wbytes" => usage.blkio_bytes.push((major, minor, "write".to_owned(), value)),
                    "rios" => usage.blkio_ops.push((major, minor, "read".to_owned(), value)),
                    "wios" => usage.blkio_ops.push((major, minor, "write".to_owned(), value)),
                    _ => {}
                }
            }
        }
        return;
    }
    let read = |file: &str| -> Vec<(u64, u64, String, u64)> {
        let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = device(words.next()?)?;
            Some((major, minor, words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    };
    usage.blkio_legacy = true;
    usage.blkio_bytes = read("blkio.throttle.io_service_bytes");
    usage.blkio_ops = read("blkio.throttle.io_serviced");
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
