//! `ps`, `images`, `ls`, `top`, `volumes`, `port`, `events`.

use super::project::load_or_name;
use crate::args::Given;
use crate::command::{filters, ps};
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::{size, table, time};
use crate::session::Session;
use clap::ArgMatches;
use client::{Method, encode, query};
use compose::actual::{self, Container};
use compose::labels;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PS: Listing = Listing {
    table: "{{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Service}}\t{{.CreatedAgo}}\t{{.Status}}\t{{.Ports}}",
    headers: &[("CreatedAgo", "CREATED")],
};

/// `ps`.
pub async fn ps(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("names");
    let project = load_or_name(&session, &names)?;
    let mut containers = actual::containers(session.client()?, &project.name).await?;
    let mut states = given.texts("status");
    for filter in given.texts("filter") {
        match filter.split_once('=') {
            Some(("status", state)) => states.push(state.to_owned()),
            Some(("source", _)) => {}
            _ => return Err(Failure::new(format!("unknown filter {filter}"))),
        }
    }
    let all = given.on("all");
    let orphans = given.switch("orphans").unwrap_or(true) || project.services.is_empty();
    containers.retain(|one| {
        let declared =
            project.services.contains_key(&one.service) || project.disabled.contains_key(&one.service);
        let state = if states.is_empty() { all || one.runs() } else { states.contains(&one.state) };
        state
            && (names.is_empty() || names.contains(&one.service))
            && (orphans || declared)
            && (all || !one.oneoff || one.runs())
    });
    if given.on("services") {
        let mut services: Vec<&str> = containers.iter().map(|one| one.service.as_str()).collect();
        services.dedup();
        for name in services {
            session.line(name)?;
        }
        return Ok(0);
    }
    let now = session.now().0;
    let full = given.on("no-trunc");
    let rows: Vec<Value> =
        containers.iter().map(|one| row(one, &project.name, now, full)).collect::<Result<_, Failure>>()?;
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "ID" };
    let rows = if given.on("quiet") {
        rows.into_iter().zip(&containers).map(|(_, one)| json!({"ID": one.id})).collect()
    } else {
        rows
    };
    session.out(&PS.render(&rows, &style)?)?;
    Ok(0)
}

fn row(one: &Container, project: &str, now: i64, full: bool) -> Result<Value, Failure> {
    let mut row = ps::row(&ps::Listed::of(&one.listed)?, now, full, false);
    let status = one.listed["Status"].as_str().unwrap_or_default();
    let inner = |text: &str| {
        text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inner, _)| inner.to_owned())
    };
    let note = inner(status).unwrap_or_default();
    let health = ["healthy", "unhealthy"].into_iter().find(|known| note == *known);
    let health = health.or(note.starts_with("health: ").then_some("starting")).unwrap_or_default();
    let publishers: Vec<Value> = one.listed["Ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            json!({"URL": port["IP"].as_str().unwrap_or_default(), "TargetPort": port["PrivatePort"],
                "PublishedPort": port["PublicPort"].as_u64().unwrap_or(0), "Protocol": port["Type"]})
        })
        .collect();
    let code = if status.starts_with("Exited") { note.parse::<i64>().unwrap_or(0) } else { 0 };
    row["CreatedAgo"] = row["RunningFor"].clone();
    for (key, value) in [
        ("Name", json!(one.name)),
        ("Service", json!(one.service)),
        ("Project", json!(project)),
        ("Health", json!(health)),
        ("ExitCode", json!(code)),
        ("Publishers", json!(publishers)),
    ] {
        row[key] = value;
    }
    Ok(row)
}

const IMAGES: Listing = Listing {
    table: "{{.ContainerName}}\t{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}",
    headers: &[("ContainerName", "CONTAINER"), ("ID", "IMAGE ID")],
};

/// `images`.
pub async fn images(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let client = session.client()?;
    let mut rows = Vec::new();
    for one in actual::containers(client, &project.name).await? {
        if !names.is_empty() && !names.contains(&one.service) {
            continue;
        }
        let found = client.get(&format!("/images/{}/json", encode(&one.image_id))).await.unwrap_or_default();
        let named = found["RepoTags"][0].as_str().unwrap_or("<none>:<none>");
        let (repository, tag) = named.rsplit_once(':').unwrap_or((named, "<none>"));
        rows.push(json!({
            "ContainerName": one.name, "Repository": repository, "Tag": tag, "ID": table::short_id(&one.image_id),
            "Size": size::human(found["Size"].as_i64().unwrap_or(0)),
        }));
    }
    if given.on("quiet") {
        rows.dedup_by_key(|row| row["ID"].clone());
    }
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "ID" };
    session.out(&IMAGES.render(&rows, &style)?)?;
    Ok(0)
}

const PROJECTS: Listing = Listing {
    table: "{{.Name}}\t{{.Status}}\t{{.ConfigFiles}}",
    headers: &[("ConfigFiles", "CONFIG FILES")],
};

/// `ls`.
pub async fn ls(session: Session, given: ArgMatches) -> Outcome {
    let filters = json!({"label": [labels::PROJECT]}).to_string();
    let path = query("/containers/json", [("all", "1".to_owned()), ("filters", filters)]);
    let found = session.client()?.get(&path).await?;
    let mut projects: BTreeMap<String, (BTreeMap<String, usize>, String)> = BTreeMap::new();
    for listed in found.as_array().into_iter().flatten() {
        let one = Container::read(listed);
        let label = |key: &str| listed["Labels"][key].as_str().unwrap_or_default().to_owned();
        let entry = projects.entry(label(labels::PROJECT)).or_default();
        *entry.0.entry(one.state).or_default() += 1;
        entry.1 = label(labels::CONFIG_FILES);
    }
    let name = |text: String| match text.split_once('=') {
        Some(("name", name)) => Ok(name.to_owned()),
        _ => Err(Failure::new(format!("unknown filter {text}"))),
    };
    let wanted: Vec<String> = given.texts("filter").into_iter().map(name).collect::<Result<_, _>>()?;
    let rows: Vec<Value> = projects
        .into_iter()
        .filter(|(name, (states, _))| {
            let named = wanted.is_empty() || wanted.iter().any(|text| name.contains(text));
            named && (given.on("all") || states.contains_key("running"))
        })
        .map(|(name, (states, files))| {
            let status: Vec<String> =
                states.iter().map(|(state, count)| format!("{state}({count})")).collect();
            json!({"Name": name, "Status": status.join(", "), "ConfigFiles": files})
        })
        .collect();
    if given.text("format") == Some("json") {
        session.line(&Value::Array(rows).to_string())?;
        return Ok(0);
    }
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "Name" };
    session.out(&PROJECTS.render(&rows, &style)?)?;
    Ok(0)
}

const VOLUMES: Listing = Listing { table: "{{.Driver}}\t{{.Name}}", headers: &[("Name", "VOLUME NAME")] };

/// `volumes`.
pub async fn volumes(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let client = session.client()?;
    let containers = actual::containers(client, &project.name).await?;
    let used = |name: &str| {
        names.is_empty()
            || containers
                .iter()
                .any(|one| names.contains(&one.service) && one.volumes.values().any(|volume| volume == name))
    };
    let rows: Vec<Value> = actual::volumes(client)
        .await?
        .into_iter()
        .filter(|volume| volume["Labels"][labels::PROJECT].as_str() == Some(&project.name))
        .filter(|volume| used(volume["Name"].as_str().unwrap_or_default()))
        .collect();
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "Name" };
    session.out(&VOLUMES.render(&rows, &style)?)?;
    Ok(0)
}

/// `top`.
pub async fn top(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let client = session.client()?;
    for one in actual::containers(client, &project.name).await? {
        if !one.runs() || (!names.is_empty() && !names.contains(&one.service)) {
            continue;
        }
        let found = client.get(&format!("/containers/{}/top", one.id)).await?;
        let line = |row: &Value| {
            let cells = row.as_array().into_iter().flatten().filter_map(Value::as_str);
            cells.collect::<Vec<_>>().join("\t") + "\n"
        };
        let mut text = line(&found["Titles"]);
        text.extend(found["Processes"].as_array().into_iter().flatten().map(line));
        session.out(&format!("{}\n{}\n", one.name, table::align(&text)))?;
    }
    Ok(0)
}

/// `port`.
pub async fn port(session: Session, given: ArgMatches) -> Outcome {
    let service = given.text("service").unwrap_or_default().to_owned();
    let index = super::one::index(&given)?;
    let (_, one) = super::one::container(&session, &service, index).await?;
    let asked = given.text("port").unwrap_or_default();
    let (number, protocol) =
        asked.split_once('/').unwrap_or((asked, given.text("protocol").unwrap_or("tcp")));
    let port: u64 = number.parse().map_err(|_| Failure::new(format!("invalid port {asked}")))?;
    let ports = one.listed["Ports"].as_array().cloned().unwrap_or_default();
    let found = ports.iter().find(|found| {
        found["PrivatePort"].as_u64() == Some(port)
            && found["Type"].as_str() == Some(protocol)
            && found["PublicPort"].as_u64().is_some_and(|public| public > 0)
    });
    let Some(found) = found else {
        return Err(Failure::new(format!("no port {port}/{protocol} for container {}", one.name)));
    };
    let address = found["IP"].as_str().unwrap_or("0.0.0.0");
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    session.line(&format!("{address}:{}", found["PublicPort"]))?;
    Ok(0)
}

/// `events`.
pub async fn events(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let wanted = json!({"type": ["container"], "label": [format!("{}={}", labels::PROJECT, project.name)]})
        .to_string();
    let moment = |flag: &str| given.text(flag).map(|text| time::moment(text, session.now())).transpose();
    let path = query(
        "/events",
        [
            ("filters", wanted),
            ("since", moment("since")?.unwrap_or_default()),
            ("until", moment("until")?.unwrap_or_default()),
        ],
    );
    let mut lines = session.client()?.lines(Method::GET, &path, None).await?;
    while let Some(event) = lines.next().await? {
        let attributes = &event["Actor"]["Attributes"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = text(&attributes[labels::SERVICE]);
        if attributes[labels::ONEOFF] == "True" || (!names.is_empty() && !names.contains(&service)) {
            continue;
        }
        let nanos = event["timeNano"].as_i64().unwrap_or(0);
        let stamp = time::rfc3339(
            nanos.div_euclid(1_000_000_000),
            u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
        );
        let own: serde_json::Map<String, Value> = attributes
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !key.starts_with("com.docker.compose."))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let (action, id) = (text(&event["Action"]), text(&event["Actor"]["ID"]));
        if given.on("json") {
            let line = json!({"time": stamp, "type": "container", "action": action, "id": id, "service": service, "attributes": own});
            session.line(&line.to_string())?;
        } else {
            let own = filters::labels(&Value::Object(own)).replace(',', ", ");
            session.line(&format!("{stamp} container {action} {id} ({own})"))?;
        }
    }
    Ok(0)
}
