//! `GET /containers/{id}/json`

use axum::extract::{Path, State};
use axum::{Json, Router, routing};
use engine::Engine;
use engine::container::{Container, NetworkView};
use engine::model::Result;
use engine::model::container::{ContainerPath, EndpointSpec, Healthcheck, Link, MountSource, NetworkMode};
use engine::model::state::Status;
use serde_json::{Map, Value, json};

use super::echo;
use super::list::mount_point;
use crate::input::Params;
use crate::{Failure, Shared, call};

pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
    router.route("/containers/{id}/json", routing::get(inspect))
}

async fn inspect(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> std::result::Result<Json<Value>, Failure> {
    let size = params.flag("size");
    Ok(Json(call(&engine, move |engine| describe(engine, &engine.find(&id)?, size)).await?))
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
        "LogPath": if spec.log.driver == "none" { String::new() } else { file("log") },
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
fn mounts(engine: &Engine, container: &Container) -> Result<Vec<Value>> {
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
        } else if point["Type"] == "volume" && is_long(&asked, target) {
            // Docker's mode of a volume that `--mount` names.
            point["Mode"] = "z".into();
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
pub(super) fn endpoints(engine: &Engine, container: &Container, view: &NetworkView) -> Value {
    let plain = |name: &str| json!({ name: endpoint(engine, container, &EndpointSpec { network: name.to_owned(), ..EndpointSpec::default() }, None) });
    match &container.spec.network {
        NetworkMode::None => plain("none"),
        NetworkMode::Host => plain("host"),
        NetworkMode::Join(_) => json!({}),
        NetworkMode::Attached(_) => {
            let mut all = Map::new();
            for spec in container.endpoint_specs() {
                let live = view
                    .endpoints
                    .iter()
                    .find(|end| end.spec.network == spec.network || end.network == spec.network);
                let name = live.map_or(spec.network.as_str(), |end| end.network.as_str());
                all.insert(name.to_owned(), endpoint(engine, container, spec, live));
            }
            Value::Object(all)
        }
    }
}

fn endpoint(
    engine: &Engine,
    container: &Container,
    spec: &EndpointSpec,
    live: Option<&engine::container::Endpoint>,
) -> Value {
    let text = |value: Option<String>| value.unwrap_or_default();
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let links: Vec<String> =
        spec.links.iter().map(|Link { container, alias }| format!("{container}:{alias}")).collect();
    let mut asked = Map::new();
    asked.extend(spec.ipv4.map(|ip| ("IPv4Address".to_owned(), ip.to_string().into())));
    asked.extend(spec.ipv6.map(|ip| ("IPv6Address".to_owned(), ip.to_string().into())));
    if !spec.link_local.is_empty() {
        asked.insert("LinkLocalIPs".to_owned(), json!(spec.link_local));
    }
    let ipam = if asked.is_empty() { Value::Null } else { Value::Object(asked) };
    let user_defined = !["bridge", "host", "none"].contains(&spec.network.as_str());
    let network_id =
        live.map_or_else(|| engine.network_id(&spec.network), |end| end.network_id.as_str().to_owned());
    json!({
        "IPAMConfig": ipam,
        "Links": list(&links),
        "Aliases": list(&spec.aliases),
        "MacAddress": live.map_or_else(|| text(spec.mac.clone()), |end| end.mac.clone()),
        "DriverOpts": if spec.driver_opts.is_empty() { Value::Null } else { json!(spec.driver_opts) },
        "GwPriority": spec.gw_priority,
        "NetworkID": network_id,
        "EndpointID": text(live.map(|end| end.id.clone())),
        "Gateway": text(live.and_then(|end| end.gateway).map(|ip| ip.to_string())),
        "IPAddress": text(live.and_then(|end| end.ipv4).map(|ip| ip.to_string())),
        "IPPrefixLen": live.filter(|end| end.ipv4.is_some()).map_or(0, |end| end.ipv4_prefix),
        "IPv6Gateway": text(live.and_then(|end| end.gateway6).map(|ip| ip.to_string())),
        "GlobalIPv6Address": text(live.and_then(|end| end.ipv6).map(|ip| ip.to_string())),
        "GlobalIPv6PrefixLen": live.filter(|end| end.ipv6.is_some()).map_or(0, |end| end.ipv6_prefix),
        "DNSNames": if user_defined { json!(container.dns_names(spec)) } else { Value::Null },
    })
}
