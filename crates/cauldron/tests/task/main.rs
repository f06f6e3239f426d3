//! Tasks as a person drives them: real containers, in a root of each test's own. Needs root, as the engine does.

#[path = "../busybox/mod.rs"]
mod busybox;
mod helpers;
#[path = "../home/mod.rs"]
mod home;

use helpers::SHOP;
use home::Home;
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
