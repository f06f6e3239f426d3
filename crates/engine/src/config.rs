//! `/etc/cauldron/config.toml`: what users set once.

use model::container::{LogSpec, Ulimit};
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
        let what = || format!("configuration {}", path.display());
        let config: Self = toml::from_str(&text).map_err(|error| Error::invalid(what()).caused_by(error))?;
        config.check().map_err(|error| error.within(what()))?;
        Ok(config)
    }
    /// Refuses what has the right shape and makes no sense, before it is wanted.
    fn check(&self) -> Result<()> {
        for Pool { base, size } in &self.default_address_pools {
            let most = if base.address.is_ipv4() { 30 } else { 126 };
            if !(base.prefix..=most).contains(size) {
                return Err(Error::invalid(format!(
                    "default-address-pools: {base} size {size}: want a size from {} to {most}",
                    base.prefix
                )));
            }
        }
        for mirror in &self.registry_mirrors {
            let host = mirror.split_once("://").map_or(mirror.as_str(), |(scheme, host)| match scheme {
                "http" | "https" => host,
                _ => "",
            });
            if host.is_empty() || host.contains(char::is_whitespace) {
                return Err(Error::invalid(format!("registry-mirrors: invalid mirror: {mirror:?}")));
            }
        }
        let odd =
            |name: &&String| name.is_empty() || name.contains("://") || name.contains(char::is_whitespace);
        if let Some(name) = self.insecure_registries.iter().find(odd) {
            return Err(Error::invalid(format!("insecure-registries: {name:?}: want HOST or HOST:PORT")));
        }
        if let Some(name) = self.log_opts.keys().find(|name| !LogSpec::OPTIONS.contains(&name.as_str())) {
            return Err(Error::invalid(format!("log-opts: unknown log opt '{name}'")));
        }
        LogSpec::default().apply_defaults(&self.log_opts).map_err(|error| error.within("log-opts"))?;
        self.ulimits()?;
        self.build_cache.bytes().map(drop)
    }
    /// The default limits.
    ///
    /// # Errors
    /// One is malformed.
    pub(crate) fn ulimits(&self) -> Result<Vec<Ulimit>> {
        let read = |(name, text): (&String, &String)| {
            let (soft, hard) = text.split_once(':').unwrap_or((text, text));
            match (soft.parse(), hard.parse()) {
                (Ok(soft), Ok(hard)) if hard == -1 || (soft != -1 && soft <= hard) => {
                    Ok(Ulimit { name: name.clone(), soft, hard })
                }
                _ => Err(Error::invalid(format!(
                    "default-ulimits: {name} = {text:?}: want \"SOFT:HARD\", the soft limit not above the hard one"
                ))),
            }
        };
        self.default_ulimits.iter().map(read).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let check = |text: &str| toml::from_str::<Config>(text).unwrap().check();
        for good in [
            "",
            "registry-mirrors = ['https://m.example', 'm.example:5000']\ninsecure-registries = ['10.0.0.0/8', 'r:5000']",
            "[[default-address-pools]]\nbase = '10.0.0.0/8'\nsize = 24",
            "[log-opts]\nmax-size = '1m'\ncompress = 'true'",
            "[default-ulimits]\nnofile = '1024:2048'\ncore = '-1'",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "registry-mirrors = ['ftp://m.example']",
            "registry-mirrors = ['']",
            "insecure-registries = ['a b']",
            "[[default-address-pools]]\nbase = '10.0.0.0/24'\nsize = 16",
            "[[default-address-pools]]\nbase = '10.0.0.0/24'\nsize = 31",
            "[log-opts]\nmax-size = 'abc'",
            "[log-opts]\nfoo = '1'",
            "[log-opts]\ncompress = 'maybe'",
            "[default-ulimits]\nnofile = '5:1'",
            "[default-ulimits]\nnofile = 'many'",
            "[build-cache]\nmax-size = 'zz'",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
