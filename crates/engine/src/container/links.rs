//! `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` and the variables of links: written into the container's directory
//! before each start, mounted from there. A file is rewritten in place: a running container has the inode mounted.

use model::container::{ContainerPath, HostPath, Link, NamespaceMode, NetworkMode};
use model::error::Context as _;
use model::hosts::{self, Dns, Entry};
use model::link::{self, Linked};
use model::{Error, Result};
use net::Endpoint;
use std::net::IpAddr;
use std::path::Path;

use super::lookup::Container;
use crate::Engine;

/// What a start knows of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct EtcFiles {
    /// The host name inside.
    pub hostname: String,
    /// Variables of legacy links.
    pub link_env: Vec<String>,
    /// Files to mount.
    pub files: Vec<(ContainerPath, HostPath)>,
}

impl Engine {
    /// Writes the files of a container that is about to start with these endpoints.
    pub(crate) fn write_etc(&self, container: &Container, endpoints: &[Endpoint]) -> Result<EtcFiles> {
        if let NetworkMode::Join(id) = &container.spec.network {
            // Docker mounts those of the container whose network is shared.
            let other = self.find(id.as_str())?;
            let hostname = match container.spec.hostname.as_str() {
                "" => other.hostname(),
                own => own.to_owned(),
            };
            return Ok(EtcFiles { hostname, link_env: Vec::new(), files: files(&other.dir) });
        }
        let hostname = container.hostname();
        let mut link_env = Vec::new();
        let entries = self.host_entries(container, endpoints, &mut link_env)?;
        let on_host = container.spec.network == NetworkMode::Host;
        let text = if on_host {
            hosts::extend_host_file(&read_or_empty("/etc/hosts"), &entries)
        } else {
            hosts::hosts(&entries)
        };
        write_in_place(&container.dir.join("hosts"), &text)?;
        write_in_place(&container.dir.join("hostname"), &format!("{hostname}\n"))?;
        let resolver = &container.spec.resolver;
        let dns = Dns { servers: &resolver.servers, search: &resolver.search, options: &resolver.options };
        let host = read_or_empty("/etc/resolv.conf");
        let ipv6 = endpoints.iter().any(|endpoint| endpoint.ipv6.is_some());
        let text = if on_host {
            hosts::resolv_conf_on_host(&host, dns)
        } else {
            hosts::resolv_conf(&host, dns, ipv6)
        };
        write_in_place(&container.dir.join("resolv.conf"), &text)?;
        Ok(EtcFiles { hostname, link_env, files: files(&container.dir) })
    }
    fn host_entries(
        &self,
        container: &Container,
        endpoints: &[Endpoint],
        link_env: &mut Vec<String>,
    ) -> Result<Vec<Entry>> {
        let spec = &container.spec;
        let mut entries = Vec::new();
        let gateway = endpoints.first().and_then(|endpoint| endpoint.gateway).map(IpAddr::V4);
        for text in &spec.resolver.extra_hosts {
            entries.push(hosts::extra_host(text, gateway)?);
        }
        if let NetworkMode::Attached(attachment) = &spec.network {
            for wanted in &attachment.links {
                self.add_link(container, wanted, &mut entries, Some(link_env))?;
            }
        }
        for endpoint in endpoints {
            for wanted in &endpoint.spec.links {
                self.add_link(container, wanted, &mut entries, None)?;
            }
            let names = hosts::own_names(&container.hostname(), &spec.domainname);
            entries.extend(endpoint.ipv4.map(|ip| Entry::new(ip.into(), names.clone())));
            entries.extend(endpoint.ipv6.map(|ip| Entry::new(ip.into(), names)));
            if endpoint.network != "bridge" {
                entries.extend(self.neighbours(container, &endpoint.network)?);
            }
        }
        Ok(entries)
    }
    /// The other containers of a user-defined network, by name and alias.
    fn neighbours(&self, container: &Container, network: &str) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (id, endpoint) in self.networks.members(network)? {
            if id == *container.id() {
                continue;
            }
            let Ok(other) = self.load(&id) else { continue };
            let mut names = vec![other.name().to_owned(), id.short().to_owned()];
            names.extend(endpoint.aliases.iter().cloned());
            entries.extend(endpoint.ipv4.map(|ip| Entry::new(ip.into(), names)));
        }
        Ok(entries)
    }
    fn add_link(
        &self,
        container: &Container,
        wanted: &Link,
        entries: &mut Vec<Entry>,
        env: Option<&mut Vec<String>>,
    ) -> Result<()> {
        let other = self.find(&wanted.container)?;
        let alias = wanted.alias.as_str();
        let ends = self.networks.endpoints(other.id())?;
        let mine = container.endpoint_specs();
        let shared = ends.iter().find(|end| {
            mine.iter().any(|spec| {
                spec.network == end.network || (spec.network == "default" && end.network == "bridge")
            })
        });
        let address = match (other.live.is_some(), shared.or(ends.first()).and_then(|end| end.ipv4)) {
            (true, Some(ip)) => IpAddr::V4(ip),
            _ => {
                return Err(Error::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name(),
                    container.name()
                )));
            }
        };
        entries.push(Entry::new(address, link::host_names(alias, &other.hostname(), other.name())));
        if let Some(env) = env {
            let linked = Linked {
                parent: container.name(),
                alias,
                address,
                ports: &other.spec.exposed_ports,
                env: &other.spec.process.env,
            };
            env.extend(link::environment(&linked));
        }
        Ok(())
    }
    /// Writes a running container's hosts file anew, in place.
    pub(crate) fn refresh_hosts(&self, container: &Container) -> Result<()> {
        let endpoints = self.networks.endpoints(container.id())?;
        let entries = self.host_entries(container, &endpoints, &mut Vec::new())?;
        write_in_place(&container.dir.join("hosts"), &hosts::hosts(&entries))
    }
    /// Tells the other containers of these networks of a container that came or went.
    pub(crate) fn refresh_neighbours(&self, container: &Container, networks: &[String]) -> Result<()> {
        for network in networks.iter().filter(|name| name.as_str() != "bridge") {
            for (id, _) in self.networks.members(network)? {
                if id == *container.id() {
                    continue;
                }
                let Ok(other) = self.load(&id) else { continue };
                if other.live.is_some() {
                    self.refresh_hosts(&other)?;
                }
            }
        }
        Ok(())
    }
}

impl Container {
    /// The host name inside.
    pub fn hostname(&self) -> String {
        let host = self.spec.namespaces.uts == NamespaceMode::Host || self.spec.network == NetworkMode::Host;
        match self.spec.hostname.as_str() {
            "" if host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            "" => self.id().short().to_owned(),
            name => name.to_owned(),
        }
    }
}

fn files(dir: &Path) -> Vec<(ContainerPath, HostPath)> {
    ["hosts", "hostname", "resolv.conf"]
        .iter()
        .map(|name| (ContainerPath::root().join("/etc").join(name), HostPath(dir.join(name))))
        .collect()
}

fn read_or_empty(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn write_in_place(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let what = || format!("write {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(path).context(what)?;
    file.write_all(text.as_bytes()).context(what)
}
