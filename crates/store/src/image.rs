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
    /// Records an image that came from elsewhere (pull, load), with the manifest and the configuration as they came:
    /// both become blobs. The layers' blobs are there and unpacked.
    ///
    /// # Errors
    /// A document is malformed, does not match the other, or a layer is missing.
    pub fn put_image_with_manifest(&self, _manifest: &[u8], _config: &[u8]) -> Result<Image> {
        missing("put_image_with_manifest")
    }
    /// Adds `name@digest` of a registry that the image came from or went to.
    ///
    /// # Errors
    /// The image is gone, or a write failed.
    pub fn add_repo_digest(&self, _image: &Digest, _reference: &Reference) -> Result<()> {
        missing("add_repo_digest")
    }
    /// The configuration of an image by id, also of one that was removed while containers use it.
    ///
    /// # Errors
    /// `No such image: …`.
    pub fn image_config(&self, _id: &Digest) -> Result<ImageConfig> {
        missing("image_config")
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
    /// Removes an untagged image and what only it held: blobs and layers that no other image needs and that `in_use`
    /// does not name. `in_use` gives ids of images (of containers and builds) and chain ids (of cached build steps); it
    /// is asked while the store is locked. Returns the digests that were deleted: the image id, then chain ids of
    /// layers from the top down.
    ///
    /// # Errors
    /// It still has tags, or a deletion failed.
    pub fn remove_image(&self, _image: &Digest, _in_use: &dyn Fn() -> Result<Vec<Digest>>) -> Result<Vec<Digest>> {
        missing("remove_image")
    }
    /// Deletes the blobs and layers that nobody needs, see [`Store::remove_image`], and what a crash left behind.
    ///
    /// # Errors
    /// A record cannot be read (then nothing is deleted), or a deletion failed.
    pub fn collect(&self, _in_use: &dyn Fn() -> Result<Vec<Digest>>) -> Result<Collected> {
        missing("collect")
    }
}

/// What a collection deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chain ids of layers, uppermost first.
    pub layers: Vec<Digest>,
    /// Bytes of blobs and layers.
    pub bytes: u64,
}
