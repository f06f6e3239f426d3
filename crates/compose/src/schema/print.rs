//! A tree as `config` prints it: sizes, modes and spans of time as the texts that Docker Compose makes of them.

use super::{Kind, PROJECT, duration};
use crate::node::{Node, Value};
use serde_json::{Map, Value as Json};

/// A whole project.
pub fn project(tree: &Node) -> Json {
    printed(tree, &Kind::Object(PROJECT))
}

/// The value of a key of this kind.
fn printed(node: &Node, kind: &Kind) -> Json {
    match (kind, &node.value) {
        (Kind::Bytes, Value::Int(size)) => Json::String(size.to_string()),
        (Kind::Mode, Value::Int(mode)) => Json::String(format!("0{mode:o}")),
        (Kind::Duration, Value::Text(text)) => {
            duration(text).map_or_else(|| node.json(), |span| spelled(span).into())
        }
        (Kind::Hosts, Value::Map(map)) => {
            let lines = map.iter().flat_map(|(name, entry)| {
                let addresses = entry.node.as_list().unwrap_or_default().iter().filter_map(Node::scalar);
                addresses.map(move |address| Json::String(format!("{name}={address}")))
            });
            Json::Array(lines.collect())
        }
        (Kind::Object(fields) | Kind::Optional(fields), Value::Map(map)) => {
            let kind = |key: &str| {
                fields.iter().find(|field| field.name == key).map_or(&Kind::Any, |field| &field.kind)
            };
            let one =
                |(key, entry): (&String, &crate::node::Entry)| (key.clone(), printed(&entry.node, kind(key)));
            Json::Object(map.iter().map(one).collect::<Map<_, _>>())
        }
        (Kind::Map(kind), Value::Map(map)) => {
            let one =
                |(key, entry): (&String, &crate::node::Entry)| (key.clone(), printed(&entry.node, kind));
            Json::Object(map.iter().map(one).collect())
        }
        (Kind::List(kind) | Kind::Items(_, kind), Value::List(items)) => {
            Json::Array(items.iter().map(|item| printed(item, kind)).collect())
        }
        (Kind::Short(_, kind), _) => printed(node, kind),
        _ => node.json(),
    }
}

/// Nanoseconds as Go's `time.Duration` prints them: `1h30m0s`, `1.5s`, `300ms`.
fn spelled(span: i64) -> String {
    let fraction = |whole: i64, unit: i64, name: &str| {
        let digits = unit.to_string().len() - 1;
        let rest = format!("{:0digits$}", whole % unit);
        let rest = rest.trim_end_matches('0');
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{}{dot}{rest}{name}", whole / unit)
    };
    const SECOND: i64 = 1_000_000_000;
    match span {
        0 => "0s".to_owned(),
        1..1_000 => format!("{span}ns"),
        1_000..1_000_000 => fraction(span, 1_000, "µs"),
        1_000_000..SECOND => fraction(span, 1_000_000, "ms"),
        _ => {
            let (minutes, hours) = (span / SECOND / 60, span / SECOND / 3600);
            let seconds = fraction(span % (60 * SECOND), SECOND, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{}m{seconds}", minutes % 60),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_compose_prints_it() {
        let text = "services: {w: {image: i, mem_limit: 64m, shm_size: 1gb, stop_grace_period: 90s, extra_hosts: ['b:1.2.3.4', 'a=::1'], secrets: [{source: s, mode: 0440}, {source: s, target: t, mode: '0400'}], deploy: {resources: {limits: {cpus: '0.50', memory: 8k}}}}}\nsecrets: {s: {file: ./s}}";
        let loaded = crate::body::project_for_tests(text);
        let tree = project(loaded.model.as_ref().unwrap());
        let service = &tree["services"]["w"];
        let mut own = service.clone();
        own.as_object_mut().unwrap().retain(|key, _| !["image", "networks"].contains(&key.as_str()));
        let want = serde_json::json!({
            "deploy": {"resources": {"limits": {"cpus": 0.5, "memory": "8192"}}},
            "extra_hosts": ["a=::1", "b=1.2.3.4"],
            "mem_limit": "67108864",
            "secrets": [{"mode": "0440", "source": "s"}, {"mode": "0400", "source": "s", "target": "t"}],
            "shm_size": "1073741824",
            "stop_grace_period": "1m30s",
        });
        assert_eq!(own, want);
        // What is printed is read as what it was.
        let again = crate::body::project_for_tests(&tree.to_string());
        assert_eq!(project(again.model.as_ref().unwrap()), tree);
    }

    #[test]
    fn spans_of_time() {
        let table = [
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("100ms", "100ms"),
            ("1500ms", "1.5s"),
            ("2d", "48h0m0s"),
            ("0s", "0s"),
            ("1500us", "1.5ms"),
            ("61s", "1m1s"),
        ];
        for (text, want) in table {
            assert_eq!(spelled(duration(text).unwrap()), want, "{text}");
        }
    }
}
