//! A full disk: the root on a small tmpfs. Whatever cannot be written fails with a clear error and leaves nothing; what
//! fills the disk can be ended and removed; then everything works again. Needs root.

mod busybox;
mod home;

use home::Home;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// An engine whose root has so many megabytes and inodes. The containers go first, then the mount.
struct Small {
    home: Home,
    _mount: Mount,
}

/// The root's file system.
struct Mount(PathBuf);

impl std::ops::Deref for Small {
    type Target = Home;
    fn deref(&self) -> &Home {
        &self.home
    }
}

impl Small {
    fn new(megabytes: u32, inodes: u32) -> Self {
        let home = Home::bare("full");
        let root = home.0.join("root");
        fs::create_dir_all(&root).unwrap();
        let options = format!("size={megabytes}m,nr_inodes={inodes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(&root).status().unwrap();
        assert!(mounted.success());
        let small = Self { home, _mount: Mount(root) };
        small.import(|_| {});
        small
    }
    /// A command that finds no room says what it could not write, and how much there is.
    fn finds_no_room(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert!(run.code != 0, "{args:?} found room: {}", run.out);
        assert!(run.err.contains("no space left on device"), "{args:?}: {}", run.err);
        let root = self.home.0.join("root");
        let told = format!("{} has ", root.display());
        assert!(run.err.contains(&told) && run.err.contains("inodes free"), "{args:?}: {}", run.err);
        run.err
    }
    fn sound(&self) {
        let found = self.run(&["doctor", "--verify"]);
        assert_eq!(found.code, 0, "{}{}", found.out, found.err);
        assert_eq!(self.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "works"]), "works");
    }
    /// Kilobytes in use.
    fn used(&self) -> u64 {
        let output =
            Command::new("df").args(["--output=used", "-k"]).arg(self.home.0.join("root")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[test]
fn what_does_not_fit_leaves_nothing() {
    let small = Small::new(12, 4000);
    let before = small.used();
    let rootfs = small.home.0.join("large");
    fs::create_dir_all(&rootfs).unwrap();
    fs::write(rootfs.join("blob"), vec![7u8; 20 << 20]).unwrap();
    let tar = small.home.0.join("large.tar");
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
    assert_eq!(run.code, 3, "{}", run.err);
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
fn a_record_that_has_grown_keeps_nobody_from_ending_it() {
    let small = Small::new(16, 4000);
    // What a probe prints goes into the container's record, until that has no room.
    let probe = "cat /long; echo >> /dev/shm/probes";
    let fill = "head -c 3500 /dev/zero | tr '\\0' x > /long; until [ -e /go ]; do usleep 10000; done; cat /dev/zero > /x; sleep 1000";
    small.ok(&[
        "run",
        "-d",
        "--name",
        "full",
        "--network",
        "none",
        "--health-cmd",
        probe,
        "--health-interval",
        "100ms",
        "busybox",
        "sh",
        "-c",
        fill,
    ]);
    small.ok(&["exec", "full", "sh", "-c", ": > /go; cat /dev/zero > /y 2>/dev/null; true"]);
    // Probes go on, and what they print has no room.
    let more = "n=$(wc -l < /dev/shm/probes); until [ $(wc -l < /dev/shm/probes) -gt $((n + 3)) ]; do usleep 10000; done";
    small.ok(&["exec", "full", "sh", "-c", more]);
    assert_eq!(small.ok(&["ps", "-a", "--format", "{{.Names}}"]), "full");
    small.ok(&["inspect", "full"]);
    small.ok(&["stop", "-t", "0", "full"]);
    small.ok(&["rm", "full"]);
    small.sound();
}

#[test]
fn no_inode_is_left() {
    let small = Small::new(64, 800);
    let fill = "i=0; while touch /f$i; do i=$((i+1)); done 2>/dev/null; exit 4";
    let run = small.run(&["run", "--name", "full", "--network", "none", "busybox", "sh", "-c", fill]);
    assert_eq!(run.code, 4, "{}", run.err);
    let error = small.finds_no_room(&["create", "--name", "other", "--network", "none", "busybox", "true"]);
    assert!(error.contains(" 0 inodes free") || error.contains("inodes free"), "{error}");
    small.ok(&["rm", "full"]);
    small.sound();
    small.ok(&["create", "--name", "other", "--network", "none", "busybox", "true"]);
}
