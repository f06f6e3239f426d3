//! Projects as a person drives them, with `cauldron compose` and with Debian's docker-compose on the same engine. Needs root,
//! Debian's busybox-static and docker-compose.

mod busybox;

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// An engine and a project's directory of one test's own; everything that was made goes with it.
struct Home(PathBuf);

impl Home {
    fn new(file: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-compose-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(dir.join("app")).unwrap();
        let home = Self(dir);
        let tar = busybox::archive(&home.0, |_| {});
        home.ok(&["import", tar.to_str().unwrap(), "busybox:latest"]);
        home.write("compose.yaml", file);
        home
    }
    fn write(&self, name: &str, text: &str) {
        let path = self.0.join("app").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.0.join("app"))
            .env("CAULDRON_ROOT", self.0.join("root"))
            .env("CAULDRON_RUN_ROOT", self.0.join("run"))
            .env("TOKEN", "hush-hush")
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        command
    }
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        said(self.command(env!("CARGO_BIN_EXE_cauldron"), args).output().unwrap())
    }
    fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    }
    /// `compose …` that succeeds: its output.
    fn compose(&self, args: &[&str]) -> String {
        self.ok(&[&["compose"], args].concat())
    }
    /// `compose …` that succeeds: what it did.
    fn did(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(&[&["compose"], args].concat());
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        err
    }
    fn inspect(&self, name: &str) -> Value {
        let text = self.ok(&["inspect", name]);
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }
}

fn said(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

impl Drop for Home {
    fn drop(&mut self) {
        let listed = self.run(&["ps", "-aq"]).1;
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            self.run(&[&["rm", "-fv"], ids.as_slice()].concat());
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A served engine, ended with the test however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const STACK: &str = "
services:
  web:
    image: busybox
    command: sh -c 'echo serving $$NAME; exec sleep 1000'
    environment: {NAME: \"${WHO:-nobody}\"}
    stop_signal: SIGKILL
    depends_on:
      db: {condition: service_healthy}
      init: {condition: service_completed_successfully}
  db:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    healthcheck: {test: test -e /anon, interval: 100ms}
    volumes: ['data:/data', /anon]
  init:
    image: busybox
    command: sh -c 'echo ready > /data/state'
    volumes: ['data:/data']
  extra:
    image: busybox
    profiles: [debug]
volumes: {data: }
";

#[test]
fn a_project_comes_up_in_order_and_goes_down_whole() {
    let home = Home::new(STACK);
    let did = home.did(&["up", "-d", "--wait"]);
    let at = |line: &str| did.find(line).unwrap_or_else(|| panic!("{line:?} is not in {did}"));
    assert!(at("Network app_default  Created") < at("Container app-db-1  Created"));
    assert!(at("Container app-db-1  Healthy") < at("Container app-web-1  Starting"));
    assert!(at("Container app-init-1  Exited") < at("Container app-web-1  Starting"));
    assert_eq!(home.compose(&["exec", "-T", "db", "cat", "/data/state"]), "ready\n");
    assert_eq!(home.compose(&["logs", "web"]), "web-1  | serving nobody\n");
    assert_eq!(home.compose(&["ps", "--services"]), "db\nweb\n");
    let row: Value =
        serde_json::from_str(home.compose(&["ps", "-a", "--format", "json", "init"]).trim()).unwrap();
    assert_eq!(
        (row["Name"].as_str(), row["State"].as_str(), row["ExitCode"].as_i64()),
        (Some("app-init-1"), Some("exited"), Some(0))
    );
    let web = home.inspect("app-web-1");
    let labels = &web["Config"]["Labels"];
    assert_eq!(labels["com.docker.compose.project"], "app");
    assert_eq!(labels["com.docker.compose.service"], "web");
    assert_eq!(labels["com.docker.compose.container-number"], "1");
    assert_eq!(labels["com.docker.compose.oneoff"], "False");
    assert_eq!(
        labels["com.docker.compose.depends_on"],
        "db:service_healthy:false,init:service_completed_successfully:false"
    );
    assert_eq!(home.compose(&["ls", "-q"]), "app\n");
    home.did(&["down", "-v"]);
    assert_eq!(home.ok(&["ps", "-aq"]), "");
    assert_eq!(home.ok(&["volume", "ls", "-q"]), "");
    assert!(!home.ok(&["network", "ls"]).contains("app_default"));
}

#[test]
fn up_changes_only_what_changed() {
    let home = Home::new(STACK);
    home.did(&["up", "-d"]);
    let ids = |home: &Home| {
        ["web", "db"].map(|name| home.inspect(&format!("app-{name}-1"))["Id"].as_str().unwrap().to_owned())
    };
    let anonymous = |home: &Home| {
        let mounts = home.inspect("app-db-1")["Mounts"].clone();
        mounts.as_array().unwrap().iter().find(|mount| mount["Destination"] == "/anon").unwrap()["Name"]
            .clone()
    };
    let (before, volume) = (ids(&home), anonymous(&home));
    home.did(&["up", "-d"]);
    assert_eq!(ids(&home), before);
    home.write(".env", "WHO=someone");
    let plan = home.did(&["--dry-run", "up", "-d"]);
    assert!(
        plan.contains("DRY-RUN MODE -  Container app-web-1  Recreate")
            && !plan.contains("app-db-1  Recreate"),
        "{plan}"
    );
    assert_eq!(ids(&home), before);
    home.did(&["up", "-d"]);
    let after = ids(&home);
    assert!(after[0] != before[0] && after[1] == before[1], "{before:?} {after:?}");
    assert_eq!(home.compose(&["logs", "--no-log-prefix", "web"]), "serving someone\n");
    // A new container keeps the volume without a name, unless it is told not to.
    home.did(&["up", "-d", "--force-recreate", "--no-deps", "db"]);
    assert_eq!(anonymous(&home), volume);
    home.did(&["up", "-d", "--force-recreate", "--no-deps", "-V", "db"]);
    assert_ne!(anonymous(&home), volume);
    home.did(&["up", "-d", "--scale", "web=3", "--no-recreate", "web"]);
    assert_eq!(home.compose(&["ps", "-q", "web"]).lines().count(), 3);
    home.write(
        "compose.yaml",
        "services: {web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}}",
    );
    let (_, _, err) = home.run(&["compose", "up", "-d"]);
    assert!(err.contains("Found orphan containers"), "{err}");
    home.did(&["up", "-d", "--remove-orphans"]);
    assert_eq!(home.compose(&["ps", "-aq"]).lines().count(), 1);
    // A new container that cannot take its place leaves the old one, and nothing else.
    home.ok(&["create", "--name", "taken", "busybox", "true"]);
    let old = home.ok(&["ps", "-q", "--no-trunc"]);
    let volumes = home.ok(&["volume", "ls", "-q"]);
    home.write(
        "compose.yaml",
        "services: {web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, container_name: taken, volumes: [/anon]}}",
    );
    let (code, _, err) = home.run(&["compose", "up", "-d"]);
    assert!(code != 0 && err.contains("taken"), "{err}");
    assert_eq!(home.ok(&["ps", "-q", "--no-trunc"]), old);
    assert_eq!(home.ok(&["ps", "-a", "--format", "{{.Names}}"]), "taken\napp-web-1\n");
    assert_eq!(home.ok(&["volume", "ls", "-q"]), volumes);
}

#[test]
fn secrets_are_in_memory_and_in_no_inspect() {
    let home = Home::new(
        "
services:
  app:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    secrets: [token, {source: file, target: /etc/key, mode: 0400, uid: '7'}]
    configs: [{source: text, target: /app.conf}]
secrets: {token: {environment: TOKEN}, file: {file: ./key.txt}}
configs: {text: {content: \"a=1\\n\"}}
",
    );
    home.write("key.txt", "key-of-all");
    home.did(&["up", "-d"]);
    assert_eq!(
        home.compose(&["exec", "-T", "app", "cat", "/run/secrets/token", "/etc/key", "/app.conf"]),
        "hush-hushkey-of-alla=1\n"
    );
    assert_eq!(home.compose(&["exec", "-T", "app", "stat", "-c", "%a %u", "/etc/key"]), "400 7\n");
    let mounts = home.compose(&["exec", "-T", "app", "cat", "/proc/mounts"]);
    for place in ["/run/secrets/token", "/etc/key", "/app.conf"] {
        assert!(mounts.contains(&format!("tmpfs {place} tmpfs ro,nosuid,nodev")), "{place}: {mounts}");
    }
    assert_ne!(home.run(&["compose", "exec", "-T", "app", "sh", "-c", "echo x > /run/secrets/token"]).0, 0);
    let inspected = home.ok(&["inspect", "app-app-1"]);
    assert!(
        !inspected.contains("hush") && !inspected.contains("key-of") && !inspected.contains("key.txt"),
        "{inspected}"
    );
    let kept =
        said(Command::new("grep").args(["-rl", "hush-hush"]).arg(home.0.join("root")).output().unwrap()).1;
    for path in kept.lines() {
        assert!(path.contains("/delivered/"), "{path}");
    }
    // One that changed makes the container anew, and nothing else does.
    let id = |home: &Home| home.inspect("app-app-1")["Id"].clone();
    let before = id(&home);
    home.did(&["up", "-d"]);
    assert_eq!(id(&home), before);
    home.write("key.txt", "key-two");
    home.did(&["up", "-d"]);
    assert_ne!(id(&home), before);
    assert_eq!(home.compose(&["exec", "-T", "app", "cat", "/etc/key"]), "key-two");
    // They are there after a restart too, and go with the container.
    home.did(&["restart"]);
    assert_eq!(home.compose(&["exec", "-T", "app", "cat", "/run/secrets/token"]), "hush-hush");
    home.did(&["down"]);
    assert_eq!(
        said(Command::new("grep").args(["-rl", "hush-hush"]).arg(home.0.join("root")).output().unwrap()).1,
        ""
    );
}

#[test]
fn secrets_of_commands_and_others() {
    let home = Home::new(
        "
services:
  app:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    secrets: [printed, outside]
secrets:
  printed: {external: true, x-command: sh -c 'printf \"%s words\\n\" \"$$(cat word)\"'}
  outside: {external: true, name: own}
",
    );
    home.write("word", "whispered");
    let up = |home: &Home| {
        let mut up = home.command(env!("CARGO_BIN_EXE_cauldron"), &["up", "-d"]);
        said(up.env("CREDENTIALS_DIRECTORY", home.0.join("app/credentials")).output().unwrap())
    };
    let (code, _, err) = up(&home);
    assert!(code != 0 && err.contains("external own not found"), "{err}");
    home.write("credentials/own", "muttered");
    let (code, _, err) = up(&home);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        home.compose(&["exec", "-T", "app", "cat", "/run/secrets/printed", "/run/secrets/outside"]),
        "whispered wordsmuttered"
    );
    for text in [
        home.ok(&["inspect", "app-app-1"]),
        home.compose(&["exec", "-T", "app", "env"]),
        home.compose(&["config"]),
    ] {
        assert!(!text.contains("whispered") && !text.contains("muttered"), "{text}");
    }
    home.write("compose.yaml", "services: {app: {image: busybox, command: 'true', secrets: [s]}}\nsecrets: {s: {x-command: [sh, -c, echo whispered; exit 4]}}");
    let (code, out, err) = home.run(&["up", "-d"]);
    assert!(
        code != 0
            && err.contains("/run/secrets/s: sh: exit status: 4")
            && !(out + &err).contains("whispered"),
        "{err}"
    );
    home.write(
        "compose.yaml",
        "services: {app: {image: busybox, secrets: [s]}}\nsecrets: {s: {x-command: {a: b}}}",
    );
    assert!(
        home.run(&["compose", "config"]).2.contains("compose.yaml:2:26: secrets.s.x-command: want a command")
    );
}

#[test]
fn an_attached_up_ends_with_what_it_was_told_to_watch() {
    let home = Home::new(
        "
services:
  job: {image: busybox, command: sh -c 'echo working; exit 3'}
  other: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
",
    );
    let (code, out, err) = home.run(&["compose", "up", "--exit-code-from", "job"]);
    assert_eq!((code, out.as_str()), (3, "job-1    | working\njob-1 exited with code 3\n"), "{err}");
    assert_eq!(home.compose(&["ps", "-q"]), "");
    let (code, ..) = home.run(&["compose", "up", "--abort-on-container-failure"]);
    assert_eq!(code, 3);
    // Ctrl-C stops what it started.
    let mut up = home
        .command(env!("CARGO_BIN_EXE_cauldron"), &["compose", "up", "other", "job"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("exited with code 3")));
    let interrupt = Command::new("kill").args(["-INT", &up.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(up.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    up.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(
        said.contains("Gracefully Stopping...") && said.contains("Container app-other-1  Stopped"),
        "{said}"
    );
}

#[test]
fn what_starts_later_is_followed_too() {
    let home = Home::new(
        "
x-own: &own {image: busybox, stop_signal: SIGKILL}
services:
  a: {<<: *own, command: sh -c 'echo first; exec sleep 1000'}
  b: {<<: *own, command: sh -c 'echo second; exec sleep 1000'}
",
    );
    let follow = |args: &[&str]| {
        let mut command = home.command(env!("CARGO_BIN_EXE_cauldron"), &[&["compose"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Server(child), lines)
    };
    let (attached, mut printed) = follow(&["up", "a"]);
    assert_eq!(printed.next().unwrap().unwrap(), "a-1  | first");
    let (logs, mut said) = follow(&["logs", "-f", "--no-log-prefix"]);
    assert_eq!(said.next().unwrap().unwrap(), "first");
    home.did(&["up", "-d", "b"]);
    assert_eq!(said.next().unwrap().unwrap(), "second");
    // An attached `up` prints what it was told to attach to.
    home.did(&["up", "-d", "--scale", "a=2", "--no-recreate", "a"]);
    assert_eq!(printed.next().unwrap().unwrap(), "a-2  | first");
    assert_eq!(said.next().unwrap().unwrap(), "first");
    home.did(&["restart", "-t", "0", "b"]);
    assert_eq!(said.next().unwrap().unwrap(), "second");
    drop((attached, logs));
}

#[test]
fn a_dependency_that_fails_says_its_last_words() {
    let home = Home::new(
        "
services:
  web: {image: busybox, command: 'true', depends_on: {init: {condition: service_completed_successfully}}}
  init: {image: busybox, command: sh -c 'echo the disk is full; exit 5'}
  sick: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, healthcheck: {test: 'false', interval: 50ms, retries: 1}}
  needs: {image: busybox, command: 'true', depends_on: {sick: {condition: service_healthy}}}
",
    );
    let (code, _, err) = home.run(&["compose", "up", "-d", "web"]);
    assert_eq!(code, 1);
    assert!(err.contains("service \"init\" didn't complete successfully: exit 5\nthe disk is full"), "{err}");
    let (_, _, err) = home.run(&["compose", "up", "-d", "needs"]);
    assert!(err.contains("dependency failed to start: container app-sick-1 is unhealthy"), "{err}");
}

#[test]
fn wait_tells_what_runs_from_what_is_over() {
    let home = Home::new(
        "
x-one: &one {image: busybox, network_mode: none}
services:
  runs: {<<: *one, command: sleep 1000, stop_signal: SIGKILL}
  good: {<<: *one, command: 'true'}
  bad: {<<: *one, command: sh -c 'exit 3', profiles: [bad]}
",
    );
    let did = home.did(&["up", "-d", "--wait"]);
    assert!(did.contains("app-runs-1  Healthy") && did.contains("app-good-1  Exited"), "{did}");
    let (code, _, err) = home.run(&["compose", "up", "-d", "--wait", "bad"]);
    assert!(code == 1 && err.contains("container app-bad-1 exited (3)"), "{code} {err}");
}

#[test]
fn watch_carries_changes_over() {
    let home = Home::new(
        "
services:
  app:
    build: .
    command: sleep 1000
    network_mode: none
    stop_signal: SIGKILL
    develop:
      watch:
        - {action: sync, path: src, target: /src, ignore: ['*.log'], initial_sync: true}
        - {action: sync+exec, path: conf, target: /conf, exec: {command: touch /told}}
        - {action: sync+restart, path: one.ini, target: /one.ini}
        - {action: rebuild, path: Dockerfile}
",
    );
    home.write("Dockerfile", "FROM busybox\nRUN echo one > /version\n");
    home.write("src/first", "1");
    home.write("conf/a", "a");
    home.write("one.ini", "1");
    let mut watch = home
        .command(env!("CARGO_BIN_EXE_cauldron"), &["compose", "watch", "--quiet"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(watch.stderr.take().unwrap()).lines();
    let _watch = Server(watch);
    let mut until = |text: &str| {
        let lines: Vec<String> =
            said.by_ref().map(Result::unwrap).take_while(|line| !line.contains(text)).collect();
        assert!(!lines.iter().any(|line| line.contains("cauldron: ")), "{lines:?}");
    };
    let inside = |words: &[&str]| home.compose(&[&["exec", "-T", "app"], words].concat());
    until("Watch enabled");
    assert_eq!(inside(&["ls", "/src"]), "first\n");
    home.write("src/x.log", "no");
    home.write("src/deep/second", "2");
    until("Syncing service \"app\"");
    // What follows is handled after what came before.
    home.write("conf/a", "b");
    until("Syncing service \"app\"");
    home.write("new.ini", "2");
    std::fs::rename(home.0.join("app/new.ini"), home.0.join("app/one.ini")).unwrap();
    until("service \"app\" restarted");
    inside(&["sh", "-c", "until test -e /told; do usleep 20000; done"]);
    assert_eq!(inside(&["sh", "-c", "find /src -type f | sort"]), "/src/deep/second\n/src/first\n");
    assert_eq!(inside(&["cat", "/conf/a", "/one.ini"]), "b2");
    home.write("new", "FROM busybox\nRUN echo two > /version\n");
    std::fs::rename(home.0.join("app/new"), home.0.join("app/Dockerfile")).unwrap();
    until("Container app-app-1  Started");
    assert_eq!(inside(&["cat", "/version"]), "two\n");
}

#[test]
fn one_offs_hooks_and_builds() {
    let home = Home::new(
        "
services:
  app:
    build: {context: ., args: {WORD: built}, dockerfile_inline: \"FROM busybox\\nARG WORD\\nRUN echo $$WORD > /word\\n\"}
    command: sleep 1000
    stop_signal: SIGKILL
    volumes: ['v:/v']
    pre_start: [{command: sh -c 'echo before >> /v/log'}]
    post_start: [{command: sh -c 'echo after >> /v/log'}]
    ports: ['127.0.0.1::80']
volumes: {v: }
",
    );
    home.did(&["up", "-d", "--wait"]);
    assert_eq!(home.compose(&["exec", "-T", "app", "cat", "/word", "/v/log"]), "built\nbefore\nafter\n");
    assert_eq!(
        home.compose(&["run", "--rm", "-T", "-e", "A=b", "app", "sh", "-c", "echo $A; exit 0"]),
        "b\n"
    );
    assert_eq!(home.run(&["compose", "run", "--rm", "app", "sh", "-c", "exit 9"]).0, 9);
    assert_eq!(home.compose(&["ps", "-aq"]).lines().count(), 1);
    assert!(home.compose(&["port", "app", "80"]).starts_with("127.0.0.1:"));
    home.write("sent", "from here");
    home.compose(&["cp", "sent", "app:/tmp/sent"]);
    assert_eq!(home.compose(&["exec", "-T", "app", "cat", "/tmp/sent"]), "from here");
    // What is wrong is said before anything is made.
    for (args, wrong) in [
        (&["run", "-T", "-p", "80:x", "app", "true"][..], "x"),
        (&["run", "-T", "-v", "a:b:c:d", "app", "true"], "a:b:c:d"),
        (&["exec", "--index", "abc", "app", "true"], "\"abc\" for \"--index\""),
        (&["logs", "--index", "abc", "app"], "\"abc\" for \"--index\""),
        (&["port", "--index", "abc", "app", "80"], "\"abc\" for \"--index\""),
        (&["start", "--wait", "--wait-timeout", "abc"], "\"abc\" for \"--wait-timeout\""),
        (&["--parallel", "abc", "up", "-d"], "\"abc\" for \"--parallel\""),
        (&["ls", "--filter", "nonsense=1"], "unknown filter nonsense=1"),
    ] {
        let (code, _, err) = home.run(&[&["compose"], args].concat());
        assert!(code != 0 && err.contains(wrong), "{args:?}: {err}");
    }
    assert_eq!(home.ok(&["ps", "-aq"]).lines().count(), 1);
    home.did(&["stop"]);
    assert_eq!(home.compose(&["ps", "--status", "exited", "-q"]).lines().count(), 1);
    home.did(&["rm", "-f"]);
    assert_eq!(home.compose(&["ps", "-aq"]), "");
}

#[test]
fn what_config_prints_is_the_same_project() {
    let home = Home::new(STACK);
    let printed = home.compose(&["config"]);
    home.write("again.yaml", &printed);
    assert_eq!(home.compose(&["-f", "again.yaml", "config"]), printed);
    let hash = home.compose(&["config", "--hash", "*"]);
    assert_eq!(home.compose(&["-f", "again.yaml", "config", "--hash", "*"]), hash);
    let json: Value = serde_json::from_str(&home.compose(&["config", "--format", "json"])).unwrap();
    assert_eq!(json["services"]["web"]["environment"]["NAME"], "nobody");
    assert!(json["services"].get("extra").is_none());
    let (code, _, err) = home.run(&["compose", "-f", "-", "config"]);
    assert_eq!((code, err.as_str()), (1, "cauldron: empty compose file\n"));
}

/// The fixtures of Docker Compose's own end-to-end tests, where they are beside this repository: each loads, or is refused for what
/// is wrong with it.
#[test]
fn fixtures_of_docker_compose_load() {
    let base = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/testdata/compose/e2e-fixtures");
    let wrong = [
        ("wrong-composefile/compose.yaml", "additional properties 'wrongField' not allowed"),
        ("publish/oci/compose-override.yaml", "has neither an image nor a build context"),
        ("env_file/compose.yaml", "env file /doesnotexist/.env not found"),
        ("logs-test/cat.yaml", "empty section between colons"),
    ];
    let mut open = vec![base];
    let home = Home::new("services: {a: {image: busybox}}");
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let shown = path.display().to_string();
            if path.is_dir() {
                if !shown.contains("/expected-") {
                    open.push(path);
                }
            } else if shown.ends_with(".yaml") || shown.ends_with(".yml") {
                let (code, out, err) = home.run(&["compose", "-f", &shown, "config"]);
                match wrong.iter().find(|(name, _)| shown.ends_with(name)) {
                    Some((_, why)) => assert!(code != 0 && err.contains(why), "{shown}: {err}"),
                    None => assert!(code == 0 && out.starts_with("name: "), "{shown}: {err}"),
                }
            }
        }
    }
}

/// Debian's docker-compose 1.29 and ours, on one engine: each takes the other's project over.
#[test]
fn docker_compose_takes_a_project_over_and_gives_it_back() {
    let home = Home::new(
        "
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, depends_on: [db]}
  db: {image: busybox, command: sh -c 'echo up; exec sleep 1000', stop_signal: SIGKILL, volumes: ['data:/d']}
volumes: {data: {}}
",
    );
    let socket = format!("unix://{}", home.0.join("s.sock").display());
    let mut server = home
        .command(env!("CARGO_BIN_EXE_cauldron"), &["serve", "-H", &socket])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut words = BufReader::new(server.stderr.take().unwrap());
    let _server = Server(server);
    words.read_line(&mut line).unwrap();
    assert!(line.contains("s.sock"), "{line}");
    let theirs = |args: &[&str]| {
        let output = home
            .command("docker-compose", args)
            .env("DOCKER_HOST", &socket)
            .output()
            .expect("Debian's docker-compose");
        let (code, out, err) = said(output);
        assert_eq!(code, 0, "docker-compose {args:?}: {out}{err}");
        out
    };
    home.did(&["up", "-d"]);
    let listed = theirs(&["ps"]);
    assert!(listed.contains("app-web-1") && listed.contains("app-db-1"), "{listed}");
    assert!(theirs(&["logs", "--no-color", "db"]).contains("up"));
    theirs(&["stop"]);
    theirs(&["start"]);
    assert_eq!(theirs(&["exec", "-T", "db", "echo", "in"]), "in\n");
    theirs(&["up", "-d"]);
    assert_eq!(home.compose(&["ps", "--services"]), "db\nweb\n");
    theirs(&["down", "-v"]);
    assert_eq!(home.ok(&["ps", "-aq"]), "");
    theirs(&["up", "-d", "--scale", "web=2"]);
    assert_eq!(home.compose(&["ps", "-q", "web"]).lines().count(), 2);
    assert_eq!(home.compose(&["logs", "--no-log-prefix", "db"]), "up\n");
    home.did(&["up", "-d", "--scale", "web=2"]);
    home.did(&["down", "-v"]);
    assert_eq!(home.ok(&["ps", "-aq"]), "");
    assert_eq!(home.ok(&["volume", "ls", "-q"]), "");
}
