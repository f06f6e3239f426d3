//! `/networks`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use bollard_stubs::models::{
    ConfigReference, EndpointResource, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkCreateResponse, NetworkDisconnectRequest, NetworkInspect as Wire,
};
use engine::Engine;
use engine::model::network::{Cidr, NetworkSpec, Subnet};
use engine::model::{Error, Result};
use engine::network::{Member, NetworkRequest};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;

use crate::containers::ports::endpoint;
use crate::containers::until;
use crate::input::{Body, Params};
use crate::{Failure, Shared, call};

/// Options of this prefix are the engine's own notes, not the user's.
const PRIVATE: &str = "cauldron.";
/// Options for the address management were given, be it none: they are shown as `{}`, not as null.
const IPAM_OPTIONS: &str = "cauldron.ipam.options";

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn list(State(engine): State<Shared>, params: Params) -> Result<Json<Vec<Value>>, Failure> {
    let filters = params.filters()?;
    let networks = call(&engine, move |engine| engine.networks(&filters)).await?;
    Ok(Json(networks.into_iter().map(|network| wire(network, Vec::new())).collect()))
}

async fn inspect(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let scope = params.text("scope").to_owned();
    let found = call(&engine, move |engine| {
        let network = engine.network(&id)?;
        if !matches!(scope.as_str(), "" | "local") {
            return Err(Error::not_found(format!("network {id} not found")));
        }
        let members = engine.network_members(&network)?;
        Ok(wire(network, members))
    });
    Ok(Json(found.await?))
}

async fn create(
    State(engine): State<Shared>,
    body: Body<NetworkCreateRequest>,
) -> Result<(StatusCode, Json<NetworkCreateResponse>), Failure> {
    let request = request(body.0)?;
    let network = call(&engine, move |engine| engine.create_network(request)).await?;
    let response = NetworkCreateResponse { id: network.id.as_str().to_owned(), warning: String::new() };
    Ok((StatusCode::CREATED, Json(response)))
}

fn request(asked: NetworkCreateRequest) -> Result<NetworkRequest> {
    if asked.name.is_empty() {
        return Err(Error::invalid("invalid network name: name is empty"));
    }
    let is_set = |flag: Option<bool>| flag.unwrap_or(false);
    let copied = asked
        .config_from
        .as_ref()
        .and_then(|from| from.network.as_deref())
        .is_some_and(|name| !name.is_empty());
    if copied || is_set(asked.ingress) || is_set(asked.config_only) || asked.scope.as_deref() == Some("swarm")
    {
        return Err(Error::new(
            engine::model::Kind::Unavailable,
            "This node is not a swarm manager: swarm and configuration-only networks are not available",
        ));
    }
    let ipam = asked.ipam.unwrap_or_default();
    if let Some(driver) = ipam.driver.filter(|driver| !matches!(driver.as_str(), "" | "default")) {
        return Err(Error::not_found(format!(
            "could not find plugin {driver} in v1 plugin registry: plugin not found"
        )));
    }
    let subnets: Vec<Option<Subnet>> =
        ipam.config.unwrap_or_default().into_iter().map(subnet).collect::<Result<_>>()?;
    let subnets: Vec<Subnet> = subnets.into_iter().flatten().collect();
    let ipv6 = is_set(asked.enable_ipv6) || subnets.iter().any(|subnet| subnet.net.address.is_ipv6());
    let no_ipv4 = asked.enable_ipv4 == Some(false);
    if no_ipv4 && !ipv6 {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    if no_ipv4 && subnets.iter().any(|subnet| subnet.net.address.is_ipv4()) {
        return Err(Error::invalid("IPv4 subnets cannot be given to a network without IPv4"));
    }
    let note = ipam.options.map(|_| (IPAM_OPTIONS.to_owned(), String::new()));
    Ok(NetworkRequest {
        no_ipv4,
        name: asked.name,
        driver: asked.driver.unwrap_or_default(),
        internal: is_set(asked.internal),
        attachable: is_set(asked.attachable),
        ipv6,
        options: asked
            .options
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| !key.starts_with(PRIVATE))
            .chain(note)
            .collect(),
        labels: asked.labels.unwrap_or_default().into_iter().collect(),
        subnets,
    })
}

fn subnet(config: IpamConfig) -> Result<Option<Subnet>> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let gateway = given(config.gateway);
    let range = given(config.ip_range);
    let Some(text) = given(config.subnet) else {
        return match gateway.or(range) {
            Some(orphan) => Err(Error::invalid(format!("no matching subnet for {orphan}"))),
            None => Ok(None),
        };
    };
    let net = Cidr::parse(&text)
        .map_err(|_| Error::invalid(format!("invalid subnet {text}: invalid CIDR block notation")))?;
    if net != net.network() {
        return Err(Error::invalid(format!("invalid subnet {text}: it should be {}", net.network())));
    }
    let address = |what: &str, text: &str| -> Result<IpAddr> {
        // Docker takes a gateway with or without its prefix length.
        let bare = text.split_once('/').map_or(text, |(bare, _)| bare);
        bare.parse().map_err(|_| Error::invalid(format!("invalid {what} {text}: invalid address")))
    };
    let aux = config.auxiliary_addresses.unwrap_or_default();
    Ok(Some(Subnet {
        net,
        gateway: gateway.map(|text| address("gateway", &text)).transpose()?,
        range: range.map(|text| Cidr::parse(&text)).transpose()?,
        aux: aux
            .into_iter()
            .map(|(name, text)| Ok((name, address("auxiliary address", &text)?)))
            .collect::<Result<_>>()?,
    }))
}

async fn remove(State(engine): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    call(&engine, move |engine| engine.remove_network(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn connect(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    body: Body<NetworkConnectRequest>,
) -> Result<StatusCode, Failure> {
    call(&engine, move |engine| {
        let settings = body.0.endpoint_config.unwrap_or_default();
        let wanted = endpoint(&id, &settings)?;
        engine.connect_network(&id, &body.0.container, wanted)
    })
    .await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    body: Body<NetworkDisconnectRequest>,
) -> Result<StatusCode, Failure> {
    call(&engine, move |engine| {
        engine.disconnect_network(&id, &body.0.container, body.0.force.unwrap_or(false))
    })
    .await?;
    Ok(StatusCode::OK)
}

async fn prune(State(engine): State<Shared>, params: Params) -> Result<Json<Value>, Failure> {
    let filters = params.filters()?;
    let until = filters
        .get("until")
        .first()
        .map(|text| until(text).ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'"))))
        .transpose()?;
    let removed = call(&engine, move |engine: &Engine| engine.prune_networks(&filters, until)).await?;
    Ok(Json(json!({ "NetworksDeleted": Some(removed).filter(|removed| !removed.is_empty()) })))
}

/// A network in Docker's shape.
fn wire(network: NetworkSpec, members: Vec<Member>) -> Value {
    let config = network.subnets.iter().map(|subnet| IpamConfig {
        subnet: Some(subnet.net.to_string()),
        ip_range: subnet.range.map(|range| range.to_string()),
        gateway: subnet.gateway.map(|ip| ip.to_string()),
        auxiliary_addresses: (!subnet.aux.is_empty())
            .then(|| subnet.aux.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect()),
    });
    let options = network.options.clone().into_iter().filter(|(key, _)| !key.starts_with(PRIVATE)).collect();
    let wire = Wire {
        name: Some(network.name),
        id: Some(network.id.as_str().to_owned()),
        created: Some(network.created.to_string()),
        scope: Some("local".to_owned()),
        enable_ipv4: Some(network.ipv4),
        enable_ipv6: Some(network.ipv6),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(config.collect()),
            options: network.options.contains_key(IPAM_OPTIONS).then(HashMap::new),
        }),
        driver: Some(network.driver),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        ingress: Some(false),
        config_from: Some(ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        options: Some(options),
        labels: Some(network.labels.into_iter().collect()),
        containers: Some(members.into_iter().map(member).collect()),
        ..Wire::default()
    };
    let mut value = serde_json::to_value(wire).unwrap_or_default();
    if value["IPAM"].get("Options").is_none() {
        value["IPAM"]["Options"] = Value::Null;
    }
    value
}

fn member(member: Member) -> (String, EndpointResource) {
    let end = member.endpoint;
    let address = |ip: Option<IpAddr>, prefix: u8| ip.map(|ip| format!("{ip}/{prefix}")).unwrap_or_default();
    let resource = EndpointResource {
        name: Some(member.name),
        endpoint_id: Some(end.id),
        mac_address: Some(end.mac),
        ipv4_address: Some(address(end.ipv4.map(IpAddr::V4), end.ipv4_prefix)),
        ipv6_address: Some(address(end.ipv6.map(IpAddr::V6), end.ipv6_prefix)),
    };
    (member.id.as_str().to_owned(), resource)
}
