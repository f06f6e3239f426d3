//! Containers are started, stopped, restarted, killed, paused and removed; `down`.

use super::{Host, about, hooks};
use crate::actual::{self, Container};
use crate::body::grace;
use crate::error::{Error, Result};
use crate::labels;
use crate::order;
use crate::project::{Project, Service};
use client::{Method, encode, query};
use futures_util::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};

/// Starts a container and runs what belongs after it.
pub(super) async fn begin(host: &Host, service: &Service, id: &str, name: &str) -> Result<()> {
    host.tell("Container", name, "Starting");
    if !host.dry_run {
        let path = format!("/containers/{}/start", encode(id));
        for warning in host.client.post_warned(&path).await.map_err(about(format!("start {name}")))? {
            (host.warn)(&warning);
        }
        hooks::within(host, id, name, &service.post_start).await?;
    }
    host.tell("Container", name, "Started");
    Ok(())
}

/// Stops a container, after what belongs before it.
pub(super) async fn one(host: &Host, service: &Service, one: &Container, timeout: Option<i64>) -> Result<()> {
    host.tell("Container", &one.name, "Stopping");
    if !host.dry_run {
        if one.state == "running"
            && let Err(error) = hooks::within(host, &one.id, &one.name, &service.pre_stop).await
        {
            // A hook does not keep a container alive.
            (host.warn)(&error.to_string());
        }
        let seconds =
            timeout.or_else(|| grace(service)).map(|seconds| seconds.to_string()).unwrap_or_default();
        let path = query(&format!("/containers/{}/stop", one.id), [("t", seconds)]);
        forgiven(host.client.post(&path).await).map_err(about(format!("stop {}", one.name)))?;
    }
    host.tell("Container", &one.name, "Stopped");
    Ok(())
}

/// Stops and starts a container.
pub(super) async fn again(
    host: &Host,
    service: &Service,
    id: &str,
    name: &str,
    timeout: Option<i64>,
) -> Result<()> {
    host.tell("Container", name, "Restarting");
    if !host.dry_run {
        if let Err(error) = hooks::within(host, id, name, &service.pre_stop).await {
            (host.warn)(&error.to_string());
        }
        let seconds =
            timeout.or_else(|| grace(service)).map(|seconds| seconds.to_string()).unwrap_or_default();
        let path = query(&format!("/containers/{}/restart", encode(id)), [("t", seconds)]);
        host.client.post(&path).await.map_err(about(format!("restart {name}")))?;
        hooks::within(host, id, name, &service.post_start).await?;
    }
    host.tell("Container", name, "Started");
    Ok(())
}

/// Gone already, or so already: as wanted.
fn forgiven(outcome: Result<(), client::Error>) -> Result<(), client::Error> {
    match outcome {
        Err(error) if [Some(304), Some(404)].contains(&error.status()) => Ok(()),
        other => other,
    }
}

/// Stops and removes a container.
pub(super) async fn gone(
    host: &Host,
    project: &Project,
    one: &Container,
    timeout: Option<i64>,
    volumes: bool,
) -> Result<()> {
    if one.runs() {
        let nothing = Service::default();
        self::one(host, project.services.get(&one.service).unwrap_or(&nothing), one, timeout).await?;
    }
    discard(host, one, volumes).await
}

async fn discard(host: &Host, one: &Container, volumes: bool) -> Result<()> {
    host.tell("Container", &one.name, "Removing");
    if !host.dry_run {
        let v = if volumes { "1" } else { "" };
        let path =
            query(&format!("/containers/{}", one.id), [("force", "1".to_owned()), ("v", v.to_owned())]);
        let removed = host.client.json(Method::DELETE, &path, None).await.map(|_| ());
        match removed {
            // Someone else is at it: the end is the same.
            Err(error)
                if error.status() == Some(409) && error.to_string().contains("already in progress") => {}
            other => forgiven(other).map_err(about(format!("remove {}", one.name)))?,
        }
    }
    host.tell("Container", &one.name, "Removed");
    Ok(())
}

/// Whether the named services are in the project; without its files only its containers say.
fn known(project: &Project, names: &[String]) -> Result<()> {
    if project.services.is_empty() && project.disabled.is_empty() {
        return Ok(());
    }
    names.iter().try_for_each(|name| project.service(name).map(|_| ()))
}

/// The containers of services, in a map by service.
async fn by_service(
    host: &Host,
    project: &Project,
    names: &[String],
    all: bool,
) -> Result<BTreeMap<String, Vec<Container>>> {
    known(project, names)?;
    let mut out: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for one in actual::containers(&host.client, &project.name).await? {
        let wanted = names.is_empty() || names.contains(&one.service);
        if wanted && !one.oneoff && (all || one.runs()) {
            out.entry(one.service.clone()).or_default().push(one);
        }
    }
    Ok(out)
}

/// What the containers' own labels say that a service needs: for projects whose files are not there.
fn labelled(containers: &BTreeMap<String, Vec<Container>>) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<&String> = containers.keys().collect();
    let one = |(name, list): (&String, &Vec<Container>)| {
        let label = list
            .first()
            .and_then(|one| one.listed["Labels"][labels::DEPENDS_ON].as_str())
            .unwrap_or_default();
        let needs = label.split(',').filter_map(|part| part.split(':').next()).map(str::to_owned);
        (name.clone(), needs.filter(|need| names.contains(need) && need != name).collect())
    };
    containers.iter().map(one).collect()
}

/// Dependencies among services that have containers.
fn needs(
    project: &Project,
    containers: &BTreeMap<String, Vec<Container>>,
) -> BTreeMap<String, BTreeSet<String>> {
    let names: Vec<String> = containers.keys().cloned().collect();
    if project.services.is_empty() { labelled(containers) } else { order::needs(project, &names) }
}

/// Stops services, what needs others first.
///
/// # Errors
/// The engine says no.
pub async fn stop(host: &Host, project: &Project, names: &[String], timeout: Option<i64>) -> Result<()> {
    let containers = by_service(host, project, names, false).await?;
    stop_all(host, project, &containers, timeout).await
}

async fn stop_all(
    host: &Host,
    project: &Project,
    containers: &BTreeMap<String, Vec<Container>>,
    timeout: Option<i64>,
) -> Result<()> {
    let nothing = &Service::default();
    order::each(order::turned(&needs(project, containers)), host.parallel, |name| {
        Box::pin(async move {
            let service = project.services.get(&name).unwrap_or(nothing);
            let running = containers.get(&name).into_iter().flatten().filter(|container| container.runs());
            try_join_all(running.map(|container| one(host, service, container, timeout))).await.map(|_| ())
        })
    })
    .await
}

/// Starts services that have containers, what is needed first.
///
/// # Errors
/// The engine says no, or a service has no container.
pub async fn start(host: &Host, project: &Project, names: &[String]) -> Result<()> {
    let containers = &by_service(host, project, names, true).await?;
    for name in names {
        if !containers.contains_key(name) {
            return Err(Error::project(format!("service \"{name}\" has no container to start")));
        }
    }
    let nothing = &Service::default();
    order::each(needs(project, containers), host.parallel, |name| {
        Box::pin(async move {
            let service = project.services.get(&name).unwrap_or(nothing);
            let idle = containers.get(&name).into_iter().flatten().filter(|container| !container.runs());
            try_join_all(idle.map(|container| begin(host, service, &container.id, &container.name)))
                .await
                .map(|_| ())
        })
    })
    .await
}

/// Restarts services, and those that say that they restart with them.
///
/// # Errors
/// The engine says no.
pub async fn restart(
    host: &Host,
    project: &Project,
    names: &[String],
    timeout: Option<i64>,
    no_deps: bool,
) -> Result<()> {
    let mut names = names.to_vec();
    if !names.is_empty() && !no_deps {
        let with = project.services.values().filter(|service| {
            service.depends_on.iter().any(|(need, how)| how.restart && names.contains(need))
        });
        let more: Vec<String> =
            with.map(|service| service.name.clone()).filter(|name| !names.contains(name)).collect();
        names.extend(more);
    }
    let containers = &by_service(host, project, &names, true).await?;
    let nothing = &Service::default();
    order::each(needs(project, containers), host.parallel, |name| {
        Box::pin(async move {
            let service = project.services.get(&name).unwrap_or(nothing);
            let list = containers.get(&name).into_iter().flatten();
            try_join_all(list.map(|container| async move {
                if container.runs() {
                    again(host, service, &container.id, &container.name, timeout).await
                } else {
                    begin(host, service, &container.id, &container.name).await
                }
            }))
            .await
            .map(|_| ())
        })
    })
    .await
}

async fn call(
    host: &Host,
    project: &Project,
    names: &[String],
    states: &[&str],
    verb: &str,
    during: &str,
    after: &str,
) -> Result<()> {
    let containers = by_service(host, project, names, true).await?;
    let wanted = containers.values().flatten().filter(|one| states.contains(&one.state.as_str()));
    let each = wanted.map(|one| async move {
        host.tell("Container", &one.name, during);
        if !host.dry_run {
            let path = format!("/containers/{}/{verb}", one.id);
            host.client.post(&path).await.map_err(about(one.name.clone()))?;
        }
        host.tell("Container", &one.name, after);
        Ok::<(), Error>(())
    });
    try_join_all(each).await.map(|_| ())
}

/// Sends a signal.
///
/// # Errors
/// The engine says no.
pub async fn kill(host: &Host, project: &Project, names: &[String], signal: &str) -> Result<()> {
    let verb = query("kill", [("signal", signal.to_owned())]);
    call(host, project, names, &["running", "paused", "restarting"], &verb, "Killing", "Killed").await
}

/// Freezes services.
///
/// # Errors
/// The engine says no.
pub async fn pause(host: &Host, project: &Project, names: &[String]) -> Result<()> {
    call(host, project, names, &["running"], "pause", "Pausing", "Paused").await
}

/// Thaws services.
///
/// # Errors
/// The engine says no.
pub async fn unpause(host: &Host, project: &Project, names: &[String]) -> Result<()> {
    call(host, project, names, &["paused"], "unpause", "Unpausing", "Unpaused").await
}

/// Removes containers that do not run; with `stop` the others too.
///
/// # Errors
/// The engine says no.
pub async fn remove(
    host: &Host,
    project: &Project,
    ids: &[Container],
    stop: bool,
    volumes: bool,
) -> Result<()> {
    let each = ids.iter().filter(|one| stop || !one.runs()).map(|one| async move {
        if one.runs() {
            gone(host, project, one, None, volumes).await
        } else {
            discard(host, one, volumes).await
        }
    });
    try_join_all(each).await.map(|_| ())
}

/// How to take a project down.
#[derive(Clone, Debug, Default)]
pub struct Down {
    /// Only these services.
    pub services: Vec<String>,
    /// Named and anonymous volumes too.
    pub volumes: bool,
    /// `local` or `all`.
    pub images: Option<String>,
    /// Containers of services that are no more.
    pub remove_orphans: bool,
    /// Seconds to stop in.
    pub timeout: Option<i64>,
}

/// Takes a project down.
///
/// # Errors
/// The engine says no.
pub async fn down(host: &Host, project: &Project, how: &Down) -> Result<()> {
    known(project, &how.services)?;
    let known = |one: &Container| {
        project.services.is_empty()
            || project.services.contains_key(&one.service)
            || project.disabled.contains_key(&one.service)
    };
    let all = actual::containers(&host.client, &project.name).await?;
    let mut found = false;
    let mut containers: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for one in all {
        let named = how.services.is_empty() || how.services.contains(&one.service);
        if named && (known(&one) || how.remove_orphans || one.oneoff) {
            found = true;
            containers.entry(one.service.clone()).or_default().push(one);
        }
    }
    let (containers, nothing) = (&containers, &Service::default());
    order::each(order::turned(&needs(project, containers)), host.parallel, |name| {
        Box::pin(async move {
            let service = project.services.get(&name).unwrap_or(nothing);
            let each = containers.get(&name).into_iter().flatten().map(|container| async move {
                if container.runs() {
                    one(host, service, container, how.timeout).await?;
                }
                discard(host, container, how.volumes).await
            });
            try_join_all(each).await.map(|_| ())
        })
    })
    .await?;
    if !how.services.is_empty() {
        return Ok(());
    }
    found |= networks(host, project).await?;
    if how.volumes {
        found |= volumes(host, project).await?;
    }
    if let Some(which) = &how.images {
        images(host, project, which).await?;
    }
    if !found {
        (host.warn)(&format!("No resource found to remove for project \"{}\".", project.name));
    }
    Ok(())
}

async fn networks(host: &Host, project: &Project) -> Result<bool> {
    let mut found = false;
    for network in actual::networks(&host.client).await? {
        if network["Labels"][labels::PROJECT].as_str() != Some(&project.name) {
            continue;
        }
        found = true;
        let name = network["Name"].as_str().unwrap_or_default();
        host.tell("Network", name, "Removing");
        if !host.dry_run {
            let id = network["Id"].as_str().unwrap_or(name);
            match host
                .client
                .json(Method::DELETE, &format!("/networks/{}", encode(id)), None)
                .await
                .map(|_| ())
            {
                Err(error) if error.to_string().contains("active endpoints") => {
                    host.tell("Network", name, "Resource is still in use");
                    continue;
                }
                other => forgiven(other).map_err(about(format!("remove network {name}")))?,
            }
        }
        host.tell("Network", name, "Removed");
    }
    Ok(found)
}

async fn volumes(host: &Host, project: &Project) -> Result<bool> {
    let mut found = false;
    let own = |volume: &serde_json::Value| volume["Labels"][labels::PROJECT].as_str() == Some(&project.name);
    for volume in actual::volumes(&host.client).await?.iter().filter(|volume| own(volume)) {
        found = true;
        let name = volume["Name"].as_str().unwrap_or_default();
        host.tell("Volume", name, "Removing");
        if !host.dry_run {
            match host
                .client
                .json(Method::DELETE, &format!("/volumes/{}", encode(name)), None)
                .await
                .map(|_| ())
            {
                Err(error) if error.status() == Some(409) => {
                    host.tell("Volume", name, "Resource is still in use");
                    continue;
                }
                other => forgiven(other).map_err(about(format!("remove volume {name}")))?,
            }
        }
        host.tell("Volume", name, "Removed");
    }
    Ok(found)
}

async fn images(host: &Host, project: &Project, which: &str) -> Result<()> {
    let services = project.services.values().chain(project.disabled.values());
    let wanted: BTreeSet<String> = services
        .filter(|service| which == "all" || (service.build.is_some() && service.image.is_none()))
        .map(|service| service.image_name(&project.name))
        .collect();
    for name in wanted {
        host.tell("Image", &name, "Removing");
        if !host.dry_run {
            match host
                .client
                .json(Method::DELETE, &format!("/images/{}", encode(&name)), None)
                .await
                .map(|_| ())
            {
                Err(error) if error.status() == Some(409) => {
                    host.tell("Image", &name, "Resource is still in use");
                    continue;
                }
                other => forgiven(other).map_err(about(format!("remove image {name}")))?,
            }
        }
        host.tell("Image", &name, "Removed");
    }
    Ok(())
}
