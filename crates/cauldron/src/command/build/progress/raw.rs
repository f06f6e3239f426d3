//! A build as JSON, one object a line: BuildKit's `SolveStatus` (moby/buildkit `client/graph.go`), of which vertexes and logs.

use super::track::{Change, Track};
use base64::Engine as _;
use serde_json::{Value, json};
use std::time::{Instant, SystemTime};

/// Prints changes, with times by the clock.
pub struct Printer {
    began: (Instant, SystemTime),
}

impl Printer {
    /// For a build that begins now.
    pub fn new() -> Self {
        Self { began: (Instant::now(), SystemTime::now()) }
    }

    /// The lines for these changes.
    pub fn print(&self, track: &Track, changes: &[Change]) -> String {
        let mut out = String::new();
        for change in changes {
            let value = match change {
                Change::Began(index) | Change::Ended(index) => {
                    json!({ "vertexes": [self.vertex(track, *index)] })
                }
                Change::Said(index, line, error, _) => json!({ "logs": [{
                "vertex": name(*index),
                "stream": if *error { 2 } else { 1 },
                "data": base64::engine::general_purpose::STANDARD.encode(format!("{line}\n")),
                "timestamp": self.stamp(Instant::now()),
            }] }),
                Change::Text(text) => json!({ "warnings": [{ "short": encoded(text.trim_end()) }] }),
            };
            out.push_str(&value.to_string());
            out.push('\n');
        }
        out
    }

    fn vertex(&self, track: &Track, index: usize) -> Value {
        let step = &track.steps[index];
        let mut vertex = json!({ "digest": name(index), "name": step.name, "started": self.stamp(step.began), "cached": step.cached });
        if let Some(ended) = step.ended {
            vertex["completed"] = Value::from(self.stamp(ended));
        }
        if let Some(error) = step.error.clone().or_else(|| step.cancelled.then(|| "canceled".to_owned())) {
            vertex["error"] = Value::from(error);
        }
        vertex
    }

    fn stamp(&self, at: Instant) -> String {
        let since = self.began.1.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let then = since + at.saturating_duration_since(self.began.0);
        crate::render::time::rfc3339(i64::try_from(then.as_secs()).unwrap_or(i64::MAX), then.subsec_nanos())
    }
}

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A step's identity: BuildKit has a digest there, and all that counts is that it is the same each time.
fn name(index: usize) -> String {
    format!("sha256:{:064x}", index + 1)
}
