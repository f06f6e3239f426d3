//! The table itself.

use super::Kind::{
    Any, Bool, Bytes, Command, Dict, Duration, Hosts, Int, Items, List, Map, Mode, Number, Object, OneOf,
    Optional, Short, Text, TextOrTexts, Texts,
};
use super::{Field, Join, Kind, long};
use crate::node::Node;

const fn key(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, join: Join::Natural }
}
const fn last(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, join: Join::Last }
}
const fn unique(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, join: Join::Unique }
}
const fn keyed(name: &'static str, kind: Kind, key: fn(&Node) -> String) -> Field {
    Field { name, kind, join: Join::Keyed(key) }
}

fn part(node: &Node, key: &str) -> String {
    node.get(key).and_then(Node::scalar).unwrap_or_default()
}
fn target(node: &Node) -> String {
    part(node, "target")
}
fn subnet(node: &Node) -> String {
    part(node, "subnet")
}
fn path(node: &Node) -> String {
    part(node, "path")
}
fn port(node: &Node) -> String {
    format!(
        "{}:{}:{}/{}",
        part(node, "host_ip"),
        part(node, "published"),
        part(node, "target"),
        part(node, "protocol")
    )
}
fn delivered(node: &Node) -> String {
    let target = part(node, "target");
    if target.is_empty() { part(node, "source") } else { target }
}

/// A whole file.
pub const PROJECT: &[Field] = &[
    key("version", Text),
    last("name", Text),
    key("services", Map(&Object(SERVICE))),
    key("networks", Map(&Optional(NETWORK))),
    key("volumes", Map(&Optional(VOLUME))),
    key("secrets", Map(&Optional(SECRET))),
    key("configs", Map(&Optional(SECRET))),
    key("models", Map(&Any)),
    key("include", Items(long::include, &Object(INCLUDE))),
];

const INCLUDE: &[Field] =
    &[key("path", TextOrTexts), key("env_file", TextOrTexts), key("project_directory", Text)];

/// A service.
pub const SERVICE: &[Field] = &[
    key("annotations", Dict),
    key("attach", Bool),
    key("blkio_config", Object(BLKIO)),
    key("build", Short(long::build, &Object(BUILD))),
    unique("cap_add", Texts),
    unique("cap_drop", Texts),
    key("cgroup", OneOf(&["host", "private"])),
    key("cgroup_parent", Text),
    last("command", Command),
    keyed("configs", Items(long::delivered, &Object(DELIVERED)), delivered),
    key("container_name", Text),
    key("cpu_count", Int),
    key("cpu_percent", Number),
    key("cpu_period", Int),
    key("cpu_quota", Int),
    key("cpu_rt_period", Int),
    key("cpu_rt_runtime", Int),
    key("cpu_shares", Int),
    key("cpus", Number),
    key("cpuset", Text),
    key("credential_spec", Any),
    key("depends_on", Short(long::depends_on, &Map(&Object(DEPENDS_ON)))),
    key("deploy", Optional(DEPLOY)),
    key("develop", Optional(DEVELOP)),
    unique("device_cgroup_rules", Texts),
    keyed("devices", Items(long::device, &Object(DEVICE)), target),
    unique("dns", TextOrTexts),
    unique("dns_opt", Texts),
    unique("dns_search", TextOrTexts),
    key("domainname", Text),
    last("entrypoint", Command),
    keyed("env_file", Short(long::one, &Items(long::env_file, &Object(ENV_FILE))), path),
    key("environment", Dict),
    unique("expose", Texts),
    last("extends", Short(long::extends, &Object(EXTENDS))),
    unique("external_links", Texts),
    key("extra_hosts", Hosts),
    key("gpus", Any),
    unique("group_add", Texts),
    key("healthcheck", Object(HEALTHCHECK)),
    key("hostname", Text),
    key("image", Text),
    key("init", Bool),
    key("ipc", Text),
    key("isolation", Text),
    unique("label_file", TextOrTexts),
    key("labels", Dict),
    unique("links", Texts),
    Field { name: "logging", kind: Object(LOGGING), join: Join::SameDriver },
    key("mac_address", Text),
    key("mem_limit", Bytes),
    key("mem_reservation", Bytes),
    key("mem_swappiness", Int),
    key("memswap_limit", Bytes),
    key("models", Any),
    key("network_mode", Text),
    key("networks", Short(long::named, &Map(&Optional(ATTACHMENT)))),
    key("oom_kill_disable", Bool),
    key("oom_score_adj", Int),
    key("pid", Text),
    key("pids_limit", Int),
    key("platform", Text),
    keyed("ports", Items(long::ports, &Object(PORT)), port),
    key("post_start", List(&Object(HOOK))),
    key("pre_start", List(&Object(HOOK))),
    key("pre_stop", List(&Object(HOOK))),
    key("privileged", Bool),
    unique("profiles", TextOrTexts),
    key("provider", Any),
    key("pull_policy", Text),
    key("pull_refresh_after", Text),
    key("read_only", Bool),
    key("restart", Text),
    key("runtime", Text),
    key("scale", Int),
    keyed("secrets", Items(long::delivered, &Object(DELIVERED)), delivered),
    unique("security_opt", Texts),
    key("shm_size", Bytes),
    key("stdin_open", Bool),
    key("stop_grace_period", Duration),
    key("stop_signal", Text),
    key("storage_opt", Dict),
    key("sysctls", Dict),
    unique("tmpfs", TextOrTexts),
    key("tty", Bool),
    key("ulimits", Map(&Short(long::ulimit, &Object(ULIMIT)))),
    key("use_api_socket", Bool),
    key("user", Text),
    key("userns_mode", Text),
    key("uts", Text),
    keyed("volumes", Items(long::volume, &Object(MOUNT)), target),
    unique("volumes_from", Texts),
    key("working_dir", Text),
];

const BUILD: &[Field] = &[
    key("additional_contexts", Dict),
    key("args", Dict),
    unique("cache_from", Texts),
    unique("cache_to", Texts),
    key("context", Text),
    key("dockerfile", Text),
    key("dockerfile_inline", Text),
    unique("entitlements", Texts),
    key("extra_hosts", Hosts),
    key("isolation", Text),
    key("labels", Dict),
    key("network", Text),
    key("no_cache", Bool),
    unique("no_cache_filter", TextOrTexts),
    unique("platforms", Texts),
    key("privileged", Bool),
    key("provenance", Text),
    key("pull", Bool),
    key("sbom", Text),
    keyed("secrets", Items(long::delivered, &Object(DELIVERED)), delivered),
    key("shm_size", Bytes),
    key("ssh", Dict),
    unique("tags", Texts),
    key("target", Text),
    key("ulimits", Map(&Short(long::ulimit, &Object(ULIMIT)))),
];

const DELIVERED: &[Field] =
    &[key("source", Text), key("target", Text), key("uid", Text), key("gid", Text), key("mode", Mode)];

const DEPENDS_ON: &[Field] = &[key("condition", Text), key("restart", Bool), key("required", Bool)];

const EXTENDS: &[Field] = &[key("file", Text), key("service", Text)];

const ENV_FILE: &[Field] = &[key("path", Text), key("required", Bool), key("format", Text)];

const DEVICE: &[Field] = &[key("source", Text), key("target", Text), key("permissions", Text)];

const ULIMIT: &[Field] = &[key("soft", Int), key("hard", Int)];

const PORT: &[Field] = &[
    key("name", Text),
    key("mode", Text),
    key("host_ip", Text),
    key("target", Int),
    key("published", Text),
    key("protocol", Text),
    key("app_protocol", Text),
];

const MOUNT: &[Field] = &[
    key("type", Text),
    key("source", Text),
    key("target", Text),
    key("read_only", Bool),
    key("consistency", Text),
    key(
        "bind",
        Object(&[
            key("propagation", OneOf(&["private", "rprivate", "shared", "rshared", "slave", "rslave"])),
            key("create_host_path", Bool),
            key("recursive", OneOf(&["enabled", "disabled", "writable", "readonly"])),
            key("selinux", OneOf(&["z", "Z"])),
        ]),
    ),
    key("volume", Object(&[key("labels", Dict), key("nocopy", Bool), key("subpath", Text)])),
    key("tmpfs", Object(&[key("size", Bytes), key("mode", Mode)])),
    key("image", Object(&[key("subpath", Text)])),
];

const ATTACHMENT: &[Field] = &[
    unique("aliases", Texts),
    key("driver_opts", Dict),
    key("gw_priority", Number),
    key("interface_name", Text),
    key("ipv4_address", Text),
    key("ipv6_address", Text),
    unique("link_local_ips", Texts),
    key("mac_address", Text),
    key("priority", Number),
];

const HEALTHCHECK: &[Field] = &[
    key("disable", Bool),
    key("interval", Duration),
    key("retries", Int),
    key("start_interval", Duration),
    key("start_period", Duration),
    last("test", Short(long::test, &Texts)),
    key("timeout", Duration),
];

const LOGGING: &[Field] = &[key("driver", Text), key("options", Dict)];

const HOOK: &[Field] = &[
    key("command", Command),
    key("environment", Dict),
    key("image", Text),
    key("per_replica", Bool),
    key("privileged", Bool),
    key("user", Text),
    key("working_dir", Text),
];

const BLKIO: &[Field] = &[
    key("device_read_bps", RATES),
    key("device_read_iops", RATES),
    key("device_write_bps", RATES),
    key("device_write_iops", RATES),
    key("weight", Int),
    key("weight_device", List(&Object(&[key("path", Text), key("weight", Int)]))),
];
const RATES: Kind = List(&Object(&[key("path", Text), key("rate", Bytes)]));

/// `deploy`.
pub const DEPLOY: &[Field] = &[
    key("endpoint_mode", Text),
    key("labels", Dict),
    key("mode", Text),
    key(
        "placement",
        Object(&[unique("constraints", Texts), key("preferences", Any), key("max_replicas_per_node", Int)]),
    ),
    key("replicas", Int),
    key(
        "resources",
        Object(&[
            key("limits", Object(&[key("cpus", Number), key("memory", Bytes), key("pids", Int)])),
            key(
                "reservations",
                Object(&[
                    key("cpus", Number),
                    key("memory", Bytes),
                    key("generic_resources", Any),
                    key("devices", Any),
                ]),
            ),
        ]),
    ),
    key(
        "restart_policy",
        Object(&[
            key("condition", Text),
            key("delay", Duration),
            key("max_attempts", Int),
            key("window", Duration),
        ]),
    ),
    key("rollback_config", Any),
    key("update_config", Any),
];

const DEVELOP: &[Field] = &[key(
    "watch",
    List(&Object(&[
        key("action", Text),
        key("exec", Object(HOOK)),
        key("ignore", TextOrTexts),
        key("include", TextOrTexts),
        key("initial_sync", Bool),
        key("path", Text),
        key("target", Text),
    ])),
)];

const EXTERNAL: Kind = Short(long::external, &Any);

const NETWORK: &[Field] = &[
    key("attachable", Bool),
    key("driver", Text),
    key("driver_opts", Dict),
    key("enable_ipv4", Bool),
    key("enable_ipv6", Bool),
    key("external", EXTERNAL),
    key("internal", Bool),
    key(
        "ipam",
        Object(&[
            key("driver", Text),
            keyed(
                "config",
                List(&Object(&[
                    key("subnet", Text),
                    key("ip_range", Text),
                    key("gateway", Text),
                    key("aux_addresses", Dict),
                ])),
                subnet,
            ),
            key("options", Dict),
        ]),
    ),
    key("labels", Dict),
    key("name", Text),
];

const VOLUME: &[Field] = &[
    key("driver", Text),
    key("driver_opts", Dict),
    key("external", EXTERNAL),
    key("labels", Dict),
    key("name", Text),
];

const SECRET: &[Field] = &[
    key("content", Text),
    key("driver", Text),
    key("driver_opts", Dict),
    key("environment", Text),
    key("external", EXTERNAL),
    key("file", Text),
    key("labels", Dict),
    key("name", Text),
    key("template_driver", Text),
];
