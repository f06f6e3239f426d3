//! `/images`: lists, inspect, history, tag, removal, prune. Pull, push, save and load are in `images_transfer`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bollard_stubs::models::ImageDeleteResponseItem;
use engine::image::{Image, Listed, Removed, Step};
use engine::model::Reference;
use engine::model::image::RunConfig;
use serde_json::{Map, Value, json};

use crate::input::Params;
use crate::{ApiVersion, Failure, Shared, call};

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/images/json", get(list))
        .route("/images/prune", post(prune))
        .route("/images/{name}/json", get(inspect))
        .route("/images/{name}/history", get(history))
        .route("/images/{name}/tag", post(tag))
        .route("/images/{name}", delete(remove))
}

/// Since this version an image without names has empty lists, before it `<none>:<none>`.
const NO_NONE: ApiVersion = ApiVersion(1, 43);
/// Since this version the size is told once.
const NO_VIRTUAL_SIZE: ApiVersion = ApiVersion(1, 44);

async fn list(
    State(engine): State<Shared>,
    version: ApiVersion,
    params: Params,
) -> Result<Json<Vec<Value>>, Failure> {
    let mut filters = params.filters()?;
    // What clients before API 1.25 sent.
    if !params.text("filter").is_empty() {
        filters.add("reference", params.text("filter"));
    }
    let shared = params.flag("shared-size");
    let listed = call(&engine, move |engine| engine.images(&filters, false, shared)).await?;
    Ok(Json(listed.into_iter().map(|listed| summary(listed, version)).collect()))
}

/// An image in a list, in Docker's shape.
pub(crate) fn summary(listed: Listed, version: ApiVersion) -> Value {
    let image = listed.image;
    let names = |references: &[Reference]| references.iter().map(Reference::familiar).collect::<Vec<_>>();
    let (mut repo_tags, mut repo_digests) = (names(&image.tags), names(&image.repo_digests));
    if version < NO_NONE && repo_tags.is_empty() {
        repo_tags.push("<none>:<none>".to_owned());
        if repo_digests.is_empty() {
            repo_digests.push("<none>@<none>".to_owned());
        }
    }
    let mut value = json!({
        "Id": image.id.to_string(),
        "ParentId": image.parent.as_ref().map_or("", engine::model::Digest::as_str),
        "RepoTags": repo_tags,
        "RepoDigests": repo_digests,
        "Created": image.config.created.map_or(0, |created| created.seconds),
        "Size": image.size,
        "SharedSize": listed.shared.map_or(-1, signed),
        "Labels": image.config.config.labels,
        "Containers": listed.containers.map_or(-1, signed),
    });
    if version < NO_VIRTUAL_SIZE {
        value["VirtualSize"] = json!(image.size);
    }
    value
}

async fn inspect(
    State(engine): State<Shared>,
    version: ApiVersion,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let platform = params.platform()?;
    let (image, directories) = call(&engine, move |engine| {
        engine.require_platform(&name, platform.as_ref())?;
        let image = engine.image(&name)?;
        let directories = engine.image_directories(&image)?;
        Ok((image, directories))
    })
    .await?;
    Ok(Json(detail(image, &directories, version)))
}

/// An image in full.
fn detail(image: Image, directories: &[std::path::PathBuf], version: ApiVersion) -> Value {
    let names = |references: &[Reference]| references.iter().map(Reference::familiar).collect::<Vec<_>>();
    let path = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut driver = Map::new();
    if let Some((top, below)) = directories.split_first() {
        driver.insert("UpperDir".to_owned(), json!(path(top)));
        if !below.is_empty() {
            let below: Vec<String> = below.iter().map(path).collect();
            driver.insert("LowerDir".to_owned(), json!(below.join(":")));
        }
    }
    let config = image.config;
    let mut value = json!({
        "Id": image.id,
        "RepoTags": names(&image.tags),
        "RepoDigests": names(&image.repo_digests),
        "Parent": image.parent.as_ref().map_or("", engine::model::Digest::as_str),
        "Comment": config.comment.unwrap_or_default(),
        "DockerVersion": "",
        "Author": config.author.unwrap_or_default(),
        "Config": run_config(&config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": { "Data": driver, "Name": "overlay2" },
        "RootFS": { "Type": "layers" },
        "Metadata": { "LastTagTime": image.tagged },
    });
    if let Value::Object(fields) = &mut value {
        if let Some(created) = config.created {
            fields.insert("Created".to_owned(), json!(created));
        }
        if let Some(variant) = config.variant {
            fields.insert("Variant".to_owned(), json!(variant));
        }
        if !config.rootfs.diff_ids.is_empty() {
            fields.insert("RootFS".to_owned(), json!({ "Type": "layers", "Layers": config.rootfs.diff_ids }));
        }
        // Docker's own left it out with version 1.45; docker-compose 1.29, which speaks any version, fails without.
        fields.insert("ContainerConfig".to_owned(), fields.get("Config").cloned().unwrap_or_default());
        if version < NO_VIRTUAL_SIZE {
            fields.insert("VirtualSize".to_owned(), json!(image.size));
        }
    }
    value
}

/// An image's run configuration with the fields that Docker always shows.
fn run_config(config: &RunConfig) -> Value {
    let mut fields = json!({
        "Hostname": "", "Domainname": "", "User": config.user,
        "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false,
        "Env": if config.env.is_empty() { Value::Null } else { json!(config.env) }, "Cmd": config.cmd, "Image": "",
        "Volumes": config.volumes, "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint, "OnBuild": config.on_build, "Labels": config.labels,
    });
    if let (Value::Object(fields), Ok(Value::Object(stored))) = (&mut fields, serde_json::to_value(config)) {
        fields.extend(stored.into_iter().filter(|(_, value)| *value != json!([])));
    }
    fields
}

async fn history(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Vec<Value>>, Failure> {
    let platform = params.platform()?;
    let (image, steps) = call(&engine, move |engine| {
        engine.require_platform(&name, platform.as_ref())?;
        engine.image_history(&name)
    })
    .await?;
    let tags: Vec<String> = image.tags.iter().map(Reference::familiar).collect();
    let line = |(at, step): (usize, Step)| {
        json!({
            "Id": if at == 0 { image.id.as_str() } else { "<missing>" },
            "Created": step.history.created.map_or(0, |created| created.seconds),
            "CreatedBy": step.history.created_by.unwrap_or_default(),
            "Tags": if at == 0 && !tags.is_empty() { json!(tags) } else { Value::Null },
            "Size": step.size,
            "Comment": step.history.comment.unwrap_or_default(),
        })
    };
    Ok(Json(steps.into_iter().enumerate().map(line).collect()))
}

async fn tag(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    call(&engine, move |engine| engine.tag_image(&name, params.text("repo"), params.text("tag"))).await?;
    Ok(StatusCode::CREATED)
}

async fn remove(
    State(engine): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Vec<ImageDeleteResponseItem>>, Failure> {
    let force = params.flag("force");
    let removed = call(&engine, move |engine| engine.remove_image(&name, force)).await?;
    Ok(Json(removed.into_iter().map(removal).collect()))
}

async fn prune(State(engine): State<Shared>, params: Params) -> Result<Json<Value>, Failure> {
    let filters = params.filters()?;
    let pruned = call(&engine, move |engine| engine.prune_images(&filters)).await?;
    let deleted: Vec<_> = pruned.removed.into_iter().map(removal).collect();
    let deleted = Some(deleted).filter(|deleted| !deleted.is_empty());
    Ok(Json(json!({ "ImagesDeleted": deleted, "SpaceReclaimed": pruned.reclaimed })))
}

fn removal(removed: Removed) -> ImageDeleteResponseItem {
    match removed {
        Removed::Untagged(name) => ImageDeleteResponseItem { untagged: Some(name), deleted: None },
        Removed::Deleted(digest) => {
            ImageDeleteResponseItem { untagged: None, deleted: Some(digest.to_string()) }
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
