//! `/system/df`

use crate::{ApiVersion, Failure, Shared, call, containers, images, input::Params, volumes};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use engine::Engine;
use engine::container::ListOptions;
use engine::model::filter::Filters;
use engine::model::time::Timestamp;
use engine::model::{Error, Result};
use serde_json::{Map, Value, json};

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router.route("/system/df", get(df))
}

/// `GET /system/df`: all four types, or those that `type` names.
async fn df(
    State(engine): State<Shared>,
    params: Params,
    version: ApiVersion,
) -> Result<Json<Value>, Failure> {
    let wanted: Vec<String> = params.all("type").map(str::to_owned).collect();
    if let Some(other) =
        wanted.iter().find(|kind| !["container", "image", "volume", "build-cache"].contains(&kind.as_str()))
    {
        return Err(Failure(Error::invalid(format!("unknown object type: {other}"))));
    }
    let body = call(&engine, move |engine| collect(engine, &wanted, version)).await?;
    Ok(Json(body))
}

fn collect(engine: &Engine, wanted: &[String], version: ApiVersion) -> Result<Value> {
    let wants = |kind: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == kind);
    let mut body = Map::new();
    if wants("image") {
        let listed = engine.images(&Filters::default(), true, true)?;
        let list = listed.into_iter().map(|image| images::summary(image, version));
        body.insert("Images".to_owned(), list.collect());
        body.insert("LayersSize".to_owned(), engine.layers_size()?.into());
    }
    if wants("container") {
        let now = Timestamp::from_system(std::time::SystemTime::now());
        let options = ListOptions { all: true, limit: None, filters: Filters::default() };
        let list = engine.list_containers(&options)?;
        let list = list.iter().map(|listed| containers::summary(engine, listed, true, now));
        body.insert("Containers".to_owned(), Value::Array(list.collect::<Result<_>>()?));
    }
    if wants("volume") {
        let mut list = Vec::new();
        for volume in engine.volumes(&Filters::default())? {
            let (bytes, users) = engine.volume_usage(&volume)?;
            let mut value = volumes::wire(volume);
            value["UsageData"] = json!({ "Size": bytes, "RefCount": users });
            list.push(value);
        }
        body.insert("Volumes".to_owned(), Value::Array(list));
    }
    if wants("build-cache") {
        let cache = engine.build_cache()?.into_iter().map(|step| {
            json!({
                "ID": step.key, "Type": step.kind, "Description": step.text, "InUse": step.in_use, "Shared": step.shared,
                "Size": step.bytes, "CreatedAt": step.created, "LastUsedAt": step.used, "UsageCount": 1,
            })
        });
        body.insert("BuildCache".to_owned(), cache.collect());
        if version < ApiVersion(1, 42) {
            body.insert("BuilderSize".to_owned(), 0.into());
        }
    }
    Ok(Value::Object(body))
}
