//! `RUN --mount`: bind, cache, tmpfs, secret and ssh.

use model::bundle::{MountOp, MountOpSource};
use model::container::{ContainerPath, HostPath, Propagation};
use model::dockerfile::effect;
use model::dockerfile::instruction::Run;
use model::dockerfile::plan::CacheKey;
use model::error::Context as _;
use model::ignore::Ignore;
use model::{Digest, Error, Result};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use sys::fs::Lock;

use super::agent::Agent;
use super::archive::shared_path;
use super::named::Named;
use super::source::{Tree, cleaned};
use super::stage::State;
use super::{Builder, Built};

/// The mounts of one `RUN`, and what must stay open while it runs.
#[derive(Default)]
pub(super) struct Mounts {
    /// For the bundle.
    pub ops: Vec<MountOp>,
    /// Secrets as variables.
    pub env: Vec<String>,
    /// What makes the step another one.
    pub key: Vec<String>,
    fds: Vec<OwnedFd>,
    locks: Vec<Lock>,
    agents: Vec<Agent>,
}

impl Mounts {
    /// A file of ours that the step may execute; `fd` keeps it reachable.
    pub(super) fn pipe(&mut self, target: &str, path: PathBuf, fd: OwnedFd) {
        self.ops.push(bind(ContainerPath::root().join(target), path, None, true));
        self.fds.push(fd);
    }
}

/// One `--mount`, its options read.
#[derive(Default)]
struct Wanted {
    kind: String,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<String>,
    size: Option<String>,
    required: bool,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    env: Option<String>,
}

impl Wanted {
    fn read(options: &[(String, Option<String>)]) -> Result<Self> {
        let mut wanted = Self { kind: "bind".to_owned(), ..Self::default() };
        for (key, value) in options {
            let text = value.clone().unwrap_or_default();
            let number =
                || text.parse().map_err(|_| Error::invalid(format!("invalid value for {key}: {text:?}")));
            let truth = || match text.as_str() {
                "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
                "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
                _ => Err(Error::invalid(format!("invalid value for {key}: {text:?}"))),
            };
            match key.as_str() {
                "type" => wanted.kind = text.to_ascii_lowercase(),
                "from" => wanted.from = Some(text),
                "source" | "src" => wanted.source = Some(text),
                "target" | "dst" | "destination" => wanted.target = Some(text),
                "readonly" | "ro" => wanted.read_only = Some(truth()?),
                "readwrite" | "rw" => wanted.read_only = Some(!truth()?),
                "id" => wanted.id = Some(text),
                "sharing" => wanted.sharing = Some(text.to_ascii_lowercase()),
                "size" => wanted.size = Some(text),
                "required" => wanted.required = truth()?,
                "mode" => {
                    wanted.mode = Some(
                        u32::from_str_radix(&text, 8)
                            .map_err(|_| Error::invalid(format!("invalid value for mode: {text:?}")))?,
                    )
                }
                "uid" => wanted.uid = Some(number()?),
                "gid" => wanted.gid = Some(number()?),
                _ => wanted.env = Some(text),
            }
        }
        Ok(wanted)
    }
}

fn bind(target: ContainerPath, path: PathBuf, subpath: Option<ContainerPath>, read_only: bool) -> MountOp {
    let source = MountOpSource::Bind {
        path: HostPath(path),
        recursive: true,
        propagation: Propagation::RPrivate,
        subpath,
    };
    MountOp { target, source, read_only, nosuid: true, nodev: true, noexec: false }
}

impl Builder<'_> {
    /// Prepares the mounts of a `RUN`. `dir` is a directory of the step's own.
    pub(super) fn mounts(&self, index: usize, state: &State, run: &Run, dir: &Path) -> Built<Mounts> {
        let mut mounts = Mounts::default();
        for options in &run.mounts {
            let wanted = Wanted::read(options)?;
            let place = || -> Result<ContainerPath> {
                let text = wanted.target.as_deref().filter(|text| !text.is_empty());
                let text = text.ok_or_else(|| {
                    Error::invalid(format!("--mount=type={}: a target is missing", wanted.kind))
                })?;
                Ok(effect::working_dir(&state.config.config).join(text))
            };
            mounts.key.push(format!("{options:?}"));
            match wanted.kind.as_str() {
                "bind" => self.bind_mount(index, &wanted, place()?, dir, &mut mounts)?,
                "cache" => self.cache_mount(index, &wanted, place()?, &mut mounts)?,
                "tmpfs" => {
                    let size = wanted.size.as_deref().map(bytes).transpose()?;
                    let size = size.iter().map(|size| ("size".to_owned(), Some(size.to_string()))).collect();
                    let source = MountOpSource::Fs { fstype: "tmpfs".to_owned(), options: size };
                    mounts.ops.push(MountOp {
                        target: place()?,
                        source,
                        read_only: false,
                        nosuid: true,
                        nodev: true,
                        noexec: false,
                    });
                }
                "secret" => self.secret_mount(&wanted, state, dir, &mut mounts)?,
                "ssh" => self.ssh_mount(&wanted, state, dir, &mut mounts)?,
                other => {
                    return Err(Error::invalid(format!("unsupported mount type {other:?}"))
                        .hint("bind, cache, tmpfs, secret or ssh")
                        .into());
                }
            }
        }
        Ok(mounts)
    }
    fn bind_mount(
        &self,
        index: usize,
        wanted: &Wanted,
        target: ContainerPath,
        dir: &Path,
        mounts: &mut Mounts,
    ) -> Result<()> {
        let store = &self.engine.store;
        let source = cleaned(wanted.source.as_deref().unwrap_or("/"));
        let writable = wanted.read_only == Some(false);
        let named = wanted.from.as_deref().map(|name| self.named(name)).transpose()?.flatten();
        let nothing = Ignore::default();
        let (lower, ignore) = match (&wanted.from, named.as_deref()) {
            (None, _) => (vec![HostPath(self.options.context.clone())], &self.context.ignore),
            (_, Some(Named::Files { dir, ignore, .. })) => (vec![HostPath(dir.clone())], ignore),
            (Some(name), _) => (self.lower_of(index, name)?, &nothing),
        };
        let root = if writable {
            // What is written is thrown away with the step.
            let mut scratch = store.create_writable(&dir.join(format!("bind-{}", mounts.ops.len())))?;
            scratch.volatile = true;
            store.mount_detached(&lower, Some(&scratch))?
        } else if let [only] = lower.as_slice() {
            sys::fs::open_root(only).context(|| format!("open {}", only.0.display()))?
        } else {
            store.mount_detached(&lower, None)?
        };
        let tree = Tree { root: &root, ignore, exclude: Ignore::default(), known: None };
        let given = source.to_string_lossy().into_owned();
        for source in tree.find(if given.is_empty() { "/" } else { &given }, false)? {
            for item in &source.items {
                mounts.key.push(format!(
                    "{:?} {:o} {:?} {:?}",
                    item.below, item.stat.st_mode, item.link, item.digest
                ));
            }
        }
        let top = tree.open(&source, OFlags::PATH).context(|| format!("open {}", source.display()))?;
        mounts.ops.push(bind(target, shared_path(&top), None, !writable));
        mounts.fds.extend([top, root]);
        Ok(())
    }
    fn cache_mount(
        &self,
        index: usize,
        wanted: &Wanted,
        target: ContainerPath,
        mounts: &mut Mounts,
    ) -> Result<()> {
        let mut key = CacheKey::new("cache-mount");
        key.part(wanted.id.as_deref().unwrap_or(target.as_str()));
        let sharing = wanted.sharing.as_deref().unwrap_or("shared");
        if !matches!(sharing, "shared" | "private" | "locked") {
            return Err(Error::invalid(format!("unsupported sharing value {sharing:?}"))
                .hint("shared, private or locked"));
        }
        let name = key.finish().hex().to_owned();
        let lock = self.engine.store.layout.lock(&format!("mount-{name}"));
        let shown = || format!("lock the cache mount {target}");
        let mut dir = self.engine.cache_mounts().join(&name);
        match sharing {
            "locked" => mounts.locks.push(Lock::exclusive_long(&lock).context(shown)?),
            "private" => match Lock::try_exclusive(&lock).context(shown)? {
                Some(lock) => mounts.locks.push(lock),
                None => dir = self.engine.cache_mounts().join(format!("{name}-{}", std::process::id())),
            },
            _ => mounts.locks.push(Lock::shared(&lock).context(shown)?),
        }
        let new = !dir.exists();
        sys::fs::private_dir(&dir).context(|| format!("create {}", dir.display()))?;
        super::gc::touch(&dir);
        let root = sys::fs::open_root(&dir).context(|| format!("open {}", dir.display()))?;
        if new {
            let fd = sys::fs::open_in_root(&root, ".", OFlags::RDONLY | OFlags::DIRECTORY, 0)
                .context(|| format!("open {}", dir.display()))?;
            let (uid, gid) = (wanted.uid.unwrap_or(0), wanted.gid.unwrap_or(0));
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .and_then(|()| rustix::fs::fchmod(&fd, Mode::from_raw_mode(wanted.mode.unwrap_or(0o755))))
                .map_err(std::io::Error::from)
                .context(|| format!("make the cache mount {target}"))?;
            if let Some(from) = &wanted.from {
                self.fill_cache(index, from, wanted.source.as_deref(), &root)?;
            }
        }
        let subpath = wanted
            .source
            .as_ref()
            .filter(|_| wanted.from.is_none())
            .map(|text| ContainerPath::root().join(text));
        mounts.ops.push(bind(target, shared_path(&root), subpath, wanted.read_only == Some(true)));
        mounts.fds.push(root);
        Ok(())
    }
    /// A new cache mount starts with what `from` and `source` name.
    fn fill_cache(&self, index: usize, from: &str, source: Option<&str>, target: &OwnedFd) -> Result<()> {
        let copy = model::dockerfile::instruction::Copy {
            sources: vec![source.unwrap_or("/").to_owned()],
            target: "/".to_owned(),
            from: Some(from.to_owned()),
            ..Default::default()
        };
        let prepared = self.prepare_copy(index, &State::default(), &copy).map_err(|failed| failed.error)?;
        prepared.write(target)
    }
    /// A socket to the user's agent; without an agent it is left out, unless it is required.
    fn ssh_mount(&self, wanted: &Wanted, state: &State, dir: &Path, mounts: &mut Mounts) -> Result<()> {
        let id = wanted.id.as_deref().unwrap_or("default");
        let Some(agent) = self.options.agents.get(id) else {
            if wanted.required {
                return Err(Error::not_found(format!("ssh agent {id}: not found"))
                    .hint(format!("give it with --ssh {id}")));
            }
            return Ok(());
        };
        let count = mounts.agents.len();
        let default = format!("/run/buildkit/ssh_agent.{count}");
        let target =
            effect::working_dir(&state.config.config).join(wanted.target.as_deref().unwrap_or(&default));
        let path = dir.join(format!("ssh-{count}"));
        let owner = (wanted.uid.unwrap_or(0), wanted.gid.unwrap_or(0));
        mounts.agents.push(Agent::serve(&path, agent, owner, wanted.mode.unwrap_or(0o600))?);
        mounts.env.push(format!("SSH_AUTH_SOCK={target}"));
        mounts.ops.push(bind(target, path, None, false));
        Ok(())
    }
    fn secret_mount(&self, wanted: &Wanted, state: &State, dir: &Path, mounts: &mut Mounts) -> Result<()> {
        let base = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
        let id = match (&wanted.id, &wanted.target, &wanted.env) {
            (Some(id), ..) => id.clone(),
            (None, Some(target), _) => base(target),
            (None, None, Some(env)) => env.clone(),
            (None, None, None) => return Err(Error::invalid("a secret needs an id, a target or a variable")),
        };
        // The value is no part of the key: a changed secret alone runs nothing again (BuildKit's rule).
        let Some(value) = self.options.secrets.get(&id) else {
            if wanted.required {
                return Err(Error::not_found(format!("secret {id}: not found"))
                    .hint(format!("give it with --secret id={id},src=FILE")));
            }
            return Ok(());
        };
        if let Some(name) = &wanted.env {
            mounts.env.push(format!("{name}={}", String::from_utf8_lossy(value)));
            if wanted.target.is_none() {
                return Ok(());
            }
        }
        let default = format!("/run/secrets/{id}");
        let target =
            effect::working_dir(&state.config.config).join(wanted.target.as_deref().unwrap_or(&default));
        let path = dir.join(format!("secret-{}", mounts.ops.len()));
        let shown = || format!("make the secret {id}");
        sys::fs::replace_file(&path, value, wanted.mode.unwrap_or(0o400), false).context(shown)?;
        std::os::unix::fs::chown(&path, Some(wanted.uid.unwrap_or(0)), Some(wanted.gid.unwrap_or(0)))
            .context(shown)?;
        mounts.ops.push(bind(target, path, None, true));
        Ok(())
    }
}

/// `64m`, `1GiB`, `4096`: bytes.
fn bytes(text: &str) -> Result<u64> {
    let bad = || Error::invalid(format!("invalid value for size: {text:?}")).hint("a number with k, m or g");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let scale = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1u64 << 40,
        _ => return Err(bad()),
    };
    number.checked_mul(scale).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

/// The digest of what makes a `RUN`'s mounts.
pub(super) fn key(mounts: &Mounts) -> Digest {
    let mut key = CacheKey::new("mounts");
    key.list(&mounts.key);
    key.finish()
}
