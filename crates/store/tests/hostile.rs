//! Archives that lie: each is refused with an error that names the member, or does no harm, and leaves nothing.

mod common;

use common::Dir;
use model::image::{Descriptor, media_type};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use store::Store;
use store::layer::Layer;
use tar::EntryType;

/// An archive in the making. Names are written raw: the builder of the `tar` crate refuses most of these.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn header(name: &[u8], kind: EntryType, link: &[u8], size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_mtime(1);
        let old = header.as_old_mut();
        old.name[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        header
    }
    fn block(&mut self, header: &tar::Header, data: &[u8]) {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
    fn add(mut self, name: &str, kind: EntryType, link: &str, data: &[u8]) -> Self {
        self.block(&Self::header(name.as_bytes(), kind, link.as_bytes(), data.len() as u64), data);
        self
    }
    fn file(self, name: &str) -> Self {
        self.add(name, EntryType::Regular, "", b"x")
    }
    fn dir(self, name: &str) -> Self {
        self.add(name, EntryType::Directory, "", b"")
    }
    fn link(self, name: &str, target: &str) -> Self {
        self.add(name, EntryType::Symlink, target, b"")
    }
    fn pax(mut self, records: &[u8]) -> Self {
        self.block(&Self::header(b"pax", EntryType::XHeader, b"", records.len() as u64), records);
        self
    }
    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = rest + (rest + 2).to_string().len();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn unpack(store: &Store, bytes: &[u8]) -> model::Result<Layer> {
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(bytes).unwrap();
    let (digest, size) = ingest.commit(None).unwrap();
    let media_type = media_type::OCI_LAYER.to_owned();
    store.unpack_layer(
        None,
        &Descriptor { media_type, digest, size, platform: None, annotations: BTreeMap::new() },
        None,
    )
}

fn tree(store: &Store, layer: &Layer) -> PathBuf {
    store.layout.layer_diff(&layer.chain)
}

#[test]
fn what_would_leave_the_root_is_refused_by_name() {
    let temp = Dir::new("hostile-refused");
    let store = temp.store("store");
    let deep = "d/".repeat(600);
    let base = Archive::default;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("parent", base().file("../evil").end(), "../evil"),
        ("inner parent", base().file("a/../../evil").end(), "a/../../evil"),
        (
            "hard link out",
            base().add("h", EntryType::Link, "../../etc/passwd", b"").end(),
            "../../etc/passwd",
        ),
        ("hard link to the host", base().add("h", EntryType::Link, "/etc/passwd", b"").end(), "/etc/passwd"),
        (
            "hard link through a link",
            base().link("l", "/").add("h", EntryType::Link, "l/etc/shadow", b"").end(),
            "l/etc/shadow",
        ),
        ("hard link to nothing", base().add("h", EntryType::Link, "nothing", b"").end(), "nothing"),
        ("hard link to the root", base().add("h", EntryType::Link, ".", b"").end(), "\"h\""),
        ("file as a directory", base().file("f").file("f/x").end(), "f/x"),
        ("whiteout of nothing", base().file(".wh.").end(), ".wh."),
        ("whiteout of the parent", base().file("a/.wh...").end(), "a/.wh..."),
        ("below a whiteout", base().file("a/.wh.b/c").end(), "a/.wh.b/c"),
        ("unknown type", base().add("t", EntryType::new(b'Z'), "", b"").end(), "\"t\""),
        ("empty link", base().link("l", "").end(), "\"l\""),
        ("NUL in a PAX path", base().pax(&record("path", b"a\0b")).file("x").end(), "\"pax\""),
        ("PAX parent", base().pax(&record("path", b"../../evil")).file("x").end(), "../../evil"),
        (
            "deep",
            base().pax(&record("path", format!("{deep}x").as_bytes())).file("x").end(),
            "deeper than 512",
        ),
        (
            "long",
            base().pax(&record("path", "n".repeat(5000).as_bytes())).file("x").end(),
            "longer than 4096",
        ),
        ("long component", base().pax(&record("path", "n".repeat(300).as_bytes())).file("x").end(), "nnn"),
        ("PAX length", base().pax(b"999 path=a\n").file("x").end(), "\"pax\""),
        ("huge owner", base().pax(&record("uid", b"99999999999")).file("x").end(), "owner"),
        (
            "sparse beyond the end",
            {
                let records = [record("GNU.sparse.size", b"10"), record("GNU.sparse.map", b"20,1")].concat();
                base().pax(&records).file("s").end()
            },
            "\"s\"",
        ),
        (
            "sparse backwards",
            {
                let records =
                    [record("GNU.sparse.size", b"100"), record("GNU.sparse.map", b"50,1,10,0")].concat();
                base().pax(&records).file("s").end()
            },
            "\"s\"",
        ),
        (
            "sparse overflow",
            {
                let records =
                    [record("GNU.sparse.size", b"100"), record("GNU.sparse.map", b"18446744073709551615,2")]
                        .concat();
                base().pax(&records).file("s").end()
            },
            "\"s\"",
        ),
        ("no tar", b"hello world, this is no archive".repeat(40), "not a tar archive"),
    ];
    for (what, bytes, named) in cases {
        let error = unpack(&store, &bytes).map(|layer| layer.chain).expect_err(what);
        assert!(error.to_string().contains(named), "{what}: {error}");
        assert_eq!(
            std::fs::read_dir(store.layout.layers()).unwrap().count(),
            0,
            "{what}: something was left"
        );
    }
    assert!(!temp.0.join("evil").exists() && !store.layout.root.join("evil").exists());
}

#[test]
fn links_lead_nowhere_but_into_the_layer() {
    let temp = Dir::new("hostile-links");
    let store = temp.store("store");
    let outside = temp.0.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "kept").unwrap();
    let out = outside.to_str().unwrap();
    let mode = std::fs::metadata(&outside).unwrap().mode();

    // An absolute link as a parent leads to the same path inside, as it would in Docker's chroot.
    let dir = Archive::default().dir(&format!("{out}/")).link("l", out).file("l/written").end();
    let layer = unpack(&store, &dir).unwrap();
    assert!(tree(&store, &layer).join(&out[1..]).join("written").is_file());

    let climbing = Archive::default().link("up", "../../../../..").file("up/here").end();
    let layer = unpack(&store, &climbing).unwrap();
    assert!(tree(&store, &layer).join("here").is_file());

    // A link is replaced, never written or chmodded through.
    let through =
        Archive::default().link("f", &format!("{out}/kept")).file("f").link("d", out).dir("d/").end();
    let layer = unpack(&store, &through).unwrap();
    assert!(std::fs::symlink_metadata(tree(&store, &layer).join("f")).unwrap().is_file());
    assert!(std::fs::symlink_metadata(tree(&store, &layer).join("d")).unwrap().is_dir());

    // A hard link to a link is a link; replacing it later does not reach the target.
    let hard = Archive::default()
        .link("s", &format!("{out}/kept"))
        .add("h", EntryType::Link, "s", b"")
        .file("h")
        .end();
    let layer = unpack(&store, &hard).unwrap();
    assert!(std::fs::symlink_metadata(tree(&store, &layer).join("s")).unwrap().is_symlink());

    let dangling = Archive::default().link("l", "/nowhere").file("l/x").end();
    assert!(unpack(&store, &dangling).unwrap_err().to_string().contains("l/x"));

    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read(outside.join("kept")).unwrap(), b"kept");
    assert_eq!(std::fs::metadata(&outside).unwrap().mode(), mode);
}

#[test]
fn odd_but_harmless_archives_unpack_as_in_docker() {
    let temp = Dir::new("hostile-odd");
    let store = temp.store("store");
    let meta = |path: &Path| std::fs::symlink_metadata(path).unwrap();

    let absolute = unpack(&store, &Archive::default().file("/etc/passwd").file("./a//b/./c").end()).unwrap();
    assert!(
        tree(&store, &absolute).join("etc/passwd").is_file()
            && tree(&store, &absolute).join("a/b/c").is_file()
    );

    let repeated = Archive::default()
        .add("x", EntryType::Regular, "", b"first")
        .add("x", EntryType::Regular, "", b"second")
        .dir("d/")
        .file("d/in")
        .file("d")
        .file("e")
        .dir("e/")
        .file("e/in")
        .end();
    let layer = unpack(&store, &repeated).unwrap();
    assert_eq!(std::fs::read(tree(&store, &layer).join("x")).unwrap(), b"second");
    assert!(tree(&store, &layer).join("d").is_file() && tree(&store, &layer).join("e/in").is_file());

    // Whiteouts concern the layers below, wherever they stand in the archive.
    let whiteouts = Archive::default()
        .file("a/kept")
        .file("a/.wh.kept")
        .file("a/.wh.gone")
        .file(".wh.dir")
        .dir("dir/")
        .file("dir/new")
        .file("o/.wh..wh..opq")
        .file(".wh..wh.aufs")
        .file(".wh..wh.plnk/1.2")
        .end();
    let layer = unpack(&store, &whiteouts).unwrap();
    let root = tree(&store, &layer);
    assert!(meta(&root.join("a/kept")).is_file());
    assert_eq!(meta(&root.join("a/gone")).rdev(), 0);
    for opaque in ["dir", "o"] {
        let mut value = [0u8; 8];
        assert_eq!(
            rustix::fs::getxattr(root.join(opaque), "trusted.overlay.opaque", &mut value[..]),
            Ok(1),
            "{opaque}"
        );
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 3, "aufs leftovers were unpacked");

    // Overlay's own attributes do not come from an archive.
    let record = record("SCHILY.xattr.trusted.overlay.redirect", b"/etc");
    let layer = unpack(&store, &Archive::default().pax(&record).dir("r/").end()).unwrap();
    let mut value = [0u8; 8];
    assert!(
        rustix::fs::getxattr(tree(&store, &layer).join("r"), "trusted.overlay.redirect", &mut value[..])
            .is_err()
    );
}

#[test]
fn truncated_and_damaged_archives_leave_nothing() {
    let temp = Dir::new("hostile-truncated");
    let store = temp.store("store");
    let whole = Archive::default().add("first", EntryType::Regular, "", &[7; 3000]).file("second").end();
    for length in [100, 512, 700, 3000, 3700] {
        let error = unpack(&store, &whole[..length]).map(|layer| layer.chain).unwrap_err();
        assert!(!error.to_string().is_empty());
        if length > 512 {
            assert!(error.to_string().contains("first"), "{length}: {error}");
        }
    }
    let mut damaged = whole.clone();
    damaged[3584 + 3] ^= 1;
    assert!(unpack(&store, &damaged).unwrap_err().to_string().contains("first"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(unpack(&store, &gzip[..gzip.len() / 2]).is_err());
    assert!(unpack(&store, &gzip).is_ok());
    assert!(unpack(&store, b"\xfd7zXZ\0rest").is_err());
    assert_eq!(std::fs::read_dir(store.layout.layers()).unwrap().count(), 1);
}

#[test]
fn a_bomb_is_stopped() {
    let temp = Dir::new("hostile-bomb");
    let store = temp.store("store");
    // 600 MiB of zeros in a few kilobytes: beyond what any honest layer compresses to.
    let mut zstd = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let size: u64 = 600 << 20;
    let mut header = Archive::header(b"zeros", EntryType::Regular, b"", size);
    header.set_cksum();
    zstd.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..600 {
        zstd.write_all(&zeros).unwrap();
    }
    let error = unpack(&store, &zstd.finish().unwrap()).map(|layer| layer.chain).unwrap_err();
    assert!(error.to_string().contains("1100 times"), "{error}");
    assert_eq!(std::fs::read_dir(store.layout.layers()).unwrap().count(), 0);
}

#[test]
fn wrong_digests_and_too_long_blobs_are_refused() {
    let temp = Dir::new("hostile-blobs");
    let store = temp.store("store");
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"content").unwrap();
    assert!(ingest.commit(Some(&model::Digest::of(b"other"))).is_err());
    let mut ingest = store.ingest().unwrap().limit(4);
    assert!(ingest.write_all(b"content").is_err());
    drop(ingest);
    assert_eq!(std::fs::read_dir(store.layout.ingest()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(store.layout.blobs()).unwrap().count(), 0);
    let digest = store.put_blob(b"content").unwrap();
    std::fs::write(store.layout.blob(&digest), b"CONTENT").unwrap();
    assert!(store.read_blob(&digest, 100).unwrap_err().to_string().contains("damaged"));
}
