//! A file's tree: values with their places.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where something stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// From 1; 0 is the file as a whole.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl Place {
    /// A file as a whole.
    pub fn whole(file: &str) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// What a merge does with a value that was tagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tag {
    /// It merges as its key does.
    #[default]
    None,
    /// `!reset`: the key is removed.
    Reset,
    /// `!override`: it takes the earlier value's place.
    Override,
}

/// A mapping's value and the place of its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where the key stands.
    pub place: Place,
    /// The value.
    pub node: Node,
}

/// A mapping.
pub type Map = BTreeMap<String, Entry>;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// A truth value, where the key wants one.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text that was quoted, or that the key wants.
    Text(String),
    /// A scalar without quotes: its key decides what it is.
    Plain(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// A value at its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub place: Place,
    /// How it merges.
    pub tag: Tag,
}

impl Node {
    /// An untagged value.
    pub fn new(value: Value, place: &Place) -> Self {
        Self { value, place: place.clone(), tag: Tag::None }
    }
    /// Text.
    pub fn text(text: impl Into<String>, place: &Place) -> Self {
        Self::new(Value::Text(text.into()), place)
    }
    /// A mapping whose keys stand where its values do.
    pub fn map(entries: impl IntoIterator<Item = (String, Node)>, place: &Place) -> Self {
        let entry = |(key, node): (String, Node)| (key, Entry { place: node.place.clone(), node });
        Self::new(Value::Map(entries.into_iter().map(entry).collect()), place)
    }
    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }
    /// The mapping to change, if it is one.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }
    /// The items, if it is a sequence.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }
    /// The value below several keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }
    /// The value of a mapping's key, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key).map(|entry| &mut entry.node)
    }
    /// Sets a mapping's key.
    pub fn set(&mut self, key: &str, node: Node) {
        if let Some(map) = self.as_map_mut() {
            map.insert(key.to_owned(), Entry { place: node.place.clone(), node });
        }
    }
    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Plain(text) => matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            _ => false,
        }
    }
    /// A scalar as text; `None` for null, lists and mappings.
    pub fn scalar(&self) -> Option<String> {
        if self.is_null() {
            return None;
        }
        match &self.value {
            Value::Text(text) | Value::Plain(text) => Some(text.clone()),
            Value::Bool(on) => Some(on.to_string()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.resolved() {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) | Value::Float(_) => "number",
            Value::Text(_) | Value::Plain(_) => "string",
            Value::List(_) => "list",
            Value::Map(_) => "mapping",
        }
    }
    /// The value with plain scalars resolved by YAML's core schema.
    pub fn resolved(&self) -> Value {
        match &self.value {
            Value::Plain(text) => resolve(text),
            other => other.clone(),
        }
    }
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self.resolved() {
            Value::Null => Json::Null,
            Value::Bool(on) => Json::Bool(on),
            Value::Int(number) => Json::from(number),
            Value::Float(number) => Json::from(number),
            Value::Text(text) | Value::Plain(text) => Json::String(text),
            Value::List(items) => Json::Array(items.iter().map(Node::json).collect()),
            Value::Map(map) => map.iter().map(|(key, entry)| (key.clone(), entry.node.json())).collect(),
        }
    }
}

/// A whole number in YAML's spellings: `10`, `0x1f`, `0o17`, `017`, `1_000`.
pub fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let number = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i64::from_str_radix(octal, 8)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(&digits, 8)
    } else {
        digits.parse()
    };
    number.ok().map(|number| if negative { -number } else { number })
}

fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Value::Int(number);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+' || c == '.')
        && text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars() {
        assert_eq!(resolve("0440"), Value::Int(0o440));
        assert_eq!(resolve("0o17"), Value::Int(15));
        assert_eq!(resolve("1.5"), Value::Float(1.5));
        assert_eq!(resolve("1.2.3"), Value::Text("1.2.3".to_owned()));
        assert_eq!(resolve("22:22"), Value::Text("22:22".to_owned()));
        assert_eq!(resolve("yes"), Value::Text("yes".to_owned()));
        assert_eq!(resolve("-"), Value::Text("-".to_owned()));
        assert_eq!(resolve("08"), Value::Float(8.0));
    }
}
