//! Answers of `cauldron serve` against Docker's own description of them: the structures that `bollard-stubs` generates from
//! it read every answer, and nothing of an answer is unknown to them.

mod busybox;
#[path = "clients/engine.rs"]
mod engine;

use bollard_stubs::models;
use engine::Engine;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::cell::RefCell;

/// What we tell beyond the description, or what it has dropped since.
const EXTRA: [&str; 10] = [
    // Our own part of `/info`.
    ".Cauldron",
    // docker-compose 1.29 needs it.
    ".ContainerConfig",
    // Of version 1.51; the description at hand is newer.
    ".DockerVersion",
    ".Parent",
    // In Docker's answers, and left out of their description.
    ".GraphDriver.Data.",
    ".HostConfig.",
    ".Config.",
    ".NetworkSettings.",
    ".RegistryConfig.",
    "Commit.Expected",
];

struct Api(Engine, RefCell<Vec<String>>);

impl Api {
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let socket = self.0.dir.join("docker.sock").display().to_string();
        let (body, url) = (body.to_string(), format!("http://docker/v1.51{path}"));
        let mut args = vec!["curl", "-gsS", "-m", "30", "-w", "\n%{http_code}", "--unix-socket", &socket];
        args.extend(["-X", method, &url]);
        if method == "POST" {
            args.extend(["-H", "Content-Type: application/json", "-d", &body]);
        }
        let output = self.0.output(&args);
        let text = String::from_utf8(output.stdout).unwrap();
        let (answer, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), answer.to_owned())
    }
    /// Reads an answer as what it is described to be, and notes what else is in it.
    fn conforms<T: DeserializeOwned + Serialize>(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, &body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        let ours: Value =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        let read: T =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        let mut unknown = Vec::new();
        differ(&ours, &serde_json::to_value(&read).unwrap(), "", &mut unknown);
        self.1.borrow_mut().extend(unknown.into_iter().map(|field| format!("{method} {path}: {field}")));
        ours
    }
    fn get<T: DeserializeOwned + Serialize>(&self, path: &str) -> Value {
        self.conforms::<T>("GET", path, Value::Null)
    }
    fn post<T: DeserializeOwned + Serialize>(&self, path: &str, body: Value) -> Value {
        self.conforms::<T>("POST", path, body)
    }
    fn done(&self, method: &str, path: &str) {
        let (status, answer) = self.ask(method, path, &Value::Null);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    }
    fn refused(&self, method: &str, path: &str, body: Value, wanted: u16, text: &str) {
        let (status, answer) = self.ask(method, path, &body);
        let error: models::ErrorResponse = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{method} {path}: {status} {error}: {answer}"));
        assert!(status == wanted && error.message.contains(text), "{method} {path}: {status} {answer}");
    }
}

/// Fields of `ours` that did not survive in `read`; null is as good as absent.
fn differ(ours: &Value, read: &Value, at: &str, unknown: &mut Vec<String>) {
    match (ours, read) {
        (Value::Object(ours), Value::Object(read)) => {
            for (key, value) in ours.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{at}.{key}");
                if EXTRA.iter().any(|known| path.contains(known)) {
                    continue;
                }
                match read.get(key) {
                    Some(other) => differ(value, other, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(ours), Value::Array(read)) => {
            for (ours, read) in ours.iter().zip(read) {
                differ(ours, read, at, unknown);
            }
        }
        _ => {}
    }
}

#[test]
fn answers_are_as_docker_describes_them() {
    let api = Api(Engine::cauldron(), RefCell::default());
    api.get::<models::SystemInfo>("/info");
    api.get::<models::SystemVersion>("/version");
    images(&api);
    let id = container(&api);
    networks_and_volumes(&api, &id);
    ends(&api, &id);
    refusals(&api);
    let unknown = api.1.borrow();
    assert!(unknown.is_empty(), "not in Docker's description:\n{}", unknown.join("\n"));
}

fn images(api: &Api) {
    api.get::<Vec<models::ImageSummary>>("/images/json");
    api.get::<Vec<models::ImageSummary>>("/images/json?all=1&digests=1&shared-size=1");
    api.get::<models::ImageInspect>("/images/busybox/json");
    api.get::<Vec<models::ImageHistoryResponseItem>>("/images/busybox/history");
    api.done("POST", "/images/busybox/tag?repo=127.0.0.1:5000/a/b&tag=1");
    api.done("POST", "/images/127.0.0.1:5000/a/b/push?tag=1");
    api.get::<models::DistributionInspect>("/distribution/127.0.0.1:5000/a/b:1/json");
    api.get::<models::ImageInspect>("/images/127.0.0.1:5000/a/b:1/json");
    api.conforms::<Vec<models::ImageDeleteResponseItem>>(
        "DELETE",
        "/images/127.0.0.1:5000/a/b:1",
        Value::Null,
    );
}

fn container(api: &Api) -> String {
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "Env": ["A=b"], "Labels": {"a": "b"},
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/anonymous": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        "HostConfig": {
            "Memory": 64 << 20, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
            "Mounts": [{"Type": "tmpfs", "Target": "/t"}, {"Type": "volume", "Source": "vol", "Target": "/v"}],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}], "CapAdd": ["NET_ADMIN"],
        },
    });
    let made = api.post::<models::ContainerCreateResponse>("/containers/create?name=box", body);
    let id = made["Id"].as_str().unwrap().to_owned();
    api.get::<models::ContainerInspectResponse>("/containers/box/json");
    api.done("POST", "/containers/box/start");
    let state = api.get::<models::ContainerInspectResponse>("/containers/box/json?size=1");
    assert!(state["SizeRootFs"].as_u64().unwrap() > 0 && state["State"]["Running"] == json!(true));
    api.get::<Vec<models::ContainerSummary>>("/containers/json?size=1");
    for filter in [
        r#"{"status":["running"]}"#,
        r#"{"label":["a=b"],"name":["box"]}"#,
        r#"{"ancestor":["busybox"]}"#,
        r#"{"health":["starting","healthy"]}"#,
        r#"{"expose":["80/tcp"]}"#,
        r#"{"volume":["vol"]}"#,
        r#"{"network":["bridge"]}"#,
        r#"{"is-task":["false"]}"#,
    ] {
        let list = api.get::<Vec<models::ContainerSummary>>(&format!("/containers/json?filters={filter}"));
        assert_eq!(list.as_array().unwrap().len(), 1, "{filter}");
    }
    api.get::<models::ContainerTopResponse>("/containers/box/top");
    api.get::<models::ContainerStatsResponse>("/containers/box/stats?stream=0");
    api.get::<models::ContainerStatsResponse>("/containers/box/stats?stream=0&one-shot=1");
    let exec = api.post::<Value>("/containers/box/exec", json!({ "Cmd": ["touch", "/new"] }));
    let exec = exec["Id"].as_str().unwrap().to_owned();
    api.get::<models::ExecInspectResponse>(&format!("/exec/{exec}/json"));
    let (status, _) = api.ask("POST", &format!("/exec/{exec}/start"), &json!({ "Detach": false }));
    assert_eq!(status, 200);
    api.get::<models::ExecInspectResponse>(&format!("/exec/{exec}/json"));
    api.get::<Vec<models::FilesystemChange>>("/containers/box/changes");
    api.post::<models::ContainerUpdateResponse>("/containers/box/update", json!({ "CpuShares": 100 }));
    id
}

fn networks_and_volumes(api: &Api, id: &str) {
    api.get::<models::VolumeListResponse>("/volumes");
    api.get::<models::Volume>("/volumes/vol");
    api.post::<models::Volume>("/volumes/create", json!({ "Name": "other", "Labels": {"a": "b"} }));
    api.post::<models::NetworkCreateResponse>(
        "/networks/create",
        json!({ "Name": "net", "EnableIPv6": false }),
    );
    let (status, answer) = api.ask("POST", "/networks/net/connect", &json!({ "Container": id }));
    assert_eq!(status, 200, "{answer}");
    let network = api.get::<models::NetworkInspect>("/networks/net");
    assert!(network["Containers"][id]["IPv4Address"].is_string(), "{network}");
    api.get::<Vec<models::NetworkInspect>>("/networks");
    for name in ["bridge", "host", "none"] {
        api.get::<models::NetworkInspect>(&format!("/networks/{name}"));
    }
    api.get::<models::ContainerInspectResponse>("/containers/box/json");
}

fn ends(api: &Api, id: &str) {
    // The description at hand has version 1.53's shape of it; this is 1.51's.
    let usage = api.get::<Value>("/system/df");
    let read = |part: &str| usage[part].clone();
    serde_json::from_value::<Vec<models::ImageSummary>>(read("Images")).unwrap();
    serde_json::from_value::<Vec<models::ContainerSummary>>(read("Containers")).unwrap();
    serde_json::from_value::<Vec<models::Volume>>(read("Volumes")).unwrap();
    serde_json::from_value::<Vec<models::BuildCache>>(read("BuildCache")).unwrap();
    assert!(usage["LayersSize"].is_u64(), "{usage}");
    api.done("POST", "/containers/box/stop?t=0");
    api.post::<models::ContainerWaitResponse>("/containers/box/wait", Value::Null);
    api.post::<Value>("/commit?container=box&repo=made&tag=1", json!({}));
    api.done("DELETE", "/containers/box?v=1&force=1");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let (status, events) = api.ask("GET", &format!("/events?since=1&until={now:.9}"), &Value::Null);
    assert_eq!(status, 200);
    for line in events.lines().filter(|line| !line.is_empty()) {
        let event: models::EventMessage =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event.time_nano.is_some() && event.typ.is_some(), "{line}");
    }
    assert!(events.contains(id) && events.contains("\"destroy\""), "{events}");
    api.post::<models::ContainerPruneResponse>("/containers/prune", Value::Null);
    api.post::<models::NetworkPruneResponse>("/networks/prune", Value::Null);
    api.post::<models::VolumePruneResponse>("/volumes/prune", Value::Null);
    api.post::<models::ImagePruneResponse>("/images/prune", Value::Null);
    api.post::<models::BuildPruneResponse>("/build/prune", Value::Null);
}

fn refusals(api: &Api) {
    let none = || Value::Null;
    for (path, text) in [
        ("/containers/nosuch/json", "No such container: nosuch"),
        ("/containers/nosuch/logs?stdout=1", "No such container: nosuch"),
        ("/images/nosuch/json", "No such image: nosuch"),
        ("/networks/nosuch", "network nosuch not found"),
        ("/volumes/nosuch", "nosuch: no such volume"),
        ("/exec/nosuch/json", "No such exec instance: nosuch"),
        ("/plugins/nosuch/json", "plugin \"nosuch\" not found"),
        ("/nosuch", "page not found"),
    ] {
        api.refused("GET", path, none(), 404, text);
    }
    for path in ["start", "stop", "restart", "kill", "pause", "unpause", "wait", "attach", "rename?name=x"] {
        api.refused("POST", &format!("/containers/nosuch/{path}"), none(), 404, "No such container: nosuch");
    }
    api.refused("POST", "/containers/create", json!({ "Image": "nosuch:1" }), 404, "No such image: nosuch:1");
    let bad = json!({ "Image": "busybox", "HostConfig": { "Memory": 1 } });
    api.refused("POST", "/containers/create", bad, 400, "Minimum memory limit allowed is 6MB");
    api.refused(
        "POST",
        "/containers/create?name=a/b",
        json!({ "Image": "busybox" }),
        400,
        "Invalid container name",
    );
    api.refused("GET", r#"/containers/json?filters={"nosuch":["x"]}"#, none(), 400, "nvalid filter 'nosuch'");
    api.refused("GET", "/containers/json?filters=bad", none(), 400, "invalid filter");
    api.refused("PUT", "/containers/json", none(), 404, "page not found");
    for path in ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"] {
        api.refused("GET", path, none(), 503, "This node is not a swarm manager");
    }
    api.refused("POST", "/swarm/leave", none(), 503, "This node is not part of a swarm");
    api.refused("POST", "/images/create?fromImage=127.0.0.1:5000/nosuch&tag=1", none(), 404, "nosuch");
}
