//! A served engine on roots of its own, and the programs that talk to it.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../busybox/mod.rs"]
pub mod busybox;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(60);

/// Roots of a test; what is left there is removed in the end.
pub struct Place {
    pub dir: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-serve-{}-{serial}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("CAULDRON_ROOT", self.path("root"))
            .env("CAULDRON_RUN_ROOT", self.path("run"))
            .env("DOCKER_CONFIG", self.path("config"))
            .current_dir(&self.dir);
        for name in
            ["DOCKER_HOST", "DOCKER_CONTEXT", "CAULDRON_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"]
        {
            command.env_remove(name);
        }
        command
    }
    pub fn cauldron(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_cauldron")).args(args).stdin(Stdio::null()).output().unwrap()
    }
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.cauldron(args);
        assert!(output.status.success(), "{args:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    }
    pub fn docker(&self, host: &str, args: &[&str]) -> Output {
        self.command("docker")
            .args(["-H", host])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("docker in PATH")
    }
    /// Makes the image `busybox`.
    pub fn image(&self) {
        let tar = busybox::archive(&self.dir, |_| {});
        self.ok(&["import", tar.to_str().unwrap(), "busybox"]);
    }
    pub fn serve(&self, args: &[&str]) -> Server {
        Server::start(self.command(env!("CARGO_BIN_EXE_cauldron")).arg("serve").args(args))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ids = self.cauldron(&["ps", "-aq"]).stdout;
        for id in String::from_utf8_lossy(&ids).split_whitespace() {
            self.cauldron(&["rm", "-f", id]);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A running `cauldron serve`.
pub struct Server {
    pub child: Child,
    lines: Receiver<String>,
    /// Where it listens.
    pub addresses: Vec<String>,
}

impl Server {
    /// Returns once all of its hosts listen.
    pub fn start(command: &mut Command) -> Self {
        let hosts = command.get_args().filter(|arg| *arg == "-H").count().max(1);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, lines, addresses: Vec::new() };
        for _ in 0..hosts {
            let line = server.line();
            let address = line.strip_prefix("API listen on ").unwrap_or_else(|| panic!("{line}"));
            server.addresses.push(address.to_owned());
        }
        server
    }
    /// The next line of its log.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(LONG).expect("a line of the server's log")
    }
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
    /// A field of /proc/PID/status that is a number.
    pub fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let _ = self.child.wait();
    }
}

pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Connects, sends a request, and reads the head of the answer; the connection goes on behind it.
pub fn ask(socket: &Path, request: &str) -> (String, BufReader<UnixStream>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the answer ended: {head}");
    }
    (head, reader)
}

/// What comes until the connection's end.
pub fn rest(reader: &mut BufReader<UnixStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Tries again until it is so: for what another process does in its own time.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !so() {
        assert!(std::time::Instant::now() < end, "{what}");
        std::thread::yield_now();
        let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&wait));
    }
}
