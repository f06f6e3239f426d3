//! `/volumes`

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use bollard_stubs::models::{VolumeCreateRequest, VolumePruneResponse};
use engine::model::Error;
use engine::model::filter::Filters;
use engine::model::time::Timestamp;
use engine::volume::{Mark, PruneScope, Volume};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bytes of each text of a mark.
const MARK_BYTES: usize = 512;

use crate::input::{Body, Params};
use crate::{ApiVersion, Failure, Shared, call};

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
        .route("/cauldron/v1/volumes/{name}", get(identity))
        .route("/cauldron/v1/volumes/{name}/snapshot", post(snapshot))
        .route("/cauldron/v1/volumes/{name}/commit", post(commit))
        .route("/cauldron/v1/volumes/{name}/rollback", post(rollback))
        .route("/cauldron/v1/volumes/{name}/forget", post(forget))
}

#[derive(Deserialize)]
struct Filtered {
    #[serde(default)]
    filters: String,
}

async fn list(State(engine): State<Shared>, Query(query): Query<Filtered>) -> Result<Json<Value>, Failure> {
    let filters = Filters::parse(&query.filters)?;
    let volumes = call(&engine, move |engine| engine.volumes(&filters)).await?;
    Ok(Json(json!({ "Volumes": volumes.into_iter().map(wire).collect::<Vec<_>>(), "Warnings": null })))
}

async fn create(
    State(engine): State<Shared>,
    body: axum::body::Bytes,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let request: VolumeCreateRequest = if body.is_empty() {
        VolumeCreateRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Error::invalid("malformed volume").caused_by(error))?
    };
    if request.cluster_volume_spec.is_some() {
        return Err(
            Error::new(engine::model::Kind::Unavailable, "cluster volumes need a swarm manager").into()
        );
    }
    let volume = call(&engine, move |engine| {
        let labels = request.labels.unwrap_or_default().into_iter().collect();
        let options = request.driver_opts.unwrap_or_default().into_iter().collect();
        engine.create_volume(
            request.name.as_deref(),
            request.driver.as_deref().unwrap_or_default(),
            labels,
            &options,
        )
    })
    .await?;
    Ok((StatusCode::CREATED, Json(wire(volume))))
}

async fn inspect(State(engine): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    Ok(Json(wire(call(&engine, move |engine| engine.volume(&name)).await?)))
}

#[derive(Deserialize)]
struct Remove {
    #[serde(default)]
    force: String,
}

async fn remove(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    Query(query): Query<Remove>,
) -> Result<StatusCode, Failure> {
    let force = matches!(query.force.as_str(), "1" | "true" | "True" | "TRUE");
    call(&engine, move |engine| engine.remove_volume(&name, force)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(
    State(engine): State<Shared>,
    version: ApiVersion,
    Query(query): Query<Filtered>,
) -> Result<Json<VolumePruneResponse>, Failure> {
    let filters = Filters::parse(&query.filters)?;
    let scope = if version < ApiVersion(1, 42) { PruneScope::All } else { PruneScope::Anonymous };
    let pruned = call(&engine, move |engine| engine.prune_volumes(&filters, scope)).await?;
    Ok(Json(VolumePruneResponse {
        volumes_deleted: Some(pruned.volumes),
        space_reclaimed: Some(i64::try_from(pruned.reclaimed).unwrap_or(i64::MAX)),
    }))
}

/// What tells a volume from another of the same name, and whose work it had.
fn identified(volume: &Volume) -> Json<Value> {
    let marks: Vec<Value> = volume
        .marks
        .iter()
        .map(|mark| {
            json!({
                "Helper": mark.helper, "Digest": mark.digest, "Version": mark.version, "Image": mark.image, "At": mark.at.to_string(),
            })
        })
        .collect();
    Json(
        json!({ "Name": volume.name, "Id": volume.id, "CreatedAt": volume.created.to_string(), "Marks": marks }),
    )
}

async fn identity(State(engine): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    Ok(identified(&call(&engine, move |engine| engine.volume(&name)).await?))
}

/// A copy of the volume, as a volume of another name.
async fn snapshot(State(engine): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    let draft = call(&engine, move |engine| engine.draft_volume(&name)).await?;
    Ok(Json(json!({ "Name": draft.name })))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    helper: String,
    digest: String,
    version: Option<u64>,
    #[serde(default)]
    image: String,
}

/// The copy takes the volume's place.
async fn commit(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    body: Body<Made>,
) -> Result<Json<Value>, Failure> {
    let Made { helper, digest, version, image } = body.0;
    if [&helper, &digest, &image].iter().any(|text| text.len() > MARK_BYTES) {
        return Err(Error::invalid("a mark's texts are too long").into());
    }
    let at = Timestamp::from_system(std::time::SystemTime::now());
    let mark = Mark { helper, digest, version, image, at };
    Ok(identified(&call(&engine, move |engine| engine.commit_draft(&name, mark)).await?))
}

async fn rollback(State(engine): State<Shared>, Path(name): Path<String>) -> Result<StatusCode, Failure> {
    call(&engine, move |engine| engine.remove_draft(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forget(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let helper = Some(params.text("helper").to_owned()).filter(|helper| !helper.is_empty());
    Ok(identified(&call(&engine, move |engine| engine.forget_marks(&name, helper.as_deref())).await?))
}

/// A volume in Docker's shape: what it does not have is null.
pub(crate) fn wire(volume: Volume) -> Value {
    let map = |map: BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.data.to_string_lossy(),
        "CreatedAt": volume.created,
        "Labels": map(volume.labels),
        "Scope": "local",
        "Options": map(volume.options),
    })
}
