//! `exec`.

use super::run::{code, stream_until_over};
use crate::args::{Given, flag, list, opt, rest};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::options::files;
use crate::session::Session;
use crate::stream::{self, DetachKeys, End, Ends};
use clap::ArgMatches;
use client::{Method, encode};
use serde_json::json;

pub const VERBS: &[Verb] = &[Verb {
    group: "container",
    names: &["exec"],
    top: &["exec"],
    usage: "CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    more: "Examples:\n  cauldron exec -it web sh\n  cauldron exec -u postgres db pg_dumpall > dump.sql",
    args: || {
        vec![
            flag("detach", "d", "Detached mode: run command in the background"),
            opt("detach-keys", "", "string", "Override the key sequence for detaching a container"),
            list("env", "e", "list", "Set environment variables"),
            list("env-file", "", "list", "Read in a file of environment variables"),
            flag("interactive", "i", "Keep STDIN open even if not attached"),
            flag("privileged", "", "Give extended privileges to the command"),
            flag("tty", "t", "Allocate a pseudo-TTY"),
            opt("user", "u", "string", "Username or UID (format: \"<name|uid>[:<group|gid>]\")"),
            opt("workdir", "w", "string", "Working directory inside the container"),
            rest("args", 2).value_name("CONTAINER COMMAND [ARG...]"),
        ]
    },
    run: |session, given| Box::pin(exec(session, given)),
    failure: 1,
    ..VERB
}];

async fn exec(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let words = given.texts("args");
    let Some((container, command)) = words.split_first() else { return Err("exec needs a container".into()) };
    let detach = given.on("detach");
    let mut tty = given.on("tty");
    if tty && !detach && !(stream::is_terminal(std::io::stdin()) && stream::is_terminal(std::io::stdout())) {
        session.say("the input or output device is not a TTY: going on without a terminal");
        tty = false;
    }
    let ends = Ends { stdin: given.on("interactive") && !detach, stdout: true, stderr: true, tty };
    let body = json!({
        "Cmd": command, "Tty": tty, "Privileged": given.on("privileged"),
        "User": given.text("user").unwrap_or_default(), "WorkingDir": given.text("workdir").unwrap_or_default(),
        "Env": files::env(&given.texts("env-file"), &given.texts("env"))?,
        "AttachStdin": ends.stdin, "AttachStdout": !detach, "AttachStderr": !detach,
        "DetachKeys": given.text("detach-keys").unwrap_or_default(),
    });
    let created =
        client.json(Method::POST, &format!("/containers/{}/exec", encode(container)), Some(&body)).await?;
    let id = created["Id"].as_str().unwrap_or_default();
    let start = format!("/exec/{id}/start");
    if detach {
        client
            .json(Method::POST, &start, Some(&json!({"Detach": true, "Tty": tty})))
            .await
            .map_err(not_run)?;
        return Ok(0);
    }
    let attached =
        client.hijack(&start, Some(&json!({"Detach": false, "Tty": tty}))).await.map_err(not_run)?;
    let keys = DetachKeys::parse(given.text("detach-keys").unwrap_or_default())?;
    if stream_until_over(client, &format!("/exec/{id}"), attached, ends, Some(keys)).await? == End::Detached {
        return Err("read escape sequence".into());
    }
    let state = client.get(&format!("/exec/{id}/json")).await?;
    Ok(code(&state["ExitCode"]))
}

/// 126 and 127 where the command could not be executed.
fn not_run(error: client::Error) -> Failure {
    let text = error.to_string();
    let failure = Failure::from(error);
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        failure.code(127)
    } else if text.contains("permission denied") || text.contains("is a directory") {
        failure.code(126)
    } else {
        failure
    }
}
