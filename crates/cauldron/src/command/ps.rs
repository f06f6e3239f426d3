//! `ps`.

use super::filters::{bit, filters, labels};
use crate::args::{Given, filter, flag, format, no_trunc, opt, quiet};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::{size, table, template, time};
use crate::session::Session;
use clap::ArgMatches;
use client::{Method, query};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

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
    let answer = session.client()?.bytes(Method::GET, &path, None).await?;
    let found: Vec<Listed> = serde_json::from_slice(&answer)
        .map_err(|error| Failure::new(format!("{path}: malformed answer: {error}")))?;
    let now = session.now().0;
    let full = given.on("no-trunc");
    let rows: Vec<Value> = found.iter().map(|container| row(container, now, full, sized)).collect();
    let listing = if given.on("size") { WITH_SIZE } else { TABLE };
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "ID" };
    session.out(&listing.render(&rows, &style)?)?;
    // The process ends: taking thousands of rows apart would only make it late.
    std::mem::forget((found, rows));
    Ok(0)
}

/// What a list says of a container, as far as it is shown: a list is long, so no tree of values is made of it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Listed<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    names: Option<Vec<String>>,
    #[serde(borrow)]
    image: Cow<'a, str>,
    #[serde(borrow)]
    command: Cow<'a, str>,
    created: i64,
    ports: Option<Vec<Port>>,
    labels: Option<Map<String, Value>>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    mounts: Option<Vec<Mount>>,
    network_settings: Option<Networks>,
    size_rw: Option<i64>,
    size_root_fs: Option<i64>,
    image_manifest_descriptor: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Port {
    private_port: u64,
    public_port: u64,
    #[serde(rename = "IP")]
    ip: String,
    #[serde(rename = "Type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Mount {
    name: String,
    source: String,
    driver: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Networks {
    networks: Option<BTreeMap<String, IgnoredAny>>,
}

impl<'a> Listed<'a> {
    /// Reads one that is a value already.
    ///
    /// # Errors
    /// It is not what a list has.
    pub fn of(value: &'a Value) -> Result<Self, String> {
        Self::deserialize(value).map_err(|error| format!("malformed answer: a container in a list: {error}"))
    }
}

/// The columns of one container.
pub fn row(container: &Listed, now: i64, full: bool, sized: bool) -> Value {
    let names = container.names.iter().flatten().map(|name| name.trim_start_matches('/'));
    // A link's alias is `parent/alias`.
    let names: Vec<&str> = names.filter(|name| full || !name.contains('/')).collect();
    let command = if full { container.command.to_string() } else { table::ellipsis(&container.command, 20) };
    let image = match &*container.image {
        "" => "<no image>",
        image if !full && image.starts_with("sha256:") => table::short_id(image),
        image if !full => image.split_once('@').map_or(image, |(name, _)| name),
        image => image,
    };
    let mounts = container.mounts.as_deref().unwrap_or_default();
    let local = mounts.iter().filter(|mount| mount.driver == "local").count();
    let shown = |mount: &Mount| {
        let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
        if full { name.clone() } else { table::ellipsis(name, 15) }
    };
    let networks = container.network_settings.iter().flat_map(|settings| &settings.networks).flatten();
    let networks: Vec<&str> = networks.map(|(name, _)| name.as_str()).collect();
    let size = match (container.size_rw.unwrap_or(0), container.size_root_fs.unwrap_or(0)) {
        _ if !sized => "0B".to_owned(),
        (rw, root) if root > 0 => format!("{} (virtual {})", size::human(rw), size::human(root)),
        (rw, _) => size::human(rw),
    };
    let labels_of = container.labels.as_ref().map_or(Value::Null, |labels| Value::Object(labels.clone()));
    let platform = container.image_manifest_descriptor.as_ref().map(|descriptor| &descriptor["platform"]);
    let mut row = json!({
        "ID": if full { &*container.id } else { table::short_id(&container.id) },
        "Image": image, "Command": format!("{command:?}"),
        "CreatedAt": time::printed(container.created),
        "RunningFor": format!("{} ago", time::human_duration(now - container.created)),
        "Ports": ports(container.ports.as_deref().unwrap_or_default()), "State": container.state,
        "Status": container.status, "Size": size, "Names": names.join(","), "Labels": labels(&labels_of),
        "Mounts": mounts.iter().map(shown).collect::<Vec<_>>().join(","), "LocalVolumes": local.to_string(),
        "Networks": networks.join(","), "Platform": platform,
    });
    row[template::LABELS] = labels_of;
    row
}

/// `0.0.0.0:8080->80/tcp, 81/tcp`, ranges gathered.
fn ports(ports: &[Port]) -> String {
    let mut list: Vec<&Port> = ports.iter().collect();
    list.sort_by_key(|port| (&port.kind, &port.ip, port.private_port, port.public_port));
    let mut groups: Vec<(u64, u64, u64, &str, &str)> = Vec::new();
    for Port { private_port: private, public_port: public, ip, kind } in list {
        if let Some((first, last, host, address, protocol)) = groups.last_mut()
            && (*address == ip && *protocol == kind && *last + 1 == *private)
            && ((*public == 0 && *host == 0) || (*host != 0 && *public == *host + (private - *first)))
        {
            *last = *private;
            continue;
        }
        groups.push((*private, *private, *public, ip, kind));
    }
    let one = |&(first, last, host, address, kind): &(u64, u64, u64, &str, &str)| {
        let range =
            |first: u64, last: u64| if first == last { first.to_string() } else { format!("{first}-{last}") };
        if host == 0 {
            return format!("{}/{kind}", range(first, last));
        }
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        format!("{address}:{}->{}/{kind}", range(host, host + (last - first)), range(first, last))
    };
    groups.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lists() {
        let port = |private_port: u64, public_port: u64, ip: &str| Port {
            private_port,
            public_port,
            ip: ip.to_owned(),
            kind: "tcp".to_owned(),
        };
        assert_eq!(
            ports(&[port(80, 8080, "0.0.0.0"), port(80, 8080, "::")]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(ports(&[port(81, 0, ""), port(80, 0, "")]), "80-81/tcp");
        assert_eq!(
            ports(&[port(80, 8080, "0.0.0.0"), port(81, 8081, "0.0.0.0")]),
            "0.0.0.0:8080-8081->80-81/tcp"
        );
    }
}
