//! From a registry: manifest, platform, configuration, layers.

use model::digest::chain_id;
use model::error::Context as _;
use model::image::{Descriptor, ImageConfig, Index, Manifest, Platform, media_type};
use model::{Digest, Error, Kind, Reference, Result, limits};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use ureq::http::{Method, StatusCode, header};

use super::http::{Client, bounded};
use super::refusal::{self, Refusal};
use super::{Access, Progress, Report, platform_text, verified};
use crate::Store;
use crate::image::Image;

/// Layers downloaded at the same time, as in Docker.
const DOWNLOADS: usize = 3;
/// Attempts at one blob.
const ATTEMPTS: usize = 3;
/// Indexes within indexes.
const INDEX_DEPTH: usize = 3;
/// Time between two reports of one transfer.
pub(super) const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Bytes of a tag list.
const TAGS_BYTES: u64 = 16 << 20;

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The digest of what the reference named (an index's, where it named one).
    pub digest: Digest,
    /// False: the tag named this image before.
    pub changed: bool,
}

/// What a registry has under a name.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// For which machines.
    pub platforms: Vec<Platform>,
}

/// A document with its media type and digest.
struct Document {
    bytes: Vec<u8>,
    kind: String,
    digest: Digest,
}

impl Store {
    /// Pulls one image: a tag (`latest` where the reference has none) or a digest.
    ///
    /// # Errors
    /// Docker's texts for what does not exist or is denied; whatever arrived damaged is named and not kept.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        access: &Access,
        report: Report<'_>,
    ) -> Result<Pulled> {
        let reference = reference.clone().with_default_tag();
        let _lease = self.lease()?;
        let scope = format!("repository:{}:pull", reference.path());
        let mut failures = Vec::new();
        let mirrors =
            if reference.domain() == model::reference::DEFAULT_DOMAIN { &access.mirrors[..] } else { &[] };
        for mirror in mirrors {
            let pulled = Client::mirror(mirror, vec![scope.clone()], access)
                .and_then(|client| self.pull_from(&client, &reference, platform, report));
            match pulled {
                Ok(pulled) => return Ok(pulled),
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                Err(error) => failures.push(error.within(format!("mirror {mirror}"))),
            }
        }
        let pulled = Client::connect(reference.domain(), vec![scope], access)
            .and_then(|client| self.pull_from(&client, &reference, platform, report));
        pulled.map_err(|error| named(error, &reference)).map_err(|error| match failures.is_empty() {
            true => error,
            false => error.hint(failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        })
    }

    fn pull_from(
        &self,
        client: &Client,
        reference: &Reference,
        platform: Option<&Platform>,
        report: Report<'_>,
    ) -> Result<Pulled> {
        let top = manifest(client, reference, &wanted(reference))?;
        let digest = top.digest.clone();
        let document = choose(client, reference, top, platform)?;
        let manifest = parse_manifest(&document)?;
        let config_bytes = config(client, reference, &manifest)?;
        let config = check_config(&manifest, &config_bytes)?;
        if let Some(platform) = platform {
            check_platform(reference, &config, platform)?;
        }
        let label = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        report(Progress::new(label, format!("Pulling from {}", reference.familiar_name())))?;
        Layers { store: self, client, reference, manifest: &manifest, config: &config, report }.fetch()?;
        let image = self.put_image_with_manifest(&document.bytes, &config_bytes)?;
        let mut changed = true;
        if reference.tag().is_some() && reference.digest().is_none() {
            let before = self.image(&reference.familiar()).ok().map(|image| image.id);
            changed = before.as_ref() != Some(&image.id);
            self.tag(reference, &image.id)?;
        }
        self.add_repo_digest(&image.id, &reference.at_digest(digest.clone()))?;
        report(Progress::new("", format!("Digest: {digest}")))?;
        Ok(Pulled { image: self.image(image.id.as_str())?, digest, changed })
    }
}

/// All tags of a repository.
///
/// # Errors
/// As for a pull.
pub(crate) fn tags(reference: &Reference, access: &Access) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Tags {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    let client =
        Client::connect(reference.domain(), vec![format!("repository:{}:pull", reference.path())], access)?;
    let response = client.following(&Method::GET, &format!("{}/tags/list", reference.path()), &[])?;
    if response.status() != StatusCode::OK {
        return Err(refusal::of_pull(reference, &Refusal::read(response)));
    }
    let what = || format!("the tags of {}", reference.name());
    let bytes = bounded(response.into_body().into_reader(), TAGS_BYTES, what)?;
    let tags: Tags = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(Kind::Unavailable, format!("read the tags of {}", reference.name())).caused_by(error)
    })?;
    Ok(tags.tags.unwrap_or_default())
}

/// What a registry has under a name, without pulling it.
///
/// # Errors
/// As for a pull.
pub(crate) fn inspect(reference: &Reference, access: &Access) -> Result<Inspected> {
    let reference = &reference.clone().with_default_tag();
    let client =
        Client::connect(reference.domain(), vec![format!("repository:{}:pull", reference.path())], access)?;
    let document = manifest(&client, reference, &wanted(reference))?;
    let descriptor = Descriptor {
        media_type: document.kind.clone(),
        digest: document.digest.clone(),
        size: document.bytes.len() as u64,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let platforms = if is_index(&document) {
        parse_index(&document)?.manifests.into_iter().filter_map(|entry| entry.platform).collect()
    } else {
        let manifest = parse_manifest(&document)?;
        let config: ImageConfig =
            serde_json::from_slice(&config(&client, reference, &manifest)?).map_err(|error| {
                Error::invalid(format!("configuration {}", manifest.config.digest)).caused_by(error)
            })?;
        vec![Platform { architecture: config.architecture, os: config.os, variant: config.variant }]
    };
    Ok(Inspected { descriptor, platforms })
}

/// An access that the token server denied is named as the user named it.
fn named(error: Error, reference: &Reference) -> Error {
    let raw = format!("pull access denied for {},", reference.path());
    match error.message().strip_prefix(&raw) {
        Some(rest) => {
            Error::new(error.kind(), format!("pull access denied for {},{rest}", reference.familiar_name()))
        }
        None => error,
    }
}

fn wanted(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    }
}

/// Gets a manifest or index by tag or digest, bounded; a digest is verified.
fn manifest(client: &Client, reference: &Reference, wanted: &str) -> Result<Document> {
    let accept = [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_LIST,
        media_type::DOCKER_MANIFEST,
    ]
    .join(", ");
    let path = format!("{}/manifests/{wanted}", reference.path());
    let response = client.following(&Method::GET, &path, &[("accept", &accept)])?;
    if response.status() != StatusCode::OK {
        return Err(refusal::of_pull(reference, &Refusal::read(response)));
    }
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut kind = text(header::CONTENT_TYPE).unwrap_or_default();
    kind.truncate(kind.find(';').unwrap_or(kind.len()));
    let declared = response
        .headers()
        .get("docker-content-digest")
        .and_then(|value| Digest::parse(value.to_str().ok()?).ok());
    let what = || format!("manifest for {}", reference.familiar());
    let bytes = bounded(response.into_body().into_reader(), limits::MANIFEST_BYTES, what)?;
    for expected in Digest::parse(wanted).ok().iter().chain(&declared) {
        verified("manifest", &bytes, expected)?;
    }
    Ok(Document { digest: Digest::of(&bytes), bytes, kind: kind.trim().to_owned() })
}

/// What the document says it is wins over the header, and its shape decides where neither says anything.
fn is_index(document: &Document) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let Ok(shape) = serde_json::from_slice::<Shape>(&document.bytes) else { return false };
    match shape.media_type.as_deref().unwrap_or(&document.kind) {
        media_type::OCI_INDEX | media_type::DOCKER_LIST => true,
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => false,
        _ => shape.manifests.is_some(),
    }
}

fn parse_index(document: &Document) -> Result<Index> {
    Index::parse(&document.bytes).context(|| format!("index {}", document.digest))
}

fn parse_manifest(document: &Document) -> Result<Manifest> {
    if document.kind.starts_with("application/vnd.docker.distribution.manifest.v1") {
        return Err(Error::new(
            Kind::NotImplemented,
            format!("manifest {}: Docker's schema 1 is not supported any more", document.digest),
        )
        .hint("push the image again with a Docker of 2016 or later"));
    }
    let manifest = Manifest::parse(&document.bytes).context(|| format!("manifest {}", document.digest))?;
    if manifest.schema_version != 2 {
        return Err(Error::invalid(format!(
            "manifest {}: schema version {}, want 2",
            document.digest, manifest.schema_version
        )));
    }
    if !matches!(
        manifest.config.media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream" | "text/html" | ""
    ) {
        return Err(Error::invalid(format!(
            "manifest {}: this is no container image but {}",
            document.digest, manifest.config.media_type
        )));
    }
    if manifest.layers.len() > limits::LAYERS {
        return Err(Error::new(
            Kind::ResourceExhausted,
            format!(
                "manifest {}: {} layers, {} at most",
                document.digest,
                manifest.layers.len(),
                limits::LAYERS
            ),
        ));
    }
    for layer in &manifest.layers {
        if layer.media_type.contains("nondistributable") || layer.media_type.contains(".foreign.") {
            return Err(Error::new(
                Kind::NotImplemented,
                format!("layer {}: foreign layers are not supported", layer.digest),
            ));
        }
        if layer.size > limits::LAYER_BYTES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("layer {}: {} bytes, {} at most", layer.digest, layer.size, limits::LAYER_BYTES),
            ));
        }
    }
    Ok(manifest)
}

/// Goes through indexes to the manifest for the platform.
fn choose(
    client: &Client,
    reference: &Reference,
    mut document: Document,
    platform: Option<&Platform>,
) -> Result<Document> {
    for _ in 0..INDEX_DEPTH {
        if !is_index(&document) {
            return Ok(document);
        }
        let index = parse_index(&document)?;
        let wanted = platform.cloned().unwrap_or_else(super::host_platform);
        let entry = select(&index.manifests, &wanted).ok_or_else(|| {
            Error::not_found(format!(
                "no matching manifest for {} in the manifest list entries",
                platform_text(&wanted)
            ))
            .within(reference.familiar())
        })?;
        document = manifest(client, reference, entry.digest.as_str())?;
    }
    Err(Error::invalid(format!("{}: an index within an index within an index", reference.familiar())))
}

/// The entry for a platform: the variant asked for; without one, the entry without one before any other. An entry of
/// no platform counts only where it is the only one.
pub(crate) fn select<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let matching = |entry: &&Descriptor| {
        entry
            .platform
            .as_ref()
            .is_some_and(|have| have.os == wanted.os && have.architecture == wanted.architecture)
    };
    let variant = |entry: &Descriptor| entry.platform.as_ref().and_then(|have| have.variant.clone());
    let mut candidates: Vec<&Descriptor> = entries.iter().filter(matching).collect();
    candidates.sort_by_key(|entry| match (variant(entry), &wanted.variant) {
        (have, wanted) if have == *wanted => 0,
        // arm64 without a variant is v8.
        (None, Some(wanted)) if wanted == "v8" => 1,
        (_, None) => 2,
        _ => 3,
    });
    let first = candidates.first().copied().filter(|entry| {
        wanted.variant.is_none() || {
            let have = variant(entry);
            have == wanted.variant || have.is_none()
        }
    });
    match entries {
        [only] if only.platform.is_none() => Some(only),
        _ => first,
    }
}

/// Gets the configuration, bounded and verified.
fn config(client: &Client, reference: &Reference, manifest: &Manifest) -> Result<Vec<u8>> {
    let digest = &manifest.config.digest;
    let what = || format!("configuration {digest} of {}", reference.familiar());
    if manifest.config.size > limits::CONFIG_BYTES {
        return Err(Error::new(
            Kind::ResourceExhausted,
            format!("{}: {} bytes, {} at most", what(), manifest.config.size, limits::CONFIG_BYTES),
        ));
    }
    let response = client.following(&Method::GET, &format!("{}/blobs/{digest}", reference.path()), &[])?;
    if response.status() != StatusCode::OK {
        return Err(refusal::of_pull(reference, &Refusal::read(response)).within(what()));
    }
    let bytes = bounded(response.into_body().into_reader(), limits::CONFIG_BYTES, what)?;
    verified("configuration", &bytes, digest)?;
    Ok(bytes)
}

fn check_config(manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfig> {
    let what = || format!("configuration {}", manifest.config.digest);
    let config: ImageConfig =
        serde_json::from_slice(bytes).map_err(|error| Error::invalid(what()).caused_by(error))?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(Error::invalid(format!(
            "{}: it names {} layers, the manifest {}",
            what(),
            config.rootfs.diff_ids.len(),
            manifest.layers.len()
        )));
    }
    Ok(config)
}

fn check_platform(reference: &Reference, config: &ImageConfig, wanted: &Platform) -> Result<()> {
    if config.os == wanted.os && config.architecture == wanted.architecture {
        return Ok(());
    }
    let have = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone(),
    };
    Err(Error::not_found(format!(
        "image with reference {} was found but does not match the specified platform: wanted {}, actual: {}",
        reference.familiar(),
        platform_text(wanted),
        platform_text(&have)
    )))
}

/// The layers of one pull.
struct Layers<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    manifest: &'a Manifest,
    config: &'a ImageConfig,
    report: Report<'a>,
}

impl Layers<'_> {
    /// Downloads on several threads, unpacks on this one, lowest first.
    fn fetch(&self) -> Result<()> {
        let mut blobs: Vec<&Descriptor> = Vec::new();
        for layer in &self.manifest.layers {
            if !blobs.iter().any(|blob| blob.digest == layer.digest) {
                blobs.push(layer);
            }
        }
        for blob in &blobs {
            (self.report)(Progress::new(blob.digest.short(), "Pulling fs layer"))?;
        }
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let channels: Vec<_> = blobs.iter().map(|_| mpsc::channel::<Result<()>>()).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let senders = Mutex::new(senders);
        std::thread::scope(|scope| {
            for _ in 0..DOWNLOADS.min(blobs.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(blob) = blobs.get(at) else { return };
                        let result = self.blob(blob, &stop);
                        let failed = result.is_err();
                        // Nobody listens any more where another layer has failed.
                        let _ = senders.lock().unwrap_or_else(PoisonError::into_inner)[at].send(result);
                        if failed {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
            let unpacked = self.unpack(&blobs, &receivers);
            if unpacked.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            unpacked
        })
    }

    fn unpack(&self, blobs: &[&Descriptor], receivers: &[mpsc::Receiver<Result<()>>]) -> Result<()> {
        let mut here = vec![false; blobs.len()];
        let mut parent: Option<Digest> = None;
        for (layer, diff_id) in self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids) {
            let at = blobs.iter().position(|blob| blob.digest == layer.digest).unwrap_or_default();
            if !here[at] {
                let gone = || Error::internal(format!("layer {}: its download has no result", layer.digest));
                match receivers[at].recv() {
                    Ok(Ok(())) => {}
                    // The one that stopped the others says why.
                    Ok(Err(error)) if error.kind() == Kind::Cancelled => {
                        let cause =
                            receivers[at + 1..].iter().filter_map(|other| other.try_recv().ok()?.err());
                        return Err(cause
                            .into_iter()
                            .find(|cause| cause.kind() != Kind::Cancelled)
                            .unwrap_or(error));
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(gone()),
                }
                here[at] = true;
            }
            let id = layer.digest.short();
            let chain = chain_id(parent.as_ref(), diff_id);
            if self.store.layer(&chain)?.is_some() {
                (self.report)(Progress::new(id, "Already exists"))?;
            } else {
                let bytes = Some((layer.size, layer.size));
                (self.report)(Progress { id: id.to_owned(), status: "Extracting".to_owned(), bytes })?;
                self.store.unpack_layer(parent.as_ref(), layer, Some(diff_id))?;
                (self.report)(Progress::new(id, "Pull complete"))?;
            }
            parent = Some(chain);
        }
        Ok(())
    }

    /// Downloads one blob, if it is not here.
    fn blob(&self, blob: &Descriptor, stop: &AtomicBool) -> Result<()> {
        if self.store.blob_size(&blob.digest)? == Some(blob.size) {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            match self.download(blob, stop) {
                Err(error) if error.kind() == Kind::Unavailable && attempt < ATTEMPTS => {
                    attempt += 1;
                    (self.report)(Progress::new(blob.digest.short(), "Retrying"))?;
                }
                result => return result,
            }
        }
    }

    fn download(&self, blob: &Descriptor, stop: &AtomicBool) -> Result<()> {
        let id = blob.digest.short();
        let what = || format!("layer {} of {}", blob.digest, self.reference.familiar());
        let response = self.client.following(
            &Method::GET,
            &format!("{}/blobs/{}", self.reference.path(), blob.digest),
            &[],
        )?;
        if response.status() != StatusCode::OK {
            return Err(refusal::of_pull(self.reference, &Refusal::read(response)).within(what()));
        }
        let mut reader = response.into_body().into_reader();
        let mut ingest = self.store.ingest()?.limit(blob.size);
        let mut buffer = vec![0u8; 128 << 10];
        let (mut told, mut done) = (Instant::now(), 0u64);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::new(Kind::Cancelled, format!("{}: another layer has failed", what())));
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let message =
                        format!("{}: the transfer broke off after {done} of {} bytes", what(), blob.size);
                    return Err(Error::new(Kind::Unavailable, message).caused_by(error));
                }
            };
            ingest.write_all(&buffer[..count]).context(what)?;
            done += count as u64;
            if told.elapsed() >= REPORT_EVERY {
                told = Instant::now();
                (self.report)(Progress {
                    id: id.to_owned(),
                    status: "Downloading".to_owned(),
                    bytes: Some((done, blob.size)),
                })?;
            }
        }
        if done < blob.size {
            return Err(Error::new(
                Kind::Unavailable,
                format!("{}: the registry sent {done} of {} bytes", what(), blob.size),
            ));
        }
        (self.report)(Progress::new(id, "Verifying Checksum"))?;
        ingest.commit(Some(&blob.digest)).context(what)?;
        (self.report)(Progress::new(id, "Download complete"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, platform: &str) -> Descriptor {
        let platform = (!platform.is_empty()).then(|| {
            let mut parts = platform.split('/').map(str::to_owned);
            Platform { os: parts.next().unwrap(), architecture: parts.next().unwrap(), variant: parts.next() }
        });
        Descriptor {
            media_type: String::new(),
            digest: Digest::of(text.as_bytes()),
            size: 0,
            platform,
            annotations: Default::default(),
        }
    }

    #[test]
    fn selects_the_platform() {
        let entries = [
            entry("attestation", "unknown/unknown"),
            entry("v7", "linux/arm/v7"),
            entry("v6", "linux/arm/v6"),
            entry("amd64", "linux/amd64"),
            entry("arm64", "linux/arm64/v8"),
        ];
        let pick = |text: &str| {
            select(&entries, &super::super::parse_platform(text).unwrap()).map(|found| found.digest.clone())
        };
        let of = |text: &str| Some(Digest::of(text.as_bytes()));
        assert_eq!(pick("linux/amd64"), of("amd64"));
        assert_eq!(pick("linux/arm64"), of("arm64"));
        assert_eq!(pick("linux/arm64/v8"), of("arm64"));
        assert_eq!(pick("linux/arm/v6"), of("v6"));
        assert_eq!(pick("linux/arm/v5"), None);
        assert_eq!(pick("linux/s390x"), None);
        let only = [entry("x", "")];
        assert!(select(&only, &super::super::host_platform()).is_some());
    }
}
