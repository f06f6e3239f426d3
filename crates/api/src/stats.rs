//! `/containers/{id}/stats` and `top`.

use crate::{Failure, Shared, call, input::Params};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use engine::model::time::Timestamp;
use engine::top::Reading;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two readings.
const PERIOD: Duration = Duration::from_secs(1);

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    router.route("/containers/{id}/stats", get(stats)).route("/containers/{id}/top", get(top))
}

async fn top(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let ps_args = params.text("ps_args").to_owned();
    let table = call(&engine, move |engine| engine.top(&id, &ps_args)).await?;
    Ok(Json(json!({ "Titles": table.titles, "Processes": table.rows })))
}

async fn read(engine: &Shared, id: &str) -> Result<Reading, Failure> {
    let id = id.to_owned();
    call(engine, move |engine| engine.usage(&id)).await
}

/// A stream of readings, one with a reading a second before it (`stream=false`), or one alone (`one-shot`).
async fn stats(
    State(engine): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let first = read(&engine, &id).await?;
    if params.flag_or("stream", true) {
        let id = first.id.to_string();
        let body = futures_util::stream::unfold(
            Stream { engine, id, before: None, next: Some(first) },
            |mut state| async { state.piece().await.map(|piece| (Ok::<_, std::io::Error>(piece), state)) },
        );
        return Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response());
    }
    if params.flag("one-shot") || first.usage.is_none() {
        return Ok(Json(document(&first, None)).into_response());
    }
    tokio::time::sleep(PERIOD).await;
    let second = read(&engine, &id).await?;
    Ok(Json(document(&second, Some(&first))).into_response())
}

/// A stream of readings.
struct Stream {
    engine: Shared,
    id: String,
    before: Option<Reading>,
    next: Option<Reading>,
}

impl Stream {
    async fn piece(&mut self) -> Option<Bytes> {
        let reading = match self.next.take() {
            Some(first) => first,
            None => {
                tokio::time::sleep(PERIOD).await;
                // A container that was removed ends the stream.
                read(&self.engine, &self.id).await.ok()?
            }
        };
        let mut text = document(&reading, self.before.as_ref()).to_string();
        text.push('\n');
        self.before = Some(reading);
        Some(text.into())
    }
}

fn document(now: &Reading, before: Option<&Reading>) -> Value {
    let preread = before.map_or(Timestamp::NEVER, |before| before.read);
    let mut body = json!({
        "name": format!("/{}", now.name),
        "id": now.id.as_str(),
        "read": now.read,
        "preread": preread,
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(now),
        "precpu_stats": before.map_or_else(empty_cpu, cpu),
        "memory_stats": memory(now),
        "pids_stats": pids(now),
        "blkio_stats": blkio(now),
    });
    if !now.interfaces.is_empty() {
        body["networks"] = networks(now);
    }
    body
}

fn empty_cpu() -> Value {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}

fn cpu(reading: &Reading) -> Value {
    let Some(usage) = &reading.usage else { return empty_cpu() };
    let mut body = json!({
        "cpu_usage": {
            "total_usage": usage.cpu_total,
            "usage_in_kernelmode": usage.cpu_system,
            "usage_in_usermode": usage.cpu_user,
        },
        "system_cpu_usage": usage.machine_cpu,
        "online_cpus": usage.online_cpus,
        "throttling_data": {
            "periods": usage.throttling.0,
            "throttled_periods": usage.throttling.1,
            "throttled_time": usage.throttling.2,
        },
    });
    if !usage.cpu_each.is_empty() {
        body["cpu_usage"]["percpu_usage"] = json!(usage.cpu_each);
    }
    body
}

fn memory(reading: &Reading) -> Value {
    let Some(usage) = &reading.usage else { return json!({}) };
    let mut body = json!({ "usage": usage.memory, "stats": usage.memory_stat, "limit": usage.memory_limit });
    if usage.memory_max_usage > 0 {
        body["max_usage"] = usage.memory_max_usage.into();
    }
    body
}

fn pids(reading: &Reading) -> Value {
    let Some(usage) = &reading.usage else { return json!({}) };
    let mut body = json!({ "current": usage.pids });
    if usage.pids_limit > 0 {
        body["limit"] = usage.pids_limit.into();
    }
    body
}

fn blkio(reading: &Reading) -> Value {
    let list = |counters: Option<&Vec<(u64, u64, String, u64)>>| -> Value {
        let entry = |(major, minor, op, value): &(u64, u64, String, u64)| json!({ "major": major, "minor": minor, "op": op, "value": value });
        counters.map_or(Value::Null, |counters| counters.iter().map(entry).collect())
    };
    let usage = reading.usage.as_ref();
    // Lists of a version 1 hierarchy, which has more of them; nothing of version 2.
    let none = match usage.is_some_and(|usage| usage.blkio_legacy) {
        true => json!([]),
        false => Value::Null,
    };
    json!({
        "io_service_bytes_recursive": list(usage.map(|usage| &usage.blkio_bytes)),
        "io_serviced_recursive": list(usage.map(|usage| &usage.blkio_ops)),
        "io_queue_recursive": none,
        "io_service_time_recursive": none,
        "io_wait_time_recursive": none,
        "io_merged_recursive": none,
        "io_time_recursive": none,
        "sectors_recursive": none,
    })
}

fn networks(reading: &Reading) -> Value {
    const NAMES: [&str; 8] = [
        "rx_bytes",
        "rx_packets",
        "rx_errors",
        "rx_dropped",
        "tx_bytes",
        "tx_packets",
        "tx_errors",
        "tx_dropped",
    ];
    let counters = |values: &[u64; 8]| -> Value {
        NAMES
            .iter()
            .zip(values)
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    reading
        .interfaces
        .iter()
        .map(|(name, values)| (name.clone(), counters(values)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
