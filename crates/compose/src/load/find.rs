//! Which files, which directory, which variables, which name.

use super::{Environment, Request, absolute, variables};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The usual names, the first that is there; the last is that of compose's own beginning.
pub const FILES: &[&str] =
    &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml", "fig.yml", "fig.yaml"];
/// What is merged onto a file with a usual name.
pub const OVERRIDES: &[&str] = &[
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What was found.
pub struct Found {
    pub files: Vec<PathBuf>,
    pub directory: PathBuf,
    /// As the command line or a variable has it.
    pub name: Option<String>,
    pub profiles: Vec<String>,
    pub environment: Environment,
    pub env_files: Vec<PathBuf>,
}

fn exists(request: &Request<'_>, path: &Path) -> bool {
    (request.read)(path).is_ok()
}

/// Adds a file's variables beneath those that are there.
fn beneath(request: &Request<'_>, environment: &mut Environment, path: &Path) -> Result<()> {
    let known = environment.clone();
    for (name, value) in variables(request.read, path, &|name| known.get(name).cloned(), false)? {
        if let Some(value) = value
            && !known.contains_key(&name)
        {
            environment.insert(name, value);
        }
    }
    Ok(())
}

pub fn project(request: &Request<'_>) -> Result<Found> {
    let mut environment = request.environment.clone();
    let here = |path: &str| absolute(path, &request.cwd, None);
    let mut named: Vec<String> = request.env_files.clone();
    if named.is_empty()
        && let Some(list) = environment.get("COMPOSE_ENV_FILES")
    {
        named = list.split(',').map(str::to_owned).collect();
    }
    let mut env_files: Vec<PathBuf> = named.iter().map(|path| here(path)).collect();
    if env_files.is_empty() {
        let directory = request.directory.as_deref().map_or_else(|| request.cwd.clone(), here);
        let path = directory.join(".env");
        if exists(request, &path)
            && environment.get("COMPOSE_DISABLE_ENV_FILE").is_none_or(|off| off != "1" && off != "true")
        {
            env_files.push(path);
        }
    }
    // Of several files the later one counts.
    for path in env_files.iter().rev() {
        beneath(request, &mut environment, path)?;
    }
    let files = files(request, &environment)?;
    let directory = match (&request.directory, files.first()) {
        (Some(directory), _) => here(directory),
        (None, Some(first)) if first.as_os_str() != "-" => first.parent().unwrap_or(&request.cwd).to_owned(),
        _ => request.cwd.clone(),
    };
    let own = directory.join(".env");
    if named.is_empty() && !env_files.contains(&own) && exists(request, &own) {
        beneath(request, &mut environment, &own)?;
        env_files.push(own);
    }
    let mut profiles = request.profiles.clone();
    if profiles.is_empty() {
        let list = environment.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
        profiles =
            list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    }
    let name = request.name.clone().or_else(|| environment.get("COMPOSE_PROJECT_NAME").cloned());
    let name = name.filter(|name| !name.is_empty());
    if let Some(name) = &name {
        sound_name(name).map_err(Error::project)?;
    }
    let shown_env = if named.is_empty() { Vec::new() } else { env_files };
    Ok(Found { files, directory, name, profiles, environment, env_files: shown_env })
}

fn files(request: &Request<'_>, environment: &Environment) -> Result<Vec<PathBuf>> {
    let one = |path: &String| match path.as_str() {
        "-" => PathBuf::from("-"),
        path => absolute(path, &request.cwd, None),
    };
    if !request.files.is_empty() {
        return Ok(request.files.iter().map(one).collect());
    }
    if let Some(list) = environment.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
        let separator = separator.map_or(":", String::as_str);
        return Ok(list.split(separator).map(|path| one(&path.to_owned())).collect());
    }
    let start = request
        .directory
        .as_deref()
        .map_or_else(|| request.cwd.clone(), |path| absolute(path, &request.cwd, None));
    for directory in start.ancestors() {
        if let Some(first) = FILES.iter().map(|name| directory.join(name)).find(|path| exists(request, path))
        {
            let over = OVERRIDES.iter().map(|name| directory.join(name)).find(|path| exists(request, path));
            return Ok(std::iter::once(first).chain(over).collect());
        }
    }
    Err(Error::project("no configuration file provided: not found"))
}

/// A project's name from its directory's.
pub fn default_name(directory: &Path) -> String {
    let base = directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let kept: String =
        base.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(*c)).collect();
    let name = kept.trim_start_matches(['_', '-']);
    if name.is_empty() { "default".to_owned() } else { name.to_owned() }
}

/// # Errors
/// Docker's words for a name that cannot be.
pub fn sound_name(name: &str) -> Result<(), String> {
    let sound = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if sound {
        return Ok(());
    }
    Err(format!(
        "invalid project name \"{name}\": must consist only of lowercase alphanumeric characters, hyphens, and underscores as well as start with a letter or number"
    ))
}
