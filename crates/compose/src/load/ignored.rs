//! Keys that the specification has and that do nothing here: each that is used is named.

use crate::node::Node;
use crate::project::Project;

/// Of a service.
const SERVICE: &[&[&str]] = &[
    &["isolation"],
    &["build", "isolation"],
    &["build", "privileged"],
    &["build", "provenance"],
    &["build", "sbom"],
    &["deploy", "endpoint_mode"],
    &["deploy", "placement"],
    &["deploy", "resources", "reservations", "cpus"],
    &["deploy", "resources", "reservations", "generic_resources"],
    &["deploy", "restart_policy", "delay"],
    &["deploy", "restart_policy", "window"],
    &["deploy", "rollback_config"],
    &["deploy", "update_config"],
];
/// Of a secret or config: only a swarm has drivers.
const DELIVERED: &[&str] = &["driver", "driver_opts", "labels", "template_driver"];

/// The warnings of a project.
pub fn keys(project: &Project) -> Vec<String> {
    let mut found = Vec::new();
    for name in project.services.keys() {
        let Some(node) = project.node(name) else { continue };
        for path in SERVICE.iter().filter(|path| node.at(path).is_some_and(|value| !value.is_null())) {
            found.push(format!("services.{name}.{} has no effect here", path.join(".")));
        }
        if node.at(&["deploy", "mode"]).and_then(Node::scalar).is_some_and(|mode| mode != "replicated") {
            found.push(format!("services.{name}.deploy.mode has no effect here"));
        }
    }
    for section in ["secrets", "configs"] {
        let all = project.model.as_ref().and_then(|model| model.get(section)).and_then(Node::as_map);
        for (name, entry) in all.into_iter().flatten() {
            for key in DELIVERED.iter().filter(|key| entry.node.get(key).is_some()) {
                found.push(format!("{section}.{name}.{key} has no effect here"));
            }
        }
    }
    found
}
