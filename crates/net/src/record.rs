//! `networks/<name>/network.json`: made whole in a directory of another name, then renamed; removed under the lock.

use model::error::Context as _;
use model::network::{Cidr, NetworkSpec, Subnet};
use model::time::Timestamp;
use model::{Error, Kind, NetworkId, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::{Endpoint, NetworkRequest, Networks, choose, kernel, parent};

const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];
/// Marks a subnet that was chosen, not asked for: it may be chosen again while nobody uses it.
pub(crate) const CHOSEN: &str = "cauldron.subnet.chosen";

impl Networks {
    /// All networks, by name.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn list(&self) -> Result<Vec<NetworkSpec>> {
        let mut all = Vec::new();
        for name in names(&self.config().dir)? {
            if !name.starts_with('.') {
                all.extend(self.read(&name)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
    /// One network by name, id or unambiguous id prefix; `default` is `bridge`.
    ///
    /// # Errors
    /// Not found, or an ambiguous prefix.
    pub fn get(&self, name_or_id: &str) -> Result<NetworkSpec> {
        let wanted = if name_or_id == "default" { "bridge" } else { name_or_id };
        if is_valid(wanted)
            && let Some(network) = self.read(wanted)?
        {
            return Ok(network);
        }
        let missing = || Error::not_found(format!("network {name_or_id} not found"));
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut found = self.list()?.into_iter().filter(|network| network.id.as_str().starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "network {name_or_id} is ambiguous (several networks have ids that start so)"
            ))),
            (None, _) => Err(missing()),
        }
    }
    /// Makes a network.
    ///
    /// # Errors
    /// The name is taken, a subnet overlaps (named), the pools are exhausted.
    pub fn create(&self, request: NetworkRequest) -> Result<NetworkSpec> {
        if !is_valid(&request.name) {
            return Err(Error::invalid(format!("invalid network name: {:?}", request.name))
                .hint("a name is not blank, starts with no dot, and has no slash and no control character"));
        }
        if request.name == "default" || PREDEFINED.iter().any(|(name, _)| *name == request.name) {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("operation is not permitted on predefined {} network", request.name),
            ));
        }
        let driver = if request.driver.is_empty() { "bridge" } else { request.driver.as_str() };
        match driver {
            "bridge" | "macvlan" | "ipvlan" => {}
            "host" | "null" => {
                return Err(Error::new(
                    Kind::PermissionDenied,
                    format!("only one instance of \"{driver}\" network is allowed"),
                ));
            }
            _ => {
                return Err(Error::not_found(format!(
                    "could not find plugin {driver} in v1 plugin registry: plugin not found"
                ))
                .hint("drivers: bridge, macvlan, ipvlan, host, null"));
            }
        }
        if let Some(name) = request.options.get("com.docker.network.bridge.name") {
            kernel::check_name(name)?;
        }
        let _lock = self.files_lock()?;
        if self.read(&request.name)?.is_some() {
            return Err(taken(&request.name));
        }
        let mut network = NetworkSpec {
            id: NetworkId::from_bytes(random()),
            created: Timestamp::from_system(std::time::SystemTime::now()),
            driver: driver.to_owned(),
            name: request.name,
            subnets: request.subnets,
            internal: request.internal,
            attachable: request.attachable,
            ipv4: !request.no_ipv4,
            ipv6: request.ipv6,
            options: request.options,
            labels: request.labels,
        };
        if parent::is_parented(&network.driver) {
            parent::kind(&network)?;
        }
        self.settle_subnets(&mut network)?;
        self.write(&network)?;
        Ok(network)
    }
    /// Removes a network.
    ///
    /// # Errors
    /// It is predefined, or has endpoints (named).
    pub fn remove(&self, name_or_id: &str) -> Result<NetworkSpec> {
        let network = self.get(name_or_id)?;
        if is_predefined(&network.name) {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("{} is a pre-defined network and cannot be removed", network.name),
            ));
        }
        let _lock = self.files_lock()?;
        let members = self.members(&network.name)?;
        if !members.is_empty() {
            let name = |endpoint: &Endpoint| endpoint.names.first().cloned().unwrap_or_default();
            let who: Vec<String> = members
                .iter()
                .map(|(id, endpoint)| format!("name:{:?} id:\"{}\"", name(endpoint), id.short()))
                .collect();
            return Err(Error::new(
                Kind::PermissionDenied,
                format!(
                    "error while removing network: network {} has active endpoints ({})",
                    network.name,
                    who.join(", ")
                ),
            )
            .hint("disconnect or stop these containers first"));
        }
        let dir = self.config().dir.join(&network.name);
        std::fs::remove_dir_all(&dir).context(|| format!("remove {}", dir.display()))?;
        // Empty, or it would have members.
        let _ = std::fs::remove_dir_all(self.lease_dir(&network));
        self.sync_names()?;
        Ok(network)
    }
    /// Waits until the networks that there are now are on the disk.
    fn sync_names(&self) -> Result<()> {
        let dir = &self.config().dir;
        sys::fs::sync(dir).context(|| format!("sync {}", dir.display()))
    }
    /// Makes directories and predefined networks, and forgets what another boot left.
    pub(crate) fn prepare(&self) -> Result<()> {
        let run = &self.config().run_dir;
        let boot = sys::process::boot_id().context(|| "read the boot's id")?;
        let is_known = || std::fs::read_to_string(run.join("boot")).is_ok_and(|known| known.trim() == boot);
        if is_known() && self.path("none").exists() {
            return Ok(());
        }
        for dir in [self.config().dir.as_path(), run] {
            private_dir(dir)?;
        }
        let _lock = self.files_lock()?;
        if !is_known() {
            for dir in ["leases", "endpoints", "ports", "zones"] {
                // Missing on first use.
                let _ = std::fs::remove_dir_all(run.join(dir));
                private_dir(&run.join(dir))?;
            }
            sys::fs::replace_file(run.join("boot"), boot.as_bytes(), 0o600, false)
                .context(|| format!("write {}", run.join("boot").display()))?;
        }
        for (name, driver) in PREDEFINED {
            if self.read(name)?.is_some() {
                continue;
            }
            let mut network = NetworkSpec {
                name: name.to_owned(),
                id: NetworkId::from_bytes(random()),
                created: Timestamp::from_system(std::time::SystemTime::now()),
                driver: driver.to_owned(),
                subnets: Vec::new(),
                internal: false,
                attachable: false,
                ipv4: true,
                ipv6: false,
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
            };
            if name == "bridge" {
                network.options = default_bridge_options(&kernel::default_bridge(&self.config().instance));
                self.settle_subnets(&mut network)?;
            }
            self.write(&network)?;
        }
        Ok(())
    }
    /// Fills in what was not asked for, and refuses what cannot be.
    fn settle_subnets(&self, network: &mut NetworkSpec) -> Result<()> {
        let others = self.list()?;
        for subnet in &network.subnets {
            check_subnet(subnet)?;
            for other in others.iter().filter(|other| other.id != network.id) {
                if let Some(theirs) = other.subnets.iter().find(|theirs| theirs.net.overlaps(&subnet.net)) {
                    return Err(overlap(&subnet.net, &format!("network {} has {}", other.name, theirs.net)));
                }
            }
        }
        if network.driver == "bridge" {
            // Addresses that the bridge itself already has are its own.
            let bridge = kernel::bridge_name(network, &self.config().instance);
            for (held, who) in kernel::occupied(&bridge)? {
                if let Some(subnet) = network.subnets.iter().find(|subnet| held.overlaps(&subnet.net)) {
                    return Err(overlap(&subnet.net, &who));
                }
            }
        }
        if network.ipv4 && !network.subnets.iter().any(|subnet| subnet.net.address.is_ipv4()) {
            let net = self.choose_subnet(network, &others)?;
            network.options.insert(CHOSEN.to_owned(), "true".to_owned());
            network.subnets.insert(0, Subnet { net, gateway: None, range: None, aux: BTreeMap::new() });
        }
        if network.ipv6 && network.subnets.iter().all(|subnet| subnet.net.address.is_ipv4()) {
            let net = choose::local_v6(&random()[..]);
            network.subnets.push(Subnet { net, gateway: None, range: None, aux: BTreeMap::new() });
        }
        network.subnets.sort_by_key(|subnet| !subnet.net.address.is_ipv4());
        for subnet in &mut network.subnets {
            subnet.net = subnet.net.network();
            if subnet.gateway.is_none() {
                subnet.gateway = choose::first_address(&subnet.net);
            }
        }
        Ok(())
    }
    fn choose_subnet(&self, network: &NetworkSpec, others: &[NetworkSpec]) -> Result<Cidr> {
        let bridge = kernel::bridge_name(network, &self.config().instance);
        let mut taken: Vec<Cidr> = kernel::occupied(&bridge)?.into_iter().map(|(held, _)| held).collect();
        let theirs = others.iter().filter(|other| other.id != network.id).flat_map(|other| &other.subnets);
        taken.extend(theirs.map(|subnet| subnet.net));
        let start = u32::from_str_radix(&self.config().instance, 16).unwrap_or(0);
        choose::subnet(&self.config().pools, &taken, start).ok_or_else(|| {
            Error::new(Kind::ResourceExhausted, "all predefined address pools have been fully subnetted")
                .hint("give --subnet, add a pool to default-address-pools in the configuration, or remove unused networks")
        })
    }
    /// Makes sure of a network's subnets once more, where another engine took them before the first bridge was made: what is
    /// leased of a subnet that was given up is refused by [`Networks::connect`], so that it is leased anew.
    ///
    /// # Errors
    /// The subnet was asked for, or there is no free one.
    pub fn choose_again(&self, name: &str) -> Result<()> {
        // Nobody makes the bridge meanwhile.
        let (_kernel, _files) = (self.kernel_lock()?, self.files_lock()?);
        let mut network = self.get(name)?;
        if network.driver == "bridge" && !kernel::has_bridge(&network, &self.config().instance)? {
            self.make_sure_of_subnets(&mut network)?;
        }
        Ok(())
    }
    /// Before the first endpoint: the network's subnets must be free on this machine. One that was chosen is chosen
    /// again, one that was asked for is an error. Under the lock on files.
    pub(crate) fn make_sure_of_subnets(&self, network: &mut NetworkSpec) -> Result<()> {
        let bridge = kernel::bridge_name(network, &self.config().instance);
        let clash = kernel::occupied(&bridge)?
            .into_iter()
            .find(|(held, _)| network.subnets.iter().any(|subnet| subnet.net.overlaps(held)));
        let Some((held, who)) = clash else { return Ok(()) };
        if !network.options.contains_key(CHOSEN) {
            return Err(overlap(&held, &who).within(format!("network {}", network.name)));
        }
        let net = self.choose_subnet(network, &self.list()?)?;
        let gateway = choose::first_address(&net);
        if let Some(subnet) = network.subnets.iter_mut().find(|subnet| subnet.net.address.is_ipv4()) {
            *subnet = Subnet { net, gateway, range: None, aux: BTreeMap::new() };
        }
        self.write(network)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.config().dir.join(name).join("network.json")
    }
    fn read(&self, name: &str) -> Result<Option<NetworkSpec>> {
        read_json(&self.path(name))
    }
    fn write(&self, network: &NetworkSpec) -> Result<()> {
        let path = self.path(&network.name);
        if path.exists() {
            return write_json(&path, network, true);
        }
        let new = self.config().dir.join(format!(".{}", network.id.short()));
        private_dir(&new)?;
        write_json(&new.join("network.json"), network, true)?;
        let dir = self.config().dir.join(&network.name);
        std::fs::rename(&new, &dir).map_err(|error| {
            let _ = std::fs::remove_dir_all(&new);
            if dir.exists() {
                taken(&network.name)
            } else {
                Error::internal(format!("create {}", dir.display())).caused_by(error)
            }
        })?;
        self.sync_names()
    }
}

/// Whether a network cannot be removed.
pub(crate) fn is_predefined(name: &str) -> bool {
    PREDEFINED.iter().any(|(known, _)| *known == name)
}

fn default_bridge_options(bridge: &str) -> BTreeMap<String, String> {
    [
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", "true"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
        ("com.docker.network.bridge.name", bridge),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn taken(name: &str) -> Error {
    Error::new(Kind::AlreadyExists, format!("network with name {name} already exists"))
}

fn overlap(subnet: &Cidr, who: &str) -> Error {
    Error::new(
        Kind::PermissionDenied,
        format!("invalid pool request: Pool overlaps with other one on this address space: {subnet}: {who}"),
    )
    .hint("choose another --subnet, or leave it out")
}

fn check_subnet(subnet: &Subnet) -> Result<()> {
    let net = &subnet.net;
    let limit = if net.address.is_ipv4() { 31 } else { 126 };
    if net.prefix == 0 || net.prefix > limit {
        return Err(Error::invalid(format!("invalid subnet {net}: too small or too large for a network")));
    }
    let inside = |what: &str, ip: IpAddr| {
        if net.contains(ip) {
            Ok(())
        } else {
            Err(Error::invalid(format!("{what} {ip} is not in subnet {net}")))
        }
    };
    if let Some(gateway) = subnet.gateway {
        inside("gateway", gateway)?;
    }
    for ip in subnet.aux.values() {
        inside("auxiliary address", *ip)?;
    }
    match &subnet.range {
        Some(range) if range.prefix < net.prefix || !net.contains(range.address) => {
            Err(Error::invalid(format!("ip-range {range} is not in subnet {net}")))
        }
        _ => Ok(()),
    }
}

/// Docker takes any name that is not blank; here it names a directory too.
fn is_valid(name: &str) -> bool {
    name.len() <= model::limits::NAME_BYTES
        && !name.trim().is_empty()
        && !name.starts_with('.')
        && !name.chars().any(|letter| letter == '/' || letter.is_control())
}

pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    // 32 bytes are never cut short; without getrandom(2) (before Linux 3.17) nothing else here runs either.
    while rustix::rand::getrandom(bytes.as_mut_slice(), rustix::rand::GetRandomFlags::empty()).is_err() {}
    bytes
}

pub(crate) fn private_dir(path: &Path) -> Result<()> {
    sys::fs::private_dir(path).context(|| format!("create {}", path.display()))
}

/// Names in a directory; none where it is missing.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    sys::fs::names(dir).context(|| format!("read directory {}", dir.display()))
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(|| format!("read {}", path.display())),
    };
    let bad = |error| Error::internal(format!("read {}", path.display())).caused_by(error);
    serde_json::from_slice(&bytes).map(Some).map_err(bad)
}

pub(crate) fn write_json<T: serde::Serialize>(path: &Path, value: &T, sync: bool) -> Result<()> {
    let what = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(value).map_err(|error| Error::internal(what()).caused_by(error))?;
    sys::fs::replace_file(path, &bytes, 0o600, sync).context(what)
}
