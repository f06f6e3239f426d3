//! A machine of a test's own: a network namespace for the host, another one for a neighbour on its LAN, an engine in
//! directories of its own. Nothing of the real machine's network or firewall is touched.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use sys::netlink::{Socket, route};

use crate::busybox;

/// The host on its LAN.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same (`2001:db8::1`).
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The neighbour.
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

pub struct Machine {
    pub netns: OwnedFd,
    pub lan: OwnedFd,
    pub dir: PathBuf,
}

pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    fn of(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }
}

/// Runs something in a network namespace.
pub fn inside<T: Send>(netns: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    sys::netlink::within(netns.as_fd(), work).expect("inside a network namespace: these tests need root")
}

/// Asks until there is an answer; a minute without one is a failure.
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it did not come about");
        std::thread::yield_now();
    }
}

impl Machine {
    pub fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-machine-{}-{serial}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let new = || sys::netlink::new_namespace().expect("a network namespace: these tests need root");
        let machine = Self { netns: new(), lan: new(), dir };
        machine.cable();
        let tar = busybox::archive(&machine.dir, |_| {});
        machine.ok(&["import", tar.to_str().unwrap(), "busybox:latest"]);
        machine
    }
    /// Joins the two by a pair of interfaces; the neighbour's default route leads to the host.
    fn cable(&self) {
        let address = |name: &str, v4: Ipv4Addr, v6: Ipv6Addr| {
            let mut socket = Socket::route().unwrap();
            let link = socket.link(name).unwrap().unwrap().index;
            socket
                .request(vec![
                    route::new_address(link, v4.into(), 24),
                    route::new_address(link, v6.into(), 64),
                    route::set_up(link),
                ])
                .unwrap();
        };
        inside(&self.netns, || {
            let mut socket = Socket::route().unwrap();
            socket.request(vec![route::new_bridge("lan0", [2, 0, 0, 0, 0, 1], 1500)]).unwrap();
            let lan = socket.link("lan0").unwrap().unwrap().index;
            let pair = route::new_veth("lan1", lan, 1500, "eth0", [2, 0, 0, 0, 0, 2], self.lan.as_fd());
            socket.request(vec![pair]).unwrap();
            address("lan0", HOST, HOST6);
        });
        inside(&self.lan, || {
            address("eth0", NEIGHBOUR, NEIGHBOUR6);
            let mut socket = Socket::route().unwrap();
            socket.request(vec![route::default_route(HOST.into())]).unwrap();
        });
        inside(&self.netns, || {
            let mut socket = Socket::route().unwrap();
            socket.request(vec![route::default_route(NEIGHBOUR.into())]).unwrap();
        });
    }
    /// A command of the host's.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("CAULDRON_ROOT", self.dir.join("root"))
            .env("CAULDRON_RUN_ROOT", self.dir.join("run"))
            .env_remove("CAULDRON_CONFIG")
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        let config = self.dir.join("config.toml");
        if config.exists() {
            command.env("CAULDRON_CONFIG", config);
        }
        command
    }
    pub fn spawn(&self, program: &str, args: &[&str]) -> Child {
        let mut command = self.command(program, args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        inside(&self.netns, || command.spawn().unwrap())
    }
    /// What a program of the host's prints.
    pub fn host(&self, program: &str, args: &[&str]) -> Run {
        let mut command = self.command(program, args);
        Run::of(inside(&self.netns, || command.output().unwrap()))
    }
    /// What a program of the neighbour's prints.
    pub fn neighbour(&self, program: &str, args: &[&str]) -> Run {
        let mut command = self.command(program, args);
        Run::of(inside(&self.lan, || command.output().unwrap()))
    }
    /// The engine.
    pub fn run(&self, args: &[&str]) -> Run {
        self.host(env!("CARGO_BIN_EXE_cauldron"), args)
    }
    /// What must succeed; its output without the last line end.
    pub fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}{}", run.out, run.err);
        run.out.trim_end_matches('\n').to_owned()
    }
    pub fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "-f", field, name])
    }
    /// A container that answers on port 80 with its name.
    pub fn web(&self, name: &str, options: &[&str]) {
        let script = format!(
            "mkdir /www; echo {name} > /www/index.html; \
             httpd -p 80 -h /www; echo ready; exec sleep 1000"
        );
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", &script]);
        self.ok(&args);
        self.is_ready(name);
    }
    /// Answers datagrams in a container with what they say, until the test's process ends.
    pub fn echo(&self, name: &str, port: u16) {
        let pid = self.inspect(name, "{{.State.Pid}}");
        let netns = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap().into();
        let socket = inside(&netns, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..count], from);
            }
        });
    }
    /// Waits until the server of this run answers.
    pub fn is_ready(&self, name: &str) {
        let since = self.inspect(name, "{{.State.StartedAt}}");
        let mut logs = self.spawn(env!("CARGO_BIN_EXE_cauldron"), &["logs", "-f", "--since", &since, name]);
        let lines = BufReader::new(logs.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "ready"), "{name} is not ready");
        let _ = logs.kill();
        logs.wait().unwrap();
    }
    /// The pid of a container's monitor.
    pub fn monitor_of(&self, name: &str) -> u32 {
        let id = self.inspect(name, "{{.Id}}");
        let live = fs::read(self.dir.join("run/containers").join(id).join("live.json")).unwrap();
        let live: serde_json::Value = serde_json::from_slice(&live).unwrap();
        u32::try_from(live["monitor_pid"].as_u64().unwrap()).unwrap()
    }
    /// Kills a process and sees it gone.
    pub fn kill(&self, pid: u32) {
        let pidfd = sys::process::pidfd(pid.try_into().unwrap()).unwrap();
        sys::process::signal(&pidfd, 9).unwrap();
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
    }
    /// How many relays run in this machine.
    pub fn relays(&self) -> usize {
        let ours = |pid: &str| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = || status().lines().find_map(|line| line.strip_prefix("PPid:\t").map(str::to_owned));
            let of = |pid: String| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let dir = self.dir.to_string_lossy().into_owned();
            comm.starts_with("cauldron-relay")
                && parent().is_some_and(|pid| String::from_utf8_lossy(&of(pid)).contains(&dir))
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_str().is_some_and(ours)).count()
    }
    pub fn ruleset(&self) -> String {
        self.host("nft", &["list", "ruleset"]).out
    }
    /// No container holds anything of the machine any more.
    pub fn is_bare(&self) {
        // The last container's monitor gives back what it held in the background.
        eventually(|| {
            let links = self.host("ip", &["-o", "link"]).out;
            (links.lines().count() == 3 && self.ruleset().is_empty()).then_some(())
        });
        let sockets = self.host("busybox", &["netstat", "-lntu"]).out;
        assert_eq!(sockets.lines().count(), 2, "{sockets}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq"]).out;
        for id in ids.lines() {
            let _ = self.run(&["rm", "-f", "-v", id]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
