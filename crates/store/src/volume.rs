//! Volumes: `volumes/<name>/{_data/,volume.json}`.

use model::time::Timestamp;
use model::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Store;

/// A volume's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// A new one for each volume, also one of the same name made again.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options (`type`, `o`, `device` of the local driver).
    pub options: BTreeMap<String, String>,
    /// It got its name from us.
    pub anonymous: bool,
    /// `_data`.
    #[serde(skip)]
    pub data: PathBuf,
}

fn missing<T>(what: &str) -> Result<T> {
    Err(Error::new(Kind::NotImplemented, what))
}

impl Store {
    /// Makes a volume, or returns the one of that name (Docker's idempotent create). True: it is new.
    ///
    /// # Errors
    /// A malformed name, or options that contradict the existing volume.
    pub fn create_volume(&self, _name: &str, _labels: &BTreeMap<String, String>, _options: &BTreeMap<String, String>, _anonymous: bool, _now: Timestamp) -> Result<(Volume, bool)> {
        missing("create_volume")
    }
    /// One volume.
    ///
    /// # Errors
    /// `get NAME: no such volume`.
    pub fn volume(&self, _name: &str) -> Result<Volume> {
        missing("volume")
    }
    /// All volumes, by name.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        missing("volumes")
    }
    /// Removes a volume. The caller has checked that no container uses it, under the volume's lock.
    ///
    /// # Errors
    /// There is no such volume, or a deletion failed.
    pub fn remove_volume(&self, _name: &str) -> Result<()> {
        missing("remove_volume")
    }
    /// Copies a directory of an image (opened by descriptor, read-only view) into an empty volume: contents, owner and
    /// mode of the directory itself. Does nothing to a volume that has entries.
    ///
    /// # Errors
    /// Names what could not be copied; the volume is then empty again.
    pub fn populate_volume(&self, _name: &str, _from: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        missing("populate_volume")
    }
}
