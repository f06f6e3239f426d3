//! Images and tags. An image is its configuration blob; its manifest says under which blobs its layers lie.
//!
//! `images/<config hex>.json` is the record of an image; `tags/` holds one small file a tag, which says the image that it
//! points at and decides where the record's list of tags disagrees (a crash came between the two). Both are replaced
//! atomically, and changed under the exclusive lock `images`, which is held for the change only. Blobs and layers are
//! deleted under the exclusive lock `store`, which a [`crate::Lease`] shares. Nothing is read from a registry here.

mod collect;

use model::digest::chain_id;
use model::error::Context as _;
use model::image::{Descriptor, ImageConfig, Manifest, media_type};
use model::time::Timestamp;
use model::{Digest, Error, Reference, Result, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use collect::Collected;

use crate::Store;

/// An image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the configuration: Docker's image id.
    pub id: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// The digest of the manifest that the layers' blobs are listed in.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// Tags (`name:tag`).
    pub tags: Vec<Reference>,
    /// `name@digest` of registries that it came from or went to.
    pub repo_digests: Vec<Reference>,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// When its last tag changed (Docker's `LastTagTime`).
    pub tagged: Timestamp,
    /// The image of the container that it was committed from, where it was.
    pub parent: Option<Digest>,
}

/// `images/<hex>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    manifest: Digest,
    size: u64,
    #[serde(default)]
    tags: Vec<Reference>,
    #[serde(default)]
    repo_digests: Vec<Reference>,
    #[serde(default)]
    tagged: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Digest>,
}

/// `tags/<reference>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tag {
    reference: Reference,
    image: Digest,
}

impl Store {
    /// Finds an image by name, `name@digest`, id or unambiguous id prefix (with or without `sha256:`); a name that is
    /// also an id prefix is a name first, as in Docker.
    ///
    /// # Errors
    /// `No such image: …` ([`model::Kind::NotFound`]), or an ambiguous prefix.
    pub fn image(&self, name: &str) -> Result<Image> {
        let id = self.resolve_image(name)?;
        self.image_by_id(&id)?.ok_or_else(|| no_such_image(name))
    }
    /// The id of an image, found as [`Store::image`] does, without reading it.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn resolve_image(&self, name: &str) -> Result<Digest> {
        if let Some(id) = full_id(name) {
            return if self.layout.image(&id).exists() { Ok(id) } else { Err(no_such_image(name)) };
        }
        if let Ok(reference) = Reference::parse(name) {
            let reference = reference.with_default_tag();
            if reference.digest().is_some() {
                return self.by_repo_digest(&reference)?.ok_or_else(|| no_such_image(name));
            }
            if let Some(id) = self.tag_target(&reference)? {
                return Ok(id);
            }
        }
        self.by_prefix(name)
    }
    /// All images, newest first.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for id in self.image_ids()? {
            // One that goes away meanwhile is not there.
            images.extend(self.image_by_id(&id)?);
        }
        images.sort_by(|a, b| b.config.created.cmp(&a.config.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }
    /// Records an image made here (build, commit, import): writes configuration and manifest, which gets these
    /// annotations. Its layers are committed.
    ///
    /// # Errors
    /// A layer is missing, or a write failed.
    pub fn put_image(&self, config: &ImageConfig, annotations: &BTreeMap<String, String>) -> Result<Image> {
        let json = serde_json::to_vec(config)
            .map_err(|error| Error::internal("image configuration").caused_by(error))?;
        let config_digest = Digest::of(&json);
        let mut layers = Vec::new();
        let mut chain: Option<Digest> = None;
        for diff_id in &config.rootfs.diff_ids {
            let this = chain_id(chain.as_ref(), diff_id);
            let layer = self.layer(&this)?.ok_or_else(|| missing_layer(&this))?;
            let blob =
                layer.blob.ok_or_else(|| Error::not_found(format!("layer {this}: its blob is not known")))?;
            // One that was committed here has not been waited for yet.
            self.open_blob(&blob.digest)?.sync_data().context(|| format!("write blob {}", blob.digest))?;
            layers.push(blob);
            chain = Some(this);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: Descriptor {
                media_type: media_type::OCI_CONFIG.to_owned(),
                digest: config_digest,
                size: json.len() as u64,
                platform: None,
                annotations: BTreeMap::new(),
            },
            layers: layers.into_iter().map(oci_layer).collect(),
            annotations: annotations.clone(),
        };
        let manifest =
            serde_json::to_vec(&manifest).map_err(|error| Error::internal("manifest").caused_by(error))?;
        sys::fs::sync(self.layout.blobs()).context(|| "write the layers' blobs")?;
        self.record_image(&manifest, &json, !annotations.is_empty())
    }
    /// Records an image that came from elsewhere (pull, load), with the manifest and the configuration as they came:
    /// both become blobs. The layers' blobs are there and unpacked.
    ///
    /// # Errors
    /// A document is malformed, does not match the other, or a layer is missing.
    pub fn put_image_with_manifest(&self, manifest: &[u8], config: &[u8]) -> Result<Image> {
        self.record_image(manifest, config, true)
    }
    /// `replace`: this manifest counts, also where the image is known under another one.
    fn record_image(&self, manifest_json: &[u8], config_json: &[u8], replace: bool) -> Result<Image> {
        let _lease = self.lease()?;
        if manifest_json.len() as u64 > limits::MANIFEST_BYTES {
            return Err(Error::invalid(format!(
                "manifest: it is longer than {} bytes",
                limits::MANIFEST_BYTES
            )));
        }
        let manifest = Manifest::parse(manifest_json).context(|| "manifest")?;
        let config: ImageConfig = parse("image configuration", config_json, limits::CONFIG_BYTES)?;
        let id = Digest::of(config_json);
        if manifest.config.digest != id {
            return Err(Error::invalid(format!(
                "manifest: it names the configuration {}, not {id}",
                manifest.config.digest
            )));
        }
        let diff_ids = &config.rootfs.diff_ids;
        if manifest.layers.len() != diff_ids.len() || diff_ids.len() > limits::LAYERS {
            let (one, two) = (manifest.layers.len(), diff_ids.len());
            return Err(Error::invalid(format!(
                "image {id}: {one} layers in the manifest, {two} in the configuration; at most {} are allowed",
                limits::LAYERS
            )));
        }
        let mut size = 0u64;
        let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
        for (diff_id, blob) in diff_ids.iter().zip(&manifest.layers) {
            let this = chain_id(chains.last(), diff_id);
            size += self.layer(&this)?.ok_or_else(|| missing_layer(&this))?.size;
            if self.blob_size(&blob.digest)? != Some(blob.size) {
                return Err(Error::not_found(format!("blob {}: it is not in the store", blob.digest)));
            }
            chains.push(this);
        }
        self.sync_layers(&chains)?;
        self.put_blob(config_json)?;
        let manifest_digest = self.put_blob(manifest_json)?;
        let _changing = self.lock_images()?;
        let record = match self.image_record(&id)? {
            Some(record) if !replace => record,
            Some(record) => Record { manifest: manifest_digest, size, ..record },
            None => {
                let (tags, repo_digests) = (Vec::new(), Vec::new());
                let tagged = Timestamp::NEVER;
                Record { manifest: manifest_digest, size, tags, repo_digests, tagged, parent: None }
            }
        };
        self.write_record(&id, &record)?;
        self.image_by_id(&id)?.ok_or_else(|| no_such_image(id.as_str()))
    }
    /// Adds `name@digest` of a registry that the image came from or went to.
    ///
    /// # Errors
    /// The image is gone, or a write failed.
    pub fn add_repo_digest(&self, image: &Digest, reference: &Reference) -> Result<()> {
        if reference.digest().is_none() {
            return Err(Error::invalid(format!("{}: it has no digest", reference.familiar())));
        }
        let name = Reference::parse(&reference.name())?;
        let reference = reference.digest().map(|digest| name.at_digest(digest.clone()));
        let _changing = self.lock_images()?;
        let mut record = self.image_record(image)?.ok_or_else(|| no_such_image(image.as_str()))?;
        record.repo_digests.extend(reference);
        record.repo_digests.sort();
        record.repo_digests.dedup();
        self.write_record(image, &record)
    }
    /// Notes which image the container had that an image was committed from.
    ///
    /// # Errors
    /// The image is gone, or a write failed.
    pub fn set_parent(&self, image: &Digest, parent: &Digest) -> Result<()> {
        let _changing = self.lock_images()?;
        let mut record = self.image_record(image)?.ok_or_else(|| no_such_image(image.as_str()))?;
        record.parent = Some(parent.clone());
        self.write_record(image, &record)
    }
    /// Takes such a reference away (Docker's `rmi name@digest`).
    ///
    /// # Errors
    /// The image is gone or has no such reference.
    pub fn remove_repo_digest(&self, image: &Digest, reference: &Reference) -> Result<()> {
        let _changing = self.lock_images()?;
        let mut record = self.image_record(image)?.ok_or_else(|| no_such_image(image.as_str()))?;
        let before = record.repo_digests.len();
        record
            .repo_digests
            .retain(|known| (known.name(), known.digest()) != (reference.name(), reference.digest()));
        if record.repo_digests.len() == before {
            return Err(no_such_image(&reference.familiar()));
        }
        self.write_record(image, &record)
    }
    /// The configuration of an image by id, also of one that was removed while containers use it.
    ///
    /// # Errors
    /// `No such image: …`.
    pub fn image_config(&self, id: &Digest) -> Result<ImageConfig> {
        if self.blob_size(id)?.is_none() {
            return Err(no_such_image(id.as_str()));
        }
        parse("image configuration", &self.read_blob(id, limits::CONFIG_BYTES)?, limits::CONFIG_BYTES)
    }
    /// Points a tag at an image, moving it if it exists. Returns the image that lost it.
    ///
    /// # Errors
    /// The image is gone, or a write failed.
    pub fn tag(&self, reference: &Reference, image: &Digest) -> Result<Option<Digest>> {
        let reference = reference.clone().with_default_tag();
        if reference.digest().is_some() || reference.tag().is_none() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        if reference.familiar_name() == "sha256" {
            return Err(Error::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
        }
        let _changing = self.lock_images()?;
        let mut record = self.image_record(image)?.ok_or_else(|| no_such_image(image.as_str()))?;
        let before = self.tag_target(&reference)?;
        record.tagged = Timestamp::from_system(std::time::SystemTime::now());
        if !record.tags.contains(&reference) {
            record.tags.push(reference.clone());
            record.tags.sort();
        }
        self.write_record(image, &record)?;
        let tag = Tag { reference: reference.clone(), image: image.clone() };
        let json = serde_json::to_vec(&tag).map_err(|error| Error::internal("tag").caused_by(error))?;
        sys::fs::replace_file(self.layout.tag(&reference), &json, 0o600, true)
            .context(|| format!("write tag {}", reference.familiar()))?;
        let before = before.filter(|before| before != image);
        if let Some(before) = &before {
            self.forget_tag(before, &reference)?;
        }
        Ok(before)
    }
    /// Removes a tag only.
    ///
    /// # Errors
    /// There is no such tag.
    pub fn untag(&self, reference: &Reference) -> Result<()> {
        let reference = reference.clone().with_default_tag();
        let _changing = self.lock_images()?;
        let image = self.tag_target(&reference)?.ok_or_else(|| no_such_image(&reference.familiar()))?;
        std::fs::remove_file(self.layout.tag(&reference))
            .context(|| format!("remove tag {}", reference.familiar()))?;
        sys::failpoint!("tag: removed");
        let tags = self.layout.tags();
        sys::fs::sync(&tags).context(|| format!("sync {}", tags.display()))?;
        self.forget_tag(&image, &reference)
    }

    fn lock_images(&self) -> Result<sys::fs::Lock> {
        sys::fs::Lock::exclusive(self.layout.lock("images")).context(|| "lock the images")
    }
    fn forget_tag(&self, image: &Digest, reference: &Reference) -> Result<()> {
        let Some(mut record) = self.image_record(image)? else { return Ok(()) };
        record.tags.retain(|tag| tag != reference);
        self.write_record(image, &record)
    }
    fn image_by_id(&self, id: &Digest) -> Result<Option<Image>> {
        let Some(record) = self.image_record(id)? else { return Ok(None) };
        let config = self.image_config(id)?;
        let manifest = self.read_blob(&record.manifest, limits::MANIFEST_BYTES)?;
        let manifest = parse("manifest", &manifest, limits::MANIFEST_BYTES)?;
        let mut tags = Vec::with_capacity(record.tags.len());
        for tag in record.tags {
            if self.tag_target(&tag)?.as_ref() == Some(id) {
                tags.push(tag);
            }
        }
        Ok(Some(Image {
            id: id.clone(),
            config,
            manifest_digest: record.manifest,
            manifest,
            tags,
            repo_digests: record.repo_digests,
            size: record.size,
            tagged: record.tagged,
            parent: record.parent,
        }))
    }
    fn image_record(&self, id: &Digest) -> Result<Option<Record>> {
        read_json(&self.layout.image(id))
    }
    fn write_record(&self, id: &Digest, record: &Record) -> Result<()> {
        let json =
            serde_json::to_vec(record).map_err(|error| Error::internal("image record").caused_by(error))?;
        sys::fs::replace_file(self.layout.image(id), &json, 0o600, true)
            .context(|| format!("write image {id}"))
    }
    fn tag_target(&self, reference: &Reference) -> Result<Option<Digest>> {
        Ok(read_tag(&self.layout.tag(reference))?
            .filter(|tag| tag.reference == *reference)
            .map(|tag| tag.image))
    }
    /// Files of tags that name an image which has no record.
    pub(crate) fn stray_tags(&self) -> Result<Vec<std::path::PathBuf>> {
        let dir = self.layout.tags();
        let mut stray = Vec::new();
        for entry in std::fs::read_dir(&dir).context(|| format!("read {}", dir.display()))? {
            let path = entry.context(|| format!("read {}", dir.display()))?.path();
            if path.file_name().is_some_and(|name| name.to_str().is_some_and(|name| !name.starts_with('.')))
                && read_tag(&path)?.is_none_or(|tag| !self.layout.image(&tag.image).exists())
            {
                stray.push(path);
            }
        }
        Ok(stray)
    }
    /// The ids of all images.
    pub(crate) fn image_ids(&self) -> Result<Vec<Digest>> {
        let dir = self.layout.images();
        let entries = std::fs::read_dir(&dir).context(|| format!("read {}", dir.display()))?;
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.context(|| format!("read {}", dir.display()))?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(hex.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok()));
        }
        Ok(ids)
    }
    fn by_prefix(&self, name: &str) -> Result<Digest> {
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty()
            || !prefix.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        {
            return Err(no_such_image(name));
        }
        let mut found = self.image_ids()?.into_iter().filter(|id| id.hex().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => {
                Err(no_such_image(name).hint("More than one image id begins so: give more digits."))
            }
            _ => Err(no_such_image(name)),
        }
    }
    /// By `name@digest`: what a registry calls it, or the manifest's digest of an image that has that name.
    fn by_repo_digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        let same = |known: &Reference| known.name() == reference.name();
        for id in self.image_ids()? {
            let Some(record) = self.image_record(&id)? else { continue };
            let known =
                record.repo_digests.iter().any(|known| same(known) && known.digest() == reference.digest());
            let named = record.tags.iter().any(same);
            if known
                || (named
                    && (Some(&record.manifest) == reference.digest() || Some(&id) == reference.digest()))
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// `sha256:` and 64 digits, or the digits alone.
fn full_id(name: &str) -> Option<Digest> {
    match name.len() {
        64 => Digest::parse(&format!("sha256:{name}")).ok(),
        _ => Digest::parse(name).ok(),
    }
}

/// Docker's error: the name with its tag filled in, an id as it was given.
fn no_such_image(name: &str) -> Error {
    let shown = match Reference::parse(name) {
        Ok(reference) if !name.starts_with("sha256:") => reference.with_default_tag().familiar(),
        _ => name.to_owned(),
    };
    Error::not_found(format!("No such image: {shown}"))
}

fn missing_layer(chain: &Digest) -> Error {
    Error::not_found(format!("layer {chain}: it is not in the store"))
}

/// A blob's descriptor as an OCI manifest says it: Docker's media types for layers become OCI's.
fn oci_layer(mut blob: Descriptor) -> Descriptor {
    blob.media_type = match blob.media_type.as_str() {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER.to_owned(),
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP.to_owned(),
        _ => blob.media_type,
    };
    blob
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, json: &[u8], limit: u64) -> Result<T> {
    if json.len() as u64 > limit {
        return Err(Error::invalid(format!("{what}: it is longer than {limit} bytes")));
    }
    serde_json::from_slice(json)
        .map_err(|error| Error::invalid(format!("{what}: it is malformed")).caused_by(error))
}

/// A tag's file. One that is empty is none: a machine that lost its power wrote it without its content, before tags were synced.
fn read_tag(path: &std::path::Path) -> Result<Option<Tag>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() == 0 => Ok(None),
        _ => read_json(path),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::internal(format!("{}: it is malformed", path.display())).caused_by(error)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}
