//! `login` and `logout`: see [`super::credentials`] for where credentials are kept.

use crate::args::{Given, flag, maybe, opt};
use crate::cli::{VERB, Verb};
use crate::command::credentials::{self, HUB, Login};
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::ArgMatches;
use client::Method;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};

pub const VERBS: &[Verb] = &[
    Verb {
        top: &["login"],
        usage: "[SERVER]",
        about: "Authenticate to a registry",
        more: "Example:\n  echo $TOKEN | cauldron login -u me --password-stdin localhost:5000",
        args: || {
            vec![
                opt("username", "u", "string", "Username"),
                opt("password", "p", "string", "Password"),
                flag("password-stdin", "", "Take the password from stdin"),
                maybe("server"),
            ]
        },
        run: |session, given| Box::pin(login(session, given)),
        ..VERB
    },
    Verb {
        top: &["logout"],
        usage: "[SERVER]",
        about: "Log out from a registry",
        args: || vec![maybe("server")],
        run: |session, given| Box::pin(logout(session, given)),
        ..VERB
    },
];

fn host(given: &ArgMatches) -> String {
    let server = given.text("server").unwrap_or_default();
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    match bare.split('/').next().unwrap_or_default() {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

fn given_password(session: &Session, given: &ArgMatches) -> Result<Option<String>, Failure> {
    if !given.on("password-stdin") {
        let password = given.text("password").map(str::to_owned);
        if password.is_some() {
            session.say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        return Ok(password);
    }
    if given.text("password").is_some() {
        return Err("--password and --password-stdin are mutually exclusive".into());
    }
    if given.text("username").is_none() {
        return Err("Must provide --username with --password-stdin".into());
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("read stdin: {error}")))?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

async fn login(session: Session, given: ArgMatches) -> Outcome {
    let host = host(&given);
    let password = given_password(&session, &given)?;
    let client = session.client()?;
    if given.text("username").is_none()
        && password.is_none()
        && let Some(known) = credentials::find(&session, &credentials::config(&session)?, &host)?
    {
        let note = format!(
            "Authenticating with existing credentials... [Username: {}]",
            known["username"].as_str().unwrap_or_default()
        );
        session.say(&note);
        match client.json(Method::POST, "/auth", Some(&known)).await {
            Ok(answer) => return succeeded(&session, &answer),
            Err(error) => session.say(&format!("Login did not succeed, error: {error}")),
        }
    }
    let (name, password) = match (given.text("username"), password) {
        (Some(name), Some(password)) => (name.to_owned(), password),
        (name, None) => ask(name)?,
        (None, Some(password)) => (ask_name()?, password),
    };
    let body = json!({"username": name, "password": password, "serveraddress": host});
    let answer = client.json(Method::POST, "/auth", Some(&body)).await?;
    let identity = answer["IdentityToken"].as_str().unwrap_or_default();
    if !credentials::keep(&session, &host, &Login { name: &name, password: &password, identity })? {
        let path = session.docker_config().join("config.json");
        session.say(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper (credsStore) to remove this warning.\n",
            path.display()
        ));
    }
    succeeded(&session, &answer)
}

fn succeeded(session: &Session, answer: &Value) -> Outcome {
    let status = answer["Status"].as_str().filter(|status| !status.is_empty());
    session.line(status.unwrap_or("Login Succeeded"))?;
    Ok(0)
}

/// Asks for what is missing, on the terminal only.
fn ask(name: Option<&str>) -> Result<(String, String), Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => ask_name()?,
    };
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err("Cannot perform an interactive login from a non TTY device".into());
    }
    prompt("Password: ")?;
    let password = {
        let _dark = Dark::enter();
        answer()?
    };
    prompt("\n")?;
    if password.is_empty() {
        return Err("password is required".into());
    }
    Ok((name, password))
}

fn ask_name() -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err("Cannot perform an interactive login from a non TTY device".into());
    }
    prompt("Username: ")?;
    match answer()? {
        name if name.is_empty() => Err("username is required".into()),
        name => Ok(name),
    }
}

fn prompt(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(format!("write to stdout: {error}")))
}

fn answer() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Failure::new(format!("read stdin: {error}")))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The terminal without echo, until it is dropped.
struct Dark(Option<rustix::termios::Termios>);

impl Dark {
    fn enter() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut dark = before.clone();
        dark.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(&stdin, OptionalActions::Now, &dark);
        Self(Some(before))
    }
}

impl Drop for Dark {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ =
                rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}

async fn logout(session: Session, given: ArgMatches) -> Outcome {
    let host = host(&given);
    session.line(&format!("Removing login credentials for {host}"))?;
    if !credentials::forget(&session, &host)? {
        session.say(&format!("Not logged in to {host}"));
    }
    Ok(0)
}
