//! Networks and volumes: a container's place on them, and the requests that make them.

use super::{Around, Which, refused, texts};
use crate::error::Result;
use crate::labels;
use crate::project::{Attachment, Network, Project, Service, Volume};
use client::bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, Ipam, IpamConfig,
    NetworkCreateRequest, NetworkingConfig, VolumeCreateRequest,
};
use serde_json::Value;
use std::collections::HashMap;

/// The driver's option for the name of an endpoint's interface in its container.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";

/// A service's networks, the most important first.
pub fn ordered(service: &Service) -> Vec<(&String, Attachment)> {
    let mut out: Vec<(&String, Attachment)> = service
        .networks
        .iter()
        .map(|(key, attachment)| (key, attachment.clone().unwrap_or_default()))
        .collect();
    out.sort_by(|a, b| {
        let priority = |attachment: &Attachment| attachment.priority.unwrap_or(0.0);
        priority(&b.1).total_cmp(&priority(&a.1)).then(a.0.cmp(b.0))
    });
    out
}

pub fn apply(
    project: &Project,
    service: &Service,
    which: &Which,
    around: &Around<'_>,
    create: &mut ContainerCreateBody,
    host: &mut HostConfig,
) -> Result<Vec<(String, EndpointSettings)>> {
    let links = links(project, service, around)?;
    if service.network_mode.is_some() {
        host.links = super::some(links);
        return Ok(Vec::new());
    }
    let mut endpoints = Vec::new();
    for (key, attachment) in ordered(service) {
        let name = project.networks.get(key).map_or_else(|| key.clone(), |network| network.name.clone());
        endpoints.push((name, endpoint(service, which, &attachment, &links)));
    }
    if endpoints.is_empty() {
        host.network_mode = Some("none".to_owned());
        return Ok(Vec::new());
    }
    let (first, mut settings) = endpoints.remove(0);
    if settings.mac_address.is_none() {
        settings.mac_address.clone_from(&service.mac_address);
    }
    host.network_mode = Some(first.clone());
    create.networking_config =
        Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(first, settings)])) });
    Ok(endpoints)
}

/// `container:alias`.
fn links(project: &Project, service: &Service, around: &Around<'_>) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for link in &service.links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        let (_, container) = (around.container)(name).ok_or_else(|| {
            refused(project, service, "links", &format!("service \"{name}\" has no container"))
        })?;
        out.push(format!("{container}:{alias}"));
    }
    for link in &service.external_links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        out.push(format!("{name}:{alias}"));
    }
    Ok(out)
}

fn endpoint(service: &Service, which: &Which, attachment: &Attachment, links: &[String]) -> EndpointSettings {
    let mut aliases = Vec::new();
    if which.aliases {
        aliases.push(service.name.clone());
        aliases.extend(attachment.aliases.iter().cloned());
    }
    let addressed = attachment.ipv4_address.is_some()
        || attachment.ipv6_address.is_some()
        || !attachment.link_local_ips.is_empty();
    let mut driver_opts = texts(&attachment.driver_opts);
    driver_opts.extend(attachment.interface_name.clone().map(|name| (INTERFACE.to_owned(), name)));
    EndpointSettings {
        aliases: super::some(aliases),
        links: super::some(links.to_vec()),
        mac_address: attachment.mac_address.clone(),
        gw_priority: attachment.gw_priority.map(|priority| priority as i64),
        driver_opts: (!driver_opts.is_empty()).then_some(driver_opts),
        ipam_config: addressed.then(|| EndpointIpamConfig {
            ipv4_address: attachment.ipv4_address.clone(),
            ipv6_address: attachment.ipv6_address.clone(),
            link_local_ips: super::some(attachment.link_local_ips.clone()),
        }),
        ..EndpointSettings::default()
    }
}

/// The request for a network of the project.
pub fn network(project: &Project, key: &str, network: &Network) -> NetworkCreateRequest {
    let ipam = network.ipam.as_ref().map(|ipam| Ipam {
        driver: ipam.driver.clone(),
        config: super::some(
            ipam.config
                .iter()
                .map(|pool| IpamConfig {
                    subnet: pool.subnet.clone(),
                    ip_range: pool.ip_range.clone(),
                    gateway: pool.gateway.clone(),
                    auxiliary_addresses: (!pool.aux_addresses.is_empty()).then(|| texts(&pool.aux_addresses)),
                })
                .collect(),
        ),
        options: (!ipam.options.is_empty()).then(|| texts(&ipam.options)),
    });
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone(),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        options: (!network.driver_opts.is_empty()).then(|| texts(&network.driver_opts)),
        labels: Some(labels::network(project, key, &network.labels)),
        ipam,
        ..NetworkCreateRequest::default()
    }
}

/// Whether a network is not what the project asks for; `found` is as the engine lists it. What the project leaves open never differs.
pub fn network_differs(want: &Network, found: &Value) -> Option<String> {
    let flag = |key: &str| found[key].as_bool().unwrap_or(false);
    if let Some(driver) = &want.driver
        && driver != "default"
        && found["Driver"].as_str() != Some(driver)
    {
        return Some(format!("driver is {}", found["Driver"].as_str().unwrap_or("none")));
    }
    for (key, on) in
        [("Internal", want.internal), ("EnableIPv6", want.enable_ipv6.unwrap_or(flag("EnableIPv6")))]
    {
        if flag(key) != on {
            return Some(format!("{key} is {}", flag(key)));
        }
    }
    for (name, value) in &want.driver_opts {
        if found["Options"][name].as_str() != value.as_deref() {
            return Some(format!("option {name} differs"));
        }
    }
    for pool in want.ipam.iter().flat_map(|ipam| &ipam.config) {
        let same = |found: &Value| {
            let equal =
                |key: &str, want: &Option<String>| want.is_none() || found[key].as_str() == want.as_deref();
            equal("Subnet", &pool.subnet)
                && equal("Gateway", &pool.gateway)
                && equal("IPRange", &pool.ip_range)
        };
        if !found["IPAM"]["Config"].as_array().into_iter().flatten().any(same) {
            return Some(format!("subnet {} is not there", pool.subnet.as_deref().unwrap_or_default()));
        }
    }
    for (name, value) in &want.labels {
        if found["Labels"][name].as_str() != Some(value.as_deref().unwrap_or_default()) {
            return Some(format!("label {name} differs"));
        }
    }
    None
}

/// The request for a volume of the project.
pub fn volume(project: &Project, key: &str, volume: &Volume) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: volume.driver.clone(),
        driver_opts: (!volume.driver_opts.is_empty()).then(|| texts(&volume.driver_opts)),
        labels: Some(labels::volume(project, key, &volume.labels)),
        ..VolumeCreateRequest::default()
    }
}
