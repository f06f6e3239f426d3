//! `task pause`, `task resume`, `task stop`.

use super::{book, home, open_history};
use crate::args::Given;
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::ArgMatches;
use task::Timestamp;
use task::run::{Event, Runner, interrupt, recover};

pub async fn pause(session: Session, given: ArgMatches, paused: bool) -> Outcome {
    let home = home(&session)?;
    let history = open_history(&home)?;
    let (home, history) = (&home, &history);
    session
        .each(&given.texts("names"), |name| async move {
            let task = book::find(home, &name)?;
            if task.definition.schedule.is_none() {
                return Err(Failure::new(format!("task {} has no schedule", task.key)));
            }
            Ok(history.set_paused(&task.key, paused, Timestamp::now())?)
        })
        .await
}

pub async fn stop(session: Session, given: ArgMatches) -> Outcome {
    let home = home(&session)?;
    let listener = |event| {
        if let Event::Warning(text) = event {
            session.say(&format!("WARNING: {text}"));
        }
    };
    let runner = Runner {
        client: session.client()?.clone(),
        home: home.clone(),
        history: open_history(&home)?,
        listener: &listener,
    };
    let runner = &runner;
    session
        .each(&given.texts("names"), |name| async move {
            let key = book::key(&runner.home, &name)?;
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
