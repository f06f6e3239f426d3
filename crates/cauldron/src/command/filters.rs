//! `--filter key=value` as the API's JSON, and other small things that many verbs share.

use crate::fail::Failure;
use serde_json::{Map, Value};

/// The `filters` query value; empty without filters.
///
/// # Errors
/// A filter has no `=`.
pub fn filters(flags: &[String]) -> Result<String, Failure> {
    if flags.is_empty() {
        return Ok(String::new());
    }
    let mut map: Map<String, Value> = Map::new();
    for flag in flags {
        let (key, value) = flag.split_once('=').ok_or_else(|| Failure::new(format!("invalid argument \"{flag}\" for \"-f, --filter\" flag: bad format of filter (expected name=value)")).code(125))?;
        let values = map.entry(key.trim().to_ascii_lowercase()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(Value::from(value.trim()));
        }
    }
    Ok(Value::Object(map).to_string())
}

/// `a=1,b=2` of a labels object.
pub fn labels(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(",")
}

/// `1` for a query, or nothing.
pub fn bit(on: bool) -> String {
    if on { "1".to_owned() } else { String::new() }
}
