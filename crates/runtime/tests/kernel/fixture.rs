//! A container on a busybox root.

use model::bundle::*;
use model::container::*;
use model::state::{Live, State};
use model::{ContainerId, Result};
use runtime::{Attached, Streams};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A bundle under its own temporary roots; everything goes when it is dropped, and that nothing is left is asserted.
pub struct Box_ {
    pub dir: PathBuf,
    pub bundle: Bundle,
}

pub const OUT: Streams = Streams { stdin: false, stdout: true, stderr: true };
pub const WITH_STDIN: Streams = Streams { stdin: true, stdout: true, stderr: true };

fn busybox(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    let bin = root.join("bin");
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("Debian's busybox-static is needed");
    for name in [
        "sh", "true", "false", "echo", "cat", "id", "ls", "sleep", "stty", "mkdir", "touch", "dd", "head",
        "tail", "ps", "kill", "mount", "readlink", "pwd", "env", "hostname", "yes", "stat", "mknod",
        "chroot", "wc", "seq", "umask", "unshare", "test", "grep", "nohup", "setsid", "usleep",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/home/app:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\naudio:x:29:app\n").unwrap();
}

fn fs(target: &str, fstype: &str, flags: [bool; 4], options: &[(&str, &str)]) -> MountOp {
    MountOp {
        target: ContainerPath::parse(target).unwrap(),
        source: MountOpSource::Fs {
            fstype: fstype.into(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (!v.is_empty()).then(|| (*v).to_owned())))
                .collect(),
        },
        nosuid: flags[0],
        nodev: flags[1],
        noexec: flags[2],
        read_only: flags[3],
    }
}

pub fn bind(target: &str, path: &Path, read_only: bool) -> MountOp {
    let source = MountOpSource::Bind {
        path: HostPath(path.to_owned()),
        recursive: true,
        propagation: Propagation::RPrivate,
        subpath: None,
    };
    MountOp { source, ..fs(target, "", [false, false, false, read_only], &[]) }
}

impl Box_ {
    pub fn new(argv: &[&str]) -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-runtime-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(dir.join("rw/upper")).unwrap();
        std::fs::create_dir_all(dir.join("rw/work")).unwrap();
        busybox(&dir.join("lower"));
        let mut id = [0; 32];
        id[..4].copy_from_slice(&std::process::id().to_be_bytes());
        id[4..8].copy_from_slice(&serial.to_be_bytes());
        id[8..16].copy_from_slice(
            &std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_nanos()
                .to_be_bytes()[8..],
        );
        let id = ContainerId::from_bytes(id);
        let path = |name: &str| HostPath(dir.join(name));
        let paths = |list: &[&str]| list.iter().map(|path| ContainerPath::parse(path).unwrap()).collect();
        let bundle = Bundle {
            name: "test".into(),
            image_name: "busybox".into(),
            labels: Default::default(),
            container_dir: HostPath(dir.clone()),
            run_dir: path("run"),
            events_log: path("events.jsonl"),
            rootfs: Rootfs::Overlay {
                lower: vec![path("lower")],
                upper: path("rw/upper"),
                work: path("rw/work"),
                volatile: true,
                read_only: false,
            },
            mounts: vec![
                fs("/proc", "proc", [true, true, true, false], &[]),
                fs("/dev", "tmpfs", [true, false, false, false], &[("mode", "755"), ("size", "65536k")]),
                fs(
                    "/dev/pts",
                    "devpts",
                    [true, false, true, false],
                    &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
                ),
                fs("/sys", "sysfs", [true, true, true, true], &[]),
                fs("/sys/fs/cgroup", "cgroup", [true, true, true, true], &[]),
                fs("/dev/mqueue", "mqueue", [true, true, true, false], &[]),
                fs("/dev/shm", "tmpfs", [true, true, true, false], &[("mode", "1777"), ("size", "67108864")]),
            ],
            namespaces: NamespaceSet::default(),
            hostname: "box".into(),
            domainname: String::new(),
            process: Process {
                argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
                env: vec![format!("PATH={}", model::launch::PATH)],
                cwd: "/".into(),
                create_cwd: true,
                capabilities: model::capability::effective(&Security::default()),
                ..Process::default()
            },
            reaper: false,
            sysctls: Vec::new(),
            devices: Vec::new(),
            device_rules: model::launch::device_rules(false, Vec::new()),
            masked_paths: paths(&model::launch::MASKED_PATHS),
            readonly_paths: paths(&model::launch::READONLY_PATHS),
            cgroup: format!("cauldron-test/{id}"),
            resources: Resources::default(),
            log: LogTarget::JsonFile {
                path: path("log"),
                max_bytes: 1 << 20,
                max_files: 3,
                compress: false,
                attributes: Default::default(),
            },
            lifecycle: Lifecycle::Keep,
            healthcheck: None,
            stop_signal: 15,
            on_exit: Vec::new(),
            on_exit_env: Vec::new(),
            firewall: None,
            id,
        };
        Self { dir, bundle }
    }
    pub fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }
    pub fn with(mut self, change: impl FnOnce(&mut Bundle)) -> Self {
        change(&mut self.bundle);
        self
    }
    pub fn run_dir(&self) -> &Path {
        &self.bundle.run_dir.0
    }
    pub fn attach(&self, streams: Streams) -> Attached {
        std::fs::create_dir_all(self.run_dir()).unwrap();
        runtime::attach(self.run_dir(), streams).unwrap()
    }
    pub fn start(&self) -> Result<Live> {
        runtime::spawn(self.run_dir())?.prepare(&self.bundle, None)?.start()
    }
    /// Starts attached, feeds stdin, reads to the end.
    pub fn run_with(&self, stdin: &[u8]) -> Result<Output> {
        let streams = if self.bundle.process.open_stdin { WITH_STDIN } else { OUT };
        let Attached::WhenStarted(listener) = self.attach(streams) else { panic!("it runs already") };
        let live = self.start()?;
        let (stream, _) = listener.accept().unwrap();
        let output = std::thread::scope(|scope| {
            if self.bundle.process.open_stdin {
                let mut writer = stream.try_clone().unwrap();
                scope.spawn(move || {
                    let _ = writer.write_all(stdin);
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
            }
            read(stream, self.bundle.process.tty)
        });
        assert!(runtime::wait_exit(&live, None).unwrap());
        Ok(Output { code: self.state().exit_code, ..output })
    }
    pub fn run(&self) -> Output {
        self.run_with(b"").unwrap()
    }
    pub fn state(&self) -> State {
        serde_json::from_slice(&std::fs::read(self.dir.join("state.json")).unwrap()).unwrap()
    }
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }
    pub fn exec(
        &self,
        id: &str,
        change: impl FnOnce(&mut Process),
        argv: &[&str],
        streams: Streams,
    ) -> Result<UnixStream> {
        let mut process = self.bundle.process.clone();
        process.argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        process.create_cwd = false;
        process.tty = false;
        process.open_stdin = streams.stdin;
        change(&mut process);
        Ok(runtime::exec(self.run_dir(), id, &process, streams, false)?.unwrap())
    }
}

impl Drop for Box_ {
    fn drop(&mut self) {
        if let Ok(Some(live)) = runtime::live(self.run_dir()) {
            let _ = runtime::request_stop(self.run_dir(), Some(9));
            wait_gone(live.monitor_pid);
        }
        let _ = runtime::clean_up(&self.bundle.cgroup);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Waits for a process that may be a child of ours.
pub fn wait_gone(pid: i32) {
    if let Ok(pidfd) = sys::process::pidfd(pid) {
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
    }
}

#[derive(Debug, Default)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

/// Reads a stream in Docker's format to its end.
pub fn read(mut stream: UnixStream, raw: bool) -> Output {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut output = Output::default();
    if raw {
        output.stdout = String::from_utf8_lossy(&bytes).into_owned();
        return output;
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize;
        let part = &rest[8..8 + length];
        if rest[0] == 1 {
            stdout.extend(part)
        } else {
            stderr.extend(part)
        }
        rest = &rest[8 + length..];
    }
    output.stdout = String::from_utf8_lossy(&stdout).into_owned();
    output.stderr = String::from_utf8_lossy(&stderr).into_owned();
    output
}
