//! Paths on the host and paths inside a container: different types, because most container CVEs are one used as the other.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A path on the host. Never a path inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPath(pub PathBuf);

impl AsRef<Path> for HostPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// An absolute, cleaned path inside a container or an image. It is opened through a directory descriptor with
/// `RESOLVE_IN_ROOT` only, and cannot be given to `std::fs` by accident.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerPath(String);

impl ContainerPath {
    /// `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }
    /// Cleans `.`, `..` and doubled slashes lexically, as Docker does with mount targets.
    ///
    /// # Errors
    /// A relative path or one with a NUL byte is an invalid argument.
    pub fn parse(text: &str) -> Result<Self> {
        if !text.starts_with('/') || text.contains('\0') {
            return Err(Error::invalid(format!("path {text:?} in the container: it must be absolute")));
        }
        Ok(Self::root().join(text))
    }
    /// `relative` seen from here, cleaned; an absolute one replaces this path.
    #[must_use]
    pub fn join(&self, relative: &str) -> Self {
        let mut parts: Vec<&str> = Vec::new();
        let base = if relative.starts_with('/') { "" } else { self.0.as_str() };
        for part in base.split('/').chain(relative.split('/')) {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        Self(format!("/{}", parts.join("/")))
    }
    /// The path with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The path without its leading slash, `.` for the root: what openat2 takes.
    pub fn relative(&self) -> &str {
        match &self.0[1..] {
            "" => ".",
            rest => rest,
        }
    }
}

impl TryFrom<String> for ContainerPath {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}
impl From<ContainerPath> for String {
    fn from(path: ContainerPath) -> String {
        path.0
    }
}
impl std::fmt::Display for ContainerPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
