//! `context`: named engines, where Docker keeps them (`~/.docker/contexts/{meta,tls}/<digest of the name>/`); the one in use is
//! `currentContext` of `config.json`. `default` is no file: it is this process, or what `DOCKER_HOST` says.

mod archive;

use super::credentials;
use crate::args::{Given, flag, format, maybe, one, opt, quiet, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome, file};
use crate::options::mount::fields;
use crate::render::list::{Listing, Style};
use crate::session::Session;
use clap::ArgMatches;
use client::context_id;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const CONTEXT: Verb = Verb { group: "context", ..VERB };
const DEFAULT: &str = "default";
/// A file of TLS material: its name in the context, and where it is copied from.
type Material = (&'static str, PathBuf);
/// What a context's TLS directory holds, by the key that `--docker` names it with.
const MATERIAL: [(&str, &str); 3] = [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")];

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["create"],
        usage: "CONTEXT",
        about: "Create a context",
        more: "Example:\n  cauldron context create far --docker host=tcp://far:2376,ca=ca.pem,cert=cert.pem,key=key.pem",
        args: || {
            vec![
                opt("description", "", "string", "Description of the context"),
                opt("docker", "", "stringToString", "The engine: host=…,ca=…,cert=…,key=…,skip-tls-verify=…"),
                opt("from", "", "string", "Create context from a named context"),
                one("context"),
            ]
        },
        run: |session, given| Box::pin(async move { create(&session, &given) }),
        ..CONTEXT
    },
    Verb {
        names: &["update"],
        usage: "CONTEXT",
        about: "Update a context",
        args: || {
            vec![
                opt("description", "", "string", "Description of the context"),
                opt("docker", "", "stringToString", "The engine: host=…,ca=…,cert=…,key=…,skip-tls-verify=…"),
                one("context"),
            ]
        },
        run: |session, given| Box::pin(async move { update(&session, &given) }),
        ..CONTEXT
    },
    Verb {
        names: &["ls", "list"],
        about: "List contexts",
        args: || vec![format(), quiet()],
        run: |session, given| Box::pin(async move { ls(&session, &given) }),
        ..CONTEXT
    },
    Verb {
        names: &["show"],
        about: "Print the name of the current context",
        run: |session, _| {
            Box::pin(async move {
                session.line(&current(&session))?;
                Ok(0)
            })
        },
        ..CONTEXT
    },
    Verb {
        names: &["use"],
        usage: "CONTEXT",
        about: "Set the current context",
        args: || vec![one("context")],
        run: |session, given| Box::pin(async move { choose(&session, &given) }),
        ..CONTEXT
    },
    Verb {
        names: &["inspect"],
        usage: "[CONTEXT] [CONTEXT...]",
        about: "Display detailed information on one or more contexts",
        args: || {
            vec![
                opt("format", "f", "string", "Format output using a Go template"),
                maybe("contexts").num_args(0..),
            ]
        },
        run: |session, given| Box::pin(async move { inspect(&session, &given) }),
        ..CONTEXT
    },
    Verb {
        names: &["export"],
        usage: "CONTEXT [FILE|-]",
        about: "Export a context to a tar archive FILE or a tar stream on STDOUT",
        args: || vec![one("context"), maybe("file")],
        run: |session, given| Box::pin(async move { archive::export(&session, &given) }),
        ..CONTEXT
    },
    Verb {
        names: &["import"],
        usage: "CONTEXT FILE|-",
        about: "Import a context from a tar file",
        args: || vec![one("context"), one("file")],
        run: |session, given| Box::pin(async move { archive::import(&session, &given) }),
        ..CONTEXT
    },
    Verb {
        names: &["rm", "remove"],
        usage: "CONTEXT [CONTEXT...]",
        about: "Remove one or more contexts",
        args: || vec![flag("force", "f", "Force the removal of a context in use"), some("contexts")],
        run: |session, given| Box::pin(async move { rm(&session, &given) }),
        ..CONTEXT
    },
];

fn meta(session: &Session, name: &str) -> PathBuf {
    session.docker_config().join("contexts/meta").join(context_id(name)).join("meta.json")
}

fn tls(session: &Session, name: &str) -> PathBuf {
    session.docker_config().join("contexts/tls").join(context_id(name))
}

/// The name in force now, as the client itself chooses.
fn current(session: &Session) -> String {
    client::current_context(session.options()).unwrap_or_else(|| DEFAULT.to_owned())
}

fn check(name: &str) -> Result<(), Failure> {
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b));
    if valid {
        return Ok(());
    }
    Err(Failure::new(format!(
        "context name \"{name}\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    )))
}

fn default_context() -> Value {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    json!({ "Name": DEFAULT, "Metadata": {}, "Endpoints": { "docker": { "Host": host, "SkipTLSVerify": false } } })
}

fn load(session: &Session, name: &str) -> Result<Value, Failure> {
    if name == DEFAULT {
        return Ok(default_context());
    }
    let path = meta(session, name);
    let bytes = std::fs::read(&path).map_err(|error| {
        let why = crate::fail::reason(&error);
        Failure::new(format!("context \"{name}\": context not found: open {}: {why}", path.display()))
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::new(format!("context \"{name}\": {error}")))
}

fn store(session: &Session, name: &str, value: &Value) -> Result<(), Failure> {
    let path = meta(session, name);
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(file("create", dir))?;
    let part = dir.join(format!("meta.json.{}", std::process::id()));
    std::fs::write(&part, value.to_string()).map_err(file("write", &part))?;
    std::fs::rename(&part, &path).map_err(file("write", &path))
}

/// Reads `--docker`: the endpoint, and the files of its TLS material.
fn endpoint(text: &str) -> Result<(Value, Vec<Material>), Failure> {
    let (mut host, mut skip, mut files) = (String::new(), false, Vec::new());
    for field in fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| {
            format!(
                "invalid argument \"{text}\" for \"--docker\" flag: {field} must be formatted as key=value"
            )
        })?;
        match key {
            "host" => value.clone_into(&mut host),
            "skip-tls-verify" => skip = matches!(value, "1" | "t" | "true" | "True" | "TRUE"),
            key => match MATERIAL.iter().find(|(known, _)| *known == key) {
                Some((_, name)) => files.push((*name, PathBuf::from(value))),
                None => return Err(Failure::new(format!("unrecognized config key: {key}"))),
            },
        }
    }
    if host.is_empty() {
        return Err("docker endpoint configuration is required: host=…".into());
    }
    Ok((json!({ "Host": host, "SkipTLSVerify": skip }), files))
}

/// Keeps copies of the TLS material; the key is readable for its owner only.
fn keep_files(session: &Session, name: &str, files: &[Material]) -> Result<(), Failure> {
    for (target, source) in files {
        let bytes = std::fs::read(source).map_err(file("open", source))?;
        write_material(session, name, target, &bytes)?;
    }
    Ok(())
}

fn write_material(session: &Session, name: &str, target: &str, bytes: &[u8]) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let dir = tls(session, name).join("docker");
    std::fs::create_dir_all(&dir).map_err(file("create", &dir))?;
    let path = dir.join(target);
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut out| std::io::Write::write_all(&mut out, bytes))
        .map_err(file("write", &path))
}

fn create(session: &Session, given: &ArgMatches) -> Outcome {
    let name = given.text("context").unwrap_or_default();
    check(name)?;
    if name == DEFAULT {
        return Err("\"default\" is a reserved context name".into());
    }
    if meta(session, name).exists() {
        return Err(Failure::new(format!("context \"{name}\" already exists")));
    }
    if given.text("docker").is_some() && given.text("from").is_some() {
        return Err("cannot use --docker and --from together: the endpoint is the one or the other's".into());
    }
    let mut value = json!({ "Name": name, "Metadata": {}, "Endpoints": {} });
    let files = match given.text("docker") {
        Some(text) => {
            let (docker, files) = endpoint(text)?;
            value["Endpoints"]["docker"] = docker;
            files
        }
        None => {
            let from = given.text("from").map_or_else(|| current(session), str::to_owned);
            value["Endpoints"] = load(session, &from)?["Endpoints"].clone();
            let dir = tls(session, &from).join("docker");
            let files = MATERIAL.iter().map(|(_, name)| (*name, dir.join(name)));
            files.filter(|(_, path)| path.exists()).collect()
        }
    };
    if let Some(text) = given.text("description") {
        value["Metadata"]["Description"] = text.into();
    }
    keep_files(session, name, &files)?;
    store(session, name, &value)?;
    session.line(name)?;
    session.say(&format!("Successfully created context \"{name}\""));
    Ok(0)
}

fn update(session: &Session, given: &ArgMatches) -> Outcome {
    let name = given.text("context").unwrap_or_default();
    if name == DEFAULT {
        return Err("context \"default\" cannot be changed".into());
    }
    let mut value = load(session, name)?;
    if let Some(text) = given.text("description") {
        value["Metadata"]["Description"] = text.into();
    }
    if let Some(text) = given.text("docker") {
        let (endpoint, files) = endpoint(text)?;
        value["Endpoints"]["docker"] = endpoint;
        // The material was the old endpoint's: a certificate does not go to another host.
        let old = tls(session, name).join("docker");
        match std::fs::remove_dir_all(&old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(file("remove", &old)(error));
            }
            _ => keep_files(session, name, &files)?,
        }
    }
    store(session, name, &value)?;
    session.line(name)?;
    session.say(&format!("Successfully updated context \"{name}\""));
    Ok(0)
}

/// Every context, `default` among them, by name.
fn all(session: &Session) -> Vec<Value> {
    let dir = session.docker_config().join("contexts/meta");
    let mut found = vec![default_context()];
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let bytes = std::fs::read(entry.path().join("meta.json")).unwrap_or_default();
        found.extend(serde_json::from_slice::<Value>(&bytes).ok().filter(|value| value["Name"].is_string()));
    }
    found.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
    found
}

const CONTEXTS: Listing = Listing {
    table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    headers: &[("DockerEndpoint", "DOCKER ENDPOINT")],
};

fn ls(session: &Session, given: &ArgMatches) -> Outcome {
    let current = current(session);
    let row = |context: &Value| {
        let own = if context["Name"] == DEFAULT { "This process, or what DOCKER_HOST says" } else { "" };
        let docker = &context["Endpoints"]["docker"];
        json!({
            "Name": context["Name"], "Current": context["Name"] == current.as_str(),
            "Description": context["Metadata"]["Description"].as_str().unwrap_or(own),
            "DockerEndpoint": docker["Host"].as_str().unwrap_or_default(), "Error": "", "ContextType": "moby",
        })
    };
    let rows: Vec<Value> = all(session).iter().map(row).collect();
    let style = Style { format: given.text("format"), quiet: given.on("quiet"), key: "Name" };
    session.out(&CONTEXTS.render(&rows, &style)?)?;
    Ok(0)
}

fn choose(session: &Session, given: &ArgMatches) -> Outcome {
    let name = given.text("context").unwrap_or_default();
    load(session, name)?;
    set_current(session, name)?;
    session.line(name)?;
    session.say(&format!("Current context is now \"{name}\""));
    if std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty()) {
        session.say("Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.");
    }
    Ok(0)
}

fn set_current(session: &Session, name: &str) -> Result<(), Failure> {
    let mut config = credentials::config(session)?;
    let Some(fields) = config.as_object_mut() else {
        return Err("loading config file: it is no object".into());
    };
    fields.remove("currentContext");
    if name != DEFAULT {
        fields.insert("currentContext".to_owned(), name.into());
    }
    credentials::save(session, &config)
}

fn inspect(session: &Session, given: &ArgMatches) -> Outcome {
    let mut names = given.texts("contexts");
    if names.is_empty() {
        names.push(current(session));
    }
    let mut found = Vec::new();
    for name in &names {
        let mut value = load(session, name)?;
        let own = name == DEFAULT;
        let (meta, tls) = (meta(session, name), tls(session, name));
        let files: Vec<&str> = MATERIAL
            .iter()
            .map(|(_, file)| *file)
            .filter(|file| !own && tls.join("docker").join(file).exists())
            .collect();
        value["TLSMaterial"] = if files.is_empty() { json!({}) } else { json!({ "docker": files }) };
        let place =
            |path: &Path| if own { "<IN MEMORY>".to_owned() } else { path.to_string_lossy().into_owned() };
        let dir = meta.parent().unwrap_or(Path::new("")).to_owned();
        value["Storage"] = json!({ "MetadataPath": place(&dir), "TLSPath": place(&tls) });
        found.push(value);
    }
    match given.text("format") {
        Some(text) => {
            let template = crate::render::template::Template::parse(text)?;
            for value in &found {
                session.line(&template.render(value)?)?;
            }
        }
        None => session.line(&crate::render::json::indent(&Value::Array(found).to_string(), "    "))?,
    }
    Ok(0)
}

fn rm(session: &Session, given: &ArgMatches) -> Outcome {
    let in_use = client::chosen_context(session.docker_config());
    let mut code = 0;
    for name in given.texts("contexts") {
        let removed = remove(session, &name, in_use.as_deref() == Some(&name), given.on("force"));
        code = code.max(session.tell(&name, removed)?);
    }
    Ok(code)
}

fn remove(session: &Session, name: &str, in_use: bool, force: bool) -> Result<(), Failure> {
    if name == DEFAULT {
        return Err("context \"default\" cannot be removed".into());
    }
    let path = meta(session, name);
    if !path.exists() {
        return if force { Ok(()) } else { Err(Failure::new(format!("context \"{name}\" not found"))) };
    }
    if in_use {
        if !force {
            return Err(Failure::new(format!("context \"{name}\" is in use, set -f flag to force remove")));
        }
        set_current(session, DEFAULT)?;
    }
    for dir in [path.parent().unwrap_or(Path::new("")).to_owned(), tls(session, name)] {
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(file("remove", &dir))?;
        }
    }
    Ok(())
}
