//! Processes: `clone3(2)` with the meaning of `fork`, pidfds, namespaces, and what has to be set between clone and exec.
//!
//! [`fork`] is for single-threaded programs: the child goes on with a copy of everything.

use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Namespace flags for [`fork`] and [`join`] (`CLONE_NEW…`).
pub mod namespace {
    /// Mounts.
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    /// Host name.
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    /// IPC.
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    /// Process ids.
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    /// Network.
    pub const NET: u64 = libc::CLONE_NEWNET as u64;
    /// Cgroup root.
    pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
}

/// Which side of a [`fork`] this is.
pub enum Forked {
    /// The parent: the child's process id in our namespace, and its pidfd.
    Parent(i32, OwnedFd),
    /// The child.
    Child,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks with `clone3(2)`: new namespaces, a pidfd, and the child born inside a cgroup (v2) where given.
///
/// # Errors
/// Those of `clone3(2)`; `EINVAL` in a process that has more than one thread.
pub fn fork(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack, so the child has its own copy of the address space, as after fork(2); `args` and
    // `pidfd` live across the call. The callers are single-threaded (documented), so no lock is held by anyone else.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
        pid => Ok(Forked::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Forks with `fork(2)`, which filters allow where they refuse `clone3`: 0 in the child, else the child's process id. For
/// single-threaded processes.
///
/// # Errors
/// Those of `fork(2)`.
pub fn fork_plain() -> io::Result<i32> {
    // SAFETY: the child has its own copy of everything; the callers are single-threaded, so no lock is held elsewhere.
    match unsafe { libc::syscall(libc::SYS_fork) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid as i32),
    }
}

/// Ends this process at once: no destructors, no buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches nothing.
    unsafe { libc::_exit(code) }
}

/// A pidfd of a process.
///
/// # Errors
/// `ESRCH` where there is none.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).filter(|_| pid > 0).ok_or(Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Sends a signal, real-time ones too.
///
/// # Errors
/// Those of `pidfd_send_signal(2)`.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed; nothing else is a pointer.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until a process has ended (`poll(2)` on its pidfd), for so long. True: it has.
///
/// # Errors
/// Those of `poll(2)`.
pub fn wait_end(pidfd: impl AsFd, patience: std::time::Duration) -> io::Result<bool> {
    let end = std::time::Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let left = rustix::event::Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// The shell's number: n, or 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for a child (`pid`), or any (-1). `None`: none has ended, with `block` false.
///
/// # Errors
/// `ECHILD` where there is none.
pub fn wait(pid: i32, block: bool) -> io::Result<Option<(i32, Ended)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives across the call.
        match unsafe {
            libc::waitpid(
                pid,
                &raw mut status,
                if block { libc::__WALL } else { libc::__WALL | libc::WNOHANG },
            )
        } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            0 => return Ok(None),
            pid if libc::WIFEXITED(status) => return Ok(Some((pid, Ended::Code(libc::WEXITSTATUS(status))))),
            pid if libc::WIFSIGNALED(status) => {
                return Ok(Some((pid, Ended::Signal(libc::WTERMSIG(status)))));
            }
            _ => {}
        }
    }
}

/// Field 22 of `/proc/PID/stat` (clock ticks since boot), and whether it is more than a zombie.
///
/// # Errors
/// `ENOENT` where there is no such process.
pub fn start_time(pid: i32) -> io::Result<(u64, bool)> {
    let text = crate::fs::read_file(format!("/proc/{pid}/stat"))?;
    let text = String::from_utf8_lossy(&text);
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().unwrap_or("X");
    let time = fields.nth(18).and_then(|field| field.parse().ok()).ok_or(Errno::INVAL)?;
    Ok((time, !matches!(state, "Z" | "X" | "x")))
}

/// This boot's id (`/proc/sys/kernel/random/boot_id`), without a line end.
///
/// # Errors
/// /proc cannot be read.
pub fn boot_id() -> io::Result<&'static str> {
    // No process outlives its boot.
    static READ: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    if let Some(id) = READ.get() {
        return Ok(id);
    }
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(READ.get_or_init(|| id))
}

/// Joins namespaces of a namespace descriptor or, with several flags, of a pidfd.
///
/// # Errors
/// Those of `setns(2)`.
pub fn join(fd: impl AsFd, namespaces: u64) -> io::Result<()> {
    // SAFETY: two integers, no memory.
    if unsafe { libc::setns(fd.as_fd().as_raw_fd(), namespaces as i32) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves for a new namespace.
///
/// # Errors
/// Those of `unshare(2)`.
pub fn unshare(namespaces: u64) -> io::Result<()> {
    // SAFETY: one integer, no memory; no flag that unshares memory or descriptors under the standard library is passed
    // by this crate's constants.
    if unsafe { libc::unshare(namespaces as i32) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` close-on-exec, or closes it now.
///
/// # Errors
/// Those of `close_range(2)`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: sets a flag on descriptors; owners keep owning them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from `first` on. For the very start of a program and for processes that are about to loop in
/// place, where nothing owns descriptors that it will use again.
///
/// # Errors
/// Those of `close_range(2)`.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller gives up every descriptor from `first` (documented): owners that remain are leaked by it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `fd` also known as `number` (0, 1 or 2), without close-on-exec.
///
/// # Errors
/// Those of `dup2(2)`.
pub fn put_at(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: only the standard descriptors are replaced by callers of this crate; they are owned by nobody.
    if unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) } >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A copy of a standard descriptor with a number of 3 or more, close-on-exec.
///
/// # Errors
/// `EBADF` where it is closed.
pub fn copy_of(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes integers; the new descriptor is owned by nobody else.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: as above, checked not to be -1.
    if fd >= 0 { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) } else { Err(io::Error::last_os_error()) }
}

/// Default dispositions for all signals and an empty mask: `execve` keeps what was ignored or blocked.
pub fn reset_signals() {
    for number in 1..=64 {
        if number != libc::SIGKILL && number != libc::SIGSTOP && number != 32 && number != 33 && number != 34
        {
            // SAFETY: SIG_DFL runs no code of ours. Errors (reserved numbers) change nothing.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
    set_mask(0);
}

/// Blocks exactly the signals in `mask` (bit n-1 is signal n).
pub fn set_mask(mask: u64) {
    // SAFETY: the kernel reads 8 bytes, the size that is passed.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            std::ptr::null::<u64>(),
            8,
        )
    };
}

/// Waits for one of the signals in `mask`, which are blocked: its number and sender's process id.
///
/// # Errors
/// `EINTR`.
pub fn wait_signal(mask: u64) -> io::Result<i32> {
    // SAFETY: the kernel reads 8 bytes of the mask; null siginfo and timeout are allowed.
    let number = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const mask,
            std::ptr::null::<libc::siginfo_t>(),
            std::ptr::null::<libc::timespec>(),
            8,
        )
    };
    if number > 0 { Ok(number as i32) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by number; -1 as `pid` is everyone but ourselves in this pid namespace.
///
/// # Errors
/// Those of `kill(2)`.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: integers only.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This process gets SIGKILL when its parent ends.
///
/// # Errors
/// Those of `prctl(2)`.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// Nobody without `CAP_SYS_PTRACE` may trace this process, read its memory or open its /proc links (CVE-2016-9962,
/// CVE-2019-5736). Kept over fork, undone by `execve`.
///
/// # Errors
/// Those of `prctl(2)`.
pub fn set_not_dumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Shows this process under another name in /proc (`comm` and, in place, its command line). For a process that will not
/// look at its own arguments again.
pub fn set_title(title: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(title);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().skip(45);
    let mut number = || fields.next().and_then(|field| field.parse::<usize>().ok()).unwrap_or(0);
    let (start, end) = (number(), number());
    let title = title.to_bytes();
    if start == 0 || end <= start + title.len() {
        return;
    }
    // SAFETY: the kernel says that [start, end) is the argument area of this process's own stack, writable for its whole
    // life; the caller promises that nobody reads it through a reference; the length was checked.
    unsafe {
        let area = start as *mut u8;
        std::ptr::write_bytes(area, 0, end - start);
        std::ptr::copy_nonoverlapping(title.as_ptr(), area, title.len());
    }
}

/// A new session; with `terminal`, that becomes its controlling terminal.
///
/// # Errors
/// Those of `setsid(2)` and `TIOCSCTTY`.
pub fn new_session(terminal: Option<BorrowedFd<'_>>) -> io::Result<()> {
    rustix::process::setsid()?;
    if let Some(terminal) = terminal {
        rustix::process::ioctl_tiocsctty(terminal)?;
    }
    Ok(())
}

/// Sets the host name of this UTS namespace.
///
/// # Errors
/// Those of `sethostname(2)`.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length of one slice, only read.
    if unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets the NIS domain name of this UTS namespace.
///
/// # Errors
/// Those of `setdomainname(2)`.
pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length of one slice, only read.
    if unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Becomes this user: supplementary groups, then group, then user, all of real, effective and saved. For a
/// single-threaded process.
///
/// # Errors
/// Those of the three calls.
pub fn set_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let groups: Vec<rustix::process::Gid> =
        groups.iter().map(|&gid| rustix::process::Gid::from_raw(gid)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let gid = rustix::process::Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = rustix::process::Uid::from_raw(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Executes a program; returns only where that failed.
pub fn execute(path: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: NUL-terminated strings in NULL-terminated arrays that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Sets a resource limit (`getrlimit(2)`) of this process by its number.
///
/// # Errors
/// `EPERM` for a hard limit above the present one without `CAP_SYS_RESOURCE`.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives across the call and is only read.
    if unsafe { libc::setrlimit(resource as _, &raw const limit) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The present soft and hard limit.
///
/// # Errors
/// `EINVAL` for an unknown number.
pub fn limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives across the call.
    if unsafe { libc::getrlimit(resource as _, &raw mut limit) } == 0 {
        Ok((limit.rlim_cur, limit.rlim_max))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Brings up the loopback interface of this network namespace.
///
/// # Errors
/// Those of `SIOCSIFFLAGS`.
pub fn loopback_up() -> io::Result<()> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        flags,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid; the name is NUL-terminated by the zeroes; the kernel reads it only.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
