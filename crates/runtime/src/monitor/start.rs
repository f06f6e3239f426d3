//! From a bundle to a running process: what the monitor does while init sets itself up.

use model::bundle::{Bundle, MountOp, MountOpSource, Namespace};
use model::error::Context as _;
use model::{Error, Kind, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd as _, OwnedFd};
use sys::process::{Forked, namespace};

use super::record;
use crate::cgroup::Cgroup;
use crate::init::{self, Init, Source};
use crate::wire::{self, FromInit, GO};

/// A process whose set-up is under way.
pub struct Starting {
    /// On the host.
    pub pid: i32,
    /// Of it.
    pub pidfd: OwnedFd,
    /// To it.
    pub channel: OwnedFd,
    /// Our ends of its streams.
    pub ends: Ends,
}

/// The monitor's ends of a process's standard streams.
#[derive(Default)]
pub struct Ends {
    /// Controlling end of its terminal.
    pub terminal: Option<OwnedFd>,
    /// To stdin.
    pub stdin: Option<OwnedFd>,
    /// From stdout.
    pub stdout: Option<OwnedFd>,
    /// From stderr.
    pub stderr: Option<OwnedFd>,
}

/// The process's ends: stdin where it is open, stdout, stderr.
pub type Inner = (Option<OwnedFd>, OwnedFd, OwnedFd);

/// Pipes for a process without a terminal.
///
/// # Errors
/// No descriptors are left.
pub fn pipes(open_stdin: bool) -> Result<(Ends, Inner)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from).context(|| "make a pipe");
    let (stdout, inner_stdout) = pipe()?;
    let (stderr, inner_stderr) = pipe()?;
    let (inner_stdin, stdin) =
        if open_stdin { pipe().map(|(inner, ours)| (Some(inner), Some(ours)))? } else { (None, None) };
    for ours in [Some(&stdout), Some(&stderr), stdin.as_ref()].into_iter().flatten() {
        not_blocking(ours)?;
    }
    Ok((
        Ends { terminal: None, stdin, stdout: Some(stdout), stderr: Some(stderr) },
        (inner_stdin, inner_stdout, inner_stderr),
    ))
}

/// Sets `O_NONBLOCK`.
pub fn not_blocking(fd: &OwnedFd) -> Result<()> {
    rustix::io::ioctl_fionbio(fd, true).map_err(std::io::Error::from).context(|| "set O_NONBLOCK")
}

/// Opens a bind's source on the host, before anything else.
fn source(op: &MountOp) -> Result<Option<Source>> {
    let MountOpSource::Bind { path, recursive, subpath, .. } = &op.source else { return Ok(None) };
    let what = || format!("open {} for the mount at {}", path.0.display(), op.target);
    let mount = match subpath {
        None => sys::mount::clone_path(path, *recursive).context(what)?,
        Some(below) => {
            let base = sys::fs::open_root(path).context(what)?;
            let inner = sys::fs::open_in_root(&base, below.relative(), rustix::fs::OFlags::PATH, 0).map_err(
                |error| {
                    Error::new(Kind::InvalidArgument, format!("cannot access path {below} of the volume"))
                        .caused_by(error)
                },
            )?;
            sys::mount::clone_fd(&inner, *recursive).context(what)?
        }
    };
    let stat = rustix::fs::fstat(&mount).map_err(std::io::Error::from).context(what)?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    Ok(Some(Source { mount, directory }))
}

/// Flags for new namespaces, descriptors of those to join, and the pid namespace to be born in.
struct Plan {
    new: u64,
    joins: Vec<(OwnedFd, u64)>,
    pid: Option<OwnedFd>,
}

fn plan(bundle: &Bundle, netns: Option<&OwnedFd>) -> Result<Plan> {
    let set = &bundle.namespaces;
    let mut plan = Plan { new: namespace::MOUNT, joins: Vec::new(), pid: None };
    let open = |path: &std::path::Path| -> Result<OwnedFd> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(std::io::Error::from)
            .context(|| format!("open namespace {}", path.display()))
    };
    // The cgroup namespace is made by init itself, once it is in its cgroups.
    for (wanted, kind) in [(&set.net, namespace::NET), (&set.ipc, namespace::IPC), (&set.uts, namespace::UTS)]
    {
        match wanted {
            Namespace::New => plan.new |= kind,
            Namespace::Host => {}
            Namespace::Path(path) => plan.joins.push((open(path)?, kind)),
            Namespace::Passed => {
                let netns = netns.ok_or_else(|| Error::internal("no network namespace was passed"))?;
                plan.joins.push((netns.try_clone().context(|| "copy a descriptor")?, kind));
            }
        }
    }
    match &set.pid {
        Namespace::New => plan.new |= namespace::PID,
        Namespace::Path(path) => plan.pid = Some(open(path)?),
        Namespace::Host | Namespace::Passed => {}
    }
    Ok(plan)
}

/// Forks with children going to this pid namespace, then back to ours.
pub fn fork_in(pid_namespace: Option<&OwnedFd>, new: u64, cgroup: Option<&OwnedFd>) -> Result<Forked> {
    let cgroup = cgroup.map(|fd| fd.as_fd());
    let fork = || sys::process::fork(new, cgroup).context(|| "clone a process");
    let Some(pid_namespace) = pid_namespace else { return fork() };
    let ours = std::fs::File::open("/proc/self/ns/pid").context(|| "open /proc/self/ns/pid")?;
    sys::process::join(pid_namespace, namespace::PID).context(|| "join the pid namespace")?;
    let forked = fork();
    if !matches!(forked, Ok(Forked::Child)) {
        sys::process::join(&ours, namespace::PID).context(|| "return to our pid namespace")?;
    }
    forked
}

/// Clones init and makes its cgroups meanwhile. `pid` is told as soon as it exists.
///
/// # Errors
/// Init is killed before this returns one.
pub fn begin(
    bundle: &Bundle,
    cgroup: &Cgroup,
    netns: Option<&OwnedFd>,
    mut pid_known: impl FnMut(i32),
) -> Result<Starting> {
    let sources = bundle.mounts.iter().map(source).collect::<Result<Vec<_>>>()?;
    let plan = plan(bundle, netns)?;
    let filter = crate::seccomp::compile(&bundle.process.seccomp, &bundle.process.capabilities)?;
    let (ends, stdio) = match bundle.process.tty {
        true => (Ends::default(), None),
        false => pipes(bundle.process.open_stdin).map(|(ends, inner)| (ends, Some(inner)))?,
    };
    let unified = cgroup.create_unified()?;
    let (channel, inner) = sys::socket::pair().context(|| "make a socket pair")?;
    let init = Init { bundle, cgroup, channel: inner, sources, joins: plan.joins, stdio, filter };
    let (pid, pidfd) = match fork_in(plan.pid.as_ref(), plan.new, unified.as_ref())? {
        Forked::Child => {
            sys::process::reset_signals();
            drop(channel);
            init::run(&init)
        }
        Forked::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(init);
    pid_known(pid);
    let made = cgroup.create(&bundle.resources, &bundle.device_rules).map(|()| {
        // Where init is gone already, its message says why.
        let _ = sys::socket::send(&channel, &[wire::CGROUPS], None);
    });
    let mut starting = Starting { pid, pidfd, channel, ends };
    match made.and_then(|()| starting.until(bundle, true)) {
        Ok(()) => Ok(starting),
        Err(error) => {
            starting.abort();
            Err(error)
        }
    }
}

impl Starting {
    /// Lets it run and waits for `execve`.
    ///
    /// # Errors
    /// Why it did not happen; the process is gone then.
    pub fn go(&mut self, bundle: &Bundle) -> Result<()> {
        let sent =
            sys::socket::send(&self.channel, &[GO], None).context(|| "let the container's process run");
        sent.and_then(|()| self.until(bundle, false)).inspect_err(|_| self.abort())
    }
    /// Takes init's messages until it is ready, or its end of the channel is closed by `execve`.
    fn until(&mut self, bundle: &Bundle, ready: bool) -> Result<()> {
        loop {
            let (message, fd) =
                sys::socket::receive(&self.channel).context(|| "hear from the container's init")?;
            if message.is_empty() {
                return match ready {
                    false => Ok(()),
                    true => Err(Error::internal("the container's init ended during set-up")),
                };
            }
            match wire::decode(&message)? {
                FromInit::Terminal => self.ends.terminal = fd,
                FromInit::Warning(text) => record::warning(bundle, &text),
                FromInit::Ready if ready => return Ok(()),
                FromInit::Ready => {}
                FromInit::Failed(failure) => return Err(failure.into()),
            }
        }
    }
    /// Kills it and waits.
    pub fn abort(&self) {
        let _ = sys::process::signal(&self.pidfd, 9);
        let _ = sys::process::wait(self.pid, true);
    }
}
