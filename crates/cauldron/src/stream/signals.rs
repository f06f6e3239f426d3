//! Signals that we get belong to the process: they are sent on, all but those that are ours. The terminal's size follows.

use client::{Client, query};
use tokio::signal::unix::{SignalKind, signal};

const FORWARDED: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
];

/// Sends signals on to a container until the task is aborted.
pub fn forward(client: Client, container: String) -> tokio::task::JoinHandle<()> {
    let mut streams = Vec::new();
    for (number, name) in FORWARDED {
        if let Ok(stream) = signal(SignalKind::from_raw(*number)) {
            streams.push((stream, *name));
        }
    }
    let held = crate::stop::Held::new();
    tokio::spawn(async move {
        let _held = held;
        loop {
            let next = std::future::poll_fn(|context| {
                for (stream, name) in &mut streams {
                    if stream.poll_recv(context).is_ready() {
                        return std::task::Poll::Ready(*name);
                    }
                }
                std::task::Poll::Pending
            });
            let name = next.await;
            // A process that is over, or not started yet, takes no signal: nothing to do about it.
            let _ = client.post(&format!("/containers/{container}/kill?signal={name}")).await;
        }
    })
}

/// Tells an engine the size of our terminal, once; `path` is `/containers/ID` or `/exec/ID`.
pub async fn resize(client: &Client, path: &str) {
    if let Some((rows, columns)) = super::size() {
        let path = query(&format!("{path}/resize"), [("h", rows.to_string()), ("w", columns.to_string())]);
        let _ = client.post(&path).await;
    }
}

/// Keeps telling it until the task is aborted.
pub fn watch_size(client: Client, path: String) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        while changes.recv().await.is_some() {
            resize(&client, &path).await;
        }
    })
}
