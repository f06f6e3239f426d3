//! Paths of a file against its directory.

use super::absolute;
use crate::node::{Node, Value};
use std::path::Path;

/// Whether a build context is fetched by the engine.
pub fn is_remote(context: &str) -> bool {
    [
        "http://",
        "https://",
        "git://",
        "git@",
        "ssh://",
        "github.com/",
        "docker-image://",
        "oci-layout://",
        "service:",
        "target:",
    ]
    .iter()
    .any(|prefix| context.starts_with(prefix))
}

fn change(node: Option<&mut Node>, directory: &Path, home: Option<&str>) {
    if let Some(node) = node
        && let Some(text) = node.scalar()
        && !is_remote(&text)
    {
        node.value = Value::Text(absolute(&text, directory, home).to_string_lossy().into_owned());
    }
}

fn items(node: Option<&mut Node>) -> impl Iterator<Item = &mut Node> {
    let list = match node.map(|node| &mut node.value) {
        Some(Value::List(items)) => items.as_mut_slice(),
        _ => &mut [],
    };
    list.iter_mut()
}

fn entries(node: Option<&mut Node>) -> impl Iterator<Item = &mut Node> {
    node.and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut().map(|entry| &mut entry.node))
}

/// Makes a file's paths absolute.
pub fn resolve(project: &mut Node, directory: &Path, home: Option<&str>) {
    for service in entries(project.get_mut("services")) {
        if let Some(build) = service.get_mut("build") {
            change(build.get_mut("context"), directory, home);
            for context in entries(build.get_mut("additional_contexts")) {
                change(Some(context), directory, home);
            }
            for key in entries(build.get_mut("ssh")) {
                change(Some(key), directory, home);
            }
        }
        for file in items(service.get_mut("env_file")) {
            change(file.get_mut("path"), directory, home);
        }
        for file in items(service.get_mut("label_file")) {
            change(Some(file), directory, home);
        }
        for mount in items(service.get_mut("volumes")) {
            if mount.get("type").and_then(Node::scalar).as_deref() == Some("bind") {
                change(mount.get_mut("source"), directory, home);
            }
        }
        for rule in items(service.get_mut("develop").and_then(|develop| develop.get_mut("watch"))) {
            change(rule.get_mut("path"), directory, home);
        }
        change(service.get_mut("extends").and_then(|extends| extends.get_mut("file")), directory, home);
    }
    for section in ["secrets", "configs"] {
        for entry in entries(project.get_mut(section)) {
            change(entry.get_mut("file"), directory, home);
        }
    }
    for include in items(project.get_mut("include")) {
        for key in ["path", "env_file"] {
            for path in items(include.get_mut(key)) {
                if path.scalar().as_deref() != Some("/dev/null") {
                    change(Some(path), directory, home);
                }
            }
        }
        change(include.get_mut("project_directory"), directory, home);
    }
}
