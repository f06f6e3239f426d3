//! The content of a container's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, as Docker writes them.

use crate::{Error, Result, dns};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Name servers where the host's are all on its loopback: Google's, as in Docker.
pub const FALLBACK_DNS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// Where the host keeps its name servers.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// One line of a hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

impl Entry {
    /// An entry; doubled names are dropped.
    pub fn new(address: IpAddr, names: impl IntoIterator<Item = String>) -> Self {
        let mut unique: Vec<String> = Vec::new();
        for name in names {
            if !name.is_empty() && !unique.contains(&name) {
                unique.push(name);
            }
        }
        Self { address, names: unique }
    }
}

/// `/etc/hosts`: the localhost lines, then the entries in order.
pub fn hosts(entries: &[Entry]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    append(&mut text, entries);
    text
}

/// The host's own file with more entries: for containers in the host's network namespace.
pub fn extend_host_file(host: &str, entries: &[Entry]) -> String {
    let mut text = host.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    append(&mut text, entries);
    text
}

fn append(text: &mut String, entries: &[Entry]) {
    for entry in entries.iter().filter(|entry| !entry.names.is_empty()) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\t{}", entry.address, entry.names.join(" "));
    }
}

/// The names of a container for its own address: `host.domain host`, or `host`.
pub fn own_names(hostname: &str, domainname: &str) -> Vec<String> {
    let full = if domainname.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domainname}") };
    match full.split_once('.') {
        Some((short, _)) if !short.is_empty() => vec![full.clone(), short.to_owned()],
        _ => vec![full],
    }
}

/// `--add-host NAME:ADDRESS` or `NAME=ADDRESS`; `host-gateway` becomes `gateway`.
///
/// # Errors
/// An invalid argument that shows the text.
pub fn extra_host(text: &str, gateway: Option<IpAddr>) -> Result<Entry> {
    let bad = |why: &str| Error::invalid(format!("bad format for add-host: {text:?}: {why}"));
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| bad("want NAME:ADDRESS"))?;
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(bad("want NAME:ADDRESS"));
    }
    let address = match address {
        "host-gateway" => gateway.ok_or_else(|| {
            bad("this container has no gateway")
                .hint("host-gateway is the bridge's own address: use it with a bridge network")
        })?,
        address => {
            let plain = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            plain.parse().map_err(|_| bad("invalid IP address in add-host"))?
        }
    };
    Ok(Entry::new(address, [name.to_owned()]))
}

/// Whether `--add-host` is well-formed; which address a gateway has is known when the container starts.
///
/// # Errors
/// As [`extra_host`].
pub fn check_extra_host(text: &str) -> Result<()> {
    extra_host(text, Some(IpAddr::from([0, 0, 0, 0]))).map(drop)
}

/// What `--dns`, `--dns-search` and `--dns-option` say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dns<'a> {
    /// Name servers.
    pub servers: &'a [String],
    /// Search domains; `.` alone means none.
    pub search: &'a [String],
    /// Options.
    pub options: &'a [String],
}

/// `/etc/resolv.conf` from the host's: name servers on the host's loopback cannot be reached from a container
/// and are left out; where nothing is left, [`FALLBACK_DNS`] is used. `ipv6`: the container can reach IPv6 servers.
pub fn resolv_conf(host: &str, dns: Dns<'_>, ipv6: bool) -> String {
    let servers = if dns.servers.is_empty() {
        let usable: Vec<String> = values(host, "nameserver")
            .filter(|text| usable_from_container(text, ipv6))
            .map(str::to_owned)
            .collect();
        if usable.is_empty() { FALLBACK_DNS.iter().map(ToString::to_string).collect() } else { usable }
    } else {
        dns.servers.to_vec()
    };
    render(host, &servers, dns)
}

/// The same for a container that asks the resolver at [`dns::ADDRESS`]. Its names have no dots: each is tried as it is first
/// (`ndots:0`), unless somebody wants otherwise.
pub fn resolv_conf_embedded(host: &str, given: Dns<'_>) -> String {
    let text = render(host, &[dns::ADDRESS.to_string()], given);
    let (line, kept): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("options "));
    let mut options: Vec<&str> = line.iter().flat_map(|line| line.split(' ').skip(1)).collect();
    options.extend((!options.iter().any(|option| option.starts_with("ndots:"))).then_some("ndots:0"));
    kept.iter().map(|line| format!("{line}\n")).chain([format!("options {}\n", options.join(" "))]).collect()
}

/// The name servers that the resolver at [`dns::ADDRESS`] asks: those given, which on loopback are the container's own, or the host's,
/// which on loopback (systemd-resolved) are the host's.
pub fn name_servers(host: &str, given: Dns<'_>) -> Vec<dns::Server> {
    let server = |ip: IpAddr, inside| dns::Server { address: SocketAddr::new(ip, 53), inside };
    let ips = |texts: &mut dyn Iterator<Item = &str>| -> Vec<IpAddr> {
        texts.filter_map(|text| text.parse().ok()).collect()
    };
    if !given.servers.is_empty() {
        // Itself it would ask for ever.
        let others = ips(&mut given.servers.iter().map(String::as_str)).into_iter();
        return others.filter(|ip| *ip != dns::ADDRESS).map(|ip| server(ip, ip.is_loopback())).collect();
    }
    let mut found = ips(&mut values(host, "nameserver"));
    if found.is_empty() {
        found.extend(FALLBACK_DNS);
    }
    found.into_iter().map(|ip| server(ip, false)).collect()
}

/// The same for a container in the host's network namespace, where loopback servers can be reached.
pub fn resolv_conf_on_host(host: &str, dns: Dns<'_>) -> String {
    if dns.servers.is_empty() && dns.search.is_empty() && dns.options.is_empty() {
        return host.to_owned();
    }
    let servers = if dns.servers.is_empty() {
        values(host, "nameserver").map(str::to_owned).collect()
    } else {
        dns.servers.to_vec()
    };
    render(host, &servers, dns)
}

fn render(host: &str, servers: &[String], dns: Dns<'_>) -> String {
    let pick = |given: &[String], keys: &[&str]| -> Vec<String> {
        if !given.is_empty() {
            return given.to_vec();
        }
        // The last line wins (resolv.conf(5)).
        let last = host.lines().rev().find_map(|line| {
            let mut words = words(line);
            words.next().filter(|key| keys.contains(key)).map(|_| words.map(str::to_owned).collect())
        });
        last.unwrap_or_default()
    };
    let search: Vec<String> =
        pick(dns.search, &["search", "domain"]).into_iter().filter(|name| name != ".").collect();
    let options = pick(dns.options, &["options"]);
    let mut text = String::new();
    for server in servers {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(['#', ';']).next().unwrap_or("").split_whitespace()
}

fn values<'a>(host: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    host.lines().filter_map(move |line| {
        let mut words = words(line);
        words.next().filter(|word| *word == key).and_then(|_| words.next())
    })
}

fn usable_from_container(server: &str, ipv6: bool) -> bool {
    // A zone (`fe80::1%eth0`) names an interface of the host.
    match server.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => !ip.is_loopback() && !ip.is_unspecified(),
        Ok(IpAddr::V6(ip)) => ipv6 && ip != Ipv6Addr::LOCALHOST && !ip.is_unspecified(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn hosts_of_a_container() {
        let entries = [
            Entry::new(ip("10.0.0.9"), ["db".to_owned(), "db".to_owned(), "mysql".to_owned()]),
            Entry::new(ip("172.17.0.3"), own_names("web", "example.org")),
        ];
        let text = hosts(&entries);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"));
        assert!(
            text.ends_with("ff02::2\tip6-allrouters\n10.0.0.9\tdb mysql\n172.17.0.3\tweb.example.org web\n")
        );
    }

    #[test]
    fn own_names_of_plain_and_qualified_hosts() {
        assert_eq!(own_names("web", ""), ["web"]);
        assert_eq!(own_names("web.example.org", ""), ["web.example.org", "web"]);
        assert_eq!(own_names("", ""), [""]);
    }

    #[test]
    fn extra_hosts() {
        assert_eq!(
            extra_host("db:10.0.0.1", None).expect("valid"),
            Entry::new(ip("10.0.0.1"), ["db".to_owned()])
        );
        assert_eq!(extra_host("six:::1", None).expect("valid").address, ip("::1"));
        assert_eq!(extra_host("six=[2001:db8::1]", None).expect("valid").address, ip("2001:db8::1"));
        let gateway = Some(ip("172.17.0.1"));
        assert_eq!(
            extra_host("host.docker.internal:host-gateway", gateway).expect("valid").address,
            ip("172.17.0.1")
        );
        for bad in ["db", ":1.2.3.4", "db:", "db:1.2.3", "a b:1.2.3.4", "db\n:1.2.3.4"] {
            assert!(extra_host(bad, gateway).is_err(), "{bad:?}");
        }
        assert!(extra_host("db:host-gateway", None).is_err());
        assert!(check_extra_host("db:host-gateway").is_ok() && check_extra_host("db").is_err());
    }

    #[test]
    fn resolv_conf_leaves_out_loopback() {
        let host = "# generated\nnameserver 127.0.0.53\nnameserver 10.0.0.2 # comment\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::53\ndomain old.example\nsearch example.org corp\noptions edns0 trust-ad\n";
        assert_eq!(
            resolv_conf(host, Dns::default(), false),
            "nameserver 10.0.0.2\nsearch example.org corp\noptions edns0 trust-ad\n"
        );
        assert_eq!(
            resolv_conf(host, Dns::default(), true),
            "nameserver 10.0.0.2\nnameserver 2001:db8::53\nsearch example.org corp\noptions edns0 trust-ad\n"
        );
    }

    #[test]
    fn resolv_conf_of_the_embedded_resolver() {
        let host = "nameserver 127.0.0.53\nsearch example.org\noptions edns0 trust-ad\n";
        assert_eq!(
            resolv_conf_embedded(host, Dns::default()),
            "nameserver 127.0.0.11\nsearch example.org\noptions edns0 trust-ad ndots:0\n"
        );
        let options = ["ndots:2".to_owned(), "timeout:1".to_owned()];
        assert_eq!(
            resolv_conf_embedded("", Dns { options: &options, ..Dns::default() }),
            "nameserver 127.0.0.11\noptions ndots:2 timeout:1\n"
        );
        let servers = |host: &str, given: &[&str]| -> Vec<String> {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            let found = name_servers(host, Dns { servers: &given, ..Dns::default() });
            found.iter().map(|server| format!("{} {}", server.address, server.inside)).collect()
        };
        assert_eq!(servers(host, &[]), ["127.0.0.53:53 false"]);
        assert_eq!(servers("", &[]), ["8.8.8.8:53 false", "8.8.4.4:53 false"]);
        assert_eq!(servers(host, &["192.0.2.1", "127.0.0.1"]), ["192.0.2.1:53 false", "127.0.0.1:53 true"]);
        assert!(servers(host, &["127.0.0.11"]).is_empty());
    }

    #[test]
    fn resolv_conf_falls_back_and_obeys() {
        assert_eq!(
            resolv_conf("nameserver 127.0.0.53\n", Dns::default(), false),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        let (servers, search, options) = (["1.1.1.1".to_owned()], [".".to_owned()], ["ndots:2".to_owned()]);
        let dns = Dns { servers: &servers, search: &search, options: &options };
        assert_eq!(resolv_conf("search example.org\n", dns, false), "nameserver 1.1.1.1\noptions ndots:2\n");
        assert_eq!(resolv_conf_on_host("nameserver 127.0.0.53\n", Dns::default()), "nameserver 127.0.0.53\n");
    }
}
