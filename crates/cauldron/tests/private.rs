//! All that the engine keeps is root's alone, whatever the umask it was started with. Needs root, as the engine does.

mod busybox;
mod home;

use home::Home;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What lies below here belongs to images, containers and volumes, and has the modes that they gave it; nobody else gets there.
const THEIRS: [&str; 6] = ["diff", "upper", "_data", "mountpoints", "work", "mounts"];
/// What every process of the container reads: shown there as it is.
const SHOWN: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

fn look(path: &Path, open: &mut Vec<String>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.file_type().is_symlink() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        if metadata.mode() & 0o077 != 0 && !THEIRS.contains(&name.as_str()) && !SHOWN.contains(&name.as_str())
        {
            open.push(format!("{:o} {}", metadata.mode() & 0o7777, entry.path().display()));
        }
        if metadata.is_dir() && !THEIRS.contains(&name.as_str()) {
            look(&entry.path(), open);
        }
    }
}

fn tour(umask: &str) {
    let home = Home::bare("private");
    let tar = busybox::archive(&home.0, |_| {});
    let file = home.path("a-file");
    fs::write(&file, "x").unwrap();
    fs::create_dir(home.0.join("context")).unwrap();
    fs::write(
        home.0.join("context/Dockerfile"),
        "FROM busybox\nRUN --mount=type=cache,target=/c touch /c/x /f\nCOPY . /d\n",
    )
    .unwrap();
    let saved = home.path("saved.tar");
    for args in [
        &["import", tar.to_str().unwrap(), "busybox"][..],
        &["save", "-o", &saved, "busybox"],
        &["load", "-q", "-i", &saved],
        &["build", "-q", "--network", "none", "-t", "built", &home.path("context")],
        &["volume", "create", "data"],
        &["network", "create", "net"],
        &[
            "run",
            "-d",
            "--name",
            "one",
            "--network",
            "none",
            "-v",
            "data:/data",
            "-v",
            "/anonymous",
            "--health-cmd",
            "true",
            "busybox",
            "sh",
            "-c",
            "echo said; exec sleep 1000",
        ],
        &["exec", "one", "touch", "/data/f"],
        &["exec", "-d", "one", "sleep", "1000"],
        &["cp", &file, "one:/tmp/"],
        &["commit", "one", "committed"],
        &["create", "--name", "two", "busybox", "true"],
        &["rename", "two", "three"],
        &["logs", "one"],
        &["task", "create", "--name", "t", "--", "busybox", "true"],
        &["events", "--since", "1", "--until", "2"],
    ] {
        let args: Vec<&str> = args.to_vec();
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_cauldron")])
            .args(&args);
        command.env("CAULDRON_ROOT", home.path("root")).env("CAULDRON_RUN_ROOT", home.path("run"));
        let run = home::Run::of(command.output().unwrap());
        // What a task needs is said by another test.
        assert!(run.code == 0 || args[0] == "task", "{args:?}: {}", run.err);
    }
    let mut open = Vec::new();
    for root in ["root", "run"] {
        let mode = fs::metadata(home.0.join(root)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{root}: {mode:o}");
        look(&home.0.join(root), &mut open);
    }
    assert!(open.is_empty(), "umask {umask}:\n{}", open.join("\n"));
}

#[test]
fn with_the_widest_umask() {
    tour("000");
}

#[test]
fn with_the_usual_umask() {
    tour("022");
}

#[test]
fn with_the_narrowest_umask() {
    tour("077");
}
