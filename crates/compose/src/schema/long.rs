//! Short forms of the specification in their long ones. Each function gives `None` for what is long already, and its
//! error texts go behind the key's path.

use crate::node::{Node, Place, Value};

type Items = Result<Option<Vec<Node>>, String>;
type One = Result<Option<Node>, String>;

fn text(node: &Node, what: &str) -> Result<Option<String>, String> {
    match &node.value {
        Value::Map(_) => Ok(None),
        _ => node.scalar().map(Some).ok_or_else(|| format!("must be a string or a mapping: {what}")),
    }
}

fn pairs(place: &Place, pairs: &[(&str, String)]) -> Node {
    let full = pairs.iter().filter(|(_, value)| !value.is_empty());
    Node::map(full.map(|(key, value)| ((*key).to_owned(), Node::text(value.clone(), place))), place)
}

/// One thing is a list of it.
pub fn one(node: &Node) -> One {
    match &node.value {
        Value::List(_) => Ok(None),
        _ if node.is_null() => Ok(Some(Node::new(Value::List(Vec::new()), &node.place))),
        _ => Ok(Some(Node::new(Value::List(vec![node.clone()]), &node.place))),
    }
}

/// `include: [path]`.
pub fn include(node: &Node) -> Items {
    Ok(text(node, "an include")?.map(|path| vec![pairs(&node.place, &[("path", path)])]))
}

/// `env_file: [path]`.
pub fn env_file(node: &Node) -> Items {
    Ok(text(node, "a file")?.map(|path| vec![pairs(&node.place, &[("path", path)])]))
}

/// `build: context`.
pub fn build(node: &Node) -> One {
    let text = text(node, "a build context")?;
    Ok(text.map(|context| pairs(&node.place, &[("context", context)])))
}

/// `extends: service`.
pub fn extends(node: &Node) -> One {
    Ok(text(node, "a service")?.map(|service| pairs(&node.place, &[("service", service)])))
}

/// `secrets: [name]`, `configs: [name]`.
pub fn delivered(node: &Node) -> Items {
    Ok(text(node, "a name")?.map(|source| vec![pairs(&node.place, &[("source", source)])]))
}

/// `[a, b]` as a mapping of names to nothing.
pub fn named(node: &Node) -> One {
    let Value::List(items) = &node.value else {
        return Ok(node.is_null().then(|| Node::map([], &node.place)));
    };
    let mut out = Vec::new();
    for item in items {
        let name = item.scalar().ok_or("must be a list of names")?;
        out.push((name, Node::new(Value::Null, &item.place)));
    }
    Ok(Some(Node::map(out, &node.place)))
}

/// `depends_on: [a]`.
pub fn depends_on(node: &Node) -> One {
    let Value::List(items) = &node.value else {
        return Ok(node.is_null().then(|| Node::map([], &node.place)));
    };
    let mut out = Vec::new();
    for item in items {
        let name = item.scalar().ok_or("must be a list of services")?;
        out.push((name, pairs(&item.place, &[("condition", "service_started".to_owned())])));
    }
    Ok(Some(Node::map(out, &node.place)))
}

/// `name:address` and `name=address` lists.
pub fn hosts(node: &Node) -> One {
    let Value::List(items) = &node.value else { return Ok(None) };
    let mut out: Vec<(String, Vec<Node>)> = Vec::new();
    for item in items {
        let line = item.scalar().ok_or("must be a list of strings")?;
        let (name, address) = line
            .split_once('=')
            .or_else(|| line.split_once(':'))
            .ok_or_else(|| format!("bad host name '{line}': it must be name=address"))?;
        let address = Node::text(address.trim_start_matches('[').trim_end_matches(']'), &item.place);
        match out.iter_mut().find(|(known, _)| known == name) {
            Some((_, addresses)) => addresses.push(address),
            None => out.push((name.to_owned(), vec![address])),
        }
    }
    let lists = out.into_iter().map(|(name, list)| (name, Node::new(Value::List(list), &node.place)));
    Ok(Some(Node::map(lists, &node.place)))
}

/// `external: {name: x}` stays, for the loader to take the name; the rest is a truth value.
pub fn external(node: &Node) -> One {
    if node.as_map().is_some() {
        return Ok(None);
    }
    let on = node.scalar().as_deref().and_then(super::truth).ok_or("must be a boolean")?;
    Ok(Some(Node::new(Value::Bool(on), &node.place)))
}

/// `nofile: 1024` is both limits.
pub fn ulimit(node: &Node) -> One {
    Ok(text(node, "a limit")?.map(|limit| pairs(&node.place, &[("soft", limit.clone()), ("hard", limit)])))
}

/// `test: curl x` is `["CMD-SHELL", "curl x"]`.
pub fn test(node: &Node) -> One {
    if node.as_list().is_some() {
        return Ok(None);
    }
    let line = node.scalar().ok_or("must be a string or a list")?;
    let words = [Node::text("CMD-SHELL", &node.place), Node::text(line, &node.place)];
    Ok(Some(Node::new(Value::List(words.to_vec()), &node.place)))
}

/// `/dev/a:/dev/b:rwm`.
pub fn device(node: &Node) -> Items {
    let Some(line) = text(node, "a device")? else { return Ok(None) };
    let mut parts = line.splitn(3, ':');
    let source = parts.next().unwrap_or_default().to_owned();
    let mut target = parts.next().unwrap_or_default().to_owned();
    let mut permissions = parts.next().unwrap_or("rwm").to_owned();
    if !target.is_empty() && !target.starts_with('/') && target.chars().all(|c| "rwm".contains(c)) {
        permissions = std::mem::take(&mut target);
    }
    if target.is_empty() {
        target.clone_from(&source);
    }
    Ok(Some(vec![pairs(
        &node.place,
        &[("source", source), ("target", target), ("permissions", permissions)],
    )]))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// `[ip:][published:]target[/protocol]` with ranges.
pub fn ports(node: &Node) -> Items {
    let Some(line) = text(node, "a port")? else {
        // The long form has its defaults, and may have a range to choose from.
        let mut long = node.clone();
        for (key, value) in [("mode", "ingress"), ("protocol", "tcp")] {
            if long.get(key).is_none() {
                long.set(key, Node::text(value, &node.place));
            }
        }
        return Ok(Some(vec![long]));
    };
    let (rest, protocol) = line.split_once('/').unwrap_or((&line, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (rest, target) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (ip, published) = rest.rsplit_once(':').unwrap_or(("", rest));
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    let (first, last) = range(target)
        .filter(|(first, _)| *first > 0)
        .ok_or_else(|| format!("invalid containerPort: {target}"))?;
    let host = match published {
        "" => None,
        text => Some(range(text).ok_or_else(|| format!("invalid hostPort: {text}"))?),
    };
    if let Some((host_first, host_last)) = host
        && first != last
        && host_last - host_first != last - first
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {target} and {published}"
        ));
    }
    let one = |port: u16| {
        let published = match host {
            None => String::new(),
            Some(_) if first == last => published.to_owned(),
            Some((host_first, _)) => (host_first + (port - first)).to_string(),
        };
        pairs(
            &node.place,
            &[
                ("mode", "ingress".to_owned()),
                ("host_ip", ip.to_owned()),
                ("target", port.to_string()),
                ("published", published),
                ("protocol", protocol.clone()),
            ],
        )
    };
    Ok(Some((first..=last).map(one).collect()))
}

/// Whether a volume's source is a path and not a name.
pub fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

/// `[source:]target[:mode]`.
pub fn volume(node: &Node) -> Items {
    let Some(line) = text(node, "a volume")? else {
        let mut long = node.clone();
        if long.get("type").and_then(Node::scalar).as_deref() == Some("bind") && long.get("bind").is_none() {
            long.set("bind", pairs(&node.place, &[]));
        }
        return Ok(Some(vec![long]));
    };
    if line.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts: Vec<&str> = line.split(':').collect();
    let (source, target, modes) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, modes] => (*source, *target, *modes),
        _ => return Err(format!("invalid spec: {line}: unknown option")),
    };
    if target.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(format!("invalid spec: {line}: empty section between colons"));
    }
    let bind = is_path(source);
    let kind = if bind { "bind" } else { "volume" };
    let mut out = pairs(
        &node.place,
        &[("type", kind.to_owned()), ("source", source.to_owned()), ("target", target.to_owned())],
    );
    let mut more: Vec<(&str, String)> = Vec::new();
    if bind {
        more.push(("create_host_path", "true".to_owned()));
    }
    for mode in modes.split(',').filter(|mode| !mode.is_empty()) {
        match mode {
            "rw" => {}
            "ro" => out.set("read_only", Node::text("true", &node.place)),
            "z" | "Z" => more.push(("selinux", mode.to_owned())),
            "nocopy" => more.push(("nocopy", "true".to_owned())),
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" if bind => {
                more.push(("propagation", mode.to_owned()));
            }
            "cached" | "delegated" | "consistent" => out.set("consistency", Node::text(mode, &node.place)),
            _ => return Err(format!("invalid spec: {line}: unknown option: {mode}")),
        }
    }
    more.retain(|(key, _)| bind == (*key != "nocopy"));
    out.set(kind, pairs(&node.place, &more));
    Ok(Some(vec![out]))
}

/// Splits a command line as a shell does: quotes and backslashes, no expansion.
///
/// # Errors
/// A quote is open.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), c) if c != '\'' => word.get_or_insert_default().push(c),
            (Some('"'), '\\') => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.get_or_insert_default().push(c),
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().extend(['\\', c]),
                None => return Err(format!("EOF found after escape character in: {line}")),
            },
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(format!("EOF found after escape character in: {line}")),
            },
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("EOF found when expecting closing quote in: {line}"));
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(expand: fn(&Node) -> Items, line: &str) -> String {
        match expand(&Node::text(line, &Place::whole("f"))) {
            Ok(Some(items)) => items.iter().map(|item| item.json().to_string()).collect::<Vec<_>>().join(" "),
            Ok(None) => "none".to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn port_forms() {
        let table = [
            ("80", r#"{"mode":"ingress","protocol":"tcp","target":"80"}"#),
            ("8080:80/udp", r#"{"mode":"ingress","protocol":"udp","published":"8080","target":"80"}"#),
            ("127.0.0.1::80", r#"{"host_ip":"127.0.0.1","mode":"ingress","protocol":"tcp","target":"80"}"#),
            (
                "[::1]:8000-8001:80-81",
                r#"{"host_ip":"::1","mode":"ingress","protocol":"tcp","published":"8000","target":"80"} {"host_ip":"::1","mode":"ingress","protocol":"tcp","published":"8001","target":"81"}"#,
            ),
            ("8000-8009:80", r#"{"mode":"ingress","protocol":"tcp","published":"8000-8009","target":"80"}"#),
            ("x", "error: invalid containerPort: x"),
            ("y:80", "error: invalid hostPort: y"),
            ("1-3:1-2", "error: invalid ranges specified for container and host Ports: 1-2 and 1-3"),
        ];
        for (line, want) in table {
            assert_eq!(long(ports, line), want, "{line}");
        }
    }

    #[test]
    fn volume_forms() {
        let table = [
            ("/a", r#"{"target":"/a","type":"volume","volume":{}}"#),
            (
                "data:/a:ro",
                r#"{"read_only":"true","source":"data","target":"/a","type":"volume","volume":{}}"#,
            ),
            (
                "./x:/a:rw,z",
                r#"{"bind":{"create_host_path":"true","selinux":"z"},"source":"./x","target":"/a","type":"bind"}"#,
            ),
            (
                "data:/a:nocopy",
                r#"{"source":"data","target":"/a","type":"volume","volume":{"nocopy":"true"}}"#,
            ),
            ("a:b:c:d", "error: invalid spec: a:b:c:d: unknown option"),
            ("a:/b:q", "error: invalid spec: a:/b:q: unknown option: q"),
        ];
        for (line, want) in table {
            assert_eq!(long(volume, line), want, "{line}");
        }
    }

    #[test]
    fn command_lines() {
        assert_eq!(
            words(r#"sh -c "echo \"a b\" $$" 'c d' e\ f"#).unwrap(),
            ["sh", "-c", "echo \"a b\" $$", "c d", "e f"]
        );
        assert_eq!(words("a '' b").unwrap(), ["a", "", "b"]);
        assert_eq!(words("  ").unwrap(), [""; 0]);
        assert!(words("a 'b").is_err());
    }
}
