//! Which tasks there are from here: those of the command line, of the project of this directory, and of projects that were
//! enabled (`projects/<name>.json`: where their files are).

use crate::command::compose::project as place;
use crate::fail::{Failure, file};
use crate::session::Session;
use compose::apply::{self, Images};
use compose::body::{Around, Which};
use compose::plan::Plan;
use compose::{Project, Service};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use task::definition::{Definition, Once, Wrong};
use task::once::Helper;
use task::registry;
use task::run::Task;
use task::{Home, Key};

/// A task and where it is written.
#[derive(Clone)]
pub struct Known {
    /// The task; of a service its container is completed by [`complete`].
    pub task: Task,
    /// Its project, where it is a service.
    pub project: Option<Rc<Project>>,
    /// The `pre_start` step that it is, of the service that its name begins with.
    pub step: Option<usize>,
}

impl Known {
    /// The service that it is, as a step changes it.
    fn service(&self) -> Result<Cow<'_, Service>, Failure> {
        let name = &self.task.key.task;
        let project = self.project.as_ref().ok_or_else(|| missing(name))?;
        let find = |name: &str| project.services.get(name).or_else(|| project.disabled.get(name));
        let Some(step) = self.step else { return find(name).map(Cow::Borrowed).ok_or_else(|| missing(name)) };
        let service = name.rsplit_once(PRE_START).and_then(|(service, _)| find(service));
        let found = service.and_then(|service| Some(service.step(service.pre_start.get(step)?)));
        found.map(Cow::Owned).ok_or_else(|| missing(name))
    }
}

/// What stands between a service's name and the number of a step of its.
const PRE_START: &str = ".pre_start.";

/// Where an enabled project's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enabled {
    name: String,
    directory: PathBuf,
    files: Vec<PathBuf>,
    env_files: Vec<PathBuf>,
    /// Whatever was read to know the project: files that are included or extended, and those with variables.
    #[serde(default)]
    read: Vec<PathBuf>,
}

/// Every task that is known here, by name, and whether all could be read: what could not is said.
pub fn all(session: &Session, home: &Home) -> Result<(Vec<Known>, bool), Failure> {
    let mut tasks = Vec::new();
    let (known, mut failures) = known(home);
    let here = here(session).unwrap_or_else(|failure| {
        failures.push(failure);
        None
    });
    match here.as_ref().map_or(Ok(Vec::new()), of) {
        Ok(found) => tasks.extend(found),
        Err(failure) => failures.push(failure),
    }
    for failure in &failures {
        session.complain(failure);
    }
    let mine = here.map(|project| project.name.clone());
    tasks.extend(known.into_iter().filter(|known| Some(&known.task.key.project) != mine.as_ref()));
    Ok((tasks, failures.is_empty()))
}

/// Every task that runs by itself, and what could not be read.
pub fn known(home: &Home) -> (Vec<Known>, Vec<Failure>) {
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    let mut take = |found: Result<Vec<Known>, Failure>| match found {
        Ok(found) => tasks.extend(found),
        Err(failure) => failures.push(failure),
    };
    match registry::all(home) {
        Ok(kept) => {
            for kept in kept {
                take(kept.map_err(Failure::from).and_then(own).map(|known| vec![known]));
            }
        }
        Err(error) => take(Err(error.into())),
    }
    match enabled(home) {
        Ok(enabled) => {
            for enabled in enabled {
                take(enabled.and_then(|enabled| enabled.load()).and_then(|project| of(&project)));
            }
        }
        Err(failure) => take(Err(failure)),
    }
    (tasks, failures)
}

/// What changes when [`known`] does.
pub fn watched(home: &Home) -> Vec<PathBuf> {
    let mut paths = vec![home.definitions(), home.projects()];
    for enabled in enabled(home).unwrap_or_default().into_iter().flatten() {
        paths.extend(enabled.watched());
    }
    paths
}

fn own(kept: registry::Kept) -> Result<Known, Failure> {
    Ok(Known { task: kept.task()?, project: None, step: None })
}

/// One task by its name, `PROJECT/NAME` of another project.
pub fn find(session: &Session, home: &Home, name: &str) -> Result<Known, Failure> {
    if let Some((project, name)) = name.split_once('/') {
        let project = named(session, home, project)?;
        return within(&project, name)?.ok_or_else(|| missing(name));
    }
    if let Some(project) = here(session)?
        && let Some(known) = within(&project, name)?
    {
        return Ok(known);
    }
    if let Some(kept) = registry::find(home, name)? {
        return own(kept);
    }
    let mut found: Vec<Known> =
        known(home).0.into_iter().filter(|known| known.task.key.task == name).collect();
    match found.len() {
        0 => Err(missing(name)),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<String> = found.iter().map(|known| known.task.key.to_string()).collect();
            Err(Failure::new(format!(
                "several projects have a task {name}: say which of {}",
                names.join(", ")
            )))
        }
    }
}

/// A project by its name: this directory's, or one that is enabled.
fn named(session: &Session, home: &Home, name: &str) -> Result<Rc<Project>, Failure> {
    if let Some(here) = here(session)?.filter(|here| here.name == name) {
        return Ok(here);
    }
    let enabled = Enabled::read(&path(home, name))?.ok_or_else(|| {
        Failure::new(format!("no such project: {name}\nenable it where its files are: cauldron task enable"))
    })?;
    enabled.load()
}

fn missing(name: &str) -> Failure {
    Failure::new(format!("no such task: {name}\nsee `cauldron task ls`"))
}

/// A task that another one names: of the same project, or of the command line.
pub fn find_beside(session: &Session, home: &Home, of: &Known, name: &str) -> Result<Known, Failure> {
    if let Some(project) = &of.project
        && let Some(known) = within(project, name)?
    {
        return Ok(known);
    }
    find(session, home, name)
        .map_err(|failure| Failure::new(format!("task {}: {}", of.task.key, failure.message)))
}

/// The name under which the history knows a task, also one that is not defined any more.
pub fn key(session: &Session, home: &Home, name: &str) -> Result<Key, Failure> {
    match find(session, home, name) {
        Ok(known) => Ok(known.task.key),
        Err(failure) if failure.message.starts_with("no such") => Ok(match name.split_once('/') {
            Some((project, task)) => Key { project: project.to_owned(), task: task.to_owned() },
            None => Key { project: String::new(), task: name.to_owned() },
        }),
        Err(failure) => Err(failure),
    }
}

/// The project of this directory, or of `-f`; `None` where there are no files.
pub fn here(session: &Session) -> Result<Option<Rc<Project>>, Failure> {
    match place::with_request(session, &[], compose::load)? {
        Ok(project) => Ok(Some(Rc::new(project))),
        Err(compose::Error::Project(text)) if text.starts_with("no configuration file provided") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The tasks of a project; those of profiles that are off as well: `up` starts none of them.
fn of(project: &Rc<Project>) -> Result<Vec<Known>, Failure> {
    let names: BTreeSet<&String> = project.services.keys().chain(project.disabled.keys()).collect();
    let mut tasks = Vec::new();
    for name in names {
        tasks.extend(within(project, name)?);
    }
    Ok(tasks)
}

/// A service of a project as a task, if it is one.
pub fn within(project: &Rc<Project>, name: &str) -> Result<Option<Known>, Failure> {
    let Some(service) = project.services.get(name).or_else(|| project.disabled.get(name)) else {
        return Ok(None);
    };
    let Some(node) = &service.task else { return Ok(None) };
    let mut definition = Definition::parse(&node.json()).map_err(|wrong| misplaced(node, name, &wrong))?;
    if let Some(backup) = &mut definition.backup {
        backup.resolve(&project.directory);
    }
    let key = Key { project: project.name.clone(), task: name.to_owned() };
    let mut body = json!({"Image": service.image_name(&project.name)});
    if let Some(command) = &service.command {
        body["Cmd"] = command.clone().into();
    }
    Ok(Some(Known {
        task: Task { key, definition, body, ..Task::default() },
        project: Some(Rc::clone(project)),
        step: None,
    }))
}

/// Whether what a project's tasks name is there: each other, tasks of the command line, volumes.
pub fn check(home: &Home, project: &Rc<Project>) -> Result<(), Failure> {
    of(project)?.iter().try_for_each(|known| references(home, known))
}

/// Whether what a task of a project names is there.
pub fn references(home: &Home, known: &Known) -> Result<(), Failure> {
    let Some(project) = known.project.as_ref().filter(|_| known.step.is_none()) else { return Ok(()) };
    let (definition, name) = (&known.task.definition, &known.task.key.task);
    let service = known.service()?;
    let wrong = |path: &[&str], message: String| {
        let wrong = Wrong { path: path.iter().map(|part| (*part).to_owned()).collect(), message };
        Err(match &service.task {
            Some(node) => misplaced(node, name, &wrong),
            None => Failure::new(wrong.to_string()),
        })
    };
    if let Some(once) = &definition.once
        && !project.volumes.contains_key(&once.volume)
    {
        return wrong(&["once"], format!("the project has no volume {}", once.volume));
    }
    let backup = definition.backup.iter();
    let others = backup.flat_map(|backup| {
        [(&["backup", "verify"][..], &backup.verify), (&["backup", "restore"], &backup.restore)]
    });
    let others = others.filter_map(|(path, name)| Some((path, name.as_ref()?)));
    let next = [(&["on_success"][..], &definition.on_success), (&["on_failure"], &definition.on_failure)];
    let next = next.into_iter().flat_map(|(path, names)| names.iter().map(move |name| (path, name)));
    for (path, other) in others.chain(next) {
        let beside = project.services.get(other).or_else(|| project.disabled.get(other));
        // Another project's is looked for when it is its turn.
        let found = other.contains('/')
            || beside.is_some_and(Service::is_task)
            || registry::find(home, other)?.is_some();
        if !found {
            let hint = if beside.is_some() { ": the service has no x-task" } else { "" };
            return wrong(path, format!("no such task: {other}{hint}"));
        }
    }
    Ok(())
}

/// The `pre_start` steps of a service that prepare a volume once, as helpers.
pub fn steps(project: &Rc<Project>, name: &str) -> Result<Vec<Known>, Failure> {
    let service = project.services.get(name).or_else(|| project.disabled.get(name));
    let service = service.ok_or_else(|| missing(name))?;
    let mut steps = Vec::new();
    for (step, hook) in service.pre_start.iter().enumerate() {
        let Some(volume) = service.once(hook)? else { continue };
        let once = Some(Once { volume: volume.to_owned(), version: None });
        // As compose's containers are.
        let definition = Definition { once, new_privileges: true, ..Definition::default() };
        let key = Key { project: project.name.clone(), task: format!("{name}{PRE_START}{}", step + 1) };
        let body = json!({"Image": service.step(hook).image_name(&project.name)});
        let task = Task { key, definition, body, ..Task::default() };
        steps.push(Known { task, project: Some(Rc::clone(project)), step: Some(step) });
    }
    Ok(steps)
}

/// Every such step of this directory's project, and of the projects that tasks are of.
pub fn all_steps(session: &Session, tasks: &[Known]) -> Result<Vec<Known>, Failure> {
    // What is wrong with it was said when its tasks were read.
    let here = here(session).ok().flatten();
    let others = tasks.iter().filter_map(|known| known.project.clone());
    let projects: BTreeMap<String, Rc<Project>> =
        others.chain(here).map(|project| (project.name.clone(), project)).collect();
    let mut all = Vec::new();
    for project in projects.values() {
        for name in project.services.keys().chain(project.disabled.keys()) {
            all.extend(steps(project, name)?);
        }
    }
    Ok(all)
}

/// The helpers of a name: a task with `once`, `SERVICE.pre_start`, or one step of that.
pub fn helpers(session: &Session, home: &Home, name: &str) -> Result<Vec<Known>, Failure> {
    let (place, short) = name.split_once('/').map_or((None, name), |(project, short)| (Some(project), short));
    let service =
        short.split_once(PRE_START).map(|(service, _)| service).or(short.strip_suffix(".pre_start"));
    let Some(service) = service else { return Ok(vec![find(session, home, name)?]) };
    let project = match place {
        Some(place) => named(session, home, place)?,
        None => here(session)?.ok_or_else(|| missing(name))?,
    };
    let mut steps = steps(&project, service)?;
    steps.retain(|known| short.ends_with(".pre_start") || known.task.key.task == short);
    if steps.is_empty() { Err(missing(name)) } else { Ok(steps) }
}

/// What is wrong, with its place in the file.
fn misplaced(node: &compose::Node, service: &str, wrong: &Wrong) -> Failure {
    let mut at = node;
    let mut place = &node.place;
    for part in &wrong.path {
        let Some(entry) = at.as_map().and_then(|map| map.get(part)) else { break };
        (at, place) = (&entry.node, &entry.place);
    }
    Failure::new(format!("{place}: services.{service}.{wrong}"))
}

/// The whole container of a task that is a service.
pub async fn complete(session: &Session, known: &Known) -> Result<Task, Failure> {
    let Some(project) = &known.project else { return Ok(known.task.clone()) };
    let service = known.service()?;
    let mut containers: BTreeMap<String, (String, String)> = BTreeMap::new();
    for one in compose::actual::containers(session.client()?, &project.name).await? {
        if !one.oneoff && (one.runs() || !containers.contains_key(&one.service)) {
            containers.insert(one.service, (one.id, one.name));
        }
    }
    let container = |name: &str| containers.get(name).cloned();
    let which = Which { number: 1, oneoff: true, aliases: false, ports: known.step.is_none() };
    let delivers = compose::apply::delivers(session.client()?).await?;
    let around = Around { container: &container, inherited: &BTreeMap::new(), image_id: "", delivers };
    let made = compose::body::body(project, &service, &which, &around)?;
    let mut body = value(&made.create)?;
    for (network, endpoint) in &made.networks {
        body["NetworkingConfig"]["EndpointsConfig"][network] = value(endpoint)?;
    }
    Ok(Task { body, deliveries: made.deliveries, platform: made.platform, ..known.task.clone() })
}

fn value(what: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(what).map_err(|error| Failure::new(error.to_string()))
}

/// Makes what a task of a project needs: its image, networks and volumes.
pub async fn provide(session: &Session, known: &Known) -> Result<(), Failure> {
    let Some(project) = &known.project else { return Ok(()) };
    let host = place::host(session)?;
    let service = known.service()?;
    let own = known.step.is_some().then_some(service.image.as_deref()).flatten();
    match own {
        Some(image) if apply::image_of(&host, image).await?.is_some() => {}
        // A step may have an image of its own.
        Some(image) if service.build.is_none() => apply::pull(&host, &service, image, true).await?,
        _ => {
            let images = Images { quiet: true, ..Images::default() };
            apply::ensure(&host, project, std::slice::from_ref(&service.name), &images).await?;
        }
    }
    let names = |listed: Vec<Value>| -> BTreeSet<String> {
        listed.iter().filter_map(|one| one["Name"].as_str().map(str::to_owned)).collect()
    };
    let networks = names(compose::actual::networks(&host.client).await?);
    let volumes = names(compose::actual::volumes(&host.client).await?);
    let plan = Plan {
        networks: service
            .networks
            .keys()
            .filter(|key| {
                project.networks.get(*key).is_some_and(|own| !own.external && !networks.contains(&own.name))
            })
            .cloned()
            .collect(),
        volumes: service
            .volumes
            .iter()
            .filter(|mount| mount.kind == "volume")
            .filter_map(|mount| mount.source.clone())
            .filter(|key| {
                project.volumes.get(key).is_some_and(|own| !own.external && !volumes.contains(&own.name))
            })
            .collect(),
        ..Plan::default()
    };
    Ok(apply::resources(&host, project, &plan).await?)
}

/// A helper with the volume that it works on; `None` where the task is no helper.
pub async fn helper(session: &Session, known: &Known) -> Result<Option<Helper>, Failure> {
    let Some(once) = &known.task.definition.once else { return Ok(None) };
    let volume = match &known.project {
        None => once.volume.clone(),
        Some(project) => match project.volumes.get(&once.volume) {
            Some(volume) => volume.name.clone(),
            None => {
                return Err(Failure::new(format!(
                    "services.{}.x-task.once: the project has no volume {}",
                    known.task.key.task, once.volume
                )));
            }
        },
    };
    let task = complete(session, known).await?;
    let (ledger, inputs) = match (known.step, &known.project) {
        (Some(step), Some(project)) => {
            let name = task.key.task.rsplit_once(PRE_START).map_or("", |(name, _)| name);
            let hook = project.services.get(name).or_else(|| project.disabled.get(name));
            let hook = hook.and_then(|service| service.pre_start.get(step));
            let own = hook.map(|hook| hook.environment.keys().cloned().collect()).unwrap_or_default();
            (format!("{}/{name}.pre_start", project.name), Some(inputs(&task.body, &own)))
        }
        _ => (task.key.to_string(), None),
    };
    Ok(Some(Helper { task, volume, version: once.version, ledger, inputs }))
}

/// What a step itself says of its container: the rest is its service's, and may change.
fn inputs(body: &Value, variables: &BTreeSet<String>) -> Value {
    let mut own =
        json!({"HostConfig": {"Binds": body["HostConfig"]["Binds"], "Mounts": body["HostConfig"]["Mounts"]}});
    for key in ["Cmd", "Entrypoint", "User", "WorkingDir"] {
        own[key] = body[key].clone();
    }
    let env = body["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let env = env.filter(|entry| variables.contains(entry.split('=').next().unwrap_or_default()));
    own["Env"] = env.collect::<Vec<_>>().into();
    own
}

/// A helper and, before it, those of its volume with lower versions.
pub fn before(session: &Session, home: &Home, known: &Known) -> Result<Vec<Known>, Failure> {
    let Some(once) = &known.task.definition.once else {
        return Err(Failure::new(format!("task {} is no helper: it has no once", known.task.key)));
    };
    let Some(version) = once.version else { return Ok(vec![known.clone()]) };
    let beside = match &known.project {
        Some(project) => of(project)?,
        None => all(session, home)?.0.into_iter().filter(|other| other.project.is_none()).collect(),
    };
    let mut helpers: Vec<Known> = beside
        .into_iter()
        .filter(|other| {
            let other = other.task.definition.once.as_ref();
            other.is_some_and(|other| {
                other.volume == once.volume && other.version.is_some_and(|other| other < version)
            })
        })
        .collect();
    helpers.sort_by_key(|other| other.task.definition.once.as_ref().and_then(|once| once.version));
    helpers.push(known.clone());
    Ok(helpers)
}

/// The projects that are enabled, by name, and for a file that cannot be read why.
fn enabled(home: &Home) -> Result<Vec<Result<Enabled, Failure>>, Failure> {
    let dir = home.projects();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(file("read directory", &dir))? {
        let path = entry.map_err(file("read directory", &dir))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths.iter().filter_map(|path| Enabled::read(path).transpose()).collect())
}

impl Enabled {
    /// What was noted, if it was.
    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => serde_json::from_slice(&read.map_err(file("read", path))?)
                .map(Some)
                .map_err(|error| Failure::new(format!("read {}: {error}", path.display()))),
        }
    }
    /// Where a project's files are.
    pub fn of(project: &Rc<Project>) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self {
            name: project.name.clone(),
            directory: absolute(&project.directory),
            files: project.files.iter().map(absolute).collect(),
            env_files: project.env_files.iter().map(absolute).collect(),
            read: project.read.iter().map(absolute).collect(),
        }
    }
    /// What changes when the project does.
    pub fn watched(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.directory.join(".env")];
        paths.extend(self.files.iter().cloned());
        paths.extend(self.env_files.iter().cloned());
        paths.extend(self.read.iter().cloned());
        paths
    }
    /// Reads the files.
    pub fn load(&self) -> Result<Rc<Project>, Failure> {
        let text = |path: &PathBuf| path.display().to_string();
        let request = compose::Request {
            cwd: self.directory.clone(),
            files: self.files.iter().map(text).collect(),
            directory: Some(text(&self.directory)),
            name: Some(self.name.clone()),
            profiles: Vec::new(),
            env_files: self.env_files.iter().map(text).collect(),
            environment: place::environment(),
            interpolate: true,
            resolve_environment: true,
            services: Vec::new(),
            read: &place::read,
        };
        Ok(Rc::new(
            compose::load(&request)
                .map_err(|error| Failure::new(format!("project {}: {error}", self.name)))?,
        ))
    }
}

fn path(home: &Home, name: &str) -> PathBuf {
    home.projects().join(format!("{name}.json"))
}

/// Notes where a project's files are, so that its schedules run; whether it has any.
pub fn enable(home: &Home, project: &Rc<Project>) -> Result<bool, Failure> {
    check(home, project)?;
    let scheduled = of(project)?.iter().any(|known| known.task.definition.schedule.is_some());
    let path = path(home, &project.name);
    if !scheduled {
        // One that had schedules before has none any more.
        if path.exists() {
            disable(home, &project.name)?;
        }
        return Ok(false);
    }
    let bytes =
        serde_json::to_vec_pretty(&Enabled::of(project)).map_err(|error| Failure::new(error.to_string()))?;
    if std::fs::read(&path).is_ok_and(|known| known == bytes) {
        return Ok(true);
    }
    task::home::write(&path, &bytes)?;
    Ok(true)
}

/// Forgets where a project's files are; whether it was known.
pub fn disable(home: &Home, name: &str) -> Result<bool, Failure> {
    let path = path(home, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).map_err(file("remove", &path)),
    }
}
