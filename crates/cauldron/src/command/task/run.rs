//! `task run`: now, waiting or in the background, and the tasks that follow.

use super::live::Live;
use super::{book, define, history, home, open_history};
use crate::args::Given;
use crate::command::pull;
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::session::Session;
use clap::ArgMatches;
use client::encode;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::process::{Command, Stdio};
use task::run::{Ask, Runner, Task, new_id};
use task::{Key, notify};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tasks that follow one another at most.
const CHAIN: usize = 32;

pub async fn run(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let task = match (given.text("image"), given.text("name")) {
        (Some(image), _) => define::passing(&given, image)?,
        (None, Some(name)) => book::find(&home, name)?,
        (None, None) => return Err("'cauldron task run' requires a task's name or --image".into()),
    };
    if task.definition.once.is_some() {
        return Err(Failure::new(format!(
            "task {} is a helper: it runs when a service that depends on it starts\nto run it again: cauldron helper rerun {}",
            task.key, task.key.task
        )));
    }
    if given.on("detach") {
        return detach(&session, &given, &task);
    }
    let slot = given.text("slot").map(|text| {
        text.parse::<task::Timestamp>().map_err(|error| Failure::new(format!("--slot {text}: {error}")))
    });
    let ask = Ask {
        id: given.text("id").map(str::to_owned),
        slot: slot.transpose()?,
        cause: given.text("cause").unwrap_or("manual").to_owned(),
        targets: given.texts("target"),
    };
    let json = given.text("format");
    let live = Live::new(&session, given.on("quiet") || json.is_some());
    let listener = |event| live.show(&event);
    let runner = Runner {
        client: session.client()?.clone(),
        home: home.clone(),
        history: open_history(&home)?,
        listener: &listener,
    };
    let stop = stop_on_signal()?;
    available(&session, &task).await?;
    let outcome = runner.run(&task, ask, stop.clone()).await?;
    live.finish();
    told(&session, &task, &outcome).await;
    if !given.on("quiet") {
        results(&session, &runner, &outcome, json)?;
    }
    follow(&session, &runner, &task, &outcome, &stop).await?;
    match outcome.error {
        Some(text) if outcome.targets.is_empty() => {
            session.say(&format!("task {}: {text}", task.key));
        }
        _ => {}
    }
    Ok(outcome.code)
}

/// Becomes true when we are told to end.
pub fn stop_on_signal() -> Result<watch::Receiver<bool>, Failure> {
    let (sender, receiver) = watch::channel(false);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(|error| Failure::new(format!("wait for signals: {error}")))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ = sender.send(true);
            }
        });
    }
    // The channel stays open as long as there is somebody to listen.
    tokio::spawn(async move { sender.closed().await });
    Ok(receiver)
}

/// Pulls the task's image if the engine has none.
async fn available(session: &Session, task: &Task) -> Result<(), Failure> {
    match session.client()?.get(&format!("/images/{}/json", encode(task.image()))).await {
        Err(error) if error.status() == Some(404) => pull::to_stderr(session, task.image(), "", true).await,
        other => Ok(other.map(|_| ())?),
    }
}

/// Notifications; what does not arrive is said, and changes nothing.
async fn told(session: &Session, task: &Task, outcome: &task::run::Outcome) {
    let (to, message) = (task.definition.notify.clone(), notify::message(&task.key, outcome));
    let failures = tokio::task::spawn_blocking(move || notify::tell(&to, &message)).await;
    for failure in failures.unwrap_or_default() {
        session.say(&format!("WARNING: {failure}"));
    }
}

/// The tasks that follow, each once: `on_success` and `on_failure`, and theirs.
async fn follow(
    session: &Session,
    runner: &Runner<'_>,
    task: &Task,
    outcome: &task::run::Outcome,
    stop: &watch::Receiver<bool>,
) -> Result<(), Failure> {
    if outcome.run.is_empty() {
        return Ok(());
    }
    let next = |task: &Task, code: u8| {
        if code == 0 { task.definition.on_success.clone() } else { task.definition.on_failure.clone() }
    };
    let mut seen: HashSet<Key> = HashSet::from([task.key.clone()]);
    let mut queue: Vec<(Key, String)> =
        next(task, outcome.code).into_iter().map(|name| (task.key.clone(), name)).collect();
    while !queue.is_empty() && seen.len() < CHAIN && !*stop.borrow() {
        let (after, name) = queue.remove(0);
        let found = book::find_beside(&runner.home, &after, &name);
        let task = match found {
            Ok(task) => task,
            Err(failure) => {
                session.complain(&failure);
                continue;
            }
        };
        if !seen.insert(task.key.clone()) {
            continue;
        }
        let ask = Ask { cause: format!("after {}", after.task), ..Ask::default() };
        let ran = async {
            available(session, &task).await?;
            Ok::<_, Failure>(runner.run(&task, ask, stop.clone()).await?)
        };
        match ran.await {
            Ok(outcome) => {
                told(session, &task, &outcome).await;
                if let Some(text) = &outcome.error {
                    session.say(&format!("task {} (after {}): {text}", task.key, after.task));
                }
                queue.extend(next(&task, outcome.code).into_iter().map(|name| (task.key.clone(), name)));
            }
            Err(failure) => session.complain(&failure),
        }
    }
    Ok(())
}

const RESULTS: Listing = Listing {
    table: "{{.target}}\t{{.status}}\t{{.exit_code}}\t{{.attempt}}\t{{.took}}\t{{.error}}",
    headers: &[("exit_code", "EXIT"), ("attempt", "TRY")],
};

/// The table of targets, or the run's entries.
fn results(
    session: &Session,
    runner: &Runner<'_>,
    outcome: &task::run::Outcome,
    format: Option<&str>,
) -> Result<(), Failure> {
    if let Some(format) = format.filter(|format| !format.starts_with("table")) {
        let entries: Vec<Value> =
            runner.history.tries_of(&outcome.run)?.iter().map(|row| history::entry(row, false)).collect();
        return session.out(&RESULTS.render(&entries, &Style { format: Some(format), ..Style::default() })?);
    }
    if outcome.targets.iter().all(|ended| ended.target.is_empty()) {
        return Ok(());
    }
    let rows: Vec<Value> = outcome
        .targets
        .iter()
        .map(|ended| {
            json!({
                "target": ended.target, "status": if ended.code == 0 { "ok" } else { "failed" }, "exit_code": ended.code,
                "attempt": ended.attempt, "took": format!("{:.1}s", ended.took.as_secs_f64()),
                "error": ended.error.as_deref().and_then(|text| text.lines().next()).unwrap_or_default(),
            })
        })
        .collect();
    session.out(&RESULTS.render(&rows, &Style { format, ..Style::default() })?)
}

/// The same command once more, in a session of its own.
fn detach(session: &Session, given: &ArgMatches, task: &Task) -> Outcome {
    if given.text("image").is_some() {
        return Err("--detach needs a task that is kept: use `cauldron task create` first".into());
    }
    let id = new_id()?;
    let mut command = again(session)?;
    command.args(["task", "run", "--quiet", "--id", &id]);
    for target in given.texts("target") {
        command.args(["--target", &target]);
    }
    command.arg(task.key.to_string());
    command
        .spawn()
        .map_err(|error| Failure::new(format!("start task {} in the background: {error}", task.key)))?;
    session.line(&id)?;
    Ok(0)
}

/// This binary with the same choice of an engine, without our streams, in a process group of its own.
pub fn again(session: &Session) -> Result<Command, Failure> {
    use std::os::unix::process::CommandExt as _;
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("find this program: {error}")))?;
    let mut command = Command::new(program);
    command.args(session.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Ok(command)
}
