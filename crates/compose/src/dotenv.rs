//! `.env` files: names and values, quotes, comments, and variables of their own.

use crate::interpolate::{Lookup, expand};
use std::collections::BTreeSet;

/// Bytes of a file at most.
pub const FILE_BYTES: usize = 1024 * 1024;

/// The pairs of a file in its order. `NAME` alone has no value: it is taken from the environment, if it is there.
/// `raw` takes everything after `=` as it is.
///
/// # Errors
/// `line N: what`.
pub fn parse(text: &str, lookup: Lookup<'_>, raw: bool) -> Result<Vec<(String, Option<String>)>, String> {
    if text.len() > FILE_BYTES {
        return Err(format!("larger than {FILE_BYTES} bytes"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut out: Vec<(String, Option<String>)> = Vec::new();
    let (mut at, mut line) = (0, 0);
    while at < text.len() {
        line += 1;
        let end_of_row = text[at..].find('\n').map_or(text.len(), |length| at + length);
        let row = text[at..end_of_row].trim_start();
        at = end_of_row + 1;
        if row.is_empty() || row.starts_with('#') {
            continue;
        }
        let row = row.strip_prefix("export ").unwrap_or(row).trim_start();
        let Some(end) = row.find(['=', ':']) else {
            let name = row.split(" #").next().unwrap_or(row).trim_end();
            name_is_sound(name, line)?;
            out.push((name.to_owned(), lookup(name)));
            continue;
        };
        let name = row[..end].trim_end();
        name_is_sound(name, line)?;
        if raw {
            out.push((name.to_owned(), Some(row[end + 1..].to_owned())));
            continue;
        }
        let value = row[end + 1..].trim_start_matches([' ', '\t']);
        let seen = |wanted: &str| {
            let own = out.iter().rev().find(|(name, _)| name == wanted).and_then(|(_, value)| value.clone());
            lookup(wanted).or(own)
        };
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                // A quoted value may go on over several lines.
                let inner = &text[end_of_row - value.len() + 1..];
                let length = closing(inner, quote).ok_or_else(|| {
                    format!(
                        "line {line}: unterminated quoted value {quote}{}",
                        inner.lines().next().unwrap_or_default()
                    )
                })?;
                let quoted = &inner[..length];
                line += quoted.matches('\n').count();
                let after = text.len() - inner.len() + length + 1;
                at = text[after..].find('\n').map_or(text.len(), |length| after + length + 1);
                if quote == '\'' {
                    quoted.replace("\\'", "'")
                } else {
                    let unescaped = unescape(quoted);
                    expand(&unescaped, &seen, &mut BTreeSet::new())
                        .map_err(|error| format!("line {line}: {error}"))?
                }
            }
            _ => {
                let cut = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
                let bare = if value.starts_with('#') { "" } else { value[..cut].trim_end() };
                expand(bare, &seen, &mut BTreeSet::new()).map_err(|error| format!("line {line}: {error}"))?
            }
        };
        out.push((name.to_owned(), Some(value)));
    }
    Ok(out)
}

fn name_is_sound(name: &str, line: usize) -> Result<(), String> {
    let sound = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_.-[]".contains(c));
    if sound { Ok(()) } else { Err(format!("line {line}: unexpected character in variable name \"{name}\"")) }
}

fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(index);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// `\n`, `\"` and the like; `\$` becomes a dollar sign that starts no variable.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\' | '\'')) => out.push(c),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let lookup = |name: &str| (name == "HOST").then(|| "h".to_owned());
        match parse(text, &lookup, false) {
            Ok(pairs) => pairs
                .into_iter()
                .map(|(name, value)| format!("{name}={}", value.unwrap_or_else(|| "<none>".to_owned())))
                .collect::<Vec<_>>()
                .join("|"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn forms() {
        let table = [
            ("A=1\nB = two words # comment\n#x\n\nexport C=3", "A=1|B=two words|C=3"),
            ("A='$X # y'\nB=\"$HOST ${A}\\n\\$z\"", "A=$X # y|B=h $X # y\n$z"),
            ("A=\"one\ntwo\"\nB=2\n", "A=one\ntwo|B=2"),
            ("A='one\ntwo'", "A=one\ntwo"),
            ("HOST\nNONE", "HOST=h|NONE=<none>"),
            ("A=a#b", "A=a#b"),
            ("A=\nB=#c", "A=|B="),
            ("A: yaml", "A=yaml"),
            ("A=x\r\nB=${A}y\r\n", "A=x|B=xy"),
            ("A=${Q:-d}", "A=d"),
            ("A=\"x\" # c\nB=1", "A=x|B=1"),
            ("A=\"x", "error: line 1: unterminated quoted value \"x"),
            ("A=1\n b c=2", "error: line 2: unexpected character in variable name \"b c\""),
        ];
        for (text, want) in table {
            assert_eq!(read(text), want, "{text:?}");
        }
        assert_eq!(
            parse("A='q' # x", &|_| None, true).unwrap(),
            [("A".to_owned(), Some("'q' # x".to_owned()))]
        );
    }
}
