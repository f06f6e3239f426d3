//! `/volumes`

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use bollard_stubs::models::{
    Volume as Wire, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse, VolumeScopeEnum,
};
use engine::model::Error;
use engine::model::filter::Filters;
use engine::volume::{PruneScope, Volume};
use serde::Deserialize;

use crate::{ApiVersion, Failure, Shared, call};

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

#[derive(Deserialize)]
struct Filtered {
    #[serde(default)]
    filters: String,
}

async fn list(
    State(engine): State<Shared>,
    Query(query): Query<Filtered>,
) -> Result<Json<VolumeListResponse>, Failure> {
    let filters = Filters::parse(&query.filters)?;
    let volumes = call(&engine, move |engine| engine.volumes(&filters)).await?;
    Ok(Json(VolumeListResponse { volumes: Some(volumes.into_iter().map(wire).collect()), warnings: None }))
}

async fn create(
    State(engine): State<Shared>,
    body: axum::body::Bytes,
) -> Result<(StatusCode, Json<Wire>), Failure> {
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

async fn inspect(State(engine): State<Shared>, Path(name): Path<String>) -> Result<Json<Wire>, Failure> {
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

/// A volume in Docker's shape.
pub(crate) fn wire(volume: Volume) -> Wire {
    Wire {
        name: volume.name,
        driver: "local".to_owned(),
        mountpoint: volume.data.to_string_lossy().into_owned(),
        created_at: Some(volume.created.to_string()),
        labels: volume.labels.into_iter().collect(),
        scope: Some(VolumeScopeEnum::LOCAL),
        options: volume.options.into_iter().collect(),
        ..Wire::default()
    }
}
