//! Secrets and configs into a container that does not run yet, in no request that `inspect` shows: Cauldron keeps them in memory
//! file systems; other engines get an archive.

use super::{Host, Made, about};
use crate::actual::Container;
use crate::body::{Delivery, Source, deliveries};
use crate::error::{Error, Result};
use crate::project::{Project, Service};
use base64::Engine as _;
use client::{Client, Method, encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt as _;

/// Bytes of one secret or config at most, as Docker's are.
const BYTES: usize = 1024 * 1024;

/// The bytes of a secret or config; `what` names it.
pub(super) async fn bytes(what: &str, source: &Source) -> Result<Vec<u8>> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Error::project(format!("{what}: {}: {error}", path.display())))
    };
    let bytes = match source {
        Source::Bytes(bytes) => bytes.clone(),
        Source::File(path) => read(path)?,
        Source::Found(name, places) => match places.iter().find(|path| path.exists()) {
            Some(path) => read(path)?,
            None => {
                let shown: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
                return Err(Error::project(format!(
                    "{what}: external {name} not found: {}",
                    shown.join(", ")
                )));
            }
        },
        Source::Command(words, directory) => printed(what, words, directory).await?,
    };
    if bytes.len() > BYTES {
        return Err(Error::project(format!("{what}: larger than {BYTES} bytes")));
    }
    Ok(bytes)
}

/// What a command prints, without one line end. It is never shown, not where the command fails either.
async fn printed(what: &str, words: &[String], directory: &Path) -> Result<Vec<u8>> {
    let Some((program, arguments)) = words.split_first() else { return Ok(Vec::new()) };
    let wrong = |text: String| Error::project(format!("{what}: {program}: {text}"));
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(BYTES as u64 + 2).read_to_end(&mut bytes).await;
        read.map_err(|error| wrong(error.to_string()))?;
    }
    let status = child.wait().await.map_err(|error| wrong(error.to_string()))?;
    if !status.success() {
        return Err(wrong(status.to_string()));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        bytes.pop_if(|last| *last == b'\r');
    }
    Ok(bytes)
}

/// Which secrets and configs containers were given, as digests of container and bytes: beside the engine, for no inspect to show.
/// One file a project, readable by its owner alone. What a command prints is not compared: it may be another each time.
pub(super) struct Given<'a> {
    path: Option<PathBuf>,
    known: BTreeMap<String, String>,
    project: &'a Project,
}

impl<'a> Given<'a> {
    pub(super) fn read(host: &Host, project: &'a Project) -> Self {
        let any = !project.secrets.is_empty() || !project.configs.is_empty();
        let dir = host.deliveries.as_ref().filter(|_| any && !host.dry_run);
        let path = dir.map(|dir| dir.join(format!("{}.json", project.name)));
        let read = path.as_ref().and_then(|path| std::fs::read(path).ok());
        // What cannot be read is not known: nothing is made anew for it.
        let known = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, known, project }
    }

    /// The containers that were given something else than their services have now.
    pub(super) async fn changed(&self, containers: &[Container]) -> Result<BTreeSet<String>> {
        let mut changed = BTreeSet::new();
        for one in containers.iter().filter(|one| !one.oneoff) {
            let Some(service) = self.project.services.get(&one.service) else { continue };
            if let Some(known) = self.known.get(&one.id)
                && *known != self.digest(service, &one.id).await?
            {
                changed.insert(one.id.clone());
            }
        }
        Ok(changed)
    }

    async fn digest(&self, service: &Service, id: &str) -> Result<String> {
        let mut hash = Sha256::new().chain_update(id);
        for one in deliveries(self.project, service)? {
            if !matches!(one.source, Source::Command(..)) {
                let bytes = bytes(&one.target, &one.source).await?;
                hash.update(one.target.as_bytes());
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Notes what new containers were given, and forgets those that are no more.
    pub(super) async fn note(&self, before: &[Container], now: &Made) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let now = now.borrow().clone();
        let old: BTreeSet<&String> = before.iter().map(|one| &one.id).collect();
        let mut known = self.known.clone();
        let lives: BTreeSet<&String> = now.values().flatten().map(|(id, _)| id).collect();
        known.retain(|id, _| lives.contains(id));
        for (name, containers) in &now {
            let Some(service) = self.project.services.get(name) else { continue };
            if service.secrets.is_empty() && service.configs.is_empty() {
                continue;
            }
            for (id, _) in containers.iter().filter(|(id, _)| !old.contains(id)) {
                known.insert(id.clone(), self.digest(service, id).await?);
            }
        }
        if known == self.known {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&known).map_err(|error| Error::project(error.to_string()))?;
        write(path, &bytes).map_err(|error| Error::project(format!("write {}: {error}", path.display())))
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    std::fs::rename(&aside, path)
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
            let content =
                base64::engine::general_purpose::STANDARD.encode(bytes(&one.target, &one.source).await?);
            files.push(json!({"target": one.target, "uid": one.uid, "gid": one.gid, "mode": one.mode, "content": content}));
        }
        let path = format!("/cauldron/v1/containers/{}/files", encode(id));
        let sent = client.json(Method::PUT, &path, Some(&Value::Array(files))).await;
        return sent.map(|_| ()).map_err(about("deliver secrets and configs"));
    }
    let mut archive = Vec::new();
    for one in deliveries {
        entry(&mut archive, one, &bytes(&one.target, &one.source).await?)?;
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
