//! `RUN`: a container of the image so far, made, run and committed.

use model::container::{Attachment, ContainerPath, ContainerSpec, EndpointSpec, HostPath, NetworkMode};
use model::dockerfile::effect::{self, Script};
use model::dockerfile::instruction::{Network, Run};
use model::dockerfile::plan::CacheKey;
use model::dockerfile::scope::PREDEFINED;
use model::error::Context as _;
use model::state::State as Outcome;
use model::{ContainerId, Digest, Error, Kind, Result, launch};
use net::Networks;
use runtime::{Attached, Streams};
use rustix::fs::{AtFlags, FileType, OFlags};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use store::snapshot::Writable;

use super::archive::shared_path;
use super::mount::{self, Mounts};
use super::stage::State;
use super::{Builder, Built, Event, Failed, FailedStep};
use crate::container::lookup::{Container, read_json};

impl Builder<'_> {
    pub(super) fn run_step(&self, index: usize, state: &mut State, run: &Run) -> Built<()> {
        self.entitled(run)?;
        let script = effect::script(run, &state.config.config)?;
        let args = state.values.clone();
        let text = effect::run_text(&script.argv, &state.scope());
        let scratch = Scratch::new(self.engine)?;
        let mounts = self.mounts(index, state, run, &scratch.0)?;
        let key = self.run_key(state, run, &script, &args, &mounts);
        let config = state.config.clone();
        self.layer(state, &key, text, |writable| {
            self.run_container(&config, run, &script, &args, mounts, &scratch, writable)
        })
    }
    /// What reaches beyond the sandbox, the user must have allowed on the command line: a Dockerfile is another's.
    fn entitled(&self, run: &Run) -> Result<()> {
        let allowed = |name: &str| self.options.allow.iter().any(|given| given == name);
        let refused = |name: &str| {
            Err(Error::invalid(format!("{name} is not allowed"))
                .hint(format!("RUN asks for it: --allow {name} permits it for this build")))
        };
        if run.insecure && !allowed("security.insecure") {
            return refused("security.insecure");
        }
        if run.network == Network::Host && self.options.network != "host" && !allowed("network.host") {
            return refused("network.host");
        }
        Ok(())
    }
    /// What makes a `RUN` another one: the files below, the command, what it sees. No time, no value of a secret or a proxy.
    fn run_key(
        &self,
        state: &State,
        run: &Run,
        script: &Script,
        args: &[(String, String)],
        mounts: &Mounts,
    ) -> Digest {
        let config = &state.config.config;
        let mut key = CacheKey::new("run");
        key.part(state.chain().map_or(String::new(), |chain| chain.to_string()));
        key.list(&script.argv).list(script.file.iter().map(|(_, content)| content)).list(&config.env);
        key.list(args.iter().map(|(name, value)| format!("{name}={value}")));
        key.part(&config.user).part(&config.working_dir).part(mount::key(mounts).as_str());
        if run.insecure {
            key.part("insecure");
        }
        key.part(match self.network(run) {
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
            _ => "default",
        });
        key.finish()
    }
    fn network(&self, run: &Run) -> NetworkMode {
        let named = |network: &str| {
            let endpoint = EndpointSpec { network: network.to_owned(), ..EndpointSpec::default() };
            NetworkMode::Attached(Attachment { endpoints: vec![endpoint], ..Attachment::default() })
        };
        match (run.network, self.options.network.as_str()) {
            (Network::None, _) | (Network::Default, "none") => NetworkMode::None,
            (Network::Host, _) | (Network::Default, "host") => NetworkMode::Host,
            (Network::Default, "" | "default" | "bridge") => named("bridge"),
            (Network::Default, other) => named(other),
        }
    }
    #[allow(clippy::too_many_arguments)]
    fn run_container(
        &self,
        config: &model::image::ImageConfig,
        run: &Run,
        script: &Script,
        args: &[(String, String)],
        mut mounts: Mounts,
        scratch: &Scratch,
        writable: &Writable,
    ) -> Built<()> {
        let step = writable.upper.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        let id = ContainerId::parse(&step.file_name().unwrap_or_default().to_string_lossy())?;
        let image = &config.config;
        let mut spec =
            ContainerSpec::new(id.clone(), crate::now(), "", Digest::of(b""), config.rootfs.diff_ids.clone());
        spec.process.command.clone_from(&script.argv);
        spec.process.working_dir.clone_from(&image.working_dir);
        spec.process.user.clone_from(&image.user);
        let given = self.options.build_args.iter().filter(|(name, _)| PREDEFINED.contains(&name.as_str()));
        spec.process.env.extend(given.map(|(name, value)| format!("{name}={value}")));
        let hidden = |entry: &&String| {
            args.iter().any(|(name, _)| entry.split_once('=').is_some_and(|(other, _)| other == name))
        };
        spec.process.env.extend(image.env.iter().filter(|entry| !hidden(entry)).cloned());
        spec.process.env.extend(args.iter().map(|(name, value)| format!("{name}={value}")));
        spec.process.env.append(&mut mounts.env);
        spec.network = self.network(run);
        spec.security.privileged = run.insecure;
        spec.log.driver = "none".to_owned();
        spec.resolver.extra_hosts.clone_from(&self.options.extra_hosts);
        spec.resources.memory = self.options.memory;
        if let Some(bytes) = self.options.shm_bytes {
            spec.shm_bytes = bytes;
        }
        if let Some((name, content)) = &script.file {
            let path = scratch.0.join(name);
            sys::fs::replace_file(&path, content.as_bytes(), 0o755, false)
                .context(|| format!("write {}", path.display()))?;
            let dir = sys::fs::open_root(&scratch.0).context(|| format!("open {}", scratch.0.display()))?;
            let file = sys::fs::open_in_root(&dir, name, OFlags::PATH, 0)
                .context(|| format!("open {}", path.display()))?;
            mounts.pipe(&format!("{}/{name}", effect::PIPES), shared_path(&file), file);
        }
        self.tell(Event::Running(id.short().to_owned()))?;
        let container = Container {
            spec: spec.into(),
            changes: Default::default(),
            state: Default::default(),
            live: None,
            dir: step.to_owned(),
            run_dir: self.engine.store.layout.run(&id),
        };
        let result = self.execute(&container, &mounts, writable);
        let released = self.engine.release_step(&id);
        let code = result.map_err(|error| {
            error.with_undo_failures(released.as_ref().err().map(|error| Error::internal(error.to_string())))
        })?;
        released?;
        if code != 0 {
            let command = script.argv.join(" ");
            let mut error =
                Error::invalid(format!("The command '{command}' returned a non-zero code: {code}"));
            if command.contains("\r\n") {
                error = error.hint(
                    "the Dockerfile has Windows line ends (CRLF): every line of this script ends in a carriage return, which the shell takes for a part of the last word",
                );
            }
            let step = FailedStep { command, ..FailedStep::default() };
            return Err(Failed { code: Some(code), error, step: Some(step) });
        }
        Ok(())
    }
    /// Runs the container to its end and returns its exit code.
    fn execute(&self, container: &Container, mounts: &Mounts, writable: &Writable) -> Result<i32> {
        let engine = self.engine;
        let mut endpoints = Vec::new();
        for wanted in container.endpoint_specs() {
            endpoints.push(engine.reserve_endpoint(container, wanted)?);
        }
        let monitor = runtime::spawn(&container.run_dir)?;
        let etc = engine.write_etc(container, &endpoints)?;
        sys::fs::private_dir(&container.run_dir)
            .context(|| format!("create {}", container.run_dir.display()))?;
        let mut facts = engine.facts(container, &etc, mounts.ops.clone())?;
        facts.upper = HostPath(writable.upper.clone());
        facts.work = HostPath(writable.work.clone());
        facts.volatile = true;
        // A step is nobody's container: its end is told to us alone.
        facts.events_log = HostPath(container.dir.join("events.jsonl"));
        facts.on_exit.clear();
        facts.firewall = None;
        let lower = facts.lower.clone();
        let bundle = launch::bundle(&container.spec, facts);
        let Attached::WhenStarted(listener) =
            runtime::attach(&container.run_dir, Streams { stdin: false, stdout: true, stderr: true })?
        else {
            return Err(Error::internal("the step's container runs already"));
        };
        let netns = match &container.spec.network {
            NetworkMode::Host | NetworkMode::Join(_) => None,
            _ => Some(Networks::new_namespace()?),
        };
        let mine = netns
            .as_ref()
            .map(std::os::fd::OwnedFd::try_clone)
            .transpose()
            .context(|| "duplicate the network namespace")?;
        let prepared = monitor.prepare(&bundle, netns)?;
        if let (Some(netns), false) = (&mine, endpoints.is_empty()) {
            engine.connect_reserved(container, endpoints, netns.as_fd(), &[])?;
        }
        let started = prepared.start();
        let code = match started {
            Ok(live) => {
                self.cancel.watch(&live)?;
                let (stream, _) = listener.accept().context(|| "connect to the step's output")?;
                let relayed = self.relay(stream);
                let over = relayed.and_then(|()| runtime::wait_exit(&live, None));
                self.cancel.unwatch(&live)?;
                over?;
                let outcome: Outcome = read_json(&container.dir.join("state.json"))?
                    .ok_or_else(|| Error::internal("the step left no exit code"))?;
                outcome.exit_code
            }
            Err(error) if matches!(error.kind(), Kind::CommandNotFound | Kind::CannotExecute) => {
                self.say(format!("{error}\n"))?;
                if error.kind() == Kind::CommandNotFound { 127 } else { 126 }
            }
            Err(error) => return Err(error),
        };
        let targets = bundle.mounts.iter().map(|mount| &mount.target);
        clear_stubs(&writable.upper, &lower, targets)?;
        Ok(code)
    }
    /// Passes the output on, frame by frame (`[stream, 0, 0, 0, length]`).
    fn relay(&self, mut stream: std::os::unix::net::UnixStream) -> Result<()> {
        let mut rest: [Vec<u8>; 2] = Default::default();
        let mut header = [0u8; 8];
        while stream.read_exact(&mut header).is_ok() {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let mut payload = vec![0u8; length as usize];
            if stream.read_exact(&mut payload).is_err() {
                break;
            }
            let error = header[0] == 2;
            let pending = &mut rest[usize::from(error)];
            pending.append(&mut payload);
            // A character may lie across two frames.
            let whole = match std::str::from_utf8(pending) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => pending.len(),
            };
            let text = String::from_utf8_lossy(&pending[..whole]).into_owned();
            pending.drain(..whole);
            if !text.is_empty() {
                self.tell(Event::Output { error, text })?;
            }
        }
        for (pending, error) in rest.iter().zip([false, true]).filter(|(pending, _)| !pending.is_empty()) {
            let text = String::from_utf8_lossy(pending).into_owned();
            self.tell(Event::Output { error, text })?;
        }
        Ok(())
    }
}

/// A private directory below the run root, for secrets and scripts; gone when it is dropped, or with the next build.
pub(super) struct Scratch(PathBuf, super::cache::Running);

impl Scratch {
    fn new(engine: &crate::Engine) -> Result<Self> {
        let mut random = [0u8; 32];
        crate::container::names::fill_random(&mut random)?;
        let running = engine.begin(engine.scratch().join(ContainerId::from_bytes(random).short()))?;
        let files = running.dir.join("files");
        std::fs::create_dir(&files).context(|| format!("create {}", files.display()))?;
        Ok(Self(files, running))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the next build looks for.
        let _ = crate::container::reap::remove_tree(&self.1.dir);
    }
}

/// Takes away what only held mounts: empty files and directories that the image below does not have, and copies of its
/// directories that nothing was put into.
fn clear_stubs<'a>(
    upper: &Path,
    lower: &[HostPath],
    targets: impl Iterator<Item = &'a ContainerPath>,
) -> Result<()> {
    let upper = sys::fs::open_root(upper).context(|| format!("open {}", upper.display()))?;
    let lower = lower
        .iter()
        .map(|dir| sys::fs::open_root(dir).context(|| format!("open {}", dir.0.display())))
        .collect::<Result<Vec<_>>>()?;
    let mut places: Vec<PathBuf> = Vec::new();
    for target in targets {
        places.extend(
            Path::new(target.relative())
                .ancestors()
                .filter(|path| !path.as_os_str().is_empty() && *path != Path::new("."))
                .map(Path::to_owned),
        );
    }
    places.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    places.dedup();
    for place in places {
        let Ok((parent, name)) = sys::fs::parent_in_root(&upper, &place) else { continue };
        let Ok(stat) = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let below = lower.iter().find_map(|root| {
            let (parent, name) = sys::fs::parent_in_root(root, &place).ok()?;
            rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).ok()
        });
        match (FileType::from_raw_mode(stat.st_mode), below) {
            (FileType::RegularFile, None) if stat.st_size == 0 => {
                let _ = rustix::fs::unlinkat(&parent, &name, AtFlags::empty());
            }
            (FileType::Directory, None) => {
                let _ = rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR);
            }
            (FileType::Directory, Some(below)) => {
                let same =
                    (below.st_mode, below.st_uid, below.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid);
                if same && !is_opaque(&parent, name.as_bytes()) {
                    let _ = rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether overlay hides what lies below a directory.
fn is_opaque(parent: &std::os::fd::OwnedFd, name: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::openat(parent, name, flags, rustix::fs::Mode::empty()) else { return true };
    let mut value = [0u8; 8];
    matches!(rustix::fs::fgetxattr(&dir, c"trusted.overlay.opaque", &mut value), Ok(length) if length > 0)
}
