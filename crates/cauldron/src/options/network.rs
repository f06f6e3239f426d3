//! `--network`, short and long, and the flags that describe the first network's endpoint.

use crate::args::Given;
use clap::ArgMatches;
use client::bollard::models::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};
use std::collections::HashMap;

/// The network mode and the endpoints of user networks.
///
/// # Errors
/// A value is malformed, or flags contradict each other.
pub fn networks(given: &ArgMatches) -> Result<(Option<String>, Option<NetworkingConfig>), String> {
    let mut attachments = Vec::new();
    for flag in given.texts("network") {
        attachments.push(attachment(&flag)?);
    }
    let Some((mode, _)) = attachments.first().cloned() else {
        let plain = endpoint(given)?;
        return Ok((None, plain.map(|endpoint| single("default", endpoint))));
    };
    let special = |name: &str| ["host", "none"].contains(&name) || name.starts_with("container:");
    let own = |name: &str| !special(name) && !["bridge", "default"].contains(&name);
    let any = |test: &dyn Fn(&str) -> bool| attachments.iter().any(|(name, _)| test(name));
    if attachments.len() > 1 && (any(&special) || (any(&own) && any(&|name| !own(name)))) {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                .to_owned(),
        );
    }
    if special(&mode) {
        return Ok((Some(mode), None));
    }
    let mut endpoints = HashMap::new();
    for (at, (name, mut settings)) in attachments.into_iter().enumerate() {
        if at == 0 {
            merge(&mut settings, given)?;
        }
        if endpoints.insert(name.clone(), settings).is_some() {
            return Err(format!("network \"{name}\" is specified multiple times"));
        }
    }
    Ok((Some(mode), Some(NetworkingConfig { endpoints_config: Some(endpoints) })))
}

fn single(name: &str, endpoint: EndpointSettings) -> NetworkingConfig {
    NetworkingConfig { endpoints_config: Some(HashMap::from([(name.to_owned(), endpoint)])) }
}

fn endpoint(given: &ArgMatches) -> Result<Option<EndpointSettings>, String> {
    let mut settings = EndpointSettings::default();
    merge(&mut settings, given)?;
    Ok((settings != EndpointSettings::default()).then_some(settings))
}

fn merge(settings: &mut EndpointSettings, given: &ArgMatches) -> Result<(), String> {
    let aliases = [given.texts("network-alias"), given.texts("net-alias")].concat();
    if !aliases.is_empty() {
        settings.aliases.get_or_insert_with(Vec::new).extend(aliases);
    }
    if let Some(address) = given.text("ip") {
        address.parse::<std::net::Ipv4Addr>().map_err(|_| format!("invalid IPv4 address: {address}"))?;
        settings.ipam_config.get_or_insert_with(EndpointIpamConfig::default).ipv4_address =
            Some(address.to_owned());
    }
    if let Some(address) = given.text("ip6") {
        address.parse::<std::net::Ipv6Addr>().map_err(|_| format!("invalid IPv6 address: {address}"))?;
        settings.ipam_config.get_or_insert_with(EndpointIpamConfig::default).ipv6_address =
            Some(address.to_owned());
    }
    if let Some(mac) = given.text("mac-address") {
        settings.mac_address = Some(mac.to_owned());
    }
    let local = given.texts("link-local-ip");
    if !local.is_empty() {
        settings.ipam_config.get_or_insert_with(EndpointIpamConfig::default).link_local_ips = Some(local);
    }
    Ok(())
}

/// `name` or `name=n,alias=a,ip=…,driver-opt=k=v,mac-address=…`.
fn attachment(flag: &str) -> Result<(String, EndpointSettings), String> {
    let mut settings = EndpointSettings::default();
    let long = flag.contains("name=") || (flag.contains('=') && flag.contains(','));
    if !long {
        return Ok((flag.to_owned(), settings));
    }
    let mut name = None;
    for field in super::mount::fields(flag)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid key/value pair format in network: {field}"))?;
        let ipam = |settings: &mut EndpointSettings| settings.ipam_config.take().unwrap_or_default();
        match key.to_ascii_lowercase().as_str() {
            "name" => name = Some(value.to_owned()),
            "alias" => settings.aliases.get_or_insert_with(Vec::new).push(value.to_owned()),
            "ip" => {
                settings.ipam_config =
                    Some(EndpointIpamConfig { ipv4_address: Some(value.to_owned()), ..ipam(&mut settings) })
            }
            "ip6" => {
                settings.ipam_config =
                    Some(EndpointIpamConfig { ipv6_address: Some(value.to_owned()), ..ipam(&mut settings) })
            }
            "link-local-ip" => {
                let mut wanted = ipam(&mut settings);
                wanted.link_local_ips.get_or_insert_with(Vec::new).push(value.to_owned());
                settings.ipam_config = Some(wanted);
            }
            "mac-address" => settings.mac_address = Some(value.to_owned()),
            "gw-priority" => {
                settings.gw_priority =
                    Some(value.parse().map_err(|_| format!("invalid gw-priority: {value}"))?)
            }
            "driver-opt" => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                settings
                    .driver_opts
                    .get_or_insert_with(HashMap::new)
                    .insert(key.to_owned(), value.to_owned());
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    Ok((name.ok_or("network name/id is not specified")?, settings))
}
