//! `--cache-from`: steps that were carried out elsewhere. A cache is looked at when the first step is not found here, and a
//! layer is fetched when its step comes up; then it is recorded as if it had been made here.
//!
//! What a cache says is as trusted as a base image: it decides what a step's layer holds. But nothing in it is believed about
//! itself: every blob has the digest and size that the manifest names, every layer the digest that the step's record names,
//! and a step counts only on what it was made on.

use base64::Engine as _;
use model::build_cache::{Document, MEDIA_TYPE, Step};
use model::digest::chain_id;
use model::image::{Descriptor, ImageConfig, Manifest, media_type};
use model::time::Timestamp;
use model::{Digest, Error, Reference, Result, limits};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::layout::Layout;
use super::{Build, Message, Report};
use crate::Engine;
use crate::transfer::Access;

/// Where a cache comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheSource {
    /// A repository's tag: an exported cache, or an image with a cache in it.
    Registry(String),
    /// An OCI layout on this machine, and the name of the manifest in it.
    Directory(PathBuf, String),
    /// An image of this engine with a cache in it.
    Image(String),
}

impl fmt::Display for CacheSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(name) | Self::Image(name) => f.write_str(name),
            Self::Directory(dir, tag) => write!(f, "{}:{tag}", dir.display()),
        }
    }
}

/// A cache that was looked at.
struct Cache {
    from: Opened,
    /// By the step's key.
    steps: BTreeMap<Digest, (Step, Descriptor)>,
}

enum Opened {
    Registry(Reference, Box<Access>),
    Directory(Layout),
    Here,
}

/// The caches of one build.
#[derive(Default)]
pub(super) struct Imported(Vec<Cache>);

impl Build<'_> {
    /// The layer that a step with this key made elsewhere, on the same parent and since `oldest`; it is here and recorded then.
    pub(super) fn carried_layer(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        oldest: Timestamp,
        text: &str,
        report: Report<'_>,
    ) -> Result<Option<(Digest, Timestamp)>> {
        if self.options.cache_from.is_empty() {
            return Ok(None);
        }
        let imported = self.imported.get_or_init(|| Imported::look(self, report));
        for cache in &imported.0 {
            let Some((step, blob)) = cache.steps.get(key) else { continue };
            if step.parent.as_ref() != parent || (oldest != Timestamp::NEVER && step.created < oldest) {
                continue;
            }
            match cache.fetch(self.engine, step, blob, report) {
                Ok(()) => {
                    self.made.fetch_add(blob.size, std::sync::atomic::Ordering::Relaxed);
                    self.engine.record_layer(key, parent, &step.diff_id, step.created, text)?;
                    return Ok(Some((step.diff_id.clone(), step.created)));
                }
                Err(error) if error.kind() == model::Kind::Cancelled => return Err(error),
                // The step can be carried out here.
                Err(error) => {
                    report(Message::Stream(format!("warning: a cached layer cannot be used: {error}\n")))?
                }
            }
        }
        Ok(None)
    }
}

impl Imported {
    /// A cache that cannot be read is no reason not to build.
    fn look(build: &Build<'_>, report: Report<'_>) -> Self {
        let mut caches = Vec::new();
        for source in &build.options.cache_from {
            let said = match Cache::open(build, source) {
                Ok(cache) => {
                    let count = cache.steps.len();
                    caches.push(cache);
                    format!("importing cache from {source}: {count} steps\n")
                }
                // The classic builder's request names images that need not be there.
                Err(_) if matches!(source, CacheSource::Image(_)) => continue,
                Err(error) => format!("warning: no cache from {source}: {error}\n"),
            };
            // Whoever does not listen any more is heard of at the next step.
            let _ = report(Message::Stream(said));
        }
        Self(caches)
    }
}

impl Cache {
    fn open(build: &Build<'_>, source: &CacheSource) -> Result<Self> {
        let (from, manifest, config) = match source {
            CacheSource::Registry(name) => {
                let reference = Reference::parse(name)?.with_default_tag();
                let access = build.access(&reference);
                let (manifest, config) = store::registry::artifact(&reference, &access)?;
                (Opened::Registry(reference, Box::new(access)), manifest, config)
            }
            CacheSource::Directory(dir, tag) => {
                let layout = Layout::open(dir)?;
                let manifest = layout.manifest(tag, None)?.1;
                let config = layout.small(&manifest.config, limits::CONFIG_BYTES)?;
                (Opened::Directory(layout), manifest, config)
            }
            CacheSource::Image(name) => {
                let image = build.engine.store.image(name)?;
                let config = build.engine.store.read_blob(&image.id, limits::CONFIG_BYTES)?;
                (Opened::Here, image.manifest, config)
            }
        };
        Ok(Self { from, steps: steps(&manifest, &config)? })
    }
    /// Has the layer of a step here.
    fn fetch(&self, engine: &Engine, step: &Step, blob: &Descriptor, report: Report<'_>) -> Result<()> {
        if engine.store.layer(&step.chain())?.is_some() {
            return Ok(());
        }
        match &self.from {
            Opened::Registry(reference, access) => {
                let progress = |progress| report(Message::Pull(progress));
                engine.store.fetch_blob(reference, blob, access, &progress)?;
            }
            Opened::Directory(layout) => layout.take(&engine.store, blob)?,
            Opened::Here => {}
        }
        engine.store.unpack_layer(step.parent.as_ref(), blob, Some(&step.diff_id))?;
        Ok(())
    }
}

/// The steps that a manifest and its configuration speak of, each with the blob of its layer.
fn steps(manifest: &Manifest, config: &[u8]) -> Result<BTreeMap<Digest, (Step, Descriptor)>> {
    let mut found = BTreeMap::new();
    let mut add = |step: Step, blob: &Descriptor| {
        let kinds = [
            media_type::OCI_LAYER,
            media_type::OCI_LAYER_GZIP,
            media_type::OCI_LAYER_ZSTD,
            media_type::DOCKER_LAYER,
            media_type::DOCKER_LAYER_GZIP,
        ];
        if kinds.contains(&blob.media_type.as_str()) && blob.size <= limits::LAYER_BYTES {
            // What a cache says beside that goes no further.
            let blob = Descriptor { platform: None, annotations: BTreeMap::new(), ..blob.clone() };
            found.entry(step.key.clone()).or_insert((step, blob));
        }
    };
    if manifest.config.media_type == MEDIA_TYPE {
        let document = Document::parse(config)?;
        let blobs: BTreeMap<&Digest, &Descriptor> =
            manifest.layers.iter().map(|layer| (&layer.digest, layer)).collect();
        for (step, layer) in document.steps()? {
            let digest = document.layers.get(layer).and_then(|layer| layer.blob.as_ref());
            if let Some(blob) = digest.and_then(|digest| blobs.get(digest)) {
                add(step, blob);
            }
        }
        return Ok(found);
    }
    let config: ImageConfig = serde_json::from_slice(config)
        .map_err(|error| Error::invalid("its configuration").caused_by(error))?;
    let Some(text) = &config.inline_cache else {
        return Err(Error::invalid("it is an image without a cache")
            .hint("images get one with --cache-to type=inline, or --build-arg BUILDKIT_INLINE_CACHE=1"));
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| Error::invalid("the cache in its configuration").caused_by(error))?;
    let mut below = None;
    let chains = config.rootfs.diff_ids.iter().map(|diff_id| {
        let chain = chain_id(below.as_ref(), diff_id);
        below = Some(chain.clone());
        chain
    });
    let blobs: BTreeMap<Digest, &Descriptor> = chains.zip(&manifest.layers).collect();
    for (step, _) in Document::parse(&bytes)?.steps()? {
        if let Some(blob) = blobs.get(&step.chain()) {
            add(step, blob);
        }
    }
    Ok(found)
}
