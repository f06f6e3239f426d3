//! The functions of Go's templates and of Docker's.

use super::eval::Datum;
use super::print;
use serde_json::Value;
use std::cmp::Ordering;

/// Calls a function. For a table's headers, those that change text pass it through.
pub(super) fn call(name: &str, arguments: Vec<Datum>, header: bool) -> Result<Datum, String> {
    if header && ["json", "join", "split", "title", "lower", "upper", "pad", "truncate"].contains(&name) {
        return Ok(arguments.into_iter().next().unwrap_or(Datum::Value(Value::from(""))));
    }
    match name {
        "and" | "or" => {
            return arguments
                .into_iter()
                .next_back()
                .ok_or_else(|| format!("wrong number of args for {name}: want at least 1 got 0"));
        }
        "not" => {
            let [one] = exactly::<1, _>(name, arguments)?;
            return Ok(Datum::Value(Value::Bool(!one.truth())));
        }
        "json" => {
            let [one] = exactly::<1, _>(name, arguments)?;
            let Datum::Value(value) = one else {
                return Ok(Datum::Value(Value::from("null")));
            };
            return Ok(Datum::Value(Value::from(print::json(&value))));
        }
        _ => {}
    }
    let values: Vec<Value> = arguments.into_iter().map(Datum::value).collect();
    plain(name, values).map(Datum::Value)
}

fn plain(name: &str, values: Vec<Value>) -> Result<Value, String> {
    let text = |value: &Value| print::value(value);
    Ok(match name {
        "len" => {
            let [value] = exactly::<1, _>(name, values)?;
            match value {
                Value::String(text) => Value::from(text.len()),
                Value::Array(items) => Value::from(items.len()),
                Value::Object(map) => Value::from(map.len()),
                Value::Null => Value::from(0),
                other => return Err(format!("error calling len: len of type {}", text(&other))),
            }
        }
        "index" => index(values)?,
        "slice" => slice(&values)?,
        "eq" => {
            let Some((first, rest)) = values.split_first().filter(|(_, rest)| !rest.is_empty()) else {
                return Err("error calling eq: missing argument for comparison".to_owned());
            };
            Value::Bool(rest.iter().any(|other| compare(first, other) == Some(Ordering::Equal)))
        }
        "ne" | "lt" | "le" | "gt" | "ge" => {
            let [first, second] = exactly::<2, _>(name, values)?;
            let order = compare(&first, &second);
            Value::Bool(match name {
                "ne" => order != Some(Ordering::Equal),
                "lt" => order == Some(Ordering::Less),
                "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                "gt" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            })
        }
        "print" => Value::from(values.iter().map(text).collect::<String>()),
        "println" => Value::from(format!("{}\n", values.iter().map(text).collect::<Vec<_>>().join(" "))),
        "printf" => match values.split_first() {
            Some((Value::String(format), rest)) => Value::from(print::format(format, rest)),
            _ => return Err("error calling printf: first argument must be a string".to_owned()),
        },
        "join" => {
            let [list, separator] = exactly::<2, _>(name, values)?;
            let Value::Array(items) = list else { return Err("error calling join: not a list".to_owned()) };
            Value::from(items.iter().map(text).collect::<Vec<_>>().join(&text(&separator)))
        }
        "split" => {
            let [whole, separator] = exactly::<2, _>(name, values)?;
            Value::from(text(&whole).split(&text(&separator)).map(Value::from).collect::<Vec<_>>())
        }
        "lower" => Value::from(text(&exactly::<1, _>(name, values)?[0]).to_lowercase()),
        "upper" => Value::from(text(&exactly::<1, _>(name, values)?[0]).to_uppercase()),
        "title" => Value::from(title(&text(&exactly::<1, _>(name, values)?[0]))),
        "pad" => {
            let [value, before, after] = exactly::<3, _>(name, values)?;
            let blanks = |value: &Value| {
                " ".repeat(usize::try_from(value.as_u64().unwrap_or(0).min(1000)).unwrap_or(0))
            };
            match value.as_str() {
                Some("") | None => Value::from(""),
                Some(value) => Value::from(format!("{}{value}{}", blanks(&before), blanks(&after))),
            }
        }
        "truncate" => {
            let [value, length] = exactly::<2, _>(name, values)?;
            let length = usize::try_from(length.as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
            Value::from(text(&value).chars().take(length).collect::<String>())
        }
        _ => return Err(format!("function \"{name}\" not defined")),
    })
}

fn exactly<const N: usize, T>(name: &str, arguments: Vec<T>) -> Result<[T; N], String> {
    let got = arguments.len();
    arguments.try_into().map_err(|_| format!("wrong number of args for {name}: want {N} got {got}"))
}

fn index(values: Vec<Value>) -> Result<Value, String> {
    let mut values = values.into_iter();
    let mut at = values.next().ok_or("wrong number of args for index: want at least 1 got 0")?;
    for key in values {
        at = match (at, &key) {
            (Value::Object(mut map), Value::String(key)) => {
                map.remove(key).unwrap_or_else(|| Value::from(""))
            }
            (Value::Array(items), Value::Number(number)) => {
                let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
                let length = items.len();
                at.and_then(|at| items.into_iter().nth(at))
                    .ok_or_else(|| format!("error calling index: index out of range: {number} of {length}"))?
            }
            (Value::Null, _) => return Err("error calling index: index of untyped nil".to_owned()),
            (other, key) => {
                return Err(format!(
                    "error calling index: can't index {} with {}",
                    print::value(&other),
                    print::value(key)
                ));
            }
        };
    }
    Ok(at)
}

fn slice(values: &[Value]) -> Result<Value, String> {
    let bound = |at: usize| values.get(at).and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
    let wrong = || "error calling slice: index out of range".to_owned();
    match values.first() {
        Some(Value::String(text)) => {
            let range = bound(1).unwrap_or(0)..bound(2).unwrap_or(text.len());
            text.get(range).map(Value::from).ok_or_else(wrong)
        }
        Some(Value::Array(items)) => {
            let range = bound(1).unwrap_or(0)..bound(2).unwrap_or(items.len());
            items.get(range).map(|items| Value::from(items.to_vec())).ok_or_else(wrong)
        }
        _ => Err("error calling slice: can't slice item".to_owned()),
    }
}

fn compare(first: &Value, second: &Value) -> Option<Ordering> {
    match (first, second) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !c.is_alphanumeric() && c != '_' && c != '\'';
    }
    out
}
