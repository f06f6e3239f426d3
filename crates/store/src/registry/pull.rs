//! From a registry: manifest, platform, configuration, layers.

use model::error::Context as _;
use model::image::{Descriptor, ImageConfig, Index, Manifest, Platform, media_type};
use model::{Digest, Error, Kind, Reference, Result, limits};
use ureq::http::{Method, StatusCode, header};

use super::http::{Client, bounded};
use super::layers::Layers;
use super::platform::{self, platform_text};
use super::refusal::{self, Refusal};
use super::{Access, Progress, Report, verified};
use crate::Store;
use crate::image::Image;

/// Indexes within indexes.
const INDEX_DEPTH: usize = 3;
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
        at_endpoints(&reference, access, |client| {
            self.pull_from(client, &reference, platform, access, report)
        })
    }

    fn pull_from(
        &self,
        client: &Client,
        reference: &Reference,
        platform: Option<&Platform>,
        access: &Access,
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
        report(Progress::new(label, format!("Pulling from {}", reference.path())))?;
        let at_once = access.downloads;
        Layers { store: self, client, reference, manifest: &manifest, config: &config, at_once, report }
            .fetch()?;
        sys::failpoint!("pull: layers are here");
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

/// Does something at the mirrors, where there are any for the reference, and then at its registry, until it succeeds.
fn at_endpoints<T>(
    reference: &Reference,
    access: &Access,
    mut work: impl FnMut(&Client) -> Result<T>,
) -> Result<T> {
    let scope = format!("repository:{}:pull", reference.path());
    let mut failures = Vec::new();
    let mirrors =
        if reference.domain() == model::reference::DEFAULT_DOMAIN { &access.mirrors[..] } else { &[] };
    for mirror in mirrors {
        match Client::mirror(mirror, vec![scope.clone()], access).and_then(|client| work(&client)) {
            Ok(done) => return Ok(done),
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => failures.push(error.within(format!("mirror {mirror}"))),
        }
    }
    let done = Client::connect(reference.domain(), vec![scope], access).and_then(|client| work(&client));
    done.map_err(|error| named(error, reference)).map_err(|error| match failures.is_empty() {
        true => error,
        false => error.hint(failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    })
}

/// A manifest or index as it is: its bytes, media type and digest.
///
/// # Errors
/// As for a pull.
pub(crate) fn raw(reference: &Reference, access: &Access) -> Result<(Vec<u8>, String, Digest)> {
    let reference = &reference.clone().with_default_tag();
    let client =
        Client::connect(reference.domain(), vec![format!("repository:{}:pull", reference.path())], access)?;
    let document = manifest(&client, reference, &wanted(reference))?;
    Ok((document.bytes, document.kind, document.digest))
}

/// A manifest that need be no image's, and its configuration.
///
/// # Errors
/// As for a pull.
pub(crate) fn artifact(reference: &Reference, access: &Access) -> Result<(Manifest, Vec<u8>)> {
    let reference = &reference.clone().with_default_tag();
    let client = reader(reference, access)?;
    let document = choose(&client, reference, manifest(&client, reference, &wanted(reference))?, None)?;
    let manifest = Manifest::parse(&document.bytes).context(|| format!("manifest {}", document.digest))?;
    let config = config(&client, reference, &manifest)?;
    Ok((manifest, config))
}

fn reader(reference: &Reference, access: &Access) -> Result<Client> {
    Client::connect(reference.domain(), vec![format!("repository:{}:pull", reference.path())], access)
}

impl Store {
    /// Downloads one blob of a repository, if it is not here.
    ///
    /// # Errors
    /// As for a pull's layer.
    pub fn fetch_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        access: &Access,
        report: Report<'_>,
    ) -> Result<()> {
        if blob.size > limits::LAYER_BYTES {
            let text = format!("blob {}: {} bytes, {} at most", blob.digest, blob.size, limits::LAYER_BYTES);
            return Err(Error::new(Kind::ResourceExhausted, text));
        }
        let client = reader(reference, access)?;
        super::layers::one(self, &client, reference, blob, report)
    }
}

/// All tags of a repository.
///
/// # Errors
/// As for a pull.
pub(crate) fn tags(reference: &Reference, access: &Access) -> Result<Vec<String>> {
    at_endpoints(reference, access, |client| tags_at(client, reference))
}

fn tags_at(client: &Client, reference: &Reference) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Tags {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
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
    at_endpoints(reference, access, |client| inspect_at(client, reference))
}

fn inspect_at(client: &Client, reference: &Reference) -> Result<Inspected> {
    let document = manifest(client, reference, &wanted(reference))?;
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
            serde_json::from_slice(&config(client, reference, &manifest)?).map_err(|error| {
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
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: Option<u64>,
    }
    let version =
        serde_json::from_slice::<Version>(&document.bytes).ok().and_then(|found| found.schema_version);
    if document.kind.starts_with("application/vnd.docker.distribution.manifest.v1") || version == Some(1) {
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
        let wanted = platform.cloned().unwrap_or_else(platform::host_platform);
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

/// The entry for a platform, as containerd chooses: the variant asked for, else the next older one that such a machine
/// runs. An entry of no platform counts only where it is the only one.
pub fn select<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    if let [only] = entries
        && only.platform.is_none()
    {
        return Some(only);
    }
    let rank = |entry: &Descriptor| platform::rank(entry.platform.as_ref()?, wanted);
    let ranked = entries.iter().filter_map(|entry| Some((rank(entry)?, entry)));
    // The first of equals.
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
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
    let have = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone(),
    };
    if platform::rank(&have, wanted).is_some() {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {} was found but does not match the specified platform: wanted {}, actual: {}",
        reference.familiar(),
        platform_text(wanted),
        platform_text(&have)
    )))
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
            select(&entries, &platform::parse_platform(text).unwrap()).map(|found| found.digest.clone())
        };
        let of = |text: &str| Some(Digest::of(text.as_bytes()));
        assert_eq!(pick("linux/amd64"), of("amd64"));
        assert_eq!(pick("linux/arm64"), of("arm64"));
        assert_eq!(pick("linux/arm64/v8"), of("arm64"));
        assert_eq!(pick("linux/arm/v6"), of("v6"));
        assert_eq!(pick("linux/arm"), of("v7"));
        assert_eq!(pick("linux/arm/v8"), of("v7"));
        assert_eq!(pick("linux/amd64/v3"), of("amd64"));
        assert_eq!(pick("linux/arm/v5"), None);
        assert_eq!(pick("linux/s390x"), None);
        let only = [entry("x", "")];
        assert!(select(&only, &platform::host_platform()).is_some());
    }
}
