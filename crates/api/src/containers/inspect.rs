//! `GET /containers/{id}/json`

use axum::extract::{Path, State};
use axum::{Json, Router, routing};
use engine::Engine;
use engine::container::{Container, NetworkView};
use engine::model::Result;
use engine::model::container::{ContainerPath, EndpointSpec, Healthcheck, Link, MountSource, NetworkMode};
use engine::model::state::Status;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::echo;
use super::list::mount_point;
use crate::input::Params;
use crate::{ApiVersion, Failure, Shared, call};

pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
    router.route("/containers/{id}/json", routing::get(inspect))
}

async fn inspect(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    version: ApiVersion,
    params: Params,
) -> std::result::Result<Json<Value>, Failure> {
    let size = params.flag("size");
    let mut value = call(&engine, move |engine| describe(engine, &engine.find(&id)?, size)).await?;
    as_of(version, &mut value);
    Ok(Json(value))
}

/// Takes away what an API version did not have yet, and gives back what it still had: a container's short id was among its
/// aliases up to 1.44.
fn as_of(version: ApiVersion, value: &mut Value) {
    let short: String = value["Id"].as_str().unwrap_or_default().chars().take(12).collect();
    let Some(networks) = value["NetworkSettings"]["Networks"].as_object_mut() else { return };
    for (name, end) in networks.iter_mut() {
        let Some(end) = end.as_object_mut() else { continue };
        if version < ApiVersion(1, 48) {
            end.remove("GwPriority");
        }
        if version < ApiVersion(1, 44) {
            end.remove("DNSNames");
        }
        if version < ApiVersion(1, 45) && !["bridge", "host", "none"].contains(&name.as_str()) {
            let mut aliases = end.get("Aliases").and_then(Value::as_array).cloned().unwrap_or_default();
            if !aliases.iter().any(|alias| *alias == short) {
                aliases.push(short.clone().into());
            }
            end.insert("Aliases".to_owned(), Value::Array(aliases));
        }
    }
}

fn describe(engine: &Engine, container: &Container, size: bool) -> Result<Value> {
    let spec = &container.spec;
    let view = engine.network_view(container)?;
    let argv = spec.process.argv();
    let file = |name: &str| container.dir.join(name).to_string_lossy().into_owned();
    let exec_ids = container.exec_ids();
    let [lower, upper, work] = engine.overlay_dirs(container);
    let written = !container.state.started_at.is_never();
    let path = |name: &str| if written { file(name) } else { String::new() };
    let mut value = json!({
        "Id": spec.id.as_str(),
        "Created": spec.created,
        "Path": argv.first().cloned().unwrap_or_default(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": state(container),
        "Image": spec.image.as_str(),
        "ResolvConfPath": path("resolv.conf"),
        "HostnamePath": path("hostname"),
        "HostsPath": path("hosts"),
        "LogPath": if !written || spec.log.driver == "none" { String::new() } else { container.log_path().to_string_lossy().into_owned() },
        "Name": format!("/{}", container.name()),
        "RestartCount": container.state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if exec_ids.is_empty() { Value::Null } else { json!(exec_ids) },
        "HostConfig": echo::host_config(engine, container)?,
        "GraphDriver": {
            "Name": "overlay2",
            "Data": { "ID": spec.id.as_str(), "LowerDir": lower, "MergedDir": merged(container), "UpperDir": upper, "WorkDir": work },
        },
        "Mounts": mounts(engine, container)?,
        "Config": config(container)?,
        "NetworkSettings": network_settings(engine, container, &view),
    });
    if size {
        let bytes = container.size_rw()?;
        value["SizeRw"] = bytes.into();
        value["SizeRootFs"] = (bytes + engine.image_size(container)).into();
    }
    Ok(value)
}

/// What is mounted, without what `--tmpfs` asked for: `HostConfig.Tmpfs` shows that.
pub(super) fn mounts(engine: &Engine, container: &Container) -> Result<Vec<Value>> {
    if container.spec.mounts.is_empty() {
        return Ok(Vec::new());
    }
    let asked = container.host_config()?;
    let points = engine.mount_points(container);
    let mut shown: Vec<Value> = points.iter().map(mount_point).collect();
    shown.retain(|point| {
        let target = point["Destination"].as_str().unwrap_or_default();
        point["Type"] != "tmpfs" || asked["Tmpfs"].get(target).is_none()
    });
    for point in &mut shown {
        let target = point["Destination"].as_str().unwrap_or_default();
        if let Some(mode) = bind_mode(&asked, target) {
            point["Mode"] = mode.into();
        } else if is_long(&asked, target) {
            // Docker's modes of what `--mount` names.
            point["Mode"] = if point["Type"] == "volume" { "z".into() } else { "".into() };
        }
    }
    Ok(shown)
}

/// The mode that `-v` gave what is mounted here, as it was written.
fn bind_mode(asked: &Value, target: &str) -> Option<String> {
    let clean = |path: &str| ContainerPath::parse(path).is_ok_and(|path| path.as_str() == target);
    asked["Binds"].as_array()?.iter().filter_map(Value::as_str).find_map(|bind| {
        match bind.split(':').collect::<Vec<_>>()[..] {
            [_, path, mode] if clean(path) => Some(mode.to_owned()),
            _ => None,
        }
    })
}

/// Whether `--mount` asked for what is mounted here.
fn is_long(asked: &Value, target: &str) -> bool {
    asked["Mounts"].as_array().into_iter().flatten().any(|mount| mount["Target"] == target)
}

/// The merged view exists in the container's mount namespace only.
fn merged(container: &Container) -> String {
    match &container.live {
        Some(live) if live.pid > 0 => format!("/proc/{}/root", live.pid),
        _ => String::new(),
    }
}

fn state(container: &Container) -> Value {
    let (state, status) = (&container.state, container.status());
    let mut value = json!({
        "Status": status.as_str(),
        "Running": container.live.is_some(),
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": container.live.as_ref().map_or(0, |live| live.pid),
        "ExitCode": if container.is_running() { 0 } else { state.exit_code },
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    });
    if let Some(health) = &state.health {
        let probe = |probe: &engine::model::state::Probe| json!({ "Start": probe.start, "End": probe.end, "ExitCode": probe.exit_code, "Output": probe.output });
        value["Health"] = json!({
            "Status": container.health(), "FailingStreak": health.failing_streak, "Log": health.log.iter().map(probe).collect::<Vec<_>>(),
        });
    }
    value
}

fn config(container: &Container) -> Result<Value> {
    let (spec, process) = (&container.spec, &container.spec.process);
    let asked = container.host_config()?;
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let set = |keys: Vec<String>| {
        Value::Object(keys.into_iter().map(|key| (key, json!({}))).collect::<Map<_, _>>())
    };
    let volumes: Vec<String> = spec
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. }))
        .map(|mount| mount.target.as_str().to_owned())
        .filter(|target| !is_long(&asked, target))
        .collect();
    let hostname = match (&spec.network, spec.hostname.as_str()) {
        (NetworkMode::Join(_), "") => String::new(),
        _ => container.hostname(),
    };
    let mut value = json!({
        "Hostname": hostname,
        "Domainname": spec.domainname,
        "User": process.user,
        "AttachStdin": process.attach_stdin,
        "AttachStdout": process.attach_stdout,
        "AttachStderr": process.attach_stderr,
        "Tty": process.tty,
        "OpenStdin": process.open_stdin,
        "StdinOnce": process.stdin_once,
        "Env": process.env,
        "Cmd": list(&process.command),
        "Image": spec.image_name,
        "Volumes": if volumes.is_empty() { Value::Null } else { set(volumes) },
        "WorkingDir": process.working_dir,
        "Entrypoint": list(&process.entrypoint),
        "OnBuild": null,
        "Labels": spec.labels,
    });
    if !spec.exposed_ports.is_empty() {
        value["ExposedPorts"] = set(spec.exposed_ports.iter().map(ToString::to_string).collect());
    }
    if !spec.stop.signal.is_empty() {
        value["StopSignal"] = spec.stop.signal.as_str().into();
    }
    if let Some(timeout) = spec.stop.timeout {
        value["StopTimeout"] = timeout.into();
    }
    if let Some(check) = &spec.healthcheck {
        value["Healthcheck"] = healthcheck(check);
    }
    Ok(value)
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut value = serde_json::to_value(check).unwrap_or_default();
    // Zero means "inherit" and is not shown.
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    value
}

/// The word of `HostConfig.NetworkMode`.
pub(super) fn network_mode(container: &Container) -> String {
    match &container.spec.network {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Join(id) => format!("container:{id}"),
        NetworkMode::Attached(attachment) => {
            attachment.endpoints.first().map_or_else(|| "bridge".to_owned(), |first| first.network.clone())
        }
    }
}

fn network_settings(engine: &Engine, container: &Container, view: &NetworkView) -> Value {
    let running = container.live.is_some();
    let mut ports = Map::new();
    if running {
        for port in &container.spec.exposed_ports {
            ports.insert(port.to_string(), Value::Null);
        }
        for open in &view.ports {
            let binding =
                json!({ "HostIp": open.host_ip.to_string(), "HostPort": open.host_port.to_string() });
            match ports.entry(open.container.to_string()).or_insert(Value::Null) {
                Value::Array(list) => list.push(binding),
                empty => *empty = Value::Array(vec![binding]),
            }
        }
    }
    let pid = container.live.as_ref().map_or(0, |live| live.pid);
    let mut value = json!({
        "Bridge": "",
        "SandboxID": if running { container.id().as_str() } else { "" },
        "SandboxKey": if pid > 0 { format!("/proc/{pid}/ns/net") } else { String::new() },
        "Ports": ports,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0,
        "IPv6Gateway": "", "MacAddress": "",
        "Networks": endpoints(engine, container, view),
    });
    // What the default bridge's endpoint says is repeated at the top, for old clients.
    if let Some(bridge) = value["Networks"].get("bridge").cloned() {
        for key in [
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "MacAddress",
        ] {
            value[key] = bridge[key].clone();
        }
    }
    value
}

/// `Networks`: each network that it is attached to, by name.
pub(super) fn endpoints(
    engine: &Engine,
    container: &Container,
    view: &NetworkView,
) -> BTreeMap<String, EndpointSettings> {
    let plain = |name: &str| {
        let spec = EndpointSpec { network: name.to_owned(), ..EndpointSpec::default() };
        BTreeMap::from([(name.to_owned(), endpoint(engine, container, &spec, None))])
    };
    match &container.spec.network {
        NetworkMode::None => plain("none"),
        NetworkMode::Host => plain("host"),
        NetworkMode::Join(_) => BTreeMap::new(),
        NetworkMode::Attached(_) => {
            let settings = |spec: &EndpointSpec| {
                let live = view
                    .endpoints
                    .iter()
                    .find(|end| end.spec.network == spec.network || end.network == spec.network);
                let name = live.map_or(spec.network.as_str(), |end| end.network.as_str());
                (name.to_owned(), endpoint(engine, container, spec, live))
            };
            container.endpoint_specs().iter().map(settings).collect()
        }
    }
}

/// An endpoint in Docker's shape. Lists have many: no tree of values is made for what is written as it is.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EndpointSettings {
    #[serde(rename = "IPAMConfig")]
    ipam: Option<Asked>,
    links: Option<Vec<String>>,
    aliases: Option<Vec<String>>,
    mac_address: String,
    driver_opts: Option<BTreeMap<String, String>>,
    gw_priority: i64,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: Address,
    #[serde(rename = "IPAddress")]
    ip: Address,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix: u8,
    #[serde(rename = "IPv6Gateway")]
    gateway6: Address,
    #[serde(rename = "GlobalIPv6Address")]
    ip6: Address,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    ip6_prefix: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<String>>,
}

/// The addresses that were asked for.
#[derive(Serialize)]
struct Asked {
    #[serde(rename = "IPv4Address", skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(rename = "IPv6Address", skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "<[_]>::is_empty")]
    link_local: Vec<IpAddr>,
}

/// An address; empty text where there is none.
struct Address(Option<IpAddr>);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match &self.0 {
            Some(address) => to.collect_str(address),
            None => to.serialize_str(""),
        }
    }
}

fn endpoint(
    engine: &Engine,
    container: &Container,
    spec: &EndpointSpec,
    live: Option<&engine::container::Endpoint>,
) -> EndpointSettings {
    let asked = Asked { ipv4: spec.ipv4, ipv6: spec.ipv6, link_local: spec.link_local.clone() };
    let anything = asked.ipv4.is_some() || asked.ipv6.is_some() || !asked.link_local.is_empty();
    let links = spec.links.iter().map(|Link { container, alias }| format!("{container}:{alias}")).collect();
    let user_defined = !["bridge", "host", "none"].contains(&spec.network.as_str());
    EndpointSettings {
        ipam: anything.then_some(asked),
        links: Some(links).filter(|links: &Vec<String>| !links.is_empty()),
        aliases: Some(&spec.aliases).filter(|aliases| !aliases.is_empty()).cloned(),
        mac_address: live.map_or_else(|| spec.mac.clone().unwrap_or_default(), |end| end.mac.clone()),
        driver_opts: Some(&spec.driver_opts).filter(|opts| !opts.is_empty()).cloned(),
        gw_priority: spec.gw_priority,
        network_id: live
            .map_or_else(|| engine.network_id(&spec.network), |end| end.network_id.as_str().to_owned()),
        endpoint_id: live.map(|end| end.id.clone()).unwrap_or_default(),
        gateway: Address(live.and_then(|end| end.gateway).map(Into::into)),
        ip: Address(live.and_then(|end| end.ipv4).map(Into::into)),
        ip_prefix: live.filter(|end| end.ipv4.is_some()).map_or(0, |end| end.ipv4_prefix),
        gateway6: Address(live.and_then(|end| end.gateway6).map(Into::into)),
        ip6: Address(live.and_then(|end| end.ipv6).map(Into::into)),
        ip6_prefix: live.filter(|end| end.ipv6.is_some()).map_or(0, |end| end.ipv6_prefix),
        dns_names: user_defined.then(|| container.dns_names(spec)),
    }
}
