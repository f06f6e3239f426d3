//! The crash sweep: at every failpoint that a command passes, in the command itself, in the container's monitor and in the
//! process that cleans up after it, SIGKILL. Then the state is opened again and must be whole: each container is there or
//! gone and what is said of it is what the kernel says, images and volumes are intact, `doctor --fix` brings everything to
//! the state before, and the same commands succeed. Needs root and a debug build (release builds have no failpoints).

mod busybox;
mod home;
mod registries;

use home::{Home, Run};
use std::collections::BTreeMap;
use std::fs;

/// A point that is passed very often is visited this many times.
const OCCURRENCES: usize = 2;

type Steps<'a> = &'a [&'a [&'a str]];

/// An archive of the image, a volume that must stay as it is, and a context to build.
fn home() -> Home {
    let home = Home::new("crash", |root| {
        fs::create_dir_all(root.join("data")).unwrap();
        fs::write(root.join("data/seed"), "from the image\n").unwrap();
    });
    home.ok(&["save", "-o", &home.path("saved.tar"), "busybox:latest"]);
    home.ok(&["volume", "create", "keep"]);
    let keep =
        ["run", "--rm", "--network", "none", "-v", "keep:/k", "busybox", "sh", "-c", "echo kept > /k/f"];
    home.ok(&keep);
    fs::create_dir_all(home.0.join("context")).unwrap();
    fs::write(
        home.0.join("context/Dockerfile"),
        "FROM busybox\nCOPY file /\nRUN echo made > /made\nLABEL a=b\n",
    )
    .unwrap();
    fs::write(home.0.join("context/file"), "copied\n").unwrap();
    home
}

impl Home {
    /// Runs a step, with this in its environment; `HOME` in it is the directory.
    fn step(&self, step: &[&str], name: &str, value: &str) -> Run {
        let args: Vec<String> =
            step.iter().map(|arg| arg.replace("HOME", self.0.to_str().unwrap())).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Run::of(self.command(&args).env(name, value).output().unwrap())
    }
    /// The points that these steps pass, each with how often one process passes it.
    fn points(&self, steps: Steps) -> BTreeMap<String, usize> {
        let log = self.path("points");
        for step in steps {
            let run = self.step(step, "CAULDRON_FAILPOINT_LOG", &log);
            assert_eq!(run.code, 0, "{step:?}: {}{}", run.out, run.err);
        }
        // Waits for what goes on in the background.
        self.ok(&["doctor"]);
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in fs::read_to_string(&log).unwrap_or_default().lines() {
            let (pid, name) = line.split_once(' ').unwrap();
            *counts.entry((name.to_owned(), pid.to_owned())).or_default() += 1;
        }
        let mut points = BTreeMap::new();
        for ((name, _), count) in counts {
            let most = points.entry(name).or_insert(0);
            *most = count.max(*most).min(OCCURRENCES);
        }
        points
    }
    /// What is said of every container is what the kernel says. One that is on its way out (`--rm`) may go meanwhile.
    fn containers_are_true(&self, point: &str) {
        for id in self.ok(&["ps", "-aq", "--no-trunc"]).lines() {
            let state = self.run(&["inspect", "-f", "{{.State.Running}} {{.State.Pid}} {{.Name}}", id]);
            let state = state.out.trim_end().to_owned();
            let parts: Vec<&str> = state.split(' ').collect();
            let alive = parts.get(1).is_some_and(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id))
            });
            let named = parts.get(2).map(|name| self.run(&["inspect", "-f", "{{.Id}}", name]).out);
            if (parts[0] == "true") != alive || named.is_none_or(|named| named.trim_end() != id) {
                let left = self.ok(&["ps", "-aq", "--no-trunc"]);
                assert!(!left.contains(id), "{point}: {id}: {state:?}, alive: {alive}");
            }
        }
    }
    /// Removes what the steps made.
    fn clear(&self) {
        let remove = |list: &[&str], keep: &str, remove: &[&str]| {
            let listed = self.ok(list);
            let names: Vec<&str> = listed.lines().filter(|name| *name != keep).collect();
            if !names.is_empty() {
                self.ok(&[remove, &names].concat());
            }
        };
        remove(&["ps", "-aq"], "", &["rm", "-f", "-v"]);
        remove(&["volume", "ls", "-q"], "keep", &["volume", "rm"]);
        remove(&["network", "ls", "-q", "--filter", "type=custom"], "", &["network", "rm"]);
        remove(
            &["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "dangling=false"],
            "busybox:latest",
            &["rmi", "-f"],
        );
        self.ok(&["system", "prune", "-f"]);
        self.ok(&["builder", "prune", "-af"]);
    }
    /// Nothing of this home is left in the kernel.
    fn kernel_is_clean(&self, point: &str) {
        let home = self.0.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(home), "{point}: a mount is left");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(!line.contains(&format!("{home}/run")), "{point}: process {line:?} is left");
        }
        let bridge = self.ok(&[
            "network",
            "inspect",
            "-f",
            "{{index .Options \"com.docker.network.bridge.name\"}}",
            "bridge",
        ]);
        let ours = bridge.trim_end_matches('0');
        for entry in fs::read_dir("/sys/class/net").unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            assert!(!name.starts_with(ours), "{point}: interface {name} is left");
        }
    }
    /// Kills at one point, and looks at what is left.
    fn visit(&self, steps: Steps, point: &str) -> usize {
        for step in steps {
            let run = self.step(step, "CAULDRON_FAILPOINT", point);
            assert!(!run.err.contains("panicked"), "{point}: {step:?}: {}", run.err);
        }
        self.containers_are_true(point);
        let mended = self.run(&["doctor", "--fix", "--format", "json"]);
        assert_eq!(mended.code, 0, "{point}: doctor --fix: {}{}", mended.out, mended.err);
        let again = self.run(&["doctor", "--verify"]);
        assert_eq!(again.code, 0, "{point}: doctor after --fix: {}{}", again.out, again.err);
        self.containers_are_true(point);
        let kept = self.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "keep:/k:ro",
            "busybox",
            "cat",
            "/k/f",
            "/data/seed",
        ]);
        assert_eq!(kept, "kept\nfrom the image", "{point}");
        self.clear();
        let clean = self.run(&["doctor"]);
        assert_eq!(clean.code, 0, "{point}: doctor after clearing: {}{}", clean.out, clean.err);
        self.kernel_is_clean(point);
        mended.out.lines().count()
    }
    /// The whole sweep of these steps.
    fn sweep(&self, name: &str, steps: Steps) {
        let points = self.points(steps);
        self.clear();
        assert!(!points.is_empty(), "{name}: no failpoint was reached");
        let (mut visited, mut findings) = (0, 0);
        for (point, count) in &points {
            for number in 1..=*count {
                findings += self.visit(steps, &format!("{point}@{number}"));
                visited += 1;
            }
        }
        // The same succeeds after all that.
        for step in steps {
            let run = self.step(step, "CAULDRON_FAILPOINT", "");
            assert_eq!(run.code, 0, "{step:?}: {}{}", run.out, run.err);
        }
        #[allow(clippy::print_stdout, reason = "the counts are what this test is asked for")]
        {
            println!(
                "{name}: killed at {visited} points ({} names), {findings} findings mended",
                points.len()
            );
        }
        self.clear();
    }
}

#[test]
fn images() {
    home().sweep(
        "import, load, tag, commit, rmi",
        &[
            &["import", "HOME/busybox.tar", "other:1"],
            &["tag", "other:1", "other:2"],
            &["rmi", "other:1"],
            &["load", "-i", "HOME/saved.tar"],
            &["create", "--name", "cc", "--network", "none", "busybox", "true"],
            &["commit", "cc", "other:3"],
            &["rmi", "other:2", "other:3"],
            &["image", "prune", "-f"],
        ],
    );
}

#[test]
fn registries() {
    let home = home();
    let server = registries::Registry::open(&home);
    let (name, other) = (format!("{}/app:1", server.host), format!("{}/other:1", server.host));
    home.ok(&["build", "-q", "--network", "none", "-t", &name, &home.path("context")]);
    home.ok(&["push", "-q", &name]);
    home.clear();
    home.sweep(
        "pull, push",
        &[&["pull", "-q", &name], &["tag", &name, &other], &["push", "-q", &other], &["rmi", &name, &other]],
    );
}

#[test]
fn build() {
    home().sweep(
        "build, builder prune",
        &[&["build", "-q", "--network", "none", "-t", "built", "HOME/context"], &["builder", "prune", "-af"]],
    );
}

#[test]
fn lifecycle() {
    home().sweep(
        "create, start, exec, stop, restart, rename, rm",
        &[
            &[
                "create",
                "--name",
                "cc",
                "--network",
                "none",
                "-v",
                "/data",
                "-v",
                "named:/n",
                "busybox",
                "sleep",
                "1000",
            ],
            &["start", "cc"],
            &["exec", "cc", "true"],
            &["stop", "-t", "0", "cc"],
            &["restart", "-t", "0", "cc"],
            &["rename", "cc", "dd"],
            &["update", "--memory", "64m", "--memory-swap", "64m", "dd"],
            &["rm", "-f", "-v", "dd"],
            &["volume", "rm", "named"],
        ],
    );
}

#[test]
fn run_and_remove() {
    home().sweep(
        "run --rm on the bridge with a port",
        &[&["run", "--rm", "--name", "cc", "-v", "/data", "-p", "127.0.0.1::80", "busybox", "true"]],
    );
}

#[test]
fn networks() {
    home().sweep(
        "network create, connect, disconnect, rm",
        &[
            &["network", "create", "nn"],
            &["network", "create", "mm"],
            &["run", "-d", "--name", "cc", "--network", "nn", "busybox", "sleep", "1000"],
            &["network", "connect", "mm", "cc"],
            &["network", "disconnect", "nn", "cc"],
            &["rm", "-f", "cc"],
            &["network", "rm", "nn", "mm"],
        ],
    );
}

#[test]
fn prunes() {
    home().sweep(
        "container, volume, network and system prune",
        &[
            &["create", "--name", "cc", "--network", "none", "-v", "/data", "busybox", "true"],
            &["volume", "create", "spare"],
            &["network", "create", "nn"],
            &[
                "run",
                "-d",
                "--name",
                "user",
                "--network",
                "none",
                "-v",
                "keep:/k",
                "busybox",
                "sleep",
                "1000",
            ],
            &["container", "prune", "-f"],
            &["network", "prune", "-f"],
            &["volume", "rm", "spare"],
            &["system", "prune", "-f"],
            &["rm", "-f", "user"],
        ],
    );
}

/// Kills at each of a task's own points, one after the other; `look` sees what is left, and what the same command makes of it.
fn tasks_sweep(home: &Home, steps: Steps, look: &dyn Fn(&str)) -> usize {
    let points = home.points(steps);
    let points: Vec<&String> = points.keys().filter(|name| name.starts_with("task: ")).collect();
    for point in &points {
        for step in steps {
            let run = home.step(step, "CAULDRON_FAILPOINT", point);
            assert!(!run.err.contains("panicked"), "{point}: {step:?}: {}", run.err);
        }
        look(point);
    }
    points.len()
}

#[test]
fn tasks() {
    let home = home();
    home.ok(&["run", "-d", "--name", "db", "--network", "none", "busybox", "sleep", "1000"]);
    let make = [
        "task",
        "create",
        "tt",
        "--network",
        "none",
        "--each",
        "name=db",
        "--before",
        "pause",
        "busybox",
        "true",
    ];
    home.ok(&make);
    let step: &[&str] = &["task", "run", "tt"];
    let visited = tasks_sweep(&home, &[step], &|point| {
        let again = home.run(step);
        assert_eq!(again.code, 0, "{point}: {}{}", again.out, again.err);
        assert_eq!(home.ok(&["inspect", "-f", "{{.State.Status}}", "db"]), "running", "{point}");
        assert_eq!(home.ok(&["ps", "-a", "--format", "{{.Names}}"]), "db", "{point}");
        let states = home.ok(&["task", "history", "tt", "--format", "{{.status}} {{.error}}"]);
        let known = |state: &str| state.starts_with("ok ") || state.starts_with("failed interrupted: ");
        assert!(states.lines().all(known), "{point}: {states}");
        let clean = home.run(&["doctor"]);
        assert_eq!(clean.code, 0, "{point}: {}{}", clean.out, clean.err);
    });
    assert!(visited >= 9, "{visited}");
    // The container's monitor, with the container: the run says so, and nothing stays.
    home.ok(&["task", "create", "long", "--network", "none", "busybox", "sleep", "1000"]);
    let mut run = home.command(&["task", "run", "--quiet", "long"]).spawn().unwrap();
    let monitor = loop {
        let id = home.ok(&["ps", "-q", "--filter", "label=cauldron.task=long"]);
        let pid = if id.is_empty() {
            String::new()
        } else {
            home.run(&["inspect", "-f", "{{.State.Pid}}", &id]).out
        };
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if let Some((_, rest)) = stat.rsplit_once(')').filter(|_| pid.trim() != "0") {
            break rest.split_whitespace().nth(1).unwrap().to_owned();
        }
        assert!(run.try_wait().unwrap().is_none(), "the run ended");
    };
    assert!(std::process::Command::new("kill").args(["-9", &monitor]).status().unwrap().success());
    assert!(!run.wait().unwrap().success());
    assert_eq!(home.ok(&["task", "history", "long", "--format", "{{.status}}"]), "failed");
    assert_eq!(home.ok(&["ps", "-a", "--format", "{{.Names}}"]), "db");
}

#[test]
fn helpers() {
    let home = home();
    home.ok(&[
        "task",
        "create",
        "init",
        "--once",
        "data",
        "--network",
        "none",
        "-v",
        "data:/d",
        "busybox",
        "sh",
        "-c",
        "echo line >> /d/log",
    ]);
    let step: &[&str] = &["helper", "run", "--quiet", "init"];
    let log = || fs::read_to_string(home.path("root/volumes/data/_data/log")).unwrap_or_default();
    let new = || {
        home.ok(&["volume", "rm", "-f", "data"]);
        home.ok(&["volume", "create", "data"]);
    };
    let (mut before, mut done) = (0, 0);
    new();
    let points = home.points(&[step]);
    for point in points.keys().filter(|name| name.starts_with("task: ") || name.starts_with("volume.")) {
        new();
        let killed = home.step(step, "CAULDRON_FAILPOINT", point);
        assert_eq!((killed.code, log().lines().count() <= 1), (-1, true), "{point}: {}", killed.err);
        if log().is_empty() {
            before += 1;
        } else {
            done += 1;
        }
        let again = home.run(step);
        assert_eq!((again.code, log().as_str()), (0, "line\n"), "{point}: {}", again.err);
        // What the volume was before may still be there, aside.
        home.ok(&["doctor", "--fix"]);
        assert_eq!(fs::read_dir(home.path("root/volumes")).unwrap().count(), 2, "{point}: a draft is left");
        let clean = home.run(&["doctor"]);
        assert_eq!(clean.code, 0, "{point}: {}{}", clean.out, clean.err);
    }
    assert!(before >= 8 && done >= 1, "{before} {done}");
}

#[test]
fn backups() {
    let home = home();
    home.ok(&[
        "task",
        "create",
        "check",
        "--network",
        "none",
        "busybox",
        "grep",
        "-q",
        "whole",
        "/backups/dump",
    ]);
    let to = home.path("kept");
    home.ok(&[
        "task",
        "create",
        "dump",
        "--network",
        "none",
        "--backup-to",
        &to,
        "--backup-verify",
        "check",
        "--backup-keep",
        "1",
        "busybox",
        "sh",
        "-c",
        "echo whole > /backups/dump",
    ]);
    let step: &[&str] = &["task", "run", "--quiet", "dump"];
    home.ok(step);
    let whole = |point: &str| {
        let names: Vec<String> = fs::read_dir(home.path("kept/dump"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let kept = names.iter().filter(|name| !name.starts_with('.'));
        for name in kept.clone() {
            assert_eq!(
                fs::read_to_string(home.path(&format!("kept/dump/{name}/data/dump"))).unwrap(),
                "whole\n",
                "{point}"
            );
        }
        (kept.count(), names.len())
    };
    let visited = tasks_sweep(&home, &[step], &|point| {
        let left = whole(point).0;
        assert!((1..=2).contains(&left), "{point}: {left}");
        let again = home.run(step);
        assert_eq!(again.code, 0, "{point}: {}{}", again.out, again.err);
        assert_eq!(whole(point), (1, 1), "{point}: one is kept, and nothing beside it");
    });
    assert!(visited >= 12, "{visited}");
}

#[test]
fn schedulers() {
    let home = home();
    home.ok(&["task", "create", "tick", "--network", "none", "--schedule", "* * * * * *", "busybox", "true"]);
    for _ in 0..3 {
        let killed = home.step(&["task", "scheduler"], "CAULDRON_FAILPOINT", "task: slot started");
        assert_eq!(killed.code, -1, "{}", killed.err);
    }
    let mut last = home.command(&["task", "scheduler"]).spawn().unwrap();
    let slots = || home.ok(&["task", "show", "tick", "--format", "{{range .runs}}{{.slot}} {{end}}"]);
    let entries = || home.ok(&["task", "history", "tick", "--format", "{{.run}}"]).lines().count();
    let begin = std::time::Instant::now();
    while entries() < 6 {
        assert!(begin.elapsed().as_secs() < 60, "six runs did not happen");
    }
    last.kill().unwrap();
    last.wait().unwrap();
    let shown = slots();
    let mut once: Vec<&str> = shown.split_whitespace().collect();
    let all = once.len();
    once.sort_unstable();
    once.dedup();
    assert!(all >= 5 && once.len() == all, "each slot once: {shown}");
}
