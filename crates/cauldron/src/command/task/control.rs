//! `task pause`, `task resume`, `task stop`.

use super::{book, home, open_history, runner};
use crate::args::Given;
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::ArgMatches;
use task::Timestamp;
use task::run::{interrupt, recover};

pub async fn pause(session: Session, given: ArgMatches, paused: bool) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let (home, history, session) = (&home, &history, &session);
    session
        .each(&given.texts("names"), |name| async move {
            let task = book::find(session, home, &name)?.task;
            if task.definition.schedule.is_none() {
                return Err(Failure::new(format!("task {} has no schedule", task.key)));
            }
            Ok(history.set_paused(&task.key, paused, Timestamp::now())?)
        })
        .await
}

pub async fn stop(session: Session, given: ArgMatches) -> Outcome {
    let listener = super::warnings(&session);
    let runner = runner(&session, &listener)?;
    let (runner, session) = (&runner, &session);
    session
        .each(&given.texts("names"), |name| async move {
            let key = book::key(session, &runner.home, &name)?;
            let asked = interrupt(runner, &key)?;
            if asked == 0 {
                // One that was killed is cleaned up after.
                recover(runner, Some(&key)).await?;
                return Err(Failure::new(format!("task {key} is not running")));
            }
            runner.ended(&key).await?;
            Ok(())
        })
        .await
}

pub async fn enable(session: Session, given: ArgMatches, enabled: bool) -> Outcome {
    let home = home(&session)?;
    if let Some(name) = given.text("project") {
        if !book::disable(&home, name)? {
            return Err(Failure::new(format!("project {name} is not enabled")));
        }
        session.line(name)?;
        return Ok(0);
    }
    let project =
        book::here(&session)?.ok_or_else(|| Failure::new("no configuration file provided: not found"))?;
    if enabled && !book::enable(&home, &project)? {
        return Err(Failure::new(format!("project {} has no task with a schedule", project.name)));
    }
    if !enabled && !book::disable(&home, &project.name)? {
        return Err(Failure::new(format!("project {} is not enabled", project.name)));
    }
    session.line(&project.name)?;
    Ok(0)
}
