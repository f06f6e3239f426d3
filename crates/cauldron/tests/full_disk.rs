//! A full disk: the root on a small tmpfs. Whatever cannot be written fails with a clear error and leaves nothing; what
//! fills the disk can be ended and removed; then everything works again. Needs root.

mod busybox;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// An engine whose root has so many megabytes and inodes.
struct Small(PathBuf);

struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Small {
    fn new(megabytes: u32, inodes: u32) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-full-{}-{serial}", std::process::id()));
        fs::create_dir_all(dir.join("root")).unwrap();
        let small = Self(dir);
        let options = format!("size={megabytes}m,nr_inodes={inodes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "small"])
            .arg(small.0.join("root"))
            .status()
            .unwrap();
        assert!(mounted.success());
        let tar = busybox::archive(&small.0, |_| {});
        small.ok(&["import", tar.to_str().unwrap(), "busybox"]);
        small
    }
    fn run(&self, args: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_cauldron"))
            .args(args)
            .env("CAULDRON_ROOT", self.0.join("root"))
            .env("CAULDRON_RUN_ROOT", self.0.join("run"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
    fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {}{}", run.out, run.err);
        run.out.trim_end_matches('\n').to_owned()
    }
    /// A command that finds no room says what it could not write, and how much there is.
    fn finds_no_room(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert!(run.code.is_some_and(|code| code != 0), "{args:?} found room: {}", run.out);
        assert!(run.err.contains("no space left on device"), "{args:?}: {}", run.err);
        let root = self.0.join("root");
        let told = format!("{} has ", root.display());
        assert!(run.err.contains(&told) && run.err.contains("inodes free"), "{args:?}: {}", run.err);
        run.err
    }
    fn sound(&self) {
        let found = self.run(&["doctor", "--verify"]);
        assert_eq!(found.code, Some(0), "{}{}", found.out, found.err);
        assert_eq!(self.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "works"]), "works");
    }
    /// Kilobytes in use.
    fn used(&self) -> u64 {
        let output =
            Command::new("df").args(["--output=used", "-k"]).arg(self.0.join("root")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for id in self.run(&["ps", "-aq"]).out.lines() {
            let _ = self.run(&["rm", "-f", "-v", id]);
        }
        let _ = self.run(&["doctor", "--fix"]);
        let _ = Command::new("umount").arg("-l").arg(self.0.join("root")).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_does_not_fit_leaves_nothing() {
    let small = Small::new(12, 4000);
    let before = small.used();
    let rootfs = small.0.join("large");
    fs::create_dir_all(&rootfs).unwrap();
    fs::write(rootfs.join("blob"), vec![7u8; 20 << 20]).unwrap();
    let tar = small.0.join("large.tar");
    assert!(
        Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&tar).arg(".").status().unwrap().success()
    );
    small.finds_no_room(&["import", tar.to_str().unwrap(), "large"]);
    small.sound();
    fs::write(rootfs.join("Dockerfile"), "FROM busybox\nCOPY blob /\n").unwrap();
    small.finds_no_room(&["build", "-t", "large", rootfs.to_str().unwrap()]);
    small.sound();
    // The copy of what fits twice but not three times.
    small.ok(&[
        "run",
        "--name",
        "half",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/urandom of=/x bs=1M count=4 2>/dev/null",
    ]);
    small.finds_no_room(&["commit", "half", "half"]);
    small.ok(&["rm", "half"]);
    small.sound();
    assert_eq!(small.ok(&["images", "-q"]).lines().count(), 1);
    assert!(small.used() <= before + 64, "{} kB, then {} kB", before, small.used());
}

#[test]
fn what_fills_the_disk_can_be_ended_and_removed() {
    let small = Small::new(8, 4000);
    // It ends by itself: the exit code is known all the same.
    let fill = "dd if=/dev/zero of=/x bs=1M count=100 2>/dev/null; exit 3";
    let run = small.run(&[
        "run",
        "--name",
        "full",
        "-v",
        "/data",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        fill,
    ]);
    assert_eq!(run.code, Some(3), "{}", run.err);
    assert_eq!(small.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "full"]), "exited 3");
    small.finds_no_room(&["create", "--name", "other", "--network", "none", "busybox", "true"]);
    small.finds_no_room(&["volume", "create", "other"]);
    small.ok(&["rm", "-v", "full"]);
    small.sound();
    // It goes on running.
    let fill = "sleep 1000 & dd if=/dev/zero of=/x bs=1M count=100 2>/dev/null; wait";
    small.ok(&["run", "-d", "--name", "full", "--network", "none", "busybox", "sh", "-c", fill]);
    small.ok(&["exec", "full", "sh", "-c", "cat /dev/zero > /y 2>/dev/null; true"]);
    small.ok(&["stop", "-t", "0", "full"]);
    assert_eq!(small.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "full"]), "exited 143");
    small.ok(&["rm", "full"]);
    small.sound();
    small.ok(&["run", "-d", "--name", "full", "--network", "none", "busybox", "sh", "-c", fill]);
    small.ok(&["exec", "full", "sh", "-c", "cat /dev/zero > /y 2>/dev/null; true"]);
    small.ok(&["rm", "-f", "full"]);
    small.sound();
}

#[test]
fn no_inode_is_left() {
    let small = Small::new(64, 800);
    let fill = "i=0; while touch /f$i; do i=$((i+1)); done 2>/dev/null; exit 4";
    let run = small.run(&["run", "--name", "full", "--network", "none", "busybox", "sh", "-c", fill]);
    assert_eq!(run.code, Some(4), "{}", run.err);
    let error = small.finds_no_room(&["create", "--name", "other", "--network", "none", "busybox", "true"]);
    assert!(error.contains(" 0 inodes free") || error.contains("inodes free"), "{error}");
    small.ok(&["rm", "full"]);
    small.sound();
    small.ok(&["create", "--name", "other", "--network", "none", "busybox", "true"]);
}
