//! Execs: more processes in a running container.
//!
//! `run/containers/<id>/execs/<exec id>.request.json` is what was asked (written here, once); `<exec id>.json` beside it is
//! what became of it (the monitor's). Both go with the run of the container.

use model::bundle::{Bundle, Process};
use model::container::Seccomp;
use model::error::Context as _;
use model::state::Status;
use model::{ContainerId, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::Engine;
use crate::container::{Container, read_json, write_json};
use runtime::{ExecState, Streams};

/// What an exec is asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Arguments.
    pub argv: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// Empty is the container's.
    pub user: String,
    /// Empty is the container's.
    pub working_dir: String,
    /// A terminal.
    pub tty: bool,
    /// All capabilities, no seccomp filter.
    pub privileged: bool,
    /// Attach stdin.
    pub stdin: bool,
    /// Attach stdout.
    pub stdout: bool,
    /// Attach stderr.
    pub stderr: bool,
    /// Keys that detach; empty is the client's or the default.
    pub detach_keys: String,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// An exec.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Its identifier: 64 hexadecimal digits.
    pub id: String,
    /// Its container.
    pub container: ContainerId,
    /// What was asked.
    pub request: ExecRequest,
    /// What became of it; `None` before it was started.
    pub state: Option<ExecState>,
    run_dir: PathBuf,
}

fn no_such(id: &str) -> Error {
    Error::not_found(format!("No such exec instance: {id}"))
}

/// An exec can be inspected for so long after its end, as Docker's.
const KEPT: std::time::Duration = std::time::Duration::from_secs(5 * 60);

/// Removes the records of execs that ended long ago: a container may live for years and see one every second.
fn forget_ended(run_dir: &Path, now: std::time::SystemTime) {
    let dir = run_dir.join("execs");
    let Ok(entries) = std::fs::read_dir(&dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| is_id(id))
        else {
            continue;
        };
        let written = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(now);
        let old = now.duration_since(written).is_ok_and(|age| age > KEPT);
        if old && runtime::exec_state(run_dir, id).is_ok_and(|state| !state.running) {
            // The request last: with it gone nobody finds the exec.
            for kind in ["started", "json", "request.json"] {
                let _ = std::fs::remove_file(dir.join(format!("{id}.{kind}")));
            }
        }
    }
}

fn request_path(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join("execs").join(format!("{id}.request.json"))
}

fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Engine {
    /// Records an exec; it does not run yet.
    ///
    /// # Errors
    /// The container does not run or is paused; no command.
    pub fn exec_create(&self, name: &str, request: &ExecRequest) -> Result<String> {
        if request.argv.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        if !request.detach_keys.is_empty() {
            model::detach::parse(&request.detach_keys)?;
        }
        let container = self.find(name)?;
        can_exec(&container, name)?;
        let mut random = [0; 32];
        crate::container::fill_random(&mut random)?;
        let id = ContainerId::from_bytes(random).as_str().to_owned();
        let dir = container.run_dir.join("execs");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .context(|| format!("create directory {}", dir.display()))?;
        // One in 16: the directory is not read each time.
        if id.starts_with('0') {
            forget_ended(&container.run_dir, std::time::SystemTime::now());
        }
        write_json(&request_path(&container.run_dir, &id), request, false)?;
        self.exec_event(&container, "exec_create", &id, request, &[]);
        Ok(id)
    }
    /// Finds an exec.
    ///
    /// # Errors
    /// `No such exec instance: …`.
    pub fn exec(&self, id: &str) -> Result<Exec> {
        if !is_id(id) {
            return Err(no_such(id));
        }
        let runs = self.store.layout.run_root.join("containers");
        let entries = std::fs::read_dir(&runs).context(|| format!("read directory {}", runs.display()))?;
        for entry in entries.flatten() {
            let Some(container) = entry.file_name().to_str().and_then(|name| ContainerId::parse(name).ok())
            else {
                continue;
            };
            let run_dir = entry.path();
            let Some(request) = read_json::<ExecRequest>(&request_path(&run_dir, id))? else { continue };
            let state = match runtime::exec_state(&run_dir, id) {
                Ok(state) => Some(state),
                Err(error) if error.kind() == Kind::NotFound => None,
                Err(error) => return Err(error),
            };
            return Ok(Exec { id: id.to_owned(), container, request, state, run_dir });
        }
        Err(no_such(id))
    }
    /// Takes the one start that an exec has. [`Engine::exec_start`] follows.
    ///
    /// # Errors
    /// It was started before, or its container does not run.
    pub fn exec_claim(&self, exec: &Exec) -> Result<()> {
        let name = exec.container.as_str();
        can_exec(&self.find(name)?, name)?;
        let started = exec.run_dir.join("execs").join(format!("{}.started", exec.id));
        let claim = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&started);
        if claim.is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
            let running = exec.state.as_ref().is_some_and(|state| state.running);
            let what = if running { "is already running" } else { "has already run" };
            return Err(Error::conflict(format!("exec command {} {what}", exec.id)));
        }
        Ok(())
    }
    /// Starts a claimed exec. The stream is there unless `detach`.
    ///
    /// # Errors
    /// Its container does not run any more, or its process could not be executed.
    pub fn exec_start(
        &self,
        exec: &Exec,
        detach: bool,
        console_size: Option<(u16, u16)>,
    ) -> Result<Option<UnixStream>> {
        let container = self.load(&exec.container)?;
        let mut process = process_of(&exec.run_dir, &exec.request)?;
        process.console_size = console_size.or(exec.request.console_size);
        let request = &exec.request;
        let streams = Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        self.exec_event(&container, "exec_start", &exec.id, request, &[]);
        runtime::exec(&exec.run_dir, &exec.id, &process, streams, detach)
    }
    /// Says that a client left an exec by the detach keys.
    pub fn exec_detached(&self, exec: &Exec) {
        if let Ok(container) = self.load(&exec.container) {
            self.container_event(&container, "exec_detach", &[("execID", &exec.id)]);
        }
    }
    /// Changes the size of an exec's terminal.
    ///
    /// # Errors
    /// No such exec, or it does not run.
    pub fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let exec = self.exec(id)?;
        runtime::resize(&exec.run_dir, Some(id), rows, columns)
    }
    fn exec_event(
        &self,
        container: &Container,
        action: &str,
        id: &str,
        request: &ExecRequest,
        more: &[(&str, &str)],
    ) {
        let mut attributes = vec![("execID", id)];
        attributes.extend_from_slice(more);
        self.container_event(container, &format!("{action}: {}", request.argv.join(" ")), &attributes);
    }
}

fn can_exec(container: &Container, name: &str) -> Result<()> {
    container.running()?;
    if container.status() == Status::Paused {
        return Err(Error::conflict(format!(
            "container {name} is paused, unpause the container before exec"
        )));
    }
    Ok(())
}

/// The process of an exec: the container's own, with what the request changes.
fn process_of(run_dir: &Path, request: &ExecRequest) -> Result<Process> {
    let path = run_dir.join("bundle.json");
    let bundle: Bundle = read_json(&path)?
        .ok_or_else(|| Error::internal(format!("read {}: it is missing", path.display())))?;
    Ok(changed(bundle.process, request))
}

fn changed(mut process: Process, request: &ExecRequest) -> Process {
    process.argv.clone_from(&request.argv);
    if request.tty && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    for pair in &request.env {
        let name = pair.split('=').next().unwrap_or_default();
        let same = |have: &String| have.split('=').next() == Some(name);
        if !pair.contains('=') {
            process.env.retain(|have| !same(have));
            continue;
        }
        match process.env.iter_mut().find(|have| same(have)) {
            Some(have) => have.clone_from(pair),
            None => process.env.push(pair.clone()),
        }
    }
    if !request.user.is_empty() {
        process.user.clone_from(&request.user);
    }
    if !request.working_dir.is_empty() {
        process.cwd.clone_from(&request.working_dir);
    }
    process.create_cwd = false;
    process.tty = request.tty;
    process.open_stdin = request.stdin;
    process.stdin_once = true;
    process.console_size = None;
    if request.privileged {
        process.capabilities = model::capability::ALL.iter().map(|name| (*name).to_owned()).collect();
        process.seccomp = Seccomp::Unconfined;
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_changes_what_it_asks_for() {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let base = Process {
            argv: strings(&["sleep", "1"]),
            env: strings(&["PATH=/bin", "A=1", "B=2"]),
            cwd: "/srv".into(),
            user: "www".into(),
            create_cwd: true,
            ..Process::default()
        };
        let request = ExecRequest {
            argv: strings(&["sh"]),
            env: strings(&["A=x=y", "C=3", "B"]),
            tty: true,
            ..ExecRequest::default()
        };
        let process = changed(base, &request);
        assert_eq!(process.argv, ["sh"]);
        assert_eq!(process.env, ["PATH=/bin", "A=x=y", "TERM=xterm", "C=3"]);
        assert_eq!((process.user.as_str(), process.cwd.as_str(), process.create_cwd), ("www", "/srv", false));
    }

    #[test]
    fn ended_execs_are_forgotten_after_a_while() {
        let run_dir = std::env::temp_dir().join(format!("cauldron-execs-{}", std::process::id()));
        let dir = run_dir.join("execs");
        std::fs::create_dir_all(&dir).unwrap();
        let ids = ["a".repeat(64), "b".repeat(64), "c".repeat(64)];
        let state = |running| runtime::ExecState { running, ..runtime::ExecState::default() };
        for (id, state) in [(&ids[0], Some(state(false))), (&ids[1], Some(state(true))), (&ids[2], None)] {
            std::fs::write(dir.join(format!("{id}.request.json")), "{}").unwrap();
            if let Some(state) = state {
                std::fs::write(dir.join(format!("{id}.started")), "").unwrap();
                write_json(&dir.join(format!("{id}.json")), &state, false).unwrap();
            }
        }
        let count = || std::fs::read_dir(&dir).unwrap().count();
        let now = std::time::SystemTime::now();
        forget_ended(&run_dir, now + KEPT / 2);
        assert_eq!(count(), 7);
        forget_ended(&run_dir, now + KEPT * 2);
        assert_eq!(count(), 4);
        assert!(!request_path(&run_dir, &ids[0]).exists() && request_path(&run_dir, &ids[1]).exists());
        std::fs::remove_dir_all(&run_dir).unwrap();
    }
}
