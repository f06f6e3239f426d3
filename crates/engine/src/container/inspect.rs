//! What inspect shows beyond the records: sizes, mount points, the request's echo, the network as it is.

use model::container::{MountSource, Propagation};
use model::error::Context as _;
use model::{Kind, Result};
use net::{Endpoint, PublishedPort};
use std::path::Path;

use super::lookup::{Container, read_json};
use crate::Engine;

/// A mount as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: &'static str,
    /// A volume's name.
    pub name: Option<String>,
    /// On the host.
    pub source: String,
    /// Inside.
    pub destination: String,
    /// A volume's driver.
    pub driver: Option<String>,
    /// `ro`, `z`, or nothing.
    pub mode: &'static str,
    /// Writable.
    pub writable: bool,
    /// `rprivate`, …; nothing for volumes.
    pub propagation: &'static str,
}

/// A container's network as it is now.
#[derive(Clone, Debug, Default)]
pub struct NetworkView {
    /// Its endpoints, each with its network's id.
    pub endpoints: Vec<Endpoint>,
    /// Its open ports.
    pub ports: Vec<PublishedPort>,
}

impl Engine {
    /// Its mounts.
    pub fn mount_points(&self, container: &Container) -> Vec<MountPoint> {
        container.spec.mounts.iter().map(|mount| self.mount_point(mount)).collect()
    }
    fn mount_point(&self, mount: &model::container::Mount) -> MountPoint {
        let mut point = MountPoint {
            kind: "tmpfs",
            name: None,
            source: String::new(),
            destination: mount.target.as_str().to_owned(),
            driver: None,
            mode: if mount.read_only { "ro" } else { "" },
            writable: !mount.read_only,
            propagation: "",
        };
        match &mount.source {
            MountSource::Bind { path, propagation, .. } => {
                point.kind = "bind";
                point.source = path.0.to_string_lossy().into_owned();
                point.propagation = match propagation {
                    Propagation::Private => "private",
                    Propagation::RPrivate => "rprivate",
                    Propagation::Shared => "shared",
                    Propagation::RShared => "rshared",
                    Propagation::Slave => "slave",
                    Propagation::RSlave => "rslave",
                };
            }
            MountSource::Volume { name, anonymous, driver, .. } => {
                point.kind = "volume";
                point.name = Some(name.clone());
                point.driver = Some(driver.clone());
                point.source =
                    self.store.layout.volumes().join(name).join("_data").to_string_lossy().into_owned();
                if !mount.read_only {
                    point.mode = if *anonymous { "" } else { "z" };
                }
            }
            MountSource::Tmpfs { .. } => {}
        }
        point
    }
    /// Its endpoints and ports, where it has any.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn network_view(&self, container: &Container) -> Result<NetworkView> {
        if container.live.is_none() || !container.has_endpoints() {
            return Ok(NetworkView::default());
        }
        Ok(NetworkView {
            endpoints: self.networks.endpoints(container.id())?,
            ports: self.networks.ports(container.id())?,
        })
    }
    /// The id of a network; empty where it is gone.
    pub fn network_id(&self, name: &str) -> String {
        let find = || {
            self.networks.get(name).map_or_else(|_| String::new(), |network| network.id.as_str().to_owned())
        };
        if !["none", "host", "bridge"].contains(&name) {
            return find();
        }
        let mut known = self.predefined.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(id) = known.get(name) {
            return id.clone();
        }
        let id = find();
        if !id.is_empty() {
            known.insert(name.to_owned(), id.clone());
        }
        id
    }
    /// The directories of its overlay: lower (uppermost first), upper, merged (seen inside only), work.
    pub fn overlay_dirs(&self, container: &Container) -> [String; 3] {
        let lower = self.store.lower(&container.spec.layers).unwrap_or_default();
        let lower: Vec<String> = lower.iter().map(|path| path.0.to_string_lossy().into_owned()).collect();
        let rw = container.rw_dir();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [lower.join(":"), text(&rw.join("upper")), text(&rw.join("work"))]
    }
    /// Bytes of its image's layers.
    pub fn image_size(&self, container: &Container) -> u64 {
        self.store.image(container.spec.image.as_str()).map_or(0, |image| image.size)
    }
}

impl Container {
    /// The request's `HostConfig`, as it was asked.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn host_config(&self) -> Result<serde_json::Value> {
        Ok(read_json(&self.dir.join("request.json"))?.unwrap_or_default())
    }
    /// Bytes of what it changed.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn size_rw(&self) -> Result<u64> {
        tree_bytes(&self.rw_dir().join("upper"), 0)
    }
    /// Ids of execs that are known in its run directory.
    pub fn exec_ids(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.run_dir.join("execs")) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter_map(|name| name.strip_suffix(".request.json").map(str::to_owned))
            .filter(|id| !runtime::exec_state(&self.run_dir, id).is_ok_and(|state| state.exit_code.is_some()))
            .collect()
    }
}

/// Bytes of regular files below a directory of ours; links are not followed.
pub(crate) fn tree_bytes(dir: &Path, depth: usize) -> Result<u64> {
    if depth > model::limits::PATH_DEPTH {
        return Ok(0);
    }
    let entries = match std::fs::read_dir(dir).context(|| format!("read directory {}", dir.display())) {
        Ok(entries) => entries,
        Err(error) if error.kind() == Kind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.context(|| format!("read directory {}", dir.display()))?;
        // It may be gone again: the container goes on working.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            bytes += tree_bytes(&entry.path(), depth + 1)?;
        } else if meta.is_file() {
            bytes += meta.len();
        }
    }
    Ok(bytes)
}
