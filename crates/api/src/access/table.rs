//! Which capability each route needs. A route that is not here is closed to every listener with limits.

/// One of the API's routes.
pub(super) struct Row {
    /// `GET` stands for `HEAD` too.
    pub(super) method: &'static str,
    /// As the Router has it.
    pub(super) path: &'static str,
    /// `resource:verb`.
    pub(super) needs: &'static str,
}

/// What every listener answers: clients cannot agree on a version without it.
pub(super) const GREETING: &str = "system:ping";
/// Not a route's: environment variables and driver options in what inspect shows.
pub(super) const ENVIRONMENT: &str = "containers:env";

/// What `--read-only` leaves.
pub(super) const READING: &[&str] = &[
    GREETING,
    "containers:read",
    "containers:logs",
    "images:read",
    "volumes:read",
    "networks:read",
    "events:read",
    "system:read",
    "swarm:read",
];

const fn row(method: &'static str, path: &'static str, needs: &'static str) -> Row {
    Row { method, path, needs }
}

/// Every route.
pub(super) const TABLE: &[Row] = &[
    row("GET", "/_ping", GREETING),
    row("GET", "/version", GREETING),
    row("GET", "/info", "system:read"),
    row("GET", "/system/df", "system:read"),
    row("GET", "/plugins", "system:read"),
    row("POST", "/swarm/init", "swarm:read"),
    row("POST", "/swarm/join", "swarm:read"),
    row("POST", "/swarm/leave", "swarm:read"),
    row("POST", "/auth", "system:auth"),
    row("GET", "/events", "events:read"),
    // Containers: what they are.
    row("GET", "/containers/json", "containers:read"),
    row("GET", "/containers/{id}/json", "containers:read"),
    row("GET", "/containers/{id}/stats", "containers:read"),
    row("GET", "/containers/{id}/top", "containers:read"),
    row("GET", "/containers/{id}/changes", "containers:read"),
    row("GET", "/exec/{id}/json", "containers:read"),
    row("GET", "/containers/{id}/logs", "containers:logs"),
    row("POST", "/containers/{id}/wait", "containers:wait"),
    // Their files. A file may be a key: reading one is not part of `read`.
    row("GET", "/containers/{id}/archive", "containers:export"),
    row("GET", "/containers/{id}/export", "containers:export"),
    row("PUT", "/containers/{id}/archive", "containers:copy"),
    row("PUT", "/cauldron/v1/containers/{id}/files", "containers:copy"),
    row("POST", "/commit", "containers:commit"),
    // Their streams. A websocket begins with GET and can write all the same.
    row("POST", "/containers/{id}/attach", "containers:attach"),
    row("GET", "/containers/{id}/attach/ws", "containers:attach"),
    row("POST", "/containers/{id}/resize", "containers:attach"),
    row("POST", "/containers/{id}/exec", "containers:exec"),
    row("POST", "/exec/{id}/start", "containers:exec"),
    row("POST", "/exec/{id}/resize", "containers:exec"),
    // Their lives.
    row("POST", "/containers/create", "containers:create"),
    row("POST", "/containers/{id}/start", "containers:control"),
    row("POST", "/containers/{id}/stop", "containers:control"),
    row("POST", "/containers/{id}/restart", "containers:control"),
    row("POST", "/containers/{id}/kill", "containers:control"),
    row("POST", "/containers/{id}/pause", "containers:control"),
    row("POST", "/containers/{id}/unpause", "containers:control"),
    row("POST", "/containers/{id}/rename", "containers:update"),
    row("POST", "/containers/{id}/update", "containers:update"),
    row("DELETE", "/containers/{id}", "containers:remove"),
    row("DELETE", "/containers/{id}/{alias}", "containers:remove"),
    row("POST", "/containers/prune", "containers:remove"),
    row("POST", "/cauldron/v1/containers/{id}/reap", "containers:control"),
    row("POST", "/cauldron/v1/restore", "containers:control"),
    row("POST", "/cauldron/v1/doctor", "system:doctor"),
    // Images.
    row("GET", "/images/json", "images:read"),
    row("GET", "/images/{name}/json", "images:read"),
    row("GET", "/images/{name}/history", "images:read"),
    row("GET", "/images/search", "images:search"),
    row("GET", "/distribution/{name}/json", "images:search"),
    row("GET", "/cauldron/v1/distribution/{name}/manifest", "images:search"),
    row("GET", "/images/get", "images:export"),
    row("GET", "/images/{name}/get", "images:export"),
    row("POST", "/images/create", "images:pull"),
    row("POST", "/cauldron/v1/images/bootstrap", "images:pull"),
    row("POST", "/images/load", "images:load"),
    row("POST", "/images/{name}/push", "images:push"),
    row("POST", "/images/{name}/tag", "images:tag"),
    row("DELETE", "/images/{name}", "images:remove"),
    row("POST", "/images/prune", "images:remove"),
    row("POST", "/build", "build:run"),
    row("POST", "/build/cancel", "build:run"),
    // Reads any directory of this machine.
    row("POST", "/cauldron/v1/build", "host:build"),
    row("POST", "/session", "build:run"),
    row("POST", "/grpc", "build:run"),
    row("POST", "/build/prune", "build:remove"),
    // Volumes and networks.
    row("GET", "/volumes", "volumes:read"),
    row("GET", "/volumes/{name}", "volumes:read"),
    row("POST", "/volumes/create", "volumes:create"),
    row("DELETE", "/volumes/{name}", "volumes:remove"),
    row("POST", "/volumes/prune", "volumes:remove"),
    row("GET", "/cauldron/v1/volumes/{name}", "volumes:read"),
    row("POST", "/cauldron/v1/volumes/{name}/snapshot", "volumes:create"),
    row("POST", "/cauldron/v1/volumes/{name}/commit", "volumes:remove"),
    row("POST", "/cauldron/v1/volumes/{name}/rollback", "volumes:remove"),
    row("POST", "/cauldron/v1/volumes/{name}/forget", "volumes:remove"),
    row("GET", "/networks", "networks:read"),
    row("GET", "/networks/{id}", "networks:read"),
    row("POST", "/networks/create", "networks:create"),
    row("POST", "/networks/{id}/connect", "networks:connect"),
    row("POST", "/networks/{id}/disconnect", "networks:connect"),
    row("DELETE", "/networks/{id}", "networks:remove"),
    row("POST", "/networks/prune", "networks:remove"),
    row("POST", "/cauldron/v1/firewall/restore", "networks:restore"),
    // What this engine is not.
    row("GET", "/swarm", "swarm:read"),
    row("GET", "/nodes", "swarm:read"),
    row("GET", "/services", "swarm:read"),
    row("GET", "/tasks", "swarm:read"),
    row("GET", "/secrets", "swarm:read"),
    row("GET", "/configs", "swarm:read"),
];

/// What a request needs; `None`: nobody thought of it.
pub(super) fn needed(method: &str, path: &str) -> Option<&'static str> {
    let method = if method == "HEAD" { "GET" } else { method };
    TABLE.iter().find(|row| row.method == method && row.path == path).map(|row| row.needs)
}

/// Every capability.
pub(super) fn capabilities() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.needs).chain([ENVIRONMENT])
}
