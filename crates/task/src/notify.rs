//! Tells a run's outcome: to a web address as JSON, to a command of this machine on its standard input and in its environment.
//!
//! What is told is what the history says of the run, without its output, the container's environment or mounts.

use crate::definition::{Notify, When};
use crate::error::{Context as _, Error, Result};
use crate::history::Key;
use crate::run::Outcome;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long an address may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// Bytes of a file with an address.
const ADDRESS_BYTES: u64 = 16 * 1024;

/// The message.
pub fn message(key: &Key, outcome: &Outcome) -> Value {
    let targets: Vec<Value> = outcome
        .targets
        .iter()
        .map(|ended| json!({"target": ended.target, "attempt": ended.attempt, "exit_code": ended.code, "error": ended.error}))
        .collect();
    json!({
        "task": key.task, "project": key.project, "run": outcome.run, "status": if outcome.code == 0 { "ok" } else { "failed" },
        "exit_code": outcome.code, "error": outcome.error, "targets": targets,
    })
}

/// Tells whoever wants to know; blocks.
///
/// # Errors
/// Every failure, none of which stops the others.
pub fn tell(notify: &Notify, message: &Value) -> Vec<Error> {
    let wanted = match notify.on {
        When::Always => true,
        When::Failure => message["exit_code"] != 0,
        When::Success => message["exit_code"] == 0,
    };
    if !wanted {
        return Vec::new();
    }
    let mut failures = Vec::new();
    let address = match (&notify.webhook, &notify.webhook_file) {
        (Some(address), _) => Ok(Some(address.clone())),
        (None, Some(path)) => read_address(path).map(Some),
        (None, None) => Ok(None),
    };
    match address {
        // The address may be a secret: it is not named.
        Ok(Some(address)) => {
            failures.extend(post(&address, message).err().map(|error| error.within("webhook")))
        }
        Ok(None) => {}
        Err(error) => failures.push(error),
    }
    if let [program, arguments @ ..] = notify.command.as_slice() {
        failures.extend(command(program, arguments, message).err());
    }
    failures
}

fn read_address(path: &str) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).context(|| format!("open {path}"))?;
    file.take(ADDRESS_BYTES).read_to_string(&mut text).context(|| format!("read {path}"))?;
    Ok(text.trim().to_owned())
}

fn post(address: &str, message: &Value) -> Result<()> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .max_redirects(0)
            .http_status_as_error(false)
            .build(),
    );
    let sent = agent.post(address).content_type("application/json").send(message.to_string());
    let answer = sent.map_err(|error| match error {
        ureq::Error::BadUri(_) => Error::new("malformed address"),
        other => Error::new(other.to_string()),
    })?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(Error::new(format!("answered {}", answer.status())))
    }
}

fn command(program: &str, arguments: &[String], message: &Value) -> Result<()> {
    let what = || format!("notify: {program}");
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut child = Command::new(program)
        .args(arguments)
        .env("TASK_NAME", text(&message["task"]))
        .env("TASK_PROJECT", text(&message["project"]))
        .env("TASK_RUN", text(&message["run"]))
        .env("TASK_STATUS", text(&message["status"]))
        .env("TASK_EXIT_CODE", text(&message["exit_code"]))
        .env("TASK_ERROR", message["error"].as_str().unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read is no failure.
        let _ = stdin.write_all(format!("{message}\n").as_bytes());
    }
    let status = child.wait().context(what)?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("{}: {status}", what()))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Ended;
    use std::io::Read as _;

    fn outcome(code: u8) -> Outcome {
        let ended = Ended { target: "db".to_owned(), attempt: 2, code, ..Ended::default() };
        Outcome {
            run: "r1".to_owned(),
            code,
            error: Some("db: exit code 3".to_owned()),
            targets: vec![ended],
        }
    }
    fn key() -> Key {
        Key { project: "shop".to_owned(), task: "backup".to_owned() }
    }

    #[test]
    fn a_command_gets_it() {
        let path = std::env::temp_dir().join(format!("cauldron-notify-{}", std::process::id()));
        let script = format!("cat > {0}; echo $TASK_STATUS $TASK_EXIT_CODE >> {0}", path.display());
        let notify = Notify {
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
            on: When::Failure,
            ..Notify::default()
        };
        assert!(tell(&notify, &message(&key(), &outcome(0))).is_empty());
        assert!(!path.exists());
        assert!(tell(&notify, &message(&key(), &outcome(3))).is_empty());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.contains("\"target\":\"db\"") && text.ends_with("failed 3\n"), "{text}");
        let failing = Notify { command: vec!["/bin/false".to_owned()], ..Notify::default() };
        assert_eq!(tell(&failing, &message(&key(), &outcome(3))).len(), 1);
    }

    #[test]
    fn an_address_gets_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/hook/token", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while !text.contains("\"task\":\"backup\"") {
                let count = stream.read(&mut buffer).unwrap();
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").unwrap();
            text
        });
        let failures =
            tell(&Notify { webhook: Some(address), ..Notify::default() }, &message(&key(), &outcome(3)));
        let text = server.join().unwrap();
        assert!(text.starts_with("POST /hook/token") && text.contains("\"exit_code\":3"), "{text}");
        assert_eq!(failures.len(), 1);
        assert!(!failures[0].to_string().contains("token"), "the address may be a secret");
    }
}
