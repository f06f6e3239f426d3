//! `network`.

use super::filters::{filters, labels};
use crate::args::{Given, filter, flag, force, format, list, no_trunc, one, opt, prune_filter, quiet, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::options::files;
use crate::render::list::{Listing, Style};
use crate::render::{table, template};
use crate::session::Session;
use clap::ArgMatches;
use client::{Method, encode, query};
use serde_json::{Value, json};

const NETWORK: Verb = Verb { group: "network", ..VERB };

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["create"],
        usage: "NETWORK",
        about: "Create a network",
        more: "Example:\n  cauldron network create --subnet 10.99.0.0/24 backend",
        args: || {
            vec![
                flag("attachable", "", "Enable manual container attachment"),
                list("aux-address", "", "map", "Auxiliary IPv4 or IPv6 addresses"),
                flag("config-only", "", "Create a configuration only network"),
                opt("config-from", "", "string", "The network from which to copy the configuration"),
                opt("driver", "d", "string", "Driver to manage the Network"),
                list("gateway", "", "list", "IPv4 or IPv6 Gateway for the subnet"),
                flag("ingress", "", "Create swarm routing-mesh network"),
                flag("internal", "", "Restrict external access to the network"),
                list("ip-range", "", "list", "Allocate container ip from a sub-range"),
                opt("ipam-driver", "", "string", "IP Address Management Driver"),
                list("ipam-opt", "", "map", "Set IPAM driver specific options"),
                flag("ipv4", "", "Enable or disable IPv4 address assignment"),
                flag("ipv6", "", "Enable IPv6 networking"),
                list("label", "", "list", "Set metadata on a network"),
                list("opt", "o", "map", "Set driver specific options"),
                opt("scope", "", "string", "Control the network's scope"),
                list("subnet", "", "list", "Subnet in CIDR format that represents a network segment"),
                one("network"),
            ]
        },
        run: |session, given| Box::pin(create(session, given)),
        ..NETWORK
    },
    Verb {
        names: &["ls", "list"],
        about: "List networks",
        args: || vec![filter(), format(), no_trunc(), quiet()],
        run: |session, given| Box::pin(ls(session, given)),
        ..NETWORK
    },
    Verb {
        names: &["rm", "remove"],
        usage: "NETWORK [NETWORK...]",
        about: "Remove one or more networks",
        args: || vec![flag("force", "f", "Do not error if the network does not exist"), some("networks")],
        run: |session, given| Box::pin(rm(session, given)),
        ..NETWORK
    },
    Verb {
        names: &["connect"],
        usage: "NETWORK CONTAINER",
        about: "Connect a container to a network",
        args: || {
            vec![
                list("alias", "", "list", "Add network-scoped alias for the container"),
                list("driver-opt", "", "list", "driver options for the network"),
                opt("gw-priority", "", "int", "Highest gw-priority provides the default gateway"),
                opt("ip", "", "string", "IPv4 address"),
                opt("ip6", "", "string", "IPv6 address"),
                list("link", "", "list", "Add link to another container"),
                list("link-local-ip", "", "list", "Add a link-local address for the container"),
                one("network"),
                one("container"),
            ]
        },
        run: |session, given| Box::pin(connect(session, given)),
        ..NETWORK
    },
    Verb {
        names: &["disconnect"],
        usage: "NETWORK CONTAINER",
        about: "Disconnect a container from a network",
        args: || {
            vec![
                flag("force", "f", "Force the container to disconnect from a network"),
                one("network"),
                one("container"),
            ]
        },
        run: |session, given| Box::pin(disconnect(session, given)),
        ..NETWORK
    },
    Verb {
        names: &["prune"],
        about: "Remove all unused networks",
        args: || vec![prune_filter(), force()],
        run: |session, given| Box::pin(prune(session, given)),
        ..NETWORK
    },
];

async fn create(session: Session, given: ArgMatches) -> Outcome {
    let (subnets, gateways, ranges) =
        (given.texts("subnet"), given.texts("gateway"), given.texts("ip-range"));
    if subnets.is_empty() && (!gateways.is_empty() || !ranges.is_empty()) {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let mut pools: Vec<Value> = subnets.iter().map(|subnet| json!({"Subnet": subnet})).collect();
    // A gateway or range belongs to the subnet of its family, in order.
    for (key, values) in [("Gateway", gateways), ("IPRange", ranges)] {
        for value in values {
            let six = value.contains(':');
            let pool = pools.iter_mut().find(|pool| {
                pool[key].is_null()
                    && pool["Subnet"].as_str().is_some_and(|subnet| subnet.contains(':') == six)
            });
            pool.ok_or_else(|| Failure::new(format!("no matching subnet for {value}")))?[key] =
                Value::from(value.as_str());
        }
    }
    for text in given.texts("aux-address") {
        let (name, address) = text.split_once('=').unwrap_or((&text, ""));
        // It belongs to the subnet that it is in; which one that is, the engine knows too.
        let pool = pools.iter_mut().find(|pool| is_in(pool["Subnet"].as_str().unwrap_or_default(), address));
        pool.ok_or_else(|| Failure::new(format!("no matching subnet for aux-address {address}")))?["AuxiliaryAddresses"]
            [name] = Value::from(address);
    }
    let config_from = given.text("config-from").map(|name| json!({"Network": name}));
    let mut body = json!({
        "Name": given.text("network"), "CheckDuplicate": true, "Driver": given.text("driver").unwrap_or("bridge"),
        "Internal": given.on("internal"), "Attachable": given.on("attachable"), "Ingress": given.on("ingress"),
        "Scope": given.text("scope").unwrap_or_default(), "ConfigOnly": given.on("config-only"), "ConfigFrom": config_from,
        "Options": files::pairs(&given.texts("opt")), "Labels": files::labels(&[], &given.texts("label"))?,
        "IPAM": {"Driver": given.text("ipam-driver").unwrap_or("default"), "Options": files::pairs(&given.texts("ipam-opt")), "Config": pools},
    });
    // What is not given is for the engine to decide.
    for (key, flag) in [("EnableIPv4", "ipv4"), ("EnableIPv6", "ipv6")] {
        if let Some(on) = given.switch(flag) {
            body[key] = Value::from(on);
        }
    }
    let answer = session.client()?.json(Method::POST, "/networks/create", Some(&body)).await?;
    session.line(answer["Id"].as_str().unwrap_or_default())?;
    Ok(0)
}

/// Whether a subnet (`address/prefix`) holds an address.
fn is_in(subnet: &str, address: &str) -> bool {
    use std::net::IpAddr;
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 4),
        IpAddr::V6(ip) => (u128::from(ip), 6),
    };
    let parts =
        subnet.split_once('/').and_then(|(net, prefix)| Some((net.parse().ok()?, prefix.parse().ok()?)));
    let (Some((net, prefix)), Ok(address)) = (parts, address.parse()) else { return false };
    let (net, address): ((u128, u8), (u128, u8)) = (bits(net), bits(address));
    let shift: u32 = 128u32.saturating_sub(prefix);
    net.1 == address.1 && (net.0 ^ address.0).checked_shr(shift).unwrap_or(0) == 0
}

const NETWORKS: Listing = Listing {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headers: &[("ID", "NETWORK ID"), ("CreatedAt", "CREATED AT")],
};

async fn ls(session: Session, given: ArgMatches) -> Outcome {
    let found =
        session.client()?.get(&query("/networks", [("filters", filters(&given.texts("filter"))?)])).await?;
    let full = given.on("no-trunc");
    let mut rows: Vec<Value> = found
        .as_array()
        .into_iter()
        .flatten()
        .map(|network| {
            let id = network["Id"].as_str().unwrap_or_default();
            let text = |name: &str| network[name].as_bool().unwrap_or(false).to_string();
            let mut row = json!({
                "ID": if full { id } else { table::short_id(id) }, "Name": network["Name"], "Driver": network["Driver"],
                "Scope": network["Scope"], "IPv6": text("EnableIPv6"), "IPv4": network["EnableIPv4"].as_bool().unwrap_or(true).to_string(), "Internal": text("Internal"),
                "Labels": labels(&network["Labels"]), "CreatedAt": network["Created"],
            });
            row[template::LABELS] = network["Labels"].clone();
            row
        })
        .collect();
    rows.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
    session.out(
        &NETWORKS
            .render(&rows, &Style { format: given.text("format"), quiet: given.on("quiet"), key: "ID" })?,
    )?;
    Ok(0)
}

async fn rm(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let force = given.on("force");
    session
        .each(&given.texts("networks"), |name| async move {
            match client.bytes(Method::DELETE, &format!("/networks/{}", encode(&name)), None).await {
                // Asked to be gone, and it is; only that is forgiven.
                Err(error) if force && error.status() == Some(404) => Err(Failure::silent(0)),
                other => Ok(other.map(|_| ())?),
            }
        })
        .await
}

async fn connect(session: Session, given: ArgMatches) -> Outcome {
    let local = given.texts("link-local-ip");
    let priority = given
        .text("gw-priority")
        .map(|text| text.parse::<i64>().map_err(|_| Failure::new(format!("invalid gw-priority: {text}"))));
    let priority = priority.transpose()?.unwrap_or_default();
    let body = json!({
        "Container": given.text("container"),
        "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": given.text("ip").unwrap_or_default(), "IPv6Address": given.text("ip6").unwrap_or_default(), "LinkLocalIPs": local},
            "Links": given.texts("link"), "Aliases": given.texts("alias"), "DriverOpts": files::pairs(&given.texts("driver-opt")),
            "GwPriority": priority,
        },
    });
    let path = format!("/networks/{}/connect", encode(given.text("network").unwrap_or_default()));
    session.client()?.bytes(Method::POST, &path, Some(&body)).await?;
    Ok(0)
}

async fn disconnect(session: Session, given: ArgMatches) -> Outcome {
    let body = json!({"Container": given.text("container"), "Force": given.on("force")});
    let path = format!("/networks/{}/disconnect", encode(given.text("network").unwrap_or_default()));
    session.client()?.bytes(Method::POST, &path, Some(&body)).await?;
    Ok(0)
}

async fn prune(session: Session, given: ArgMatches) -> Outcome {
    if !given.on("force") && !session.confirm("WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?") {
        return Ok(0);
    }
    let answer = session
        .client()?
        .json(Method::POST, &query("/networks/prune", [("filters", filters(&given.texts("filter"))?)]), None)
        .await?;
    session.out(&pruned(&answer))?;
    Ok(0)
}

/// What was removed; nothing where nothing was.
fn pruned(answer: &Value) -> String {
    let names: Vec<&str> =
        answer["NetworksDeleted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() { String::new() } else { format!("Deleted Networks:\n{}\n\n", names.join("\n")) }
}
