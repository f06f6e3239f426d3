//! The same Dockerfiles built by Debian's dockerd with BuildKit and by us: the same configuration, history and files.
//!
//! `same_image/cases` has the Dockerfiles. What differs on purpose is in [`ACCEPTED`], with the reason.

mod busybox;
#[path = "clients/engine.rs"]
mod engine;

use engine::Engine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// Builds that run at the same time on dockerd.
const WORKERS: usize = 4;

/// Cases, the beginning of what may differ there, and why.
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("*", ".files.dev: ", "runc leaves what a step's mounts stood on; BuildKit 0.9 and we take it away"),
    ("*", ".files.proc: ", "the same"),
    ("*", ".files.sys: ", "the same"),
    ("run-mount-bind", ".files.ctx: ", "the same"),
    ("run-mount-cache", ".files.cache: ", "the same"),
    ("run-mount-cache", ".files.other: ", "the same"),
    ("run-mount-secret", ".files.run", "the same"),
    ("run-mount-tmpfs", ".files.scratch: ", "the same"),
    ("expose", ".history", "a list, as BuildKit writes since 0.11"),
    ("healthcheck*", ".history", "the start interval is younger than this BuildKit"),
    ("copy-chown", ".history", "later BuildKits write --chown and --chmod"),
    ("copy-chmod", ".history", "the same"),
    ("copy-from-a-stage", ".history", "the same"),
    ("add-archive-chown", ".history", "the same"),
    ("history-of-many", ".history[8]", "the same"),
    ("copy-chmod", ".files.m2: ", "this BuildKit drops set-id bits"),
    ("shell", ".history[7]", "the start interval again"),
    ("args-and-env", ".history[4]", "values that count, as BuildKit writes since 0.8.1"),
    ("args-given", ".history", "the same"),
    ("args-global", ".history", "the same"),
    ("args-platform", ".history[3]", "the same"),
    ("args-platform", ".history[4]", "the same"),
    ("args-platform", ".history[5]", "the same"),
    ("args-platform", ".history[6]", "the same"),
    ("args-several-in-a-line", ".history[3]", "the same"),
    ("args-shadowed-by-a-stage", ".history[5]", "the same"),
    ("args-then-env", ".history", "the same, and an argument is named once"),
    ("arg-in-every-place", ".history", "all of these"),
    ("onbuild-wrapped", ".history[5]", "the start interval again"),
    ("tabs-everywhere", ".history[6]", "a list again"),
];

struct Case {
    name: String,
    flags: Vec<String>,
    text: String,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("same_image/cases").split_inclusive('\n') {
        match line.strip_prefix("== ") {
            Some(title) => {
                let mut words = title.split_whitespace().map(str::to_owned);
                let name = words.next().unwrap();
                cases.push(Case { name, flags: words.collect(), text: String::new() });
            }
            None => cases.last_mut().unwrap().text.push_str(line),
        }
    }
    cases
}

/// The context that all share: kinds, modes, owners, links, archives, and what the ignore file leaves out.
fn context(dir: &Path) {
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, text, mode) in [
        ("a", "file a\n", 0o644),
        ("b.sh", "#!/bin/sh\n", 0o755),
        ("setuid", "s", 0o4711),
        ("sp ace", "space", 0o600),
        ("n.txt", "n", 0o644),
        (".hidden", "h", 0o644),
        ("dir/x", "x", 0o640),
        ("dir/sub/z.txt", "z", 0o644),
        ("dir/sub/w", "w", 0o444),
        ("links/real", "r", 0o644),
        ("x.ign", "ignored", 0o644),
        ("keep.ign", "kept", 0o644),
        ("ignored/x", "ignored", 0o644),
        (".dockerignore", "*.ign\n!keep.ign\nignored\nDockerfile*\n", 0o644),
        ("pack/member", "packed", 0o604),
        ("pack/in/side", "packed", 0o644),
    ] {
        file(name, text, mode);
    }
    std::fs::create_dir(dir.join("empty")).unwrap();
    std::fs::set_permissions(dir.join("dir/sub"), std::fs::Permissions::from_mode(0o710)).unwrap();
    std::os::unix::fs::chown(dir.join("dir/x"), Some(1000), Some(1000)).unwrap();
    symlink("a", dir.join("link")).unwrap();
    symlink("dir", dir.join("dirlink")).unwrap();
    symlink("real", dir.join("links/relative")).unwrap();
    symlink("/etc/passwd", dir.join("links/absolute")).unwrap();
    symlink("nowhere", dir.join("links/dangling")).unwrap();
    let shell = |script: &str| {
        assert!(Command::new("sh").args(["-ec", script]).current_dir(dir).status().unwrap().success());
    };
    shell("chown -R 20:30 pack; ln -s member pack/link; touch -d 2001-02-03T04:05:06Z pack/in pack");
    shell("find . -depth -exec touch -h -d 2003-03-03T03:03:03Z {} +");
    shell("for z in '' .gz .bz2 .xz; do tar -C pack -caf archive.tar$z .; done; rm -r pack");
    shell("touch -d 2004-04-04T04:04:04Z archive.tar* .");
}

/// What an image is, as `save` tells it: name → its configuration and what lies in it.
fn images(archive: &Path) -> BTreeMap<String, Value> {
    let mut members: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    for entry in tar::Archive::new(std::fs::File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if let Some(link) = entry.link_name().unwrap() {
            let target = Path::new(&name).parent().unwrap().join(link);
            links.insert(name, clean(&target));
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.insert(name, bytes);
    }
    let member = |name: &str| &members[links.get(name).map_or(name, String::as_str)];
    let list: Value = serde_json::from_slice(member("manifest.json")).unwrap();
    let mut images = BTreeMap::new();
    for image in list.as_array().unwrap() {
        let mut config: Value = serde_json::from_slice(member(image["Config"].as_str().unwrap())).unwrap();
        let mut tree = BTreeMap::new();
        for layer in image["Layers"].as_array().unwrap() {
            apply(&mut tree, member(layer.as_str().unwrap()));
        }
        let history: Vec<Value> = config["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| json!({ "by": entry["created_by"], "empty": entry["empty_layer"] == true }))
            .collect();
        let run = config["config"].take();
        let value = json!({
            "config": run, "author": config["author"], "os": config["os"], "architecture": config["architecture"],
            "history": history, "layers": image["Layers"].as_array().unwrap().len(), "files": tree,
        });
        for tag in image["RepoTags"].as_array().unwrap() {
            images.insert(tag.as_str().unwrap().to_owned(), value.clone());
        }
    }
    images
}

fn clean(path: &Path) -> String {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

/// Puts one layer's members over those below.
fn apply(tree: &mut BTreeMap<String, String>, layer: &[u8]) {
    let below = |tree: &mut BTreeMap<String, String>, dir: &str| {
        tree.retain(|path, _| !path.starts_with(&format!("{dir}/")) && path != dir);
    };
    for entry in tar::Archive::new(layer).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = clean(&entry.path().unwrap());
        let name = path.rsplit('/').next().unwrap().to_owned();
        let parent = path.strip_suffix(&name).unwrap().trim_end_matches('/').to_owned();
        if name == ".wh..wh..opq" {
            tree.retain(|other, _| !other.starts_with(&format!("{parent}/")));
            continue;
        }
        if let Some(gone) = name.strip_prefix(".wh.") {
            below(tree, format!("{parent}/{gone}").trim_start_matches('/'));
            continue;
        }
        let header = entry.header();
        let kind = header.entry_type();
        let (mode, mtime) = (header.mode().unwrap() & 0o7777, header.mtime().unwrap());
        let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
        if kind.is_hard_link() {
            let target = clean(&entry.link_name().unwrap().unwrap());
            let first = tree.get(&target).cloned().unwrap_or_default();
            tree.insert(path, first);
            continue;
        }
        let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
        let mut content = String::new();
        if kind.is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            content = if bytes.len() < 200 {
                String::from_utf8_lossy(&bytes).into_owned()
            } else {
                format!("{} bytes", bytes.len())
            };
        }
        // A time before this project is one that was copied; the others are those of the build.
        let time = if mtime < 1_500_000_000 { mtime.to_string() } else { "now".to_owned() };
        if !path.is_empty() {
            tree.insert(path, format!("{kind:?} {mode:o} {uid}:{gid} {time} {link} {content:?}"));
        }
    }
}

/// Builds everything with one program, and saves it.
fn build(
    program: &(dyn Fn(&[&str]) -> Command + Sync),
    dir: &Path,
    cases: &[Case],
    archive: &Path,
) -> Vec<String> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let file = dir.join(format!("../{}.Dockerfile", case.name));
                    std::fs::write(&file, &case.text).unwrap();
                    let tag = format!("same/{}", case.name);
                    let mut args = vec!["build", "-q", "-t", &tag, "-f", file.to_str().unwrap()];
                    args.extend(case.flags.iter().map(String::as_str));
                    let output = program(&[&args[..], &["."]].concat()).current_dir(dir).output().unwrap();
                    if !output.status.success() {
                        let all = [output.stdout, output.stderr].concat();
                        failed.lock().unwrap().push(format!(
                            "{}: {}",
                            case.name,
                            String::from_utf8_lossy(&all)
                        ));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let tags: Vec<String> = cases
        .iter()
        .filter(|case| !failed.iter().any(|text| text.starts_with(&format!("{}: ", case.name))))
        .map(|case| format!("same/{}:latest", case.name))
        .collect();
    let mut args = vec!["save", "-o", archive.to_str().unwrap()];
    args.extend(tags.iter().map(String::as_str));
    let output = program(&args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    failed
}

/// A directory's time is that of its way to dockerd; we read the context in place and keep it.
fn transferred(text: &str) -> bool {
    let Some((docker, ours)) =
        text.split_once(": docker ").and_then(|(_, both)| both.split_once(", cauldron "))
    else {
        return false;
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (docker, ours) = (words(docker), words(ours));
    docker[0] == "\"Directory"
        && docker.len() > 3
        && ours.len() > 3
        && docker[..3] == ours[..3]
        && docker[3] == "now"
}

/// What is not the same; an empty value is as good as none.
fn differences(docker: &Value, ours: &Value, at: &str, found: &mut Vec<String>) {
    let empty = |value: &Value| {
        matches!(value, Value::Null | Value::Bool(false))
            || value == &json!("")
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
    };
    match (docker, ours) {
        (Value::Object(docker), Value::Object(ours)) => {
            let keys: std::collections::BTreeSet<&String> = docker.keys().chain(ours.keys()).collect();
            for key in keys {
                let (one, other) =
                    (&docker.get(key).unwrap_or(&Value::Null), &ours.get(key).unwrap_or(&Value::Null));
                differences(one, other, &format!("{at}.{key}"), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differences(one, other, &format!("{at}[{index}]"), found);
            }
        }
        _ if docker == ours || (empty(docker) && empty(ours)) => {}
        _ => found.push(format!("{at}: docker {docker}, cauldron {ours}")),
    }
}

#[test]
fn images_are_dockers() {
    let docker = Engine::dockerd();
    let dir = docker.dir.join("context");
    std::fs::create_dir(&dir).unwrap();
    context(&dir);
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let users = "FROM busybox\nRUN echo bob:x:55:66::/home/bob:/bin/sh >> /etc/passwd; echo 'grp:x:77:' >> /etc/group; chmod 1777 /tmp\nCMD [\"sh\"]\n";
    let base = docker.dir.join("base");
    std::fs::create_dir(&base).unwrap();
    std::fs::write(base.join("Dockerfile"), users).unwrap();
    let base = base.to_str().unwrap();
    docker.run(&["/usr/bin/docker", "build", "-q", "-t", "busybox", base], &[]);
    let exported = docker.dir.join("base.tar");
    let exported = exported.to_str().unwrap();
    docker.run(&["/usr/bin/docker", "save", "-o", exported, "busybox:latest"], &[]);
    let theirs = |args: &[&str]| {
        let mut command = docker.command(&[&["/usr/bin/docker"], args].concat());
        command.env("DOCKER_BUILDKIT", "1");
        command
    };
    let ours = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cauldron"));
        command.args(args).env_remove("DOCKER_HOST");
        command
            .env("CAULDRON_ROOT", docker.dir.join("root"))
            .env("CAULDRON_RUN_ROOT", docker.dir.join("run"));
        command
    };
    assert!(ours(&["load", "-q", "-i", exported]).output().unwrap().status.success());
    let (one, other) = (docker.dir.join("docker.tar"), docker.dir.join("cauldron.tar"));
    let failed = [build(&theirs, &dir, &cases, &one), build(&ours, &dir, &cases, &other)].concat();
    let (one, other) = (images(&one), images(&other));
    let mut found = failed;
    for (tag, image) in &one {
        let mut differ = Vec::new();
        if let Some(ours) = other.get(tag) {
            differences(image, ours, "", &mut differ);
        }
        let name = tag.trim_start_matches("same/").trim_end_matches(":latest");
        let accepted = |text: &String| {
            ACCEPTED.iter().any(|(case, place, _)| {
                let here = case.strip_suffix('*').map_or(*case == name, |start| name.starts_with(start));
                here && text.starts_with(place)
            }) || transferred(text)
        };
        found.extend(differ.into_iter().filter(|text| !accepted(text)).map(|text| format!("{name}{text}")));
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}
