//! `manifest inspect`: what a registry has under a name, without pulling it.

use super::credentials;
use super::pull::{familiar, split};
use crate::args::{Given, flag, one};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::ArgMatches;
use client::{Lines, Method, encode, query};
use serde_json::{Value, json};

pub const VERBS: &[Verb] = &[Verb {
    group: "manifest",
    names: &["inspect"],
    usage: "MANIFEST",
    about: "Display an image manifest, or manifest list",
    more: "Example:\n  cauldron manifest inspect localhost:5000/app:1",
    args: || {
        vec![
            flag("insecure", "", "Allow communication with an insecure registry"),
            flag("verbose", "v", "Output additional info including layers and platform"),
            one("manifest"),
        ]
    },
    run: |session, given| Box::pin(inspect(session, given)),
    ..VERB
}];

/// A manifest's bytes and its descriptor.
async fn fetch(session: &Session, name: &str, insecure: bool) -> Result<(String, Value), Failure> {
    let auth = credentials::header(session, name)?;
    let encoded = encode(name).replace("%2F", "/");
    let insecure = if insecure { "1" } else { "" }.to_owned();
    let path = query(&format!("/cauldron/v1/distribution/{encoded}/manifest"), [("insecure", insecure)]);
    let (_, empty) = client::body_channel(1);
    let response = session.client()?.upload(Method::GET, &path, &[("X-Registry-Auth", &auth)], empty).await;
    let response = response.map_err(|error| match error.status() {
        Some(404) if error.to_string().contains("page not found") => {
            Failure::new("this engine does not show what a registry has")
        }
        _ => error.into(),
    })?;
    let answer = Lines::new(response).next().await?.unwrap_or_default();
    let text = answer["Manifest"].as_str().unwrap_or_default().to_owned();
    Ok((text, answer["Descriptor"].clone()))
}

async fn inspect(session: Session, given: ArgMatches) -> Outcome {
    let name = given.text("manifest").unwrap_or_default();
    let insecure = given.on("insecure");
    let (text, mut descriptor) = fetch(&session, name, insecure).await?;
    if !given.on("verbose") {
        session.line(&indented(&text))?;
        return Ok(0);
    }
    let parse = |text: &str| -> Result<Value, Failure> {
        serde_json::from_str(text)
            .map_err(|error| Failure::new(format!("{name}: malformed manifest: {error}")))
    };
    let document = parse(&text)?;
    let Some(entries) = document["manifests"].as_array() else {
        session.line(&pretty(&described(&familiar(name), &descriptor, document)))?;
        return Ok(0);
    };
    let mut all = Vec::new();
    for entry in entries {
        let reference = format!("{}@{}", split(name).0, entry["digest"].as_str().unwrap_or_default());
        let (text, found) = fetch(&session, &reference, insecure).await?;
        descriptor = found;
        descriptor["platform"] = entry["platform"].clone();
        all.push(described(&reference, &descriptor, parse(&text)?));
    }
    session.line(&pretty(&Value::Array(all)))?;
    Ok(0)
}

fn described(reference: &str, descriptor: &Value, manifest: Value) -> Value {
    let kind = descriptor["mediaType"].as_str().unwrap_or_default();
    let key = if kind.contains("oci") { "OCIManifest" } else { "SchemaV2Manifest" };
    json!({"Ref": reference, "Descriptor": descriptor, key: manifest})
}

fn pretty(value: &Value) -> String {
    indented(&value.to_string())
}

/// JSON with a tab a level, members in the order that they came in.
fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', depth));
    };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                quoted = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn indents_and_keeps_the_order() {
        let text = r#"{ "b" : 1,"a":["x, \"}", {} ,[ ]]}"#;
        assert_eq!(indented(text), "{\n\t\"b\": 1,\n\t\"a\": [\n\t\t\"x, \\\"}\",\n\t\t{},\n\t\t[]\n\t]\n}");
    }
}
