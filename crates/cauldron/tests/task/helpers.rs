//! Projects with tasks, helpers and backups.

use crate::home::{Home, Run};
use crate::{home, until};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};

pub const SHOP: &str = r#"
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
    pub fn shop(text: &str) -> Self {
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
