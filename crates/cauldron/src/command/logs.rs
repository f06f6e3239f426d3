//! `logs`.

use super::filters::bit;
use crate::args::{Given, flag, one, opt};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::render::time;
use crate::session::Session;
use crate::stream::Demultiplexer;
use clap::ArgMatches;
use client::{Method, encode, query};
use std::io::Write;

pub const VERBS: &[Verb] = &[Verb {
    group: "container",
    names: &["logs"],
    top: &["logs"],
    usage: "CONTAINER",
    about: "Fetch the logs of a container",
    more: "Example:\n  cauldron logs -f --tail 20 --since 10m web",
    args: || {
        vec![
            flag("details", "", "Show extra details provided to logs"),
            flag("follow", "f", "Follow log output"),
            opt("since", "", "string", "Show logs since timestamp or relative (e.g. \"42m\" for 42 minutes)"),
            opt("until", "", "string", "Show logs before a timestamp or relative"),
            opt("tail", "n", "string", "Number of lines to show from the end of the logs"),
            flag("timestamps", "t", "Show timestamps"),
            one("container"),
        ]
    },
    run: |session, given| Box::pin(logs(session, given)),
    ..VERB
}];

async fn logs(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let name = given.text("container").unwrap_or_default();
    let found = client.get(&format!("/containers/{}/json", encode(name))).await?;
    let tty = found["Config"]["Tty"].as_bool().unwrap_or(false);
    let moment = |flag: &str| {
        let wrong = |error| format!("invalid value for \"{flag}\": {error}");
        given.text(flag).map(|text| time::moment(text, session.now()).map_err(wrong)).transpose()
    };
    let path = query(
        &format!("/containers/{}/logs", encode(name)),
        [
            ("stdout", "1".to_owned()),
            ("stderr", "1".to_owned()),
            ("follow", bit(given.on("follow"))),
            ("details", bit(given.on("details"))),
            ("timestamps", bit(given.on("timestamps"))),
            ("since", moment("since")?.unwrap_or_default()),
            ("until", moment("until")?.unwrap_or_default()),
            ("tail", given.text("tail").unwrap_or("all").to_owned()),
        ],
    );
    let mut body = client::Chunks::new(client.call(Method::GET, &path, None).await?);
    let mut splitter = Demultiplexer::default();
    while let Some(bytes) = body.next().await? {
        if tty {
            session.raw(&bytes)?;
            continue;
        }
        splitter.feed(&bytes, |stream, bytes| match stream {
            2 => std::io::stderr().write_all(bytes).map_err(|_| Failure::silent(141)),
            _ => session.raw(bytes),
        })?;
    }
    Ok(0)
}
