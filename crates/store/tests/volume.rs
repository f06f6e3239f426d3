//! Volumes on the real file system: made, filled from an image, mounted, removed.

use model::Kind;
use model::time::Timestamp;
use rustix::fs::{FileType, Mode, XattrFlags};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use store::Store;
use store::layout::Layout;

struct Root {
    dir: PathBuf,
    store: Store,
}

impl Root {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-volume-{name}-{}", std::process::id()));
        let layout = Layout { root: dir.join("root"), run_root: dir.join("run") };
        Self { store: Store::open(layout).unwrap(), dir }
    }
    fn create(&self, name: &str, options: &[(&str, &str)]) -> store::volume::Volume {
        self.store.create_volume(name, &BTreeMap::new(), &map(options), false, Timestamp::NEVER).unwrap().0
    }
    fn populate(&self, name: &str, from: &Path) {
        let from = fs::File::open(from).unwrap();
        self.store.populate_volume(name, from.as_fd()).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for volume in self.store.volumes().unwrap_or_default() {
            let _ = self.store.remove_volume(&volume.name);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn content(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::write(dir.join("sub/deep/file"), "deep").unwrap();
    fs::write(dir.join("suid"), "x").unwrap();
    chown(dir.join("suid"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(dir.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(dir.join("suid"), dir.join("sub/link")).unwrap();
    symlink("/etc/passwd", dir.join("absolute")).unwrap();
    rustix::fs::setxattr(dir.join("sub"), "trusted.colour", b"blue", XattrFlags::empty()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 32 << 20).unwrap();
    chown(dir, Some(77), Some(78)).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1770)).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(dir).unwrap().set_modified(long_ago).unwrap();
}

#[test]
fn is_made_once_and_removed() {
    let root = Root::new("made");
    let first = root.create("data", &[]);
    let (second, new) =
        root.store.create_volume("data", &map(&[("a", "b")]), &map(&[]), false, Timestamp::NEVER).unwrap();
    assert!(!new);
    assert_eq!(first, second);
    assert_eq!(fs::metadata(&first.data).unwrap().mode() & 0o7777, 0o755);
    let clash = root.store.create_volume(
        "data",
        &map(&[]),
        &map(&[("type", "tmpfs"), ("device", "tmpfs")]),
        false,
        Timestamp::NEVER,
    );
    assert_eq!(clash.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(root.store.volumes().unwrap(), std::slice::from_ref(&first));
    root.store.remove_volume("data").unwrap();
    assert_eq!(root.store.volume("data").unwrap_err().to_string(), "get data: no such volume");
    assert_ne!(root.create("data", &[]).id, first.id);
    assert_eq!(fs::read_dir(root.store.layout.trash()).unwrap().count(), 0);
}

#[test]
fn gets_the_images_content_once() {
    let root = Root::new("content");
    let source = root.dir.join("image");
    fs::create_dir(&source).unwrap();
    content(&source);
    let volume = root.create("data", &[]);
    root.populate("data", &source);
    let data = &volume.data;
    let meta = |path: &str| fs::symlink_metadata(data.join(path)).unwrap();
    assert_eq!(fs::read_to_string(data.join("sub/deep/file")).unwrap(), "deep");
    let suid = meta("suid");
    assert_eq!((suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.nlink()), (0o4755, 1234, 4321, 2));
    assert_eq!(meta("sub/link").ino(), suid.ino());
    assert_eq!(fs::read_link(data.join("absolute")).unwrap(), Path::new("/etc/passwd"));
    assert!(meta("fifo").file_type().is_fifo() && meta("null").file_type().is_char_device());
    assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
    let mut colour = [0u8; 16];
    let length = rustix::fs::getxattr(data.join("sub"), "trusted.colour", &mut colour[..]).unwrap();
    assert_eq!(&colour[..length], b"blue");
    let sparse = meta("sparse");
    assert_eq!(sparse.len(), 64 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "the holes were written: {} blocks", sparse.blocks());
    assert_eq!(fs::read(data.join("sparse")).unwrap(), fs::read(source.join("sparse")).unwrap());
    let top = fs::metadata(data).unwrap();
    assert_eq!((top.mode() & 0o7777, top.uid(), top.gid()), (0o1770, 77, 78));
    assert_eq!(top.mtime(), fs::metadata(&source).unwrap().mtime());

    fs::remove_file(data.join("suid")).unwrap();
    root.populate("data", &source);
    assert!(!data.join("suid").exists(), "a volume with content was filled again");
}

#[test]
fn an_interrupted_copy_is_finished_or_forgotten() {
    let root = Root::new("interrupted");
    let source = root.dir.join("image");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("one"), "1").unwrap();
    fs::write(source.join("two"), "2").unwrap();
    let half = root.create("half", &[]);
    let staging = half.data.with_file_name("_populate");
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("one"), "half").unwrap();
    root.populate("half", &source);
    assert_eq!(fs::read_to_string(half.data.join("one")).unwrap(), "1");

    let moved = root.create("moved", &[]);
    let staged = moved.data.with_file_name("_populated");
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("two"), "2").unwrap();
    fs::write(moved.data.join("one"), "1").unwrap();
    root.populate("moved", &source);
    assert_eq!(fs::read_to_string(moved.data.join("two")).unwrap(), "2");
    assert!(!staging.exists() && !staged.exists());
}

#[test]
fn other_file_systems_are_mounted_while_in_use() {
    let root = Root::new("mounted");
    let volume =
        root.create("memory", &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0700,noexec")]);
    let plain = fs::metadata(&volume.data).unwrap().dev();
    let mounted = root.store.mount_volume("memory").unwrap();
    assert_eq!(mounted.path, volume.data);
    assert_ne!(fs::metadata(&volume.data).unwrap().dev(), plain);
    fs::write(volume.data.join("file"), "kept").unwrap();
    root.store.mount_volume("memory").unwrap();
    assert_eq!(fs::read_to_string(volume.data.join("file")).unwrap(), "kept", "it was mounted twice");
    root.store.unmount_volume("memory").unwrap();
    assert_eq!(fs::metadata(&volume.data).unwrap().dev(), plain);

    let wanted = root.create("strange", &[("type", "nosuchfs"), ("device", "none")]);
    let error = root.store.mount_volume(&wanted.name).unwrap_err().to_string();
    assert!(error.contains("nosuchfs"), "{error}");
}

#[test]
fn a_bind_shows_the_device() {
    let root = Root::new("bind");
    let dir = root.dir.join("shown");
    fs::create_dir(&dir).unwrap();
    root.create("bound", &[("type", "none"), ("device", dir.to_str().unwrap()), ("o", "bind,ro")]);
    let mounted = root.store.mount_volume("bound").unwrap();
    assert_eq!((mounted.path.as_path(), mounted.read_only), (dir.as_path(), true));
    fs::remove_dir(&dir).unwrap();
    let error = root.store.mount_volume("bound").unwrap_err().to_string();
    assert!(
        error.starts_with("failed to mount local volume: mount ") && error.contains("flags: 0x1001"),
        "{error}"
    );
}
