//! `/images` as a client sees it, over a root of the test's own. Needs root and GNU tar.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use tower::ServiceExt as _;

struct Api {
    dir: PathBuf,
    engine: api::Shared,
}

impl Api {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-api-images-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let Ok(engine) = api::open(dir.join("root"), dir.join("run"), None) else {
            panic!("open the engine")
        };
        Self { dir, engine }
    }
    async fn send(&self, method: Method, path: &str, body: Body) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let response = api::router(self.engine.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
    }
    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.send(Method::GET, path, Body::empty()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        value
    }
    async fn post(&self, path: &str, expected: StatusCode) -> Value {
        let (status, value) = self.send(Method::POST, path, Body::empty()).await;
        assert_eq!(status, expected, "{path}: {value}");
        value
    }
    async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, Body::empty()).await
    }
    /// Imports a root file system with one file; returns the image's id.
    async fn import(&self, repo: &str, tag: &str, content: &str, changes: &[&str]) -> String {
        std::fs::write(self.dir.join("file"), content).unwrap();
        let output = Command::new("tar").args(["-cf", "-", "file"]).current_dir(&self.dir).output().unwrap();
        assert!(output.status.success());
        let changes: String = changes.iter().map(|change| format!("&changes={}", encode(change))).collect();
        let path = format!("/images/create?fromSrc=-&repo={repo}&tag={tag}{changes}");
        let (status, answer) = self.send(Method::POST, &path, Body::from(output.stdout)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let image = self.get(&format!("/images/{repo}:{tag}/json")).await;
        image["Id"].as_str().unwrap().to_owned()
    }
    async fn container(&self, image: &str) -> String {
        let body = json!({ "Image": image, "Cmd": ["/file"] }).to_string();
        let request = Request::post("/containers/create").header("content-type", "application/json");
        let request = request.body(Body::from(body)).unwrap();
        let response = api::router(self.engine.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice::<Value>(&bytes).unwrap()["Id"].as_str().unwrap().to_owned()
    }
    async fn listed(&self, filters: Value) -> Vec<String> {
        let list = self.get(&format!("/images/json?filters={}", encode(&filters.to_string()))).await;
        let name = |image: &Value| image["RepoTags"][0].as_str().unwrap_or("-").to_owned();
        let mut names: Vec<String> = list.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn lists_with_filters() {
    let api = Api::new("list");
    let first = api.import("app", "1", "one", &["LABEL a=b", "CMD [\"/file\"]"]).await;
    api.import("localhost:5000/team/app", "2", "two", &["LABEL c=d"]).await;
    api.import("other", "3", "three", &[]).await;
    let lists = [
        (json!({}), vec!["app:1", "localhost:5000/team/app:2", "other:3"]),
        (json!({ "label": ["a=b"] }), vec!["app:1"]),
        (json!({ "label": ["c"] }), vec!["localhost:5000/team/app:2"]),
        (json!({ "reference": ["app"] }), vec!["app:1"]),
        (
            json!({ "reference": ["localhost:5000/*/app", "oth?r:*"] }),
            vec!["localhost:5000/team/app:2", "other:3"],
        ),
        (json!({ "since": ["app:1"] }), vec!["localhost:5000/team/app:2", "other:3"]),
        (json!({ "before": ["other:3"] }), vec!["app:1", "localhost:5000/team/app:2"]),
        (json!({ "until": ["24h"] }), vec![]),
        (json!({ "dangling": ["true"] }), vec![]),
    ];
    for (filters, expected) in lists {
        assert_eq!(api.listed(filters.clone()).await, expected, "{filters}");
    }
    let (status, error) =
        api.send(Method::GET, "/images/json?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", Body::empty()).await;
    assert_eq!((status, &error["message"]), (StatusCode::BAD_REQUEST, &json!("invalid filter 'x'")));

    // The tag moves: the old image dangles.
    api.import("app", "1", "one again", &[]).await;
    assert_eq!(api.listed(json!({ "dangling": ["true"] })).await, ["-"]);
    let old = api.get("/v1.41/images/json?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D").await;
    assert_eq!(old[0]["RepoTags"], json!(["<none>:<none>"]));
    assert_eq!(old[0]["Id"], json!(first));
    assert_eq!((old[0]["Size"].as_u64(), old[0]["Containers"].as_i64()), (Some(3), Some(-1)));
}

#[tokio::test]
async fn inspects_and_tells_the_history() {
    let api = Api::new("inspect");
    let changes = ["ENV A=b", "CMD [\"/file\"]", "VOLUME /data", "EXPOSE 80"];
    let id = api.import("localhost:5000/a/b", "x", "content", &changes).await;
    for name in ["localhost:5000/a/b:x", "localhost:5000%2Fa%2Fb:x", &id, &id[7..19]] {
        let image = api.get(&format!("/v1.41/images/{name}/json")).await;
        assert_eq!(image["Id"], json!(id), "{name}");
        assert_eq!(image["RepoTags"], json!(["localhost:5000/a/b:x"]));
        assert_eq!(image["Config"]["Env"], json!(["A=b"]));
        assert_eq!(image["Config"]["Cmd"], json!(["/file"]));
        assert_eq!(image["Config"]["Volumes"], json!({ "/data": {} }));
        assert_eq!(image["Config"]["Entrypoint"], Value::Null);
        assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 1);
        assert_eq!((&image["Size"], &image["VirtualSize"]), (&json!(7), &json!(7)));
        // What typed clients make of it.
        serde_json::from_value::<bollard_stubs::models::ImageInspect>(image).unwrap();
    }
    let history = api.get("/images/localhost:5000/a/b:x/history").await;
    assert_eq!(history[0]["Id"], json!(id));
    assert_eq!(history[0]["Tags"], json!(["localhost:5000/a/b:x"]));
    let sizes: u64 = history.as_array().unwrap().iter().map(|step| step["Size"].as_u64().unwrap()).sum();
    assert_eq!(sizes, 7);
    let (status, error) = api.send(Method::GET, "/images/nothing/json", Body::empty()).await;
    assert_eq!((status, &error["message"]), (StatusCode::NOT_FOUND, &json!("No such image: nothing:latest")));
}

#[tokio::test]
async fn tags_and_removes_as_docker_does() {
    let api = Api::new("remove");
    let id = api.import("app", "1", "one", &[]).await;
    let short = &id[7..19];
    api.post("/images/app:1/tag?repo=localhost:5000/x/y&tag=2", StatusCode::CREATED).await;
    api.post("/images/app:1/tag?repo=app", StatusCode::CREATED).await;
    let (status, error) = api.send(Method::POST, "/images/app:1/tag?repo=UPPER", Body::empty()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    let (status, removed) = api.delete("/images/localhost:5000/x/y:2").await;
    assert_eq!((status, removed), (StatusCode::OK, json!([{ "Untagged": "localhost:5000/x/y:2" }])));

    // By id with two tags of one repository: Docker wants force.
    let (status, error) = api.delete(&format!("/images/{short}")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let why = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    );
    assert_eq!(error["message"], json!(why));

    let container = api.container("app:1").await;
    assert_eq!(api.delete("/images/app:latest").await.1, json!([{ "Untagged": "app:latest" }]));
    let (status, error) = api.delete("/images/app:1").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let why = format!(
        "conflict: unable to remove repository reference \"app:1\" (must force) - container {} is using its referenced \
         image {short}",
        &container[..12]
    );
    assert_eq!(error["message"], json!(why));
    let (status, error) = api.delete(&format!("/images/{id}")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let why = format!(
        "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {}",
        &container[..12]
    );
    assert_eq!(error["message"], json!(why));

    // By force: the image goes, the layers stay for the container.
    let (status, removed) = api.delete("/images/app:1?force=1").await;
    assert_eq!((status, removed), (StatusCode::OK, json!([{ "Untagged": "app:1" }, { "Deleted": id }])));
    assert_eq!(std::fs::read_dir(api.dir.join("root/layers")).unwrap().count(), 1);
    // As if the container had been removed: its record is what uses an image.
    std::fs::remove_dir_all(api.dir.join("root/containers").join(&container)).unwrap();

    let other = api.import("last", "1", "other", &[]).await;
    let (status, removed) = api.delete("/images/last:1").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&removed[0], &removed[1]), (&json!({ "Untagged": "last:1" }), &json!({ "Deleted": other })));
    assert!(removed[2]["Deleted"].is_string());
    assert_eq!(api.delete("/images/last:1").await.0, StatusCode::NOT_FOUND);
    for dir in ["layers", "blobs/sha256", "images", "tags"] {
        assert_eq!(std::fs::read_dir(api.dir.join("root").join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[tokio::test]
async fn prunes_what_dangles_or_all_that_nobody_uses() {
    let api = Api::new("prune");
    let old = api.import("app", "1", "first", &[]).await;
    api.import("app", "1", "second", &[]).await;
    api.import("used", "1", "used", &[]).await;
    api.container("used:1").await;
    let pruned = api.post("/images/prune", StatusCode::OK).await;
    assert_eq!(pruned["ImagesDeleted"][0], json!({ "Deleted": old }));
    assert_eq!(pruned["SpaceReclaimed"], json!(5));
    assert_eq!(api.listed(json!({})).await, ["app:1", "used:1"]);
    let all = encode(&json!({ "dangling": ["false"] }).to_string());
    let pruned = api.post(&format!("/images/prune?filters={all}"), StatusCode::OK).await;
    assert_eq!(pruned["ImagesDeleted"][0], json!({ "Untagged": "app:1" }));
    assert_eq!(api.listed(json!({})).await, ["used:1"]);
    assert_eq!(api.post("/images/prune", StatusCode::OK).await["SpaceReclaimed"], json!(0));
}
