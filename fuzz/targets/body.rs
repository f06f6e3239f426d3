//! JSON bodies of requests, through the whole Router to the engine. The first byte chooses the route.
#![no_main]

use axum::body::Body;
use axum::http::Request;
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;
use tower::ServiceExt as _;

struct Served {
    runtime: tokio::runtime::Runtime,
    engine: api::Shared,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let place: PathBuf = std::env::temp_dir().join(format!("fuzz-body-{}", std::process::id()));
    let engine = api::open(place.join("root"), place.join("run"), None);
    let engine = engine.unwrap_or_else(|failure| panic!("{failure:?}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let served = Served { runtime, engine };
    let tar = [0u8; 1024];
    let made = ask(&served, "POST", "/images/create?fromSrc=-&repo=x", &tar);
    assert_eq!(made, 200, "an image without files");
    served
});

fn ask(served: &Served, method: &str, path: &str, body: &[u8]) -> u16 {
    let request = Request::builder().method(method).uri(path).header("Host", "x");
    let request = request.header("Content-Type", "application/json").body(Body::from(body.to_vec()));
    served.runtime.block_on(async {
        let router = api::router(std::sync::Arc::clone(&served.engine));
        let answer = router.oneshot(request.expect("a request")).await.expect("an answer");
        let status = answer.status().as_u16();
        let _ = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
        status
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else { return };
    let served = &*SERVED;
    let (path, undo) = match first % 5 {
        0 => ("/containers/create?name=fuzz", Some("/containers/fuzz?force=1&v=1")),
        1 => ("/networks/create", None),
        2 => ("/volumes/create", None),
        3 => ("/containers/none/update", None),
        _ => ("/containers/none/exec", None),
    };
    let status = ask(served, "POST", path, body);
    assert_ne!(status, 500, "{path}: {}", String::from_utf8_lossy(body));
    if let Some(undo) = undo.filter(|_| status == 201) {
        assert!(ask(served, "DELETE", undo, b"") < 300);
    }
    if status == 201 && undo.is_none() {
        ask(served, "POST", "/networks/prune", b"");
        ask(served, "POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", b"");
    }
});
