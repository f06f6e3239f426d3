//! Writable snapshots: an overlay's upper directory on top of committed layers.
//!
//! A container's is `containers/<id>/rw/{upper,work}`; a build step's lies under `build/`. Which layers are below is
//! not stored here: the owner's record (spec, build step) says it, and [`Store::lower`] turns it into directories.

use model::container::HostPath;
use model::digest::chain_id;
use model::error::Context as _;
use model::image::{Descriptor, media_type};
use model::{Digest, Error, Result};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::Store;
use crate::layer::Layer;
use crate::tree::{self, Pack, Whiteouts};

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
    pub fn lower(&self, diff_ids: &[Digest]) -> Result<Vec<HostPath>> {
        if diff_ids.is_empty() {
            return Ok(vec![HostPath(self.layout.empty())]);
        }
        let mut paths = Vec::with_capacity(diff_ids.len());
        let mut chain: Option<Digest> = None;
        for diff_id in diff_ids {
            let this = chain_id(chain.as_ref(), diff_id);
            let path = self.layout.layer_diff(&this);
            if !path.exists() {
                return Err(Error::not_found(format!("layer {this}: it is not in the store")));
            }
            paths.push(HostPath(path));
            chain = Some(this);
        }
        paths.reverse();
        Ok(paths)
    }
    /// The same for an image by id, also for one that was removed while containers use it.
    ///
    /// # Errors
    /// The configuration or a layer is missing (named).
    pub fn lower_of_image(&self, image: &Digest) -> Result<Vec<HostPath>> {
        self.lower(&self.image_config(image)?.rootfs.diff_ids)
    }
    /// The read-only directories of a container: its layers, and below them what the engine mounts on. Where an image lacks
    /// `/etc/hosts`, say, the file is there without being made in each container's writable directory anew.
    ///
    /// # Errors
    /// A layer is missing (named), or the mount points cannot be made.
    pub fn lower_of_container(&self, diff_ids: &[Digest]) -> Result<Vec<HostPath>> {
        let mut lower = self.lower(diff_ids)?;
        lower.push(HostPath(self.mount_points()?));
        Ok(lower)
    }
    fn mount_points(&self) -> Result<PathBuf> {
        const DIRECTORIES: [&str; 4] = ["etc", "proc", "sys", "dev"];
        const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
        let dir = self.layout.mount_points();
        if dir.exists() {
            return Ok(dir);
        }
        let what = || format!("create {}", dir.display());
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).context(what)
        };
        // Whole before it has its name: others may be starting containers.
        static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let made = self.layout.trash().join(format!("mountpoints-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&made).context(what)?;
        mode(&made, 0o700)?;
        for name in DIRECTORIES {
            std::fs::create_dir_all(made.join(name)).context(what)?;
            mode(&made.join(name), 0o755)?;
        }
        for name in FILES {
            std::fs::write(made.join(name), b"").context(what)?;
            mode(&made.join(name), 0o644)?;
        }
        match std::fs::rename(&made, &dir) {
            Err(_) if dir.exists() => std::fs::remove_dir_all(&made).context(what)?,
            other => other.context(what)?,
        }
        Ok(dir)
    }
    /// Makes an empty writable snapshot in this directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create_writable(&self, dir: &Path) -> Result<Writable> {
        let writable = Writable { upper: dir.join("upper"), work: dir.join("work"), volatile: false };
        let make = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&writable.upper)
            .and_then(|()| make(&writable.work))
            .context(|| format!("create {}", dir.display()))?;
        // The upper directory's mode is that of `/` in the container, whatever the umask.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&writable.upper, mode)
            .context(|| format!("create {}", writable.upper.display()))?;
        Ok(writable)
    }
    /// The merged view as a descriptor of a detached overlay mount (`fsmount(2)`), seen by nobody else and gone with
    /// the descriptor. With `writable: None` it is read-only.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn mount_detached(&self, lower: &[HostPath], writable: Option<&Writable>) -> Result<OwnedFd> {
        let upper = writable.map(|writable| sys::overlay::Upper {
            upper: &writable.upper,
            work: &writable.work,
            volatile: writable.volatile,
        });
        sys::overlay::mount_detached(lower.iter().map(AsRef::as_ref), upper, &self.layout.empty())
            .context(|| "mount an overlay of the image's layers")
    }
    /// Nothing in a writable snapshot is newer than this time (seconds since 1970) any more.
    ///
    /// # Errors
    /// Names the path.
    pub fn clamp_times(&self, writable: &Writable, seconds: i64) -> Result<()> {
        let upper =
            sys::fs::open_root(&writable.upper).context(|| format!("open {}", writable.upper.display()))?;
        tree::clamp_times(upper.as_fd(), seconds)
    }
    /// Commits what a writable snapshot changed as a new layer on top of `parent` (its chain id): writes the blob
    /// (uncompressed tar, whiteouts as `.wh.`), moves or copies the tree to `layers/`. `consume` says whether the
    /// upper directory may be moved (build steps) or must stay (`commit` of a container).
    /// Returns the diff id and the size of the blob. An unchanged snapshot gives the well-known empty layer.
    ///
    /// # Errors
    /// Names the path that could not be read or written.
    pub fn commit_layer(
        &self,
        parent: Option<&Digest>,
        writable: &Writable,
        consume: bool,
    ) -> Result<(Digest, u64)> {
        let upper =
            sys::fs::open_root(&writable.upper).context(|| format!("open {}", writable.upper.display()))?;
        let mut ingest = self.ingest()?;
        let how = Pack { whiteouts: Whiteouts::Overlay, base: Vec::new() };
        let size = {
            let mut buffered = std::io::BufWriter::with_capacity(1 << 18, &mut ingest);
            let size = tree::pack(upper.as_fd(), b"", &mut buffered, &how)?;
            std::io::Write::flush(&mut buffered).context(|| "write the layer's blob")?;
            size
        };
        // The image's record makes it durable (`put_image`): a build step that a crash takes is made again.
        let (diff_id, length) = ingest.commit_unsynced(None)?;
        let blob = Descriptor {
            media_type: media_type::OCI_LAYER.to_owned(),
            digest: diff_id.clone(),
            size: length,
            platform: None,
            annotations: std::collections::BTreeMap::new(),
        };
        if !consume {
            self.unpack_layer(parent, &blob, Some(&diff_id))?;
            return Ok((diff_id, length));
        }
        let layer = Layer {
            chain: chain_id(parent, &diff_id),
            parent: parent.cloned(),
            diff_id: diff_id.clone(),
            size,
            blob: Some(blob),
        };
        let temporary = self.temporary_layer()?;
        std::fs::rename(&writable.upper, temporary.diff())
            .context(|| format!("move {}", writable.upper.display()))?;
        sys::failpoint!("layer: moved");
        temporary.publish(&layer)?;
        Ok((diff_id, length))
    }
}
