//! `extends`: a service is another one with changes.

use super::{Environment, Loader, shown};
use crate::error::{Error, Result, meant};
use crate::merge::merge;
use crate::node::{Node, Place};
use crate::schema::{Kind, SERVICE};
use std::path::{Path, PathBuf};

/// What a chain of `extends` went through.
type Trail = Vec<(PathBuf, String)>;

impl Loader<'_> {
    /// Resolves every `extends` of a file; `base` are the services of the files before it.
    pub(super) fn extend(
        &self,
        layer: &mut Node,
        base: Option<&Node>,
        file: &Path,
        directory: &Path,
        environment: &Environment,
    ) -> Result<()> {
        let Some(services) = layer.get("services").cloned() else { return Ok(()) };
        let names: Vec<String> =
            services.as_map().map(|map| map.keys().cloned().collect()).unwrap_or_default();
        for name in names {
            let Some(service) = services.get(&name).filter(|service| service.get("extends").is_some()) else {
                continue;
            };
            let scope = Scope { services: &services, base, file, directory };
            let mut trail = vec![(file.to_owned(), name.clone())];
            let whole = self.extended(service.clone(), &scope, environment, &mut trail)?;
            if let Some(services) = layer.get_mut("services") {
                services.set(&name, whole);
            }
        }
        Ok(())
    }

    fn extended(
        &self,
        mut service: Node,
        scope: &Scope<'_>,
        environment: &Environment,
        trail: &mut Trail,
    ) -> Result<Node> {
        let Some(extends) = service.as_map_mut().and_then(|map| map.remove("extends")) else {
            return Ok(service);
        };
        let extends = extends.node;
        let Some(name) = extends.get("service").and_then(Node::scalar) else {
            return Err(Error::at(&extends.place, "extends needs a service"));
        };
        let file = extends.get("file").and_then(Node::scalar).map(PathBuf::from);
        let step = (file.clone().unwrap_or_else(|| scope.file.to_owned()), name.clone());
        if trail.contains(&step) {
            let chain: Vec<&str> =
                trail.iter().map(|(_, name)| name.as_str()).chain([name.as_str()]).collect();
            return Err(Error::at(
                &extends.place,
                format!("Circular reference: {}", chain.join(" extends ")),
            ));
        }
        trail.push(step);
        let parent = match &file {
            None => {
                let found = scope.services.get(&name).or_else(|| scope.base.and_then(|base| base.get(&name)));
                let found = found
                    .cloned()
                    .ok_or_else(|| missing(&name, scope.services, scope.file, &extends.place))?;
                self.extended(found, scope, environment, trail)?
            }
            Some(file) => {
                let directory = file.parent().unwrap_or(scope.directory).to_owned();
                let layers = self
                    .layers(file, &directory, environment)
                    .map_err(|error| error.placed(&extends.place))?;
                let services = layers.into_iter().filter_map(|layer| layer.get("services").cloned());
                let services = services.reduce(|a, b| merge(a, b, &Kind::Map(&Kind::Object(SERVICE))));
                let services = services.unwrap_or_else(|| super::empty_map(&extends.place));
                let found = services
                    .get(&name)
                    .cloned()
                    .ok_or_else(|| missing(&name, &services, file, &extends.place))?;
                let scope = Scope { services: &services, base: None, file, directory: &directory };
                self.extended(found, &scope, environment, trail)?
            }
        };
        trail.pop();
        Ok(merge(parent, service, &Kind::Object(SERVICE)))
    }
}

struct Scope<'a> {
    services: &'a Node,
    base: Option<&'a Node>,
    file: &'a Path,
    directory: &'a Path,
}

fn missing(name: &str, services: &Node, file: &Path, place: &Place) -> Error {
    let error =
        Error::at(place, format!("cannot extend service \"{name}\" in {}: service not found", shown(file)));
    let known = services.as_map().into_iter().flat_map(|map| map.keys().map(String::as_str));
    match meant(name, known) {
        Some(name) => error.hint(format!("did you mean '{name}'?")),
        None => error,
    }
}
