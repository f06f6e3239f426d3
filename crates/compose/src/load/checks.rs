//! What must hold in a whole project: references that exist, values that fit together, no cycles.

use super::list_of;
use crate::error::{Error, Result, meant};
use crate::node::{Node, Place, Value};
use crate::project::refresh;
use std::collections::BTreeMap;

/// Checks a project's tree.
pub fn whole(model: &Node) -> Result<()> {
    let services = model.get("services").and_then(Node::as_map).cloned().unwrap_or_default();
    for (name, entry) in &services {
        let sound = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !sound {
            return Err(Error::at(
                &entry.place,
                format!(
                    "services additional properties '{name}' not allowed: a name has letters, digits, '.', '_' and '-'"
                ),
            ));
        }
        service(name, &entry.node, &entry.place, model)?;
    }
    for section in ["secrets", "configs"] {
        for (name, entry) in model.get(section).and_then(Node::as_map).into_iter().flatten() {
            sources(section, name, &entry.node)?;
        }
    }
    cycles(model)
}

fn sources(section: &str, name: &str, node: &Node) -> Result<()> {
    let kind = section.trim_end_matches('s');
    let external = node.get("external").is_some_and(|node| node.value == Value::Bool(true));
    let given = ["file", "environment", "content", "x-command"];
    let given = given.iter().filter(|key| node.get(key).is_some()).count();
    if let Some(command) = node.get("x-command") {
        let words = command.as_list().is_some_and(|list| list.iter().all(|word| word.scalar().is_some()));
        let line = command
            .scalar()
            .is_some_and(|line| crate::schema::words(&line).is_ok_and(|words| !words.is_empty()));
        if given != 1 || !(line || words && command.as_list().is_some_and(|list| !list.is_empty())) {
            let text = format!(
                "{section}.{name}.x-command: want a command, as a text or a list of words, and no other source"
            );
            return Err(Error::at(&command.place, text));
        }
    }
    if !external && given != 1 {
        return Err(Error::at(
            &node.place,
            format!("{section}.{name}: one of file, environment or content must be set for a {kind}"),
        ));
    }
    Ok(())
}

fn undefined(name: &str, what: &str, wanted: &str, place: &Place, section: Option<&Node>) -> Error {
    let error = Error::at(
        place,
        format!("service \"{name}\" refers to undefined {what} {wanted}: invalid compose project"),
    );
    let known = section.and_then(Node::as_map).into_iter().flat_map(|map| map.keys().map(String::as_str));
    match meant(wanted, known) {
        Some(known) => error.hint(format!("did you mean '{known}'?")),
        None => error,
    }
}

fn service(name: &str, node: &Node, place: &Place, model: &Node) -> Result<()> {
    let fail = |node: &Node, text: String| Err(Error::at(&node.place, text));
    if ["image", "build", "provider"].iter().all(|key| node.get(key).is_none()) {
        return Err(Error::at(
            place,
            format!(
                "service \"{name}\" has neither an image nor a build context specified: invalid compose project"
            ),
        ));
    }
    let networks = node.get("networks").and_then(Node::as_map);
    if let Some(mode) = node.get("network_mode")
        && networks.is_some_and(|networks| !networks.is_empty())
    {
        return fail(
            mode,
            format!(
                "service {name} declares mutually exclusive `network_mode` and `networks`: invalid compose project"
            ),
        );
    }
    for (network, entry) in networks.into_iter().flatten() {
        if model.at(&["networks", network]).is_none() {
            return Err(undefined(name, "network", network, &entry.place, model.get("networks")));
        }
    }
    for mount in node.get("volumes").and_then(Node::as_list).unwrap_or_default() {
        let text = |key: &str| mount.get(key).and_then(Node::scalar).unwrap_or_default();
        if !text("target").starts_with('/') {
            return fail(
                mount,
                format!(
                    "services.{name}.volumes: invalid mount path: '{}' mount path must be absolute",
                    text("target")
                ),
            );
        }
        match text("type").as_str() {
            "volume" if !text("source").is_empty() && model.at(&["volumes", &text("source")]).is_none() => {
                return Err(undefined(name, "volume", &text("source"), &mount.place, model.get("volumes")));
            }
            "bind" if text("source").is_empty() => {
                return fail(mount, format!("services.{name}.volumes: a bind mount needs a source"));
            }
            "volume" | "bind" | "tmpfs" | "image" => {}
            other => return fail(mount, format!("services.{name}.volumes: type '{other}' is not supported")),
        }
    }
    for section in ["secrets", "configs"] {
        let what = section.trim_end_matches('s');
        for lists in [node.get(section), node.at(&["build", section])] {
            for item in lists.and_then(Node::as_list).unwrap_or_default() {
                let source = item.get("source").and_then(Node::scalar).unwrap_or_default();
                if model.at(&[section, &source]).is_none() {
                    return Err(undefined(name, what, &source, &item.place, model.get(section)));
                }
            }
        }
    }
    values(name, node)?;
    dependencies(name, node, model)
}

fn values(name: &str, node: &Node) -> Result<()> {
    let fail = |node: &Node, text: String| Err(Error::at(&node.place, text));
    if let Some(restart) = node.get("restart").and_then(Node::scalar) {
        let policy = restart.split(':').next().unwrap_or_default();
        if !["no", "always", "on-failure", "unless-stopped", "false"].contains(&policy) {
            return fail(
                &node.clone(),
                format!("services.{name}.restart: invalid restart policy: {restart}"),
            );
        }
    }
    if let Some(policy) = node.get("pull_policy") {
        let text = policy.scalar().unwrap_or_default();
        let known = ["always", "never", "build", "if_not_present", "missing", ""];
        if !known.contains(&text.as_str()) && refresh(&text, None).is_none() {
            return fail(policy, format!("services.{name}.pull_policy: unknown policy \"{text}\""));
        }
    }
    if let Some(container) = node.get("container_name") {
        let text = container.scalar().unwrap_or_default();
        let sound = text.len() > 1
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !sound {
            let want = "a name has two or more letters, digits, '.', '_' and '-', a letter or digit first";
            return fail(
                container,
                format!("services.{name}.container_name: invalid name \"{text}\": {want}"),
            );
        }
    }
    for (limit, entry) in node.get("ulimits").and_then(Node::as_map).into_iter().flatten() {
        if ["soft", "hard"].iter().any(|key| entry.node.get(key).is_none()) {
            return fail(
                &entry.node,
                format!("services.{name}.ulimits.{limit}: soft and hard must both be set"),
            );
        }
    }
    for key in ["secrets", "configs"] {
        for item in node.get(key).and_then(Node::as_list).unwrap_or_default() {
            for owner in ["uid", "gid"].iter().filter_map(|key| item.get(key)) {
                if owner.scalar().is_none_or(|text| text.parse::<u32>().is_err()) {
                    let text = owner.scalar().unwrap_or_default();
                    return fail(owner, format!("services.{name}.{key}: owner \"{text}\" must be a number"));
                }
            }
        }
    }
    let replicas = node.at(&["deploy", "replicas"]);
    if let (Some(scale), Some(replicas)) = (node.get("scale"), replicas)
        && scale.value != replicas.value
    {
        return fail(
            scale,
            format!("services.{name}: can't set distinct values on 'scale' and 'deploy.replicas'"),
        );
    }
    let many = node
        .get("scale")
        .or(replicas)
        .is_some_and(|node| matches!(node.value, Value::Int(count) if count > 1));
    if let Some(container) = node.get("container_name").filter(|_| many) {
        return fail(
            container,
            format!("services.{name}: can't set container_name and replicas: container name must be unique"),
        );
    }
    for rule in node.at(&["develop", "watch"]).and_then(Node::as_list).unwrap_or_default() {
        let action = rule.get("action").and_then(Node::scalar).unwrap_or_default();
        if !["rebuild", "sync", "restart", "sync+restart", "sync+exec"].contains(&action.as_str()) {
            return fail(rule, format!("services.{name}.develop.watch: unknown action \"{action}\""));
        }
        if action.starts_with("sync") && rule.get("target").is_none() {
            return fail(
                rule,
                format!("services.{name}.develop.watch: target is required for action \"{action}\""),
            );
        }
    }
    Ok(())
}

fn dependencies(name: &str, node: &Node, model: &Node) -> Result<()> {
    let exists = |service: &str| model.at(&["services", service]).is_some();
    for (service, entry) in node.get("depends_on").and_then(Node::as_map).into_iter().flatten() {
        let condition = entry.node.get("condition").and_then(Node::scalar).unwrap_or_default();
        if !["service_started", "service_healthy", "service_completed_successfully"]
            .contains(&condition.as_str())
        {
            return Err(Error::at(
                &entry.node.place,
                format!("services.{name}.depends_on.{service}: unknown condition \"{condition}\""),
            )
            .hint("it can be service_started, service_healthy or service_completed_successfully"));
        }
        let required = entry.node.get("required").is_none_or(|node| node.value != Value::Bool(false));
        if required && !exists(service) {
            return Err(on_undefined(name, "depends on", service, &entry.place, model));
        }
    }
    for link in node.get("links").and_then(Node::as_list).unwrap_or_default() {
        let text = link.scalar().unwrap_or_default();
        let service = text.split(':').next().unwrap_or_default();
        if !exists(service) {
            return Err(on_undefined(name, "has a link to", service, &link.place, model));
        }
    }
    for source in list_of(node.get("volumes_from")) {
        let service = source.split(':').next().unwrap_or_default();
        if service != "container" && !exists(service) {
            return Err(on_undefined(name, "takes volumes from", service, &node.place, model));
        }
    }
    for key in ["network_mode", "ipc", "pid"] {
        let Some(mode) = node.get(key) else { continue };
        let text = mode.scalar().unwrap_or_default();
        if let Some(service) = text.strip_prefix("service:").filter(|service| !exists(service)) {
            return Err(on_undefined(name, &format!("has {key} of"), service, &mode.place, model));
        }
    }
    Ok(())
}

fn on_undefined(name: &str, what: &str, service: &str, place: &Place, model: &Node) -> Error {
    let error = Error::at(
        place,
        format!("service \"{name}\" {what} undefined service \"{service}\": invalid compose project"),
    );
    let known = model
        .get("services")
        .and_then(Node::as_map)
        .into_iter()
        .flat_map(|map| map.keys().map(String::as_str));
    match meant(service, known) {
        Some(known) => error.hint(format!("did you mean '{known}'?")),
        None => error,
    }
}

fn cycles(model: &Node) -> Result<()> {
    fn visit<'a>(
        name: &'a str,
        model: &'a Node,
        state: &mut BTreeMap<&'a str, bool>,
        trail: &mut Vec<&'a str>,
    ) -> Result<()> {
        match state.get(name) {
            Some(true) => return Ok(()),
            Some(false) => {
                trail.push(name);
                let start = trail.iter().position(|known| *known == name).unwrap_or(0);
                let place =
                    model.at(&["services", name]).map_or_else(|| Place::whole(""), |node| node.place.clone());
                return Err(Error::at(
                    &place,
                    format!("dependency cycle detected: {}", trail[start..].join(" -> ")),
                ));
            }
            None => {}
        }
        state.insert(name, false);
        trail.push(name);
        let depends = model.at(&["services", name, "depends_on"]).and_then(Node::as_map);
        for next in depends.into_iter().flat_map(|map| map.keys()) {
            visit(next, model, state, trail)?;
        }
        trail.pop();
        state.insert(name, true);
        Ok(())
    }
    let mut state = BTreeMap::new();
    for name in model.get("services").and_then(Node::as_map).into_iter().flat_map(|map| map.keys()) {
        visit(name, model, &mut state, &mut Vec::new())?;
    }
    Ok(())
}
