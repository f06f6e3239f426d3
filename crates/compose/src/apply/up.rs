//! `up`: images, the plan, creation, start.

use super::create::{Again, again, container, make_network, resources};
use super::deliver::Given;
use super::images::{Images, ensure};
use super::{Host, Made, OnceJob, about, hooks, stop, wait};
use crate::actual;
use crate::error::{Error, Result};
use crate::order;
use crate::plan::{Actual, Plan, Step, Wishes, plan, selected};
use crate::project::{Condition, Project, Service};
use client::{Method, encode};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How to bring a project up.
#[derive(Clone, Debug, Default)]
pub struct Up {
    /// What is wanted.
    pub wishes: Wishes,
    /// How images are made.
    pub images: Images,
}

/// The containers of a project that is up: service, id, name.
pub type Standing = Vec<(String, String, String)>;

/// Brings a project up.
///
/// # Errors
/// An image is missing, the engine says no, or a dependency failed.
pub async fn up(host: &Host, project: &Rc<Project>, how: &Up) -> Result<Standing> {
    let wanted = selected(project, &how.wishes.services, how.wishes.no_deps)?;
    let images = ensure(host, project, &wanted, &how.images).await?;
    let volumes = async {
        if project.volumes.is_empty() { Ok(Vec::new()) } else { actual::volumes(&host.client).await }
    };
    let (containers, networks, volumes) = futures_util::future::try_join3(
        actual::containers(&host.client, &project.name),
        actual::networks(&host.client),
        volumes,
    )
    .await?;
    let given = Given::read(host, project);
    let redelivered = given.changed(&containers).await?;
    let actual = Actual { containers, networks, volumes, images, redelivered };
    let plan = plan(project, &actual, &how.wishes, host.once.is_some())?;
    for warning in &plan.warnings {
        (host.warn)(warning);
    }
    renew_networks(host, project, &plan, &actual, how.wishes.timeout).await?;
    resources(host, project, &plan).await?;
    for orphan in &plan.orphans {
        stop::gone(host, project, orphan, how.wishes.timeout, false).await?;
    }
    let made = Made::default();
    create_all(host, project, &plan, &actual, how, &made).await?;
    given.note(&actual.containers, &made).await?;
    let standing = standing(&plan, &made);
    if !how.wishes.no_start {
        start_all(host, project, &plan, &actual, &made).await?;
    }
    Ok(standing)
}

fn standing(plan: &Plan, made: &Made) -> Standing {
    let made = made.borrow();
    let each = |name: &String| made.get(name).cloned().unwrap_or_default();
    plan.parts
        .iter()
        .flat_map(|part| each(&part.service).into_iter().map(|(id, name)| (part.service.clone(), id, name)))
        .collect()
}

/// A network that is not what it should be goes with its containers, which the plan makes anew.
async fn renew_networks(
    host: &Host,
    project: &Project,
    plan: &Plan,
    actual: &Actual,
    timeout: Option<i64>,
) -> Result<()> {
    for (key, reason) in &plan.renewed {
        let Some(network) = project.networks.get(key) else { continue };
        (host.warn)(&format!("network {} is made anew: {reason}", network.name));
        for one in actual.containers.iter().filter(|one| one.networks.contains(&network.name)) {
            if let Some(service) = project.services.get(&one.service).filter(|_| one.runs()) {
                stop::one(host, service, one, timeout).await?;
            }
            if !host.dry_run {
                let body = serde_json::json!({"Container": one.id, "Force": true});
                let path = format!("/networks/{}/disconnect", encode(&network.name));
                let gone = host.client.json(Method::POST, &path, Some(&body)).await;
                gone.map_err(about(format!("disconnect {}", one.name)))?;
            }
        }
        host.tell("Network", &network.name, "Removing");
        if !host.dry_run {
            let path = format!("/networks/{}", encode(&network.name));
            host.client
                .json(Method::DELETE, &path, None)
                .await
                .map_err(about(format!("remove network {}", network.name)))?;
        }
        host.tell("Network", &network.name, "Removed");
        make_network(host, project, key, &network.name).await?;
    }
    Ok(())
}

async fn create_all(
    host: &Host,
    project: &Project,
    plan: &Plan,
    actual: &Actual,
    how: &Up,
    made: &Made,
) -> Result<()> {
    let names: Vec<String> = plan.parts.iter().map(|part| part.service.clone()).collect();
    // What stays is known before anything is made: who needs it must find it even with --no-deps.
    for one in actual.containers.iter().filter(|one| !one.oneoff && !names.contains(&one.service)) {
        made.borrow_mut().entry(one.service.clone()).or_default().push((one.id.clone(), one.name.clone()));
    }
    order::each(order::needs(project, &names), host.parallel, |name| {
        Box::pin(async move {
            let Some(service) = project.services.get(&name) else { return Ok(()) };
            let image_id = actual.images.get(&name).map(String::as_str).unwrap_or_default();
            for part in plan.parts.iter().filter(|part| part.service == name) {
                let steps = part.steps.iter().map(|step| async move {
                    match step {
                        Step::Create(number) => {
                            container(host, project, service, *number, made, image_id).await
                        }
                        Step::Recreate(old, _) => {
                            let how = Again {
                                image_id,
                                renew_volumes: how.wishes.renew_volumes,
                                timeout: how.wishes.timeout,
                            };
                            again(host, project, service, old, made, &how).await
                        }
                        Step::Keep(one) => {
                            let mut made = made.borrow_mut();
                            made.entry(name_of(service))
                                .or_default()
                                .push((one.id.clone(), one.name.clone()));
                            Ok(())
                        }
                        Step::Remove(one) => stop::gone(host, project, one, how.wishes.timeout, false).await,
                    }
                });
                futures_util::future::try_join_all(steps).await?;
            }
            if let Some(list) = made.borrow_mut().get_mut(&name) {
                list.sort_by(|a, b| (a.1.len(), &a.1).cmp(&(b.1.len(), &b.1)));
            }
            Ok(())
        })
    })
    .await
}

fn name_of(service: &Service) -> String {
    service.name.clone()
}

async fn start_all(
    host: &Host,
    project: &Rc<Project>,
    plan: &Plan,
    actual: &Actual,
    made: &Made,
) -> Result<()> {
    let names: Vec<String> = plan.parts.iter().map(|part| part.service.clone()).collect();
    let fresh: BTreeSet<&String> = plan
        .parts
        .iter()
        .filter(|part| part.steps.iter().any(|step| matches!(step, Step::Recreate(..))))
        .map(|part| &part.service)
        .collect();
    let once: BTreeMap<&String, bool> = plan.parts.iter().map(|part| (&part.service, part.once)).collect();
    let (once, fresh) = (&once, &fresh);
    order::each(order::needs(project, &names), host.parallel, |name| {
        Box::pin(async move {
            let Some(service) = project.services.get(&name) else { return Ok(()) };
            if !host.dry_run {
                dependencies(host, service, made, once).await?;
            }
            let image = actual.images.get(&name).cloned().unwrap_or_default();
            if once.get(&name) == Some(&true) {
                if let Some(run) = host.once.as_ref().filter(|_| !host.dry_run) {
                    let job = OnceJob { project: Rc::clone(project), service: name.clone(), step: None };
                    run(job).await?;
                }
                return Ok(());
            }
            let running: Vec<&String> =
                actual.containers.iter().filter(|one| one.runs()).map(|one| &one.id).collect();
            let restarts = service.depends_on.iter().any(|(need, how)| how.restart && fresh.contains(need));
            let containers = made.borrow().get(&name).cloned().unwrap_or_default();
            let idle = containers.iter().any(|(id, _)| !running.contains(&id));
            if idle && !service.pre_start.is_empty() && !host.dry_run {
                hooks::before(host, project, service, made, &image).await?;
            }
            let each = containers.iter().map(|(id, shown)| {
                let runs = running.contains(&id);
                async move {
                    match (runs, restarts) {
                        (true, false) => {
                            host.tell("Container", shown, "Running");
                            Ok(())
                        }
                        (true, true) => stop::again(host, service, id, shown, None).await,
                        (false, _) => stop::begin(host, service, id, shown).await,
                    }
                }
            });
            futures_util::future::try_join_all(each).await?;
            Ok(())
        })
    })
    .await
}

/// Waits until what a service needs has reached its conditions.
///
/// # Errors
/// A dependency failed.
pub async fn reached(host: &Host, project: &Project, service: &Service) -> Result<()> {
    let made = Made::default();
    for one in actual::containers(&host.client, &project.name).await? {
        if !one.oneoff {
            made.borrow_mut().entry(one.service).or_default().push((one.id, one.name));
        }
    }
    let tasks = project.services.values().filter(|other| other.is_task() && host.once.is_some());
    let once: Vec<(&String, bool)> = tasks.map(|other| (&other.name, true)).collect();
    dependencies(host, service, &made, &once.into_iter().collect()).await
}

/// Waits for what a service's dependencies must have reached.
async fn dependencies(
    host: &Host,
    service: &Service,
    made: &Made,
    once: &BTreeMap<&String, bool>,
) -> Result<()> {
    for (need, dependency) in &service.depends_on {
        if once.get(need) == Some(&true) {
            // Its ledger has said that it is done.
            continue;
        }
        let containers = made.borrow().get(need).cloned().unwrap_or_default();
        for (id, name) in containers {
            let reached = match dependency.condition {
                Condition::ServiceStarted => Ok(()),
                Condition::ServiceHealthy => {
                    host.tell("Container", &name, "Waiting");
                    let healthy = wait::settled(host, &id, &name, true).await;
                    healthy.map(|_| host.tell("Container", &name, "Healthy"))
                }
                Condition::ServiceCompletedSuccessfully => {
                    host.tell("Container", &name, "Waiting");
                    match wait::finished(host, &id).await {
                        Ok(0) => {
                            host.tell("Container", &name, "Exited");
                            Ok(())
                        }
                        Ok(code) => {
                            let said = hooks::last_lines(host, &id).await;
                            let said = if said.is_empty() { said } else { format!("\n{said}") };
                            Err(Error::project(format!(
                                "service \"{need}\" didn't complete successfully: exit {code}{said}"
                            )))
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match reached {
                Err(error) if !dependency.required => {
                    (host.warn)(&format!("optional dependency \"{need}\" failed to start: {error}"))
                }
                Err(error) => {
                    host.tell("Container", &name, "Error");
                    return Err(match error {
                        Error::Project(text) if dependency.condition == Condition::ServiceHealthy => {
                            Error::Project(format!("dependency failed to start: {text}"))
                        }
                        other => other,
                    });
                }
                Ok(()) => {}
            }
        }
    }
    Ok(())
}
