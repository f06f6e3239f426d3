//! Mounts: `--volumes-from`, the image's volumes, volumes made and filled on demand, sources on the host.

use model::bundle::MountOp;
use model::container::{ContainerPath, ContainerSpec, HostPath, Mount, MountSource, Propagation};
use model::error::Context as _;
use model::image::Empty;
use model::launch::mount_op;
use model::{Error, Kind, Result};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::create::Request;
use super::lookup::Container;
use crate::Engine;
use crate::doctor::leftovers::mount_point;
use crate::undo::Undo;

impl Engine {
    /// Adds the mounts of `--volumes-from` that no mount of the container's own replaces.
    pub(crate) fn inherit_mounts(&self, spec: &mut ContainerSpec) -> Result<()> {
        for text in spec.volumes_from.clone() {
            let (name, read_only) = match text.split_once(':') {
                None => (text.as_str(), false),
                Some((name, mode)) => (name, read_only_mode(&text, mode)?),
            };
            let found = self.find(name).map_err(|error| match error.kind() {
                // It is the request that is wrong: what is not found is the image, to clients.
                Kind::NotFound => Error::invalid(error.message()),
                _ => error,
            });
            for mut mount in found?.spec.mounts.clone() {
                if matches!(mount.source, MountSource::Tmpfs { .. }) || has(spec, &mount.target) {
                    continue;
                }
                mount.read_only |= read_only;
                spec.mounts.push(mount);
            }
        }
        Ok(())
    }
    /// Anonymous volumes for the image's `VOLUME`s, unless something is mounted there.
    pub(crate) fn add_image_volumes(
        spec: &mut ContainerSpec,
        volumes: Option<&BTreeMap<String, Empty>>,
    ) -> Result<()> {
        for path in volumes.into_iter().flat_map(BTreeMap::keys) {
            // `VOLUME ['/mnt']` is the shell form and names `[/mnt]`: below the root, as in Docker.
            let target = ContainerPath::parse(ContainerPath::root().join(path).as_str())?;
            if !has(spec, &target) {
                let source = MountSource::Volume {
                    name: String::new(),
                    anonymous: true,
                    copy: true,
                    subpath: None,
                    driver: "local".to_owned(),
                };
                spec.mounts.push(Mount { target, source, read_only: false });
            }
        }
        Ok(())
    }
    /// Makes the volumes that the mounts name, names the anonymous ones, and copies what the image has at their targets
    /// into those that are empty. Bind sources are checked or made.
    pub(crate) fn create_volumes<'a>(&'a self, request: &mut Request, undo: &mut Undo<'a>) -> Result<()> {
        let mut view = None;
        let spec = &mut request.spec;
        for mount in &mut spec.mounts {
            match &mut mount.source {
                MountSource::Tmpfs { .. } => {}
                MountSource::Bind { path, create_source, .. } => check_source(path, *create_source)?,
                MountSource::Volume { name, anonymous, copy, driver, subpath } => {
                    let super::create::VolumeOptions { labels, options } =
                        request.volume_options.get(mount.target.as_str()).cloned().unwrap_or_default();
                    if name.is_empty() || self.store.find_volume(name)?.is_none() {
                        let asked = Some(name.as_str()).filter(|name| !name.is_empty());
                        *anonymous = asked.is_none();
                        let volume = self.create_volume(asked, driver, labels, &options)?;
                        let made = volume.name.clone();
                        undo.push(move || self.store.remove_volume(&made));
                        *name = volume.name;
                    }
                    if *copy && subpath.is_none() {
                        if view.is_none() {
                            view = Some(self.store.mount_detached(&self.store.lower(&spec.layers)?, None)?);
                        }
                        if let Some(root) = &view {
                            self.copy_up(name, root, &mount.target)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
    /// Binds whose mounts cannot travel as they were asked to.
    pub(crate) fn propagation_warnings(container: &Container) -> impl Iterator<Item = String> + '_ {
        container.spec.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Bind { path, propagation, .. } => propagation_warning(path, *propagation),
            _ => None,
        })
    }
    /// Says of each of a container's volumes that it was mounted, or that it no longer is.
    pub(crate) fn volume_events(&self, container: &Container, mounted: bool) {
        for mount in &container.spec.mounts {
            let MountSource::Volume { name, driver, .. } = &mount.source else { continue };
            let mut about = BTreeMap::from([
                ("container".to_owned(), container.id().as_str().to_owned()),
                ("driver".to_owned(), driver.clone()),
            ]);
            if mounted {
                about.insert("destination".to_owned(), mount.target.as_str().to_owned());
                about.insert("propagation".to_owned(), String::new());
                about.insert("read/write".to_owned(), (!mount.read_only).to_string());
            }
            self.emit("volume", if mounted { "mount" } else { "unmount" }, name, about);
        }
    }
    fn copy_up(&self, volume: &str, image: &std::os::fd::OwnedFd, target: &ContainerPath) -> Result<()> {
        use std::os::fd::AsFd as _;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match sys::fs::open_in_root(image, target.relative(), flags, 0) {
            Ok(from) => self.store.populate_volume(volume, from.as_fd()),
            // Nothing there, or a file: nothing to copy.
            Err(_) => Ok(()),
        }
    }
    /// The mounts of a container as the runtime makes them, with sources that exist.
    pub(crate) fn resolve_mounts(&self, container: &Container) -> Result<Vec<MountOp>> {
        let mut ops = Vec::with_capacity(container.spec.mounts.len());
        for mount in &container.spec.mounts {
            match &mount.source {
                MountSource::Bind { path, create_source, .. } => {
                    check_source(path, *create_source)?;
                    let mut mount = mount.clone();
                    if let MountSource::Bind { path, .. } = &mut mount.source {
                        *path = HostPath(host_view(&path.0));
                    }
                    ops.push(mount_op(&mount, None));
                }
                MountSource::Volume { name, .. } => {
                    let mounted = self.store.mount_volume(name).map_err(|error| match error.kind() {
                        Kind::NotFound => {
                            error.hint(format!("the volume was removed: cauldron volume create {name}"))
                        }
                        _ => error,
                    })?;
                    let mut op = mount_op(mount, Some(HostPath(mounted.path)));
                    op.read_only |= mounted.read_only;
                    ops.push(op);
                }
                MountSource::Tmpfs { .. } => ops.push(mount_op(mount, None)),
            }
        }
        Ok(ops)
    }
}

fn has(spec: &ContainerSpec, target: &ContainerPath) -> bool {
    spec.mounts.iter().any(|mount| mount.target == *target)
}

fn read_only_mode(text: &str, mode: &str) -> Result<bool> {
    match mode {
        "ro" => Ok(true),
        "rw" | "z" | "Z" => Ok(false),
        _ => {
            Err(Error::invalid(format!("invalid mode: {mode}"))
                .hint(format!("--volumes-from {text}: ro or rw")))
        }
    }
}

/// A bind's source exists, or is made (a directory) as `-v` promises.
fn check_source(path: &HostPath, create: bool) -> Result<()> {
    let shown = path.0.display();
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => std::fs::create_dir_all(path)
            .context(|| format!("error while creating mount source path '{shown}'")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {shown}"
        ))),
        Err(error) => Err(error).context(|| format!("bind source path {shown}")),
    }
}

/// Mounts travel to and from the host only where the source's mount takes part. Docker refuses others (moby `ensureShared`,
/// `ensureSharedOrSlave`); here the container starts, and is told that nothing will travel.
fn propagation_warning(path: &HostPath, propagation: Propagation) -> Option<String> {
    let (wanted, words): (&[&str], _) = match propagation {
        Propagation::Private | Propagation::RPrivate => return None,
        Propagation::Shared | Propagation::RShared => (&["shared:"], "shared"),
        Propagation::Slave | Propagation::RSlave => (&["shared:", "master:"], "shared or slave"),
    };
    let source = std::fs::canonicalize(path).ok()?;
    let (place, tags) = mount_of(&std::fs::read("/proc/self/mountinfo").ok()?, &source)?;
    if tags.iter().any(|tag| wanted.iter().any(|wanted| tag.starts_with(wanted))) {
        return None;
    }
    let (shown, place) = (path.0.display(), place.display());
    Some(format!("path {shown} is mounted on {place} but it is not a {words} mount: no mount will travel"))
}

/// The mount that a path is on, of those in a mountinfo: where it is, and its optional fields. The last one lies on top.
fn mount_of(mountinfo: &[u8], path: &Path) -> Option<(PathBuf, Vec<String>)> {
    let mut found: Option<(PathBuf, Vec<String>)> = None;
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some(place) = mount_point(line) else { continue };
        let longer = found
            .as_ref()
            .is_none_or(|(before, _)| place.components().count() >= before.components().count());
        if path.starts_with(&place) && longer {
            let tags = line.split(|byte| *byte == b' ').skip(6).take_while(|field| *field != b"-");
            found = Some((place, tags.map(|tag| String::from_utf8_lossy(tag).into_owned()).collect()));
        }
    }
    found
}

/// A source below `/proc/self` (which `/proc/mounts` and `/proc/net` lead to) as the host's first process sees it:
/// what is mounted must be the host's, not that of whoever happens to open the link.
fn host_view(path: &Path) -> PathBuf {
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) || parts.next() != Some(Component::Normal("proc".as_ref())) {
        return path.to_owned();
    }
    let init = Path::new("/proc/1");
    let rest: PathBuf = match parts.next() {
        Some(Component::Normal(name)) if name == "self" || name == "thread-self" => parts.collect(),
        Some(Component::Normal(name)) if name == "mounts" || name == "net" => {
            Path::new(name).join(parts.as_path())
        }
        _ => return path.to_owned(),
    };
    // No slash at the end: a file would not be found by it.
    init.join(rest).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_is_found() {
        let text = b"22 1 8:1 / / rw - ext4 /dev/root rw\n23 22 0:5 / /mnt rw shared:2 - tmpfs t rw\n\
                     24 22 0:6 / /mnt rw master:1 shared:3 - tmpfs t rw\n25 22 0:7 / /mn rw - tmpfs t rw\n";
        for (path, place, tags) in
            [("/mnt/a/b", "/mnt", &["master:1", "shared:3"][..]), ("/mntx", "/", &[]), ("/mn", "/mn", &[])]
        {
            let (found, with) = mount_of(text, Path::new(path)).unwrap();
            assert_eq!(
                (found, with),
                (PathBuf::from(place), tags.iter().map(|tag| (*tag).to_owned()).collect())
            );
        }
    }

    #[test]
    fn links_to_whoever_looks_lead_to_the_host() {
        for (path, seen) in [
            ("/proc/mounts", "/proc/1/mounts"),
            ("/proc/self/mountinfo", "/proc/1/mountinfo"),
            ("/proc/net/dev", "/proc/1/net/dev"),
            ("/proc/self", "/proc/1"),
            ("/proc", "/proc"),
            ("/proc/sys/net", "/proc/sys/net"),
            ("/srv/proc/mounts", "/srv/proc/mounts"),
        ] {
            assert_eq!(host_view(Path::new(path)), Path::new(seen), "{path}");
        }
    }
}
