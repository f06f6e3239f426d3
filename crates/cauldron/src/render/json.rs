//! JSON text laid out again without being parsed into maps: the engine's order of fields is kept.

/// Indents JSON text by four spaces a level, as `docker inspect` does.
pub fn indent(text: &str, unit: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.peek().is_some_and(|next| next.is_ascii_whitespace()) {
                    chars.next();
                }
                if chars.peek().is_some_and(|next| matches!(next, '}' | ']')) {
                    out.extend(chars.next());
                } else {
                    depth += 1;
                    line(&mut out, depth, unit);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth, unit);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth, unit);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

fn line(out: &mut String, depth: usize, unit: &str) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str(unit);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_order_and_strings() {
        let text = super::indent(r#"{"b":[1,{"x":"a\",{: b"}],"a":{},"c":[ ]}"#, "  ");
        let want = "{\n  \"b\": [\n    1,\n    {\n      \"x\": \"a\\\",{: b\"\n    }\n  ],\n  \"a\": {},\n  \"c\": []\n}";
        assert_eq!(text, want);
    }
}
