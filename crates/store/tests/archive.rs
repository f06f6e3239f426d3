//! Save, load and import; into a real dockerd and out of one.

mod common;

use common::{Dir, Server, files, image, quiet, reference};
use model::{Digest, Kind};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use store::archive::Loaded;

fn saved(store: &store::Store, names: &[&str]) -> Vec<u8> {
    let mut archive = Vec::new();
    store.save(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), &mut archive).unwrap();
    archive
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = Dir::new("save-load");
    let here = dir.store("here");
    let (one, two) = (image(&here, "one:v1"), image(&here, "group/two:v2"));
    here.tag(&reference("one:v3"), &one.id).unwrap();
    let archive = saved(&here, &["one", "group/two:v2"]);
    assert_eq!(archive, saved(&here, &["one", "group/two:v2"]), "the same images give the same archive");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let packed = [archive.clone(), gzip.finish().unwrap(), zstd::encode_all(archive.as_slice(), 1).unwrap()];
    for (at, archive) in packed.iter().enumerate() {
        let there = dir.store(&format!("there{at}"));
        let mut lines: Vec<String> =
            there.load(archive.as_slice(), &quiet).unwrap().iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(lines, ["Loaded image: group/two:v2", "Loaded image: one:v1", "Loaded image: one:v3"]);
        for (name, image) in [("one:v3", &one), ("group/two:v2", &two)] {
            let loaded = there.image(name).unwrap();
            assert_eq!((&loaded.id, &loaded.config), (&image.id, &image.config));
            assert_eq!(files(&there, &loaded), files(&here, image));
        }
    }
    let there = dir.store("by-id");
    let loaded = there.load(saved(&here, &[two.id.as_str()]).as_slice(), &quiet).unwrap();
    assert_eq!(loaded, [Loaded::Image(two.id)]);
    assert_eq!(here.save(&["absent".to_owned()], Vec::new()).unwrap_err().kind(), Kind::NotFound);
}

/// A tar of these members; a name ending in `@` is a link to its data.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        if let Some(name) = name.strip_suffix('@') {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_path(name).unwrap();
            header.set_link_name(std::str::from_utf8(data).unwrap()).unwrap();
            header.set_cksum();
            archive.append(&header, std::io::empty()).unwrap();
        } else {
            header.set_size(data.len() as u64);
            archive.append_data(&mut header, name, *data).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/bin/sh"], "Labels": null },
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "docker_version": "1.13"
    }))
    .unwrap()
}

#[test]
fn an_old_archive_is_loaded() {
    let dir = Dir::new("old-archive");
    let store = dir.store("s");
    let layer = common::rootfs("old");
    let config = config(&[&layer, &layer]);
    let manifest = br#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    // The manifest first, a link before what it points to, the rest later.
    let archive = archive(&[
        ("manifest.json", manifest),
        ("b/layer.tar@", b"../a/layer.tar"),
        ("c.json", &config),
        ("a/VERSION", b"1.0"),
        ("a/layer.tar", &layer),
        ("repositories", b"{}"),
    ]);
    let loaded = store.load(archive.as_slice(), &quiet).unwrap();
    assert_eq!(loaded, [Loaded::Tag(reference("old:1"))]);
    let image = store.image("old:1").unwrap();
    assert_eq!(image.id, Digest::of(&config));
    assert_eq!(image.config.rootfs.diff_ids.len(), 2);
}

#[test]
fn a_bad_archive_is_refused() {
    let dir = Dir::new("bad-archive");
    let store = dir.store("s");
    let layer = common::rootfs("bad");
    let good = config(&[&layer]);
    let manifest = br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]"#;
    let wrong = common::rootfs("other");
    let blob = format!("blobs/sha256/{}", Digest::of(b"x").hex());
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("no tar", vec![b'x'; 4096], "read the archive"),
        ("empty", archive(&[]), "neither manifest.json nor index.json"),
        ("no layer", archive(&[("manifest.json", manifest), ("c.json", &good)]), "it has no \"l.tar\""),
        (
            "other layer",
            archive(&[("manifest.json", manifest), ("c.json", &good), ("l.tar", &wrong)]),
            "sha256:",
        ),
        (
            "link outside",
            archive(&[("a/l.tar@", b"../../etc/passwd"), ("manifest.json", manifest)]),
            "leaves it",
        ),
        (
            "link to the host",
            archive(&[("l.tar@", b"/etc/passwd"), ("manifest.json", manifest), ("c.json", &good)]),
            "it has no \"l.tar\"",
        ),
        ("forged blob", archive(&[(blob.as_str(), b"y")]), "its content has the digest"),
        (
            "count",
            archive(&[("manifest.json", manifest), ("c.json", &config(&[])), ("l.tar", &layer)]),
            "layers length mismatch",
        ),
    ];
    for (what, archive, expected) in cases {
        let error = store.load(archive.as_slice(), &quiet).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    let cut = archive(&[("manifest.json", manifest), ("c.json", &good), ("l.tar", &layer)]);
    assert!(store.load(&cut[..cut.len() / 2], &quiet).is_err());
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn a_layout_is_loaded_for_this_machine() {
    let dir = Dir::new("layout");
    let store = dir.store("s");
    let layer = common::rootfs("layout");
    let config = config(&[&layer]);
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(&layer), "size": layer.len() }]
    }))
    .unwrap();
    let inner = serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "m", "digest": Digest::of(b"elsewhere"), "size": 1, "platform": { "os": "linux", "architecture": "s390x" } },
        { "mediaType": "m", "digest": Digest::of(&manifest), "size": manifest.len(), "platform": { "os": "linux", "architecture": "amd64" } },
    ]}))
    .unwrap();
    let index = serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "i", "digest": Digest::of(&inner), "size": inner.len(), "annotations": { "org.opencontainers.image.ref.name": "lay:out" } }
    ]}))
    .unwrap();
    let names = [path(&layer), path(&config), path(&manifest), path(&inner)];
    let archive = archive(&[
        (&names[0], &layer),
        (&names[1], &config),
        ("index.json", &index),
        (&names[2], &manifest),
        (&names[3], &inner),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
    ]);
    assert_eq!(store.load(archive.as_slice(), &quiet).unwrap(), [Loaded::Tag(reference("lay:out"))]);
    assert_eq!(store.image("lay:out").unwrap().manifest_digest, Digest::of(&manifest));
}

/// Debian's dockerd in directories of its own, without any network.
fn dockerd(dir: &Path) -> (Server, String) {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let host = format!("unix://{}", at("docker.sock"));
    let mut command = Command::new("/usr/sbin/dockerd");
    command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
    command.args([
        "--data-root",
        &at("data"),
        "--exec-root",
        &at("exec"),
        "--pidfile",
        &at("pid"),
        "-H",
        &host,
    ]);
    command.args(["--config-file", &at("none.json")]);
    std::fs::write(dir.join("none.json"), "{}").unwrap();
    (Server::start(&mut command, "API listen on").0, host)
}

fn docker(host: &str, args: &[&str]) -> String {
    let output = Command::new("docker").args(["-H", host]).args(args).output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_real_dockerd_loads_and_gives_back() {
    let dir = Dir::new("dockerd");
    let here = dir.store("here");
    let made = image(&here, "exchange/app:v1");
    let file = dir.0.join("out.tar");
    here.save(&["exchange/app:v1".to_owned()], std::fs::File::create(&file).unwrap()).unwrap();
    let back = dir.0.join("back.tar");
    {
        let (_server, host) = dockerd(&dir.0);
        assert_eq!(
            docker(&host, &["load", "-i", file.to_str().unwrap()]).trim(),
            "Loaded image: exchange/app:v1"
        );
        let id = docker(
            &host,
            &["image", "inspect", "--format", "{{.Id}} {{json .Config.Cmd}}", "exchange/app:v1"],
        );
        assert_eq!(id.trim(), format!("{} [\"/bin/sh\"]", made.id));
        docker(&host, &["save", "-o", back.to_str().unwrap(), "exchange/app:v1"]);
    }
    let there = dir.store("there");
    let loaded = there.load(std::fs::File::open(&back).unwrap(), &quiet).unwrap();
    assert_eq!(loaded, [Loaded::Tag(reference("exchange/app:v1"))]);
    let image = there.image("exchange/app:v1").unwrap();
    assert_eq!(image.id, made.id);
    assert_eq!(files(&there, &image), files(&here, &made));
}

#[test]
fn a_tree_is_written_as_tar() {
    let dir = Dir::new("export");
    let store = dir.store("s");
    let made = image(&store, "x:1");
    let lower = store.lower(&made.config.rootfs.diff_ids).unwrap();
    let root = std::fs::File::open(&lower[0].0).unwrap();
    let mut archive = Vec::new();
    store::archive::write_tree(std::os::fd::AsFd::as_fd(&root), &mut archive).unwrap();
    let mut names = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
        if name == "etc/motd" {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(text, "x:1");
        }
        if name == "bin/busybox" {
            assert_eq!(entry.header().mode().unwrap() & 0o7777, 0o4755);
        }
        names.push(name);
    }
    for name in ["bin", "bin/busybox", "bin/sh", "etc", "etc/motd"] {
        assert!(names.iter().any(|have| have == name), "{names:?}");
    }
}
