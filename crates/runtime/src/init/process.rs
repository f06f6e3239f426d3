//! The last steps before `execve`, for the container's process and for execs alike: user, program, streams, limits,
//! capabilities, filter.

use model::bundle::Process;
use model::container::{ContainerPath, Ulimit};
use model::error::Context as _;
use model::user::Identity;
use model::{Error, Kind, Result, limits};
use rustix::fs::{FileType, OFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use sys::seccomp::Instruction;

use super::{diagnose, mounts};

/// What could be looked up inside the container.
pub struct Prepared {
    identity: Identity,
    cwd: OwnedFd,
    program: CString,
    name: String,
    argv: Vec<CString>,
    env: Vec<CString>,
}

/// Looks up user, working directory and program. The root is the container's already.
pub fn prepare(process: &Process) -> Result<Prepared> {
    let root = sys::fs::open_root("/").context(|| "open the root")?;
    let identity = identity(process, &root)?;
    let cwd = working_directory(process, &root)?;
    let name = process.argv.first().filter(|name| !name.is_empty()).cloned();
    let name = name.ok_or_else(|| Error::new(Kind::CannotExecute, "no command specified"))?;
    let program = find_program(process, &name, &root)?;
    check_interpreters(&root, &ContainerPath::parse(&program)?)?;
    let text = |text: &String| {
        CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{text:?} contains a NUL byte")))
    };
    let mut env = process.env.iter().map(text).collect::<Result<Vec<_>>>()?;
    if !process.env.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        env.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
        env.push(text(&format!("HOME={}", identity.home))?);
    }
    Ok(Prepared {
        cwd,
        program: text(&program)?,
        argv: process.argv.iter().map(text).collect::<Result<_>>()?,
        env,
        identity,
        name,
    })
}

fn identity(process: &Process, root: &OwnedFd) -> Result<Identity> {
    let read = |path: &str| match sys::fs::read_in_root(root, path, limits::PASSWD_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    model::user::resolve(&process.user, &process.additional_groups, &read("etc/passwd"), &read("etc/group"))
}

fn working_directory(process: &Process, root: &OwnedFd) -> Result<OwnedFd> {
    let path = ContainerPath::parse(if process.cwd.is_empty() { "/" } else { &process.cwd })?;
    if process.create_cwd {
        return sys::fs::create_dir_in_root(root, path.relative(), 0o755).context(|| format!("mkdir {path}"));
    }
    let what = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound {
            Kind::CommandNotFound
        } else {
            Kind::CannotExecute
        };
        let text = lower(&error);
        Error::new(kind, format!("chdir to cwd ({:?}) set in config.json failed: {text}", path.as_str()))
    };
    sys::fs::open_in_root(root, path.relative(), OFlags::PATH | OFlags::DIRECTORY, 0).map_err(what)
}

/// `no such file or directory`, as Go prints it.
pub fn lower(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(2) => "no such file or directory".to_owned(),
        Some(8) => "exec format error".to_owned(),
        Some(13) => "permission denied".to_owned(),
        Some(20) => "not a directory".to_owned(),
        Some(40) => "too many levels of symbolic links".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}

/// Finds the program as Docker does: by `PATH` inside the container, or at its path. Magic links are not followed:
/// `/proc/self/exe` is our own binary at this moment.
fn find_program(process: &Process, name: &str, root: &OwnedFd) -> Result<String> {
    let cwd = ContainerPath::parse(if process.cwd.is_empty() { "/" } else { &process.cwd })?;
    if name.contains('/') {
        let path = cwd.join(name);
        let failed = |kind, text: &str| Error::new(kind, format!("exec: {name:?}: {text}"));
        return match check(root, &path) {
            Ok(()) => Ok(path.as_str().to_owned()),
            Err(error) => match error.raw_os_error() {
                Some(2 | 20) => {
                    let text = format!("stat {name}: {}", lower(&error));
                    Err(failed(Kind::CommandNotFound, &text))
                }
                Some(21) => Err(failed(Kind::CannotExecute, "is a directory").hint(format!("{name} is a directory, not a program"))),
                Some(13) => Err(failed(Kind::CannotExecute, "permission denied")
                    .hint(format!("{name} has no execute permission: chmod +x it in the image, or run it through its interpreter"))),
                _ => Err(failed(Kind::CannotExecute, &lower(&error))),
            },
        };
    }
    let path =
        process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(model::launch::PATH);
    let mut refused = None;
    for dir in path.split(':') {
        let candidate = cwd.join(dir).join(name);
        match check(root, &candidate) {
            Ok(()) => return Ok(candidate.as_str().to_owned()),
            Err(error) if error.raw_os_error() == Some(13) => refused = Some(candidate),
            Err(_) => {}
        }
    }
    let error =
        Error::new(Kind::CommandNotFound, format!("exec: {name:?}: executable file not found in $PATH"));
    Err(match refused {
        Some(path) => error.hint(format!("{path} exists, but has no execute permission")),
        None => error,
    })
}

/// Interpreters of scripts are found as the program is: one that is a magic link (`#!/proc/self/exe`, or a link to it)
/// would execute our own binary inside the container, where its file could be opened (CVE-2019-5736).
fn check_interpreters(root: &OwnedFd, program: &ContainerPath) -> Result<()> {
    /// As deep as the kernel follows scripts (`exec_binprm`).
    const DEPTH: usize = 5;
    let mut path = program.clone();
    for _ in 0..DEPTH {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut head = [0; 256];
        let length = match sys::fs::open_in_root(root, path.relative(), flags, 0) {
            Ok(file) => rustix::io::read(&file, &mut head).unwrap_or(0),
            Err(error) if error.raw_os_error() == Some(40) => {
                return Err(Error::new(
                    Kind::CannotExecute,
                    format!("exec: {program}: interpreter {path} is a link that cannot be followed"),
                ));
            }
            Err(_) => return Ok(()),
        };
        let Some(line) = head[..length].strip_prefix(b"#!") else { return Ok(()) };
        let line = line.split(|&byte| byte == b'\n' || byte == 0).next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let Some(next) = line.split_ascii_whitespace().next() else { return Ok(()) };
        path = ContainerPath::root().join(next);
    }
    Ok(())
}

fn check(root: &OwnedFd, path: &ContainerPath) -> std::io::Result<()> {
    let file = sys::fs::open_in_root(root, path.relative(), OFlags::PATH, 0)?;
    let mode = rustix::fs::fstat(&file)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => Err(rustix::io::Errno::ISDIR.into()),
        _ if mode & 0o111 == 0 => Err(rustix::io::Errno::ACCESS.into()),
        _ => Ok(()),
    }
}

/// Puts the standard streams in place; they then belong to the process's user, so that it can open /dev/stdout.
pub fn standard_streams(
    process: &Process,
    prepared: &Prepared,
    terminal: Option<&OwnedFd>,
    stdio: Option<&(Option<OwnedFd>, OwnedFd, OwnedFd)>,
) -> Result<()> {
    let what = || "set the standard streams";
    let null;
    let streams = match (terminal, stdio) {
        (Some(terminal), _) => [terminal.as_fd(), terminal.as_fd(), terminal.as_fd()],
        (None, Some((Some(stdin), stdout, stderr))) => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        (None, Some((None, stdout, stderr))) => {
            let root = sys::fs::open_root("/").context(what)?;
            null = sys::fs::open_in_root(&root, "dev/null", OFlags::RDWR, 0).context(|| "open /dev/null")?;
            if !mounts::is_null(&null) {
                return Err(Error::invalid("/dev/null of the container is not the null device"));
            }
            [null.as_fd(), stdout.as_fd(), stderr.as_fd()]
        }
        (None, None) => return Err(Error::internal("no standard streams")),
    };
    for (number, stream) in streams.into_iter().enumerate() {
        if !mounts::is_null(stream) && prepared.identity.uid != 0 {
            rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(prepared.identity.uid)), None)
                .map_err(std::io::Error::from)
                .context(what)?;
        }
        sys::process::put_at(stream, number as i32).context(what)?;
    }
    let _ = process;
    Ok(())
}

/// Limits, capabilities, user, filter: after this the process may do no more than it should.
pub fn confine(
    process: &Process,
    prepared: &Prepared,
    filter: Option<&[Instruction]>,
    warn: &mut dyn FnMut(String),
) -> Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for limit in &process.ulimits {
        set_limit(limit, warn)?;
    }
    if let Some(value) = process.oom_score_adj {
        oom_score(value, warn)?;
    }
    let wanted = mask(&process.capabilities);
    sys::capability::limit_bounding(wanted).context(|| "drop capabilities from the bounding set")?;
    rustix::process::fchdir(&prepared.cwd)
        .map_err(std::io::Error::from)
        .context(|| format!("chdir to {:?}", process.cwd))?;
    if let (Some(filter), false) = (filter, process.no_new_privileges) {
        sys::seccomp::load(filter, false).context(|| "load the seccomp filter")?;
    }
    let Identity { uid, gid, groups, .. } = &prepared.identity;
    sys::process::set_user(*uid, *gid, groups).context(|| format!("become user {uid}:{gid}"))?;
    let permitted = sys::capability::permitted().context(|| "read capabilities")?;
    sys::capability::set(wanted & permitted).context(|| "set capabilities")?;
    inside(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true)
            .map_err(std::io::Error::from)
            .context(|| "set no_new_privs")?;
        if let Some(filter) = filter {
            sys::seccomp::load(filter, false).context(|| "load the seccomp filter")?;
        }
    }
    Ok(())
}

/// The working directory must be reachable from the root (CVE-2024-21626).
fn inside(process: &Process) -> Result<()> {
    let cwd = rustix::process::getcwd(Vec::new()).map_err(std::io::Error::from).context(|| "getcwd")?;
    if cwd.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Error::invalid(format!("working directory {:?} is outside of the container's root", process.cwd)))
    }
}

fn mask(names: &[String]) -> u64 {
    let number = |name: &String| model::capability::ALL.iter().position(|known| known == name);
    names.iter().filter_map(number).fold(0, |mask, number| mask | 1 << number)
}

const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

fn set_limit(limit: &Ulimit, warn: &mut dyn FnMut(String)) -> Result<()> {
    let number = LIMITS
        .iter()
        .position(|name| *name == limit.name)
        .ok_or_else(|| Error::invalid(format!("invalid ulimit type: {}", limit.name)))?;
    let value = |value: i64| if value < 0 { u64::MAX } else { value as u64 };
    let (soft, hard) = (value(limit.soft), value(limit.hard));
    let what = || format!("set ulimit {}={}:{}", limit.name, limit.soft, limit.hard);
    match sys::process::set_limit(number as u32, soft, hard) {
        Err(error) if error.raw_os_error() == Some(1) => {
            let (_, most) = sys::process::limit(number as u32).context(what)?;
            let hard = hard.min(most);
            let soft = soft.min(hard);
            warn(format!(
                "ulimit {}: this machine allows no more than {most}; using {soft}:{hard}",
                limit.name
            ));
            sys::process::set_limit(number as u32, soft, hard).context(what)
        }
        other => other.context(what),
    }
}

fn oom_score(value: i32, warn: &mut dyn FnMut(String)) -> Result<()> {
    let what = || format!("set oom_score_adj {value}");
    let root = sys::fs::open_root("/").context(what)?;
    let file = sys::fs::open_in_root(&root, "proc/self/oom_score_adj", OFlags::WRONLY, 0).context(what)?;
    if !mounts::is_proc(&file) {
        return Err(Error::invalid("/proc of the container is no procfs"));
    }
    match rustix::io::write(&file, value.to_string().as_bytes()) {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            warn(format!("oom_score_adj {value} is below what this machine allows and was left as it is"));
            Ok(())
        }
        other => other.map(drop).map_err(std::io::Error::from).context(what),
    }
}

/// Executes the program; comes back only with the reason why that failed.
pub fn execute(prepared: &Prepared) -> Result<std::convert::Infallible> {
    sys::process::close_on_exec_from(3).context(|| "close descriptors")?;
    let error = sys::process::execute(&prepared.program, &prepared.argv, &prepared.env);
    Err(diagnose::refused(&prepared.name, &prepared.program, &error))
}
