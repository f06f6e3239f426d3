//! OCI layouts that are read: directories of other people's making, opened by their descriptor, whose blobs are verified.

use model::error::Context as _;
use model::image::{Descriptor, Index, Manifest, Platform, media_type};
use model::{Digest, Error, Kind, Result, limits};
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;
use std::path::Path;
use store::Store;

/// The annotation that names a manifest in a layout (image-spec, annotations.md).
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `DIR[:TAG|@DIGEST]`.
pub(super) fn split(place: &str) -> (&str, &str) {
    if let Some((dir, digest)) = place.rsplit_once('@').filter(|(_, digest)| digest.starts_with("sha256:")) {
        return (dir, digest);
    }
    match place.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') => (dir, tag),
        _ => (place, "latest"),
    }
}

/// A layout.
pub(super) struct Layout(OwnedFd);

impl Layout {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        sys::fs::open_root(dir).context(|| format!("open {}", dir.display())).map(Self)
    }
    /// The manifest of this name or digest, and its bytes; where only one is there it is `latest` too. An index beneath the
    /// name is gone through for a platform, if one is given.
    pub(super) fn manifest(&self, name: &str, platform: Option<&Platform>) -> Result<(Vec<u8>, Manifest)> {
        let bytes = sys::fs::read_in_root(&self.0, "index.json", limits::MANIFEST_BYTES)
            .context(|| "read index.json")?;
        let index = Index::parse(&bytes).context(|| "index.json")?;
        let named = |entry: &&Descriptor| {
            let names = ["io.containerd.image.name", REF_NAME];
            let called =
                names.iter().filter_map(|key| entry.annotations.get(*key)).any(|found| found == name);
            called || entry.digest.as_str() == name
        };
        let mut entry = match (index.manifests.iter().find(named), &index.manifests[..]) {
            (Some(entry), _) => entry.clone(),
            (None, [only]) if name == "latest" => only.clone(),
            // A manifest by its digest need not be in the index itself.
            (None, _) => match Digest::parse(name) {
                Ok(digest) => {
                    Descriptor { digest, ..index.manifests.first().cloned().ok_or_else(|| absent(name))? }
                }
                Err(_) => return Err(absent(name)),
            },
        };
        let mut bytes = self.small(&entry, limits::MANIFEST_BYTES)?;
        if let (Ok(inner), Some(platform)) = (Index::parse(&bytes), platform)
            && !inner.manifests.is_empty()
        {
            let found = store::registry::select(&inner.manifests, platform);
            entry = found.ok_or_else(|| absent(name))?.clone();
            bytes = self.small(&entry, limits::MANIFEST_BYTES)?;
        }
        let manifest = Manifest::parse(&bytes).context(|| format!("manifest {}", entry.digest))?;
        Ok((bytes, manifest))
    }
    /// A small blob, whole and verified.
    pub(super) fn small(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let path = path(&blob.digest);
        let bytes = sys::fs::read_in_root(&self.0, &path, limit).context(|| format!("read {path}"))?;
        match Digest::of(&bytes) {
            digest if digest == blob.digest => Ok(bytes),
            digest => {
                Err(Error::invalid(format!("blob {}: its content has the digest {digest}", blob.digest)))
            }
        }
    }
    /// Takes a blob into the store, if it is not there.
    pub(super) fn take(&self, store: &Store, blob: &Descriptor) -> Result<()> {
        if store.blob_size(&blob.digest)? == Some(blob.size) {
            return Ok(());
        }
        let path = path(&blob.digest);
        let file = sys::fs::open_in_root(&self.0, &path, OFlags::RDONLY | OFlags::NONBLOCK, 0);
        let mut file = std::fs::File::from(file.context(|| format!("open {path}"))?);
        let mut ingest = store.ingest()?.limit(blob.size);
        std::io::copy(&mut file, &mut ingest).context(|| format!("read blob {}", blob.digest))?;
        ingest.commit_unsynced(Some(&blob.digest)).map(drop)
    }
    /// Takes an image into the store; it gets no name.
    pub(super) fn image(&self, store: &Store, name: &str, platform: &Platform) -> Result<Digest> {
        let (bytes, manifest) = self.manifest(name, Some(platform))?;
        let kinds = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG];
        if !kinds.contains(&manifest.config.media_type.as_str()) || manifest.layers.len() > limits::LAYERS {
            return Err(Error::invalid(format!("{name}: it is no image")));
        }
        let config_bytes = self.small(&manifest.config, limits::CONFIG_BYTES)?;
        let config: model::image::ImageConfig = serde_json::from_slice(&config_bytes)
            .map_err(|error| Error::invalid("the image's configuration").caused_by(error))?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::invalid(format!(
                "{name}: its configuration and its manifest do not name the same layers"
            )));
        }
        let mut below = None;
        for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            if blob.size > limits::LAYER_BYTES {
                return Err(Error::new(
                    Kind::ResourceExhausted,
                    format!("layer {}: it is too long", blob.digest),
                ));
            }
            self.take(store, blob)?;
            below = Some(store.unpack_layer(below.as_ref(), blob, Some(diff_id))?.chain);
        }
        Ok(store.put_image_with_manifest(&bytes, &config_bytes)?.id)
    }
}

fn absent(name: &str) -> Error {
    Error::not_found(format!("the layout has no manifest {name}"))
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_layouts() {
        assert_eq!(split("/a/b"), ("/a/b", "latest"));
        assert_eq!(split("/a:1/b"), ("/a:1/b", "latest"));
        assert_eq!(split("/a/b:v1"), ("/a/b", "v1"));
        assert_eq!(split("/a/b@sha256:00"), ("/a/b", "sha256:00"));
    }
}
