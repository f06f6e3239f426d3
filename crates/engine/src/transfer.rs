//! Images that come and go: pull, push, login, save, load, import, see [`crate::bootstrap`] for
//! base images from a distribution's archive.

use model::image::{Platform, RunConfig};
use model::{Digest, Error, Kind, Reference, Result};
use std::collections::BTreeMap;
use std::io::{Read, Write};

pub use store::archive::Loaded;
pub use store::registry::{
    Access, Credentials, Found, Inspected, Progress, Report, domain_of, parse_platform,
};

use crate::Engine;

/// Tags that one pull of all tags takes.
const ALL_TAGS: usize = 1000;

impl Engine {
    /// How a registry is reached with these credentials.
    pub(crate) fn access(&self, credentials: Option<Credentials>) -> Access {
        Access {
            credentials,
            insecure: self.config.insecure_registries.clone(),
            mirrors: self.config.registry_mirrors.clone(),
            downloads: self.config.max_concurrent_downloads.get(),
            uploads: self.config.max_concurrent_uploads.get(),
        }
    }
    /// Pulls one image, or with `all_tags` every tag of the repository.
    ///
    /// # Errors
    /// Docker's texts for what does not exist or is denied.
    pub fn pull(
        &self,
        reference: &Reference,
        all_tags: bool,
        platform: Option<&Platform>,
        credentials: Option<Credentials>,
        report: Report<'_>,
    ) -> Result<()> {
        let access = self.access(credentials);
        if !all_tags {
            return self.pull_one(reference, platform, &access, report);
        }
        let tags = store::registry::tags(reference, &access)?;
        if tags.len() > ALL_TAGS {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("pull {}: {} tags, {ALL_TAGS} at most", reference.familiar_name(), tags.len()),
            ));
        }
        for tag in tags {
            self.pull_one(&reference.retagged(&tag)?, platform, &access, report)?;
        }
        Ok(())
    }
    fn pull_one(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        access: &Access,
        report: Report<'_>,
    ) -> Result<()> {
        let reference = reference.clone().with_default_tag();
        let pulled = self.store.pull(&reference, platform, access, report)?;
        let name = reference.familiar();
        self.emit("image", "pull", &name, BTreeMap::from([("name".to_owned(), reference.familiar_name())]));
        let status = if pulled.changed { "Downloaded newer image for" } else { "Image is up to date for" };
        report(Progress::new("", format!("Status: {status} {name}")))
    }
    /// Pushes a tag; without one, every tag of the repository. `pushed` is told of each.
    ///
    /// # Errors
    /// Nothing has that name, or the registry refuses.
    pub fn push(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        report: Report<'_>,
        pushed: &dyn Fn(&str, &Digest, u64) -> Result<()>,
    ) -> Result<()> {
        if reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let references: Vec<Reference> = match reference.tag() {
            Some(_) => vec![reference.clone()],
            None => self
                .store
                .images()?
                .into_iter()
                .flat_map(|image| image.tags)
                .filter(|tag| tag.name() == reference.name())
                .collect(),
        };
        if references.is_empty() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        let access = self.access(credentials);
        report(Progress::new("", format!("The push refers to repository [{}]", reference.name())))?;
        for reference in references {
            let done = self.store.push(&reference, &access, report)?;
            let tag = reference.tag().unwrap_or_default();
            report(Progress::new("", format!("{tag}: digest: {} size: {}", done.digest, done.size)))?;
            pushed(tag, &done.digest, done.size)?;
            self.emit(
                "image",
                "push",
                &reference.familiar(),
                BTreeMap::from([("name".to_owned(), reference.familiar_name())]),
            );
        }
        Ok(())
    }
    /// Checks credentials. Returns an identity token where the registry gives one.
    ///
    /// # Errors
    /// They are wrong, or the registry cannot be reached.
    pub fn login(&self, server: &str, credentials: Credentials) -> Result<String> {
        store::registry::login(&domain_of(server), &self.access(Some(credentials)))
    }
    /// What a registry has under a name, without pulling it.
    ///
    /// # Errors
    /// As for a pull.
    pub fn inspect_distribution(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Inspected> {
        store::registry::inspect(reference, &self.access(credentials))
    }
    /// A manifest or index of a registry as it is: its bytes, media type and digest. `insecure`: this registry may speak
    /// plain HTTP.
    ///
    /// # Errors
    /// As for a pull.
    pub fn registry_manifest(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        insecure: bool,
    ) -> Result<(Vec<u8>, String, Digest)> {
        let mut access = self.access(credentials);
        if insecure {
            access.insecure.push(reference.domain().to_owned());
        }
        store::registry::manifest(reference, &access)
    }
    /// Repositories that a registry finds for a term (`[HOST/]TERM`), `limit` at most.
    ///
    /// # Errors
    /// The registry has no search, says no, or cannot be reached.
    pub fn search(&self, term: &str, limit: usize, credentials: Option<Credentials>) -> Result<Vec<Found>> {
        store::registry::search(term, limit, &self.access(credentials))
    }
    /// Checks that these images are there, so that a stream need not begin with an error.
    ///
    /// # Errors
    /// `No such image: …`.
    pub fn check_saved(&self, names: &[String]) -> Result<()> {
        for name in names {
            let known = Reference::parse(name)
                .ok()
                .filter(|name| name.tag().is_none() && name.digest().is_none())
                .is_some_and(|name| {
                    self.store.images().is_ok_and(|images| {
                        images.iter().any(|image| image.tags.iter().any(|tag| tag.name() == name.name()))
                    })
                });
            if !known {
                self.store.image(name)?;
            }
        }
        Ok(())
    }
    /// Writes images as one archive.
    ///
    /// # Errors
    /// An image is missing, or the writer failed.
    pub fn save_images(&self, names: &[String], archive: impl Write) -> Result<()> {
        self.store.save(names, archive)?;
        for name in names {
            self.emit("image", "save", name, BTreeMap::from([("name".to_owned(), name.clone())]));
        }
        Ok(())
    }
    /// Loads an archive's images.
    ///
    /// # Errors
    /// The archive is malformed or damaged.
    pub fn load_images(&self, source: impl Read, report: Report<'_>) -> Result<Vec<Loaded>> {
        let loaded = self.collecting(|| self.store.load(source, report))?;
        for image in &loaded {
            let name = match image {
                Loaded::Tag(tag) => tag.familiar(),
                Loaded::Image(id) => id.to_string(),
            };
            self.emit("image", "load", &name, BTreeMap::from([("name".to_owned(), name.clone())]));
        }
        Ok(loaded)
    }
    /// Makes an image of a root file system's tar. Returns its id.
    ///
    /// # Errors
    /// The tar is malformed or refused.
    pub fn import_image(
        &self,
        source: impl Read,
        reference: Option<&Reference>,
        config: RunConfig,
        message: &str,
        platform: Option<Platform>,
    ) -> Result<Digest> {
        let platform = platform.unwrap_or_else(store::registry::host_platform);
        let import =
            store::archive::Import { config, message: message.to_owned(), platform, created: crate::now() };
        let image = self.collecting(|| self.store.import(source, import))?;
        if let Some(reference) = reference {
            self.store.tag(&reference.clone().with_default_tag(), &image.id)?;
        }
        self.emit("image", "import", image.id.as_str(), BTreeMap::new());
        Ok(image.id)
    }
}
