//! What a build gives and how it says so: outputs, reproducible images, the cache's conditions, progress, failure, interruption.
//! Needs root and docker-registry.

mod busybox;
mod home;
mod registries;

use home::{Home, Run};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

impl Home {
    /// A context `name` with this Dockerfile; gives its path.
    fn context(&self, name: &str, dockerfile: &str) -> String {
        std::fs::create_dir_all(self.0.join(name)).unwrap();
        std::fs::write(self.0.join(name).join("Dockerfile"), dockerfile).unwrap();
        self.path(name)
    }
    fn images(&self) -> String {
        self.ok(&["images", "-aq", "--no-trunc"])
    }
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn tar(args: &[&str]) -> String {
    let output = std::process::Command::new("tar").args(args).output().unwrap();
    assert!(output.status.success(), "tar {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

const FILES: &str = "FROM busybox AS make\nRUN --network=none mkdir -p /r/d && echo one > /r/d/f && chmod 4751 /r/d/f && chown 5:6 /r/d/f && ln -s /etc/passwd /r/l\n\
                     FROM scratch\nCOPY --from=make /r /\nVOLUME /v\n";

#[test]
fn files_leave_whole_and_no_image_stays() {
    let home = Home::new("files", |_| {});
    let context = home.context("c", FILES);
    let before = home.images();
    std::fs::create_dir_all(home.path("out/d")).unwrap();
    std::fs::write(home.path("out/d/kept"), "").unwrap();
    let (out, archive, tool) = (home.path("out"), home.path("t/files.tar"), home.path("bin/tool"));
    home.ok(&[
        "build",
        "-q",
        "-o",
        &out,
        "-o",
        &format!("type=tar,dest={archive}"),
        "-o",
        &format!("type=file,src=/d/f,dest={tool}"),
        &context,
    ]);
    assert_eq!(names(&out), ["d", "l"]);
    assert_eq!(names(&format!("{out}/d")), ["f", "kept"]);
    let file = std::fs::metadata(format!("{out}/d/f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o751, 0, 0));
    assert_eq!(std::fs::read_link(format!("{out}/l")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(std::fs::read_to_string(&tool).unwrap(), "one\n");
    assert_eq!(tar(&["-tf", &archive]), "d/\nd/f\nl\n");
    let stdout = home.command(&["build", "-o", "-", &context]).output().unwrap();
    assert_eq!(stdout.stdout, std::fs::read(&archive).unwrap());
    assert_eq!(home.images(), before, "an image stays");
    assert_eq!(home.ok(&["ps", "-aq"]) + &home.ok(&["volume", "ls", "-q"]), "");
    // A build that fails leaves what was there, and nothing else.
    let failing = home.context("failing", &format!("{FILES}COPY nothing /x\n"));
    let fresh = home.path("fresh/out");
    assert_ne!(home.run(&["build", "-o", &out, "-o", &fresh, &failing]).code, 0);
    assert!(names(&out) == ["d", "l"] && !Path::new(&fresh).exists());
    // Several files, and none of them named.
    let several = home.context("several", "FROM scratch\nCOPY Dockerfile a/\nCOPY Dockerfile b/\n");
    let run = home.run(&["build", "-o", &format!("type=file,dest={}", home.path("one")), &several]);
    assert!(run.code == 1 && run.err.contains("say which one with src="), "{}", run.err);
    assert_eq!(names(&home.path("")).iter().filter(|name| name.starts_with('.')).count(), 0);
    assert_eq!(home.images(), before);
}

#[test]
fn images_leave_as_archives_with_their_names() {
    let home = Home::new("archives", |_| {});
    let context = home.context("c", FILES);
    let before = home.images();
    let [oci, docker, layout, metadata, id] =
        ["oci.tar", "docker.tar", "layout", "metadata.json", "id"].map(|name| home.path(name));
    home.ok(&[
        "build",
        "-q",
        "-t",
        "localhost:5000/a/b:c",
        "-o",
        &format!("type=oci,dest={oci}"),
        "-o",
        &format!("type=docker,dest={docker},name=other"),
        "-o",
        &format!("type=oci,dest={layout},tar=false"),
        "--annotation",
        "org.opencontainers.image.title=T",
        "--metadata-file",
        &metadata,
        "--iidfile",
        &id,
        &context,
    ]);
    assert_eq!(home.images(), before, "an image stays");
    let (metadata, id) = (json(&metadata), std::fs::read_to_string(id).unwrap());
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    let index = json(&format!("{layout}/index.json"));
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], metadata["containerimage.digest"]);
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "localhost:5000/a/b:c");
    let blob = |digest: &serde_json::Value| {
        json(&format!("{layout}/blobs/sha256/{}", digest.as_str().unwrap().trim_start_matches("sha256:")))
    };
    let manifest = blob(&entry["digest"]);
    assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "T");
    assert_eq!(manifest["config"]["digest"], id.as_str());
    assert!(!tar(&["-tf", &oci]).contains("manifest.json"));
    let listed: serde_json::Value = serde_json::from_str(&tar(&["-xOf", &docker, "manifest.json"])).unwrap();
    assert_eq!(listed[0]["RepoTags"], serde_json::json!(["other:latest"]));
    // Both can be loaded.
    assert!(home.ok(&["load", "-i", &docker]).contains("other:latest"));
    assert!(home.ok(&["load", "-i", &oci]).contains("localhost:5000/a/b:c"));
    assert_eq!(home.ok(&["inspect", "-f", "{{.Id}}", "other"]), id);
}

#[test]
fn images_are_pushed_and_other_engines_give_the_same() {
    let home = Home::new("pushed", |_| {});
    let registry = registries::Registry::open(&home);
    let context = home.context("c", FILES);
    let (name, metadata) = (format!("{}/app:1", registry.host), home.path("metadata.json"));
    home.ok(&["build", "-q", "--push", "-t", &name, "--metadata-file", &metadata, &context]);
    let digest = json(&metadata)["containerimage.digest"].as_str().unwrap().to_owned();
    home.ok(&["rmi", "-f", &name]);
    home.ok(&["pull", &format!("{}/app@{digest}", registry.host)]);
    // Through a socket.
    let socket = format!("unix://{}", home.path("docker.sock"));
    let mut server = home.command(&["serve", "-H", &socket]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(server.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert!(line.contains("docker.sock"), "{line}");
    let (out, oci) = (home.path("out"), home.path("oci.tar"));
    let run = home.run(&[
        "-H",
        &socket,
        "build",
        "--progress",
        "plain",
        "-o",
        &out,
        "-o",
        &format!("type=oci,dest={oci}"),
        "--cache-ttl",
        "1h",
        &context,
    ]);
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), rustix::process::Signal::TERM)
        .unwrap();
    said.read_to_string(&mut line).unwrap();
    server.wait().unwrap();
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("CACHED") && run.err.contains("[make 2/2] RUN"), "{}", run.err);
    assert_eq!(names(&out), ["d", "l"]);
    assert!(tar(&["-tf", &oci]).contains("index.json"));
}

#[test]
fn the_same_source_gives_the_same_image() {
    let text = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN --network=none mkdir /d && echo $SOURCE_DATE_EPOCH > /d/f && ln -s f /d/l && rm /bin/wget\n\
                WORKDIR /w\nCOPY Dockerfile .\nLABEL a=b\n";
    let build = |home: &Home| {
        let context = home.context("c", text);
        let (id, layout) = (home.path("id"), home.path("layout"));
        let output = format!("type=oci,dest={layout},tar=false");
        let run = home
            .command(&[
                "build",
                "-q",
                "--no-cache",
                "--iidfile",
                &id,
                "-t",
                "i",
                "--load",
                "-o",
                &output,
                &context,
            ])
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(home.ok(&["inspect", "-f", "{{.Created}}", "i"]), "2001-09-09T01:46:40Z");
        let time = home.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "i",
            "sh",
            "-c",
            "stat -c %Y /d/l /w /w/Dockerfile; cat /d/f",
        ]);
        assert_eq!(time, "1000000000\n1000000000\n1000000000\n1000000000");
        let history = home.ok(&["history", "--format", "{{.CreatedAt}}", "i"]);
        assert!(history.lines().take(6).all(|line| line.starts_with("2001-09-09")), "{history}");
        (std::fs::read_to_string(id).unwrap(), names(&format!("{layout}/blobs/sha256")))
    };
    let home = Home::new("epoch", |_| {});
    let one = build(&home);
    // The same base image, and nothing else of the first one.
    let other = Home::bare("epoch");
    other.ok(&["import", &home.path("busybox.tar"), "busybox"]);
    assert_eq!(one, build(&other));
    let bad = home.run(&["build", "--build-arg", "SOURCE_DATE_EPOCH=x", &home.context("c", text)]);
    assert!(bad.code == 1 && bad.err.contains("invalid SOURCE_DATE_EPOCH"), "{}", bad.err);
}

/// The steps that a build found in the cache.
fn cached(run: &Run) -> usize {
    assert_eq!(run.code, 0, "{}", run.err);
    run.err.lines().filter(|line| line.ends_with(" CACHED")).count()
}

#[test]
fn the_cache_is_used_as_far_as_it_is_wanted() {
    let home = Home::new("cache", |_| {});
    let text = "FROM busybox AS a\nRUN --network=none echo a > /a\nFROM busybox\nCOPY --from=a /a /\nRUN --network=none echo b > /b\n";
    let context = home.context("c", text);
    let build =
        |args: &[&str]| cached(&home.run(&[&["build", "--progress=plain"], args, &[&context]].concat()));
    assert_eq!(build(&[]), 0);
    assert_eq!(build(&[]), 3);
    assert_eq!(build(&["--no-cache-filter", "a"]), 2);
    assert_eq!(build(&["--no-cache-filter", "1"]), 1);
    assert_eq!(build(&["--cache-ttl", "1h"]), 3);
    assert_eq!(build(&["--cache-ttl", "0"]), 0);
    assert_eq!(build(&["--cache-ttl", "a=0"]), 2);
    let bad = home.run(&["build", "--cache-ttl", "soon", &context]);
    assert!(bad.code != 0 && bad.err.contains("soon"), "{}", bad.err);
}

#[test]
fn a_failure_shows_where_and_how_to_look() {
    let home = Home::new("failure", |_| {});
    let context = home.context("c", "FROM busybox\nARG A=argument\nRUN --network=none echo kept > /kept\nRUN --network=none echo said; exit 3\nRUN true\n");
    let run = home.run(&["build", "--debug", &context]);
    assert_eq!((run.code, run.out.as_str()), (3, ""), "{}", run.err);
    for words in [
        "#3 [3/4] RUN --network=none echo said; exit 3\n",
        "#3 ERROR: process \"/bin/sh -c echo said; exit 3\" did not complete successfully: exit code: 3\n",
        "------\n > [3/4] RUN --network=none echo said; exit 3:\nsaid\n------\nDockerfile:4\n",
        "   4 | >>> RUN --network=none echo said; exit 3\n",
        "failed to solve: process",
    ] {
        assert!(run.err.contains(words), "{words}: {}", run.err);
    }
    let line = run.err.lines().find(|line| line.contains("a shell in the state before")).unwrap();
    let command: Vec<&str> = line.split_once("run ").unwrap().1.split(' ').collect();
    let image = command.last().unwrap();
    let shown = home.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "/bin/sh",
        image,
        "-c",
        "cat /kept; echo $A",
    ]);
    assert_eq!(shown, "kept\nargument");
    home.ok(&["rmi", image]);
    let quiet = home.run(&["build", "-q", &context]);
    assert!(
        quiet.out.is_empty() && quiet.err.contains("said\n") && quiet.err.contains(">>>"),
        "{}",
        quiet.err
    );
    let base = home.context("base", "FROM busybox\nFROM 127.0.0.1:1/no:1\n");
    let run = home.run(&["build", &base]);
    assert!(run.code == 1 && run.err.contains(" ERROR: ") && run.err.contains("Dockerfile:2"), "{}", run.err);
    // For programs.
    let raw = home.run(&["build", "--progress=rawjson", &context]);
    let lines: Vec<serde_json::Value> =
        raw.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let failed = |line: &&serde_json::Value| line["vertexes"][0]["error"].is_string();
    assert_eq!(lines.iter().filter(failed).count(), 1, "{}", raw.err);
    assert!(lines.iter().any(|line| line["logs"][0]["data"] == "c2FpZAo="), "{}", raw.err);
}

#[test]
fn an_interrupted_build_leaves_nothing_and_a_whole_cache() {
    let home = Home::new("interrupted", |_| {});
    let text =
        "FROM busybox\nRUN --network=none echo one > /one\nRUN --network=none echo waiting; sleep 1000\n";
    let context = home.context("c", text);
    let mut child =
        home.command(&["build", "--progress=plain", &context]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with(" waiting")), "the step did not begin");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.ends_with("CANCELED")), "{rest:?}");
    assert_eq!(names(&home.path("root/build/steps")), Vec::<String>::new());
    assert_eq!(names(&home.path("run/containers")), Vec::<String>::new());
    let text = "FROM busybox\nRUN --network=none echo one > /one\nRUN --network=none echo two > /two\n";
    let context = home.context("c", text);
    assert_eq!(cached(&home.run(&["build", "--progress=plain", &context])), 1);
}

#[test]
fn the_cache_keeps_to_its_budget() {
    let home = Home::new("budget", |_| {});
    let config = home.path("config.toml");
    let step = |name: &str| {
        let text = format!(
            "FROM busybox\nRUN --network=none head -c 400000 /dev/urandom > /{name}\nRUN --network=none echo {name} > /top\n"
        );
        home.context(name, &text)
    };
    let build = |context: &str| {
        home.run(&["--config-file", &config, "build", "--progress=plain", "-o", &home.path("out"), context])
    };
    std::fs::write(&config, "[build-cache]\nmax-size = \"700k\"\n").unwrap();
    let (one, two, three) = (step("one"), step("two"), step("three"));
    assert_eq!(cached(&build(&one)) + cached(&build(&two)), 0);
    // Used again: the other one goes first. What the newest build's image has costs nothing yet.
    assert_eq!(cached(&build(&one)), 2);
    assert_eq!(cached(&build(&three)), 0);
    assert_eq!(cached(&build(&one)), 2, "what was used last is gone");
    let listed = home.ok(&["builder", "du"]);
    assert!(listed.starts_with("ID") && listed.contains("RECLAIMABLE"), "{listed}");
    assert_eq!(home.ok(&["builder", "du", "--format", "{{.Type}}"]).lines().count(), 4, "{listed}");
    assert_eq!(cached(&build(&two)), 0);
    let bytes: u64 = home
        .ok(&["builder", "du", "--format", "{{.Size}}"])
        .lines()
        .map(|bytes| bytes.parse::<u64>().unwrap())
        .sum();
    assert!((1..=1 << 20).contains(&bytes), "{bytes}");
    let total = home.ok(&["system", "df", "--format", "{{.Type}} {{.Size}}"]);
    let human = home.ok(&["builder", "du"]);
    let human = human.lines().last().unwrap().split_whitespace().last().unwrap();
    assert!(total.contains(&format!("Build Cache {human}")), "{total} {human}");
    assert!(home.ok(&["--config-file", &config, "info"]).contains("700k"));
    // By hand: by age, down to a size, and all of it.
    let prune = |args: &[&str]| home.ok(&[&["builder", "prune", "-f"], args].concat());
    assert!(prune(&["--filter", "until=1h"]).ends_with("0B"));
    assert!(prune(&["--max-used-space", "10m"]).ends_with("0B"));
    assert!(prune(&["--keep-storage", "500kb"]).lines().count() > 1);
    assert_eq!(home.ok(&["builder", "du", "--format", "{{.ID}}"]).lines().count(), 2);
    prune(&["-a"]);
    assert_eq!(home.ok(&["builder", "du", "--format", "{{.ID}}"]), "");
    std::fs::write(&config, "[build-cache]\nmax-size = \"much\"\n").unwrap();
    assert!(build(&one).err.contains("build-cache.max-size"));
    for flag in ["--sbom=true", "--provenance=mode=max", "--squash"] {
        let run = home.run(&["build", flag, &one]);
        assert!(run.code == 1 && run.err.contains("not supported"), "{}", run.err);
    }
}
