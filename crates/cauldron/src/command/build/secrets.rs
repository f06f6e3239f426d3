//! `--secret`: files and variables of ours that steps see and nothing keeps.

use crate::fail::{Failure, file};
use crate::session::Session;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Method;
use std::collections::HashMap;

/// Bytes of all secrets that go with a request's head.
const SENT_BYTES: usize = 128 << 10;

/// `id=…,src=…|env=…`: the values, base64 for JSON's sake, by id.
pub fn read(flags: &[String]) -> Result<HashMap<String, String>, Failure> {
    let mut out = HashMap::new();
    for flag in flags {
        let (mut id, mut source, mut variable) = (String::new(), None, None);
        for field in crate::options::mount::fields(flag)? {
            match field.split_once('=') {
                Some(("id", value)) => value.clone_into(&mut id),
                Some(("src" | "source", value)) => source = Some(value.to_owned()),
                Some(("env", value)) => variable = Some(value.to_owned()),
                Some(("type", _)) => {}
                _ => return Err(Failure::new(format!("unexpected field '{field}' in --secret"))),
            }
        }
        if id.is_empty() {
            return Err(Failure::new(format!("invalid --secret \"{flag}\": missing id")));
        }
        let bytes = match (source, variable) {
            (Some(path), _) => std::fs::read(&path).map_err(file("secret", path.as_ref()))?,
            (None, variable) => {
                let name = variable.unwrap_or_else(|| id.clone());
                match std::env::var(&name) {
                    Ok(value) => value.into_bytes(),
                    Err(_) => std::fs::read(&name).map_err(file("secret", name.as_ref()))?,
                }
            }
        };
        out.insert(id, STANDARD.encode(bytes));
    }
    Ok(out)
}

/// Secrets of a build whose context is sent: a part of the request's head, so that they are in no address that is logged. Empty
/// without any.
///
/// # Errors
/// The engine is not ours: it would not know what they are; or they are too long.
pub async fn header(session: &Session, flags: &[String]) -> Result<String, Failure> {
    if flags.is_empty() {
        return Ok(String::new());
    }
    let client = session.client()?;
    let version = client.json(Method::GET, "/version", None).await?;
    if version["Platform"]["Name"] != "Cauldron" {
        return Err(
            "--secret needs an engine of this kind: Docker's takes secrets by another protocol".into()
        );
    }
    let json = serde_json::to_vec(&read(flags)?).map_err(|error| Failure::new(error.to_string()))?;
    if json.len() > SENT_BYTES {
        return Err(Failure::new(format!(
            "--secret: more than {SENT_BYTES} bytes cannot be sent to an engine elsewhere"
        )));
    }
    Ok(base64::engine::general_purpose::URL_SAFE.encode(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_secret() {
        assert!(read(&["src=/x".to_owned()]).is_err());
        assert!(read(&["id=x,src=/nonexistent".to_owned()]).is_err());
    }
}
