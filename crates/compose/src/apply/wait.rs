//! Waiting for containers: healthy, or over.

use super::{Host, about};
use crate::error::{Error, Result};
use client::{Lines, Method, encode};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// Between two looks at a container's health: the engine has no call that waits for it.
const LOOK: Duration = Duration::from_millis(100);

/// How long a container without a check must have run to be what runs, and no one-shot that is about to end.
const STEADY: i128 = 300_000_000;

/// Whether a container was started just now.
fn is_fresh(state: &Value) -> bool {
    let started = state["StartedAt"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    // A clock of another machine says nothing.
    started.is_some_and(|at| (0..STEADY).contains(&(Timestamp::now().as_nanosecond() - at.as_nanosecond())))
}

/// Waits until a container is over; its exit code.
///
/// # Errors
/// The engine does not say.
pub async fn finished(host: &Host, id: &str) -> Result<i64> {
    let path = format!("/containers/{}/wait", encode(id));
    let answer = host.client.call(Method::POST, &path, None).await.map_err(about("wait"))?;
    let answer = Lines::new(answer).next().await?.unwrap_or_default();
    Ok(answer["StatusCode"].as_i64().unwrap_or(125))
}

/// Waits until a container runs, for a moment at least, and is healthy if it has a check, or is over with 0; whether it runs.
///
/// # Errors
/// It is unhealthy, or over with another code.
pub async fn settled(host: &Host, id: &str, name: &str, healthy: bool) -> Result<bool> {
    loop {
        let found =
            host.client.get(&format!("/containers/{}/json", encode(id))).await.map_err(about(name))?;
        let state = &found["State"];
        match state["Status"].as_str().unwrap_or_default() {
            "running" => match state["Health"]["Status"].as_str() {
                Some("healthy") => return Ok(true),
                Some("unhealthy") => return Err(Error::project(format!("container {name} is unhealthy"))),
                Some("starting") => {}
                _ if healthy => {
                    return Err(Error::project(format!("container {name} has no healthcheck configured")));
                }
                _ if is_fresh(state) => {}
                _ => return Ok(true),
            },
            "exited" | "dead" => {
                let code = state["ExitCode"].as_i64().unwrap_or(125);
                if code == 0 && !healthy {
                    return Ok(false);
                }
                return Err(Error::project(format!("container {name} exited ({code}){}", reason(state))));
            }
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn reason(state: &Value) -> String {
    match state["Error"].as_str() {
        Some(text) if !text.is_empty() => format!(": {text}"),
        _ => String::new(),
    }
}
