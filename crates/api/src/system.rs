//! `/_ping`, `/version`, `/info`, and what this engine is not: a swarm manager, a host of plugins.

use crate::{API_VERSION, Failure, MIN_API_VERSION, Shared, call};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use engine::Engine;
use engine::model::time::Timestamp;
use engine::model::{Error, Kind};
use engine::system::Info;
use serde_json::{Value, json};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    let mut router = router
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/session", post(no_session))
        .route("/grpc", post(no_session))
        .route("/plugins", get(plugins))
        .route("/plugins/{*rest}", any(no_plugin))
        .route("/swarm/init", post(swarm_unavailable))
        .route("/swarm/join", post(swarm_unavailable))
        .route("/swarm/leave", any(not_in_a_swarm));
    for path in ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"] {
        router = router.route(path, any(no_swarm)).route(&format!("{path}/{{*rest}}"), any(no_swarm));
    }
    router
}

/// `GET` and `HEAD`. The builder is the classic one, so that clients do not ask for a BuildKit session.
async fn ping() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    (headers, "OK").into_response()
}

async fn plugins() -> Json<Value> {
    Json(json!([]))
}

async fn no_plugin(Path(rest): Path<String>) -> Failure {
    let name = rest.strip_suffix("/json").unwrap_or(&rest);
    Failure(Error::not_found(format!("plugin \"{name}\" not found: this engine has no managed plugins")))
}

async fn not_in_a_swarm() -> Failure {
    Failure(Error::new(Kind::Unavailable, "This node is not part of a swarm"))
}

async fn no_session() -> Failure {
    Failure(Error::not_found("page not found: this engine has no BuildKit sessions"))
}

async fn swarm_unavailable() -> Failure {
    Failure(Error::new(Kind::NotImplemented, "this engine cannot be part of a swarm"))
}

async fn no_swarm() -> Failure {
    Failure(Error::new(
        Kind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    ))
}

/// GOARCH of `uname -m`.
fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn version() -> Json<Value> {
    let machine = engine::system::machine();
    let arch = go_arch(&machine.machine);
    Json(json!({
        "Platform": { "Name": "Cauldron" },
        "Components": [{
            "Name": "Engine",
            "Version": VERSION,
            "Details": {
                "ApiVersion": API_VERSION,
                "MinAPIVersion": MIN_API_VERSION,
                "Arch": arch,
                "Os": "linux",
                "KernelVersion": machine.kernel,
                "Experimental": "false",
                "GitCommit": "",
                "GoVersion": "",
                "BuildTime": "",
            },
        }],
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": machine.kernel,
        "BuildTime": "",
    }))
}

async fn info(State(engine): State<Shared>) -> Result<(StatusCode, Json<Value>), Failure> {
    let body = call(&engine, |engine| Ok(describe(engine, &engine.info()?))).await?;
    Ok((StatusCode::OK, Json(body)))
}

fn describe(engine: &Engine, info: &Info) -> Value {
    let (running, paused, stopped) = info.containers;
    let mut body = machine_part(info);
    let ours = json!({
        "ID": engine.roots().root.display().to_string(),
        "Containers": running + paused + stopped,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": info.images,
        "DockerRootDir": engine.roots().root.display().to_string(),
        "RegistryConfig": registries(engine),
        "DefaultAddressPools": engine.config().default_address_pools.iter()
            .map(|pool| json!({ "Base": pool.base.to_string(), "Size": pool.size }))
            .collect::<Vec<_>>(),
        "Cauldron": {
            "Config": engine.config(),
            "RunRoot": engine.roots().run_root.display().to_string(),
        },
    });
    if let (Value::Object(body), Value::Object(ours)) = (&mut body, ours) {
        body.extend(ours);
    }
    body
}

fn registries(engine: &Engine) -> Value {
    let config = engine.config();
    let mut indexes = serde_json::Map::new();
    for name in &config.insecure_registries {
        indexes
            .insert(name.clone(), json!({ "Name": name, "Mirrors": [], "Secure": false, "Official": false }));
    }
    indexes.insert(
        "docker.io".to_owned(),
        json!({ "Name": "docker.io", "Mirrors": config.registry_mirrors, "Secure": true, "Official": true }),
    );
    json!({
        "AllowNondistributableArtifactsCIDRs": null,
        "AllowNondistributableArtifactsHostnames": null,
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
        "IndexConfigs": indexes,
        "Mirrors": config.registry_mirrors,
    })
}

/// What does not depend on the root.
fn machine_part(info: &Info) -> Value {
    let mut all = kernel_part(info);
    if let (Value::Object(all), Value::Object(engine)) = (&mut all, engine_part(info)) {
        all.extend(engine);
    }
    all
}

fn engine_part(info: &Info) -> Value {
    json!({
        "Driver": "overlay2",
        "DriverStatus": [["Supports d_type", "true"], ["Native Overlay Diff", "true"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": null,
            "Log": ["json-file", "local"],
        },
        "Debug": false,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "LoggingDriver": "json-file",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "GenericResources": null,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Runtimes": { "cauldron": { "path": "cauldron" }, "io.containerd.runc.v2": { "path": "cauldron" }, "runc": { "path": "cauldron" } },
        "DefaultRuntime": "cauldron",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "cauldron",
        "ContainerdCommit": { "ID": "", "Expected": "" },
        "RuncCommit": { "ID": "", "Expected": "" },
        "InitCommit": { "ID": "", "Expected": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "Warnings": info.warnings,
    })
}

fn kernel_part(info: &Info) -> Value {
    json!({
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "OomKillDisable": info.cgroup_version == 1,
        "IPv4Forwarding": info.ipv4_forwarding,
        "SystemTime": Timestamp::from_system(std::time::SystemTime::now()),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": info.cgroup_version.to_string(),
        "KernelVersion": info.kernel,
        "OperatingSystem": info.os.0,
        "OSVersion": info.os.1,
        "OSType": "linux",
        "Architecture": info.machine,
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "Name": info.host_name,
    })
}

#[cfg(test)]
mod tests {
    use crate::test::{get, open};
    use serde_json::Value;

    #[test]
    fn negotiates_versions() {
        let root = open("versions");
        for (path, status, text) in [
            ("/_ping", 200, "OK"),
            ("/v1.41/_ping", 200, "OK"),
            ("/v9.99/_ping", 400, "client version 9.99 is too new. Maximum supported API version is 1.51"),
            ("/v1.10/_ping", 400, "client version 1.10 is too old. Minimum supported API version is 1.24"),
            ("/v1.41/nothing", 404, "page not found: /nothing"),
            ("/swarm", 503, "This node is not a swarm manager."),
            ("/swarm/leave", 503, "This node is not part of a swarm"),
            ("/plugins", 200, "[]"),
            ("/plugins/vieux/sshfs/json", 404, "plugin \\\"vieux/sshfs\\\" not found"),
            ("/services/x/logs", 503, "This node is not a swarm manager."),
        ] {
            let (got, headers, body) = get(&root, path);
            assert_eq!(got, status, "{path}");
            assert!(body.contains(text), "{path}: {body}");
            assert_eq!(headers["api-version"], "1.51");
            assert_eq!(headers["ostype"], "linux");
        }
    }

    #[test]
    fn tells_its_version() {
        let root = open("version");
        let (status, _, body) = get(&root, "/v1.41/version");
        let version: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, version["ApiVersion"].as_str()), (200, Some("1.51")));
    }

    #[test]
    fn replays_events_and_ends_at_until() {
        let root = open("events");
        let attributes = |name: &str| [("name".to_owned(), name.to_owned())].into();
        root.engine.emit("volume", "create", "v1", attributes("v1"));
        root.engine.emit("container", "start", "c1", attributes("web"));
        let (status, _, body) = get(&root, "/events?since=1&until=2");
        assert_eq!((status, body.as_str()), (200, ""));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let filters = "%7B%22type%22%3A%5B%22container%22%5D%7D";
        let (_, _, body) = get(&root, &format!("/events?since=1&until={now:.9}&filters={filters}"));
        let event: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((event["status"].as_str(), event["id"].as_str()), (Some("start"), Some("c1")));
    }
}
