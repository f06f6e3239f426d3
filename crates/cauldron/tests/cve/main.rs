//! Public vulnerabilities of container engines, each performed on the real binary: the attack is refused or leads nowhere, and
//! the machine is unharmed. `docs/security.md` has the table. Needs root, and musl-gcc for what a shell cannot do.

#[path = "../home/mod.rs"]
mod home;
#[path = "../machine/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod machine;
#[path = "../served/mod.rs"]
mod served;

mod archive;
mod containerd;
mod docker;
mod kernel;
mod podman;
mod runc;

use home::{Home, Run};
use served::busybox;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the file that must stay as it is holds.
const CANARY: &str = "a file of the host's\n";

/// An engine, and beside it a directory of the host's that no attack may reach.
struct Target {
    home: Home,
    outside: PathBuf,
}

impl std::ops::Deref for Target {
    type Target = Home;
    fn deref(&self) -> &Home {
        &self.home
    }
}

/// One whose image `busybox` has what `more` puts into it; it is told the directory outside.
fn target(more: impl FnOnce(&Path, &Path)) -> Target {
    let home = Home::bare("cve");
    let outside = home.0.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), CANARY).unwrap();
    fs::set_permissions(outside.join("canary"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
    home.import(|root| more(root, &outside));
    Target { home, outside }
}

/// As [`target`], with `/bin/attack` in the image.
fn armed(more: impl FnOnce(&Path, &Path)) -> Target {
    target(|root, outside| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cve/attack.c");
        let built = Command::new("musl-gcc")
            .args(["-static", "-O1", "-o"])
            .arg(root.join("bin/attack"))
            .arg(source)
            .status()
            .expect("musl-gcc, of Debian's musl-tools");
        assert!(built.success());
        more(root, outside);
    })
}

impl Target {
    /// A shell in a fresh container.
    fn sh(&self, options: &[&str], script: &str) -> Run {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", script]);
        self.run(&args)
    }
    /// What it prints; it must succeed.
    fn said(&self, options: &[&str], script: &str) -> String {
        let run = self.sh(options, script);
        assert_eq!(run.code, 0, "{options:?} {script}: {}{}", run.out, run.err);
        run.out.trim_end().to_owned()
    }
    /// The start is refused, for this reason.
    fn refused(&self, options: &[&str], reason: &str) {
        let run = self.sh(options, "echo started");
        assert!(!run.out.contains("started") && run.code >= 125, "{options:?}: {} {}", run.code, run.out);
        assert!(run.err.contains(reason), "{options:?}: {}", run.err);
    }
    fn start(&self, name: &str, options: &[&str], command: &[&str]) {
        let mut args = vec!["run", "-d", "--name", name, "--network", "none"];
        args.extend(options);
        args.push("busybox");
        args.extend(command);
        self.ok(&args);
    }
    fn outside(&self) -> &str {
        self.outside.to_str().unwrap()
    }
    /// The host's directory is as it was, and nothing of the engine's is mounted where all can see it.
    fn unharmed(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"], "something was made outside");
        let canary = self.outside.join("canary");
        assert_eq!(fs::read_to_string(&canary).unwrap(), CANARY);
        for (path, mode) in [(&canary, 0o600), (&self.outside, 0o700)] {
            let there = fs::metadata(path).unwrap();
            assert_eq!((there.mode() & 0o7777, there.uid(), there.gid()), (mode, 0, 0), "{}", path.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.0.to_str().unwrap()), "something is mounted on the host");
    }
    /// A volume with what a script makes in it; `$OUTSIDE` is the host's directory.
    fn volume(&self, name: &str, script: &str) {
        let mount = format!("{name}:/v");
        let outside = format!("OUTSIDE={}", self.outside());
        self.said(&["-v", &mount, "-e", &outside], &format!("cd /v && {script}"));
    }
    /// A command of the engine's that goes on, until it is dropped.
    fn going(&self, args: &[&str]) -> Going {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Going(command.spawn().unwrap())
    }
    /// The process of a container's monitor.
    fn monitor_of(&self, name: &str) -> u64 {
        let id = self.ok(&["inspect", "-f", "{{.Id}}", name]);
        let live = fs::read(self.0.join("run/containers").join(id).join("live.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&live).unwrap()["monitor_pid"].as_u64().unwrap()
    }
    fn build(&self, dockerfile: &str) -> Run {
        let context = self.0.join("context");
        fs::create_dir_all(&context).unwrap();
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        self.run(&[
            "build",
            "--progress",
            "plain",
            "--network",
            "none",
            "-t",
            "built",
            context.to_str().unwrap(),
        ])
    }
}

struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line of `/proc/PID/status` in the shell's output, without blanks.
fn status(field: &str) -> String {
    format!("grep {field}: /proc/self/status | tr -d '[:space:]'")
}

/// Replaces what is at `path` by a link.
fn link(target: impl AsRef<Path>, path: PathBuf) {
    let _ = fs::remove_dir_all(&path);
    let _ = fs::remove_file(&path);
    symlink(target, path).unwrap();
}
