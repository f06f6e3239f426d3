//! `task install`: a task as a command on PATH, and what that command does.
//!
//! The launcher is a script of one line that executes `cauldron task call NAME` with the same engine. The task's container is
//! worked out when it is installed and kept in `commands/<name>.json`, together with the state of the files that it came from:
//! calling it reads that one file, and only when a compose file has changed since is the project loaded again.

use super::book::{self, Enabled, Known};
use super::home;
use super::run::available;
use crate::args::Given;
use crate::command::run::{begun, foreground};
use crate::fail::{Failure, Outcome, file};
use crate::session::Session;
use crate::stream::{self, DetachKeys, Ends};
use clap::ArgMatches;
use client::{Method, query};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use task::body::{self, Try};
use task::run::Task;
use task::scheduler::stamp;
use task::{Home, registry};

/// Where launchers go unless told otherwise.
const DIR: &str = "/usr/local/bin";
/// The line by which a launcher is known as ours.
const OURS: &str = "# Runs a task of Cauldron; made by `cauldron task install`.";

/// An installed command.
#[derive(Serialize, Deserialize)]
struct Installed {
    /// The task.
    task: String,
    /// Its project, where it is a service.
    project: Option<Enabled>,
    /// What the files that it is written in were like.
    stamp: u64,
    /// Whether files are put in that are not kept here: secrets.
    delivers: bool,
    /// The request, complete but for arguments and terminal.
    body: Value,
    /// The image's platform.
    platform: String,
}

pub async fn install(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let name = given.text("name").unwrap_or_default();
    let known = book::find(&session, &home, name)?;
    if known.task.definition.each.is_some() || known.task.definition.once.is_some() {
        return Err(Failure::new(format!(
            "task {} cannot be a command: it runs for other containers or for a volume",
            known.task.key
        )));
    }
    let command = given.text("as").unwrap_or(&known.task.key.task).to_owned();
    registry::check_name(&command)?;
    let (installed, _) = resolve(&session, &home, &known).await?;
    keep(&home, &command, &installed)?;
    let dir = PathBuf::from(given.text("dir").unwrap_or(DIR));
    let path = dir.join(&command);
    if std::fs::read_to_string(&path)
        .map_or_else(|error| error.kind() != std::io::ErrorKind::NotFound, |text| !text.contains(OURS))
    {
        return Err(Failure::new(format!("{} is there already, and is not a launcher", path.display())));
    }
    std::fs::create_dir_all(&dir).map_err(file("create", &dir))?;
    write_launcher(&session, &path, &command)?;
    session.line(&path.display().to_string())?;
    Ok(0)
}

fn write_launcher(session: &Session, path: &Path, command: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("find this program: {error}")))?;
    let words: Vec<String> = std::iter::once(program.into_os_string())
        .chain(session.arguments())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect();
    let text = format!("#!/bin/sh\n{OURS}\nexec {} task call {command} \"$@\"\n", words.join(" "));
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&aside)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&aside, path)
    })();
    written.map_err(file("write", path))
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:=@,+".contains(&byte));
    if plain && !word.is_empty() { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

pub async fn uninstall(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let dir = PathBuf::from(given.text("dir").unwrap_or(DIR));
    let name = given.text("name").unwrap_or_default();
    registry::check_name(name)?;
    let path = dir.join(name);
    let text = std::fs::read_to_string(&path).map_err(file("read", &path))?;
    if !text.contains(OURS) {
        return Err(Failure::new(format!("{} is not a launcher", path.display())));
    }
    std::fs::remove_file(&path).map_err(file("remove", &path))?;
    let kept = kept(&home, name);
    std::fs::remove_file(&kept).map_err(file("remove", &kept))?;
    session.line(&path.display().to_string())?;
    Ok(0)
}

fn kept(home: &Home, command: &str) -> PathBuf {
    home.commands().join(format!("{command}.json"))
}

fn keep(home: &Home, command: &str, installed: &Installed) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(installed).map_err(|error| Failure::new(error.to_string()))?;
    Ok(task::home::write(&kept(home, command), &bytes)?)
}

/// The files that a task is written in.
fn files(home: &Home, name: &str, project: Option<&Enabled>) -> Vec<PathBuf> {
    match project {
        Some(project) => project.watched(),
        None => vec![home.definitions().join(format!("{name}.json"))],
    }
}

/// Works a task's container out; with what is put into it.
async fn resolve(session: &Session, home: &Home, known: &Known) -> Result<(Installed, Task), Failure> {
    let task = book::complete(session, known).await?;
    let of = Try { task: &known.task.key.to_string(), run: "call", attempt: 1, slot: None };
    let request = body::request(&task.body, &task.definition, None, of).map_err(Failure::new)?;
    let mut body = request.body;
    for (network, endpoint) in request.connect {
        body["NetworkingConfig"]["EndpointsConfig"][network] = endpoint;
    }
    body["HostConfig"]["AutoRemove"] = true.into();
    let project = known.project.as_ref().map(Enabled::of);
    let name = known.task.key.task.clone();
    let stamp = stamp(&files(home, &name, project.as_ref()));
    let delivers = !task.deliveries.is_empty();
    let installed = Installed { task: name, project, stamp, delivers, body, platform: task.platform.clone() };
    Ok((installed, task))
}

/// The task of an installed command, as its files have it now.
fn again(home: &Home, installed: &Installed) -> Result<Known, Failure> {
    let missing = || Failure::new(format!("no such task: {}", installed.task));
    match &installed.project {
        Some(project) => book::within(&project.load()?, &installed.task)?.ok_or_else(missing),
        None => {
            let kept = registry::find(home, &installed.task)?.ok_or_else(missing)?;
            Ok(Known { task: kept.task()?, project: None, step: None })
        }
    }
}

/// What a launcher does: a container as a binary.
pub async fn call(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let words = given.texts("args");
    let Some((command, arguments)) = words.split_first() else { return Err("no task was named".into()) };
    registry::check_name(command)?;
    let path = kept(&home, command);
    let bytes = std::fs::read(&path).map_err(file("read", &path))?;
    let mut installed: Installed = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(format!("read {}: {error}", path.display())))?;
    let mut deliveries = Vec::new();
    let current = stamp(&files(&home, &installed.task, installed.project.as_ref()));
    if installed.delivers || current != installed.stamp {
        let (fresh, task) = resolve(&session, &home, &again(&home, &installed)?).await?;
        deliveries = task.deliveries;
        if fresh.stamp != installed.stamp {
            keep(&home, command, &fresh)?;
        }
        installed = fresh;
    }
    let tty = stream::is_terminal(std::io::stdin()) && stream::is_terminal(std::io::stdout());
    let body = &mut installed.body;
    if !arguments.is_empty() {
        let mut all = body["Cmd"].as_array().cloned().unwrap_or_default();
        all.extend(arguments.iter().map(|word| Value::from(word.as_str())));
        body["Cmd"] = all.into();
    }
    for (key, on) in [
        ("Tty", tty),
        ("OpenStdin", true),
        ("StdinOnce", true),
        ("AttachStdin", true),
        ("AttachStdout", true),
        ("AttachStderr", true),
    ] {
        body[key] = on.into();
    }
    if let (true, Some((rows, columns))) = (tty, stream::size()) {
        body["HostConfig"]["ConsoleSize"] = json!([rows, columns]);
    }
    let id = create(&session, &home, &installed).await?;
    let client = session.client()?;
    compose::apply::deliver(client, &id, &deliveries).await?;
    let ends = Ends { stdin: true, stdout: true, stderr: true, tty };
    foreground(&session, &id, ends, DetachKeys::parse("")?, true, true).await
}

/// Makes the container; what its project lacks is made first, when the engine misses it.
async fn create(session: &Session, home: &Home, installed: &Installed) -> Result<String, Failure> {
    let client = session.client()?;
    let path = query("/containers/create", [("platform", installed.platform.clone())]);
    let made = match client.json(Method::POST, &path, Some(&installed.body)).await {
        Err(error) if error.status() == Some(404) => {
            available(session, &again(home, installed)?).await?;
            client.json(Method::POST, &path, Some(&installed.body)).await?
        }
        other => other?,
    };
    Ok(begun(session, &made))
}
