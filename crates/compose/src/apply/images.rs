//! Images: built or pulled as the services and the command line say.

use super::{BuildJob, BuildSecret, Host, PullJob};
use crate::body::{Source, source_of};
use crate::error::{Error, Result};
use crate::project::{Project, Service};
use client::encode;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// When images are made.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// Build even where there is an image.
    pub build: bool,
    /// Never build.
    pub no_build: bool,
    /// `always`, `missing`, `never`: before what the services say.
    pub pull: Option<String>,
    /// Without output.
    pub quiet: bool,
}

/// The id of an image, if the engine has it.
///
/// # Errors
/// The engine does not say.
pub async fn image_of(host: &Host, name: &str) -> Result<Option<String>> {
    Ok(found(host, name).await?.and_then(|found| found["Id"].as_str().map(str::to_owned)))
}

async fn found(host: &Host, name: &str) -> Result<Option<Value>> {
    match host.client.get(&format!("/images/{}/json", encode(name))).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Nanoseconds since an image got its tag; one whose time is unknown is as old as can be.
fn age(image: &Value) -> i64 {
    let tagged = image["Metadata"]["LastTagTime"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let since = tagged.map(|tagged| Timestamp::now().as_nanosecond() - tagged.as_nanosecond());
    since.and_then(|since| i64::try_from(since).ok()).unwrap_or(i64::MAX)
}

/// Makes sure of the images of services; their ids by service.
///
/// # Errors
/// An image cannot be built or pulled.
pub async fn ensure(
    host: &Host,
    project: &Project,
    names: &[String],
    how: &Images,
) -> Result<BTreeMap<String, String>> {
    // A task may be run though its profile is off.
    let services: Vec<&Service> = names
        .iter()
        .filter_map(|name| project.services.get(name).or_else(|| project.disabled.get(name)))
        .collect();
    // One image may serve many services: it is looked at, built or pulled once.
    let mut groups: BTreeMap<String, Vec<&Service>> = BTreeMap::new();
    for service in services {
        groups.entry(service.image_name(&project.name)).or_default().push(service);
    }
    let (mut building, mut pulling) = (Vec::new(), Vec::new());
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for (image, services) in &groups {
        let first = services.iter().find(|service| service.build.is_some()).or(services.first());
        let Some(service) = first else { continue };
        let found = found(host, image).await?;
        if let Some(id) = found.as_ref().and_then(|found| found["Id"].as_str()) {
            ids.insert(image.clone(), id.to_owned());
        }
        match wanted(service, how, found.as_ref().map(age), image)? {
            Want::Nothing => {}
            Want::Build => building.push(*service),
            Want::Pull => pulling.push((*service, image.clone())),
        }
    }
    if host.dry_run {
        for service in building {
            host.tell("Image", &service.image_name(&project.name), "Built");
        }
        for (_, image) in pulling {
            host.tell("Image", &image, "Pulled");
        }
    } else {
        let pulled = join_all(
            pulling.iter().map(|(service, image)| pull_or_build(host, project, service, image, how)),
        );
        for outcome in pulled.await {
            outcome?;
        }
        for service in &building {
            build(host, project, service, &BuildHow { quiet: how.quiet, ..BuildHow::default() }).await?;
        }
        let fresh = building.iter().map(|service| service.image_name(&project.name));
        for image in fresh.chain(pulling.into_iter().map(|(_, image)| image)) {
            if let Some(id) = image_of(host, &image).await? {
                ids.insert(image, id);
            }
        }
    }
    let id = |(image, services): (&String, &Vec<&Service>)| {
        let id = ids.get(image).cloned();
        services.iter().filter_map(|service| Some((service.name.clone(), id.clone()?))).collect::<Vec<_>>()
    };
    Ok(groups.iter().flat_map(id).collect())
}

enum Want {
    Nothing,
    Build,
    Pull,
}

/// What an image of this age needs; `None`: it is not there.
fn wanted(service: &Service, how: &Images, age: Option<i64>, image: &str) -> Result<Want> {
    let there = age.is_some();
    let own = service.pull_policy.as_deref().unwrap_or_default();
    let policy = how.pull.as_deref().filter(|policy| *policy != "policy").unwrap_or(own);
    if service.build.is_some() {
        let build = how.build || own == "build" || (!there && policy != "always");
        if build && !how.no_build {
            return Ok(Want::Build);
        }
        if !there && how.no_build {
            return Err(Error::project(format!("No such image: {image}")));
        }
        // What is built here is in no registry, unless a name and a policy say so.
        return Ok(if policy == "always" && service.image.is_some() { Want::Pull } else { Want::Nothing });
    }
    if policy == own && service.refreshes_after().zip(age).is_some_and(|(after, age)| age > after) {
        return Ok(Want::Pull);
    }
    match policy {
        "always" => Ok(Want::Pull),
        "never" if !there => Err(Error::project(format!("No such image: {image}"))),
        _ if there => Ok(Want::Nothing),
        _ => Ok(Want::Pull),
    }
}

async fn pull_or_build(
    host: &Host,
    project: &Project,
    service: &Service,
    image: &str,
    how: &Images,
) -> Result<()> {
    let pulled = pull(host, service, image, how.quiet).await;
    match pulled {
        Err(_) if service.build.is_some() && !how.no_build => {
            build(host, project, service, &BuildHow { quiet: how.quiet, ..BuildHow::default() }).await
        }
        other => other,
    }
}

/// Pulls an image.
///
/// # Errors
/// The registry or the engine says no.
pub async fn pull(host: &Host, service: &Service, image: &str, quiet: bool) -> Result<()> {
    host.tell("Image", image, "Pulling");
    let job = PullJob { image: image.to_owned(), platform: service.platform.clone(), quiet };
    (host.pull)(job).await?;
    host.tell("Image", image, "Pulled");
    Ok(())
}

/// How `build` was asked for.
#[derive(Clone, Debug, Default)]
pub struct BuildHow {
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--pull`.
    pub pull: bool,
    /// `-q`.
    pub quiet: bool,
    /// `--build-arg`.
    pub args: Vec<(String, Option<String>)>,
}

/// Builds a service's image.
///
/// # Errors
/// The build fails.
pub async fn build(host: &Host, project: &Project, service: &Service, how: &BuildHow) -> Result<()> {
    let Some(mut build) = service.build.clone() else { return Ok(()) };
    let image = service.image_name(&project.name);
    build.args.extend(how.args.iter().cloned());
    let contexts: Vec<(String, String)> = build
        .additional_contexts
        .iter()
        .filter_map(|(name, place)| {
            Some((name.clone(), place.as_deref()?.strip_prefix("service:")?.to_owned()))
        })
        .collect();
    for (name, other) in contexts {
        // Another service's image, built first.
        let other = project.service(&other)?;
        Box::pin(self::build(host, project, other, how)).await?;
        build
            .additional_contexts
            .insert(name, Some(format!("docker-image://{}", other.image_name(&project.name))));
    }
    let mut secrets = Vec::new();
    for item in &build.secrets {
        let Some(secret) = project.secrets.get(&item.source) else { continue };
        let id = item.target.clone().unwrap_or_else(|| item.source.clone());
        let source = source_of(project, &item.source, secret).map_err(Error::project)?;
        let source = match source {
            Source::File(path) => BuildSecret::File(path),
            other => BuildSecret::Bytes(super::deliver::bytes(&item.source, &other).await?),
        };
        secrets.push((id, source));
    }
    let job = BuildJob {
        service: service.name.clone(),
        image: image.clone(),
        no_cache: how.no_cache || build.no_cache == Some(true),
        pull: how.pull || build.pull == Some(true),
        build,
        platform: service.platform.clone(),
        quiet: how.quiet,
        secrets,
    };
    host.tell("Image", &image, "Building");
    (host.build)(job).await?;
    host.tell("Image", &image, "Built");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        const HOUR: i64 = 3_600_000_000_000;
        let table: &[(&str, Option<&str>, Option<i64>, &str)] = &[
            ("", None, None, "pull"),
            ("", None, Some(9000 * HOUR), "nothing"),
            ("always", None, Some(0), "pull"),
            ("never", None, Some(0), "nothing"),
            ("never", None, None, "error"),
            ("daily", None, Some(23 * HOUR), "nothing"),
            ("daily", None, Some(25 * HOUR), "pull"),
            ("weekly", None, Some(25 * HOUR), "nothing"),
            ("weekly", None, Some(169 * HOUR), "pull"),
            ("every_12h", None, Some(11 * HOUR), "nothing"),
            ("every_1d12h", None, Some(37 * HOUR), "pull"),
            ("daily", Some("never"), Some(25 * HOUR), "nothing"),
            ("daily", None, None, "pull"),
        ];
        for (own, told, age, want) in table {
            let service = Service {
                image: Some("i".to_owned()),
                pull_policy: Some((*own).to_owned()),
                ..Service::default()
            };
            let how = Images { pull: told.map(str::to_owned), ..Images::default() };
            let said = match wanted(&service, &how, *age, "i") {
                Ok(Want::Pull) => "pull",
                Ok(Want::Build) => "build",
                Ok(Want::Nothing) => "nothing",
                Err(_) => "error",
            };
            assert_eq!(said, *want, "{own} {told:?} {age:?}");
        }
    }
}
