//! Events: one JSON object a line, appended to one log under the run root by whoever does the thing (command
//! line, API server or monitor). A line is at most `PIPE_BUF` long or written in one call with `O_APPEND`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event, in the shape of Docker's `GET /events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `network`, `volume`, `builder`, `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `exec_start: …`.
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Identifier (or name, for volumes).
    #[serde(rename = "ID")]
    pub id: String,
    /// `name`, `image`, labels, `exitCode`, `signal`, …
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event that happened at this time.
    pub fn new(
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        at: crate::time::Timestamp,
    ) -> Self {
        Self {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: at.seconds,
            time_nano: at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos)),
        }
    }
}

impl Event {
    /// Whether it passes filters with the keys of Docker's `GET /events`.
    pub fn matches(&self, filters: &crate::filter::Filters) -> bool {
        let word = self.action.split(':').next().unwrap_or_default();
        let action = filters.get("event");
        (action.is_empty() || action.iter().any(|wanted| *wanted == self.action || wanted == word))
            && filters.exact("type", &self.kind)
            && filters.exact("scope", &self.scope)
            && ["container", "daemon", "network", "node", "plugin", "secret", "service", "config", "volume"]
                .iter()
                .all(|key| self.concerns(filters, key))
            && self.concerns_image(filters)
            && filters.labels("label", &self.actor.attributes)
    }
    /// The object's id or name starts with a value of the filter named after its kind.
    fn concerns(&self, filters: &crate::filter::Filters, key: &str) -> bool {
        if !filters.contains(key) {
            return true;
        }
        let other = self.kind != key;
        // Of another kind's events only those pass that name the object: a network's connect names its container.
        if other {
            return self.actor.attributes.get(key).is_some_and(|value| filters.prefix(key, value));
        }
        filters.prefix(key, &self.actor.id)
            || self.actor.attributes.get("name").is_some_and(|name| filters.prefix(key, name))
    }
    fn concerns_image(&self, filters: &crate::filter::Filters) -> bool {
        if !filters.contains("image") {
            return true;
        }
        let attribute = if self.kind == "image" { "name" } else { "image" };
        let name = self.actor.attributes.get(attribute).map_or("", String::as_str);
        [self.actor.id.as_str(), name, without_tag(name)].iter().any(|value| filters.exact("image", value))
    }
}

/// `name` of `name:tag`; a registry's port is no tag.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filters;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Event::new(kind, action, id, attributes, crate::time::Timestamp { seconds: 5, nanos: 7 })
    }

    #[test]
    fn passes_docker_filters() {
        let start = event(
            "container",
            "start",
            "abcdef",
            &[("name", "web"), ("image", "nginx:1.27"), ("tier", "front")],
        );
        let exec = event("container", "exec_start: sh -c true", "abcdef", &[("name", "web")]);
        let connect = event("network", "connect", "n1", &[("name", "bridge"), ("container", "abcdef")]);
        let cases = [
            (r#"{}"#, [true, true, true]),
            (r#"{"type":["container"]}"#, [true, true, false]),
            (r#"{"event":["start"]}"#, [true, false, false]),
            (r#"{"event":["exec_start"]}"#, [false, true, false]),
            (r#"{"container":["web"]}"#, [true, true, false]),
            (r#"{"container":["abc"]}"#, [true, true, true]),
            (r#"{"image":["nginx"]}"#, [true, false, false]),
            (r#"{"image":["nginx:1.27"]}"#, [true, false, false]),
            (r#"{"label":["tier=front"]}"#, [true, false, false]),
            (r#"{"network":["bridge"]}"#, [false, false, true]),
            (r#"{"scope":["swarm"]}"#, [false, false, false]),
        ];
        for (text, wanted) in cases {
            let filters = Filters::parse(text).unwrap();
            let got = [&start, &exec, &connect].map(|event| event.matches(&filters));
            assert_eq!(got, wanted, "{text}");
        }
        assert_eq!(start.time_nano, 5_000_000_007);
        assert_eq!(without_tag("localhost:5000/a"), "localhost:5000/a");
    }
}
