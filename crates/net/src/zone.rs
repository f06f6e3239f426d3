//! Zones: what each member of a network answers to, for the resolvers in its containers. Written whole under another name and
//! renamed, under the lock on files; a resolver sees the old one or the new one.

use model::dns::zone;
use model::error::Context as _;
use model::{ContainerId, NetworkId, Result};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::lease::remove;
use crate::record::{is_predefined, private_dir, write_json};
use crate::{Endpoint, Networks};

impl Networks {
    /// Where a network's zone is, or will be with its first member. The default network has none: its containers know each
    /// other by links alone.
    pub fn zone_path(&self, network: &NetworkId) -> PathBuf {
        self.config().run_dir.join("zones").join(network.as_str())
    }
    /// Gives a container's endpoints other names, by network. Of one that does not run there is nothing to rename.
    ///
    /// # Errors
    /// A record cannot be read or written.
    pub fn rename(&self, container: &ContainerId, names: impl Fn(&Endpoint) -> Vec<String>) -> Result<()> {
        let _lock = self.files_lock()?;
        for mut endpoint in self.endpoints(container)? {
            endpoint.names = names(&endpoint);
            let record = self.endpoint_dir(container).join(format!("{}.json", endpoint.network));
            write_json(&record, &endpoint, false)?;
            self.announce(container, &endpoint)?;
        }
        Ok(())
    }
    /// Puts an endpoint's names into its network's zone. Under the lock on files, as all below.
    pub(crate) fn announce(&self, container: &ContainerId, endpoint: &Endpoint) -> Result<()> {
        let addresses = endpoint.ipv4.map(IpAddr::V4).into_iter().chain(endpoint.ipv6.map(IpAddr::V6));
        let addresses: Vec<IpAddr> = addresses.collect();
        let line = zone::line(container, &addresses, endpoint.names.iter().map(String::as_str));
        self.change(container, endpoint, Some(&line))
    }
    /// Takes an endpoint's names out of its network's zone.
    pub(crate) fn withdraw(&self, container: &ContainerId, endpoint: &Endpoint) -> Result<()> {
        self.change(container, endpoint, None)
    }
    fn change(&self, container: &ContainerId, endpoint: &Endpoint, line: Option<&str>) -> Result<()> {
        if is_predefined(&endpoint.network) {
            return Ok(());
        }
        let path = self.zone_path(&endpoint.network_id);
        let now = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.context(|| format!("read {}", path.display()))?,
        };
        let new = zone::with(&now, container, line);
        if new.is_empty() {
            return remove(&path);
        }
        private_dir(&self.config().run_dir.join("zones"))?;
        sys::fs::replace_file(&path, new.as_bytes(), 0o600, false)
            .context(|| format!("write {}", path.display()))
    }
}
