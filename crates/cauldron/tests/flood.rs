//! Containers that talk without end, to nobody, to who does not listen, or by many execs: what their monitor holds in memory and
//! on the disk stays within bounds. Needs root, as the engine does.

mod busybox;
mod home;

use home::Home;
use std::fs;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Kilobytes of memory of its own that a monitor may gain by a flood.
const GAIN: u64 = 1024;

struct Monitor(u64);

impl Monitor {
    fn of(home: &Home, name: &str) -> Self {
        let id = home.ok(&["inspect", "-f", "{{.Id}}", name]);
        let live = fs::read(home.0.join("run/containers").join(id).join("live.json")).unwrap();
        Self(serde_json::from_slice::<serde_json::Value>(&live).unwrap()["monitor_pid"].as_u64().unwrap())
    }
    fn number(&self, file: &str, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
    /// Kilobytes of its own.
    fn memory(&self) -> u64 {
        self.number("smaps_rollup", "Anonymous:")
    }
    /// Bytes read so far.
    fn read(&self) -> u64 {
        self.number("io", "rchar:")
    }
    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap().count()
    }
    fn has_read(&self, more: u64) {
        let (end, wanted) = (Instant::now() + Duration::from_secs(60), self.read() + more);
        while self.read() < wanted {
            assert!(Instant::now() < end, "it reads no more");
            std::thread::yield_now();
        }
    }
}

fn start(home: &Home, name: &str, script: &str) -> Monitor {
    let limits = ["--log-opt", "max-size=256k", "--log-opt", "max-file=2"];
    let mut args = vec!["run", "-d", "--name", name, "--network", "none"];
    args.extend(limits);
    args.extend(["busybox", "sh", "-c", script]);
    home.ok(&args);
    Monitor::of(home, name)
}

fn piped(home: &Home, args: &[&str]) -> Child {
    let mut command = home.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn kilobytes(home: &Home) -> u64 {
    let output =
        std::process::Command::new("du").args(["-sk", &home.path("root/containers")]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn output_without_end_that_nobody_reads() {
    let home = Home::new("flood", |_| {});
    let monitor = start(&home, "one", "yes a line of some length that says nothing at all");
    monitor.has_read(2 << 20);
    let before = monitor.memory();
    monitor.has_read(16 << 20);
    assert!(monitor.memory() < before + GAIN, "{before} kB, then {} kB", monitor.memory());
    assert!(kilobytes(&home) < 1024, "{} kB on the disk", kilobytes(&home));
    // One line without an end.
    let monitor = start(&home, "two", "tr '\\0' x < /dev/zero");
    monitor.has_read(2 << 20);
    let before = monitor.memory();
    monitor.has_read(16 << 20);
    assert!(monitor.memory() < before + GAIN, "{before} kB, then {} kB", monitor.memory());
    home.ok(&["rm", "-f", "one", "two"]);
}

#[test]
fn clients_that_do_not_listen() {
    let home = Home::new("flood", |_| {});
    let monitor = start(&home, "one", "read x; yes a line of some length that says nothing at all");
    let before = monitor.memory();
    let mut clients: Vec<Child> = (0..4).map(|_| piped(&home, &["attach", "--no-stdin", "one"])).collect();
    clients.push(piped(&home, &["logs", "-f", "one"]));
    let mut exec = piped(&home, &["exec", "one", "yes"]);
    let mut some = vec![0; 4 << 20];
    exec.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    assert!(monitor.memory() < before + GAIN, "{before} kB, then {} kB", monitor.memory());
    for client in clients.iter_mut().chain([&mut exec]) {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert!(monitor.memory() < before + GAIN, "{before} kB, then {} kB", monitor.memory());
    assert_eq!(home.ok(&["inspect", "-f", "{{.State.Running}}", "one"]), "true");
}

#[test]
fn an_exec_that_never_stops_talking() {
    let home = Home::new("flood", |_| {});
    let monitor = start(&home, "one", "exec sleep 1000");
    let before = monitor.memory();
    // One whose output nobody wants, and one that is read.
    home.ok(&["exec", "-d", "one", "yes"]);
    let mut exec = piped(&home, &["exec", "one", "cat", "/dev/zero"]);
    let mut some = vec![0; 16 << 20];
    exec.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    assert!(monitor.memory() < before + GAIN, "{before} kB, then {} kB", monitor.memory());
    exec.kill().unwrap();
    exec.wait().unwrap();
}

#[test]
fn execs_leave_nothing_behind() {
    let home = Home::new("flood", |_| {});
    let monitor = start(&home, "one", "exec sleep 1000");
    let execs = |count: usize| {
        for _ in 0..count {
            home.ok(&["exec", "one", "true"]);
        }
        (monitor.memory(), monitor.descriptors())
    };
    let (memory, descriptors) = execs(20);
    let (after, open) = execs(60);
    assert!(after < memory + GAIN, "{memory} kB, then {after} kB");
    assert!(open <= descriptors, "{descriptors} descriptors, then {open}");
}
