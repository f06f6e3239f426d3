//! `post_start` and `pre_stop`: commands in a container that runs. `pre_start`: containers that run before it.

use super::create::{self, Made, Oneoff};
use super::{Host, OnceJob, about, image_of, pull, wait};
use crate::body::{Which, environment};
use crate::error::{Error, Result};
use crate::project::{Hook, Project, Service};
use client::{Chunks, Method, encode};
use serde_json::json;
use std::rc::Rc;

/// Bytes of a hook's output that an error shows.
const SHOWN: usize = 2048;

/// Runs commands in a container, one after the other.
pub async fn within(host: &Host, id: &str, name: &str, hooks: &[Hook]) -> Result<()> {
    for hook in hooks {
        let body = json!({
            "Cmd": hook.command, "User": hook.user.clone().unwrap_or_default(), "Privileged": hook.privileged,
            "WorkingDir": hook.working_dir.clone().unwrap_or_default(), "Env": environment(&hook.environment),
            "AttachStdout": true, "AttachStderr": true,
        });
        let path = format!("/containers/{}/exec", encode(id));
        let made = host
            .client
            .json(Method::POST, &path, Some(&body))
            .await
            .map_err(about(format!("{name}: hook")))?;
        let exec = made["Id"].as_str().unwrap_or_default();
        let start = json!({"Detach": false, "Tty": false});
        let answer = host.client.call(Method::POST, &format!("/exec/{exec}/start"), Some(&start)).await;
        let mut output = Vec::new();
        let mut chunks = Chunks::new(answer.map_err(about(format!("{name}: hook")))?);
        while let Some(bytes) = chunks.next().await? {
            output.extend_from_slice(&bytes);
            output.drain(..output.len().saturating_sub(SHOWN));
        }
        let state = host.client.get(&format!("/exec/{exec}/json")).await?;
        let code = state["ExitCode"].as_i64().unwrap_or(125);
        if code != 0 {
            let said: String =
                String::from_utf8_lossy(&output).chars().filter(|c| !c.is_control() || *c == '\n').collect();
            return Err(Error::project(format!("{name} hook exited with status {code}: {}", said.trim())));
        }
    }
    Ok(())
}

/// Runs a command in every running container of a service.
///
/// # Errors
/// It fails in one.
pub async fn run_hook(host: &Host, project: &Project, service: &str, hook: &Hook) -> Result<()> {
    for one in crate::actual::containers(&host.client, &project.name).await? {
        if one.service == service && !one.oneoff && one.state == "running" {
            within(host, &one.id, &one.name, std::slice::from_ref(hook)).await?;
        }
    }
    Ok(())
}

/// Runs the containers that come before a service's own; those that prepare a volume by the ledger.
pub async fn before(
    host: &Host,
    project: &Rc<Project>,
    service: &Service,
    made: &Made,
    image_id: &str,
) -> Result<()> {
    for (index, hook) in service.pre_start.iter().enumerate() {
        if let Some(run) = &host.once
            && service.once(hook)?.is_some()
        {
            let step = Some(index);
            run(OnceJob { project: Rc::clone(project), service: service.name.clone(), step }).await?;
            continue;
        }
        let own = service.step(hook);
        if let Some(image) = &hook.image
            && image_of(host, image).await?.is_none()
        {
            pull(host, &own, image, false).await?;
        }
        let name = format!("{}-{}-pre_start-{}", project.name, service.name, index + 1);
        let which = Which { number: 1, oneoff: true, aliases: false, ports: false };
        // What an earlier attempt left.
        let _ = host
            .client
            .json(Method::DELETE, &format!("/containers/{}?force=1&v=1", encode(&name)), None)
            .await;
        let one = Oneoff { name: &name, which, image_id, made };
        let id = create::oneoff(host, project, &own, &one, |_| {}).await?;
        host.tell("Container", &name, "Starting");
        let ended = async {
            host.client.post(&format!("/containers/{id}/start")).await.map_err(about(name.clone()))?;
            let code = wait::finished(host, &id).await?;
            if code == 0 {
                Ok(())
            } else {
                Err(Error::project(format!("{name} exited ({code}): {}", last_lines(host, &id).await)))
            }
        };
        let ended = ended.await;
        let _ = host.client.json(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await;
        ended?;
        host.tell("Container", &name, "Exited");
    }
    Ok(())
}

/// The last lines of a container's log.
pub async fn last_lines(host: &Host, id: &str) -> String {
    let path = format!("/containers/{}/logs?stdout=1&stderr=1&tail=5", encode(id));
    let Ok(answer) = host.client.call(Method::GET, &path, None).await else { return String::new() };
    let mut chunks = Chunks::new(answer);
    let mut output = Vec::new();
    while let Ok(Some(bytes)) = chunks.next().await {
        output.extend_from_slice(&bytes);
        if output.len() > SHOWN {
            break;
        }
    }
    let text = String::from_utf8_lossy(&output);
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect::<String>().trim().to_owned()
}
