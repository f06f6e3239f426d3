//! Layers on the real file system, compared with GNU tar attribute by attribute. Needs root.

mod common;

use common::Dir;
use model::Digest;
use model::digest::chain_id;
use model::image::{Descriptor, ImageConfig, media_type};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use store::Store;
use store::tree::{self, Pack, Whiteouts};

fn sh(script: &str, dir: &Path) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Everything about a tree that matters, by path.
fn picture(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links: BTreeMap<u64, String> = BTreeMap::new();
    let mut queue = vec![root.to_path_buf()];
    while let Some(dir) = queue.pop() {
        let mut entries: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let mut line = format!(
                "{:o} {}:{} {}.{:09} nlink {} ",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                if meta.is_dir() { 0 } else { meta.nlink() }
            );
            if meta.is_dir() {
                queue.push(path.clone());
            } else if meta.is_symlink() {
                line += &format!("-> {:?}", std::fs::read_link(&path).unwrap());
            } else if meta.is_file() {
                line += &format!("{} bytes {}", meta.len(), Digest::of(&std::fs::read(&path).unwrap()));
            } else {
                line += &format!("device {:x}", meta.rdev());
            }
            for (key, value) in xattrs(&path) {
                line += &format!(" {key}={value:?}");
            }
            if !meta.is_dir() && meta.nlink() > 1 {
                let first = links.entry(meta.ino()).or_insert_with(|| name.clone());
                line += &format!(" same as {first}");
            }
            found.insert(name, line);
        }
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let get = |name: &[u8]| {
        let mut value = vec![0u8; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        (String::from_utf8(name.to_vec()).unwrap(), value)
    };
    names.map(get).collect()
}

fn blob(store: &Store, bytes: &[u8]) -> Descriptor {
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(bytes).unwrap();
    let (digest, size) = ingest.commit(None).unwrap();
    let media_type = media_type::OCI_LAYER.to_owned();
    Descriptor { media_type, digest, size, platform: None, annotations: BTreeMap::new() }
}

/// A tree with everything that a layer can hold.
fn make_tree(dir: &Path) {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    sh(
        &format!(
            "mkdir -p usr/bin tmp etc {parent} empty
             printf hello > etc/file; chmod 640 etc/file; chown 1000:100 etc/file
             printf suid > usr/bin/su; chown 5:0 usr/bin/su; chmod 6755 usr/bin/su
             chmod 1777 tmp; mkdir -m 2775 var; printf x > var/in-setgid
             ln etc/file usr/bin/hard; ln -s ../../outside usr/bin/soft; ln usr/bin/soft usr/bin/soft2
             ln -s /{long} abs; printf long > {long}; ln {long} longlink
             mkfifo -m 600 pipe; mknod null c 1 3; mknod disk b 259 300; chmod 666 null
             truncate -s 17M sparse; printf mid | dd of=sparse bs=1 seek=9000000 conv=notrunc status=none
             printf big > owner; chown 3000000:4000000 owner
             printf 'odd' > 'new
line'; printf u > 'ümlaut'
             touch -d '1969-12-31 23:59:00.25 UTC' old; touch -d '2242-03-16 12:56:32 UTC' far
             touch -h -d '2020-02-02 02:02:02 UTC' abs usr/bin/soft
             touch -d '2021-01-01 01:01:01.123456789 UTC' etc/file usr/bin var tmp empty usr",
            parent = "d".repeat(120),
        ),
        dir,
    );
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(dir.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("etc/file", "user.note", b"a b");
    set("etc", "trusted.deep", b"\x00\x01\n=\x00\xff");
    set("usr/bin/su", "security.capability", &capability);
}

#[test]
fn unpacks_what_gnu_tar_unpacks() {
    let temp = Dir::new("layer-gnu");
    let source = temp.0.join("source");
    std::fs::create_dir(&source).unwrap();
    make_tree(&source);
    let store = temp.store("store");
    let formats = [
        "--format=pax",
        "--format=gnu",
        "--format=pax -S",
        "--format=pax -S --sparse-version=0.1",
        "--format=pax -S --sparse-version=0.0",
        "--format=gnu -S",
    ];
    for (number, format) in formats.iter().enumerate() {
        let reference = temp.0.join(format!("reference{number}"));
        std::fs::create_dir(&reference).unwrap();
        let xattrs = if format.contains("pax") { "--xattrs --xattrs-include='*'" } else { "" };
        sh(&format!("tar {format} {xattrs} --numeric-owner -cf ../a.tar . "), &source);
        sh(&format!("tar {xattrs} --numeric-owner -xpf ../a.tar"), &reference);
        let archive = std::fs::read(temp.0.join("a.tar")).unwrap();
        let descriptor = blob(&store, &archive);
        let diff_id = Digest::of(&archive);
        let layer = store.unpack_layer(None, &descriptor, Some(&diff_id)).unwrap();
        let ours = picture(&store.layout.layer_diff(&layer.chain));
        let theirs = picture(&reference);
        for (name, line) in &theirs {
            assert_eq!(ours.get(name), Some(line), "{format}: {name}");
        }
        assert_eq!(ours.len(), theirs.len(), "{format}");
        if format.contains("-S") {
            let sparse = store.layout.layer_diff(&layer.chain).join("sparse");
            assert!(std::fs::metadata(sparse).unwrap().blocks() < 1000, "{format}: the holes were filled");
        }
    }
}

#[test]
fn compressed_layers_have_the_digest_of_the_plain_one() {
    let temp = Dir::new("layer-compressed");
    let source = temp.0.join("source");
    std::fs::create_dir(&source).unwrap();
    make_tree(&source);
    sh("tar --numeric-owner -cf ../a.tar .; gzip -k ../a.tar", &source);
    let plain = std::fs::read(temp.0.join("a.tar")).unwrap();
    let diff_id = Digest::of(&plain);
    for (name, bytes) in [
        ("gzip", std::fs::read(temp.0.join("a.tar.gz")).unwrap()),
        ("zstd", zstd::encode_all(plain.as_slice(), 1).unwrap()),
    ] {
        let store = temp.store(name);
        let descriptor = blob(&store, &bytes);
        assert_eq!(store.unpack_layer(None, &descriptor, None).unwrap().diff_id, diff_id);
        let wrong = store.unpack_layer(Some(&diff_id), &descriptor, Some(&Digest::of(b"other"))).unwrap_err();
        assert!(wrong.to_string().contains("its content has the digest"), "{wrong}");
        assert_eq!(std::fs::read_dir(store.layout.layers()).unwrap().count(), 1, "something was left");
    }
}

#[test]
fn a_packed_tree_is_read_by_gnu_tar_and_packs_to_the_same_bytes() {
    let temp = Dir::new("layer-pack");
    for dir in ["source", "gnu"] {
        std::fs::create_dir(temp.0.join(dir)).unwrap();
    }
    let source = temp.0.join("source");
    make_tree(&source);
    let pack = |path: &Path, whiteouts| {
        let mut bytes = Vec::new();
        let root = sys::fs::open_root(path).unwrap();
        tree::pack(root.as_fd(), b"", &mut bytes, &Pack { whiteouts, base: Vec::new() }).unwrap();
        bytes
    };
    let bytes = pack(&source, Whiteouts::Plain);
    assert_eq!(bytes, pack(&source, Whiteouts::Plain));
    assert!(bytes.len() < 10 << 20, "the sparse file was filled: {}", bytes.len());
    std::fs::write(temp.0.join("a.tar"), &bytes).unwrap();
    sh("tar --xattrs --xattrs-include='*' --numeric-owner -xpf ../a.tar", &temp.0.join("gnu"));
    let store = temp.store("store");
    let layer = store.unpack_layer(None, &blob(&store, &bytes), None).unwrap();
    let ours = store.layout.layer_diff(&layer.chain);
    assert_eq!(picture(&ours), picture(&temp.0.join("gnu")));
    assert_eq!(bytes, pack(&ours, Whiteouts::Overlay));
}

fn upper(store: &Store, name: &str, lower: &[Digest], script: &str) -> store::snapshot::Writable {
    let writable = store.create_writable(&store.layout.root.join(name)).unwrap();
    let mount = store.mount_detached(&store.lower(lower).unwrap(), Some(&writable)).unwrap();
    // A detached mount is entered through its descriptor.
    sh(script, &sys::fs::proc_path(&mount));
    writable
}

#[test]
fn commits_what_changed_and_unpacks_it_again() {
    let temp = Dir::new("layer-commit");
    let store = temp.store("one");
    let base = upper(
        &store,
        "base",
        &[],
        "mkdir a b c; echo 1 > a/x; echo 2 > a/y; echo 3 > b/z; echo 4 > c/w; ln -s a l",
    );
    let (first, _) = store.commit_layer(None, &base, true).unwrap();
    assert!(!base.upper.exists());
    let script =
        "rm a/x; rm -r b; mkdir b; echo new > b/n; rm -r c; echo file > c; echo 22 > a/y; ln a/y a/yy";
    let writable = upper(&store, "change", std::slice::from_ref(&first), script);
    let (kept, length) = store.commit_layer(Some(&first), &writable, false).unwrap();
    assert!(writable.upper.exists());
    let (second, _) = store.commit_layer(Some(&first), &writable, true).unwrap();
    assert_eq!(kept, second);
    let archive = store.read_blob(&second, 1 << 20).unwrap();
    assert_eq!(archive.len() as u64, length);
    std::fs::write(temp.0.join("second.tar"), &archive).unwrap();
    let listing = Command::new("tar").arg("-tf").arg(temp.0.join("second.tar")).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    assert_eq!(listing, "a/\na/.wh.x\na/y\na/yy\nb/\nb/.wh..wh..opq\nb/n\nc\n");

    // Another store gets both layers as blobs: the merged trees are the same.
    let other = temp.store("two");
    for (parent, diff_id) in [(None, &first), (Some(&first), &second)] {
        let descriptor = blob(&other, &store.read_blob(diff_id, 1 << 20).unwrap());
        other.unpack_layer(parent, &descriptor, Some(diff_id)).unwrap();
    }
    let merged = |store: &Store| {
        let mount =
            store.mount_detached(&store.lower(&[first.clone(), second.clone()]).unwrap(), None).unwrap();
        let output = Command::new("sh")
            .args(["-c", "find . ! -path . | sort; cat a/y a/yy b/n c; stat -c %h a/y"])
            .current_dir(sys::fs::proc_path(&mount))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = "./a\n./a/y\n./a/yy\n./b\n./b/n\n./c\n./l\n22\n22\nnew\nfile\n2\n";
    assert_eq!(merged(&store), expected);
    assert_eq!(merged(&other), expected);
    let whiteout = other.layout.layer_diff(&chain_id(Some(&first), &second)).join("a/x");
    let meta = std::fs::symlink_metadata(whiteout).unwrap();
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0);
}

#[test]
fn an_unchanged_snapshot_is_the_well_known_empty_layer() {
    let temp = Dir::new("layer-empty");
    let store = temp.store("store");
    let writable = store.create_writable(&store.layout.root.join("w")).unwrap();
    let (diff_id, size) = store.commit_layer(None, &writable, true).unwrap();
    assert_eq!(diff_id.as_str(), "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
    assert_eq!(size, 1024);
}

#[test]
fn many_processes_and_threads_unpack_a_layer_once() {
    let temp = Dir::new("layer-parallel");
    let source = temp.0.join("source");
    std::fs::create_dir(&source).unwrap();
    sh("for i in $(seq 300); do echo $i > $i; done; tar -cf ../a.tar .", &source);
    let archive = std::fs::read(temp.0.join("a.tar")).unwrap();
    let diff_id = Digest::of(&archive);
    let store = temp.store("store");
    let descriptor = blob(&store, &archive);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| temp.store("store").unpack_layer(None, &descriptor, Some(&diff_id)).unwrap());
        }
        // Without an expected digest nobody waits: the first to finish wins.
        for _ in 0..4 {
            scope.spawn(|| temp.store("store").unpack_layer(None, &descriptor, None).unwrap());
        }
    });
    let names: Vec<_> =
        std::fs::read_dir(store.layout.layers()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [diff_id.hex()]);
    assert_eq!(std::fs::read_dir(store.layout.layer_diff(&diff_id)).unwrap().count(), 300);
}

/// An image of these layers (scripts that write them).
fn image(store: &Store, scripts: &[&str], author: &str) -> store::image::Image {
    let mut config =
        ImageConfig { author: Some(author.to_owned()), os: "linux".to_owned(), ..ImageConfig::default() };
    let mut chain = None;
    for (number, script) in scripts.iter().enumerate() {
        let writable = upper(store, &format!("w{author}{number}"), &config.rootfs.diff_ids, script);
        let (diff_id, _) = store.commit_layer(chain.as_ref(), &writable, true).unwrap();
        chain = Some(chain_id(chain.as_ref(), &diff_id));
        config.rootfs.diff_ids.push(diff_id);
    }
    store.put_image(&config, &std::collections::BTreeMap::new()).unwrap()
}

#[test]
fn collection_keeps_what_is_used() {
    let temp = Dir::new("layer-collect");
    let store = temp.store("store");
    let base = "printf base > base; touch -d @1 base";
    let one = image(&store, &[base, "echo one > one"], "one");
    let two = image(&store, &[base, "echo two > two"], "two");
    let name = |text: &str| common::reference(text);
    store.tag(&name("app:1"), &one.id).unwrap();
    assert!(store.remove_image(&one.id, &|| Ok(Vec::new())).is_err(), "it has a tag");
    assert_eq!(store.tag(&name("app:1"), &two.id).unwrap(), Some(one.id.clone()));
    assert!(
        store.image("app:1").unwrap().tags.len() == 1
            && store.image(one.id.as_str()).unwrap().tags.is_empty()
    );
    assert_eq!(store.image(&one.id.hex()[..12]).unwrap().id, one.id);
    assert_eq!(store.image("app:2").unwrap_err().to_string(), "No such image: app:2");

    // A container keeps the layers and the configuration of an image that is gone.
    let id = one.id.clone();
    let removed = store.remove_image(&one.id, &|| Ok(vec![id.clone()])).unwrap();
    assert_eq!(removed, std::slice::from_ref(&one.id));
    assert!(store.image(one.id.as_str()).is_err());
    assert_eq!(store.lower_of_image(&one.id).unwrap().len(), 2);

    // While somebody holds a lease nothing goes; then what only the image held.
    let lease = store.lease().unwrap();
    assert!(store.collect(&|| Ok(Vec::new())).unwrap().layers.is_empty());
    drop(lease);
    let top = chain_id(Some(&one.config.rootfs.diff_ids[0]), &one.config.rootfs.diff_ids[1]);
    assert_eq!(store.collect(&|| Ok(Vec::new())).unwrap().layers, [top]);
    assert_eq!(store.lower_of_image(&two.id).unwrap().len(), 2);

    // What a crash left goes too; what somebody is writing stays.
    std::fs::create_dir_all(store.layout.layers().join(".tmp-crashed/diff")).unwrap();
    std::fs::write(store.layout.ingest().join("crashed"), "half").unwrap();
    let writing = store.ingest().unwrap();
    store.collect(&|| Ok(Vec::new())).unwrap();
    assert_eq!(std::fs::read_dir(store.layout.ingest()).unwrap().count(), 2);
    drop(writing);
    store.untag(&name("app:1")).unwrap();
    let removed = store.remove_image(&two.id, &|| Ok(Vec::new())).unwrap();
    assert_eq!(removed.len(), 3);
    assert_eq!(removed[2], two.config.rootfs.diff_ids[0], "uppermost first");
    for dir in [store.layout.blobs(), store.layout.layers(), store.layout.ingest(), store.layout.trash()] {
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{}", dir.display());
    }
}

#[test]
fn tags_moved_at_once_end_on_one_image() {
    let temp = Dir::new("layer-tags");
    let store = temp.store("store");
    let images: Vec<_> =
        ["a", "b", "c"].iter().map(|name| image(&store, &["echo x > x; touch -d @1 x"], name)).collect();
    std::thread::scope(|scope| {
        for image in &images {
            scope.spawn(|| {
                for _ in 0..50 {
                    temp.store("store").tag(&common::reference("x:1"), &image.id).unwrap();
                }
            });
        }
    });
    let tagged: Vec<_> = store.images().unwrap().into_iter().filter(|image| !image.tags.is_empty()).collect();
    assert_eq!(tagged.len(), 1);
    assert_eq!(store.image("x:1").unwrap().id, tagged[0].id);
}

#[test]
fn a_newer_format_is_refused() {
    let temp = Dir::new("layer-format");
    let store = temp.store("store");
    std::fs::write(store.layout.format(), r#"{"version":1,"features":["time-travel"]}"#).unwrap();
    let error = Store::open(store.layout.clone()).err().unwrap();
    assert!(error.to_string().contains("time-travel"), "{error}");
}

/// A tar of one hard link.
fn hard_link(name: &str, target: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    header.set_mode(0o644);
    archive.append_link(&mut header, name, target).unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn a_hard_link_may_lead_to_a_file_of_the_layer_below() {
    let dir = Dir::new("link-below");
    let store = dir.store("store");
    sh(
        "mkdir -p t/etc/deep t/out && echo secret > t/etc/deep/file && chmod 4640 t/etc/deep/file && chown 5:6 t/etc/deep/file
         chmod 0710 t/etc && chown 7:8 t/etc/deep && setfattr -n user.note -v kept t/etc/deep/file 2>/dev/null || true
         touch -d '2020-02-02 02:02:02' t/etc/deep/file t/etc
         mknod t/device c 240 7 && ln -s / t/away && ln -s etc t/inside && mkdir t/hidden && echo x > t/hidden/file
         tar -C t -cf base.tar .",
        &dir.0,
    );
    let base = std::fs::File::open(dir.0.join("base.tar")).unwrap();
    let base = store.unpack_stream(None, base, None, None).unwrap();
    let below = Some(&base.chain);
    let layer =
        store.unpack_stream(below, hard_link("bin/name", "etc/deep/file").as_slice(), None, None).unwrap();
    let diff = store.layout.layer_diff(&layer.chain);
    let (file, name) = (picture(&diff)["etc/deep/file"].clone(), picture(&diff)["bin/name"].clone());
    assert!(name.contains("same as") || file.contains("same as"), "{file}\n{name}");
    let original = &picture(&store.layout.layer_diff(&base.chain))["etc/deep/file"];
    let same =
        |line: &str| line.replace(" nlink 2 ", " nlink 1 ").split(" same as").next().unwrap().to_owned();
    assert_eq!(same(&file), *original);
    for (path, mode, uid) in [("etc", 0o40710, 0), ("etc/deep", 0o40755, 7)] {
        let meta = std::fs::metadata(diff.join(path)).unwrap();
        assert_eq!((meta.mode(), meta.uid()), (mode, uid), "{path}");
    }
    assert_eq!(layer.size, 7);
    // Nothing outside of the image, whatever its links say; nothing that is no file, or not there.
    for target in ["away/etc/hostname", "etc", "nope", "out/../../etc/hostname", "etc/deep/file/x"] {
        let refused = store.unpack_stream(below, hard_link("x", target).as_slice(), None, None);
        assert!(refused.is_err(), "{target}");
    }
    // A device is not so much as opened: that alone arms a watchdog, or rewinds a tape. Opening this one would be ENXIO.
    let refused = store.unpack_stream(below, hard_link("x", "device").as_slice(), None, None).unwrap_err();
    assert!(refused.to_string().contains("No such file or directory"), "{refused}");
    // A file that this layer itself takes away is not there any more.
    for taken in [&["hidden/.wh..wh..opq"][..], &[".wh.hidden"], &[".wh.hidden", "hidden/new"]] {
        let mut gone = tar::Builder::new(Vec::new());
        for name in taken {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            gone.append_data(&mut header, name, &[][..]).unwrap();
        }
        let mut gone = gone.into_inner().unwrap();
        gone.truncate(512 * taken.len());
        gone.extend(hard_link("x", "hidden/file"));
        assert!(store.unpack_stream(below, gone.as_slice(), None, None).is_err(), "{taken:?}");
    }
}

#[test]
fn what_a_killed_writer_left_is_swept_away() {
    let dir = Dir::new("ingest");
    let first = dir.store("store");
    let mut alive = first.ingest().unwrap();
    alive.write_all(b"half").unwrap();
    let stray = first.layout.ingest().join("0123456789abcdef");
    std::fs::write(&stray, "left by a killed process").unwrap();
    // Another process begins.
    let second = dir.store("store");
    drop(second.ingest().unwrap());
    assert!(!stray.exists());
    let (digest, size) = alive.commit(None).unwrap();
    assert_eq!((digest, size), (Digest::of(b"half"), 4));
}

#[test]
fn a_layer_that_was_not_on_the_disk_when_the_machine_went_down_is_made_again() {
    let dir = Dir::new("torn");
    let store = dir.store("one");
    let tar = common::rootfs("whole");
    let descriptor = blob(&store, &tar);
    let layer = store.unpack_layer(None, &descriptor, None).unwrap();
    let mark = store.layout.layer(&layer.chain).join("unsynced");
    let file = store.layout.layer_diff(&layer.chain).join("torn");
    let again = || store.unpack_layer(None, &descriptor, Some(&layer.diff_id)).unwrap();
    // In the boot that made it it is there.
    std::fs::write(&file, "").unwrap();
    again();
    assert!(file.exists());
    for boot in ["another boot", ""] {
        std::fs::write(&file, "").unwrap();
        std::fs::write(&mark, boot).unwrap();
        assert!(store.layer(&layer.chain).unwrap().is_none());
        again();
        assert!(store.layer(&layer.chain).unwrap().is_some() && !file.exists());
    }
    // Its digest is not known beforehand.
    std::fs::write(&file, "").unwrap();
    std::fs::write(&mark, "another boot").unwrap();
    store.unpack_layer(None, &descriptor, None).unwrap();
    assert!(!file.exists());
    // An image waits for it.
    let config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: model::image::RootFs { kind: "layers".into(), diff_ids: vec![layer.diff_id.clone()] },
        ..ImageConfig::default()
    };
    store.put_image(&config, &BTreeMap::new()).unwrap();
    assert!(!mark.exists());
}
