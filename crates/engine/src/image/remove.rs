//! Images are removed as Docker removes them: names first, the image with its last name, and never from under a
//! running container.

use model::filter::Filters;
use model::{ContainerId, Digest, Error, Reference, Result};
use std::collections::HashSet;

use super::Image;
use super::filter::{chains, labels_pass, moment};
use crate::Engine;

/// One line of a removal's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image (by id) or a layer (by chain id) is gone.
    Deleted(Digest),
}

/// What a prune took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names, images and layers.
    pub removed: Vec<Removed>,
    /// Bytes of layers.
    pub reclaimed: u64,
}

/// Why an image must not be deleted.
struct Obstacle {
    /// Force does not help.
    hard: bool,
    /// A container is the reason.
    used: bool,
    why: String,
}

impl Engine {
    /// Removes a name of an image, and with its last name the image; by id, all its names (with `force` also where they
    /// are of several repositories).
    ///
    /// # Errors
    /// `No such image: …`, or a conflict: a container uses it, or it has more names.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        let image = self.store.image(name)?;
        let users = self.image_users()?.remove(&image.id).unwrap_or_default();
        let mut removed = Vec::new();
        let by_name = !is_id_prefix(&image.id, name);
        if by_name {
            if !force
                && single(&image)
                && let Some((container, _)) = users.first()
            {
                return Err(Error::conflict(format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                     referenced image {}",
                    container.short(),
                    image.id.short()
                )));
            }
            if self.remove_name(&image, &Reference::parse(name)?.with_default_tag(), &mut removed)? {
                return Ok(removed);
            }
        } else if single(&image) {
            if let Some(obstacle) = obstacle(&users, 0).filter(|obstacle| obstacle.hard || !force) {
                return Err(conflict(&image.id, &obstacle));
            }
            self.remove_all_names(&image, &mut removed)?;
        }
        let left = self.store.image(image.id.as_str())?;
        let names = left.tags.len() + left.repo_digests.len();
        if let Some(obstacle) = obstacle(&users, names).filter(|obstacle| obstacle.hard || !force) {
            // The name is gone, which is what was asked for; a user of the image is no news then.
            return if by_name && (names > 0 || obstacle.used) {
                Ok(removed)
            } else {
                Err(conflict(&image.id, &obstacle))
            };
        }
        self.remove_all_names(&left, &mut removed)?;
        let deleted = self.store.remove_image(&image.id, &|| self.layers_in_use())?;
        self.emit_image("delete", &image.id, image.id.as_str());
        removed.extend(deleted.into_iter().map(Removed::Deleted));
        Ok(removed)
    }
    /// Removes images that no container uses: those without a name (`dangling=true`, the default), or all.
    ///
    /// # Errors
    /// An unknown filter, or a removal failed.
    pub fn prune_images(&self, filters: &Filters) -> Result<Pruned> {
        filters.check(&["dangling", "label", "label!", "until"])?;
        let dangling = filters.boolean("dangling")?.unwrap_or(true);
        let until =
            filters.get("until").iter().map(|text| moment(text, crate::now())).collect::<Result<Vec<_>>>()?;
        let users = self.image_users()?;
        let mut pruned = Pruned::default();
        for image in self.store.images()? {
            let wanted = !users.contains_key(&image.id)
                && (!dangling || image.tags.is_empty())
                && labels_pass(filters, &image)
                && until.iter().all(|moment| image.config.created < Some(*moment));
            if !wanted {
                continue;
            }
            let mut sizes = Vec::new();
            for chain in chains(&image) {
                let size = self.store.layer(&chain)?.map_or(0, |layer| layer.size);
                sizes.push((chain, size));
            }
            let names = image.tags.iter().map(Reference::familiar);
            let names: Vec<String> =
                if image.tags.is_empty() { vec![image.id.to_string()] } else { names.collect() };
            let mut removed = Vec::new();
            for name in names {
                match self.remove_image(&name, false) {
                    Ok(more) => removed.extend(more),
                    // A container took it meanwhile, or somebody else removed it.
                    Err(error) if matches!(error.kind(), model::Kind::Conflict | model::Kind::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            let gone: HashSet<&Digest> = removed.iter().filter_map(deleted).collect();
            pruned.reclaimed +=
                sizes.iter().filter(|(chain, _)| gone.contains(chain)).map(|(_, size)| size).sum::<u64>();
            pruned.removed.extend(removed);
        }
        Ok(pruned)
    }

    /// Removes one name, and the digests of a repository that has no tag of this image left. True: others remain.
    fn remove_name(&self, image: &Image, reference: &Reference, removed: &mut Vec<Removed>) -> Result<bool> {
        let mut left: Vec<&Reference> = image.tags.iter().chain(&image.repo_digests).collect();
        if reference.digest().is_some() {
            self.store.remove_repo_digest(&image.id, reference)?;
        } else {
            self.store.untag(reference)?;
        }
        self.untagged(image, reference, removed);
        left.retain(|known| *known != reference);
        let tagged = image.tags.iter().any(|tag| tag != reference && tag.name() == reference.name());
        if reference.digest().is_none() && !tagged {
            for digest in image.repo_digests.iter().filter(|digest| digest.name() == reference.name()) {
                self.store.remove_repo_digest(&image.id, digest)?;
                self.untagged(image, digest, removed);
                left.retain(|known| *known != digest);
            }
        }
        Ok(!left.is_empty())
    }
    fn remove_all_names(&self, image: &Image, removed: &mut Vec<Removed>) -> Result<()> {
        for tag in &image.tags {
            self.store.untag(tag)?;
            self.untagged(image, tag, removed);
        }
        for digest in &image.repo_digests {
            self.store.remove_repo_digest(&image.id, digest)?;
            self.untagged(image, digest, removed);
        }
        Ok(())
    }
    fn untagged(&self, image: &Image, reference: &Reference, removed: &mut Vec<Removed>) {
        self.emit_image("untag", &image.id, image.id.as_str());
        removed.push(Removed::Untagged(reference.familiar()));
    }
}

fn deleted(removed: &Removed) -> Option<&Digest> {
    match removed {
        Removed::Deleted(digest) => Some(digest),
        Removed::Untagged(_) => None,
    }
}

/// Whether a name is a way of writing this id.
fn is_id_prefix(id: &Digest, name: &str) -> bool {
    id.as_str().starts_with(name) || id.hex().starts_with(name)
}

/// One tag at most, and digests of its repository only.
fn single(image: &Image) -> bool {
    let mut names: Vec<String> = image.tags.iter().chain(&image.repo_digests).map(Reference::name).collect();
    names.dedup();
    image.tags.len() + image.repo_digests.len() <= 1 || (image.tags.len() <= 1 && names.len() == 1)
}

fn obstacle(users: &[(ContainerId, bool)], names: usize) -> Option<Obstacle> {
    let user = |running: bool| users.iter().find(|(_, runs)| *runs == running).map(|(id, _)| id.short());
    if let Some(id) = user(true) {
        return Some(Obstacle {
            hard: true,
            used: true,
            why: format!("image is being used by running container {id}"),
        });
    }
    if names > 1 {
        return Some(Obstacle {
            hard: false,
            used: false,
            why: "image is referenced in multiple repositories".to_owned(),
        });
    }
    let id = user(false)?;
    Some(Obstacle { hard: false, used: true, why: format!("image is being used by stopped container {id}") })
}

fn conflict(id: &Digest, obstacle: &Obstacle) -> Error {
    let force = if obstacle.hard { "cannot be forced" } else { "must be forced" };
    Error::conflict(format!("conflict: unable to delete {} ({force}) - {}", id.short(), obstacle.why))
}
