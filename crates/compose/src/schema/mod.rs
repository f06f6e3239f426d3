//! The Compose specification as one table: which keys there are, what their values look like, how they merge.
//!
//! [`canonical`] checks a tree against it and brings every value into its long form: short ports become mappings,
//! `A=1` lists become mappings, `"true"` where a truth value stands becomes one. What follows (merge, typing, printing) knows the
//! long forms only. The keys are those of the specification's JSON schema and of the older file versions.

mod long;
mod print;
mod table;

pub use long::words;
pub use print::project;
pub use table::{DEPLOY, PROJECT, SERVICE};

use crate::error::{Error, Result, meant};
use crate::node::{Entry, Map, Node, Place, Tag, Value, integer};

/// What a value looks like in its long form.
#[derive(Debug)]
pub enum Kind {
    /// Anything, resolved by YAML's core schema: extensions.
    Any,
    /// Text; numbers and truth values are taken as they are written.
    Text,
    /// A truth value.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// Bytes: `64m`, `1gb`, a number.
    Bytes,
    /// A file's mode: octal, also where it is a text.
    Mode,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Host names and their addresses; `name=address` lists become a mapping.
    Hosts,
    /// A span of time, `1m30s`.
    Duration,
    /// A list of texts.
    Texts,
    /// One text or a list of them: a list.
    TextOrTexts,
    /// Words of a command: a text that is split as a shell does, or a list; null stays.
    Command,
    /// A mapping to texts; `A=1` lists become one. A name without value is null.
    Dict,
    /// A mapping with these keys.
    Object(&'static [Field]),
    /// As [`Kind::Object`]; null is an empty one.
    Optional(&'static [Field]),
    /// A mapping of names to this.
    Map(&'static Kind),
    /// A list of this.
    List(&'static Kind),
    /// A list whose items may be short for one or more of this.
    Items(Expand, &'static Kind),
    /// Something that may be short for this.
    Short(Lengthen, &'static Kind),
}

/// A short list item in its long forms; `None`: it is long already.
pub type Expand = fn(&Node) -> Result<Option<Vec<Node>>, String>;
/// A short value in its long form; `None`: it is long already.
pub type Lengthen = fn(&Node) -> Result<Option<Node>, String>;

/// How a key's values of two files become one.
#[derive(Clone, Copy, Debug)]
pub enum Join {
    /// Mappings by key, lists one after the other, anything else by the later one.
    Natural,
    /// The later one.
    Last,
    /// Lists one after the other, each item once.
    Unique,
    /// Lists of mappings: the later item with the same key replaces the earlier one.
    Keyed(fn(&Node) -> String),
    /// Mappings by key where both name the same driver, or one names none; else the later one.
    SameDriver,
}

/// A key of a mapping.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub kind: Kind,
    /// How it merges.
    pub join: Join,
}

/// Whether names are files' own: `x-…`.
pub fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}

/// Checks a value and brings it into its long form; `path` is where it stands.
///
/// # Errors
/// A key is unknown, or a value is not what its key wants.
pub fn canonical(node: Node, kind: &Kind, path: &str) -> Result<Node> {
    if node.tag == Tag::Reset {
        return Ok(Node { value: Value::Null, ..node });
    }
    let Node { place, tag, .. } = &node;
    let (place, tag) = (place.clone(), *tag);
    // A variable that was not replaced (`--no-interpolate`) stands for anything.
    if matches!(&node.value, Value::Text(text) | Value::Plain(text) if text.contains("${"))
        && !matches!(kind, Kind::Command | Kind::TextOrTexts)
    {
        return Ok(Node { value: Value::Text(node.scalar().unwrap_or_default()), place, tag });
    }
    let wrong = |want: &str| Err(Error::at(&place, format!("{path} must be a {want}")));
    let value = match kind {
        Kind::Any => any(&node).value,
        _ if node.is_null() && !matches!(kind, Kind::Optional(_) | Kind::Dict | Kind::Short(..)) => {
            Value::Null
        }
        Kind::Text => match node.scalar() {
            Some(text) => Value::Text(text),
            None => return wrong("string"),
        },
        Kind::Bool => match node.scalar().as_deref().and_then(truth) {
            Some(on) => Value::Bool(on),
            None => return wrong("boolean"),
        },
        Kind::Int => match node.scalar().as_deref().and_then(|text| integer(text.trim())) {
            Some(number) => Value::Int(number),
            None => return wrong("integer"),
        },
        Kind::Number => {
            match node.scalar().and_then(|text| text.trim().parse::<f64>().ok()).filter(|n| n.is_finite()) {
                Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => Value::Int(number as i64),
                Some(number) => Value::Float(number),
                None => return wrong("number"),
            }
        }
        Kind::Bytes => match node.scalar().as_deref().map(bytes) {
            Some(Some(size)) => Value::Int(size),
            Some(None) => {
                return Err(Error::at(
                    &place,
                    format!("{path}: invalid size: '{}'", node.scalar().unwrap_or_default()),
                ));
            }
            None => return wrong("size"),
        },
        Kind::Mode => match mode(&node) {
            Some(mode) => Value::Int(mode),
            None => return wrong("mode, as in 0440"),
        },
        Kind::OneOf(words) => match node.scalar() {
            Some(word) if words.contains(&word.as_str()) => Value::Text(word),
            Some(word) => return Err(one_of(&place, path, &word, words)),
            None => return wrong("string"),
        },
        Kind::Hosts => return canonical(node, &HOSTS, path),
        Kind::Duration => match node.scalar() {
            Some(text) if duration(&text).is_some() => Value::Text(text),
            Some(text) => {
                return Err(Error::at(&place, format!("{path}: invalid duration \"{text}\""))
                    .hint("a duration has units, as in 1h30m or 1.5s"));
            }
            None => return wrong("string"),
        },
        Kind::Texts => return list(node, &Kind::Text, path),
        Kind::TextOrTexts => match node.value {
            Value::List(_) => return list(node, &Kind::Text, path),
            Value::Map(_) => return wrong("string or list"),
            _ => Value::List(vec![Node {
                value: Value::Text(node.scalar().unwrap_or_default()),
                tag: Tag::None,
                ..node
            }]),
        },
        Kind::Command => match &node.value {
            Value::List(_) => return list(node, &Kind::Text, path),
            Value::Map(_) => return wrong("string or list"),
            _ => {
                let text = node.scalar().unwrap_or_default();
                let words = words(&text).map_err(|error| Error::at(&place, format!("{path}: {error}")))?;
                Value::List(words.into_iter().map(|word| Node::text(word, &place)).collect())
            }
        },
        Kind::Dict => Value::Map(dict(node, path)?),
        Kind::Object(fields) | Kind::Optional(fields) => match node.value {
            Value::Map(map) => Value::Map(object(map, fields, path)?),
            _ if node.is_null() => Value::Map(Map::new()),
            _ => return wrong("mapping"),
        },
        Kind::Map(kind) => match node.value {
            Value::Map(map) => {
                Value::Map(each(map, |key, node| canonical(node, kind, &format!("{path}.{key}")))?)
            }
            _ => return wrong("mapping"),
        },
        Kind::List(kind) => return list(node, kind, path),
        Kind::Items(expand, kind) => {
            let Value::List(items) = node.value else { return wrong("list") };
            let mut out = Vec::new();
            for (index, item) in items.into_iter().enumerate() {
                let path = format!("{path}[{index}]");
                let open = item.scalar().is_some_and(|text| text.contains("${"));
                let long = match expand(&item) {
                    Err(_) if open => None,
                    long => long.map_err(|error| Error::at(&item.place, format!("{path}: {error}")))?,
                };
                for item in long.unwrap_or_else(|| vec![item]) {
                    out.push(canonical(item, kind, &path)?);
                }
            }
            Value::List(out)
        }
        Kind::Short(lengthen, kind) => {
            let long = lengthen(&node).map_err(|error| Error::at(&place, format!("{path} {error}")))?;
            let node = canonical(long.unwrap_or(Node { tag: Tag::None, ..node }), kind, path)?;
            return Ok(Node { tag, place, ..node });
        }
    };
    Ok(Node { value, place, tag })
}

const HOSTS: Kind = Kind::Short(long::hosts, &Kind::Map(&Kind::TextOrTexts));

/// A text is octal whatever it begins with; a number is what YAML makes of it.
fn mode(node: &Node) -> Option<i64> {
    match &node.value {
        Value::Text(text) => i64::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => node.scalar().as_deref().and_then(|text| integer(text.trim())),
    }
    .filter(|mode| (0..=0o7777).contains(mode))
}

fn one_of(place: &Place, path: &str, word: &str, words: &[&str]) -> Error {
    let error = Error::at(place, format!("{path}: unknown value \"{word}\": it can be {}", words.join(", ")));
    match meant(word, words.iter().copied()) {
        Some(word) => error.hint(format!("did you mean '{word}'?")),
        None => error,
    }
}

fn each(map: Map, mut change: impl FnMut(&str, Node) -> Result<Node>) -> Result<Map> {
    map.into_iter()
        .map(|(key, entry)| {
            let node = change(&key, entry.node)?;
            Ok((key, Entry { node, place: entry.place }))
        })
        .collect()
}

fn list(node: Node, kind: &Kind, path: &str) -> Result<Node> {
    let Node { value: Value::List(items), place, tag } = node else {
        return Err(Error::at(&node.place, format!("{path} must be a list")));
    };
    let each = |(index, item): (usize, Node)| {
        let path = format!("{path}[{index}]");
        if item.is_null() {
            return Err(Error::at(&item.place, format!("{path} must not be null")));
        }
        canonical(item, kind, &path)
    };
    let items = items.into_iter().enumerate().map(each).collect::<Result<_>>()?;
    Ok(Node { value: Value::List(items), place, tag })
}

fn object(map: Map, fields: &'static [Field], path: &str) -> Result<Map> {
    let mut out = Map::new();
    for (key, Entry { place, node }) in map {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let kind = match fields.iter().find(|field| field.name == key) {
            Some(field) => &field.kind,
            None if is_extension(&key) => &Kind::Any,
            None => return Err(unknown(&key, fields, path, &place)),
        };
        // A key without a value is a key that is not there, but for those where nothing says something.
        let node = canonical(node, kind, &below)?;
        out.insert(key, Entry { place, node });
    }
    Ok(out)
}

fn unknown(key: &str, fields: &[Field], path: &str, place: &Place) -> Error {
    let path = if path.is_empty() { "(root)" } else { path };
    let error = Error::at(place, format!("{path} additional properties '{key}' not allowed"));
    match meant(key, fields.iter().map(|field| field.name)) {
        Some(name) => error.hint(format!("did you mean '{name}'?")),
        None => error,
    }
}

fn any(node: &Node) -> Node {
    let value = match node.resolved() {
        Value::List(items) => Value::List(items.iter().map(any).collect()),
        Value::Map(map) => Value::Map(
            map.into_iter()
                .map(|(key, entry)| (key, Entry { node: any(&entry.node), place: entry.place }))
                .collect(),
        ),
        other => other,
    };
    Node { value, ..node.clone() }
}

fn dict(node: Node, path: &str) -> Result<Map> {
    let place = node.place.clone();
    let mut out = Map::new();
    match node.value {
        Value::Map(map) => {
            for (key, Entry { place, node }) in map {
                let value = match (&node.value, node.scalar()) {
                    (Value::List(_) | Value::Map(_), _) => {
                        return Err(Error::at(
                            &node.place,
                            format!("{path}.{key} must be a string, number, boolean or null"),
                        ));
                    }
                    (_, Some(text)) => Value::Text(text),
                    (_, None) => Value::Null,
                };
                out.insert(key, Entry { place, node: Node { value, ..node } });
            }
        }
        Value::List(items) => {
            for item in items {
                let Some(text) = item.scalar() else {
                    return Err(Error::at(&item.place, format!("{path} must be a list of strings")));
                };
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Value::Text(value.to_owned())),
                    None => (text, Value::Null),
                };
                out.insert(name, Entry { place: item.place.clone(), node: Node::new(value, &item.place) });
            }
        }
        _ if node.is_null() => {}
        _ => return Err(Error::at(&place, format!("{path} must be a mapping or a list"))),
    }
    Ok(out)
}

/// A truth value in the spellings of YAML 1.1.
pub fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" | "t" => Some(true),
        "false" | "no" | "off" | "n" | "0" | "f" => Some(false),
        _ => None,
    }
}

/// Bytes: a number with `b`, `k`, `m`, `g`, `t`, `p`, each also with `b` or `ib`; powers of 1024. -1 is no limit.
pub fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let power = match text[end..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    (bytes < 9e18).then_some(bytes as i64)
}

/// Nanoseconds of `1h30m`, `1.5s`, `300ms`, `2d`, `1w`; `0` needs no unit.
pub fn duration(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "d" => 86400e9,
                "w" => 604_800e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (total < 9e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(bytes("64m"), Some(64 << 20));
        assert_eq!(bytes("1.5GB"), Some(3 << 29));
        assert_eq!(bytes("12"), Some(12));
        assert_eq!(bytes("-1"), Some(-1));
        assert_eq!(bytes("12q"), None);
        assert_eq!(duration("1m30s"), Some(90_000_000_000));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("300ms"), Some(300_000_000));
        assert_eq!(duration("10"), None);
        assert_eq!(duration(""), None);
    }
}
