//! Podman's, Buildah's, CRI-O's and Kubernetes': copies, builds, accounts, mounts.

use crate::archive::Tar;
use crate::served::{Place, ask, rest};
use crate::{armed, link, status, target};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Stdio;

const RACES: usize = 8;

#[test]
fn cve_2018_10856() {
    // A user who is not root keeps root's capabilities in a container of its own or by exec.
    let target = target(|_, _| {});
    target.start("one", &["--cap-add", "ALL"], &["sleep", "1000"]);
    let script = format!("{}; {}", status("CapEff"), status("CapPrm"));
    let none = "CapEff:0000000000000000CapPrm:0000000000000000";
    assert_eq!(target.ok(&["exec", "-u", "1000", "one", "sh", "-c", &script]), none);
    assert_eq!(target.ok(&["exec", "-u", "1000", "--privileged", "one", "sh", "-c", &script]), none);
}

#[test]
fn cve_2019_10152() {
    // cp goes through links of the container's on the host.
    let target = target(|root, outside| {
        link(outside, root.join("out"));
        link(outside.join("canary"), root.join("file"));
        link(format!("../../../../../../../../..{}", outside.display()), root.join("up"));
    });
    let file = target.write("canary", b"evil");
    let dir = target.0.join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("canary"), "evil").unwrap();
    target.start("one", &[], &["sleep", "1000"]);
    target.ok(&["create", "--name", "two", "--network", "none", "busybox", "true"]);
    for name in ["one", "two"] {
        for place in ["out", "out/", "out/canary", "file", "up", "up/canary", "out/new", "out/../out/canary"]
        {
            for source in [&file, &format!("{}/.", dir.display())] {
                target.run(&["cp", source, &format!("{name}:/{place}")]);
                target.unharmed();
            }
        }
    }
}

#[test]
fn cve_2019_18466() {
    // cp out of a container reads what its links lead to on the host.
    let target = target(|root, outside| {
        link(outside, root.join("out"));
        link(outside.join("canary"), root.join("file"));
    });
    target.start("one", &[], &["sleep", "1000"]);
    target.ok(&["create", "--name", "two", "--network", "none", "busybox", "true"]);
    for name in ["one", "two"] {
        for place in ["out/canary", "file", "out/.", "out", "out/"] {
            for follow in [&["cp"][..], &["cp", "-L"]] {
                let to = target.0.join("to");
                fs::create_dir_all(&to).unwrap();
                target.run(&[follow, &[&format!("{name}:/{place}"), to.to_str().unwrap()]].concat());
                for entry in fs::read_dir(&to).unwrap() {
                    let entry = entry.unwrap();
                    let kind = entry.file_type().unwrap();
                    assert!(
                        kind.is_symlink() || (kind.is_dir() && !entry.path().join("canary").exists()),
                        "{place}: {entry:?}"
                    );
                }
                fs::remove_dir_all(&to).unwrap();
                let run = target.run(&["cp", &format!("{name}:/{place}"), "-"]);
                assert!(!run.out.contains("host's"), "{place}");
            }
        }
    }
    target.unharmed();
}

#[test]
fn cve_2020_1726() {
    // A volume that has something in it is filled again from the image, or changes its owner.
    let target = target(|root, _| {
        fs::create_dir(root.join("data")).unwrap();
        fs::write(root.join("data/file"), "of the image\n").unwrap();
        fs::write(root.join("data/other"), "of the image\n").unwrap();
    });
    target.said(
        &["-v", "vol:/elsewhere"],
        "echo mine > /elsewhere/file; chown 1000:1000 /elsewhere; chmod 700 /elsewhere",
    );
    let look = "cat /data/file; ls /data; stat -c '%u %g %a' /data";
    assert_eq!(target.said(&["-v", "vol:/data"], look), "mine\nfile\n1000 1000 700");
    assert_eq!(target.said(&["--mount", "type=volume,src=vol,dst=/data"], look), "mine\nfile\n1000 1000 700");
}

#[test]
fn cve_2020_14370() {
    // Variables of one request are there in the next.
    let place = Place::new();
    place.image();
    let socket = place.path("s.sock");
    let _server = place.serve(&["-H", &format!("unix://{}", socket.display())]);
    let post = |name: &str, body: &str| {
        let request = format!(
            "POST /v1.41/containers/create?name={name} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let (head, mut reader) = ask(&socket, &request);
        assert!(head.starts_with("HTTP/1.1 201"), "{head}{}", String::from_utf8_lossy(&rest(&mut reader)));
    };
    post(
        "first",
        r#"{"Image":"busybox","Cmd":["true"],"Env":["SECRET=hush"],"Labels":{"secret":"hush"},"HostConfig":{"NetworkMode":"none"}}"#,
    );
    post(
        "second",
        r#"{"Image":"busybox","Cmd":["true"],"Env":["OTHER=x"],"HostConfig":{"NetworkMode":"none"}}"#,
    );
    let (_, mut reader) =
        ask(&socket, "GET /containers/second/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8(rest(&mut reader)).unwrap();
    assert!(answer.contains("OTHER=x") && !answer.contains("hush"), "{answer}");
}

#[test]
fn cve_2021_20206() {
    // A network's driver or name is a path to a program, or out of the directory.
    let target = target(|_, outside| {
        fs::write(outside.join("../evil"), format!("#!/bin/sh\ntouch {}/evil\n", outside.display())).unwrap();
        fs::set_permissions(outside.join("../evil"), fs::Permissions::from_mode(0o755)).unwrap();
    });
    let evil = target.path("evil");
    let up = format!("../../../../../../../..{evil}");
    for args in [
        &["network", "create", "-d", &evil, "net"][..],
        &["network", "create", "-d", &up, "net"],
        &["network", "create", "--ipam-driver", &up, "net"],
        &["network", "create", &up],
        &["network", "create", "../evil"],
        &["volume", "create", "../evil"],
        &["volume", "create", "-d", &up, "vol"],
        &["run", "--network", &up, "busybox", "true"],
        &["run", "--log-driver", &up, "busybox", "true"],
        &["run", "--name", "../evil", "busybox", "true"],
    ] {
        assert_ne!(target.run(args).code, 0, "{args:?}");
        target.unharmed();
    }
    let run = target.run(&["run", "--rm", "--runtime", &up, "--network", "none", "busybox", "true"]);
    target.unharmed();
    assert!(run.code == 0 || run.code == 125, "{}", run.err);
}

#[test]
fn cve_2021_3602() {
    // Variables of who builds or runs are there in the step.
    let target = target(|_, _| {});
    let context = target.0.join("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(
        context.join("Dockerfile"),
        "FROM busybox\nRUN cat /proc/self/environ | tr '\\0' '\\n'; env; cat /proc/1/environ; true\n",
    )
    .unwrap();
    let mut build =
        target.command(&["build", "--progress", "plain", "--network", "none", context.to_str().unwrap()]);
    let built = crate::Run::of(build.env("AWS_SECRET", "hush-hush").output().unwrap());
    assert!(
        built.code == 0 && !format!("{}{}", built.out, built.err).contains("hush"),
        "{}{}",
        built.out,
        built.err
    );
    let mut run = target.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "env; cat /proc/*/environ",
    ]);
    let run = crate::Run::of(run.env("AWS_SECRET", "hush-hush").output().unwrap());
    assert!(run.out.contains("PATH=") && !run.out.contains("hush"), "{}", run.out);
}

#[test]
fn cve_2021_25741() {
    // A volume's subdirectory is a link to the host's (Kubernetes' subPath).
    let target = armed(|_, _| {});
    target.volume("vol", "mkdir -p a/in && ln -s $OUTSIDE link && ln -s ../../../../../../../../..$OUTSIDE up && ln -s $OUTSIDE b");
    for path in ["link", "up", "link/../link", "../outside", "../../../../../../../etc", "a/../link"] {
        let mount = format!("type=volume,src=vol,dst=/m,volume-subpath={path}");
        let run = target.sh(&["--mount", &mount], "cat /m/canary; touch /m/evil");
        assert!(run.code != 0 && !run.out.contains("host's"), "{path}: {}", run.out);
        target.unharmed();
    }
    target.start("swapper", &["-v", "vol:/v"], &["attack", "swap", "/v/a", "/v/b"]);
    for _ in 0..RACES {
        let run = target
            .sh(&["--mount", "type=volume,src=vol,dst=/m,volume-subpath=a"], "cat /m/canary; touch /m/evil");
        assert!(!run.out.contains("host's"), "{}", run.out);
        target.unharmed();
    }
}

#[test]
fn cve_2022_0811() {
    // A parameter of the kernel's behind one that may be set (CRI-O).
    let target = target(|_, _| {});
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for sysctl in [
        "kernel.core_pattern=|/evil",
        "net.ipv4/../../kernel/core_pattern=|/evil",
        "net/../kernel/core_pattern=|/evil",
        "net.../kernel.core_pattern=|/evil",
        "kernel.shm_rmid_forced=1+kernel.core_pattern=|/evil",
        "kernel.shm_rmid_forced=1\nkernel.core_pattern=|/evil",
        "fs.mqueue./../../kernel/core_pattern=|/evil",
    ] {
        let run = target.sh(&["--sysctl", sysctl], "echo started");
        assert!(run.code >= 125 || sysctl.contains('\n'), "{sysctl}: {}", run.out);
        assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before, "{sysctl}");
    }
}

#[test]
fn cve_2022_1227() {
    // Programs of the image are run on the host when its processes are listed.
    let target = target(|root, outside| {
        for name in ["ps", "nsenter", "top", "docker-init", "tar", "sh"] {
            let path = root.join("usr/bin").join(name);
            fs::create_dir_all(root.join("usr/bin")).unwrap();
            fs::write(&path, format!("#!/bin/busybox sh\ntouch {}/evil\ntouch /evil\n", outside.display()))
                .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    });
    target.start("one", &[], &["sleep", "1000"]);
    assert!(target.ok(&["top", "one"]).contains("sleep"));
    target.ok(&["stats", "--no-stream", "one"]);
    target.ok(&["diff", "one"]);
    target.ok(&["export", "-o", &target.path("x.tar"), "one"]);
    assert_eq!(
        target.run(&["exec", "one", "ls", "/evil"]).code,
        1,
        "nothing was run in the container either"
    );
    target.unharmed();
}

#[test]
fn cve_2022_27649_and_cve_2022_27651() {
    // Inheritable capabilities in containers, and in the steps of a build.
    let target = target(|_, _| {});
    let script = status("CapInh");
    let built = target.build(&format!("FROM busybox\nRUN {script} > /root-inh\nUSER 1000\nRUN test $({script}) = CapInh:0000000000000000\nRUN test $(cat /root-inh) = CapInh:0000000000000000\n"));
    assert_eq!(built.code, 0, "{}{}", built.out, built.err);
    target.start("one", &["-u", "1000", "--cap-add", "NET_ADMIN"], &["sleep", "1000"]);
    assert_eq!(target.ok(&["exec", "one", "sh", "-c", &script]), "CapInh:0000000000000000");
}

#[test]
fn cve_2022_2989_and_cve_2022_2990() {
    // The same groups in containers and in the steps of a build: what is denied to one of them stays denied.
    let target = target(|root, _| {
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nmore:x:2000:app\n").unwrap();
    });
    assert_eq!(target.said(&["-u", "app", "--group-add", "3000"], "id -G"), "1000 2000 3000");
    let built = target.build("FROM busybox\nRUN echo x > /f && chgrp 2000 /f && chmod 604 /f\nUSER app\nRUN test \"$(id -G)\" = '1000 2000' && ! cat /f\n");
    assert_eq!(built.code, 0, "{}{}", built.out, built.err);
}

#[test]
fn cve_2022_4122() {
    // The ignore file, or the Dockerfile, of a context that came as an archive is a link to a file of the host's.
    let target = target(|_, _| {});
    let canary = format!("{}/canary", target.outside());
    for name in [".dockerignore", "Dockerfile", "Dockerfile.dockerignore"] {
        for link in [canary.clone(), format!("../../../../../../../../..{canary}")] {
            let mut tar = Tar::default().link(name, &link);
            if name != "Dockerfile" {
                tar = tar.file("Dockerfile", b"FROM busybox\nCOPY . /c\n");
            }
            let path = target.write("context.tar", &tar.end());
            let mut build = target.command(&["build", "--progress", "plain", "-"]);
            let run =
                crate::Run::of(build.stdin(Stdio::from(fs::File::open(path).unwrap())).output().unwrap());
            let said = format!("{}{}", run.out, run.err);
            assert!(!said.to_lowercase().contains("host's"), "{name}: {said}");
        }
    }
    target.unharmed();
}

#[test]
fn cve_2023_0778() {
    // What is exported is swapped for a link while it is read.
    let target = armed(|_, _| {});
    let script = format!(
        "mkdir -p /w/a; echo inside > /w/a/canary; ln -s {} /w/b; exec attack swap /w/a /w/b",
        target.outside()
    );
    target.start("one", &["-v", "vol:/w"], &["sh", "-c", &script]);
    target.ok(&["exec", "one", "sh", "-c", "until [ -e /w/b ]; do :; done"]);
    for _ in 0..RACES {
        let archive = target.path("a.tar");
        target.run(&["export", "-o", &archive, "one"]);
        target.run(&["commit", "one", "committed"]);
        let bytes = fs::read(&archive).unwrap_or_default();
        assert!(!bytes.windows(6).any(|window| window == b"host's"));
        let out = target.run(&["cp", "one:/w", "-"]).out;
        assert!(!out.contains("host's"));
    }
    target.unharmed();
}

#[test]
fn cve_2024_1753() {
    // A mount of a build step whose source is a link to the host's root.
    let target = target(|_, _| {});
    let out = target.outside().to_owned();
    let context = target.0.join("context");
    fs::create_dir_all(&context).unwrap();
    link(&out, context.join("out"));
    for (mount, what) in [
        ("type=bind,from=evil,source=/link,target=/m,rw", "an image's"),
        ("type=bind,from=evil,source=/root-link,target=/m,rw", "an image's"),
        ("type=bind,from=evil,source=/up,target=/m,rw", "an image's"),
        ("type=bind,source=out,target=/m,rw", "the context's"),
        ("type=bind,source=../outside,target=/m,rw", "the context's"),
        ("type=bind,from=evil,source=/plain,target=/link,rw", "where it goes"),
    ] {
        let built = target.build(&format!(
            "FROM busybox AS evil\nRUN ln -s {out} /link && ln -s / /root-link && ln -s ../../../../../..{out} /up && mkdir /plain\n\
             FROM busybox\nRUN ln -s {out} /link\nRUN --mount={mount} cat /m/canary /m{out}/canary; touch /m/evil /m{out}/evil; true\n"
        ));
        assert!(
            !format!("{}{}", built.out, built.err).contains("host's\n"),
            "{what} {mount}: {}{}",
            built.out,
            built.err
        );
        target.unharmed();
    }
}

#[test]
fn cve_2024_9341() {
    // What the engine puts into every container goes where links of the image lead.
    let target = target(|root, outside| {
        for name in ["resolv.conf", "hosts", "hostname", "mtab"] {
            link(outside.join("canary"), root.join("etc").join(name));
        }
        link(outside, root.join("run"));
    });
    target.image("evil", serde_json::json!({ "Cmd": ["sh", "-c", "echo evil >> /etc/hosts; echo evil >> /etc/resolv.conf; echo evil > /run/evil; cat /etc/mtab"] }));
    let run = target.run(&["run", "--rm", "--network", "none", "evil"]);
    assert!(!run.out.contains("host's"), "{}", run.out);
    target.unharmed();
}

#[test]
fn cve_2024_9675() {
    // The directory of a build's cache lies outside of the cache.
    let target = target(|_, _| {});
    let out = target.outside().to_owned();
    let up = format!("../../../../../../../../../..{out}");
    for mount in [
        format!("type=cache,id={up},target=/c"),
        format!("type=cache,id=/{up},target=/c"),
        format!("type=cache,target=/c,source={up}"),
        format!("type=cache,target=/c,source={out}"),
        format!("type=cache,target=/c,from={up}"),
        format!("type=cache,id=x,target=/{up}"),
    ] {
        let built = target.build(&format!("FROM busybox\nRUN --mount={mount} ls /c {out}; cat /c/canary {out}/canary; touch /c/evil {out}/evil; true\n"));
        assert!(
            !format!("{}{}", built.out, built.err).contains("host's\n"),
            "{mount}: {}{}",
            built.out,
            built.err
        );
        target.unharmed();
    }
    // A link that one step leaves in the cache is not followed by the next.
    for source in ["link", "link/x"] {
        target.build(&format!(
            "FROM busybox\nRUN --mount=type=cache,id=k,target=/c ln -sf {out} /c/link\n\
             RUN --mount=type=cache,id=k,target=/c,source={source} ls /c; touch /c/evil; cat /c/canary; true\n"
        ));
        target.unharmed();
    }
}

#[test]
fn cve_2024_9676() {
    // Accounts of the image that are a pipe, a device, a link to the host's, or without end.
    for kind in ["pipe", "device", "link", "huge"] {
        let target = target(|root, outside| {
            for name in ["passwd", "group"] {
                let path = root.join("etc").join(name);
                let made = |args: &[&str]| {
                    let mut command = std::process::Command::new(args[0]);
                    assert!(command.args(&args[1..]).arg(&path).status().unwrap().success());
                };
                match kind {
                    "pipe" => made(&["mkfifo"]),
                    "device" => link("/dev/zero", path),
                    "link" => link(outside.join("canary"), path),
                    _ => made(&["truncate", "-s", "17M"]),
                }
            }
        });
        // Numbers need no file; what the container itself opens is its own affair.
        assert_eq!(target.said(&["-u", "1000"], &status("Uid")), "Uid:1000100010001000", "{kind}");
        let named = target.sh(&["-u", "app"], "true");
        assert!(named.code >= 125 && named.err.contains("unable to find user app"), "{kind}: {}", named.err);
        target.start("one", &[], &["sleep", "1000"]);
        target.ok(&["exec", "-u", "1", "one", "true"]);
        assert_ne!(target.run(&["exec", "-u", "app", "one", "true"]).code, 0);
        let built = target.build("FROM busybox\nCOPY --chown=app Dockerfile /d\n");
        assert_ne!(built.code, 0, "{kind}");
        target.unharmed();
    }
}

#[test]
fn cve_2025_9566() {
    // A file of the project's is delivered through a link that a container left in the volume.
    let target = target(|_, _| {});
    target.volume("vol", "ln -s $OUTSIDE/canary conf && ln -s $OUTSIDE dir");
    let project = target.0.join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("evil.txt"), "evil\n").unwrap();
    for place in ["/v/conf", "/v/dir/canary", "/v/dir/new"] {
        for kind in ["configs", "secrets"] {
            let compose = format!(
                "services:\n  s:\n    image: busybox\n    command: 'true'\n    network_mode: none\n    volumes: ['vol:/v']\n    {kind}: [{{source: c, target: {place}}}]\n\
                 {kind}: {{c: {{file: ./evil.txt}}}}\nvolumes: {{vol: {{external: true}}}}\n"
            );
            fs::write(project.join("compose.yaml"), compose).unwrap();
            let file = project.join("compose.yaml");
            target.run(&["compose", "-p", "p", "-f", file.to_str().unwrap(), "up"]);
            target.run(&["compose", "-p", "p", "-f", file.to_str().unwrap(), "down"]);
            target.unharmed();
        }
    }
    assert_eq!(fs::metadata(target.outside.join("canary")).unwrap().nlink(), 1);
}
