//! Every example folder runs with its one command, on real software from Debian's packages. They share one root, so the base
//! system is bootstrapped once.

use std::path::{Path, PathBuf};
use std::process::Command;

struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-examples-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn run(&self, example: &str) {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example).join("run.sh");
        let output = Command::new(script)
            .env("CAULDRON", env!("CARGO_BIN_EXE_cauldron"))
            .env("CAULDRON_ROOT", self.0.join("root"))
            .env("CAULDRON_RUN_ROOT", self.0.join("run"))
            .env_remove("DOCKER_HOST")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{example}: {}\n{stdout}\n{stderr}", output.status);
        assert!(
            stdout.lines().any(|line| line.starts_with(&format!("{example}: ok"))),
            "{example} did not say ok\n{stdout}\n{stderr}"
        );
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_example_runs() {
    let root = Root::new();
    let folders: Vec<String> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples"))
            .unwrap()
            .filter_map(|entry| {
                entry
                    .ok()
                    .filter(|entry| entry.path().is_dir())
                    .map(|entry| entry.file_name().into_string().unwrap())
            })
            .collect();
    assert_eq!(
        folders.len(),
        8,
        "an example for each pattern of the deck, and more for log rotation and PostgreSQL: {folders:?}"
    );
    for example in &folders {
        root.run(example);
    }
}
