//! Docker's manners that people and their scripts rely on, one table or small story each.

mod busybox;
mod driver;

use driver::Engine;

/// Exit code and stderr.
fn said(engine: &Engine, args: &[&str]) -> (i32, String) {
    let output = engine.run(args);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_container_with_rm_survives_a_restart() {
    let engine = Engine::new("rm-restart");
    engine.ok(&["run", "-d", "--rm", "--network", "none", "--name", "once", "busybox", "sleep", "1000"]);
    for _ in 0..3 {
        engine.ok(&["restart", "-t", "0", "once"]);
        assert_eq!(engine.ok(&["ps", "--format", "{{.Names}}"]), "once\n");
    }
    engine.ok(&["exec", "once", "touch", "/kept"]);
    engine.ok(&["restart", "-t", "0", "once"]);
    engine.ok(&["exec", "once", "ls", "/kept"]);
    engine.ok(&["kill", "once"]);
    engine.run(&["wait", "once"]);
    assert_eq!(engine.ok(&["ps", "-a", "--format", "{{.Names}}"]), "");
}

#[test]
fn links_follow_names_and_can_be_taken_away() {
    let engine = Engine::new("links");
    engine.ok(&["run", "-d", "--name", "db", "busybox", "sleep", "1000"]);
    engine.ok(&["run", "-d", "--name", "web", "--link", "db:database", "busybox", "sleep", "1000"]);
    let links = || engine.ok(&["inspect", "-f", "{{json .HostConfig.Links}}", "web"]);
    assert_eq!(links(), "[\"/db:/web/database\"]\n");
    engine.ok(&["rename", "db", "data"]);
    assert_eq!(links(), "[\"/data:/web/database\"]\n");
    engine.ok(&["exec", "web", "grep", "-q", "database", "/etc/hosts"]);
    engine.ok(&["restart", "-t", "0", "web"]);
    let (code, text) = said(&engine, &["rm", "--link", "web/nope"]);
    assert!(code == 1 && text.contains("No such link"), "{text}");
    assert_eq!(engine.ok(&["rm", "--link", "/web/database"]), "/web/database\n");
    assert_eq!(links(), "null\n");
    assert_eq!(engine.run(&["exec", "web", "grep", "-q", "database", "/etc/hosts"]).status.code(), Some(1));
    assert_eq!(engine.ok(&["ps", "-q"]).lines().count(), 2);
}

#[test]
fn a_new_name_reaches_the_neighbours() {
    let engine = Engine::new("rename");
    engine.ok(&["network", "create", "shared"]);
    engine.ok(&["run", "-d", "--name", "one", "--network", "shared", "busybox", "sleep", "1000"]);
    engine.ok(&["run", "-d", "--name", "two", "--network", "shared", "busybox", "sleep", "1000"]);
    engine.ok(&["exec", "two", "ping", "-c", "1", "one"]);
    engine.ok(&["rename", "one", "first"]);
    engine.ok(&["exec", "two", "ping", "-c", "1", "first"]);
}

#[test]
fn export_shows_a_running_container_without_what_is_mounted() {
    let engine = Engine::new("export");
    engine.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "up",
        "-v",
        "data:/data",
        "--tmpfs",
        "/scratch",
        "busybox",
        "sh",
        "-c",
        "echo new > /new; echo x > /data/inside; touch /scratch/inside; rm /etc/removed; sleep 1000",
    ]);
    // The command has done its writing when this sees the last of it.
    engine.ok(&["exec", "up", "sh", "-c", "until test -e /scratch/inside; do :; done"]);
    engine.ok(&["export", "-o", "up.tar", "up"]);
    let list = std::process::Command::new("tar").arg("-tf").arg(engine.dir.join("up.tar")).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let has = |name: &str| list.lines().any(|line| line.trim_end_matches('/') == name);
    assert!(has("new") && has("data") && has("scratch") && has("bin/busybox"), "{list}");
    assert!(!has("data/inside") && !has("scratch/inside") && !has("proc/self"), "{list}");
    let changes = engine.ok(&["diff", "up"]);
    let changes: Vec<&str> = changes.lines().collect();
    assert_eq!(changes, ["A /data", "A /new", "A /scratch"]);
    engine.ok(&["rm", "-fv", "up"]);
}

#[test]
fn names_are_filtered_by_regular_expressions() {
    let engine = Engine::new("regex");
    for name in ["aa1", "ab2", "b3"] {
        engine.ok(&["create", "--name", name, "--network", "none", "busybox", "true"]);
        engine.ok(&["volume", "create", name]);
    }
    for (pattern, found) in [
        ("a.1", "aa1"),
        ("^a", "aa1 ab2"),
        ("(aa|b3)", "aa1 b3"),
        ("^/b", "b3"),
        ("[12]$", "aa1 ab2"),
        ("A", ""),
    ] {
        let filter = format!("name={pattern}");
        let list = engine.ok(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        let mut list: Vec<&str> = list.lines().collect();
        list.sort_unstable();
        assert_eq!(list.join(" "), found, "{pattern}");
    }
    assert_eq!(engine.ok(&["volume", "ls", "-q", "--filter", "name=^a.1$"]), "aa1\n");
}
