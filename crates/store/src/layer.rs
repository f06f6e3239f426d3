//! Layers: `layers/<chain hex>/{diff/,layer.json,unsynced}`, read-only once they are there.
//!
//! A layer is unpacked or committed under a temporary name (`layers/.tmp-…`) and renamed when it is complete; a
//! temporary one that a crash left is removed by the next collection. The lock `layer-<two digits>` keeps two processes
//! from unpacking the same one. Nothing is fsynced file by file: an image's record waits for all of it at once, and takes
//! `unsynced` away, a file that holds the boot's id. A layer that has it from another boot may lack anything: it is not
//! there, and whoever makes it again takes its place.

use model::container::HostPath;
use model::digest::chain_id;
use model::error::Context as _;
use model::image::Descriptor;
use model::{Digest, Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::Store;
use crate::tree::stream;
use crate::tree::{self, Unpack, Whiteouts};

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
    pub fn unpack_layer(
        &self,
        parent: Option<&Digest>,
        blob: &Descriptor,
        diff_id: Option<&Digest>,
    ) -> Result<Layer> {
        let file = self.open_blob(&blob.digest)?;
        self.unpack_stream(parent, file, Some(blob), diff_id)
    }
    /// As [`Store::unpack_layer`], from a stream while it arrives. `blob` describes the blob that will hold the
    /// stream's bytes, if it is known beforehand. The stream is not read where the layer is there already.
    ///
    /// # Errors
    /// As [`Store::unpack_layer`].
    pub fn unpack_stream(
        &self,
        parent: Option<&Digest>,
        source: impl Read + Send,
        blob: Option<&Descriptor>,
        diff_id: Option<&Digest>,
    ) -> Result<Layer> {
        let _lock = match diff_id {
            Some(diff_id) => {
                let chain = chain_id(parent, diff_id);
                let lock =
                    sys::fs::Lock::exclusive_long(self.layout.lock(&format!("layer-{}", &chain.hex()[..2])))
                        .context(|| format!("lock layer {chain}"))?;
                if let Some(there) = self.layer(&chain)? {
                    return Ok(there);
                }
                Some(lock)
            }
            None => None,
        };
        let temporary = self.temporary_layer()?;
        make_diff(&temporary.diff())?;
        let diff = sys::fs::open_root(temporary.diff())
            .context(|| format!("open {}", temporary.diff().display()))?;
        let how = Unpack { whiteouts: Whiteouts::Overlay, owner: None, keep_kinds: false };
        let (unpacked, found) = stream::unpack_compressed(source, |plain| match parent {
            Some(parent) => {
                let below = || self.mount_detached(&self.lower_of_chain(parent)?, None);
                tree::unpack_over(diff.as_fd(), plain, &how, &below)
            }
            None => tree::unpack(diff.as_fd(), plain, &how),
        })
        .map_err(|error| match blob {
            Some(blob) => error.within(format_args!("layer {}", blob.digest)),
            None => error.within("layer"),
        })?;
        if let Some(expected) = diff_id
            && *expected != found
        {
            return Err(Error::invalid(format!("layer {expected}: its content has the digest {found}")));
        }
        sys::failpoint!("layer: unpacked");
        let layer = Layer {
            chain: chain_id(parent, &found),
            parent: parent.cloned(),
            diff_id: found,
            size: unpacked.size,
            blob: blob.cloned(),
        };
        temporary.publish(&layer)
    }
    /// The record of a layer by chain id; `None` where there is none.
    ///
    /// # Errors
    /// The record is malformed.
    pub fn layer(&self, chain: &Digest) -> Result<Option<Layer>> {
        let path = self.layout.layer(chain).join(RECORD);
        if self.is_torn(chain)? {
            return Ok(None);
        }
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                Error::internal(format!("{}: it is malformed", path.display())).caused_by(error)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        }
    }
    /// The directories of a layer and those below it, uppermost first.
    fn lower_of_chain(&self, chain: &Digest) -> Result<Vec<HostPath>> {
        let mut paths = Vec::new();
        let mut next = Some(chain.clone());
        while let Some(chain) = next {
            let layer = self
                .layer(&chain)?
                .ok_or_else(|| Error::not_found(format!("layer {chain}: it is not in the store")))?;
            paths.push(HostPath(self.layout.layer_diff(&chain)));
            next = layer.parent;
        }
        Ok(paths)
    }
    /// Whether a layer was not waited for, and the machine has booted since.
    pub(crate) fn is_torn(&self, chain: &Digest) -> Result<bool> {
        let path = self.layout.layer(chain).join(UNSYNCED);
        match std::fs::read(&path) {
            Ok(boot) => Ok(boot != this_boot()?.as_bytes()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        }
    }
    /// Waits until these layers are on the disk, whoever made them. An image's record promises that they are; file by file
    /// this would cost an fsync each.
    pub(crate) fn sync_layers(&self, chains: &[Digest]) -> Result<()> {
        let marks = chains.iter().map(|chain| self.layout.layer(chain).join(UNSYNCED));
        let marks: Vec<PathBuf> = marks.filter(|mark| mark.exists()).collect();
        if marks.is_empty() {
            return Ok(());
        }
        let what = || format!("sync {}", self.layout.layers().display());
        let dir = sys::fs::open_root(self.layout.layers()).context(what)?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let dir = sys::fs::open_in_root(&dir, ".", flags, 0).context(what)?;
        rustix::fs::syncfs(&dir).map_err(std::io::Error::from).context(what)?;
        for mark in &marks {
            sys::fs::remove(mark).context(|| format!("remove {}", mark.display()))?;
        }
        // Before the record: with the mark it would be no image after a loss of power.
        marks.iter().filter_map(|mark| mark.parent()).try_for_each(|dir| sys::fs::sync(dir).context(what))
    }
    /// Deletes a layer. Out of sight first: half a layer must not look like one.
    pub(crate) fn discard_layer(&self, chain: &Digest) -> Result<()> {
        let trash = self.layout.trash().join(crate::random_name());
        std::fs::rename(self.layout.layer(chain), &trash).context(|| format!("remove layer {chain}"))?;
        sys::failpoint!("layer: in the trash");
        crate::check::remove(&trash)
    }
    /// A place for a layer in the making.
    pub(crate) fn temporary_layer(&self) -> Result<Temporary<'_>> {
        let lease = self.lease()?;
        let path = self.layout.layers().join(format!("{TEMPORARY}{}", crate::random_name()));
        DirBuilder::new().mode(0o700).create(&path).context(|| format!("create {}", path.display()))?;
        let temporary = Temporary { store: self, path, published: false, _lease: lease };
        let mark = temporary.path.join(UNSYNCED);
        sys::fs::private_file(&mark, this_boot()?.as_bytes())
            .context(|| format!("write {}", mark.display()))?;
        Ok(temporary)
    }
}

fn this_boot() -> Result<&'static str> {
    sys::process::boot_id().context(|| "read the boot's id")
}

const RECORD: &str = "layer.json";
const UNSYNCED: &str = "unsynced";
/// How the names of layers in the making begin.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A layer in the making. Dropping it removes it.
pub(crate) struct Temporary<'a> {
    store: &'a Store,
    path: PathBuf,
    published: bool,
    /// A collection takes those that nobody makes any more.
    _lease: crate::Lease,
}

impl Temporary<'_> {
    /// Where its tree goes. Not made yet.
    pub(crate) fn diff(&self) -> PathBuf {
        self.path.join("diff")
    }
    /// Gives it its name. A layer of that name that is there already stays, and its record is returned.
    pub(crate) fn publish(mut self, layer: &Layer) -> Result<Layer> {
        let json = serde_json::to_vec(layer).map_err(|error| Error::internal(RECORD).caused_by(error))?;
        let record = self.path.join(RECORD);
        sys::fs::private_file(&record, &json).context(|| format!("write {}", record.display()))?;
        sys::failpoint!("layer: recorded");
        self.published = self.name(&layer.chain)?;
        if !self.published && self.store.layer(&layer.chain)?.is_none() {
            self.replace(&layer.chain)?;
        }
        sys::failpoint!("layer: named");
        Ok(layer.clone())
    }
    /// False: another process was first, with the same bytes.
    fn name(&self, chain: &Digest) -> Result<bool> {
        let target = self.store.layout.layer(chain);
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(rustix::fs::CWD, &self.path, rustix::fs::CWD, &target, flags) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(std::io::Error::from(error)).context(|| format!("name layer {chain}")),
        }
    }
    /// Takes the place of a torn layer, unless somebody else has done so meanwhile.
    fn replace(&mut self, chain: &Digest) -> Result<()> {
        let lock = self.store.layout.lock("torn-layers");
        let _lock = sys::fs::Lock::exclusive(&lock).context(|| format!("lock {}", lock.display()))?;
        if self.store.layer(chain)?.is_none() {
            self.store.discard_layer(chain)?;
            self.published = self.name(chain)?;
        }
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.published {
            // What stays is removed by the next collection.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The root of a layer's tree: 0755 whatever the umask.
fn make_diff(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o755).create(path).context(|| format!("create {}", path.display()))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .context(|| format!("create {}", path.display()))
}
