//! `stats`.

use crate::args::{Given, any, flag, format, no_trunc};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::{size, table};
use crate::session::Session;
use clap::ArgMatches;
use client::{Client, encode};
use serde_json::{Value, json};

pub const VERBS: &[Verb] = &[Verb {
    group: "container",
    names: &["stats"],
    top: &["stats"],
    usage: "[CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    args: || {
        vec![
            flag("all", "a", "Show all containers (default shows just running)"),
            format(),
            flag("no-stream", "", "Disable streaming stats and only pull the first result"),
            no_trunc(),
            any("containers"),
        ]
    },
    run: |session, given| Box::pin(stats(session, given)),
    ..VERB
}];

const STATS: Listing = Listing {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
    ],
};

async fn names(client: &Client, given: &ArgMatches) -> Result<Vec<String>, Failure> {
    let named = given.texts("containers");
    if !named.is_empty() {
        return Ok(named);
    }
    let found =
        client.get(if given.on("all") { "/containers/json?all=1" } else { "/containers/json" }).await?;
    Ok(found
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| container["Id"].as_str().map(str::to_owned))
        .collect())
}

async fn stats(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let full = given.on("no-trunc");
    let live = !given.on("no-stream");
    loop {
        let names = names(client, &given).await?;
        // The engine takes two readings for one answer, so the containers are asked side by side.
        let asked = names.iter().map(|name| {
            let path = format!("/containers/{}/stats?stream=false", encode(name));
            async move { client.get(&path).await }
        });
        let mut rows = Vec::new();
        let named = !given.texts("containers").is_empty();
        for (name, answer) in names.iter().zip(futures_util::future::join_all(asked).await) {
            match answer {
                Ok(reading) => {
                    let mut row = row(&reading, full);
                    if named {
                        row["Container"] = name.as_str().into();
                    }
                    rows.push(row);
                }
                // One that is gone meanwhile is no longer shown; one that was named is missed.
                Err(error) if error.status() == Some(404) && !named => {}
                Err(error) => return Err(error.into()),
            }
        }
        let text = STATS.render(&rows, &Style { format: given.text("format"), quiet: false, key: "ID" })?;
        if !live {
            session.out(&text)?;
            return Ok(0);
        }
        let clear = if given.text("format").is_none() { "\x1b[H\x1b[2J" } else { "" };
        session.out(&format!("{clear}{text}"))?;
        if names.is_empty() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn row(reading: &Value, full: bool) -> Value {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let (now, before) = (&reading["cpu_stats"], &reading["precpu_stats"]);
    let used = number(&now["cpu_usage"]["total_usage"]) - number(&before["cpu_usage"]["total_usage"]);
    let machine = number(&now["system_cpu_usage"]) - number(&before["system_cpu_usage"]);
    let cpus = match number(&now["online_cpus"]) {
        0.0 => now["cpu_usage"]["percpu_usage"].as_array().map_or(1.0, |list| list.len() as f64),
        cpus => cpus,
    };
    let cpu = if used > 0.0 && machine > 0.0 { used / machine * cpus * 100.0 } else { 0.0 };
    let memory = &reading["memory_stats"];
    let inactive = [&memory["stats"]["total_inactive_file"], &memory["stats"]["inactive_file"]]
        .into_iter()
        .find_map(Value::as_f64)
        .unwrap_or(0.0);
    let usage = number(&memory["usage"]);
    let usage = if inactive < usage { usage - inactive } else { usage };
    let limit = number(&memory["limit"]);
    let (mut received, mut sent) = (0.0, 0.0);
    for counters in reading["networks"].as_object().into_iter().flatten().map(|(_, counters)| counters) {
        received += number(&counters["rx_bytes"]);
        sent += number(&counters["tx_bytes"]);
    }
    let (mut read, mut written) = (0.0, 0.0);
    for entry in reading["blkio_stats"]["io_service_bytes_recursive"].as_array().into_iter().flatten() {
        match entry["op"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
            "read" => read += number(&entry["value"]),
            "write" => written += number(&entry["value"]),
            _ => {}
        }
    }
    let id = reading["id"].as_str().unwrap_or_default();
    let pair = |a: f64, b: f64| format!("{} / {}", size::human_with(a, 3), size::human_with(b, 3));
    json!({
        "ID": if full { id } else { table::short_id(id) }, "Container": table::short_id(id),
        "Name": reading["name"].as_str().unwrap_or_default().trim_start_matches('/'),
        "CPUPerc": format!("{cpu:.2}%"), "MemUsage": format!("{} / {}", size::binary(usage), size::binary(limit)),
        "MemPerc": format!("{:.2}%", if limit > 0.0 { usage / limit * 100.0 } else { 0.0 }),
        "NetIO": pair(received, sent), "BlockIO": pair(read, written),
        "PIDs": reading["pids_stats"]["current"].as_u64().unwrap_or(0).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let reading = json!({
            "id": "0123456789abcdef", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_145_728, "limit": 10_485_760, "stats": {"inactive_file": 1_048_576}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}}, "pids_stats": {"current": 3},
        });
        let row = row(&reading, false);
        assert_eq!(
            (row["CPUPerc"].as_str(), row["MemUsage"].as_str(), row["MemPerc"].as_str()),
            (Some("40.00%"), Some("2MiB / 10MiB"), Some("20.00%"))
        );
        assert_eq!((row["NetIO"].as_str(), row["Name"].as_str()), (Some("1kB / 2kB"), Some("web")));
    }
}
