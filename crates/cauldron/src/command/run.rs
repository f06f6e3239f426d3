//! `run`, `create`, `start`, `attach`: create → attach (before start) → wait (registered) → start → stream → exit code.

use super::pull;
use crate::args::{Given, flag, invalid, list, one, opt, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::options::create;
use crate::session::Session;
use crate::stream::{self, DetachKeys, End, Ends};
use clap::{Arg, ArgMatches};
use client::{Client, Lines, Method, encode, query};
use serde_json::Value;

pub const VERBS: &[Verb] = &[
    Verb {
        group: "container",
        names: &["run"],
        top: &["run"],
        usage: "IMAGE [COMMAND] [ARG...]",
        about: "Create and run a new container from an image",
        more: "Examples:\n  cauldron run --rm -it debian:bookworm bash\n  cauldron run -d --name web -p 8080:80 nginx\n  cauldron run --rm -v ~/backups:/backups do_backups > log\n\nWith -t, where stdin or stdout is not a terminal, the container gets none: files stay free of carriage returns.\nExit codes: the process's own, 125 engine, 126 cannot execute, 127 not found.",
        args: || {
            let mut args = create::args();
            args.extend([
                flag("detach", "d", "Run container in background and print container ID"),
                opt("detach-keys", "", "string", "Override the key sequence for detaching a container"),
                flag("sig-proxy", "", "Proxy received signals to the process"),
            ]);
            args
        },
        run: |session, given| Box::pin(run(session, given)),
        failure: 125,
        ..VERB
    },
    Verb {
        group: "container",
        names: &["create"],
        top: &["create"],
        usage: "IMAGE [COMMAND] [ARG...]",
        about: "Create a new container",
        args: create::args,
        run: |session, given| Box::pin(create_only(session, given)),
        failure: 125,
        ..VERB
    },
    Verb {
        group: "container",
        names: &["start"],
        top: &["start"],
        usage: "CONTAINER [CONTAINER...]",
        about: "Start one or more stopped containers",
        more: "Examples:\n  cauldron start web\n  cauldron start -ai shell",
        args: || {
            let mut args = attach_args();
            args.extend([
                flag("attach", "a", "Attach STDOUT/STDERR and forward signals"),
                flag("interactive", "i", "Attach container's STDIN"),
                some("containers"),
            ]);
            args
        },
        run: |session, given| Box::pin(start(session, given)),
        ..VERB
    },
    Verb {
        group: "container",
        names: &["attach"],
        top: &["attach"],
        usage: "CONTAINER",
        about: "Attach local standard input, output, and error streams to a running container",
        more: "The keys ctrl-p,ctrl-q detach and leave the container running.",
        args: || {
            let mut args = attach_args();
            args.extend([flag("no-stdin", "", "Do not attach STDIN"), one("container")]);
            args
        },
        run: |session, given| Box::pin(attach(session, given)),
        ..VERB
    },
];

fn attach_args() -> Vec<Arg> {
    vec![
        opt("detach-keys", "", "string", "Override the key sequence for detaching a container"),
        flag("sig-proxy", "", "Proxy received signals to the process"),
        list("checkpoint", "", "string", "Accepted for compatibility").hide(true),
    ]
}

/// `--cidfile`: made before the container is, so that one that cannot be written leaves none; taken away again while it is
/// empty.
struct IdFile {
    path: std::path::PathBuf,
    written: bool,
}

impl IdFile {
    fn create(path: &str) -> Result<Self, Failure> {
        match std::fs::File::create_new(path) {
            Ok(_) => Ok(Self { path: path.into(), written: false }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::new(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            ))),
            Err(error) => Err(Failure::new(format!(
                "failed to create the container ID file: open {path}: {}",
                crate::fail::reason(&error)
            ))),
        }
    }
    fn write(&mut self, id: &str) -> Result<(), Failure> {
        std::fs::write(&self.path, id).map_err(crate::fail::file("write container ID file", &self.path))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Creates, pulling a missing image; gives the id.
async fn create(session: &Session, given: &ArgMatches, request: &create::Request) -> Result<String, Failure> {
    let client = session.client()?;
    let mut cidfile = given.text("cidfile").map(IdFile::create).transpose()?;
    let policy = given.text("pull").unwrap_or("missing");
    if !["always", "missing", "never", ""].contains(&policy) {
        return Err(Failure::new(format!(
            "invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""
        )));
    }
    let platform = given.text("platform").unwrap_or_default();
    if policy == "always" {
        pull::to_stderr(session, &request.image, platform, given.on("quiet")).await?;
    }
    let body = serde_json::to_value(&request.body).map_err(|error| Failure::new(error.to_string()))?;
    let name = given.text("name").unwrap_or_default().to_owned();
    let path = query("/containers/create", [("name", name), ("platform", platform.to_owned())]);
    let answer = match client.json(Method::POST, &path, Some(&body)).await {
        Err(error)
            if error.status() == Some(404)
                && policy != "never"
                && ["No such image", "does not match the specified platform"]
                    .iter()
                    .any(|known| error.to_string().contains(known)) =>
        {
            session.say(&format!("Unable to find image '{}' locally", pull::familiar(&request.image)));
            pull::to_stderr(session, &request.image, platform, given.on("quiet")).await?;
            client.json(Method::POST, &path, Some(&body)).await?
        }
        other => other?,
    };
    let id = begun(session, &answer);
    if let Some(file) = &mut cidfile {
        file.write(&id)?;
    }
    Ok(id)
}

/// Says the warnings of an answer to `create`; the new container's id.
pub(super) fn begun(session: &Session, answer: &Value) -> String {
    for warning in answer["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        session.say(&format!("WARNING: {warning}"));
    }
    answer["Id"].as_str().unwrap_or_default().to_owned()
}

fn cwd() -> Result<std::path::PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::new(format!("current directory: {error}")))
}

async fn create_only(session: Session, given: ArgMatches) -> Outcome {
    let mut request = create::request(&given, &cwd()?)?;
    let body = &mut request.body;
    let interactive = given.on("interactive");
    body.stdin_once = Some(interactive);
    (body.attach_stdin, body.attach_stdout, body.attach_stderr) = (Some(interactive), Some(true), Some(true));
    let id = create(&session, &given, &request).await?;
    session.line(&id)?;
    Ok(0)
}

/// `-a` values; none is stdout and stderr, and stdin with `-i`.
fn ends(given: &ArgMatches, tty: bool) -> Result<Ends, Failure> {
    let names = given.texts("attach");
    let mut ends = Ends { stdin: false, stdout: false, stderr: false, tty };
    for name in &names {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => ends.stdin = true,
            "stdout" => ends.stdout = true,
            "stderr" => ends.stderr = true,
            _ => {
                return Err(invalid("attach", name, "valid streams are STDIN, STDOUT and STDERR"));
            }
        }
    }
    if names.is_empty() {
        ends = Ends { stdin: given.on("interactive"), stdout: true, stderr: true, tty };
    }
    Ok(ends)
}

async fn run(session: Session, given: ArgMatches) -> Outcome {
    let mut request = create::request(&given, &cwd()?)?;
    let detach = given.on("detach");
    if detach && !given.texts("attach").is_empty() {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    let mut tty = given.on("tty");
    if tty && !detach && !(stream::is_terminal(std::io::stdin()) && stream::is_terminal(std::io::stdout())) {
        session.say("the input or output device is not a TTY: going on without a terminal");
        tty = false;
    }
    let keys = DetachKeys::parse(given.text("detach-keys").unwrap_or_default())?;
    let ends = ends(&given, tty)?;
    let body = &mut request.body;
    body.tty = Some(tty);
    if !detach {
        body.stdin_once = Some(given.on("interactive"));
        (body.attach_stdin, body.attach_stdout, body.attach_stderr) =
            (Some(ends.stdin), Some(ends.stdout), Some(ends.stderr));
    }
    if tty && let (Some((rows, columns)), Some(host)) = (stream::size(), body.host_config.as_mut()) {
        host.console_size = Some(vec![rows.into(), columns.into()]);
    }
    let id = create(&session, &given, &request).await?;
    let client = session.client()?;
    if detach {
        begin(&session, client, &id).await.map_err(not_started)?;
        session.line(&id)?;
        return Ok(0);
    }
    let proxy = given.switch("sig-proxy").unwrap_or(true);
    foreground(&session, &id, ends, keys, proxy, given.on("rm")).await
}

/// Starts a container, and says what was done differently from what was asked.
async fn begin(session: &Session, client: &Client, id: &str) -> Result<(), client::Error> {
    for warning in client.post_warned(&format!("/containers/{}/start", encode(id))).await? {
        session.say(&format!("WARNING: {warning}"));
    }
    Ok(())
}

/// Attach, wait, start, stream.
pub(super) async fn foreground(
    session: &Session,
    id: &str,
    ends: Ends,
    keys: DetachKeys,
    proxy: bool,
    removed: bool,
) -> Outcome {
    let client = session.client()?;
    let attached = client.hijack(&attach_path(id, ends), None).await?;
    let condition = if removed { "removed" } else { "next-exit" };
    // The engine answers with its headers as soon as it waits, so the exit cannot be missed.
    let wait =
        client.call(Method::POST, &format!("/containers/{id}/wait?condition={condition}"), None).await?;
    let signals = (proxy && !ends.tty).then(|| stream::forward(client.clone(), id.to_owned()));
    if let Err(error) = begin(session, client, id).await {
        return Err(not_started(error));
    }
    let end = stream_until_over(client, &format!("/containers/{id}"), attached, ends, Some(keys)).await;
    let code = match end {
        Ok(End::Detached) => Ok(0),
        Ok(End::Closed) => exit_code(wait).await,
        Err(failure) => Err(failure),
    };
    if let Some(signals) = signals {
        signals.abort();
    }
    code
}

/// Copies the streams; with a terminal it is raw meanwhile and its size follows.
pub(super) async fn stream_until_over(
    client: &Client,
    path: &str,
    attached: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    ends: Ends,
    keys: Option<DetachKeys>,
) -> Result<End, Failure> {
    let watch = if ends.tty && stream::is_terminal(std::io::stdout()) {
        stream::resize(client, path).await;
        Some(stream::watch_size(client.clone(), path.to_owned()))
    } else {
        None
    };
    let raw = if ends.tty && ends.stdin { stream::Raw::enter() } else { None };
    let keys = keys.filter(|_| ends.tty && ends.stdin);
    let end = stream::copy(attached, ends, keys).await;
    drop(raw);
    if let Some(watch) = watch {
        watch.abort();
    }
    end
}

fn attach_path(id: &str, ends: Ends) -> String {
    let bit = |on: bool| if on { "1".to_owned() } else { String::new() };
    query(
        &format!("/containers/{}/attach", encode(id)),
        [
            ("stream", "1".to_owned()),
            ("stdin", bit(ends.stdin)),
            ("stdout", bit(ends.stdout)),
            ("stderr", bit(ends.stderr)),
        ],
    )
}

async fn exit_code(response: client::Response) -> Outcome {
    let Some(answer) = Lines::new(response).next().await? else {
        return Err(Failure::new("the engine did not tell the exit code").code(125));
    };
    if let Some(message) = answer["Error"]["Message"].as_str().filter(|message| !message.is_empty()) {
        return Err(Failure::new(message).code(125));
    }
    Ok(code(&answer["StatusCode"]))
}

/// An exit code as one byte, whatever the engine said.
pub(super) fn code(value: &Value) -> u8 {
    value.as_i64().and_then(|code| u8::try_from(code & 0xff).ok()).unwrap_or(125)
}

/// The exit code of a container that could not be started: Docker's table over Docker's texts.
fn not_started(error: client::Error) -> Failure {
    let text = error.to_string();
    let code = if [
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]
    .iter()
    .any(|known| text.contains(known))
    {
        127
    } else if ["permission denied", "is a directory", "exec format error"]
        .iter()
        .any(|known| text.to_lowercase().contains(known))
    {
        126
    } else {
        125
    };
    Failure::from(error).code(code)
}

async fn start(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let names = given.texts("containers");
    if !given.on("attach") && !given.on("interactive") {
        return session
            .each(&names, |name| {
                let session = &session;
                async move { Ok(begin(session, client, &name).await?) }
            })
            .await;
    }
    let [name] = names.as_slice() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let found = client.get(&format!("/containers/{}/json", encode(name))).await?;
    let tty = found["Config"]["Tty"].as_bool().unwrap_or(false);
    let stdin = given.on("interactive") && found["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    let id = found["Id"].as_str().unwrap_or(name);
    let ends = Ends { stdin, stdout: true, stderr: true, tty };
    let keys = DetachKeys::parse(given.text("detach-keys").unwrap_or_default())?;
    let removed = found["HostConfig"]["AutoRemove"].as_bool().unwrap_or(false);
    // One that runs is attached to all the same: to start it again changes nothing, unless it has ended meanwhile.
    foreground(&session, id, ends, keys, given.switch("sig-proxy").unwrap_or(true), removed).await
}

async fn attach(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let name = given.text("container").unwrap_or_default();
    let found = attachable(client, name).await?;
    let tty = found["Config"]["Tty"].as_bool().unwrap_or(false);
    let stdin = !given.on("no-stdin") && found["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    if tty && stdin && !stream::is_terminal(std::io::stdin()) {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let id = found["Id"].as_str().unwrap_or(name);
    let ends = Ends { stdin, stdout: true, stderr: true, tty };
    let keys = DetachKeys::parse(given.text("detach-keys").unwrap_or_default())?;
    let wait = client.call(Method::POST, &format!("/containers/{id}/wait"), None).await?;
    let attached = client.hijack(&attach_path(id, ends), None).await?;
    // One that ended before we were attached would be waited for until somebody starts it.
    attachable(client, id).await?;
    let proxy = given.switch("sig-proxy").unwrap_or(true) && !ends.tty;
    let proxy = proxy.then(|| stream::forward(client.clone(), id.to_owned()));
    let end = stream_until_over(client, &format!("/containers/{id}"), attached, ends, Some(keys)).await?;
    // The engine may end the stream before the container is over (our stdin is at its end): signals still belong to it.
    let outcome = match end {
        // Docker's words and exit code: only `attach` calls it a failure.
        End::Detached => Err(Failure::new("read escape sequence")),
        End::Closed => exit_code(wait).await,
    };
    if let Some(proxy) = proxy {
        proxy.abort();
    }
    outcome
}

/// What is known of a container that can be attached to.
async fn attachable(client: &Client, name: &str) -> Result<Value, Failure> {
    let found = client.get(&format!("/containers/{}/json", encode(name))).await?;
    let state = &found["State"];
    if !state["Running"].as_bool().unwrap_or(false) {
        return Err(Failure::new("You cannot attach to a stopped container, start it first"));
    }
    if state["Paused"].as_bool().unwrap_or(false) {
        return Err(Failure::new("You cannot attach to a paused container, unpause it first"));
    }
    Ok(found)
}
