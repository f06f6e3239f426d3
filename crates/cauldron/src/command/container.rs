//! The verbs on existing containers that are one call each.

use super::filters::{bit, filters};
use crate::args::{Given, any, flag, force, list, maybe, one, opt, prune_filter, rest, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::options::create;
use crate::render::{size, table};
use crate::session::Session;
use clap::ArgMatches;
use client::{Method, encode, query};
use serde_json::Value;

const EACH: Verb = Verb { group: "container", usage: "CONTAINER [CONTAINER...]", ..VERB };

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["stop"],
        top: &["stop"],
        about: "Stop one or more running containers",
        args: || {
            vec![
                opt("signal", "s", "string", "Signal to send to the container"),
                opt("timeout", "t", "int", "Seconds to wait before killing the container").alias("time"),
                some("containers"),
            ]
        },
        run: |session, given| Box::pin(signalled(session, given, "stop")),
        ..EACH
    },
    Verb {
        names: &["restart"],
        top: &["restart"],
        about: "Restart one or more containers",
        args: || {
            vec![
                opt("signal", "s", "string", "Signal to send to the container"),
                opt("timeout", "t", "int", "Seconds to wait before killing the container").alias("time"),
                some("containers"),
            ]
        },
        run: |session, given| Box::pin(signalled(session, given, "restart")),
        ..EACH
    },
    Verb {
        names: &["kill"],
        top: &["kill"],
        about: "Kill one or more running containers",
        args: || vec![opt("signal", "s", "string", "Signal to send to the container"), some("containers")],
        run: |session, given| Box::pin(signalled(session, given, "kill")),
        ..EACH
    },
    Verb {
        names: &["pause"],
        top: &["pause"],
        about: "Pause all processes within one or more containers",
        args: || vec![some("containers")],
        run: |session, given| Box::pin(signalled(session, given, "pause")),
        ..EACH
    },
    Verb {
        names: &["unpause"],
        top: &["unpause"],
        about: "Unpause all processes within one or more containers",
        args: || vec![some("containers")],
        run: |session, given| Box::pin(signalled(session, given, "unpause")),
        ..EACH
    },
    Verb {
        names: &["rm", "remove"],
        top: &["rm"],
        about: "Remove one or more containers",
        more: "Example:\n  cauldron rm -fv web",
        args: || {
            vec![
                flag("force", "f", "Force the removal of a running container (uses SIGKILL)"),
                flag("link", "l", "Remove the specified link"),
                flag("volumes", "v", "Remove anonymous volumes associated with the container"),
                any("containers"),
            ]
        },
        run: |session, given| Box::pin(rm(session, given)),
        ..EACH
    },
    Verb {
        names: &["wait"],
        top: &["wait"],
        about: "Block until one or more containers stop, then print their exit codes",
        args: || vec![some("containers")],
        run: |session, given| Box::pin(wait(session, given)),
        ..EACH
    },
    Verb {
        names: &["rename"],
        top: &["rename"],
        usage: "CONTAINER NEW_NAME",
        about: "Rename a container",
        args: || vec![one("container"), one("name")],
        run: |session, given| Box::pin(rename(session, given)),
        ..EACH
    },
    Verb {
        names: &["diff"],
        top: &["diff"],
        usage: "CONTAINER",
        about: "Inspect changes to files or directories on a container's filesystem",
        args: || vec![one("container")],
        run: |session, given| Box::pin(diff(session, given)),
        ..EACH
    },
    Verb {
        names: &["port"],
        top: &["port"],
        usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
        about: "List port mappings or a specific mapping for the container",
        args: || vec![one("container"), maybe("port")],
        run: |session, given| Box::pin(port(session, given)),
        ..EACH
    },
    Verb {
        names: &["top"],
        top: &["top"],
        usage: "CONTAINER [ps OPTIONS]",
        about: "Display the running processes of a container",
        args: || vec![rest("args", 1)],
        run: |session, given| Box::pin(top(session, given)),
        ..EACH
    },
    Verb {
        names: &["update"],
        top: &["update"],
        about: "Update configuration of one or more containers",
        args: || {
            let wanted = [
                "memory",
                "memory-reservation",
                "memory-swap",
                "cpus",
                "cpu-shares",
                "cpu-period",
                "cpu-quota",
                "cpu-rt-period",
                "cpu-rt-runtime",
                "cpuset-cpus",
                "cpuset-mems",
                "pids-limit",
                "blkio-weight",
                "restart",
                "kernel-memory",
            ];
            let mut args: Vec<_> =
                create::args().into_iter().filter(|arg| wanted.contains(&arg.get_id().as_str())).collect();
            args.push(some("containers"));
            args
        },
        run: |session, given| Box::pin(update(session, given)),
        ..EACH
    },
    Verb {
        names: &["prune"],
        usage: "",
        about: "Remove all stopped containers",
        args: || vec![prune_filter(), force()],
        run: |session, given| Box::pin(prune(session, given)),
        ..EACH
    },
    Verb {
        names: &["commit"],
        top: &["commit"],
        usage: "CONTAINER [REPOSITORY[:TAG]]",
        about: "Create a new image from a container's changes",
        args: || {
            vec![
                opt("author", "a", "string", "Author"),
                list("change", "c", "list", "Apply Dockerfile instruction to the created image"),
                opt("message", "m", "string", "Commit message"),
                flag("pause", "p", "Pause container during commit"),
                one("container"),
                maybe("image"),
            ]
        },
        run: |session, given| Box::pin(commit(session, given)),
        ..EACH
    },
];

async fn signalled(session: Session, given: ArgMatches, verb: &'static str) -> Outcome {
    let client = session.client()?;
    let suffix = query(
        "",
        [
            ("signal", given.text("signal").unwrap_or_default().to_owned()),
            ("t", given.text("timeout").unwrap_or_default().to_owned()),
        ],
    );
    let (suffix, said) = (suffix.as_str(), &session);
    session
        .together(&given.texts("containers"), |name| async move {
            for warning in
                client.post_warned(&format!("/containers/{}/{verb}{suffix}", encode(&name))).await?
            {
                said.say(&format!("WARNING: {warning}"));
            }
            Ok(())
        })
        .await
}

async fn rm(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let names = given.texts("containers");
    let force = given.on("force");
    if names.is_empty() {
        // `rm -f $(ps -aq)` with nothing to remove is no error, as with rm(1).
        return if force { Ok(0) } else { Err("'rm' requires at least 1 argument".into()) };
    }
    let suffix =
        query("", [("force", bit(force)), ("link", bit(given.on("link"))), ("v", bit(given.on("volumes")))]);
    let suffix = suffix.as_str();
    session
        .together(&names, |name| async move {
            let name = name.trim_start_matches('/');
            match client.bytes(Method::DELETE, &format!("/containers/{}{suffix}", encode(name)), None).await {
                // Said, but no failure: what was to be gone is gone.
                Err(error) if force && error.status() == Some(404) => Err(Failure::from(error).code(0)),
                other => Ok(other.map(drop)?),
            }
        })
        .await
}

async fn wait(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let mut outcome = 0;
    for name in given.texts("containers") {
        match client.json(Method::POST, &format!("/containers/{}/wait", encode(&name)), None).await {
            Ok(answer) => session.line(&answer["StatusCode"].to_string())?,
            Err(error) => {
                session.complain(&error.into());
                outcome = 1;
            }
        }
    }
    Ok(outcome)
}

async fn rename(session: Session, given: ArgMatches) -> Outcome {
    let (container, name) =
        (given.text("container").unwrap_or_default(), given.text("name").unwrap_or_default());
    session
        .client()?
        .post(&format!("/containers/{}/rename?name={}", encode(container), encode(name)))
        .await?;
    Ok(0)
}

async fn diff(session: Session, given: ArgMatches) -> Outcome {
    let container = given.text("container").unwrap_or_default();
    let changes = session.client()?.get(&format!("/containers/{}/changes", encode(container))).await?;
    let lines = changes.as_array().into_iter().flatten().map(|change| {
        let kind = match change["Kind"].as_u64() {
            Some(0) => 'C',
            Some(1) => 'A',
            _ => 'D',
        };
        format!("{kind} {}\n", change["Path"].as_str().unwrap_or_default())
    });
    session.out(&lines.collect::<String>())?;
    Ok(0)
}

async fn port(session: Session, given: ArgMatches) -> Outcome {
    let container = given.text("container").unwrap_or_default();
    let found = session.client()?.get(&format!("/containers/{}/json", encode(container))).await?;
    let wanted = given
        .text("port")
        .map(|port| if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") });
    let mut lines = Vec::new();
    for (port, bindings) in found["NetworkSettings"]["Ports"].as_object().into_iter().flatten() {
        if wanted.as_ref().is_some_and(|wanted| wanted != port) {
            continue;
        }
        for binding in bindings.as_array().into_iter().flatten() {
            let (address, host) = (
                binding["HostIp"].as_str().unwrap_or_default(),
                binding["HostPort"].as_str().unwrap_or_default(),
            );
            let at = if address.contains(':') {
                format!("[{address}]:{host}")
            } else {
                format!("{address}:{host}")
            };
            lines.push(if wanted.is_some() { at } else { format!("{port} -> {at}") });
        }
    }
    if let (Some(wanted), true) = (wanted, lines.is_empty()) {
        return Err(Failure::new(format!("no public port '{wanted}' published for {container}")));
    }
    session.out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(0)
}

async fn top(session: Session, given: ArgMatches) -> Outcome {
    let words = given.texts("args");
    let (container, options) = words.split_first().ok_or("top needs a container")?;
    let path = query(&format!("/containers/{}/top", encode(container)), [("ps_args", options.join(" "))]);
    let found = session.client()?.get(&path).await?;
    let join = |value: &Value| {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\t")
    };
    let mut text = format!("{}\n", join(&found["Titles"]));
    for process in found["Processes"].as_array().into_iter().flatten() {
        text.push_str(&join(process));
        text.push('\n');
    }
    session.out(&table::align_with(&text, 20, 1))?;
    Ok(0)
}

async fn update(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let mut config = client::bollard::models::HostConfig::default();
    create::limit(&given, &mut config)?;
    config.restart_policy = given.text("restart").map(crate::options::resources::restart).transpose()?;
    let body = serde_json::to_value(&config).map_err(|error| Failure::new(error.to_string()))?;
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err("you must provide one or more flags when using this command".into());
    }
    let (body, session_) = (&body, &session);
    session
        .each(&given.texts("containers"), |name| async move {
            let answer = client
                .json(Method::POST, &format!("/containers/{}/update", encode(&name)), Some(body))
                .await?;
            for warning in answer["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                session_.say(warning);
            }
            Ok(())
        })
        .await
}

async fn prune(session: Session, given: ArgMatches) -> Outcome {
    if !given.on("force")
        && !session
            .confirm("WARNING! This will remove all stopped containers.\nAre you sure you want to continue?")
    {
        return Ok(0);
    }
    let path = query("/containers/prune", [("filters", filters(&given.texts("filter"))?)]);
    let answer = session.client()?.json(Method::POST, &path, None).await?;
    session.out(&pruned("Deleted Containers:", &answer["ContainersDeleted"], &answer["SpaceReclaimed"]))?;
    Ok(0)
}

/// What a prune removed, as Docker reports it.
pub fn pruned(title: &str, deleted: &Value, space: &Value) -> String {
    let mut text = String::new();
    let names: Vec<&str> = deleted.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !names.is_empty() {
        text = format!("{title}\n{}\n\n", names.join("\n"));
    }
    text.push_str(&format!("Total reclaimed space: {}\n", size::human_with(reclaimed(space), 4)));
    text
}

#[allow(clippy::cast_precision_loss)]
fn reclaimed(space: &Value) -> f64 {
    space.as_f64().unwrap_or(0.0)
}

async fn commit(session: Session, given: ArgMatches) -> Outcome {
    let (repo, tag) = given.text("image").map_or(("", ""), super::pull::split);
    let text = |name: &str| given.text(name).unwrap_or_default().to_owned();
    let mut path = query(
        "/commit",
        [
            ("container", text("container")),
            ("repo", repo.to_owned()),
            ("tag", tag.to_owned()),
            ("comment", text("message")),
            ("author", text("author")),
            ("pause", if given.switch("pause").unwrap_or(true) { "1" } else { "0" }.to_owned()),
        ],
    );
    for change in given.texts("change") {
        path.push_str(&format!("&changes={}", encode(&change)));
    }
    let answer = session.client()?.json(Method::POST, &path, None).await?;
    session.line(answer["Id"].as_str().unwrap_or_default())?;
    Ok(0)
}
