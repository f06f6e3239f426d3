//! `-p` and `--expose`: `[[ip:]hostPort[-hostPort]:]containerPort[-containerPort][/proto]`, IPv6 in brackets.

use client::bollard::models::PortBinding;
use std::collections::HashMap;

/// Bindings by `80/tcp`.
pub type Bindings = HashMap<String, Option<Vec<PortBinding>>>;

fn range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("invalid port range: {text}");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) =
        (first.parse::<u16>().map_err(|_| wrong())?, last.parse::<u16>().map_err(|_| wrong())?);
    if first == 0 || first > last { Err(wrong()) } else { Ok((first, last)) }
}

fn protocol(text: &str) -> Result<(&str, String), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if ["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        Ok((port, protocol))
    } else {
        Err(format!("invalid proto: {protocol}"))
    }
}

/// `--expose` values as `80/tcp`.
///
/// # Errors
/// Not a port.
pub fn exposed(flag: &str) -> Result<Vec<String>, String> {
    if flag.contains(':') {
        return Err(format!("invalid port format for --expose: {flag}"));
    }
    let (ports, protocol) = protocol(flag)?;
    let (first, last) =
        range(ports).map_err(|error| format!("invalid range format for --expose: {flag}, error: {error}"))?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Adds what a `-p` value publishes.
///
/// # Errors
/// It is malformed.
pub fn publish(flag: &str, bindings: &mut Bindings) -> Result<(), String> {
    if flag.contains('=') {
        return long(flag, bindings);
    }
    let (rest, protocol) = protocol(flag)?;
    let (rest, container) = match rest.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, rest),
    };
    if container.is_empty() {
        return Err("no port specified: ".to_owned() + flag + "<empty>");
    }
    let (address, host) = match rest {
        None => ("", ""),
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, host)) => (address, host),
            None => ("", rest),
        },
    };
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let (first, last) = range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        "0" => Some((0, 0)),
        host => Some(range(host).map_err(|_| format!("invalid hostPort: {host}"))?),
    };
    if let Some((host_first, host_last)) = host_range {
        let (many, host_many) = (last - first, host_last - host_first);
        if many != host_many && many != 0 {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            ));
        }
    }
    for port in first..=last {
        let host_port = match host_range {
            None => String::new(),
            // One container port on a range: the engine takes the first that is free.
            Some((host_first, host_last)) if first == last && host_first != host_last => {
                format!("{host_first}-{host_last}")
            }
            Some((0, 0)) => "0".to_owned(),
            Some((host_first, _)) => (host_first + (port - first)).to_string(),
        };
        add(bindings, &format!("{port}/{protocol}"), bare, &host_port);
    }
    Ok(())
}

fn add(bindings: &mut Bindings, port: &str, address: &str, host_port: &str) {
    let binding = PortBinding { host_ip: Some(address.to_owned()), host_port: Some(host_port.to_owned()) };
    bindings
        .entry(port.to_owned())
        .or_insert_with(|| Some(Vec::new()))
        .get_or_insert_with(Vec::new)
        .push(binding);
}

/// `published=8080,target=80,protocol=tcp`.
fn long(flag: &str, bindings: &mut Bindings) -> Result<(), String> {
    let (mut target, mut published, mut protocol) = (None, String::new(), "tcp".to_owned());
    for pair in flag.split(',') {
        match pair.split_once('=') {
            Some(("target", value)) => target = Some(range(value)?.0),
            Some(("published", value)) => published = value.to_owned(),
            Some(("protocol", value)) => value.clone_into(&mut protocol),
            Some(("mode", "host" | "ingress")) => {}
            _ => return Err(format!("invalid field '{pair}' in publish {flag}")),
        }
    }
    let target = target.ok_or_else(|| format!("missing mandatory field \"target\" in publish {flag}"))?;
    add(bindings, &format!("{target}/{protocol}"), "", &published);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(flag: &str) -> String {
        let mut bindings = Bindings::new();
        if let Err(error) = publish(flag, &mut bindings) {
            return format!("error: {error}");
        }
        let mut out: Vec<String> = bindings
            .into_iter()
            .flat_map(|(port, list)| {
                list.unwrap_or_default().into_iter().map(move |binding| {
                    format!(
                        "{}|{}->{port}",
                        binding.host_ip.unwrap_or_default(),
                        binding.host_port.unwrap_or_default()
                    )
                })
            })
            .collect();
        out.sort();
        out.join(" ")
    }

    #[test]
    fn forms() {
        let table = [
            ("80", "|->80/tcp"),
            ("8080:80", "|8080->80/tcp"),
            ("8080:80/udp", "|8080->80/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1|8080->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1|->80/tcp"),
            ("[::1]:8080:80", "::1|8080->80/tcp"),
            ("8000-8001:80-81", "|8000->80/tcp |8001->81/tcp"),
            ("8000-8010:80", "|8000-8010->80/tcp"),
            ("80-81", "|->80/tcp |->81/tcp"),
            ("0:80", "|0->80/tcp"),
            ("published=8080,target=80,protocol=udp", "|8080->80/udp"),
            (
                "8000-8002:80-81",
                "error: invalid ranges specified for container and host Ports: 80-81 and 8000-8002",
            ),
            ("x:80", "error: invalid hostPort: x"),
            ("80/icmp", "error: invalid proto: icmp"),
            ("1.2.3:1:80", "error: invalid IP address: 1.2.3"),
            ("70000", "error: invalid containerPort: 70000"),
        ];
        for (flag, want) in table {
            assert_eq!(published(flag), want, "{flag}");
        }
        assert_eq!(exposed("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
    }
}
