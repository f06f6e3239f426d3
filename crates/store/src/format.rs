//! `format.json`: which version and which features the files of a root need. A binary that does not know one of them
//! refuses the root rather than damage what it cannot keep intact.

use model::error::Context as _;
use model::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// The version that this code writes and reads.
const VERSION: u32 = 1;
/// Features that this code knows beyond the version's own.
const FEATURES: [&str; 0] = [];

#[derive(Serialize, Deserialize)]
struct Format {
    version: u32,
    #[serde(default)]
    features: Vec<String>,
}

/// Writes the file into a new root; checks it in an old one.
pub fn check(layout: &Layout) -> Result<()> {
    let path = layout.format();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let format = Format { version: VERSION, features: Vec::new() };
            let json = serde_json::to_vec(&format)
                .map_err(|error| Error::internal("format.json").caused_by(error))?;
            return sys::fs::replace_file(&path, &json, 0o600, true)
                .context(|| format!("write {}", path.display()));
        }
        Err(error) => return Err(error).context(|| format!("read {}", path.display())),
    };
    let refuse = |why: String| {
        Error::new(Kind::Conflict, format!("{}: {why}", path.display()))
            .hint("A newer cauldron wrote this root: use that one, or another root (CAULDRON_ROOT).")
    };
    let format: Format = serde_json::from_slice(&bytes)
        .map_err(|error| refuse("it is malformed".to_owned()).caused_by(error))?;
    if format.version > VERSION {
        return Err(refuse(format!("format version {} is newer than {VERSION}", format.version)));
    }
    match format.features.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
        Some(unknown) => Err(refuse(format!("it needs the feature {unknown:?}, which this version lacks"))),
        None => Ok(()),
    }
}
