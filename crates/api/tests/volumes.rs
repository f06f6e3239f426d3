//! `/volumes` as a client sees it, over a root of the test's own.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::path::PathBuf;
use tower::ServiceExt as _;

struct Api {
    dir: PathBuf,
    engine: api::Shared,
}

impl Api {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-api-volumes-{name}-{}", std::process::id()));
        let Ok(engine) = api::open(dir.join("root"), dir.join("run"), None) else {
            panic!("open the engine")
        };
        Self { dir, engine }
    }
    async fn send(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let response = api::router(self.engine.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
    async fn create(&self, body: Value) -> Value {
        let (status, volume) = self.send(Method::POST, "/v1.41/volumes/create", body).await;
        assert_eq!(status, StatusCode::CREATED, "{volume}");
        volume
    }
    async fn names(&self, filters: Value) -> Vec<String> {
        let text: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        let (status, list) = self.send(Method::GET, &format!("/volumes?filters={text}"), Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{list}");
        list["Volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|volume| volume["Name"].as_str().unwrap().to_owned())
            .collect()
    }
    /// A container's record, as far as volumes are concerned.
    fn used_by(&self, id: &str, volume: &str) {
        let dir = self.dir.join("root/containers").join(id);
        std::fs::create_dir(&dir).unwrap();
        let source = json!({ "Volume": { "name": volume, "anonymous": false, "copy": true, "subpath": null, "driver": "local" } });
        let spec =
            json!({ "id": id, "mounts": [{ "target": "/data", "source": source, "read_only": false }] });
        std::fs::write(dir.join("spec.json"), spec.to_string()).unwrap();
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test]
async fn made_listed_inspected_removed() {
    let api = Api::new("life");
    let made = api.create(json!({ "Name": "one", "Labels": { "a": "b" } })).await;
    assert_eq!(made["Driver"], "local");
    assert_eq!(made["Scope"], "local");
    assert_eq!(made["Mountpoint"], api.dir.join("root/volumes/one/_data").to_str().unwrap());
    assert_eq!(api.create(json!({ "Name": "one" })).await, made, "creating is idempotent");
    let anonymous = api.create(json!({})).await;
    assert_eq!(anonymous["Name"].as_str().unwrap().len(), 64);
    api.create(json!({ "Name": "two", "DriverOpts": { "type": "tmpfs", "device": "tmpfs" } })).await;

    assert_eq!(api.names(json!({ "name": ["o"] })).await, ["one", "two"]);
    assert_eq!(api.names(json!({ "label": ["a=b"] })).await, ["one"]);
    assert_eq!(api.names(json!({ "driver": { "other": true } })).await.len(), 0);
    let id = "a".repeat(64);
    api.used_by(&id, "one");
    assert_eq!(api.names(json!({ "dangling": ["false"] })).await, ["one"]);
    assert_eq!(api.names(json!({ "dangling": ["true"] })).await.len(), 2);

    let (status, inspected) = api.send(Method::GET, "/volumes/one", Value::Null).await;
    assert_eq!((status, inspected), (StatusCode::OK, made));
    let (status, error) = api.send(Method::DELETE, "/volumes/one", Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(error["message"], format!("remove one: volume is in use - [{id}]"));
    assert_eq!(api.send(Method::DELETE, "/volumes/two", Value::Null).await.0, StatusCode::NO_CONTENT);
    let (status, error) = api.send(Method::GET, "/volumes/two", Value::Null).await;
    assert_eq!(
        (status, error["message"].as_str().unwrap()),
        (StatusCode::NOT_FOUND, "get two: no such volume")
    );
    assert_eq!(api.send(Method::DELETE, "/volumes/two", Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.send(Method::DELETE, "/volumes/two?force=1", Value::Null).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let api = Api::new("wrong");
    let refused = async |body: Value| {
        let (status, error) = api.send(Method::POST, "/volumes/create", body).await;
        (status.as_u16(), error["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(refused(json!({ "Name": "../x" })).await.0, 400);
    assert_eq!(
        refused(json!({ "Name": "ab", "DriverOpts": { "x": "y" } })).await,
        (400, "create ab: invalid option: \"x\"".to_owned())
    );
    let (status, message) = refused(json!({ "Name": "ab", "Driver": "nfs" })).await;
    assert!(status == 404 && message.contains("plugin \"nfs\" not found"), "{message}");
    let (status, error) =
        api.send(Method::GET, "/volumes?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D", Value::Null).await;
    assert_eq!((status.as_u16(), error["message"].as_str().unwrap()), (400, "invalid filter 'colour'"));
}

#[tokio::test]
async fn prune_spares_named_volumes_since_1_42() {
    let api = Api::new("prune");
    for name in ["kept", "used"] {
        api.create(json!({ "Name": name })).await;
    }
    let anonymous = api.create(json!({})).await["Name"].clone();
    api.used_by(&"b".repeat(64), "used");
    std::fs::write(
        api.dir.join("root/volumes").join(anonymous.as_str().unwrap()).join("_data/file"),
        "12345",
    )
    .unwrap();
    let (_, pruned) = api.send(Method::POST, "/v1.42/volumes/prune", Value::Null).await;
    assert_eq!(pruned, json!({ "VolumesDeleted": [anonymous], "SpaceReclaimed": 5 }));
    let (_, pruned) = api.send(Method::POST, "/v1.41/volumes/prune", Value::Null).await;
    assert_eq!(pruned["VolumesDeleted"], json!(["kept"]));
    api.create(json!({ "Name": "kept" })).await;
    let (_, pruned) = api
        .send(Method::POST, "/v1.51/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", Value::Null)
        .await;
    assert_eq!(pruned["VolumesDeleted"], json!(["kept"]));
}
