//! Every key of the specification, one by one: it changes what is asked of the engine, is refused, is named as one that has
//! no effect, or stands in the list of those that others read. None is dropped in silence.

use super::tests::try_project;
use super::*;
use crate::schema::{Field, Kind, PROJECT, SERVICE};
use serde_json::{Value, json};

/// Keys that say nothing to the engine, and who reads them.
const READ_ELSEWHERE: &[(&str, &str)] = &[
    ("attach", "up"),
    ("build", "the builder's flags"),
    ("container_name", "up"),
    ("depends_on", "order, plan, up"),
    ("develop", "watch"),
    ("env_file", "load: it becomes the environment"),
    ("extends", "load"),
    ("label_file", "load: it becomes labels"),
    ("post_start", "up"),
    ("pre_start", "up"),
    ("pre_stop", "stop"),
    ("profiles", "load"),
    ("pull_policy", "images"),
    ("pull_refresh_after", "images"),
    ("scale", "plan"),
    ("deploy.replicas", "plan"),
    ("deploy.labels", "of swarm's services, not of containers"),
    ("networks.n.priority", "the order of networks"),
    // What describes a port for people and for swarm's own routing.
    ("ports.name", "people"),
    ("ports.mode", "a container's ports are the host's either way"),
    ("ports.app_protocol", "people"),
    ("volumes.consistency", "machines where files are shared with a virtual one"),
];

/// What stands beside a key of a mapping for it to mean something.
fn beside(path: &str, key: &str) -> Value {
    match (path, key) {
        ("volumes", "bind" | "source" | "read_only") => {
            json!({"type": "bind", "source": "/s", "target": "/t"})
        }
        ("volumes", "tmpfs") => json!({"type": "tmpfs", "target": "/t"}),
        ("volumes", "image") => json!({"type": "image", "source": "i", "target": "/t"}),
        ("volumes", _) => json!({"type": "volume", "source": "v", "target": "/t"}),
        ("volumes.bind", "propagation") => json!({"create_host_path": false}),
        ("volumes.bind", "create_host_path") => json!({"create_host_path": false}),
        ("ports", _) => json!({"target": 80, "published": "81"}),
        ("secrets", _) => json!({"source": "s"}),
        ("configs", _) => json!({"source": "c"}),
        ("devices", _) => json!({"source": "/dev/null"}),
        ("ulimits.n", _) => json!({"soft": 1, "hard": 2}),
        ("healthcheck", "disable" | "test") => json!({}),
        ("healthcheck", _) => json!({"test": ["CMD", "x"]}),
        ("blkio_config.weight_device", _) => json!({"path": "/dev/null", "weight": 10}),
        (text, _) if text.starts_with("blkio_config.") => json!({"path": "/dev/null", "rate": 1}),
        ("deploy.restart_policy", "max_attempts") => json!({"condition": "on-failure"}),
        _ => json!({}),
    }
}

/// A value that is not what is there without it.
fn sample(path: &str, kind: &Kind) -> Value {
    let text = match path {
        "restart" => "always",
        "container_name" => "seven",
        "pid" | "ipc" | "uts" | "userns_mode" | "network_mode" => "host",
        "volumes.type" => "image",
        "volumes.target" => "/elsewhere",
        "volumes.source" => "/elsewhere",
        "secrets.source" => "s2",
        "configs.source" => "c2",
        "secrets.uid" | "secrets.gid" | "configs.uid" | "configs.gid" | "user" => "7",
        "ports.host_ip" => "127.0.0.1",
        "ports.protocol" => "udp",
        "deploy.mode" => "global",
        "deploy.restart_policy.condition" => "none",
        "expose" => "99",
        "tmpfs" => "/t",
        "links" => "other",
        "volumes_from" => "other",
        "networks.n.ipv4_address" => "10.1.2.3",
        "networks.n.ipv6_address" => "fd00::3",
        "networks.n.mac_address" | "mac_address" => "02:00:00:00:00:01",
        _ => "7",
    };
    match kind {
        Kind::Bool => json!(true),
        Kind::Int | Kind::Number => json!(7),
        Kind::Bytes => json!("7m"),
        Kind::Mode => json!("0123"),
        Kind::Duration => json!("7s"),
        Kind::OneOf(words) => json!(words[words.len() - 1]),
        Kind::Texts | Kind::TextOrTexts => json!([text]),
        Kind::Dict => json!({"a": "b"}),
        Kind::Hosts => json!({"h": "10.0.0.1"}),
        Kind::Any => json!([{"capabilities": ["gpu"]}]),
        _ => json!(text),
    }
}

/// Every key below: its path, a value that has it, and the same value without it.
fn leaves(kind: &'static Kind, path: &str) -> Vec<(String, Value, Value)> {
    let wrapped = |kind, path: &str, wrap: &dyn Fn(Value) -> Value| {
        leaves(kind, path)
            .into_iter()
            .map(|(path, with, without)| (path, wrap(with), wrap(without)))
            .collect()
    };
    match kind {
        Kind::Object(fields) | Kind::Optional(fields) => {
            fields.iter().flat_map(|field| fields_of(field, path)).collect()
        }
        Kind::Map(kind) => wrapped(kind, &format!("{path}.n"), &|value| json!({"n": value})),
        Kind::List(kind) | Kind::Items(_, kind) => {
            wrapped(kind, path, &|value| if value.is_null() { json!([]) } else { json!([value]) })
        }
        Kind::Short(_, kind) => leaves(kind, path),
        leaf => vec![(path.to_owned(), sample(path, leaf), Value::Null)],
    }
}

fn fields_of(field: &'static Field, path: &str) -> Vec<(String, Value, Value)> {
    let below = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
    let set = |value: Value| {
        let mut base = beside(path, field.name);
        if !value.is_null() {
            base[field.name] = value;
        }
        base
    };
    leaves(&field.kind, &below)
        .into_iter()
        .map(|(path, with, without)| (path, set(with), set(without)))
        .collect()
}

const AROUND: &str = r#"
networks: {n: {}}
volumes: {v: {}}
secrets: {s: {file: ./s}, s2: {file: ./s2}}
configs: {c: {content: c}, c2: {content: d}}
"#;

/// What a service asks of the engine, or why it is refused; and the warnings.
fn asked(mut service: Value) -> (String, Vec<String>) {
    if service.get("image").is_none() {
        service["image"] = json!("i");
    }
    let text = format!("services: {{other: {{image: j}}, w: {service}}}{AROUND}");
    let project = match try_project(&text) {
        Ok(project) => project,
        Err(error) => return (format!("refused: {error}"), Vec::new()),
    };
    let which = Which { number: 1, oneoff: false, aliases: true, ports: true };
    let around = Around {
        container: &|name| Some((format!("id-{name}"), format!("p-{name}-1"))),
        inherited: &BTreeMap::new(),
        image_id: "sha256:1",
        delivers: true,
    };
    let Some(service) = project.services.get("w") else { return ("off".to_owned(), Vec::new()) };
    let text = match body(&project, service, &which, &around) {
        Ok(mut made) => {
            if let Some(labels) = &mut made.create.labels {
                labels.retain(|name, _| !name.starts_with("com.docker.compose."));
            }
            let create = serde_json::to_value(&made.create).unwrap();
            format!("{create} {:?} {:?} {}", made.networks, made.deliveries, made.platform)
        }
        Err(error) => format!("refused: {error}"),
    };
    (text, project.warnings)
}

#[test]
fn no_key_of_a_service_is_dropped_in_silence() {
    let mut wrong = Vec::new();
    for (path, with, without) in leaves(&Kind::Object(SERVICE), "") {
        let covers = |(key, _): &(&str, &str)| path == *key || path.starts_with(&format!("{key}."));
        if READ_ELSEWHERE.iter().any(covers) {
            continue;
        }
        let ((before, _), (after, warnings)) = (asked(without), asked(with.clone()));
        let named = |warning: &String| {
            let key = warning.trim_start_matches("services.w.").trim_end_matches(" has no effect here");
            path == key || path.starts_with(&format!("{key}."))
        };
        if before == after && !warnings.iter().any(named) {
            wrong.push(format!("{path}: {with}"));
        }
        // A refusal says that it is one: it is not the sample that is wrong.
        if after.starts_with("refused") && !after.contains("not supported") {
            wrong.push(format!("{path}: {after}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_key_of_a_network_or_volume_is_dropped_in_silence() {
    let table = |name: &str| match &PROJECT.iter().find(|field| field.name == name).unwrap().kind {
        Kind::Map(Kind::Optional(fields)) => *fields,
        other => panic!("{other:?}"),
    };
    let mut wrong = Vec::new();
    for section in ["networks", "volumes"] {
        for field in table(section).iter().filter(|field| !["external", "name"].contains(&field.name)) {
            for (path, with, without) in fields_of(field, "") {
                let made = |value: &Value| {
                    let text = format!("services: {{w: {{image: i}}}}\n{section}: {{k: {value}}}");
                    let project = try_project(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
                    match section {
                        "networks" => serde_json::to_value(network(&project, "k", &project.networks["k"])),
                        _ => serde_json::to_value(volume(&project, "k", &project.volumes["k"])),
                    }
                    .unwrap()
                };
                if made(&with) == made(&without) {
                    wrong.push(format!("{section}.{path}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
