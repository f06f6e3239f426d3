//! Which tasks there are from here: those of the command line.

use crate::fail::Failure;
use std::path::PathBuf;
use task::registry;
use task::run::Task;
use task::{Home, Key};

/// Every task, by name.
pub fn all(home: &Home) -> Result<Vec<Task>, Failure> {
    Ok(registry::all(home)?.into_iter().map(|kept| kept.task()).collect::<Result<_, _>>()?)
}

/// Every task that runs by itself, and what could not be read.
pub fn known(home: &Home) -> (Vec<Task>, Vec<Failure>) {
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    match registry::all(home) {
        Ok(kept) => {
            for task in kept {
                match task.task() {
                    Ok(task) => tasks.push(task),
                    Err(error) => failures.push(error.into()),
                }
            }
        }
        Err(error) => failures.push(error.into()),
    }
    (tasks, failures)
}

/// What changes when [`known`] does.
pub fn watched(home: &Home) -> Vec<PathBuf> {
    vec![home.definitions()]
}

/// One task by its name.
pub fn find(home: &Home, name: &str) -> Result<Task, Failure> {
    match registry::find(home, name)? {
        Some(kept) => Ok(kept.task()?),
        None => Err(Failure::new(format!("no such task: {name}\nsee `cauldron task ls`"))),
    }
}

/// A task that another one names: of the same project, or of the command line.
pub fn find_beside(home: &Home, of: &Key, name: &str) -> Result<Task, Failure> {
    find(home, name).map_err(|failure| Failure::new(format!("task {of}: {}", failure.message)))
}

/// The name under which the history knows a task, also one that is not defined any more.
pub fn key(_home: &Home, name: &str) -> Result<Key, Failure> {
    Ok(match name.split_once('/') {
        Some((project, task)) => Key { project: project.to_owned(), task: task.to_owned() },
        None => Key { project: String::new(), task: name.to_owned() },
    })
}
