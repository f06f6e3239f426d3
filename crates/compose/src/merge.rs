//! Two files' trees become one, each key by its rule in the table. Both are in their long forms.

use crate::node::{Map, Node, Tag, Value};
use crate::schema::{Field, Join, Kind};
use std::collections::BTreeSet;

/// The earlier tree with the later one on top.
pub fn merge(base: Node, over: Node, kind: &Kind) -> Node {
    joined(base, over, kind, Join::Natural)
}

fn joined(base: Node, over: Node, kind: &Kind, join: Join) -> Node {
    if over.tag != Tag::None || matches!(join, Join::Last) {
        // A reset stays one: a third file is merged onto it.
        return over;
    }
    if matches!(join, Join::SameDriver) {
        let driver = |node: &Node| node.get("driver").and_then(Node::scalar);
        if let (Some(one), Some(other)) = (driver(&base), driver(&over))
            && one != other
        {
            return over;
        }
    }
    let place = over.place.clone();
    let tag = if base.tag == Tag::Reset { Tag::None } else { base.tag };
    let value = match (base.value, over.value) {
        (value, Value::Null) if !matches!(kind, Kind::Dict | Kind::Any | Kind::Text) => value,
        (Value::Map(base), Value::Map(over)) => Value::Map(maps(base, over, kind)),
        (Value::List(base), Value::List(over)) => Value::List(lists(base, over, join)),
        (_, over) => over,
    };
    Node { value, place, tag }
}

fn maps(mut base: Map, over: Map, kind: &Kind) -> Map {
    for (key, mut entry) in over {
        if let Some(before) = base.remove(&key) {
            let (kind, join) = below(kind, &key);
            entry.node = joined(before.node, entry.node, kind, join);
        }
        base.insert(key, entry);
    }
    base
}

fn below<'a>(kind: &'a Kind, key: &str) -> (&'a Kind, Join) {
    match kind {
        Kind::Object(fields) | Kind::Optional(fields) => {
            let field = fields.iter().find(|field| field.name == key);
            field.map_or((&Kind::Any, Join::Natural), |field: &Field| (&field.kind, field.join))
        }
        Kind::Short(_, kind) => below(kind, key),
        Kind::Map(kind) => (kind, Join::Natural),
        Kind::Hosts => (&Kind::TextOrTexts, Join::Natural),
        _ => (&Kind::Any, Join::Natural),
    }
}

fn lists(mut base: Vec<Node>, over: Vec<Node>, join: Join) -> Vec<Node> {
    match join {
        Join::Unique => {
            let mut seen: BTreeSet<String> = base.iter().filter_map(Node::scalar).collect();
            base.extend(over.into_iter().filter(|item| item.scalar().is_none_or(|text| seen.insert(text))));
        }
        Join::Keyed(key) => {
            for item in over {
                let wanted = key(&item);
                match base.iter_mut().find(|known| key(known) == wanted) {
                    Some(known) => *known = item,
                    None => base.push(item),
                }
            }
        }
        _ => base.extend(over),
    }
    base
}

/// Takes out of each list what a later item of it replaces: a list in one file merges as one of two files does.
pub fn single(node: &mut Node, kind: &Kind) {
    join(node, kind, Join::Natural);
}

fn join(node: &mut Node, kind: &Kind, how: Join) {
    match &mut node.value {
        Value::Map(map) => {
            for (key, entry) in map {
                let (kind, how) = below(kind, key);
                join(&mut entry.node, kind, how);
            }
        }
        Value::List(items) if matches!(how, Join::Unique | Join::Keyed(_)) => {
            *items = lists(Vec::new(), std::mem::take(items), how);
        }
        _ => {}
    }
}

/// Takes out what was reset and forgets the tags.
pub fn settle(node: &mut Node) {
    node.tag = Tag::None;
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|_, entry| entry.node.tag != Tag::Reset);
            map.values_mut().for_each(|entry| settle(&mut entry.node));
        }
        Value::List(items) => {
            items.retain(|item| item.tag != Tag::Reset);
            items.iter_mut().for_each(settle);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{PROJECT, canonical};

    fn merged(files: &[&str]) -> String {
        let kind = Kind::Object(PROJECT);
        let read = |text: &&str| {
            let node = crate::yaml::parse("f", text.as_bytes()).unwrap().remove(0);
            canonical(node, &kind, "").unwrap()
        };
        let mut node = files.iter().map(read).reduce(|base, over| merge(base, over, &kind)).unwrap();
        settle(&mut node);
        node.at(&["services", "w"]).unwrap().json().to_string()
    }

    #[test]
    fn rules() {
        let service = |body: &str| format!("services: {{w: {body}}}");
        let table = [
            ("{command: [a, b]}", "{command: c}", r#"{"command":["c"]}"#),
            ("{environment: [A=1, B=2]}", "{environment: {B: 3}}", r#"{"environment":{"A":"1","B":"3"}}"#),
            ("{dns: 1.1.1.1}", "{dns: [1.1.1.1, 8.8.8.8]}", r#"{"dns":["1.1.1.1","8.8.8.8"]}"#),
            (
                "{volumes: ['a:/x', 'b:/y']}",
                "{volumes: ['c:/x:ro']}",
                r#"{"volumes":[{"read_only":true,"source":"c","target":"/x","type":"volume","volume":{}},{"source":"b","target":"/y","type":"volume","volume":{}}]}"#,
            ),
            ("{ports: ['1:1'], image: i}", "{ports: !reset []}", r#"{"image":"i"}"#),
            ("{expose: [1]}", "{expose: !override [2]}", r#"{"expose":["2"]}"#),
            (
                "{image: a, build: .}",
                "{build: {target: t}}",
                r#"{"build":{"context":".","target":"t"},"image":"a"}"#,
            ),
            (
                "{logging: {driver: a, options: {x: 1}}}",
                "{logging: {driver: b}}",
                r#"{"logging":{"driver":"b"}}"#,
            ),
            (
                "{depends_on: [a]}",
                "{depends_on: {a: {condition: service_healthy}, b: {condition: service_started}}}",
                r#"{"depends_on":{"a":{"condition":"service_healthy"},"b":{"condition":"service_started"}}}"#,
            ),
            (
                "{environment: {A: 1, B: 2}}",
                "{environment: {A: !reset null}}",
                r#"{"environment":{"B":"2"}}"#,
            ),
        ];
        for (base, over, want) in table {
            assert_eq!(merged(&[&service(base), &service(over)]), want, "{base} {over}");
        }
    }
}
