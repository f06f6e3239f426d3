//! From a task's container to the request for one try: the target's link, networks, variables and volumes, limits and
//! labels. Pure.
//!
//! Variables that every try gets: `TASK_NAME`, `TASK_RUN`, `TASK_ATTEMPT`, `TASK_SLOT` (scheduled runs); with a target
//! `TARGET_NAME`, `TARGET_ID`, `TARGET_IMAGE`, `TARGET_PROJECT`, `TARGET_SERVICE`, `TARGET_NETWORK`, `TARGET_ADDRESS`; with a
//! link those of Docker's links (`DATABASE_PORT_3306_TCP_ADDR`), also on networks where Docker gives none.

use crate::definition::{Definition, Resources, VolumesFrom};
use crate::target::{RUN_LABEL, TASK_LABEL, Target};
use serde_json::{Map, Value, json};

/// A try's container.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The body of `POST /containers/create`.
    pub body: Value,
    /// Networks to connect before it starts, with the endpoint of each: old engines take one when a container is made.
    pub connect: Vec<(String, Value)>,
}

/// Which try it is.
#[derive(Clone, Copy, Debug)]
pub struct Try<'a> {
    /// The task's name with its project.
    pub task: &'a str,
    /// The run's id.
    pub run: &'a str,
    /// 1 for the first.
    pub attempt: u64,
    /// The time that the schedule meant.
    pub slot: Option<jiff::Timestamp>,
}

/// Makes the request.
///
/// # Errors
/// The target cannot be linked.
pub fn request(
    body: &Value,
    definition: &Definition,
    target: Option<&Target>,
    of: Try<'_>,
) -> Result<Request, String> {
    let mut body = body.clone();
    if !body.is_object() {
        body = json!({});
    }
    let labels = object(&mut body, "Labels");
    labels.insert(TASK_LABEL.to_owned(), of.task.into());
    labels.insert(RUN_LABEL.to_owned(), of.run.into());
    let mut env = vec![
        ("TASK_NAME".to_owned(), of.task.to_owned()),
        ("TASK_RUN".to_owned(), of.run.to_owned()),
        ("TASK_ATTEMPT".to_owned(), of.attempt.to_string()),
    ];
    if let Some(slot) = of.slot {
        env.push(("TASK_SLOT".to_owned(), slot.to_string()));
    }
    let host = object(&mut body, "HostConfig");
    host.remove("RestartPolicy");
    host.insert("AutoRemove".to_owned(), false.into());
    limit(host, &definition.resources);
    if !definition.new_privileges && host.get("Privileged") != Some(&Value::Bool(true)) {
        let options = array(host, "SecurityOpt");
        if !options
            .iter()
            .any(|option| option.as_str().is_some_and(|option| option.starts_with("no-new-privileges")))
        {
            options.push("no-new-privileges:true".into());
        }
    }
    let mut connect = Vec::new();
    if target.is_none() {
        let endpoints = endpoints(&mut body);
        let own = !endpoints.is_empty();
        connect = first_endpoint(&mut body, endpoints, own, false);
    }
    let host = object(&mut body, "HostConfig");
    if let Some(target) = target {
        if definition.volumes_from != VolumesFrom::No {
            let mode = if definition.volumes_from == VolumesFrom::ReadOnly { ":ro" } else { "" };
            array(host, "VolumesFrom").push(format!("{}{mode}", target.id).into());
        }
        let link = definition.each.as_ref().and_then(|each| each.link.as_deref());
        connect = network(&mut body, target, link)?;
        env.extend(about(target));
        if let Some(link) = link {
            env.extend(link_variables(target, link));
        }
    }
    let given = array(body.as_object_mut().ok_or("malformed container")?, "Env");
    for (name, value) in env {
        let known =
            given.iter().filter_map(Value::as_str).any(|entry| entry.split('=').next() == Some(&name));
        if !known {
            given.push(format!("{name}={value}").into());
        }
    }
    Ok(Request { body, connect })
}

fn limit(host: &mut Map<String, Value>, resources: &Resources) {
    let limits =
        [("Memory", resources.memory), ("NanoCpus", resources.nano_cpus), ("PidsLimit", resources.pids)];
    for (key, value) in limits {
        if let Some(value) = value {
            host.insert(key.to_owned(), value.into());
        }
    }
}

/// Joins the target's networks, in addition to the task's own.
fn network(body: &mut Value, target: &Target, link: Option<&str>) -> Result<Vec<(String, Value)>, String> {
    let mode = body["HostConfig"]["NetworkMode"].as_str().unwrap_or_default().to_owned();
    let own = !matches!(mode.as_str(), "" | "default" | "bridge");
    let special = |mode: &str| matches!(mode, "host" | "none") || mode.starts_with("container:");
    if special(&mode) {
        return match link {
            Some(alias) if mode == "host" => add_host(body, alias, target).map(|()| Vec::new()),
            Some(alias) => {
                Err(format!("cannot link {} as {alias}: the task's network is {mode}", target.name))
            }
            None => Ok(Vec::new()),
        };
    }
    if target.mode == "host" {
        if !own {
            object(body, "HostConfig").insert("NetworkMode".to_owned(), "host".into());
        }
        return match link {
            Some(alias) if !own => add_host(body, alias, target).map(|()| Vec::new()),
            Some(alias) => {
                Err(format!("cannot link {} as {alias}: it is on the host's network", target.name))
            }
            None => Ok(Vec::new()),
        };
    }
    if target.networks.is_empty() {
        return match link {
            Some(alias) => Err(format!("cannot link {} as {alias}: it has no network", target.name)),
            None => Ok(Vec::new()),
        };
    }
    let mut endpoints = endpoints(body);
    let mut linked = false;
    for (name, _) in &target.networks {
        if name == "bridge" && !own && endpoints.is_empty() && !linked {
            // The default bridge links the old way.
            if let Some(alias) = link {
                array(object(body, "HostConfig"), "Links").push(format!("{}:{alias}", target.name).into());
                linked = true;
            }
            continue;
        }
        if !endpoints.iter().any(|(known, _)| known == name) {
            endpoints.push((name.clone(), json!({})));
        }
        if let (Some(alias), Some((_, endpoint))) =
            (link, endpoints.iter_mut().find(|(known, _)| known == name))
            && name != "bridge"
        {
            array(object_of(endpoint), "Links").push(format!("{}:{alias}", target.name).into());
            linked = true;
        }
    }
    if let Some(alias) = link
        && !linked
    {
        add_host(body, alias, target)?;
    }
    Ok(first_endpoint(body, endpoints, own, target.networks.iter().any(|(name, _)| name == "bridge")))
}

/// Takes the endpoints out of a request.
fn endpoints(body: &mut Value) -> Vec<(String, Value)> {
    std::mem::take(object(object_value(body, "NetworkingConfig"), "EndpointsConfig")).into_iter().collect()
}

/// The first network is the container's own from the start, the others are connected.
fn first_endpoint(
    body: &mut Value,
    mut endpoints: Vec<(String, Value)>,
    own: bool,
    bridge: bool,
) -> Vec<(String, Value)> {
    if endpoints.is_empty() || !own && bridge {
        return endpoints.into_iter().filter(|(name, _)| name != "bridge").collect();
    }
    let mode = body["HostConfig"]["NetworkMode"].as_str().unwrap_or_default().to_owned();
    let at = endpoints.iter().position(|(name, _)| *name == mode).unwrap_or(0);
    let (name, endpoint) = endpoints.remove(at);
    if !own {
        object(body, "HostConfig").insert("NetworkMode".to_owned(), name.clone().into());
    }
    object(object_value(body, "NetworkingConfig"), "EndpointsConfig").insert(name, endpoint);
    endpoints
}

fn add_host(body: &mut Value, alias: &str, target: &Target) -> Result<(), String> {
    let address = match target.networks.iter().find(|(_, address)| !address.is_empty()) {
        Some((_, address)) => address.clone(),
        None if target.mode == "host" => "127.0.0.1".to_owned(),
        None => return Err(format!("cannot link {} as {alias}: it has no address", target.name)),
    };
    array(object(body, "HostConfig"), "ExtraHosts").push(format!("{alias}:{address}").into());
    Ok(())
}

fn about(target: &Target) -> Vec<(String, String)> {
    let (network, address) = target.networks.first().cloned().unwrap_or_default();
    [
        ("NAME", &target.name),
        ("ID", &target.id),
        ("IMAGE", &target.image),
        ("PROJECT", &target.project),
        ("SERVICE", &target.service),
        ("NETWORK", &network),
        ("ADDRESS", &address),
    ]
    .iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (format!("TARGET_{name}"), (*value).clone()))
    .collect()
}

/// As Docker names them for links on its default bridge.
fn link_variables(target: &Target, alias: &str) -> Vec<(String, String)> {
    let Some((_, address)) = target.networks.iter().find(|(_, address)| !address.is_empty()) else {
        return Vec::new();
    };
    let prefix = alias.to_ascii_uppercase().replace('-', "_");
    let mut variables = vec![(format!("{prefix}_NAME"), format!("/{}/{alias}", target.name))];
    if let Some((port, protocol)) = target.ports.first() {
        variables.push((format!("{prefix}_PORT"), format!("{protocol}://{address}:{port}")));
    }
    for (port, protocol) in &target.ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        variables.push((name.clone(), format!("{protocol}://{address}:{port}")));
        variables.push((format!("{name}_ADDR"), address.clone()));
        variables.push((format!("{name}_PORT"), port.to_string()));
        variables.push((format!("{name}_PROTO"), protocol.clone()));
    }
    variables
}

fn object_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made one above"),
    }
}

fn object_value<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    let entry = object_of(value).entry(key).or_insert_with(|| json!({}));
    object_of(entry);
    entry
}

fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    object_of(object_value(value, key))
}

fn array<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let entry = map.entry(key).or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    match entry {
        Value::Array(list) => list,
        _ => unreachable!("made one above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(network: &str) -> Target {
        Target {
            id: "0123".to_owned(),
            name: "db".to_owned(),
            image: "mariadb".to_owned(),
            mode: network.to_owned(),
            networks: if network == "host" {
                Vec::new()
            } else {
                vec![(network.to_owned(), "10.0.0.2".to_owned())]
            },
            ports: vec![(3306, "tcp".to_owned())],
            ..Target::default()
        }
    }
    fn made(body: Value, task: Value, target: Option<&Target>) -> Result<Request, String> {
        let definition = Definition::parse(&task).unwrap();
        request(&body, &definition, target, Try { task: "backup", run: "r1", attempt: 2, slot: None })
    }

    #[test]
    fn without_a_target() {
        let request = made(
            json!({"Image": "i", "Env": ["TASK_RUN=mine"], "HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}}),
            json!({"resources": {"memory": "1m"}}),
            None,
        )
        .unwrap();
        assert_eq!(request.body["Env"], json!(["TASK_RUN=mine", "TASK_NAME=backup", "TASK_ATTEMPT=2"]));
        assert_eq!(
            request.body["HostConfig"],
            json!({"AutoRemove": false, "Memory": 1_048_576, "SecurityOpt": ["no-new-privileges:true"]})
        );
        assert_eq!(request.body["Labels"], json!({"cauldron.task": "backup", "cauldron.task.run": "r1"}));
    }

    #[test]
    fn privileges() {
        let options = |host: Value, task: Value| {
            made(json!({ "HostConfig": host }), task, None).unwrap().body["HostConfig"]["SecurityOpt"].clone()
        };
        assert_eq!(options(json!({}), json!({"new_privileges": true})), Value::Null);
        assert_eq!(options(json!({"Privileged": true}), json!({})), Value::Null);
        assert_eq!(
            options(json!({"SecurityOpt": ["no-new-privileges"]}), json!({})),
            json!(["no-new-privileges"])
        );
    }

    #[test]
    fn links() {
        let each = json!({"each": {"name": "db", "link": "database"}, "volumes_from": "ro"});
        let bridge =
            made(json!({"HostConfig": {"NetworkMode": "default"}}), each.clone(), Some(&target("bridge")))
                .unwrap();
        assert_eq!(bridge.body["HostConfig"]["Links"], json!(["db:database"]));
        assert_eq!(bridge.body["HostConfig"]["VolumesFrom"], json!(["0123:ro"]));
        assert_eq!(bridge.body["HostConfig"]["NetworkMode"], "default");
        assert!(bridge.connect.is_empty());
        let env = bridge.body["Env"].as_array().unwrap();
        assert!(
            env.contains(&json!("DATABASE_PORT_3306_TCP_ADDR=10.0.0.2"))
                && env.contains(&json!("TARGET_NAME=db"))
        );

        let own = made(json!({}), each.clone(), Some(&target("shop_default"))).unwrap();
        assert_eq!(own.body["HostConfig"]["NetworkMode"], "shop_default");
        assert_eq!(
            own.body["NetworkingConfig"]["EndpointsConfig"],
            json!({"shop_default": {"Links": ["db:database"]}})
        );

        let both = made(
            json!({"HostConfig": {"NetworkMode": "backup_default"}, "NetworkingConfig": {"EndpointsConfig": {"backup_default": {"Aliases": ["b"]}}}}),
            each.clone(),
            Some(&target("shop_default")),
        )
        .unwrap();
        assert_eq!(both.body["HostConfig"]["NetworkMode"], "backup_default");
        assert_eq!(
            both.body["NetworkingConfig"]["EndpointsConfig"],
            json!({"backup_default": {"Aliases": ["b"]}})
        );
        assert_eq!(both.connect, [("shop_default".to_owned(), json!({"Links": ["db:database"]}))]);

        let host = made(json!({}), each.clone(), Some(&target("host"))).unwrap();
        assert_eq!(host.body["HostConfig"]["NetworkMode"], "host");
        assert_eq!(host.body["HostConfig"]["ExtraHosts"], json!(["database:127.0.0.1"]));

        assert!(made(json!({"HostConfig": {"NetworkMode": "none"}}), each, Some(&target("bridge"))).is_err());
    }
}
