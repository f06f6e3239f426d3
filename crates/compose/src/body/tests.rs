use super::*;
use crate::load::{Request, load};
use serde_json::{Value, json};
use std::path::Path;

pub(crate) fn project(text: &str) -> Project {
    try_project(text).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn try_project(text: &str) -> Result<Project> {
    let read = |path: &Path| {
        let found = path == Path::new("/p/compose.yaml");
        found.then(|| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let request = Request {
        cwd: "/p".into(),
        files: Vec::new(),
        directory: None,
        name: None,
        profiles: Vec::new(),
        env_files: Vec::new(),
        environment: std::collections::BTreeMap::from([("SECRET".to_owned(), "hush".to_owned())]),
        interpolate: true,
        resolve_environment: true,
        services: Vec::new(),
        read: &read,
    };
    load(&request)
}

fn made(text: &str) -> Result<Body> {
    let project = project(text);
    let which = Which { number: 1, oneoff: false, aliases: true, ports: true };
    let inherited = BTreeMap::from([("/anon".to_owned(), "abc".to_owned())]);
    let around = Around {
        container: &|name| Some((format!("id-{name}"), format!("p-{name}-1"))),
        inherited: &inherited,
        image_id: "sha256:1",
        delivers: false,
    };
    body(&project, &project.services["w"], &which, &around)
}

/// The request without labels.
fn request(text: &str) -> Value {
    let mut value = serde_json::to_value(made(text).unwrap().create).unwrap();
    value.as_object_mut().unwrap().remove("Labels");
    value
}

#[test]
fn a_whole_service() {
    let text = "services:
  w:
    image: i
    command: run it
    environment: {A: 1}
    ports: ['127.0.0.1:8080:80', '53:53/udp']
    expose: ['9000-9001']
    volumes: ['data:/data:ro', './x:/x', '/anon', {type: tmpfs, target: /t, tmpfs: {size: 1m}}, {type: bind, source: ./y, target: /y, bind: {create_host_path: false}}]
    networks: {front: {aliases: [web], priority: 5, ipv4_address: 10.1.0.5}, back: }
    links: ['db:database']
    healthcheck: {test: 'curl x', interval: 5s, retries: 3}
    deploy: {resources: {limits: {cpus: '0.5', memory: 64m, pids: 9}}, restart_policy: {condition: on-failure, max_attempts: 2}}
    ulimits: {nofile: {soft: 1, hard: 2}}
    stop_grace_period: 1m30s
    extra_hosts: ['a:1.2.3.4']
    tmpfs: /run:size=1m
  db: {image: j}
networks: {front: , back: }
volumes: {data: }
";
    let value = request(text);
    let host = &value["HostConfig"];
    assert_eq!(value["Cmd"], json!(["run", "it"]));
    assert_eq!(value["ExposedPorts"], json!({"53/udp": {}, "80/tcp": {}, "9000/tcp": {}, "9001/tcp": {}}));
    assert_eq!(host["PortBindings"]["80/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": "8080"}]));
    assert_eq!(host["Binds"], json!(["p_data:/data:ro", "/p/x:/x:rw", "abc:/anon:rw"]));
    assert_eq!(host["Mounts"][0]["TmpfsOptions"]["SizeBytes"], json!(1 << 20));
    assert_eq!(host["Mounts"][1]["Source"], json!("/p/y"));
    assert_eq!(host["NetworkMode"], json!("p_front"));
    let endpoint = &value["NetworkingConfig"]["EndpointsConfig"]["p_front"];
    assert_eq!(endpoint["Aliases"], json!(["w", "web"]));
    assert_eq!(endpoint["Links"], json!(["p-db-1:database"]));
    assert_eq!(endpoint["IPAMConfig"]["IPv4Address"], json!("10.1.0.5"));
    assert_eq!(value["Healthcheck"]["Test"], json!(["CMD-SHELL", "curl x"]));
    assert_eq!(value["Healthcheck"]["Interval"], json!(5_000_000_000_i64));
    assert_eq!(
        (&host["NanoCpus"], &host["Memory"], &host["PidsLimit"]),
        (&json!(500_000_000), &json!(64 << 20), &json!(9))
    );
    assert_eq!(host["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 2}));
    assert_eq!(value["StopTimeout"], json!(90));
    assert_eq!(host["Tmpfs"], json!({"/run": "size=1m"}));
    assert_eq!(made(text).unwrap().networks[0].0, "p_back");
}

#[test]
fn shared_namespaces() {
    let value = request(
        "services: {w: {image: i, network_mode: 'service:db', pid: 'service:db', volumes_from: ['db:ro', 'container:c']}, db: {image: j}}",
    );
    assert_eq!(value["HostConfig"]["NetworkMode"], json!("container:id-db"));
    assert_eq!(value["HostConfig"]["PidMode"], json!("container:id-db"));
    assert_eq!(value["HostConfig"]["VolumesFrom"], json!(["id-db:ro", "c"]));
}

#[test]
fn secrets_are_delivered() {
    let text = "services: {w: {image: i, secrets: [f, {source: e, target: name, mode: 0400, uid: '5'}], configs: [{source: c, target: /etc/c}]}}\nsecrets: {f: {file: ./f.txt}, e: {environment: SECRET}}\nconfigs: {c: {content: text}}";
    let made = made(text).unwrap();
    assert_eq!(made.create.host_config.unwrap().binds.unwrap()[1], "/p/f.txt:/run/secrets/f:ro");
    let targets: Vec<_> =
        made.deliveries.iter().map(|one| (one.target.as_str(), one.mode, one.uid)).collect();
    assert_eq!(targets, [("/run/secrets/name", 0o400, 5), ("/etc/c", 0o444, 0)]);
    assert_eq!(format!("{:?}", made.deliveries[0].source), "4 bytes");
    let missing = "services:\n  w:\n    image: i\n    secrets: [e]\nsecrets: {e: {environment: NOPE}}";
    let error = super::tests::made(missing).unwrap_err().to_string();
    assert_eq!(
        error,
        "/p/compose.yaml:4:14: services.w.secrets: environment variable \"NOPE\" required by e is not set"
    );
}

#[test]
fn refusals() {
    let error = made("services: {w: {image: i, gpus: all}}").unwrap_err().to_string();
    assert_eq!(error, "/p/compose.yaml:1:32: services.w.gpus: not supported by this engine");
}

#[test]
fn hashes_change_with_what_counts() {
    let hash = |body: &str| {
        let project = project(&format!("services: {{w: {body}}}"));
        crate::labels::hash(&project, &project.services["w"])
    };
    let plain = hash("{image: i, command: a}");
    assert_eq!(plain, hash("{image: i, command: [a], scale: 3, profiles: []}"));
    assert_ne!(plain, hash("{image: i, command: b}"));
    assert_ne!(plain, hash("{image: j, command: a}"));
}

#[test]
fn networks_that_differ() {
    let want = |text: &str| {
        project(&format!("services: {{w: {{image: i, networks: [n]}}}}\nnetworks: {{n: {text}}}")).networks["n"].clone()
    };
    let found = json!({"Driver": "bridge", "Internal": false, "EnableIPv6": false, "Options": {}, "Labels": {}, "IPAM": {"Config": [{"Subnet": "10.5.0.0/16", "Gateway": "10.5.0.1"}]}});
    assert_eq!(network_differs(&want("{}"), &found), None);
    assert_eq!(network_differs(&want("{ipam: {config: [{subnet: 10.5.0.0/16}]}}"), &found), None);
    assert!(network_differs(&want("{ipam: {config: [{subnet: 10.6.0.0/16}]}}"), &found).is_some());
    assert!(network_differs(&want("{internal: true}"), &found).is_some());
}
