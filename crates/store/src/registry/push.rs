//! To a registry: layers that it lacks, configuration, manifest.
//!
//! Layers made here lie uncompressed in the store. They are sent gzipped, so the manifest that a registry gets may
//! differ from the one in the store; compression is deterministic, so the same image gives the same manifest again.

use flate2::Compression;
use flate2::write::GzEncoder;
use model::error::Context as _;
use model::image::{Descriptor, Manifest, media_type};
use model::{Digest, Error, Kind, Reference, Result, limits};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use ureq::http::{Method, StatusCode};

use super::http::{Client, Payload};
use super::layers::REPORT_EVERY;
use super::refusal::{self, Refusal};
use super::{Access, Progress, Report, retry};
use crate::Store;

/// Repositories of the registry that layers are looked for in.
const SOURCES: usize = 4;

/// What a push left in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
}

/// Gives a configuration's media type and bytes for layers as they were sent.
pub type Document<'a> = &'a dyn Fn(&[Descriptor]) -> Result<(String, Vec<u8>)>;

struct Push<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    /// Repositories of the same registry that hold layers of ours, and which: their digests here.
    sources: Vec<(String, Vec<Digest>)>,
    /// Uploads at the same time.
    at_once: usize,
    report: Report<'a>,
}

impl Store {
    /// Pushes the image that a tag names, under that tag.
    ///
    /// # Errors
    /// There is no such tag, or the registry refuses: named with the step.
    pub fn push(&self, reference: &Reference, access: &Access, report: Report<'_>) -> Result<Pushed> {
        let Some(tag) = reference.tag() else {
            return Err(Error::invalid(format!("push {}: a tag is needed", reference.familiar())));
        };
        let _lease = self.lease()?;
        let image = self.image(&reference.familiar()).map_err(|error| match error.kind() {
            Kind::NotFound => Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )),
            _ => error,
        })?;
        let sources = self.sources(reference, &image.manifest)?;
        let mut scopes = vec![format!("repository:{}:pull,push", reference.path())];
        scopes.extend(sources.iter().map(|(name, _)| format!("repository:{name}:pull")));
        let client = Client::connect(reference.domain(), scopes, access)?;
        let push = Push { store: self, client: &client, reference, sources, at_once: access.uploads, report };
        let sent = push.layers(&image.manifest.layers)?;
        let config = self.read_blob(&image.id, limits::CONFIG_BYTES)?;
        push.document(&image.manifest.config.digest, &config)?;
        let bytes = if sent == image.manifest.layers {
            self.read_blob(&image.manifest_digest, limits::MANIFEST_BYTES)?
        } else {
            let manifest = rewritten(&image.manifest, sent);
            serde_json::to_vec(&manifest)
                .map_err(|error| Error::internal("write a manifest").caused_by(error))?
        };
        sys::failpoint!("push: layers are there");
        let pushed = push.manifest(tag, &bytes)?;
        sys::failpoint!("push: manifest is there");
        self.add_repo_digest(&image.id, &reference.at_digest(pushed.digest.clone()))?;
        Ok(pushed)
    }
}

impl Store {
    /// Pushes layers with a configuration that is no image's. `document` gives the configuration's media type and bytes for
    /// the layers as they were sent.
    ///
    /// # Errors
    /// As [`Store::push`].
    pub fn push_artifact(
        &self,
        reference: &Reference,
        layers: &[Descriptor],
        document: Document<'_>,
        access: &Access,
        report: Report<'_>,
    ) -> Result<Pushed> {
        let reference = &reference.clone().with_default_tag();
        let Some(tag) = reference.tag() else {
            return Err(Error::invalid(format!("push {}: a tag is needed", reference.familiar())));
        };
        let _lease = self.lease()?;
        let scopes = vec![format!("repository:{}:pull,push", reference.path())];
        let client = Client::connect(reference.domain(), scopes, access)?;
        let (sources, at_once) = (Vec::new(), access.uploads);
        let push = Push { store: self, client: &client, reference, sources, at_once, report };
        let sent = push.layers(layers)?;
        let (media_type, bytes) = document(&sent)?;
        let digest = Digest::of(&bytes);
        push.document(&digest, &bytes)?;
        let annotations = std::collections::BTreeMap::new();
        let config = Descriptor {
            media_type,
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: annotations.clone(),
        };
        // Each blob is named once.
        let mut named: Vec<Descriptor> = Vec::new();
        for layer in sent {
            if named.iter().all(|other| other.digest != layer.digest) {
                named.push(layer);
            }
        }
        let media_type = Some(media_type::OCI_MANIFEST.to_owned());
        let manifest = Manifest { schema_version: 2, media_type, config, layers: named, annotations };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::internal("write a manifest").caused_by(error))?;
        push.manifest(tag, &bytes)
    }
    /// Other repositories of a registry that hold layers of a manifest, as far as is known here: images with those layers
    /// came from there or went there.
    fn sources(&self, reference: &Reference, manifest: &Manifest) -> Result<Vec<(String, Vec<Digest>)>> {
        let mut sources: Vec<(String, Vec<Digest>)> = Vec::new();
        for image in self.images()? {
            let shared = || image.manifest.layers.iter().map(|layer| layer.digest.clone());
            let shared: Vec<Digest> = shared()
                .filter(|digest| manifest.layers.iter().any(|layer| layer.digest == *digest))
                .collect();
            let there = image.repo_digests.iter().filter(|other| other.domain() == reference.domain());
            for other in there.filter(|other| other.path() != reference.path() && !shared.is_empty()) {
                match sources.iter().position(|(name, _)| name == other.path()) {
                    Some(at) => sources[at].1.extend(shared.iter().cloned()),
                    None if sources.len() < SOURCES => {
                        sources.push((other.path().to_owned(), shared.clone()))
                    }
                    None => {}
                }
            }
        }
        Ok(sources)
    }
}

/// The manifest with the layers as they were sent.
fn rewritten(manifest: &Manifest, layers: Vec<Descriptor>) -> Manifest {
    let docker = manifest.media_type.as_deref() == Some(media_type::DOCKER_MANIFEST);
    let mut manifest = manifest.clone();
    if !docker {
        manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
        manifest.config.media_type = media_type::OCI_CONFIG.to_owned();
    }
    manifest.layers = layers;
    manifest
}

impl Push<'_> {
    /// Sends the layers, several at a time, and says how they were sent.
    fn layers(&self, layers: &[Descriptor]) -> Result<Vec<Descriptor>> {
        for layer in layers {
            (self.report)(Progress::new(layer.digest.short(), "Preparing"))?;
        }
        let mut unique: Vec<&Descriptor> = Vec::new();
        for layer in layers {
            if !unique.iter().any(|other| other.digest == layer.digest) {
                unique.push(layer);
            }
        }
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Result<Descriptor>>>> =
            Mutex::new(unique.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..self.at_once.max(1).min(unique.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(layer) = unique.get(at) else { return };
                        let result = self.layer(layer);
                        if result.is_err() {
                            next.store(unique.len(), Ordering::Relaxed);
                        }
                        results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
                    }
                });
            }
        });
        let mut sent = Vec::new();
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut skipped = false;
        for result in results {
            match result {
                Some(result) => sent.push(result?),
                None => skipped = true,
            }
        }
        if skipped {
            return Err(Error::internal(format!("push {}: a layer was skipped", self.reference.familiar())));
        }
        let as_sent = |layer: &Descriptor| {
            unique.iter().position(|other| other.digest == layer.digest).map(|at| sent[at].clone())
        };
        Ok(layers.iter().filter_map(as_sent).collect())
    }

    fn layer(&self, layer: &Descriptor) -> Result<Descriptor> {
        let id = layer.digest.short();
        let done = |sent: Descriptor, status: &str| {
            sys::failpoint!("push: layer is there");
            (self.report)(Progress::new(id, status))?;
            Ok(sent)
        };
        if self.has(&layer.digest)? {
            return done(layer.clone(), "Layer already exists");
        }
        if !is_plain(&layer.media_type) {
            let file = self.store.open_blob(&layer.digest)?;
            let status = self.send(layer, &layer.digest, layer.size, file)?;
            return done(layer.clone(), &status);
        }
        let (file, digest, size) = self.compress(layer)?;
        let media_type = match layer.media_type.as_str() {
            media_type::DOCKER_LAYER => media_type::DOCKER_LAYER_GZIP,
            _ => media_type::OCI_LAYER_GZIP,
        };
        let sent = Descriptor { media_type: media_type.to_owned(), digest, size, ..layer.clone() };
        if self.has(&sent.digest)? {
            return done(sent, "Layer already exists");
        }
        let status = self.send(layer, &sent.digest, size, file)?;
        done(sent, &status)
    }

    fn has(&self, digest: &Digest) -> Result<bool> {
        let path = format!("{}/blobs/{digest}", self.reference.path());
        let response = self.client.following(&Method::HEAD, &path, &[])?;
        // Said before a layer is compressed or sent for nothing.
        if response.status() == StatusCode::UNAUTHORIZED {
            let message = "authentication required".to_owned();
            let refusal =
                Refusal { status: 401, code: "UNAUTHORIZED".to_owned(), message, retry_after: None };
            return Err(refusal::of_push(self.reference, &format!("blob {digest}"), &refusal));
        }
        Ok(response.status() == StatusCode::OK)
    }

    /// Compresses a layer into a blob of its own, which nobody names: the next collection takes it.
    fn compress(&self, layer: &Descriptor) -> Result<(File, Digest, u64)> {
        let what = || format!("compress layer {}", layer.digest);
        let mut source = self.store.open_blob(&layer.digest)?;
        let mut encoder = GzEncoder::new(self.store.ingest()?, Compression::default());
        io::copy(&mut source, &mut encoder).context(what)?;
        let ingest = encoder.finish().context(what)?;
        let (digest, size) = ingest.commit_unsynced(None)?;
        Ok((self.store.open_blob(&digest)?, digest, size))
    }

    /// Has a layer taken over from another repository, or sends it. `digest`: as it is sent. Says what was done.
    fn send(&self, layer: &Descriptor, digest: &Digest, size: u64, file: File) -> Result<String> {
        let sources = self.sources.iter().filter(|(_, digests)| digests.contains(&layer.digest));
        let mut begun = None;
        for (from, _) in sources {
            let from_query = super::auth::encode(from);
            let query = format!("?mount={}&from={from_query}", super::auth::encode(digest.as_str()));
            match self.begin(&query, digest)? {
                None => return Ok(format!("Mounted from {from}")),
                // The registry does not have it there; it is ready to be sent.
                Some(location) => begun = Some(location),
            }
        }
        self.upload(digest, size, file, layer.digest.short(), begun)?;
        Ok("Pushed".to_owned())
    }

    /// Begins an upload and gives the place to send it to. `None`: nothing need be sent.
    fn begin(&self, query: &str, digest: &Digest) -> Result<Option<String>> {
        let path = format!("{}/blobs/uploads/{query}", self.reference.path());
        let response = self.client.request(&Method::POST, &path, &[], Payload::None)?;
        match response.status() {
            StatusCode::CREATED if !query.is_empty() => Ok(None),
            StatusCode::ACCEPTED => self.client.location(&self.client.url(&path), &response).map(Some),
            _ => {
                let what = format!("blob {digest}");
                Err(refusal::of_push(self.reference, &what, &Refusal::read(response)))
            }
        }
    }

    /// One blob in one piece: `POST` (unless that was done), then `PUT` where the registry says; all of it again where the
    /// connection broke.
    fn upload(
        &self,
        digest: &Digest,
        size: u64,
        mut source: impl Read + Seek,
        id: &str,
        mut begun: Option<String>,
    ) -> Result<()> {
        let mut failed = 0;
        loop {
            let location = match begun.take() {
                Some(location) => location,
                None => self.begin("", digest)?.unwrap_or_default(),
            };
            let separator = if location.contains('?') { '&' } else { '?' };
            let url = format!("{location}{separator}digest={}", super::auth::encode(digest.as_str()));
            source.rewind().context(|| format!("read blob {digest}"))?;
            let mut reader = Reported {
                source: &mut source,
                done: 0,
                size,
                id,
                told: Instant::now(),
                report: self.report,
            };
            let sent = self.client.request_url(&Method::PUT, &url, &[], Payload::Stream(&mut reader, size));
            failed += 1;
            let error = match sent {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(()),
                Ok(response) => {
                    let refusal = Refusal::read(response);
                    let again = retry::passes(refusal.status) || refusal.status == 401;
                    let error = refusal::of_push(self.reference, &format!("blob {digest}"), &refusal);
                    if !again {
                        return Err(error);
                    }
                    error
                }
                Err(error) if error.kind() == Kind::Unavailable => error,
                Err(error) => return Err(error),
            };
            if failed >= retry::ATTEMPTS {
                return Err(error);
            }
            if !id.is_empty() {
                (self.report)(Progress::new(id, "Retrying"))?;
            }
            std::thread::sleep(retry::random_pause(failed, None));
        }
    }

    fn document(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.has(digest)? {
            return Ok(());
        }
        self.upload(digest, bytes.len() as u64, io::Cursor::new(bytes), "", None)
    }

    fn manifest(&self, tag: &str, bytes: &[u8]) -> Result<Pushed> {
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| Error::internal("read a manifest").caused_by(error))?;
        let kind = manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
        let path = format!("{}/manifests/{tag}", self.reference.path());
        let response = self.client.request(&Method::PUT, &path, &[], Payload::Bytes(bytes, kind))?;
        if response.status() != StatusCode::CREATED {
            return Err(refusal::of_push(self.reference, "manifest", &Refusal::read(response)));
        }
        Ok(Pushed { digest: Digest::of(bytes), size: bytes.len() as u64 })
    }
}

fn is_plain(kind: &str) -> bool {
    matches!(kind, media_type::OCI_LAYER | media_type::DOCKER_LAYER)
}

/// A reader that tells how far it is.
struct Reported<'a, R> {
    source: R,
    done: u64,
    size: u64,
    id: &'a str,
    told: Instant,
    report: Report<'a>,
}

impl<R: Read> Read for Reported<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.done += count as u64;
        if !self.id.is_empty() && self.told.elapsed() >= REPORT_EVERY {
            self.told = Instant::now();
            let progress = Progress {
                id: self.id.to_owned(),
                status: "Pushing".to_owned(),
                bytes: Some((self.done, self.size)),
            };
            (self.report)(progress).map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(count)
    }
}
