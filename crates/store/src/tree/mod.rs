//! Directory trees to and from tar streams: what layers, `cp`, `export` and volumes are made with.
//!
//! Reading takes ustar, GNU (long names, sparse files, base-256 numbers) and PAX (xattrs, sparse files, times). Every
//! path is opened below the root's descriptor with `openat2(RESOLVE_IN_ROOT)`. Writing is PAX and deterministic: sorted,
//! numeric owners, times of whole seconds, so that the same tree gives the same digest.

mod clamp;
pub(crate) mod header;
mod pack;
pub(crate) mod reader;
pub mod stream;
mod unpack;

pub use clamp::clamp_times;

use model::Result;
use std::io::{BufRead, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

/// How `.wh.` members are taken, and how overlay's whiteouts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Layers: `.wh.x` becomes overlay's character device 0/0, `.wh..wh..opq` the xattr `trusted.overlay.opaque`;
    /// and back.
    Overlay,
    /// Merged trees (`cp`, `export`, `import` into a directory): no special meaning.
    Plain,
}

/// How a tree is unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Unpack {
    /// Whiteouts.
    pub whiteouts: Whiteouts,
    /// Owner and group for everything instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// Refuse to replace a directory by something else and the other way round (`cp`'s `noOverwriteDirNonDir`).
    pub keep_kinds: bool,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Members.
    pub entries: u64,
    /// Bytes of regular files.
    pub size: u64,
}

/// How a tree is packed.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Whiteouts.
    pub whiteouts: Whiteouts,
    /// The member name of the tree's root. Empty: the root itself is no member and members are named relative to it
    /// (layers, `export`). `cp` sets the base name.
    pub base: Vec<u8>,
}

/// Unpacks a plain tar stream below a directory.
///
/// # Errors
/// Names the member. What was unpacked before it stays: the caller removes the tree.
pub fn unpack(root: BorrowedFd<'_>, archive: impl BufRead, how: &Unpack) -> Result<Unpacked> {
    unpack::run(root, archive, how, None)
}

/// As [`unpack`], for a layer: a hard link may lead to a file of the layers below, whose merged tree `below` opens when it
/// is first asked for. Such a file is copied up, as overlay does it.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_over(
    root: BorrowedFd<'_>,
    archive: impl BufRead,
    how: &Unpack,
    below: Below<'_>,
) -> Result<Unpacked> {
    unpack::run(root, archive, how, Some(below))
}

/// Opens the tree of the layers below.
pub type Below<'a> = &'a dyn Fn() -> Result<OwnedFd>;

/// Writes the tree (or the single file) at `path` below `root` as a tar stream, with its end marker. A link in the
/// last component is not followed. Returns the bytes of regular files.
///
/// # Errors
/// Names the file.
pub fn pack(root: BorrowedFd<'_>, path: &[u8], archive: impl Write, how: &Pack) -> Result<u64> {
    pack::run(root, path, archive, how)
}

/// A member's name for an error: quoted, control characters escaped, not endless.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
