//! An engine of its own root for tests, asked through the Router.

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use std::path::PathBuf;
use tower::ServiceExt as _;

/// A root that is removed in the end.
pub(crate) struct Root {
    pub(crate) engine: crate::Shared,
    dir: PathBuf,
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn open(name: &str) -> Root {
    let dir = std::env::temp_dir().join(format!("cauldron-api-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let engine = crate::open(dir.join("root"), dir.join("run"), None).map_err(|failure| failure.0).unwrap();
    Root { engine, dir }
}

/// Status, headers and body of a `GET`.
pub(crate) fn get(root: &Root, path: &str) -> (u16, HeaderMap, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = crate::router(std::sync::Arc::clone(&root.engine)).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    })
}
