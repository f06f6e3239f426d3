//! A network's zone: who is on it, with which addresses and names. One line a member,
//! `container-id address,address name name…`, the name that reverse look-ups answer with first.

use crate::ContainerId;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a zone that are read: some 20,000 members.
pub const BYTES: u64 = 4 << 20;
/// Bytes of a name (RFC 1035 section 2.3.4).
const NAME_BYTES: usize = 253;

/// One member's line. What cannot be a name in a query is left out.
pub fn line<'a>(
    container: &ContainerId,
    addresses: &[IpAddr],
    names: impl IntoIterator<Item = &'a str>,
) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut text = format!("{container} {}", addresses.join(","));
    for name in names {
        let name = name.trim_end_matches('.');
        let strange = |c: char| c.is_whitespace() || c.is_control();
        if !name.is_empty() && name.len() <= NAME_BYTES && !name.contains(strange) {
            // Writing to a String cannot fail.
            let _ = write!(text, " {name}");
        }
    }
    text.push('\n');
    text
}

/// The zone with this container's line replaced, or taken out.
#[must_use]
pub fn with(zone: &str, container: &ContainerId, line: Option<&str>) -> String {
    let others = zone.split_inclusive('\n').filter(|line| !line.starts_with(container.as_str()));
    others.chain(line).collect()
}

struct Member<'a> {
    container: &'a str,
    addresses: &'a str,
    names: &'a str,
}

impl<'a> Member<'a> {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.addresses.split(',').filter_map(|text| text.parse().ok())
    }
}

fn members(zone: &str) -> impl Iterator<Item = Member<'_>> {
    zone.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ' ');
        Some(Member {
            container: parts.next()?,
            addresses: parts.next()?,
            names: parts.next().unwrap_or_default(),
        })
    })
}

/// The addresses of everybody who answers to a name; `None` where nobody does.
pub fn addresses(zone: &str, name: &str) -> Option<Vec<IpAddr>> {
    let mut found = None;
    for member in members(zone) {
        if member.names.split(' ').any(|own| own.eq_ignore_ascii_case(name)) && !name.is_empty() {
            found.get_or_insert_with(Vec::new).extend(member.addresses());
        }
    }
    found
}

/// The addresses of a container.
pub fn of_container(zone: &str, container: &ContainerId) -> Option<Vec<IpAddr>> {
    members(zone)
        .find(|member| member.container == container.as_str())
        .map(|member| member.addresses().collect())
}

/// The first name of whoever has an address.
pub fn name_of(zone: &str, ip: IpAddr) -> Option<&str> {
    let member = members(zone).find(|member| member.addresses().any(|own| own == ip))?;
    member.names.split(' ').next().filter(|name| !name.is_empty())
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035 section 3.5, RFC 3596).
pub fn reverse(name: &str) -> Option<IpAddr> {
    let lower = name.to_ascii_lowercase();
    if let Some(text) = lower.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut parts = text.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let text = lower.strip_suffix(".ip6.arpa")?;
    let mut number: u128 = 0;
    let mut parts = text.split('.').rev();
    for _ in 0..32 {
        let digit = parts.next().filter(|part| part.len() == 1)?;
        number = number << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
    }
    parts.next().is_none().then(|| Ipv6Addr::from(number).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_and_go() {
        let (a, b) = (ContainerId::from_bytes([1; 32]), ContainerId::from_bytes([2; 32]));
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = line(&a, &[ip("10.0.0.2")], ["web", "a b", "line\nbreak", "dotted.name."]);
        assert_eq!(first, format!("{a} 10.0.0.2 web dotted.name\n"));
        let zone = with("", &a, Some(&first));
        let zone = with(&zone, &b, Some(&line(&b, &[ip("10.0.0.3")], ["db"])));
        let zone = with(&zone, &a, Some(&line(&a, &[ip("10.0.0.9")], ["www"])));
        assert_eq!(addresses(&zone, "web"), None);
        assert_eq!(addresses(&zone, "WWW"), Some(vec![ip("10.0.0.9")]));
        assert_eq!(name_of(&zone, ip("10.0.0.3")), Some("db"));
        assert_eq!(with(&zone, &a, None), format!("{b} 10.0.0.3 db\n"));
        assert_eq!(addresses(&zone, ""), None);
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse("2.0.88.10.in-addr.arpa"), Some(IpAddr::from([10, 88, 0, 2])));
        assert_eq!(
            reverse("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.F.ip6.ARPA"),
            Some("fd00::2".parse().expect("an address"))
        );
        for bad in
            ["0.88.10.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "300.0.0.1.in-addr.arpa", "f.ip6.arpa", "web"]
        {
            assert_eq!(reverse(bad), None, "{bad}");
        }
    }
}
