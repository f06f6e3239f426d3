//! Published ports and endpoints of a request.

use bollard_stubs::models::{EndpointSettings, NetworkingConfig, PortMap};
use engine::model::container::{EndpointSpec, Port, PortBinding};
use engine::model::{Error, Result};

use super::convert::links;

/// `-p`, in the order of the container's ports.
pub(super) fn bindings(map: Option<&PortMap>) -> Result<Vec<PortBinding>> {
    let mut all = Vec::new();
    for (port, bindings) in map.into_iter().flatten() {
        let container = Port::parse(port)?;
        let nowhere = vec![bollard_stubs::models::PortBinding::default()];
        let bindings = bindings.as_ref().filter(|list| !list.is_empty()).unwrap_or(&nowhere);
        for binding in bindings {
            let host_ip = match binding.host_ip.as_deref().unwrap_or_default() {
                "" => None,
                text => {
                    Some(text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?)
                }
            };
            all.push(PortBinding {
                container,
                host_ip,
                host_ports: host_ports(binding.host_port.as_deref().unwrap_or_default())?,
            });
        }
    }
    all.sort_by_key(|binding| (binding.container, binding.host_ports));
    Ok(all)
}

fn host_ports(text: &str) -> Result<Option<(u16, u16)>> {
    let bad = || Error::invalid(format!("invalid port specification: {text:?}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match text {
        "" | "0" => Ok(None),
        _ => {
            let (first, last): (u16, u16) =
                (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
            if first == 0 || first > last { Err(bad()) } else { Ok(Some((first, last))) }
        }
    }
}

/// The endpoints: first the network of `--network`, then the others by name.
pub(super) fn endpoints(
    mode: &str,
    mac: &str,
    config: Option<&NetworkingConfig>,
) -> Result<Vec<EndpointSpec>> {
    let canonical = |name: &str| if name == "default" { "bridge".to_owned() } else { name.to_owned() };
    let mut all = vec![EndpointSpec { network: mode.to_owned(), ..EndpointSpec::default() }];
    let config = config.and_then(|config| config.endpoints_config.as_ref());
    let mut asked: Vec<_> =
        config.into_iter().flatten().map(|(name, settings)| (canonical(name), settings)).collect();
    asked.sort_by(|a, b| a.0.cmp(&b.0));
    for (network, settings) in asked {
        let spec = endpoint(&network, settings)?;
        if network == mode { all[0] = spec } else { all.push(spec) }
    }
    if !mac.is_empty() && all[0].mac.is_none() {
        all[0].mac = Some(check_mac(mac)?);
    }
    for spec in all.iter().filter(|spec| spec.network == "bridge") {
        let refused = if spec.ipv4.is_some() || spec.ipv6.is_some() {
            "user specified IP address is supported on user defined networks only"
        } else if !spec.aliases.is_empty() {
            "network-scoped alias is supported only for containers in user defined networks"
        } else {
            continue;
        };
        return Err(Error::invalid(format!(
            "invalid config for network bridge: invalid endpoint settings:\n{refused}"
        )));
    }
    Ok(all)
}

/// One endpoint's settings.
pub(crate) fn endpoint(network: &str, settings: &EndpointSettings) -> Result<EndpointSpec> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let address = |text: Option<String>| text.filter(|text| !text.is_empty());
    let invalid = |text: &str| Error::invalid(format!("invalid IP address: {text}"));
    Ok(EndpointSpec {
        network: network.to_owned(),
        ipv4: address(ipam.ipv4_address).map(|text| text.parse().map_err(|_| invalid(&text))).transpose()?,
        ipv6: address(ipam.ipv6_address).map(|text| text.parse().map_err(|_| invalid(&text))).transpose()?,
        mac: settings.mac_address.as_deref().filter(|mac| !mac.is_empty()).map(check_mac).transpose()?,
        aliases: settings.aliases.clone().unwrap_or_default(),
        links: links(settings.links.as_deref().unwrap_or_default())?,
        link_local: ipam
            .link_local_ips
            .unwrap_or_default()
            .into_iter()
            .map(|text| {
                text.parse().map_err(|_| Error::invalid(format!("invalid link-local IP address: {text}")))
            })
            .collect::<Result<_>>()?,
        gw_priority: settings.gw_priority.unwrap_or_default(),
        driver_opts: settings.driver_opts.clone().unwrap_or_default().into_iter().collect(),
    })
}

fn check_mac(text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    if parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Ok(parts.join(":").to_ascii_lowercase());
    }
    Err(Error::invalid(format!("invalid mac address: {text}")))
}
