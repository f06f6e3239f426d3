//! `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` and the variables of links: written into the container's directory
//! before each start, mounted from there. A file is rewritten in place: a running container has the inode mounted.

use model::container::{ContainerPath, EndpointSpec, HostPath, Link, NamespaceMode, NetworkMode};
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
        let (host, dns) = (read_or_empty(hosts::RESOLV_CONF), dns(container));
        let ipv6 = endpoints.iter().any(|endpoint| endpoint.ipv6.is_some());
        let text = if on_host {
            hosts::resolv_conf_on_host(&host, dns)
        } else if self.write_resolver(container, endpoints)? {
            hosts::resolv_conf_embedded(&host, dns)
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
        let gateway = match spec.resolver.extra_hosts.is_empty() {
            true => None,
            false => self.host_address(endpoints)?,
        };
        for text in &spec.resolver.extra_hosts {
            entries.push(hosts::extra_host(text, gateway)?);
        }
        for wanted in container.links() {
            self.add_link(container, wanted, &mut entries, link_env)?;
        }
        for endpoint in endpoints {
            let names = hosts::own_names(&container.hostname(), &spec.domainname);
            entries.extend(endpoint.ipv4.map(|ip| Entry::new(ip.into(), names.clone())));
            entries.extend(endpoint.ipv6.map(|ip| Entry::new(ip.into(), names)));
        }
        Ok(entries)
    }
    /// The machine as the container sees it, `host-gateway`: the address of the bridge that leads out, else that of the first
    /// bridge, which an internal network has too.
    fn host_address(&self, endpoints: &[Endpoint]) -> Result<Option<IpAddr>> {
        if let Some(gateway) = endpoints.iter().find_map(|endpoint| endpoint.gateway) {
            return Ok(Some(IpAddr::V4(gateway)));
        }
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.bridged) {
            let subnets = self.networks.get(&endpoint.network)?.subnets;
            if let Some(own) = subnets.into_iter().find_map(|subnet| subnet.gateway) {
                return Ok(Some(own));
            }
        }
        Ok(None)
    }
    fn add_link(
        &self,
        container: &Container,
        wanted: &Link,
        entries: &mut Vec<Entry>,
        env: &mut Vec<String>,
    ) -> Result<()> {
        let alias = wanted.alias.as_str();
        let other = self.find(&wanted.container).map_err(|error| match error.kind() {
            model::Kind::NotFound => Error::conflict(format!(
                "Cannot link to a non running container: {} AS /{}/{alias}",
                wanted.container,
                container.name()
            ))
            .hint("the linked container was removed: cauldron rm --link takes the link away"),
            _ => error,
        })?;
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
        let linked = Linked {
            parent: container.name(),
            alias,
            address,
            ports: &other.spec.exposed_ports,
            env: &other.spec.process.env,
        };
        env.extend(link::environment(&linked));
        Ok(())
    }
    /// Tells a running container's own files and its resolver of endpoints that came or went.
    pub(crate) fn refresh_names(&self, container: &Container) -> Result<()> {
        let endpoints = self.networks.endpoints(container.id())?;
        let entries = self.host_entries(container, &endpoints, &mut Vec::new())?;
        write_in_place(&container.dir.join("hosts"), &hosts::hosts(&entries))?;
        let resolves = runtime::resolver_path(&container.run_dir).exists();
        if self.write_resolver(container, &endpoints)? && !resolves {
            let path = container.dir.join("resolv.conf");
            write_in_place(
                &path,
                &hosts::resolv_conf_embedded(&read_or_empty(hosts::RESOLV_CONF), dns(container)),
            )?;
            runtime::resolve(&container.run_dir)?;
        }
        Ok(())
    }
    /// A container's links on the default bridge as Docker shows them: `/container:/own/alias`.
    pub fn shown_links(&self, container: &Container) -> Vec<String> {
        let shown = |link: &Link| {
            let other = self.find(&link.container).ok()?;
            Some(format!("/{}:/{}/{}", other.name(), container.name(), link.alias))
        };
        container.links().iter().filter_map(shown).collect()
    }
    /// Removes a link (`CONTAINER/ALIAS`), not what it leads to.
    ///
    /// # Errors
    /// Docker's texts where there is no such container or link.
    pub fn remove_link(&self, text: &str) -> Result<()> {
        let path = text.trim_start_matches('/');
        let Some((name, alias)) = path.split_once('/') else {
            return Err(Error::invalid("Conflict, cannot remove the default link name of the container"));
        };
        let (mut container, _lock) = self.find_locked(name).map_err(|error| match error.kind() {
            model::Kind::NotFound => {
                Error::not_found(format!("Cannot get parent /{name} for link name /{path}"))
            }
            _ => error,
        })?;
        let mut links = container.links().to_vec();
        let before = links.len();
        links.retain(|link| link.alias != alias);
        if links.len() == before {
            return Err(Error::not_found(format!("No such link: /{path}")));
        }
        container.changes.links = Some(links);
        self.write_changes(&container)?;
        if container.live.is_some() { self.refresh_names(&container) } else { Ok(()) }
    }
    /// Writes what the container's resolver is to know, where it has one: on a network of a user's, or once it was. True: it has.
    fn write_resolver(&self, container: &Container, endpoints: &[Endpoint]) -> Result<bool> {
        let path = runtime::resolver_path(&container.run_dir);
        if endpoints.iter().all(|endpoint| endpoint.network == "bridge") && !path.exists() {
            return Ok(false);
        }
        let mut config = model::dns::Config {
            host_servers: container.spec.resolver.servers.is_empty(),
            ..Default::default()
        };
        if !config.host_servers {
            config.servers = hosts::name_servers("", dns(container));
        }
        for endpoint in endpoints {
            let network = self.networks.get(&endpoint.network)?;
            config.external |= !network.internal;
            let zone = HostPath(self.networks.zone_path(&network.id));
            config.networks.push(model::dns::Network { name: network.name.clone(), zone });
            for link in &endpoint.spec.links {
                // One that is there is found again, should it be renamed.
                config.links.push(model::dns::Link {
                    alias: link.alias.clone(),
                    network: network.name.clone(),
                    container: self.find(&link.container).ok().map(|other| other.id().clone()),
                    target: link.container.clone(),
                });
            }
        }
        let what = || format!("write {}", path.display());
        sys::fs::private_dir(&container.run_dir)
            .context(|| format!("create {}", container.run_dir.display()))?;
        let bytes = serde_json::to_vec(&config).map_err(|error| Error::internal(what()).caused_by(error))?;
        sys::fs::replace_file(&path, &bytes, 0o600, false).context(what)?;
        Ok(true)
    }
}

impl Container {
    /// What it answers to in a network, in the order of `DNSNames`: its name, aliases, short id and the host name it was given.
    pub fn dns_names(&self, endpoint: &EndpointSpec) -> Vec<String> {
        let mut names = vec![self.name().to_owned()];
        let more = endpoint
            .aliases
            .iter()
            .cloned()
            .chain([self.id().short().to_owned(), self.spec.hostname.clone()]);
        for name in more.filter(|name| !name.is_empty()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
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

fn dns(container: &Container) -> Dns<'_> {
    let resolver = &container.spec.resolver;
    Dns { servers: &resolver.servers, search: &resolver.search, options: &resolver.options }
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
