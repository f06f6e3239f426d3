//! `config`, `version`.

use super::project::{load, with_request};
use crate::args::{Given, any, flag, opt};
use crate::fail::{Failure, Outcome, file};
use crate::session::Session;
use clap::{Arg, ArgMatches};
use compose::{Project, labels, render};
use serde_json::Value;
use std::collections::BTreeSet;

/// The flags of `config`.
pub fn args() -> Vec<Arg> {
    vec![
        flag("environment", "", "Print environment used for interpolation"),
        opt("format", "", "string", "Format the output. Values: [yaml | json]"),
        opt("hash", "", "string", "Print the service config hash, one per line ('*' for all)"),
        flag("images", "", "Print the image names, one per line"),
        flag("networks", "", "Print the network names, one per line"),
        flag("no-consistency", "", "Accepted for compatibility").hide(true),
        flag("no-env-resolution", "", "Don't resolve service env files"),
        flag("no-interpolate", "", "Don't interpolate environment variables"),
        flag("no-normalize", "", "Accepted for compatibility").hide(true),
        flag("no-path-resolution", "", "Accepted for compatibility").hide(true),
        opt("output", "o", "string", "Save to file (default to stdout)"),
        flag("profiles", "", "Print the profile names, one per line"),
        flag("quiet", "q", "Only validate the configuration, don't print anything"),
        flag("services", "", "Print the service names, one per line"),
        flag("volumes", "", "Print the volume names, one per line"),
        // `--services` is a switch of its own.
        any("names").value_name("services"),
    ]
}

/// `config`.
pub async fn config(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("names");
    let interpolate = !given.on("no-interpolate");
    if !interpolate {
        let tree = with_request(&session, &names, |request| {
            let request =
                compose::Request { interpolate: false, resolve_environment: false, ..copy(request) };
            compose::tree(&request)
        })??;
        return print(&session, &given, &compose::schema::project(&tree), false);
    }
    if given.on("no-env-resolution") {
        let tree = with_request(&session, &names, |request| {
            let request = compose::Request { resolve_environment: false, ..copy(request) };
            compose::tree(&request)
        })??;
        return print(&session, &given, &compose::schema::project(&tree), true);
    }
    let project = load(&session, &names)?;
    crate::command::task::check(&session, &project)?;
    if let Some(lines) = lines(&given, &project)? {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        return write(&session, &given, &text);
    }
    print(&session, &given, &shown(&project, &names)?, true)
}

fn copy<'a>(request: &compose::Request<'a>) -> compose::Request<'a> {
    compose::Request {
        cwd: request.cwd.clone(),
        files: request.files.clone(),
        directory: request.directory.clone(),
        name: request.name.clone(),
        profiles: request.profiles.clone(),
        env_files: request.env_files.clone(),
        environment: request.environment.clone(),
        services: request.services.clone(),
        ..*request
    }
}

/// What a flag asks for in place of the whole.
fn lines(given: &ArgMatches, project: &Project) -> Result<Option<Vec<String>>, Failure> {
    let by_need = || compose::order::by_need(project);
    Ok(Some(if given.on("services") {
        by_need()
    } else if given.on("volumes") {
        project.volumes.keys().cloned().collect()
    } else if given.on("networks") {
        project.networks.keys().cloned().collect()
    } else if given.on("images") {
        project.services.values().map(|service| service.image_name(&project.name)).collect()
    } else if given.on("profiles") {
        let all = project.services.values().chain(project.disabled.values());
        let names: BTreeSet<String> = all.flat_map(|service| service.profiles.iter().cloned()).collect();
        names.into_iter().collect()
    } else if given.on("environment") {
        project.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
    } else if let Some(which) = given.text("hash") {
        let wanted: Vec<&str> = which.split(',').collect();
        for name in wanted.iter().filter(|name| **name != "*") {
            project.service(name)?;
        }
        let services =
            project.services.values().filter(|one| which == "*" || wanted.contains(&one.name.as_str()));
        services.map(|service| format!("{} {}", service.name, labels::hash(project, service))).collect()
    } else {
        return Ok(None);
    }))
}

/// The project as it is used: services that are on, or the named ones with what they need.
fn shown(project: &Project, names: &[String]) -> Result<Value, Failure> {
    let mut tree = project.model.as_ref().map(compose::schema::project).unwrap_or_default();
    let wanted: Vec<String> = if names.is_empty() {
        project.services.keys().cloned().collect()
    } else {
        compose::plan::selected(project, names, false)?
    };
    if let Some(services) = tree["services"].as_object_mut() {
        services.retain(|name, _| wanted.contains(name));
    }
    Ok(tree)
}

fn print(session: &Session, given: &ArgMatches, tree: &Value, escape: bool) -> Outcome {
    if given.on("quiet") {
        return Ok(0);
    }
    let text = match given.text("format").unwrap_or("yaml") {
        "yaml" => render::yaml(tree, escape),
        "json" => render::json(tree, escape) + "\n",
        other => return Err(Failure::new(format!("unsupported format \"{other}\""))),
    };
    write(session, given, &text)
}

fn write(session: &Session, given: &ArgMatches, text: &str) -> Outcome {
    match given.text("output") {
        Some(path) => std::fs::write(path, text).map_err(file("write", path.as_ref()))?,
        None if given.on("quiet") => {}
        None => session.out(text)?,
    }
    Ok(0)
}

/// `version`.
pub async fn version(session: Session, given: ArgMatches) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    if given.on("short") {
        session.line(version)?;
    } else if given.text("format") == Some("json") {
        session.line(&serde_json::json!({"version": version}).to_string())?;
    } else {
        session.line(&format!("Cauldron Compose version {version}"))?;
    }
    Ok(0)
}
