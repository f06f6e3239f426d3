//! What a build is at, on stderr: a tree on a terminal, lines elsewhere, BuildKit's JSON for programs.
//!
//! The engine says what happens ([`Track`] follows it); how that looks is decided here, so that every engine's build looks
//! the same. An engine that only knows the classic builder's text has it printed as it comes.

mod lines;
mod raw;
mod track;
mod tree;

use crate::args::Given;
use crate::fail::Failure;
use crate::session::Session;
use crate::stream;
use clap::ArgMatches;
use client::{Lines, query};
use serde_json::Value;
use std::io::Write as _;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use track::{Change, Track};

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The classic builder's text, on stdout.
    Classic,
    /// A tree that is drawn over.
    Tree,
    /// Lines.
    Plain,
    /// Nothing; the last words of a step that fails.
    Quiet,
    /// One JSON object a line.
    Raw,
}

/// Time between two drawings of a tree.
const REDRAW: Duration = Duration::from_millis(100);
/// Bytes of an engine's text that are kept where nothing is shown.
const HELD: usize = 1 << 20;

impl Style {
    /// By `--progress`, `-q` and the environment.
    ///
    /// # Errors
    /// There is no such style, or no terminal for a tree.
    pub fn of(given: &ArgMatches) -> Result<Self, Failure> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if given.on("quiet") || given.on("silent") {
            return Ok(Self::Quiet);
        }
        let asked = given.text("progress").map(str::to_owned).or_else(|| env("BUILDKIT_PROGRESS"));
        if asked.is_none() && env("DOCKER_BUILDKIT").is_some_and(|value| value == "0") {
            return Ok(Self::Classic);
        }
        let terminal = stream::is_terminal(std::io::stderr());
        match asked.as_deref().unwrap_or("auto") {
            "auto" | "" if terminal => Ok(Self::Tree),
            "auto" | "" | "plain" => Ok(Self::Plain),
            "tty" if terminal => Ok(Self::Tree),
            "tty" => Err("--progress=tty: stderr is not a terminal".into()),
            "quiet" | "none" => Ok(Self::Quiet),
            "rawjson" => Ok(Self::Raw),
            "classic" => Ok(Self::Classic),
            other => {
                Err(Failure::new(format!("invalid progress mode {other}: auto, plain, tty, quiet, rawjson")))
            }
        }
    }
}

/// A build as it is shown.
pub struct Screen {
    style: Style,
    track: Track,
    lines: lines::Printer,
    raw: raw::Printer,
    tree: tree::Tree,
    /// What is not shown unless the build fails.
    held: String,
    /// The build's name at the engine.
    id: String,
}

impl Screen {
    /// Nothing shown yet. `id` is the build's name at the engine.
    pub fn new(style: Style, id: String) -> Self {
        let tree = tree::Tree::new(tree::Colors::from_environment());
        Self {
            style,
            track: Track::new(Instant::now()),
            lines: lines::Printer::default(),
            raw: raw::Printer::new(),
            tree,
            held: String::new(),
            id,
        }
    }

    /// Shows a build to its end; gives the `aux` objects. An interrupt cancels it.
    ///
    /// # Errors
    /// The build failed, or was cancelled.
    pub async fn follow(&mut self, session: &Session, mut lines: Lines) -> Result<Vec<Value>, Failure> {
        let mut aux = Vec::new();
        let (mut interrupt, mut terminate) =
            match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
                (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
                _ => return Err(Failure::new("signals cannot be received")),
            };
        let mut redraw = tokio::time::interval(REDRAW);
        redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut cancelled = None;
        loop {
            tokio::select! {
                biased;
                message = lines.next() => {
                    let Some(message) = message? else { break };
                    if message["errorDetail"].is_object() || message["error"].is_string() {
                        return Err(self.failed(session, &message, cancelled));
                    }
                    if !message["aux"].is_null() {
                        aux.push(message["aux"].clone());
                    }
                    self.show(&message);
                }
                _ = redraw.tick(), if self.style == Style::Tree => self.draw(),
                _ = interrupt.recv() => cancelled = Some(self.cancel(session, cancelled, 130).await?),
                _ = terminate.recv() => cancelled = Some(self.cancel(session, cancelled, 143).await?),
            }
        }
        Ok(aux)
    }

    /// Something that this program does itself, as a step of the build.
    pub fn begin(&mut self, name: &str) {
        let changes = self.track.begin_own(name, Instant::now());
        self.present(&changes);
    }

    /// A word about it.
    pub fn note(&mut self, text: &str) {
        let changes = self.track.note_own(text);
        self.present(&changes);
    }

    /// It is done.
    pub fn end(&mut self) {
        let changes = self.track.end_own(Instant::now(), false);
        self.present(&changes);
    }

    /// It has failed: that is said elsewhere.
    pub fn fail(&mut self) {
        let changes = self.track.end_own(Instant::now(), true);
        self.present(&changes);
    }

    /// The last drawing, which stays.
    pub fn finish(&mut self) {
        if self.style == Style::Tree {
            self.write(|screen| screen.tree.last(&screen.track, Instant::now(), stream::size()));
        }
    }

    /// The first signal asks the engine to stop, the second does not wait for it.
    async fn cancel(&self, session: &Session, before: Option<u8>, code: u8) -> Result<u8, Failure> {
        if before.is_some() {
            return Err(Failure::silent(code));
        }
        session.client()?.post(&query("/build/cancel", [("id", self.id.clone())])).await?;
        Ok(code)
    }

    fn show(&mut self, message: &Value) {
        let changes = self.track.take(message, Instant::now());
        self.present(&changes);
    }

    fn present(&mut self, changes: &[Change]) {
        match self.style {
            Style::Plain => self.write(|screen| screen.lines.print(&screen.track, changes)),
            Style::Raw => self.write(|screen| screen.raw.print(&screen.track, changes)),
            Style::Tree => {
                // What belongs to no step is printed above the tree.
                let above: String = changes.iter().filter_map(Change::text).collect();
                if !above.is_empty() {
                    self.write(|screen| screen.tree.above(&above));
                }
            }
            Style::Quiet if self.held.len() < HELD => {
                self.held.extend(changes.iter().filter_map(Change::text))
            }
            Style::Quiet | Style::Classic => {}
        }
    }

    fn draw(&mut self) {
        self.write(|screen| screen.tree.draw(&screen.track, Instant::now(), stream::size()));
    }

    fn write(&mut self, text: impl FnOnce(&mut Self) -> String) {
        let text = text(self);
        // Nobody there to read it is no reason to stop a build.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// What is said of a failure: the step's last words, the Dockerfile's lines, and how to look at it.
    fn failed(&mut self, session: &Session, message: &Value, cancelled: Option<u8>) -> Failure {
        let detail = &message["errorDetail"];
        let text = detail["message"].as_str().or_else(|| message["error"].as_str()).unwrap_or_default();
        let step = &detail["step"];
        let failing = step["stage"].as_u64().and_then(|stage| self.track.of_stage(stage));
        let code = detail["code"].as_u64().and_then(|code| u8::try_from(code).ok()).filter(|code| *code > 0);
        let why = match (step["command"].as_str().filter(|command| !command.is_empty()), code) {
            (Some(command), Some(code)) => {
                format!("process \"{command}\" did not complete successfully: exit code: {code}")
            }
            _ => text.to_owned(),
        };
        let changes = self.track.fail(failing, why.lines().next().unwrap_or_default(), Instant::now());
        self.present(&changes);
        self.finish();
        let held = std::mem::take(&mut self.held);
        self.write(|_| held);
        if let Some(code) = cancelled {
            return Failure {
                message: "the build was cancelled".to_owned(),
                code: Some(code),
                from_engine: false,
            };
        }
        if let (Some(index), true) = (failing, self.style != Style::Raw) {
            let tail = lines::tail(&self.track, index);
            let excerpt = step["excerpt"].as_str().map(|excerpt| format!("{excerpt}\n")).unwrap_or_default();
            // The engine's own words may hold the lines already.
            let known = excerpt.lines().next().is_some_and(|place| text.contains(place));
            let excerpt = if known { String::new() } else { excerpt };
            self.write(|_| format!("{tail}{excerpt}"));
        }
        let mut message = format!("failed to solve: {why}");
        // The command itself may be of several lines.
        let hint = code.and_then(|code| text.split_once(&format!("returned a non-zero code: {code}\n")));
        if let Some((_, hint)) = hint {
            message.push_str(&format!("\n{hint}"));
        }
        if let Some(image) = step["before"].as_str() {
            let program = session.program();
            message.push_str(&format!(
                "\na shell in the state before this step: {program} run --rm -it --entrypoint /bin/sh {image}\n\
                 and when it is not needed any more: {program} rmi {image}"
            ));
        } else if code.is_some() && failing.is_some() {
            message.push_str("\nbuild again with --debug for a shell in the state before this step");
        }
        Failure { message, code, from_engine: false }
    }
}
