//! A project's tree as YAML and JSON that can be read back: what `config` prints.

use serde_json::Value;

/// The order of a file's sections.
const SECTIONS: &[&str] = &["name", "services", "networks", "volumes", "secrets", "configs", "models"];

/// A whole project as YAML; `escape`: dollar signs are doubled, so that reading it back changes nothing.
pub fn yaml(tree: &Value, escape: bool) -> String {
    let mut out = String::new();
    let map = tree.as_object().cloned().unwrap_or_default();
    let rest = map.keys().map(String::as_str).filter(|key| !SECTIONS.contains(key));
    for key in SECTIONS.iter().copied().chain(rest) {
        match map.get(key) {
            Some(Value::Object(section)) if section.is_empty() && key != "services" => {}
            Some(value) => entry(key, value, 0, escape, &mut out),
            None => {}
        }
    }
    out
}

/// A whole project as JSON.
pub fn json(tree: &Value, escape: bool) -> String {
    let tree = if escape { escaped(tree) } else { tree.clone() };
    serde_json::to_string_pretty(&tree).unwrap_or_default()
}

fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => items.iter().map(escaped).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), escaped(value))).collect(),
        other => other.clone(),
    }
}

fn entry(key: &str, value: &Value, depth: usize, escape: bool, out: &mut String) {
    out.push_str(&"  ".repeat(depth));
    out.push_str(&scalar(key, false, depth));
    out.push(':');
    nested(value, depth, escape, out);
}

/// What stands behind `key:` or `-`.
fn nested(value: &Value, depth: usize, escape: bool, out: &mut String) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(map) => {
            out.push('\n');
            for (key, value) in map {
                entry(key, value, depth + 1, escape, out);
            }
        }
        Value::Array(items) => {
            out.push('\n');
            for value in items {
                item(value, depth + 1, escape, out);
            }
        }
        Value::String(text) => {
            out.push(' ');
            out.push_str(&scalar(text, escape, depth + 1));
            out.push('\n');
        }
        other => {
            out.push(' ');
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn item(value: &Value, depth: usize, escape: bool, out: &mut String) {
    out.push_str(&"  ".repeat(depth));
    out.push('-');
    let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
        nested(value, depth, escape, out);
        return;
    };
    // The first key stands behind the dash.
    for (index, (key, value)) in map.iter().enumerate() {
        if index == 0 {
            out.push(' ');
            out.push_str(&scalar(key, false, depth));
            out.push(':');
            nested(value, depth + 1, escape, out);
        } else {
            entry(key, value, depth + 1, escape, out);
        }
    }
}

/// A text as YAML: plain where it stays a text, in quotes or as a block where it would not.
fn scalar(text: &str, escape: bool, depth: usize) -> String {
    let text = if escape { text.replace('$', "$$") } else { text.to_owned() };
    let block = text.contains('\n')
        && text.lines().all(|line| !line.starts_with([' ', '\t']) && !line.chars().any(char::is_control));
    if block && !text.starts_with('\n') {
        let indent = "  ".repeat(depth);
        let chomp = if !text.ends_with('\n') {
            "-"
        } else if text.ends_with("\n\n") {
            "+"
        } else {
            ""
        };
        let body: Vec<String> = text
            .trim_end_matches('\n')
            .lines()
            .map(|line| if line.is_empty() { String::new() } else { format!("{indent}{line}") })
            .collect();
        let more = text.len() - text.trim_end_matches('\n').len();
        return format!("|{chomp}\n{}{}", body.join("\n"), "\n".repeat(more.saturating_sub(1)));
    }
    let place = crate::node::Place::whole("");
    let plain = crate::node::Node::new(crate::node::Value::Plain(text.clone()), &place);
    let stays = matches!(plain.resolved(), crate::node::Value::Text(_));
    // Words that other readers of YAML take for something else.
    let taken = ["y", "n", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str());
    let safe = text.chars().all(|c| c.is_alphanumeric() || " _-./:@+,=()$%".contains(c))
        && text.starts_with(|c: char| c.is_alphanumeric() || "_./$(".contains(c))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().all(|c| c.is_ascii_digit() || ":._".contains(c));
    if stays && safe && !taken {
        return text;
    }
    // JSON's strings are YAML's.
    Value::String(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_back_as_it_was() {
        let tree = json!({
            "name": "p",
            "services": {"w": {
                "command": ["sh", "-c", "echo $A: 'x' #y", "", "-", "true", "007", "1.5", "~"],
                "environment": {"A": "$x", "B": "yes", "C": "a\nb\n", "D": "a\n\nb", "E": "\nx", "F": " x", "G": "1:2", "H": "x\n\n"},
                "networks": {"default": null}, "init": true, "ports": [{"target": 80, "published": "80"}, {}],
                "labels": {}, "list": [], "deep": [["a"], {"k": {"l": ["m"]}}],
            }},
            "x-more": {"a b": 1.5},
        });
        let text = yaml(&tree, false);
        let back = crate::yaml::parse("f", text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(back[0].json(), tree, "{text}");
        assert!(text.starts_with("name: p\nservices:\n  w:\n    command:\n      - sh\n"), "{text}");
        assert!(yaml(&tree, true).contains("A: $$x"));
    }
}
