//! `task run`: now, waiting or in the background, and the tasks that follow.

use super::book::{self, Known};
use super::live::Live;
use super::{define, helper, history, home, runner};
use crate::args::Given;
use crate::command::pull;
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::session::Session;
use crate::stop::{self, Stop};
use clap::ArgMatches;
use client::encode;
use serde_json::{Value, json};
use std::collections::{HashSet, VecDeque};
use std::process::{Command, Stdio};
use task::once::Wish;
use task::run::{Ask, Runner, Task, new_id};
use task::{Key, notify};

/// Tasks that follow one another at most.
const CHAIN: usize = 32;

pub async fn run(session: Session, given: ArgMatches) -> Outcome {
    let known = match (given.text("image"), given.text("name")) {
        (Some(image), _) => Known { task: define::passing(&given, image)?, project: None, step: None },
        (None, Some(name)) => {
            define::nothing(&given, name)?;
            book::find(&session, &home(&session)?, name)?
        }
        (None, None) => return Err("'cauldron task run' requires a task's name or --image".into()),
    };
    if known.task.definition.once.is_some() {
        helper::ensure(&session, &known, Wish::Once, given.on("quiet")).await?;
        return Ok(0);
    }
    if given.on("detach") {
        return detach(&session, &given, &known.task);
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
    let shown = Shown { quiet: given.on("quiet"), format: given.text("format") };
    carry_out(&session, &known, ask, shown).await
}

/// Runs a task for whoever needs it, without a table.
pub async fn now(session: &Session, known: &Known) -> Outcome {
    let shown = Shown { quiet: true, format: None };
    carry_out(session, known, Ask { cause: "needed".to_owned(), ..Ask::default() }, shown).await
}

/// How much of a run is shown.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    pub quiet: bool,
    pub format: Option<&'a str>,
}

async fn carry_out(session: &Session, known: &Known, ask: Ask, shown: Shown<'_>) -> Outcome {
    let stop = stop::on_signal()?;
    let task = ready(session, known, &stop).await?;
    perform(session, known, &task, ask, shown, &stop).await
}

/// A task with all that it needs, which is made on the way; also of the task that checks its backups.
pub async fn ready(session: &Session, known: &Known, stop: &Stop) -> Result<Task, Failure> {
    book::references(&home(session)?, known)?;
    stop.unless(available(session, known)).await?;
    let mut task = book::complete(session, known).await?;
    if let Some(name) = known.task.definition.backup.as_ref().and_then(|backup| backup.verify.as_ref()) {
        let verify = book::find_beside(session, &home(session)?, known, name)?;
        let definition = &verify.task.definition;
        if definition.backup.is_some() || definition.each.is_some() || definition.once.is_some() {
            return Err(Failure::new(format!(
                "task {} cannot check backups: it has targets, a volume or backups of its own",
                verify.task.key
            )));
        }
        stop.unless(available(session, &verify)).await?;
        task.verify = Some(Box::new(book::complete(session, &verify).await?));
    }
    Ok(task)
}

/// Runs a task that is ready, tells the outcome, and runs those that follow.
pub async fn perform(
    session: &Session,
    known: &Known,
    task: &Task,
    ask: Ask,
    shown: Shown<'_>,
    stop: &Stop,
) -> Outcome {
    let Shown { quiet, format } = shown;
    let live = Live::new(session, quiet || format.is_some());
    let listener = |event| live.show(&event);
    let runner = runner(session, &listener)?;
    let outcome = runner.run(task, ask, stop.told()).await?;
    live.finish();
    told(session, task, &outcome).await;
    if !quiet {
        results(session, &runner, &outcome, format)?;
    }
    follow(session, &runner, known, &outcome, stop).await?;
    match outcome.error {
        Some(text) if outcome.targets.is_empty() => session.say(&format!("task {}: {text}", task.key)),
        _ => {}
    }
    Ok(outcome.code)
}

/// Makes what a task needs: its image and, of a project, networks and volumes.
pub async fn available(session: &Session, known: &Known) -> Result<(), Failure> {
    if known.project.is_some() {
        return book::provide(session, known).await;
    }
    let image = known.task.image();
    match session.client()?.get(&format!("/images/{}/json", encode(image))).await {
        Err(error) if error.status() == Some(404) => pull::to_stderr(session, image, "", true).await,
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
    known: &Known,
    outcome: &task::run::Outcome,
    stop: &Stop,
) -> Result<(), Failure> {
    if outcome.run.is_empty() {
        return Ok(());
    }
    let next = |known: &Known, code: u8| {
        let definition = &known.task.definition;
        let names = if code == 0 { &definition.on_success } else { &definition.on_failure };
        names.iter().map(|name| (known.clone(), name.clone())).collect::<Vec<_>>()
    };
    let mut seen: HashSet<Key> = HashSet::from([known.task.key.clone()]);
    let mut queue: VecDeque<(Known, String)> = next(known, outcome.code).into();
    while let Some((after, name)) = queue.pop_front() {
        if seen.len() > CHAIN || *stop.told().borrow() {
            break;
        }
        let after_name = &after.task.key.task;
        let ran = async {
            let known = book::find_beside(session, &runner.home, &after, &name)?;
            if !seen.insert(known.task.key.clone()) {
                return Ok(None);
            }
            let task = ready(session, &known, stop).await?;
            let ask = Ask { cause: format!("after {after_name}"), ..Ask::default() };
            let outcome = runner.run(&task, ask, stop.told()).await?;
            Ok::<_, Failure>(Some((known, outcome)))
        };
        match ran.await {
            Ok(None) => {}
            Ok(Some((known, outcome))) => {
                told(session, &known.task, &outcome).await;
                if let Some(text) = &outcome.error {
                    session.say(&format!("task {} (after {after_name}): {text}", known.task.key));
                }
                queue.extend(next(&known, outcome.code));
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
