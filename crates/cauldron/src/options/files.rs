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
                return Err(malformed(path, &format!("no variable name on line '{line}'")));
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
        Some(("", _)) => {
            Err(crate::args::invalid("env", text, format_args!("invalid environment variable: {text}")))
        }
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

fn malformed(path: &str, why: &str) -> Failure {
    Failure::new(format!("invalid env file ({path}): {why}"))
}

/// The lines of a file that say something; names without blanks.
fn lines(path: &str) -> Result<Vec<String>, Failure> {
    let bytes = std::fs::read(path).map_err(file("open", path.as_ref()))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut lines = Vec::new();
    for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line)
            .map_err(|_| malformed(path, &format!("invalid utf8 bytes at line {}: {line:?}", at + 1)))?
            .trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let name = text.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return Err(malformed(path, &format!("variable '{name}' contains whitespaces")));
        }
        lines.push(text.to_owned());
    }
    Ok(lines)
}
