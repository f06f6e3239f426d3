//! A service as the Docker API's request to create one of its containers. Pure.

mod limits;
mod mounts;
mod networks;

pub use mounts::{Delivery, Source, deliveries, source_of};
pub use networks::{network, network_differs, volume};

use crate::error::{Error, Result};
use crate::labels;
use crate::project::{Dict, Healthcheck, Project, Service};
use crate::schema::duration;
use client::bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use std::collections::{BTreeMap, HashMap};

/// Which container of a service.
#[derive(Clone, Debug)]
pub struct Which {
    /// Its number, from 1.
    pub number: u32,
    /// Made by `run`: it is not one of the service's replicas.
    pub oneoff: bool,
    /// Whether it is found under the service's name.
    pub aliases: bool,
    /// Whether the service's ports are published.
    pub ports: bool,
}

/// What a request to create a container needs to know beyond the project.
pub struct Around<'a> {
    /// A container of a service: its id, for shared namespaces and volumes, and its name, for links: they outlive it.
    pub container: &'a dyn Fn(&str) -> Option<(String, String)>,
    /// Anonymous volumes of the container that this one replaces: name by target.
    pub inherited: &'a BTreeMap<String, String>,
    /// The id of the image.
    pub image_id: &'a str,
    /// Whether the engine delivers secrets and configs itself.
    pub delivers: bool,
}

/// A request, and what is to be done between creation and start.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The request. Its first network is in it.
    pub create: ContainerCreateBody,
    /// The other networks, by name.
    pub networks: Vec<(String, EndpointSettings)>,
    /// Files to put in.
    pub deliveries: Vec<Delivery>,
    /// `platform`.
    pub platform: String,
}

/// `A=1` as the API wants it.
pub(crate) fn environment(dict: &Dict) -> Vec<String> {
    dict.iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        })
        .collect()
}

/// Texts by name, nothing as the empty text.
pub(crate) fn texts(dict: &Dict) -> HashMap<String, String> {
    dict.iter().map(|(name, value)| (name.clone(), value.clone().unwrap_or_default())).collect()
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn refused(project: &Project, service: &Service, key: &str, why: &str) -> Error {
    let text = format!("services.{}.{key}: {why}", service.name);
    match project.node(&service.name).and_then(|node| node.get(key)) {
        Some(node) => Error::at(&node.place, text),
        None => Error::project(text),
    }
}

/// Seconds of `stop_grace_period`.
pub fn grace(service: &Service) -> Option<i64> {
    let span = service.stop_grace_period.as_deref().and_then(duration)?;
    Some((span + 999_999_999) / 1_000_000_000)
}

/// Whether a service asks for nothing that no engine here can do.
///
/// # Errors
/// A key does: with its place.
pub fn supported(project: &Project, service: &Service) -> Result<()> {
    for (key, given) in [
        ("gpus", service.gpus.is_some()),
        ("credential_spec", service.credential_spec.is_some()),
        ("provider", service.provider.is_some()),
        ("models", service.models.is_some()),
        ("use_api_socket", service.use_api_socket == Some(true)),
    ] {
        if given {
            return Err(refused(project, service, key, "not supported by this engine"));
        }
    }
    let reserved = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.devices.as_ref());
    if reserved.is_some() {
        return Err(refused(
            project,
            service,
            "deploy",
            "could not select device driver: reserved devices are not supported",
        ));
    }
    Ok(())
}

/// The request for one container of a service.
///
/// # Errors
/// A key asks for what no engine here can do.
pub fn body(project: &Project, service: &Service, which: &Which, around: &Around<'_>) -> Result<Body> {
    supported(project, service)?;
    let mut host = HostConfig {
        privileged: service.privileged,
        readonly_rootfs: service.read_only,
        init: service.init,
        cap_add: some(service.cap_add.clone()),
        cap_drop: some(service.cap_drop.clone()),
        dns: some(service.dns.clone()),
        dns_options: some(service.dns_opt.clone()),
        dns_search: some(service.dns_search.clone()),
        group_add: some(service.group_add.clone()),
        security_opt: some(service.security_opt.clone()),
        userns_mode: service.userns_mode.clone(),
        uts_mode: service.uts.clone(),
        runtime: service.runtime.clone(),
        cgroup_parent: service.cgroup_parent.clone(),
        cgroupns_mode: service.cgroup.as_deref().and_then(|mode| match mode {
            "host" => Some(HostConfigCgroupnsModeEnum::HOST),
            "private" => Some(HostConfigCgroupnsModeEnum::PRIVATE),
            _ => None,
        }),
        sysctls: (!service.sysctls.is_empty()).then(|| texts(&service.sysctls)),
        storage_opt: (!service.storage_opt.is_empty()).then(|| texts(&service.storage_opt)),
        annotations: (!service.annotations.is_empty()).then(|| texts(&service.annotations)),
        extra_hosts: some(hosts(&service.extra_hosts)),
        restart_policy: if which.oneoff { None } else { restart(service) },
        log_config: service.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: Some(logging.driver.clone().unwrap_or_default()).filter(|driver| !driver.is_empty()),
            config: Some(texts(&logging.options)),
        }),
        ..HostConfig::default()
    };
    limits::apply(service, &mut host);
    let mut create = ContainerCreateBody {
        image: Some(service.image_name(&project.name)),
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        tty: service.tty,
        open_stdin: service.stdin_open,
        env: some(environment(&service.environment)),
        cmd: service.command.clone(),
        entrypoint: service
            .entrypoint
            .clone()
            .map(|words| if words.is_empty() { vec![String::new()] } else { words }),
        working_dir: service.working_dir.clone(),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: grace(service),
        healthcheck: service.healthcheck.as_ref().map(health),
        labels: Some(labels::container(project, service, which, around.image_id)),
        ..ContainerCreateBody::default()
    };
    ports(service, which, &mut create, &mut host);
    let deliveries = mounts::apply(project, service, around, &mut create, &mut host)?;
    shared(project, service, around, &mut host)?;
    let others = networks::apply(project, service, which, around, &mut create, &mut host)?;
    create.host_config = Some(host);
    let platform = service.platform.clone().unwrap_or_default();
    Ok(Body { create, networks: others, deliveries, platform })
}

fn hosts(hosts: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    hosts
        .iter()
        .flat_map(|(name, list)| list.iter().map(move |address| format!("{name}:{address}")))
        .collect()
}

/// `service:x` as the container that it stands for.
fn shared(project: &Project, service: &Service, around: &Around<'_>, host: &mut HostConfig) -> Result<()> {
    let resolve = |key: &str, mode: &Option<String>| -> Result<Option<String>> {
        let Some(other) = mode.as_deref().and_then(|mode| mode.strip_prefix("service:")) else {
            return Ok(mode.clone());
        };
        let (id, _) = (around.container)(other).ok_or_else(|| {
            refused(project, service, key, &format!("service \"{other}\" has no container"))
        })?;
        Ok(Some(format!("container:{id}")))
    };
    host.pid_mode = resolve("pid", &service.pid)?;
    host.ipc_mode = resolve("ipc", &service.ipc)?;
    host.network_mode = resolve("network_mode", &service.network_mode)?;
    Ok(())
}

fn ports(service: &Service, which: &Which, create: &mut ContainerCreateBody, host: &mut HostConfig) {
    let mut exposed: Vec<String> = Vec::new();
    for text in &service.expose {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => exposed.extend((first..=last).map(|port| format!("{port}/{protocol}"))),
            _ => exposed.push(text.clone()),
        }
    }
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.ports {
        let key = format!("{}/{}", port.target, port.protocol.as_deref().unwrap_or("tcp"));
        exposed.push(key.clone());
        let binding = PortBinding {
            host_ip: Some(port.host_ip.clone().unwrap_or_default()),
            host_port: Some(port.published.clone().unwrap_or_default()),
        };
        bindings.entry(key).or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(binding);
    }
    exposed.sort();
    exposed.dedup();
    create.exposed_ports = some(exposed);
    if which.ports && !bindings.is_empty() {
        host.port_bindings = Some(bindings);
    }
}

fn health(check: &Healthcheck) -> HealthConfig {
    let span = |text: &Option<String>| text.as_deref().and_then(duration);
    HealthConfig {
        test: if check.disable { Some(vec!["NONE".to_owned()]) } else { some(check.test.clone()) },
        interval: span(&check.interval),
        timeout: span(&check.timeout),
        retries: check.retries,
        start_period: span(&check.start_period),
        start_interval: span(&check.start_interval),
    }
}

fn restart(service: &Service) -> Option<RestartPolicy> {
    let named = |name: &str, count: Option<i64>| {
        let name = match name {
            "always" | "any" => RestartPolicyNameEnum::ALWAYS,
            "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
            "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
            _ => RestartPolicyNameEnum::NO,
        };
        Some(RestartPolicy { name: Some(name), maximum_retry_count: count })
    };
    if let Some(text) = &service.restart {
        let (name, count) = text.split_once(':').unwrap_or((text, ""));
        return named(name, count.parse().ok());
    }
    let policy = service.deploy.as_ref()?.restart_policy.as_ref()?;
    named(policy.condition.as_deref().unwrap_or("any"), policy.max_attempts)
}

#[cfg(test)]
mod keys;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::project as project_for_tests;
