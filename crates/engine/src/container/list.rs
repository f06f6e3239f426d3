//! Listing, with Docker's filters.

use model::container::{MountSource, NetworkMode, Port};
use model::filter::{Filters, Patterns};
use model::state::Status;
use model::{Error, Result};
use std::sync::Arc;

use super::known::Listed;
use super::lookup::Container;
use crate::Engine;

/// Filters that a list takes.
const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What is listed.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Those that do not run too.
    pub all: bool,
    /// The newest so many, running or not.
    pub limit: Option<usize>,
    /// Filters.
    pub filters: Filters,
}

impl Engine {
    /// Containers, newest first.
    ///
    /// # Errors
    /// An unknown filter or a malformed value, with Docker's texts.
    pub fn list_containers(&self, options: &ListOptions) -> Result<Vec<Arc<Listed>>> {
        let filters = &options.filters;
        filters.check(&FILTERS)?;
        check_values(filters)?;
        let every = options.all
            || options.limit.is_some()
            || filters.contains("status")
            || filters.contains("exited");
        let ancestors = self.ancestors(filters)?;
        let edge = |key: &str| -> Result<Option<model::time::Timestamp>> {
            filters
                .get(key)
                .first()
                .map(|name| self.find(name).map(|container| container.spec.created))
                .transpose()
        };
        let (before, since) = (edge("before")?, edge("since")?);
        let patterns = By { ids: filters.patterns("id"), names: filters.patterns("name") };
        let limit = options.limit.unwrap_or(usize::MAX);
        let wanted = |container: &Container| {
            Ok::<_, Error>(
                (every || container.live.is_some())
                    && before.is_none_or(|edge| container.spec.created < edge)
                    && since.is_none_or(|edge| container.spec.created > edge)
                    && ancestors
                        .as_ref()
                        .is_none_or(|list| list.iter().any(|ancestor| container.descends_from(ancestor)))
                    && passes(container, filters, &patterns)
                    && self.passes_ports(container, filters)?
                    && self.passes_network(container, filters)?,
            )
        };
        let mut listed = Vec::new();
        if let (false, Some(known)) = (every, self.known()) {
            for one in known?.iter() {
                if wanted(&one.container)? {
                    listed.push(Arc::clone(one));
                }
            }
            return Ok(listed);
        }
        for container in if every { self.containers()? } else { self.live_containers()? } {
            if listed.len() >= limit {
                break;
            }
            if wanted(&container)? {
                listed.push(Arc::new(self.listed(container)?));
            }
        }
        Ok(listed)
    }
    /// The images that `ancestor` names; one that does not exist has no descendants.
    fn ancestors(&self, filters: &Filters) -> Result<Option<Vec<Vec<model::Digest>>>> {
        if !filters.contains("ancestor") {
            return Ok(None);
        }
        let mut all = Vec::new();
        for name in filters.get("ancestor") {
            match self.store.image(name) {
                Ok(image) => all.push(image.config.rootfs.diff_ids),
                Err(error) if error.kind() == model::Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(all))
    }
    /// `publish` is about ports of the host that are open now, `expose` about the container's.
    fn passes_ports(&self, container: &Container, filters: &Filters) -> Result<bool> {
        let (published, exposed) = (filters.get("publish"), filters.get("expose"));
        if published.is_empty() && exposed.is_empty() {
            return Ok(true);
        }
        let open = match container.live {
            Some(_) if !published.is_empty() => self.networks.ports(container.id())?,
            _ => Vec::new(),
        };
        let open: Vec<Port> = open
            .iter()
            .map(|port| Port { number: port.host_port, protocol: port.container.protocol })
            .collect();
        // One of either is enough, as in Docker.
        Ok(published.iter().any(|range| in_range(range, &open))
            || exposed.iter().any(|range| in_range(range, &container.spec.exposed_ports)))
    }
    fn passes_network(&self, container: &Container, filters: &Filters) -> Result<bool> {
        let wanted = filters.get("network");
        if wanted.is_empty() {
            return Ok(true);
        }
        let names: Vec<String> = match &container.spec.network {
            NetworkMode::None => vec!["none".to_owned()],
            NetworkMode::Host => vec!["host".to_owned()],
            NetworkMode::Join(_) => Vec::new(),
            NetworkMode::Attached(_) => {
                container.endpoint_specs().iter().map(|spec| spec.network.clone()).collect()
            }
        };
        for wanted in wanted {
            if names.contains(wanted) {
                return Ok(true);
            }
            if let Ok(network) = self.networks.get(wanted)
                && names.iter().any(|name| *name == network.name || *name == network.id.as_str())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Container {
    /// Whether its image is, or is built on, these layers.
    fn descends_from(&self, layers: &[model::Digest]) -> bool {
        self.spec.layers.starts_with(layers)
    }
}

fn check_values(filters: &Filters) -> Result<()> {
    const STATUS: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
    const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];
    let bad = |key: &str, value: &str| Error::invalid(format!("invalid filter '{key}={value}'"));
    for (key, known) in [("status", &STATUS[..]), ("health", &HEALTH[..])] {
        if let Some(value) = filters.get(key).iter().find(|value| !known.contains(&value.as_str())) {
            return Err(bad(key, value));
        }
    }
    if let Some(value) = filters.get("exited").iter().find(|value| value.parse::<i32>().is_err()) {
        return Err(bad("exited", value));
    }
    for key in ["publish", "expose"] {
        for value in filters.get(key) {
            port_range(value).ok_or_else(|| bad(key, value))?;
        }
    }
    filters.boolean("is-task").map(drop)
}

/// `80`, `80/udp`, `8000-8080/tcp`.
fn port_range(text: &str) -> Option<(Port, u16)> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let port = Port::parse(&format!("{first}/{protocol}")).ok()?;
    Some((port, last.parse().ok()?))
}

/// Whether one of these ports is in the range.
fn in_range(text: &str, ports: &[Port]) -> bool {
    port_range(text).is_some_and(|(first, last)| {
        let numbers = first.number..=last;
        ports.iter().any(|port| port.protocol == first.protocol && numbers.contains(&port.number))
    })
}

/// The filters that are patterns, read once a list.
struct By {
    ids: Patterns,
    names: Patterns,
}

fn passes(container: &Container, filters: &Filters, patterns: &By) -> bool {
    let spec = &container.spec;
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let values = filters.get(key);
        values.is_empty() || values.iter().any(|value| test(value))
    };
    let status = container.status();
    let health = container.health();
    patterns.ids.hold(spec.id.as_str())
        && patterns.names.hold_name(container.name())
        && filters.labels("label", &spec.labels)
        && any("status", &|value| status.as_str() == value)
        && any("exited", &|value| {
            container.live.is_none()
                && status != Status::Created
                && value.parse() == Ok(container.state.exit_code)
        })
        && any("health", &|value| health == value)
        && any("volume", &|value| {
            spec.mounts.iter().any(|mount| {
                mount.target.as_str() == value
                    || matches!(&mount.source, MountSource::Volume { name, .. } if name == value)
            })
        })
        && filters.boolean("is-task").ok().flatten() != Some(true)
}

impl Container {
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub fn health(&self) -> &str {
        match &self.state.health {
            Some(health) if !health.status.is_empty() => &health.status,
            _ => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("80").map(|(port, last)| (port.number, last)), Some((80, 80)));
        assert_eq!(port_range("8000-8080/udp").map(|(port, last)| (port.number, last)), Some((8000, 8080)));
        assert_eq!(port_range("x"), None);
    }
}
