//! What `up` would do: desired against actual. Pure.

use crate::actual::Container;
use crate::body::{network_differs, supported};
use crate::error::{Error, Result};
use crate::labels;
use crate::order;
use crate::project::{Project, Service};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The services that were named; none is all that are no tasks.
    pub services: Vec<String>,
    /// Without what they need.
    pub no_deps: bool,
    /// Make containers anew even where nothing changed.
    pub force_recreate: bool,
    /// Leave containers as they are.
    pub no_recreate: bool,
    /// As `force_recreate`, for what the named services need.
    pub always_recreate_deps: bool,
    /// Remove containers of services that are no more.
    pub remove_orphans: bool,
    /// New anonymous volumes.
    pub renew_volumes: bool,
    /// How many containers, by service.
    pub scale: BTreeMap<String, i64>,
    /// Seconds to stop in.
    pub timeout: Option<i64>,
    /// Create, but do not start.
    pub no_start: bool,
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    /// The project's containers.
    pub containers: Vec<Container>,
    /// The engine's networks.
    pub networks: Vec<Value>,
    /// The engine's volumes.
    pub volumes: Vec<Value>,
    /// The ids of the services' images.
    pub images: BTreeMap<String, String>,
    /// Containers, by id, whose secrets or configs are not what they were given.
    pub redelivered: BTreeSet<String>,
}

/// What is done about one container.
#[derive(Clone, Debug)]
pub enum Step {
    /// Make it.
    Create(u32),
    /// Make it anew, for this reason.
    Recreate(Container, String),
    /// Leave it, and start it if it does not run.
    Keep(Container),
    /// It is one too many.
    Remove(Container),
}

/// What is done about a service.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub service: String,
    /// Its containers.
    pub steps: Vec<Step>,
    /// It is a task that runs once, by its ledger.
    pub once: bool,
}

/// What is done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Networks to make, by key.
    pub networks: Vec<String>,
    /// Networks to make anew, by key; with the reason.
    pub renewed: Vec<(String, String)>,
    /// Volumes to make, by key.
    pub volumes: Vec<String>,
    /// Containers of services that are no more.
    pub orphans: Vec<Container>,
    /// Services, what is needed first.
    pub parts: Vec<Part>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The services that are meant: those named, or all that are no tasks; and what they need.
///
/// # Errors
/// There is no such service.
pub fn selected(project: &Project, names: &[String], no_deps: bool) -> Result<Vec<String>> {
    let mut open: Vec<String> = Vec::new();
    if names.is_empty() {
        open.extend(
            project
                .services
                .values()
                .filter(|service| !service.is_task())
                .map(|service| service.name.clone()),
        );
    }
    for name in names {
        open.push(project.service(name)?.name.clone());
    }
    let mut wanted = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some(service) = project.services.get(&name) else { continue };
        if wanted.insert(name) && !no_deps {
            open.extend(
                service.depends_on.keys().filter(|need| project.services.contains_key(*need)).cloned(),
            );
        }
    }
    Ok(order::by_need(project).into_iter().filter(|name| wanted.contains(name)).collect())
}

/// Makes the plan; `ledger`: tasks that are needed run by their ledger.
///
/// # Errors
/// A named service does not exist, or an external resource is missing.
pub fn plan(project: &Project, actual: &Actual, wishes: &Wishes, ledger: bool) -> Result<Plan> {
    let wanted = selected(project, &wishes.services, wishes.no_deps)?;
    for name in wishes.scale.keys() {
        project.service(name)?;
    }
    for service in wanted.iter().filter_map(|name| project.services.get(name)) {
        supported(project, service)?;
    }
    let mut plan = Plan::default();
    networks(project, &wanted, actual, &mut plan)?;
    volumes(project, &wanted, actual, &mut plan)?;
    let known = |container: &&Container| {
        project.services.contains_key(&container.service) || project.disabled.contains_key(&container.service)
    };
    let orphans: Vec<Container> = actual
        .containers
        .iter()
        .filter(|container| !known(container) && !container.oneoff)
        .cloned()
        .collect();
    if wishes.remove_orphans {
        plan.orphans = orphans;
    } else if !orphans.is_empty() {
        let names: Vec<&str> = orphans.iter().map(|container| container.name.as_str()).collect();
        plan.warnings.push(format!(
            "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.",
            names.join(" ")
        ));
    }
    let mut renewed: BTreeSet<String> = BTreeSet::new();
    for name in &wanted {
        let Some(service) = project.services.get(name) else { continue };
        let part = if ledger && service.is_task() && !wishes.services.contains(name) {
            Part { service: name.clone(), steps: Vec::new(), once: true }
        } else {
            let scene = Scene { project, actual, wishes, plan: &plan, renewed: &renewed };
            Part { service: name.clone(), steps: scene.steps(service), once: false }
        };
        if part.steps.iter().any(|step| matches!(step, Step::Recreate(..) | Step::Create(_))) {
            renewed.insert(name.clone());
        }
        plan.parts.push(part);
    }
    Ok(plan)
}

/// What a service's steps depend on.
struct Scene<'a> {
    project: &'a Project,
    actual: &'a Actual,
    wishes: &'a Wishes,
    plan: &'a Plan,
    /// Services that get new containers.
    renewed: &'a BTreeSet<String>,
}

impl Scene<'_> {
    fn steps(&self, service: &Service) -> Vec<Step> {
        let want = self.wishes.scale.get(&service.name).copied().unwrap_or_else(|| service.replicas()).max(0);
        let want = usize::try_from(want).unwrap_or(0);
        let mut have: Vec<(&Container, Option<String>)> = self
            .actual
            .containers
            .iter()
            .filter(|one| one.service == service.name && !one.oneoff)
            .map(|one| (one, self.reason(service, one)))
            .collect();
        // What runs and is as it should be stays first.
        have.sort_by_key(|(one, reason)| (reason.is_some(), !one.runs(), one.number));
        let taken: BTreeSet<u32> = have.iter().map(|(one, _)| one.number).collect();
        let missing = want.saturating_sub(have.len());
        let mut steps: Vec<Step> = Vec::new();
        for (index, (one, reason)) in have.into_iter().enumerate() {
            steps.push(match reason {
                _ if index >= want => Step::Remove(one.clone()),
                Some(reason) => Step::Recreate(one.clone(), reason),
                None => Step::Keep(one.clone()),
            });
        }
        steps.extend((1..).filter(|number| !taken.contains(number)).take(missing).map(Step::Create));
        steps
    }

    /// Why a container is made anew.
    fn reason(&self, service: &Service, one: &Container) -> Option<String> {
        let wishes = self.wishes;
        let named = wishes.services.is_empty() || wishes.services.contains(&service.name);
        if wishes.no_recreate {
            return None;
        }
        if if named { wishes.force_recreate } else { wishes.always_recreate_deps } {
            return Some("asked for".to_owned());
        }
        diverged(self.project, service, one, self.actual, self.plan, self.renewed)
    }
}

/// Why a container is not what its service asks for.
fn diverged(
    project: &Project,
    service: &Service,
    one: &Container,
    actual: &Actual,
    plan: &Plan,
    renewed: &BTreeSet<String>,
) -> Option<String> {
    if one.hash != labels::hash(project, service) {
        return Some("the configuration changed".to_owned());
    }
    if actual.redelivered.contains(&one.id) {
        return Some("a secret or config changed".to_owned());
    }
    if let Some(image) = actual.images.get(&service.name)
        && !one.image_id.is_empty()
        && *image != one.image_id
    {
        return Some("the image changed".to_owned());
    }
    for key in service.networks.keys() {
        let name = project.networks.get(key).map_or(key.as_str(), |network| network.name.as_str());
        let gone = plan.networks.contains(key) || plan.renewed.iter().any(|(renewed, _)| renewed == key);
        if gone || !one.networks.iter().any(|known| known == name) {
            return Some(format!("network {name} changed"));
        }
    }
    for mount in service.volumes.iter().filter(|mount| mount.kind == "volume") {
        let Some(volume) = mount.source.as_ref().and_then(|key| project.volumes.get(key)) else { continue };
        if one.volumes.get(&mount.target) != Some(&volume.name) {
            return Some(format!("volume {} changed", volume.name));
        }
    }
    let shared = [&service.network_mode, &service.ipc, &service.pid];
    let shared = shared.into_iter().flatten().filter_map(|mode| mode.strip_prefix("service:"));
    let from = service.volumes_from.iter().map(|text| text.split(':').next().unwrap_or_default());
    let other = shared.chain(from).find(|name| renewed.contains(*name))?;
    Some(format!("service {other} has a new container"))
}

fn networks(project: &Project, wanted: &[String], actual: &Actual, plan: &mut Plan) -> Result<()> {
    let used: BTreeSet<&String> = wanted
        .iter()
        .filter_map(|name| project.services.get(name))
        .flat_map(|service| service.networks.keys())
        .collect();
    for key in used {
        let Some(network) = project.networks.get(key) else { continue };
        let found = actual.networks.iter().find(|found| found["Name"].as_str() == Some(&network.name));
        match found {
            None if network.external => {
                return Err(Error::project(format!(
                    "network {} declared as external, but could not be found",
                    network.name
                )));
            }
            None => plan.networks.push(key.clone()),
            Some(_) if network.external => {}
            Some(found) => {
                let own = found["Labels"][labels::PROJECT].as_str();
                if own.is_none_or(|own| own != project.name) {
                    plan.warnings.push(format!(
                        "a network with name {} exists but was not created for project \"{}\".\nSet `external: true` to use an existing network",
                        network.name, project.name
                    ));
                } else if let Some(reason) = network_differs(network, found) {
                    plan.renewed.push((key.clone(), reason));
                }
            }
        }
    }
    Ok(())
}

fn volumes(project: &Project, wanted: &[String], actual: &Actual, plan: &mut Plan) -> Result<()> {
    let used: BTreeSet<&String> = wanted
        .iter()
        .filter_map(|name| project.services.get(name))
        .flat_map(|service| service.volumes.iter().filter(|mount| mount.kind == "volume"))
        .filter_map(|mount| mount.source.as_ref())
        .collect();
    for key in used {
        let Some(volume) = project.volumes.get(key) else { continue };
        let found = actual.volumes.iter().find(|found| found["Name"].as_str() == Some(&volume.name));
        match found {
            None if volume.external => {
                return Err(Error::project(format!("external volume \"{}\" not found", volume.name)));
            }
            None => plan.volumes.push(key.clone()),
            Some(_) if volume.external => {}
            Some(found) => {
                let own = found["Labels"][labels::PROJECT].as_str().unwrap_or_default();
                if own != project.name {
                    plan.warnings.push(format!(
                        "volume \"{}\" already exists but was not created by Docker Compose for project \"{}\". Use `external: true` to use an existing volume",
                        volume.name, project.name
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The container's name.
pub fn container_name(project: &Project, service: &Service, number: u32) -> String {
    service.container_name.clone().unwrap_or_else(|| format!("{}-{}-{number}", project.name, service.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::project_for_tests as project;
    use serde_json::json;

    fn container(project: &Project, service: &str, number: u32) -> Container {
        let own = &project.services[service];
        Container {
            id: format!("{service}{number}"),
            name: container_name(project, own, number),
            service: service.to_owned(),
            number,
            hash: labels::hash(project, own),
            image_id: "i".to_owned(),
            state: "running".to_owned(),
            networks: vec!["p_default".to_owned()],
            ..Container::default()
        }
    }

    fn actual(project: &Project, containers: Vec<Container>) -> Actual {
        Actual {
            containers,
            networks: vec![
                json!({"Name": "p_default", "Driver": "bridge", "Labels": {labels::PROJECT: "p"}}),
            ],
            volumes: Vec::new(),
            images: project.services.keys().map(|name| (name.clone(), "i".to_owned())).collect(),
            redelivered: BTreeSet::new(),
        }
    }

    fn shown(plan: &Plan) -> String {
        let step = |step: &Step| match step {
            Step::Create(number) => format!("create {number}"),
            Step::Recreate(one, why) => format!("recreate {} ({why})", one.number),
            Step::Keep(one) => format!("keep {}", one.number),
            Step::Remove(one) => format!("remove {}", one.number),
        };
        let part = |part: &Part| {
            let steps = part.steps.iter().map(step).collect::<Vec<_>>().join(", ");
            format!("{}: {}", part.service, if part.once { "once".to_owned() } else { steps })
        };
        plan.parts.iter().map(part).collect::<Vec<_>>().join("; ")
    }

    const TWO: &str = "services: {web: {image: i, depends_on: [db]}, db: {image: i}}";

    #[test]
    fn from_nothing_to_all() {
        let project = project(TWO);
        let made = plan(&project, &Actual::default(), &Wishes::default(), false).unwrap();
        assert_eq!(shown(&made), "db: create 1; web: create 1");
        assert_eq!(made.networks, ["default"]);
    }

    #[test]
    fn only_what_changed() {
        let project = project(TWO);
        let mut old = container(&project, "web", 1);
        let have = vec![old.clone(), container(&project, "db", 1)];
        let made = |have: Vec<Container>, wishes: Wishes| {
            shown(&plan(&project, &actual(&project, have), &wishes, false).unwrap())
        };
        assert_eq!(made(have.clone(), Wishes::default()), "db: keep 1; web: keep 1");
        old.hash = "other".to_owned();
        let changed = vec![old.clone(), container(&project, "db", 1)];
        assert_eq!(
            made(changed.clone(), Wishes::default()),
            "db: keep 1; web: recreate 1 (the configuration changed)"
        );
        assert_eq!(
            made(changed, Wishes { no_recreate: true, ..Wishes::default() }),
            "db: keep 1; web: keep 1"
        );
        let named = Wishes { services: vec!["web".to_owned()], force_recreate: true, ..Wishes::default() };
        assert_eq!(made(have.clone(), named.clone()), "db: keep 1; web: recreate 1 (asked for)");
        assert_eq!(made(have, Wishes { no_deps: true, ..named }), "web: recreate 1 (asked for)");
        old = container(&project, "web", 1);
        old.networks.clear();
        assert_eq!(
            made(vec![old, container(&project, "db", 1)], Wishes::default()),
            "db: keep 1; web: recreate 1 (network p_default changed)"
        );
    }

    #[test]
    fn scale_and_orphans() {
        let project = project(TWO);
        let mut gone = container(&project, "db", 1);
        gone.service = "gone".to_owned();
        let have = vec![
            container(&project, "web", 1),
            container(&project, "web", 3),
            container(&project, "db", 1),
            gone,
        ];
        let scale =
            |count: i64| Wishes { scale: BTreeMap::from([("web".to_owned(), count)]), ..Wishes::default() };
        let made = |wishes: &Wishes| plan(&project, &actual(&project, have.clone()), wishes, false).unwrap();
        assert_eq!(shown(&made(&scale(3))), "db: keep 1; web: keep 1, keep 3, create 2");
        assert_eq!(shown(&made(&scale(1))), "db: keep 1; web: keep 1, remove 3");
        assert!(made(&scale(2)).warnings[0].starts_with("Found orphan containers ([p-db-1])"));
        assert_eq!(made(&Wishes { remove_orphans: true, ..scale(2) }).orphans.len(), 1);
    }

    #[test]
    fn tasks_wait_for_someone_who_needs_them() {
        let text = "services: {web: {image: i, depends_on: {init: {condition: service_completed_successfully}}}, init: {image: i, x-task: {once: v}}, backup: {image: i, x-task: {}}}";
        let project = project(text);
        let made = |ledger| {
            shown(&plan(&project, &actual(&project, Vec::new()), &Wishes::default(), ledger).unwrap())
        };
        assert_eq!(made(false), "init: create 1; web: create 1");
        assert_eq!(made(true), "init: once; web: create 1");
    }

    #[test]
    fn what_cannot_be_done_is_refused_before_anything_is_made() {
        let project = project("services: {web: {image: i}, sum: {image: i, gpus: all}}");
        let planned = |names: &[&str]| {
            let services = names.iter().map(|name| (*name).to_owned()).collect();
            plan(&project, &Actual::default(), &Wishes { services, ..Wishes::default() }, false)
        };
        let error = planned(&[]).unwrap_err().to_string();
        assert_eq!(error, "/p/compose.yaml:1:51: services.sum.gpus: not supported by this engine");
        assert!(planned(&["web"]).is_ok());
    }

    #[test]
    fn external_resources_must_exist() {
        let project = project("services: {web: {image: i, networks: [n]}}\nnetworks: {n: {external: true}}");
        let error = plan(&project, &Actual::default(), &Wishes::default(), false).unwrap_err();
        assert_eq!(error.to_string(), "network n declared as external, but could not be found");
    }
}
