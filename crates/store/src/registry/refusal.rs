//! What a registry answers instead of what was asked for, and what it means to who pulls or pushes: Docker's texts.

use model::{Error, Kind, Reference};
use std::io::Read as _;
use std::time::Duration;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::retry;

/// Bytes of an error's body that are read.
const ERROR_BYTES: u64 = 64 << 10;

/// An HTTP status other than the expected one, with what the registry said.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// When the registry wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads the body of a refusing response.
    pub fn read(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let retry_after = retry::asked(&response);
        let mut text = Vec::new();
        // A body that breaks off still leaves the status.
        let _ = response.into_body().into_reader().take(ERROR_BYTES).read_to_end(&mut text);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let first = &json["errors"][0];
        let field = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let code = field(&first["code"]).unwrap_or_default();
        let message = field(&first["message"])
            .or_else(|| field(&json["details"]))
            .or_else(|| field(&json["error_description"]))
            .or_else(|| field(&json["error"]))
            .unwrap_or_default();
        Self { status, code, message, retry_after }
    }
    /// Docker's form: `manifest unknown: manifest unknown`.
    pub fn text(&self) -> String {
        let code = self.code.to_ascii_lowercase().replace('_', " ");
        // What a stranger sent is shown on one line, without control characters.
        let message: String = self.message.chars().filter(|c| !c.is_control()).take(500).collect();
        match (code.is_empty(), message.is_empty()) {
            (false, false) => format!("{code}: {message}"),
            (false, true) => code,
            (true, false) => message,
            (true, true) if self.status == 404 => "not found (HTTP 404)".to_owned(),
            (true, true) => {
                let reason = StatusCode::from_u16(self.status).ok();
                let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
                format!("received unexpected HTTP status: {} {reason}", self.status).trim_end().to_owned()
            }
        }
    }
}

/// What it means to who pulls.
pub(super) fn of_pull(reference: &Reference, refusal: &Refusal) -> Error {
    let name = reference.familiar_name();
    let cause = refusal.text();
    match (refusal.code.as_str(), refusal.status) {
        ("TOOMANYREQUESTS", _) | (_, 429) => too_many("pull", reference, refusal),
        ("DENIED" | "UNAUTHORIZED", _) | (_, 401 | 403) => Error::not_found(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {cause}"
        ))
        .hint(format!("if it is private: login {}", reference.domain())),
        ("NAME_UNKNOWN", _) => Error::not_found(format!("repository {name} not found: {cause}")),
        ("MANIFEST_UNKNOWN", _) | ("", 404) => {
            Error::not_found(format!("manifest for {} not found: {cause}", reference.familiar()))
        }
        (_, 500..) => Error::new(Kind::Unavailable, format!("pull {}: {cause}", reference.familiar())),
        _ => Error::invalid(format!("pull {}: {cause}", reference.familiar())),
    }
}

/// A rate limit, and until when.
fn too_many(verb: &str, reference: &Reference, refusal: &Refusal) -> Error {
    let cause = refusal.text();
    let error = Error::new(Kind::Unavailable, format!("{verb} {}: {cause}", reference.familiar()));
    let wait = match refusal.retry_after {
        Some(wait) => format!(
            "the registry's rate limit is used up: it wants to be asked again in {} s",
            wait.as_secs()
        ),
        None => "the registry's rate limit is used up".to_owned(),
    };
    error.hint(format!("{wait}; many registries allow more after: login {}", reference.domain()))
}
/// What it means to who pushes.
pub(super) fn of_push(reference: &Reference, what: &str, refusal: &Refusal) -> Error {
    let text = format!("push {}: {what}: {}", reference.familiar(), refusal.text());
    match (refusal.code.as_str(), refusal.status) {
        ("TOOMANYREQUESTS", _) | (_, 429) => too_many("push", reference, refusal),
        ("UNAUTHORIZED", _) | (_, 401) => Error::new(Kind::Unauthorized, text)
            .hint(format!("log in first: login {}", reference.domain())),
        ("DENIED", _) | (_, 403) => Error::new(Kind::PermissionDenied, text).hint(format!(
            "the registry knows you but does not let you write there, or its quota is used up; other credentials: login {}",
            reference.domain()
        )),
        ("SIZE_INVALID", _) | (_, 413) => Error::new(Kind::ResourceExhausted, text),
        (_, 500..) => Error::new(Kind::Unavailable, text),
        _ => Error::invalid(text),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_dockers() {
        let refusal = |code: &str, message: &str| {
            Refusal { status: 404, code: code.to_owned(), message: message.to_owned(), retry_after: None }
                .text()
        };
        assert_eq!(refusal("MANIFEST_UNKNOWN", "manifest unknown"), "manifest unknown: manifest unknown");
        assert_eq!(refusal("", ""), "not found (HTTP 404)");
        assert_eq!(refusal("", "a\n\x1b[31mb"), "a[31mb");
    }
}
