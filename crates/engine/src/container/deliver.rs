//! Files that are delivered into a container: secrets and configs. Each start copies them into a tmpfs at their place, read-only.
//!
//! Owned: `containers/<id>/delivered/`, which only root may enter: the bytes as `0`, `1`, … and `index.json`, which names their places. They
//! go with the container. They are in no request and no specification, so nothing shows them. Lock: the container's.

use model::bundle::{MountOp, MountOpSource};
use model::container::{ContainerPath, HostPath};
use model::error::Context as _;
use model::{Error, Result};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::Container;
use crate::Engine;

/// Files of one container at most.
const FILES: usize = 1000;
/// Bytes of one file at most.
const BYTES: usize = 1024 * 1024;
const INDEX: &str = "index.json";

/// A file for a container.
#[derive(Clone)]
pub struct Delivery {
    /// Where it appears.
    pub target: ContainerPath,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

#[derive(Serialize, Deserialize)]
struct Place {
    target: ContainerPath,
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Engine {
    /// Sets the files that a container gets at its next start, in place of those it had.
    ///
    /// # Errors
    /// It runs; there are too many files, or one is too large.
    pub fn deliver(&self, name: &str, files: &[Delivery]) -> Result<()> {
        if files.len() > FILES {
            return Err(Error::invalid(format!("more than {FILES} files to deliver")));
        }
        if let Some(file) = files.iter().find(|file| file.bytes.len() > BYTES) {
            return Err(Error::invalid(format!("{}: larger than {BYTES} bytes", file.target)));
        }
        let (container, _lock) = self.find_locked(name)?;
        if container.live.is_some() {
            return Err(Error::conflict(format!(
                "container {} is running: files are delivered before it starts",
                container.name()
            )));
        }
        let dir = container.dir.join("delivered");
        let what = || format!("write {}", dir.display());
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(what),
            _ => {}
        }
        rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o700)).map_err(std::io::Error::from).context(what)?;
        for (number, file) in files.iter().enumerate() {
            sys::fs::replace_file(dir.join(number.to_string()), &file.bytes, 0o600, true).context(what)?;
        }
        let place = |file: &Delivery| Place {
            target: file.target.clone(),
            uid: file.uid,
            gid: file.gid,
            mode: file.mode,
        };
        let places: Vec<Place> = files.iter().map(place).collect();
        let index = serde_json::to_vec(&places)
            .map_err(|error| Error::internal("write the index").caused_by(error))?;
        // Last: without the index nothing is delivered.
        sys::fs::replace_file(dir.join(INDEX), &index, 0o600, true).context(what)
    }
}

impl Container {
    /// The mounts of what is delivered.
    pub(crate) fn deliveries(&self) -> Result<Vec<MountOp>> {
        let dir = self.dir.join("delivered");
        let bytes = match std::fs::read(dir.join(INDEX)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(|| format!("read {}", dir.display())),
        };
        let places: Vec<Place> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::internal(format!("read {}", dir.display())).caused_by(error))?;
        let op = |(number, place): (usize, Place)| MountOp {
            target: place.target,
            source: MountOpSource::Copy {
                path: HostPath(dir.join(number.to_string())),
                uid: place.uid,
                gid: place.gid,
                mode: place.mode,
            },
            read_only: true,
            nosuid: true,
            nodev: true,
            noexec: false,
        };
        Ok(places.into_iter().enumerate().map(op).collect())
    }
}
