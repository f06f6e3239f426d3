//! The Dockerfile's younger words, and contexts that are no directory. What older builders know as well is compared with
//! dockerd in `same_image.rs`.

mod builder;
mod busybox;

use builder::Build;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;

/// Serves these paths by HTTP on the loopback until the test ends.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let found = files.iter().find(|(name, _)| *name == path);
            let (status, body) =
                found.map_or(("404 Not Found", &[][..]), |(_, body)| ("200 OK", body.as_slice()));
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Thu, 01 Jan 2004 00:00:01 GMT\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        }
    });
    format!("http://{address}")
}

fn shell(build: &Build, script: &str) {
    assert!(Command::new("sh").args(["-ec", script]).current_dir(&build.context).status().unwrap().success());
}

#[test]
fn heredocs() {
    let build = Build::new();
    build.build(
        "FROM busybox\nENV V=value\nARG A=arg\nCOPY <<one <<\"two\" <<-'three' /docs/\n$V ${A} ${NONE:-none} \\$V \"quoted\"\none\n$V\ntwo\n\t\ttabs $V\n\tthree\nCOPY --chmod=0751 --chown=7:8 <<EOF /script\n#!/bin/sh\necho $V\nEOF\nADD <<EOF /added\nEOF\nRUN <<FIRST cat > /first && cat <<'SECOND' > /second\nbody of $V\nFIRST\nbody of $V\nSECOND\nRUN <<-EOF\n\tset -e\n\tfor i in 1 2; do\n\t\techo $i $V\n\tdone > /loop\nEOF\nRUN <<'EOF' sh\necho \"$V in sh\" > /in-sh\nEOF\nRUN <<EOF\n#!/bin/busybox ash\necho $0 | grep -c pipes > /interpreted\nEOF\nSHELL [\"/bin/busybox\", \"ash\", \"-ec\"]\nRUN <<EOF\necho shell > /shell\nEOF\n",
    );
    assert_eq!(
        build.sh("cat /docs/one /docs/two /docs/three; stat -c '%a %u:%g' /script /docs/one; cat /script /first /second /loop /in-sh /interpreted /shell; stat -c %s /added; ls /dev/pipes 2>&1 | head -1"),
        "value arg none $V \"quoted\"\n$V\ntabs $V\n751 7:8\n644 0:0\n#!/bin/sh\necho value\nbody of value\nbody of $V\n1 value\n2 value\nvalue in sh\n1\nshell\n0\nls: /dev/pipes: No such file or directory\n"
    );
}

#[test]
fn expansions_of_every_kind() {
    let build = Build::new();
    build.file("v1-release.txt", "chosen");
    build.build(
        "ARG FULL=busybox:latest\nFROM ${FULL%%:*} AS base\nARG F=archive.tar.gz P=/usr/local/lib/x.so S=a-b-c\nENV A=${F%.*} B=${F%%.*} C=${F#*.} D=${F##*.} E=${P##*/} G=${P%/*} H=${S/-/_} I=${S//-/_} J=${S//-/} K=${S/?/X}\nARG TAG=v1\nCOPY ${TAG:+$TAG-}release.t?t /r/${TAG:-none}/\nLABEL l=${F%.gz}\nEXPOSE ${PORTS:-81-82}/udp\nUSER ${NOBODY-0}\nWORKDIR /w/${S%%-*}\nVOLUME /v/${TAG}\nSTOPSIGNAL ${SIGNAL:-SIGQUIT}\nRUN echo \"$A $B $C $D $E $G $H $I $J $K\" > /all\n",
    );
    assert_eq!(
        build.sh("cat /all; pwd; cat /r/v1/*"),
        "archive.tar archive tar.gz gz x.so /usr/local/lib a_b-c a_b_c abc X-b-c\n/w/a\nchosen"
    );
    let inspect = |format: &str| build.ok(&["inspect", "--format", format, "image"]);
    assert_eq!(
        inspect(
            "{{json .Config.ExposedPorts}} {{json .Config.Labels}} {{.Config.StopSignal}} {{json .Config.Volumes}}"
        ),
        "{\"81/udp\":{},\"82/udp\":{}} {\"l\":\"archive.tar\"} SIGQUIT {\"/v/v1\":{}}\n"
    );
    build.dockerfile("FROM busybox\nARG NEEDED\nENV X=\"${NEEDED:?must be given}\"\n");
    assert!(build.fails(&["build", "."]).contains("NEEDED: must be given"));
    build.ok(&["build", "--build-arg", "NEEDED=x", "."]);
}

#[test]
fn copies_with_all_options() {
    let build = Build::new();
    for name in ["src/a/one.go", "src/a/one_test.go", "src/b/deep/two.go", "src/b/deep/notes.md", "top.go"] {
        build.file(name, name);
    }
    shell(
        &build,
        "chmod 700 src/b; chmod 640 top.go; mkdir -m 750 tree; echo x > tree/run.sh; chmod 600 tree/run.sh",
    );
    shell(&build, "tar -cf plain.tar top.go; ln -s ../top.go src/link");
    build.build(
        "FROM busybox\nCOPY --parents src/*/one.go src/b /p/\nCOPY --parents ./src/./b/deep/*.go /pivot/\nCOPY --parents ./**/*.go **/no* /deep/\nCOPY --exclude=**/*_test.go --exclude=**/*.md src /e/\nCOPY --exclude=*.go --exclude=src t* /x/\nCOPY --chmod=u=rwX,go=rX tree /c1\nCOPY --chmod=+x top.go /c2\nCOPY --link --chown=5 top.go /l/\nADD --unpack=false plain.tar /kept/\nADD --unpack=true plain.tar /unpacked/\n",
    );
    assert_eq!(
        build.sh("cd /p; find . -type f | sort; stat -c %a src src/b; cd /pivot; find . -type f; cd /deep; find . -type f | sort; cd /e; find . | sort; stat -c %a /c1 /c1/run.sh /c2; stat -c %u /l/top.go; ls /x /kept /unpacked"),
        "./src/a/one.go\n./src/b/deep/notes.md\n./src/b/deep/two.go\n755\n700\n./b/deep/two.go\n./src/a/one.go\n./src/a/one_test.go\n./src/b/deep/notes.md\n./src/b/deep/two.go\n./top.go\n.\n./a\n./a/one.go\n./b\n./b/deep\n./b/deep/two.go\n./link\n755\n644\n751\n5\n/kept:\nplain.tar\n\n/unpacked:\ntop.go\n\n/x:\nrun.sh\n"
    );
    build.dockerfile("FROM busybox\nCOPY --exclude=[ src /e/\n");
    assert!(build.fails(&["build", "."]).contains("syntax error in pattern"));
}

#[test]
fn what_is_fetched() {
    let build = Build::new();
    build.file("inner/file", "in the archive");
    shell(&build, "tar -C inner -czf a.tar.gz .; rm -r inner");
    let archive = std::fs::read(build.context.join("a.tar.gz")).unwrap();
    let sum = Command::new("sha256sum").arg("a.tar.gz").current_dir(&build.context).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
    let dockerfile = b"FROM busybox\nRUN echo remote\n".to_vec();
    build.file("context/Dockerfile", "FROM busybox\nCOPY x /x\nRUN cat /x\n");
    build.file("context/x", "of the remote context\n");
    shell(&build, "tar -C context -cJf c.tar.xz .");
    let context = std::fs::read(build.context.join("c.tar.xz")).unwrap();
    let url = serve(vec![
        ("/a.tar.gz", archive),
        ("/", Vec::new()),
        ("/D", dockerfile),
        ("/c.tar.xz", context.clone()),
    ]);
    build.build(&format!(
        "FROM busybox\nADD {url}/a.tar.gz /dir/\nADD --checksum=sha256:{sum} --chmod=444 --chown=3 {url}/a.tar.gz?query=1 /named\nADD --unpack {url}/a.tar.gz /unpacked\n"
    ));
    assert_eq!(
        build.sh("stat -c '%a %u %Y' /dir/a.tar.gz /named; cat /unpacked/file"),
        "600 0 1072915201\n444 3 1072915201\nin the archive"
    );
    for (line, wanted) in [
        (format!("ADD --checksum=sha256:{} {url}/a.tar.gz /x", "0".repeat(64)), "digest mismatch"),
        (format!("ADD {url}/none /x"), "ADD failed: get"),
        (format!("ADD {url}/ /x/"), "cannot determine filename"),
    ] {
        build.dockerfile(&format!("FROM busybox\n{line}\n"));
        assert!(build.fails(&["build", "."]).contains(wanted), "{line}");
    }
    // Contexts by URL: an archive, and a Dockerfile.
    assert!(build.ok(&["build", &format!("{url}/c.tar.xz")]).contains("\nof the remote context\n"));
    assert!(build.ok(&["build", &format!("{url}/D")]).contains("\nremote\n"));
    // And on stdin.
    let (built, said) = build.piped(&["build", "--no-cache", "-"], &context);
    assert!(built && said.contains("\nof the remote context\n"), "{said}");
    let (built, said) = build.piped(&["build", "-"], b"FROM busybox\nRUN echo alone\n");
    assert!(built && said.contains("\nalone\n"), "{said}");
    // Named ones.
    build.file("here/f", "directory");
    build.file("here/.dockerignore", "left-out");
    build.file("here/left-out", "");
    build.dockerfile("FROM base AS b\nCOPY --from=dir / /d\nCOPY --from=away / /a\nRUN --mount=from=dir,target=/m cat /m/f /d/f; ls /d /a\nFROM dir\nFROM b\n");
    let said = build.ok(&[
        "build",
        "--build-context",
        "base=docker-image://busybox",
        "--build-context",
        "dir=here",
        "--build-context",
        &format!("away={url}/c.tar.xz"),
        ".",
    ]);
    assert!(
        said.contains("directorydirectory") && !said.contains("left-out") && said.contains("Dockerfile\nx\n"),
        "{said}"
    );
}

#[test]
fn repositories() {
    let build = Build::new();
    shell(
        &build,
        "mkdir r; cd r; git init -q -b main .; commit() { git add .; git -c user.name=n -c user.email=e@x commit -qm \"$1\"; }; \
         mkdir -p sub/dir; echo one > f; echo below > sub/dir/g; printf 'FROM busybox\\nCOPY f /f\\nRUN cat /f\\n' > Dockerfile; commit 1; git tag v1; \
         echo two > f; commit 2; git update-server-info; git rev-parse HEAD~1 > ../first",
    );
    let first = std::fs::read_to_string(build.context.join("first")).unwrap().trim().to_owned();
    let url = format!("file://{}", build.context.join("r").display());
    for (reference, text) in [("", "two"), ("#main", "two"), ("#v1", "one"), (&format!("#{first}"), "one")] {
        let said = build.ok(&["build", "--no-cache", &format!("{url}{reference}")]);
        assert!(said.contains(&format!("\n{text}\n")), "{reference}: {said}");
    }
    build.dockerfile("FROM busybox\nCOPY --from=repo dir/g /g\nRUN cat /g\n");
    assert!(
        build.ok(&["build", "--build-context", &format!("repo={url}#v1:sub"), "."]).contains("\nbelow\n")
    );
    // By git's own protocol, as a Dockerfile may.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("--base-path={}", build.context.display());
    // Not through `git`, which would wait for it as a child of its own.
    let programs = Command::new("git").arg("--exec-path").output().unwrap().stdout;
    let mut daemon = Command::new(format!("{}/git-daemon", String::from_utf8(programs).unwrap().trim()))
        .args(["--verbose", "--export-all", "--listen=127.0.0.1", &format!("--port={port}"), &base])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    assert!(log.next().unwrap().unwrap().contains("Ready to rumble"));
    std::thread::spawn(move || log.for_each(drop));
    let remote = format!("git://127.0.0.1:{port}/r");
    build.build(&format!(
        "FROM busybox\nADD {remote} /head\nADD {remote}#v1:sub/dir /sub\nADD --keep-git-dir --checksum={first} {remote}#v1 /kept\nADD --chown=4 --chmod=700 {remote}#v1 /owned\n"
    ));
    assert_eq!(
        build.sh("cat /head/f /sub/g /kept/f; ls -A /head; test -d /kept/.git && stat -c '%u %a' /owned/f"),
        "two\nbelow\none\nDockerfile\nf\nsub\n4 700\n"
    );
    build.dockerfile(&format!("FROM busybox\nADD --checksum={} {remote} /x\n", "0".repeat(40)));
    assert!(build.fails(&["build", "."]).contains("expected checksum to match"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn checks() {
    let build = Build::new();
    build.file(".dockerignore", "secret");
    build.dockerfile("FROM busybox\nCOPY secret /\nCMD echo hi\nMAINTAINER x\n");
    let output = build.run(&["build", "--check", "."]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("Check complete, 3 warnings have been found!\n"), "{said}");
    assert!(
        said.contains("WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n")
            && said.contains("   3 | >>> CMD echo hi\n"),
        "{said}"
    );
    assert!(!build.ok(&["images", "-a"]).contains("none"), "something was built");
    let said = build.build("FROM busybox\nCMD echo hi\n");
    assert!(said.contains(" 1 warning found") && said.contains(" - JSONArgsRecommended: "), "{said}");
    build.dockerfile("# check=error=true\nFROM busybox\nCMD echo hi\n");
    assert!(build.fails(&["build", "."]).contains("lint violation found for rules: JSONArgsRecommended"));
    build.ok(&["build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended", "."]);
    build.dockerfile("FROM busybox\nENV X=$PATH\nCMD [\"x\"]\n");
    assert_eq!(build.ok(&["build", "--call=check", "."]), "Check complete, no warnings found.\n");
}

#[test]
fn services_of_a_project() {
    let build = Build::new();
    build.file(
        "compose.yaml",
        "name: p\nservices:\n  web:\n    build: {context: ./src, args: {A: of-the-file}, cache_to: [\"type=local,dest=cached\"]}\n  worker:\n    image: worker:1\n    build: {context: ./src, target: work}\n  db: {image: busybox}\n",
    );
    build.file("src/Dockerfile", "FROM busybox AS work\nARG A=none\nRUN echo \"A is $A\"\nFROM work\n");
    build.ok(&["build", "web", "worker"]);
    assert!(build.context.join("cached/index.json").exists());
    let names = || build.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(names().contains("p-web:latest") && names().contains("worker:1"), "{}", names());
    assert!(build.ok(&["build", "--no-cache", "--build-arg", "A=given", "worker"]).contains("A is given"));
    assert!(build.fails(&["build", "db"]).contains("service db has no build section"));
    assert!(build.fails(&["build", "web", "nobody"]).contains("no such service: nobody"));
    assert!(build.fails(&["build", "-t", "x", "web"]).contains("--tag does not go with services"));
    // One name is a directory first; several are services.
    assert!(build.fails(&["build", "nobody"]).contains("path \"nobody\" not found"));
    assert!(build.fails(&["build", ".", "src"]).contains("no such service: ."));
    std::fs::remove_file(build.context.join("compose.yaml")).unwrap();
    assert!(build.fails(&["build", ".", "src"]).contains("takes one context"));
}

#[test]
fn layouts_as_contexts() {
    let build = Build::new();
    build.dockerfile("FROM busybox\nRUN echo of the layout > /from\nENV KEPT=yes\n");
    build.ok(&["build", "-t", "named:v1", "-o", "type=oci,dest=layout,tar=false", "."]);
    build.ok(&["builder", "prune", "-af"]);
    build.file("Dockerfile", "FROM base\nRUN cat /from; echo kept $KEPT\nCOPY --from=other /from /copied\n");
    let contexts = ["--build-context", "base=oci-layout://layout", "--build-context"];
    let flags =
        [&["build", "--no-cache"], &contexts[..], &["other=oci-layout://layout:v1", "-t", "image", "."]]
            .concat();
    let said = build.ok(&flags);
    assert!(said.contains("\nof the layout\nkept yes\n"), "{said}");
    assert_eq!(build.sh("cat /copied"), "of the layout\n");
    let absent = build.fails(&["build", "--build-context", "base=oci-layout://layout@sha256:0000", "."]);
    assert!(absent.contains("the layout has no manifest sha256:0000"), "{absent}");
    // What is not what it is called.
    build.ok(&["system", "prune", "-af"]);
    shell(&build, "for blob in layout/blobs/sha256/*; do printf x >> $blob; done");
    let damaged = build.fails(&["build", "--build-context", "base=oci-layout://layout", "."]);
    assert!(damaged.contains("its content has the digest"), "{damaged}");
}

#[test]
fn platforms_that_this_machine_cannot_run() {
    let build = Build::new();
    build.dockerfile("FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN echo for $TARGETARCH > /made\nFROM scratch\nCOPY --from=make /made /\n");
    build.ok(&["build", "--platform", "linux/s390x", "-t", "image", "."]);
    assert_eq!(build.ok(&["inspect", "--format", "{{.Architecture}}", "image"]), "s390x\n");
    build.dockerfile("FROM busybox AS first\nRUN echo ran\nFROM --platform=linux/s390x busybox\nWORKDIR /x\nRUN true\nCOPY --from=first / /\n");
    let said = build.fails(&["build", "."]);
    assert!(said.contains("RUN for linux/s390x on a linux/") && said.contains("binfmt_misc"), "{said}");
    assert!(said.contains(">    5 | RUN true") && !said.contains("ran\n"), "{said}");
}

#[test]
fn secrets_beside_a_context_on_stdin() {
    let build = Build::new();
    build.file("secret", "not to be kept");
    build.file(
        "context/Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=s,required wc -c < /run/secrets/s\n",
    );
    shell(&build, "tar -C context -cf context.tar .");
    let context = std::fs::read(build.context.join("context.tar")).unwrap();
    let (built, said) = build.piped(&["build", "-t", "image", "--secret", "id=s,src=secret", "-"], &context);
    assert!(built && said.contains("\n14\n"), "{said}");
    assert!(!builder::tree_holds(&build.dir.join("root"), b"not to be kept"));
    let (built, said) = build.piped(&["build", "--no-cache", "-"], &context);
    assert!(!built && said.contains("secret s: not found"), "{said}");
}

#[test]
fn an_agent_is_forwarded() {
    let build = Build::new();
    let socket = build.dir.join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = [0u8; 5];
        std::io::Read::read_exact(&mut stream, &mut said).unwrap();
        stream.write_all(b"answer").unwrap();
        said
    });
    build.dockerfile("FROM busybox\nRUN --mount=type=ssh,required true\n");
    assert!(build.fails(&["build", "."]).contains("ssh agent default: not found"));
    build.dockerfile(
        "FROM busybox\nUSER 55:66\nRUN --mount=type=ssh,uid=55,gid=66,mode=0600 test -S \"$SSH_AUTH_SOCK\" && stat -c '%u:%g %a' $SSH_AUTH_SOCK\nRUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run/buildkit\n",
    );
    let said = build.ok(&["build", "--ssh", &format!("default={}", socket.display()), "."]);
    assert!(said.contains("\n55:66 600\n"), "{said}");
    let mut direct = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    direct.write_all(b"hello").unwrap();
    assert_eq!(&answers.join().unwrap(), b"hello");
}
