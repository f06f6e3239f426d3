//! `cp`: a tar stream between here and a container, its first name changed where the destination says so.
//!
//! What comes from a container is hostile: every entry is unpacked below the destination and nowhere else
//! (the `tar` crate refuses `..` and does not follow links that lead out).

use super::filters::bit;
use super::image::body_of;
use crate::args::{Given, flag, one};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome, file};
use crate::session::Session;
use base64::Engine as _;
use clap::ArgMatches;
use client::{Chunks, Client, Method, encode, query};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

pub const VERBS: &[Verb] = &[Verb {
    group: "container",
    names: &["cp"],
    top: &["cp"],
    usage: "CONTAINER:SRC_PATH DEST_PATH|-  |  SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem",
    more: "Examples:\n  cauldron cp web:/var/log/nginx ./logs\n  cauldron cp conf/. web:/etc/app\n  tar c x | cauldron cp - web:/srv",
    args: || {
        vec![
            flag("archive", "a", "Archive mode (copy all uid/gid information)"),
            flag("follow-link", "L", "Always follow symbol link in SRC_PATH"),
            flag("quiet", "q", "Suppress progress output"),
            one("source"),
            one("destination"),
        ]
    },
    run: |session, given| Box::pin(cp(session, given)),
    ..VERB
}];

/// `name:path`; a path that begins with `/` or `.` is local.
fn split(argument: &str) -> (Option<&str>, &str) {
    if argument.starts_with(['/', '.']) {
        return (None, argument);
    }
    match argument.split_once(':') {
        Some((container, path)) if !container.is_empty() => (Some(container), path),
        _ => (None, argument),
    }
}

async fn cp(session: Session, given: ArgMatches) -> Outcome {
    let (source, destination) =
        (given.text("source").unwrap_or_default(), given.text("destination").unwrap_or_default());
    match (split(source), split(destination)) {
        ((Some(container), path), (None, target)) => {
            download(&session, &given, container, path, target).await
        }
        ((None, path), (Some(container), target)) => upload(&session, &given, path, container, target).await,
        ((Some(_), _), (Some(_), _)) => Err("copying between containers is not supported".into()),
        _ => Err("must specify at least one container source".into()),
    }
}

const MODE_DIR: u64 = 1 << 31;
const MODE_LINK: u64 = 1 << 27;

/// What the engine says about a path: name, Go's mode bits, link target.
async fn stat(client: &Client, container: &str, path: &str) -> Result<Option<(u64, String)>, Failure> {
    let url = query(&format!("/containers/{}/archive", encode(container)), [("path", path.to_owned())]);
    let response = match client.call(Method::HEAD, &url, None).await {
        Ok(response) => response,
        // 400: a part of the path is no directory.
        Err(error) if matches!(error.status(), Some(400 | 404)) => {
            // HEAD has no body: is it the container or the path?
            client.get(&format!("/containers/{}/json", encode(container))).await?;
            return Ok(None);
        }
        // The reason is in what GET answers.
        Err(error) => return Err(client.call(Method::GET, &url, None).await.err().unwrap_or(error).into()),
    };
    let header = response.headers().get("X-Docker-Container-Path-Stat").and_then(|value| value.to_str().ok());
    let decoded = header.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let value: Value = decoded
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or("the engine did not describe the path")?;
    Ok(Some((
        value["mode"].as_u64().unwrap_or(0),
        value["linkTarget"].as_str().unwrap_or_default().to_owned(),
    )))
}

/// `x/.` and `x/`: the content of a directory, or a directory for certain.
fn ends_in_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

async fn download(
    session: &Session,
    given: &ArgMatches,
    container: &str,
    path: &str,
    target: &str,
) -> Outcome {
    let client = session.client()?;
    let mut path = path.to_owned();
    let missing =
        |path: &str| Failure::new(format!("Could not find the file {path} in container {container}"));
    let (mut mode, link) = stat(client, container, &path).await?.ok_or_else(|| missing(&path))?;
    if mode & MODE_LINK != 0 && (given.on("follow-link") || ends_in_directory(&path)) && !link.is_empty() {
        path = if ends_in_directory(&path) { format!("{}/.", link.trim_end_matches('/')) } else { link };
        mode = stat(client, container, &path).await?.ok_or_else(|| missing(&path))?.0;
    }
    let url = query(&format!("/containers/{}/archive", encode(container)), [("path", path.clone())]);
    let mut chunks = Chunks::new(client.call(Method::GET, &url, None).await?);
    if target == "-" {
        while let Some(bytes) = chunks.next().await? {
            session.raw(&bytes)?;
        }
        return Ok(0);
    }
    let is_dir = mode & MODE_DIR != 0;
    let content_only = path.ends_with("/.");
    let local = Path::new(target);
    let place = match std::fs::metadata(local) {
        Ok(found) if found.is_dir() => Place { dir: local.to_owned(), name: None, content: content_only },
        Ok(_) if is_dir => return Err(Failure::new(format!("cannot copy directory to file: {target}"))),
        // Unpacking replaces what has the name: a link keeps its own, and a device or a pipe is nothing to replace.
        Ok(found) if found.is_file() => {
            Place::named(&std::fs::canonicalize(local).map_err(file("resolve", local))?)?
        }
        Ok(_) => {
            return Err(Failure::new(format!(
                "destination \"{target}\" must be a directory or a regular file"
            )));
        }
        Err(_) if !is_dir && target.ends_with('/') => {
            return Err(Failure::new(format!("no such directory: {target}")));
        }
        Err(_) => {
            let place = Place::named(local)?;
            if !place.dir.is_dir() {
                return Err(Failure::new(format!(
                    "invalid output path: directory \"{}\" does not exist",
                    place.dir.display()
                )));
            }
            if is_dir {
                std::fs::create_dir(local).map_err(file("create", local))?;
                Place { dir: local.to_owned(), name: None, content: true }
            } else {
                place
            }
        }
    };
    let owners = given.on("archive");
    piped(chunks, move |source| unpack(source, &place, owners)).await?;
    Ok(0)
}

/// Hands an answer's body to whoever reads it on a thread of its own.
///
/// # Errors
/// The connection broke, or the reader's own.
pub(super) async fn piped<T: Send + 'static>(
    mut chunks: Chunks,
    work: impl FnOnce(Incoming) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let done = tokio::task::spawn_blocking(move || work(Incoming { receiver, piece: bytes::Bytes::new() }));
    let fed = async {
        while let Some(bytes) = chunks.next().await? {
            if sender.send(Ok(bytes)).await.is_err() {
                break;
            }
        }
        Ok::<_, client::Error>(())
    };
    let fed = fed.await;
    if let Err(error) = &fed {
        // The reader must not take what it got for the whole.
        let _ = sender.send(Err(std::io::Error::other(error.to_string()))).await;
    }
    drop(sender);
    let done = done.await.map_err(|_| "reading the stream stopped unexpectedly")?;
    fed?;
    done
}

/// Where a stream's first name goes.
struct Place {
    dir: PathBuf,
    /// Another name for the one entry.
    name: Option<std::ffi::OsString>,
    /// The first name is left out: its content goes into `dir`.
    content: bool,
}

impl Place {
    fn named(path: &Path) -> Result<Self, Failure> {
        let name = path
            .file_name()
            .ok_or_else(|| Failure::new(format!("invalid output path: {}", path.display())))?;
        let dir = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { dir: dir.to_owned(), name: Some(name.to_owned()), content: false })
    }

    /// The path below `dir`; `None` for the directory itself.
    fn path(&self, entry: &Path) -> Option<PathBuf> {
        let mut parts = entry.components();
        let mut first = parts.next()?;
        // `x/.` comes without the first name: its content is all there is.
        let rootless = matches!(first, std::path::Component::CurDir);
        if rootless {
            if self.content {
                let rest: PathBuf = parts.collect();
                return (!rest.as_os_str().is_empty()).then_some(rest);
            }
            first = parts.next()?;
        }
        let rest: PathBuf = parts.collect();
        let out = match (&self.name, self.content) {
            (Some(name), _) => Path::new(name).join(rest),
            (None, true) => rest,
            (None, false) => Path::new(first.as_os_str()).join(rest),
        };
        (!out.as_os_str().is_empty()).then_some(out)
    }
}

/// The body, as a reader.
pub(super) struct Incoming {
    receiver: tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>,
    piece: bytes::Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Renames while it unpacks: the stream is written anew with other names and read by an unpacking thread.
fn unpack(source: impl Read + Send + 'static, place: &Place, owners: bool) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| Failure::new(format!("unpack: {error}"));
    let (reader, writer) = std::io::pipe().map_err(wrong)?;
    let dir = place.dir.clone();
    let sink = std::thread::spawn(move || {
        let mut archive = tar::Archive::new(std::io::BufReader::with_capacity(256 * 1024, reader));
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(true);
        archive.set_preserve_ownerships(owners);
        archive.unpack(&dir)
    });
    let renamed = rename(tar::Archive::new(source), tar::Builder::new(writer), |path| place.path(path));
    let unpacked = sink.join().map_err(|_| "unpacking stopped unexpectedly")?;
    unpacked.map_err(wrong)?;
    renamed.map_err(wrong)
}

/// Copies an archive with other names; entries whose name goes away are left out. Hard links follow.
fn rename<R: Read, W: std::io::Write>(
    mut from: tar::Archive<R>,
    mut to: tar::Builder<W>,
    name: impl Fn(&Path) -> Option<PathBuf>,
) -> std::io::Result<()> {
    for entry in from.entries()? {
        let mut entry = entry?;
        let Some(path) = name(&entry.path()?) else { continue };
        let mut header = entry.header().clone();
        match header.entry_type() {
            tar::EntryType::Link => {
                let target = entry
                    .link_name()?
                    .and_then(|target| name(&target))
                    .ok_or_else(|| std::io::Error::other("a hard link leads nowhere"))?;
                to.append_link(&mut header, &path, &target)?;
            }
            tar::EntryType::Symlink => {
                let target = entry
                    .link_name()?
                    .ok_or_else(|| std::io::Error::other("a link leads nowhere"))?
                    .into_owned();
                to.append_link(&mut header, &path, &target)?;
            }
            _ => to.append_data(&mut header, &path, &mut entry)?,
        }
    }
    to.finish()
}

async fn upload(session: &Session, given: &ArgMatches, path: &str, container: &str, target: &str) -> Outcome {
    let client = session.client()?;
    let mut target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let mut found = stat(client, container, &target).await?;
    if let Some((mode, link)) = &found
        && mode & MODE_LINK != 0
        && !link.is_empty()
    {
        target.clone_from(link);
        found = stat(client, container, &target).await?;
    }
    let into = found.as_ref().is_some_and(|(mode, _)| mode & MODE_DIR != 0);
    let (dir, body) = if path == "-" {
        if !into {
            return Err(Failure::new(format!("destination \"{container}:{target}\" must be a directory")));
        }
        (target, body_of(Box::new(std::io::stdin())))
    } else {
        let local = Path::new(path);
        let follow = given.on("follow-link") || ends_in_directory(path);
        let meta = if follow { std::fs::metadata(local) } else { std::fs::symlink_metadata(local) };
        let meta = meta.map_err(file("lstat", local))?;
        if path.ends_with('/') && !meta.is_dir() {
            return Err(Failure::new(format!("{path}: not a directory")));
        }
        let (dir, name) = if into {
            let resolved = std::fs::canonicalize(local).ok();
            let own = if ends_in_directory(path) || base(path) == ".." {
                resolved.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
            } else {
                None
            };
            let name = if path.ends_with("/.") || path == "." {
                ".".to_owned()
            } else {
                own.unwrap_or_else(|| base(path).to_owned())
            };
            (target, name)
        } else {
            if found.is_some() && meta.is_dir() {
                return Err(Failure::new(format!("cannot copy directory to file: {container}:{target}")));
            }
            if found.is_none() && target.ends_with('/') && !meta.is_dir() {
                return Err(Failure::new(format!("no such directory: {container}:{target}")));
            }
            let trimmed = target.trim_end_matches('/');
            let parent = trimmed
                .rsplit_once('/')
                .map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
            (parent.to_owned(), base(trimmed).to_owned())
        };
        (dir, packed(local.to_owned(), name, follow, meta.is_dir())?)
    };
    let url = query(
        &format!("/containers/{}/archive", encode(container)),
        [
            ("path", dir),
            ("noOverwriteDirNonDir", "true".to_owned()),
            ("copyUIDGID", bit(given.on("archive"))),
        ],
    );
    client.upload(Method::PUT, &url, &[("Content-Type", "application/x-tar")], body).await?;
    Ok(0)
}

/// A file or tree as a tar stream under another name.
fn packed(path: PathBuf, name: String, follow: bool, is_dir: bool) -> Result<client::Body, Failure> {
    let (reader, writer) = std::io::pipe().map_err(|error| Failure::new(format!("pipe: {error}")))?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut archive = tar::Builder::new(writer);
        archive.follow_symlinks(false);
        let path = if follow { std::fs::canonicalize(&path).unwrap_or(path) } else { path };
        let packed = if is_dir {
            archive.append_dir_all(&name, &path)
        } else {
            archive.append_path_with_name(&path, &name)
        };
        // The outcome is there before the reader sees the end.
        let _ = sender.send(packed.and_then(|()| archive.finish()));
    });
    Ok(body_of(Box::new(Packed { reader, outcome: receiver })))
}

struct Packed {
    reader: std::io::PipeReader,
    outcome: std::sync::mpsc::Receiver<std::io::Result<()>>,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && let Ok(Err(error)) = self.outcome.recv()
        {
            return Err(error);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        assert_eq!(split("c:/x"), (Some("c"), "/x"));
        assert_eq!(split("./c:x"), (None, "./c:x"));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        assert_eq!(split("plain"), (None, "plain"));
    }

    #[test]
    fn places() {
        let place =
            |name: Option<&str>, content| Place { dir: "/d".into(), name: name.map(Into::into), content };
        assert_eq!(place(Some("n"), false).path(Path::new("a/b")), Some("n/b".into()));
        assert_eq!(place(None, true).path(Path::new("a/b")), Some("b".into()));
        assert_eq!(place(None, true).path(Path::new("./a/b")), Some("a/b".into()));
        assert_eq!(place(None, true).path(Path::new("./")), None);
        assert_eq!(place(None, true).path(Path::new("a/")), None);
        assert_eq!(place(None, false).path(Path::new("./a/b")), Some("a/b".into()));
    }
}
