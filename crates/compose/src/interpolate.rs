//! `$NAME`, `${NAME}` and its operators, nested; `$$` is a dollar sign.

use crate::error::{Error, Result};
use crate::node::{Node, Value};
use std::collections::BTreeSet;

/// Nesting of defaults at most.
const DEPTH: usize = 32;

/// Where variables come from.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the variables of a text; names that are not set are added to `unset`.
///
/// # Errors
/// The text's form is wrong, or a required variable is missing: a message without the place.
pub fn expand(text: &str, lookup: Lookup<'_>, unset: &mut BTreeSet<String>) -> Result<String, String> {
    if !text.contains('$') {
        return Ok(text.to_owned());
    }
    let chars: Vec<char> = text.chars().collect();
    let mut reader = Reader { chars: &chars, at: 0, lookup, unset };
    let out = reader.text(None, true, 0)?;
    Ok(out)
}

struct Reader<'a> {
    chars: &'a [char],
    at: usize,
    lookup: Lookup<'a>,
    unset: &'a mut BTreeSet<String>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn wrong(&self) -> String {
        let text: String = self.chars.iter().collect();
        format!("invalid interpolation format: \"{text}\"\nYou may need to escape any $ with another $")
    }

    /// Text up to `until` (which is taken); `live`: variables that are not set are told.
    fn text(&mut self, until: Option<char>, live: bool, depth: usize) -> Result<String, String> {
        if depth > DEPTH {
            return Err(self.wrong());
        }
        let mut out = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            if Some(c) == until {
                return Ok(out);
            }
            if c != '$' {
                out.push(c);
                continue;
            }
            match self.peek() {
                Some('$') => {
                    self.at += 1;
                    out.push('$');
                }
                Some('{') => {
                    self.at += 1;
                    out.push_str(&self.braced(live, depth)?);
                }
                Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                    let name = self.name();
                    out.push_str(&self.value(&name, live));
                }
                _ => return Err(self.wrong()),
            }
        }
        if until.is_some() { Err(self.wrong()) } else { Ok(out) }
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn value(&mut self, name: &str, live: bool) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            if live {
                self.unset.insert(name.to_owned());
            }
            String::new()
        })
    }

    fn braced(&mut self, live: bool, depth: usize) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.wrong());
        }
        let colon = self.peek() == Some(':');
        if colon {
            self.at += 1;
        }
        let operator = self.peek();
        self.at += 1;
        match operator {
            Some('}') if !colon => return Ok(self.value(&name, live)),
            Some('-' | '?' | '+') => {}
            _ => return Err(self.wrong()),
        }
        let found = (self.lookup)(&name).filter(|value| !colon || !value.is_empty());
        let used = if operator == Some('+') { found.is_some() } else { found.is_none() };
        let word = self.text(Some('}'), live && used, depth + 1)?;
        Ok(match (operator, found) {
            (Some('-'), found) => found.unwrap_or(word),
            (Some('+'), Some(_)) => word,
            (Some('+'), None) => String::new(),
            (_, Some(found)) => found,
            (_, None) => {
                let tail = if word.is_empty() { String::new() } else { format!(": {word}") };
                return Err(format!("required variable {name} is missing a value{tail}"));
            }
        })
    }
}

/// Replaces the variables in every value of a tree; `path` is where it stands. Keys are not touched.
///
/// # Errors
/// As [`expand`], with the place.
pub fn tree(node: &mut Node, path: &str, lookup: Lookup<'_>, unset: &mut BTreeSet<String>) -> Result<()> {
    match &mut node.value {
        Value::Text(text) | Value::Plain(text) if text.contains('$') => {
            let expanded = expand(text, lookup, unset).map_err(|message| {
                let (message, hint) = message.split_once('\n').unwrap_or((&message, ""));
                let error = Error::at(&node.place, format!("error while interpolating {path}: {message}"));
                if hint.is_empty() { error } else { error.hint(hint) }
            })?;
            *text = expanded;
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                tree(item, &format!("{path}.[{index}]"), lookup, unset)?;
            }
        }
        Value::Map(map) => {
            for (key, entry) in map.iter_mut() {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                tree(&mut entry.node, &below, lookup, unset)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators() {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        };
        let table = [
            ("$A ${A}$A_", "a a"),
            ("$$A $${A}", "$A ${A}"),
            ("${N:-d}|${E:-d}|${E-d}|${A-d}", "d|d||a"),
            ("${A:+x}|${E:+x}|${E+x}|${N+x}", "x||x|"),
            ("${A?no}${E?no}", "a"),
            ("${N:-${M:-${A}}}", "a"),
            ("${N:-a{b}", "a{b"),
            ("${N-$A $$}", "a $"),
            ("${N:?gone $A}", "error: required variable N is missing a value: gone a"),
            ("${E:?}", "error: required variable E is missing a value"),
            ("${A", "error: invalid interpolation format: \"${A\""),
            ("$1", "error: invalid interpolation format: \"$1\""),
            ("x$", "error: invalid interpolation format: \"x$\""),
            ("${}", "error: invalid interpolation format: \"${}\""),
            ("${A:x}", "error: invalid interpolation format: \"${A:x}\""),
        ];
        for (text, want) in table {
            let got = expand(text, &lookup, &mut BTreeSet::new())
                .unwrap_or_else(|error| format!("error: {}", error.lines().next().unwrap()));
            assert_eq!(got, want, "{text}");
        }
        let mut unset = BTreeSet::new();
        expand("$N ${M} ${A:+$P} ${N:-$Q} ${A:-$R}", &lookup, &mut unset).unwrap();
        assert_eq!(unset.into_iter().collect::<Vec<_>>(), ["M", "N", "P", "Q"]);
    }
}
