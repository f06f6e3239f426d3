//! `task backups`, `task restore`.

use super::book::{self, Known};
use super::home;
use super::run::{self, Shown};
use crate::args::Given;
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::size;
use crate::session::Session;
use crate::stop;
use clap::ArgMatches;
use serde_json::{Value, json};
use task::Timestamp;
use task::backup::{self, Opened, Taken};
use task::definition::{Backup, Each};
use task::run::Ask;

const BACKUPS: Listing = Listing {
    table: "{{.run}}\t{{.target}}\t{{.finished}}\t{{.size}}\t{{.verified}}\t{{.path}}",
    headers: &[("finished", "TAKEN")],
};

/// A task that makes backups, and those of the targets that are asked for.
fn named(session: &Session, given: &ArgMatches) -> Result<(Known, Backup, Vec<Taken>), Failure> {
    let name = given.text("name").unwrap_or_default();
    let known = book::find(session, &home(session)?, name)?;
    let Some(how) = known.task.definition.backup.clone() else {
        return Err(Failure::new(format!(
            "task {} makes no backups: it has no x-task.backup",
            known.task.key
        )));
    };
    let targets = given.texts("target");
    let mut all = backup::all(&how, &known.task.key)?;
    all.retain(|taken| targets.is_empty() || targets.contains(&taken.target));
    Ok((known, how, all))
}

pub async fn backups(session: Session, given: ArgMatches) -> Outcome {
    let (_, _, all) = named(&session, &given)?;
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "run" };
    let rows: Vec<Value> = all.iter().map(row).collect();
    session.out(&BACKUPS.render(&rows, &style)?)?;
    Ok(0)
}

fn row(taken: &Taken) -> Value {
    json!({
        "task": taken.task, "run": taken.run, "target": taken.target, "image": taken.image, "started": taken.started.to_string(),
        "finished": taken.finished.to_string(), "verified": taken.verified.map_or_else(|| "no".to_owned(), |at| at.to_string()),
        "encrypted": taken.encrypted, "bytes": taken.bytes(), "size": size::human(i64::try_from(taken.bytes()).unwrap_or(i64::MAX)),
        "files": taken.files.iter().map(|file| json!({"name": file.name, "bytes": file.bytes, "sha256": file.sha256})).collect::<Vec<_>>(),
        "path": taken.path,
    })
}

/// The backup that is meant: the newest that was verified, or as `--run`, `--at` and `--unverified` say.
fn choose<'a>(all: &'a [Taken], how: &Backup, given: &ArgMatches) -> Result<&'a Taken, Failure> {
    let mut targets: Vec<&str> = all.iter().map(|taken| taken.target.as_str()).collect();
    targets.sort_unstable();
    targets.dedup();
    let run = given.text("run");
    if targets.len() > 1 {
        return Err(Failure::new(format!(
            "there are backups of several targets: say which with --target: {}",
            targets.join(", ")
        )));
    }
    let at = given
        .text("at")
        .map(|text| {
            text.parse::<Timestamp>()
                .map_err(|error| Failure::new(format!("invalid --at \"{text}\": {error}")))
        })
        .transpose()?;
    let fits = |taken: &&Taken| {
        run.is_none_or(|run| taken.run.starts_with(run)) && at.is_none_or(|at| taken.finished <= at)
    };
    let mut fitting = all.iter().filter(fits);
    let any = run.is_some() || how.verify.is_none() || given.on("unverified");
    let chosen = fitting.clone().find(|taken| any || taken.verified.is_some());
    chosen.ok_or_else(|| match fitting.next() {
        Some(_) => Failure::new(
            "no such backup was verified\nsee `cauldron task backups`; --unverified takes one that was not",
        ),
        None => Failure::new("there is no such backup\nsee `cauldron task backups`"),
    })
}

pub async fn restore(session: Session, given: ArgMatches) -> Outcome {
    let (known, mut how, all) = named(&session, &given)?;
    if let (Some(encrypt), Some(identity)) = (&mut how.encrypt, given.text("identity")) {
        encrypt.identity = Some(identity.into());
    }
    let taken = choose(&all, &how, &given)?;
    let Some(name) = &how.restore else {
        return Err(Failure::new(format!(
            "task {} does not say how a backup is restored: name the task that does it in x-task.backup.restore",
            known.task.key
        )));
    };
    let home = home(&session)?;
    let mut restore = book::find_beside(&session, &home, &known, name)?;
    let into = given.text("into").unwrap_or(&taken.target);
    if !into.is_empty() {
        let link = |known: &Known| known.task.definition.each.as_ref().and_then(|each| each.link.clone());
        let link = link(&restore).or_else(|| link(&known));
        restore.task.definition.each = Some(Each { name: vec![into.to_owned()], link, ..Each::default() });
    }
    let what = format!(
        "{} of {}, {}{}",
        taken.path.display(),
        taken.finished,
        size::human(i64::try_from(taken.bytes()).unwrap_or(i64::MAX)),
        taken.verified.map_or("", |_| ", verified"),
    );
    let place = if into.is_empty() { String::new() } else { format!(" into {into}") };
    if given.on("dry-run") {
        backup::intact(taken)?;
        session.line(&format!("would restore {what}{place} by task {}", restore.task.key))?;
        return Ok(0);
    }
    session.say(&format!("restoring {what}{place}"));
    let stop = stop::on_signal()?;
    let opened = Opened::open(&home, &how, taken)?;
    let mut task = run::ready(&session, &restore, &stop).await?;
    backup::mount(&mut task.body, opened.data(), &how.mount, true);
    let ask = Ask { cause: format!("restore {}", taken.run), ..Ask::default() };
    run::perform(&session, &restore, &task, ask, Shown { quiet: given.on("quiet"), format: None }, &stop)
        .await
}
