//! The flags of `run` and `create`, and the request that they make.

use super::{files, mount, network, ports, resources};
use crate::args::{Given, flag, invalid, list, number, opt, rest};
use crate::fail::Failure;
use crate::render::{size, time};
use clap::{Arg, ArgMatches};
use client::bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigIsolationEnum, HostConfigLogConfig,
};
use std::collections::HashMap;
use std::path::Path;

/// The flags that `run` and `create` share.
pub fn args() -> Vec<Arg> {
    let mut args = process();
    args.extend(places());
    args.extend(limits());
    args.extend(accepted());
    args.push(rest("args", 1).value_name("IMAGE [COMMAND] [ARG...]"));
    args
}

fn process() -> Vec<Arg> {
    vec![
        list("attach", "a", "list", "Attach to STDIN, STDOUT or STDERR"),
        opt("cidfile", "", "string", "Write the container ID to the file"),
        opt("entrypoint", "", "string", "Overwrite the default ENTRYPOINT of the image"),
        list("env", "e", "list", "Set environment variables"),
        list("env-file", "", "list", "Read in a file of environment variables"),
        list("group-add", "", "list", "Add additional groups to join"),
        opt("health-cmd", "", "string", "Command to run to check health"),
        opt("health-interval", "", "duration", "Time between running the check (ms|s|m|h)"),
        opt("health-retries", "", "int", "Consecutive failures needed to report unhealthy"),
        opt("health-start-interval", "", "duration", "Time between checks during the start period"),
        opt("health-start-period", "", "duration", "Start period before counting retries towards unhealthy"),
        opt("health-timeout", "", "duration", "Maximum time to allow one check to run"),
        flag("no-healthcheck", "", "Disable any container-specified HEALTHCHECK"),
        opt("hostname", "h", "string", "Container host name"),
        opt("domainname", "", "string", "Container NIS domain name"),
        flag("init", "", "Run an init inside the container that forwards signals and reaps processes"),
        flag("interactive", "i", "Keep STDIN open even if not attached"),
        list("label", "l", "list", "Set meta data on a container"),
        list("label-file", "", "list", "Read in a line delimited file of labels"),
        list("annotation", "", "map", "Add an annotation to the container"),
        opt("log-driver", "", "string", "Logging driver for the container"),
        list("log-opt", "", "list", "Log driver options"),
        opt("name", "", "string", "Assign a name to the container"),
        opt("platform", "", "string", "Set platform if the engine is multi-platform capable"),
        opt("pull", "", "string", "Pull image before running (always|missing|never)"),
        opt("restart", "", "string", "Restart policy to apply when a container exits"),
        flag("rm", "", "Automatically remove the container and its anonymous volumes when it exits"),
        opt("stop-signal", "", "string", "Signal to stop the container"),
        opt("stop-timeout", "", "int", "Timeout (in seconds) to stop a container"),
        flag("tty", "t", "Allocate a pseudo-TTY"),
        opt("user", "u", "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
        opt("workdir", "w", "string", "Working directory inside the container"),
        flag("quiet", "q", "Suppress the pull output"),
    ]
}

fn places() -> Vec<Arg> {
    vec![
        list("add-host", "", "list", "Add a custom host-to-IP mapping (host:ip)"),
        list("dns", "", "list", "Set custom DNS servers"),
        list("dns-option", "", "list", "Set DNS options").alias("dns-opt"),
        list("dns-search", "", "list", "Set custom DNS search domains"),
        list("expose", "", "list", "Expose a port or a range of ports"),
        opt("ip", "", "string", "IPv4 address (e.g., 172.30.100.104)"),
        opt("ip6", "", "string", "IPv6 address"),
        list("link", "", "list", "Add link to another container, with its environment"),
        list("link-local-ip", "", "list", "Container IPv4/IPv6 link-local addresses"),
        opt("mac-address", "", "string", "Container MAC address"),
        list("network", "", "network", "Connect a container to a network").alias("net"),
        list("network-alias", "", "list", "Add network-scoped alias for the container").alias("net-alias"),
        list("publish", "p", "list", "Publish a container's port(s) to the host"),
        flag("publish-all", "P", "Publish all exposed ports to random ports"),
        list("volume", "v", "list", "Bind mount a volume"),
        list("mount", "", "mount", "Attach a filesystem mount to the container"),
        list("volumes-from", "", "list", "Mount volumes from the specified container(s)"),
        opt("volume-driver", "", "string", "Optional volume driver for the container"),
        list("tmpfs", "", "list", "Mount a tmpfs directory"),
        flag("read-only", "", "Mount the container's root filesystem as read only"),
        list("storage-opt", "", "list", "Storage driver options for the container"),
        list("cap-add", "", "list", "Add Linux capabilities"),
        list("cap-drop", "", "list", "Drop Linux capabilities"),
        opt("cgroupns", "", "string", "Cgroup namespace to use (host|private)"),
        opt("ipc", "", "string", "IPC mode to use"),
        opt("pid", "", "string", "PID namespace to use"),
        opt("uts", "", "string", "UTS namespace to use"),
        opt("userns", "", "string", "User namespace to use"),
        flag("privileged", "", "Give extended privileges to this container"),
        list("security-opt", "", "list", "Security options"),
        list("sysctl", "", "map", "Sysctl options"),
        list("device", "", "list", "Add a host device to the container"),
        list("device-cgroup-rule", "", "list", "Add a rule to the cgroup allowed devices list"),
        opt("gpus", "", "gpu-request", "GPU devices to add to the container"),
    ]
}

fn limits() -> Vec<Arg> {
    vec![
        opt("memory", "m", "bytes", "Memory limit"),
        opt("memory-reservation", "", "bytes", "Memory soft limit"),
        opt(
            "memory-swap",
            "",
            "bytes",
            "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
        ),
        opt("memory-swappiness", "", "int", "Tune container memory swappiness (0 to 100)"),
        opt("kernel-memory", "", "bytes", "Kernel memory limit").hide(true),
        opt("cpus", "", "decimal", "Number of CPUs"),
        opt("cpu-shares", "c", "int", "CPU shares (relative weight)"),
        opt("cpu-period", "", "int", "Limit CPU CFS period"),
        opt("cpu-quota", "", "int", "Limit CPU CFS quota"),
        opt("cpu-rt-period", "", "int", "Limit CPU real-time period in microseconds"),
        opt("cpu-rt-runtime", "", "int", "Limit CPU real-time runtime in microseconds"),
        opt("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
        opt("cpuset-mems", "", "string", "MEMs in which to allow execution (0-3, 0,1)"),
        opt("pids-limit", "", "int", "Tune container pids limit (set -1 for unlimited)"),
        opt("blkio-weight", "", "int", "Block IO (relative weight), between 10 and 1000"),
        list("blkio-weight-device", "", "list", "Block IO weight (relative device weight)"),
        list("device-read-bps", "", "list", "Limit read rate (bytes per second) from a device"),
        list("device-write-bps", "", "list", "Limit write rate (bytes per second) to a device"),
        list("device-read-iops", "", "list", "Limit read rate (IO per second) from a device"),
        list("device-write-iops", "", "list", "Limit write rate (IO per second) to a device"),
        flag("oom-kill-disable", "", "Disable OOM Killer"),
        opt("oom-score-adj", "", "int", "Tune host's OOM preferences (-1000 to 1000)"),
        opt("shm-size", "", "bytes", "Size of /dev/shm"),
        list("ulimit", "", "ulimit", "Ulimit options"),
        opt("cgroup-parent", "", "string", "Optional parent cgroup for the container"),
    ]
}

/// Taken as Docker takes them, without effect here.
fn accepted() -> Vec<Arg> {
    vec![
        opt("runtime", "", "string", "Runtime to use for this container").hide(true),
        opt("isolation", "", "string", "Container isolation technology").hide(true),
        flag("disable-content-trust", "", "Skip image verification").hide(true),
    ]
}

/// What a user asked for.
pub struct Request {
    /// The body of `POST /containers/create`.
    pub body: ContainerCreateBody,
    /// The image as it was named.
    pub image: String,
}

/// Reads the flags. `attached` holds for `run` without `-d`.
///
/// # Errors
/// Names the flag and what is wrong with it.
pub fn request(given: &ArgMatches, cwd: &Path) -> Result<Request, Failure> {
    let mut words = given.texts("args").into_iter();
    let image = words.next().unwrap_or_default();
    let command: Vec<String> = words.collect();
    if given.text("gpus").is_some() {
        return Err(Failure::new(
            "could not select device driver \"\" with capabilities: [[gpu]]\n--gpus is not supported; pass the device files with --device instead",
        ));
    }
    let mut exposed = Vec::new();
    let mut bindings = ports::Bindings::new();
    for flag in given.texts("publish") {
        ports::publish(&flag, &mut bindings)?;
    }
    for flag in given.texts("expose") {
        exposed.extend(ports::exposed(&flag)?);
    }
    exposed.extend(bindings.keys().cloned());
    exposed.sort();
    exposed.dedup();
    let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
    for flag in given.texts("volume") {
        match mount::volume(&flag, cwd)? {
            mount::Volume::Anonymous(target) => anonymous.push(target),
            mount::Volume::Bind(bind) => binds.push(bind),
        }
    }
    let (mode, networking) = network::networks(given)?;
    let mut host = host(given, cwd)?;
    host.network_mode = Some(mode.unwrap_or_else(|| "default".to_owned()));
    host.binds = some(binds);
    host.port_bindings = Some(bindings);
    let text = |name: &str| given.text(name).map(str::to_owned);
    let body = ContainerCreateBody {
        hostname: text("hostname"),
        domainname: text("domainname"),
        user: text("user"),
        tty: Some(given.on("tty")),
        open_stdin: Some(given.on("interactive")),
        env: Some(files::env(&given.texts("env-file"), &given.texts("env"))?),
        cmd: some(command),
        healthcheck: health(given)?,
        image: Some(image.clone()),
        volumes: some(anonymous),
        exposed_ports: some(exposed),
        working_dir: text("workdir"),
        // An empty entry point clears the image's; the API's word for it is one empty string.
        entrypoint: given.text("entrypoint").map(|entry| vec![entry.to_owned()]),
        labels: Some(files::labels(&given.texts("label-file"), &given.texts("label"))?),
        stop_signal: text("stop-signal"),
        stop_timeout: number(given, "stop-timeout")?,
        host_config: Some(host),
        networking_config: networking,
        ..ContainerCreateBody::default()
    };
    Ok(Request { body, image })
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn bytes(given: &ArgMatches, name: &str) -> Result<Option<i64>, Failure> {
    let read = |text: &str| match text {
        "-1" if name == "memory-swap" => Ok(-1),
        text => size::parse(text).map_err(|error| invalid(name, text, error)),
    };
    given.text(name).map(read).transpose()
}

fn nanos(given: &ArgMatches, name: &str) -> Result<Option<i64>, Failure> {
    let read = |text: &str| time::duration(text).map_err(|error| invalid(name, text, error));
    let value = given.text(name).map(read).transpose()?;
    if value.is_some_and(|value| value < 0) {
        return Err(Failure::new(format!("--{name} cannot be negative")));
    }
    Ok(value)
}

fn health(given: &ArgMatches) -> Result<Option<HealthConfig>, Failure> {
    let command = given.text("health-cmd");
    let config = HealthConfig {
        test: command.map(|command| vec!["CMD-SHELL".to_owned(), command.to_owned()]),
        interval: nanos(given, "health-interval")?,
        timeout: nanos(given, "health-timeout")?,
        retries: number(given, "health-retries")?
            .map(|count| if count < 0 { Err("--health-retries cannot be negative") } else { Ok(count) })
            .transpose()?,
        start_period: nanos(given, "health-start-period")?,
        start_interval: nanos(given, "health-start-interval")?,
    };
    if given.on("no-healthcheck") {
        if config != HealthConfig::default() {
            return Err(Failure::new("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
    }
    Ok((config != HealthConfig::default()).then_some(config))
}

fn host(given: &ArgMatches, cwd: &Path) -> Result<HostConfig, Failure> {
    let text = |name: &str| given.text(name).map(str::to_owned);
    let list = |name: &str| some(given.texts(name));
    let mut mounts = Vec::new();
    for flag in given.texts("mount") {
        mounts.push(mount::mount(&flag, cwd).map_err(|error| invalid("mount", &flag, error))?);
    }
    if given.on("rm") && given.text("restart").is_some_and(|policy| policy != "no") {
        return Err(Failure::new("conflicting options: cannot specify both --restart and --rm"));
    }
    let tmpfs = given
        .texts("tmpfs")
        .iter()
        .map(|flag| flag.split_once(':').unwrap_or((flag, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect::<HashMap<_, _>>();
    let log_opts = given.texts("log-opt");
    let log = (given.text("log-driver").is_some() || !log_opts.is_empty()).then(|| HostConfigLogConfig {
        typ: Some(text("log-driver").unwrap_or_default()),
        config: Some(files::pairs(&log_opts)),
    });
    let mut config = HostConfig {
        auto_remove: Some(given.on("rm")),
        annotations: list("annotation").map(|flags| files::pairs(&flags)),
        cap_add: list("cap-add"),
        cap_drop: list("cap-drop"),
        cgroupns_mode: given
            .text("cgroupns")
            .map(|mode| mode.parse().map_err(|_| "--cgroupns: invalid CGROUP mode"))
            .transpose()?,
        container_id_file: text("cidfile"),
        device_cgroup_rules: some(checked(given, "device-cgroup-rule", resources::device_rule)?),
        dns: some(checked(given, "dns", |text| match text.trim().parse::<std::net::IpAddr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
        })?),
        dns_options: list("dns-option"),
        dns_search: list("dns-search"),
        extra_hosts: some(hosts(&given.texts("add-host"))?),
        group_add: list("group-add"),
        init: given.switch("init"),
        ipc_mode: text("ipc"),
        links: some(checked(given, "link", |text| match text.split(':').count() {
            1 | 2 if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!("bad format for links: {text}")),
        })?),
        log_config: log,
        mounts: some(mounts),
        pid_mode: mode(given, "pid", "PID", true)?,
        isolation: isolation(given)?,
        privileged: Some(given.on("privileged")),
        publish_all_ports: Some(given.on("publish-all")),
        readonly_rootfs: Some(given.on("read-only")),
        restart_policy: given.text("restart").map(resources::restart).transpose()?,
        security_opt: some(security(&given.texts("security-opt"))?),
        shm_size: bytes(given, "shm-size")?,
        storage_opt: list("storage-opt").map(|flags| files::pairs(&flags)),
        sysctls: some(checked(given, "sysctl", resources::sysctl)?).map(|flags| files::pairs(&flags)),
        tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
        userns_mode: mode(given, "userns", "USER", false)?,
        uts_mode: mode(given, "uts", "UTS", false)?,
        volume_driver: text("volume-driver"),
        volumes_from: list("volumes-from"),
        runtime: text("runtime"),
        cgroup_parent: text("cgroup-parent"),
        oom_score_adj: number(given, "oom-score-adj")?,
        ..HostConfig::default()
    };
    limit(given, &mut config)?;
    Ok(config)
}

/// The limits, which `update` has too.
///
/// # Errors
/// Names the flag and what is wrong with it.
pub fn limit(given: &ArgMatches, config: &mut HostConfig) -> Result<(), Failure> {
    fn each<T>(
        given: &ArgMatches,
        name: &str,
        read: fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, Failure> {
        let values = given.texts(name);
        let read = values.iter().map(|text| read(text).map_err(|error| invalid(name, text, error)));
        Ok(some(read.collect::<Result<Vec<T>, _>>()?))
    }
    config.memory = bytes(given, "memory")?;
    config.memory_reservation = bytes(given, "memory-reservation")?;
    config.memory_swap = bytes(given, "memory-swap")?;
    config.memory_swappiness = number(given, "memory-swappiness")?;
    config.nano_cpus = given
        .text("cpus")
        .map(|text| resources::cpus(text).map_err(|error| invalid("cpus", text, error)))
        .transpose()?;
    config.cpu_shares = number(given, "cpu-shares")?;
    config.cpu_period = number(given, "cpu-period")?;
    config.cpu_quota = number(given, "cpu-quota")?;
    config.cpu_realtime_period = number(given, "cpu-rt-period")?;
    config.cpu_realtime_runtime = number(given, "cpu-rt-runtime")?;
    config.cpuset_cpus = given.text("cpuset-cpus").map(str::to_owned);
    config.cpuset_mems = given.text("cpuset-mems").map(str::to_owned);
    config.pids_limit = number(given, "pids-limit")?;
    config.blkio_weight = match number::<i64>(given, "blkio-weight")? {
        Some(weight) => Some(u16::try_from(weight).map_err(|_| "range of blkio weight is from 10 to 1000")?),
        None => None,
    };
    config.blkio_weight_device = each(given, "blkio-weight-device", resources::weight)?;
    config.blkio_device_read_bps = each(given, "device-read-bps", resources::throttle_bytes)?;
    config.blkio_device_write_bps = each(given, "device-write-bps", resources::throttle_bytes)?;
    config.blkio_device_read_iops = each(given, "device-read-iops", resources::throttle_operations)?;
    config.blkio_device_write_iops = each(given, "device-write-iops", resources::throttle_operations)?;
    config.ulimits = each(given, "ulimit", resources::ulimit)?;
    config.devices = each(given, "device", resources::device)?;
    config.oom_kill_disable = given.switch("oom-kill-disable");
    Ok(())
}

/// The values of a flag, each read by `read`.
fn checked(
    given: &ArgMatches,
    name: &str,
    read: fn(&str) -> Result<String, String>,
) -> Result<Vec<String>, Failure> {
    given.texts(name).iter().map(|text| read(text).map_err(|error| invalid(name, text, error))).collect()
}

/// A namespace's mode: the host's or, where `join`, another container's.
fn mode(given: &ArgMatches, name: &str, what: &str, join: bool) -> Result<Option<String>, Failure> {
    let Some(text) = given.text(name) else { return Ok(None) };
    let other = text.strip_prefix("container:").is_some_and(|other| join && !other.is_empty());
    if other || ["", "host"].contains(&text) || (name == "userns" && text == "private") {
        return Ok(Some(text.to_owned()));
    }
    Err(Failure::new(format!("--{name}: invalid {what} mode")))
}

fn isolation(given: &ArgMatches) -> Result<Option<HostConfigIsolationEnum>, Failure> {
    match given.text("isolation") {
        None | Some("") => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("default") => Ok(Some(HostConfigIsolationEnum::DEFAULT)),
        Some(text) => {
            Err(Failure::new(format!("Invalid isolation: \"{text}\" - linux only supports 'default'")))
        }
    }
}

fn hosts(flags: &[String]) -> Result<Vec<String>, Failure> {
    let mut out = Vec::new();
    for flag in flags {
        let (host, address) = flag
            .split_once('=')
            .or_else(|| flag.split_once(':'))
            .ok_or_else(|| invalid("add-host", flag, format_args!("bad format for add-host: \"{flag}\"")))?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || (address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err()) {
            return Err(invalid(
                "add-host",
                flag,
                format_args!("invalid IP address in add-host: \"{address}\""),
            ));
        }
        out.push(format!("{host}:{address}"));
    }
    Ok(out)
}

/// `seccomp=FILE` is read here: the engine may be on another machine.
fn security(flags: &[String]) -> Result<Vec<String>, Failure> {
    let mut out = Vec::new();
    for flag in flags {
        match flag.split_once('=').or_else(|| flag.split_once(':')) {
            None if flag != "no-new-privileges" => {
                return Err(Failure::new(format!("invalid --security-opt: {flag:?}")));
            }
            Some(("seccomp", profile)) if !["unconfined", "builtin"].contains(&profile) => {
                let path = Path::new(profile);
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let why = crate::fail::reason(&error);
                    Failure::new(format!("opening seccomp profile ({profile}) failed: open {profile}: {why}"))
                })?;
                let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
                    Failure::new(format!("compacting json for seccomp profile ({profile}) failed: {error}"))
                })?;
                out.push(format!("seccomp={value}"));
            }
            _ => out.push(flag.clone()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<serde_json::Value, String> {
        let command =
            clap::Command::new("run").disable_help_flag(true).args_override_self(true).args(super::args());
        let given = command
            .try_get_matches_from(std::iter::once("run").chain(args.iter().copied()))
            .map_err(|e| e.to_string())?;
        let request = request(&given, Path::new("/here")).map_err(|failure| failure.to_string())?;
        serde_json::to_value(&request.body).map_err(|error| error.to_string())
    }

    #[test]
    fn bodies() {
        let body = read(&[
            "-it",
            "--rm",
            "-p",
            "8080:80",
            "-v",
            "./x:/y:ro",
            "-v",
            "/anon",
            "-e",
            "A=b",
            "-m",
            "64m",
            "--cpus=.5",
            "--entrypoint",
            "",
            "busybox",
            "sh",
            "-c",
            "true",
        ])
        .unwrap();
        assert_eq!(body["Cmd"], serde_json::json!(["sh", "-c", "true"]));
        assert_eq!(body["Entrypoint"], serde_json::json!([""]));
        assert_eq!(body["HostConfig"]["Binds"], serde_json::json!(["/here/x:/y:ro"]));
        assert_eq!(body["Volumes"], serde_json::json!({"/anon": {}}));
        assert_eq!(body["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
        assert_eq!(body["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(body["HostConfig"]["Memory"], 64 << 20);
        assert_eq!(body["HostConfig"]["NanoCpus"], 500_000_000);
        assert_eq!((&body["Tty"], &body["OpenStdin"]), (&true.into(), &true.into()));
        assert_eq!(body["HostConfig"]["AutoRemove"], true);
        let body = read(&[
            "--network",
            "name=n,alias=a,alias=b",
            "--network-alias=c",
            "--health-cmd",
            "x",
            "--health-interval=5s",
            "i",
        ])
        .unwrap();
        assert_eq!(
            body["NetworkingConfig"]["EndpointsConfig"]["n"]["Aliases"],
            serde_json::json!(["a", "b", "c"])
        );
        assert_eq!(body["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "x"]));
        assert_eq!(body["Healthcheck"]["Interval"], 5_000_000_000_i64);
        assert_eq!(
            read(&["--add-host", "h:::1", "i"]).unwrap()["HostConfig"]["ExtraHosts"],
            serde_json::json!(["h:::1"])
        );
    }

    #[test]
    fn refused() {
        for args in [
            &["--rm", "--restart=always", "i"][..],
            &["--gpus", "all", "i"],
            &["-m", "x", "i"],
            &["--no-healthcheck", "--health-cmd=x", "i"],
            &["--network=host", "--network=n", "i"],
            &["--security-opt", "seccomp=/nonexistent", "i"],
            &["-p", "x", "i"],
        ] {
            assert!(read(args).is_err(), "{args:?}");
        }
    }
}
