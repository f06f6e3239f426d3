//! Builds as a person starts them: real steps on an image of Debian's static busybox, each test on a root of its own.
//! Needs root, as the engine does.

mod builder;
mod busybox;

use builder::{Build, tree_holds};
use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
fn the_decks_oddities() {
    let build = Build::new();
    let out = build.build(
        "FROM busybox\nMAINTAINER A Person <a@example.com>\nRUN echo -e '\\n\\\nfirst\\n\\\nsecond\\n' > /script\nEXPOSE 8080\nVOLUME ['/mnt']\nVOLUME [\"/data\"]\nENTRYPOINT [\"cat\"]\nCMD [\"/script\"]\n",
    );
    assert!(
        out.contains("Step 1/8 : FROM busybox") && out.contains("Successfully tagged image:latest"),
        "{out}"
    );
    let inspect = |format| build.ok(&["inspect", "--format", format, "image"]);
    assert_eq!(inspect("{{.Author}}"), "A Person <a@example.com>\n");
    assert_eq!(inspect("{{json .Config.ExposedPorts}}"), "{\"8080/tcp\":{}}\n");
    assert_eq!(build.ok(&["run", "--rm", "--network", "none", "image"]), "\nfirst\nsecond\n\n");
    build.dockerfile("FROM busybox\nENTRYPOINT cat\n[\"/script\"]\n");
    let error = build.fails(&["build", "."]);
    assert!(error.contains("line 3") && error.contains("CMD or ENTRYPOINT"), "{error}");
}

#[test]
fn the_cache_goes_by_content() {
    let build = Build::new();
    build.file("a", "one");
    let text = "FROM busybox\nARG V=1\nCOPY a /a\nRUN cat /a > /b\nCMD x\n";
    build.build(text);
    let first = build.id();
    let touched =
        std::process::Command::new("touch").arg("-d").arg("2001-01-01").arg(build.context.join("a")).status();
    assert!(touched.unwrap().success());
    let again = build.build(text);
    assert_eq!(again.matches("Using cache").count(), 2, "{again}");
    assert_eq!(build.id(), first);
    build.file("a", "two");
    assert_eq!(build.build(text).matches("Using cache").count(), 0);
    assert_eq!(build.sh("cat /b"), "two");
    // An argument counts from where a step can see it.
    let other = build.ok(&["build", "--build-arg", "V=2", "-t", "image", "."]);
    assert_eq!(other.matches("Using cache").count(), 1, "{other}");
    let none = build.ok(&["build", "--no-cache", "."]);
    assert_eq!(none.matches("Using cache").count(), 0, "{none}");
    build.ok(&["builder", "prune", "-f"]);
    assert_eq!(build.build(text).matches("Using cache").count(), 0);
    assert_eq!(build.sh("cat /b"), "two");
}

#[test]
fn a_known_file_counts_as_long_as_it_is_the_same() {
    let build = Build::new();
    let text = "FROM busybox\nCOPY . /c/\n";
    // Old enough to be remembered.
    let age = |name: &str| {
        let path = build.context.join(name);
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    };
    build.file("a", "one");
    build.build(text);
    assert_eq!(build.sh("cat /c/a"), "one");
    // The same size and the same time of modification: the time of change tells.
    build.file("a", "two");
    age("a");
    build.build(text);
    assert_eq!(build.sh("cat /c/a"), "two");
    build.file("a", "six");
    age("a");
    build.build(text);
    assert_eq!(build.sh("cat /c/a"), "six");
    // Another file in its place.
    build.file("b", "ten");
    std::fs::rename(build.context.join("b"), build.context.join("a")).unwrap();
    build.build(text);
    assert_eq!(build.sh("cat /c/a"), "ten");
    // A damaged record is no record.
    for entry in std::fs::read_dir(build.dir.join("root/build/known")).into_iter().flatten().flatten() {
        std::fs::write(entry.path(), "cldknow1 nonsense").unwrap();
    }
    assert_eq!(build.build(text).matches("Using cache").count(), 1);
}

#[test]
fn stages_that_need_nothing_of_each_other_run_side_by_side() {
    let build = Build::new();
    // Each waits for the other's file: one after the other they would wait for ever.
    let meet = |me: &str, other: &str| {
        format!(
            "FROM busybox AS {me}\nRUN --network=none --mount=type=cache,target=/meet,id=meet echo {me} > /meet/{me}; \
             until [ -s /meet/{other} ]; do usleep 10000; done; echo {me} met {other}; cp /meet/{me} /{me}\n"
        )
    };
    let text = format!(
        "{}{}FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
        meet("one", "two"),
        meet("two", "one")
    );
    let out = build.build(&text);
    assert_eq!(build.sh("cat /one /two"), "one\ntwo\n");
    // Their words are not mixed, and the steps are numbered as they stand.
    let place = |text: &str| out.find(text).unwrap_or_else(|| panic!("{text}: {out}"));
    assert!(place("one met two") < place("Step 3/7 : FROM busybox AS two"), "{out}");
    assert!(place("Step 3/7") < place("two met one") && place("two met one") < place("Step 5/7"), "{out}");
}

#[test]
fn a_stage_that_fails_stops_the_others() {
    let build = Build::new();
    build.dockerfile(
        "FROM busybox AS slow\nRUN --network=none sleep 1000\nFROM busybox AS bad\nRUN --network=none echo why; exit 7\n\
         FROM busybox\nCOPY --from=slow / /a\nCOPY --from=bad / /b\n",
    );
    let output = build.run(&["build", "."]);
    let all = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(7), "{all}");
    assert!(all.contains("why") && all.contains("returned a non-zero code: 7"), "{all}");
    let left = std::fs::read_dir(build.dir.join("root/build/steps")).unwrap().count();
    assert_eq!(left, 0, "the slow step is left");
}

#[test]
fn stages() {
    let build = Build::new();
    let text = "ARG BASE=nothing\nFROM $BASE AS base\nRUN echo one > /one\nFROM busybox AS broken\nRUN false\nFROM base AS two\nRUN rm /one; mkdir /d; echo two > /d/two\nFROM scratch\nCOPY --from=two /d /\nCOPY --from=busybox /bin/busybox /bin/sh\n";
    build.dockerfile(text);
    build.ok(&["build", "--build-arg", "BASE=busybox", "-t", "image", "."]);
    assert_eq!(build.sh("echo /*; read x < /two; echo $x"), "/bin /dev /etc /proc /sys /two\ntwo\n");
    build.ok(&["build", "--build-arg", "BASE=busybox", "--target", "two", "-t", "image", "."]);
    assert_eq!(build.sh("ls /one 2>/dev/null; cat /d/two"), "two\n");
    let error = build.fails(&["build", "--target", "tow", "."]);
    assert!(error.contains("target stage \"tow\" could not be found (did you mean two?)"), "{error}");
}

#[test]
fn copies_as_docker_does() {
    let build = Build::new();
    for path in ["f", "g", "dir/x", "dir/sub/y", "skip/me", "keep.log", "other.log"] {
        build.file(path, path);
    }
    symlink("x", build.context.join("dir/link")).unwrap();
    build.file(".dockerignore", "skip\n*.log\n!keep.log\n");
    build.build(
        "FROM busybox\nWORKDIR /w\nCOPY f plain\nCOPY f into/\nCOPY dir contents\nCOPY f g many/\nCOPY *.log logs/\nCOPY --chown=bob:grp --chmod=0640 f /owned/f\nCOPY --chown=bob g /owned/g\nCOPY . /all\nCOPY [\"f\", \"with space\"]\nCOPY --parents dir/sub/y /par/\nCOPY --exclude=sub dir /ex\n",
    );
    assert_eq!(
        build.sh("cat plain into/f contents/x contents/sub/y many/g; readlink contents/link; ls logs"),
        "ffdir/xdir/sub/ygx\nkeep.log\n"
    );
    assert_eq!(build.sh("stat -c '%u:%g %a' /owned/f /owned/g plain"), "55:77 640\n55:66 644\n0:0 644\n");
    assert_eq!(
        build.sh("cd /all; ls; cat '/w/with space'; cat /par/dir/sub/y; ls /ex"),
        "Dockerfile\ndir\nf\ng\nkeep.log\nfdir/sub/ylink\nx\n"
    );
    for (line, part) in [
        ("COPY skip/me /x", "excluded by .dockerignore"),
        ("COPY missing /x", "file does not exist"),
        ("COPY f g /x", "destination must be a directory and end with a /"),
        ("COPY f /etc/passwd/x", "not a directory"),
        ("COPY --chown=nobody-here f /x", "no such user"),
    ] {
        build.dockerfile(&format!("FROM busybox\n{line}\n"));
        let error = build.fails(&["build", "."]);
        assert!(error.to_lowercase().contains(&part.to_lowercase()), "{line}: {error}");
    }
}

#[test]
fn links_do_not_lead_out_of_the_context() {
    let build = Build::new();
    std::fs::write(build.dir.join("outside"), "outside").unwrap();
    symlink(build.dir.join("outside"), build.context.join("file")).unwrap();
    symlink("/", build.context.join("root")).unwrap();
    symlink("../../..", build.context.join("up")).unwrap();
    build.file("a", "inside");
    for line in [
        "COPY file /x",
        "COPY root/etc/hostname /x",
        "COPY up/etc/hostname /x",
        "COPY ../outside /x",
        "ADD file /x",
    ] {
        build.dockerfile(&format!("FROM busybox\n{line}\n"));
        build.fails(&["build", "."]);
    }
    // Inside it they lead where they would with the context as the root.
    build.build("FROM busybox\nCOPY root/a /r\nCOPY ../../a /u\n");
    assert_eq!(build.sh("cat /r /u"), "insideinside");
    // A link in the image does not lead a step out of it either.
    build.build("FROM busybox\nRUN ln -s /../../../../tmp/landed /way\nCOPY a /way/\n");
    assert_eq!(build.sh("cat /tmp/landed/a"), "inside");
    symlink(build.dir.join("outside"), build.context.join("Linked")).unwrap();
    build.fails(&["build", "-f", "Linked", "."]);
}

#[test]
fn runs() {
    let build = Build::new();
    build.build(
        "FROM busybox\nARG A=arg\nENV A=env B=\"x y\"\nARG C=c\nRUN echo $A $B $C $HOST_ONLY_VARIABLE > /vars\nRUN [\"sh\", \"-c\", \"echo exec > /exec\"]\nRUN rm /bin/wget\nRUN <<EOF\necho a > /heredoc\necho b >> /heredoc\nEOF\nRUN cat <<A <<B > /two\n1\nA\n2\nB\nRUN <<EOF\n#!/bin/cat\nshebang\nEOF\nUSER bob\nRUN id -u > /tmp/id\nSHELL [\"/bin/sh\", \"-xc\"]\nRUN true\n",
    );
    assert_eq!(
        build.sh("cat /vars /exec /heredoc /tmp/id; ls /bin/wget 2>&1; true"),
        "env x y c\nexec\na\nb\n55\nls: /bin/wget: No such file or directory\n"
    );
    let history = build.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "image"]);
    assert!(history.contains("RUN |2 A=env C=c /bin/sh -c echo $A"), "{history}");
    // A step leaves no mount points behind.
    build.build("FROM scratch\nCOPY --from=busybox /bin /bin\nRUN [\"/bin/sh\", \"-c\", \"true\"]\n");
    build.ok(&["create", "--name", "tree", "image", "sh"]);
    let listed = build.ok(&["export", "tree", "-o", "tree.tar"]);
    assert_eq!(listed, "");
    let members = Command::new("tar").arg("-tf").arg(build.context.join("tree.tar")).output().unwrap();
    let members = String::from_utf8(members.stdout).unwrap();
    assert!(
        members.lines().all(|name| name.trim_start_matches("./").starts_with("bin") || name == "./"),
        "{members}"
    );
}

#[test]
fn a_failing_run_says_so_and_keeps_what_succeeded() {
    let build = Build::new();
    build.dockerfile("FROM busybox\nRUN echo kept > /kept\nRUN echo out; echo err >&2; exit 7\n");
    let error = build.fails(&["build", "."]);
    assert!(error.contains("out\n") && error.contains("err\n"), "{error}");
    assert!(
        error.contains("The command '/bin/sh -c echo out; echo err >&2; exit 7' returned a non-zero code: 7"),
        "{error}"
    );
    assert!(build.fails(&["build", "."]).contains("Using cache"));
    build.dockerfile("FROM busybox\nRUN [\"/no/such/program\"]\n");
    assert!(build.fails(&["build", "."]).contains("returned a non-zero code: 127"));
    let steps = build.dir.join("root/build/steps");
    assert_eq!(std::fs::read_dir(steps).unwrap().count(), 0);
}

#[test]
fn mounts_of_a_run() {
    let build = Build::new();
    build.file("src/data", "from the context");
    let secret = build.dir.join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    build.dockerfile(
        "FROM busybox AS tool\nRUN mkdir /t && echo tool > /t/x\nFROM busybox\nRUN --mount=type=secret,id=s,required wc -c < /run/secrets/s > /length\nRUN --mount=type=secret,id=s,env=S test ${#S} = 7\nRUN --mount=type=bind,source=src,target=/m cat /m/data > /bound && ! touch /m/no 2>/dev/null\nRUN --mount=type=bind,source=src,target=/m,rw touch /m/scratch\nRUN --mount=from=tool,source=/t,target=/t cat /t/x > /tool\nRUN --mount=type=cache,target=/c echo x >> /c/n\nRUN --mount=type=cache,target=/c echo x >> /c/n; wc -l < /c/n > /lines\nRUN --mount=type=tmpfs,target=/tm touch /tm/x\n",
    );
    build.ok(&["build", "-t", "image", "--secret", &format!("id=s,src={}", secret.display()), "."]);
    assert_eq!(
        build.sh("cat /length /bound /tool /lines; ls -d /run/secrets /m /t /c /tm 2>/dev/null; true"),
        "7\nfrom the contexttool\n2\n"
    );
    assert!(!build.context.join("src/scratch").exists());
    let saved = build.dir.join("saved.tar");
    build.ok(&["save", "-o", saved.to_str().unwrap(), "image"]);
    let bytes = std::fs::read(saved).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "the secret is in the image");
    assert!(!tree_holds(&build.dir.join("root"), b"hunter2"), "the secret is in the store");
    assert!(build.fails(&["build", "--no-cache", "."]).contains("secret s: not found"));
}

#[test]
fn triggers_archives_and_configuration() {
    let build = Build::new();
    build.file("tree/in/file", "archived");
    let status = Command::new("tar")
        .arg("-C")
        .arg(build.context.join("tree"))
        .arg("-czf")
        .arg(build.context.join("a.tgz"))
        .arg("in")
        .status();
    assert!(status.unwrap().success());
    build.dockerfile(
        "FROM busybox\nONBUILD COPY a.tgz /copied/\nONBUILD RUN echo triggered > /t\nCMD [\"old\"]\n",
    );
    build.ok(&["build", "-t", "base", "."]);
    build.build("FROM base\nADD a.tgz /added/\nENTRYPOINT [\"cat\"]\nLABEL a=b\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=5s CMD true\n");
    let inspect = |format| build.ok(&["inspect", "--format", format, "image"]);
    assert_eq!(
        inspect("{{json .Config.Cmd}} {{.Config.StopSignal}} {{json .Config.Labels}}"),
        "null SIGINT {\"a\":\"b\"}\n"
    );
    assert_eq!(inspect("{{json .Config.OnBuild}}"), "null\n");
    assert_eq!(
        build.ok(&["run", "--rm", "--network", "none", "image", "/t", "/added/in/file"]),
        "triggered\narchived"
    );
    assert_eq!(
        build.ok(&["run", "--rm", "--network", "none", "--entrypoint", "ls", "image", "/copied"]),
        "a.tgz\n"
    );
}

#[test]
fn builds_at_the_same_time_do_not_harm_each_other() {
    let build = Build::new();
    build.dockerfile("FROM busybox\nRUN echo same > /x\nCOPY Dockerfile /\n");
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| build.ok(&["build", "-t", "image", "."]))).collect();
        runs.into_iter().for_each(|run| drop(run.join().unwrap()));
    });
    assert_eq!(build.sh("cat /x"), "same\n");
}
