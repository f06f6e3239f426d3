//! Bytes at rest: blobs, layers, snapshots, tags, archives, volumes, registries.
//!
//! The directory is the index; write-temp, fsync, rename is the transaction; flock is the exclusion. `ls` and `cat`
//! are the debugger. [`layout`] is the one place that knows the paths.

pub mod archive;
pub mod blob;
mod check;
mod copy;
mod format;
pub mod image;
pub mod layer;
pub mod layout;
pub mod registry;
pub mod snapshot;
pub mod tree;
pub mod volume;

use model::Result;
use model::error::Context as _;

/// One root's store.
pub struct Store {
    /// Its paths.
    pub layout: layout::Layout,
    /// This process has looked for what killed ones left in `ingest/`.
    swept: std::sync::Once,
}

/// Keeps blobs and layers from being collected while no image names them yet: held by whoever pulls, loads, builds
/// or creates a container, from the first blob or look-up until the record that names them is written. Many can hold
/// one; a collection that meets a lease leaves its garbage to the next collection.
#[derive(Debug)]
pub struct Lease {
    _lock: sys::fs::Lock,
}

impl Store {
    /// Opens a root, making it (0700) if it is new.
    ///
    /// # Errors
    /// The root cannot be made, or `format.json` names a feature that this version does not know.
    pub fn open(layout: layout::Layout) -> Result<Self> {
        layout.create()?;
        format::check(&layout)?;
        Ok(Self { layout, swept: std::sync::Once::new() })
    }
    /// A lease on everything in the store.
    ///
    /// # Errors
    /// The lock cannot be opened.
    pub fn lease(&self) -> Result<Lease> {
        let _lock = sys::fs::Lock::shared(self.layout.lock("store")).context(|| "lock the store")?;
        Ok(Lease { _lock })
    }
}

/// 32 random hexadecimal digits: a name that nobody else has.
pub(crate) fn random_name() -> String {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // Only a kernel before 3.17 has no getrandom(2); this one runs on 5.6 and later (openat2).
            Err(error) => unreachable!("getrandom: {error}"),
        }
    }
    format!("{:032x}", u128::from_ne_bytes(bytes))
}
