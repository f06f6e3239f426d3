//! Tasks of the command line: `definitions/<name>.json`, a container's request and the value of `x-task`.

use crate::definition::Definition;
use crate::error::{Context as _, Error, Result};
use crate::history::Key;
use crate::home::{Home, write};
use crate::run::Task;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// Longest name.
const NAME_BYTES: usize = 128;

/// A task as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// The body of `POST /containers/create`.
    pub body: Value,
    /// What `x-task` would say in a compose file.
    pub task: Value,
}

impl Kept {
    /// The task.
    ///
    /// # Errors
    /// Its definition is malformed.
    pub fn task(self) -> Result<Task> {
        let definition = Definition::parse(&self.task)
            .map_err(|wrong| Error::new(format!("task {}: {wrong}", self.name)))?;
        Ok(Task {
            key: Key { project: String::new(), task: self.name },
            definition,
            body: self.body,
            ..Task::default()
        })
    }
}

/// Whether a task may have this name.
///
/// # Errors
/// Says what a name is.
pub fn check_name(name: &str) -> Result<()> {
    let good = name.len() <= NAME_BYTES
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if good {
        Ok(())
    } else {
        Err(Error::new(format!("{name:?} is not a task's name: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")))
    }
}

fn path(home: &Home, name: &str) -> PathBuf {
    home.definitions().join(format!("{name}.json"))
}

/// Keeps a task under its name.
///
/// # Errors
/// The name is malformed or, unless `replace`, taken.
pub fn keep(home: &Home, kept: &Kept, replace: bool) -> Result<()> {
    check_name(&kept.name)?;
    let path = path(home, &kept.name);
    if !replace && path.exists() {
        return Err(
            Error::new(format!("task {} exists already", kept.name)).hint("use --replace to define it anew")
        );
    }
    write(&path, &serde_json::to_vec_pretty(kept).context(|| "write a task")?)
}

/// One task, if there is one of that name.
///
/// # Errors
/// Its file cannot be read.
pub fn find(home: &Home, name: &str) -> Result<Option<Kept>> {
    if check_name(name).is_err() {
        return Ok(None);
    }
    let path = path(home, name);
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => {
            let bytes = read.context(|| format!("read {}", path.display()))?;
            serde_json::from_slice(&bytes).map(Some).context(|| format!("read {}", path.display()))
        }
    }
}

/// All tasks, by name, and for a file that cannot be read why.
///
/// # Errors
/// The directory cannot be read.
pub fn all(home: &Home) -> Result<Vec<Result<Kept>>> {
    let dir = home.definitions();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).context(|| format!("read directory {}", dir.display()))? {
        let name = entry.context(|| format!("read directory {}", dir.display()))?.file_name();
        if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names.iter().filter_map(|name| find(home, name).transpose()).collect())
}

/// Forgets a task.
///
/// # Errors
/// There is none of that name.
pub fn remove(home: &Home, name: &str) -> Result<()> {
    check_name(name)?;
    match std::fs::remove_file(path(home, name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(format!("no such task: {name}")))
        }
        removed => removed
            .and_then(|()| crate::home::sync(&home.definitions()))
            .context(|| format!("remove task {name}")),
    }
}
