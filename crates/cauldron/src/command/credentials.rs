//! Credentials of registries: in Docker's `config.json` (0600), or with a program `docker-credential-NAME` that the file
//! names in `credHelpers` or `credsStore` and that is found in PATH. A secret goes to such a program by its standard
//! input and to the engine by a header; it is in no argument and no message.

use crate::fail::{Failure, file};
use crate::session::Session;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The key of docker.io's credentials.
pub const HUB: &str = "https://index.docker.io/v1/";
/// Bytes of a helper's answer.
const ANSWER_BYTES: u64 = 1 << 20;
/// What a helper says where it has nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name with which a helper keeps an identity token.
const TOKEN: &str = "<token>";

/// What a user logs in with.
pub struct Login<'a> {
    pub name: &'a str,
    pub password: &'a str,
    /// Kept in place of the password, where the registry gave one.
    pub identity: &'a str,
}

/// Docker's `config.json`; an empty object where there is none.
///
/// # Errors
/// It cannot be read, or is no JSON.
pub fn config(session: &Session) -> Result<Value, Failure> {
    let path = session.docker_config().join("config.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("loading config file: {}: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(json!({})),
        Err(error) => Err(file("loading config file", &path)(error)),
    }
}

/// Writes it, 0600, in one rename; a link stays a link.
///
/// # Errors
/// It cannot be written.
pub fn save(session: &Session, config: &Value) -> Result<(), Failure> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let dir = session.docker_config();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file("create", dir))?;
    let path = dir.join("config.json");
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let part = path.with_extension(format!("json.{}", std::process::id()));
    let text = serde_json::to_string_pretty(config).unwrap_or_default();
    // Somebody else's file of that name keeps its mode: away with it.
    let _ = std::fs::remove_file(&part);
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let written = opened.and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.sync_all()
    });
    written.map_err(file("write", &part))?;
    std::fs::rename(&part, &path).map_err(file("write", &path))
}

/// `X-Registry-Auth` for a reference's registry. What keeps a helper from answering is said; the registry is then asked
/// without credentials.
///
/// # Errors
/// The file is malformed.
pub fn header(session: &Session, reference: &str) -> Result<String, Failure> {
    let first = reference.split('/').next().unwrap_or_default();
    let named = reference.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let found = find(session, &config(session)?, if named { first } else { HUB });
    let value = found.unwrap_or_else(|failure| {
        session.complain(&failure);
        None
    });
    Ok(encoded(&value.unwrap_or_else(|| json!({}))))
}

/// As the API's headers have it.
pub fn encoded(value: &Value) -> String {
    URL_SAFE.encode(value.to_string())
}

/// What there is for every registry, by host, for a build whose images are not known here.
///
/// # Errors
/// The file is malformed.
pub fn all(session: &Session) -> Result<Value, Failure> {
    let config = config(session)?;
    let mut found = serde_json::Map::new();
    let hosts = |key: &str| config[key].as_object().into_iter().flatten().map(|(host, _)| host.clone());
    for host in hosts("auths").chain(hosts("credHelpers")) {
        match find(session, &config, &host) {
            Ok(Some(value)) => drop(found.insert(host, value)),
            Ok(None) => {}
            Err(failure) => session.complain(&failure),
        }
    }
    Ok(Value::Object(found))
}

/// Credentials of a registry as the API's `AuthConfig`, if there are any.
///
/// # Errors
/// A helper is missing or fails.
pub fn find(session: &Session, config: &Value, host: &str) -> Result<Option<Value>, Failure> {
    if let Some(helper) = helper(config, host) {
        return from_helper(session, helper, host);
    }
    let auths = config["auths"].as_object();
    let bare = hostname(host);
    let entry = auths.and_then(|auths| {
        auths.get(host).or_else(|| {
            let same = |(key, _): &(&String, &Value)| hostname(key) == bare;
            auths.iter().find(same).map(|(_, entry)| entry)
        })
    });
    let Some(entry) = entry.filter(|entry| entry.is_object()) else { return Ok(None) };
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let (name, password) = match text("auth") {
        "" => (text("username").to_owned(), text("password").to_owned()),
        encoded => {
            let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let parts = decoded.as_deref().and_then(|decoded| decoded.split_once(':'));
            let (name, password) = parts.ok_or_else(|| {
                let path = session.docker_config().join("config.json");
                Failure::new(format!("{}: auths.{host}.auth is not base64 of user:password", path.display()))
            })?;
            (name.to_owned(), password.trim_end_matches('\0').to_owned())
        }
    };
    let (identity, token) = (text("identitytoken"), text("registrytoken"));
    if name.is_empty() && identity.is_empty() && token.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({
        "username": name, "password": password, "serveraddress": host, "identitytoken": identity, "registrytoken": token
    })))
}

/// Keeps them. False: in the file, unencrypted.
///
/// # Errors
/// The file cannot be written, or a helper is missing or fails.
pub fn keep(session: &Session, host: &str, login: &Login) -> Result<bool, Failure> {
    let mut config = config(session)?;
    let secret = if login.identity.is_empty() { login.password } else { login.identity };
    let helper = helper(&config, host).map(str::to_owned);
    let entry = if let Some(helper) = &helper {
        let name = if login.identity.is_empty() { login.name } else { TOKEN };
        let request = json!({"ServerURL": host, "Username": name, "Secret": secret});
        ask(helper, "store", &request.to_string())?;
        // Where a helper has them, the file says for whom.
        json!({})
    } else {
        let password = if login.identity.is_empty() { login.password } else { "" };
        let mut entry = json!({"auth": STANDARD.encode(format!("{}:{password}", login.name))});
        if !login.identity.is_empty() {
            entry["identitytoken"] = login.identity.into();
        }
        entry
    };
    if !config["auths"].is_object() {
        config["auths"] = json!({});
    }
    config["auths"][host] = entry;
    save(session, &config)?;
    Ok(helper.is_some())
}

/// Forgets them. False: there were none.
///
/// # Errors
/// The file cannot be written, or a helper is missing or fails.
pub fn forget(session: &Session, host: &str) -> Result<bool, Failure> {
    let mut config = config(session)?;
    let bare = hostname(host).to_owned();
    let mut known = false;
    if let Some(auths) = config["auths"].as_object_mut() {
        let before = auths.len();
        auths.retain(|key, _| hostname(key) != bare);
        known = auths.len() != before;
    }
    if let Some(helper) = helper(&config, host) {
        // A helper that has nothing says so, each in its own words.
        match ask(helper, "erase", host) {
            Err(failure) if known => return Err(failure),
            _ => {}
        }
    }
    if known {
        save(session, &config)?;
    }
    Ok(known)
}

/// The host of a key of `auths`.
fn hostname(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Who keeps a registry's credentials.
fn helper<'a>(config: &'a Value, host: &str) -> Option<&'a str> {
    let own = config["credHelpers"][host].as_str().or_else(|| config["credHelpers"][hostname(host)].as_str());
    own.or_else(|| config["credsStore"].as_str()).filter(|name| !name.is_empty())
}

fn from_helper(session: &Session, helper: &str, host: &str) -> Result<Option<Value>, Failure> {
    let answer = match ask(helper, "get", host) {
        Err(failure) if failure.message.contains(NOT_FOUND) => return Ok(None),
        answer => answer?,
    };
    let bad = |why: &str| {
        Failure::new(format!("error getting credentials - err: docker-credential-{helper} get: {why}"))
    };
    let found: Value = serde_json::from_str(&answer).map_err(|_| bad("its answer is no JSON"))?;
    let text = |key: &str| found[key].as_str().ok_or_else(|| bad(&format!("its answer has no {key}")));
    let (name, secret) = (text("Username")?, text("Secret")?);
    if secret.is_empty() {
        session.say(&format!("docker-credential-{helper} has an empty secret for {host}"));
        return Ok(None);
    }
    Ok(Some(if name == TOKEN {
        json!({"identitytoken": secret, "serveraddress": host})
    } else {
        json!({"username": name, "password": secret, "serveraddress": host})
    }))
}

/// `docker-credential-NAME VERB`: a request on stdin, an answer on stdout, which is also where errors stand.
fn ask(helper: &str, verb: &str, request: &str) -> Result<String, Failure> {
    let doing = match verb {
        "get" => "getting",
        "store" => "storing",
        _ => "erasing",
    };
    let failed = |why: String| Failure::new(format!("error {doing} credentials - err: {why}"));
    if helper.contains('/') {
        return Err(failed(format!("{helper:?} is no name of a credential helper")));
    }
    let program = format!("docker-credential-{helper}");
    let child = Command::new(Path::new(&program))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            failed(format!("exec: \"{program}\": executable file not found in $PATH, out: ``"))
        }
        _ => failed(format!("exec: \"{program}\": {error}")),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its request has its answer without.
        let _ = stdin.write_all(request.as_bytes());
    }
    let mut answer = Vec::new();
    let read = child.stdout.take().map_or(Ok(0), |out| out.take(ANSWER_BYTES).read_to_end(&mut answer));
    let status = child.wait().map_err(|error| failed(format!("{program}: {error}")))?;
    read.map_err(|error| failed(format!("{program}: {error}")))?;
    let answer = String::from_utf8_lossy(&answer).trim().to_owned();
    if !status.success() {
        return Err(failed(format!("{program}: {status}, out: `{answer}`")));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_keys() {
        for (key, host) in [
            (HUB, "docker.io"),
            ("docker.io", "docker.io"),
            ("https://registry.test:5000/v2/", "registry.test:5000"),
            ("registry.test", "registry.test"),
        ] {
            assert_eq!(hostname(key), host);
        }
    }

    #[test]
    fn helpers_by_host() {
        let config = json!({"credHelpers": {"a.test": "one", "docker.io": "hub"}, "credsStore": "rest"});
        assert_eq!(helper(&config, "a.test"), Some("one"));
        assert_eq!(helper(&config, HUB), Some("hub"));
        assert_eq!(helper(&config, "b.test"), Some("rest"));
        assert_eq!(helper(&json!({}), "b.test"), None);
    }
}
