//! Images: listed, looked at, tagged, removed and pruned, with Docker's rules for what stands in the way.
//!
//! Which containers use an image is read from the containers' own specifications, never kept twice. The store removes
//! blobs and layers only when nothing here names them ([`Engine::layers_in_use`]).

mod filter;
mod remove;

use model::digest::chain_id;
use model::image::History;
use model::{ContainerId, Digest, Error, Reference, Result};
use std::collections::{BTreeMap, HashMap};

pub use filter::Listed;
pub use remove::{Pruned, Removed};
pub use store::image::Image;

use crate::Engine;

/// A line of an image's history.
#[derive(Clone, Debug)]
pub struct Step {
    /// How the step was made.
    pub history: History,
    /// Bytes that it added.
    pub size: u64,
}

impl Engine {
    /// One image, by name, digest, id or prefix of it.
    ///
    /// # Errors
    /// `No such image: …`.
    pub fn image(&self, name: &str) -> Result<Image> {
        self.store.image(name)
    }
    /// Refuses an image that is made for another platform than the one asked for; any is right where none was.
    ///
    /// # Errors
    /// `No such image: …`, or not found, naming both platforms.
    pub fn require_platform(&self, name: &str, wanted: Option<&model::image::Platform>) -> Result<()> {
        match wanted {
            None => Ok(()),
            Some(wanted) => check_platform(name, &self.store.image(name)?.config, wanted),
        }
    }
    /// How an image was made, the last step first.
    ///
    /// # Errors
    /// `No such image: …`, or a layer's record cannot be read.
    pub fn image_history(&self, name: &str) -> Result<(Image, Vec<Step>)> {
        let image = self.store.image(name)?;
        let mut steps = Vec::new();
        let mut layers = image.config.rootfs.diff_ids.iter();
        let mut chain: Option<Digest> = None;
        let mut next_size = |chain: &mut Option<Digest>| -> Result<u64> {
            let Some(diff_id) = layers.next() else { return Ok(0) };
            let this = chain_id(chain.as_ref(), diff_id);
            let size = self.store.layer(&this)?.map_or(0, |layer| layer.size);
            *chain = Some(this);
            Ok(size)
        };
        for history in &image.config.history {
            let size = if history.empty_layer { 0 } else { next_size(&mut chain)? };
            steps.push(Step { history: history.clone(), size });
        }
        // A configuration without a history still has its layers.
        for _ in
            steps.iter().filter(|step| !step.history.empty_layer).count()..image.config.rootfs.diff_ids.len()
        {
            let size = next_size(&mut chain)?;
            steps.push(Step { history: History::default(), size });
        }
        steps.reverse();
        Ok((image, steps))
    }
    /// Gives an image a name: `repo` with an optional tag of its own, or `tag` beside it.
    ///
    /// # Errors
    /// `No such image: …`, or a malformed name.
    pub fn tag_image(&self, name: &str, repo: &str, tag: &str) -> Result<()> {
        let image = self.store.resolve_image(name)?;
        let mut reference = Reference::parse(repo)?;
        if !tag.is_empty() {
            reference = reference.retagged(tag)?;
        }
        let reference = reference.with_default_tag();
        self.store.tag(&reference, &image)?;
        self.emit_image("tag", &image, &reference.familiar());
        Ok(())
    }
    /// The directories of an image's layers, uppermost first (what Docker shows as `GraphDriver.Data`).
    ///
    /// # Errors
    /// A layer is missing.
    pub fn image_directories(&self, image: &Image) -> Result<Vec<std::path::PathBuf>> {
        let lower = self.store.lower(&image.config.rootfs.diff_ids)?;
        Ok(lower.into_iter().map(|directory| directory.0).collect())
    }

    /// The containers of each image, and whether they run.
    pub(crate) fn image_users(&self) -> Result<HashMap<Digest, Vec<(ContainerId, bool)>>> {
        let mut users: HashMap<Digest, Vec<(ContainerId, bool)>> = HashMap::new();
        for container in self.containers()? {
            let running = container.is_running();
            users.entry(container.spec.image.clone()).or_default().push((container.spec.id.clone(), running));
        }
        Ok(users)
    }
    /// What must stay whatever happens to the images: images and layers of containers, layers of the build cache.
    pub(crate) fn layers_in_use(&self) -> Result<Vec<Digest>> {
        let mut needed = self.cached_chains()?;
        for container in self.containers()? {
            let layers = container.spec.layers.iter();
            needed.extend(
                layers.fold(None, |chain: Option<Digest>, diff_id| Some(chain_id(chain.as_ref(), diff_id))),
            );
            needed.push(container.spec.image.clone());
        }
        Ok(needed)
    }
    /// Does something that makes blobs and layers; where it fails, those that nobody needs are collected (now, or by the
    /// next collection where somebody holds a lease).
    pub(crate) fn collecting<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().map_err(|error| {
            let collected = self.store.collect(&|| self.layers_in_use());
            error.with_undo_failures(collected.err())
        })
    }
    pub(crate) fn emit_image(&self, action: &str, image: &Digest, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.emit("image", action, image.as_str(), attributes);
    }
}

/// Docker's text (moby `daemon/images`) where an image is there, but for another machine.
pub(crate) fn check_platform(
    name: &str,
    config: &model::image::ImageConfig,
    wanted: &model::image::Platform,
) -> Result<()> {
    let variant = wanted.variant.is_none() || config.variant.is_none() || wanted.variant == config.variant;
    let known = !config.architecture.is_empty();
    if !known || (wanted.os == config.os && wanted.architecture == config.architecture && variant) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {name} was found but its platform ({}/{}) does not match the specified platform ({}/{})",
        config.os, config.architecture, wanted.os, wanted.architecture
    )))
}
