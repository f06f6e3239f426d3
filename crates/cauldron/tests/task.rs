//! Tasks as a person drives them: real containers, in a root of each test's own. Needs root, as the engine does.

mod busybox;
mod home;

use home::{Home, Run};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn home() -> Home {
    Home::new("task", |_| {})
}

impl Home {
    fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
    /// The entries of the history, newest first.
    fn history(&self, name: &str) -> Vec<Value> {
        let text = self.ok(&["task", "history", name, "--format", "json"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
    /// A container that runs until the test is over.
    fn target(&self, name: &str) {
        self.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "-l",
            "role=database",
            "--expose",
            "3306",
            "busybox",
            "sleep",
            "1000",
        ]);
    }
}

/// Waits for something that another process does.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !test() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_task_is_a_container_as_a_binary() {
    let home = home();
    home.ok(&[
        "task",
        "create",
        "greet",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    let run = home.run(&["task", "run", "greet"]);
    assert_eq!((run.code, run.out.as_str(), run.err.contains("err\n")), (3, "out\n", true));
    let entries = home.history("greet");
    let entry = &entries[0];
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&entry["task"], &entry["exit_code"], &entry["attempt"]),
        (&"greet".into(), &3.into(), &1.into())
    );
    assert_eq!(
        (&entry["image"], &entry["error"], &entry["target"]),
        (&"busybox".into(), &Value::Null, &"".into())
    );
    assert!(entry["image_id"].as_str().unwrap().starts_with("sha256:"));
    assert!(entry["started"].as_str() < entry["finished"].as_str());
    let logs = home.run(&["task", "logs", "greet"]);
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("out\n", "err\n"));
    assert!(home.ok(&["ps", "-aq"]).is_empty(), "nothing is left");
    let nested = home.ok(&["task", "ls", "--format", "json"]);
    let task: Value = serde_json::from_str(&nested).unwrap();
    assert_eq!((&task["task"], &task["status"]), (&"greet".into(), &"failed".into()));
    assert_eq!(home.run(&["task", "run", "nobody"]).code, 125);
    for (lost, named) in [(&["--parallel", "3"][..], "--parallel"), (&["--", "id"], "a command")] {
        let run = home.run(&[&["task", "run", "greet"], lost].concat());
        assert!(
            run.code == 125 && run.err.contains(&format!("{named} is for a task that is not kept")),
            "{}",
            run.err
        );
    }
    assert_eq!(home.history("greet").len(), 1);
    // What cannot be read is said, and the others go on.
    fs::write(home.0.join("root/tasks/definitions/broken.json"), "{").unwrap();
    fs::write(home.0.join("root/tasks/projects/broken.json"), "{").unwrap();
    let listed = home.run(&["task", "ls", "--quiet"]);
    assert_eq!((listed.code, listed.out.as_str()), (1, "greet\n"));
    assert_eq!(listed.err.matches("broken.json").count(), 2, "{}", listed.err);
    assert_eq!(home.run(&["task", "run", "greet"]).code, 3);
    assert!(home.run(&["task", "create", "greet", "busybox"]).err.contains("exists already"));
    home.ok(&["task", "rm", "greet"]);
    assert!(home.history("greet").is_empty());
}

#[test]
fn each_target_is_linked_and_failures_are_told() {
    let home = home();
    for name in ["db1", "db2", "db3"] {
        home.target(name);
    }
    let script = "echo $TARGET_NAME $DATABASE_PORT_3306_TCP_PORT; ping -c1 -w5 database >/dev/null || exit 9; \
                  grep -q 'NoNewPrivs:.1' /proc/self/status || exit 8; test $TARGET_NAME != db2 || test $TASK_ATTEMPT = 3";
    home.ok(&[
        "task",
        "create",
        "backup",
        "--each",
        "label=role=database",
        "--link-target",
        "database",
        "--parallel",
        "3",
        "--retries",
        "2",
        "--backoff",
        "10ms",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let run = home.run(&["task", "run", "backup"]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let attempts =
        |target: &str| home.history("backup").iter().filter(|entry| entry["target"] == target).count();
    assert_eq!((attempts("db1"), attempts("db2"), attempts("db3")), (1, 3, 1));
    assert!(home.run(&["task", "logs", "backup", "--target", "db1"]).out.contains("db1 3306"));
    home.ok(&[
        "task",
        "create",
        "picky",
        "--each",
        "name=db*",
        "busybox",
        "sh",
        "-c",
        "test $TARGET_NAME = db1 || exit 4",
    ]);
    assert_eq!(home.run(&["task", "run", "picky"]).code, 4);
    assert_eq!(home.run(&["task", "run", "picky", "--target", "db1"]).code, 0);
    home.ok(&["task", "create", "nobody", "--each", "label=role=web", "busybox", "true"]);
    let run = home.run(&["task", "run", "nobody"]);
    assert!(run.code == 1 && run.err.contains("no running container matches label role=web"), "{}", run.err);
}

#[test]
fn time_limits_and_steps_are_undone() {
    let home = home();
    home.target("db");
    home.ok(&[
        "task",
        "create",
        "slow",
        "--each",
        "name=db",
        "--timeout",
        "300ms",
        "--before",
        "touch /before",
        "--before",
        "pause",
        "--after",
        "touch /after",
        "--stop-timeout",
        "0",
        "busybox",
        "sleep",
        "1000",
    ]);
    let run = home.run(&["task", "run", "slow"]);
    assert_eq!(run.code, 124, "{}", run.err);
    assert_eq!(home.history("slow")[0]["error"], "timed out after 300ms");
    assert_eq!(home.ok(&["inspect", "-f", "{{.State.Status}}", "db"]), "running");
    home.ok(&["exec", "db", "ls", "/before", "/after"]);
    home.ok(&[
        "task",
        "create",
        "broken",
        "--each",
        "name=db",
        "--before",
        "stop",
        "--before",
        "no-such-command",
        "busybox",
        "true",
    ]);
    assert_ne!(home.run(&["task", "run", "broken"]).code, 0);
    assert_eq!(home.ok(&["inspect", "-f", "{{.State.Status}}", "db"]), "running");
}

#[test]
fn a_killed_run_is_taken_back() {
    let home = home();
    home.target("db");
    home.ok(&[
        "task",
        "create",
        "long",
        "--each",
        "name=db",
        "--before",
        "pause",
        "busybox",
        "sh",
        "-c",
        "echo begun; sleep 1000",
    ]);
    let mut run = home.spawn(&["task", "run", "long"]);
    until("the run", || home.ok(&["ps", "-q", "--filter", "label=cauldron.task=long"]).lines().count() == 1);
    assert_eq!(home.ok(&["inspect", "-f", "{{.State.Paused}}", "db"]), "true");
    let second = home.run(&["task", "run", "long"]);
    assert!(second.code == 1 && second.err.contains("is running already"), "{}", second.err);
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(home.history("long")[0]["status"], "interrupted");
    // Whoever looks after it next gives back what it took.
    assert_eq!(home.run(&["task", "stop", "long"]).code, 1);
    assert_eq!(home.ok(&["inspect", "-f", "{{.State.Paused}}", "db"]), "false");
    assert!(home.ok(&["ps", "-aq", "--filter", "label=cauldron.task=long"]).is_empty());
    assert!(home.history("long")[0]["error"].as_str().unwrap().contains("killed"));
}

#[test]
fn detached_stopped_and_replaced() {
    let home = home();
    home.ok(&[
        "task",
        "create",
        "long",
        "--network",
        "none",
        "--overlap",
        "replace",
        "--stop-timeout",
        "0",
        "busybox",
        "sleep",
        "1000",
    ]);
    let runs = || home.ok(&["ps", "-q", "--filter", "label=cauldron.task=long"]);
    let id = home.ok(&["task", "run", "--detach", "long"]);
    until("the run", || runs().lines().count() == 1);
    let first = runs();
    let mut second = home.spawn(&["task", "run", "long"]);
    until("the second run", || !runs().is_empty() && runs() != first && runs().lines().count() == 1);
    let refused = home.run(&["task", "rm", "long"]);
    assert!(
        refused.code != 0 && refused.err.contains("stop it first: cauldron task stop long"),
        "{}",
        refused.err
    );
    home.ok(&["task", "stop", "long"]);
    assert_ne!(second.wait().unwrap().code(), Some(0));
    assert!(runs().is_empty());
    let entries = home.history("long");
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry["error"] == "stopped") && entries[1]["run"] == id.as_str());
    home.ok(&["task", "rm", "long"]);
}

#[test]
fn tasks_follow_one_another_once() {
    let home = home();
    let make = |name: &str, more: &[&str], command: &str| {
        let mut args = vec!["task", "create", name, "--network", "none"];
        args.extend(more);
        args.extend(["busybox", command]);
        home.ok(&args);
    };
    make("one", &["--on-success", "two", "--on-failure", "page"], "true");
    make("two", &["--on-success", "one", "--on-failure", "page"], "false");
    make("page", &["--on-success", "one"], "true");
    assert_eq!(home.run(&["task", "run", "one"]).code, 0);
    let count = |name: &str| home.history(name).len();
    assert_eq!((count("one"), count("two"), count("page")), (1, 1, 1));
}

#[test]
fn the_scheduler_runs_what_is_due() {
    let home = home();
    home.ok(&[
        "task",
        "create",
        "tick",
        "--network",
        "none",
        "--schedule",
        "* * * * * *",
        "--on-success",
        "tock",
        "busybox",
        "true",
    ]);
    home.ok(&["task", "create", "tock", "--network", "none", "busybox", "true"]);
    let ran = |name: &str| home.history(name).iter().filter(|entry| entry["status"] == "ok").count();
    let mut scheduler = home.spawn(&["task", "scheduler"]);
    until("two runs", || ran("tick") >= 2 && ran("tock") >= 1);
    // A second one waits; it takes over when the first is killed.
    let mut other = home.spawn(&["serve", "-H", &format!("unix://{}", home.0.join("sock").display())]);
    scheduler.kill().unwrap();
    scheduler.wait().unwrap();
    let before = ran("tick");
    until("the other's run", || ran("tick") > before + 1);
    home.ok(&["task", "pause", "tick"]);
    assert_eq!(
        serde_json::from_str::<Value>(home.ok(&["task", "ls", "--format", "json"]).lines().next().unwrap())
            .unwrap()["paused"],
        true
    );
    other.kill().unwrap();
    other.wait().unwrap();
    let show: Value = serde_json::from_str(&home.ok(&["task", "show", "tick"])).unwrap();
    let mut slots: Vec<&str> =
        show["runs"].as_array().unwrap().iter().map(|run| run["slot"].as_str().unwrap()).collect();
    let all = slots.len();
    slots.dedup();
    assert!(all >= 4 && slots.len() == all, "each slot once: {slots:?}");
}

#[test]
fn slots_over_daylight_saving_and_units() {
    let home = home();
    home.ok(&[
        "task",
        "create",
        "night",
        "--schedule",
        "30 2 * * *",
        "--timezone",
        "Europe/Berlin",
        "busybox",
        "true",
    ]);
    let show = home.ok(&["task", "show", "night", "--from", "2026-03-28T12:00:00Z", "--next", "2"]);
    let show: Value = serde_json::from_str(&show).unwrap();
    assert_eq!(show["slots"], serde_json::json!(["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]));
    let dir = home.0.join("units");
    home.ok(&["task", "timers", "--systemd", "--dir", dir.to_str().unwrap()]);
    let timer = fs::read_to_string(dir.join("cauldron-task-night.timer")).unwrap();
    assert!(timer.contains("OnCalendar=*-*-* 02:30:00 Europe/Berlin\nPersistent=true\n"), "{timer}");
    assert!(
        home.run(&["task", "create", "bad", "--schedule", "61 * * * *", "busybox"])
            .err
            .contains("x-task.schedule")
    );
}

const SHOP: &str = r#"
name: shop
services:
  database:
    image: busybox
    command: sh -c 'test -f /data/ready || exit 9; exec sleep 1000'
    labels: {role: database}
    expose: ["3306"]
    volumes: [dbdata:/data]
    depends_on: {init: {condition: service_completed_successfully}}
    stop_grace_period: 0s
  init:
    image: busybox
    command: sh -c 'echo line >> /data/ready; ${INIT:-true}'
    volumes: [dbdata:/data]
    secrets: [root]
    x-task: {once: dbdata}
  backup:
    image: busybox
    command: sh -c 'echo $$TARGET_NAME $$DB_PORT_3306_TCP_PORT; ping -c1 -w5 db >/dev/null && cat /run/secrets/root >/dev/null'
    secrets: [root]
    x-task:
      each: {service: database, link: db}
      schedule: "0 3 * * *"
      on_success: [prune]
  prune: {image: busybox, command: "true", x-task: {}}
volumes: {dbdata: {}}
secrets: {root: {file: ./secret}}
"#;

impl Home {
    fn shop(text: &str) -> Self {
        let home = home();
        fs::write(home.0.join("compose.yaml"), text).unwrap();
        fs::write(home.0.join("secret"), "hush-hush").unwrap();
        home
    }
    fn up(&self, init: &str) -> Run {
        Run::of(self.command(&["up", "-d"]).env("INIT", init).output().unwrap())
    }
    fn volume(&self, file: &str) -> String {
        fs::read_to_string(self.0.join("root/volumes/shop_dbdata/_data").join(file)).unwrap_or_default()
    }
    fn drafts(&self) -> usize {
        fs::read_dir(self.0.join("root/volumes")).map_or(0, |all| all.count().saturating_sub(1))
    }
}

#[test]
fn a_project_has_tasks_and_helpers() {
    let home = Home::shop(SHOP);
    let up = home.up("true");
    assert_eq!(up.code, 0, "{}", up.err);
    assert_eq!(home.volume("ready"), "line\n");
    let names = home.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!(names, "shop-database-1", "up starts no task");
    let run = home.run(&["task", "run", "backup"]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert_eq!(home.run(&["task", "logs", "backup"]).out, "shop-database-1 3306\n");
    assert_eq!(home.history("prune").len(), 1, "it follows");
    let entry = &home.history("backup")[0];
    assert_eq!((&entry["project"], &entry["target"]), (&"shop".into(), &"shop-database-1".into()));
    // Down and up again, restarted: the helper has run; a volume that is made again is a new one.
    home.ok(&["down"]);
    assert_eq!(home.up("true").code, 0);
    assert_eq!(home.volume("ready"), "line\n");
    home.ok(&["down", "-v"]);
    assert_eq!(home.up("true").code, 0);
    assert_eq!((home.volume("ready"), home.history("init").len()), ("line\n".to_owned(), 2));
    // Known elsewhere too, until it is taken down.
    let elsewhere = |args: &[&str]| home.command(args).current_dir("/").output().unwrap();
    let listed = elsewhere(&["task", "ls", "--format", "json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("\"task\":\"backup\""));
    assert!(elsewhere(&["task", "run", "shop/backup"]).status.success());
    // No secret is kept anywhere.
    home.ok(&["down", "-v"]);
    let found = Command::new("grep").args(["-rl", "hush-hush"]).arg(home.0.join("root")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert!(elsewhere(&["task", "ls", "--format", "json"]).stdout.is_empty());
}

#[test]
fn a_helper_that_fails_leaves_the_volume_as_it_was() {
    let home = Home::shop(SHOP);
    let failed = home.up("echo went wrong; exit 7");
    assert_ne!(failed.code, 0);
    for text in ["helper shop/init failed: exit code 7", "volume shop_dbdata is as it was", "went wrong"] {
        assert!(failed.err.contains(text), "{text}: {}", failed.err);
    }
    assert!(home.ok(&["ps", "-q"]).is_empty(), "the service does not start");
    assert_eq!((home.volume("ready"), home.drafts()), (String::new(), 0));
    // Killed half-way: the volume is as it was, and the next start runs the helper again.
    let mut up = home
        .command(&["up", "-d"])
        .env("INIT", "sleep 1000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the helper", || home.drafts() == 1 && !home.ok(&["ps", "-q"]).is_empty());
    up.kill().unwrap();
    up.wait().unwrap();
    assert_eq!(home.volume("ready"), "");
    let ok = home.up("true");
    assert_eq!((ok.code, home.volume("ready"), home.drafts()), (0, "line\n".to_owned(), 0), "{}", ok.err);
    assert_eq!(home.ok(&["helper", "status", "--format", "{{.helper}} {{.status}}"]), "init done");
}

/// Signals are the helper's as long as there is one, and end `up` afterwards.
#[test]
fn a_signal_ends_a_helper_and_what_waits_for_it() {
    let home = Home::shop(SHOP);
    let up = |init: &str| {
        let mut command = home.command(&["up", "-d"]);
        command.env("INIT", init).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let tell =
        |child: &Child| assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut first = up("sleep 1000");
    until("the helper", || home.drafts() == 1 && !home.ok(&["ps", "-q"]).is_empty());
    tell(&first);
    assert_eq!(first.wait().unwrap().code(), Some(1));
    assert_eq!((home.ok(&["ps", "-aq"]).lines().count(), home.drafts()), (1, 0), "only the service's own");
    let text = SHOP.replace(
        "  backup:",
        "  last: {image: busybox, command: 'true', depends_on: {database: {condition: service_healthy}}}\n  backup:",
    );
    let check = "    healthcheck: {test: 'false', interval: 1s, retries: 1000}\n    depends_on: {init:";
    let text = text.replacen("    depends_on: {init:", check, 1);
    assert_ne!(text, SHOP);
    fs::write(home.0.join("compose.yaml"), text).unwrap();
    let mut second = up("true");
    until("the service", || home.ok(&["ps", "--format", "{{.Names}}"]) == "shop-database-1");
    tell(&second);
    assert_eq!(second.wait().unwrap().code(), Some(143));
}

#[test]
fn a_task_whose_profile_is_off_gets_its_image() {
    let home = Home::shop(
        "name: shop\nservices:\n  rare:\n    build: {context: ., dockerfile_inline: FROM busybox}\n    command: echo done\n    profiles: [rare]\n    x-task: {}\n",
    );
    let run = home.run(&["task", "run", "rare"]);
    assert_eq!((run.code, run.out.as_str()), (0, "done\n"), "{}", run.err);
}

const BACKUP: &str = r#"
name: shop
services:
  db: {image: busybox, command: sleep 1000, stop_grace_period: 0s, labels: {role: database}}
  backup:
    image: busybox
    command: sh -c 'echo "dump of $$TARGET_NAME" > /backups/dump; ${MORE:-true}'
    x-task:
      each: {label: role=database, link: db}
      backup: {to: ./dumps, verify: verify, restore: restore, keep: {count: 2}}
  sealed:
    image: busybox
    command: sh -c 'mkdir -p /backups/deep && echo secret words > /backups/deep/dump'
    x-task:
      backup: {to: ./dumps, verify: look, restore: show, encrypt: {recipients_files: key.pub}}
  verify: {image: busybox, network_mode: none, command: grep -q dump /backups/dump, x-task: {}}
  restore: {image: busybox, command: "sh -c 'cat /backups/dump && ping -c1 -w5 db > /dev/null'", x-task: {}}
  look: {image: busybox, network_mode: none, command: grep -q words /backups/deep/dump, x-task: {}}
  show: {image: busybox, user: '65534', network_mode: none, command: cat /backups/deep/dump, x-task: {}}
"#;

#[test]
fn backups_are_whole_verified_and_never_too_few() {
    let home = Home::shop(BACKUP);
    home.ok(&["up", "-d"]);
    let backup =
        |more: &str| Run::of(home.command(&["task", "run", "backup"]).env("MORE", more).output().unwrap());
    let runs = || home.ok(&["task", "backups", "backup", "-q"]);
    let dir = home.0.join("dumps/shop/backup");
    let names = || -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let first = backup("true");
    assert_eq!(first.code, 0, "{}{}", first.out, first.err);
    let listed: Value =
        serde_json::from_str(&home.ok(&["task", "backups", "backup", "--format", "json"])).unwrap();
    assert_eq!((&listed["target"], &listed["files"][0]["name"]), (&"shop-db-1".into(), &"dump".into()));
    assert!(listed["verified"] != "no" && listed["encrypted"] == false, "{listed}");
    let oldest = runs();
    // One that fails its check, and one that leaves something else than files, are none; nothing is left of them.
    for (more, wrong) in [
        ("echo broken > /backups/dump", "the backup is not kept: shop/verify failed: exit code 1"),
        ("ln -s /etc/passwd /backups/link", "link is neither a file nor a directory"),
        ("rm /backups/dump", "the backup is not kept"),
        ("exit 3", ""),
    ] {
        let run = backup(more);
        assert!(run.code != 0 && run.out.contains(wrong), "{more}: {}{}", run.out, run.err);
        assert_eq!((runs(), names().len()), (oldest.clone(), 1), "{more}");
    }
    // Killed half-way: what it left goes with the next one.
    let mut killed = home.command(&["task", "run", "backup"]).env("MORE", "sleep 1000").spawn().unwrap();
    until("the dump", || {
        names().iter().any(|name| name.starts_with(".part-") && dir.join(name).join("data/dump").exists())
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    for _ in 0..2 {
        assert_eq!(backup("true").code, 0);
    }
    assert!(runs().lines().count() == 2 && !runs().contains(&oldest), "two stay");
    assert!(names().len() == 2 && names().iter().all(|name| !name.starts_with('.')), "{:?}", names());
    let dry = home.ok(&["task", "restore", "backup", "--dry-run"]);
    assert!(
        dry.starts_with("would restore ") && dry.ends_with("into shop-db-1 by task shop/restore"),
        "{dry}"
    );
    let count = home.history("restore").len();
    let restored = home.run(&["task", "restore", "backup"]);
    assert_eq!((restored.code, home.history("restore").len()), (0, count + 1), "{}", restored.err);
    assert_eq!(home.run(&["task", "logs", "restore"]).out, "dump of shop-db-1\n");
    for (args, wrong) in [
        (&["--run", "nothing"][..], "there is no such backup"),
        (&["--at", "2001-01-01T00:00:00Z"], "there is no such backup"),
        (&["--into", "nobody"], "no running container matches"),
    ] {
        let run = home.run(&[&["task", "restore", "backup"], args].concat());
        assert!(run.code != 0 && run.err.contains(wrong), "{args:?}: {}", run.err);
    }
    for name in names() {
        fs::write(dir.join(name).join("data/dump"), "something else").unwrap();
    }
    let changed = home.run(&["task", "restore", "backup"]);
    assert!(changed.code != 0 && changed.err.contains("is not as it was written"), "{}", changed.err);
}

#[test]
fn backups_are_encrypted() {
    let home = Home::shop(BACKUP);
    let key = Command::new("age-keygen").output().unwrap();
    fs::write(home.0.join("key"), &key.stdout).unwrap();
    let public = String::from_utf8(key.stdout).unwrap();
    let public = public.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    fs::write(home.0.join("key.pub"), public).unwrap();
    let run = home.run(&["task", "run", "sealed"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let listed: Value =
        serde_json::from_str(&home.ok(&["task", "backups", "sealed", "--format", "json"])).unwrap();
    assert_eq!((&listed["encrypted"], &listed["files"][0]["name"]), (&true.into(), &"deep/dump.age".into()));
    let found =
        Command::new("grep").args(["-rl", "secret words"]).arg(home.0.join("dumps")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert!(home.run(&["task", "restore", "sealed"]).err.contains("say which key decrypts it"));
    let restored = home.run(&["task", "restore", "sealed", "--identity", "key"]);
    assert_eq!((restored.code, restored.out.as_str()), (0, "secret words\n"), "{}", restored.err);
    assert_eq!(
        fs::read_dir(home.0.join("dumps/shop/sealed")).unwrap().count(),
        1,
        "nothing stays in the clear"
    );
    let without = Run::of(home.command(&["task", "run", "sealed"]).env("PATH", "/nowhere").output().unwrap());
    assert!(without.code != 0 && without.err.contains("apt-get install age"), "{}", without.err);
}

#[test]
fn two_starts_run_a_helper_once() {
    let home = Home::shop(SHOP);
    home.ok(&["volume", "create", "shop_dbdata"]);
    let mut helpers: Vec<Child> = (0..4).map(|_| home.spawn(&["helper", "run", "init"])).collect();
    assert!(helpers.iter_mut().all(|helper| helper.wait().unwrap().success()));
    assert_eq!((home.volume("ready"), home.history("init").len()), ("line\n".to_owned(), 1));
    home.ok(&["helper", "forget", "init"]);
    home.ok(&["helper", "run", "init"]);
    home.ok(&["helper", "rerun", "init"]);
    assert_eq!(home.volume("ready"), "line\nline\nline\n");
}

#[test]
fn migrations_run_in_order_each_once() {
    let migration = |number: u32, more: &str| {
        format!(
            "  m{number}:\n    image: busybox\n    command: sh -c 'echo {number} >> /data/log'\n    volumes: [dbdata:/data]\n    x-task: {{once: dbdata, version: {number}}}\n{more}"
        )
    };
    let file = |migrations: &str, last: u32| {
        format!(
            "name: shop\nservices:\n  server:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n    volumes: [dbdata:/data]\n    depends_on: {{m{last}: {{condition: service_completed_successfully}}}}\n{migrations}volumes: {{dbdata: {{}}}}\n"
        )
    };
    let two = migration(1, "") + &migration(2, "");
    let home = Home::shop(&file(&two, 2));
    assert_eq!(home.up("").code, 0);
    assert_eq!(home.volume("log"), "1\n2\n");
    home.ok(&["stop", "shop-server-1"]);
    fs::write(home.0.join("compose.yaml"), file(&(two + &migration(10, "")), 10)).unwrap();
    let up = home.up("");
    assert_eq!((up.code, home.volume("log")), (0, "1\n2\n10\n".to_owned()), "{}", up.err);
    home.ok(&["rm", "-f", "shop-server-1"]);
    fs::write(home.0.join("compose.yaml"), file(&migration(3, ""), 3)).unwrap();
    let late = home.up("");
    assert!(late.code != 0 && late.err.contains("is at version 10 already"), "{}", late.err);
}

#[test]
fn steps_before_a_service_run_once_for_a_volume() {
    let file = |second: &str, more: &str| {
        format!(
            r#"
name: shop
services:
  server:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    environment: {{OWN: "{more}"}}
    volumes: [dbdata:/data]
    pre_start:
      - {{command: "sh -c 'echo one >> /data/log'"}}
      - {{command: "sh -c '{second}'", user: '7', environment: {{WORD: two}}}}
      - {{command: "sh -c 'echo each >> /data/log'", x-once: false}}
volumes: {{dbdata: {{}}}}
"#
        )
    };
    let home = Home::shop(&file("echo no way; exit 3", ""));
    let wrong = home.up("");
    for text in
        ["helper shop/server.pre_start.2 failed: exit code 3", "volume shop_dbdata is as it was", "no way"]
    {
        assert!(wrong.err.contains(text), "{text}: {}", wrong.err);
    }
    assert_eq!((wrong.code, home.volume("log"), home.drafts()), (1, "one\n".to_owned(), 0));
    assert!(home.ok(&["ps", "-q"]).is_empty(), "the service does not start");
    let good = "echo $$WORD $$(id -u) > /tmp/x; cat /tmp/x";
    fs::write(home.0.join("compose.yaml"), file(good, "")).unwrap();
    let up = home.up("");
    assert_eq!((up.code, home.volume("log").as_str()), (0, "one\neach\n"), "{}", up.err);
    assert_eq!(home.run(&["task", "logs", "shop/server.pre_start.2"]).out, "two 7\n");
    let status = || home.ok(&["helper", "status", "--format", "{{.helper}} {{.status}}"]);
    assert_eq!(status(), "server.pre_start.1 done\nserver.pre_start.2 done");
    // Not for a new container, nor for what is the service's own; for a new volume.
    home.ok(&["down"]);
    fs::write(home.0.join("compose.yaml"), file(good, "changed")).unwrap();
    assert_eq!((home.up("").code, home.volume("log").as_str()), (0, "one\neach\neach\n"));
    home.ok(&["down"]);
    home.ok(&["helper", "rerun", "server.pre_start.1"]);
    assert_eq!(home.volume("log"), "one\neach\neach\none\n");
    assert!(home.run(&["helper", "forget", "server.pre_start.1"]).err.contains("server.pre_start"));
    home.ok(&["helper", "forget", "server.pre_start"]);
    assert_eq!(status(), "server.pre_start.1 not run\nserver.pre_start.2 not run");
    home.ok(&["down", "-v"]);
    assert_eq!((home.up("").code, home.volume("log").as_str()), (0, "one\neach\n"));
}

#[test]
fn errors_name_their_place() {
    let home = Home::shop(&SHOP.replace("schedule: \"0 3 * * *\"", "shedule: \"0 3 * * *\""));
    let run = home.run(&["task", "ls"]);
    assert!(
        run.code != 0
            && run.err.contains(
                "compose.yaml:24:7: services.backup.x-task.shedule: unknown key; did you mean schedule?"
            ),
        "{}",
        run.err
    );
}

#[test]
fn what_a_task_names_must_be_there() {
    let home = Home::shop(
        "services:\n  a:\n    image: busybox\n    command: 'true'\n    x-task:\n      on_success: [b]\n  b: {image: busybox}\n",
    );
    for args in [&["compose", "config"][..], &["up", "-d"], &["task", "run", "a"]] {
        let run = home.run(args);
        let want =
            "compose.yaml:6:7: services.a.x-task.on_success: no such task: b: the service has no x-task";
        assert!(run.code != 0 && run.err.contains(want), "{args:?}: {}", run.err);
    }
    home.ok(&["task", "create", "b", "busybox", "true"]);
    home.ok(&["task", "run", "a"]);
    assert_eq!(home.history("b").len(), 1);
    home.ok(&["task", "create", "often", "--schedule", "0 3 * * *", "busybox", "true"]);
    home.ok(&["task", "create", "later", "--schedule", "0 4 * * *", "busybox", "true"]);
    let listed = home.ok(&["task", "next", "-n", "3", "--format", "{{.task}} {{.slot}}"]);
    let rows: Vec<(&str, &str)> = listed.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(rows.len(), 3, "{listed}");
    assert!(rows.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].0 != pair[1].0), "{listed}");
    assert!(
        rows.iter().all(|(name, slot)| slot.ends_with(if *name == "often" {
            "T03:00:00Z"
        } else {
            "T04:00:00Z"
        })),
        "{listed}"
    );
}

#[test]
fn outcomes_are_told() {
    let home = home();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // One request: its head, and its body as JSON.
    let hooks = std::thread::spawn(move || {
        let one = || {
            use std::io::{BufRead as _, Read as _, Write as _};
            let (stream, _) = listener.accept().unwrap();
            let mut reader = std::io::BufReader::new(stream);
            let head: Vec<String> =
                reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let length = head
                .iter()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
            (head[0].clone(), serde_json::from_slice::<Value>(&body).unwrap())
        };
        [one(), one()]
    });
    fs::write(home.0.join("url"), format!("{address}/secret\n")).unwrap();
    let (file, told) = (home.0.join("url").display().to_string(), home.0.join("told").display().to_string());
    let failure = format!("{address}/failed");
    home.ok(&[
        "task",
        "create",
        "no",
        "--network",
        "none",
        "--webhook",
        &failure,
        "--notify-on",
        "failure",
        "busybox",
        "false",
    ]);
    let command = format!("cat > {told}");
    home.ok(&[
        "task",
        "create",
        "yes",
        "--network",
        "none",
        "--webhook-file",
        &file,
        "--notify-command",
        &command,
        "busybox",
        "true",
    ]);
    assert_eq!(home.run(&["task", "run", "no"]).code, 1);
    assert_eq!(home.run(&["task", "run", "yes"]).code, 0);
    let [failed, ok] = hooks.join().unwrap();
    assert!(failed.0.starts_with("POST /failed ") && ok.0.starts_with("POST /secret "), "{failed:?} {ok:?}");
    assert_eq!(
        (&failed.1["task"], &failed.1["status"], &failed.1["exit_code"]),
        (&"no".into(), &"failed".into(), &1.into())
    );
    assert_eq!(
        (&ok.1["task"], &ok.1["status"], &ok.1["exit_code"]),
        (&"yes".into(), &"ok".into(), &0.into())
    );
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(told).unwrap()).unwrap(), ok.1);
    // Nobody listens any more: that is said, and changes nothing. The address is no part of what is said.
    let run = home.run(&["task", "run", "yes"]);
    assert!(
        run.code == 0 && run.err.contains("WARNING: webhook") && !run.err.contains("secret"),
        "{}",
        run.err
    );
}

#[test]
fn an_installed_task_is_a_command() {
    let home = home();
    let dir = home.0.join("bin");
    let at = dir.to_str().unwrap();
    let script = "echo \"$@\"; cat; exit 5";
    home.ok(&["task", "create", "tool", "--network", "none", "busybox", "sh", "-c", script, "tool"]);
    home.ok(&["task", "install", "tool", "--dir", at]);
    let call = |args: &[&str]| {
        let mut child = Command::new(dir.join("tool"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"from stdin\n").unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(call(&["--flag", "a b", "-x"]), (Some(5), "--flag a b -x\nfrom stdin\n".to_owned()));
    // Its definition changes, and the command with it.
    home.ok(&["task", "create", "tool", "--replace", "--network", "none", "busybox", "echo", "new"]);
    assert_eq!(call(&["way"]), (Some(0), "new way\n".to_owned()));
    assert!(home.ok(&["ps", "-aq"]).is_empty());
    // A signal reaches it.
    home.ok(&[
        "task",
        "create",
        "tool",
        "--replace",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 9' TERM; while :; do sleep 0.1; done",
    ]);
    let mut child = Command::new(dir.join("tool")).stdin(Stdio::null()).spawn().unwrap();
    until("the container", || home.ok(&["ps", "-q"]).lines().count() == 1);
    let mut code = None;
    until("its end", || {
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        code = child.try_wait().unwrap().and_then(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(9));
    home.ok(&["task", "uninstall", "tool", "--dir", at]);
    assert!(!dir.join("tool").exists());
    fs::write(dir.join("tool"), "mine").unwrap();
    assert!(home.run(&["task", "install", "tool", "--dir", at]).err.contains("is not a launcher"));
}

#[test]
fn two_hundred_targets() {
    let home = Home::shop(
        "
x-none: &none {image: busybox, network_mode: none, init: false, stop_signal: SIGKILL}
services:
  t: {<<: *none, command: sleep 1000}
  many: {<<: *none, command: sh -c 'test $$TARGET_SERVICE = t', x-task: {each: {service: t}, parallel: 8}}
",
    );
    home.ok(&["compose", "up", "-d", "--scale", "t=200"]);
    let run = home.run(&["task", "run", "many", "--format", "json"]);
    assert_eq!((run.code, run.out.lines().count()), (0, 200), "{}", run.err);
    let entries = run.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let targets: std::collections::BTreeSet<String> = entries
        .inspect(|entry| assert_eq!(entry["status"], "ok"))
        .map(|entry| entry["target"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(targets.len(), 200);
    home.ok(&["compose", "down", "-t", "0"]);
}
