//! How the rest of an instruction's line falls into flags and arguments.

use crate::{Error, Result};

/// White space between words; a line holds no newline.
fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// The keyword and the rest of a line.
pub(super) fn split_keyword(line: &str) -> (&str, &str) {
    let line = line.trim();
    match line.find(blank) {
        Some(at) => (&line[..at], line[at..].trim_start_matches(blank)),
        None => (line, ""),
    }
}

/// Takes leading `--flag[=value]` words off. `--` alone ends them.
pub(super) fn flags(line: &str) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (found, rest);
        }
        let (word, quoted, after) = flag(rest);
        if word == "--" && !quoted {
            return (found, after);
        }
        if quoted || !word.is_empty() {
            found.push(word);
        }
        rest = after;
    }
}

/// One flag with its quotes and backslashes taken off, whether it had quotes, and what follows.
fn flag(text: &str) -> (String, bool, &str) {
    let (mut word, mut quote, mut quoted) = (String::new(), None, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\\', _) => {
                if let Some((_, c)) = chars.next() {
                    word.push(c);
                }
            }
            (c, None) if c.is_whitespace() => return (word, quoted, &text[at..]),
            ('\'' | '"', None) => {
                quote = Some(c);
                quoted = true;
            }
            (c, Some(open)) if c == open => quote = None,
            (c, _) => word.push(c),
        }
    }
    (word, quoted, "")
}

/// The arguments of an instruction, and whether they were a JSON array.
pub(super) fn arguments(keyword: &str, rest: &str, escape: char) -> Result<(Vec<String>, bool)> {
    if rest.is_empty() {
        return Ok((Vec::new(), false));
    }
    let list = || rest.split(blank).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    match keyword {
        "cmd" | "entrypoint" | "run" | "shell" => {
            Ok(json(rest)?.map_or_else(|| (vec![rest.to_owned()], false), |words| (words, true)))
        }
        "add" | "copy" | "volume" => Ok(json(rest)?.map_or_else(|| (list(), false), |words| (words, true))),
        "arg" => Ok((shell_words(rest, escape), false)),
        "env" => Ok((pairs(rest, "ENV", escape)?, false)),
        "label" => Ok((pairs(rest, "LABEL", escape)?, false)),
        "expose" | "from" => Ok((list(), false)),
        "healthcheck" => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let mut words = vec![rest[..end].to_owned()];
            let command = rest[end..].trim_start();
            if command.is_empty() {
                return Ok((words, false));
            }
            let array = json(command)?;
            let is_array = array.is_some();
            words.extend(array.unwrap_or_else(|| vec![command.to_owned()]));
            Ok((words, is_array))
        }
        _ => Ok((vec![rest.to_owned()], false)),
    }
}

/// A JSON array of strings; `None` where the text is no JSON array, and so the shell's.
fn json(text: &str) -> Result<Option<Vec<String>>> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    strings.collect::<Option<Vec<_>>>().map(Some).ok_or_else(|| {
        Error::invalid("when using JSON array syntax, arrays must be comprised of strings only")
    })
}

/// `name=value …`, or `name value` to the end of the line: triples of name, value and `=` (or nothing).
fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Vec<String>> {
    let words = shell_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some((name, value)) = rest.split_once(blank) else {
            return Err(Error::invalid(format!("{keyword} must have two arguments")));
        };
        return Ok(vec![name.to_owned(), value.trim_start_matches(blank).to_owned(), String::new()]);
    }
    let mut triples = Vec::with_capacity(words.len() * 3);
    for word in &words {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            Error::invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))
        })?;
        triples.extend([name.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(triples)
}

/// Splits at blanks outside of quotes; quotes and escapes stay for the expansion to read.
pub(super) fn shell_words(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            let Some(next) = chars.next() else { break };
            word.push(c);
            word.push(next);
            continue;
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
