//! An engine with the image `busybox`, and a context to build from: what the builder's tests share.

#![allow(dead_code, reason = "each test binary uses its part")]

use crate::busybox;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// An engine and a context of one test's own.
pub struct Build {
    /// The test's directory.
    pub dir: PathBuf,
    /// The build context, where commands run.
    pub context: PathBuf,
}

impl Build {
    pub fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-build-{}-{serial}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let tar = busybox::archive(&dir, |root| {
            std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nbob:x:55:66::/:/bin/sh\n")
                .unwrap();
            std::fs::write(root.join("etc/group"), "root:x:0:\nbob:x:66:\ngrp:x:77:\n").unwrap();
        });
        let build = Self { context: dir.join("context"), dir };
        std::fs::create_dir(&build.context).unwrap();
        build.ok(&["import", tar.to_str().unwrap(), "busybox"]);
        build
    }
    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cauldron"))
            .args(args)
            .current_dir(&self.context)
            .env("CAULDRON_ROOT", self.dir.join("root"))
            .env("CAULDRON_RUN_ROOT", self.dir.join("run"))
            .env("HOST_ONLY_VARIABLE", "leaked")
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_HOST")
            .output()
            .unwrap()
    }
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }
    /// Both streams of a command that fails.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(!output.status.success(), "{args:?} succeeded: {all}");
        all
    }
    pub fn file(&self, path: &str, text: &str) {
        let path = self.context.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    pub fn dockerfile(&self, text: &str) {
        self.file("Dockerfile", text);
    }
    /// Builds `image` from this Dockerfile.
    pub fn build(&self, text: &str) -> String {
        self.dockerfile(text);
        self.ok(&["build", "-t", "image", "."])
    }
    /// What a shell in the image prints.
    pub fn sh(&self, script: &str) -> String {
        self.ok(&["run", "--rm", "--network", "none", "image", "sh", "-c", script])
    }
    pub fn id(&self) -> String {
        self.ok(&["inspect", "--format", "{{.Id}}", "image"])
    }
}

impl Build {
    /// Both streams of a command that is given this on stdin, and whether it succeeded.
    pub fn piped(&self, args: &[&str], input: &[u8]) -> (bool, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cauldron"))
            .args(args)
            .current_dir(&self.context)
            .env("CAULDRON_ROOT", self.dir.join("root"))
            .env("CAULDRON_RUN_ROOT", self.dir.join("run"))
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&all).into_owned())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Whether any file below a directory holds these bytes.
pub fn tree_holds(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => tree_holds(&entry.path(), needle),
        Ok(kind) if kind.is_file() => std::fs::read(entry.path())
            .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle)),
        _ => false,
    })
}
