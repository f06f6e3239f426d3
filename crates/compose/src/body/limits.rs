//! Resources: the service's own keys, and `deploy.resources` before them.

use crate::project::{Rate, Service};
use client::bollard::models::{
    DeviceMapping, HostConfig, ResourcesBlkioWeightDevice, ResourcesUlimits, ThrottleDevice,
};

pub fn apply(service: &Service, host: &mut HostConfig) {
    let resources = service.deploy.as_ref().map(|deploy| deploy.resources.clone()).unwrap_or_default();
    let cpus = resources.limits.cpus.or(service.cpus);
    host.nano_cpus = cpus.map(|cpus| (cpus * 1e9).round() as i64);
    host.memory = resources.limits.memory.or(service.mem_limit);
    host.memory_reservation = resources.reservations.memory.or(service.mem_reservation);
    host.memory_swap = service.memswap_limit;
    host.memory_swappiness = service.mem_swappiness;
    host.pids_limit = resources.limits.pids.or(service.pids_limit);
    host.cpu_shares = service.cpu_shares;
    host.cpu_period = service.cpu_period;
    host.cpu_quota = service.cpu_quota;
    host.cpu_realtime_period = service.cpu_rt_period;
    host.cpu_realtime_runtime = service.cpu_rt_runtime;
    host.cpu_count = service.cpu_count;
    host.cpu_percent = service.cpu_percent.map(|percent| percent as i64);
    host.cpuset_cpus.clone_from(&service.cpuset);
    host.oom_kill_disable = service.oom_kill_disable;
    host.oom_score_adj = service.oom_score_adj;
    host.shm_size = service.shm_size;
    let ulimits = service.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    });
    host.ulimits = super::some(ulimits.collect());
    let devices = service.devices.iter().map(|device| DeviceMapping {
        path_on_host: Some(device.source.clone()),
        path_in_container: Some(device.target.clone().unwrap_or_else(|| device.source.clone())),
        cgroup_permissions: Some(device.permissions.clone().unwrap_or_else(|| "rwm".to_owned())),
    });
    host.devices = super::some(devices.collect());
    host.device_cgroup_rules = super::some(service.device_cgroup_rules.clone());
    if let Some(blkio) = &service.blkio_config {
        let rates = |rates: &[Rate]| {
            let one = |rate: &Rate| ThrottleDevice { path: Some(rate.path.clone()), rate: Some(rate.rate) };
            super::some(rates.iter().map(one).collect())
        };
        host.blkio_weight = blkio.weight;
        host.blkio_device_read_bps = rates(&blkio.device_read_bps);
        host.blkio_device_read_iops = rates(&blkio.device_read_iops);
        host.blkio_device_write_bps = rates(&blkio.device_write_bps);
        host.blkio_device_write_iops = rates(&blkio.device_write_iops);
        let weights = blkio.weight_device.iter().map(|weight| ResourcesBlkioWeightDevice {
            path: Some(weight.path.clone()),
            weight: Some(weight.weight),
        });
        host.blkio_weight_device = super::some(weights.collect());
    }
}
