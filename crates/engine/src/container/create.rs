//! Making a container: the image's defaults are merged in, volumes get their names and contents, the directory and
//! the name are taken. Every step has its undo.

use model::container::{ContainerSpec, Lifecycle};
use model::error::Context as _;
use model::{ContainerId, Error, Result};
use std::collections::BTreeMap;

use super::lookup::write_json;
use super::names::{check, fill_random};
use super::reap::remove_tree;
use crate::Engine;
use crate::undo::Undo;

/// What is asked for: a specification into which the image's defaults are still to be merged.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--name`; `None` makes one up.
    pub name: Option<String>,
    /// Its image's digest, layers and its own id are filled in here; volumes without a name get one.
    pub spec: ContainerSpec,
    /// The request's `HostConfig`, repeated by inspect.
    pub host_config: serde_json::Value,
    /// The platform that the image must be for, where the request says one.
    pub platform: Option<model::image::Platform>,
    /// Labels and driver options for volumes that a mount makes, by target.
    pub volume_options: BTreeMap<String, VolumeOptions>,
}

/// What a mount says about a volume that it makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
}

/// A container that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its identifier.
    pub id: ContainerId,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Engine {
    /// A new identifier.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn new_container_id() -> Result<ContainerId> {
        let mut random = [0u8; 32];
        fill_random(&mut random)?;
        Ok(ContainerId::from_bytes(random))
    }
    /// Makes a container.
    ///
    /// # Errors
    /// Docker's texts: no such image, a name in use, no command, a volume or mount that cannot be. Everything that
    /// was made is taken away again.
    pub fn create_container(&self, mut request: Request) -> Result<Created> {
        if let Some(name) = &request.name {
            check(name)?;
        }
        // Until the specification names the image's layers, nobody may collect them.
        let _lease = self.store.lease()?;
        let image = self.store.image(&request.spec.image_name).map_err(|error| {
            // What cannot be a name is not worth a pull.
            let malformed = model::Reference::parse(&request.spec.image_name).err();
            malformed
                .filter(|_| error.kind() == model::Kind::NotFound && !is_id(&request.spec.image_name))
                .unwrap_or(error)
        })?;
        if let Some(wanted) = &request.platform {
            crate::image::check_platform(&request.spec.image_name, &image.config, wanted)?;
        }
        let spec = &mut request.spec;
        spec.id = Self::new_container_id()?;
        spec.created = crate::now();
        spec.image = image.id.clone();
        spec.layers.clone_from(&image.config.rootfs.diff_ids);
        spec.merge_image(&image.config.config);
        if spec.process.argv().is_empty() {
            return Err(Error::invalid("no command specified")
                .hint("the image has neither CMD nor ENTRYPOINT: name a command after it"));
        }
        self.apply_defaults(spec)?;
        self.inherit_mounts(spec)?;
        Self::add_image_volumes(spec, image.config.config.volumes.as_ref())?;
        let mut undo = Undo::new();
        match self.create_found(&mut request, &mut undo) {
            Ok(()) => undo.keep(),
            Err(error) => return Err(undo.roll_back(error)),
        }
        let spec = &request.spec;
        self.emit_container("create", &spec.id, &spec.name, &spec.image_name, &spec.labels, &[]);
        Ok(Created { id: spec.id.clone(), warnings: Vec::new() })
    }
    /// What the configuration file says where the request says nothing.
    fn apply_defaults(&self, spec: &mut ContainerSpec) -> Result<()> {
        for limit in self.config.ulimits()? {
            if !spec.resources.ulimits.iter().any(|asked| asked.name == limit.name) {
                spec.resources.ulimits.push(limit);
            }
        }
        spec.log.apply_defaults(&self.config.log_opts)
    }
    fn create_found<'a>(&'a self, request: &mut Request, undo: &mut Undo<'a>) -> Result<()> {
        let id = request.spec.id.clone();
        let dir = self.store.layout.container(&id);
        // Held until the specification is there: then whoever removes volumes sees ours in use.
        let _volumes = if request.spec.mounts.is_empty() { None } else { Some(self.store.share_volumes()?) };
        {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(&dir)
                .context(|| format!("create {}", dir.display()))?;
        }
        let path = dir.clone();
        undo.push(move || remove_tree(&path));
        sys::failpoint!("create: directory made");
        let _lock = self.lock_container(&id)?;
        let name = match request.name.take() {
            Some(name) => self.take_name(&name, &id).map(|()| name)?,
            None => self.take_generated_name(&id)?,
        };
        request.spec.name.clone_from(&name);
        let owner = id.clone();
        undo.push(move || self.free_name(&name, &owner));
        sys::failpoint!("create: name taken");
        self.create_volumes(request, undo)?;
        sys::failpoint!("create: volumes made");
        self.store.create_writable(&dir.join("rw"))?;
        write_json(&dir.join("request.json"), &request.host_config, false)?;
        write_json(&dir.join("spec.json"), &request.spec, false)?;
        if request.spec.lifecycle == Lifecycle::RemoveOnExit {
            return Ok(());
        }
        sys::failpoint!("create: specification written");
        // An empty specification is that of a container which never came to be, so it may have its name first.
        let layout = &self.store.layout;
        let mut paths = vec![dir.join("spec.json"), dir.join("id"), dir.join("request.json"), dir];
        paths.extend([layout.names(), layout.containers()]);
        if !request.spec.mounts.is_empty() {
            paths.push(layout.volumes());
        }
        paths.iter().try_for_each(|path| sys::fs::sync(path).context(|| format!("sync {}", path.display())))
    }
}

/// Whether this may be an image's id rather than a name.
fn is_id(name: &str) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}
