//! Bytes at rest: blobs, layers, snapshots, tags, archives, volumes, registries.
//!
//! The directory is the index; write-temp, fsync, rename is the transaction; flock is the exclusion. `ls` and `cat`
//! are the debugger. [`layout`] is the one place that knows the paths.

pub mod archive;
pub mod blob;
mod copy;
pub mod image;
pub mod layer;
pub mod layout;
pub mod registry;
pub mod snapshot;
pub mod volume;

use model::Result;

/// One root's store.
pub struct Store {
    /// Its paths.
    pub layout: layout::Layout,
}

impl Store {
    /// Opens a root, making it (0700) if it is new.
    ///
    /// # Errors
    /// The root cannot be made, or `format.json` names a feature that this version does not know.
    pub fn open(layout: layout::Layout) -> Result<Self> {
        layout.create()?;
        Ok(Self { layout })
    }
}
