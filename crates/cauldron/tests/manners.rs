//! Docker's manners that people and their scripts rely on, one table or small story each.

mod busybox;
mod driver;

use driver::Engine;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

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
    // Its monitor takes it away; a container that stays would keep the test here.
    while !engine.ok(&["ps", "-aq"]).is_empty() {}
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

#[test]
fn what_cannot_be_is_refused_in_docker_s_words() {
    let engine = Engine::new("refused");
    std::fs::write(engine.dir.join("blank"), "A B=1\n").unwrap();
    for (flags, code, text) in [
        (
            &["--device", "/dev/nope"][..],
            127,
            "adding custom device \"/dev/nope\": no such file or directory",
        ),
        (&["--device", "/dev/null:/dev/x:q"], 125, "bad mode specified: q"),
        (&["--mount", "type=bind,src=/nope-x,dst=/x"], 125, "bind source path does not exist: /nope-x"),
        (&["-v", "/tmp:/x:ro,rw"], 125, "invalid mode: ro,rw"),
        (&["-v", "a:b:c:d"], 125, "invalid volume specification: 'a:b:c:d'"),
        (&["--volumes-from", "nope:wat"], 125, "invalid mode: wat"),
        (&["--env-file", "blank"], 125, "invalid env file (blank): variable 'A B' contains whitespaces"),
        (&["-e", "=x"], 125, "invalid argument \"=x\" for \"-e, --env\" flag"),
        (&["-m", "abc"], 125, "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'"),
        (&["--memory-swappiness", "-2"], 125, "valid memory swappiness range is 0-100"),
        (&["--cpuset-cpus", "9-8"], 125, "Invalid value 9-8 for cpuset cpus"),
        (&["--cpuset-cpus", "4000"], 125, "Requested CPUs are not available - requested 4000"),
        (&["--cap-add", "nope"], 125, "unknown capability: \"CAP_NOPE\""),
        (&["--sysctl", "vm.swappiness=5"], 125, "sysctl 'vm.swappiness=5' is not allowed"),
        (&["--sysctl", "net.bogus=1"], 127, "no such file or directory"),
        (&["--isolation", "hyperv"], 125, "linux only supports 'default'"),
        (&["--runtime", "nope"], 125, "unknown or invalid runtime name: nope"),
        (&["--storage-opt", "size=1G"], 125, "supported only for overlay over xfs with 'pquota'"),
        (&["--gpus", "all"], 125, "could not select device driver"),
        (&["--platform", "linux/arm64", "--pull", "never"], 125, "does not match the specified platform"),
        (&["--platform", "a/b/c/d"], 125, "invalid platform"),
        (&["--dns", "x"], 125, "IP address is not correctly formatted: x"),
        (&["--ip", "x"], 125, "invalid IPv4 address: x"),
        (
            &["--network-alias", "a"],
            125,
            "network-scoped alias is supported only for containers in user defined networks",
        ),
        (&["--pid", "bogus"], 125, "--pid: invalid PID mode"),
        (&["--uts", "bogus"], 125, "--uts: invalid UTS mode"),
        (&["--userns", "bogus"], 125, "--userns: invalid USER mode"),
        (&["--cgroupns", "bogus"], 125, "--cgroupns: invalid CGROUP mode"),
        (&["--blkio-weight-device", "/dev/x:5"], 125, "invalid weight for device: /dev/x:5"),
        (&["--device-read-iops", "/dev/x:1mb"], 125, "invalid rate for device"),
        (&["--device-cgroup-rule", "bogus"], 125, "invalid device cgroup format 'bogus'"),
        (&["--ulimit", "nofile=1:2:3"], 125, "can only have up to two"),
        (&["--stop-timeout", "x"], 125, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (&["--health-interval", "-1s"], 125, "--health-interval cannot be negative"),
        (&["--rm=x"], 125, "invalid argument \"x\" for \"--rm\" flag: strconv.ParseBool"),
        (&["--cidfile", "/nope/cid"], 125, "failed to create the container ID file"),
    ] {
        let (got, words) = said(&engine, &[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        assert!(got == code && words.contains(text), "{flags:?}: {got}\n{words}");
        assert!(!words.contains("os error"), "{flags:?}: {words}");
    }
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    for (args, text) in [
        (&["ps", "x"][..], "'cauldron ps' accepts no arguments"),
        (&["cp", "a"], "'cauldron cp' requires 2 arguments"),
        (&["exec", "a"], "'cauldron exec' requires at least 2 arguments"),
        (&["network", "create"], "'cauldron network create' requires 1 argument"),
        (&["commit"], "'cauldron commit' requires at least 1 and at most 2 arguments"),
    ] {
        let (code, words) = said(&engine, args);
        assert!(code == 1 && words.contains(text), "{args:?}: {code}\n{words}");
    }
}

#[test]
fn what_docker_accepts_is_accepted() {
    let engine = Engine::new("accepted");
    for (flags, command, out) in [
        (&["--isolation", "default", "--runtime", "io.containerd.runc.v2"][..], "echo ok", "ok\n"),
        (&["--uts", "host", "--userns", "host"], "hostname | wc -l", "1\n"),
        (&["--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"], "echo ok", "ok\n"),
        (&["--cgroup-parent", "cauldron-parent"], "grep -c cauldron-parent /proc/1/cgroup || true", "0\n"),
        (&["--volume-driver", "local", "-v", "data:/d"], "ls -d /d", "/d\n"),
        (&["--device-cgroup-rule", "c 1:* rwm", "--ulimit", "core=-1"], "ulimit -c", "unlimited\n"),
        (&["--platform", "linux/amd64", "--annotation", "a=b", "--quiet"], "echo ok", "ok\n"),
        (&["--memory-swappiness", "-1", "--stop-timeout", "3"], "echo ok", "ok\n"),
        (&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status", "Cpus_allowed_list:\t0\n"),
        (&["--shm-size", "1m"], "df /dev/shm | tail -1 | cut -c1-4", "shm \n"),
        (&["--security-opt", "systempaths=unconfined"], "mount | grep -c '/proc/' || true", "0\n"),
    ] {
        let (got, words, code) = engine.container(&[flags, &["busybox", "sh", "-c", command]].concat());
        assert_eq!((got.as_str(), code), (out, 0), "{flags:?}: {words}");
    }
    // A parent belongs to whoever named it, and stays.
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join("cauldron-parent"));
    }
}

#[test]
fn log_entries_carry_labels_and_variables() {
    let engine = Engine::new("details");
    engine.ok(&[
        "run",
        "--network",
        "none",
        "--name",
        "said",
        "-l",
        "app=shop",
        "-l",
        "other=x",
        "-e",
        "TIER=1",
        "-e",
        "SIZE=2",
        "--log-opt",
        "labels=app",
        "--log-opt",
        "env-regex=^TI",
        "--log-opt",
        "tag={{.Name}}",
        "busybox",
        "echo",
        "hello",
    ]);
    assert_eq!(engine.ok(&["logs", "said"]), "hello\n");
    assert_eq!(engine.ok(&["logs", "--details", "said"]), "TIER=1,app=shop,tag=said hello\n");
}

#[test]
fn nothing_is_copied_where_the_container_cannot_write() {
    let engine = Engine::new("cp-ro");
    std::fs::write(engine.dir.join("file"), "x\n").unwrap();
    engine.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "ro",
        "--read-only",
        "-v",
        "data:/data",
        "-v",
        "data:/again:ro",
        "busybox",
        "sleep",
        "1000",
    ]);
    for state in ["running", "stopped"] {
        engine.ok(&["cp", "file", "ro:/data/"]);
        for (target, text) in [
            ("ro:/tmp/", "container rootfs is marked read-only"),
            ("ro:/again/", "mounted volume is marked read-only"),
        ] {
            let (code, words) = said(&engine, &["cp", "file", target]);
            assert!(code == 1 && words.contains(text), "{state} {target}: {words}");
        }
        engine.ok(&["cp", "ro:/data/file", "back"]);
        engine.ok(&["stop", "-t", "0", "ro"]);
    }
    engine.ok(&["rm", "-v", "ro"]);
}

#[test]
fn the_kernel_s_killer_is_told_of_at_once() {
    let engine = Engine::new("oom");
    engine.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "greedy",
        "-m",
        "8m",
        "--memory-swap",
        "8m",
        "busybox",
        "sh",
        "-c",
        "tail -c 100m /dev/zero; sleep 1000",
    ]);
    // Nothing else of this container's is started: the killer may take whatever runs in its cgroup.
    let name = "{{.Actor.Attributes.name}}";
    let mut events = engine
        .command(&["events", "--since", "1h", "--filter", "event=oom", "--format", name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    BufReader::new(events.stdout.take().unwrap()).read_line(&mut told).unwrap();
    events.kill().unwrap();
    events.wait().unwrap();
    assert_eq!(told, "greedy\n");
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Running}}", "greedy"]), "true\n");
}

#[test]
fn an_image_of_another_platform_is_not_the_one() {
    let engine = Engine::new("platform");
    let archive = engine.dir.join("saved.tar");
    let archive = archive.to_str().unwrap();
    for verb in [&["image", "inspect"][..], &["history"], &["save", "-o", archive], &["rmi"]] {
        let (code, err) = said(&engine, &[verb, &["--platform", "linux/arm64/v8", "busybox"]].concat());
        assert_eq!(code, 1, "{verb:?}: {err}");
        assert!(err.contains("does not match the specified platform (linux/arm64)"), "{verb:?}: {err}");
        assert!(!std::fs::exists(archive).unwrap(), "{verb:?}");
    }
    for platform in ["linux/amd64", "amd64", "linux/x86_64"] {
        engine.ok(&["history", "--platform", platform, "busybox"]);
        engine.ok(&["image", "inspect", "--platform", platform, "busybox"]);
    }
    engine.ok(&["save", "--platform", "linux/amd64", "-o", archive, "busybox"]);
    engine.ok(&["rmi", "--platform", "linux/amd64", "busybox"]);
}

#[test]
fn contexts_are_kept_where_docker_keeps_them() {
    let engine = Engine::new("context");
    let config = engine.dir.join("docker");
    let run = |args: &[&str]| {
        let output = engine.command(args).env("DOCKER_CONFIG", &config).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let ok = |args: &[&str]| {
        let (code, out, err) = run(args);
        assert_eq!(code, 0, "{args:?}: {err}");
        out
    };
    assert_eq!(ok(&["context", "show"]), "default\n");
    std::fs::write(engine.dir.join("ca.pem"), "x").unwrap();
    let docker = "host=tcp://198.51.100.1:2376,ca=ca.pem";
    assert_eq!(ok(&["context", "create", "far", "--docker", docker, "--description", "d"]), "far\n");
    assert_eq!(
        ok(&["context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}} {{.Current}}"]),
        "default  true\nfar tcp://198.51.100.1:2376 false\n"
    );
    assert_eq!(
        ok(&["context", "inspect", "far", "-f", "{{.Metadata.Description}} {{json .TLSMaterial}}"]),
        "d {\"docker\":[\"ca.pem\"]}\n"
    );
    // The real client reads the same files.
    let docker = std::process::Command::new("docker")
        .args(["context", "ls", "-q"])
        .env("DOCKER_CONFIG", &config)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(docker.stdout).unwrap(), "default\nfar\n");
    assert_eq!(ok(&["context", "create", "near", "--docker", "host=unix:///nope/socket"]), "near\n");
    assert_eq!(ok(&["context", "use", "near"]), "near\n");
    let (code, _, err) = run(&["ps"]);
    assert!(code == 1 && err.contains("/nope/socket"), "{err}");
    let (code, _, err) = run(&["context", "rm", "near"]);
    assert!(code == 1 && err.contains("is in use"), "{err}");
    assert_eq!(ok(&["-c", "default", "ps", "-q"]), "");
    assert_eq!(ok(&["context", "rm", "-f", "near", "far"]), "near\nfar\n");
    assert_eq!(ok(&["context", "show"]), "default\n");
    for args in
        [&["context", "use", "nope"][..], &["context", "create", "a b"], &["context", "rm", "default"]]
    {
        assert_eq!(run(args).0, 1, "{args:?}");
    }
}

#[test]
fn small_manners() {
    let engine = Engine::new("small");
    // What was to be gone is gone.
    let (code, words) = said(&engine, &["rm", "-f", "nope"]);
    assert!(code == 0 && words.contains("No such container: nope"), "{code} {words}");
    assert_eq!(engine.run(&["rm", "nope"]).status.code(), Some(1));
    engine.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "one",
        "-m",
        "16m",
        "--memory-swap",
        "32m",
        "--tmpfs",
        "/t",
        "--mount",
        "type=tmpfs,dst=/u",
        "-v",
        "data:/d",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(
        engine.ok(&[
            "inspect",
            "-f",
            "{{range .Mounts}}{{.Type}}:{{.Name}}:{{.Driver}}:{{.Destination}} {{end}}",
            "one"
        ]),
        "volume:data:local:/d tmpfs:::/u \n"
    );
    assert_eq!(
        engine.ok(&[
            "inspect",
            "-f",
            "{{if .State.Health}}h{{else}}none{{end}}{{.Config.StopTimeout}}",
            "one"
        ]),
        "none<nil>\n"
    );
    engine.ok(&[
        "create",
        "--network",
        "none",
        "--name",
        "two",
        "-v",
        "/tmp:/b:rw,z",
        "-v",
        "data:/v:ro",
        "--mount",
        "type=volume,src=data,dst=/w,readonly",
        "--mount",
        "type=volume,dst=/anonymous",
        "-v",
        "/plain",
        "busybox",
        "true",
    ]);
    assert_eq!(
        engine.ok(&[
            "inspect",
            "-f",
            "{{range .Mounts}}{{.Mode}}|{{.RW}} {{end}}{{json .Config.Volumes}}",
            "two"
        ]),
        "rw,z|true ro|false z|false z|true |true {\"/plain\":{}}\n"
    );
    engine.ok(&["rm", "-v", "two"]);
    let (code, words) = said(&engine, &["update", "-m", "64m", "one"]);
    assert!(
        code == 1 && words.contains("Memory limit should be smaller than already set memoryswap limit"),
        "{words}"
    );
    engine.ok(&["update", "-m", "64m", "--memory-swap", "128m", "one"]);
    let (code, words) = said(&engine, &["logs", "--since", "bogus", "one"]);
    assert!(
        code == 1 && words.contains("invalid value for \"since\": failed to parse value as time or duration"),
        "{words}"
    );
    engine.ok(&["rm", "-fv", "one"]);
}

#[test]
fn steps_of_a_build_name_images() {
    let engine = Engine::new("steps");
    let context = engine.dir.join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo hi\nCMD [\"x\"]\n").unwrap();
    let out = engine.ok(&["build", "--progress", "classic", "--network", "none", "context"]);
    let ids: Vec<&str> =
        out.lines().filter_map(|line| line.strip_prefix(" ---> ")).filter(|id| id.len() == 12).collect();
    let built = out.lines().find_map(|line| line.strip_prefix("Successfully built ")).unwrap();
    let base = engine.ok(&["images", "-q", "busybox"]);
    assert_eq!((ids.first(), ids.last()), (Some(&base.trim()), Some(&built)), "{out}");
    engine.ok(&["inspect", built]);
    std::fs::write(context.join("Dockerfile"), "FROM busybox\r\nRUN <<EOF\r\nls /bin/sh\r\nEOF\r\n").unwrap();
    let (code, words) = said(&engine, &["build", "--network", "none", "context"]);
    assert!(code == 1 && words.contains("Windows line ends (CRLF)"), "{words}");
}

#[test]
fn login_asks_on_a_terminal() {
    use std::io::Write as _;
    let engine = Engine::new("login");
    let program = env!("CARGO_BIN_EXE_cauldron");
    let mut child = std::process::Command::new("script")
        .args(["-qec", &format!("{program} login 127.0.0.1:1"), "/dev/null"])
        .env("CAULDRON_ROOT", engine.dir.join("root"))
        .env("CAULDRON_RUN_ROOT", engine.dir.join("run"))
        .env("DOCKER_CONFIG", engine.dir.join("docker"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"somebody\nsecret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // Nobody answers there; what matters is that it came so far.
    assert!(
        text.contains("Username: ") && text.contains("Password: ") && text.contains("127.0.0.1:1"),
        "{text}"
    );
    assert!(!output.status.success());
}
