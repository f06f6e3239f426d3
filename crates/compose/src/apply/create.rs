//! Networks, volumes and containers are made.

use super::{Host, about, deliver};
use crate::actual::Container;
use crate::body::{Around, Body, Which, body, network, volume};
use crate::error::{Error, Result};
use crate::labels::IDENTITY;
use crate::plan::{Plan, container_name};
use crate::project::{Project, Service};
use client::{Method, encode, query};
use serde::Serialize;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The containers of services: id and name, the first of each is what others link to.
pub type Made = RefCell<BTreeMap<String, Vec<(String, String)>>>;

fn value(request: &impl Serialize) -> Result<Value> {
    serde_json::to_value(request).map_err(|error| Error::project(error.to_string()))
}

/// Makes the networks and volumes of a plan.
///
/// # Errors
/// The engine says no.
pub async fn resources(host: &Host, project: &Project, plan: &Plan) -> Result<()> {
    for key in &plan.networks {
        if let Some(own) = project.networks.get(key) {
            make_network(host, project, key, &own.name).await?;
        }
    }
    for key in &plan.volumes {
        let Some(own) = project.volumes.get(key) else { continue };
        host.tell("Volume", &own.name, "Creating");
        if !host.dry_run {
            let mut request = value(&volume(project, key, own))?;
            if !deliver::delivers(&host.client).await? {
                request["Labels"][IDENTITY] = identity()?.into();
            }
            let made = host.client.json(Method::POST, "/volumes/create", Some(&request)).await;
            made.map_err(about(format!("create volume {}", own.name)))?;
        }
        host.tell("Volume", &own.name, "Created");
    }
    Ok(())
}

/// A random word: what a volume is known by on engines that give volumes no identity.
fn identity() -> Result<String> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::project(format!("random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes one network.
pub(super) async fn make_network(host: &Host, project: &Project, key: &str, name: &str) -> Result<()> {
    let Some(own) = project.networks.get(key) else { return Ok(()) };
    host.tell("Network", name, "Creating");
    if !host.dry_run {
        let request = value(&network(project, key, own))?;
        let made = host.client.json(Method::POST, "/networks/create", Some(&request)).await;
        // Another command may have been first.
        if let Err(error) = made
            && error.status() != Some(409)
        {
            return Err(Error::Engine(format!("failed to create network {name}"), error));
        }
    }
    host.tell("Network", name, "Created");
    Ok(())
}

/// Sends a request and does what belongs between creation and start; the new container's id.
async fn send(host: &Host, name: &str, body: &Body) -> Result<String> {
    let request = value(&body.create)?;
    let path = query("/containers/create", [("name", name.to_owned()), ("platform", body.platform.clone())]);
    let answer = host
        .client
        .json(Method::POST, &path, Some(&request))
        .await
        .map_err(about(format!("create {name}")))?;
    for warning in answer["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        (host.warn)(warning);
    }
    let id = answer["Id"].as_str().unwrap_or_default().to_owned();
    let finished = async {
        for (network, endpoint) in &body.networks {
            let request = json!({"Container": id, "EndpointConfig": value(endpoint)?});
            let path = format!("/networks/{}/connect", encode(network));
            let joined = host.client.json(Method::POST, &path, Some(&request)).await;
            joined.map_err(about(format!("connect {name} to {network}")))?;
        }
        deliver::deliver(&host.client, &id, &body.deliveries).await
    };
    if let Err(error) = finished.await {
        // Half a container is none.
        let _ = host.client.json(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await;
        return Err(error);
    }
    Ok(id)
}

/// Makes a service's container with a number.
pub(super) async fn container(
    host: &Host,
    project: &Project,
    service: &Service,
    number: u32,
    made: &Made,
    image_id: &str,
) -> Result<()> {
    let name = container_name(project, service, number);
    host.tell("Container", &name, "Creating");
    let mut id = String::new();
    if !host.dry_run {
        let which = Which { number, oneoff: false, aliases: true, ports: true };
        let delivers = delivers(host, service).await?;
        let body = request(project, service, &which, made, image_id, &BTreeMap::new(), delivers)?;
        id = send(host, &name, &body).await?;
    }
    host.tell("Container", &name, "Created");
    made.borrow_mut().entry(service.name.clone()).or_default().push((id, name));
    Ok(())
}

/// Whether the engine delivers; it is asked only where there is something to deliver.
async fn delivers(host: &Host, service: &Service) -> Result<bool> {
    if service.secrets.is_empty() && service.configs.is_empty() {
        return Ok(false);
    }
    deliver::delivers(&host.client).await
}

fn request(
    project: &Project,
    service: &Service,
    which: &Which,
    made: &Made,
    image_id: &str,
    inherited: &BTreeMap<String, String>,
    delivers: bool,
) -> Result<Body> {
    let container = |name: &str| made.borrow().get(name)?.first().cloned();
    let around = Around { container: &container, inherited, image_id, delivers };
    body(project, service, which, &around)
}

/// Makes a container anew: the new one first, and the old one goes last, so that a failure leaves the old one as it was.
pub(super) async fn again(
    host: &Host,
    project: &Project,
    service: &Service,
    old: &Container,
    made: &Made,
    how: &Again<'_>,
) -> Result<()> {
    let name = container_name(project, service, old.number);
    host.tell("Container", &old.name, "Recreate");
    let mut id = String::new();
    if !host.dry_run {
        let inherited = if how.renew_volumes { BTreeMap::new() } else { anonymous(project, service, old) };
        let which = Which { number: old.number, oneoff: false, aliases: true, ports: true };
        let delivers = delivers(host, service).await?;
        let body = request(project, service, &which, made, how.image_id, &inherited, delivers)?;
        let short: String = old.id.chars().take(12).collect();
        let interim = format!("{short}_{name}");
        id = send(host, &interim, &body).await?;
        let swapped = async {
            rename(host, &old.id, &old.name, &format!("{interim}_old")).await?;
            rename(host, &id, &interim, &name).await?;
            if old.runs() {
                super::stop::one(host, service, old, how.timeout).await?;
            }
            let path = format!("/containers/{}?force=1", old.id);
            let removed = host.client.json(Method::DELETE, &path, None).await;
            removed.map(|_| ()).map_err(about(format!("remove {}", old.name)))
        };
        if let Err(error) = swapped.await {
            // Volumes that the old one has as well stay.
            let _ = host.client.json(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await;
            let _ = rename(host, &old.id, &old.name, &old.name).await;
            if old.state == "running" {
                let _ = host.client.post(&format!("/containers/{}/start", old.id)).await;
            }
            return Err(error);
        }
    }
    host.tell("Container", &name, "Recreated");
    made.borrow_mut().entry(service.name.clone()).or_default().push((id, name));
    Ok(())
}

async fn rename(host: &Host, id: &str, from: &str, to: &str) -> Result<()> {
    let path = query(&format!("/containers/{id}/rename"), [("name", to.to_owned())]);
    host.client.post(&path).await.map_err(about(format!("rename {from} to {to}")))
}

/// How a container is made anew.
pub(super) struct Again<'a> {
    pub image_id: &'a str,
    pub renew_volumes: bool,
    pub timeout: Option<i64>,
}

/// The volumes of a container that no key names: they go on in its successor.
fn anonymous(project: &Project, service: &Service, old: &Container) -> BTreeMap<String, String> {
    let declared = |target: &str| {
        let mount = service.volumes.iter().find(|mount| mount.target == target);
        mount.is_some_and(|mount| mount.kind != "volume" || mount.source.is_some())
    };
    let own = |name: &str| project.volumes.values().any(|volume| volume.name == name);
    let nameless = |name: &str| name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit());
    old.volumes
        .iter()
        .filter(|(target, name)| !declared(target) && !own(name) && nameless(name))
        .map(|(target, name)| (target.clone(), name.clone()))
        .collect()
}

/// A container beside a service's own.
pub struct Oneoff<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub which: Which,
    /// The id of its image.
    pub image_id: &'a str,
    /// The containers that it may refer to.
    pub made: &'a Made,
}

/// Makes a container of `run`; its id. `change` has the last word on the request.
///
/// # Errors
/// The engine says no.
pub async fn oneoff(
    host: &Host,
    project: &Project,
    service: &Service,
    one: &Oneoff<'_>,
    change: impl FnOnce(&mut Body),
) -> Result<String> {
    let delivers = delivers(host, service).await?;
    let mut body = request(project, service, &one.which, one.made, one.image_id, &BTreeMap::new(), delivers)?;
    change(&mut body);
    send(host, one.name, &body).await
}
