//! Cauldron's command line on an engine that is not ours: Debian's dockerd, started by the test.

mod busybox;
#[path = "clients/engine.rs"]
mod engine;

use engine::Engine;
use std::io::Write as _;
use std::process::Stdio;

/// The command line, told where the engine is.
struct Cli(Engine);

impl Cli {
    /// Exit code, stdout and stderr.
    fn all(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let host = self.0.host();
        let mut command = self.0.command(&[&[env!("CARGO_BIN_EXE_cauldron"), "-H", &host], args].concat());
        // Nothing of this process's own engine may be touched.
        command
            .env("CAULDRON_ROOT", self.0.dir.join("none"))
            .env("CAULDRON_RUN_ROOT", self.0.dir.join("none"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
    fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.all(args, "");
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    }
    fn fails(&self, args: &[&str], text: &str) {
        let (code, out, err) = self.all(args, "");
        assert!(code != 0 && err.contains(text), "{args:?}: {code} {out}{err}");
    }
    fn has(&self, args: &[&str], text: &str) {
        let out = self.ok(args);
        assert!(out.contains(text), "{args:?}: {out}");
    }
    fn path(&self, name: &str) -> String {
        self.0.dir.join(name).display().to_string()
    }
}

#[test]
fn every_verb_works_on_dockerd() {
    let cli = Cli(Engine::dockerd());
    containers(&cli);
    images(&cli);
    builds(&cli);
    volumes_and_networks(&cli);
    system(&cli);
    assert!(!cli.0.dir.join("none").exists(), "an engine of our own was opened");
}

/// There a helper works on the volume itself: one that was killed half-way is never run again unasked.
#[test]
fn tasks_and_helpers_work_on_dockerd() {
    let cli = Cli(Engine::dockerd());
    let command = |args: &[&str], point: &str| {
        let host = cli.0.host();
        let mut command = cli.0.command(&[&[env!("CARGO_BIN_EXE_cauldron"), "-H", &host], args].concat());
        let output = command
            .env("CAULDRON_ROOT", cli.0.dir.join("tasks"))
            .env("CAULDRON_RUN_ROOT", cli.0.dir.join("run"))
            .env("CAULDRON_FAILPOINT", point)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    };
    let ok = |args: &[&str]| {
        let (code, out, err) = command(args, "");
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    };
    cli.ok(&["run", "-d", "--name", "db", "--expose", "80", "busybox", "sleep", "1000"]);
    let script = "echo $DATABASE_PORT_80_TCP_PORT; ping -c1 -W5 database > /dev/null";
    ok(&[
        "task",
        "create",
        "see",
        "--each",
        "name=db",
        "--link-target",
        "database",
        "--before",
        "pause",
        "--",
        "busybox",
        "sh",
        "-c",
        "echo seen",
    ]);
    ok(&[
        "task",
        "create",
        "link",
        "--each",
        "name=db",
        "--link-target",
        "database",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    for name in ["see", "link"] {
        ok(&["task", "run", name]);
    }
    assert_eq!(ok(&["task", "logs", "link"]), "80\n");
    assert_eq!(cli.ok(&["inspect", "-f", "{{.State.Status}}", "db"]), "running\n");
    ok(&[
        "task",
        "create",
        "init",
        "--once",
        "data",
        "-v",
        "data:/d",
        "busybox",
        "sh",
        "-c",
        "echo line >> /d/log",
    ]);
    let log = || cli.ok(&["run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/log"]);
    for point in ["task: helper over, not marked", "task: started"] {
        assert_eq!(command(&["helper", "run", "init"], point).0, -1, "{point}");
        let (code, _, err) = command(&["helper", "run", "init"], "");
        assert!(
            code != 0 && err.contains("was interrupted on volume data") && err.contains("helper accept init"),
            "{err}"
        );
        assert_eq!(log(), "line\n", "{point}");
        ok(&["helper", "accept", "init"]);
        ok(&["helper", "run", "init"]);
        assert_eq!(log(), "line\n", "{point}");
        cli.ok(&["volume", "rm", "-f", "data"]);
    }
    ok(&["helper", "run", "init"]);
    ok(&["helper", "run", "init"]);
    assert_eq!(log(), "line\n");
    ok(&["helper", "rerun", "init"]);
    assert_eq!(log(), "line\nline\n");
}

fn containers(cli: &Cli) {
    assert_eq!(cli.ok(&["run", "--rm", "busybox", "echo", "hello"]), "hello\n");
    assert_eq!(cli.all(&["run", "--rm", "-i", "busybox", "cat"], "typed").1, "typed");
    let apart = cli.all(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"], "");
    assert_eq!(apart, (3, "out\n".into(), "err\n".into()));
    assert_eq!(cli.all(&["run", "--rm", "busybox", "nosuch"], "").0, 127);
    cli.ok(&["run", "-d", "--name", "box", "-p", "127.0.0.1::80", "-l", "a=b", "busybox", "sleep", "1000"]);
    cli.has(&["ps", "--filter", "label=a=b", "--format", "{{.Names}} {{.Image}}"], "box busybox");
    assert_eq!(cli.ok(&["exec", "box", "echo", "one"]), "one\n");
    assert_eq!(cli.all(&["exec", "-i", "box", "cat"], "typed").1, "typed");
    assert_eq!(cli.all(&["exec", "box", "sh", "-c", "exit 5"], "").0, 5);
    assert_eq!(cli.ok(&["inspect", "-f", "{{.State.Running}}", "box"]), "true\n");
    cli.has(&["top", "box"], "sleep 1000");
    cli.has(&["stats", "--no-stream", "--format", "{{.Name}}", "box"], "box");
    cli.has(&["port", "box", "80"], "127.0.0.1:");
    std::fs::write(cli.path("file"), "content").unwrap();
    cli.ok(&["cp", &cli.path("file"), "box:/tmp/file"]);
    cli.ok(&["cp", "box:/tmp/file", &cli.path("back")]);
    assert_eq!(std::fs::read_to_string(cli.path("back")).unwrap(), "content");
    cli.has(&["diff", "box"], "A /tmp/file");
    cli.ok(&["pause", "box"]);
    cli.ok(&["unpause", "box"]);
    cli.ok(&["update", "--restart", "no", "box"]);
    cli.ok(&["rename", "box", "other"]);
    cli.ok(&["commit", "-m", "remark", "other", "made:1"]);
    assert_eq!(cli.ok(&["run", "--rm", "made:1", "cat", "/tmp/file"]), "content");
    cli.ok(&["export", "-o", &cli.path("export.tar"), "other"]);
    cli.ok(&["restart", "-t", "0", "other"]);
    cli.ok(&["stop", "-t", "0", "other"]);
    cli.ok(&["start", "other"]);
    cli.ok(&["kill", "other"]);
    assert_eq!(cli.ok(&["wait", "other"]), "137\n");
    cli.ok(&["rm", "other"]);
    cli.fails(&["inspect", "other"], "o such");
    cli.ok(&["create", "--name", "still", "busybox", "echo", "started"]);
    assert_eq!(cli.ok(&["start", "-a", "still"]), "started\n");
    assert_eq!(cli.ok(&["logs", "still"]), "started\n");
    cli.has(&["container", "prune", "-f"], "reclaimed");
}

fn images(cli: &Cli) {
    cli.ok(&["import", &cli.path("export.tar"), "imported:1"]);
    cli.ok(&["tag", "made:1", "127.0.0.1:5000/made:1"]);
    cli.ok(&["push", "127.0.0.1:5000/made:1"]);
    cli.ok(&["save", "-o", &cli.path("save.tar"), "made:1"]);
    cli.ok(&["rmi", "127.0.0.1:5000/made:1", "made:1"]);
    cli.has(&["pull", "127.0.0.1:5000/made:1"], "Digest: sha256:");
    cli.has(&["load", "-i", &cli.path("save.tar")], "made:1");
    cli.has(&["images", "--format", "{{.Repository}}:{{.Tag}}"], "made:1");
    cli.has(&["history", "made:1"], "remark");
    cli.has(&["image", "inspect", "-f", "{{.Os}}", "made:1"], "linux");
    cli.ok(&["rmi", "127.0.0.1:5000/made:1", "made:1", "imported:1"]);
    cli.fails(&["pull", "127.0.0.1:5000/nosuch:1"], "nosuch");
    cli.fails(&["image", "bootstrap", "debian:bookworm"], "it is not a Cauldron");
}

/// The context goes as a stream.
fn builds(cli: &Cli) {
    let context = cli.0.dir.join("context");
    std::fs::create_dir_all(&context).unwrap();
    let text = "FROM busybox AS one\nARG WHO\nCOPY data /data\nRUN echo $WHO >> /data; cat /etc/hosts >> /data\nFROM one\n";
    std::fs::write(context.join("Dockerfile"), text).unwrap();
    std::fs::write(context.join("data"), "of the context\n").unwrap();
    std::fs::write(context.join("ignored"), "large").unwrap();
    std::fs::write(context.join(".dockerignore"), "ignored\n").unwrap();
    let context = context.display().to_string();
    let hosts = ["--add-host", "h1:192.0.2.1", "--add-host", "h2:192.0.2.2"];
    cli.ok(&[&["build", "--build-arg", "WHO=me", "-t", "built:1"], &hosts[..], &[&context]].concat());
    let data = cli.ok(&["run", "--rm", "built:1", "cat", "/data"]);
    for line in ["of the context", "me", "192.0.2.1\th1", "192.0.2.2\th2"] {
        assert!(data.lines().any(|found| found == line), "{line}: {data}");
    }
    let (code, out, err) = cli.all(&["build", "-"], "FROM busybox\nRUN exit 4\n");
    assert!(code != 0 && format!("{out}{err}").contains("returned a non-zero code: 4"), "{code} {out}{err}");
    cli.ok(&["rmi", "built:1"]);
    cli.ok(&["image", "prune", "-f"]);
    cli.has(&["builder", "prune", "-f"], "reclaimed");
}

fn volumes_and_networks(cli: &Cli) {
    cli.ok(&["volume", "create", "--label", "a=b", "kept"]);
    cli.ok(&["run", "--rm", "-v", "kept:/v", "busybox", "touch", "/v/file"]);
    assert_eq!(cli.ok(&["run", "--rm", "-v", "kept:/v:ro", "busybox", "ls", "/v"]), "file\n");
    assert_eq!(cli.ok(&["volume", "ls", "-q", "--filter", "label=a=b"]), "kept\n");
    cli.has(&["volume", "inspect", "kept"], "\"Mountpoint\"");
    cli.ok(&["volume", "rm", "kept"]);
    cli.has(&["volume", "prune", "-f"], "reclaimed");
    cli.ok(&["network", "create", "--subnet", "10.197.0.0/24", "net"]);
    let server = ["run", "-d", "--name", "server", "--network", "net", "--network-alias", "site"];
    cli.ok(&[&server[..], &["--ip", "10.197.0.9", "busybox", "sleep", "1000"]].concat());
    cli.ok(&["run", "--rm", "--network", "net", "busybox", "ping", "-c1", "-W5", "site"]);
    cli.has(&["network", "inspect", "net"], "10.197.0.9/24");
    cli.ok(&["network", "disconnect", "net", "server"]);
    cli.ok(&["network", "connect", "--alias", "again", "net", "server"]);
    cli.ok(&["rm", "-f", "server"]);
    cli.has(&["network", "ls"], "net");
    cli.ok(&["network", "rm", "net"]);
    cli.ok(&["network", "prune", "-f"]);
}

fn system(cli: &Cli) {
    cli.has(&["version", "--format", "{{.Server.APIVersion}} {{.Server.Version}}"], "1.41 20.10");
    cli.has(&["info"], "20.10");
    cli.has(&["system", "df"], "Build Cache");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let told = ["events", "--since", "1", "--until", &now.to_string(), "--filter", "event=die"];
    cli.has(&told, "container die");
    cli.has(&["system", "prune", "-f"], "reclaimed");
    for verb in [&["system", "restore"][..], &["doctor"]] {
        cli.fails(verb, "it is not a Cauldron");
    }
}
