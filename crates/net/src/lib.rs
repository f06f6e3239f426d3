//! Networks, address leases, bridges and veth pairs, the firewall as data, published ports.
//!
//! Nothing here stays resident. What is durable lies in `networks/<name>/` (`network.json`); what dies with the
//! boot lies under the run root's `net/`: one lease file an address (created with `O_EXCL`, so two processes never
//! get the same) and one endpoint record a container and network. Several engines live side by side: bridge names,
//! firewall table and subnets derive from the root, and a subnet that any interface of the machine has is never taken.
//!
//! ```text
//! networks/<name>/network.json            durable: what `network create` made
//! run/net/boot                            the boot that the rest of run/net belongs to
//! run/net/leases/<network id>/<address>   a symbolic link (made atomically) whose target is the container's id
//! run/net/endpoints/<container>/<network>.json, ports.json
//! run/net/zones/<network id>              who answers to which name (`model::dns::zone`): what resolvers in containers read
//! run/net/ports/<protocol>-<port>-<address>   a symbolic link to the container's id
//! run/net/files.lock   leases, records, choice of ports      run/net/kernel.lock   bridges, pairs, firewall table
//! ```
//!
//! `kernel.lock` is taken before `files.lock`, never the other way round. Bridges of all engines of a machine are made
//! under one more lock, on the network namespace itself, so that two never take the same subnet.
//!
//! This crate never imports `store` or `runtime`: a container is an id and a network namespace descriptor.

mod choose;
mod connect;
mod examine;
mod firewall;
mod holder;
mod kernel;
mod lease;
mod parent;
mod ports;
mod record;
mod zone;

use model::container::EndpointSpec;
use model::error::Context as _;
use model::network::Cidr;
use model::{ContainerId, Result};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
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
    /// Whether ports may be open to other machines.
    pub publish: PublishPolicy,
}

/// Whether published ports may be open to other machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishPolicy {
    /// They may (Docker's way).
    #[default]
    Anywhere,
    /// They may, and whoever starts the container is told.
    Announce,
    /// They may not: without an address they are published on loopback, any other address is refused.
    Loopback,
}

/// What a container publishes, and what it is called in errors.
pub struct Publish<'a> {
    /// `-p`.
    pub ports: &'a [model::container::PortBinding],
    /// The container's name.
    pub name: &'a str,
    /// The name of another container, by its id.
    pub name_of: &'a dyn Fn(&str) -> Option<String>,
}

impl Publish<'_> {
    /// Nothing.
    pub const NOTHING: Publish<'static> = Publish { ports: &[], name: "", name_of: &|_| None };
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
    /// Names that it answers to in this network, the container's own first.
    #[serde(default)]
    pub names: Vec<String>,
    /// No gateway, but a default route through the interface itself.
    #[serde(default)]
    pub routed: bool,
    /// Whether this machine can lead ports there: the network is a bridge of it.
    #[serde(default)]
    pub bridged: bool,
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
    /// See [`NetworkSpec`]. Off in a default request: every network has IPv4 unless it is refused.
    pub no_ipv4: bool,
    /// See [`NetworkSpec`].
    pub ipv6: bool,
    /// See [`NetworkSpec`].
    pub options: std::collections::BTreeMap<String, String>,
    /// See [`NetworkSpec`].
    pub labels: std::collections::BTreeMap<String, String>,
}

/// All networks of one root.
#[derive(Debug)]
pub struct Networks {
    config: Config,
}

impl Networks {
    /// Opens them; makes `bridge`, `host` and `none` on first use. Costs no more than two `stat`s on a warm root.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn open(config: Config) -> Result<Self> {
        let networks = Self { config };
        networks.prepare()?;
        Ok(networks)
    }
    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// A new network namespace with loopback up, held by the descriptor alone.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new_namespace() -> Result<OwnedFd> {
        sys::netlink::new_namespace().context(|| "create a network namespace")
    }
    /// The containers that hold leases, records or ports: whoever opens an engine after a crash releases those that
    /// do not live.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn holders(&self) -> Result<Vec<ContainerId>> {
        let names = record::names(&self.config.run_dir.join("endpoints"))?;
        Ok(names.iter().filter_map(|name| ContainerId::parse(name).ok()).collect())
    }
    pub(crate) fn files_lock(&self) -> Result<sys::fs::Lock> {
        sys::fs::Lock::exclusive(self.config.run_dir.join("files.lock"))
            .context(|| "lock the network's leases")
    }
    pub(crate) fn kernel_lock(&self) -> Result<sys::fs::Lock> {
        sys::fs::Lock::exclusive(self.config.run_dir.join("kernel.lock")).context(|| "lock the bridges")
    }
}
