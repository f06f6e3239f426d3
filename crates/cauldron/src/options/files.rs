//! `--env`, `--env-file`, `--label`, `--label-file`.

use crate::fail::{Failure, file};
use std::collections::HashMap;

/// Variables: files first, then flags; a bare name takes its value from our environment, if it has one.
///
/// # Errors
/// A file cannot be read, or a name is empty.
pub fn env(files: &[String], flags: &[String]) -> Result<Vec<String>, Failure> {
    let mut out = Vec::new();
    for path in files {
        for line in lines(path)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() {
                return Err(Failure::new(format!("no variable name on line '{line}' of {path}")));
            }
            if name.contains(char::is_whitespace) {
                return Err(Failure::new(format!(
                    "poorly formatted environment: variable '{name}' contains whitespaces"
                )));
            }
            out.extend(variable(&line)?);
        }
    }
    for flag in flags {
        out.extend(variable(flag)?);
    }
    Ok(out)
}

fn variable(text: &str) -> Result<Option<String>, Failure> {
    match text.split_once('=') {
        Some(("", _)) => Err(Failure::new(format!("invalid environment variable: {text}"))),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => Err(Failure::new(format!("invalid environment variable: {text}"))),
        None => Ok(std::env::var(text).ok().map(|value| format!("{text}={value}"))),
    }
}

/// Labels: files first, then flags; the last one counts.
///
/// # Errors
/// A file cannot be read, or a name is empty.
pub fn labels(files: &[String], flags: &[String]) -> Result<HashMap<String, String>, Failure> {
    let mut out = HashMap::new();
    for path in files {
        for line in lines(path)? {
            insert(&mut out, &line)?;
        }
    }
    for flag in flags {
        insert(&mut out, flag)?;
    }
    Ok(out)
}

fn insert(out: &mut HashMap<String, String>, text: &str) -> Result<(), Failure> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(Failure::new(format!("invalid label format: \"{text}\"")));
    }
    out.insert(name.to_owned(), value.to_owned());
    Ok(())
}

/// `key=value` pairs.
pub fn pairs(flags: &[String]) -> HashMap<String, String> {
    flags
        .iter()
        .map(|flag| flag.split_once('=').unwrap_or((flag, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn lines(path: &str) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(file("open", path.as_ref()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}
