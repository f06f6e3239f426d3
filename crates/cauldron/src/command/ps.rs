//! `ps`.

use super::filters::{bit, filters, labels};
use crate::args::{Given, filter, flag, format, no_trunc, opt, quiet};
use crate::cli::{VERB, Verb};
use crate::fail::Outcome;
use crate::render::list::{Listing, Style};
use crate::render::{size, table, template, time};
use crate::session::Session;
use clap::ArgMatches;
use client::query;
use serde_json::{Value, json};

pub const VERBS: &[Verb] = &[Verb {
    group: "container",
    names: &["ls", "list", "ps"],
    top: &["ps"],
    about: "List containers",
    more: "Examples:\n  cauldron ps -a\n  cauldron ps --filter label=backup=yes --format '{{.Names}}'",
    args: || {
        vec![
            flag("all", "a", "Show all containers (default shows just running)"),
            filter(),
            format(),
            opt("last", "n", "int", "Show n last created containers (includes all states)"),
            flag("latest", "l", "Show the latest created container (includes all states)"),
            no_trunc(),
            quiet(),
            flag("size", "s", "Display total file sizes"),
        ]
    },
    run: |session, given| Box::pin(ps(session, given)),
    ..VERB
}];

pub const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("RunningFor", "CREATED"),
    ("Platform", "PLATFORM"),
    ("CreatedAt", "CREATED AT"),
    ("LocalVolumes", "LOCAL VOLUMES"),
];
const TABLE: Listing = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headers: HEADERS,
};
const WITH_SIZE: Listing = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    headers: HEADERS,
};

async fn ps(session: Session, given: ArgMatches) -> Outcome {
    let limit = if given.on("latest") { Some("1") } else { given.text("last").filter(|last| *last != "-1") };
    let sized = given.on("size") || given.text("format").is_some_and(|format| format.contains(".Size"));
    let path = query(
        "/containers/json",
        [
            ("all", bit(given.on("all"))),
            ("limit", limit.unwrap_or_default().to_owned()),
            ("size", bit(sized)),
            ("filters", filters(&given.texts("filter"))?),
        ],
    );
    let found = session.client()?.get(&path).await?;
    let now = session.now().0;
    let full = given.on("no-trunc");
    let rows: Vec<Value> =
        found.as_array().into_iter().flatten().map(|container| row(container, now, full, sized)).collect();
    let listing = if given.on("size") { WITH_SIZE } else { TABLE };
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "ID" };
    session.out(&listing.render(&rows, &style)?)?;
    // The process ends: taking thousands of rows apart would only make it late.
    std::mem::forget((found, rows));
    Ok(0)
}

pub fn row(container: &Value, now: i64, full: bool, sized: bool) -> Value {
    let text = |name: &str| container[name].as_str().unwrap_or_default().to_owned();
    let id = text("Id");
    let created = container["Created"].as_i64().unwrap_or(0);
    let mut names: Vec<&str> = container["Names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| name.trim_start_matches('/'))
        .collect();
    if !full {
        // A link's alias is `parent/alias`.
        names.retain(|name| !name.contains('/'));
    }
    let command = if full { text("Command") } else { table::ellipsis(&text("Command"), 20) };
    let image = match text("Image") {
        image if image.is_empty() => "<no image>".to_owned(),
        image if !full && image.starts_with("sha256:") => table::short_id(&image).to_owned(),
        image if !full => image.split_once('@').map_or(image.clone(), |(name, _)| name.to_owned()),
        image => image,
    };
    let mounts: Vec<String> = container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| {
            let name = mount["Name"]
                .as_str()
                .filter(|name| !name.is_empty())
                .or_else(|| mount["Source"].as_str())
                .unwrap_or_default();
            if full { name.to_owned() } else { table::ellipsis(name, 15) }
        })
        .collect();
    let local = container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|mount| mount["Driver"] == "local")
        .count();
    let mut networks: Vec<&String> = container["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    networks.sort();
    let size = if sized {
        let (rw, root) =
            (container["SizeRw"].as_i64().unwrap_or(0), container["SizeRootFs"].as_i64().unwrap_or(0));
        if root > 0 {
            format!("{} (virtual {})", size::human(rw), size::human(root))
        } else {
            size::human(rw)
        }
    } else {
        "0B".to_owned()
    };
    let networks = networks.into_iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let mut row = json!({
        "ID": if full { id.as_str() } else { table::short_id(&id) },
        "Image": image, "Command": format!("{command:?}"),
        "CreatedAt": time::printed(created), "RunningFor": format!("{} ago", time::human_duration(now - created)),
        "Ports": ports(&container["Ports"]), "State": text("State"), "Status": text("Status"), "Size": size,
        "Names": names.join(","), "Labels": labels(&container["Labels"]), "Mounts": mounts.join(","),
        "LocalVolumes": local.to_string(), "Networks": networks, "Platform": container["ImageManifestDescriptor"]["platform"],
    });
    row[template::LABELS] = container["Labels"].clone();
    row
}

/// `0.0.0.0:8080->80/tcp, 81/tcp`, ranges gathered.
pub fn ports(ports: &Value) -> String {
    let mut list: Vec<(u64, u64, String, String)> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let number = |name: &str| port[name].as_u64().unwrap_or(0);
            let text = |name: &str| port[name].as_str().unwrap_or_default().to_owned();
            (number("PrivatePort"), number("PublicPort"), text("IP"), text("Type"))
        })
        .collect();
    list.sort_by(|a, b| (&a.3, &a.2, a.0, a.1).cmp(&(&b.3, &b.2, b.0, b.1)));
    let mut groups: Vec<(u64, u64, u64, String, String)> = Vec::new();
    for (private, public, address, kind) in list {
        if let Some((first, last, host, ip, proto)) = groups.last_mut()
            && (*ip == address && *proto == kind && *last + 1 == private)
            && ((public == 0 && *host == 0) || (*host != 0 && public == *host + (private - *first)))
        {
            *last = private;
            continue;
        }
        groups.push((private, private, public, address, kind));
    }
    let one = |(first, last, host, address, kind): &(u64, u64, u64, String, String)| {
        let range =
            |first: u64, last: u64| if first == last { first.to_string() } else { format!("{first}-{last}") };
        if *host == 0 {
            return format!("{}/{kind}", range(*first, *last));
        }
        let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        format!("{address}:{}->{}/{kind}", range(*host, host + (last - first)), range(*first, *last))
    };
    groups.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lists() {
        let port = |private: u64, public: u64, ip: &str| json!({"PrivatePort": private, "PublicPort": public, "IP": ip, "Type": "tcp"});
        assert_eq!(
            ports(&json!([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")])),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(ports(&json!([port(81, 0, ""), port(80, 0, "")])), "80-81/tcp");
        assert_eq!(
            ports(&json!([port(80, 8080, "0.0.0.0"), port(81, 8081, "0.0.0.0")])),
            "0.0.0.0:8080-8081->80-81/tcp"
        );
    }
}
