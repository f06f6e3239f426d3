//! `include`: another project's resources, read in its own directory with its own variables.

use super::{Environment, Loader, list_of, variables};
use crate::error::{Error, Result};
use crate::node::{Entry, Node};
use std::path::{Path, PathBuf};

impl Loader<'_> {
    /// Adds what a file includes to it.
    pub(super) fn include(
        &self,
        layer: &mut Node,
        directory: &Path,
        environment: &Environment,
        chain: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let Some(includes) = layer.as_map_mut().and_then(|map| map.remove("include")) else { return Ok(()) };
        for include in includes.node.as_list().unwrap_or_default() {
            let files: Vec<PathBuf> = list_of(include.get("path")).into_iter().map(PathBuf::from).collect();
            let Some(first) = files.first() else {
                return Err(Error::at(&include.place, "include needs a path"));
            };
            let own = match include.get("project_directory").and_then(Node::scalar) {
                Some(own) => PathBuf::from(own),
                None => first.parent().unwrap_or(directory).to_owned(),
            };
            let placed = |error: Error| error.placed(&include.place);
            let variables = self.included_variables(include, &own, environment).map_err(placed)?;
            let included = self.model(&files, &own, &variables, chain).map_err(placed)?;
            import(layer, included, &include.place)?;
        }
        Ok(())
    }

    /// Ours first, then those of its files.
    fn included_variables(
        &self,
        include: &Node,
        own: &Path,
        environment: &Environment,
    ) -> Result<Environment> {
        let named = list_of(include.get("env_file"));
        let mut out = environment.clone();
        let mut files: Vec<PathBuf> = named.iter().map(PathBuf::from).collect();
        if files.is_empty() {
            let path = own.join(".env");
            if (self.read)(&path).is_ok() {
                files.push(path);
            }
        }
        for path in files.iter().rev() {
            let known = out.clone();
            for (name, value) in variables(self.read, path, &|name| known.get(name).cloned(), false)? {
                if let Some(value) = value {
                    out.entry(name).or_insert(value);
                }
            }
        }
        Ok(out)
    }
}

fn import(layer: &mut Node, included: Node, place: &crate::node::Place) -> Result<()> {
    for section in ["services", "networks", "volumes", "secrets", "configs", "models"] {
        let Some(found) = included.get(section).and_then(Node::as_map) else { continue };
        if layer.get(section).is_none() {
            layer.set(section, super::empty_map(place));
        }
        let Some(own) = layer.get_mut(section).and_then(Node::as_map_mut) else { continue };
        for (name, entry) in found {
            if let Some(known) = own.get(name)
                && known.node.json() != entry.node.json()
            {
                return Err(Error::at(
                    &known.place,
                    format!("{section}.{name} conflicts with imported resource"),
                )
                .hint(format!("the other one is at {}", entry.place)));
            }
            own.insert(name.clone(), Entry { place: entry.place.clone(), node: entry.node.clone() });
        }
    }
    Ok(())
}
