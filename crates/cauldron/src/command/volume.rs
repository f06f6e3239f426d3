//! `volume`.

use super::container::pruned;
use super::filters::{bit, filters, labels};
use crate::args::{Given, filter, flag, force, format, list, maybe, opt, prune_filter, quiet, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::options::files;
use crate::render::list::{Listing, Style};
use crate::render::template;
use crate::session::Session;
use clap::ArgMatches;
use client::{Method, encode, query};
use serde_json::{Value, json};

const VOLUME: Verb = Verb { group: "volume", ..VERB };

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["create"],
        usage: "[VOLUME]",
        about: "Create a volume",
        args: || {
            vec![
                opt("driver", "d", "string", "Specify volume driver name"),
                list("label", "", "list", "Set metadata for a volume"),
                opt("name", "", "string", "Specify volume name").hide(true),
                list("opt", "o", "map", "Set driver specific options"),
                maybe("volume"),
            ]
        },
        run: |session, given| Box::pin(create(session, given)),
        ..VOLUME
    },
    Verb {
        names: &["ls", "list"],
        about: "List volumes",
        args: || vec![filter(), format(), quiet()],
        run: |session, given| Box::pin(ls(session, given)),
        ..VOLUME
    },
    Verb {
        names: &["rm", "remove"],
        usage: "VOLUME [VOLUME...]",
        about: "Remove one or more volumes",
        args: || vec![flag("force", "f", "Force the removal of one or more volumes"), some("volumes")],
        run: |session, given| Box::pin(rm(session, given)),
        ..VOLUME
    },
    Verb {
        names: &["prune"],
        about: "Remove unused local volumes",
        args: || {
            vec![
                flag("all", "a", "Remove all unused volumes, not just anonymous ones"),
                prune_filter(),
                force(),
            ]
        },
        run: |session, given| Box::pin(prune(session, given)),
        ..VOLUME
    },
];

async fn create(session: Session, given: ArgMatches) -> Outcome {
    let body = json!({
        "Name": given.text("volume").or_else(|| given.text("name")).unwrap_or_default(),
        "Driver": given.text("driver").unwrap_or("local"),
        "DriverOpts": files::pairs(&given.texts("opt")), "Labels": files::labels(&[], &given.texts("label"))?,
    });
    let answer = session.client()?.json(Method::POST, "/volumes/create", Some(&body)).await?;
    session.line(answer["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

const VOLUMES: Listing = Listing { table: "{{.Driver}}\t{{.Name}}", headers: &[("Name", "VOLUME NAME")] };

async fn ls(session: Session, given: ArgMatches) -> Outcome {
    let found =
        session.client()?.get(&query("/volumes", [("filters", filters(&given.texts("filter"))?)])).await?;
    let mut rows: Vec<Value> = found["Volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|volume| {
            let mut row = json!({
                "Name": volume["Name"], "Driver": volume["Driver"], "Scope": volume["Scope"], "Mountpoint": volume["Mountpoint"],
                "Labels": labels(&volume["Labels"]), "Links": "N/A", "Size": "N/A", "Availability": "N/A", "Group": "N/A", "Status": "N/A",
            });
            row[template::LABELS] = volume["Labels"].clone();
            row
        })
        .collect();
    rows.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
    session.out(
        &VOLUMES
            .render(&rows, &Style { format: given.text("format"), quiet: given.on("quiet"), key: "Name" })?,
    )?;
    Ok(0)
}

async fn rm(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let force = given.on("force");
    session
        .each(&given.texts("volumes"), |name| async move {
            let path = query(&format!("/volumes/{}", encode(&name)), [("force", bit(force))]);
            client.bytes(Method::DELETE, &path, None).await.map(|_| ()).map_err(Failure::from)
        })
        .await
}

async fn prune(session: Session, given: ArgMatches) -> Outcome {
    let all = given.on("all");
    let what = if all {
        "all local volumes not used by at least one container"
    } else {
        "anonymous local volumes not used by at least one container"
    };
    if !given.on("force")
        && !session.confirm(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue?"))
    {
        return Ok(0);
    }
    let mut wanted = given.texts("filter");
    if all {
        wanted.push("all=1".to_owned());
    }
    let answer = session
        .client()?
        .json(Method::POST, &query("/volumes/prune", [("filters", filters(&wanted)?)]), None)
        .await?;
    session.out(&pruned("Deleted Volumes:", &answer["VolumesDeleted"], &answer["SpaceReclaimed"]))?;
    Ok(0)
}
