//! `/etc/cauldron/config.toml`: what users set once.

use model::network::Cidr;
use model::{Error, Result};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::Path;

/// Where the file is looked for; a missing one means defaults.
pub const PATH: &str = "/etc/cauldron/config.toml";

/// The configuration in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Pools that networks get subnets from: `{base, size}`.
    pub default_address_pools: Vec<Pool>,
    /// Default `max-size` (bytes or `10m`) and `max-file`.
    pub log_opts: std::collections::BTreeMap<String, String>,
    /// Mirrors for docker.io.
    pub registry_mirrors: Vec<String>,
    /// Registries that may speak plain HTTP; loopback always may.
    pub insecure_registries: Vec<String>,
    /// Layers that a pull downloads at the same time.
    pub max_concurrent_downloads: NonZeroUsize,
    /// Layers that a push sends at the same time.
    pub max_concurrent_uploads: NonZeroUsize,
    /// Default limits: `nofile = "1024:524288"`.
    pub default_ulimits: std::collections::BTreeMap<String, String>,
    /// Host address that ports are published on unless `-p` says otherwise.
    pub ip: Option<std::net::IpAddr>,
    /// What the build cache may take.
    pub build_cache: crate::build::Budget,
    /// Whether published ports may be open to other machines: `anywhere`, `announce` (and the command says so) or
    /// `loopback`.
    pub publish: net::PublishPolicy,
}

/// An address pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The whole pool.
    pub base: Cidr,
    /// Prefix length of one network.
    pub size: u8,
}

/// Registries beside those of the file.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Further mirrors for docker.io.
    pub mirrors: Vec<String>,
    /// Further registries that may speak plain HTTP.
    pub insecure: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let pool = |base: &str, size| Pool { base: Cidr::parse(base).expect("a constant"), size };
        Self {
            default_address_pools: vec![
                pool("10.88.0.0/13", 16),
                pool("172.16.0.0/12", 16),
                pool("192.168.0.0/16", 20),
            ],
            log_opts: std::collections::BTreeMap::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            max_concurrent_downloads: NonZeroUsize::MIN.saturating_add(2),
            max_concurrent_uploads: NonZeroUsize::MIN.saturating_add(4),
            default_ulimits: std::collections::BTreeMap::new(),
            ip: None,
            build_cache: crate::build::Budget::default(),
            publish: net::PublishPolicy::default(),
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// A named file is missing, or the content is malformed (with line and key).
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let (path, named) = path.map_or((Path::new(PATH), false), |path| (path, true));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(Error::invalid(format!("read configuration {}", path.display())).caused_by(error));
            }
        };
        toml::from_str(&text)
            .map_err(|error| Error::invalid(format!("configuration {}", path.display())).caused_by(error))
    }
    /// The part that the networks need.
    pub(crate) fn networks(&self, layout: &store::layout::Layout) -> net::Config {
        net::Config {
            dir: layout.networks(),
            run_dir: layout.run_net(),
            instance: instance(&layout.root),
            pools: self.default_address_pools.iter().map(|pool| (pool.base, pool.size)).collect(),
            publish_address: self.ip,
            publish: self.publish,
        }
    }
}

/// Names this root where names are shared by the machine (bridges, tables): empty for the default root.
fn instance(root: &Path) -> String {
    if root == Path::new("/var/lib/cauldron") {
        return String::new();
    }
    model::Digest::of(root.as_os_str().as_encoded_bytes()).hex()[..6].to_owned()
}
