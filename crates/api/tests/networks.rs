//! `/networks` as a client sees it, over a root and in a network namespace of the test's own.

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::path::PathBuf;
use tower::ServiceExt as _;

struct Api {
    dir: PathBuf,
    engine: api::Shared,
    runtime: tokio::runtime::Runtime,
}

impl Api {
    fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        self.runtime.block_on(async {
            let response = api::router(self.engine.clone()).oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&bytes).unwrap_or_default())
        })
    }
    fn get(&self, path: &str) -> Value {
        let (status, value) = self.send(Method::GET, path, &Value::Null);
        assert_eq!(status, 200, "{value}");
        value
    }
    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(Method::POST, path, body)
    }
    fn names(&self, filters: &Value) -> Vec<String> {
        let text: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        let list = self.get(&format!("/networks?filters={text}"));
        list.as_array().unwrap().iter().map(|network| network["Name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// On a machine of its own: threads that the runtime starts inherit the namespace.
fn with_api(name: &str, test: impl FnOnce(&Api) + Send + 'static) {
    let dir = std::env::temp_dir().join(format!("cauldron-api-networks-{name}-{}", std::process::id()));
    let thread = std::thread::spawn(move || {
        #[allow(deprecated, reason = "of a thread that is nobody else's, and of nothing but its network")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("this test needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Ok(engine) = api::open(dir.join("root"), dir.join("run"), None) else {
            panic!("open the engine")
        };
        test(&Api { dir, engine, runtime });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn predefined_networks_are_there() {
    with_api("predefined", |api| {
        assert_eq!(api.names(&json!({})), ["bridge", "host", "none"]);
        let bridge = api.get("/networks/bridge");
        assert_eq!(bridge["Driver"], "bridge");
        assert_eq!(bridge["Options"]["com.docker.network.bridge.default_bridge"], "true");
        assert_eq!(bridge["IPAM"]["Config"].as_array().unwrap().len(), 1);
        assert_eq!(bridge["Containers"], json!({}));
        let (status, error) = api.send(Method::DELETE, "/networks/bridge", &Value::Null);
        assert_eq!(status, 403);
        assert_eq!(error["message"], "bridge is a pre-defined network and cannot be removed");
        let (status, error) = api.post("/networks/create", &json!({ "Name": "host" }));
        assert_eq!(
            (status, error["message"].as_str().unwrap()),
            (403, "operation is not permitted on predefined host network")
        );
    });
}

#[test]
fn a_network_lives_and_dies() {
    with_api("lives", |api| {
        let asked = json!({
            "Name": "back", "CheckDuplicate": true, "Internal": true, "Labels": { "tier": "db" },
            "IPAM": { "Config": [{ "Subnet": "10.77.0.0/24", "Gateway": "10.77.0.254", "IPRange": "10.77.0.128/25" }] },
        });
        let (status, made) = api.post("/v1.41/networks/create", &asked);
        assert_eq!(status, 201, "{made}");
        let id = made["Id"].as_str().unwrap();
        let back = api.get(&format!("/networks/{}", &id[..12]));
        assert_eq!((back["Name"].as_str(), back["Internal"].as_bool()), (Some("back"), Some(true)));
        assert_eq!(
            back["IPAM"]["Config"],
            json!([{ "Subnet": "10.77.0.0/24", "Gateway": "10.77.0.254", "IPRange": "10.77.0.128/25" }])
        );
        assert_eq!(api.post("/networks/create", &asked).0, 409);
        let overlapping = json!({ "Name": "other", "IPAM": { "Config": [{ "Subnet": "10.77.0.0/16" }] } });
        let (_, error) = api.post("/networks/create", &overlapping);
        assert!(
            error["message"].as_str().unwrap().contains("Pool overlaps with other one on this address space")
        );
        assert_eq!(api.names(&json!({ "label": ["tier=db"] })), ["back"]);
        assert_eq!(api.names(&json!({ "type": ["custom"] })), ["back"]);
        assert_eq!(api.names(&json!({ "name": ["ack"] })), ["back"]);
        assert_eq!(api.names(&json!({ "dangling": ["true"] })), ["back"]);
        assert_eq!(api.names(&json!({ "driver": ["host"] })), ["host"]);
        assert_eq!(api.send(Method::DELETE, "/networks/back", &Value::Null).0, 204);
        let (status, error) = api.send(Method::GET, "/networks/back", &Value::Null);
        assert_eq!((status, error["message"].as_str().unwrap()), (404, "network back not found"));
    });
}

#[test]
fn prune_takes_what_nobody_wants() {
    with_api("prune", |api| {
        for name in ["one", "two"] {
            let labels = json!({ "keep": if name == "one" { "yes" } else { "no" } });
            assert_eq!(api.post("/networks/create", &json!({ "Name": name, "Labels": labels })).0, 201);
        }
        let filters: String =
            json!({ "label!": ["keep=yes"] }).to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        assert_eq!(
            api.post(&format!("/networks/prune?filters={filters}"), &Value::Null).1,
            json!({ "NetworksDeleted": ["two"] })
        );
        assert_eq!(api.names(&json!({})), ["bridge", "host", "none", "one"]);
    });
}

#[test]
fn wrong_requests_say_what_is_wrong() {
    with_api("wrong", |api| {
        let subnet = |subnet: &str| json!({ "Name": "n", "IPAM": { "Config": [{ "Subnet": subnet }] } });
        for (body, text) in [
            (json!({ "Name": "" }), "invalid network name"),
            (json!({ "Name": "../x" }), "invalid network name"),
            (json!({ "Name": "n", "Driver": "overlay9" }), "could not find plugin overlay9"),
            (subnet("10.0.0.5/24"), "it should be 10.0.0.0/24"),
            (subnet("nonsense"), "invalid CIDR block notation"),
            (
                json!({ "Name": "n", "IPAM": { "Config": [{ "Gateway": "10.0.0.1" }] } }),
                "no matching subnet for 10.0.0.1",
            ),
        ] {
            let (status, error) = api.post("/networks/create", &body);
            assert!(
                status >= 400 && error["message"].as_str().unwrap().contains(text),
                "{body}: {status} {error}"
            );
        }
        let (status, error) = api.post("/networks/bridge/connect", &json!({ "Container": "nobody" }));
        assert_eq!((status, error["message"].as_str().unwrap()), (404, "No such container: nobody"));
    });
}
