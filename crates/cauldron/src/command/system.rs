//! The engine itself: `info`, `version`, `events`, `system df`, `system prune`, `builder prune`.

use super::container::pruned;
use super::filters::filters;
use super::image::{deleted_images, only_here};
use crate::args::{Given, filter, flag, force, format, one, opt, prune_filter};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::template::Template;
use crate::render::{size, time};
use crate::session::Session;
use crate::stream::{self, Ends};
use clap::ArgMatches;
use client::{Method, encode, query};
use serde_json::{Value, json};

const SYSTEM: Verb = Verb { group: "system", ..VERB };

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["info"],
        top: &["info"],
        about: "Display system-wide information, and the configuration in force",
        args: || vec![opt("format", "f", "string", "Format output using a Go template, or 'json'")],
        run: |session, given| Box::pin(info(session, given)),
        ..SYSTEM
    },
    Verb {
        group: "",
        top: &["version"],
        about: "Show the version information",
        args: || vec![opt("format", "f", "string", "Format output using a Go template, or 'json'")],
        run: |session, given| Box::pin(version(session, given)),
        ..SYSTEM
    },
    Verb {
        names: &["events"],
        top: &["events"],
        about: "Get real time events",
        more: "Example:\n  cauldron events --since 1h --until 0s --filter event=die",
        args: || {
            vec![
                filter(),
                format(),
                opt("since", "", "string", "Show all events created since timestamp or relative"),
                opt("until", "", "string", "Stream events until this timestamp or relative"),
            ]
        },
        run: |session, given| Box::pin(events(session, given)),
        ..SYSTEM
    },
    Verb {
        names: &["df"],
        about: "Show disk usage",
        args: || vec![format(), flag("verbose", "v", "Show detailed information on space usage")],
        run: |session, given| Box::pin(df(session, given)),
        ..SYSTEM
    },
    Verb {
        names: &["prune"],
        about: "Remove unused data",
        args: || {
            vec![
                flag("all", "a", "Remove all unused images not just dangling ones"),
                prune_filter(),
                force(),
                flag("volumes", "", "Prune anonymous volumes"),
            ]
        },
        run: |session, given| Box::pin(prune(session, given)),
        ..SYSTEM
    },
    Verb {
        names: &["restore"],
        about: "Start what its restart policy promises, after a reboot",
        more: "Prints the id of each container that was started. Run it once at boot, for example from a systemd unit.",
        run: |session, _| Box::pin(restore(session)),
        ..SYSTEM
    },
    Verb {
        names: &["reap"],
        usage: "CONTAINER",
        about: "Release what a container that is over still holds",
        args: || vec![one("container")],
        run: |session, given| Box::pin(reap(session, given)),
        hidden: true,
        ..SYSTEM
    },
    Verb {
        names: &["restore-firewall"],
        about: "Put back what another program took of the engine's firewall rules",
        run: |session, _| Box::pin(restore_firewall(session)),
        hidden: true,
        ..SYSTEM
    },
    Verb {
        names: &["dial-stdio"],
        about: "Serve the API on stdin and stdout, for hosts that are reached over ssh",
        run: |session, _| Box::pin(dial_stdio(session)),
        hidden: true,
        ..SYSTEM
    },
    Verb {
        group: "builder",
        names: &["prune"],
        about: "Remove build cache",
        args: || {
            vec![
                flag("all", "a", "Remove all unused build cache, not just dangling ones"),
                prune_filter(),
                force(),
                opt("keep-storage", "", "bytes", "Amount of disk space to keep for cache"),
                opt("max-used-space", "", "bytes", "Maximum amount of disk space allowed to keep for cache"),
                opt("reserved-space", "", "bytes", "Amount of disk space always allowed to keep for cache"),
            ]
        },
        run: |session, given| Box::pin(builder_prune(session, given)),
        ..VERB
    },
    Verb {
        group: "builder",
        names: &["du"],
        about: "Disk usage of the build cache",
        args: || vec![filter(), format(), flag("verbose", "", "Provide a more verbose output")],
        run: |session, given| Box::pin(super::df::build_cache(session, given)),
        ..VERB
    },
];

fn formatted(session: &Session, given: &ArgMatches, value: &Value) -> Result<bool, Failure> {
    let Some(format) = given.text("format").filter(|format| !format.is_empty()) else { return Ok(false) };
    let format = if format == "json" { "{{json .}}" } else { format };
    session.line(&Template::parse(format)?.render(value)?)?;
    Ok(true)
}

async fn info(session: Session, given: ArgMatches) -> Outcome {
    let found = session.client()?.get("/info").await?;
    if formatted(&session, &given, &found)? {
        return Ok(0);
    }
    let mut out = format!("Client: Cauldron\n Version:    {}\n\nServer:\n", env!("CARGO_PKG_VERSION"));
    let mut line = |depth: usize, name: &str, value: &Value| {
        let text = match value {
            Value::Null => return,
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let inner = " ".repeat(depth + 1);
                let items = items.iter().filter_map(Value::as_str);
                let lines = items.map(|item| format!("{inner}{item}\n")).collect::<String>();
                out.push_str(&format!("{}{name}:\n{lines}", " ".repeat(depth)));
                return;
            }
            other => other.to_string(),
        };
        out.push_str(&format!("{}{name}: {text}\n", " ".repeat(depth)));
    };
    line(1, "Containers", &found["Containers"]);
    line(2, "Running", &found["ContainersRunning"]);
    line(2, "Paused", &found["ContainersPaused"]);
    line(2, "Stopped", &found["ContainersStopped"]);
    line(1, "Images", &found["Images"]);
    line(1, "Server Version", &found["ServerVersion"]);
    line(1, "Storage Driver", &found["Driver"]);
    for pair in found["DriverStatus"].as_array().into_iter().flatten() {
        line(2, pair[0].as_str().unwrap_or_default(), &pair[1]);
    }
    line(1, "Logging Driver", &found["LoggingDriver"]);
    line(1, "Cgroup Driver", &found["CgroupDriver"]);
    line(1, "Cgroup Version", &found["CgroupVersion"]);
    let plugins = |kind: &str| {
        let names = found["Plugins"][kind].as_array().into_iter().flatten().filter_map(Value::as_str);
        format!("{kind}: {}", names.collect::<Vec<_>>().join(" "))
    };
    line(1, "Plugins", &json!([plugins("Volume"), plugins("Network"), plugins("Log")]));
    line(1, "Swarm", &found["Swarm"]["LocalNodeState"]);
    line(1, "Security Options", &security(&found["SecurityOptions"]));
    line(1, "Kernel Version", &found["KernelVersion"]);
    line(1, "Operating System", &found["OperatingSystem"]);
    line(1, "OSType", &found["OSType"]);
    line(1, "Architecture", &found["Architecture"]);
    line(1, "CPUs", &found["NCPU"]);
    #[allow(clippy::cast_precision_loss)]
    let memory = found["MemTotal"].as_i64().map(|bytes| size::binary(bytes as f64));
    line(1, "Total Memory", &json!(memory));
    line(1, "Name", &found["Name"]);
    line(1, "ID", &found["ID"]);
    line(1, "Docker Root Dir", &found["DockerRootDir"]);
    line(1, "Insecure Registries", &json!(found["RegistryConfig"]["InsecureRegistryCIDRs"]));
    line(1, "Registry Mirrors", &json!(found["RegistryConfig"]["Mirrors"]));
    for pool in found["DefaultAddressPools"].as_array().into_iter().flatten() {
        line(
            1,
            "Default Address Pool",
            &Value::from(format!("{} size {}", pool["Base"].as_str().unwrap_or_default(), pool["Size"])),
        );
    }
    for (name, value) in found["Cauldron"]["Config"].as_object().into_iter().flatten() {
        line(1, &format!("Config {name}"), &Value::from(value.to_string()));
    }
    for warning in found["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        session.say(warning);
    }
    session.out(&out)?;
    Ok(0)
}

/// `name=seccomp,profile=builtin` as Docker shows it: the name, and below it what belongs to it.
fn security(options: &Value) -> Value {
    let mut lines = Vec::new();
    for option in options.as_array().into_iter().flatten().filter_map(Value::as_str) {
        for pair in option.split(',') {
            lines.push(match pair.split_once('=') {
                Some(("name", name)) => name.to_owned(),
                Some(("profile", profile)) => format!(" Profile: {profile}"),
                Some((key, value)) => format!(" {key}: {value}"),
                None => pair.to_owned(),
            });
        }
    }
    json!(lines)
}

async fn version(session: Session, given: ArgMatches) -> Outcome {
    let ours = json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": api::API_VERSION, "DefaultAPIVersion": api::API_VERSION,
        "Os": std::env::consts::OS, "Arch": if std::env::consts::ARCH == "x86_64" { "amd64" } else { std::env::consts::ARCH },
        "Context": "default",
    });
    let server = session.client()?.get("/version").await;
    let both = json!({"Client": ours, "Server": server.as_ref().ok()});
    if formatted(&session, &given, &both)? {
        return Ok(0);
    }
    let section = |title: &str, value: &Value| {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let mut out = format!("{title}:\n");
        for (label, value) in [
            ("Version", text("Version")),
            ("API version", text("ApiVersion")),
            ("OS/Arch", format!("{}/{}", text("Os"), text("Arch"))),
            ("Kernel", text("KernelVersion")),
        ] {
            if !value.is_empty() {
                out.push_str(&format!(" {label}:\t{value}\n"));
            }
        }
        out
    };
    let mut out = section("Client: Cauldron", &both["Client"]);
    if let Ok(server) = &server {
        out.push_str(&format!("\n{}", section("Server", server)));
    }
    session.out(&crate::render::table::align_with(&out, 14, 3))?;
    server.map(|_| 0).map_err(Failure::from)
}

async fn events(session: Session, given: ArgMatches) -> Outcome {
    let moment = |flag: &str| given.text(flag).map(|text| time::moment(text, session.now())).transpose();
    let path = query(
        "/events",
        [
            ("since", moment("since")?.unwrap_or_default()),
            ("until", moment("until")?.unwrap_or_default()),
            ("filters", filters(&given.texts("filter"))?),
        ],
    );
    let template = match given.text("format").filter(|format| !format.is_empty()) {
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(format) => Some(Template::parse(format)?),
        None => None,
    };
    let mut lines = session.client()?.lines(Method::GET, &path, None).await?;
    while let Some(event) = lines.next().await? {
        let text = match &template {
            Some(template) => template.render(&fields(event, given.text("format")))?,
            None => event_line(&event),
        };
        session.line(&text)?;
    }
    Ok(0)
}

/// `{{.Status}}`, `{{.ID}}` and `{{.From}}` of a template: old names for what the wire has in small letters.
fn fields(mut event: Value, format: Option<&str>) -> Value {
    for (name, key) in [("Status", "status"), ("ID", "id"), ("From", "from")] {
        if format.is_some_and(|format| format.contains(&format!(".{name}"))) {
            event[name] = event[key].clone();
        }
    }
    event
}

fn event_line(event: &Value) -> String {
    let nanos = event["timeNano"]
        .as_i64()
        .unwrap_or_else(|| event["time"].as_i64().unwrap_or(0).saturating_mul(1_000_000_000));
    let at = time::rfc3339(
        nanos.div_euclid(1_000_000_000),
        u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
    );
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out =
        format!("{at} {} {} {}", text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]));
    let attributes: Vec<String> = event["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if !attributes.is_empty() {
        out.push_str(&format!(" ({})", attributes.join(", ")));
    }
    out
}

const DF: Listing = Listing {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headers: &[("TotalCount", "TOTAL")],
};

async fn df(session: Session, given: ArgMatches) -> Outcome {
    let found = session.client()?.get("/system/df").await?;
    if given.on("verbose") {
        session.out(&super::df::detailed(&found)?)?;
        return Ok(0);
    }
    let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    let sum = |items: &[Value], field: &dyn Fn(&Value) -> i64| items.iter().map(field).sum::<i64>();
    let (images, containers, volumes, cache) =
        (list("Images"), list("Containers"), list("Volumes"), list("BuildCache"));
    let layers = found["LayersSize"]
        .as_i64()
        .unwrap_or_else(|| sum(&images, &|image| image["Size"].as_i64().unwrap_or(0)));
    let used = |image: &Value| image["Containers"].as_i64().unwrap_or(0) > 0;
    let used_size = sum(&images, &|image| if used(image) { image["Size"].as_i64().unwrap_or(0) } else { 0 });
    let running = |container: &Value| {
        ["running", "paused", "restarting"].contains(&container["State"].as_str().unwrap_or_default())
    };
    let rw = |container: &Value| container["SizeRw"].as_i64().unwrap_or(0);
    let volume_size = |volume: &Value| volume["UsageData"]["Size"].as_i64().unwrap_or(0).max(0);
    let volume_used = |volume: &Value| volume["UsageData"]["RefCount"].as_i64().unwrap_or(0) > 0;
    // What an image has too is counted there.
    let cache_size = |item: &Value| match item["Shared"].as_bool() {
        Some(true) => 0,
        _ => item["Size"].as_i64().unwrap_or(0),
    };
    let cache_used = |item: &Value| item["InUse"].as_bool().unwrap_or(false);
    let row = |kind: &str, total: usize, active: usize, bytes: i64, free: i64| {
        let percent =
            if bytes > 0 { format!(" ({}%)", free.clamp(0, bytes) * 100 / bytes) } else { String::new() };
        json!({"Type": kind, "TotalCount": total.to_string(), "Active": active.to_string(), "Size": size::human(bytes), "Reclaimable": format!("{}{percent}", size::human(free.max(0)))})
    };
    let count =
        |items: &[Value], test: &dyn Fn(&Value) -> bool| items.iter().filter(|item| test(item)).count();
    let rows = [
        row("Images", images.len(), count(&images, &used), layers, layers - used_size),
        row(
            "Containers",
            containers.len(),
            count(&containers, &running),
            sum(&containers, &rw),
            sum(&containers, &|container| if running(container) { 0 } else { rw(container) }),
        ),
        row(
            "Local Volumes",
            volumes.len(),
            count(&volumes, &volume_used),
            sum(&volumes, &volume_size),
            sum(&volumes, &|volume| if volume_used(volume) { 0 } else { volume_size(volume) }),
        ),
        row(
            "Build Cache",
            cache.len(),
            count(&cache, &cache_used),
            sum(&cache, &cache_size),
            sum(&cache, &|item| if cache_used(item) { 0 } else { cache_size(item) }),
        ),
    ];
    session.out(&DF.render(&rows, &Style { format: given.text("format"), quiet: false, key: "Type" })?)?;
    Ok(0)
}

async fn prune(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let (all, volumes) = (given.on("all"), given.on("volumes"));
    if !given.on("force") {
        let mut warning = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
        if volumes {
            warning.push_str("  - all anonymous volumes not used by at least one container\n");
        }
        warning.push_str(if all {
            "  - all images without at least one container associated to them\n  - all build cache\n"
        } else {
            "  - all dangling images\n  - unused build cache\n"
        });
        if !session.confirm(&format!("{warning}\nAre you sure you want to continue?")) {
            return Ok(0);
        }
    }
    let given_filters = given.texts("filter");
    let wanted = filters(&given_filters)?;
    let post = async |path: &str, filters: String| {
        client.json(Method::POST, &query(path, [("filters", filters)]), None).await
    };
    let mut space = 0;
    let mut out = String::new();
    let mut add = |title: &str, deleted: &Value, reclaimed: &Value| {
        space += reclaimed.as_i64().unwrap_or(0);
        let names: Vec<&str> = deleted.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            out.push_str(&format!("{title}\n{}\n\n", names.join("\n")));
        }
    };
    let containers = post("/containers/prune", wanted.clone()).await?;
    add("Deleted Containers:", &containers["ContainersDeleted"], &containers["SpaceReclaimed"]);
    let networks = post("/networks/prune", wanted.clone()).await?;
    add("Deleted Networks:", &networks["NetworksDeleted"], &Value::Null);
    if volumes {
        let removed = post("/volumes/prune", wanted.clone()).await?;
        add("Deleted Volumes:", &removed["VolumesDeleted"], &removed["SpaceReclaimed"]);
    }
    let mut image_filters = given_filters;
    image_filters.push(format!("dangling={}", !all));
    let images = post("/images/prune", filters(&image_filters)?).await?;
    add("Deleted Images:", &deleted_images(&images["ImagesDeleted"]), &images["SpaceReclaimed"]);
    let cache = post(if all { "/build/prune?all=1" } else { "/build/prune" }, String::new()).await?;
    add("Deleted build cache objects:", &cache["CachesDeleted"], &cache["SpaceReclaimed"]);
    #[allow(clippy::cast_precision_loss)]
    out.push_str(&format!("Total reclaimed space: {}\n", size::human_with(space as f64, 4)));
    session.out(&out)?;
    Ok(0)
}

async fn reap(session: Session, given: ArgMatches) -> Outcome {
    let path =
        format!("/cauldron/v1/containers/{}/reap", encode(given.text("container").unwrap_or_default()));
    session.client()?.post(&path).await.map_err(only_here)?;
    Ok(0)
}

async fn restore_firewall(session: Session) -> Outcome {
    session.client()?.post("/cauldron/v1/firewall/restore").await.map_err(only_here)?;
    Ok(0)
}

async fn restore(session: Session) -> Outcome {
    let told = session.client()?.json(Method::POST, "/cauldron/v1/restore", None).await.map_err(only_here)?;
    let mut code = 0;
    for one in told.as_array().into_iter().flatten() {
        let id = one["Id"].as_str().unwrap_or_default();
        match one["Error"].as_str() {
            None => session.line(id)?,
            Some(error) => {
                code = 1;
                session.say(&format!("{id}: {error}"));
            }
        }
    }
    Ok(code)
}

async fn dial_stdio(session: Session) -> Outcome {
    let connection = session.client()?.dial().await?;
    // Raw bytes both ways, as with a terminal's stream.
    let ends = Ends { stdin: true, stdout: true, stderr: false, tty: true };
    stream::copy(connection, ends, None).await?;
    Ok(0)
}

async fn builder_prune(session: Session, given: ArgMatches) -> Outcome {
    if !given.on("force")
        && !session.confirm(
            "WARNING! This will remove all dangling build cache.\nAre you sure you want to continue?",
        )
    {
        return Ok(0);
    }
    let keep = |name: &str| {
        let bytes = given.text(name).map(size::parse).transpose()?;
        Ok::<_, Failure>(bytes.map(|bytes| bytes.to_string()).unwrap_or_default())
    };
    let path = query(
        "/build/prune",
        [
            ("all", super::filters::bit(given.on("all"))),
            ("filters", filters(&given.texts("filter"))?),
            ("keep-storage", keep("keep-storage")?),
            ("max-used-space", keep("max-used-space")?),
            ("reserved-space", keep("reserved-space")?),
        ],
    );
    let answer = session.client()?.json(Method::POST, &path, None).await?;
    session.out(&pruned(
        "Deleted build cache objects:",
        &answer["CachesDeleted"],
        &answer["SpaceReclaimed"],
    ))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_lines() {
        let event = json!({"Type": "container", "Action": "die", "Actor": {"ID": "x", "Attributes": {"exitCode": "3", "name": "n"}}, "timeNano": 1_500_000_001_i64});
        assert_eq!(event_line(&event), "1970-01-01T00:00:01.500000001Z container die x (exitCode=3, name=n)");
    }
}
