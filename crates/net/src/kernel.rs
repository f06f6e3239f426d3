//! Bridges, veth pairs, addresses and routes: thin calls, each naming its object. Under the lock on the kernel.

use model::error::Context as _;
use model::network::{Cidr, NetworkSpec};
use model::{Error, Kind, Result};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use sys::netlink::route::PortMode;
use sys::netlink::{Refused, Socket, route};

use crate::{Endpoint, choose};

/// The MTU where there is no default route to follow.
const MTU: u32 = 1500;
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// The name of the default network's bridge.
pub(crate) fn default_bridge(instance: &str) -> String {
    if instance.is_empty() { "cauldron0".to_owned() } else { format!("cld{instance}0") }
}

/// The name of a network's bridge: at most 15 bytes (`IFNAMSIZ`).
pub(crate) fn bridge_name(network: &NetworkSpec, instance: &str) -> String {
    match network.options.get("com.docker.network.bridge.name") {
        Some(name) => name.clone(),
        None => {
            let mut name = format!("cld{instance}-{}", network.id.short());
            name.truncate(15);
            name
        }
    }
}

/// Refuses what the kernel would not take as an interface's name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty() || name.len() > 15 || name == "." || name == "..";
    if bad || name.bytes().any(|b| b == b'/' || b == b':' || !b.is_ascii_graphic()) {
        return Err(Error::invalid(format!(
            "invalid interface name {name:?}: want 1 to 15 letters, digits, \"-\", \"_\" or \".\""
        )));
    }
    Ok(())
}

/// The name of an endpoint's interface on the host.
pub(crate) fn host_interface(endpoint: &Endpoint) -> String {
    format!("veth{}", endpoint.id.get(..11).unwrap_or(&endpoint.id))
}

pub(crate) fn open() -> Result<Socket> {
    Socket::route().context(|| "open a route socket")
}

/// Every subnet that this machine reaches otherwise than by a default route, except through `own`; and who has it.
pub(crate) fn occupied(own: &str) -> Result<Vec<(Cidr, String)>> {
    let mut socket = open()?;
    let links = socket.links().context(|| "list interfaces")?;
    let name = |index: u32| {
        links
            .iter()
            .find(|(_, link)| link.index == index)
            .map_or_else(|| index.to_string(), |(name, _)| name.clone())
    };
    let mut all = Vec::new();
    for (address, prefix, index) in socket.addresses().context(|| "list addresses")? {
        let who = name(index);
        if who != own && !address.is_loopback() && !is_link_local(address) {
            all.push((Cidr { address, prefix }, format!("interface {who} has {address}/{prefix}")));
        }
    }
    for route in socket.routes().context(|| "list routes")? {
        let (address, prefix) = route.to;
        let who = name(route.link);
        if who != own && prefix > 0 && !is_link_local(address) && !address.is_multicast() {
            all.push((
                Cidr { address, prefix },
                format!("a route to {address}/{prefix} leads to interface {who}"),
            ));
        }
    }
    Ok(all)
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}

/// The interface of the IPv4 default route (else the IPv6 one) has the MTU that must not be exceeded.
fn uplink_mtu(socket: &mut Socket) -> Result<u32> {
    let routes = socket.routes().context(|| "list routes")?;
    let defaults = routes.iter().filter(|route| route.to.1 == 0 && route.link != 0);
    let Some(best) = defaults.min_by_key(|route| (!route.to.0.is_ipv4(), route.metric)) else {
        return Ok(MTU);
    };
    let link = socket.link_by_index(best.link).context(|| "look at the uplink")?;
    Ok(link.map_or(MTU, |link| link.mtu))
}

/// Whether a network's bridge is there.
pub(crate) fn has_bridge(network: &NetworkSpec, instance: &str) -> Result<bool> {
    let name = bridge_name(network, instance);
    Ok(open()?.link(&name).context(|| format!("look for bridge {name}"))?.is_some())
}

/// The bridge of a network, made where it is missing. The flag says that it was made.
pub(crate) fn ensure_bridge(network: &NetworkSpec, instance: &str) -> Result<(u32, u32, bool)> {
    let name = bridge_name(network, instance);
    let mut socket = open()?;
    if let Some(link) = socket.link(&name).context(|| format!("look for bridge {name}"))? {
        return Ok((link.index, link.mtu, false));
    }
    let _machine = sys::netlink::lock_namespace().context(|| "lock the network namespace")?;
    for (held, who) in occupied(&name)? {
        if network.subnets.iter().any(|subnet| subnet.net.overlaps(&held)) {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "network {}: Pool overlaps with other one on this address space: {who}",
                    network.name
                ),
            )
            .hint("start the container again: another subnet is chosen unless --subnet gave this one"));
        }
    }
    let mtu = match network.options.get(MTU_OPTION) {
        Some(text) => {
            text.parse().map_err(|_| Error::invalid(format!("{MTU_OPTION}={text}: want a number")))?
        }
        None => uplink_mtu(&mut socket)?,
    };
    let what = || format!("create bridge {name}");
    let own = network.subnets.iter().find_map(|subnet| subnet.gateway);
    let mac = own.map_or([0x02, 0x42, 0, 0, 0, 1], choose::mac);
    socket.request(vec![route::new_bridge(&name, mac, mtu)]).map_err(error_of).context(what)?;
    let made: Result<u32> = (|| {
        let link = socket.link(&name).context(what)?.ok_or_else(|| Error::internal(what()))?;
        let addresses = network.subnets.iter().filter_map(|subnet| {
            let gateway = subnet.gateway.filter(|gateway| is_own(network, gateway.is_ipv4()))?;
            Some(route::new_address(link.index, gateway, subnet.net.prefix))
        });
        socket.request(addresses.collect()).map_err(error_of).context(what)?;
        let v6 = network.subnets.iter().any(|subnet| subnet.net.address.is_ipv6());
        forwarding(&name, v6)?;
        Ok(link.index)
    })();
    match made {
        Ok(index) => Ok((index, mtu, true)),
        Err(error) => Err(error.with_undo_failures(delete(&name).err())),
    }
}

/// Whether the bridge itself has the gateway's address: another machine may (`inhibit_ipv4`), or the network may be closed to this
/// one too (`gateway_mode_*=isolated`, internal networks only).
fn is_own(network: &NetworkSpec, v4: bool) -> bool {
    let is = |key: &str, value: &str| {
        network.options.get(&format!("com.docker.network.bridge.{key}")).is_some_and(|text| text == value)
    };
    let mode = if v4 { "gateway_mode_ipv4" } else { "gateway_mode_ipv6" };
    !(v4 && is("inhibit_ipv4", "true") || network.internal && is(mode, "isolated"))
}

/// Lets the host route for the bridge: packets from its loopback too (`route_localnet`).
fn forwarding(bridge: &str, v6: bool) -> Result<()> {
    set(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    // No container is the host's router (CVE-2020-13401). Without IPv6 in the kernel there is nothing to forbid.
    let advertisements = format!("net/ipv6/conf/{bridge}/accept_ra");
    if std::path::Path::new("/proc/sys").join(&advertisements).exists() {
        set(&advertisements, "0")?;
    }
    set("net/ipv4/ip_forward", "1")?;
    if v6 {
        set("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).context(|| format!("write {path}")).map_err(|error| {
        error.hint(format!("the host must allow it: sysctl -w {}={value}", key.replace('/', ".")))
    })
}

pub(crate) fn error_of(refused: Refused) -> std::io::Error {
    refused.error
}

/// Joins a namespace to a bridge: the pair, with its far end born in the namespace.
pub(crate) fn plug(endpoint: &Endpoint, (bridge, mtu): (u32, u32), netns: BorrowedFd<'_>) -> Result<()> {
    let near = host_interface(endpoint);
    let what = || format!("create interface {near} of network {}", endpoint.network);
    let mac = choose::parse_mac(&endpoint.mac).ok_or_else(|| Error::internal(what()))?;
    let message = route::new_veth(&near, bridge, mtu, &endpoint.interface, mac, netns);
    open()?.request(vec![message]).map_err(error_of).context(what)
}

/// Lets a container reach itself through its own published port.
pub(crate) fn allow_hairpin(endpoint: &Endpoint) -> Result<()> {
    set_port_mode(endpoint, PortMode::Hairpin)
}

/// Keeps an endpoint apart from the others of its bridge (`enable_icc=false`). With bridge-netfilter the firewall sees
/// every frame and does it, and must: there a redirected packet passes from port to port.
pub(crate) fn isolate(endpoint: &Endpoint) -> Result<()> {
    let filtered = |family: &str| {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
    };
    if filtered("iptables") && filtered("ip6tables") {
        return Ok(());
    }
    set_port_mode(endpoint, PortMode::Isolated)
}

fn set_port_mode(endpoint: &Endpoint, mode: PortMode) -> Result<()> {
    let near = host_interface(endpoint);
    open()?
        .request(vec![route::set_port_mode(&near, mode)])
        .map_err(error_of)
        .context(|| format!("set up interface {near}"))
}

/// Sets up what was plugged in, inside the namespace: addresses, links up; then the default routes of `all`, in order of precedence.
pub(crate) fn configure(endpoints: &[Endpoint], all: &[Endpoint], netns: BorrowedFd<'_>) -> Result<()> {
    let what = || "set up the container's interfaces";
    sys::netlink::within(netns, || {
        let mut socket = open()?;
        for endpoint in endpoints {
            let name = &endpoint.interface;
            let link = socket.link(name).context(what)?;
            let index = link.ok_or_else(|| Error::internal(format!("interface {name} is gone")))?.index;
            let mut messages = Vec::new();
            if endpoint.ipv6.is_none() {
                messages.push(route::no_link_local(index));
            }
            let v4 = endpoint.ipv4.map(|ip| (ip.into(), endpoint.ipv4_prefix));
            let v6 = endpoint.ipv6.map(|ip| (ip.into(), endpoint.ipv6_prefix));
            let local = endpoint.spec.link_local.iter().map(|ip| (*ip, if ip.is_ipv4() { 16 } else { 64 }));
            let addresses = v4.into_iter().chain(v6).chain(local);
            messages.extend(addresses.map(|(ip, prefix)| route::new_address(index, ip, prefix)));
            messages.push(route::set_up(index));
            socket
                .request(messages)
                .map_err(|refused| (refused.place, refused.error).1)
                .context(|| format!("set up interface {name}"))?;
        }
        default_routes(&mut socket, all)
    })
    .context(what)?
}

/// One of each family, of the first endpoint that has one.
fn default_routes(socket: &mut Socket, endpoints: &[Endpoint]) -> Result<()> {
    let way = |route: &dyn Fn(&Endpoint) -> bool| endpoints.iter().find(|endpoint| route(endpoint));
    let v4 = way(&|endpoint| endpoint.gateway.is_some() || endpoint.routed && endpoint.ipv4.is_some());
    let v6 = way(&|endpoint| endpoint.gateway6.is_some() || endpoint.routed && endpoint.ipv6.is_some());
    let gateways =
        [v4.map(|end| (end, end.gateway.map(IpAddr::V4))), v6.map(|end| (end, end.gateway6.map(IpAddr::V6)))];
    for (at, (endpoint, gateway)) in gateways.into_iter().enumerate().filter_map(|(at, way)| Some((at, way?)))
    {
        let what = || format!("route through interface {}", endpoint.interface);
        let message = match gateway {
            Some(gateway) => route::default_route(gateway),
            None => {
                let link = socket.link(&endpoint.interface).context(what)?;
                route::default_route_through(link.map_or(0, |link| link.index), at == 1)
            }
        };
        socket.request(vec![message]).map_err(error_of).context(what)?;
    }
    Ok(())
}

/// Takes an interface away, inside the namespace, and gives the default route to the first of the others.
pub(crate) fn unplug(endpoint: &Endpoint, others: &[Endpoint], netns: BorrowedFd<'_>) -> Result<()> {
    let name = &endpoint.interface;
    sys::netlink::within(netns, || {
        delete(name)?;
        default_routes(&mut open()?, others)
    })
    .context(|| format!("remove interface {name}"))?
}

/// Deletes a link of the host's; one that is not there is as good as deleted.
pub(crate) fn delete(name: &str) -> Result<()> {
    match open()?.request(vec![route::delete_link(name)]).map_err(error_of) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        other => other.context(|| format!("delete interface {name}")),
    }
}
