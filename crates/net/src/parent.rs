//! macvlan and ipvlan: networks whose containers have interfaces of the host's own (`-o parent=`). No bridge, no firewall of ours:
//! the containers are on the parent's network as machines of their own. Without a parent the network is closed: a pair
//! of interfaces that leads nowhere, made with the first endpoint and removed with the last, is its wire (Docker's is a dummy interface,
//! which not every kernel has).

use model::error::Context as _;
use model::network::NetworkSpec;
use model::{Error, Result};
use std::os::fd::BorrowedFd;
use sys::netlink::Socket;
use sys::netlink::route::{self, Sub};

use crate::kernel::{delete, error_of, open};
use crate::{Endpoint, choose};

/// Whether a driver's endpoints are children of an interface of the host's.
pub(crate) fn is_parented(driver: &str) -> bool {
    matches!(driver, "macvlan" | "ipvlan")
}

/// What kind of interface the network's options ask for.
///
/// # Errors
/// A mode that the driver does not know.
pub(crate) fn kind(network: &NetworkSpec) -> Result<Sub> {
    let option = |name: &str| network.options.get(name).map_or("", String::as_str);
    let bad = |what: &str, text: &str| Err(Error::invalid(format!("unknown {what}: {text}")));
    if network.driver == "macvlan" {
        return Ok(Sub::Macvlan(match option("macvlan_mode") {
            "" | "bridge" => route::MACVLAN_BRIDGE,
            "private" => route::MACVLAN_PRIVATE,
            "vepa" => route::MACVLAN_VEPA,
            "passthru" => route::MACVLAN_PASSTHRU,
            other => return bad("macvlan_mode", other),
        }));
    }
    let mode = match option("ipvlan_mode") {
        "" | "l2" => route::IPVLAN_L2,
        "l3" => route::IPVLAN_L3,
        "l3s" => route::IPVLAN_L3S,
        other => return bad("ipvlan_mode", other),
    };
    match option("ipvlan_flag") {
        "" | "bridge" => Ok(Sub::Ipvlan(mode, 0)),
        "private" => Ok(Sub::Ipvlan(mode, route::IPVLAN_PRIVATE)),
        "vepa" => Ok(Sub::Ipvlan(mode, route::IPVLAN_VEPA)),
        other => bad("ipvlan_flag", other),
    }
}

/// Whether its containers route by themselves (ipvlan's layer 3 modes): no gateway, all through the interface.
pub(crate) fn is_routed(network: &NetworkSpec) -> bool {
    network.driver == "ipvlan"
        && network.options.get("ipvlan_mode").is_some_and(|mode| mode.starts_with("l3"))
}

/// The network's own wire, where no parent was given.
fn wire(network: &NetworkSpec) -> String {
    format!("dm-{}", network.id.short())
}

/// The parent's index; a wire of its own is made where it is missing.
fn find(network: &NetworkSpec, socket: &mut Socket) -> Result<u32> {
    let (name, own) = match network.options.get("parent").filter(|name| !name.is_empty()) {
        Some(name) => (name.clone(), false),
        None => (wire(network), true),
    };
    let what = || format!("look for interface {name}");
    if let Some(link) = socket.link(&name).context(what)? {
        return Ok(link.index);
    }
    if own {
        let made = || format!("create interface {name}");
        let far = name.replace("dm-", "dn-");
        socket.request(vec![route::new_wire(&name, &far)]).map_err(error_of).context(made)?;
        if let (Some(near), Some(far)) = (socket.link(&name).context(what)?, socket.link(&far).context(what)?)
        {
            socket.request(vec![route::set_up(far.index)]).map_err(error_of).context(made)?;
            return Ok(near.index);
        }
    }
    Err(Error::not_found(format!("network {}: no such parent interface: {name:?}", network.name))
        .hint("give -o parent=INTERFACE, one of this machine's"))
}

/// Gives a namespace an interface of the network's parent.
pub(crate) fn plug(network: &NetworkSpec, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
    let what = || format!("create {} interface of network {}", network.driver, network.name);
    let mut socket = open()?;
    let parent = find(network, &mut socket)?;
    let mac = choose::parse_mac(&endpoint.mac).ok_or_else(|| Error::internal(what()))?;
    let message = route::new_child(&endpoint.interface, parent, kind(network)?, mac, netns);
    socket.request(vec![message]).map_err(error_of).context(what)
}

/// Removes what was made for a network that nobody is on.
pub(crate) fn dismantle(network: &NetworkSpec) -> Result<()> {
    if network.options.get("parent").is_some_and(|name| !name.is_empty()) {
        return Ok(());
    }
    delete(&wire(network))
}
