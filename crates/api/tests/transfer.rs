//! Images that come and go, as a client of the Router sees it: statuses, streams and their errors.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::path::PathBuf;
use tower::ServiceExt as _;

struct Api {
    dir: PathBuf,
    engine: api::Shared,
}

impl Api {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-api-transfer-{name}-{}", std::process::id()));
        let Ok(engine) = api::open(dir.join("root"), dir.join("run"), None) else {
            panic!("open the engine")
        };
        Self { dir, engine }
    }
    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        let response = api::router(self.engine.clone()).oneshot(request).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }
    async fn messages(&self, path: &str, body: Vec<u8>) -> (StatusCode, Vec<Value>) {
        let (status, bytes) = self.send(Method::POST, path, body).await;
        (status, serde_json::Deserializer::from_slice(&bytes).into_iter().map(Result::unwrap).collect())
    }
    async fn import(&self, query: &str) -> String {
        let path = format!("/v1.41/images/create?fromSrc=-&{query}");
        let (status, messages) = self.messages(&path, rootfs()).await;
        assert_eq!(status, StatusCode::OK, "{messages:?}");
        messages[0]["status"].as_str().unwrap().to_owned()
    }
    async fn error(&self, method: Method, path: &str, body: Vec<u8>) -> (u16, String) {
        let (status, bytes) = self.send(method, path, body).await;
        let message = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
        (status.as_u16(), message["message"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A tar with one file, written by hand: the smallest root file system.
fn rootfs() -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(b"00000000005");
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(b"hello");
    archive.resize(512 * 4, 0);
    archive
}

#[tokio::test]
async fn imported_saved_and_loaded() {
    let (here, there) = (Api::new("here"), Api::new("there"));
    let id = here.import("repo=group/app&tag=v1&message=m&changes=CMD%20%5B%22x%22%5D").await;
    assert!(id.starts_with("sha256:"), "{id}");
    let (status, archive) = here.send(Method::GET, "/v1.41/images/group/app:v1/get", Vec::new()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(here.send(Method::GET, "/images/get?names=group/app:v1", Vec::new()).await.1, archive);
    let (status, messages) = there.messages("/v1.41/images/load?quiet=1", archive).await;
    assert_eq!(
        (status, messages[0]["stream"].as_str().unwrap()),
        (StatusCode::OK, "Loaded image: group/app:v1\n")
    );
    let (_, bytes) = there.send(Method::GET, "/images/group/app:v1/json", Vec::new()).await;
    let image: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        (image["Id"].as_str().unwrap(), &image["Config"]["Cmd"]),
        (id.as_str(), &serde_json::json!(["x"]))
    );
}

#[tokio::test]
async fn errors_before_the_first_message_have_a_status() {
    let api = Api::new("errors");
    let not_found = (404, "No such image: absent:latest".to_owned());
    assert_eq!(api.error(Method::GET, "/images/absent/get", Vec::new()).await, not_found);
    // Docker answers a load with 200 whatever comes.
    let (status, messages) = api.messages("/images/load", vec![b'x'; 2048]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(messages[0]["error"].as_str().unwrap().contains("not a tar archive"), "{messages:?}");
    let (status, message) = api.error(Method::POST, "/images/create?fromImage=UPPER", Vec::new()).await;
    assert!(status == 400 && message.contains("invalid reference format"), "{status} {message}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = format!("/images/create?fromImage=127.0.0.1:{port}/x&tag=1");
    let (status, message) = api.error(Method::POST, &path, Vec::new()).await;
    assert!(status == 500 && message.contains("connection refused"), "{status} {message}");
    let (status, message) = api
        .error(Method::POST, "/cauldron/v1/images/bootstrap", br#"{"distribution":"alpine:3"}"#.to_vec())
        .await;
    assert!(status == 400 && message.contains("want debian:SUITE"), "{status} {message}");
}

#[tokio::test]
async fn later_errors_are_a_message() {
    let api = Api::new("later");
    let path = "/images/127.0.0.1:1/none/push?tag=1";
    let missing = (400, "Bad parameters and missing X-Registry-Auth: EOF".to_owned());
    assert_eq!(api.error(Method::POST, path, Vec::new()).await, missing);
    let (status, messages) = api.messages(path, b"{}".to_vec()).await;
    assert_eq!(status, StatusCode::OK);
    let last = messages.last().unwrap();
    assert_eq!(last["error"], last["errorDetail"]["message"]);
    assert_eq!(last["error"], "An image does not exist locally with the tag: 127.0.0.1:1/none");
}
