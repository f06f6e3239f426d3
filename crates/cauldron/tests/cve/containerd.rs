//! containerd's: shims, layers, and what comes back from a container.

use crate::archive::Tar;
use crate::machine::Machine;
use crate::{link, target};
use serde_json::json;
use std::fs;

fn descriptors(pid: u64) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn cve_2020_15257() {
    // A socket without a file is everybody's who shares the network.
    let machine = Machine::new();
    let script = "echo ready; exec sleep 1000";
    machine.ok(&["run", "-d", "--name", "one", "--net", "host", "busybox", "sh", "-c", script]);
    machine.ok(&["run", "-d", "--name", "two", "busybox", "sh", "-c", script]);
    for name in ["one", "two"] {
        let sockets = machine.ok(&["exec", name, "cat", "/proc/net/unix"]);
        assert!(!sockets.contains('@'), "{name}: {sockets}");
    }
}

#[test]
fn cve_2021_32760() {
    // The mode of a member is given to what another one links to.
    let target = target(|_, _| {});
    let canary = format!("{}/canary", target.outside());
    for archive in [
        Tar::default().link("x", &canary).add(b'1', "y", "x", 0o777, b""),
        Tar::default().link("x", &canary).add(b'0', "x", "", 0o777, b"").add(b'2', "x", &canary, 0o777, b""),
        Tar::default().link("d", target.outside()).add(b'5', "d", "", 0o777, b""),
        Tar::default().add(b'1', "y", &canary, 0o777, b""),
    ] {
        let path = target.write("layer.tar", &archive.end());
        target.run(&["import", &path, "evil"]);
        target.unharmed();
    }
}

#[test]
fn cve_2022_23471() {
    // A terminal that is resized, of a process that never came to be, stays for ever.
    let target = target(|_, _| {});
    target.start("one", &["-t"], &["sleep", "1000"]);
    let monitor = target.monitor_of("one");
    target.ok(&["exec", "-t", "one", "true"]);
    let before = descriptors(monitor);
    for _ in 0..30 {
        assert_eq!(target.run(&["exec", "-t", "one", "/no/such/program"]).code, 127);
    }
    assert_eq!(descriptors(monitor), before);
}

#[test]
fn cve_2022_23648() {
    // The image's volume is filled with what lies there on the host.
    let target = target(|root, outside| {
        fs::create_dir(root.join("plain")).unwrap();
        link(outside, root.join("plain/out"));
        link(outside, root.join("out"));
    });
    let up = format!("/../../../../../../../..{}", target.outside());
    for place in [up.as_str(), target.outside(), "/out", "/plain"] {
        let mut volumes = serde_json::Map::new();
        volumes.insert(place.to_owned(), json!({}));
        target.image("evil", json!({ "Volumes": volumes, "Cmd": ["sh", "-c", format!("cat {place}/canary {place}/out/canary")] }));
        let run = target.run(&["run", "--rm", "--network", "none", "evil"]);
        assert!(!run.out.contains("host's"), "{place}: {}", run.out);
        target.ok(&["create", "--name", "kept", "--network", "none", "evil"]);
        target.run(&["start", "-a", "kept"]);
        let found = std::process::Command::new("grep")
            .args(["-rl", "host's", &target.path("root/volumes")])
            .output()
            .unwrap();
        assert!(found.stdout.is_empty(), "{place}: {}", String::from_utf8_lossy(&found.stdout));
        target.ok(&["rm", "-f", "-v", "kept"]);
    }
    target.unharmed();
}

#[test]
fn cve_2023_25153() {
    // A document of an archive that is as large as it likes.
    let target = target(|_, _| {});
    let huge = vec![b' '; 9 << 20];
    for name in ["index.json", "manifest.json"] {
        let archive = Tar::default().file("oci-layout", b"{}").file(name, &huge).end();
        let run = target.run(&["load", "-i", &target.write("a.tar", &archive)]);
        assert!(run.code == 1 && run.err.contains("longer than 8388608 bytes"), "{name}: {}", run.err);
    }
    let manifest = vec![b' '; 5 << 20];
    let entry = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.len(),
        "digest": format!("sha256:{}", target.sha256(&manifest)) });
    let archive = target.layout(&json!({ "schemaVersion": 2, "manifests": [entry] }), &[manifest]);
    let run = target.run(&["load", "-i", &archive]);
    assert!(run.code == 1 && run.err.contains("4194304"), "{}", run.err);
}

#[test]
fn cve_2023_25173() {
    // What is denied to a group is open to who has the group by exec or by the image.
    let target = target(|root, _| {
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n").unwrap();
    });
    let script = "echo secret > /f; chgrp 1000 /f; chmod 604 /f; exec sleep 1000";
    target.start("one", &[], &["sh", "-c", script]);
    target.ok(&["exec", "one", "sh", "-c", "until [ $(stat -c %a /f) = 604 ]; do usleep 1000; done"]);
    assert_eq!(target.ok(&["exec", "-u", "1001:1001", "one", "cat", "/f"]), "secret");
    for user in ["app", "1000", "1001:app", "1001:1000"] {
        assert_ne!(target.run(&["exec", "-u", user, "one", "cat", "/f"]).code, 0, "{user}");
    }
}

#[test]
fn cve_2024_25621() {
    // Directories of the engine's are made as the umask has it.
    let target = target(|_, _| {});
    target.start("one", &["-v", "data:/data"], &["sleep", "1000"]);
    for root in ["root", "run"] {
        let open = std::process::Command::new("find")
            .args([&target.path(root), "-mindepth", "0", "-maxdepth", "1", "-type", "d", "-perm", "/077"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&open.stdout), "");
    }
}

#[test]
fn cve_2024_40635() {
    // A user's number that is root when it is cut off to 32 bits.
    let target = target(|root, _| {
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nwide:x:4294967296:0::/:/bin/sh\nminus:x:4294967295:4294967295::/:/bin/sh\n").unwrap();
    });
    for user in [
        "4294967296",
        "4294967296:4294967296",
        "2147483648",
        "4294967295",
        "18446744073709551616",
        "1:4294967296",
        "wide",
        "minus",
        "-1",
    ] {
        let run = target.sh(&[&format!("--user={user}")], "id -u");
        assert!(run.code >= 125 && run.out.is_empty(), "{user}: {} {}{}", run.code, run.out, run.err);
        target.image("evil", json!({ "User": user, "Cmd": ["id", "-u"] }));
        let run = target.run(&["run", "--rm", "--network", "none", "evil"]);
        assert!(run.code >= 125 && run.out.is_empty(), "{user}: {} {}{}", run.code, run.out, run.err);
        assert_ne!(target.build(&format!("FROM busybox\nUSER {user}\nRUN id -u\n")).code, 0, "{user}");
    }
    assert_eq!(target.said(&["-u", "2147483647"], "id -u"), "2147483647");
}

#[test]
fn cve_2025_47290() {
    // A directory that one member, or one layer, makes is a link when the next is unpacked through it.
    let target = target(|_, _| {});
    let out = target.outside().to_owned();
    let base = fs::read(target.0.join("busybox.tar")).unwrap();
    let layers = [
        vec![
            Tar::default().dir("a").dir("a/b").end(),
            Tar::default().link("a", &out).file("a/evil", b"x").end(),
        ],
        vec![
            Tar::default().link("a", &out).end(),
            Tar::default().file("a/evil", b"x").file("a/canary", b"x").end(),
        ],
        vec![
            Tar::default()
                .dir("a")
                .file("a/.wh..wh..opq", b"")
                .link("a", &out)
                .file("a/.wh.canary", b"")
                .end(),
        ],
        vec![
            Tar::default().link("a", &out).end(),
            Tar::default().file("a/.wh.canary", b"").file("a/.wh..wh..opq", b"").end(),
        ],
    ];
    for (number, mut upper) in layers.into_iter().enumerate() {
        upper.insert(0, base.clone());
        let archive = target.saved(&format!("evil:{number}"), json!({}), &upper);
        target.run(&["load", "-i", archive.to_str().unwrap()]);
        target.run(&["run", "--rm", "--network", "none", &format!("evil:{number}"), "true"]);
        target.unharmed();
    }
}

#[test]
fn cve_2025_64329() {
    // Clients that attach and go away stay in the memory of who served them.
    let target = target(|_, _| {});
    target.start("one", &["-i"], &["sleep", "1000"]);
    let monitor = target.monitor_of("one");
    let clients = |count: usize| {
        let going: Vec<_> = (0..count).map(|_| target.going(&["attach", "--no-stdin", "one"])).collect();
        crate::machine::eventually(|| (descriptors(monitor) >= count).then_some(()));
        drop(going);
    };
    let before = descriptors(monitor);
    for _ in 0..4 {
        clients(8);
        crate::machine::eventually(|| (descriptors(monitor) <= before).then_some(()));
    }
}
