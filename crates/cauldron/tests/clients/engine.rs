//! An engine in directories and a network namespace of its own: `cauldron serve`, or Debian's dockerd. Programs that talk
//! to it run in the same namespace, where its published ports are.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::busybox;

/// A running engine with an image `busybox`.
pub struct Engine {
    /// Its directory.
    pub dir: PathBuf,
    namespace: String,
    server: Child,
    registry: Option<Child>,
    dockerd: bool,
}

impl Engine {
    /// `cauldron serve`.
    pub fn cauldron() -> Self {
        Self::start(false)
    }
    /// Debian's dockerd.
    pub fn dockerd() -> Self {
        Self::start(true)
    }
    fn start(dockerd: bool) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("clients-{}-{serial}", std::process::id());
        let dir = std::env::temp_dir().join(format!("cauldron-{namespace}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        plain(&["ip", "netns", "add", &namespace]);
        let inside = |args: &[&str]| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{namespace}")).args(args);
            command
        };
        assert!(inside(&["ip", "link", "set", "lo", "up"]).status().unwrap().success());
        let text = |name: &str| dir.join(name).display().to_string();
        let host = format!("unix://{}", text("docker.sock"));
        let mut command = if dockerd {
            let mut command = inside(&["/usr/sbin/dockerd", "-H", &host]);
            command.args(["--data-root", &text("data"), "--exec-root", &text("exec")]);
            // Where the capability to raise limits is missing, dockerd's own default is refused.
            command.args(["--pidfile", &text("pid"), "--default-ulimit", "nofile=1024:1024"]);
            command.args(["--cgroup-parent", &format!("/{namespace}")]);
            command
        } else {
            inside(&[env!("CARGO_BIN_EXE_cauldron"), "serve", "-H", &host])
        };
        let mut server = command
            .env("CAULDRON_ROOT", text("root"))
            .env("CAULDRON_RUN_ROOT", text("run"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("dockerd of Debian's docker.io");
        wait_for_line(&mut server, "API listen on");
        let mut engine = Self { namespace, server, registry: None, dockerd, dir: dir.clone() };
        let tar = busybox::archive(&dir, |root| {
            std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        });
        engine.run(&["docker", "import", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), "busybox"], &[]);
        engine.serve_images();
        engine
    }
    /// A registry in the namespace, at `127.0.0.1:5000`.
    fn serve_images(&mut self) {
        let config = self.dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:5000'}}\n",
            self.dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args(["docker-registry", "serve"]);
        let mut child =
            command.arg(&config).stderr(Stdio::piped()).spawn().expect("Debian's docker-registry");
        wait_for_line(&mut child, "listening on");
        self.registry = Some(child);
    }
    /// Where it listens.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }
    /// A program beside the engine, told where it is.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .args(args)
            .current_dir(&self.dir)
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .env("HOME", &self.dir)
            .env("REGISTRY", "127.0.0.1:5000")
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT");
        command
    }
    /// What a program said.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }
    /// Runs a program to its good end.
    pub fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> String {
        let mut command = self.command(args);
        let output = command.envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?} {}\n{out}{err}", output.status);
        out
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = self.output(&["docker", "ps", "-aq"]).stdout;
        let ids = String::from_utf8_lossy(&ids).into_owned();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.output(&[&["docker", "rm", "-f", "-v"], ids.as_slice()].concat());
        }
        for child in [Some(&mut self.server), self.registry.as_mut()].into_iter().flatten() {
            let pid = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
        if self.dockerd {
            remove_cgroups(&self.namespace);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn plain(args: &[&str]) {
    assert!(Command::new(args[0]).args(&args[1..]).status().expect("iproute2").success(), "{args:?}");
}

/// Reads a server's log to the line that says that it listens, and further on in the background.
fn wait_for_line(child: &mut Child, wanted: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    loop {
        let Some(Ok(line)) = lines.next() else { panic!("the server ended: {seen}") };
        if line.contains(wanted) {
            break;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
}

/// dockerd leaves the parent of its containers' cgroups.
fn remove_cgroups(name: &str) {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join(name));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(name));
}
