//! A machine that loses its power. Of what nobody waited for, names of files may be left without content, or nothing at all;
//! what is left opens, and `doctor` mends it. What a command said is done is there and whole: the root lies on a file system in
//! a file, and a copy of that file has what was on the disk, and not what was on its way there. Needs root and loop devices.

mod busybox;
mod home;

use home::Home;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn files_that_lost_their_content_stop_nobody() {
    let home = Home::new("power", |_| {});
    home.ok(&["tag", "busybox", "other"]);
    home.ok(&["create", "--name", "one", "--network", "none", "-v", "/anonymous", "busybox", "true"]);
    let id = home.ok(&["inspect", "-f", "{{.Id}}", "one"]);
    let volume = home.ok(&["volume", "ls", "-q"]);
    let tag = home.0.join("root/tags/docker.io+library+other:latest");
    for lost in
        [tag, home.0.join("root/names/one"), home.0.join("root/volumes").join(&volume).join("volume.json")]
    {
        fs::metadata(&lost).unwrap();
        fs::write(lost, "").unwrap();
    }
    assert_eq!(home.ok(&["images", "--format", "{{.Repository}}"]), "busybox");
    assert_eq!(home.ok(&["volume", "ls", "-q"]), volume);
    assert_eq!(home.ok(&["ps", "-aq", "--no-trunc"]), id);
    home.ok(&["start", "-a", &id]);
    home.ok(&["run", "--rm", "--network", "none", "busybox", "true"]);
    // The names are free.
    home.ok(&["create", "--name", "one", "--network", "none", "busybox", "true"]);
    home.ok(&["tag", "busybox", "other"]);
    assert_eq!(home.run(&["doctor", "--fix"]).code, 0);
    assert_eq!(home.run(&["doctor", "--verify"]).code, 0);
    home.ok(&["rm", "-v", &id]);
    assert_eq!(home.ok(&["volume", "ls", "-q"]), "");
}

/// An engine whose root lies on a disk of its own, which writes nothing that is not waited for.
struct Disk {
    home: Home,
    root: Mounted,
    cuts: Cell<u32>,
}

/// A mounted file system.
struct Mounted(PathBuf);

fn sh(command: &str, args: &[&str], path: &Path) {
    let output = Command::new(command).args(args).arg(path).output().unwrap();
    assert!(output.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Mounted {
    fn new(file: &str, options: &str, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        sh("mount", &["-t", "ext4", "-o", &format!("loop,{options}"), file], &at);
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        sh("umount", &["-l"], &self.0);
    }
}

impl Disk {
    fn new() -> Self {
        let home = Home::bare("cut");
        let file = home.path("disk");
        fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
        sh("mkfs.ext4", &["-q"], Path::new(&file));
        // As a disk may do, and this file system for a while: nothing is written early.
        let root = Mounted::new(&file, "commit=1000,noauto_da_alloc", home.0.join("root"));
        let disk = Self { home, root, cuts: Cell::new(0) };
        sh("sync", &["-f"], &disk.root.0);
        disk
    }
    /// What is on the disk now, after a boot. A file of another name each time: a loop device may still have the last one.
    fn cut(&self, look: impl FnOnce(&Home)) {
        self.cuts.set(self.cuts.get() + 1);
        let copy = self.home.path(&format!("disk.{}", self.cuts.get()));
        sh("cp", &["--sparse=always", &self.home.path("disk")], Path::new(&copy));
        let after = Home::bare("boot");
        let mounted = Mounted::new(&copy, "noatime", after.0.join("root"));
        look(&after);
        assert_eq!(after.run(&["doctor", "--fix"]).code, 0);
        let found = after.run(&["doctor", "--verify"]);
        assert_eq!(found.code, 0, "{}{}", found.out, found.err);
        for id in after.ok(&["ps", "-aq"]).lines() {
            after.ok(&["rm", "-f", id]);
        }
        drop(mounted);
        fs::remove_file(copy).unwrap();
    }
}

#[test]
fn what_was_acknowledged_is_on_the_disk() {
    let disk = Disk::new();
    let home = &disk.home;
    let none = ["--network", "none"];
    home.import(|root| {
        fs::create_dir(root.join("data")).unwrap();
        fs::write(root.join("data/seed"), "from the image\n").unwrap();
    });
    disk.cut(|after| {
        assert_eq!(
            after.ok(&["run", "--rm", "--network", "none", "busybox", "cat", "/data/seed"]),
            "from the image"
        );
    });
    home.ok(&["tag", "busybox", "other:1"]);
    home.ok(&["volume", "create", "vol"]);
    home.ok(&["task", "create", "job", "--network", "none", "busybox", "true"]);
    disk.cut(|after| {
        assert_eq!(after.ok(&["images", "-q", "other"]).lines().count(), 1);
        assert_eq!(after.ok(&["volume", "ls", "-q"]), "vol");
        assert!(after.ok(&["task", "ls"]).contains("job"));
    });
    home.ok(&["network", "create", "net"]);
    disk.cut(|after| assert!(after.ok(&["network", "ls"]).contains(" net ")));
    let shell = "echo made > /made; exit 3";
    let create = ["create", "--name", "one", "-v", "seeded:/data", "busybox", "sh", "-c", shell];
    home.ok(&[&create[..1], &none, &create[1..]].concat());
    home.ok(&["task", "run", "--quiet", "job"]);
    disk.cut(|after| {
        assert_eq!(after.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "one created");
        assert_eq!(after.run(&["start", "-a", "one"]).code, 3);
        assert_eq!(after.ok(&["task", "history", "job", "--format", "{{.status}}"]), "ok");
    });
    home.run(&["start", "-a", "one"]);
    disk.cut(|after| {
        assert_eq!(after.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one"]), "exited 3");
        let seed = ["-v", "seeded:/d", "busybox", "cat", "/d/seed"];
        assert_eq!(after.ok(&[&["run", "--rm"], &none[..], &seed].concat()), "from the image");
    });
    home.ok(&["commit", "one", "made:1"]);
    home.ok(&["rename", "one", "two"]);
    disk.cut(|after| {
        assert_eq!(after.ok(&[&["run", "--rm"], &none[..], &["made:1", "cat", "/made"]].concat()), "made");
        assert_eq!(after.ok(&["ps", "-a", "--format", "{{.Names}}"]), "two");
        after.ok(&[&["create", "--name", "one"], &none[..], &["busybox", "true"]].concat());
    });
    home.ok(&[
        &["run", "-d", "--name", "up", "--restart", "unless-stopped"],
        &none[..],
        &["busybox", "sleep", "1000"],
    ]
    .concat());
    disk.cut(|after| {
        after.ok(&["system", "restore"]);
        assert_eq!(after.ok(&["ps", "--format", "{{.Names}}"]), "up");
    });
    home.ok(&["stop", "-t", "0", "up"]);
    disk.cut(|after| {
        after.ok(&["system", "restore"]);
        assert_eq!(after.ok(&["ps", "--format", "{{.Names}}"]), "");
    });
    // What was removed does not come back.
    home.ok(&["rm", "two", "up"]);
    home.ok(&["volume", "rm", "vol", "seeded"]);
    home.ok(&["network", "rm", "net"]);
    home.ok(&["task", "rm", "job"]);
    home.ok(&["rmi", "other:1", "made:1"]);
    disk.cut(|after| {
        assert_eq!(after.ok(&["ps", "-aq"]), "");
        assert_eq!(after.ok(&["volume", "ls", "-q"]), "");
        assert!(!after.ok(&["network", "ls"]).contains(" net "));
        assert!(!after.ok(&["task", "ls"]).contains("job"));
        assert_eq!(after.ok(&["images", "-a", "--format", "{{.Repository}}"]), "busybox");
    });
}

#[test]
fn a_change_that_the_power_cut_short_is_there_or_not() {
    let disk = Disk::new();
    let home = &disk.home;
    home.import(|_| {});
    home.ok(&["save", "-o", &home.path("saved.tar"), "busybox"]);
    home.ok(&["volume", "create", "kept"]);
    let saved = home.path("saved.tar");
    let points = [
        (vec!["import", "busybox.tar", "new"], vec!["layer: unpacked", "layer: named", "blob: named"]),
        (
            vec!["create", "--name", "new", "--network", "none", "busybox", "true"],
            vec!["create: name taken", "create: specification written"],
        ),
        (vec!["rm", "-f", "old"], vec!["remove: in the trash"]),
        (
            vec!["rmi", "-f", "busybox"],
            vec!["tag: removed", "image: removed", "layer: in the trash", "blob: removed"],
        ),
    ];
    for (command, names) in &points {
        for name in names {
            if command[0] == "rm" {
                home.ok(&["create", "--name", "old", "--network", "none", "busybox", "true"]);
            }
            let killed = home.command(command).env("CAULDRON_FAILPOINT", name).output().unwrap();
            assert_eq!(killed.status.code(), None, "{name} is not passed by {command:?}");
            disk.cut(|after| {
                after.ok(&["ps", "-a"]);
                after.ok(&["images", "-a"]);
                assert_eq!(after.ok(&["volume", "ls", "-q"]), "kept", "{name}");
                // The same again makes whole what was torn.
                after.ok(&["load", "-i", &saved]);
                after.ok(&["run", "--rm", "--network", "none", "busybox", "true"]);
                let new = ["create", "--name", "new", "--network", "none", "busybox", "true"];
                assert!([0, 1].contains(&after.run(&new).code), "{name}");
            });
            home.run(&["rm", "-f", "new", "old"]);
            home.run(&["rmi", "-f", "new"]);
            home.ok(&["load", "-i", &saved]);
        }
    }
}
