//! The one place where a create request becomes a [`ContainerSpec`]. Pure but for `resolve`, which finds the other
//! containers that a request names. Texts are Docker's, since tools match on them.

use bollard_stubs::models::{ContainerCreateBody, HealthConfig, HostConfig};
use engine::container::Request;
use engine::model::container::{
    Attachment, ContainerPath, ContainerSpec, Healthcheck, IpcMode, Lifecycle, Link, LogSpec, NamespaceMode,
    Namespaces, NetworkMode, Port, ProcessSpec, Resolver, RestartPolicy, Seccomp, Security, StopSpec,
};
use engine::model::{ContainerId, Digest, Error, Kind, Result, capability, launch, signal};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::{mounts, ports, resources};

/// Keys of a create request that are not of the container's configuration.
const OUTER: [&str; 3] = ["HostConfig", "NetworkingConfig", "Platform"];

/// Finds a container that a request names.
pub(super) type Resolve<'a> = &'a dyn Fn(&str) -> Result<ContainerId>;

/// A request as the engine takes it, and warnings for the user.
pub(super) fn request(
    name: Option<String>,
    mut body: Value,
    resolve: Resolve<'_>,
) -> Result<(Request, Vec<String>)> {
    let host_config = body.get("HostConfig").cloned().unwrap_or(Value::Null);
    normalise(&mut body)?;
    let mac = body.get("MacAddress").and_then(Value::as_str).unwrap_or_default().to_owned();
    let body: ContainerCreateBody = serde_json::from_value(body)
        .map_err(|error| Error::invalid("invalid JSON in the request's body").caused_by(error))?;
    let host = body.host_config.clone().unwrap_or_default();
    let image = body.image.clone().unwrap_or_default();
    if image.is_empty() {
        return Err(Error::invalid("no image was named"));
    }
    // The engine fills in id, digest and layers.
    let mut spec = ContainerSpec::new(
        ContainerId::from_bytes([0; 32]),
        engine::model::time::Timestamp::NEVER,
        &image,
        Digest::of(b""),
        Vec::new(),
    );
    let mut warnings = Vec::new();
    spec.process = process(&body, &host)?;
    spec.hostname = text(body.hostname.as_ref());
    spec.domainname = text(body.domainname.as_ref());
    spec.labels = body.labels.clone().unwrap_or_default().into_iter().collect();
    spec.exposed_ports =
        body.exposed_ports.iter().flatten().map(|text| Port::parse(text)).collect::<Result<_>>()?;
    let volume_options = mounts::convert(&body, &host, &mut spec)?;
    spec.volumes_from = host.volumes_from.clone().unwrap_or_default();
    if let Some(bad) = host.dns.iter().flatten().find(|text| text.parse::<std::net::IpAddr>().is_err()) {
        return Err(Error::invalid(format!("invalid DNS server: {bad:?} is not an IP address")));
    }
    spec.resolver = Resolver {
        servers: list(host.dns.as_ref()),
        search: list(host.dns_search.as_ref()),
        options: list(host.dns_options.as_ref()),
        extra_hosts: list(host.extra_hosts.as_ref()),
    };
    for text in &spec.resolver.extra_hosts {
        engine::model::hosts::check_extra_host(text)?;
    }
    spec.namespaces = namespaces(&host, resolve)?;
    spec.network = network(&body, &host, &mac, &mut spec, resolve, &mut warnings)?;
    spec.security = security(&host)?;
    spec.resources = resources::convert(&host, &mut warnings)?;
    spec.lifecycle = lifecycle(&host)?;
    spec.stop = StopSpec { signal: text(body.stop_signal.as_ref()), timeout: body.stop_timeout };
    if !spec.stop.signal.is_empty() {
        signal::parse(&spec.stop.signal)?;
    }
    spec.log = log(&host)?;
    spec.healthcheck = body.healthcheck.as_ref().map(healthcheck).transpose()?;
    spec.read_only_rootfs = host.readonly_rootfs.unwrap_or_default();
    spec.init = host.init;
    spec.shm_bytes = match host.shm_size.unwrap_or_default() {
        0 => launch::SHM_BYTES,
        size => u64::try_from(size).map_err(|_| Error::invalid("SHM size can not be less than 0"))?,
    };
    spec.sysctls = sysctls(&host, &spec)?;
    spec.annotations = host.annotations.clone().unwrap_or_default().into_iter().collect();
    spec.cidfile = text(host.container_id_file.as_ref());
    spec.runtime = text(host.runtime.as_ref());
    if !["", "runc", "io.containerd.runc.v2", "cauldron"].contains(&spec.runtime.as_str()) {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {}", spec.runtime)));
    }
    if host.storage_opt.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err(Error::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    Ok((Request { name, spec, host_config, volume_options, platform: None }, warnings))
}

/// Shapes that Docker takes and the generated structures do not: a command as one string, a policy in words that are
/// none.
fn normalise(body: &mut Value) -> Result<()> {
    if body.as_object().is_none_or(|body| body.keys().all(|key| OUTER.contains(&key.as_str()))) {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    }
    for key in ["Cmd", "Entrypoint"] {
        if let Some(Value::String(text)) = body.get(key) {
            body[key] = Value::Array(vec![Value::String(text.clone())]);
        }
    }
    let Some(host) = body.get_mut("HostConfig").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    if let Some(isolation) = host.get("Isolation").and_then(Value::as_str)
        && !["", "default"].contains(&isolation.to_ascii_lowercase().as_str())
    {
        return Err(Error::invalid(format!(
            "invalid isolation {isolation:?}: linux only supports 'default'"
        )));
    }
    check_policy(host)?;
    if let Some(mounts) = host.get("Mounts").and_then(Value::as_array) {
        mounts.iter().try_for_each(mounts::check_words)?;
    }
    if let Some(mode) = host.get("CgroupnsMode").and_then(Value::as_str)
        && !["", "private", "host"].contains(&mode)
    {
        return Err(Error::invalid(format!("invalid cgroup namespace mode: {mode}")));
    }
    Ok(())
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

fn list(value: Option<&Vec<String>>) -> Vec<String> {
    value.cloned().unwrap_or_default()
}

fn process(body: &ContainerCreateBody, host: &HostConfig) -> Result<ProcessSpec> {
    let working_dir = text(body.working_dir.as_ref());
    if !working_dir.is_empty() && !working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{working_dir}' is invalid, it needs to be an absolute path"
        )));
    }
    let env = list(body.env.as_ref());
    if let Some(bad) =
        env.iter().find(|entry| entry.starts_with('=') || entry.is_empty() || entry.contains('\0'))
    {
        return Err(Error::invalid(format!("invalid environment variable: {bad}")));
    }
    if let Some(bad) =
        [&body.cmd, &body.entrypoint].into_iter().flatten().flatten().find(|argument| argument.contains('\0'))
    {
        return Err(Error::invalid(format!("an argument contains a NUL byte: {bad:?}")));
    }
    let size = host.console_size.as_deref().unwrap_or_default();
    let console_size = match size {
        [rows, columns] if *rows > 0 && *columns > 0 => {
            Some((u16::try_from(*rows).unwrap_or(u16::MAX), u16::try_from(*columns).unwrap_or(u16::MAX)))
        }
        _ => None,
    };
    Ok(ProcessSpec {
        entrypoint: list(body.entrypoint.as_ref()),
        command: list(body.cmd.as_ref()),
        env,
        working_dir,
        user: text(body.user.as_ref()),
        additional_groups: list(host.group_add.as_ref()),
        tty: body.tty.unwrap_or_default(),
        open_stdin: body.open_stdin.unwrap_or_default(),
        stdin_once: body.stdin_once.unwrap_or_default(),
        attach_stdin: body.attach_stdin.unwrap_or_default(),
        attach_stdout: body.attach_stdout.unwrap_or_default(),
        attach_stderr: body.attach_stderr.unwrap_or_default(),
        console_size,
    })
}

fn namespaces(host: &HostConfig, resolve: Resolve<'_>) -> Result<Namespaces> {
    let mode = |value: Option<&String>, what: &str, join: bool| -> Result<NamespaceMode> {
        match value.map_or("", String::as_str) {
            "" | "private" => Ok(NamespaceMode::Private),
            "host" => Ok(NamespaceMode::Host),
            text => match text.strip_prefix("container:").filter(|name| join && !name.is_empty()) {
                Some(name) => Ok(NamespaceMode::Join(resolve(name)?)),
                None => Err(Error::invalid(format!("invalid {what} mode: {text}"))),
            },
        }
    };
    let ipc = match host.ipc_mode.as_deref().unwrap_or_default() {
        "" | "private" => IpcMode::Private,
        "shareable" => IpcMode::Shareable,
        "none" => IpcMode::None,
        "host" => IpcMode::Host,
        text => match text.strip_prefix("container:").filter(|name| !name.is_empty()) {
            Some(name) => IpcMode::Join(resolve(name)?),
            None => return Err(Error::invalid(format!("invalid IPC mode: {text}"))),
        },
    };
    let cgroup = host.cgroupns_mode.map(|mode| mode.to_string());
    Ok(Namespaces {
        pid: mode(host.pid_mode.as_ref(), "PID", true)?,
        ipc,
        uts: mode(host.uts_mode.as_ref(), "UTS", false)?,
        cgroup: mode(cgroup.as_ref(), "cgroup namespace", false)?,
        user: mode(host.userns_mode.as_ref(), "user namespace", false)?,
    })
}

fn network(
    body: &ContainerCreateBody,
    host: &HostConfig,
    mac: &str,
    spec: &mut ContainerSpec,
    resolve: Resolve<'_>,
    warnings: &mut Vec<String>,
) -> Result<NetworkMode> {
    let mode = match host.network_mode.as_deref().unwrap_or_default() {
        _ if body.network_disabled.unwrap_or_default() => "none",
        "" | "default" => "bridge",
        mode => mode,
    };
    let bindings = ports::bindings(host.port_bindings.as_ref())?;
    let publishes = !bindings.is_empty() || host.publish_all_ports.unwrap_or_default();
    let conflict = |text: &str| Err(Error::invalid(format!("conflicting options: {text}")));
    if spec.namespaces.uts == NamespaceMode::Host && !spec.hostname.is_empty() {
        return conflict("hostname and the UTS mode");
    }
    let links = links(host.links.as_deref().unwrap_or_default())?;
    match mode {
        "none" => return Ok(NetworkMode::None),
        "host" => {
            if !links.is_empty() {
                return conflict(
                    "host type networking can't be used with links. This would result in undefined behavior",
                );
            }
            if publishes {
                warnings.push("Published ports are discarded when using host network mode".to_owned());
            }
            return Ok(NetworkMode::Host);
        }
        _ => {}
    }
    if let Some(name) = mode.strip_prefix("container:") {
        joined(host, spec, mac, publishes, !links.is_empty())?;
        return Ok(NetworkMode::Join(resolve(name)?));
    }
    for binding in &bindings {
        if !spec.exposed_ports.contains(&binding.container) {
            spec.exposed_ports.push(binding.container);
        }
    }
    let endpoints = ports::endpoints(mode, mac, body.networking_config.as_ref())?;
    let user_defined = mode != "bridge";
    let mut attachment = Attachment {
        endpoints,
        ports: bindings,
        publish_all: host.publish_all_ports.unwrap_or_default(),
        links: Vec::new(),
    };
    if user_defined {
        if let Some(first) = attachment.endpoints.first_mut() {
            first.links.extend(links);
        }
    } else {
        // By id: a link outlives the other container's name.
        for link in links {
            let name = &link.container;
            let found = resolve(name).map_err(|error| match error.kind() {
                Kind::NotFound => Error::invalid(format!("could not get container for {name}: {error}")),
                _ => error,
            })?;
            let container = found.to_string();
            attachment.links.push(Link { container, ..link });
        }
    }
    Ok(NetworkMode::Attached(attachment))
}

/// What a container in another's network cannot have (moby `runconfig/hostconfig_unix.go`).
fn joined(host: &HostConfig, spec: &ContainerSpec, mac: &str, publishes: bool, links: bool) -> Result<()> {
    let conflicts = [
        (!spec.hostname.is_empty(), "hostname and the network mode"),
        (links, "container type network can't be used with links. This would result in undefined behavior"),
        (!spec.resolver.servers.is_empty(), "dns and the network mode"),
        (!spec.resolver.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (!mac.is_empty(), "mac-address and the network mode"),
        (publishes, "port publishing and the container type network mode"),
        (!spec.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ];
    let _ = host;
    match conflicts.iter().find(|(holds, _)| *holds) {
        Some((_, what)) => Err(Error::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

/// `container[:alias]`, also as inspect shows it (`/container:/own/alias`). On a network of a user's the container need not
/// be there yet.
pub(super) fn links(asked: &[String]) -> Result<Vec<Link>> {
    asked
        .iter()
        .map(|text| {
            let (name, alias) = text.split_once(':').unwrap_or((text, text));
            let name = name.trim_start_matches('/');
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            if name.is_empty() || alias.is_empty() || alias.contains(':') {
                return Err(Error::invalid(format!("bad format for links: {text}")));
            }
            Ok(Link { container: name.to_owned(), alias: alias.to_owned() })
        })
        .collect()
}

fn security(host: &HostConfig) -> Result<Security> {
    let paths = |list: Option<&Vec<String>>| -> Result<Option<Vec<ContainerPath>>> {
        list.map(|list| list.iter().map(|path| ContainerPath::parse(path)).collect()).transpose()
    };
    let caps = |list: Option<&Vec<String>>, what: &str| -> Result<Vec<String>> {
        let list = list.into_iter().flatten();
        list.map(|text| capability::normalise(text).map_err(|error| error.within(format!("invalid {what}"))))
            .collect()
    };
    let mut security = Security {
        privileged: host.privileged.unwrap_or_default(),
        cap_add: caps(host.cap_add.as_ref(), "CapAdd")?,
        cap_drop: caps(host.cap_drop.as_ref(), "CapDrop")?,
        masked_paths: paths(host.masked_paths.as_ref())?,
        readonly_paths: paths(host.readonly_paths.as_ref())?,
        options: list(host.security_opt.as_ref()),
        devices: resources::devices(host)?,
        device_rules: list(host.device_cgroup_rules.as_ref()),
        ..Security::default()
    };
    for rule in &security.device_rules {
        launch::parse_device_rule(rule)?;
    }
    for option in security.options.clone() {
        security_option(&option, &mut security)?;
    }
    Ok(security)
}

fn security_option(option: &str, security: &mut Security) -> Result<()> {
    let bad = || Error::invalid(format!("invalid --security-opt: {option:?}"));
    // The profile itself has both signs in it: the first one parts.
    let at = option.find(['=', ':']);
    let (name, value) = at.map_or((option, ""), |at| (&option[..at], &option[at + 1..]));
    match name {
        "no-new-privileges" => {
            security.no_new_privileges = match value {
                "" | "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(bad()),
            };
        }
        "seccomp" => {
            security.seccomp = match value {
                "unconfined" => Seccomp::Unconfined,
                "builtin" => Seccomp::Default,
                profile => {
                    serde_json::from_str::<Value>(profile).map_err(|error| {
                        Error::invalid("Decoding seccomp profile failed").caused_by(error)
                    })?;
                    Seccomp::Profile(profile.to_owned())
                }
            };
        }
        "systempaths" if value == "unconfined" => {
            (security.masked_paths, security.readonly_paths) = (Some(Vec::new()), Some(Vec::new()));
        }
        // There is no such module in force: accepted, as Docker does where the kernel has none.
        "apparmor" | "label" | "writable-cgroups" => {}
        _ => return Err(bad()),
    }
    Ok(())
}

/// Refuses a restart policy in words that are none; `holder` has the key `RestartPolicy`.
pub(super) fn check_policy(holder: &Map<String, Value>) -> Result<()> {
    let name = holder
        .get("RestartPolicy")
        .and_then(|policy| policy.get("Name"))
        .and_then(Value::as_str)
        .unwrap_or("");
    if ["", "no", "always", "on-failure", "unless-stopped"].contains(&name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    )))
}

/// A restart policy; `None` where nothing is said.
pub(super) fn policy(asked: Option<&bollard_stubs::models::RestartPolicy>) -> Result<Option<Lifecycle>> {
    let Some(asked) = asked else { return Ok(None) };
    let name = asked.name.map(|name| name.to_string()).unwrap_or_default();
    let retries = asked.maximum_retry_count.unwrap_or_default();
    if retries < 0 {
        return Err(Error::invalid("invalid restart policy: maximum retry count cannot be negative"));
    }
    if retries != 0 && name != "on-failure" {
        return Err(Error::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    Ok(match name.as_str() {
        "always" => Some(Lifecycle::Restart(RestartPolicy::Always)),
        "unless-stopped" => Some(Lifecycle::Restart(RestartPolicy::UnlessStopped)),
        "on-failure" => Some(Lifecycle::Restart(RestartPolicy::OnFailure {
            max_retries: u32::try_from(retries).unwrap_or(u32::MAX),
        })),
        "no" => Some(Lifecycle::Keep),
        _ => None,
    })
}

fn lifecycle(host: &HostConfig) -> Result<Lifecycle> {
    let policy = policy(host.restart_policy.as_ref())?.unwrap_or_default();
    match (host.auto_remove.unwrap_or_default(), policy) {
        (true, Lifecycle::Restart(_)) => {
            Err(Error::invalid("can't create 'AutoRemove' container with restart policy"))
        }
        (true, _) => Ok(Lifecycle::RemoveOnExit),
        (false, policy) => Ok(policy),
    }
}

fn log(host: &HostConfig) -> Result<LogSpec> {
    let config = host.log_config.clone().unwrap_or_default();
    let driver = match config.typ.as_deref().unwrap_or_default() {
        "" | "json-file" => "json-file",
        "local" => "local",
        "none" => "none",
        other => {
            return Err(Error::invalid(format!(
                "error looking up logging plugin {other}: plugin \"{other}\" not found"
            )));
        }
    };
    let options: BTreeMap<String, String> = config.config.unwrap_or_default().into_iter().collect();
    if driver != "none"
        && let Some(bad) = options.keys().find(|name| !LogSpec::OPTIONS.contains(&name.as_str()))
    {
        return Err(Error::invalid(format!("unknown log opt '{bad}' for {driver} log driver")));
    }
    Ok(LogSpec { driver: driver.to_owned(), options, ..LogSpec::default() })
}

fn healthcheck(asked: &HealthConfig) -> Result<Healthcheck> {
    let duration = |value: Option<i64>, what: &str| match value.unwrap_or_default() {
        0 => Ok(0),
        nanos if nanos < 1_000_000 => {
            Err(Error::invalid(format!("{what} in Healthcheck cannot be less than 1ms")))
        }
        nanos => Ok(nanos),
    };
    let retries = asked.retries.unwrap_or_default();
    if retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(Healthcheck {
        test: asked.test.clone(),
        interval: duration(asked.interval, "Interval")?,
        timeout: duration(asked.timeout, "Timeout")?,
        start_period: duration(asked.start_period, "StartPeriod")?,
        start_interval: duration(asked.start_interval, "StartInterval")?,
        retries,
    })
}

/// Only what is a namespace's own may be set (runc `validateSysctls`).
fn sysctls(host: &HostConfig, spec: &ContainerSpec) -> Result<BTreeMap<String, String>> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let all: BTreeMap<String, String> = host.sysctls.clone().unwrap_or_default().into_iter().collect();
    for name in all.keys() {
        let plain = name.replace('/', ".");
        let (own, what) = if IPC.contains(&plain.as_str()) || plain.starts_with("fs.mqueue.") {
            (!matches!(spec.namespaces.ipc, IpcMode::Host), "IPC")
        } else if plain.starts_with("net.") {
            (!matches!(spec.network, NetworkMode::Host), "network")
        } else if plain == "kernel.hostname" {
            return Err(Error::invalid(format!(
                "sysctl \"{name}\" is not allowed as it conflicts with the OCI \"hostname\" field"
            )));
        } else if plain == "kernel.domainname" {
            (spec.namespaces.uts != NamespaceMode::Host, "UTS")
        } else {
            return Err(Error::invalid(format!("sysctl \"{name}\" is not in a separate kernel namespace")));
        };
        if !own {
            return Err(Error::invalid(format!("sysctl \"{name}\" not allowed in host {what} namespace")));
        }
    }
    Ok(all)
}
