//! `login` and `logout`: credentials in `~/.docker/config.json`, where Docker keeps them; credential helpers are honoured.

use crate::args::{Given, flag, maybe, opt};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome, file};
use crate::session::Session;
use base64::Engine as _;
use clap::ArgMatches;
use client::Method;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};

/// The key of docker.io's credentials.
pub const HUB: &str = "https://index.docker.io/v1/";

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

pub(super) fn config(session: &Session) -> Result<Value, Failure> {
    let path = session.docker_config().join("config.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("loading config file: {}: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(json!({})),
        Err(error) => Err(file("loading config file", &path)(error)),
    }
}

/// Credentials of a registry, if there are any: `AuthConfig` of the API.
///
/// # Errors
/// The file is malformed.
pub fn stored(session: &Session, host: &str) -> Result<Option<Value>, Failure> {
    let config = config(session)?;
    let helper = config["credHelpers"][host].as_str().or_else(|| config["credsStore"].as_str());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty() && !helper.contains('/')) {
        return Ok(from_helper(helper, host));
    }
    let keys = [
        host.to_owned(),
        format!("https://{host}"),
        format!("http://{host}"),
        format!("https://{host}/v1/"),
        format!("https://{host}/v2/"),
    ];
    let Some(entry) = keys.iter().map(|key| &config["auths"][key.as_str()]).find(|entry| entry.is_object())
    else {
        return Ok(None);
    };
    let decoded =
        entry["auth"].as_str().and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let (name, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((name, password)) => (name.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (
            entry["username"].as_str().unwrap_or_default().to_owned(),
            entry["password"].as_str().unwrap_or_default().to_owned(),
        ),
    };
    Ok(Some(
        json!({"username": name, "password": password, "serveraddress": host, "identitytoken": entry["identitytoken"].as_str().unwrap_or_default()}),
    ))
}

/// `docker-credential-NAME get`: the host on stdin, JSON on stdout.
fn from_helper(helper: &str, host: &str) -> Option<Value> {
    let mut child = std::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(host.as_bytes()).ok()?;
    let output = child.wait_with_output().ok().filter(|output| output.status.success())?;
    let found: Value = serde_json::from_slice(&output.stdout).ok()?;
    let (name, secret) = (found["Username"].as_str()?, found["Secret"].as_str()?);
    Some(if name == "<token>" {
        json!({"identitytoken": secret, "serveraddress": host})
    } else {
        json!({"username": name, "password": secret, "serveraddress": host})
    })
}

pub(super) fn save(session: &Session, config: &Value) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = session.docker_config();
    std::fs::create_dir_all(dir).map_err(file("create", dir))?;
    let (path, part) = (dir.join("config.json"), dir.join(format!("config.json.{}", std::process::id())));
    let text = serde_json::to_string_pretty(config).unwrap_or_default();
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    opened.and_then(|mut out| out.write_all(text.as_bytes())).map_err(file("write", &part))?;
    std::fs::rename(&part, &path).map_err(file("write", &path))
}

fn host(given: &ArgMatches) -> String {
    match given.text("server") {
        None | Some("docker.io" | "index.docker.io") => HUB.to_owned(),
        Some(server) => server
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned(),
    }
}

async fn login(session: Session, given: ArgMatches) -> Outcome {
    let host = host(&given);
    let password = if given.on("password-stdin") {
        if given.text("password").is_some() {
            return Err("--password and --password-stdin are mutually exclusive".into());
        }
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new(format!("read stdin: {error}")))?;
        Some(text.trim_end_matches(['\n', '\r']).to_owned())
    } else {
        given.text("password").map(str::to_owned)
    };
    let (name, password) = match (given.text("username"), password) {
        (Some(name), Some(password)) => (name.to_owned(), password),
        (name, None) => ask(name)?,
        (None, Some(_)) if given.on("password-stdin") => {
            return Err("Must provide --username with --password-stdin".into());
        }
        (None, Some(password)) => (ask_name()?, password),
    };
    let body = json!({"username": name, "password": password, "serveraddress": host});
    let answer = session.client()?.json(Method::POST, "/auth", Some(&body)).await?;
    let mut config = config(&session)?;
    let token = answer["IdentityToken"].as_str().unwrap_or_default();
    let mut entry =
        json!({"auth": base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"))});
    if !token.is_empty() {
        entry["identitytoken"] = token.into();
    }
    config["auths"][host.as_str()] = entry;
    save(&session, &config)?;
    session
        .line(answer["Status"].as_str().filter(|status| !status.is_empty()).unwrap_or("Login Succeeded"))?;
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
    let mut config = config(&session)?;
    let removed = config["auths"].as_object_mut().and_then(|auths| auths.remove(&host));
    session.line(&format!("Removing login credentials for {host}"))?;
    if removed.is_none() {
        session.say(&format!("Not logged in to {host}"));
        return Ok(0);
    }
    save(&session, &config)?;
    Ok(0)
}
