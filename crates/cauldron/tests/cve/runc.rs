//! runc's: the first process of a container, and what it mounts, follows and holds.

use crate::{armed, link, status, target};
use std::fs;
use std::process::Command;

/// Directories and files are swapped by links, as fast as it goes, while containers start.
const RACES: usize = 12;

#[test]
fn cve_2016_9962() {
    // A container's process looks at what comes in by exec, before it has become the program.
    let target = armed(|_, _| {});
    target.start("spy", &[], &["sh", "-c", "exec attack watch > /seen"]);
    target.ok(&["exec", "spy", "sh", "-c", "until grep -q ready /seen; do usleep 1000; done"]);
    for _ in 0..15 {
        target.ok(&["exec", "spy", "true"]);
        target.ok(&["exec", "-u", "1000", "-w", "/tmp", "spy", "true"]);
    }
    let seen = target.ok(&["exec", "spy", "sort", "-u", "/seen"]);
    let others = seen.lines().filter(|line| line.starts_with("closed ") && *line != "closed 1");
    assert!(others.count() > 0, "it saw nobody come");
    for line in seen.lines() {
        let of_the_hosts = line.contains("cauldron") || line.contains(target.0.to_str().unwrap());
        assert!(!of_the_hosts, "{line}");
    }
    target.unharmed();
}

#[test]
fn cve_2019_5736() {
    // The engine's own binary, reached as /proc/self/exe, is run or overwritten from inside. It is a copy: should the
    // attack succeed, nothing else breaks.
    let target = armed(|root, _| {
        link("/proc/self/exe", root.join("bin/self"));
        for (name, first) in [("script", "#!/proc/self/exe\n"), ("second", "#!/bin/self\n")] {
            fs::write(root.join("bin").join(name), first).unwrap();
            Command::new("chmod").arg("755").arg(root.join("bin").join(name)).status().unwrap();
        }
    });
    let binary = target.path("cauldron");
    fs::copy(env!("CARGO_BIN_EXE_cauldron"), &binary).unwrap();
    let cauldron = |args: &[&str]| {
        let (root, run) = (target.path("root"), target.path("run"));
        let mut command = Command::new(&binary);
        command.args(args).env("CAULDRON_ROOT", root).env("CAULDRON_RUN_ROOT", run);
        crate::Run::of(command.output().unwrap())
    };
    let before = fs::read(&binary).unwrap();
    let spy = ["run", "-d", "--name", "spy", "--network", "none", "--cap-add", "SYS_PTRACE", "busybox"];
    let watch = ["sh", "-c", "exec attack watch write > /seen"];
    assert_eq!(cauldron(&[&spy[..], &watch[..]].concat()).code, 0);
    for program in ["/proc/self/exe", "/bin/self", "/bin/script", "/bin/second"] {
        let run = cauldron(&["run", "--rm", "--network", "none", "busybox", program, "version"]);
        let refused = run.code >= 125 && !run.out.contains("Version");
        assert!(refused, "{program}: {} {}{}", run.code, run.out, run.err);
        let run = cauldron(&["exec", "spy", program, "version"]);
        let refused = run.code >= 125 && !run.out.contains("Version");
        assert!(refused, "{program}: {} {}{}", run.code, run.out, run.err);
    }
    for _ in 0..10 {
        assert_eq!(cauldron(&["exec", "spy", "true"]).code, 0);
    }
    let seen = cauldron(&["exec", "spy", "cat", "/seen"]).out;
    assert!(seen.contains("ready") && !seen.contains("writ"), "{seen}");
    cauldron(&["rm", "-f", "spy"]);
    assert!(fs::read(&binary).unwrap() == before, "the binary was changed");
}

#[test]
fn cve_2019_16884() {
    // A volume of the image's in place of /proc: security attributes are then written to a plain file.
    let target = target(|_, _| {});
    target.image("evil", serde_json::json!({ "Volumes": { "/proc": {} }, "Cmd": ["echo", "started"] }));
    let run = target.run(&["run", "--rm", "--network", "none", "evil"]);
    assert!(run.code >= 125 && run.out.is_empty(), "{}{}", run.out, run.err);
    let reason = "\"/proc\" cannot be mounted because it is not of type proc";
    assert!(run.err.contains(reason), "{}", run.err);
    target.refused(&["-v", "fake:/proc"], reason);
    target.refused(&["-v", &format!("{}:/proc", target.outside())], reason);
    target.refused(&["--tmpfs", "/proc"], reason);
    target.refused(&["-v", "fake:/proc/self/attr"], "inside /proc");
    target.refused(&["--tmpfs", "/proc/self"], "inside /proc");
}

#[test]
fn cve_2019_19921() {
    // /proc of the image is a link: procfs would appear where the link leads.
    let target = target(|root, _| link("/tmp/elsewhere", root.join("proc")));
    target.refused(&[], "/proc is a symbolic link in the image");
    target.unharmed();
}

#[test]
fn cve_2021_30465() {
    // The place that a volume is mounted on is swapped for a link to the host's directory meanwhile.
    let target = armed(|_, _| {});
    target.volume("shared", "mkdir -p a/in && ln -s $OUTSIDE b && mkdir a/out && ln -s / a/out/root");
    target.volume("other", "echo other > file");
    target.start("swapper", &["-v", "shared:/v"], &["attack", "swap", "/v/a", "/v/b"]);
    for _ in 0..RACES {
        let run =
            target.sh(&["-v", "shared:/v", "-v", "other:/v/a/in"], &format!("cat {}/*", target.outside()));
        assert!(!run.out.contains(crate::CANARY.trim_end()), "{}", run.out);
        target.unharmed();
    }
    assert_eq!(target.ok(&["inspect", "-f", "{{.State.Status}}", "swapper"]), "running");
}

#[test]
fn cve_2021_43784() {
    // Lengths that do not fit where they are written down: the rest is read as something else.
    let target = target(|_, _| {});
    let text = r#""],"capabilities":["CAP_SYS_ADMIN"],"x":[""#.repeat(1600);
    assert!(text.len() > 65_536);
    let long = format!("LONG={text}");
    let script = format!("printf %s \"$LONG\" | md5sum | cut -c-32; {}", status("CapEff"));
    let plain = target.0.join("plain");
    fs::write(&plain, &text).unwrap();
    let sum = Command::new("md5sum").arg(&plain).output().unwrap().stdout;
    let sum = String::from_utf8_lossy(&sum[..32]).into_owned();
    assert_eq!(target.said(&["-e", &long], &script), format!("{sum}\nCapEff:00000000a80425fb"));
    let path = format!("vol:/{}", "d/".repeat(3000));
    target.refused(&["-v", &path], "");
    let hostname = "h".repeat(70_000);
    target.refused(&["--hostname", &hostname], "");
}

#[test]
fn cve_2022_24769() {
    // Capabilities stay inheritable: a program of the image's with file capabilities gets them back.
    let target = target(|_, _| {});
    for options in [&[][..], &["-u", "1000"], &["--cap-add", "SYS_ADMIN", "-u", "1000"], &["--privileged"]] {
        assert_eq!(target.said(options, &status("CapInh")), "CapInh:0000000000000000", "{options:?}");
    }
}

#[test]
fn cve_2022_29162() {
    // The same through exec.
    let target = target(|_, _| {});
    target.start("one", &[], &["sleep", "1000"]);
    for options in [&[][..], &["-u", "1000"], &["--privileged"], &["--privileged", "-u", "1000"]] {
        let script = format!("{}; {}", status("CapInh"), status("CapAmb"));
        let args = [&["exec"], options, &["one", "sh", "-c", &script]].concat();
        assert_eq!(target.ok(&args), "CapInh:0000000000000000CapAmb:0000000000000000", "{options:?}");
    }
}

#[test]
fn cve_2023_25809() {
    // The cgroups of the host are writable in the container.
    let target = target(|_, _| {});
    let script = "for dir in $(find /sys/fs/cgroup -type d); do mkdir $dir/evil 2>/dev/null && echo $dir; \
        for file in cgroup.procs tasks notify_on_release; do \
        [ -e $dir/$file ] && echo 0 2>/dev/null > $dir/$file && echo $dir/$file; done; done; true";
    assert_eq!(target.said(&[], script), "");
    assert_eq!(target.said(&["--cgroupns", "host"], script), "");
}

#[test]
fn cve_2023_27561() {
    // /proc and /sys of the image are links into each other.
    for (name, to) in [("proc", "/sys"), ("sys", "/proc"), ("proc", "../../../../proc/1")] {
        let target = target(|root, _| link(to, root.join(name)));
        let run = target.sh(&[], "echo started");
        assert!(run.code >= 125 && run.out.is_empty(), "{name}: {}", run.out);
    }
}

#[test]
fn cve_2023_28642() {
    // A link to /proc elsewhere in the image is what is mounted on.
    let target = target(|root, _| {
        link("/proc", root.join("lies"));
        link("/proc/sys", root.join("more"));
    });
    target.refused(&["-v", "fake:/lies"], "inside /proc");
    target.refused(&["-v", "fake:/lies/self/attr"], "inside /proc");
    target.refused(&["--tmpfs", "/more/kernel"], "inside /proc");
}

#[test]
fn cve_2024_21626() {
    // The working directory is a descriptor that leads to the host.
    let target = target(|_, _| {});
    target.start("one", &[], &["sleep", "1000"]);
    let up = "../".repeat(12);
    let look = format!("cat {up}{}/canary", &target.outside()[1..]);
    let leaks = |run: crate::Run| {
        let harmless = !run.out.contains("host's");
        assert!(harmless && (run.code != 0 || run.out.is_empty()), "{} {}{}", run.code, run.out, run.err);
    };
    for number in 0..14 {
        let dir = format!("/proc/self/fd/{number}");
        leaks(target.sh(&["-w", &dir], &look));
        leaks(target.run(&["exec", "-w", &dir, "one", "sh", "-c", &look]));
        leaks(target.run(&["exec", "-w", &format!("/proc/1/fd/{number}"), "one", "sh", "-c", &look]));
    }
    for dir in ["/proc/self/fd/7", "/proc/self/fd/8/../../..", "/proc/1/cwd/../.."] {
        target.image("evil", serde_json::json!({ "WorkingDir": dir, "Cmd": ["sh", "-c", look] }));
        leaks(target.run(&["run", "--rm", "--network", "none", "evil"]));
        leaks(target.build(&format!("FROM busybox\nWORKDIR {dir}\nRUN {look} && false\n")));
    }
    target.unharmed();
}

#[test]
fn cve_2024_45310() {
    // The engine makes the place that it mounts on, on the host.
    let target = armed(|root, outside| {
        link(outside, root.join("out"));
        link(format!("../../../../../../../..{}", outside.display()), root.join("up"));
    });
    target.volume("shared", "mkdir a && ln -s $OUTSIDE b && ln -s $OUTSIDE/file c");
    for place in ["/out/new", "/up/new/deep", "/v/b/new", "/v/b/new/deep"] {
        let run = target.sh(&["-v", "shared:/v", "-v", &format!("other:{place}")], "true");
        assert!(run.code == 0 || run.code >= 125, "{place}: {}", run.err);
        target.unharmed();
    }
    let file = target.write("a-file", b"x");
    target.sh(&["-v", "shared:/v", "-v", &format!("{file}:/v/c")], "true");
    target.unharmed();
    target.start("swapper", &["-v", "shared:/v"], &["attack", "swap", "/v/a", "/v/b"]);
    for number in 0..RACES {
        target.sh(&["-v", "shared:/v", "-v", &format!("other:/v/a/new{number}")], "true");
    }
    target.unharmed();
}

#[test]
fn cve_2025_31133() {
    // /dev/null of the container, with which paths are masked, is a link to what shall be writable.
    let target = target(|_, _| {});
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    target.volume("dev", "ln -s /proc/sys/kernel/core_pattern null");
    target.refused(&["-v", "dev:/dev"], "/dev/null");
    target.volume("plain", ": > null; mkdir pts shm mqueue");
    target.refused(&["-v", "plain:/dev"], "/dev/null of the container is not the null device");
    // And the masks are there at all.
    assert_eq!(target.said(&[], "head -c 1 /proc/kcore | wc -c; head -c 1 /proc/timer_list | wc -c"), "0\n0");
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
}

#[test]
fn cve_2025_52565() {
    // The terminal is mounted on /dev/console, which is a link into procfs.
    let target = target(|_, _| {});
    for script in [
        "ln -s /proc/sys/kernel/core_pattern console; mknod null c 1 3; mkdir pts shm mqueue",
        "mkdir pts shm mqueue; mknod null c 1 3; ln -s /proc/sysrq-trigger pts/ptmx",
    ] {
        target.volume("dev", &format!("rm -rf *; {script}"));
        let look = "mount | grep -c -e core_pattern -e 'sysrq-trigger.*devpts'; \
            echo x 2>/dev/null > /proc/sys/kernel/core_pattern && echo written";
        let run = target.sh(&["-t", "-v", "dev:/dev"], look);
        assert!(run.code >= 125 || run.out.trim() == "0", "{} {}{}", run.code, run.out, run.err);
    }
    target.unharmed();
}

#[test]
fn cve_2025_52881() {
    // What the engine writes to procfs goes to another file of it, or to a fake one.
    let target = target(|root, _| link("/proc/sys/kernel", root.join("kernel")));
    let sysctl = ["--sysctl", "kernel.shm_rmid_forced=1"];
    for place in ["/proc/sys", "/proc/sys/kernel", "/proc/self", "/proc/thread-self/attr", "/kernel"] {
        let fake = format!("fake:{place}");
        target.refused(&[&sysctl[..], &["-v", &fake]].concat(), "inside /proc");
        target.refused(&[&sysctl[..], &["--tmpfs", place]].concat(), "inside /proc");
    }
    let read = target.said(&sysctl, "cat /proc/sys/kernel/shm_rmid_forced");
    assert_eq!(read, "1");
}
