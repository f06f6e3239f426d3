//! Values as Go's fmt prints them.

use super::eval::hidden;
use crate::render::size::general;
use serde_json::Value;

/// `%v`.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        other => inner(other),
    }
}

fn inner(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => whole.to_string(),
            (_, Some(whole), _) => whole.to_string(),
            (_, _, Some(real)) => float(real),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(inner).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let keys = || map.keys().filter(|key| !hidden(key));
            let is_struct = map.keys().next().is_some()
                && keys().all(|key| key.starts_with(|c: char| c.is_ascii_uppercase()));
            if is_struct {
                format!("{{{}}}", keys().map(|key| inner(&map[key])).collect::<Vec<_>>().join(" "))
            } else {
                format!(
                    "map[{}]",
                    keys().map(|key| format!("{key}:{}", inner(&map[key]))).collect::<Vec<_>>().join(" ")
                )
            }
        }
    }
}

fn float(real: f64) -> String {
    let shortest = real.to_string();
    if real.abs() >= 1e21 || (real != 0.0 && real.abs() < 1e-4) { general(real, 17) } else { shortest }
}

/// JSON as Docker's `json` function prints it: compact, `<`, `>` and `&` as they are.
pub(super) fn json(value: &Value) -> String {
    fn clean(value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .filter(|(key, _)| !hidden(key))
                    .map(|(key, value)| (key.clone(), clean(value)))
                    .collect(),
            ),
            Value::Array(items) => Value::Array(items.iter().map(clean).collect()),
            other => other.clone(),
        }
    }
    clean(value).to_string()
}

/// `printf`: the verbs that templates use.
pub(super) fn format(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut next = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut number = || {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok()
        };
        let width = number().unwrap_or(0).min(10_000);
        let precision = if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            Some(digits.parse::<usize>().unwrap_or(0).min(100))
        } else {
            None
        };
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match next.next() {
            Some(argument) => one(verb, precision, argument),
            None => format!("%!{verb}(MISSING)"),
        };
        let fill = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', fill));
        } else {
            out.extend(std::iter::repeat_n(if flags.contains('0') { '0' } else { ' ' }, fill));
            out.push_str(&text);
        }
    }
    out
}

fn one(verb: char, precision: Option<usize>, argument: &Value) -> String {
    match (verb, argument) {
        ('v', other) => inner(other),
        ('s', Value::String(text)) => match precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.clone(),
        },
        ('s', Value::Array(_) | Value::Object(_)) => inner(argument),
        ('q', Value::String(text)) => format!("{text:?}"),
        ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
        ('x', Value::Number(number)) if number.is_u64() => format!("{:x}", number.as_u64().unwrap_or(0)),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('t', Value::Bool(on)) => on.to_string(),
        ('f' | 'F', Value::Number(number)) if number.is_f64() => {
            format!("{:.*}", precision.unwrap_or(6), number.as_f64().unwrap_or(0.0))
        }
        ('g', Value::Number(number)) if number.is_f64() => {
            general(number.as_f64().unwrap_or(0.0), precision.unwrap_or(17))
        }
        (verb, other) => format!("%!{verb}({}={})", kind(other), inner(other)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
