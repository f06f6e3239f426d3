//! Execs: more processes in the container, children of the monitor.
//!
//! A child is born in the container's pid namespace and cgroups, joins the other namespaces through the pidfd of the
//! container's process, and goes the same last steps as init. It is not dumpable until `execve` (CVE-2016-9962), holds
//! nothing of the monitor's beyond that point, and no binary is executed again on the way.

use model::bundle::Process;
use model::error::Context as _;
use model::{Error, Kind, Result};
use std::os::fd::OwnedFd;
use sys::process::{Forked, namespace};

use super::session::Session;
use super::start::{Ends, Inner, fork_in, pipes};
use crate::cgroup::Cgroup;
use crate::init::process;
use crate::wire::{self, FromInit};

/// Clones the process; its session is told through the channel how it went.
///
/// # Errors
/// It could not be cloned.
pub fn begin(main: &Session, cgroup: &Cgroup, wanted: &Process) -> Result<Session> {
    let target = &main.pidfd;
    let filter = crate::seccomp::compile(&wanted.seccomp, &wanted.capabilities)?;
    let (ends, stdio) = match wanted.tty {
        true => (Ends::default(), None),
        false => pipes(wanted.open_stdin).map(|(ends, inner)| (ends, Some(inner)))?,
    };
    let unified = cgroup.unified()?;
    let (channel, inner) = sys::socket::pair().context(|| "make a socket pair")?;
    let forked = match fork_in(Some(target), 0, unified.as_ref()) {
        // It runs containers of its own, and has given controllers to groups below its own: those have the processes.
        Err(error) if error.is_busy() => fork_in(Some(target), 0, cgroup.unified_of(main.pid)?.as_ref())?,
        forked => forked?,
    };
    match forked {
        Forked::Child => {
            sys::process::reset_signals();
            drop(channel);
            let error = match run(target, cgroup, wanted, filter.as_deref(), &inner, stdio.as_ref()) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let _ = sys::socket::send(&inner, &wire::encode(&FromInit::Failed((&error).into())), None);
            sys::process::exit_now(127)
        }
        Forked::Parent(pid, pidfd) => {
            let mut session = Session::new(pid, pidfd, ends);
            session.channel = Some(channel);
            session.stdin_once = true;
            Ok(session)
        }
    }
}

fn run(
    target: &OwnedFd,
    cgroup: &Cgroup,
    wanted: &Process,
    filter: Option<&[sys::seccomp::Instruction]>,
    channel: &OwnedFd,
    stdio: Option<&Inner>,
) -> Result<std::convert::Infallible> {
    sys::process::die_with_parent().context(|| "set the parent death signal")?;
    cgroup.join()?;
    let all = namespace::MOUNT | namespace::UTS | namespace::IPC | namespace::NET | namespace::CGROUP;
    sys::process::join(target, all)
        .map_err(|error| Error::new(Kind::Conflict, "join the container's namespaces").caused_by(error))?;
    let terminal = if wanted.tty { Some(terminal(wanted, channel)?) } else { None };
    let prepared = process::prepare(wanted)?;
    process::standard_streams(wanted, &prepared, terminal.as_ref(), stdio)?;
    let mut warn = |text| {
        let _ = sys::socket::send(channel, &wire::encode(&FromInit::Warning(text)), None);
    };
    process::confine(wanted, &prepared, filter, &mut warn)?;
    sys::process::die_with_parent().context(|| "set the parent death signal")?;
    sys::process::new_session(wanted.tty.then(rustix::stdio::stdin)).context(|| "start a session")?;
    process::execute(&prepared)
}

fn terminal(wanted: &Process, channel: &OwnedFd) -> Result<OwnedFd> {
    let root = sys::fs::open_root("/").context(|| "open the root")?;
    crate::init::devices::open_terminal(&root, wanted.console_size, channel)
}
