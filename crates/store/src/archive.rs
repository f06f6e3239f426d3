//! Archives: `save` and `load` of images, `import` and `export` of root file systems.
//!
//! What is saved is an OCI image layout in a tar, with Docker's `manifest.json` and `repositories` beside it, as Docker
//! has written it since version 25: older ones load it by `manifest.json`, others by `index.json`. Blobs go in as they
//! are in the store, compressed or not.
//!
//! What is loaded may be that, an older Docker's archive (`<id>/layer.tar`, links among them) or a plain OCI layout;
//! plain, gzip or zstd outside. Members come in any order: every file becomes a verified blob while it arrives, and is
//! garbage if nothing names it. Nothing is written by a name from the archive; links are resolved among the archive's
//! own names.

mod import;
mod load;
mod save;

pub use import::Import;
pub use load::Loaded;

use model::Result;
use std::io::Write;
use std::os::fd::BorrowedFd;

use crate::tree::{Pack, Whiteouts};

/// Docker's `manifest.json`: one entry an image.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default, deserialize_with = "nullable")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    layers: Vec<String>,
}

fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    use serde::Deserialize as _;
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

/// Writes a directory tree (a container's merged view) as a tar: what `export` gives.
///
/// # Errors
/// Names the file that could not be read.
pub fn write_tree(root: BorrowedFd<'_>, archive: impl Write) -> Result<u64> {
    crate::tree::pack(root, b"", archive, &Pack { whiteouts: Whiteouts::Plain, base: Vec::new() })
}

/// How a stream is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

fn compression(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}
