//! Legacy links (`--link`): the environment variables that a linking container sees.
//!
//! The rules are Docker's, odd ones included: every exposed port of the linked container gets its variables, a run of
//! three or more neighbouring ports also gets a `_START`/`_END` pair, `ALIAS_PORT` is the lowest port (TCP before the
//! others on the same number), and the linked container's own environment is copied except for `HOME` and `PATH`.

use crate::container::{Port, Protocol};
use std::net::IpAddr;

/// A link whose other end is known.
#[derive(Clone, Debug)]
pub struct Linked<'a> {
    /// The linking container's name, without a slash.
    pub parent: &'a str,
    /// The alias that it knows the other by.
    pub alias: &'a str,
    /// The address of the linked container on the default bridge.
    pub address: IpAddr,
    /// What the linked container exposes (by its image, `--expose` or `-p`).
    pub ports: &'a [Port],
    /// The linked container's environment, `NAME=value`.
    pub env: &'a [String],
}

/// The variables that a link brings, in Docker's order.
pub fn environment(link: &Linked<'_>) -> Vec<String> {
    let alias = link.alias.to_uppercase().replace('-', "_");
    let url = |port: &Port| format!("{}://{}:{}", port.protocol.as_str(), link.address, port.number);
    let prefix =
        |port: &Port| format!("{alias}_PORT_{}_{}", port.number, port.protocol.as_str().to_uppercase());
    let mut ports = link.ports.to_vec();
    ports.sort_by_key(|port| (rank(port.protocol), port.number));
    ports.dedup();

    let mut env = Vec::new();
    if let Some(first) = ports.iter().min_by_key(|port| (port.number, rank(port.protocol))) {
        env.push(format!("{alias}_PORT={}", url(first)));
    }
    let mut rest = ports.as_slice();
    while let Some(first) = rest.first() {
        let run = run_length(rest);
        if run > 2 {
            let (last, start) = (&rest[run - 1], prefix(first));
            let end = format!("{alias}_PORT_{}_{}", first.number, last.protocol.as_str().to_uppercase());
            env.push(format!("{start}_START={}", url(first)));
            env.push(format!("{start}_ADDR={}", link.address));
            env.push(format!("{start}_PROTO={}", first.protocol.as_str()));
            env.push(format!("{start}_PORT_START={}", first.number));
            env.push(format!("{end}_END={}", url(last)));
            env.push(format!("{end}_PORT_END={}", last.number));
        }
        rest = &rest[if run > 2 { run } else { 1 }..];
    }
    for port in &ports {
        let name = prefix(port);
        env.push(format!("{name}={}", url(port)));
        env.push(format!("{name}_ADDR={}", link.address));
        env.push(format!("{name}_PORT={}", port.number));
        env.push(format!("{name}_PROTO={}", port.protocol.as_str()));
    }
    env.push(format!("{alias}_NAME=/{}/{}", link.parent, link.alias));
    for variable in link.env {
        if let Some((name, value)) = variable.split_once('=')
            && name != "HOME"
            && name != "PATH"
        {
            env.push(format!("{alias}_ENV_{name}={value}"));
        }
    }
    env
}

/// The host names of a linked container in the linking container's `/etc/hosts`.
pub fn host_names(alias: &str, hostname: &str, name: &str) -> Vec<String> {
    let mut names = vec![alias.to_owned(), hostname.to_owned()];
    if alias != name {
        names.push(name.to_owned());
    }
    names
}

/// TCP comes first, then by name.
fn rank(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Sctp => 1,
        Protocol::Udp => 2,
    }
}

/// How many ports at the front follow one another.
fn run_length(ports: &[Port]) -> usize {
    1 + ports.windows(2).take_while(|pair| u32::from(pair[1].number) == u32::from(pair[0].number) + 1).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env_of(ports: &[&str], env: &[&str]) -> Vec<String> {
        let ports: Vec<Port> = ports.iter().map(|port| Port::parse(port).expect("a port")).collect();
        let env: Vec<String> = env.iter().map(|&text| text.to_owned()).collect();
        let link = Linked {
            parent: "web",
            alias: "my-db",
            address: "172.17.0.2".parse().expect("an address"),
            ports: &ports,
            env: &env,
        };
        environment(&link)
    }

    #[test]
    fn one_port() {
        assert_eq!(
            env_of(&["3306"], &["MYSQL_DATABASE=a=b", "PATH=/bin", "HOME=/root", "EMPTY=", "odd"]),
            [
                "MY_DB_PORT=tcp://172.17.0.2:3306",
                "MY_DB_PORT_3306_TCP=tcp://172.17.0.2:3306",
                "MY_DB_PORT_3306_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_3306_TCP_PORT=3306",
                "MY_DB_PORT_3306_TCP_PROTO=tcp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_MYSQL_DATABASE=a=b",
                "MY_DB_ENV_EMPTY=",
            ]
        );
    }

    #[test]
    fn without_ports_only_the_name() {
        assert_eq!(env_of(&[], &[]), ["MY_DB_NAME=/web/my-db"]);
    }

    #[test]
    fn the_default_port_is_the_lowest_tcp_first() {
        assert_eq!(env_of(&["53/udp", "443", "53/tcp"], &[])[0], "MY_DB_PORT=tcp://172.17.0.2:53");
        assert_eq!(env_of(&["53/udp", "443"], &[])[0], "MY_DB_PORT=udp://172.17.0.2:53");
    }

    #[test]
    fn three_neighbours_are_a_range_and_two_are_not() {
        let range: Vec<String> = env_of(&["8002", "8000", "8001", "9000"], &[]);
        assert_eq!(
            range[1..7],
            [
                "MY_DB_PORT_8000_TCP_START=tcp://172.17.0.2:8000",
                "MY_DB_PORT_8000_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_8000_TCP_PROTO=tcp",
                "MY_DB_PORT_8000_TCP_PORT_START=8000",
                "MY_DB_PORT_8000_TCP_END=tcp://172.17.0.2:8002",
                "MY_DB_PORT_8000_TCP_PORT_END=8002",
            ]
        );
        assert_eq!(range.len(), 7 + 4 * 4 + 1);
        assert!(!env_of(&["80", "81"], &[]).iter().any(|variable| variable.contains("_START")));
    }

    #[test]
    fn names_in_hosts() {
        assert_eq!(host_names("db", "0123456789ab", "mysql"), ["db", "0123456789ab", "mysql"]);
        assert_eq!(host_names("db", "0123456789ab", "db"), ["db", "0123456789ab"]);
    }
}
