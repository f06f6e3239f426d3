use super::convert::request;
use engine::container::Request;
use engine::model::container::{
    IpcMode, Lifecycle, MountSource, NamespaceMode, NetworkMode, RestartPolicy, Seccomp,
};
use engine::model::{ContainerId, Error, Result};
use serde_json::{Value, json};

fn other(name: &str) -> Result<ContainerId> {
    match name {
        "db" => Ok(ContainerId::from_bytes([1; 32])),
        _ => Err(Error::not_found(format!("No such container: {name}"))),
    }
}

fn convert(mut body: Value) -> Result<(Request, Vec<String>)> {
    body["Image"] = "busybox".into();
    request(None, body, &other)
}

fn host(host: Value) -> Result<(Request, Vec<String>)> {
    convert(json!({ "HostConfig": host }))
}

fn refused(result: Result<(Request, Vec<String>)>) -> String {
    result.map(|_| ()).expect_err("it must be refused").to_string()
}

#[test]
fn what_the_docker_cli_sends_for_a_plain_run() {
    let body = serde_json::from_str(
        r#"{
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true, "Tty": false,
        "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": ["true"], "Image": "busybox", "Volumes": {}, "WorkingDir": "",
        "Entrypoint": null, "OnBuild": null, "Labels": {},
        "HostConfig": {
            "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "", "Config": {} }, "NetworkMode": "default",
            "PortBindings": {}, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "AutoRemove": true, "VolumeDriver": "",
            "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null, "CgroupnsMode": "", "Dns": [],
            "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null, "IpcMode": "", "Cgroup": "", "Links": null,
            "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": false,
            "SecurityOpt": null, "UTSMode": "", "UsernsMode": "", "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0,
            "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [],
            "CpuPeriod": 0, "CpuQuota": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": null,
            "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1, "OomKillDisable": false,
            "PidsLimit": 0, "Ulimits": null, "MaskedPaths": null, "ReadonlyPaths": null
        },
        "NetworkingConfig": { "EndpointsConfig": { "default": { "IPAMConfig": null, "Links": null, "Aliases": null } } }
    }"#,
    )
    .unwrap();
    let (request, warnings) = convert(body).unwrap();
    let spec = request.spec;
    assert!(warnings.is_empty());
    assert_eq!(spec.lifecycle, Lifecycle::RemoveOnExit);
    assert_eq!(spec.resources, Default::default());
    assert_eq!(spec.shm_bytes, 64 << 20);
    assert_eq!(spec.security.masked_paths, None);
    let NetworkMode::Attached(attachment) = spec.network else { panic!("the bridge") };
    assert_eq!(attachment.endpoints.len(), 1);
    assert_eq!(attachment.endpoints[0].network, "bridge");
}

#[test]
fn binds_and_mounts() {
    let (request, _) = convert(json!({
        "Volumes": { "/anon": {} },
        "HostConfig": {
            "Binds": ["/srv/../etc:/a:ro,rslave", "data:/b:nocopy", "/c"],
            "Mounts": [
                { "Type": "volume", "Source": "v", "Target": "/d", "VolumeOptions": { "Subpath": "x/y", "Labels": { "k": "l" } } },
                { "Type": "tmpfs", "Target": "/e", "TmpfsOptions": { "SizeBytes": 4096, "Mode": 511 } },
                { "Type": "bind", "Source": "/f", "Target": "/f", "ReadOnly": true },
            ],
            "Tmpfs": { "/run": "rw,size=64m,mode=1770,exec" },
        },
    }))
    .unwrap();
    let mounts = request.spec.mounts;
    let shown: Vec<(&str, bool)> =
        mounts.iter().map(|mount| (mount.target.as_str(), mount.read_only)).collect();
    assert_eq!(
        shown,
        [
            ("/a", true),
            ("/b", false),
            ("/c", false),
            ("/d", false),
            ("/e", false),
            ("/f", true),
            ("/run", false),
            ("/anon", false)
        ]
    );
    assert!(
        matches!(&mounts[0].source, MountSource::Bind { path, create_source: true, .. } if path.0.as_os_str() == "/etc")
    );
    assert!(
        matches!(&mounts[1].source, MountSource::Volume { name, copy: false, anonymous: false, .. } if name == "data")
    );
    assert!(matches!(&mounts[2].source, MountSource::Volume { anonymous: true, .. }));
    assert!(matches!(&mounts[3].source, MountSource::Volume { subpath: Some(path), .. } if path == "x/y"));
    assert!(matches!(&mounts[5].source, MountSource::Bind { create_source: false, .. }));
    assert!(matches!(
        &mounts[6].source,
        MountSource::Tmpfs { size: Some(67_108_864), mode: Some(0o1770), .. }
    ));
    assert_eq!(request.volume_options["/d"].labels["k"], "l");
}

#[test]
fn mounts_that_are_refused() {
    for (hosts, text) in [
        (json!({ "Binds": ["a:b:c:d"] }), "invalid volume specification: 'a:b:c:d'"),
        (json!({ "Binds": [":/x"] }), "invalid volume specification: ':/x'"),
        (json!({ "Binds": ["/x:/x:what"] }), "invalid mode: what"),
        (json!({ "Binds": ["/x:/x:nocopy"] }), "invalid mode: nocopy"),
        (json!({ "Binds": ["/a:/x", "b:/x/"] }), "Duplicate mount point: /x"),
        (json!({ "Tmpfs": { "/x": "what" } }), "invalid tmpfs option [\"what\"]"),
        (
            json!({ "Mounts": [{ "Type": "bind", "Target": "/x" }] }),
            "invalid mount config for type \"bind\": field Source must not be empty",
        ),
        (
            json!({ "Mounts": [{ "Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": { "Subpath": "../y" } }] }),
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
        ),
        (
            json!({ "Mounts": [{ "Type": "volume", "Source": "v", "Target": "x" }] }),
            "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute",
        ),
    ] {
        assert_eq!(refused(host(hosts)), text);
    }
}

#[test]
fn networks() {
    let id = ContainerId::from_bytes([1; 32]);
    assert_eq!(host(json!({ "NetworkMode": "none" })).unwrap().0.spec.network, NetworkMode::None);
    assert_eq!(host(json!({ "NetworkMode": "container:db" })).unwrap().0.spec.network, NetworkMode::Join(id));
    let (request, warnings) =
        host(json!({ "NetworkMode": "host", "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] } }))
            .unwrap();
    assert_eq!(request.spec.network, NetworkMode::Host);
    assert_eq!(warnings, ["Published ports are discarded when using host network mode"]);
    for (hosts, what) in [
        (json!({ "NetworkMode": "container:db", "Dns": ["1.1.1.1"] }), "dns and the network mode"),
        (
            json!({ "NetworkMode": "container:db", "ExtraHosts": ["a:1.1.1.1"] }),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            json!({ "NetworkMode": "container:db", "PublishAllPorts": true }),
            "port publishing and the container type network mode",
        ),
    ] {
        assert_eq!(refused(host(hosts)), format!("conflicting options: {what}"));
    }
    assert_eq!(refused(host(json!({ "NetworkMode": "container:nobody" }))), "No such container: nobody");
}

#[test]
fn endpoints_ports_and_links() {
    let (request, _) = convert(json!({
        "ExposedPorts": { "80/tcp": {} },
        "HostConfig": {
            "NetworkMode": "mine",
            "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080-8090" }], "53/udp": [{}] },
            "Links": ["db:database"],
        },
        "NetworkingConfig": { "EndpointsConfig": {
            "zweites": {}, "mine": { "Aliases": ["web"], "IPAMConfig": { "IPv4Address": "10.1.2.3" } },
        } },
    }))
    .unwrap();
    let NetworkMode::Attached(attachment) = request.spec.network else { panic!("attached") };
    let names: Vec<&str> = attachment.endpoints.iter().map(|endpoint| endpoint.network.as_str()).collect();
    assert_eq!(names, ["mine", "zweites"]);
    assert_eq!(attachment.endpoints[0].ipv4, Some([10, 1, 2, 3].into()));
    assert_eq!(attachment.endpoints[0].links[0].alias, "database");
    assert_eq!(attachment.ports.len(), 2);
    assert_eq!(attachment.ports.iter().find_map(|port| port.host_ports), Some((8080, 8090)));
    assert_eq!(request.spec.exposed_ports.len(), 2);
    assert!(
        refused(host(json!({ "PortBindings": { "80/tcp": [{ "HostPort": "x" }] } })))
            .starts_with("invalid port specification")
    );
    assert!(
        refused(host(json!({ "Links": ["nobody:x"] }))).starts_with("could not get container for nobody")
    );
    // On a network of a user's it may come later.
    assert!(host(json!({ "NetworkMode": "mine", "Links": ["nobody:x"] })).is_ok());
}

#[test]
fn namespaces_and_security() {
    let (request, _) = host(json!({
        "PidMode": "host", "IpcMode": "container:db", "UTSMode": "host", "CgroupnsMode": "host",
        "CapAdd": ["cap_net_admin"], "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}", "label=disable"],
        "MaskedPaths": [], "ReadonlyPaths": [],
        "Devices": [{ "PathOnHost": "/dev/fuse", "PathInContainer": "", "CgroupPermissions": "rw" }],
        "DeviceCgroupRules": ["c 1:3 rwm"],
    }))
    .unwrap();
    let spec = request.spec;
    assert_eq!(spec.namespaces.pid, NamespaceMode::Host);
    assert!(matches!(spec.namespaces.ipc, IpcMode::Join(_)));
    assert_eq!(spec.security.cap_add, ["NET_ADMIN"]);
    assert!(spec.security.no_new_privileges);
    assert_eq!(
        (spec.security.masked_paths, spec.security.readonly_paths),
        (Some(Vec::new()), Some(Vec::new()))
    );
    assert!(matches!(&spec.security.seccomp, Seccomp::Profile(text) if text.contains("ALLOW")));
    assert_eq!(spec.security.devices[0].container.as_str(), "/dev/fuse");
    for (hosts, text) in [
        (json!({ "PidMode": "what" }), "invalid PID mode: what"),
        (json!({ "IpcMode": "what" }), "invalid IPC mode: what"),
        (json!({ "UTSMode": "container:db" }), "invalid UTS mode: container:db"),
        (json!({ "CapAdd": ["what"] }), "invalid CapAdd: unknown capability: \"CAP_WHAT\""),
        (json!({ "SecurityOpt": ["what"] }), "invalid --security-opt: \"what\""),
        (
            json!({ "Sysctls": { "vm.swappiness": "1" } }),
            "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
        ),
        (
            json!({ "NetworkMode": "host", "Sysctls": { "net.core.somaxconn": "1" } }),
            "sysctl \"net.core.somaxconn\" not allowed in host network namespace",
        ),
    ] {
        assert_eq!(refused(host(hosts)), text);
    }
}

#[test]
fn lifecycles() {
    let policy = |name: &str, count: i64, remove: bool| {
        host(json!({ "RestartPolicy": { "Name": name, "MaximumRetryCount": count }, "AutoRemove": remove }))
            .map(|(request, _)| request.spec.lifecycle)
    };
    assert_eq!(
        policy("on-failure", 3, false).unwrap(),
        Lifecycle::Restart(RestartPolicy::OnFailure { max_retries: 3 })
    );
    assert_eq!(policy("", 0, false).unwrap(), Lifecycle::Keep);
    assert_eq!(policy("no", 0, true).unwrap(), Lifecycle::RemoveOnExit);
    assert!(policy("always", 0, true).is_err());
    assert!(policy("always", 1, false).is_err());
    assert!(policy("on-failure", -1, false).is_err());
    assert!(policy("what", 0, false).unwrap_err().to_string().contains("unknown policy 'what'"));
}

#[test]
fn limits() {
    let (request, _) = host(json!({
        "Memory": 64 << 20, "MemorySwap": -1, "NanoCpus": 500_000_000, "PidsLimit": 10, "OomScoreAdj": 5,
        "Ulimits": [{ "Name": "nofile", "Soft": 1, "Hard": 2 }], "BlkioDeviceReadBps": [{ "Path": "/dev/sda", "Rate": 5 }],
    }))
    .unwrap();
    let limits = request.spec.resources;
    assert_eq!(
        (limits.memory, limits.memory_swap, limits.nano_cpus),
        (Some(64 << 20), Some(-1), Some(500_000_000))
    );
    assert_eq!(
        (limits.pids_limit, limits.oom_score_adj, limits.blkio_throttle.len()),
        (Some(10), Some(5), 1)
    );
    for (hosts, text) in [
        (json!({ "Memory": 1 }), "Minimum memory limit allowed is 6MB"),
        (
            json!({ "Memory": 64 << 20, "MemorySwap": 1 }),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            json!({ "MemorySwap": 1 }),
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            json!({ "CpuPeriod": 1 }),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (json!({ "Ulimits": [{ "Name": "what", "Soft": 1, "Hard": 1 }] }), "invalid ulimit type: what"),
        (json!({ "BlkioWeight": 5 }), "Range of blkio weight is from 10 to 1000"),
        (json!({ "OomScoreAdj": 1001 }), "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
    ] {
        assert_eq!(refused(host(hosts)), text);
    }
}

#[test]
fn bodies_of_other_shapes() {
    let (request, _) = convert(json!({ "Cmd": "true", "Entrypoint": "/bin/sh" })).unwrap();
    assert_eq!(request.spec.process.argv(), ["/bin/sh", "true"]);
    assert!(request.host_config.is_null());
    for body in [json!(null), json!([]), json!("x")] {
        assert!(super::convert::request(None, body, &other).is_err());
    }
    assert!(convert(json!({ "Env": ["=x"] })).is_err());
    assert!(convert(json!({ "WorkingDir": "rel" })).is_err());
    assert!(convert(json!({ "HostConfig": { "LogConfig": { "Type": "syslog" } } })).is_err());
    assert!(convert(json!({ "Healthcheck": { "Test": ["CMD", "true"], "Interval": 5 } })).is_err());
}
