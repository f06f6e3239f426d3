//! Many processes on one store, and one that is stopped while it holds a lock. Needs root, as the engine does.

mod busybox;
mod home;

use home::Home;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

#[test]
fn two_hundred_at_once() {
    let home = Home::new("locks", |_| {});
    let spawn = |args: &[&str]| {
        let mut command = home.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut all = Vec::new();
    for number in 0..40 {
        let (name, tag) = (format!("c{number}"), format!("tag:{}", number % 8));
        all.push(spawn(&["ps", "-a"]));
        all.push(spawn(&["images"]));
        all.push(spawn(&["tag", "busybox", &tag]));
        all.push(spawn(&[
            "create",
            "--name",
            &name,
            "--network",
            "none",
            "-v",
            "shared:/v",
            "busybox",
            "true",
        ]));
        all.push(spawn(&["run", "--rm", "--network", "none", "busybox", "true"]));
    }
    let ends = |all: Vec<std::process::Child>| {
        for child in all {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    };
    ends(all);
    assert_eq!(home.ok(&["ps", "-aq"]).lines().count(), 40);
    assert_eq!(home.ok(&["images", "--format", "{{.Tag}}", "tag"]).lines().count(), 8);
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    ends(
        names.iter().map(|name| spawn(&["rm", name])).chain((0..40).map(|_| spawn(&["ps", "-a"]))).collect(),
    );
    assert_eq!(home.ok(&["ps", "-aq"]), "");
    assert_eq!(home.run(&["doctor"]).code, 0);
}

#[test]
fn a_stopped_holder_is_named_and_blocks_nobody_for_ever() {
    let home = Home::new("locks", |_| {});
    let lock = home.path("run/locks/images");
    // It echoes one line, so that it is known to have the lock.
    let mut holder = Command::new("flock");
    holder.args(["-o", &lock, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut line = [0; 2];
    holder.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    let process = rustix::process::Pid::from_child(&holder);
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    let pid = holder.id();
    // Who only reads waits for nobody.
    assert_eq!(home.ok(&["images", "-q"]).lines().count(), 1);
    home.ok(&["run", "--rm", "--network", "none", "busybox", "true"]);
    let run = home.run(&["tag", "busybox", "other"]);
    let said = format!("continue it (kill -CONT {pid}) or end it");
    assert!(
        run.code == 1 && run.err.contains("lock the images: process") && run.err.contains(&said),
        "{}",
        run.err
    );
    // Once it goes on, so does everybody.
    let waiting = home.command(&["tag", "busybox", "other"]).spawn().unwrap();
    drop(holder.stdin.take());
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    assert!(waiting.wait_with_output().unwrap().status.success());
    holder.wait().unwrap();
    assert_eq!(home.ok(&["images", "-q", "other"]).lines().count(), 1);
}
