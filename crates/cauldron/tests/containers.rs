//! Containers as a person drives them: real ones, in a root of each test's own, on an image made of Debian's static
//! busybox. Needs root, as the engine does.

mod busybox;
mod home;

use home::Home;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `busybox:latest` has a passwd and a file in /data.
fn home() -> Home {
    Home::new("containers", |root| {
        fs::create_dir_all(root.join("data")).unwrap();
        fs::create_dir_all(root.join("home/app")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n").unwrap();
        fs::write(root.join("data/seed"), "from the image\n").unwrap();
    })
}

impl Home {
    /// What a shell in a fresh container without network prints.
    fn sh(&self, options: &[&str], script: &str) -> String {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", script]);
        self.ok(&args)
    }
    fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "-f", field, name])
    }
    fn containers(&self) -> usize {
        fs::read_dir(self.0.join("root/containers")).map_or(0, Iterator::count)
    }
}

#[test]
fn exit_codes_are_dockers() {
    let home = home();
    for (args, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let mut all = vec!["run", "--rm", "--network", "none", "busybox"];
        all.extend(args);
        let run = home.run(&all);
        assert_eq!(run.code, code, "{args:?}: {}", run.err);
    }
    assert_eq!(home.run(&["run", "--rm", "--no-such-flag", "busybox", "true"]).code, 125);
    assert_eq!(home.containers(), 0, "--rm leaves nothing");
    assert_eq!(fs::read_dir(home.0.join("root/names")).unwrap().count(), 0);
}

#[test]
fn names_conflict_and_are_freed() {
    let home = home();
    let id = home.ok(&["create", "--name", "web", "--network", "none", "busybox", "true"]);
    let second = home.run(&["create", "--name", "web", "--network", "none", "busybox", "true"]);
    assert!(
        second.err.contains(&format!(
            "Conflict. The container name \"/web\" is already in use by container \"{id}\""
        )),
        "{}",
        second.err
    );
    home.ok(&["rename", "web", "other"]);
    assert_eq!(home.inspect("other", "{{.Name}}"), "/other");
    assert_eq!(home.inspect(&id[..6], "{{.Id}}"), id);
    assert!(home.run(&["inspect", "web"]).code != 0);
    home.ok(&["create", "--name", "web", "--network", "none", "busybox", "true"]);
    assert_eq!(home.ok(&["rm", "web", "other"]), "web\nother");
    assert_eq!(home.containers(), 0);
}

#[test]
fn the_life_of_a_container() {
    let home = home();
    let id = home.ok(&["run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000"]);
    assert_eq!(home.inspect("one", "{{.State.Status}} {{.State.Running}}"), "running true");
    let refused = home.run(&["rm", "one"]);
    assert!(
        refused.err.contains("cannot remove container \"/one\": container is running: stop the container before removing or force remove"),
        "{}",
        refused.err
    );
    home.ok(&["pause", "one"]);
    assert_eq!(home.inspect("one", "{{.State.Status}}"), "paused");
    home.ok(&["unpause", "one"]);
    assert_eq!(home.ok(&["stop", "one"]), "one");
    assert_eq!(home.inspect("one", "{{.State.Status}}"), "exited");
    home.ok(&["start", "one"]);
    home.ok(&["restart", "-t", "1", "one"]);
    assert_eq!(home.inspect("one", "{{.State.Status}}"), "running");
    home.ok(&["kill", "one"]);
    assert_eq!(home.ok(&["wait", "one"]), "137");
    assert_eq!(home.inspect("one", "{{.State.ExitCode}}"), "137");
    assert_eq!(home.ok(&["rm", "one"]), "one");
    assert!(!home.0.join("run/containers").join(&id).exists(), "the run directory goes too");
}

#[test]
fn a_killed_monitor_is_an_exit() {
    let home = home();
    let id = home.ok(&["run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000"]);
    let live = fs::read_to_string(home.0.join("run/containers").join(&id).join("live.json")).unwrap();
    let field = |name: &str| -> i32 {
        let at = live.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
        live[at..].split([',', '}']).next().unwrap().trim().parse().unwrap()
    };
    let init = PathBuf::from(format!("/proc/{}", field("pid")));
    let before = fs::read(init.join("stat")).unwrap();
    assert!(Command::new("kill").args(["-9", &field("monitor_pid").to_string()]).status().unwrap().success());
    assert_eq!(home.ok(&["wait", "one"]), "137");
    assert_eq!(home.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let same = fs::read(init.join("stat")).is_ok_and(|now| now == before);
    assert!(!same, "the process died with its monitor");
    home.ok(&["start", "one"]);
    assert_eq!(home.inspect("one", "{{.State.Status}}"), "running");
}

#[test]
fn dockers_default_isolation() {
    let home = home();
    assert_eq!(
        home.sh(&[], "grep -i capeff /proc/self/status | tr -d '[:space:]'"),
        "CapEff:00000000a80425fb"
    );
    assert_eq!(
        home.sh(&[], "grep -i capinh /proc/self/status | tr -d '[:space:]'"),
        "CapInh:0000000000000000"
    );
    assert_eq!(home.sh(&[], "grep Seccomp: /proc/self/status | tr -d '[:space:]'"), "Seccomp:2");
    assert_eq!(
        home.sh(&["--privileged"], "grep Seccomp: /proc/self/status | tr -d '[:space:]'"),
        "Seccomp:0"
    );
    assert_eq!(
        home.sh(&["--cap-drop", "ALL"], "grep CapEff /proc/self/status | tr -d '[:space:]'"),
        "CapEff:0000000000000000"
    );
    assert_eq!(home.sh(&[], "echo x > /proc/sys/kernel/hostname 2>/dev/null || echo refused"), "refused");
    assert_eq!(home.sh(&[], "head -c 1 /proc/kcore | wc -c"), "0");
    assert_eq!(home.sh(&["--read-only"], "touch /x 2>/dev/null || echo refused"), "refused");
    assert_eq!(home.sh(&["--read-only", "--tmpfs", "/run"], "touch /run/x && echo made"), "made");
    assert_eq!(home.sh(&["--hostname", "box"], "hostname; cat /etc/hostname"), "box\nbox");
    assert_eq!(home.sh(&["--shm-size", "8m"], "df -k /dev/shm | awk 'NR==2{print $2}'"), "8192");
    assert_eq!(home.sh(&["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(home.sh(&["--ulimit", "nofile=100:200"], "ulimit -n"), "100");
}

/// A container that runs containers gives its controllers to groups below its own: then its own group takes no process.
#[test]
fn a_container_that_divides_its_cgroup_takes_execs() {
    let home = home();
    home.ok(&["run", "-d", "--name", "box", "--privileged", "--network", "none", "busybox", "sleep", "1000"]);
    let divide = "cd /sys/fs/cgroup; if [ -d unified ]; then cd unified; fi; mkdir leaf
        for pid in $(cat cgroup.procs); do echo $pid > leaf/cgroup.procs || true; done
        for name in $(cat cgroup.controllers); do echo +$name > cgroup.subtree_control; done";
    home.ok(&["exec", "box", "sh", "-c", divide]);
    assert_eq!(home.ok(&["exec", "box", "grep", "^0::", "/proc/1/cgroup"]), "0::/leaf");
    let own = home.ok(&["exec", "box", "grep", "^0::", "/proc/self/cgroup"]);
    assert!(["0::/leaf", "0::/"].contains(&own.as_str()), "{own}");
}

#[test]
fn environment_user_and_directory() {
    let home = home();
    assert_eq!(
        home.sh(&["-e", "A=1"], "echo $A $PATH $HOME"),
        "1 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /root"
    );
    assert_eq!(home.sh(&["-u", "app"], "id -u; id -g; echo $HOME"), "1000\n1000\n/home/app");
    assert_eq!(home.sh(&["-u", "5:6", "--group-add", "7"], "id -u; id -G"), "5\n6 7");
    assert_eq!(home.sh(&["-w", "/new/dir"], "pwd"), "/new/dir");
    let id = home.ok(&["create", "--network", "none", "--env", "A=b", "--label", "l=m", "busybox", "true"]);
    assert_eq!(home.inspect(&id, "{{.Config.Hostname}}"), id[..12]);
    assert_eq!(home.inspect(&id, "{{index .Config.Labels \"l\"}}"), "m");
}

#[test]
fn volumes_and_binds() {
    let home = home();
    let host = home.0.join("shared");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "hello\n").unwrap();
    let bind = format!("{}:/mnt", host.display());
    assert_eq!(home.sh(&["-v", &bind], "cat /mnt/file; echo more > /mnt/new"), "hello");
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "more\n");
    assert_eq!(
        home.sh(&["-v", &format!("{bind}:ro")], "touch /mnt/x 2>/dev/null || echo refused"),
        "refused"
    );
    let one = format!("{}:/etc/passwd", host.join("file").display());
    assert_eq!(home.sh(&["-v", &one], "cat /etc/passwd"), "hello");
    // A missing source is made for -v and refused for --mount.
    let made = home.0.join("made/deep");
    home.sh(&["-v", &format!("{}:/mnt", made.display())], "true");
    assert!(made.is_dir());
    let missing = format!("type=bind,src={},dst=/mnt", home.0.join("nothing").display());
    let run = home.run(&["run", "--rm", "--network", "none", "--mount", &missing, "busybox", "true"]);
    assert_eq!(run.code, 125);
    assert!(run.err.contains("bind source path does not exist"), "{}", run.err);
    // What the image has at the target goes into a new volume.
    assert_eq!(home.sh(&["-v", "vol:/data"], "cat /data/seed; echo mine > /data/seed"), "from the image");
    assert_eq!(home.sh(&["-v", "vol:/data"], "cat /data/seed"), "mine");
    assert_eq!(home.sh(&["-v", "empty:/data:nocopy"], "ls /data"), "");
    // Anonymous ones go with --rm.
    home.sh(&["-v", "/data"], "true");
    assert_eq!(
        fs::read_dir(home.0.join("root/volumes"))
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().len() == 64)
            .count(),
        0
    );
    // --volumes-from, read-only where asked.
    home.ok(&["create", "--name", "owner", "--network", "none", "-v", "vol:/data", "busybox", "true"]);
    assert_eq!(home.sh(&["--volumes-from", "owner"], "cat /data/seed"), "mine");
    assert_eq!(
        home.sh(&["--volumes-from", "owner:ro"], "touch /data/x 2>/dev/null || echo refused"),
        "refused"
    );
}

#[test]
fn the_hosts_mounts_are_shown() {
    let home = home();
    let seen = home.sh(&["-v", "/proc/mounts:/srv/mounts:ro"], "cat /srv/mounts");
    let host = fs::read_to_string("/proc/1/mounts").unwrap();
    let root = host.lines().find(|line| line.split(' ').nth(1) == Some("/")).unwrap();
    assert!(seen.lines().any(|line| line == root), "{seen}");
}

#[test]
fn restart_policies() {
    let home = home();
    home.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "none",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "exit 3",
    ]);
    // A wait is over at the next exit, not at the last one.
    assert_eq!(home.ok(&["wait", "one"]), "3");
    while home.inspect("one", "{{.State.Status}}") != "exited" {
        assert_eq!(home.ok(&["wait", "one"]), "3");
    }
    assert_eq!(home.inspect("one", "{{.RestartCount}}"), "2");
    home.ok(&[
        "run",
        "-d",
        "--name",
        "two",
        "--network",
        "none",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ]);
    home.ok(&["stop", "-t", "0", "two"]);
    assert_eq!(home.inspect("two", "{{.State.Status}}"), "exited");
    // A start takes the stop back, and an update holds for the running container.
    let count = home.0.join("count");
    fs::create_dir(&count).unwrap();
    let bind = format!("{}:/count", count.display());
    let script = "echo x >> /count/runs; sleep 1; exit 3";
    home.ok(&[
        "run",
        "-d",
        "--name",
        "three",
        "--network",
        "none",
        "-v",
        &bind,
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    home.ok(&["update", "--restart", "no", "three"]);
    assert_eq!(home.ok(&["wait", "three"]), "3");
    assert_eq!(fs::read_to_string(count.join("runs")).unwrap(), "x\n");
}

#[test]
fn inspect_repeats_what_was_asked() {
    let home = home();
    let id = home.ok(&[
        "create",
        "--network",
        "none",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "10",
        "--cap-add",
        "NET_ADMIN",
        "--restart",
        "on-failure:3",
        "-v",
        "/tmp:/mnt:ro",
        "--tmpfs",
        "/run:size=1m",
        "--stop-signal",
        "SIGINT",
        "busybox",
        "sh",
        "-c",
        "echo hi",
    ]);
    for (field, text) in [
        ("{{.HostConfig.Memory}}", "67108864"),
        ("{{.HostConfig.NanoCpus}}", "500000000"),
        ("{{.HostConfig.PidsLimit}}", "10"),
        ("{{json .HostConfig.CapAdd}}", "[\"CAP_NET_ADMIN\"]"),
        (
            "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
            "on-failure 3",
        ),
        ("{{json .HostConfig.Binds}}", "[\"/tmp:/mnt:ro\"]"),
        ("{{.HostConfig.NetworkMode}}", "none"),
        ("{{.Config.StopSignal}}", "SIGINT"),
        ("{{.Path}} {{json .Args}}", "sh [\"-c\",\"echo hi\"]"),
        ("{{.State.Status}}", "created"),
        ("{{len .Mounts}}", "1"),
    ] {
        assert_eq!(home.inspect(&id, field), text, "{field}");
    }
    home.ok(&["update", "-m", "128m", "--memory-swap", "256m", "--restart", "no", &id]);
    assert_eq!(
        home.inspect(&id, "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}"),
        "134217728 no"
    );
}

#[test]
fn namespaces_are_shared_where_asked() {
    let home = home();
    home.ok(&[
        "run",
        "-d",
        "--name",
        "aa",
        "--network",
        "none",
        "--ipc",
        "shareable",
        "busybox",
        "sleep",
        "1000",
    ]);
    let link = |options: &[&str], what: &str| {
        let mut args = vec!["run", "--rm"];
        args.extend(options);
        args.extend(["busybox", "readlink", what]);
        home.ok(&args)
    };
    let of_a = |what: &str| home.ok(&["exec", "aa", "readlink", what]);
    assert_eq!(link(&["--network", "container:aa"], "/proc/self/ns/net"), of_a("/proc/self/ns/net"));
    assert_eq!(
        link(&["--network", "none", "--pid", "container:aa"], "/proc/self/ns/pid"),
        of_a("/proc/self/ns/pid")
    );
    assert_eq!(
        link(&["--network", "none", "--ipc", "container:aa"], "/proc/self/ns/ipc"),
        of_a("/proc/self/ns/ipc")
    );
    home.ok(&["exec", "aa", "sh", "-c", "echo shared > /dev/shm/x"]);
    assert_eq!(home.sh(&["--ipc", "container:aa"], "cat /dev/shm/x"), "shared");
    let host = |what: &str| {
        fs::read_link(Path::new("/proc/self/ns").join(what)).unwrap().to_string_lossy().into_owned()
    };
    assert_eq!(link(&["--network", "host"], "/proc/self/ns/net"), host("net"));
    assert_eq!(link(&["--network", "none", "--ipc", "host"], "/proc/self/ns/ipc"), host("ipc"));
    assert_eq!(link(&["--network", "none", "--uts", "host"], "/proc/self/ns/uts"), host("uts"));
}

#[test]
fn lists_and_prunes() {
    let home = home();
    home.ok(&[
        "run",
        "-d",
        "--name",
        "up",
        "--network",
        "none",
        "--label",
        "k=v",
        "busybox",
        "sleep",
        "1000",
    ]);
    home.ok(&["run", "--name", "down", "--network", "none", "busybox", "true"]);
    let names = |filter: &[&str]| {
        let mut args = vec!["ps", "--format", "{{.Names}}"];
        args.extend(filter);
        let mut names: Vec<String> = home.ok(&args).lines().map(str::to_owned).collect();
        names.sort();
        names.join(",")
    };
    assert_eq!(names(&[]), "up");
    assert_eq!(names(&["-a"]), "down,up");
    assert_eq!(names(&["-a", "--filter", "status=exited"]), "down");
    assert_eq!(names(&["--filter", "exited=0"]), "down");
    assert_eq!(names(&["--filter", "label=k=v"]), "up");
    assert_eq!(names(&["-a", "--filter", "name=^/up$"]), "up");
    assert_eq!(names(&["-a", "--filter", "ancestor=busybox"]), "down,up");
    assert_eq!(names(&["-n", "1"]), "down");
    home.ok(&["container", "prune", "-f"]);
    assert_eq!(names(&["-a"]), "up");
}

#[test]
fn links_ports_and_networks() {
    let home = home();
    let serve = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";
    home.ok(&[
        "run",
        "-d",
        "--name",
        "db",
        "--expose",
        "3306",
        "-p",
        "127.0.0.1::80",
        "-e",
        "PASS=x",
        "busybox",
        "sh",
        "-c",
        serve,
    ]);
    let port = home.ok(&["port", "db", "80/tcp"]);
    // The server inside opens its port in its own time.
    let fetched = (0..100).find_map(|_| {
        let fetch =
            ["run", "--rm", "--network", "host", "busybox", "wget", "-q", "-O-", &format!("http://{port}/")];
        let run = home.run(&fetch);
        (run.code == 0).then_some(run.out)
    });
    assert_eq!(fetched.as_deref(), Some("served\n"));
    let script = "env | grep ^DATABASE_ | sort; grep database /etc/hosts; wget -q -O- http://database";
    let seen =
        home.ok(&["run", "--rm", "--name", "web", "--link", "db:database", "busybox", "sh", "-c", script]);
    let address = home.inspect("db", "{{.NetworkSettings.IPAddress}}");
    let id = home.inspect("db", "{{.Id}}");
    for line in [
        "DATABASE_ENV_PASS=x".to_owned(),
        "DATABASE_NAME=/web/database".to_owned(),
        format!("DATABASE_PORT=tcp://{address}:80"),
        format!("DATABASE_PORT_3306_TCP_ADDR={address}"),
        format!("{address}\tdatabase {} db", &id[..12]),
        "served".to_owned(),
    ] {
        assert!(seen.lines().any(|have| have == line), "{line} in\n{seen}");
    }
    assert_eq!(
        home.ok(&[
            "run",
            "--rm",
            "--network",
            "container:db",
            "busybox",
            "wget",
            "-q",
            "-O-",
            "http://127.0.0.1"
        ]),
        "served"
    );
    // Names and aliases on a network of the user's own.
    home.ok(&["network", "create", "mine"]);
    home.ok(&[
        "run",
        "-d",
        "--name",
        "srv",
        "--network",
        "mine",
        "--network-alias",
        "alias",
        "busybox",
        "sh",
        "-c",
        serve,
    ]);
    let script = "ping -c 1 -W 5 srv >/dev/null && ping -c 1 -W 5 alias > /dev/null && echo reached";
    assert_eq!(home.ok(&["run", "--rm", "--network", "mine", "busybox", "sh", "-c", script]), "reached");
    home.ok(&["rm", "-f", "srv", "db"]);
    home.ok(&["network", "rm", "mine"]);
}

#[test]
fn force_forgives_a_network_that_is_gone_and_nothing_else() {
    let home = home();
    home.ok(&["network", "create", "used"]);
    home.ok(&["run", "-d", "--name", "member", "--network", "used", "busybox", "sleep", "600"]);
    let run = home.run(&["network", "rm", "-f", "used"]);
    assert!(run.code == 1 && run.err.contains("has active endpoints"), "{} {}", run.code, run.err);
    let run = home.run(&["network", "rm", "-f", "missing"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""));
    home.ok(&["rm", "-f", "member"]);
    home.ok(&["network", "rm", "used"]);
    assert_eq!(home.run(&["network", "rm", "used"]).code, 1);
}
