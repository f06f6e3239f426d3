//! Events: one JSON object a line, appended to one log under the run root by whoever does the thing (command
//! line, API server or monitor). A line is at most `PIPE_BUF` long or written in one call with `O_APPEND`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event, in the shape of Docker's `GET /events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `network`, `volume`, `builder`, `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `exec_start: …`.
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Identifier (or name, for volumes).
    #[serde(rename = "ID")]
    pub id: String,
    /// `name`, `image`, labels, `exitCode`, `signal`, …
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event that happened at this time.
    pub fn new(kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>, at: crate::time::Timestamp) -> Self {
        Self {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: at.seconds,
            time_nano: at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos)),
        }
    }
}
