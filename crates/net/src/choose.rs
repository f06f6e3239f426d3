//! Pure decisions: which subnet a network gets, which address an endpoint.

use model::network::{Cidr, Subnet};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first subnet of the pools that overlaps nothing in `taken`. `start` shifts where the search begins, so that
/// engines side by side seldom want the same.
pub(crate) fn subnet(pools: &[(Cidr, u8)], taken: &[Cidr], start: u32) -> Option<Cidr> {
    let first = pools.first().map_or(0, |pool| start % size(pool).max(1));
    for (index, pool) in pools.iter().enumerate() {
        let skip = if index == 0 { first } else { 0 };
        let found = (skip..size(pool)).chain(0..skip).filter_map(|number| nth(pool, number));
        if let Some(free) =
            found.into_iter().find(|candidate| !taken.iter().any(|other| other.overlaps(candidate)))
        {
            return Some(free);
        }
    }
    None
}

/// How many subnets a pool has (IPv4; at most 2^16 are looked at).
fn size((pool, prefix): &(Cidr, u8)) -> u32 {
    if !pool.address.is_ipv4() || *prefix < pool.prefix || *prefix > 30 {
        return 0;
    }
    1 << u32::from(prefix - pool.prefix).min(16)
}

fn nth((pool, prefix): &(Cidr, u8), number: u32) -> Option<Cidr> {
    let (first, last) = pool.v4_bounds()?;
    let address = first.checked_add(number.checked_mul(1 << (32 - u32::from(*prefix)))?)?;
    (address <= last).then(|| Cidr { address: IpAddr::V4(Ipv4Addr::from(address)), prefix: *prefix })
}

/// A unique local IPv6 subnet (RFC 4193) from random bytes.
pub(crate) fn local_v6(random: &[u8]) -> Cidr {
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    for (to, from) in octets[1..8].iter_mut().zip(random) {
        *to = *from;
    }
    Cidr { address: IpAddr::V6(Ipv6Addr::from(octets)), prefix: 64 }
}

/// The first usable address of a subnet: the gateway unless another one was asked for.
pub(crate) fn first_address(subnet: &Cidr) -> Option<IpAddr> {
    bounds(subnet)
        .and_then(|(first, last)| from_number(subnet, if first == last { first } else { first + 1 }))
}

/// The lowest free address of a subnet (or of its `--ip-range`).
pub(crate) fn address(subnet: &Subnet, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let (low, high) = bounds(subnet.range.as_ref().unwrap_or(&subnet.net))?;
    // One more than there can be obstacles: network, broadcast, gateway, auxiliary and leased addresses.
    let tries = taken.len() as u128 + subnet.aux.len() as u128 + 4;
    (low..=high.min(low.saturating_add(tries)))
        .filter_map(|number| from_number(&subnet.net, number))
        .find(|ip| is_usable(subnet, *ip) && !taken.contains(ip))
}

/// Whether a container may have this address.
pub(crate) fn is_usable(subnet: &Subnet, ip: IpAddr) -> bool {
    let Some((first, last)) = bounds(&subnet.net) else { return false };
    let number = to_number(ip);
    let edge = match ip {
        IpAddr::V4(_) => subnet.net.prefix < 31 && (number == first || number == last),
        IpAddr::V6(_) => number == first,
    };
    subnet.net.contains(ip)
        && !edge
        && subnet.gateway != Some(ip)
        && !subnet.aux.values().any(|other| *other == ip)
}

fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn from_number(like: &Cidr, number: u128) -> Option<IpAddr> {
    match like.address {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|number| IpAddr::V4(Ipv4Addr::from(number))),
        IpAddr::V6(_) => Some(IpAddr::V6(Ipv6Addr::from(number))),
    }
}

/// First and last address, as numbers.
fn bounds(cidr: &Cidr) -> Option<(u128, u128)> {
    let width = if cidr.address.is_ipv4() { 32u32 } else { 128 };
    let host = width.checked_sub(u32::from(cidr.prefix))?;
    let size = 1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1);
    let first = to_number(cidr.network().address);
    Some((first, first | size))
}

/// The MAC that belongs to an address: `02:42:` and the IPv4 address, or the last four bytes of the IPv6 one.
pub(crate) fn mac(ip: IpAddr) -> [u8; 6] {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let all = ip.octets();
            [all[12], all[13], all[14], all[15]]
        }
    };
    [0x02, 0x42, octets[0], octets[1], octets[2], octets[3]]
}

/// `02:42:0a:58:00:02`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Parses a MAC with colons or dashes; a group address is none.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part =
            parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).expect("a subnet")
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }
    fn plain(net: &str) -> Subnet {
        let net = cidr(net);
        Subnet { net, gateway: first_address(&net), range: None, aux: Default::default() }
    }

    #[test]
    fn subnets_avoid_what_is_there() {
        let pools = [(cidr("10.88.0.0/13"), 16), (cidr("192.168.0.0/16"), 20)];
        assert_eq!(subnet(&pools, &[], 0), Some(cidr("10.88.0.0/16")));
        assert_eq!(subnet(&pools, &[], 10), Some(cidr("10.90.0.0/16")));
        let taken = [cidr("10.88.5.1/24"), cidr("10.89.0.0/16")];
        assert_eq!(subnet(&pools, &taken, 0), Some(cidr("10.90.0.0/16")));
        assert_eq!(subnet(&pools, &[cidr("10.0.0.0/8")], 3), Some(cidr("192.168.0.0/20")));
        assert_eq!(subnet(&pools, &[cidr("10.0.0.0/8"), cidr("192.168.0.0/16")], 3), None);
        assert_eq!(subnet(&[(cidr("10.88.0.0/16"), 8)], &[], 0), None);
    }

    #[test]
    fn addresses_are_sequential_and_skip_obstacles() {
        let mut net = plain("10.1.0.0/24");
        assert_eq!(address(&net, &BTreeSet::new()), Some(ip("10.1.0.2")));
        assert_eq!(address(&net, &BTreeSet::from([ip("10.1.0.2"), ip("10.1.0.4")])), Some(ip("10.1.0.3")));
        net.aux.insert("router".to_owned(), ip("10.1.0.2"));
        assert_eq!(address(&net, &BTreeSet::new()), Some(ip("10.1.0.3")));
        net.range = Some(cidr("10.1.0.128/25"));
        assert_eq!(address(&net, &BTreeSet::new()), Some(ip("10.1.0.128")));
        let tiny = plain("10.1.0.0/30");
        assert_eq!(address(&tiny, &BTreeSet::from([ip("10.1.0.2")])), None);
        assert_eq!(address(&plain("fd00::/64"), &BTreeSet::new()), Some(ip("fd00::2")));
    }

    #[test]
    fn edges_are_not_usable() {
        let net = plain("10.1.0.0/24");
        for bad in ["10.1.0.0", "10.1.0.255", "10.1.0.1", "10.2.0.5", "fd00::2"] {
            assert!(!is_usable(&net, ip(bad)), "{bad}");
        }
        assert!(is_usable(&net, ip("10.1.0.254")));
    }

    #[test]
    fn macs() {
        assert_eq!(mac_text(mac(ip("10.88.0.2"))), "02:42:0a:58:00:02");
        assert_eq!(parse_mac("02:42:0a:58:00:02"), Some([2, 0x42, 10, 0x58, 0, 2]));
        assert_eq!(parse_mac("92-d0-c6-0a-29-33"), Some([0x92, 0xd0, 0xc6, 0x0a, 0x29, 0x33]));
        for bad in [
            "",
            "02:42",
            "01:00:5e:00:00:01",
            "02:42:0a:58:00:02:03",
            "2:42:0a:58:00:02",
            "+2:42:0a:58:00:02",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
