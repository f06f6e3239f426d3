//! The command line as a person drives it, on a root of the test's own. With `CAULDRON_TEST_HOST` the same tests run against
//! another engine, so they test Docker's behaviour and not ours.

#![allow(dead_code, reason = "each test binary uses its part")]

use crate::busybox;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// One engine of a test's own, driven as a person drives it.
pub struct Engine {
    pub dir: PathBuf,
    host: Option<String>,
}

impl Engine {
    /// An engine with the image `busybox`.
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let tar = busybox::archive(&dir, |_| ());
        let engine = Self { dir, host: std::env::var("CAULDRON_TEST_HOST").ok() };
        engine.ok(&["import", tar.to_str().unwrap(), "busybox"]);
        engine
    }
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cauldron"));
        command
            .args(args)
            .current_dir(&self.dir)
            .env("CAULDRON_ROOT", self.dir.join("root"))
            .env("CAULDRON_RUN_ROOT", self.dir.join("run"))
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
    /// Stdout of a command that succeeds.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
    /// Stdout, stderr and exit code of a container on no network.
    pub fn container(&self, args: &[&str]) -> (String, String, i32) {
        let output = self.run(&[&["run", "--rm", "--network", "none"], args].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    }
    pub fn piped(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        // What comes back must be read meanwhile.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.host.is_none() {
            let ids = String::from_utf8(self.run(&["ps", "-aq"]).stdout).unwrap_or_default();
            for id in ids.lines() {
                let _ = self.run(&["rm", "-f", id]);
            }
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
