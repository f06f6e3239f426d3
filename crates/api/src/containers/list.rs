//! `GET /containers/json`

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::{Router, routing};
use engine::Engine;
use engine::container::{Container, ListOptions, Listed, MountPoint, NetworkView};
use engine::model::state::Status;
use engine::model::time::Timestamp;
use engine::model::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::inspect::{EndpointSettings, endpoints, mounts, network_mode};
use crate::input::Params;
use crate::{Failure, Shared, call};

pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
    router.route("/containers/json", routing::get(list))
}

async fn list(State(engine): State<Shared>, params: Params) -> std::result::Result<Response, Failure> {
    let limit: Option<i64> = params.number("limit")?;
    let options = ListOptions {
        all: params.flag("all"),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
        filters: params.filters()?,
    };
    let size = params.flag("size");
    let body = call(&engine, move |engine| {
        let now = Timestamp::from_system(std::time::SystemTime::now());
        let containers = engine.list_containers(&options)?;
        let written = |some: &[Arc<Listed>]| {
            let mut text = Vec::with_capacity(some.len() * SUMMARY_BYTES);
            for listed in some {
                if !text.is_empty() {
                    text.push(b',');
                }
                write_summary(&mut text, engine, listed, size, now)?;
            }
            Ok::<_, Error>(text)
        };
        // With many to be written anew a second processor halves it.
        let fresh = containers.iter().filter(|listed| size || listed.written.get().is_none()).count();
        let (mine, theirs) =
            containers.split_at(if fresh < MANY { containers.len() } else { containers.len() / 2 });
        std::thread::scope(|scope| {
            let other = (!theirs.is_empty()).then(|| scope.spawn(|| written(theirs)));
            let mut text = vec![b'['];
            text.extend(written(mine)?);
            if let Some(other) = other {
                let rest = other.join().map_err(|_| Error::internal("writing summaries panicked"))??;
                text.push(b',');
                text.extend(rest);
            }
            text.push(b']');
            Ok(text)
        })
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// From so many containers on that are written anew, two threads write them down.
const MANY: usize = 24;
/// About what one takes.
const SUMMARY_BYTES: usize = 1024;

/// Everything but `Status`, which changes with the time, is written once as long as nothing else changes.
fn write_summary(
    text: &mut Vec<u8>,
    engine: &Engine,
    listed: &Listed,
    size: bool,
    now: Timestamp,
) -> Result<()> {
    if size {
        text.extend(encode(&summary(engine, listed, true, now)?)?);
        return Ok(());
    }
    let object = match listed.written.get() {
        Some(object) => object,
        None => {
            let object = encode(&Summary::of(engine, listed)?)?;
            listed.written.get_or_init(|| object.into())
        }
    };
    text.extend(object.strip_suffix(b"}").unwrap_or(object));
    text.extend(b",\"Status\":");
    text.extend(encode(&status(&listed.container, now))?);
    text.push(b'}');
    Ok(())
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("write a container's summary").caused_by(error))
}

pub(crate) fn summary(engine: &Engine, listed: &Listed, size: bool, now: Timestamp) -> Result<Value> {
    let mut value = serde_json::to_value(Summary::of(engine, listed)?)
        .map_err(|error| Error::internal("write a container's summary").caused_by(error))?;
    value["Status"] = status(&listed.container, now).into();
    if size {
        let bytes = listed.container.size_rw()?;
        value["SizeRw"] = bytes.into();
        value["SizeRootFs"] = (bytes + engine.image_size(&listed.container)).into();
    }
    Ok(value)
}

/// Everything but `Status`. A list has many: no tree of values is made for what is written as it is.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary<'a> {
    id: &'a str,
    names: [String; 1],
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a str,
    command: String,
    created: i64,
    ports: Vec<Value>,
    labels: &'a BTreeMap<String, String>,
    state: &'static str,
    host_config: Mode,
    network_settings: Settings,
    mounts: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mode {
    network_mode: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    networks: BTreeMap<String, EndpointSettings>,
}

impl<'a> Summary<'a> {
    fn of(engine: &Engine, listed: &'a Listed) -> Result<Self> {
        let Listed { container, view, .. } = listed;
        let spec = &container.spec;
        Ok(Self {
            id: spec.id.as_str(),
            names: [format!("/{}", container.name())],
            image: &spec.image_name,
            image_id: spec.image.as_str(),
            command: command(&spec.process.argv()),
            created: spec.created.seconds,
            ports: ports(container, view),
            labels: &spec.labels,
            state: container.status().as_str(),
            host_config: Mode { network_mode: network_mode(container) },
            network_settings: Settings { networks: endpoints(engine, container, view) },
            mounts: mounts(engine, container)?,
        })
    }
}

/// A mount as lists and inspect show it.
pub(super) fn mount_point(mount: &MountPoint) -> Value {
    let mut value = Map::new();
    value.insert("Type".to_owned(), mount.kind.into());
    if let Some(name) = &mount.name {
        value.insert("Name".to_owned(), name.as_str().into());
    }
    value.insert("Source".to_owned(), mount.source.as_str().into());
    value.insert("Destination".to_owned(), mount.destination.as_str().into());
    if let Some(driver) = &mount.driver {
        value.insert("Driver".to_owned(), driver.as_str().into());
    }
    value.insert("Mode".to_owned(), mount.mode.into());
    value.insert("RW".to_owned(), mount.writable.into());
    value.insert("Propagation".to_owned(), mount.propagation.into());
    Value::Object(value)
}

fn command(argv: &[String]) -> String {
    let quoted = |(at, arg): (usize, &String)| {
        if at > 0 && arg.contains(' ') { format!("'{arg}'") } else { arg.clone() }
    };
    argv.iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

fn ports(container: &Container, view: &NetworkView) -> Vec<Value> {
    if container.live.is_none() {
        return Vec::new();
    }
    let mut all: Vec<Value> = view
        .ports
        .iter()
        .map(|port| {
            json!({
                "IP": port.host_ip.to_string(), "PrivatePort": port.container.number, "PublicPort": port.host_port,
                "Type": port.container.protocol.as_str(),
            })
        })
        .collect();
    for port in &container.spec.exposed_ports {
        if !view.ports.iter().any(|open| open.container == *port) {
            all.push(json!({ "PrivatePort": port.number, "Type": port.protocol.as_str() }));
        }
    }
    all
}

/// `Up 3 minutes (healthy)`, `Exited (0) 5 seconds ago`.
pub(super) fn status(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let since = |time: Timestamp| human_duration(now.seconds.saturating_sub(time.seconds).max(0));
    match container.status() {
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Running => match container.health() {
            "none" => format!("Up {}", since(state.started_at)),
            "starting" => format!("Up {} (health: starting)", since(state.started_at)),
            health => format!("Up {} ({health})", since(state.started_at)),
        },
        Status::Created => "Created".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited if state.finished_at.is_never() => String::new(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

/// Docker's words for a time span (go-units `HumanDuration`).
fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_in_dockers_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (86_400, "24 hours"),
            (172_800, "2 days"),
            (86_400 * 15, "2 weeks"),
            (86_400 * 61, "2 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn commands() {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(command(&own(&["sh", "-c", "echo hi"])), "sh -c 'echo hi'");
        assert_eq!(command(&own(&["true"])), "true");
    }
}
