//! Volumes, binds, tmpfs, and the files of secrets and configs.

use super::{Around, refused, texts};
use crate::error::Result;
use crate::project::{Delivered, Mount, Project, Secret, Service};
use client::bollard::models::{
    ContainerCreateBody, HostConfig, Mount as ApiMount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountImageOptions, MountTmpfsOptions, MountType, MountVolumeOptions,
};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// A file to put into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where, absolute.
    pub target: String,
    /// Its bytes.
    pub source: Source,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Mode.
    pub mode: u32,
}

/// Where a delivered file's bytes come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of the host.
    File(PathBuf),
    /// These.
    Bytes(Vec<u8>),
    /// The first of these files that there is: an external secret's.
    Found(String, Vec<PathBuf>),
    /// What a command of this machine prints, without one line end; it runs in this directory.
    Command(Vec<String>, PathBuf),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            // What may be secret is not printed.
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Found(name, _) => f.write_str(name),
            Self::Command(words, _) => write!(f, "{words:?}"),
        }
    }
}

pub fn apply(
    project: &Project,
    service: &Service,
    around: &Around<'_>,
    create: &mut ContainerCreateBody,
    host: &mut HostConfig,
) -> Result<Vec<Delivery>> {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    let mut inherited: BTreeMap<String, String> = around.inherited.clone();
    let mut anonymous = Vec::new();
    for mount in &service.volumes {
        let target = mount.target.clone();
        match inherited.remove(&target) {
            // The volume that the replaced container had at a place without a name.
            Some(name) if mount.kind == "volume" && mount.source.is_none() => {
                binds.push(bind(&name, &target, mount))
            }
            _ => place(project, mount, &mut binds, &mut mounts, &mut anonymous),
        }
    }
    let mut others: Vec<String> =
        inherited.into_iter().map(|(target, name)| format!("{name}:{target}")).collect();
    binds.append(&mut others);
    let mut deliveries = deliveries(project, service)?;
    deliveries.retain(|delivery| match &delivery.source {
        Source::File(path) if !around.delivers => {
            binds.push(format!("{}:{}:ro", path.display(), delivery.target));
            false
        }
        _ => true,
    });
    host.binds = super::some(binds);
    host.mounts = super::some(mounts);
    create.volumes = super::some(anonymous);
    let tmpfs = service.tmpfs.iter().map(|text| {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        (path.to_owned(), options.to_owned())
    });
    let tmpfs: HashMap<String, String> = tmpfs.collect();
    host.tmpfs = (!tmpfs.is_empty()).then_some(tmpfs);
    let from: Result<Vec<String>> =
        service.volumes_from.iter().map(|text| volumes_from(project, service, around, text)).collect();
    host.volumes_from = super::some(from?);
    Ok(deliveries)
}

fn volumes_from(project: &Project, service: &Service, around: &Around<'_>, text: &str) -> Result<String> {
    if let Some(container) = text.strip_prefix("container:") {
        return Ok(container.to_owned());
    }
    let (name, mode) = text.split_once(':').map_or((text, None), |(name, mode)| (name, Some(mode)));
    let (id, _) = (around.container)(name).ok_or_else(|| {
        refused(project, service, "volumes_from", &format!("service \"{name}\" has no container"))
    })?;
    Ok(mode.map_or(id.clone(), |mode| format!("{id}:{mode}")))
}

fn bind(source: &str, target: &str, mount: &Mount) -> String {
    let mut modes: Vec<String> = Vec::new();
    modes.push(if mount.read_only { "ro" } else { "rw" }.to_owned());
    if let Some(options) = &mount.bind {
        modes.extend(options.selinux.clone());
        modes.extend(options.propagation.clone());
    }
    if mount.volume.as_ref().is_some_and(|options| options.nocopy == Some(true)) {
        modes.push("nocopy".to_owned());
    }
    format!("{source}:{target}:{}", modes.join(","))
}

fn place(
    project: &Project,
    mount: &Mount,
    binds: &mut Vec<String>,
    mounts: &mut Vec<ApiMount>,
    anonymous: &mut Vec<String>,
) {
    let source = mount.source.clone().unwrap_or_default();
    let mut long = ApiMount {
        target: Some(mount.target.clone()),
        source: mount.source.clone(),
        read_only: Some(mount.read_only),
        consistency: mount.consistency.clone(),
        ..ApiMount::default()
    };
    match mount.kind.as_str() {
        "bind" => {
            let options = mount.bind.clone().unwrap_or_default();
            if options.create_host_path != Some(false) && options.recursive.is_none() {
                // As `-v`: a missing directory is made.
                binds.push(bind(&source, &mount.target, mount));
                return;
            }
            let recursive = options.recursive.as_deref();
            let propagation =
                options.propagation.and_then(|text| text.parse::<MountBindOptionsPropagationEnum>().ok());
            long.typ = Some(MountType::BIND);
            long.bind_options = Some(MountBindOptions {
                propagation,
                create_mountpoint: options.create_host_path.filter(|on| *on),
                non_recursive: (recursive == Some("disabled")).then_some(true),
                read_only_non_recursive: (recursive == Some("writable")).then_some(true),
                read_only_force_recursive: (recursive == Some("readonly")).then_some(true),
            });
        }
        "tmpfs" => {
            let options = mount.tmpfs.clone().unwrap_or_default();
            long.typ = Some(MountType::TMPFS);
            long.source = None;
            long.tmpfs_options =
                Some(MountTmpfsOptions { size_bytes: options.size, mode: options.mode, options: None });
        }
        "image" => {
            long.typ = Some(MountType::IMAGE);
            long.image_options =
                mount.image.clone().map(|options| MountImageOptions { subpath: options.subpath });
        }
        _ => {
            let options = mount.volume.clone().unwrap_or_default();
            let name = project.volumes.get(&source).map_or(source.clone(), |volume| volume.name.clone());
            let plain = options.subpath.is_none() && options.labels.is_empty();
            if plain && !source.is_empty() {
                binds.push(bind(&name, &mount.target, mount));
                return;
            }
            if plain && !mount.read_only && options.nocopy != Some(true) {
                anonymous.push(mount.target.clone());
                return;
            }
            long.typ = Some(MountType::VOLUME);
            long.source = (!name.is_empty()).then_some(name);
            long.volume_options = Some(MountVolumeOptions {
                no_copy: options.nocopy,
                labels: (!options.labels.is_empty()).then(|| texts(&options.labels)),
                driver_config: None,
                subpath: options.subpath,
            });
        }
    }
    mounts.push(long);
}

/// A service's secrets and configs.
///
/// # Errors
/// One has no source.
pub fn deliveries(project: &Project, service: &Service) -> Result<Vec<Delivery>> {
    let lists =
        [(&service.secrets, &project.secrets, "/run/secrets/"), (&service.configs, &project.configs, "/")];
    let mut deliveries = Vec::new();
    for (wanted, known, base) in lists {
        for item in wanted {
            if let Some(source) = known.get(&item.source) {
                deliveries.push(delivery(project, service, item, source, base)?);
            }
        }
    }
    Ok(deliveries)
}

fn delivery(
    project: &Project,
    service: &Service,
    item: &Delivered,
    source: &Secret,
    base: &str,
) -> Result<Delivery> {
    let key = if base == "/" { "configs" } else { "secrets" };
    let target = match item.target.as_deref() {
        Some(target) if target.starts_with('/') => target.to_owned(),
        Some(target) => format!("{base}{target}"),
        None => format!("{base}{}", item.source),
    };
    let bytes =
        source_of(project, &item.source, source).map_err(|text| refused(project, service, key, &text))?;
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Delivery {
        target,
        source: bytes,
        uid: number(&item.uid),
        gid: number(&item.gid),
        mode: item.mode.unwrap_or(0o444),
    })
}

/// Where external secrets and configs are, unless systemd has given credentials.
const EXTERNAL: &str = "/etc/cauldron/secrets";

/// Where a secret's or config's bytes come from; `key` is its name in the file.
///
/// # Errors
/// Says why there is none.
pub fn source_of(project: &Project, key: &str, secret: &Secret) -> Result<Source, String> {
    if let Some(command) = &secret.command {
        let words = match command {
            serde_json::Value::Array(list) => list
                .iter()
                .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
                .collect(),
            line => crate::schema::words(line.as_str().unwrap_or_default())?,
        };
        return Ok(Source::Command(words, project.directory.clone()));
    }
    if secret.external {
        let name = &secret.name;
        if name.contains('/') || name.starts_with('.') {
            return Err(format!("external {name:?} is no name of a file"));
        }
        let credentials = project.environment.get("CREDENTIALS_DIRECTORY").map(String::as_str);
        let places = credentials.into_iter().chain([EXTERNAL]);
        return Ok(Source::Found(name.clone(), places.map(|dir| PathBuf::from(dir).join(name)).collect()));
    }
    match (&secret.file, &secret.environment, &secret.content) {
        (Some(path), ..) => Ok(Source::File(path.clone())),
        (None, Some(name), _) => match project.environment.get(name) {
            Some(value) => Ok(Source::Bytes(value.clone().into_bytes())),
            None => Err(format!("environment variable \"{name}\" required by {key} is not set")),
        },
        (None, None, content) => Ok(Source::Bytes(content.clone().unwrap_or_default().into_bytes())),
    }
}
