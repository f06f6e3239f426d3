//! Runs whose process was killed: their containers are removed, their targets get back what was taken, and the history says so.

use super::step::{Undo, take_back};
use super::{Event, NOT_RUN, Runner, run_lock};
use crate::error::{Error, Result};
use crate::history::{End, Key, Recorder};
use crate::target::RUN_LABEL;
use client::{Demultiplexer, Method, query};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// What a killed run's error says.
const INTERRUPTED: &str = "interrupted: its process was killed";

/// Takes back what killed runs left, of one task or of all.
///
/// # Errors
/// The history does not work. What an engine refuses is told as a warning, and tried again next time.
pub async fn recover(runner: &Runner<'_>, key: Option<&Key>) -> Result<()> {
    for run in runner.history.unfinished()? {
        let of = Key { project: run.project.clone(), task: run.task.clone() };
        if key.is_some_and(|key| *key != of) {
            continue;
        }
        let lock = run_lock(&run.id);
        let Some(held) = runner.home.try_lock(&lock)? else { continue };
        // It may have ended between the question and the lock.
        if runner.history.run(&run.id)?.is_none_or(|run| run.finished.is_some()) {
            runner.home.release(held, &lock);
            continue;
        }
        match clean(runner, &run.id, &run.undo).await {
            Ok(()) => {
                runner.history.finish(&run.id, i64::from(NOT_RUN), Some(INTERRUPTED), Timestamp::now())?
            }
            Err(error) => {
                (runner.listener)(Event::Warning(format!("clean up run {} of {of}: {error}", run.id)))
            }
        }
        runner.home.release(held, &lock);
    }
    Ok(())
}

async fn clean(runner: &Runner<'_>, run: &str, undo: &str) -> Result<()> {
    let client = &runner.client;
    let filters = json!({"label": [format!("{RUN_LABEL}={run}")]}).to_string();
    let found =
        client.get(&query("/containers/json", [("all", "1".to_owned()), ("filters", filters)])).await?;
    let tries = runner.history.tries_of(run)?;
    for container in found.as_array().into_iter().flatten() {
        let id = container["Id"].as_str().unwrap_or_default();
        // What it printed until now is worth keeping.
        let printed = printed(runner, id).await;
        client.bytes(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await?;
        if let Some(row) = tries.iter().find(|row| row.container == id && row.finished.is_none()) {
            runner.history.finish_try(row.id, &end(printed))?;
        }
    }
    for row in runner.history.tries_of(run)?.iter().filter(|row| row.finished.is_none()) {
        runner.history.finish_try(row.id, &end(Recorder::default()))?;
    }
    let undo: Vec<Undo> =
        serde_json::from_str(undo).map_err(|error| Error::new(format!("what is to be undone: {error}")))?;
    for step in undo.iter().rev() {
        take_back(client, step).await?;
    }
    Ok(())
}

fn end(printed: Recorder) -> End {
    End {
        finished: Timestamp::now(),
        error: Some(INTERRUPTED.to_owned()),
        output: printed.finish(),
        ..End::default()
    }
}

async fn printed(runner: &Runner<'_>, id: &str) -> Recorder {
    let mut recorder = Recorder::default();
    let path = format!("/containers/{id}/logs?stdout=1&stderr=1&tail=10000");
    if let Ok(bytes) = runner.client.bytes(Method::GET, &path, None).await {
        let _ = Demultiplexer::default().feed(&bytes, |stream, bytes| {
            recorder.write(stream, bytes);
            Ok::<(), std::convert::Infallible>(())
        });
    }
    recorder
}

/// Asks the processes of a task's runs to stop them; gives how many there are.
///
/// # Errors
/// The history or a lock does not work.
pub fn interrupt(runner: &Runner<'_>, key: &Key) -> Result<usize> {
    let mut count = 0;
    for run in runner.history.unfinished()? {
        // The lock says that the process lives, so its number is still its own.
        let live = runner.home.try_lock(&run_lock(&run.id))?.is_none();
        if run.project == key.project && run.task == key.task && live {
            let pid = i32::try_from(run.pid).ok().and_then(Pid::from_raw);
            if pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok()) {
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Whether a task has a run that is not over: one goes on, or could not be taken back.
///
/// # Errors
/// The history does not work, or it is locked.
pub async fn unfinished(runner: &Runner<'_>, key: &Key) -> Result<bool> {
    recover(runner, Some(key)).await?;
    let runs = runner.history.unfinished()?;
    Ok(runs.iter().any(|run| run.project == key.project && run.task == key.task))
}

/// Whether a run's process lives.
///
/// # Errors
/// A lock does not work.
pub fn lives(home: &crate::home::Home, run: &str) -> Result<bool> {
    Ok(home.try_lock(&run_lock(run))?.is_none())
}

/// How a run stands, in one word, from its row.
pub fn status(run: &crate::history::RunRow, lives: bool) -> &'static str {
    match (run.finished, run.exit_code) {
        (None, _) if lives => "running",
        (None, _) => "interrupted",
        (Some(_), Some(0)) => "ok",
        (Some(_), _) if run.error.as_deref() == Some(INTERRUPTED) => "interrupted",
        (Some(_), _) => "failed",
    }
}
