//! Images and tags. An image is its configuration blob; its manifest says under which blobs its layers lie.
//!
//! `tags/` holds one small file a tag: the reference's name and tag, the manifest digest and the image id. They are
//! the roots for garbage collection. An image without a tag stays as long as `images/<config hex>.json` names it.

use model::image::{ImageConfig, Manifest};
use model::{Digest, Error, Kind, Reference, Result};

use crate::Store;

/// An image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the configuration: Docker's image id.
    pub id: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// The digest of the manifest that the layers' blobs are listed in.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// Tags (`name:tag`).
    pub tags: Vec<Reference>,
    /// `name@digest` of registries that it came from or went to.
    pub repo_digests: Vec<Reference>,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// When its last tag changed (Docker's `LastTagTime`).
    pub tagged: model::time::Timestamp,
}

fn missing<T>(what: &str) -> Result<T> {
    Err(Error::new(Kind::NotImplemented, what))
}

impl Store {
    /// Finds an image by name, `name@digest`, id or unambiguous id prefix (with or without `sha256:`); a name that is
    /// also an id prefix is a name first, as in Docker.
    ///
    /// # Errors
    /// `No such image: …` ([`Kind::NotFound`]), or an ambiguous prefix.
    pub fn image(&self, _name: &str) -> Result<Image> {
        missing("image")
    }
    /// All images, newest first.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        missing("images")
    }
    /// Records an image made here (build, commit, import): writes configuration and manifest. Its layers are committed.
    ///
    /// # Errors
    /// A layer is missing, or a write failed.
    pub fn put_image(&self, _config: &ImageConfig) -> Result<Image> {
        missing("put_image")
    }
    /// Points a tag at an image, moving it if it exists. Returns the image that lost it.
    ///
    /// # Errors
    /// The image is gone, or a write failed.
    pub fn tag(&self, _reference: &Reference, _image: &Digest) -> Result<Option<Digest>> {
        missing("tag")
    }
    /// Removes a tag only.
    ///
    /// # Errors
    /// There is no such tag.
    pub fn untag(&self, _reference: &Reference) -> Result<()> {
        missing("untag")
    }
    /// Removes an untagged image and what only it held: blobs and layers that no image and no container in `in_use` needs.
    /// Returns the digests that were deleted, layers by chain id.
    ///
    /// # Errors
    /// It still has tags, or a deletion failed.
    pub fn remove_image(&self, _image: &Digest, _in_use: &[Digest]) -> Result<Vec<Digest>> {
        missing("remove_image")
    }
}
