//! Create, start, stop, restart, kill, pause, rename, update, wait, remove, prune.

use axum::body::Body as HttpBody;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing};
use bollard_stubs::models::ContainerUpdateBody;
use engine::Engine;
use engine::container::{BLIND, Condition, LOOK, RemoveOptions, Update, Waiter};
use engine::model::{ContainerId, Error, Kind};
use serde_json::{Value, json};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use super::{convert, resources};
use crate::input::{Body, Params};
use crate::{Failure, Shared, call};

pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
    use routing::{delete, post};
    router
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/{alias}", delete(remove_link))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/wait", post(wait))
        .route("/cauldron/v1/containers/{id}/reap", post(reap))
        .route("/cauldron/v1/restore", post(restore))
        .route("/cauldron/v1/firewall/restore", post(restore_firewall))
}

async fn create(
    State(engine): State<Shared>,
    params: Params,
    body: Body<Value>,
) -> Result<Response, Failure> {
    let name = Some(params.text("name").trim_start_matches('/').to_owned()).filter(|name| !name.is_empty());
    let platform = match params.text("platform") {
        "" => None,
        text => Some(engine::transfer::parse_platform(text)?),
    };
    let (created, warnings) = call(&engine, move |engine| {
        let (mut request, mut warnings) = convert::request(name, body.0, &|name| engine.container_id(name))
            .map_err(|error| match error.kind() {
            // A container that the request names. To clients what is not found is the image: they would pull it.
            Kind::NotFound => Error::invalid(error.message()),
            _ => error,
        })?;
        request.platform = platform;
        let created = engine.create_container(request)?;
        warnings.extend(created.warnings.iter().cloned());
        Ok((created, warnings))
    })
    .await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": created.id.as_str(), "Warnings": warnings })))
        .into_response())
}

/// 204, or 304 where nothing was to be done.
async fn done(
    engine: &Shared,
    work: impl FnOnce(&engine::Engine) -> engine::model::Result<()> + Send + 'static,
) -> Result<StatusCode, Failure> {
    call(engine, work).await.map(|()| StatusCode::NO_CONTENT)
}

/// 204, with what was done differently from what was asked in headers.
async fn started(
    engine: &Shared,
    work: impl FnOnce(&engine::Engine) -> engine::model::Result<Vec<String>> + Send + 'static,
) -> Result<Response, Failure> {
    let warnings = call(engine, work).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    for warning in warnings {
        if let Ok(value) = HeaderValue::from_str(&warning) {
            response.headers_mut().append("cauldron-warning", value);
        }
    }
    Ok(response)
}

async fn start(State(engine): State<Shared>, Path(id): Path<String>) -> Result<Response, Failure> {
    started(&engine, move |engine| engine.start_container(&id)).await
}

async fn stop(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    let seconds = params.number("t")?;
    done(&engine, move |engine| engine.stop_container(&id, seconds, Some(params.text("signal")))).await
}

async fn restart(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let seconds = params.number("t")?;
    started(&engine, move |engine| engine.restart_container(&id, seconds, Some(params.text("signal")))).await
}

async fn kill(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    done(&engine, move |engine| engine.kill_container(&id, Some(params.text("signal")))).await
}

async fn pause(State(engine): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    done(&engine, move |engine| engine.pause_container(&id)).await
}

async fn unpause(State(engine): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    done(&engine, move |engine| engine.unpause_container(&id)).await
}

async fn rename(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    done(&engine, move |engine| engine.rename_container(&id, params.text("name"))).await
}

async fn update(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    Body(mut body): Body<Value>,
) -> Result<Json<Value>, Failure> {
    if let Some(body) = body.as_object_mut() {
        convert::check_policy(body)?;
    }
    let body: Option<ContainerUpdateBody> = serde_json::from_value(body)
        .map_err(|error| Error::invalid("invalid JSON in the request's body").caused_by(error))?;
    let body = body.unwrap_or_default();
    let update = Update {
        resources: resources::update(&body)?,
        lifecycle: convert::policy(body.restart_policy.as_ref())?,
    };
    call(&engine, move |engine| engine.update_container(&id, &update)).await?;
    Ok(Json(json!({ "Warnings": null })))
}

async fn remove(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    if params.flag("link") {
        return done(&engine, move |engine| engine.remove_link(&id)).await;
    }
    let options = RemoveOptions { force: params.flag("force"), volumes: params.flag("v") };
    done(&engine, move |engine| engine.remove_container(&id, options)).await
}

/// `DELETE /containers/NAME/ALIAS?link=1`: links have a slash in their names.
async fn remove_link(
    State(engine): State<Shared>,
    Path((name, alias)): Path<(String, String)>,
    params: Params,
) -> Result<StatusCode, Failure> {
    let path = format!("{name}/{alias}");
    if !params.flag("link") {
        return Err(Error::not_found(format!("No such container: {path}")).into());
    }
    done(&engine, move |engine| engine.remove_link(&path)).await
}

async fn prune(State(engine): State<Shared>, params: Params) -> Result<Json<Value>, Failure> {
    let filters = params.filters()?;
    let until = filters
        .get("until")
        .first()
        .map(|text| until(text).ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'"))))
        .transpose()?;
    let pruned = call(&engine, move |engine| engine.prune_containers(&filters, until)).await?;
    let deleted = Some(pruned.containers).filter(|deleted| !deleted.is_empty());
    Ok(Json(json!({ "ContainersDeleted": deleted, "SpaceReclaimed": pruned.reclaimed })))
}

/// A time of a filter: RFC 3339, seconds, or how long ago (`10m`, `1h30m`).
pub(crate) fn until(text: &str) -> Option<engine::model::time::Timestamp> {
    use engine::model::time::Timestamp;
    if let Some(time) = Timestamp::parse_query(text) {
        return Some(time);
    }
    let mut rest = text;
    let mut seconds = 0i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    let mut time = Timestamp::from_system(std::time::SystemTime::now());
    time.seconds = time.seconds.checked_sub(seconds)?;
    Some(time)
}

/// Headers at once, so that the client knows that the wait is registered; the body when it is over.
async fn wait(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let condition = Condition::parse(params.text("condition"))?;
    let waiter = call(&engine, move |engine| engine.waiter(&id, condition)).await?;
    let body = async move {
        let value = match outcome(&engine, Arc::new(waiter)).await {
            Ok((code, _)) => json!({ "StatusCode": code }),
            Err(failure) => json!({ "StatusCode": -1, "Error": { "Message": failure.0.to_string() } }),
        };
        Ok::<_, std::convert::Infallible>(format!("{value}\n"))
    };
    let stream = futures_util::stream::once(body);
    Ok(([(header::CONTENT_TYPE, "application/json")], HttpBody::from_stream(stream)).into_response())
}

async fn restore_firewall(State(engine): State<Shared>) -> Result<StatusCode, Failure> {
    done(&engine, Engine::restore_firewall).await
}

/// Waits without a thread: a client that goes away takes its wait with it.
async fn outcome(engine: &Shared, waiter: Arc<Waiter>) -> Result<(i32, String), Failure> {
    loop {
        let looking = Arc::clone(&waiter);
        if let Some(done) = call(engine, move |engine| engine.poll(&looking)).await? {
            return Ok(done);
        }
        let told = match waiter.line()? {
            Some(socket) => {
                let socket = crate::poll::readable(socket.as_fd())?;
                tokio::time::timeout(LOOK, socket.readable()).await.is_ok()
            }
            None => {
                tokio::time::sleep(BLIND).await;
                false
            }
        };
        waiter.heard(told)?;
    }
}

async fn reap(State(engine): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let id = ContainerId::parse(&id)?;
    done(&engine, move |engine| engine.reap(&id)).await
}

async fn restore(State(engine): State<Shared>) -> Result<Json<Value>, Failure> {
    let started = call(&engine, |engine| engine.restore()).await?;
    let told: Vec<Value> = started
        .into_iter()
        .map(|(id, outcome)| json!({ "Id": id.as_str(), "Error": outcome.err().map(|error| error.to_string()) }))
        .collect();
    Ok(Json(Value::Array(told)))
}
