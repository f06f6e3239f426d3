//! Profiles: Docker's default, and its JSON.

use model::container::Seccomp;
use model::{Error, Result};
use serde::Deserialize;
use sys::seccomp::Instruction;

use super::{ALLOW, Architectures, Compare, Condition, ENOSYS, EPERM, ERRNO, KILL, Rule, number_of, program};

/// Always allowed by Docker's default profile on x86-64 (moby/profiles `seccomp/default.json`; `ptrace` and its like
/// from Linux 4.8, older than anything we run on).
const ALLOWED: &str = "\
_llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset \
chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect \
copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait \
epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat \
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown \
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr \
fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue \
futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 \
getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid \
getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel \
io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get \
ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr \
lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat \
mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open \
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal \
msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat \
open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect \
poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv \
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink \
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl \
semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto \
set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid \
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 \
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask \
sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat \
sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun \
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask \
uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid \
waitpid write writev";
/// Allowed with a capability.
const WITH_CAPABILITY: [(&str, &str); 13] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
];
/// `CLONE_NEW…` of every namespace: not without CAP_SYS_ADMIN.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The filter of a process with these capabilities; `None`: unconfined.
///
/// # Errors
/// The profile is malformed (the place is named).
pub fn compile(seccomp: &Seccomp, capabilities: &[String]) -> Result<Option<Vec<Instruction>>> {
    match seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(program(
            &default_rules(capabilities),
            ERRNO | EPERM,
            Architectures { x86: true, x32: true },
        ))),
        Seccomp::Profile(text) => {
            let profile: Profile = serde_json::from_str(text)
                .map_err(|error| Error::invalid("decoding seccomp profile failed").caused_by(error))?;
            profile.compile(capabilities).map(Some)
        }
    }
}

fn default_rules(capabilities: &[String]) -> Vec<Rule> {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut rules = Vec::with_capacity(420);
    let mut add = |names: &str, conditions: &[Condition], action| {
        for syscall in names.split_ascii_whitespace().filter_map(number_of) {
            rules.push(Rule { syscall, conditions: conditions.to_vec(), action });
        }
    };
    add(ALLOWED, &[], ALLOW);
    let is = |compare, value| Condition { index: 0, compare, value };
    // AF_VSOCK reaches the host past every network namespace; AF_ALG is attack surface nobody needs.
    add("socket", &[is(Compare::NotEqual, 40), is(Compare::NotEqual, 38)], ALLOW);
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        add("personality", &[is(Compare::Equal, persona)], ALLOW);
    }
    for (capability, names) in WITH_CAPABILITY {
        if has(capability) {
            add(names, &[], ALLOW);
        }
    }
    if has("PERFMON") {
        add("perf_event_open", &[], ALLOW);
    }
    if !has("SYS_ADMIN") {
        add("clone", &[is(Compare::Masked(CLONE_NAMESPACES), 0)], ALLOW);
        add("clone3", &[], ERRNO | ENOSYS);
    }
    rules
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
}

impl Filter {
    fn caps(&self) -> impl Iterator<Item = &str> {
        self.caps.iter().flatten().map(|name| name.strip_prefix("CAP_").unwrap_or(name))
    }
    fn here(&self) -> bool {
        self.arches.iter().flatten().any(|arch| ["amd64", "x86", "x32"].contains(&arch.as_str()))
    }
}

impl Entry {
    fn applies(&self, capabilities: &[String]) -> bool {
        let has = |name: &str| capabilities.iter().any(|capability| capability == name);
        let foreign =
            self.includes.arches.as_ref().is_some_and(|list| !list.is_empty()) && !self.includes.here();
        !foreign && !self.excludes.here() && self.includes.caps().all(has) && !self.excludes.caps().any(has)
    }
}

impl Argument {
    fn condition(&self) -> Result<Condition> {
        let compare = match self.op.as_str() {
            "SCMP_CMP_EQ" => Compare::Equal,
            "SCMP_CMP_NE" => Compare::NotEqual,
            "SCMP_CMP_LT" => Compare::Less,
            "SCMP_CMP_LE" => Compare::LessOrEqual,
            "SCMP_CMP_GT" => Compare::Greater,
            "SCMP_CMP_GE" => Compare::GreaterOrEqual,
            "SCMP_CMP_MASKED_EQ" => Compare::Masked(self.value),
            other => return Err(Error::invalid(format!("seccomp profile: unknown comparison {other:?}"))),
        };
        if self.index > 5 {
            return Err(Error::invalid(format!("seccomp profile: no argument {}", self.index)));
        }
        let value = if let Compare::Masked(mask) = compare { self.value_two & mask } else { self.value };
        Ok(Condition { index: self.index, compare, value })
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    let value = errno.unwrap_or(EPERM) & 0xffff;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => ERRNO | value,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | value,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => ALLOW,
        other => return Err(Error::invalid(format!("seccomp profile: unknown action {other:?}"))),
    })
}

impl Profile {
    fn compile(&self, capabilities: &[String]) -> Result<Vec<Instruction>> {
        let sub = self.arch_map.iter().flatten().filter(|map| map.architecture == "SCMP_ARCH_X86_64");
        let mut named = self
            .architectures
            .iter()
            .flatten()
            .chain(sub.flat_map(|map| map.sub_architectures.iter().flatten()));
        let mut architectures = Architectures::default();
        for name in &mut named {
            architectures.x86 |= name == "SCMP_ARCH_X86";
            architectures.x32 |= name == "SCMP_ARCH_X32";
        }
        let default = action(&self.default_action, self.default_errno_ret)?;
        let mut rules = Vec::new();
        for entry in self.syscalls.iter().flatten().filter(|entry| entry.applies(capabilities)) {
            let action = action(&entry.action, entry.errno_ret)?;
            let conditions =
                entry.args.iter().flatten().map(Argument::condition).collect::<Result<Vec<_>>>()?;
            let names = entry.names.iter().flatten().chain(std::iter::once(&entry.name));
            for syscall in names.filter_map(|name| number_of(name)) {
                // Several conditions on one argument are alternatives, as libcontainer has them.
                let repeated = conditions
                    .iter()
                    .enumerate()
                    .any(|(at, one)| conditions[..at].iter().any(|two| two.index == one.index));
                if repeated {
                    rules.extend(conditions.iter().map(|&one| Rule {
                        syscall,
                        conditions: vec![one],
                        action,
                    }));
                } else {
                    rules.push(Rule { syscall, conditions: conditions.clone(), action });
                }
            }
        }
        Ok(program(&rules, default, architectures))
    }
}
