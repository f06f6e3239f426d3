//! Takes out of answers what a listener does not show: environment variables, and the options of drivers, which is where
//! the passwords of network file systems stand. Names, labels and command lines stay.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use engine::model::Error;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use crate::Failure;

/// Routes whose answers have something to hide.
const TELLING: &[&str] = &[
    "/containers/{id}/json",
    "/containers/json",
    "/images/{name}/json",
    "/images/{name}/history",
    "/volumes",
    "/volumes/{name}",
    "/networks",
    "/networks/{id}",
    "/system/df",
];

/// Bytes of an answer that is looked through.
const ANSWER_BYTES: usize = 64 << 20;

/// The answer as the listener shows it.
pub(super) async fn answer(path: &str, response: Response) -> Response {
    if !TELLING.contains(&path) || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let cannot = || {
        Failure(Error::internal(format!("{path}: the answer cannot be shown on this listener")))
            .into_response()
    };
    let Ok(body) = Limited::new(body, ANSWER_BYTES).collect().await else { return cannot() };
    let body = body.to_bytes();
    parts.headers.remove(header::CONTENT_LENGTH);
    if body.is_empty() {
        return Response::from_parts(parts, Body::empty());
    }
    let Ok(mut value) = serde_json::from_slice(&body) else { return cannot() };
    redact(&mut value);
    Response::from_parts(parts, Body::from(value.to_string()))
}

fn redact(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), &*value) {
                    // Triggers may set a variable.
                    ("Env" | "OnBuild", _) => *value = json!([]),
                    // Of a volume, a network and their drivers; of the log's driver.
                    ("Options" | "DriverOpts", Value::Object(_)) => *value = json!({}),
                    ("LogConfig", Value::Object(_)) => value["Config"] = json!({}),
                    // Of a layer, and of a cached step.
                    ("CreatedBy" | "Description", Value::String(text)) => *value = created_by(text).into(),
                    // Free text, in which a key may be called anything.
                    ("Labels" | "Annotations", _) => {}
                    _ => redact(value),
                }
            }
        }
        _ => {}
    }
}

/// A step of an image's history without the values of ENV, ARG and build arguments.
fn created_by(text: &str) -> String {
    let step = text.strip_prefix("/bin/sh -c #(nop)").unwrap_or(text).trim_start();
    let step = step.strip_prefix("ONBUILD ").unwrap_or(step);
    if let Some(word) = ["ENV", "ARG"].into_iter().find(|word| step.starts_with(&format!("{word} "))) {
        return format!("{word} (not shown)");
    }
    // `|2 NAME=value OTHER=value /bin/sh -c …`, or `RUN |2 …`: what comes before the shell is not shown.
    match text.strip_prefix("RUN ").unwrap_or(text).strip_prefix('|') {
        // The last one: a value may hold such a text too.
        Some(rest) => match rest.rfind("/bin/sh ") {
            Some(at) => format!("|(not shown) {}", &rest[at..]),
            None => "|(not shown)".to_owned(),
        },
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_and_options_go() {
        let mut value = json!({
            "Config": { "Env": ["A=secret"], "Labels": { "Env": "label" }, "Cmd": ["x"] },
            "HostConfig": {
                "LogConfig": { "Type": "json-file", "Config": { "token": "secret" } },
                "Mounts": [{ "VolumeOptions": { "DriverConfig": { "Name": "local", "Options": { "o": "secret" } } } }],
            },
        });
        // What users name, and not the engine, may have any type.
        value["HostConfig"]["Annotations"] = json!({ "LogConfig": "x", "Env": "annotation" });
        value["Config"]["OnBuild"] = json!(["ENV A=secret"]);
        value["Other"] = json!({ "LogConfig": "x" });
        value["BuildCache"] = json!([{ "Description": "RUN |1 A=secret /bin/sh -c make" }]);
        redact(&mut value);
        assert!(!value.to_string().contains("secret"), "{value}");
        assert_eq!(value["HostConfig"]["Annotations"]["Env"], "annotation");
        assert_eq!(value["Config"]["Labels"]["Env"], "label");
        assert_eq!(value["Config"]["Cmd"][0], "x");
        assert_eq!(value["Config"]["Env"], json!([]));
    }

    #[test]
    fn steps_without_values() {
        for text in [
            "ENV A=secret",
            "/bin/sh -c #(nop)  ENV A=secret",
            "ARG A=secret",
            "|1 A=secret /bin/sh -c make",
            "RUN |2 A=secret B=secret /bin/sh -c make # buildkit",
            "|1 A=secret make",
            "RUN |2 A=/bin/sh secret B=secret /bin/sh -c make",
            "ONBUILD ENV A=secret",
        ] {
            assert!(!created_by(text).contains("secret"), "{}", created_by(text));
        }
        for text in ["RUN make", "/bin/sh -c #(nop)  CMD [\"sh\"]", "/bin/sh -c echo $ENV"] {
            assert_eq!(created_by(text), text);
        }
    }
}
