//! Networks, address leases, bridges and veth pairs, the firewall as data, published ports.
//!
//! Nothing here stays resident. What is durable lies in `networks/<name>/` (`network.json`); what dies with the
//! boot lies under the run root's `net/`: one lease file an address (created with `O_EXCL`, so two processes never
//! get the same) and one endpoint record a container and network. Several engines live side by side: bridge names,
//! firewall table and subnets derive from the root, and a subnet that any interface of the machine has is never taken.
//!
//! This crate never imports `store` or `runtime`: a container is an id and a network namespace descriptor.

use model::container::{EndpointSpec, PortBinding};
use model::network::{Cidr, NetworkSpec};
use model::{ContainerId, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Where networks are kept, and what the configuration says.
#[derive(Clone, Debug)]
pub struct Config {
    /// `<root>/networks`.
    pub dir: PathBuf,
    /// `<run root>/net`.
    pub run_dir: PathBuf,
    /// Names this engine's bridge and table: empty for the default root, else a short hash of the root.
    pub instance: String,
    /// Pools that new networks get subnets from, and the prefix length of one subnet.
    pub pools: Vec<(Cidr, u8)>,
    /// The host address that a port is published on where none is given.
    pub publish_address: Option<IpAddr>,
}

/// A container's place in a network; `<run>/net/endpoints/<container>/<network>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its identifier (64 hexadecimal digits).
    pub id: String,
    /// The network.
    pub network: String,
    /// The network's identifier.
    pub network_id: model::NetworkId,
    /// Address in the first IPv4 subnet.
    pub ipv4: Option<Ipv4Addr>,
    /// Its prefix length.
    pub ipv4_prefix: u8,
    /// IPv4 gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Address in the first IPv6 subnet.
    pub ipv6: Option<Ipv6Addr>,
    /// Its prefix length.
    pub ipv6_prefix: u8,
    /// IPv6 gateway.
    pub gateway6: Option<Ipv6Addr>,
    /// `02:42:…`.
    pub mac: String,
    /// Name inside: `eth0`.
    pub interface: String,
    /// Names that it answers to in this network, beside the container's own.
    pub aliases: Vec<String>,
    /// What was asked.
    pub spec: EndpointSpec,
}

/// A port that is open on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Inside.
    pub container: model::container::Port,
    /// Address on the host (0.0.0.0 and :: are every address).
    pub host_ip: IpAddr,
    /// Port on the host.
    pub host_port: u16,
}

/// What `network create` asks.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    /// Its name.
    pub name: String,
    /// Empty is `bridge`.
    pub driver: String,
    /// Subnets; empty chooses one from the pools.
    pub subnets: Vec<model::network::Subnet>,
    /// See [`NetworkSpec`].
    pub internal: bool,
    /// See [`NetworkSpec`].
    pub attachable: bool,
    /// See [`NetworkSpec`].
    pub ipv6: bool,
    /// See [`NetworkSpec`].
    pub options: std::collections::BTreeMap<String, String>,
    /// See [`NetworkSpec`].
    pub labels: std::collections::BTreeMap<String, String>,
}

/// All networks of one root.
pub struct Networks {
    config: Config,
}

fn missing<T>(what: &str) -> Result<T> {
    Err(Error::new(Kind::NotImplemented, what))
}

impl Networks {
    /// Opens them; makes `bridge`, `host` and `none` on first use. Costs no more than two `stat`s on a warm root.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn open(config: Config) -> Result<Self> {
        Ok(Self { config })
    }
    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// All networks, by name.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn list(&self) -> Result<Vec<NetworkSpec>> {
        missing("list")
    }
    /// One network by name, id or unambiguous id prefix; `default` is `bridge`.
    ///
    /// # Errors
    /// Not found, or an ambiguous prefix.
    pub fn get(&self, _name_or_id: &str) -> Result<NetworkSpec> {
        missing("get")
    }
    /// Makes a network.
    ///
    /// # Errors
    /// The name is taken, a subnet overlaps (named), the pools are exhausted.
    pub fn create(&self, _request: NetworkRequest) -> Result<NetworkSpec> {
        missing("create")
    }
    /// Removes a network.
    ///
    /// # Errors
    /// It is predefined, or has endpoints (named).
    pub fn remove(&self, _name_or_id: &str) -> Result<NetworkSpec> {
        missing("remove")
    }
    /// A new network namespace with loopback up, held by the descriptor alone.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new_namespace() -> Result<OwnedFd> {
        missing("new_namespace")
    }
    /// Leases addresses for one endpoint: files only, no kernel work.
    ///
    /// # Errors
    /// No such network, an address out of the subnet or taken (by whom), an exhausted subnet.
    pub fn reserve(&self, _container: &ContainerId, _endpoint: &EndpointSpec) -> Result<Endpoint> {
        missing("reserve")
    }
    /// Joins a namespace to the reserved endpoints, in order, and publishes ports on the first.
    /// `exposed` are the ports for `publish_all`.
    ///
    /// # Errors
    /// The kernel refused, or a host port is taken (by which container, where it is ours). What was done is undone.
    pub fn connect(&self, _container: &ContainerId, _endpoints: &[Endpoint], _netns: BorrowedFd<'_>, _ports: &[PortBinding]) -> Result<Vec<PublishedPort>> {
        missing("connect")
    }
    /// Takes one endpoint away from a container, whose namespace is given if it runs.
    ///
    /// # Errors
    /// It is not connected.
    pub fn disconnect(&self, _container: &ContainerId, _network: &str, _netns: Option<BorrowedFd<'_>>) -> Result<()> {
        missing("disconnect")
    }
    /// Gives back every lease, port and record of a container whose namespace is gone. Idempotent. Removes this
    /// root's bridge and table with the last endpoint.
    ///
    /// # Errors
    /// All of them, joined.
    pub fn release(&self, _container: &ContainerId) -> Result<()> {
        missing("release")
    }
    /// A container's endpoints, in the order in which they were made.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn endpoints(&self, _container: &ContainerId) -> Result<Vec<Endpoint>> {
        missing("endpoints")
    }
    /// A container's open ports.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn ports(&self, _container: &ContainerId) -> Result<Vec<PublishedPort>> {
        missing("ports")
    }
    /// Who is on a network.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn members(&self, _network: &str) -> Result<Vec<(ContainerId, Endpoint)>> {
        missing("members")
    }
}
