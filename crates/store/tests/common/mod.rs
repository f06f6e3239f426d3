//! What the tests of images share: a root of their own, a small image, and servers that end with the test.
#![allow(dead_code)]

pub mod liar;

use model::image::RunConfig;
use model::time::Timestamp;
use model::{Reference, Result};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use store::Store;
use store::archive::Import;
use store::image::Image;
use store::layout::Layout;
use store::registry::{Progress, host_platform};

/// A directory of the test's own, with one or more stores.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    pub fn store(&self, name: &str) -> Store {
        let dir = self.0.join(name);
        Store::open(Layout { root: dir.join("root"), run_root: dir.join("run") }).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn quiet(_: Progress) -> Result<()> {
    Ok(())
}

pub fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// The tar of a root file system: busybox, a link to it, and bytes that do not compress to nothing.
pub fn rootfs(extra: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        if link.is_empty() {
            archive.append_data(&mut header, name, data).unwrap();
        } else {
            archive.append_link(&mut header, name, link).unwrap();
        }
    };
    let busybox = std::fs::read("/bin/busybox").expect("Debian's busybox-static is installed");
    add("bin/", tar::EntryType::Directory, 0o755, "", b"");
    add("bin/busybox", tar::EntryType::Regular, 0o4755, "", &busybox);
    add("bin/sh", tar::EntryType::Symlink, 0o777, "busybox", b"");
    add("etc/", tar::EntryType::Directory, 0o755, "", b"");
    add("etc/motd", tar::EntryType::Regular, 0o644, "", extra.as_bytes());
    archive.into_inner().unwrap()
}

/// An image of one layer, tagged.
pub fn image(store: &Store, tag: &str) -> Image {
    let config = RunConfig {
        cmd: Some(vec!["/bin/sh".to_owned()]),
        env: vec!["A=b".to_owned()],
        ..RunConfig::default()
    };
    let created = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
    let import = Import { config, message: "a test".to_owned(), platform: host_platform(), created };
    let image = store.import(rootfs(tag).as_slice(), import).unwrap();
    store.tag(&reference(tag), &image.id).unwrap();
    store.image(tag).unwrap()
}

/// Every path of an image's merged view with mode and content length.
pub fn files(store: &Store, image: &Image) -> Vec<(String, u32, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    for dir in store.lower(&image.config.rootfs.diff_ids).unwrap() {
        let mut queue = vec![dir.0.clone()];
        while let Some(at) = queue.pop() {
            for entry in std::fs::read_dir(at).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    queue.push(entry.path());
                }
                let name = entry.path().strip_prefix(&dir.0).unwrap().to_str().unwrap().to_owned();
                found.push((name, meta.mode(), if meta.is_dir() { 0 } else { meta.len() }));
            }
        }
    }
    found.sort();
    found
}

/// A server process that is ended by the test.
pub struct Server {
    pub child: Child,
    said: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts it and waits for a line of its standard error that has `ready`, which is returned.
    pub fn start(command: &mut Command, ready: &str) -> (Self, String) {
        let name = format!("{:?}", command.get_program());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error} (make test installs it)"));
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        // From here on it is ended whatever happens.
        let mut server = Self { child, said: None };
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "{name} ended: {all}");
            if line.contains(ready) {
                server.said = Some(std::thread::spawn(move || {
                    let mut rest = Vec::new();
                    let _ = lines.read_to_end(&mut rest);
                }));
                return (server, line);
            }
            all.push_str(&line);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        if let Some(said) = self.said.take() {
            let _ = said.join();
        }
    }
}

/// Debian's docker-registry on a port of loopback, with users or without. Returns its `host:port`.
pub fn registry(dir: &Path, htpasswd: Option<&str>) -> (Server, String) {
    let data = dir.join("registry");
    let mut config = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
        data.to_str().unwrap()
    );
    if let Some(users) = htpasswd {
        let path = dir.join("htpasswd");
        std::fs::write(&path, users).unwrap();
        config
            .push_str(&format!("auth: {{htpasswd: {{realm: test, path: {:?}}}}}\n", path.to_str().unwrap()));
    }
    let path = dir.join("registry.yml");
    std::fs::write(&path, config).unwrap();
    let (server, line) =
        Server::start(Command::new("docker-registry").arg("serve").arg(&path), "listening on ");
    let port: String =
        line.split("127.0.0.1:").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    (server, format!("127.0.0.1:{port}"))
}
