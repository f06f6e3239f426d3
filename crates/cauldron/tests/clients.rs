//! Other people's clients against `cauldron serve`, and the same against Debian's dockerd, so that they test compatibility:
//! docker-py, testcontainers, dockerode, docker-compose 1.29 and the docker command line, scripts in `clients/`.
//!
//! Needs root, the packages of `make deps-test`, and `target/clients`, which `scripts/install-clients` fills.

mod busybox;
#[path = "clients/engine.rs"]
mod engine;

use engine::Engine;
use std::path::{Path, PathBuf};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// What `scripts/install-clients` made.
fn installed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients").join(name);
    assert!(path.exists(), "{} is missing: run scripts/install-clients", path.display());
    path.display().to_string()
}

fn docker_py(engine: &Engine) {
    let script = scripts().join("docker_py.py");
    engine.run(&[&installed("venv/bin/python"), "-W", "ignore", script.to_str().unwrap()], &[]);
}

fn testcontainers(engine: &Engine) {
    let script = scripts().join("containers.py");
    let python = installed("venv/bin/python");
    engine.run(
        &[&python, "-W", "ignore", script.to_str().unwrap()],
        &[("TESTCONTAINERS_RYUK_DISABLED", "true")],
    );
}

fn dockerode(engine: &Engine) {
    let script = scripts().join("dockerode.js");
    engine.run(&["node", script.to_str().unwrap()], &[("NODE_PATH", &installed("node_modules"))]);
}

fn compose(engine: &Engine) {
    let dir = scripts();
    engine.run(&["sh", dir.join("compose.sh").to_str().unwrap(), dir.to_str().unwrap()], &[]);
}

fn command_line(engine: &Engine) {
    let script = scripts().join("docker.sh");
    engine.run(&["sh", script.to_str().unwrap()], &[]);
}

#[test]
fn docker_py_drives_cauldron() {
    docker_py(&Engine::cauldron());
}

#[test]
fn testcontainers_drives_cauldron() {
    testcontainers(&Engine::cauldron());
}

#[test]
fn dockerode_drives_cauldron() {
    dockerode(&Engine::cauldron());
}

#[test]
fn docker_compose_drives_cauldron() {
    compose(&Engine::cauldron());
}

#[test]
fn docker_drives_cauldron() {
    command_line(&Engine::cauldron());
}

/// One dockerd for all: it takes seconds to start.
#[test]
fn all_of_them_drive_dockerd() {
    let engine = Engine::dockerd();
    for client in [docker_py, testcontainers, dockerode, compose, command_line] {
        client(&engine);
    }
}
