//! What containers say, line by line, each with its container's name.

use super::project::load_or_name;
use crate::args::Given;
use crate::command::filters::bit;
use crate::fail::{Failure, Outcome};
use crate::render::time;
use crate::session::Session;
use crate::stream::{self, Demultiplexer};
use clap::ArgMatches;
use client::{Chunks, Client, Lines, Method, encode, query};
use compose::{actual, labels};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::Write;

/// Bytes of a line that are held back at most.
const LINE: usize = 64 * 1024;

const COLOURS: &[u8] = &[36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

/// What of a log is wanted.
#[derive(Clone, Default)]
pub struct Follow {
    pub since: String,
    pub until: String,
    pub tail: String,
    pub timestamps: bool,
    pub follow: bool,
}

/// Writes lines with their containers' names.
pub struct Printer {
    project: String,
    names: Vec<String>,
    width: usize,
    prefix: bool,
    colour: bool,
}

impl Printer {
    /// For containers of these names.
    pub fn new<'a>(
        session: &Session,
        given: &ArgMatches,
        project: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Self {
        let ansi = super::project::Globals(session.group()).text("ansi").unwrap_or("auto").to_owned();
        let terminal = stream::is_terminal(std::io::stdout()) && std::env::var_os("NO_COLOR").is_none();
        let mut own = Self {
            project: project.to_owned(),
            names: names.map(str::to_owned).collect(),
            width: 0,
            prefix: !given.on("no-log-prefix"),
            colour: !given.on("no-color") && (ansi == "always" || (ansi == "auto" && terminal)),
        };
        own.width = own.names.iter().map(|name| own.short(name).len()).max().unwrap_or(0);
        own
    }

    /// A container's name without the project's.
    pub fn short<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&format!("{}-", self.project)).unwrap_or(name)
    }

    fn print(&self, name: &str, stream: u8, line: &[u8]) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(line.len() + 32);
        if self.prefix {
            let prefix = format!("{:width$}  | ", self.short(name), width = self.width);
            if self.colour {
                let index = self.names.iter().position(|known| known == name).unwrap_or(0);
                out.extend_from_slice(
                    format!("\x1b[{}m{prefix}\x1b[0m", COLOURS[index % COLOURS.len()]).as_bytes(),
                );
            } else {
                out.extend_from_slice(prefix.as_bytes());
            }
        }
        out.extend_from_slice(line);
        out.push(b'\n');
        let written = match stream {
            2 => std::io::stderr().write_all(&out),
            _ => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&out).and_then(|()| stdout.flush())
            }
        };
        written.map_err(|_| Failure::silent(141))
    }

    /// Prints one container's log to its end.
    pub async fn log(
        &self,
        client: &Client,
        id: &str,
        name: &str,
        tty: bool,
        want: &Follow,
    ) -> Result<(), Failure> {
        let path = query(
            &format!("/containers/{}/logs", encode(id)),
            [
                ("stdout", "1".to_owned()),
                ("stderr", "1".to_owned()),
                ("follow", bit(want.follow)),
                ("timestamps", bit(want.timestamps)),
                ("since", want.since.clone()),
                ("until", want.until.clone()),
                ("tail", if want.tail.is_empty() { "all".to_owned() } else { want.tail.clone() }),
            ],
        );
        let mut body = Chunks::new(client.call(Method::GET, &path, None).await?);
        let mut splitter = Demultiplexer::default();
        let mut held: [Vec<u8>; 3] = Default::default();
        while let Some(bytes) = body.next().await? {
            if tty {
                self.lines(name, 1, &bytes, &mut held[1])?;
            } else {
                splitter.feed(&bytes, |stream, bytes| {
                    let stream = stream.min(2);
                    self.lines(name, stream, bytes, &mut held[usize::from(stream)])
                })?;
            }
        }
        for (stream, rest) in held.iter().enumerate().filter(|(_, rest)| !rest.is_empty()) {
            self.print(name, u8::try_from(stream).unwrap_or(1), rest)?;
        }
        Ok(())
    }

    fn lines(&self, name: &str, stream: u8, bytes: &[u8], held: &mut Vec<u8>) -> Result<(), Failure> {
        held.extend_from_slice(bytes);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            self.print(
                name,
                stream,
                line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).unwrap_or(&line),
            )?;
        }
        if held.len() > LINE {
            self.print(name, stream, held)?;
            held.clear();
        }
        Ok(())
    }

    /// Follows a container over its restarts until it is over; its exit code.
    pub async fn until_over(
        &self,
        client: &Client,
        id: &str,
        name: &str,
        mut want: Follow,
        silent: bool,
    ) -> Result<i64, Failure> {
        let path = format!("/containers/{}/json", encode(id));
        let tty = client.get(&path).await?["Config"]["Tty"].as_bool().unwrap_or(false);
        loop {
            let waiting = format!("/containers/{}/wait", encode(id));
            let wait = client.call(Method::POST, &waiting, None);
            if silent {
                let _ = Lines::new(wait.await?).next().await?;
            } else {
                self.log(client, id, name, tty, &want).await?;
                // The log ends with the run; the state that the run left is there when the wait is over.
                let _ = Lines::new(wait.await?).next().await?;
            }
            let state = client.get(&path).await?;
            let state = &state["State"];
            if !state["Running"].as_bool().unwrap_or(false) && !state["Restarting"].as_bool().unwrap_or(false)
            {
                return Ok(state["ExitCode"].as_i64().unwrap_or(125));
            }
            // What was said up to its end is printed.
            want.tail.clear();
            if let Some((seconds, nanos)) = state["FinishedAt"].as_str().and_then(time::parse) {
                want.since = format!("{seconds}.{nanos:09}");
            }
        }
    }
}

/// `logs`.
pub async fn logs(session: Session, given: ArgMatches) -> Outcome {
    let services = given.texts("services");
    let project = load_or_name(&session, &services)?;
    let client = session.client()?;
    let index = super::one::index(&given)?;
    let mut containers = actual::containers(client, &project.name).await?;
    containers.retain(|one| {
        let named = services.is_empty() || services.contains(&one.service);
        named && (!one.oneoff || services.is_empty()) && index.is_none_or(|index| one.number == index)
    });
    let moment = |flag: &str| given.text(flag).map(|text| time::moment(text, session.now())).transpose();
    let want = Follow {
        since: moment("since")?.unwrap_or_default(),
        until: moment("until")?.unwrap_or_default(),
        tail: given.text("tail").unwrap_or_default().to_owned(),
        timestamps: given.on("timestamps"),
        follow: given.on("follow"),
    };
    let printer =
        Printer::new(&session, &given, &project.name, containers.iter().map(|one| one.name.as_str()));
    if want.follow {
        return follow(&session, &project.name, &printer, containers, &want, |one| {
            let named = services.is_empty() || services.contains(&one.service);
            named && index.is_none_or(|index| one.number == index)
        })
        .await;
    }
    for one in containers {
        let found = client.get(&format!("/containers/{}/json", one.id)).await?;
        let tty = found["Config"]["Tty"].as_bool().unwrap_or(false);
        printer.log(client, &one.id, &one.name, tty, &want).await?;
    }
    Ok(0)
}

/// Follows containers, and those of the project that start meanwhile, until none runs.
async fn follow(
    session: &Session,
    project: &str,
    printer: &Printer,
    containers: Vec<actual::Container>,
    want: &Follow,
    wanted: impl Fn(&actual::Container) -> bool,
) -> Outcome {
    let client = session.client()?;
    let mut starts = Starts::watch(session, project).await?;
    let mut running = FuturesUnordered::new();
    let one = |id: String, name: String, want: Follow| async move {
        let over = printer.until_over(client, &id, &name, want, false).await;
        over.map(|_| id)
    };
    let mut open: HashSet<String> = containers.iter().map(|one| one.id.clone()).collect();
    running.extend(containers.into_iter().map(|container| one(container.id, container.name, want.clone())));
    while !running.is_empty() {
        tokio::select! {
            // One that is over is no longer followed before it starts again.
            biased;
            Some(over) = running.next() => {
                open.remove(&over?);
            }
            started = starts.next() => {
                let (container, since) = started?;
                if wanted(&container) && open.insert(container.id.clone()) {
                    let want = Follow { since, tail: String::new(), ..want.clone() };
                    running.push(one(container.id, container.name, want));
                }
            }
        }
    }
    Ok(0)
}

/// Containers of a project that start from now on.
pub struct Starts(Option<Lines>);

impl Starts {
    pub async fn watch(session: &Session, project: &str) -> Result<Self, Failure> {
        let label = format!("{}={project}", labels::PROJECT);
        let filters = json!({"type": ["container"], "event": ["start"], "label": [label]}).to_string();
        let (seconds, nanos) = session.now();
        let path = query("/events", [("filters", filters), ("since", format!("{seconds}.{nanos:09}"))]);
        Ok(Self(Some(session.client()?.lines(Method::GET, &path, None).await?)))
    }

    /// The next one, and when it started; never, once the engine tells no more.
    pub async fn next(&mut self) -> Result<(actual::Container, String), Failure> {
        while let Some(lines) = &mut self.0 {
            let Some(event) = lines.next().await? else {
                self.0 = None;
                break;
            };
            let attributes = &event["Actor"]["Attributes"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            if attributes[labels::ONEOFF] == "True" {
                continue;
            }
            let nanos = event["timeNano"].as_i64().unwrap_or(0);
            let since = format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
            let container = actual::Container {
                id: text(&event["Actor"]["ID"]),
                name: text(&attributes["name"]),
                service: text(&attributes[labels::SERVICE]),
                number: text(&attributes[labels::NUMBER]).parse().unwrap_or(1),
                ..actual::Container::default()
            };
            return Ok((container, since));
        }
        std::future::pending().await
    }
}
