//! `import`: an image of one layer from the tar of a root file system.

use model::error::Context as _;
use model::image::{Descriptor, History, ImageConfig, Platform, RunConfig, media_type};
use model::time::Timestamp;
use model::{Kind, Result, limits};
use std::io::{Read, Write as _};

use super::{Compression, compression};
use crate::Store;
use crate::image::Image;

/// What an imported image says of itself.
#[derive(Clone, Debug)]
pub struct Import {
    /// How it is run (`--change`, applied already).
    pub config: RunConfig,
    /// `--message`.
    pub message: String,
    /// For which machine it is.
    pub platform: Platform,
    /// The time now.
    pub created: Timestamp,
}

impl Store {
    /// Makes an image of a tar stream: plain, gzip or zstd.
    ///
    /// # Errors
    /// The stream breaks off, is no tar, or has a member that is refused (named).
    pub fn import(&self, mut source: impl Read, import: Import) -> Result<Image> {
        let _lease = self.lease()?;
        let what = || "read the root file system";
        let mut ingest = self.ingest()?.limit(limits::LAYER_BYTES);
        let mut buffer = vec![0u8; 256 << 10];
        let mut start = Vec::new();
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.context(what)?,
            };
            if start.len() < 4 {
                start.extend_from_slice(&buffer[..count.min(4)]);
            }
            ingest.write_all(&buffer[..count]).context(what)?;
        }
        if ingest.written() == 0 {
            return Err(model::Error::new(Kind::InvalidArgument, "import: the archive is empty"));
        }
        let (digest, size) = ingest.commit(None)?;
        let kind = match compression(&start) {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        };
        let blob = Descriptor {
            media_type: kind.to_owned(),
            digest,
            size,
            platform: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let layer = self.unpack_layer(None, &blob, None).context(|| "import")?;
        let history = History {
            created: Some(import.created),
            comment: Some(import.message.clone()),
            ..History::default()
        };
        let mut config = ImageConfig {
            architecture: import.platform.architecture,
            os: import.platform.os,
            variant: import.platform.variant,
            created: Some(import.created),
            comment: Some(import.message).filter(|message| !message.is_empty()),
            config: import.config,
            history: vec![history],
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids.push(layer.diff_id);
        self.put_image(&config, &std::collections::BTreeMap::new())
    }
}
