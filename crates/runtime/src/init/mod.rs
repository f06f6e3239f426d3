//! The container's first process, from `clone3` to `execve`: one thread, a copy of the monitor.
//!
//! It interprets the bundle. The namespaces exist from birth (or are joined first); bind sources come as detached mounts
//! that the monitor opened on the host; everything inside the new root goes through openat2. Nothing of the container
//! runs before the last step.
//!
//! # Why the container cannot overwrite our binary (CVE-2019-5736)
//! Until `execve` this process is not dumpable, so that nobody without CAP_SYS_PTRACE in the initial user namespace can
//! open its `/proc/PID/exe` or trace it, and `/proc/self/exe` of the container's process is the container's own file.
//! A program or an interpreter that is `/proc/self/exe`, or a link to it, would execute our file: both are looked up without
//! magic links and refused (`process::find_program`, `process::check_interpreters`). Whoever could open the
//! file all the same (a container with SYS_PTRACE) cannot write to it: the monitor executes the very same inode for as
//! long as any of the container's processes lives, and the kernel refuses writers of a running file (ETXTBSY).

pub mod devices;
mod diagnose;
mod mounts;
pub mod process;
mod reaper;

use model::bundle::{Bundle, Namespace};
use model::error::Context as _;
use model::{Error, Kind, Result};
use std::os::fd::OwnedFd;
use sys::process::namespace;
use sys::seccomp::Instruction;

use crate::cgroup::Cgroup;
use crate::wire::{self, CGROUPS, FromInit, GO};

/// A mount's source, opened on the host.
pub struct Source {
    /// A detached mount.
    pub mount: OwnedFd,
    /// Whether it is a directory.
    pub directory: bool,
}

/// Everything that init needs; made by the monitor before the clone.
pub struct Init<'a> {
    /// What to make.
    pub bundle: &'a Bundle,
    /// Where it belongs.
    pub cgroup: &'a Cgroup,
    /// To the monitor.
    pub channel: OwnedFd,
    /// For each mount of the bundle that is a bind.
    pub sources: Vec<Option<Source>>,
    /// Namespaces to join.
    pub joins: Vec<(OwnedFd, u64)>,
    /// Standard streams, without a terminal: stdin where it is open, stdout, stderr.
    pub stdio: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
    /// The seccomp filter.
    pub filter: Option<Vec<Instruction>>,
}

/// Runs in the child; never returns.
pub fn run(init: &Init<'_>) -> ! {
    let error = match set_up(init) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let _ = sys::socket::send(&init.channel, &wire::encode(&FromInit::Failed((&error).into())), None);
    sys::process::exit_now(127)
}

fn set_up(init: &Init<'_>) -> Result<std::convert::Infallible> {
    let bundle = init.bundle;
    sys::process::die_with_parent().context(|| "set the parent death signal")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    for (fd, kind) in &init.joins {
        sys::process::join(fd, *kind).context(|| "join a namespace")?;
    }
    if bundle.namespaces.net == Namespace::New {
        sys::process::loopback_up().context(|| "bring up the loopback interface")?;
    }
    let mut stage = Stage { init, joined: false, started: false };
    sys::mount::make_all_private().context(|| "make mounts private")?;
    let root = mounts::root(bundle)?;
    mounts::make(&mut stage, &root)?;
    let has_dev = devices::make(bundle, &root)?;
    let terminal = if bundle.process.tty {
        Some(devices::terminal(bundle, &root, has_dev, &init.channel)?)
    } else {
        None
    };
    stage.join_cgroups()?;
    mounts::enter(bundle, &root)?;
    names(bundle)?;
    if !bundle.sysctls.is_empty() {
        stage.wait_start()?;
        sysctls(bundle)?;
        stage.started = true;
    }
    mounts::restrict(bundle)?;
    let prepared = process::prepare(&bundle.process)?;
    if !stage.started {
        stage.wait_start()?;
    }
    process::standard_streams(&bundle.process, &prepared, terminal.as_ref(), init.stdio.as_ref())?;
    process::confine(&bundle.process, &prepared, init.filter.as_deref(), &mut |text| {
        warn(&init.channel, text)
    })?;
    sys::process::die_with_parent().context(|| "set the parent death signal")?;
    if bundle.reaper {
        reaper::stay()?;
    }
    sys::process::new_session(bundle.process.tty.then(rustix::stdio::stdin)).context(|| "start a session")?;
    process::execute(&prepared)
}

fn warn(channel: &OwnedFd, text: String) {
    let _ = sys::socket::send(channel, &wire::encode(&FromInit::Warning(text)), None);
}

/// How far the monitor has let us go.
struct Stage<'a> {
    init: &'a Init<'a>,
    joined: bool,
    started: bool,
}

impl Stage<'_> {
    /// Waits for the cgroups, enters them, and makes them the root of a new cgroup namespace.
    fn join_cgroups(&mut self) -> Result<()> {
        if self.joined {
            return Ok(());
        }
        self.wait(CGROUPS)?;
        self.init.cgroup.join()?;
        if self.init.bundle.namespaces.cgroup == Namespace::New {
            sys::process::unshare(namespace::CGROUP).context(|| "unshare the cgroup namespace")?;
        }
        self.joined = true;
        Ok(())
    }
    fn wait_start(&mut self) -> Result<()> {
        let ready = wire::encode(&FromInit::Ready);
        sys::socket::send(&self.init.channel, &ready, None).context(|| "report to the monitor")?;
        self.wait(GO)
    }
    fn wait(&self, what: u8) -> Result<()> {
        let (message, _) = sys::socket::receive(&self.init.channel).context(|| "wait for the monitor")?;
        match message.as_slice() {
            [byte] if *byte == what => Ok(()),
            _ => Err(Error::new(Kind::Cancelled, "the start was called off")),
        }
    }
}

fn names(bundle: &Bundle) -> Result<()> {
    if bundle.namespaces.uts != Namespace::New {
        return Ok(());
    }
    if !bundle.hostname.is_empty() {
        sys::process::set_hostname(&bundle.hostname)
            .context(|| format!("set host name {:?}", bundle.hostname))?;
    }
    if !bundle.domainname.is_empty() {
        sys::process::set_domainname(&bundle.domainname)
            .context(|| format!("set domain name {:?}", bundle.domainname))?;
    }
    Ok(())
}

/// Written through the container's own /proc, which is still writable, after checking that it is procfs.
fn sysctls(bundle: &Bundle) -> Result<()> {
    use rustix::fs::OFlags;
    let root = sys::fs::open_root("/").context(|| "open the root")?;
    for (name, value) in &bundle.sysctls {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        let what = || format!("sysctl {name}={value}");
        let file = sys::fs::open_in_root(&root, &path, OFlags::WRONLY | OFlags::NOFOLLOW, 0).context(what)?;
        if !mounts::is_proc(&file) {
            return Err(Error::invalid(format!("sysctl {name}: /proc is no procfs")));
        }
        rustix::io::write(&file, value.as_bytes()).map_err(std::io::Error::from).context(what)?;
    }
    Ok(())
}
