//! `--cache-to`: the steps of a build and their layers, for another machine's `--cache-from`. To a registry or a directory as
//! a manifest whose configuration is a [`Document`]; in the image itself (inline) as a part of its configuration.

use base64::Engine as _;
use model::build_cache::{Document, MEDIA_TYPE, Step};
use model::digest::chain_id;
use model::error::Context as _;
use model::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use model::{Digest, Error, Reference, Result, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::layout::REF_NAME;
use super::{Build, Message, Report};

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTarget {
    /// The place.
    pub place: CachePlace,
    /// `mode=max`: every step, not only those whose layers are in the image.
    pub max: bool,
    /// A failure is told and forgotten.
    pub ignore_error: bool,
}

/// A place for a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A repository's tag.
    Registry(String),
    /// An OCI layout on this machine, and the name of the manifest in it.
    Directory(PathBuf, String),
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(name) => f.write_str(name),
            Self::Directory(dir, tag) => write!(f, "{}:{tag}", dir.display()),
        }
    }
}

impl Build<'_> {
    /// Remembers a step whose layer is in this build.
    pub(super) fn used(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        diff_id: &Digest,
        created: model::time::Timestamp,
    ) {
        let step = Step { key: key.clone(), parent: parent.cloned(), diff_id: diff_id.clone(), created };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
    /// The steps of this build: all, or those whose layers are in the image. In the same order whatever ran first.
    fn steps(&self, config: &ImageConfig, max: bool) -> Vec<Step> {
        let mut steps = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !max {
            let mut below = None;
            let mut chains = BTreeSet::new();
            for diff_id in &config.rootfs.diff_ids {
                let chain = chain_id(below.as_ref(), diff_id);
                chains.insert(chain.clone());
                below = Some(chain);
            }
            steps.retain(|step| chains.contains(&step.chain()));
        }
        steps.sort_by(|a, b| a.key.cmp(&b.key));
        steps.dedup();
        steps
    }
    /// The cache that an image carries in itself.
    pub(super) fn inline_cache(&self, config: &ImageConfig) -> Result<Option<String>> {
        let asked = self.options.build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| value == "1");
        if !self.options.inline_cache && !asked {
            return Ok(None);
        }
        let document =
            Document::new(&self.steps(config, false), |step| Some((step.diff_id.clone(), String::new(), 0)));
        Ok(Some(base64::engine::general_purpose::STANDARD.encode(json(&document)?)))
    }
    /// Sends the cache where it is wanted.
    pub(super) fn export_caches(&self, config: &ImageConfig, report: Report<'_>) -> Result<()> {
        for target in &self.options.cache_to {
            let steps = self.steps(config, target.max);
            let sent = match &target.place {
                CachePlace::Registry(name) => self.push_cache(name, &steps, report),
                CachePlace::Directory(dir, tag) => self.write_cache(dir, tag, &steps),
            };
            match sent {
                Ok(()) => report(Message::Stream(format!(
                    "exported cache to {}: {} steps\n",
                    target.place,
                    steps.len()
                )))?,
                Err(error) if target.ignore_error => {
                    report(Message::Stream(format!("warning: no cache to {}: {error}\n", target.place)))?;
                }
                Err(error) => return Err(error.within(format!("export the cache to {}", target.place))),
            }
        }
        Ok(())
    }
    /// The blobs of the steps' layers, each once.
    fn blobs(&self, steps: &[Step]) -> Result<BTreeMap<Digest, Descriptor>> {
        let mut blobs = BTreeMap::new();
        for step in steps {
            let chain = step.chain();
            let layer = self.engine.store.layer(&chain)?;
            let blob = layer.and_then(|layer| layer.blob);
            let blob =
                blob.ok_or_else(|| Error::not_found(format!("layer {chain}: its blob is not known")))?;
            blobs.insert(chain, blob);
        }
        Ok(blobs)
    }
    fn push_cache(&self, name: &str, steps: &[Step], report: Report<'_>) -> Result<()> {
        let reference = Reference::parse(name)?.with_default_tag();
        let blobs = self.blobs(steps)?;
        let layers: Vec<Descriptor> = blobs.values().cloned().collect();
        let document = |sent: &[Descriptor]| {
            let sent: BTreeMap<&Digest, &Descriptor> = blobs.keys().zip(sent).collect();
            Ok((
                MEDIA_TYPE.to_owned(),
                json(&Document::new(steps, |step| described(sent.get(&step.chain())?)))?,
            ))
        };
        let progress = |progress| report(Message::Pull(progress));
        let access = self.access(&reference);
        self.engine.store.push_artifact(&reference, &layers, &document, &access, &progress)?;
        Ok(())
    }
    fn write_cache(&self, dir: &Path, tag: &str, steps: &[Step]) -> Result<()> {
        let layout = Layout(dir.to_owned());
        layout.make()?;
        let blobs = self.blobs(steps)?;
        for blob in blobs.values() {
            let mut source = self.engine.store.open_blob(&blob.digest)?;
            layout.put(&blob.digest, blob.size, &mut source)?;
        }
        let config = json(&Document::new(steps, |step| described(blobs.get(&step.chain())?)))?;
        let config = layout.put_bytes(MEDIA_TYPE, &config)?;
        let mut layers: Vec<Descriptor> = Vec::new();
        for blob in blobs.into_values() {
            if layers.iter().all(|other| other.digest != blob.digest) {
                layers.push(blob);
            }
        }
        let media_type = Some(media_type::OCI_MANIFEST.to_owned());
        let manifest =
            Manifest { schema_version: 2, media_type, config, layers, annotations: BTreeMap::new() };
        let mut entry = layout.put_bytes(media_type::OCI_MANIFEST, &json(&manifest)?)?;
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        layout.name(entry)
    }
}

fn described(blob: &Descriptor) -> Option<(Digest, String, u64)> {
    Some((blob.digest.clone(), blob.media_type.clone(), blob.size))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("write a build cache").caused_by(error))
}

/// An OCI layout that is written: blobs under their digests, then `index.json`, each renamed when it is whole.
struct Layout(PathBuf);

impl Layout {
    fn make(&self) -> Result<()> {
        let blobs = self.0.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).context(|| format!("create {}", blobs.display()))?;
        self.replace(&self.0.join("oci-layout"), &mut &b"{\"imageLayoutVersion\":\"1.0.0\"}"[..])
    }
    fn put(&self, digest: &Digest, size: u64, bytes: &mut dyn std::io::Read) -> Result<()> {
        let path = self.0.join("blobs/sha256").join(digest.hex());
        if std::fs::metadata(&path).is_ok_and(|there| there.len() == size) {
            return Ok(());
        }
        self.replace(&path, bytes)
    }
    fn put_bytes(&self, media_type: &str, mut bytes: &[u8]) -> Result<Descriptor> {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        self.put(&digest, size, &mut bytes)?;
        let (media_type, annotations) = (media_type.to_owned(), BTreeMap::new());
        Ok(Descriptor { media_type, digest, size, platform: None, annotations })
    }
    /// Puts a manifest into the index, in the place of the one that had its name.
    fn name(&self, entry: Descriptor) -> Result<()> {
        let path = self.0.join("index.json");
        let mut index = match std::fs::read(&path) {
            Ok(bytes) if bytes.len() as u64 <= limits::MANIFEST_BYTES => {
                Index::parse(&bytes).context(|| format!("read {}", path.display()))?
            }
            Ok(_) => return Err(Error::invalid(format!("{} is too long", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let media_type = Some(media_type::OCI_INDEX.to_owned());
                Index { schema_version: 2, media_type, manifests: Vec::new() }
            }
            Err(error) => return Err(error).context(|| format!("read {}", path.display())),
        };
        index.manifests.retain(|other| other.annotations.get(REF_NAME) != entry.annotations.get(REF_NAME));
        index.manifests.push(entry);
        self.replace(&path, &mut json(&index)?.as_slice())
    }
    fn replace(&self, path: &Path, bytes: &mut dyn std::io::Read) -> Result<()> {
        let what = || format!("write {}", path.display());
        let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
        let mut write = || {
            let mut file = std::fs::File::create(&temporary)?;
            std::io::copy(bytes, &mut file)?;
            file.flush()?;
            std::fs::rename(&temporary, path)
        };
        write()
            .inspect_err(|_| {
                let _ = std::fs::remove_file(&temporary);
            })
            .context(what)
    }
}
