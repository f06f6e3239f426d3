//! Debian's docker-registry on the loopback, as a test needs it, and machines whose `/etc` the test has written.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod tokens;

use crate::home::{Home, Run};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

/// `me:open sesame`, bcrypt of cost 4.
pub const USERS: &str = "me:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";

/// A registry. It ends with the test.
pub struct Registry {
    child: Child,
    said: Option<std::thread::JoinHandle<()>>,
    /// `127.0.0.1:port`.
    pub host: String,
    pub port: String,
}

impl Registry {
    /// `name` is for its files; `http` and `more` are lines of its configuration.
    pub fn start(home: &Home, name: &str, http: &str, more: &str) -> Self {
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {:?}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: \"127.0.0.1:0\"\n{http}{more}",
            home.path(name)
        );
        let path = home.path(&format!("{name}.yml"));
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", &path])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry (make test installs it)");
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut registry = Self { child, said: None, host: String::new(), port: String::new() };
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "docker-registry ended: {all}");
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                registry.port = rest.chars().take_while(char::is_ascii_digit).collect();
                registry.host = format!("127.0.0.1:{}", registry.port);
                registry.said = Some(std::thread::spawn(move || {
                    let _ = lines.read_to_end(&mut Vec::new());
                }));
                return registry;
            }
            all.push_str(&line);
        }
    }
    /// One without TLS or users.
    pub fn open(home: &Home) -> Self {
        Self::start(home, "registry", "", "")
    }
    /// One with the user `me`, whose password is `open sesame`.
    pub fn with_users(home: &Home) -> Self {
        std::fs::write(home.path("htpasswd"), USERS).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {:?}}}}}\n", home.path("htpasswd"));
        Self::start(home, "private", "", &auth)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(said) = self.said.take() {
            let _ = said.join();
        }
    }
}

impl Home {
    /// Writes a file of [`Home::elsewhere`]'s `/etc`.
    pub fn etc(&self, name: &str, content: &str) {
        let path = self.0.join("etc").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    /// A program as on a machine with the files of [`Home::etc`]: in a mount namespace of its own.
    pub fn elsewhere(&self, program: &str, args: &[&str]) -> Command {
        const SCRIPT: &str =
            "mount -t overlay -o lowerdir=/etc,upperdir=$1,workdir=$2 none /etc && shift 2 && exec \"$@\"";
        for name in ["etc", "etc-work", "config"] {
            std::fs::create_dir_all(self.0.join(name)).unwrap();
        }
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", SCRIPT, "sh", &self.path("etc"), &self.path("etc-work"), program])
            .args(args)
            .current_dir(&self.0)
            .env("CAULDRON_ROOT", self.0.join("root"))
            .env("CAULDRON_RUN_ROOT", self.0.join("run"))
            .env("DOCKER_CONFIG", self.0.join("config"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null());
        command
    }
    /// `cauldron` there.
    pub fn there(&self, args: &[&str]) -> Run {
        Run::of(self.elsewhere(env!("CARGO_BIN_EXE_cauldron"), args).output().unwrap())
    }
    /// What must fail there, with each of these in what it says.
    pub fn fails(&self, args: &[&str], words: &[&str]) {
        let run = self.there(args);
        assert_ne!(run.code, 0, "{args:?}: {}", run.out);
        for word in words {
            assert!(run.err.contains(word), "{args:?} does not say {word:?}: {}", run.err);
        }
    }
    /// What must succeed there.
    pub fn goes(&self, args: &[&str]) -> String {
        let run = self.there(args);
        assert_eq!(run.code, 0, "{args:?}: {}{}", run.out, run.err);
        run.out.trim_end_matches('\n').to_owned()
    }
}
