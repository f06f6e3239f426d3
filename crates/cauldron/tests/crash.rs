//! The crash sweep: at every failpoint that a command passes, in the command itself, in the container's monitor and in the
//! process that cleans up after it, SIGKILL. Then the state is opened again and must be whole: each container is there or
//! gone and what is said of it is what the kernel says, images and volumes are intact, `doctor --fix` brings everything to
//! the state before, and the same commands succeed. Needs root and a debug build (release builds have no failpoints).

mod busybox;
mod home;

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
