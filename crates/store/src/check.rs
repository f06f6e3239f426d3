//! Examines the store: what a crash left half-written, what nothing needs, records of things that are gone, damaged
//! bytes. Deletes nothing that an image, a container or a volume could still be made of.
//!
//! [`Store::check`] looks under the exclusive lock `store`: whoever pulls, loads, builds or creates a container holds a
//! share of it, so what looks unfinished then is nobody's work in progress. [`Store::verify`] reads every byte and only
//! shares the lock.

use model::digest::chain_id;
use model::error::Context as _;
use model::finding::Examination;
use model::{Digest, Result};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Store;
use crate::layer::TEMPORARY;

/// How long an examination waits for those who write to the store.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it asks.
const PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// Looks at everything but the bytes of blobs. `in_use` names the images and layers that containers and cached
    /// build steps need, see [`Store::remove_image`]. False: others kept the store busy, and what only a quiet store
    /// shows was left out.
    ///
    /// # Errors
    /// A directory of the store cannot be read.
    pub fn check(&self, look: &mut Examination, in_use: &dyn Fn() -> Result<Vec<Digest>>) -> Result<bool> {
        self.check_images(look)?;
        self.check_volumes(look)?;
        let Some(lock) = self.quiet()? else { return Ok(false) };
        self.check_unfinished(look)?;
        drop(lock);
        self.check_unneeded(look, in_use)?;
        Ok(true)
    }
    /// The exclusive lock, once nobody writes to the store; `None` where they would not stop.
    ///
    /// # Errors
    /// The lock cannot be opened.
    pub fn quiet(&self) -> Result<Option<sys::fs::Lock>> {
        let path = self.layout.lock("store");
        let begun = Instant::now();
        loop {
            let lock = sys::fs::Lock::try_exclusive(&path).context(|| "lock the store")?;
            if lock.is_some() || begun.elapsed() > PATIENCE {
                return Ok(lock);
            }
            std::thread::sleep(PAUSE);
        }
    }
    /// Files that somebody began and did not finish.
    fn check_unfinished(&self, look: &mut Examination) -> Result<()> {
        let died = "whoever wrote it is gone and never finished it";
        for name in names(&self.layout.ingest())? {
            let path = self.layout.ingest().join(name);
            let problem = match crate::blob::is_resumable(&path) {
                true => "a download broke off, and the next pull of the image goes on with it",
                false => died,
            };
            look.found(("file", path.display()), problem, "delete it", || remove(&path));
        }
        for name in names(&self.layout.layers())? {
            let path = self.layout.layers().join(&name);
            if name.starts_with(TEMPORARY) {
                look.found(("layer", path.display()), died, "delete it", || remove(&path));
            } else if let Ok(chain) = Digest::parse(&format!("sha256:{name}"))
                && self.is_torn(&chain)?
            {
                let problem = "the machine went down before it was on the disk";
                look.found(("layer", &chain), problem, "delete it", || self.discard_layer(&chain));
            }
        }
        for dir in [self.layout.tags(), self.layout.images(), self.layout.root.clone()] {
            for name in names(&dir)?.into_iter().filter(|name| sys::fs::is_temporary(name)) {
                let path = dir.join(name);
                look.found(("file", path.display()), died, "delete it", || remove(&path));
            }
        }
        Ok(())
    }
    /// Blobs and layers without an owner.
    fn check_unneeded(&self, look: &mut Examination, in_use: &dyn Fn() -> Result<Vec<Digest>>) -> Result<()> {
        let unneeded = self.unneeded(in_use)?;
        let count = (unneeded.layers.len(), unneeded.blobs);
        if count != (0, 0) {
            let object = format!("{} layers, {} blobs, {} bytes", count.0, count.1, unneeded.bytes);
            let problem = "no image, container or cached build step needs them";
            look.found(("layer", object), problem, "delete them", || self.collect(in_use).map(drop));
        }
        Ok(())
    }
    /// Tags without images; images whose parts are missing.
    fn check_images(&self, look: &mut Examination) -> Result<()> {
        for path in self.stray_tags()? {
            let problem = "the image that this tag names is gone";
            look.found(("tag", path.display()), problem, "delete the tag", || remove(&path));
        }
        for id in self.image_ids()? {
            let object = ("image", id.to_string());
            let image = match self.image(id.as_str()) {
                Ok(image) => image,
                Err(error) if error.kind() == model::Kind::NotFound && !self.layout.image(&id).exists() => {
                    continue;
                }
                Err(error) => {
                    look.manual(
                        object,
                        error,
                        "pull, load or build the image again, or remove it with `rmi -f`",
                    );
                    continue;
                }
            };
            let mut chain: Option<Digest> = None;
            for (diff_id, blob) in image.config.rootfs.diff_ids.iter().zip(&image.manifest.layers) {
                let parent = chain.take();
                let this = chain_id(parent.as_ref(), diff_id);
                if !self.layout.layer_diff(&this).exists() {
                    let problem = format!("layer {this} of {id} is not there");
                    if self.blob_size(&blob.digest)?.is_some() {
                        look.found(("layer", &this), problem, "unpack it from its blob again", || {
                            // Half a layer (a record without its tree) would be taken for one.
                            remove(&self.layout.layer(&this))?;
                            self.unpack_layer(parent.as_ref(), blob, Some(diff_id)).map(drop)
                        });
                    } else {
                        look.manual(object, problem, "pull, load or build the image again");
                        break;
                    }
                }
                chain = Some(this);
            }
        }
        Ok(())
    }
    /// Volumes that were never finished.
    fn check_volumes(&self, look: &mut Examination) -> Result<()> {
        // Whoever makes one holds a share of this.
        let _quiet = self.own_volumes()?;
        for name in names(&self.layout.volumes())? {
            let path = self.layout.volumes().join(&name);
            if name.starts_with('.') {
                let problem = "whoever made this volume is gone and never finished it";
                look.found(("volume", path.display()), problem, "delete it", || remove(&path));
            } else if self.find_volume(&name).is_ok_and(|found| found.is_none()) && self.is_draft(&path)? {
                let problem = "what was there before a helper's work took its place";
                look.found(("volume", path.display()), problem, "delete it", || remove(&path));
            } else if let Err(error) = self.volume(&name) {
                look.manual(
                    ("volume", path.display()),
                    error,
                    "move what is needed out of it, then delete it",
                );
            }
        }
        Ok(())
    }
    /// Compares every blob with its digest. Returns how many blobs and bytes were read.
    ///
    /// # Errors
    /// The directory of blobs cannot be read.
    pub fn verify(&self, look: &mut Examination) -> Result<(u64, u64)> {
        let _lease = self.lease()?;
        let (mut blobs, mut bytes) = (0, 0);
        for name in names(&self.layout.blobs())? {
            let Ok(digest) = Digest::parse(&format!("sha256:{name}")) else {
                let path = self.layout.blobs().join(&name);
                look.manual(("blob", path.display()), "its name is no digest", "delete it");
                continue;
            };
            match self.digest_of(&digest) {
                Ok((found, size)) => {
                    (blobs, bytes) = (blobs + 1, bytes + size);
                    if found != digest {
                        let remedy = "remove the images that need it, then pull or load them again";
                        look.manual(("blob", &digest), format!("its content has the digest {found}"), remedy);
                    }
                }
                Err(error) if error.kind() == model::Kind::NotFound => {}
                Err(error) => look.unreadable(("blob", &digest), &error),
            }
        }
        Ok((blobs, bytes))
    }
    fn digest_of(&self, blob: &Digest) -> Result<(Digest, u64)> {
        let mut file = self.open_blob(blob)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer).context(|| format!("read blob {blob}"))? {
                0 => return Ok((Digest::from_bytes(hasher.finalize().into()), size)),
                count => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
    }
}

/// The names in a directory; none where it is missing.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    sys::fs::names(dir).context(|| format!("read directory {}", dir.display()))
}

/// Deletes a file or a tree.
pub(crate) fn remove(path: &Path) -> Result<()> {
    sys::fs::remove(path).context(|| format!("delete {}", path.display()))
}
