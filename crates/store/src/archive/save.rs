//! `save`.

use model::error::Context as _;
use model::image::{Descriptor, Index, media_type};
use model::{Digest, Kind, Reference, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use super::Entry;
use crate::Store;
use crate::image::Image;

/// containerd's annotation for the full name of an image in an index.
pub(super) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// The specification's, which Docker fills with the tag.
pub(super) const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// An image and the tags that were asked for.
struct Saved {
    image: Image,
    tags: Vec<Reference>,
}

impl Store {
    /// Writes images as one archive. A name without a tag means all tags of that repository, an id no tag, as in Docker.
    ///
    /// # Errors
    /// An image is missing (nothing is written then), or the writer failed.
    pub fn save(&self, names: &[String], archive: impl Write) -> Result<()> {
        let _lease = self.lease()?;
        let saved = self.saved(names)?;
        let mut writer =
            Writer { store: self, archive: tar::Builder::new(archive), written: BTreeSet::new() };
        let mut entries = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut manifests = Vec::new();
        for Saved { image, tags } in &saved {
            let blobs: Vec<&Digest> = image.manifest.layers.iter().map(|layer| &layer.digest).collect();
            for digest in blobs.iter().copied().chain([&image.manifest.config.digest, &image.manifest_digest])
            {
                writer.blob(digest)?;
            }
            entries.push(Entry {
                config: blob_path(&image.manifest.config.digest),
                repo_tags: tags.iter().map(Reference::familiar).collect(),
                layers: blobs.iter().map(|digest| blob_path(digest)).collect(),
            });
            for tag in tags {
                let top = blobs.last().map_or_else(String::new, |digest| digest.hex().to_owned());
                repositories
                    .entry(tag.familiar_name())
                    .or_default()
                    .insert(tag.tag().unwrap_or_default().to_owned(), top);
            }
            manifests.extend(self.descriptors(image, tags)?);
        }
        let index =
            Index { schema_version: 2, media_type: Some(media_type::OCI_INDEX.to_owned()), manifests };
        writer.document("index.json", &index)?;
        writer.document("manifest.json", &entries)?;
        writer.document("oci-layout", &serde_json::json!({ "imageLayoutVersion": "1.0.0" }))?;
        if !repositories.is_empty() {
            writer.document("repositories", &repositories)?;
        }
        let mut inner = writer.archive.into_inner().context(|| "write the archive")?;
        inner.flush().context(|| "write the archive")
    }

    /// Resolves the names, each image once.
    fn saved(&self, names: &[String]) -> Result<Vec<Saved>> {
        let mut saved: Vec<Saved> = Vec::new();
        let mut add = |image: Image, tag: Option<Reference>| {
            let at = saved.iter().position(|other| other.image.id == image.id).unwrap_or_else(|| {
                saved.push(Saved { image, tags: Vec::new() });
                saved.len() - 1
            });
            if let Some(tag) = tag.filter(|tag| !saved[at].tags.contains(tag)) {
                saved[at].tags.push(tag);
            }
        };
        for name in names {
            let reference = Reference::parse(name).ok().filter(|reference| reference.digest().is_none());
            if let Some(reference) = reference {
                if reference.tag().is_some() {
                    let image = self.image(name)?;
                    // `sha256:<digits>` reads as a name and a tag, but is an id.
                    let tag = Some(reference).filter(|reference| image.tags.contains(reference));
                    add(image, tag);
                    continue;
                }
                let tags: Vec<Reference> = self
                    .images()?
                    .into_iter()
                    .flat_map(|image| image.tags)
                    .filter(|tag| tag.name() == reference.name())
                    .collect();
                if !tags.is_empty() {
                    for tag in tags {
                        add(self.image(&tag.familiar())?, Some(tag));
                    }
                    continue;
                }
            }
            add(self.image(name)?, None);
        }
        Ok(saved)
    }

    fn descriptors(&self, image: &Image, tags: &[Reference]) -> Result<Vec<Descriptor>> {
        let size = self.blob_size(&image.manifest_digest)?.unwrap_or_default();
        let kind = image.manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
        let descriptor = |annotations| Descriptor {
            media_type: kind.to_owned(),
            digest: image.manifest_digest.clone(),
            size,
            platform: None,
            annotations,
        };
        if tags.is_empty() {
            return Ok(vec![descriptor(BTreeMap::new())]);
        }
        let annotated = |tag: &Reference| {
            descriptor(BTreeMap::from([
                (NAME_ANNOTATION.to_owned(), tag.to_string()),
                (REF_ANNOTATION.to_owned(), tag.tag().unwrap_or_default().to_owned()),
            ]))
        };
        Ok(tags.iter().map(annotated).collect())
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Writer<'a, W: Write> {
    store: &'a Store,
    archive: tar::Builder<W>,
    written: BTreeSet<Digest>,
}

impl<W: Write> Writer<'_, W> {
    fn blob(&mut self, digest: &Digest) -> Result<()> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let file = self.store.open_blob(digest)?;
        let size = file.metadata().context(|| format!("blob {digest}"))?.len();
        self.member(&blob_path(digest), size, file)
    }
    fn document(&mut self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| model::Error::new(Kind::Internal, format!("write {name}")).caused_by(error))?;
        self.member(name, bytes.len() as u64, bytes.as_slice())
    }
    fn member(&mut self, name: &str, size: u64, data: impl Read) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        self.archive
            .append_data(&mut header, name, data.take(size))
            .context(|| format!("write {name} to the archive"))
    }
}
