//! Writable snapshots: an overlay's upper directory on top of committed layers.
//!
//! A container's is `containers/<id>/rw/{upper,work}`; a build step's lies under `build/`. Which layers are below is
//! not stored here: the owner's record (spec, build step) says it, and [`lower`] turns it into directories.

use model::container::HostPath;
use model::{Digest, Error, Kind, Result};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::Store;

/// The directories of a writable snapshot.
#[derive(Clone, Debug)]
pub struct Writable {
    /// Overlay's upper directory.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
    /// Mount it so that nothing is ever flushed for it (overlay's `volatile`): `--rm` and build steps only.
    pub volatile: bool,
}

impl Store {
    /// The read-only directories of a stack of layers, uppermost first, as overlay wants them.
    ///
    /// # Errors
    /// A layer is missing (named).
    pub fn lower(&self, _diff_ids: &[Digest]) -> Result<Vec<HostPath>> {
        Err(Error::new(Kind::NotImplemented, "lower"))
    }
    /// The same for an image by id, also for one that was removed while containers use it.
    ///
    /// # Errors
    /// The configuration or a layer is missing (named).
    pub fn lower_of_image(&self, _image: &Digest) -> Result<Vec<HostPath>> {
        Err(Error::new(Kind::NotImplemented, "lower_of_image"))
    }
    /// Makes an empty writable snapshot in this directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create_writable(&self, _dir: &Path) -> Result<Writable> {
        Err(Error::new(Kind::NotImplemented, "create_writable"))
    }
    /// The merged view as a descriptor of a detached overlay mount (`fsmount(2)`), seen by nobody else and gone with
    /// the descriptor. With `writable: None` it is read-only.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn mount_detached(&self, _lower: &[HostPath], _writable: Option<&Writable>) -> Result<OwnedFd> {
        Err(Error::new(Kind::NotImplemented, "mount_detached"))
    }
    /// Commits what a writable snapshot changed as a new layer on top of `parent` (its chain id): writes the blob
    /// (uncompressed tar, whiteouts as `.wh.`), moves or copies the tree to `layers/`. `consume` says whether the
    /// upper directory may be moved (build steps) or must stay (`commit` of a container).
    /// Returns the diff id and the size of the blob. An unchanged snapshot gives the well-known empty layer.
    ///
    /// # Errors
    /// Names the path that could not be read or written.
    pub fn commit_layer(&self, _parent: Option<&Digest>, _writable: &Writable, _consume: bool) -> Result<(Digest, u64)> {
        Err(Error::new(Kind::NotImplemented, "commit_layer"))
    }
}
