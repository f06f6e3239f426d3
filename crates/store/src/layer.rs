//! Layers: `layers/<chain hex>/{diff/,layer.json}`, read-only once they are there.
//!
//! A layer is unpacked or committed under a temporary name (`layers/.tmp-…`) and renamed when it is complete; one
//! without `layer.json` does not count. The lock `layer-<two digits>` keeps two processes from unpacking the same one.
//! Nothing is fsynced file by file.

use model::image::Descriptor;
use model::{Digest, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::io::Read;

use crate::Store;

/// A layer's record, `layer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its chain id: the name of its directory.
    pub chain: Digest,
    /// The chain id of the layer below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// The digest of its uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the regular files in it.
    pub size: u64,
    /// The blob that it was unpacked from, or that was written when it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
}

impl Store {
    /// Unpacks a blob (tar, plain or compressed with gzip or zstd: its first bytes decide, not the media type) as a
    /// layer on top of `parent` (a chain id). If that layer is there already and `diff_id` is known, nothing is read.
    ///
    /// # Errors
    /// Names the member that was refused or could not be written, or both digests. Nothing is left then.
    pub fn unpack_layer(&self, _parent: Option<&Digest>, _blob: &Descriptor, _diff_id: Option<&Digest>) -> Result<Layer> {
        Err(Error::new(Kind::NotImplemented, "unpack_layer"))
    }
    /// As [`Store::unpack_layer`], from a stream while it arrives. `blob` describes the blob that will hold the
    /// stream's bytes, if it is known beforehand.
    ///
    /// # Errors
    /// As [`Store::unpack_layer`].
    pub fn unpack_stream(
        &self,
        _parent: Option<&Digest>,
        _source: impl Read + Send,
        _blob: Option<&Descriptor>,
        _diff_id: Option<&Digest>,
    ) -> Result<Layer> {
        Err(Error::new(Kind::NotImplemented, "unpack_stream"))
    }
    /// The record of a layer by chain id; `None` where there is none.
    ///
    /// # Errors
    /// The record is malformed.
    pub fn layer(&self, _chain: &Digest) -> Result<Option<Layer>> {
        Err(Error::new(Kind::NotImplemented, "layer"))
    }
}
