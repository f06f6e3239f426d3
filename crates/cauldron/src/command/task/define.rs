//! `task create`, `task rm`, and the flags that say what `x-task` says in a compose file.

use super::{Args, home, runner};
use crate::args::{Given, flag, list, opt};
use crate::fail::{Failure, Outcome};
use crate::options::create;
use crate::session::Session;
use clap::ArgMatches;
use serde_json::{Map, Value, json};
use task::Key;
use task::definition::Definition;
use task::registry::{self, Kept};
use task::run::{Task, unfinished};

/// The flags.
pub fn args() -> Args {
    vec![
        list(
            "each",
            "",
            "selector",
            "One run for each running container: label=K=V, name=PATTERN, network=N, service=S, image=I",
        ),
        opt("link-target", "", "alias", "Link the target under this name"),
        opt("target-volumes", "", "mode", "Mount the target's volumes (rw|ro)"),
        flag("optional", "", "No target is no failure"),
        opt("once", "", "volume", "A helper that runs once for this volume"),
        opt("task-version", "", "int", "The helper's version"),
        opt("schedule", "", "cron", "When: 5 fields, 6 with seconds, @daily, @every 4h"),
        opt("timezone", "", "zone", "The schedule's time zone, such as Europe/Berlin"),
        opt("jitter", "", "duration", "Put each start off by up to this"),
        opt("missed", "", "policy", "After downtime: once|skip"),
        opt("deadline", "", "duration", "Catch up no later than this"),
        opt("overlap", "", "policy", "When it is due while it runs: forbid|allow|replace"),
        opt("timeout", "", "duration", "Time limit of one try"),
        opt("retries", "", "int", "Tries after a failed one"),
        opt(
            "backoff",
            "",
            "duration",
            "Before the first of them; each waits twice as long as the one before",
        ),
        opt("parallel", "", "int", "Targets at the same time"),
        list("before", "", "step", "In the target first: pause, stop, or a shell command; undone afterwards"),
        list("after", "", "command", "In the target afterwards, also after a failure"),
        list("on-success", "", "task", "Run this task afterwards"),
        list("on-failure", "", "task", "Run this task after a failure"),
        opt("keep-runs", "", "int", "How many runs the history keeps (100)"),
        opt("keep-age", "", "duration", "How long the history keeps them"),
        opt("lock", "", "name", "Tasks with the same lock do not run at the same time"),
        opt("backup-to", "", "dir", "Keep what it writes to /backups there, as a backup"),
        opt("backup-verify", "", "task", "The task that checks a backup"),
        opt("backup-restore", "", "task", "The task that puts a backup back"),
        opt("backup-keep", "", "int", "How many backups stay, never fewer than up to the last verified one"),
        flag("new-privileges", "", "Let the process gain privileges"),
        opt("webhook", "", "url", "Post the outcome to this address"),
        opt("webhook-file", "", "file", "Post the outcome to the address in this file"),
        opt("notify-command", "", "command", "Run this on this machine with the outcome"),
        opt("notify-on", "", "when", "Tell always|failure|success"),
    ]
}

/// Refuses flags and a command that a task which is kept would not get.
pub fn nothing(given: &ArgMatches, task: &str) -> Result<(), Failure> {
    let given = |id: &str| given.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    let lost = if given("command") {
        "a command".to_owned()
    } else if let Some(flag) = args().iter().map(|arg| arg.get_id().as_str()).find(|id| given(id)) {
        format!("--{flag}")
    } else {
        return Ok(());
    };
    Err(Failure::new(format!(
        "{lost} is for a task that is not kept (--image): what {task} does and when is in its definition"
    )))
}

/// What the flags say, in the form of `x-task`.
pub fn definition(given: &ArgMatches) -> Result<Value, Failure> {
    let mut out = Map::new();
    for (flag, key) in [
        ("once", "once"),
        ("task-version", "version"),
        ("schedule", "schedule"),
        ("timezone", "timezone"),
        ("jitter", "jitter"),
        ("missed", "missed"),
        ("deadline", "deadline"),
        ("overlap", "overlap"),
        ("timeout", "timeout"),
        ("parallel", "parallel"),
        ("lock", "lock"),
        ("target-volumes", "volumes_from"),
    ] {
        if let Some(value) = given.text(flag) {
            out.insert(key.to_owned(), value.into());
        }
    }
    for (flag, key) in [("on-success", "on_success"), ("on-failure", "on_failure")] {
        let values = given.texts(flag);
        if !values.is_empty() {
            out.insert(key.to_owned(), values.into());
        }
    }
    for key in ["before", "after"] {
        let step = |text: String| match text.as_str() {
            "pause" | "stop" if key == "before" => Value::String(text),
            _ => json!({ "exec": text }),
        };
        let steps: Vec<Value> = given.texts(key).into_iter().map(step).collect();
        if !steps.is_empty() {
            out.insert(key.to_owned(), steps.into());
        }
    }
    if given.on("new-privileges") {
        out.insert("new_privileges".to_owned(), true.into());
    }
    nested(&mut out, "retries", &[("max", given.text("retries")), ("backoff", given.text("backoff"))]);
    nested(&mut out, "keep", &[("runs", given.text("keep-runs")), ("age", given.text("keep-age"))]);
    nested(
        &mut out,
        "notify",
        &[
            ("webhook", given.text("webhook")),
            ("webhook_file", given.text("webhook-file")),
            ("command", given.text("notify-command")),
            ("on", given.text("notify-on")),
        ],
    );
    let to = given.text("backup-to").map(std::path::absolute).transpose();
    let to = to.map_err(|error| Failure::new(format!("--backup-to: {error}")))?;
    let to = to.map(|to| to.display().to_string());
    let tasks = [("verify", given.text("backup-verify")), ("restore", given.text("backup-restore"))];
    nested(&mut out, "backup", &[("to", to.as_deref()), tasks[0], tasks[1]]);
    if let Some(count) = given.text("backup-keep") {
        out.entry("backup").or_insert_with(|| json!({}))["keep"] = json!({ "count": count });
    }
    if let Some(each) = each(given)? {
        out.insert("each".to_owned(), each);
    }
    Ok(Value::Object(out))
}

fn nested(out: &mut Map<String, Value>, key: &str, values: &[(&str, Option<&str>)]) {
    let inner: Map<String, Value> =
        values.iter().filter_map(|(key, value)| Some(((*key).to_owned(), Value::from((*value)?)))).collect();
    if !inner.is_empty() {
        out.insert(key.to_owned(), Value::Object(inner));
    }
}

fn each(given: &ArgMatches) -> Result<Option<Value>, Failure> {
    let mut each = Map::new();
    for selector in given.texts("each") {
        let known = ["label", "name", "network", "service", "image"];
        let (key, value) = selector
            .split_once('=')
            .filter(|(key, _)| known.contains(key))
            .ok_or_else(|| Failure::new(format!("invalid --each \"{selector}\": want label=K=V, name=PATTERN, network=N, service=S or image=I")))?;
        match each.entry(key).or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(value.into()),
            _ => return Err(Failure::new(format!("invalid --each \"{selector}\""))),
        }
    }
    if each.is_empty() {
        for flag in ["link-target", "optional"] {
            if given.text(flag).is_some() || given.on(flag) {
                return Err(Failure::new(format!("--{flag} needs --each")));
            }
        }
        return Ok(None);
    }
    if let Some(alias) = given.text("link-target") {
        each.insert("link".to_owned(), alias.into());
    }
    if given.on("optional") {
        each.insert("optional".to_owned(), true.into());
    }
    Ok(Some(Value::Object(each)))
}

/// A task that is not kept: `task run --image`.
pub fn passing(given: &ArgMatches, image: &str) -> Result<Task, Failure> {
    let definition =
        Definition::parse(&definition(given)?).map_err(|wrong| Failure::new(wrong.to_string()))?;
    let mut body = json!({"Image": image, "HostConfig": {}});
    let command = given.texts("command");
    if !command.is_empty() {
        body["Cmd"] = command.into();
    }
    let name = given.text("name").unwrap_or(image).to_owned();
    Ok(Task { key: Key { project: String::new(), task: name }, definition, body, ..Task::default() })
}

pub async fn create(session: Session, given: ArgMatches) -> Outcome {
    let name = given.text("task").unwrap_or_default().to_owned();
    let cwd = std::env::current_dir().map_err(|error| Failure::new(format!("current directory: {error}")))?;
    let request = create::request(&given, &cwd)?;
    let body = serde_json::to_value(&request.body).map_err(|error| Failure::new(error.to_string()))?;
    let kept = Kept { name: name.clone(), body, task: definition(&given)? };
    kept.clone().task()?;
    registry::keep(&home(&session)?, &kept, given.on("replace"))?;
    session.line(&name)?;
    Ok(0)
}

pub async fn rm(session: Session, given: ArgMatches) -> Outcome {
    let listener = super::warnings(&session);
    let runner = runner(&session, &listener)?;
    let (runner, session) = (&runner, &session);
    session
        .each(&given.texts("names"), |name| async move {
            let key = Key { project: String::new(), task: name };
            if registry::find(&runner.home, &key.task)?.is_some() && unfinished(runner, &key).await? {
                return Err(Failure::new(format!(
                    "task {key} is running\nstop it first: cauldron task stop {key}"
                )));
            }
            registry::remove(&runner.home, &key.task)?;
            Ok(runner.history.forget(&key)?)
        })
        .await
}
