//! The image that the end-to-end tests share: Debian's static busybox, every applet as a link.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes `dir/busybox.tar`, a root file system to import. `more` adds the test's own files.
pub fn archive(dir: &Path, more: impl FnOnce(&Path)) -> PathBuf {
    let root = dir.join("rootfs");
    for inner in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir_all(root.join(inner)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian's busybox-static");
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    more(&root);
    let tar = dir.join("busybox.tar");
    let status = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status().unwrap();
    assert!(status.success());
    std::fs::remove_dir_all(&root).unwrap();
    tar
}
