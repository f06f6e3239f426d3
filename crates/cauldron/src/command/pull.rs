//! `pull`, `push` and everything else whose progress is Docker's JSON stream.

use crate::args::{Given, flag, one, opt};
use crate::cli::{VERB, Verb};
use crate::command::credentials;
use crate::fail::{Failure, Outcome};
use crate::render::size;
use crate::session::Session;
use crate::stream;
use clap::ArgMatches;
use client::{Lines, Method, encode, query};
use serde_json::Value;
use std::collections::HashMap;
use std::io::Write;

pub const VERBS: &[Verb] = &[
    Verb {
        group: "image",
        names: &["pull"],
        top: &["pull"],
        usage: "NAME[:TAG|@DIGEST]",
        about: "Download an image from a registry",
        more: "Examples:\n  cauldron pull debian:bookworm\n  cauldron pull localhost:5000/app@sha256:…",
        args: || {
            vec![
                flag("all-tags", "a", "Download all tagged images in the repository"),
                opt("platform", "", "string", "Set platform if the engine is multi-platform capable"),
                flag("quiet", "q", "Suppress verbose output"),
                flag("disable-content-trust", "", "Skip image verification").hide(true),
                one("image"),
            ]
        },
        run: |session, given| Box::pin(pull(session, given)),
        ..VERB
    },
    Verb {
        group: "image",
        names: &["push"],
        top: &["push"],
        usage: "NAME[:TAG]",
        about: "Upload an image to a registry",
        args: || {
            vec![
                flag("all-tags", "a", "Push all tags of an image to the repository"),
                flag("quiet", "q", "Suppress verbose output"),
                opt("platform", "", "string", "Push a platform-specific manifest"),
                flag("disable-content-trust", "", "Skip image signing").hide(true),
                one("image"),
            ]
        },
        run: |session, given| Box::pin(push(session, given)),
        ..VERB
    },
];

/// Name and tag (or digest) of a reference.
pub fn split(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        let name = split(name).0;
        return (name, digest);
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, ""),
    }
}

/// With `:latest` where there is neither tag nor digest.
pub fn familiar(reference: &str) -> String {
    if split(reference).1.is_empty() { format!("{reference}:latest") } else { reference.to_owned() }
}

async fn request(session: &Session, image: &str, tag: &str, platform: &str) -> Result<Lines, Failure> {
    let path = query(
        "/images/create",
        [("fromImage", image.to_owned()), ("tag", tag.to_owned()), ("platform", platform.to_owned())],
    );
    let auth = credentials::header(session, image)?;
    let (_, empty) = client::body_channel(1);
    let response =
        session.client()?.upload(Method::POST, &path, &[("X-Registry-Auth", &auth)], empty).await?;
    Ok(Lines::new(response))
}

/// Pulls for `run` and `create`: progress on stderr.
///
/// # Errors
/// The registry or the engine says no.
pub async fn to_stderr(session: &Session, image: &str, platform: &str, quiet: bool) -> Result<(), Failure> {
    let (name, tag) = split(image);
    let tag = if tag.is_empty() { "latest" } else { tag };
    let lines = request(session, name, tag, platform).await?;
    Progress::new(Output::Stderr, quiet).follow(lines).await.map(|_| ())
}

async fn pull(session: Session, given: ArgMatches) -> Outcome {
    let image = given.text("image").unwrap_or_default();
    let (name, tag) = split(image);
    let quiet = given.on("quiet");
    let tag = match (tag, given.on("all-tags")) {
        ("", true) => "",
        ("", false) => {
            if !quiet {
                session.line("Using default tag: latest")?;
            }
            "latest"
        }
        (_, true) => return Err("tag can't be used with --all-tags/-a".into()),
        (tag, false) => tag,
    };
    let lines = request(&session, name, tag, given.text("platform").unwrap_or_default()).await?;
    Progress::new(Output::Stdout, quiet).follow(lines).await?;
    let full = match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    let first = full.split('/').next().unwrap_or_default();
    let canonical = match (
        full.contains('/'),
        full.contains('/') && (first.contains(['.', ':']) || first == "localhost"),
    ) {
        (_, true) => full,
        (true, false) => format!("docker.io/{full}"),
        (false, _) => format!("docker.io/library/{full}"),
    };
    session.line(&canonical)?;
    Ok(0)
}

async fn push(session: Session, given: ArgMatches) -> Outcome {
    let image = given.text("image").unwrap_or_default();
    let (name, tag) = split(image);
    let tag = match (tag, given.on("all-tags")) {
        ("", true) => "",
        ("", false) => "latest",
        (_, true) => return Err("tag can't be used with --all-tags/-a".into()),
        (tag, false) => tag,
    };
    let quiet = given.on("quiet");
    if tag == "latest" && split(image).1.is_empty() && !quiet {
        session.line("Using default tag: latest")?;
    }
    let auth = credentials::header(&session, image)?;
    let path = query(&format!("/images/{name}/push"), [("tag", encode(tag))]);
    let (_, empty) = client::body_channel(1);
    let response =
        session.client()?.upload(Method::POST, &path, &[("X-Registry-Auth", &auth)], empty).await?;
    Progress::new(Output::Stdout, quiet).follow(Lines::new(response)).await?;
    if quiet {
        session.line(image)?;
    }
    Ok(0)
}

/// Where progress goes.
#[derive(Clone, Copy)]
pub enum Output {
    /// It is the command's output.
    Stdout,
    /// It is talk beside it.
    Stderr,
}

/// Docker's JSON messages as lines, on a terminal with bars that are drawn over.
pub struct Progress {
    output: Output,
    quiet: bool,
    terminal: bool,
    /// With quiet: what was not shown, the last of it.
    held: String,
    rows: Vec<String>,
    at: HashMap<String, usize>,
}

impl Progress {
    /// Nothing shown yet.
    pub fn new(output: Output, quiet: bool) -> Self {
        let terminal = match output {
            Output::Stdout => stream::is_terminal(std::io::stdout()),
            Output::Stderr => stream::is_terminal(std::io::stderr()),
        };
        Self { output, quiet, terminal, held: String::new(), rows: Vec::new(), at: HashMap::new() }
    }

    /// Shows messages to the end; gives the `aux` objects.
    ///
    /// # Errors
    /// The stream says that the operation failed.
    pub async fn follow(mut self, mut lines: Lines) -> Result<Vec<Value>, Failure> {
        let mut aux = Vec::new();
        while let Some(message) = lines.next().await? {
            if let Some(error) =
                message["errorDetail"]["message"].as_str().or_else(|| message["error"].as_str())
            {
                let mut failure = Failure::new(error);
                failure.from_engine = true;
                let _ = std::io::stderr().write_all(self.held.as_bytes());
                failure.code = message["errorDetail"]["code"]
                    .as_u64()
                    .and_then(|code| u8::try_from(code).ok())
                    .filter(|code| *code > 0);
                return Err(failure);
            }
            if !message["aux"].is_null() {
                aux.push(message["aux"].clone());
                continue;
            }
            if self.quiet {
                self.hold(message["stream"].as_str().unwrap_or_default());
            } else {
                self.show(&message)?;
            }
        }
        // An older engine's quiet build says the id as text.
        if let Some(id) = self.held.lines().rev().find(|line| line.starts_with("sha256:")) {
            aux.push(serde_json::json!({ "ID": id }));
        }
        Ok(aux)
    }

    fn hold(&mut self, text: &str) {
        const HELD: usize = 1024 * 1024;
        self.held.push_str(text);
        if self.held.len() > HELD
            && let Some(at) =
                self.held.bytes().skip(self.held.len() - HELD / 2).position(|byte| byte == b'\n')
        {
            self.held.drain(..=self.held.len() - HELD / 2 + at);
        }
    }

    fn show(&mut self, message: &Value) -> Result<(), Failure> {
        if let Some(text) = message["stream"].as_str() {
            return self.write(text);
        }
        let Some(status) = message["status"].as_str() else { return Ok(()) };
        let Some(id) = message["id"].as_str().filter(|id| !id.is_empty()) else {
            return self.write(&format!("{status}\n"));
        };
        let detail = &message["progressDetail"];
        let moving = detail["current"].as_i64().is_some();
        if !self.terminal {
            // A log wants what happened, not how far it has come.
            return if moving { Ok(()) } else { self.write(&format!("{id}: {status}\n")) };
        }
        let mut text = format!("{id}: {status}");
        if let Some(current) = detail["current"].as_i64() {
            text.push(' ');
            text.push_str(&bar(current, detail["total"].as_i64().unwrap_or(0)));
        }
        match self.at.get(id).copied() {
            Some(row) => {
                self.rows[row].clone_from(&text);
                let up = self.rows.len() - row;
                self.write(&format!("\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r"))
            }
            None => {
                self.at.insert(id.to_owned(), self.rows.len());
                self.rows.push(text.clone());
                self.write(&format!("{text}\n"))
            }
        }
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let written = match self.output {
            Output::Stdout => {
                std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush())
            }
            Output::Stderr => std::io::stderr().write_all(text.as_bytes()),
        };
        written.map_err(|_| Failure::silent(141))
    }
}

fn bar(current: i64, total: i64) -> String {
    if total <= 0 {
        return size::human(current);
    }
    let filled = usize::try_from((current.clamp(0, total) * 30) / total).unwrap_or(0);
    format!(
        "[{}>{}] {}/{}",
        "=".repeat(filled),
        " ".repeat(30 - filled),
        size::human(current),
        size::human(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        assert_eq!(split("a:b"), ("a", "b"));
        assert_eq!(split("h:5000/a"), ("h:5000/a", ""));
        assert_eq!(split("a:t@sha256:x"), ("a", "sha256:x"));
        assert_eq!(familiar("a"), "a:latest");
    }
}
