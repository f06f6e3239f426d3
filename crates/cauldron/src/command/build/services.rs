//! `build SERVICE…`: images by the build sections of the project in this directory.

use super::super::compose::{BuildHow, Services, build_services, project};
use super::{args, is_remote};
use crate::args::Given as _;
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::path::Path;

/// What a compose file does not say itself.
const ALONG: [&str; 6] = ["build-arg", "no-cache", "pull", "push", "quiet", "context"];

/// The services that the arguments name; `None` where they are no names of services.
///
/// # Errors
/// A compose file that cannot be understood.
pub fn named(session: &Session, given: &ArgMatches) -> Result<Option<Services>, Failure> {
    let places = given.texts("context");
    // A directory of a service's name comes first, but nobody builds two directories.
    if let [place] = places.as_slice()
        && (place == "-" || is_remote(place) || Path::new(place).exists())
    {
        return Ok(None);
    }
    let found = project::with_request(session, &places, compose::load)?;
    match found {
        Err(compose::Error::Project(text)) if text.starts_with("no configuration file provided") => {
            several(&places)
        }
        // What one means is a directory more often.
        Err(compose::Error::Project(text)) if places.len() == 1 && text.starts_with("no such service") => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
        Ok(project) if places.iter().any(|name| project.services.contains_key(name)) => {
            Ok(Some(Services { project: project.into(), names: places }))
        }
        Ok(_) => several(&places),
    }
}

fn several(places: &[String]) -> Result<Option<Services>, Failure> {
    if places.len() > 1 {
        return Err("'build' takes one context, or services of the compose file in this directory".into());
    }
    Ok(None)
}

/// Builds them.
pub async fn build(session: &Session, given: &ArgMatches, services: Services) -> Outcome {
    for arg in args() {
        let id = arg.get_id().as_str();
        if !ALONG.contains(&id) && given.value_source(id) == Some(ValueSource::CommandLine) {
            return Err(Failure::new(format!("--{id} does not go with services: the compose file says it")));
        }
    }
    for service in services.names.iter().filter_map(|name| services.project.services.get(name)) {
        if service.build.is_none() {
            return Err(Failure::new(format!("service {} has no build section", service.name)));
        }
    }
    let how = BuildHow {
        no_cache: given.on("no-cache"),
        pull: given.on("pull"),
        quiet: given.on("quiet"),
        args: given.texts("build-arg").iter().map(|text| super::build_arg(text)).collect(),
    };
    build_services(session, &services, false, &how, given.on("push")).await
}
