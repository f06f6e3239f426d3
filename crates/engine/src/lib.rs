//! The façade: everything that the engine does, as synchronous calls. It knows no HTTP and prints nothing.
//!
//! Many short-lived processes share one root. A container is changed under its own lock (`locks/container-<id>`),
//! names and tags by atomic file operations; whoever dies half-way leaves something that the next caller mends.

pub use model;
/// For the clients above: they have places where a test has them killed, too.
pub use sys::failpoint;

pub mod attach;
pub mod bootstrap;
pub mod build;
pub mod changes;
pub mod commit;
pub mod config;
pub mod container;
pub mod copy;
pub mod doctor;
pub mod event;
pub mod exec;
pub mod image;
pub mod log;
pub mod network;
pub mod prune;
pub mod system;
pub mod top;
pub mod transfer;
pub mod undo;
pub mod volume;
pub mod watch;

use model::Result;
use std::path::PathBuf;

/// Where an engine keeps things.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Durable: `/var/lib/cauldron`.
    pub root: PathBuf,
    /// Dies with the boot: `/run/cauldron`.
    pub run_root: PathBuf,
    /// The configuration file; one that is named must exist.
    pub config: Option<PathBuf>,
}

/// One engine on one root. Opening it is cheap: no scan, no lock.
pub struct Engine {
    pub(crate) store: store::Store,
    pub(crate) networks: net::Networks,
    pub(crate) config: config::Config,
    pub(crate) roots: Roots,
    pub(crate) specs: container::Specs,
    /// The containers that run, in a process that keeps them ([`Engine::keep_known`]).
    pub(crate) known: std::sync::Mutex<Option<container::known::Known>>,
    /// Ids of the predefined networks, which never change, once they were asked for.
    pub(crate) predefined: std::sync::Mutex<std::collections::BTreeMap<String, String>>,
}

impl Engine {
    /// Opens the engine of these roots.
    ///
    /// # Errors
    /// The configuration is malformed, or a root cannot be made.
    pub fn open(roots: Roots) -> Result<Self> {
        let config = config::Config::load(roots.config.as_deref())?;
        let layout = store::layout::Layout { root: roots.root.clone(), run_root: roots.run_root.clone() };
        let networks = net::Networks::open(config.networks(&layout))?;
        Ok(Self {
            store: store::Store::open(layout)?,
            networks,
            config,
            roots,
            specs: Default::default(),
            known: Default::default(),
            predefined: Default::default(),
        })
    }
    /// With further registries than the configuration file has.
    #[must_use]
    pub fn with_registries(mut self, more: config::Registries) -> Self {
        self.config.registry_mirrors.extend(more.mirrors);
        self.config.insecure_registries.extend(more.insecure);
        self
    }
    /// The configuration in force.
    pub fn config(&self) -> &config::Config {
        &self.config
    }
}

/// The time now. The one place where the engine reads the clock.
pub(crate) fn now() -> model::time::Timestamp {
    model::time::Timestamp::from_system(std::time::SystemTime::now())
}
