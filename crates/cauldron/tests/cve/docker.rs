//! Docker's: what images, archives and file names make the engine do.

use crate::archive::Tar;
use crate::machine::{Machine, eventually};
use crate::served::{Place, ask};
use crate::{armed, link, status, target};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const RACES: usize = 12;

#[test]
fn cve_2014_3499() {
    // Whoever is on the machine may speak to the engine.
    let place = Place::new();
    let socket = place.path("s.sock");
    let mut command = place.command("sh");
    let host = format!("unix://{}", socket.display());
    command.args(["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_cauldron"), "serve", "-H", &host]);
    let _server = crate::served::Server::start(&mut command);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o007, 0);
}

#[test]
fn cve_2014_6407() {
    // Links in a layer, and members that go through them.
    let target = target(|_, _| {});
    let out = target.outside().to_owned();
    let canary = format!("{out}/canary");
    let base = Tar::default;
    let archives = [
        base().link("x", &out).file("x/evil", b"evil"),
        base().link("x", &out).file("x/canary", b"evil"),
        base().link("x", &canary).file("x", b"evil"),
        base().hard("h", &canary).file("h", b"evil"),
        base().link("x", &out).hard("h", "x/canary"),
        base().dir("d").link("d/x", "../../../../../../../..").file(&format!("d/x{canary}"), b"evil"),
        base().link("a", &out).link("b", "a").dir("b/made"),
        base().file("../../../../../../../../evil", b"evil"),
        base().file(&canary, b"evil"),
    ];
    target.start("one", &[], &["sleep", "1000"]);
    for (number, archive) in archives.into_iter().enumerate() {
        let bytes = archive.end();
        let path = target.write("layer.tar", &bytes);
        let tag = format!("evil:{number}");
        target.run(&["import", &path, &tag]);
        let saved = target.saved(&tag, json!({}), &[bytes]);
        target.run(&["load", "-i", saved.to_str().unwrap()]);
        let mut copy = target.command(&["cp", "-", "one:/tmp"]);
        copy.stdin(fs::File::open(&path).unwrap()).output().unwrap();
        target.unharmed();
    }
}

#[test]
fn cve_2014_6408() {
    // An image brings its own security options.
    let target = target(|_, _| {});
    let options = json!({
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"], "Privileged": true, "CapAdd": ["ALL"],
        "HostConfig": { "Privileged": true, "Binds": ["/:/host"], "CapAdd": ["ALL"], "PidMode": "host" },
        "Labels": { "io.podman.annotations.privileged": "TRUE" }, "Cmd": ["sh", "-c",
            format!("{}; {}; ls / | grep host", status("CapEff"), status("Seccomp"))],
    });
    target.image("evil", options);
    let run = target.run(&["run", "--rm", "--network", "none", "evil"]);
    assert_eq!(run.out.trim(), "CapEff:00000000a80425fbSeccomp:2", "{}", run.err);
}

#[test]
fn cve_2014_8178() {
    // Layers and documents that are not what they are called by.
    let target = target(|_, _| {});
    let layer = fs::read(target.0.join("busybox.tar")).unwrap();
    let other = Tar::default().file("other", b"x").end();
    let wrong = target.sha256(&other);
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{wrong}")] } });
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["evil:1"], "Layers": ["l.tar"] }]);
    let archive = Tar::default().file("c.json", config.to_string().as_bytes());
    let archive = archive.file("l.tar", &layer).file("manifest.json", manifest.to_string().as_bytes()).end();
    let run = target.run(&["load", "-i", &target.write("a.tar", &archive)]);
    assert!(run.code == 1 && run.err.contains("its content has the digest"), "{}", run.err);
    let archive = Tar::default().file(&format!("blobs/sha256/{wrong}"), &layer).end();
    let run = target.run(&["load", "-i", &target.write("a.tar", &archive)]);
    assert!(run.code == 1 && run.err.contains("its content has the digest"), "{}", run.err);
    assert!(!target.0.join("root/blobs/sha256").join(&wrong).exists());
    assert_eq!(target.ok(&["images", "-q"]).lines().count(), 1);
}

#[test]
fn cve_2014_9356() {
    // Volumes and working directories of an image at links that lead out of it.
    let target = target(|root, outside| {
        link(outside, root.join("out"));
        link(format!("../../../../../../..{}", outside.display()), root.join("up"));
    });
    for place in ["/out", "/up", "/out/made", "/up/made", "/../../../../out/made"] {
        let mut volumes = serde_json::Map::new();
        volumes.insert(place.to_owned(), json!({}));
        let script = format!("echo evil > {place}/file; ls {place}");
        target.image("evil", json!({ "Volumes": volumes, "WorkingDir": place, "Cmd": ["sh", "-c", script] }));
        let run = target.run(&["run", "--rm", "--network", "none", "evil"]);
        assert!(!run.out.contains("canary"), "{}", run.out);
        target.unharmed();
        target.run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            &format!("vol:{place}"),
            "busybox",
            "touch",
            place,
        ]);
        target.unharmed();
        target
            .build(&format!("FROM busybox\nVOLUME {place}\nWORKDIR {place}\nRUN echo evil > {place}/file\n"));
        target.build(&format!("FROM busybox\nCOPY Dockerfile {place}/\nADD Dockerfile {place}/x/\n"));
        target.unharmed();
    }
}

#[test]
fn cve_2014_9357() {
    // A program that unpacks for the engine comes from the image, the context, or what is in reach.
    let target = target(|_, _| {});
    let context = target.0.join("context");
    fs::create_dir_all(&context).unwrap();
    let evil = format!("#!/bin/sh\ntouch {}/evil\ncat\n", target.outside());
    for name in ["xz", "unxz", "lzma", "bzip2", "gzip", "unpigz", "pigz", "zstd", "tar"] {
        fs::write(context.join(name), &evil).unwrap();
        fs::set_permissions(context.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (name, first) in [
        ("a.xz", &b"\xfd7zXZ\0"[..]),
        ("a.bz2", b"BZh9"),
        ("a.gz", b"\x1f\x8b\x08"),
        ("a.zst", b"(\xb5/\xfd"),
    ] {
        fs::write(context.join(name), [first, &[b'x'; 600]].concat()).unwrap();
    }
    fs::write(context.join("Dockerfile"), "FROM busybox\nCOPY . /usr/bin/\nADD a.xz a.bz2 a.gz a.zst /t/\n")
        .unwrap();
    let path = format!("{}:/usr/bin:/bin", context.display());
    let mut build = target.command(&["build", context.to_str().unwrap()]);
    build.env("PATH", &path).current_dir(&context).output().unwrap();
    for name in ["a.xz", "a.gz", "a.bz2", "a.zst"] {
        let file = context.join(name);
        let mut import = target.command(&["import", file.to_str().unwrap()]);
        import.env("PATH", &path).current_dir(&context).output().unwrap();
    }
    target.unharmed();
}

#[test]
fn cve_2014_9358() {
    // Names in an archive that lead out of the store.
    let target = target(|_, _| {});
    let up = format!("../../../../../../../..{}", target.outside());
    let canary = format!("{up}/canary");
    for (config, layer) in [
        (canary.as_str(), "l.tar"),
        ("c.json", canary.as_str()),
        ("../c.json", "../l.tar"),
        ("/etc/passwd", "l.tar"),
    ] {
        let manifest = json!([{ "Config": config, "RepoTags": ["evil:1"], "Layers": [layer] }]).to_string();
        let old = json!({ "evil": { "latest": up } }).to_string();
        let archive =
            Tar::default().file("c.json", b"{}").file("l.tar", b"").file("repositories", old.as_bytes());
        let archive = archive.file("manifest.json", manifest.as_bytes()).end();
        let run = target.run(&["load", "-i", &target.write("a.tar", &archive)]);
        assert!(run.code == 1 && run.err.contains("invalid archive"), "{}", run.err);
        assert!(!run.err.contains("of the host"), "{}", run.err);
    }
    for name in [format!("{up}/VERSION"), "../evil/json".to_owned()] {
        let archive = Tar::default().file(&name, b"1.0").end();
        let run = target.run(&["load", "-i", &target.write("a.tar", &archive)]);
        assert!(run.code == 1 && run.err.contains("leaves it"), "{}", run.err);
    }
    let tag = target.run(&["tag", "busybox", "../../../evil"]);
    assert!(tag.code != 0, "{}", tag.out);
    target.unharmed();
}

#[test]
fn cve_2015_3627() {
    // Descriptors of the engine's that are still open in the first process.
    let target = target(|_, _| {});
    // The first process closes what it had at its own pace; what stays open is found each time.
    let script = "n=0; left=; while left=$(ls /proc/1/fd 2>/dev/null | grep -v '^[012]$'); [ -n \"$left\" ] && [ $n -lt 2000 ]; do
            n=$((n + 1)); done; ls /proc/self/fd | wc -l; [ -z \"$left\" ] || echo \"$left\"; \
        for fd in /proc/1/fd/* /proc/self/fd/* /proc/1/cwd /proc/1/root; do ls -d $fd/../../../*canary* $fd/outside 2>/dev/null; done; true";
    assert_eq!(target.said(&[], script), "4", "three streams and what ls itself opened");
    // Where it is no shell, whose own pipes come and go.
    for (name, init) in [("one", "--init=true"), ("two", "--init=false")] {
        target.start(name, &[init], &["sleep", "1000"]);
        assert_eq!(target.ok(&["exec", name, "sh", "-c", script]), "4", "{init}");
    }
}

#[test]
fn cve_2015_3629() {
    // What a volume was mounted on is replaced by a link, and the container started again.
    let target = target(|_, _| {});
    let script = format!("mv /a /b; ln -s {} /a; ln -s {}/file /f", target.outside(), target.outside());
    let file = target.write("a-file", b"x");
    let volumes = ["-v", "data:/a/data", "-v", &format!("{file}:/g")];
    target.ok(&[
        &["create", "--name", "one", "--network", "none"],
        &volumes[..],
        &["busybox", "sh", "-c", &script],
    ]
    .concat());
    target.ok(&["start", "-a", "one"]);
    for _ in 0..2 {
        target.run(&["start", "-a", "one"]);
        target.run(&["restart", "-t", "0", "one"]);
        target.unharmed();
    }
    target.run(&["cp", &file, "one:/a/data/x"]);
    target.run(&["cp", &file, "one:/f"]);
    target.unharmed();
}

#[test]
fn cve_2015_3630() {
    // Files of procfs that are the machine's, not the container's.
    let target = target(|_, _| {});
    let script = "for f in /proc/sysrq-trigger /proc/timer_stats /proc/latency_stats /proc/asound/* /proc/fs/*/* /proc/irq/0/smp_affinity \
        /proc/bus/*/* /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sys/kernel/modprobe /sys/kernel/uevent_helper \
        /sys/kernel/mm/transparent_hugepage/enabled /sys/power/state; do [ -f $f ] && (: > $f) 2>/dev/null && echo $f; done; true";
    assert_eq!(target.said(&[], script), "");
    // Without the defaults some of it is open: the test can fail.
    assert!(
        target.said(
            &["--privileged"],
            "[ -w /proc/sys/kernel/core_pattern ] && (: >> /proc/sys/vm/swappiness) && echo open"
        ) == "open"
    );
}

#[test]
fn cve_2015_3631() {
    // Something of the user's on top of procfs.
    let target = target(|_, _| {});
    let file = target.write("a-file", b"fake");
    for place in ["/proc/sys/kernel", "/proc/1", "/proc/self/attr", "/proc/sys"] {
        target.refused(&["-v", &format!("vol:{place}")], "inside /proc");
    }
    for place in ["/proc/version", "/proc/self/status", "/proc/sys/kernel/core_pattern"] {
        target.refused(&["-v", &format!("{file}:{place}")], "inside /proc");
    }
    assert_eq!(
        target.said(&["-v", &format!("{file}:/proc/uptime")], "cat /proc/uptime"),
        "fake",
        "lxcfs may"
    );
}

#[test]
fn cve_2016_3697() {
    // A name in passwd that is another user's number.
    let target = target(|root, _| {
        fs::write(root.join("etc/passwd"), "1000:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "2000:x:0:\n").unwrap();
    });
    let id = "echo $(id -u) $(id -g)";
    assert_eq!(target.said(&["-u", "1000"], id), "1000 0");
    assert_eq!(target.said(&["-u", "1000:2000"], id), "1000 2000");
    target.start("one", &[], &["sleep", "1000"]);
    assert_eq!(target.ok(&["exec", "-u", "1000:2000", "one", "sh", "-c", id]), "1000 2000");
    target.ok(&["create", "--name", "two", "-u", "1000:2000", "--network", "none", "busybox", "true"]);
    let file = target.write("a-file", b"x");
    let mut copy = target.command(&["cp", "--archive", &file, "two:/a"]);
    copy.output().unwrap();
    let built = target.build(&format!("FROM busybox\nUSER 1000:2000\nRUN test \"$({id})\" = '1000 2000'\n"));
    assert_eq!(built.code, 0, "{}", built.err);
}

#[test]
fn cve_2016_8867() {
    // Capabilities of root's are left to a user who is not root.
    let target = target(|_, _| {});
    for options in
        [&["-u", "1000"][..], &["-u", "1000", "--cap-add", "NET_ADMIN"], &["-u", "1000", "--privileged"]]
    {
        let script = format!("{}; {}; {}", status("CapEff"), status("CapPrm"), status("CapAmb"));
        let none = "CapEff:0000000000000000CapPrm:0000000000000000CapAmb:0000000000000000";
        assert_eq!(target.said(options, &script), none, "{options:?}");
    }
}

#[test]
fn cve_2017_14992() {
    // Padding without end after an archive, a few hundred kilobytes long when compressed: it is not kept in memory.
    let target = target(|_, _| {});
    let peak = |padding: usize| -> u64 {
        let padded = target.path("padded.gz");
        let script = format!(
            "(head -c -1024 \"$0\"; head -c {padding} /dev/zero) | gzip -1 > {padded} && \
             exec busybox time -v {} import {padded} padded",
            env!("CARGO_BIN_EXE_cauldron")
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, &target.path("busybox.tar")]);
        command.env("CAULDRON_ROOT", target.path("root")).env("CAULDRON_RUN_ROOT", target.path("run"));
        let run = crate::Run::of(command.output().unwrap());
        assert_eq!(run.code, 0, "{}", run.err);
        let line =
            run.err.lines().find_map(|line| line.trim().strip_prefix("Maximum resident set size (kbytes): "));
        line.unwrap().parse().unwrap()
    };
    let (short, long) = (peak(1_000_000), peak(33_000_000));
    assert!(long < short + 16_000, "{short} kB, then {long} kB");
}

#[test]
fn cve_2018_15664() {
    // A component of the path that cp goes through is swapped for a link to the host's directory meanwhile.
    let target = armed(|_, _| {});
    let script = format!(
        "mkdir -p /w/a; echo inside > /w/a/canary; ln -s {} /w/b; echo ready; exec attack swap /w/a /w/b",
        target.outside()
    );
    target.start("one", &[], &["sh", "-c", &script]);
    let file = target.write("canary", b"evil");
    target.ok(&["exec", "one", "sh", "-c", "until [ -e /w/b ]; do :; done"]);
    for _ in 0..RACES {
        let _ = fs::remove_file(target.0.join("got"));
        target.run(&["cp", "one:/w/a/canary", &target.path("got")]);
        // What is inside, never what the host has of that name.
        let got = fs::read_to_string(target.0.join("got"));
        assert!(got.is_err() || got.is_ok_and(|text| ["inside\n", "evil"].contains(&text.as_str())));
        target.run(&["cp", &file, "one:/w/a/canary"]);
        target.run(&["cp", &file, "one:/w/a/new"]);
        target.ok(&[
            "exec",
            "one",
            "sh",
            "-c",
            "echo inside > /w/a/canary 2>/dev/null; echo inside > /w/b/canary 2>/dev/null; true",
        ]);
        target.unharmed();
    }
}

#[test]
fn cve_2018_20699() {
    // A set of processors that takes all the memory to write down.
    let target = target(|_, _| {});
    for set in
        ["0-4294967295", "1-9999999999", "0-99999999999999999999", "0,1,2,4000000000", "4000000000-0", "-1"]
    {
        for option in ["--cpuset-cpus", "--cpuset-mems"] {
            let run = target.run(&["create", option, set, "busybox"]);
            assert!(run.code != 0 && run.err.contains(set), "{option} {set}: {}", run.err);
        }
    }
}

#[test]
fn cve_2019_13139() {
    // An address of a repository that is an option of git's, or a command.
    let target = target(|_, _| {});
    let evil = format!("touch {}/evil", target.outside());
    for url in [
        format!("git://127.0.0.1:1/x.git#--upload-pack={evil}"),
        format!("git://127.0.0.1:1/x.git#master:--upload-pack={evil}"),
        format!("https://127.0.0.1:1/x.git#--upload-pack={evil};:"),
        format!("git@127.0.0.1:--upload-pack={evil}"),
        format!("git://-oProxyCommand={evil}/x.git"),
        format!("ssh://-oProxyCommand={evil}/x.git"),
        format!("ext::sh -c {evil}"),
    ] {
        let run = target.run(&["build", &url]);
        assert!(run.code != 0, "{url}: {}", run.out);
        target.unharmed();
    }
}

#[test]
fn cve_2019_14271() {
    // The helper that copies loads libraries from the container's root.
    let target = target(|root, outside| {
        let source = root.join("evil.c");
        let text = format!(
            "#include <fcntl.h>\n__attribute__((constructor)) static void evil(void) {{ open(\"{}/evil\", O_CREAT, 0600); }}\n",
            outside.display()
        );
        fs::write(&source, text).unwrap();
        for dir in ["lib", "lib64", "usr/lib", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
            fs::create_dir_all(root.join(dir)).unwrap();
            for name in ["libnss_files.so.2", "libc.so.6", "libnss_dns.so.2", "ld-musl-x86_64.so.1"] {
                let library = root.join(dir).join(name);
                let first = root.join("lib/libnss_files.so.2");
                if first.exists() {
                    fs::hard_link(&first, &library).ok();
                } else {
                    let built = Command::new("gcc")
                        .args(["-shared", "-fPIC", "-o"])
                        .args([&library, &source])
                        .status();
                    assert!(built.unwrap().success());
                }
            }
        }
    });
    let file = target.write("a-file", b"x");
    target.start("one", &[], &["sleep", "1000"]);
    target.ok(&["create", "--name", "two", "--network", "none", "busybox", "true"]);
    for name in ["one", "two"] {
        target.ok(&["cp", &file, &format!("{name}:/tmp/")]);
        target.ok(&["cp", &format!("{name}:/tmp/a-file"), &target.path("back")]);
        target.ok(&["export", "-o", &target.path("export.tar"), name]);
        target.ok(&["diff", name]);
    }
    target.ok(&["exec", "-u", "65534", "one", "true"]);
    target.ok(&["commit", "one", "again"]);
    target.unharmed();
}

#[test]
fn cve_2020_13401_and_cve_2024_32473() {
    // A neighbour's router advertisements give a container, or its bridge, an address and a route that nobody asked for.
    let machine = Machine::new();
    machine.web("one", &[]);
    let inside = machine.ok(&["exec", "one", "sh", "-c", "cat /proc/net/if_inet6 | grep -v ' lo$'; true"]);
    assert_eq!(inside, "", "no address of version 6 where the network has none");
    let bridge = machine.ok(&[
        "network",
        "inspect",
        "-f",
        "{{index .Options \"com.docker.network.bridge.name\"}}",
        "bridge",
    ]);
    for name in ["accept_ra", "disable_ipv6"] {
        let read = machine.host("cat", &[&format!("/proc/sys/net/ipv6/conf/{bridge}/{name}")]);
        let safe = if name == "accept_ra" { "0" } else { "1" };
        if read.out.trim() == safe {
            return;
        }
    }
    panic!("the bridge {bridge} takes router advertisements");
}

#[test]
fn cve_2021_21285() {
    // Documents that are not what they should be bring nobody down.
    let target = target(|_, _| {});
    let good = target.saved("good:1", json!({}), &[Tar::default().file("f", b"x").end()]);
    assert_eq!(
        target.run(&["load", "-i", good.to_str().unwrap()]).code,
        0,
        "it is the documents that are refused"
    );
    let documents = [
        "",
        "null",
        "[]",
        "{}",
        "[null]",
        "[{}]",
        "[[]]",
        "0",
        "\"x\"",
        "{\"a\":",
        "[{\"Config\":null}]",
        "[{\"Config\":\"c\",\"RepoTags\":[\"\"],\"Layers\":null}]",
        "[{\"Config\":\"c\",\"RepoTags\":null,\"Layers\":[null]}]",
        "[{\"Config\":\"c\",\"RepoTags\":[\"UPPER:x\"],\"Layers\":[]}]",
        "[{\"Config\":\"l\",\"RepoTags\":[\"a:b\"],\"Layers\":[\"l\",\"l\"]}]",
    ];
    let configs = [
        "null",
        "[]",
        "{\"rootfs\":null}",
        "{\"rootfs\":{\"diff_ids\":[\"\"]}}",
        "{\"rootfs\":{\"diff_ids\":[\"sha256:zz\"]}}",
        "{\"history\":[null]}",
        "{\"config\":{\"ExposedPorts\":[]}}",
        "{\"config\":{\"Env\":[null]}}",
        "{\"created\":\"never\"}",
        "{\"config\":{\"Healthcheck\":{\"Interval\":-1}}}",
        "{\"config\":{\"Volumes\":{\"relative\":{}}},\"rootfs\":{\"diff_ids\":[1]}}",
    ];
    let deep = "[".repeat(100_000);
    let deep = [deep.as_str()];
    let standard = "[{\"Config\":\"c\",\"RepoTags\":[\"evil:1\"],\"Layers\":[\"l\"]}]";
    let pairs = documents.iter().chain(&deep).map(|document| (*document, "{}"));
    for (manifest, config) in pairs.chain(configs.iter().chain(&deep).map(|config| (standard, *config))) {
        let archive = Tar::default()
            .file("c", config.as_bytes())
            .file("l", b"x")
            .file("manifest.json", manifest.as_bytes())
            .end();
        let run = target.run(&["load", "-i", &target.write("a.tar", &archive)]);
        let shown = &manifest[..manifest.len().min(60)];
        assert!(!run.err.contains("panicked"), "{shown} {config:.60}: {}", run.err);
        assert!(
            run.code == 1 || (manifest == "[]" && run.out.is_empty()),
            "{shown} {config:.60}: {} {}{}",
            run.code,
            run.out,
            run.err
        );
    }
    assert_eq!(target.ok(&["images", "-q"]).lines().count(), 2);
    assert_eq!(target.run(&["doctor", "--fix"]).code, 0);
}

#[test]
fn cve_2021_41089() {
    // The mode of a directory in the archive is given to what a link leads to.
    let target = target(|root, outside| link(outside, root.join("out")));
    target.start("one", &[], &["sh", "-c", "ln -s / /root-link; exec sleep 1000"]);
    for archive in [
        Tar::default().add(b'5', "out", "", 0o777, b""),
        Tar::default().add(b'5', "out/", "", 0o777, b"").file("out/evil", b"x"),
        Tar::default().add(b'0', "out/canary", "", 0o666, b"evil"),
        Tar::default().add(b'5', "tmp/..", "", 0o777, b"").add(b'5', "out/.", "", 0o777, b""),
    ] {
        let path = target.write("a.tar", &archive.end());
        for place in ["one:/", "one:/out", "one:/root-link", "one:/tmp"] {
            let mut copy = target.command(&["cp", "-", place]);
            copy.stdin(fs::File::open(&path).unwrap()).output().unwrap();
            target.unharmed();
        }
        target.ok(&["exec", "one", "sh", "-c", &format!("rm -rf /out && ln -s {} /out", target.outside())]);
    }
}

#[test]
fn cve_2021_41091() {
    // Any user of the machine reaches programs of images with their setuid bits.
    let target = target(|root, _| {
        fs::copy("/bin/busybox", root.join("bin/su")).ok();
        let _ = fs::set_permissions(root.join("bin/su"), fs::Permissions::from_mode(0o4755));
    });
    target.start("one", &["-v", "data:/data"], &["sleep", "1000"]);
    fs::set_permissions(&target.0, fs::Permissions::from_mode(0o755)).unwrap();
    let find = Command::new("find")
        .args([target.path("root"), target.path("run")])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&find.stdout).into_owned();
    let named: Vec<&str> =
        found.lines().filter(|line| !line.ends_with("/root") && !line.ends_with("/run")).collect();
    assert!(named.is_empty(), "{named:?}");
    for name in ["layers", "containers", "volumes", "blobs"] {
        let path = target.path(&format!("root/{name}"));
        let list = Command::new("ls").arg(path).uid(65534).gid(65534).output().unwrap();
        assert!(!list.status.success(), "{name}");
    }
}

#[test]
fn cve_2021_41190() {
    // A document that is a manifest to one reader and an index to another.
    let target = target(|_, _| {});
    let layer = fs::read(target.0.join("busybox.tar")).unwrap();
    let diff = format!("sha256:{}", target.sha256(&layer));
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff] } })
    .to_string()
    .into_bytes();
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let described = |kind: &str, bytes: &[u8]| {
        json!({ "mediaType": kind, "size": bytes.len(),
        "digest": format!("sha256:{}", target.sha256(bytes)) })
    };
    let mut manifest = json!({ "schemaVersion": 2,
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)] });
    for ambiguous in [false, true] {
        if ambiguous {
            manifest["manifests"] = json!([described(manifest_type, &config)]);
        }
        let bytes = manifest.to_string().into_bytes();
        let mut entry = described(manifest_type, &bytes);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("evil:{ambiguous}") });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        let archive = target.layout(&index, &[config.clone(), layer.clone(), bytes]);
        let run = target.run(&["load", "-i", &archive]);
        assert_eq!(run.code == 0, !ambiguous, "{}{}", run.out, run.err);
        assert!(!ambiguous || run.err.contains("ambiguous"), "{}", run.err);
    }
}

#[test]
fn cve_2022_36109() {
    // Without its own group among the supplementary ones, a process passes by what is denied to that group.
    let target = target(|root, _| {
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nmore:x:2000:app\n").unwrap();
    });
    let groups = "grep Groups: /proc/self/status | tr -s '[:space:]' ' '";
    for (user, wanted) in
        [("app", "1000 2000"), ("1000", "1000 2000"), ("app:more", "2000"), ("77:88", "88"), ("77", "0")]
    {
        assert_eq!(target.said(&["-u", user], groups), format!("Groups: {wanted}"), "{user}");
    }
    target.start("one", &["-u", "app"], &["sleep", "1000"]);
    assert_eq!(target.ok(&["exec", "one", "sh", "-c", groups]).trim(), "Groups: 1000 2000");
}

#[test]
fn cve_2024_29018() {
    // A name that is asked on an internal network reaches the host's servers, and carries data out.
    let machine = Machine::new();
    let server =
        crate::machine::inside(&machine.netns, || std::net::UdpSocket::bind(("192.0.2.1", 53)).unwrap());
    server.set_nonblocking(true).unwrap();
    machine.ok(&["network", "create", "--internal", "closed"]);
    machine.ok(&["network", "create", "open"]);
    let asked = |network: &str| {
        let name = format!("secret.{network}.example");
        machine.run(&[
            "run",
            "--rm",
            "--network",
            network,
            "--dns",
            "192.0.2.1",
            "busybox",
            "timeout",
            "1",
            "nslookup",
            &name,
        ]);
        let mut buffer = [0; 512];
        std::iter::from_fn(|| server.recv(&mut buffer).ok()).count()
    };
    assert_eq!(asked("closed"), 0);
    assert!(asked("open") > 0, "the test can see it");
    eventually(|| machine.ruleset().is_empty().then_some(()));
}

#[test]
fn cve_2024_41110() {
    // A request that is decided on as if it had no body.
    let place = Place::new();
    let socket = place.path("s.sock");
    let _server = place.serve(&["-H", &format!("unix://{}?read-only", socket.display())]);
    let body = r#"{"Image":"x","HostConfig":{"Privileged":true}}"#;
    for (path, length) in [
        ("/containers/create", "Content-Length: 0"),
        ("/v1.41/containers/create", "Content-Length: 0"),
        ("/v1.41/containers/create?name=a", "Transfer-Encoding: chunked"),
        ("/v1.41//containers/create", "Content-Length: 0"),
        ("/v1.41/../containers/create", "Content-Length: 0"),
        ("/containers/x/%2e%2e/create", "Content-Length: 0"),
        ("/volumes/create", "Content-Length: 0"),
    ] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\nConnection: close\r\n\r\n{body}"
        );
        let (head, _) = ask(&socket, &request);
        assert!(
            head.starts_with("HTTP/1.1 403") || head.starts_with("HTTP/1.1 404"),
            "{path} {length}: {head}"
        );
    }
}
