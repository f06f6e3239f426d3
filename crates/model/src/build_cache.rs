//! A build cache that travels: which steps made which layers, in the form of BuildKit's `application/vnd.buildkit.cacheconfig.v0`
//! (moby/buildkit, `cache/remotecache/v1/doc.go`). Layers form trees by the index of their parent; a record names the step by
//! its key and the layer that it made.
//!
//! Two things are ours: keys are those of this builder, and a layer without a parent in the list says with `below` what it
//! stands on (a base image's layers are not exported). Each builder leaves the other's records alone.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::digest::chain_id;
use crate::time::Timestamp;
use crate::{Digest, Error, Result, limits};

/// The media type of the document, as the configuration of a manifest.
pub const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Layers; each stands on one before it, or on what is not in the list.
    #[serde(default)]
    pub layers: Vec<Layer>,
    /// Steps.
    #[serde(default)]
    pub records: Vec<Record>,
}

/// A layer of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The blob that holds it; in an image (inline) the digest of its uncompressed archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Digest>,
    /// The index of the layer below; -1 is none in this list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
    /// The chain id of what lies below a layer without a parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Digest>,
}

/// What is known of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotations {
    /// Of the blob.
    #[serde(default, rename = "mediaType", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The digest of the uncompressed archive.
    #[serde(default, rename = "diffID", skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Bytes of the blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The layers that it made: one, for ours.
    #[serde(default)]
    pub layers: Vec<Made>,
    /// Its key.
    pub digest: Digest,
}

/// A layer that a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its index.
    #[serde(default)]
    pub layer: usize,
    /// When.
    #[serde(default, rename = "createdAt", skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A step that was carried out somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its key.
    pub key: Digest,
    /// The chain id of what it stood on.
    pub parent: Option<Digest>,
    /// The uncompressed archive of the layer that it made.
    pub diff_id: Digest,
    /// When it was made.
    pub created: Timestamp,
}

impl Step {
    /// The chain id of its layer.
    pub fn chain(&self) -> Digest {
        chain_id(self.parent.as_ref(), &self.diff_id)
    }
}

impl Document {
    /// The document of these steps. `blob` gives the digest, media type and size of what holds a step's layer.
    pub fn new(steps: &[Step], blob: impl Fn(&Step) -> Option<(Digest, String, u64)>) -> Self {
        let mut document = Self::default();
        let chains: Vec<Digest> = steps.iter().map(Step::chain).collect();
        let by_chain: BTreeMap<&Digest, usize> = chains.iter().zip(0..).collect();
        let mut placed: BTreeMap<&Digest, usize> = BTreeMap::new();
        for (step, chain) in steps.iter().zip(&chains) {
            // What it stands on comes first.
            let mut waiting = vec![(step, chain)];
            while let Some(below) = waiting.last().and_then(|(step, _)| step.parent.as_ref())
                && !placed.contains_key(below)
                && let Some(&at) = by_chain.get(below)
            {
                waiting.push((&steps[at], &chains[at]));
            }
            for (step, chain) in waiting.into_iter().rev() {
                placed.entry(chain).or_insert_with_key(|_| {
                    document.layers.push(Layer::of(step, blob(step)));
                    document.layers.len() - 1
                });
            }
            let made = vec![Made { layer: placed[chain], created: Some(step.created) }];
            document.records.push(Record { layers: made, digest: step.key.clone() });
        }
        for layer in &mut document.layers {
            if let Some(at) = layer.below.as_ref().and_then(|below| placed.get(below)) {
                layer.parent = i64::try_from(*at).unwrap_or(-1);
                layer.below = None;
            }
        }
        document
    }
    /// Reads one.
    ///
    /// # Errors
    /// It is malformed, or longer than [`limits::CACHE_ENTRIES`].
    pub fn parse(json: &[u8]) -> Result<Self> {
        let document: Self = serde_json::from_slice(json).map_err(|error| {
            Error::invalid("the build cache's configuration is malformed").caused_by(error)
        })?;
        if document.layers.len().max(document.records.len()) > limits::CACHE_ENTRIES {
            let text = format!("the build cache has more than {} entries", limits::CACHE_ENTRIES);
            return Err(Error::invalid(text));
        }
        Ok(document)
    }
    /// The steps of the document, with the index of their layer; those that cannot be ours are left out.
    ///
    /// # Errors
    /// A layer that stands on one behind it.
    pub fn steps(&self) -> Result<Vec<(Step, usize)>> {
        // Each layer's own chain id and that of what is below; `None` where its content has no known digest.
        type Chains = Option<(Digest, Option<Digest>)>;
        let mut chains: Vec<Chains> = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let below = match usize::try_from(layer.parent) {
                Err(_) => Some(layer.below.clone()),
                Ok(parent) if parent < index => chains[parent].as_ref().map(|(chain, _)| Some(chain.clone())),
                // An only layer of BuildKit's may leave the number out.
                Ok(0) if index == 0 => Some(layer.below.clone()),
                Ok(parent) => {
                    return Err(Error::invalid(format!(
                        "the build cache's layer {index} stands on layer {parent}, which comes after it"
                    )));
                }
            };
            chains.push(below.and_then(|below| {
                let diff_id = layer.diff_id()?;
                Some((chain_id(below.as_ref(), diff_id), below))
            }));
        }
        let mut steps = Vec::new();
        for record in &self.records {
            let [Made { layer, created: Some(created) }] = record.layers[..] else { continue };
            let (Some(Some((_, parent))), Some(diff_id)) =
                (chains.get(layer), self.layers.get(layer).and_then(Layer::diff_id))
            else {
                continue;
            };
            let (key, parent, diff_id) = (record.digest.clone(), parent.clone(), diff_id.clone());
            steps.push((Step { key, parent, diff_id, created }, layer));
        }
        Ok(steps)
    }
}

impl Layer {
    fn of(step: &Step, blob: Option<(Digest, String, u64)>) -> Self {
        let (blob, media_type, size) = match blob {
            Some((digest, media_type, size)) => (Some(digest), media_type, Some(size)),
            None => (None, String::new(), None),
        };
        let diff_id = Some(step.diff_id.clone());
        let annotations = Some(Annotations { media_type, diff_id, size });
        Self { blob, parent: -1, annotations, below: step.parent.clone() }
    }
    fn diff_id(&self) -> Option<&Digest> {
        self.annotations.as_ref()?.diff_id.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, parent: Option<&Step>, base: Option<&str>) -> Step {
        let created = Timestamp { seconds: 1, nanos: 0 };
        let parent = parent.map(Step::chain).or(base.map(|base| Digest::of(base.as_bytes())));
        Step {
            key: Digest::of(format!("key {name}").as_bytes()),
            parent,
            diff_id: Digest::of(name.as_bytes()),
            created,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (a, x) = (step("a", None, Some("base")), step("x", None, None));
        let b = step("b", Some(&a), None);
        let c = step("c", Some(&b), None);
        // Another step that made the same layer.
        let again = Step { key: Digest::of(b"other"), ..b.clone() };
        let steps = [c, again, b, x, a];
        let blob = |step: &Step| Some((step.diff_id.clone(), "tar".to_owned(), 7));
        let document = Document::new(&steps, blob);
        assert_eq!(document.layers.len(), 4);
        let read = Document::parse(&serde_json::to_vec(&document).unwrap()).unwrap();
        assert_eq!(read, document);
        let mut found: Vec<Step> = read.steps().unwrap().into_iter().map(|(step, _)| step).collect();
        let mut wanted = steps.to_vec();
        found.sort_by_key(|step| step.key.clone());
        wanted.sort_by_key(|step| step.key.clone());
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let digest = Digest::of(b"x");
        let layer = |parent: i64| {
            format!(
                "{{\"blob\":\"{digest}\",\"parent\":{parent},\"annotations\":{{\"diffID\":\"{digest}\"}}}}"
            )
        };
        let parsed = |text: String| Document::parse(text.as_bytes());
        for parent in [1, 2, 9_000_000_000] {
            let text = format!("{{\"layers\":[{},{}],\"records\":[]}}", layer(-1), layer(parent));
            assert!(parsed(text).unwrap().steps().is_err(), "{parent}");
        }
        assert!(parsed("{\"layers\":3}".to_owned()).is_err());
        let many = vec![layer(-1); limits::CACHE_ENTRIES + 1].join(",");
        assert!(parsed(format!("{{\"layers\":[{many}]}}")).is_err());
        // BuildKit's own: chains, inputs, layers without digests of their content.
        let foreign = format!(
            "{{\"layers\":[{{\"blob\":\"{digest}\",\"parent\":-1}}],\"records\":[{{\"digest\":\"{digest}\",\"layers\":[{{\"createdAt\":\"2024-01-01T00:00:00Z\"}}],\"inputs\":[[{{\"link\":0}}]]}},{{\"digest\":\"{digest}\",\"layers\":[{{\"layer\":7,\"createdAt\":\"2024-01-01T00:00:00Z\"}}]}}]}}"
        );
        assert_eq!(parsed(foreign).unwrap().steps().unwrap(), []);
    }
}
