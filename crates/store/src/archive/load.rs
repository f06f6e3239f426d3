//! `load`.

use model::digest::chain_id;
use model::error::Context as _;
use model::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use model::{Digest, Error, Kind, Reference, Result, limits};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write as _};

use super::save::{NAME_ANNOTATION, REF_ANNOTATION};
use super::{Compression, Entry, compression};
use crate::Store;
use crate::registry::{Progress, Report, host_platform};
use crate::tree::reader::Reader;
use crate::tree::{header, stream};

/// Members of an archive.
const MEMBERS: u64 = 200_000;
/// Links followed from one name.
const LINKS: usize = 16;
/// Images of one archive.
const IMAGES: usize = 10_000;
/// Indexes within indexes.
const INDEX_DEPTH: usize = 3;
/// Documents that say what the others are.
const DOCUMENTS: [&str; 2] = ["manifest.json", "index.json"];

/// One line of what was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// A tag.
    Tag(Reference),
    /// An image without a tag.
    Image(Digest),
}

impl std::fmt::Display for Loaded {
    /// Docker's line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "Loaded image: {}", tag.familiar()),
            Self::Image(id) => write!(f, "Loaded image ID: {id}"),
        }
    }
}

/// What was read from an archive.
#[derive(Default)]
struct Members {
    /// Digest, size and compression of every file, by cleaned name.
    files: HashMap<String, (Digest, u64, Compression)>,
    /// Symbolic and hard links: where they point, cleaned.
    links: HashMap<String, String>,
    /// The [`DOCUMENTS`].
    documents: HashMap<String, Vec<u8>>,
}

impl Members {
    fn find(&self, name: &str) -> Option<&(Digest, u64, Compression)> {
        let mut name = clean("", name)?;
        for _ in 0..LINKS {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        self.files.get(&name)
    }
    fn need(&self, name: &str) -> Result<&(Digest, u64, Compression)> {
        self.find(name).ok_or_else(|| Error::invalid(format!("invalid archive: it has no {name:?}")))
    }
}

/// A name below `base`, without `.` and `..`; `None` where it leaves the archive.
fn clean(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let base = if name.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Store {
    /// Loads every image of an archive.
    ///
    /// # Errors
    /// The archive is malformed or damaged (named), or holds no image. Images before the bad one stay.
    pub fn load(&self, source: impl Read, report: Report<'_>) -> Result<Vec<Loaded>> {
        let _lease = self.lease()?;
        let members = self.read_members(source)?;
        if let Some(bytes) = members.documents.get("manifest.json") {
            let entries: Vec<Entry> = serde_json::from_slice(bytes)
                .map_err(|error| Error::invalid("invalid archive: manifest.json").caused_by(error))?;
            return self.load_entries(&members, &entries, report);
        }
        if let Some(bytes) = members.documents.get("index.json") {
            let index = Index::parse(bytes).context(|| "invalid archive: index.json")?;
            return self.load_index(&members, &index, report);
        }
        Err(Error::invalid("invalid archive: it has neither manifest.json nor index.json")
            .hint("a root file system goes through `import`; archives of Docker before 1.10 must be saved again by a newer one"))
    }

    /// Turns every file into a blob.
    fn read_members(&self, source: impl Read) -> Result<Members> {
        let broken = || "read the archive";
        let plain = stream::guarded(source).context(broken)?;
        let mut archive = Reader::new(BufReader::with_capacity(256 << 10, plain));
        let mut members = Members::default();
        while let Some(member) = archive.next().context(broken)? {
            if archive.members() > MEMBERS {
                let message = format!("read the archive: more than {MEMBERS} members");
                return Err(Error::new(Kind::ResourceExhausted, message));
            }
            let path = String::from_utf8(member.path)
                .map_err(|_| Error::invalid("invalid archive: a member's name is not UTF-8"))?;
            if path.len() > limits::PATH_BYTES {
                return Err(Error::new(
                    Kind::ResourceExhausted,
                    "invalid archive: a member's name is too long",
                ));
            }
            let name = clean("", &path)
                .ok_or_else(|| Error::invalid(format!("invalid archive: member {path:?} leaves it")))?;
            let parent = match member.kind {
                header::Kind::File if member.sparse.is_some() => {
                    return Err(Error::invalid(format!("invalid archive: member {path:?} is sparse")));
                }
                header::Kind::File => {
                    self.read_file(&mut members, name, &mut archive)?;
                    continue;
                }
                header::Kind::Symlink => name.rsplit_once('/').map_or("", |(parent, _)| parent),
                header::Kind::HardLink => "",
                // Directories say nothing that the names do not.
                _ => continue,
            };
            let target = String::from_utf8_lossy(&member.link);
            let target = clean(parent, &target).ok_or_else(|| {
                Error::invalid(format!("invalid archive: link {path:?} to {target:?} leaves it"))
            })?;
            members.links.insert(name, target);
        }
        archive.drain().context(broken)?;
        Ok(members)
    }

    fn read_file(&self, members: &mut Members, name: String, data: &mut Reader<impl BufRead>) -> Result<()> {
        let what = || format!("read {name:?} of the archive");
        let document = DOCUMENTS.contains(&name.as_str());
        let expected = match name.strip_prefix("blobs/sha256/") {
            Some(hex) => Some(Digest::parse(&format!("sha256:{hex}")).context(what)?),
            None => None,
        };
        let limit = if document { limits::CONFIG_BYTES } else { limits::LAYER_BYTES };
        let mut ingest = self.ingest()?.limit(limit);
        let (mut start, mut whole) = (Vec::new(), Vec::new());
        loop {
            let bytes = data.data()?;
            if bytes.is_empty() {
                break;
            }
            if start.len() < 4 {
                start.extend_from_slice(&bytes[..bytes.len().min(4)]);
            }
            if document {
                whole.extend_from_slice(bytes);
            }
            ingest.write_all(bytes).context(what)?;
            let count = bytes.len();
            data.consume(count);
        }
        if document {
            members.documents.insert(name, whole);
            return Ok(());
        }
        let (digest, size) = ingest.commit(expected.as_ref()).context(what)?;
        members.files.insert(name, (digest, size, compression(&start)));
        Ok(())
    }

    /// Docker's archive.
    fn load_entries(&self, members: &Members, entries: &[Entry], report: Report<'_>) -> Result<Vec<Loaded>> {
        if entries.len() > IMAGES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("invalid archive: more than {IMAGES} images"),
            ));
        }
        let mut loaded = Vec::new();
        for entry in entries {
            let (digest, size, _) = members.need(&entry.config)?;
            let config = self
                .read_blob(digest, limits::CONFIG_BYTES)
                .context(|| format!("configuration {:?}", entry.config))?;
            let layers: Vec<Descriptor> = entry
                .layers
                .iter()
                .map(|name| {
                    let (digest, size, compression) = members.need(name)?;
                    let kind = match compression {
                        Compression::None => media_type::OCI_LAYER,
                        Compression::Gzip => media_type::OCI_LAYER_GZIP,
                        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
                    };
                    Ok(descriptor(kind, digest, *size))
                })
                .collect::<Result<_>>()?;
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::OCI_MANIFEST.to_owned()),
                config: descriptor(media_type::OCI_CONFIG, digest, *size),
                layers,
                annotations: std::collections::BTreeMap::new(),
            };
            let bytes = serde_json::to_vec(&manifest)
                .map_err(|error| Error::internal("write a manifest").caused_by(error))?;
            let tags = entry.repo_tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>>>()?;
            self.load_image(&manifest, &bytes, &config, &tags, &mut loaded, report)?;
        }
        Ok(loaded)
    }

    /// An OCI layout.
    fn load_index(&self, members: &Members, index: &Index, report: Report<'_>) -> Result<Vec<Loaded>> {
        if index.manifests.len() > IMAGES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("invalid archive: more than {IMAGES} images"),
            ));
        }
        let mut loaded = Vec::new();
        for entry in &index.manifests {
            // Attestations and other attachments are no images.
            if entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
                continue;
            }
            let tags: Vec<Reference> = tag_of(entry).into_iter().collect();
            let (bytes, manifest) = self.layout_manifest(members, entry)?;
            members.need(&format!("blobs/sha256/{}", manifest.config.digest.hex()))?;
            let config = self.read_blob(&manifest.config.digest, limits::CONFIG_BYTES)?;
            for layer in &manifest.layers {
                members.need(&format!("blobs/sha256/{}", layer.digest.hex()))?;
            }
            self.load_image(&manifest, &bytes, &config, &tags, &mut loaded, report)?;
        }
        if loaded.is_empty() {
            return Err(Error::invalid("invalid archive: its index.json names no image"));
        }
        Ok(loaded)
    }

    fn layout_manifest(&self, members: &Members, entry: &Descriptor) -> Result<(Vec<u8>, Manifest)> {
        let mut digest = entry.digest.clone();
        for _ in 0..INDEX_DEPTH {
            members.need(&format!("blobs/sha256/{}", digest.hex()))?;
            let bytes = self.read_blob(&digest, limits::MANIFEST_BYTES)?;
            if let Ok(manifest) = Manifest::parse(&bytes) {
                return Ok((bytes, manifest));
            }
            let index = Index::parse(&bytes).context(|| format!("invalid archive: manifest {digest}"))?;
            let platform = host_platform();
            digest = crate::registry::select(&index.manifests, &platform)
                .ok_or_else(|| {
                    Error::not_found(format!(
                        "invalid archive: index {digest} has no image for this machine's platform"
                    ))
                })?
                .digest
                .clone();
        }
        Err(Error::invalid("invalid archive: an index within an index within an index"))
    }

    fn load_image(
        &self,
        manifest: &Manifest,
        bytes: &[u8],
        config_bytes: &[u8],
        tags: &[Reference],
        loaded: &mut Vec<Loaded>,
        report: Report<'_>,
    ) -> Result<()> {
        let what = || format!("configuration {}", manifest.config.digest);
        let config: ImageConfig =
            serde_json::from_slice(config_bytes).map_err(|error| Error::invalid(what()).caused_by(error))?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        if diff_ids.len() > limits::LAYERS {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("{}: {} layers, {} at most", what(), diff_ids.len(), limits::LAYERS),
            ));
        }
        let mut parent = None;
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            let chain = chain_id(parent.as_ref(), diff_id);
            if self.layer(&chain)?.is_none() {
                let bytes = Some((layer.size, layer.size));
                report(Progress {
                    id: diff_id.short().to_owned(),
                    status: "Loading layer".to_owned(),
                    bytes,
                })?;
                self.unpack_layer(parent.as_ref(), layer, Some(diff_id))?;
            }
            parent = Some(chain);
        }
        let image = self.put_image_with_manifest(bytes, config_bytes)?;
        for tag in tags {
            let tag = tag.clone().with_default_tag();
            let lost = self.tag(&tag, &image.id)?;
            if let Some(old) = lost.filter(|old| *old != image.id) {
                let text = format!(
                    "The image {} already exists, renaming the old one with ID {old} to empty string",
                    tag.familiar()
                );
                report(Progress::new("", text))?;
            }
            loaded.push(Loaded::Tag(tag));
        }
        if tags.is_empty() {
            loaded.push(Loaded::Image(image.id));
        }
        Ok(())
    }
}

/// The name in an index: containerd's annotation, or the specification's where it is a whole name.
fn tag_of(entry: &Descriptor) -> Option<Reference> {
    let name = entry.annotations.get(NAME_ANNOTATION);
    let name =
        name.or_else(|| entry.annotations.get(REF_ANNOTATION).filter(|name| name.contains([':', '/'])))?;
    Reference::parse(name).ok().filter(|reference| reference.digest().is_none())
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest: digest.clone(),
        size,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean("", "./a//b").as_deref(), Some("a/b"));
        assert_eq!(clean("a", "../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(clean("a", "/etc/passwd").as_deref(), Some("etc/passwd"));
        assert_eq!(clean("a", "../../b"), None);
        assert_eq!(clean("", ".."), None);
    }

    #[test]
    fn links_end() {
        let mut members = Members::default();
        members.links.insert("a".to_owned(), "b".to_owned());
        members.links.insert("b".to_owned(), "a".to_owned());
        assert!(members.find("a").is_none());
        members.files.insert("c".to_owned(), (Digest::of(b""), 0, Compression::None));
        members.links.insert("b".to_owned(), "c".to_owned());
        assert!(members.find("./a").is_some());
    }
}
