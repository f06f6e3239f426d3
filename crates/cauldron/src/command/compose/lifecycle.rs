//! `down`, `start`, `stop`, `restart`, `kill`, `pause`, `rm`, `wait`.

use super::project::{host, load_or_name};
use super::{services, timeout};
use crate::args::{Given, flag, number, opt};
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::{Arg, ArgMatches};
use compose::actual;
use compose::apply::{self, Down};
use futures_util::stream::{FuturesUnordered, StreamExt};

/// The flags of `down`.
pub fn down_args() -> Vec<Arg> {
    vec![
        flag("remove-orphans", "", "Remove containers for services not defined in the Compose file"),
        opt("rmi", "", "string", "Remove images used by services (\"local\"|\"all\")"),
        timeout(),
        flag("volumes", "v", "Remove named volumes and anonymous volumes attached to containers"),
        services(),
    ]
}

/// `down`.
pub async fn down(session: Session, given: ArgMatches) -> Outcome {
    let images = given.text("rmi").map(str::to_owned);
    if images.as_deref().is_some_and(|which| which != "all" && which != "local") {
        return Err(Failure::new(format!("invalid value for --rmi: \"{}\"", images.unwrap_or_default())));
    }
    let how = Down {
        services: given.texts("services"),
        volumes: given.on("volumes"),
        images,
        remove_orphans: given.on("remove-orphans"),
        timeout: number(&given, "timeout")?,
    };
    let project = load_or_name(&session, &how.services)?;
    apply::down(&host(&session)?, &project, &how).await?;
    if how.services.is_empty() {
        crate::command::task::disable(&session, &project)?;
    }
    Ok(0)
}

/// `start`.
pub async fn start(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let host = host(&session)?;
    let seconds = number(&given, "wait-timeout")?;
    apply::start(&host, &project, &names).await?;
    if given.on("wait") {
        let containers = actual::containers(&host.client, &project.name).await?;
        let wanted = containers
            .into_iter()
            .filter(|one| !one.oneoff && (names.is_empty() || names.contains(&one.service)));
        let standing = wanted.map(|one| (one.service, one.id, one.name)).collect();
        super::up::wait(&host, &standing, seconds).await?;
    }
    Ok(0)
}

/// `stop`.
pub async fn stop(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    apply::stop(&host(&session)?, &project, &names, number(&given, "timeout")?).await?;
    Ok(0)
}

/// `restart`.
pub async fn restart(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    apply::restart(&host(&session)?, &project, &names, number(&given, "timeout")?, given.on("no-deps"))
        .await?;
    Ok(0)
}

/// `kill`.
pub async fn kill(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    apply::kill(&host(&session)?, &project, &names, given.text("signal").unwrap_or("SIGKILL")).await?;
    Ok(0)
}

/// `pause` and `unpause`.
pub async fn pause(session: Session, given: ArgMatches, freeze: bool) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let host = host(&session)?;
    if freeze {
        apply::pause(&host, &project, &names).await?;
    } else {
        apply::unpause(&host, &project, &names).await?;
    }
    Ok(0)
}

/// `rm`.
pub async fn rm(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let host = host(&session)?;
    let stop = given.on("stop");
    let mut containers = actual::containers(&host.client, &project.name).await?;
    containers.retain(|one| (names.is_empty() || names.contains(&one.service)) && (stop || !one.runs()));
    if containers.is_empty() {
        session.say("No stopped containers");
        return Ok(0);
    }
    let shown: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
    if !given.on("force")
        && !host.dry_run
        && !session.confirm(&format!("Going to remove {}", shown.join(", ")))
    {
        return Ok(0);
    }
    apply::remove(&host, &project, &containers, stop, given.on("volumes")).await?;
    Ok(0)
}

/// `wait`: the code of the first container that is over.
pub async fn wait(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let host = &host(&session)?;
    let mut containers = actual::containers(&host.client, &project.name).await?;
    containers.retain(|one| !one.oneoff && names.contains(&one.service));
    if containers.is_empty() {
        return Err(Failure::new(format!("no containers for project \"{}\": not found", project.name)));
    }
    let mut waiting: FuturesUnordered<_> = containers
        .iter()
        .map(|one| async move { apply::finished(host, &one.id).await.map(|code| (&one.name, code)) })
        .collect();
    let mut first = None;
    while let Some(over) = waiting.next().await {
        let (name, code) = over?;
        session.line(&format!("container {name:?} exited with status code {code}"))?;
        first.get_or_insert(u8::try_from(code & 0xff).unwrap_or(125));
        if given.on("down-project") {
            break;
        }
    }
    drop(waiting);
    if given.on("down-project") {
        apply::down(host, &project, &Down::default()).await?;
    }
    Ok(first.unwrap_or(0))
}
