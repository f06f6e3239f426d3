//! Waiting for a lock of `flock(2)`, but not for ever: who holds it is found in `/proc/locks`. A holder that is stopped
//! (SIGSTOP, a debugger) is waited for [`STOPPED`], one that works for [`LIMIT`], and then named.
//!
//! The kernel's own queue is kept, so nobody is overtaken and nobody polls: a timer interrupts the call once a second, with a
//! signal that is sent to this thread alone and means nothing.

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a holder may be stopped.
pub const STOPPED: Duration = Duration::from_secs(10);
/// How long one that is not stopped may hold a lock that others wait for.
pub const LIMIT: Duration = Duration::from_secs(600);
/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Takes a lock, and waits for it as long as said above.
///
/// # Errors
/// Those of `flock(2)`; `TimedOut` names the processes that hold it.
pub fn wait(file: impl AsFd, operation: FlockOperation) -> io::Result<()> {
    take(file.as_fd(), operation, LIMIT, STOPPED)
}

/// As [`wait`], for locks that are held for as long as the work takes: only a stopped holder is not waited for.
///
/// # Errors
/// As [`wait`].
pub fn wait_long(file: impl AsFd, operation: FlockOperation) -> io::Result<()> {
    take(file.as_fd(), operation, Duration::MAX, STOPPED)
}

fn take(
    file: BorrowedFd<'_>,
    operation: FlockOperation,
    limit: Duration,
    stopped: Duration,
) -> io::Result<()> {
    let at_once = match operation {
        FlockOperation::LockExclusive => FlockOperation::NonBlockingLockExclusive,
        FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
        other => other,
    };
    match lock(file, at_once) {
        Err(Errno::WOULDBLOCK) if at_once != operation => {}
        other => return other.map_err(io::Error::from),
    }
    let _timer = Timer::start(LOOK.min(stopped))?;
    let began = Instant::now();
    let mut moving = began;
    loop {
        match lock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
        let holders = holders(file);
        if !holders.iter().any(|holder| holder.stopped) {
            moving = Instant::now();
        }
        if moving.elapsed() >= stopped || began.elapsed() >= limit {
            return Err(io::Error::new(io::ErrorKind::TimedOut, given_up(&holders, began.elapsed())));
        }
    }
}

fn lock(file: BorrowedFd<'_>, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            // Without a timer nobody wants to know.
            Err(Errno::INTR) if is_at_once(operation) => {}
            other => return other,
        }
    }
}

fn is_at_once(operation: FlockOperation) -> bool {
    matches!(operation, FlockOperation::NonBlockingLockExclusive | FlockOperation::NonBlockingLockShared)
}

struct Holder {
    pid: i32,
    command: String,
    stopped: bool,
}

/// Who holds the lock of this file (proc_locks(5)). None where /proc says nothing of it.
fn holders(file: BorrowedFd<'_>) -> Vec<Holder> {
    let Ok(stat) = rustix::fs::fstat(file) else { return Vec::new() };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let place = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = |line: &str| -> Option<i32> {
        // A waiting one has an arrow in the second place.
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&place.as_str())).then_some(())?;
        words.get(4)?.parse().ok().filter(|pid| *pid > 0)
    };
    locks.lines().filter_map(pid).map(holder).collect()
}

fn holder(pid: i32) -> Holder {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let command: String = line.trim_end().chars().filter(|c| !c.is_control()).take(100).collect();
    Holder { pid, command, stopped: matches!(state, Some('T' | 't')) }
}

fn given_up(holders: &[Holder], waited: Duration) -> String {
    let seconds = waited.as_secs_f32().round();
    let Some(one) = holders.iter().find(|holder| holder.stopped).or(holders.first()) else {
        return format!("another process has held it for {seconds} seconds");
    };
    let Holder { pid, command, stopped } = one;
    let why = if *stopped { ", which is stopped," } else { "" };
    let advice =
        if *stopped { format!("continue it (kill -CONT {pid}) or end it") } else { "end it".to_owned() };
    format!("process {pid} ({command}){why} has held it for {seconds} seconds: {advice}")
}

/// Interrupts this thread's system calls again and again.
struct Timer(libc::timer_t);

impl Timer {
    fn start(every: Duration) -> io::Result<Self> {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: all-zero bytes are valid values of these C structures, the handler does nothing at all, and the pointers
        // are to locals that live through the calls. SIGURG is ignored by default and used for nothing else here.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            if libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGURG;
            event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
            let mut timer: libc::timer_t = std::mem::zeroed();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) != 0 {
                return Err(io::Error::last_os_error());
            }
            let timer = Self(timer);
            let mut times: libc::itimerspec = std::mem::zeroed();
            times.it_interval.tv_sec = every.as_secs().try_into().unwrap_or(1);
            times.it_interval.tv_nsec = every.subsec_nanos().into();
            times.it_value = times.it_interval;
            if libc::timer_settime(timer.0, 0, &raw const times, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(timer)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `start` and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    /// A process that holds the lock of a file.
    fn holding(path: &std::path::Path) -> Child {
        let mut command = Command::new("flock");
        command.arg("-o").arg(path).args(["-c", "echo; exec sleep 1000"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("util-linux");
        let mut byte = [0];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        child
    }

    #[test]
    fn a_wait_ends_and_names_who_is_in_the_way() {
        let path = std::env::temp_dir().join(format!("cauldron-lock-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let mut child = holding(&path);
        let pid = child.id();
        let short = Duration::from_millis(50);
        let started = |limit, stopped| take(file.as_fd(), FlockOperation::LockExclusive, limit, stopped);
        let error = started(short, short).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().starts_with(&format!("process {pid} (flock ")), "{error}");
        assert!(!error.to_string().contains("stopped"), "{error}");
        let process = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
        let error = started(Duration::MAX, short).unwrap_err();
        assert!(error.to_string().ends_with(&format!("continue it (kill -CONT {pid}) or end it")), "{error}");
        // It is waited for, and the lock taken when it is free.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| started(Duration::MAX, Duration::from_secs(60)));
            while !std::fs::read_to_string("/proc/locks")
                .unwrap()
                .contains(&format!("-> FLOCK  ADVISORY  WRITE {}", std::process::id()))
            {
                std::thread::yield_now();
            }
            Command::new("pkill").args(["-KILL", "-P", &pid.to_string()]).status().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            waiting.join().unwrap().unwrap();
        });
        std::fs::remove_file(&path).unwrap();
    }
}
