//! Steps in the target, and what takes them back.

use super::Run;
use crate::definition::Step;
use crate::error::{Context as _, Error, Result};
use crate::history::Recorder;
use crate::target::Target;
use client::{Client, Demultiplexer, Method, encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// The longest that a command in the target may take where the task has no time limit.
const STEP: Duration = Duration::from_secs(15 * 60);

/// What takes a step back, as it is kept with the run in case its process dies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Undo {
    /// Resume this container.
    Unpause(String),
    /// Start this container.
    Start(String),
    /// Run a command in it.
    Exec(String, Vec<String>),
}

impl Run<'_> {
    /// Does the steps before a try; what is to be undone is noted before it is done.
    pub(super) async fn before(&self, target: &Target) -> Result<()> {
        for step in &self.task.definition.before {
            let id = target.id.clone();
            let client = &self.runner.client;
            match step {
                Step::Pause => {
                    self.note(Undo::Unpause(id.clone()))?;
                    client::failpoint!("task: undo noted");
                    client
                        .post(&format!("/containers/{id}/pause"))
                        .await
                        .map_err(|error| Error::from(error).within(format!("pause {}", target.name)))?;
                }
                Step::Stop => {
                    self.note(Undo::Start(id.clone()))?;
                    client
                        .post(&format!("/containers/{id}/stop"))
                        .await
                        .map_err(|error| Error::from(error).within(format!("stop {}", target.name)))?;
                }
                Step::Exec { command, undo } => {
                    if !undo.is_empty() {
                        self.note(Undo::Exec(id.clone(), undo.clone()))?;
                    }
                    self.exec(target, command).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes back what was done for a target, last first; every step is tried.
    pub(super) async fn undo(&self, target: &Target) -> Vec<String> {
        let mut failures = Vec::new();
        loop {
            let next = {
                let list = self.undo.borrow();
                list.iter()
                    .rposition(|undo| undo.container() == target.id)
                    .and_then(|at| Some((at, list.get(at)?.clone())))
            };
            let Some((at, undo)) = next else { break };
            if let Err(error) = take_back(&self.runner.client, &undo).await {
                failures.push(error.within(&target.name).to_string());
            }
            client::failpoint!("task: undone");
            self.undo.borrow_mut().remove(at);
            if let Err(error) = self.save() {
                failures.push(error.to_string());
            }
        }
        for step in &self.task.definition.after {
            if let Step::Exec { command, .. } = step
                && let Err(error) = self.exec(target, command).await
            {
                failures.push(error.to_string());
            }
        }
        failures
    }

    async fn exec(&self, target: &Target, command: &[String]) -> Result<()> {
        let limit = self.task.definition.timeout.unwrap_or(STEP);
        let done = tokio::time::timeout(limit, exec(&self.runner.client, &target.id, command)).await;
        let what = || format!("{} in {}", command.join(" "), target.name);
        done.map_err(|_| Error::new(format!("{}: timed out", what())))?.map_err(|error| error.within(what()))
    }

    fn note(&self, undo: Undo) -> Result<()> {
        self.undo.borrow_mut().push(undo);
        self.save()
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_string(&*self.undo.borrow()).context(|| "write what is to be undone")?;
        self.runner.history.set_undo(&self.id, &text)
    }
}

impl Undo {
    fn container(&self) -> &str {
        match self {
            Self::Unpause(id) | Self::Start(id) | Self::Exec(id, _) => id,
        }
    }
}

/// Takes one step back. A container that is gone, or that somebody took back already, is no failure.
pub(super) async fn take_back(client: &Client, undo: &Undo) -> Result<()> {
    let id = encode(undo.container());
    let state = match client.get(&format!("/containers/{id}/json")).await {
        Err(error) if error.status() == Some(404) => return Ok(()),
        found => found?["State"].clone(),
    };
    match undo {
        Undo::Unpause(_) if state["Paused"] == true => {
            Ok(client.post(&format!("/containers/{id}/unpause")).await?)
        }
        Undo::Start(_) if state["Running"] != true => {
            Ok(client.post(&format!("/containers/{id}/start")).await?)
        }
        Undo::Exec(container, command) if state["Running"] == true => exec(client, container, command).await,
        _ => Ok(()),
    }
}

/// Runs a command in a running container.
async fn exec(client: &Client, container: &str, command: &[String]) -> Result<()> {
    let body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": command});
    let made =
        client.json(Method::POST, &format!("/containers/{}/exec", encode(container)), Some(&body)).await?;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    let start = json!({"Detach": false, "Tty": false});
    let mut stream = client.hijack(&format!("/exec/{id}/start"), Some(&start)).await?;
    let mut recorder = Recorder::default();
    let mut splitter = Demultiplexer::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).await.context(|| "read what it printed")?;
        if count == 0 {
            break;
        }
        splitter
            .feed(&buffer[..count], |stream, bytes| {
                recorder.write(stream, bytes);
                Ok::<(), std::convert::Infallible>(())
            })
            .unwrap_or_default();
    }
    let found: Value = client.get(&format!("/exec/{id}/json")).await?;
    match found["ExitCode"].as_i64() {
        Some(0) => Ok(()),
        code => {
            let error = Error::new(format!("exit code {}", code.unwrap_or(-1)));
            let lines = recorder.last_lines(super::LAST_LINES);
            Err(if lines.is_empty() { error } else { error.hint(lines) })
        }
    }
}
