//! `task ls`, `task show`, `task history`, `task logs`.

use super::{book, home, open_history};
use crate::args::Given;
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::{json as layout, time};
use crate::session::Session;
use clap::ArgMatches;
use serde_json::{Value, json};
use std::io::Write as _;
use task::definition::Definition;
use task::history::{RunRow, TryRow};
use task::run::{Task, lives, status};
use task::{History, Home, Key, Timestamp};

const TASKS: Listing = Listing {
    table: "{{.task}}\t{{.project}}\t{{.image}}\t{{.schedule}}\t{{.next}}\t{{.last}}\t{{.status}}",
    headers: &[("next", "NEXT RUN"), ("last", "LAST RUN")],
};

pub async fn ls(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "task" };
    let table = style.format.is_none_or(|format| format.starts_with("table"));
    let mut rows = Vec::new();
    let (tasks, whole) = book::all(&session, &home)?;
    for known in tasks {
        let mut row = summary(&home, &history, &known.task)?;
        if table {
            for key in ["next", "last"] {
                row[key] =
                    row[key].as_str().map(|text| phrase(text, session.now().0)).unwrap_or_default().into();
            }
            if row["schedule"].is_null() {
                row["schedule"] = "".into();
            }
        }
        rows.push(row);
    }
    session.out(&TASKS.render(&rows, &style)?)?;
    Ok(u8::from(!whole))
}

const NEXT: Listing =
    Listing { table: "{{.start}}\t{{.in}}\t{{.task}}\t{{.project}}\t{{.schedule}}", headers: &[] };

pub async fn next(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let count = given
        .text("last")
        .map_or(Ok(10), str::parse::<usize>)
        .map_err(|_| Failure::new("invalid -n: want a number"))?
        .min(1000);
    let names = given.texts("names");
    let (tasks, whole) = match names.is_empty() {
        true => book::all(&session, &home)?,
        false => {
            (names.iter().map(|name| book::find(&session, &home, name)).collect::<Result<_, _>>()?, true)
        }
    };
    let mut coming: Vec<(Timestamp, Value)> = Vec::new();
    for book::Known { task, .. } in &tasks {
        let Some(schedule) = &task.definition.schedule else { continue };
        if history.state(&task.key)?.is_some_and(|state| state.paused) {
            continue;
        }
        let mut slot = Timestamp::now();
        for _ in 0..count {
            let Some(next) = schedule.next(slot) else { break };
            slot = next;
            let start = schedule.start(&task.key.to_string(), slot);
            let row = json!({
                "task": task.key.task, "project": task.key.project, "schedule": schedule.text, "slot": slot.to_string(),
                "start": start.to_string(), "in": phrase(&start.to_string(), session.now().0),
            });
            coming.push((start, row));
        }
    }
    coming.sort_by_key(|(start, _)| *start);
    let rows: Vec<Value> = coming.into_iter().take(count).map(|(_, row)| row).collect();
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "task" };
    session.out(&NEXT.render(&rows, &style)?)?;
    Ok(u8::from(!whole))
}

/// A task in one row: what it is, when it runs, how it went.
fn summary(home: &Home, history: &History, task: &Task) -> Result<Value, Failure> {
    let last = history.runs(Some(&task.key), 1)?.into_iter().next();
    let state = history.state(&task.key)?;
    let paused = state.is_some_and(|state| state.paused);
    let schedule = task.definition.schedule.as_ref();
    let next = schedule.filter(|_| !paused).and_then(|schedule| {
        schedule.next(Timestamp::now()).map(|slot| schedule.start(&task.key.to_string(), slot))
    });
    let word = match &last {
        Some(run) => status(run, lives(home, &run.id)?),
        None => "never run",
    };
    Ok(json!({
        "task": task.key.task, "project": task.key.project, "image": task.image(), "schedule": schedule.map(|schedule| &schedule.text),
        "once": task.definition.once, "each": task.definition.each, "paused": paused, "next": next.map(|next| next.to_string()),
        "last": last.as_ref().map(|run| run.started.to_string()), "status": if paused && word != "running" { "paused" } else { word },
        "exit_code": last.as_ref().and_then(|run| run.exit_code), "error": last.and_then(|run| run.error),
    }))
}

/// `in 3 hours`, `5 minutes ago`.
fn phrase(text: &str, now: i64) -> String {
    let Some((at, _)) = time::parse(text) else { return text.to_owned() };
    if at > now {
        format!("in {}", time::human_duration(at - now).to_lowercase())
    } else {
        format!("{} ago", time::human_duration(now - at))
    }
}

pub async fn show(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let task = book::find(&session, &home, given.text("name").unwrap_or_default())?.task;
    let mut row = summary(&home, &history, &task)?;
    let count = given
        .text("next")
        .map_or(Ok(5), str::parse::<usize>)
        .map_err(|_| Failure::new("invalid --next: want a number"))?;
    let from = match given.text("from") {
        Some(text) => {
            text.parse().map_err(|error| Failure::new(format!("invalid --from \"{text}\": {error}")))?
        }
        None => Timestamp::now(),
    };
    row["slots"] = slots(&task.definition, from, count.min(1000)).into();
    row["runs"] = history
        .runs(Some(&task.key), 5)?
        .iter()
        .map(|run| run_row(&home, run))
        .collect::<Result<Vec<_>, _>>()?
        .into();
    // Names of variables only: their values may be secrets.
    row["command"] = task.body["Cmd"].clone();
    row["timeout"] = task.definition.timeout.map(task::duration::show).into();
    row["retries"] = task.definition.retries.max.into();
    row["parallel"] = task.definition.parallel.into();
    row["overlap"] = json!(task.definition.overlap);
    row["on_success"] = task.definition.on_success.clone().into();
    row["on_failure"] = task.definition.on_failure.clone().into();
    match given.text("format") {
        None | Some("table") => session.line(&layout::indent(&row.to_string(), "  "))?,
        Some(format) => {
            session.out(&TASKS.render(&[row], &Style { format: Some(format), ..Style::default() })?)?
        }
    }
    Ok(0)
}

fn slots(definition: &Definition, from: Timestamp, count: usize) -> Vec<String> {
    let Some(schedule) = &definition.schedule else { return Vec::new() };
    let mut at = from;
    let mut slots = Vec::new();
    while slots.len() < count
        && let Some(next) = schedule.next(at)
    {
        slots.push(next.to_string());
        at = next;
    }
    slots
}

fn run_row(home: &Home, run: &RunRow) -> Result<Value, Failure> {
    Ok(json!({
        "run": run.id, "cause": run.cause, "slot": run.slot.map(|slot| slot.to_string()), "started": run.started.to_string(),
        "finished": run.finished.map(|at| at.to_string()), "exit_code": run.exit_code, "error": run.error,
        "status": status(run, run.finished.is_none() && lives(home, &run.id)?),
    }))
}

const ENTRIES: Listing = Listing {
    table: "{{.task}}\t{{.target}}\t{{.attempt}}\t{{.image}}\t{{.started}}\t{{.took}}\t{{.exit_code}}\t{{.error}}",
    headers: &[("attempt", "TRY"), ("exit_code", "EXIT")],
};

pub async fn history(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let limit = given
        .text("last")
        .map_or(Ok(100), str::parse::<u32>)
        .map_err(|_| Failure::new("invalid --last: want a number"))?;
    let key = given.text("name").map(|name| book::key(&session, &home, name)).transpose()?;
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "run" };
    let table = style.format.is_none_or(|format| format.starts_with("table"));
    let mut entries = Vec::new();
    for row in history.tries(key.as_ref(), limit)? {
        let mut value = entry(&row, row.finished.is_none() && lives(&home, &row.run)?);
        if table {
            for name in ["exit_code", "error"] {
                if value[name].is_null() {
                    value[name] = "".into();
                }
            }
            value["error"] =
                value["error"].as_str().and_then(|text| text.lines().next()).unwrap_or_default().into();
            value["started"] = phrase(&row.started.to_string(), session.now().0).into();
        }
        entries.push(value);
    }
    session.out(&ENTRIES.render(&entries, &style)?)?;
    Ok(0)
}

/// A try as `--format json` shows it.
pub fn entry(row: &TryRow, lives: bool) -> Value {
    let took = row.finished.map(|end| end.duration_since(row.started).as_secs_f64());
    let status = match (row.finished, row.exit_code) {
        (None, _) if lives => "running",
        (None, _) => "interrupted",
        (Some(_), Some(0)) if row.error.is_none() => "ok",
        _ => "failed",
    };
    json!({
        "task": row.task, "project": row.project, "run": row.run, "target": row.target, "target_id": row.target_id,
        "attempt": row.attempt, "image": row.image, "image_id": row.image_id, "container": row.container,
        "started": row.started.to_string(), "finished": row.finished.map(|at| at.to_string()), "exit_code": row.exit_code,
        "error": row.error, "status": status, "took": took.map(|seconds| format!("{seconds:.1}s")).unwrap_or_default(),
        "cpu_seconds": row.cpu_nanos.map(|nanos| std::time::Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64()),
        "memory_peak": row.memory_peak, "output_bytes": row.output_bytes,
    })
}

pub async fn logs(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let run = match (given.text("run"), given.text("name")) {
        (Some(id), _) => history.run(id)?.ok_or_else(|| Failure::new(format!("no such run: {id}")))?,
        (None, name) => {
            let key = name.map(|name| book::key(&session, &home, name)).transpose()?;
            let last = history.runs(key.as_ref(), 1)?.into_iter().next();
            last.ok_or_else(|| Failure::new(never(key.as_ref())))?
        }
    };
    let only = given.texts("target");
    let tries: Vec<TryRow> = history
        .tries_of(&run.id)?
        .into_iter()
        .filter(|row| only.is_empty() || only.contains(&row.target))
        .collect();
    let tail = given.text("tail").filter(|text| *text != "all").map(str::parse::<usize>).transpose();
    let tail = tail.map_err(|_| Failure::new("invalid --tail: want a number"))?;
    let many = tries.len() > 1;
    for row in &tries {
        let pieces = history.output(row.id)?;
        match given.text("format") {
            Some("json") => {
                let mut value = entry(row, false);
                let text = |wanted: u8| {
                    let bytes: Vec<u8> = pieces
                        .iter()
                        .filter(|(stream, _)| *stream == wanted)
                        .flat_map(|(_, bytes)| bytes.clone())
                        .collect();
                    String::from_utf8_lossy(&bytes).into_owned()
                };
                (value["stdout"], value["stderr"]) = (text(1).into(), text(2).into());
                session.line(&value.to_string())?;
            }
            Some(other) => return Err(Failure::new(format!("invalid --format \"{other}\": want json"))),
            None => {
                if many {
                    session.say(&format!(
                        "==> {} (try {}) <==",
                        if row.target.is_empty() { &row.task } else { &row.target },
                        row.attempt
                    ));
                }
                print(&session, &pieces, tail)?;
            }
        }
    }
    Ok(0)
}

fn never(key: Option<&Key>) -> String {
    key.map_or_else(|| "no task ran yet".to_owned(), |key| format!("task {key} has not run yet"))
}

/// Each piece on the stream that it came from.
fn print(session: &Session, pieces: &[(u8, Vec<u8>)], tail: Option<usize>) -> Result<(), Failure> {
    let mut skip = match tail {
        Some(tail) => {
            let all = pieces.iter().flat_map(|(_, bytes)| bytes).filter(|byte| **byte == b'\n').count();
            all.saturating_sub(tail)
        }
        None => 0,
    };
    for (stream, bytes) in pieces {
        let mut rest = &bytes[..];
        while skip > 0
            && let Some(end) = rest.iter().position(|byte| *byte == b'\n')
        {
            rest = &rest[end + 1..];
            skip -= 1;
        }
        if skip > 0 {
            continue;
        }
        match stream {
            1 => session.raw(rest)?,
            _ => std::io::stderr().write_all(rest).map_err(|_| Failure::silent(141))?,
        }
    }
    Ok(())
}
