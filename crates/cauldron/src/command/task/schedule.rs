//! `task scheduler`, the scheduler beside `serve`, and `task timers`.

use super::{book, home};
use crate::args::Given;
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use crate::stop;
use clap::ArgMatches;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use task::scheduler::{self, Planned, Source};
use task::{Home, systemd};
use tokio::sync::watch;

/// In the foreground, until it is told to end.
pub async fn foreground(session: Session, _given: ArgMatches) -> Outcome {
    let stop = stop::on_signal()?;
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("find this program: {error}")))?;
    serve(&home(&session)?, &program, &session.arguments(), stop.told()).await?;
    Ok(0)
}

/// Beside a server: a thread that ends when `stop` becomes true. Tasks run on the engine of these roots.
pub fn beside(session: &Session, stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let home = home(session)?;
    let roots = session.options().roots.clone();
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("find this program: {error}")))?;
    let mut arguments: Vec<OsString> =
        vec!["--root".into(), roots.root.into(), "--run-root".into(), roots.run_root.into()];
    if let Some(config) = roots.config {
        arguments.extend(["--config-file".into(), config.into()]);
    }
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = match runtime {
            Ok(runtime) => {
                let outcome = runtime.block_on(serve(&home, &program, &arguments, stop));
                // A thread that waits for a lock must not hold the end up.
                runtime.shutdown_background();
                outcome
            }
            Err(error) => Err(Failure::new(format!("start the scheduler: {error}"))),
        };
        if let Err(failure) = outcome {
            say(format!("scheduler: {}", failure.message));
        }
    };
    std::thread::Builder::new()
        .name("scheduler".to_owned())
        .spawn(work)
        .map(|_| ())
        .map_err(|error| Failure::new(format!("start the scheduler: {error}")))
}

fn say(text: String) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn serve(
    home: &Home,
    program: &Path,
    arguments: &[OsString],
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let command = |key: &task::Key, slot: task::Timestamp| {
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .args(["task", "run", "--quiet", "--cause", "schedule", "--slot"])
            .arg(slot.to_string());
        command.arg(key.to_string());
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "CAULDRON_HOST"] {
            command.env_remove(name);
        }
        // The run is on its own: it outlives us, and the terminal's signals are not for it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        command
    };
    // The files that projects were read from, as far as they could be read.
    let read = RefCell::new(Vec::new());
    let source = Source {
        stamp: &|| {
            let mut paths = book::watched(home);
            paths.extend(read.borrow().iter().cloned());
            scheduler::stamp(&paths)
        },
        load: &|| planned(home, &mut read.borrow_mut()),
        command: &command,
        say: &say,
    };
    Ok(scheduler::serve(home, &source, stop).await?)
}

/// Every task with a schedule; what cannot be read is said, and does not stop the others.
fn planned(home: &Home, read: &mut Vec<PathBuf>) -> Vec<Planned> {
    let (tasks, failures) = book::known(home);
    let projects = tasks.iter().filter_map(|known| known.project.as_ref());
    *read = projects
        .flat_map(|project| project.read.iter().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    for failure in failures {
        say(format!("scheduler: {}", failure.message));
    }
    tasks
        .into_iter()
        .filter_map(|known| {
            let task = known.task;
            let (policy, keep) = (task.definition.policy, task.definition.keep);
            Some(Planned { key: task.key, schedule: task.definition.schedule?, policy, keep })
        })
        .collect()
}

/// `task timers --systemd`.
pub async fn timers(session: Session, given: ArgMatches) -> Outcome {
    if !given.on("systemd") {
        return Err("say for what: `cauldron task timers --systemd`".into());
    }
    let home = home(&session)?;
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("find this program: {error}")))?;
    let mut command = vec![program.to_string_lossy().into_owned()];
    command.extend(session.arguments().into_iter().map(|word| word.to_string_lossy().into_owned()));
    let dir = given.text("dir").map(PathBuf::from);
    let (tasks, failures) = book::known(&home);
    let mut units = 0;
    for (name, text) in tasks.iter().filter_map(|known| systemd::units(&known.task, &command)).flatten() {
        units += 1;
        match &dir {
            Some(dir) => {
                let path = dir.join(&name);
                std::fs::create_dir_all(dir)
                    .and_then(|()| std::fs::write(&path, text))
                    .map_err(crate::fail::file("write", &path))?;
                session.line(&path.display().to_string())?;
            }
            None => session.out(&format!("# {name}\n{text}\n"))?,
        }
    }
    for failure in &failures {
        session.complain(failure);
    }
    if units == 0 && failures.is_empty() {
        session.say("no task has a schedule");
    }
    Ok(u8::from(!failures.is_empty()))
}
