//! From files to a project: parse, interpolate, long forms, `extends`, `include`, merge, defaults, checks.
//!
//! Nothing here looks at the machine: files come through [`Request::read`], variables through [`Request::environment`].

mod checks;
mod defaults;
mod extends;
mod find;
mod ignored;
mod include;
mod legacy;
mod paths;

pub use find::{FILES, OVERRIDES};

use crate::error::{Error, Result};
use crate::interpolate::{self, Lookup};
use crate::merge::{merge, settle, single};
use crate::node::{Node, Place, Value};
use crate::project::Project;
use crate::schema::{Kind, PROJECT, canonical};
use crate::{dotenv, yaml};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Files, each with what it extends and includes, at most: a chain of includes ends.
const FILES_READ: usize = 500;

/// Reads a file.
pub type Read<'a> = &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>;
/// Variables.
pub type Environment = BTreeMap<String, String>;

/// What to load, as the command line has it.
#[derive(Clone)]
pub struct Request<'a> {
    /// Where we are: absolute.
    pub cwd: PathBuf,
    /// `-f`; `-` is standard input. Empty: `COMPOSE_FILE`, or the usual names here and above.
    pub files: Vec<String>,
    /// `--project-directory`.
    pub directory: Option<String>,
    /// `-p`.
    pub name: Option<String>,
    /// `--profile`.
    pub profiles: Vec<String>,
    /// `--env-file`.
    pub env_files: Vec<String>,
    /// The process's environment.
    pub environment: Environment,
    /// Whether variables are replaced.
    pub interpolate: bool,
    /// Whether `env_file` becomes `environment`.
    pub resolve_environment: bool,
    /// Services that were named: their profiles are on, and so are those of what they need.
    pub services: Vec<String>,
    /// Reads a file; the path `-` is standard input.
    pub read: Read<'a>,
}

/// Loads a project.
///
/// # Errors
/// There is no file, or one is wrong: with its place.
pub fn load(request: &Request<'_>) -> Result<Project> {
    let seen = RefCell::new(BTreeSet::new());
    let read = |path: &Path| {
        seen.borrow_mut().insert(path.to_owned());
        (request.read)(path)
    };
    let loaded = model(&Request { read: &read, ..request.clone() })?;
    let found = loaded.found;
    let mut project = Project::typed(&loaded.name, loaded.model)?;
    project.directory = found.directory;
    project.files = found.files;
    project.env_files = found.env_files;
    project.read = seen.take().into_iter().filter(|path| path.as_os_str() != "-").collect();
    project.environment = loaded.environment;
    project.warnings = loaded.warnings;
    project.warnings.extend(ignored::keys(&project));
    project.activate(&found.profiles, &request.services)?;
    Ok(project)
}

/// The merged tree of a project, without types: what `config --no-interpolate` shows.
///
/// # Errors
/// As [`load`].
pub fn tree(request: &Request<'_>) -> Result<Node> {
    model(request).map(|loaded| loaded.model)
}

struct Loaded {
    name: String,
    model: Node,
    found: find::Found,
    environment: Environment,
    warnings: Vec<String>,
}

fn model(request: &Request<'_>) -> Result<Loaded> {
    let found = find::project(request)?;
    let unset = RefCell::new(BTreeSet::new());
    let loader = Loader {
        read: request.read,
        interpolate: request.interpolate,
        unset: &unset,
        count: RefCell::new(0),
    };
    let mut environment = found.environment.clone();
    let name = match &found.name {
        Some(name) => name.clone(),
        None => loader.name(&found, &environment)?,
    };
    environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    let mut model = loader.model(&found.files, &found.directory, &environment, &mut Vec::new())?;
    settle(&mut model);
    single(&mut model, &Kind::Object(PROJECT));
    let context = defaults::Context {
        name: &name,
        directory: &found.directory,
        environment: &environment,
        read: request.read,
        resolve_environment: request.resolve_environment,
        profiles: &found.profiles,
        named: &request.services,
    };
    defaults::apply(&mut model, &context)?;
    if request.interpolate {
        checks::whole(&model)?;
    }
    model.set("name", Node::text(name.clone(), &model.place.clone()));
    let warnings = unset
        .into_inner()
        .into_iter()
        .map(|name| format!("The \"{name}\" variable is not set. Defaulting to a blank string."))
        .collect();
    Ok(Loaded { name, model, found, environment, warnings })
}

struct Loader<'a> {
    read: Read<'a>,
    interpolate: bool,
    unset: &'a RefCell<BTreeSet<String>>,
    count: RefCell<usize>,
}

/// Names a file that cannot be read, as Docker's users know it.
fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::project(format!("open {}: no such file or directory", path.display()))
        }
        _ => Error::project(format!("open {}: {error}", path.display())),
    }
}

impl Loader<'_> {
    /// A file's documents in their long forms, variables replaced, paths resolved against `directory`.
    fn layers(&self, file: &Path, directory: &Path, environment: &Environment) -> Result<Vec<Node>> {
        *self.count.borrow_mut() += 1;
        if *self.count.borrow() > FILES_READ {
            return Err(Error::project(format!("more than {FILES_READ} files are extended or included")));
        }
        let bytes = (self.read)(file).map_err(|error| unreadable(file, &error))?;
        let shown = shown(file);
        let mut out = Vec::new();
        for mut node in yaml::parse(&shown, &bytes)? {
            if node.is_null() {
                continue;
            }
            if node.as_map().is_none() {
                return Err(Error::at(&node.place, "Top-level object must be a mapping"));
            }
            if self.interpolate {
                let lookup = |name: &str| environment.get(name).cloned();
                interpolate::tree(&mut node, "", &lookup, &mut self.unset.borrow_mut())?;
            }
            let node = legacy::current(node)?;
            let mut node = canonical(node, &Kind::Object(PROJECT), "")?;
            paths::resolve(&mut node, directory, environment.get("HOME").map(String::as_str));
            out.push(node);
        }
        Ok(out)
    }

    /// The files of one project, merged; `chain`: the files that include these.
    fn model(
        &self,
        files: &[PathBuf],
        directory: &Path,
        environment: &Environment,
        chain: &mut Vec<PathBuf>,
    ) -> Result<Node> {
        let mut model: Option<Node> = None;
        for file in files {
            if chain.contains(file) {
                return Err(Error::at(&Place::whole(&shown(file)), "include cycle detected"));
            }
            chain.push(file.clone());
            for mut layer in self.layers(file, directory, environment)? {
                let base = model.as_ref().and_then(|model| model.get("services")).cloned();
                self.extend(&mut layer, base.as_ref(), file, directory, environment)?;
                self.include(&mut layer, directory, environment, chain)?;
                model = Some(match model {
                    Some(base) => merge(base, layer, &Kind::Object(PROJECT)),
                    None => layer,
                });
            }
            chain.pop();
        }
        match model {
            Some(model) => Ok(model),
            None => Err(Error::project("empty compose file")),
        }
    }

    /// The project's own `name:`, or its directory's.
    fn name(&self, found: &find::Found, environment: &Environment) -> Result<String> {
        let mut name = None;
        for file in &found.files {
            let bytes = (self.read)(file).map_err(|error| unreadable(file, &error))?;
            for node in yaml::parse(&shown(file), &bytes)? {
                let given = node.get("name").filter(|node| node.scalar().is_some());
                if let Some(node) = given.filter(|_| !legacy::is_first(&node)) {
                    name = Some(node.clone());
                }
            }
        }
        let Some(mut node) = name else { return Ok(find::default_name(&found.directory)) };
        let lookup = |name: &str| environment.get(name).cloned();
        if self.interpolate {
            interpolate::tree(&mut node, "name", &lookup, &mut self.unset.borrow_mut())?;
        }
        let name = node.scalar().unwrap_or_default();
        find::sound_name(&name).map_err(|message| Error::at(&node.place, message))?;
        Ok(name)
    }
}

fn shown(file: &Path) -> String {
    file.to_string_lossy().into_owned()
}

/// A path as a file has it, against a directory: `~` is home, `..` is resolved in the text.
fn absolute(path: &str, directory: &Path, home: Option<&str>) -> PathBuf {
    let path = match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            Path::new(home).join(rest.trim_start_matches('/'))
        }
        _ => directory.join(path),
    };
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Reads variables from a file on top of others.
fn variables(
    read: Read<'_>,
    path: &Path,
    lookup: Lookup<'_>,
    raw: bool,
) -> Result<Vec<(String, Option<String>)>> {
    let bytes = read(path).map_err(|error| unreadable(path, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    dotenv::parse(&text, lookup, raw).map_err(|error| {
        let place = Place::whole(&shown(path));
        Error::at(&place, format!("failed to read: {error}"))
    })
}

fn list_of(node: Option<&Node>) -> Vec<String> {
    let items = node.and_then(Node::as_list).unwrap_or_default();
    items.iter().filter_map(Node::scalar).collect()
}

fn empty_map(place: &Place) -> Node {
    Node::new(Value::Map(BTreeMap::new()), place)
}

#[cfg(test)]
mod tests;
