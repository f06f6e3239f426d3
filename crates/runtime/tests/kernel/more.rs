//! What happens to a container.

use super::fixture::*;
use model::bundle::LogTarget;
use model::container::{Lifecycle, RestartPolicy, Ulimit};
use runtime::{Attached, Changed, Streams};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::time::Duration;

/// Name and test.
pub const ALL: &[(&str, fn())] = &[
    ("execs", execs),
    ("exec_terminal", exec_terminal),
    ("exec_failures", exec_failures),
    ("users_and_groups", users_and_groups),
    ("isolation", isolation),
    ("mounts_of_the_users", mounts_of_the_users),
    ("links_lead_nowhere_else", links_lead_nowhere_else),
    ("no_descriptor_leaks", no_descriptor_leaks),
    ("reaper_forwards_and_reaps", reaper_forwards_and_reaps),
    ("limits", limits),
    ("memory_and_oom", memory_and_oom),
    ("pids_limit", pids_limit),
    ("pause_and_kill", pause_and_kill),
    ("restart_policy", restart_policy),
    ("stop_in_back_off", stop_in_back_off),
    ("log_rotation", log_rotation),
    ("called_off", called_off),
    ("monitor_killed", monitor_killed),
    ("health", health),
    ("update_and_usage", update_and_usage),
    ("sysctl_and_hostname", sysctl_and_hostname),
    ("launcher_killed", launcher_killed),
    ("attach_to_a_running_one", attach_to_a_running_one),
    ("slow_clients_lose_nothing", slow_clients_lose_nothing),
    ("shared_namespaces", shared_namespaces),
    ("change", change),
    ("read_only_root", read_only_root),
    ("devices", devices),
    ("seccomp_profiles", seccomp_profiles),
];

/// A running container whose process has said that it is ready.
struct Running {
    container: Box_,
    live: model::state::Live,
    reader: BufReader<std::os::unix::net::UnixStream>,
}

fn running(container: Box_) -> Running {
    let Attached::WhenStarted(listener) = container.attach(OUT) else { panic!("it runs already") };
    let live = container.start().unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let mut header = [0; 8];
    reader.read_exact(&mut header).unwrap();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Running { container, live, reader }
}

fn wait_for_end(running: &mut Running) {
    running.reader.read_to_end(&mut Vec::new()).unwrap();
    assert!(runtime::wait_exit(&running.live, None).unwrap());
}

const FOREVER: &str = "echo ready; while :; do sleep 1000; done";

fn execs() {
    let running = running(Box_::sh(FOREVER));
    let container = &running.container;
    let output = read(
        container.exec("one", |_| (), &["sh", "-c", "echo out; echo err >&2; exit 5"], OUT).unwrap(),
        false,
    );
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let state = runtime::exec_state(container.run_dir(), "one").unwrap();
    assert_eq!((state.running, state.exit_code), (false, Some(5)));
    let mut stream = container.exec("two", |_| (), &["cat"], WITH_STDIN).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read(stream, false).stdout, "hello");
    // Same cgroups, same capabilities, same filter, and the container's pid namespace.
    let script = "cat /proc/self/cgroup; grep -E 'Cap(Inh|Eff)|Seccomp:' /proc/self/status; ls /proc/1/cmdline; readlink /proc/self/ns/net; readlink /proc/1/ns/net";
    let output = read(container.exec("three", |_| (), &["sh", "-c", script], OUT).unwrap(), false);
    assert!(
        output.stdout.contains("CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n"),
        "{output:?}"
    );
    assert!(
        output
            .stdout
            .lines()
            .filter(|line| line.as_bytes()[0].is_ascii_digit())
            .all(|line| line.ends_with(":/")),
        "{output:?}"
    );
    let namespaces: Vec<&str> = output.stdout.lines().filter(|line| line.starts_with("net:")).collect();
    assert!(namespaces.len() == 2 && namespaces[0] == namespaces[1], "{output:?}");
    // A child in the background does not keep the stream.
    let output =
        read(container.exec("four", |_| (), &["sh", "-c", "sleep 1000 & echo done"], OUT).unwrap(), false);
    assert_eq!(output.stdout, "done\n");
}

fn exec_terminal() {
    let running = running(Box_::sh(FOREVER));
    let tty = |process: &mut model::bundle::Process| {
        process.tty = true;
        process.console_size = Some((10, 20));
    };
    let mut stream = running
        .container
        .exec("tty", tty, &["sh", "-c", "stty size; read x; stty size; echo got $x"], WITH_STDIN)
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"10 20\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    runtime::resize(running.container.run_dir(), Some("tty"), 30, 40).unwrap();
    stream.write_all(b"word\n").unwrap();
    let output = read(stream, true);
    assert!(output.stdout.contains("30 40\r\n") && output.stdout.contains("got word\r\n"), "{output:?}");
    runtime::resize(running.container.run_dir(), None, 1, 1).unwrap();
}

fn exec_failures() {
    let running = running(Box_::sh(FOREVER));
    let container = &running.container;
    let error = container.exec("a", |_| (), &["nope"], OUT).unwrap_err();
    assert_eq!(error.to_string(), "exec: \"nope\": executable file not found in $PATH");
    assert_eq!(runtime::exec_state(container.run_dir(), "a").unwrap().exit_code, Some(127));
    let error = container.exec("b", |process| process.cwd = "/nope".into(), &["true"], OUT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory"
    );
    let error = container.exec("c", |process| process.user = "nobody".into(), &["true"], OUT).unwrap_err();
    assert_eq!(error.to_string(), "unable to find user nobody: no matching entries in passwd file");
    let error = container.exec("../x", |_| (), &["true"], OUT).unwrap_err();
    assert_eq!(error.kind(), model::Kind::NotFound);
}

fn users_and_groups() {
    let user = |user: &str, groups: &[&str]| {
        let output = Box_::sh(
            "id -u; id -g; id -G; echo $HOME; pwd; echo ok >/dev/stdout; grep CapEff /proc/self/status",
        )
        .with(|bundle| {
            bundle.process.user = user.into();
            bundle.process.additional_groups = groups.iter().map(|name| (*name).to_owned()).collect();
            bundle.process.cwd = "/made/here".into();
        })
        .run();
        assert_eq!((output.stderr.as_str(), output.code), ("", 0));
        output.stdout
    };
    assert_eq!(
        user("app", &["7"]),
        "1000\n100\n100 7 29\n/home/app\n/made/here\nok\nCapEff:\t0000000000000000\n"
    );
    assert_eq!(user("", &[]), "0\n0\n0\n/root\n/made/here\nok\nCapEff:\t00000000a80425fb\n");
    assert_eq!(user("55:66", &[]), "55\n66\n66\n/\n/made/here\nok\nCapEff:\t0000000000000000\n");
}

fn isolation() {
    let script = "echo $$; hostname; umask; ls /proc | grep -c '^[0-9]'; ls -A /sys/firmware | wc -l; cat /proc/kcore | wc -c; \
        touch /proc/sys/kernel/domainname 2>&1; echo 1 >/proc/sys/kernel/sysrq; touch /sys/x; touch /sys/fs/cgroup/x; mkdir /sys/fs/cgroup/memory/x; \
        mknod /tmp/sda b 8 0 && dd if=/tmp/sda of=/dev/null count=1; mount -t tmpfs x /tmp; unshare -U true; cat /proc/self/oom_score_adj; ls -l /dev/ptmx /dev/fd | wc -l; \
        ls /dev/shm /dev/mqueue /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty | wc -l";
    let output = Box_::sh(script).run();
    let lines: Vec<&str> = output.stdout.lines().collect();
    // The shell, `ls`, and `grep` if it is there yet when `ls` looks.
    assert!(matches!(lines[3], "2" | "3"), "{output:?}");
    assert_eq!([&lines[..3], &lines[4..6]].concat(), ["1", "box", "0022", "0", "0"], "{output:?}");
    for (what, times) in [("Read-only file system", 4), ("not permitted", 2)] {
        let seen = (output.stdout.clone() + &output.stderr).matches(what).count();
        assert!(seen >= times, "{what}: {output:?}");
    }
    assert!(output.stderr.contains("/tmp/sda"), "{output:?}");
}

fn mounts_of_the_users() {
    let outside = std::env::temp_dir().join(format!("cauldron-runtime-mount-{}", std::process::id()));
    std::fs::create_dir_all(outside.join("dir")).unwrap();
    std::fs::write(outside.join("file"), "content").unwrap();
    let script = "cat /data/file; echo new >/data/made; touch /ro/x; cat /one; cat /srv/mounts | grep -c ' / '; touch /deep/a/b/c/x; touch /outside; \
        mount | grep -c overlay";
    let container = Box_::sh(script).with(|bundle| {
        bundle.mounts.push(bind("/data", &outside, false));
        bundle.mounts.push(bind("/ro", &outside, true));
        bundle.mounts.push(bind("/one", &outside.join("file"), true));
        bundle.mounts.push(bind("/srv/mounts", "/proc/mounts".as_ref(), true));
        bundle.mounts.push(bind("/deep/a/b/c", &outside.join("dir"), false));
    });
    let output = container.run();
    assert!(output.stdout.starts_with("contentcontent"), "{output:?}");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 1, "{output:?}");
    assert_eq!(std::fs::read_to_string(outside.join("made")).unwrap(), "new\n");
    assert!(outside.join("dir/x").exists());
    let missing = Box_::new(&["true"])
        .with(|bundle| bundle.mounts.push(bind("/x", "/nonexistent/path".as_ref(), false)));
    let error = missing.start().unwrap_err();
    assert!(error.to_string().contains("/nonexistent/path") && missing.state().exit_code == 128, "{error}");
    let directory_on_file =
        Box_::new(&["true"]).with(|bundle| bundle.mounts.push(bind("/etc/passwd", &outside, false)));
    assert!(directory_on_file.start().unwrap_err().to_string().contains("ot a directory"));
    std::fs::remove_dir_all(outside).unwrap();
}

fn links_lead_nowhere_else() {
    let lower = |container: &Box_| container.dir.join("lower");
    let container =
        Box_::new(&["true"]).with(|bundle| bundle.mounts.push(bind("/link/x", "/etc".as_ref(), true)));
    std::os::unix::fs::symlink("/../../../../../proc/self/root", lower(&container).join("link")).unwrap();
    assert!(container.start().is_err());
    let container = Box_::new(&["true"]);
    std::fs::remove_dir(lower(&container).join("proc")).unwrap();
    std::os::unix::fs::symlink("/tmp", lower(&container).join("proc")).unwrap();
    assert!(container.start().unwrap_err().to_string().contains("symbolic link"));
    let container =
        Box_::new(&["true"]).with(|bundle| bundle.mounts.push(bind("/proc/sys", "/etc".as_ref(), true)));
    assert!(container.start().unwrap_err().to_string().contains("inside /proc"));
    let outside = std::env::temp_dir().join(format!("cauldron-runtime-escape-{}", std::process::id()));
    let container =
        Box_::new(&["true"]).with(|bundle| bundle.mounts.push(bind("/up/made", "/etc".as_ref(), true)));
    std::os::unix::fs::symlink(format!("../../../..{}", outside.display()), lower(&container).join("up"))
        .unwrap();
    container.start().map(drop).unwrap();
    assert!(!outside.exists());
}

fn no_descriptor_leaks() {
    let script = "ls -l /proc/self/fd | grep -v '/proc/' | grep -c -e '->'; readlink /proc/self/cwd";
    let output = Box_::sh(script).run();
    assert_eq!(output.stdout, "3\n/\n", "{output:?} {:?}", Box_::sh("ls -l /proc/self/fd").run());
    assert_eq!(Box_::sh(script).with(|bundle| bundle.reaper = true).run().stdout, "3\n/\n");
    let running = running(Box_::sh(FOREVER));
    let output = read(running.container.exec("fds", |_| (), &["sh", "-c", script], OUT).unwrap(), false);
    assert_eq!(output.stdout, "3\n/\n");
}

fn reaper_forwards_and_reaps() {
    let script = "trap 'echo term; exit 3' TERM; (sh -c 'true & exec true'; true) & echo ready; while :; do sleep 0.01; done";
    let mut running = running(Box_::sh(script).with(|bundle| bundle.reaper = true));
    let output = read(
        running
            .container
            .exec("ps", |_| (), &["sh", "-c", "ls -l /proc/1/exe /proc/1/fd/0; ps"], OUT)
            .unwrap(),
        false,
    );
    assert!(!output.stdout.contains("cauldron-runtime") && !output.stdout.contains("kernel-"), "{output:?}");
    runtime::kill(&running.live, 15).unwrap();
    wait_for_end(&mut running);
    assert_eq!(running.container.state().exit_code, 3);
    // Without a handler the signal's default applies, which a plain process 1 would not see.
    let mut running =
        self::running(Box_::sh("echo ready; exec sleep 1000").with(|bundle| bundle.reaper = true));
    runtime::kill(&running.live, 15).unwrap();
    wait_for_end(&mut running);
    assert_eq!(running.container.state().exit_code, 143);
}

fn limits() {
    let output = Box_::sh("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj")
        .with(|bundle| {
            bundle.process.ulimits = vec![Ulimit { name: "nofile".into(), soft: 1000, hard: 2000 }];
            bundle.process.oom_score_adj = Some(300);
        })
        .run();
    assert_eq!(output.stdout, "1000\n2000\n300\n");
    let container = Box_::sh("ulimit -n").with(|bundle| {
        bundle.process.ulimits = vec![Ulimit { name: "nofile".into(), soft: 1 << 40, hard: 1 << 40 }];
    });
    assert_eq!(container.run().code, 0);
    assert_eq!(runtime::warnings(container.run_dir()).len(), 1);
}

fn memory_and_oom() {
    let container = Box_::sh("exec dd if=/dev/zero of=/dev/null bs=256M count=1")
        .with(|bundle| bundle.resources.memory = Some(32 << 20));
    let output = container.run();
    assert_eq!((output.code, container.state().oom_killed), (137, true));
    let events = std::fs::read_to_string(&container.bundle.events_log).unwrap();
    assert!(events.contains("\"Action\":\"oom\"") && events.contains("\"exitCode\":\"137\""), "{events}");
}

fn pids_limit() {
    let output = Box_::sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; echo no")
        .with(|bundle| bundle.resources.pids_limit = Some(5))
        .run();
    assert!(output.stderr.contains("an't fork"), "{output:?}");
}

fn pause_and_kill() {
    let mut running = running(Box_::sh(FOREVER));
    let (dir, cgroup) = (running.container.run_dir().to_owned(), running.container.bundle.cgroup.clone());
    runtime::set_paused(&dir, &cgroup, true).unwrap();
    assert!(runtime::live(&dir).unwrap().unwrap().paused);
    assert_eq!(
        running.container.exec("x", |_| (), &["true"], OUT).unwrap_err().kind(),
        model::Kind::Conflict
    );
    runtime::set_paused(&dir, &cgroup, false).unwrap();
    assert!(!runtime::live(&dir).unwrap().unwrap().paused);
    assert!(!runtime::wait_exit(&running.live, Some(Duration::from_millis(1))).unwrap());
    runtime::kill(&running.live, 9).unwrap();
    wait_for_end(&mut running);
    assert_eq!(running.container.state().exit_code, 137);
    wait_gone(running.live.monitor_pid);
    assert!(runtime::live(&dir).unwrap().is_none());
    assert!(runtime::pids(&cgroup).is_err());
    assert!(runtime::kill(&running.live, 9).is_err());
}

fn restart_policy() {
    let container = Box_::sh("echo run; exit 3").with(|bundle| {
        bundle.lifecycle = Lifecycle::Restart(RestartPolicy::OnFailure { max_retries: 2 });
        let model::bundle::Rootfs::Overlay { volatile, .. } = &mut bundle.rootfs;
        *volatile = false;
    });
    let live = container.start().unwrap();
    wait_gone(live.monitor_pid);
    let state = container.state();
    assert_eq!((state.exit_code, state.restart_count), (3, 2));
    assert_eq!(container.log().matches("run\\n").count(), 3);
    let events = std::fs::read_to_string(&container.bundle.events_log).unwrap();
    assert_eq!(events.matches("\"die\"").count(), 3, "{events}");
}

fn stop_in_back_off() {
    let container =
        Box_::sh("exit 1").with(|bundle| bundle.lifecycle = Lifecycle::Restart(RestartPolicy::Always));
    let mut live = container.start().unwrap();
    while !live.restarting {
        runtime::wait_exit(&live, None).unwrap();
        live = runtime::live(container.run_dir()).unwrap().unwrap();
    }
    runtime::request_stop(container.run_dir(), Some(15)).unwrap();
    wait_gone(live.monitor_pid);
    assert!(container.state().stopped_by_user);
    assert!(runtime::live(container.run_dir()).unwrap().is_none());
}

fn log_rotation() {
    let container = rotated(false);
    let size = |name: &str| std::fs::metadata(container.dir.join(name)).map(|stat| stat.len());
    assert!(
        size("log").unwrap() <= 20_000
            && size("log.1").unwrap() <= 20_000
            && size("log.2").unwrap() <= 20_000
    );
    assert!(size("log.3").is_err());
    assert!(container.log().contains("\"log\":\"2000\\n\""));
    let container = rotated(true);
    let path = |name: &str| container.dir.join(name);
    for name in ["log.1.gz", "log.2.gz"] {
        let plain = std::process::Command::new("gzip").arg("-cd").arg(path(name)).output().unwrap();
        assert!(plain.status.success() && plain.stdout.ends_with(b"}\n") && plain.stdout.len() <= 20_000);
    }
    for name in ["log.1", "log.2", "log.3.gz", "log.1.gz.part"] {
        assert!(!path(name).exists(), "{name}");
    }
}

fn rotated(compress: bool) -> Box_ {
    let container = Box_::sh("seq 1 2000").with(|bundle| {
        let path = model::container::HostPath(bundle.container_dir.0.join("log"));
        bundle.log = LogTarget::JsonFile {
            path,
            max_bytes: 20_000,
            max_files: 3,
            compress,
            attributes: Default::default(),
        };
    });
    container.run();
    container
}

fn called_off() {
    let container = Box_::new(&["true"]);
    let mut prepared =
        runtime::spawn(&container.bundle.run_dir.0).unwrap().prepare(&container.bundle, None).unwrap();
    let pid = prepared.pid().unwrap();
    assert!(std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok());
    drop(prepared);
    assert!(runtime::live(container.run_dir()).unwrap().is_none());
    assert!(runtime::pids(&container.bundle.cgroup).is_err());
    assert!(sys::process::start_time(pid).is_err());
}

fn monitor_killed() {
    let running = running(Box_::sh(FOREVER));
    let init = sys::process::pidfd(running.live.pid).unwrap();
    let monitor = sys::process::pidfd(running.live.monitor_pid).unwrap();
    sys::process::signal(&monitor, 9).unwrap();
    let mut fds = [rustix::event::PollFd::new(&init, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
    wait_gone(running.live.monitor_pid);
    assert!(runtime::live(running.container.run_dir()).unwrap().is_none());
    assert!(runtime::wait_exit(&running.live, None).unwrap());
    runtime::clean_up(&running.container.bundle.cgroup).unwrap();
}

fn health() {
    let container = Box_::sh("echo ready; touch /healthy; while :; do sleep 1000; done").with(|bundle| {
        bundle.healthcheck = Some(model::container::Healthcheck {
            test: Some(vec!["CMD-SHELL".into(), "echo probing; test -e /healthy".into()]),
            interval: 20_000_000,
            timeout: 10_000_000_000,
            start_interval: 20_000_000,
            retries: 1,
            ..Default::default()
        });
    });
    let running = running(container);
    let said = |status: &str| {
        std::fs::read_to_string(&running.container.bundle.events_log).unwrap_or_default().contains(status)
    };
    let until = |status: &str| loop {
        let health = running.container.state().health.unwrap();
        if health.status == status && said(&format!("health_status: {status}")) {
            return health;
        }
        std::thread::yield_now();
    };
    let health = until("healthy");
    assert_eq!(health.log[0].output, "probing\n");
    read(
        running
            .container
            .exec("x", |_| (), &["sh", "-c", "busybox rm /healthy"], Streams::default())
            .unwrap(),
        false,
    );
    until("unhealthy");
}

fn update_and_usage() {
    let running = running(Box_::sh(FOREVER).with(|bundle| bundle.resources.memory = Some(64 << 20)));
    let (dir, cgroup) = (running.container.run_dir(), &running.container.bundle.cgroup);
    let usage = runtime::usage(cgroup).unwrap();
    assert_eq!(usage.memory_limit, 64 << 20);
    assert!(
        usage.pids >= 1 && usage.machine_cpu > 0 && usage.online_cpus >= 1 && usage.cpu_total > 0,
        "{usage:?}"
    );
    let more = model::container::Resources {
        memory: Some(128 << 20),
        nano_cpus: Some(500_000_000),
        ..Default::default()
    };
    runtime::change(dir, Changed { resources: Some(Box::new(more)), ..Changed::default() }).unwrap();
    assert_eq!(runtime::usage(cgroup).unwrap().memory_limit, 128 << 20);
    assert!(runtime::pids(cgroup).unwrap().contains(&running.live.pid));
    assert_eq!(runtime::interface_counters(running.live.pid).unwrap(), []);
}

fn sysctl_and_hostname() {
    let output = Box_::sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; hostname; cat /proc/sys/kernel/domainname")
        .with(|bundle| {
            bundle.sysctls = vec![("net.ipv4.ip_forward".into(), "1".into()), ("kernel.shmmax".into(), "12345".into())];
            bundle.hostname = "named".into();
            bundle.domainname = "example".into();
        })
        .run();
    assert_eq!(output.stdout, "1\n12345\nnamed\nexample\n");
}

/// The launcher's part of [`launcher_killed`], in a process of its own: starts, says so, and waits for its death.
pub fn launch_and_wait(bundle: &str) -> std::process::ExitCode {
    let bundle: model::bundle::Bundle = serde_json::from_str(bundle).unwrap();
    let live = runtime::spawn(&bundle.run_dir.0).unwrap().prepare(&bundle, None).unwrap().start().unwrap();
    let _ = writeln!(std::io::stdout(), "{}", live.pid);
    let _ = std::io::stdin().read(&mut [0]);
    std::process::ExitCode::SUCCESS
}

fn launcher_killed() {
    use std::os::unix::process::CommandExt as _;
    let container = Box_::sh("read x; echo lived").with(|bundle| {
        bundle.process.open_stdin = true;
        bundle.process.stdin_once = true;
    });
    let mut launcher = std::process::Command::new("/proc/self/exe")
        .args(["--launch", &serde_json::to_string(&container.bundle).unwrap()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
    rustix::process::kill_process_group(
        rustix::process::Pid::from_child(&launcher),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    launcher.wait().unwrap();
    let live = runtime::live(container.run_dir()).unwrap().unwrap();
    assert_eq!(live.pid.to_string(), line.trim());
    let Attached::Now(mut stream) = container.attach(WITH_STDIN) else { panic!("it does not run") };
    stream.write_all(b"\n").unwrap();
    assert_eq!(read(stream, false).stdout, "lived\n");
    assert!(runtime::wait_exit(&live, None).unwrap());
    wait_gone(live.monitor_pid);
    assert_eq!(container.state().exit_code, 0);
}

fn attach_to_a_running_one() {
    let running = running(
        Box_::sh("echo ready; read x; echo $x; read x; echo $x")
            .with(|bundle| bundle.process.open_stdin = true),
    );
    let Attached::Now(mut first) = running.container.attach(WITH_STDIN) else { panic!("it does not run") };
    let Attached::Now(second) = running.container.attach(OUT) else { panic!("it does not run") };
    first.write_all(b"one\n").unwrap();
    first.shutdown(std::net::Shutdown::Write).unwrap();
    // Stdin stays open for the next one: this client is detached.
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).unwrap();
    let Attached::Now(mut third) = running.container.attach(WITH_STDIN) else { panic!("it does not run") };
    third.write_all(b"two\n").unwrap();
    assert_eq!(read(second, false).stdout, "one\ntwo\n");
    assert!(running.container.log().contains("two"));
}

fn slow_clients_lose_nothing() {
    let container = Box_::sh("yes 0123456789abcdef | head -n 100000; echo end >&2")
        .with(|bundle| bundle.log = LogTarget::None);
    let Attached::WhenStarted(slow) = container.attach(OUT) else { panic!("it runs already") };
    let Attached::WhenStarted(gone) = container.attach(OUT) else { panic!("it runs already") };
    let live = container.start().unwrap();
    drop(gone.accept().unwrap());
    let (slow, _) = slow.accept().unwrap();
    let Attached::Now(other) = container.attach(OUT) else { panic!("it does not run") };
    drop(other);
    let output = read(slow, false);
    assert_eq!((output.stdout.len(), output.stderr.as_str()), (1_700_000, "end\n"));
    assert!(runtime::wait_exit(&live, None).unwrap());
}

fn shared_namespaces() {
    use model::bundle::Namespace;
    let running = running(Box_::sh(
        "hostname; echo ready; while :; do sleep 1000; done".trim_start_matches("hostname; "),
    ));
    let path = |name: &str| Namespace::Path(format!("/proc/{}/ns/{name}", running.live.pid).into());
    let script = "ls /proc | grep -c '^[0-9]'; cat /proc/1/cmdline | head -c 2; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc";
    let output = Box_::sh(script)
        .with(|bundle| {
            bundle.namespaces.pid = path("pid");
            bundle.namespaces.net = path("net");
            bundle.namespaces.ipc = path("ipc");
        })
        .run();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].parse::<u32>().unwrap() >= 4 && lines[1].starts_with("sh"), "{output:?}");
    let link = |name: &str| {
        std::fs::read_link(format!("/proc/{}/ns/{name}", running.live.pid)).unwrap().display().to_string()
    };
    assert!(output.stdout.contains(&link("net")) && output.stdout.contains(&link("ipc")), "{output:?}");
    // What it leaves behind in a foreign pid namespace is killed with it.
    let output = Box_::sh("nohup sleep 4242 >/dev/null 2>&1 & echo $!")
        .with(|bundle| bundle.namespaces.pid = path("pid"))
        .run();
    let pid = output.stdout.trim().to_owned();
    let output = read(
        running
            .container
            .exec("ps", |_| (), &["sh", "-c", &format!("n=0; while test -d /proc/{pid}; do n=$((n + 1)); test $n -lt 300000 || exit 1; done; echo gone")], OUT)
            .unwrap(),
        false,
    );
    assert_eq!(output.stdout, "gone\n");
    // The host's namespaces.
    let output = Box_::sh(
        "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; readlink /proc/self/ns/uts; exit 4",
    )
    .with(|bundle| {
        bundle.namespaces.pid = Namespace::Host;
        bundle.namespaces.net = Namespace::Host;
        bundle.namespaces.uts = Namespace::Host;
    })
    .run();
    let host =
        |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    assert_eq!(output.stdout, format!("{}\n{}\n{}\n", host("net"), host("pid"), host("uts")));
    assert_eq!(output.code, 4);
}

fn change() {
    let mut running = running(
        Box_::sh("echo ready; while :; do sleep 1000; done")
            .with(|bundle| bundle.lifecycle = Lifecycle::Restart(RestartPolicy::Always)),
    );
    let changed = Changed { name: Some("renamed".into()), lifecycle: Some(Lifecycle::Keep), resources: None };
    runtime::change(running.container.run_dir(), changed).unwrap();
    runtime::kill(&running.live, 9).unwrap();
    wait_for_end(&mut running);
    wait_gone(running.live.monitor_pid);
    assert_eq!(running.container.state().restart_count, 0);
    assert!(
        std::fs::read_to_string(&running.container.bundle.events_log)
            .unwrap()
            .contains("\"name\":\"renamed\"")
    );
}

fn read_only_root() {
    let output = Box_::sh("touch /x; touch /dev/shm/y && touch /made/z && echo ok").with(|bundle| {
        let model::bundle::Rootfs::Overlay { read_only, .. } = &mut bundle.rootfs;
        *read_only = true;
        let mut tmpfs = bundle.mounts[6].clone();
        tmpfs.target = model::container::ContainerPath::parse("/made").unwrap();
        bundle.mounts.push(tmpfs);
    });
    let output = output.run();
    assert!(output.stderr.contains("Read-only file system") && output.stdout == "ok\n", "{output:?}");
}

fn devices() {
    let node = |path: &str, major, minor| model::bundle::DeviceNode {
        path: model::container::ContainerPath::parse(path).unwrap(),
        kind: 'c',
        major,
        minor,
        mode: 0o640,
        uid: 7,
        gid: 8,
    };
    let output = Box_::sh(
        "stat -c '%a %u %g %t:%T' /dev/deep/kmsg; head -c 1 /dev/deep/kmsg; head -c 1 /dev/mine | wc -c",
    )
    .with(|bundle| {
        bundle.devices = vec![node("/dev/deep/kmsg", 1, 11), node("/dev/mine", 1, 5)];
    });
    let output = output.run();
    assert_eq!(output.stdout, "640 7 8 1:b\n1\n", "{output:?}");
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
}

fn seccomp_profiles() {
    use model::container::Seccomp;
    let with = |seccomp: Seccomp| {
        let container = Box_::sh("mkdir /x; grep Seccomp: /proc/self/status")
            .with(|bundle| bundle.process.seccomp = seccomp);
        let output = container.run();
        (output.stdout, output.stderr)
    };
    let (status, error) = with(Seccomp::Unconfined);
    assert_eq!((status.as_str(), error.as_str()), ("Seccomp:\t0\n", ""));
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let (status, error) = with(Seccomp::Profile(profile.into()));
    assert!(status == "Seccomp:\t2\n" && error.contains("Operation not permitted"), "{status} {error}");
    let bad = Box_::sh("true").with(|bundle| bundle.process.seccomp = Seccomp::Profile("{".into()));
    assert!(bad.start().unwrap_err().to_string().contains("decoding seccomp profile failed"));
    let nnp = Box_::sh("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status")
        .with(|bundle| bundle.process.no_new_privileges = true);
    assert_eq!(nnp.run().stdout, "NoNewPrivs:\t1\nSeccomp:\t2\n");
}

/// Prints the median and the spread, back to back and paced, in milliseconds; and the monitor's memory.
pub fn latency(count: usize) -> std::process::ExitCode {
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[0], times[times.len() * 9 / 10])
    };
    for pause in [0, 150] {
        let (mut start, mut whole, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            std::thread::sleep(Duration::from_millis(pause));
            let container = Box_::new(&["true"]);
            let Attached::WhenStarted(listener) = container.attach(OUT) else { continue };
            let begin = std::time::Instant::now();
            let live = container.start().unwrap();
            start.push(begin.elapsed().as_secs_f64() * 1e3);
            read(listener.accept().unwrap().0, false);
            whole.push(begin.elapsed().as_secs_f64() * 1e3);
            wait_gone(live.monitor_pid);
            gone.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        for (what, times) in [("started", start), ("stream ended", whole), ("monitor gone", gone)] {
            let (middle, least, most) = median(times);
            let _ = writeln!(
                std::io::stdout(),
                "pause {pause} ms, {what}: median {middle:.2} ms ({least:.2} to {most:.2})"
            );
        }
    }
    let running = running(Box_::sh(FOREVER));
    let mut times = Vec::new();
    for number in 0..count {
        let begin = std::time::Instant::now();
        read(running.container.exec(&format!("e{number}"), |_| (), &["true"], OUT).unwrap(), false);
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let (middle, least, most) = median(times);
    let _ = writeln!(std::io::stdout(), "exec: median {middle:.2} ms ({least:.2} to {most:.2})");
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", running.live.monitor_pid)).unwrap();
    let _ = writeln!(
        std::io::stdout(),
        "monitor: {}",
        rollup.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default()
    );
    std::process::ExitCode::SUCCESS
}
