//! Secrets and configs into a container that does not run yet, in no request that `inspect` shows: Cauldron keeps them in memory
//! file systems; other engines get an archive.

use super::about;
use crate::body::{Delivery, Source};
use crate::error::{Error, Result};
use base64::Engine as _;
use client::{Client, Method, encode};
use serde_json::{Value, json};

/// Bytes of one secret or config at most, as Docker's are.
const BYTES: usize = 1024 * 1024;

/// The bytes of a delivery.
fn bytes(one: &Delivery) -> Result<Vec<u8>> {
    let bytes = match &one.source {
        Source::Bytes(bytes) => bytes.clone(),
        Source::File(path) => std::fs::read(path)
            .map_err(|error| Error::project(format!("{}: {}: {error}", one.target, path.display())))?,
    };
    if bytes.len() > BYTES {
        return Err(Error::project(format!("{}: larger than {BYTES} bytes", one.target)));
    }
    Ok(bytes)
}

/// Whether an engine delivers secrets and configs itself, in memory.
///
/// # Errors
/// It does not say what it is.
pub async fn delivers(client: &Client) -> Result<bool> {
    Ok(client.embedded() || client.get("/version").await?["Platform"]["Name"] == "Cauldron")
}

/// Puts files into a container that does not run.
///
/// # Errors
/// A source cannot be read, or the engine says no.
pub async fn deliver(client: &Client, id: &str, deliveries: &[Delivery]) -> Result<()> {
    if deliveries.is_empty() {
        return Ok(());
    }
    if delivers(client).await? {
        let mut files = Vec::new();
        for one in deliveries {
            let content = base64::engine::general_purpose::STANDARD.encode(bytes(one)?);
            files.push(json!({"target": one.target, "uid": one.uid, "gid": one.gid, "mode": one.mode, "content": content}));
        }
        let path = format!("/cauldron/v1/containers/{}/files", encode(id));
        let sent = client.json(Method::PUT, &path, Some(&Value::Array(files))).await;
        return sent.map(|_| ()).map_err(about("deliver secrets and configs"));
    }
    let mut archive = Vec::new();
    for one in deliveries {
        entry(&mut archive, one, &bytes(one)?)?;
    }
    archive.extend_from_slice(&[0; 1024]);
    let (sender, body) = client::body_channel(1);
    // The channel holds the one piece.
    let _ = sender.try_send(Ok(archive.into()));
    drop(sender);
    let path = format!("/containers/{}/archive?path=%2F", encode(id));
    let headers = [("content-type", "application/x-tar")];
    client.upload(Method::PUT, &path, &headers, body).await.map_err(about("deliver secrets and configs"))?;
    Ok(())
}

/// One file of an archive (POSIX ustar).
fn entry(archive: &mut Vec<u8>, one: &Delivery, bytes: &[u8]) -> Result<()> {
    let name = one.target.trim_start_matches('/');
    let (prefix, base) =
        if name.len() <= 100 { ("", name) } else { name.rsplit_once('/').unwrap_or(("", name)) };
    if base.len() > 100 || prefix.len() > 155 {
        return Err(Error::project(format!("{}: the path is too long", one.target)));
    }
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, base.as_bytes());
    put(100, format!("{:07o}", one.mode & 0o7777).as_bytes());
    put(108, format!("{:07o}", one.uid & 0o7_777_777).as_bytes());
    put(116, format!("{:07o}", one.gid & 0o7_777_777).as_bytes());
    put(124, format!("{:011o}", bytes.len()).as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().div_ceil(512) * 512, 0);
    Ok(())
}
