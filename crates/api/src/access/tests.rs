//! The table against the Router's own source, and the spellings that must not matter.

use super::*;
use crate::test::open;
use axum::body::Body;
use http_body_util::BodyExt as _;
use std::path::Path;
use tower::ServiceExt as _;

/// Every `.route("PATH", get(…).post(…))` of this crate as (method, path).
fn routes_in_the_source() -> Vec<(&'static str, String)> {
    fn files(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.is_dir() => files(&path, found),
                path if path.ends_with("access/tests.rs") => {}
                path => found.push(std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    let mut texts = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let mut routes = Vec::new();
    for text in texts {
        for piece in text.split(".route(").skip(1) {
            let Some((path, rest)) =
                piece.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'))
            else {
                continue;
            };
            // Up to the parenthesis that closes `.route(`.
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let handlers = &rest[..end.unwrap()];
            for (word, method) in [
                ("get(", "GET"),
                ("post(", "POST"),
                ("put(", "PUT"),
                ("delete(", "DELETE"),
                ("head(", "HEAD"),
            ] {
                let called = handlers
                    .match_indices(word)
                    .any(|(at, _)| !handlers[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                if called {
                    routes.push((method, path.to_owned()));
                }
            }
        }
    }
    routes
}

#[test]
fn every_route_has_a_capability() {
    let routes = routes_in_the_source();
    assert!(routes.len() > 60, "{routes:?}");
    for (method, path) in &routes {
        assert!(needed(method, path).is_some(), "{method} {path} has no row in access/table.rs");
    }
    let same = |row: &&table::Row, (method, path): &(&str, String)| row.method == *method && row.path == path;
    let stale: Vec<_> = table::TABLE
        .iter()
        .filter(|row| row.needs != "swarm:read" && !routes.iter().any(|route| same(row, route)))
        .map(|row| row.path)
        .collect();
    assert!(stale.is_empty(), "rows of the table without a route: {stale:?}");
}

/// Found in its section, and not only refused by the page that does not exist.
#[test]
fn every_row_is_enforced_where_it_is_routed() {
    let root = open("rows");
    for row in table::TABLE.iter().filter(|row| row.needs != GREETING) {
        let other = if row.needs == "volumes:read" { "networks:read" } else { "volumes:read" };
        let access = Access::new(false, &[other.to_owned()]).unwrap();
        let path = row.path.replace("{id}", "x").replace("{name}", "x");
        assert_eq!(ask(&root, &access, row.method, &path, &[]).0, 403, "{} {path}", row.method);
    }
}

#[test]
fn lists_of_capabilities() {
    let allowed = |list: &str| {
        let access = Access::new(false, &[list.to_owned()]).map_err(|error| error.to_string())?;
        let list: Vec<_> = access.allowed.unwrap_or_default().into_iter().collect();
        Ok::<_, String>(list.join(" "))
    };
    assert_eq!(allowed("containers:read,logs").unwrap(), "containers:logs containers:read system:ping");
    assert_eq!(allowed("logs, events").unwrap(), "containers:logs events:read system:ping");
    assert_eq!(allowed("volumes").unwrap(), allowed("volumes:read,create,remove").unwrap());
    assert_eq!(allowed("images:*").unwrap(), allowed("images").unwrap());
    for bad in ["nothing", "containers:fly", "fly:read", "images:read,logs", ":", "containers:"] {
        assert!(allowed(bad).is_err(), "{bad}");
    }
}

/// Status and body of a request on a listener with this access.
fn ask(
    root: &crate::test::Root,
    access: &Access,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let router = crate::listener_router(Arc::clone(&root.engine), access);
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    })
}

#[test]
fn a_read_only_listener_reads() {
    let root = open("read-only");
    let access = Access::new(true, &[]).unwrap();
    let status = |method: &str, path: &str| ask(&root, &access, method, path, &[]).0;
    for path in
        ["/_ping", "/v1.41/version", "/containers/json", "/images/json", "/volumes", "/networks", "/info"]
    {
        assert_eq!(status("GET", path), 200, "{path}");
    }
    assert_eq!(status("HEAD", "/_ping"), 200);
    assert_eq!(status("GET", "/containers/x/json"), 404);
    for row in table::TABLE.iter().filter(|row| row.method != "GET" || !READING.contains(&row.needs)) {
        let path = row.path.replace("{id}", "x").replace("{name}", "x");
        assert_eq!(status(row.method, &path), 403, "{} {path}", row.method);
    }
}

#[test]
fn no_spelling_gets_round_it() {
    let root = open("spellings");
    for access in
        [Access::new(true, &[]).unwrap(), Access::new(false, &["containers:read".to_owned()]).unwrap()]
    {
        for (method, path) in [
            ("POST", "/v1.24/containers/create"),
            ("POST", "/v1.51/containers/x/start"),
            ("POST", "/containers/x%2Fy/start"),
            ("POST", "/containers/x/%73tart"),
            ("POST", "/%63ontainers/create"),
            ("POST", "//containers/create"),
            ("POST", "/containers//create"),
            ("POST", "/containers/create/"),
            ("POST", "/containers/../containers/create"),
            ("POST", "/v1.41/v1.41/containers/create"),
            ("POST", "/containers/json/../create"),
            ("POST", "/containers/x/start?method=GET&_method=GET"),
            ("post", "/containers/create"),
            ("GET", "/containers/x/attach/ws"),
            ("HEAD", "/containers/x/archive?path=/etc/passwd"),
            ("GET", "/containers/x/archive?path=/etc/passwd"),
            ("OPTIONS", "/containers/create"),
            ("CONNECT", "/containers/create"),
            ("POST", "http://docker/v1.41/containers/create"),
            ("DELETE", "/images/a/b/c"),
            ("DELETE", "/images/..%2F..%2Fcontainers%2Fx"),
        ] {
            let (status, body) = ask(&root, &access, method, path, &[]);
            // Refused, or no route at all: an answer of the engine's, "no such container" say, has got round it.
            let refused = status == 403 || (status == 404 && body.contains("page not found"));
            assert!(refused, "{method} {path}: {status} {body}");
        }
        let tricks = [
            ("x-http-method-override", "GET"),
            ("x-original-url", "/_ping"),
            ("connection", "Upgrade"),
            ("upgrade", "tcp"),
        ];
        assert_eq!(ask(&root, &access, "POST", "/containers/x/start", &tricks).0, 403);
    }
}
