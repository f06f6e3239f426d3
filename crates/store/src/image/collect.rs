//! Removal of images, and of the blobs and layers that nobody needs: mark from the records, sweep the rest.

use model::digest::chain_id;
use model::error::Context as _;
use model::image::Manifest;
use model::{Digest, Error, Result, limits};
use std::collections::HashSet;
use std::path::Path;

use super::{no_such_image, parse};
use crate::Store;
use crate::check::{names, remove};
use crate::layer::TEMPORARY;

/// What a collection deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chain ids of layers, uppermost first.
    pub layers: Vec<Digest>,
    /// Bytes of blobs and layers.
    pub bytes: u64,
}

/// What a collection would delete.
#[derive(Debug, Default)]
pub(crate) struct Unneeded {
    pub(crate) layers: Vec<Digest>,
    /// How many.
    pub(crate) blobs: usize,
    pub(crate) bytes: u64,
}

/// What is needed.
#[derive(Default)]
struct Needed {
    blobs: HashSet<Digest>,
    layers: HashSet<Digest>,
}

impl Store {
    /// Removes an untagged image and what only it held: blobs and layers that no other image needs and that `in_use`
    /// does not name. `in_use` gives ids of images (of containers and builds) and chain ids (of cached build steps); it
    /// is asked while the store is locked. Returns the digests that were deleted: the image id, then chain ids of
    /// layers from the top down (none where somebody holds a lease: a later collection takes them).
    ///
    /// # Errors
    /// It still has tags, or a deletion failed.
    pub fn remove_image(
        &self,
        image: &Digest,
        in_use: &dyn Fn() -> Result<Vec<Digest>>,
    ) -> Result<Vec<Digest>> {
        {
            let _changing = self.lock_images()?;
            let found = self.image_by_id(image)?.ok_or_else(|| no_such_image(image.as_str()))?;
            if !found.tags.is_empty() {
                return Err(Error::conflict(format!(
                    "image {} is referenced by {} tags",
                    image.short(),
                    found.tags.len()
                )));
            }
            std::fs::remove_file(self.layout.image(image)).context(|| format!("remove image {image}"))?;
            sys::failpoint!("image: removed");
            // Before its layers go: half an image must not come back.
            let images = self.layout.images();
            sys::fs::sync(&images).context(|| format!("sync {}", images.display()))?;
        }
        let mut deleted = vec![image.clone()];
        deleted.extend(self.collect(in_use)?.layers);
        Ok(deleted)
    }
    /// Deletes the blobs and layers that nobody needs, see [`Store::remove_image`], and what a crash left behind.
    /// Does nothing while somebody holds a lease.
    ///
    /// # Errors
    /// A record cannot be read (then nothing is deleted), or a deletion failed.
    pub fn collect(&self, in_use: &dyn Fn() -> Result<Vec<Digest>>) -> Result<Collected> {
        let lock = sys::fs::Lock::try_exclusive(self.layout.lock("store")).context(|| "lock the store")?;
        let Some(_lock) = lock else { return Ok(Collected::default()) };
        let needed = self.needed(in_use)?;
        let mut collected = Collected::default();
        self.sweep_layers(&needed, &mut collected)?;
        self.sweep_blobs(&needed, &mut collected)?;
        sweep_all(&self.layout.ingest())?;
        Ok(collected)
    }
    /// What [`Store::collect`] would delete now.
    pub(crate) fn unneeded(&self, in_use: &dyn Fn() -> Result<Vec<Digest>>) -> Result<Unneeded> {
        let lock = sys::fs::Lock::try_exclusive(self.layout.lock("store")).context(|| "lock the store")?;
        let Some(_lock) = lock else { return Ok(Unneeded::default()) };
        let needed = self.needed(in_use)?;
        let mut unneeded = Unneeded::default();
        for name in names(&self.layout.layers())? {
            let Ok(chain) = Digest::parse(&format!("sha256:{name}")) else { continue };
            if !needed.layers.contains(&chain) {
                unneeded.bytes += self.layer(&chain).ok().flatten().map_or(0, |layer| layer.size);
                unneeded.layers.push(chain);
            }
        }
        for name in names(&self.layout.blobs())? {
            let Ok(digest) = Digest::parse(&format!("sha256:{name}")) else { continue };
            if !needed.blobs.contains(&digest) {
                unneeded.bytes += self.blob_size(&digest)?.unwrap_or(0);
                unneeded.blobs += 1;
            }
        }
        Ok(unneeded)
    }
    fn needed(&self, in_use: &dyn Fn() -> Result<Vec<Digest>>) -> Result<Needed> {
        let mut needed = Needed::default();
        for id in self.image_ids()? {
            self.mark_image(&id, &mut needed)?;
            if let Some(record) = self.image_record(&id)? {
                let manifest = self.read_blob(&record.manifest, limits::MANIFEST_BYTES)?;
                let manifest: Manifest = parse("manifest", &manifest, limits::MANIFEST_BYTES)?;
                needed.blobs.insert(record.manifest);
                needed.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            }
        }
        for digest in in_use()? {
            self.mark_image(&digest, &mut needed)?;
            self.mark_layer(&digest, &mut needed)?;
        }
        Ok(needed)
    }

    /// The configuration of an image and its layers; nothing, where there is no such configuration.
    fn mark_image(&self, id: &Digest, needed: &mut Needed) -> Result<()> {
        if self.blob_size(id)?.is_none() {
            return Ok(());
        }
        needed.blobs.insert(id.clone());
        // A cached step's chain id may be the digest of a layer's blob: that is no configuration.
        let Ok(config) = self.image_config(id) else { return Ok(()) };
        let mut chain: Option<Digest> = None;
        for diff_id in &config.rootfs.diff_ids {
            chain = Some(chain_id(chain.as_ref(), diff_id));
        }
        chain.map_or(Ok(()), |top| self.mark_layer(&top, needed))
    }
    /// A layer, those below it, and their blobs.
    fn mark_layer(&self, chain: &Digest, needed: &mut Needed) -> Result<()> {
        let mut next = Some(chain.clone());
        while let Some(chain) = next.take() {
            if !needed.layers.insert(chain.clone()) {
                return Ok(());
            }
            let Some(layer) = self.layer(&chain)? else { return Ok(()) };
            needed.blobs.extend(layer.blob.map(|blob| blob.digest));
            next = layer.parent;
        }
        Ok(())
    }
    fn sweep_layers(&self, needed: &Needed, collected: &mut Collected) -> Result<()> {
        let mut doomed = Vec::new();
        for name in names(&self.layout.layers())? {
            let path = self.layout.layers().join(&name);
            if name.starts_with(TEMPORARY) {
                // Whoever makes one holds a lease: a crash left this.
                remove(&path)?;
            } else if let Ok(chain) = Digest::parse(&format!("sha256:{name}"))
                && !needed.layers.contains(&chain)
            {
                let layer = self.layer(&chain).ok().flatten();
                doomed.push((chain, layer));
            }
        }
        let parents: HashSet<Digest> =
            doomed.iter().filter_map(|(_, layer)| layer.as_ref()?.parent.clone()).collect();
        for (chain, layer) in uppermost_first(doomed, parents) {
            self.discard_layer(&chain)?;
            collected.bytes += layer.map_or(0, |layer| layer.size);
            collected.layers.push(chain);
        }
        Ok(())
    }
    fn sweep_blobs(&self, needed: &Needed, collected: &mut Collected) -> Result<()> {
        for name in names(&self.layout.blobs())? {
            let Ok(digest) = Digest::parse(&format!("sha256:{name}")) else { continue };
            if !needed.blobs.contains(&digest) {
                collected.bytes += self.blob_size(&digest)?.unwrap_or(0);
                std::fs::remove_file(self.layout.blob(&digest))
                    .context(|| format!("remove blob {digest}"))?;
                sys::failpoint!("blob: removed");
            }
        }
        Ok(())
    }
}

type Doomed = (Digest, Option<crate::layer::Layer>);

/// Sorts layers so that each comes before the one below it. `parents`: those that have one above them.
fn uppermost_first(doomed: Vec<Doomed>, parents: HashSet<Digest>) -> Vec<Doomed> {
    let tops: Vec<Digest> =
        doomed.iter().map(|(chain, _)| chain.clone()).filter(|chain| !parents.contains(chain)).collect();
    let mut left: std::collections::BTreeMap<Digest, Option<crate::layer::Layer>> =
        doomed.into_iter().collect();
    let mut children = std::collections::BTreeMap::<Digest, usize>::new();
    for parent in left.values().flatten().filter_map(|layer| layer.parent.clone()) {
        *children.entry(parent).or_default() += 1;
    }
    let mut order = Vec::with_capacity(left.len());
    for top in tops {
        let mut next = Some(top);
        while let Some((chain, layer)) = next.take().and_then(|chain| left.remove_entry(&chain)) {
            let parent = layer.as_ref().and_then(|layer| layer.parent.clone());
            order.push((chain, layer));
            next = parent.filter(|parent| {
                let above = children.entry(parent.clone()).or_default();
                *above = above.saturating_sub(1);
                *above == 0
            });
        }
    }
    order
}

/// What interrupted writers left (whoever writes one holds a lease), but for downloads that may go on.
fn sweep_all(dir: &Path) -> Result<()> {
    for name in names(dir)? {
        let path = dir.join(name);
        if !crate::blob::is_resumable(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}
