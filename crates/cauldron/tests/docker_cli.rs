//! The real docker command line against `cauldron serve`: each test on a root and a socket of its own, without a network.
//! Needs root, Debian's busybox-static, and a `docker` in PATH (Debian's docker.io or docker-cli has one).

mod busybox;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A served engine with an image `busybox`.
struct Served {
    dir: PathBuf,
    server: Child,
}

impl Served {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-docker-{}-{serial}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let tar = busybox::archive(&dir, |root| {
            std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nbob:x:55:66::/:/bin/sh\n")
                .unwrap();
        });
        let mut server = Command::new(env!("CARGO_BIN_EXE_cauldron"))
            .args(["serve", "-H", &format!("unix://{}", dir.join("docker.sock").display())])
            .env("CAULDRON_ROOT", dir.join("root"))
            .env("CAULDRON_RUN_ROOT", dir.join("run"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("docker.sock"), "{line}");
        let served = Self { dir, server };
        served.ok(&["import", tar.to_str().unwrap(), "busybox"]);
        served
    }
    fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.dir.join("docker.sock").display()))
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .env_remove("DOCKER_CONTEXT");
        command
    }
    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = self
            .docker(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a docker command line in PATH");
        // A command that reads no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
    /// Exit code, stdout and stderr.
    fn all(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let output = self.run(args, input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
    fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.all(args, "");
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    }
    /// A container that runs until it is removed.
    fn sleeper(&self, name: &str) {
        self.ok(&["run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "1000"]);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq"], "").stdout;
        for id in String::from_utf8_lossy(&ids).split_whitespace() {
            self.run(&["rm", "-f", id], "");
        }
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn version_and_info() {
    let served = Served::new();
    assert_eq!(
        served.ok(&["version", "--format", "{{.Server.Os}} {{.Server.APIVersion}}"]).trim(),
        "linux 1.51"
    );
    let info = served.ok(&["info"]);
    let root = served.dir.join("root").display().to_string();
    for text in
        ["Images: 1", "Storage Driver: overlay2", "Cgroup Driver: cgroupfs", "Swarm: inactive", root.as_str()]
    {
        assert!(info.contains(text), "{text}: {info}");
    }
    let (code, _, err) = served.all(&["service", "ls"], "");
    assert!(code == 1 && err.contains("This node is not a swarm manager"), "{err}");
}

#[test]
fn run_keeps_streams_apart_and_passes_the_exit_code() {
    let served = Served::new();
    let run =
        |args: &[&str], input| served.all(&[&["run", "--rm", "--network", "none"], args].concat(), input);
    assert_eq!(
        run(&["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"], ""),
        (3, "out\n".into(), "err\n".into())
    );
    assert_eq!(run(&["-i", "busybox", "cat"], "through and through").1, "through and through");
    assert_eq!(run(&["busybox", "nosuch"], "").0, 127);
    assert_eq!(run(&["busybox", "/etc/passwd"], "").0, 126);
    for code in 0..8 {
        assert_eq!(run(&["busybox", "sh", "-c", &format!("exit {code}")], "").0, code);
    }
    assert_eq!(served.ok(&["ps", "-aq"]), "");
}

#[test]
fn logs_are_kept_and_followed_to_the_end() {
    let served = Served::new();
    served.ok(&[
        "run",
        "--network",
        "none",
        "--name",
        "short",
        "busybox",
        "sh",
        "-c",
        "echo a; echo b; echo c",
    ]);
    assert_eq!(served.ok(&["logs", "short"]), "a\nb\nc\n");
    assert_eq!(served.ok(&["logs", "--tail", "2", "short"]), "b\nc\n");
    assert_eq!(served.ok(&["logs", "-f", "--tail", "1", "short"]), "c\n");
    let stamped = served.ok(&["logs", "-t", "--tail", "1", "short"]);
    assert!(
        stamped.ends_with("Z c\n") && stamped.len() == "2026-11-24T05:47:51.123456789Z c\n".len(),
        "{stamped}"
    );
    // The container waits for its input, so its last lines are written while they are followed.
    served.ok(&[
        "create",
        "-i",
        "--network",
        "none",
        "--name",
        "long",
        "busybox",
        "sh",
        "-c",
        "echo one; cat; echo two",
    ]);
    served.ok(&["start", "long"]);
    let mut follower = served.docker(&["logs", "-f", "long"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "one");
    assert_eq!(served.all(&["attach", "long"], "typed\n").0, 0);
    assert_eq!(lines.collect::<Vec<_>>(), ["typed", "two"]);
    assert!(follower.wait().unwrap().success());
}

#[test]
fn exec_is_another_process_of_the_container() {
    let served = Served::new();
    served.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "-e",
        "OWN=1",
        "--name",
        "box",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(
        served.all(&["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7"], ""),
        (7, "out\n".into(), "err\n".into())
    );
    assert_eq!(served.all(&["exec", "-i", "box", "cat"], "typed").1, "typed");
    let script = "id -u; id -g; pwd; echo $OWN $MORE";
    let out = served.ok(&["exec", "-u", "bob", "-w", "/tmp", "-e", "MORE=2", "box", "sh", "-c", script]);
    assert_eq!(out, "55\n66\n/tmp\n1 2\n");
    assert!(served.ok(&["exec", "-t", "box", "tty"]).starts_with("/dev/pts/"));
    let (code, out, err) = served.all(&["exec", "box", "nosuch"], "");
    assert!(
        code == 127 && format!("{out}{err}").contains("\"nosuch\": executable file not found in $PATH"),
        "{out}{err}"
    );
    served.ok(&["kill", "box"]);
    served.ok(&["wait", "box"]);
    let (code, _, err) = served.all(&["exec", "box", "true"], "");
    assert!(code == 1 && err.contains("is not running"), "{err}");
}

#[test]
fn cp_stays_inside_and_reaches_volumes() {
    let served = Served::new();
    served.sleeper("box");
    let (tree, back) = (served.dir.join("tree"), served.dir.join("back"));
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    std::fs::write(tree.join("sub/file"), "content").unwrap();
    let (tree_text, back_text) = (tree.to_str().unwrap(), back.to_str().unwrap());
    served.ok(&["cp", tree_text, "box:/tmp"]);
    assert_eq!(served.ok(&["exec", "box", "cat", "/tmp/tree/sub/file"]), "content");
    served.ok(&["cp", "box:/tmp/tree", back_text]);
    assert_eq!(std::fs::read_to_string(back.join("sub/file")).unwrap(), "content");
    // A link that points at the host's root ends inside the container.
    let inside = format!("/leak-{}", std::process::id());
    served.ok(&["exec", "box", "sh", "-c", "ln -s ../../../../.. /up"]);
    served.ok(&["cp", tree.join("sub/file").to_str().unwrap(), &format!("box:/up{inside}")]);
    assert_eq!(served.ok(&["exec", "box", "cat", &inside]), "content");
    assert!(!std::path::Path::new(&inside).exists(), "written to the host");
    let (code, _, err) = served.all(&["cp", "box:/nosuch", back_text], "");
    assert!(code == 1 && err.contains("Could not find the file /nosuch in container"), "{err}");
    // A container that never ran, and its volume.
    served.ok(&["create", "--name", "still", "-v", "data:/data", "busybox", "true"]);
    served.ok(&["cp", tree.join("sub/file").to_str().unwrap(), "still:/data/kept"]);
    assert_eq!(
        served.ok(&["run", "--rm", "--network", "none", "-v", "data:/d", "busybox", "cat", "/d/kept"]),
        "content"
    );
}

#[test]
fn diff_commit_and_export() {
    let served = Served::new();
    served.ok(&[
        "run",
        "--network",
        "none",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo new > /root/new; rm /etc/passwd",
    ]);
    let diff = served.ok(&["diff", "box"]);
    let mut lines: Vec<&str> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /root/new", "C /etc", "C /root", "D /etc/passwd"]);
    served.ok(&["commit", "-c", "CMD [\"cat\", \"/root/new\"]", "-m", "a remark", "box", "made:1"]);
    assert_eq!(served.ok(&["run", "--rm", "--network", "none", "made:1"]), "new\n");
    assert_eq!(served.ok(&["image", "inspect", "made:1", "--format", "{{.Comment}}"]).trim(), "a remark");
    let tar = served.dir.join("export.tar");
    served.ok(&["export", "-o", tar.to_str().unwrap(), "box"]);
    let list = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains("root/new\n") && !list.contains("etc/passwd\n"), "{list}");
}

#[test]
fn events_are_told_and_filtered() {
    let served = Served::new();
    let mut follower = served
        .docker(&[
            "events",
            "--filter",
            "type=container",
            "--format",
            "{{.Action}} {{.Actor.Attributes.name}}",
        ])
        .args(["--since", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    served.ok(&["run", "-d", "--rm", "--network", "none", "--name", "brief", "busybox", "true"]);
    let seen: Vec<String> = lines.by_ref().take(4).collect();
    assert_eq!(seen, ["create brief", "start brief", "die brief", "destroy brief"]);
    follower.kill().unwrap();
    follower.wait().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let past = [
        "events",
        "--since",
        "1",
        "--until",
        &now.to_string(),
        "--filter",
        "event=die",
        "--format",
        "{{.Action}}",
    ];
    assert_eq!(served.ok(&past), "die\n");
}

#[test]
fn top_and_stats_show_the_process() {
    let served = Served::new();
    served.sleeper("box");
    let top = served.ok(&["top", "box"]);
    let mut lines = top.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    );
    assert!(lines.next().unwrap().ends_with("sleep 1000") && lines.next().is_none(), "{top}");
    let stats = served.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "box"]);
    assert!(stats.starts_with("box ") && !stats.contains("0B / 0B"), "{stats}");
    let df = served.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]);
    assert!(df.contains("Images 1 1") && df.contains("Containers 1 1"), "{df}");
}
