//! An engine of one test's own, driven as a person drives it. Everything that it made goes with it.

#![allow(dead_code, reason = "each test binary uses its part")]

use crate::busybox;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// The directory with the engine's roots, `root` and `run`, and whatever else the test puts there.
pub struct Home(pub PathBuf);

/// What a command came to. The code is -1 where a signal ended it.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Home {
    /// An empty one.
    pub fn bare(test: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-{test}-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    /// One with the image `busybox:latest`, into whose root file system `more` puts the test's own files.
    pub fn new(test: &str, more: impl FnOnce(&Path)) -> Self {
        let home = Self::bare(test);
        home.import(more);
        home
    }
    /// Makes the image. The archive stays, as `busybox.tar`.
    pub fn import(&self, more: impl FnOnce(&Path)) {
        let tar = busybox::archive(&self.0, more);
        self.ok(&["import", tar.to_str().unwrap(), "busybox:latest"]);
    }
    /// A path below the directory.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cauldron"));
        command
            .args(args)
            .current_dir(&self.0)
            .env("CAULDRON_ROOT", self.0.join("root"))
            .env("CAULDRON_RUN_ROOT", self.0.join("run"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        command
    }
    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }
    /// Runs what must succeed; its output without the last line end.
    pub fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}{}", run.out, run.err);
        run.out.trim_end_matches('\n').to_owned()
    }
}

impl Run {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let Output { status, stdout, stderr } = output;
        Self { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq"]).out;
        for id in ids.lines() {
            let _ = self.run(&["rm", "-f", "-v", id]);
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
