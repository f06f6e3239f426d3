//! Mounts of a request: `Binds` (`-v`), `Mounts` (`--mount`), `Tmpfs`, `Volumes`.

use bollard_stubs::models::{ContainerCreateBody, HostConfig, Mount as Wire, MountType};
use engine::container::VolumeOptions;
use engine::model::container::{ContainerPath, ContainerSpec, HostPath, Mount, MountSource, Propagation};
use engine::model::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// Words that `--tmpfs` takes (moby `mount.validFlags`), beside `NAME=VALUE`.
const TMPFS_WORDS: [&str; 22] = [
    "ro",
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
const TMPFS_VALUES: [&str; 8] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"];

/// Adds the mounts to the specification; returns what mounts say about volumes that they make.
pub(super) fn convert(
    body: &ContainerCreateBody,
    host: &HostConfig,
    spec: &mut ContainerSpec,
) -> Result<BTreeMap<String, VolumeOptions>> {
    let mut options = BTreeMap::new();
    let driver =
        host.volume_driver.clone().filter(|driver| !driver.is_empty()).unwrap_or_else(|| "local".to_owned());
    for text in host.binds.iter().flatten() {
        add(spec, bind(text, &driver)?)?;
    }
    for wire in host.mounts.iter().flatten() {
        let mount = long(wire)?;
        if let Some(volume) = &wire.volume_options {
            let config = volume.driver_config.clone().unwrap_or_default();
            let labels = volume.labels.clone().unwrap_or_default().into_iter().collect();
            let given = config.options.unwrap_or_default().into_iter().collect();
            options.insert(mount.target.as_str().to_owned(), VolumeOptions { labels, options: given });
        }
        add(spec, mount)?;
    }
    let mut tmpfs: Vec<_> = host.tmpfs.iter().flatten().collect();
    tmpfs.sort();
    for (target, words) in tmpfs {
        let mut mount = Mount {
            target: target_path(target, "tmpfs")?,
            source: MountSource::Tmpfs { size: None, mode: None, options: Vec::new() },
            read_only: false,
        };
        tmpfs_words(&mut mount, words)?;
        add(spec, mount)?;
    }
    for target in body.volumes.iter().flatten() {
        let target = target_path(target, "volume")?;
        if !spec.mounts.iter().any(|mount| mount.target == target) {
            add(spec, Mount { target, source: volume("", true, None, &driver), read_only: false })?;
        }
    }
    Ok(options)
}

fn add(spec: &mut ContainerSpec, mount: Mount) -> Result<()> {
    if spec.mounts.iter().any(|known| known.target == mount.target) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", mount.target)));
    }
    spec.mounts.push(mount);
    Ok(())
}

fn volume(name: &str, copy: bool, subpath: Option<String>, driver: &str) -> MountSource {
    MountSource::Volume {
        name: name.to_owned(),
        anonymous: name.is_empty(),
        copy,
        subpath,
        driver: driver.to_owned(),
    }
}

fn target_path(text: &str, kind: &str) -> Result<ContainerPath> {
    if !text.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount config for type {kind:?}: invalid mount path: '{text}' mount path must be absolute"
        )));
    }
    let path = ContainerPath::parse(text)?;
    if path.as_str() == "/" {
        return Err(Error::invalid(format!(
            "invalid mount config for type {kind:?}: invalid specification: destination can't be '/'"
        )));
    }
    Ok(path)
}

/// `-v [SOURCE:]TARGET[:MODE]`.
fn bind(text: &str, driver: &str) -> Result<Mount> {
    let bad = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(bad()),
    };
    if target.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(bad());
    }
    let is_bind = source.starts_with('/');
    let target =
        target_path(target, if is_bind { "bind" } else { "volume" }).map_err(|error| error.within(bad()))?;
    if !is_bind && (source.starts_with('.') || source.contains('/')) {
        return Err(Error::invalid(format!(
            "create {source}: {source:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    let mut read_only = false;
    let mut copy = true;
    let mut propagation = Propagation::default();
    // One access mode, one propagation, one label at most (moby `volume/mounts`, `linuxValidMountMode`).
    let of = |known: &[&str]| mode.split(',').filter(|word| known.contains(word)).count();
    if of(&["ro", "rw"]) > 1
        || of(&["z", "Z"]) > 1
        || mode.split(',').filter(|word| parse_propagation(word).is_some()).count() > 1
    {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" if !is_bind => copy = false,
            word => match parse_propagation(word) {
                Some(parsed) if is_bind => propagation = parsed,
                _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
            },
        }
    }
    let source = if is_bind {
        let path = HostPath(ContainerPath::parse(source)?.as_str().into());
        MountSource::Bind { path, propagation, create_source: true, non_recursive: false }
    } else {
        volume(source, copy, None, driver)
    };
    Ok(Mount { target, source, read_only })
}

fn parse_propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "private" => Propagation::Private,
        "rprivate" => Propagation::RPrivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::RShared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::RSlave,
        _ => return None,
    })
}

/// Refuses words that the generated structures do not know, in Docker's texts.
pub(super) fn check_words(mount: &Value) -> Result<()> {
    let word = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = word(mount.get("Type"));
    let bad = |why: &str| Err(Error::invalid(format!("invalid mount config for type {kind:?}: {why}")));
    if !["bind", "volume", "tmpfs"].contains(&kind.as_str()) {
        return bad("mount type unknown");
    }
    let propagation = word(mount.get("BindOptions").and_then(|options| options.get("Propagation")));
    if !propagation.is_empty() && parse_propagation(&propagation).is_none() {
        return bad(&format!("invalid propagation mode: {propagation}"));
    }
    for (field, of) in [("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs")] {
        if kind != of && mount.get(field).is_some_and(|options| !options.is_null()) {
            return bad(&format!("field {field} must not be specified"));
        }
    }
    Ok(())
}

/// `--mount`.
fn long(wire: &Wire) -> Result<Mount> {
    let kind = wire.typ.map(|kind| kind.to_string()).unwrap_or_default();
    let bad = |why: String| Error::invalid(format!("invalid mount config for type {kind:?}: {why}"));
    let text = wire.target.as_deref().unwrap_or_default();
    if text.is_empty() {
        return Err(bad("field Target must not be empty".to_owned()));
    }
    let target = target_path(text, &kind)?;
    let source = wire.source.clone().unwrap_or_default();
    let read_only = wire.read_only.unwrap_or_default();
    let source = match wire.typ {
        Some(MountType::BIND) => long_bind(wire, &source, &bad)?,
        Some(MountType::VOLUME) => {
            let options = wire.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.and_then(|config| config.name).filter(|name| !name.is_empty());
            let subpath = options.subpath.filter(|path| !path.is_empty());
            if let Some(path) = &subpath {
                if source.is_empty() {
                    return Err(bad("must not set Subpath when using anonymous volumes".to_owned()));
                }
                if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                    return Err(bad("subpath must be a relative path within the volume".to_owned()));
                }
            }
            let copy = !options.no_copy.unwrap_or_default();
            volume(&source, copy, subpath, driver.as_deref().unwrap_or("local"))
        }
        Some(MountType::TMPFS) => {
            if !source.is_empty() {
                return Err(bad("field Source must not be specified".to_owned()));
            }
            let options = wire.tmpfs_options.clone().unwrap_or_default();
            let words = options.options.unwrap_or_default().into_iter().map(|pair| pair.join("=")).collect();
            MountSource::Tmpfs {
                size: options.size_bytes.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
                mode: options.mode.and_then(|mode| u32::try_from(mode).ok()).filter(|mode| *mode > 0),
                options: words,
            }
        }
        _ => return Err(bad("mount type unknown".to_owned())),
    };
    Ok(Mount { target, source, read_only })
}

fn long_bind(wire: &Wire, source: &str, bad: &dyn Fn(String) -> Error) -> Result<MountSource> {
    if source.is_empty() {
        return Err(bad("field Source must not be empty".to_owned()));
    }
    if !source.starts_with('/') {
        return Err(bad(format!("invalid mount path: '{source}' mount path must be absolute")));
    }
    let options = wire.bind_options.clone().unwrap_or_default();
    let propagation = options.propagation.map(|word| word.to_string()).unwrap_or_default();
    Ok(MountSource::Bind {
        path: HostPath(ContainerPath::parse(source)?.as_str().into()),
        propagation: parse_propagation(&propagation).unwrap_or_default(),
        create_source: options.create_mountpoint.unwrap_or_default(),
        non_recursive: options.non_recursive.unwrap_or_default(),
    })
}

fn tmpfs_words(mount: &mut Mount, words: &str) -> Result<()> {
    let MountSource::Tmpfs { size, mode, options } = &mut mount.source else { return Ok(()) };
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let bad = || Error::invalid(format!("invalid tmpfs option [{word:?}]"));
        match word.split_once('=') {
            // A percentage of memory is the kernel's to work out.
            Some(("size", value)) if !value.ends_with('%') => {
                *size = Some(engine::model::container::parse_size(value).ok_or_else(bad)?);
            }
            Some(("mode", value)) => *mode = Some(u32::from_str_radix(value, 8).map_err(|_| bad())?),
            Some((name, _)) if TMPFS_VALUES.contains(&name) => options.push(word.to_owned()),
            None if word == "ro" => mount.read_only = true,
            None if TMPFS_WORDS.contains(&word) => options.push(word.to_owned()),
            _ => return Err(bad()),
        }
    }
    Ok(())
}
