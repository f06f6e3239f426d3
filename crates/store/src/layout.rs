//! The paths of a root and a run root. No other module joins path components of its own.

use model::error::Context as _;
use model::{ContainerId, Digest, Reference, Result};
use std::path::{Path, PathBuf};

/// The paths of one engine.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Durable state: `/var/lib/cauldron`.
    pub root: PathBuf,
    /// What dies with the boot: `/run/cauldron`.
    pub run_root: PathBuf,
}

impl Layout {
    /// `format.json`.
    pub fn format(&self) -> PathBuf {
        self.root.join("format.json")
    }
    /// A blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
    /// All blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }
    /// Partial blobs.
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }
    /// Tags.
    pub fn tags(&self) -> PathBuf {
        self.root.join("tags")
    }
    /// A tag's file. A reference always holds a `/` and never a `+`, so no two share a name.
    pub fn tag(&self, reference: &Reference) -> PathBuf {
        let name = reference.to_string().replace('/', "+");
        self.tags().join(if name.len() <= 255 { name } else { Digest::of(name.as_bytes()).hex().to_owned() })
    }
    /// Image records.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    /// The record of an image, by id.
    pub fn image(&self, id: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", id.hex()))
    }
    /// All layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
    /// A directory that stays empty: the lower side of an image without layers.
    pub fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }
    /// What lies below every container's image: the empty files and directories that the engine mounts on.
    pub fn mount_points(&self) -> PathBuf {
        self.root.join("mountpoints")
    }
    /// A committed layer, by chain id: its files are in `diff/`.
    pub fn layer(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(chain.hex())
    }
    /// The tree of a committed layer.
    pub fn layer_diff(&self, chain: &Digest) -> PathBuf {
        self.layer(chain).join("diff")
    }
    /// All containers.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }
    /// One container.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }
    /// Container names: one file a name, holding the id.
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }
    /// All volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
    /// One volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }
    /// All networks.
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }
    /// What is being deleted: renamed here first, so that its name is free at once.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
    /// The builder's cache records.
    pub fn build_cache(&self) -> PathBuf {
        self.root.join("build")
    }
    /// One container's run directory.
    pub fn run(&self, id: &ContainerId) -> PathBuf {
        self.runs().join(id.as_str())
    }
    /// All run directories.
    pub fn runs(&self) -> PathBuf {
        self.run_root.join("containers")
    }
    /// The events log.
    pub fn events(&self) -> PathBuf {
        self.run_root.join("events.jsonl")
    }
    /// The networks' run directory.
    pub fn run_net(&self) -> PathBuf {
        self.run_root.join("net")
    }
    /// A lock file under the run root.
    pub fn lock(&self, name: &str) -> PathBuf {
        self.run_root.join("locks").join(name)
    }
    /// Makes the directories, 0700 whatever the umask.
    pub(crate) fn create(&self) -> Result<()> {
        if self.format().exists() && self.run_root.join("locks").exists() {
            return Ok(());
        }
        for dir in [
            "blobs/sha256",
            "ingest",
            "tags",
            "images",
            "layers",
            "empty",
            "containers",
            "names",
            "volumes",
            "networks",
            "trash",
            "build",
        ] {
            private_dir(&self.root.join(dir))?;
        }
        for dir in ["containers", "net", "locks"] {
            private_dir(&self.run_root.join(dir))?;
        }
        Ok(())
    }
}

fn private_dir(path: &Path) -> Result<()> {
    sys::fs::private_dir(path).context(|| format!("create directory {}", path.display()))
}
