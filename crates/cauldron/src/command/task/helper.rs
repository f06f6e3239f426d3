//! `helper`: what prepares a volume once, and its ledger.

use super::book::{self, Known};
use super::live::Live;
use super::run::available;
use super::{home, open_history, runner};
use crate::args::{Given, format, maybe, one, quiet};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::session::Session;
use crate::stop;
use clap::ArgMatches;
use serde_json::{Value, json};
use task::once::{self, Done, Helper, Wish};

const HELPER: Verb = Verb { group: "helper", ..VERB };

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["status", "ls"],
        usage: "[NAME]",
        about: "Show helpers, their volumes, and whether they have run",
        args: || vec![format(), quiet(), maybe("name")],
        run: |session, given| Box::pin(status(session, given)),
        ..HELPER
    },
    Verb {
        names: &["run"],
        usage: "NAME",
        about: "Run a helper now, unless it has run on its volume",
        args: || vec![quiet(), one("name")],
        run: |session, given| Box::pin(run(session, given, Wish::Once)),
        ..HELPER
    },
    Verb {
        names: &["rerun"],
        usage: "NAME",
        about: "Run a helper once more, though it has run on its volume",
        more: "It works on a copy that takes the volume's place when it succeeds; stop the containers that use the volume first.",
        args: || vec![quiet(), one("name")],
        run: |session, given| Box::pin(run(session, given, Wish::Again)),
        ..HELPER
    },
    Verb {
        names: &["forget"],
        usage: "NAME",
        about: "Forget that a helper has run: it runs when it is needed next",
        args: || vec![one("name")],
        run: |session, given| Box::pin(forget(session, given)),
        ..HELPER
    },
    Verb {
        names: &["accept"],
        usage: "NAME",
        about: "Take a helper that was interrupted as done, on an engine that could not take back what it did",
        args: || vec![one("name")],
        run: |session, given| Box::pin(accept(session, given)),
        ..HELPER
    },
];

/// Makes sure that a helper is done and, before it, those of lower versions.
pub async fn ensure(session: &Session, known: &Known, wish: Wish, quiet: bool) -> Result<(), Failure> {
    let live = Live::new(session, quiet);
    let listener = |event| live.show(&event);
    let runner = runner(session, &listener)?;
    let stop = stop::on_signal()?;
    let mut helpers = Vec::new();
    for known in book::before(session, &runner.home, known)? {
        stop.unless(available(session, &known)).await?;
        helpers.extend(book::helper(session, &known).await?);
    }
    for (helper, done) in once::run(&runner, &helpers, wish, stop.told()).await? {
        if let Done::Before(mark) = done
            && !quiet
        {
            session
                .say(&format!("helper {} ran on volume {} at {}", helper.task.key, helper.volume, mark.at));
        }
    }
    Ok(())
}

async fn run(session: Session, given: ArgMatches, wish: Wish) -> Outcome {
    for known in book::helpers(&session, &home(&session)?, given.text("name").unwrap_or_default())? {
        ensure(&session, &known, wish, given.on("quiet")).await?;
    }
    Ok(0)
}

/// The helpers that were named: one, or all steps of a service.
async fn named(session: &Session, given: &ArgMatches) -> Result<Vec<Helper>, Failure> {
    let name = given.text("name").unwrap_or_default();
    let mut helpers = Vec::new();
    for known in book::helpers(session, &home(session)?, name)? {
        let helper = book::helper(session, &known).await?;
        let helper =
            helper.ok_or_else(|| Failure::new(format!("task {name} is no helper: it has no once")))?;
        if known.step.is_some() && name.ends_with(&known.task.key.task) {
            return Err(Failure::new(format!(
                "the steps of a service share their entries: name all of them, {}",
                helper.command()
            )));
        }
        helpers.push(helper);
    }
    Ok(helpers)
}

async fn forget(session: Session, given: ArgMatches) -> Outcome {
    let history = open_history(&home(&session)?)?;
    for helper in named(&session, &given).await? {
        once::forget(session.client()?, &history, &helper.volume, Some(&helper.ledger)).await?;
        session.line(&helper.task.key.task)?;
    }
    Ok(0)
}

async fn accept(session: Session, given: ArgMatches) -> Outcome {
    let history = open_history(&home(&session)?)?;
    let mut refused = None;
    let mut accepted = false;
    for helper in named(&session, &given).await? {
        match once::accept(session.client()?, &history, &helper).await {
            Ok(()) => {
                accepted = true;
                session.line(&helper.task.key.task)?;
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if !accepted => Err(error.into()),
        _ => Ok(0),
    }
}

const ROWS: Listing = Listing {
    table: "{{.helper}}\t{{.project}}\t{{.volume}}\t{{.version}}\t{{.status}}\t{{.at}}\t{{.image}}",
    headers: &[("at", "WHEN")],
};

async fn status(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let client = session.client()?;
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "helper" };
    let table = style.format.is_none_or(|format| format.starts_with("table"));
    let mut rows: Vec<Value> = Vec::new();
    let (mut tasks, whole) = book::all(&session, &home)?;
    tasks.extend(book::all_steps(&session, &tasks)?);
    for known in tasks {
        let task = &known.task;
        if task.definition.once.is_none() {
            continue;
        }
        let Some(helper) = book::helper(&session, &known).await? else { continue };
        let names = [&task.key.task, &task.key.to_string(), helper.command(), &helper.ledger];
        if given.text("name").is_some_and(|name| !names.contains(&name)) {
            continue;
        }
        let missing = client.get(&format!("/volumes/{}", client::encode(&helper.volume))).await.is_err();
        let marks =
            if missing { Vec::new() } else { once::ledger(client, &history, &helper.volume).await?.marks };
        let image = client
            .get(&format!("/images/{}/json", client::encode(helper.task.image())))
            .await
            .unwrap_or_default();
        let digest = helper.digest(image["Id"].as_str().unwrap_or_default());
        let own: Vec<_> = marks.iter().filter(|mark| mark.helper == helper.ledger).collect();
        let mark = own.iter().find(|mark| mark.digest == digest);
        let status = match (mark, own.is_empty()) {
            (Some(mark), _) if mark.state == "done" => "done",
            (Some(_), _) => "interrupted",
            (None, true) => "not run",
            // Its service's other steps have entries as well.
            (None, false) if known.step.is_some() => "not run",
            (None, false) => "changed since it ran",
        };
        let at = mark.or(own.last().filter(|_| known.step.is_none())).map(|mark| mark.at.clone());
        let mut row = json!({
            "helper": task.key.task, "project": task.key.project, "volume": helper.volume, "version": helper.version, "status": status,
            "at": at, "image": helper.task.image(), "marks": own.len(),
        });
        if table {
            for key in ["version", "at"] {
                if row[key].is_null() {
                    row[key] = "".into();
                }
            }
        }
        rows.push(row);
    }
    session.out(&ROWS.render(&rows, &style)?)?;
    Ok(u8::from(!whole))
}
