//! What the specification fills in: names, the default network, dependencies that other keys imply, the environment.

use super::{Environment, Read, list_of, unreadable, variables};
use crate::dotenv;
use crate::error::{Error, Result};
use crate::node::{Map, Node, Place, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the defaults depend on.
pub struct Context<'a> {
    pub name: &'a str,
    pub directory: &'a Path,
    pub environment: &'a Environment,
    pub read: Read<'a>,
    pub resolve_environment: bool,
    /// Profiles that are on.
    pub profiles: &'a [String],
    /// Services that were named; none is all.
    pub named: &'a [String],
}

/// Fills the defaults in.
pub fn apply(model: &mut Node, context: &Context<'_>) -> Result<()> {
    if let Some(map) = model.as_map_mut() {
        map.remove("version");
        if !map.contains_key("services") {
            let place = map.values().next().map_or_else(|| Place::whole(""), |entry| entry.place.clone());
            map.insert("services".to_owned(), crate::node::Entry { node: super::empty_map(&place), place });
        }
    }
    let wanted = wanted(model.get("services"), context);
    let mut default_network = None;
    if let Some(services) = model.get_mut("services").and_then(Node::as_map_mut) {
        let names: Vec<String> = services.keys().cloned().collect();
        for (key, entry) in services.iter_mut() {
            service(key, &mut entry.node, &names, &wanted, context)?;
            if entry.node.at(&["networks", "default"]).is_some() {
                default_network.get_or_insert_with(|| entry.place.clone());
            }
        }
    }
    if let Some(place) = default_network
        && model.at(&["networks", "default"]).is_none()
    {
        if model.get("networks").is_none() {
            model.set("networks", super::empty_map(&place));
        }
        if let Some(networks) = model.get_mut("networks") {
            networks.set("default", super::empty_map(&place));
        }
    }
    for section in ["networks", "volumes", "secrets", "configs"] {
        for (key, entry) in model.get_mut(section).and_then(Node::as_map_mut).into_iter().flatten() {
            named(&mut entry.node, key, context.name);
        }
    }
    Ok(())
}

/// The services whose files must be there: those that are named or on, and what they say that they need.
fn wanted(services: Option<&Node>, context: &Context<'_>) -> BTreeSet<String> {
    let mut open: Vec<String> = context.named.to_vec();
    if open.is_empty() {
        for (name, entry) in services.and_then(Node::as_map).into_iter().flatten() {
            let profiles = list_of(entry.node.get("profiles"));
            let on = |profile: &String| context.profiles.iter().any(|on| on == profile || on == "*");
            if profiles.is_empty() || profiles.iter().any(on) {
                open.push(name.clone());
            }
        }
    }
    let mut out = BTreeSet::new();
    while let Some(name) = open.pop() {
        let needs = services.and_then(|services| services.at(&[&name, "depends_on"])).and_then(Node::as_map);
        if out.insert(name) {
            open.extend(needs.into_iter().flat_map(|map| map.keys().cloned()));
        }
    }
    out
}

/// The resource's name at the engine; `external: {name}` is an older form of two keys.
fn named(node: &mut Node, key: &str, project: &str) {
    let place = node.place.clone();
    if node.is_null() {
        *node = super::empty_map(&place);
    }
    if let Some(external) = node.get("external").filter(|external| external.as_map().is_some()).cloned() {
        if let Some(name) = external.get("name").and_then(Node::scalar) {
            node.set("name", Node::text(name, &place));
        }
        node.set("external", Node::new(Value::Bool(true), &place));
    }
    let external = node.get("external").is_some_and(|node| node.value == Value::Bool(true));
    if node.get("name").is_none() {
        let name = if external { key.to_owned() } else { format!("{project}_{key}") };
        node.set("name", Node::text(name, &place));
    }
}

fn service(
    name: &str,
    node: &mut Node,
    names: &[String],
    wanted: &BTreeSet<String>,
    context: &Context<'_>,
) -> Result<()> {
    let place = node.place.clone();
    if let Some(build) = node.get_mut("build") {
        let place = build.place.clone();
        if build.get("context").is_none() {
            build.set("context", Node::text(context.directory.to_string_lossy(), &place));
        }
        if build.get("dockerfile").is_none() && build.get("dockerfile_inline").is_none() {
            build.set("dockerfile", Node::text("Dockerfile", &place));
        }
        from_environment(build.get_mut("args"), context);
    }
    if node.get("networks").and_then(Node::as_map).is_none_or(Map::is_empty)
        && node.get("network_mode").is_none()
    {
        node.set("networks", Node::map([("default".to_owned(), Node::new(Value::Null, &place))], &place));
    }
    for entry in
        node.get_mut("networks").and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut())
    {
        if entry.node.as_map().is_some_and(Map::is_empty) {
            entry.node.value = Value::Null;
        }
    }
    depends(node, names, &place);
    if context.resolve_environment {
        environment(name, node, wanted, context)?;
    }
    labels(node, context)?;
    for hook in ["pre_start", "post_start", "pre_stop"] {
        if let Some(Value::List(items)) = node.get_mut(hook).map(|node| &mut node.value) {
            items.iter_mut().for_each(|item| from_environment(item.get_mut("environment"), context));
        }
    }
    if let Some(Value::List(items)) = node.get_mut("volumes").map(|node| &mut node.value) {
        for item in items {
            if let Some(target) = item.get("target").and_then(Node::scalar).filter(|target| target.len() > 1)
            {
                let place = item.place.clone();
                item.set("target", Node::text(target.trim_end_matches('/'), &place));
            }
        }
    }
    Ok(())
}

/// Names without a value take that of the environment, or go.
fn from_environment(node: Option<&mut Node>, context: &Context<'_>) {
    let Some(map) = node.and_then(Node::as_map_mut) else { return };
    map.retain(|name, entry| {
        if entry.node.is_null() {
            match context.environment.get(name) {
                Some(value) => entry.node.value = Value::Text(value.clone()),
                None => return false,
            }
        }
        true
    });
}

/// What `links`, `volumes_from` and shared namespaces need is a dependency too.
fn depends(node: &mut Node, names: &[String], place: &Place) {
    let mut implied: Vec<(String, bool)> = Vec::new();
    for link in list_of(node.get("links")) {
        implied.push((link.split(':').next().unwrap_or_default().to_owned(), true));
    }
    for source in list_of(node.get("volumes_from")) {
        if !source.starts_with("container:") {
            implied.push((source.split(':').next().unwrap_or_default().to_owned(), false));
        }
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let mode = node.get(key).and_then(Node::scalar).unwrap_or_default();
        if let Some(service) = mode.strip_prefix("service:") {
            implied.push((service.to_owned(), true));
        }
    }
    implied.retain(|(name, _)| names.contains(name));
    if node.get("depends_on").is_none() && !implied.is_empty() {
        node.set("depends_on", super::empty_map(place));
    }
    let Some(depends) = node.get_mut("depends_on") else { return };
    for (name, restart) in implied {
        if depends.get(&name).is_none() {
            let mut long = Node::map([("condition".to_owned(), Node::text("service_started", place))], place);
            if restart {
                long.set("restart", Node::new(Value::Bool(true), place));
            }
            depends.set(&name, long);
        }
    }
    for entry in depends.as_map_mut().into_iter().flat_map(|map| map.values_mut()) {
        let place = entry.place.clone();
        if entry.node.get("condition").is_none() {
            entry.node.set("condition", Node::text("service_started", &place));
        }
        if entry.node.get("required").is_none() {
            entry.node.set("required", Node::new(Value::Bool(true), &place));
        }
    }
}

/// `env_file` beneath `environment`; names without a value from ours.
fn environment(name: &str, node: &mut Node, wanted: &BTreeSet<String>, context: &Context<'_>) -> Result<()> {
    let place = node.place.clone();
    let is_on = wanted.contains(name);
    let files = node.as_map_mut().and_then(|map| map.remove("env_file"));
    let mut below: Environment = Environment::new();
    for file in files.as_ref().and_then(|files| files.node.as_list()).unwrap_or_default() {
        let path = PathBuf::from(file.get("path").and_then(Node::scalar).unwrap_or_default());
        let required = file.get("required").is_none_or(|node| node.value != Value::Bool(false));
        let raw = match file.get("format").and_then(Node::scalar).as_deref() {
            None => false,
            Some("raw") => true,
            Some(other) => {
                return Err(Error::at(
                    &file.place,
                    format!("env_file.format: unknown format \"{other}\"; it can be \"raw\""),
                ));
            }
        };
        match (context.read)(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if required && is_on {
                    return Err(Error::at(&file.place, format!("env file {} not found", path.display())));
                }
                continue;
            }
            Err(error) => return Err(unreadable(&path, &error)),
            Ok(_) => {}
        }
        let known = below.clone();
        let lookup = |name: &str| context.environment.get(name).or_else(|| known.get(name)).cloned();
        for (name, value) in variables(context.read, &path, &lookup, raw)? {
            if let Some(value) = value {
                below.insert(name, value);
            }
        }
    }
    from_environment(node.get_mut("environment"), context);
    if below.is_empty() {
        return Ok(());
    }
    let mut whole =
        Node::map(below.into_iter().map(|(name, value)| (name, Node::text(value, &place))), &place);
    for (name, entry) in node.get("environment").and_then(Node::as_map).into_iter().flatten() {
        whole.set(name, entry.node.clone());
    }
    node.set("environment", whole);
    Ok(())
}

/// `label_file` beneath `labels`; a label without a value is empty.
fn labels(node: &mut Node, context: &Context<'_>) -> Result<()> {
    let place = node.place.clone();
    let files = node.as_map_mut().and_then(|map| map.remove("label_file"));
    let mut whole = super::empty_map(&place);
    for file in files.as_ref().and_then(|files| files.node.as_list()).unwrap_or_default() {
        let path = PathBuf::from(file.scalar().unwrap_or_default());
        let bytes = (context.read)(&path)
            .map_err(|_| Error::at(&file.place, format!("label file {} not found", path.display())))?;
        let lookup = |name: &str| context.environment.get(name).cloned();
        let pairs = dotenv::parse(&String::from_utf8_lossy(&bytes), &lookup, false)
            .map_err(|error| Error::at(&Place::whole(&path.to_string_lossy()), error))?;
        for (name, value) in pairs {
            whole.set(&name, Node::text(value.unwrap_or_default(), &place));
        }
    }
    for (name, entry) in node.get("labels").and_then(Node::as_map).into_iter().flatten() {
        whole.set(name, Node::text(entry.node.scalar().unwrap_or_default(), &entry.node.place));
    }
    if whole.as_map().is_some_and(|map| !map.is_empty()) {
        node.set("labels", whole);
    }
    Ok(())
}
