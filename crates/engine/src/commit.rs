//! `commit`: an image from a container.

use model::container::{ContainerSpec, MountSource};
use model::image::{Empty, History, RunConfig};
use model::state::Status;
use model::{Digest, Reference, Result};
use std::collections::BTreeMap;
use std::time::Duration;
use store::snapshot::Writable;

use crate::Engine;
use crate::container::Container;

/// What a commit is asked to be.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The tag to set.
    pub reference: Option<Reference>,
    /// `--author`.
    pub author: String,
    /// `--message`.
    pub comment: String,
    /// Freeze a running container meanwhile.
    pub pause: bool,
    /// What replaces or is added to the container's configuration.
    pub config: Option<RunConfig>,
    /// `--change`: Dockerfile instructions, one each.
    pub changes: Vec<String>,
}

impl Engine {
    /// Commits a container.
    ///
    /// # Errors
    /// Names what could not be read or written.
    pub fn commit(&self, name: &str, request: CommitRequest) -> Result<Digest> {
        self.collecting(|| self.commit_leased(name, request))
    }
    fn commit_leased(&self, name: &str, request: CommitRequest) -> Result<Digest> {
        // Until the image's record names it, nobody may collect the new layer.
        let _lease = self.store.lease()?;
        let container = self.find(name)?;
        let mut config = self.store.image_config(&container.spec.image)?;
        let mut own = config_of(&container, std::mem::take(&mut config.config));
        if let Some(asked) = request.config {
            own = over(asked, own);
        }
        for change in &request.changes {
            model::change::apply(&mut own, change)?;
        }
        let paused = request.pause && container.status() == Status::Running;
        if paused {
            set_paused(&container, true)?;
        }
        let committed = self.commit_upper(&container);
        if paused {
            set_paused(&container, false).map_err(|error| error.within(format!("commit {name}")))?;
        }
        let diff_id = committed?;
        let now = crate::now();
        config.rootfs.diff_ids.push(diff_id);
        config.history.push(History {
            created: Some(now),
            created_by: Some(container.spec.process.command.join(" ")),
            author: Some(request.author.clone()).filter(|text| !text.is_empty()),
            comment: Some(request.comment.clone()).filter(|text| !text.is_empty()),
            empty_layer: false,
        });
        config.created = Some(now);
        config.author = Some(request.author).filter(|text| !text.is_empty());
        config.comment = Some(request.comment.clone()).filter(|text| !text.is_empty());
        config.config = own;
        let image = self.store.put_image(&config, &BTreeMap::new())?;
        self.store.set_parent(&image.id, &container.spec.image)?;
        let mut name = String::new();
        if let Some(reference) = &request.reference {
            self.store.tag(reference, &image.id)?;
            name = reference.to_string();
        }
        let id = image.id.to_string();
        self.container_event(
            &container,
            "commit",
            &[("comment", &request.comment), ("imageID", &id), ("imageRef", &name)],
        );
        Ok(image.id)
    }
    fn commit_upper(&self, container: &Container) -> Result<Digest> {
        let rw = container.rw_dir();
        let writable = Writable { upper: rw.join("upper"), work: rw.join("work"), volatile: false };
        let layers = &container.spec.layers;
        let parent =
            layers.iter().fold(None, |chain, layer| Some(model::digest::chain_id(chain.as_ref(), layer)));
        Ok(self.store.commit_layer(parent.as_ref(), &writable, false)?.0)
    }
}

/// What a request asks for, with the container's own where it says nothing (moby `daemon/commit.go`, `merge`).
fn over(asked: RunConfig, own: RunConfig) -> RunConfig {
    fn union<K: Ord, V>(
        asked: Option<BTreeMap<K, V>>,
        own: Option<BTreeMap<K, V>>,
    ) -> Option<BTreeMap<K, V>> {
        let mut all = own.unwrap_or_default();
        all.extend(asked.unwrap_or_default());
        Some(all).filter(|all| !all.is_empty())
    }
    let word = |asked: String, own: String| if asked.is_empty() { own } else { asked };
    let list = |list: Option<Vec<String>>| list.filter(|list| !list.is_empty());
    let (entrypoint, command) = (list(asked.entrypoint), list(asked.cmd));
    RunConfig {
        user: word(asked.user, own.user),
        exposed_ports: union(asked.exposed_ports, own.exposed_ports),
        env: model::launch::merge_env(own.env, &asked.env),
        cmd: command.or(if entrypoint.is_none() { own.cmd } else { None }),
        entrypoint: entrypoint.or(own.entrypoint),
        volumes: union(asked.volumes, own.volumes),
        working_dir: word(asked.working_dir, own.working_dir),
        labels: union(asked.labels, own.labels),
        stop_signal: asked.stop_signal.filter(|signal| !signal.is_empty()).or(own.stop_signal),
        healthcheck: asked.healthcheck.or(own.healthcheck),
        on_build: asked.on_build.or(own.on_build),
        ..own
    }
}

/// Freezes or thaws a container that may be at its end: when it is over nothing writes any more.
fn set_paused(container: &Container, paused: bool) -> Result<()> {
    match (runtime::set_paused(&container.run_dir, &container.cgroup(), paused), &container.live) {
        (Err(_), Some(live)) if runtime::wait_exit(live, Some(Duration::from_secs(1)))? => Ok(()),
        (done, _) => done,
    }
}

/// The container's configuration, with what only the image knows kept.
fn config_of(container: &Container, image: RunConfig) -> RunConfig {
    let spec = &container.spec;
    let process = &spec.process;
    let some = |list: &Vec<String>| Some(list.clone()).filter(|list| !list.is_empty());
    let ports: BTreeMap<String, Empty> =
        spec.exposed_ports.iter().map(|port| (port.to_string(), Empty {})).collect();
    RunConfig {
        user: process.user.clone(),
        exposed_ports: Some(ports).filter(|ports| !ports.is_empty()),
        env: process.env.iter().filter(|entry| entry.contains('=')).cloned().collect(),
        entrypoint: some(&process.entrypoint),
        cmd: some(&process.command),
        working_dir: process.working_dir.clone(),
        labels: Some(spec.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: Some(spec.stop.signal.clone()).filter(|signal| !signal.is_empty()),
        healthcheck: spec.healthcheck.clone(),
        volumes: Some(volumes_of(spec, image.volumes)).filter(|volumes| !volumes.is_empty()),
        on_build: None,
        ..image
    }
}

/// The image's volumes, and the anonymous ones that the container was given (`-v /path`).
fn volumes_of(spec: &ContainerSpec, image: Option<BTreeMap<String, Empty>>) -> BTreeMap<String, Empty> {
    let anonymous = spec
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. }))
        .map(|mount| (mount.target.as_str().to_owned(), Empty {}));
    image.into_iter().flatten().chain(anonymous).collect()
}
