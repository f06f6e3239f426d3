//! `watch`: changes of files become copies, restarts and builds, as `develop.watch` says.
//!
//! One inotify descriptor watches every directory below the rules' paths; changes that come together are handled together.

use super::project::{host, load};
use crate::args::Given;
use crate::command::image::body_of;
use crate::fail::{Failure, Outcome};
use crate::options::ignore::Ignore;
use crate::session::Session;
use clap::ArgMatches;
use client::{Method, encode, query};
use compose::actual;
use compose::apply::{self, BuildHow, Host, Images, Up};
use compose::plan::Wishes;
use compose::project::{Hook, WatchRule};
use compose::{Project, Service};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// How long it must be quiet before changes are handled: an editor writes a file in several steps.
const QUIET: Duration = Duration::from_millis(150);
/// Directories at most.
const DIRECTORIES: usize = 50_000;

/// What is watched.
struct Watched {
    fd: Receiver,
    directories: HashMap<i32, PathBuf>,
}

impl Watched {
    fn new() -> Result<Self, Failure> {
        let wrong = |error: std::io::Error| Failure::new(format!("inotify: {error}"));
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| wrong(error.into()))?;
        // Not a pipe, but read like one.
        let fd = Receiver::from_owned_fd_unchecked(fd).map_err(wrong)?;
        Ok(Self { fd, directories: HashMap::new() })
    }

    /// Watches a path and every directory below it; links are not followed. A file is watched through its directory: who
    /// replaces it makes another one.
    fn add(&mut self, path: &Path) -> Result<(), Failure> {
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            if self.directories.len() >= DIRECTORIES {
                return Err(Failure::new(format!("more than {DIRECTORIES} directories to watch")));
            }
            let directory = path.is_dir();
            let path = match path.parent() {
                Some(parent) if !directory => parent.to_owned(),
                _ => path,
            };
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ATTRIB;
            let watch = inotify::add_watch(&self.fd, &path, flags)
                .map_err(|error| Failure::new(format!("watch {}: {error}", path.display())))?;
            self.directories.insert(watch, path.clone());
            if !directory {
                continue;
            }
            for entry in std::fs::read_dir(&path).map_err(crate::fail::file("read", &path))?.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// What changed since the last look, without waiting.
    fn read(&mut self, changed: &mut BTreeSet<PathBuf>) -> Result<(), Failure> {
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            let count = match self.fd.try_read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Failure::new(format!("inotify: {error}"))),
            };
            for (watch, mask, name) in events(&buffer[..count]) {
                let Some(base) = self.directories.get(&watch) else { continue };
                let path =
                    if name.is_empty() { base.clone() } else { base.join(std::ffi::OsStr::from_bytes(name)) };
                let arrived = ReadFlags::CREATE | ReadFlags::MOVED_TO;
                if !mask.contains(ReadFlags::ISDIR) {
                    changed.insert(path);
                } else if mask.intersects(arrived) {
                    // It may be gone again, or have files already.
                    if self.add(&path).is_ok() {
                        below(&path, changed);
                    }
                } else if mask.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                    changed.insert(path);
                }
            }
        }
    }

    /// Waits for changes, and until no more come.
    async fn changes(&mut self) -> Result<BTreeSet<PathBuf>, Failure> {
        let mut changed = BTreeSet::new();
        loop {
            let ready = self.fd.readable();
            let ready = match changed.is_empty() {
                true => ready.await,
                false => match tokio::time::timeout(QUIET, ready).await {
                    Ok(ready) => ready,
                    Err(_) => return Ok(changed),
                },
            };
            ready.map_err(|error| Failure::new(format!("inotify: {error}")))?;
            self.read(&mut changed)?;
        }
    }
}

/// The events of a read (inotify(7)): watch, mask, name.
fn events(mut bytes: &[u8]) -> Vec<(i32, ReadFlags, &[u8])> {
    let mut out = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
        let [a, b, c, d, e, f, g, h, .., w, x, y, z] = *head;
        let (watch, mask) = (i32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        let length = (u32::from_ne_bytes([w, x, y, z]) as usize).min(rest.len());
        let (name, rest) = rest.split_at(length);
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(length);
        out.push((watch, ReadFlags::from_bits_retain(mask), &name[..end]));
        bytes = rest;
    }
    out
}

/// Every file below a directory.
fn below(directory: &Path, out: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&entry.path(), out),
            Ok(_) => {
                out.insert(entry.path());
            }
            Err(_) => {}
        }
    }
}

/// A rule, ready to be asked.
struct Rule<'a> {
    service: &'a Service,
    rule: &'a WatchRule,
    ignore: Ignore,
    include: Option<Ignore>,
}

impl<'a> Rule<'a> {
    fn new(service: &'a Service, rule: &'a WatchRule) -> Self {
        let mut text = rule.ignore.join("\n");
        // What no build sees need not be watched.
        if let Some(build) = &service.build
            && rule.path.starts_with(&build.context)
            && rule.path == Path::new(&build.context)
        {
            text = format!(
                "{}\n{text}",
                std::fs::read_to_string(rule.path.join(".dockerignore")).unwrap_or_default()
            );
        }
        let text = format!(".git\n*.swp\n*~\n{text}");
        let include = (!rule.include.is_empty()).then(|| Ignore::parse(&rule.include.join("\n")));
        Self { service, rule, ignore: Ignore::parse(&text), include }
    }

    /// Where a changed file belongs below the rule's path; `None`: it is not this rule's.
    fn takes(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.rule.path).ok()?;
        let text = below.to_string_lossy();
        let wanted = self.include.as_ref().is_none_or(|include| text.is_empty() || include.ignores(&text));
        (wanted && (text.is_empty() || !self.ignore.ignores(&text))).then(|| below.to_owned())
    }
}

/// `watch`.
pub async fn watch(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load(&session, &names)?;
    let host = host(&session)?;
    let selected = compose::plan::selected(&project, &names, true)?;
    let services = selected.iter().filter_map(|name| project.services.get(name));
    let mut rules: Vec<Rule<'_>> = Vec::new();
    for service in services {
        let own = service.develop.iter().flat_map(|develop| &develop.watch);
        rules.extend(own.map(|rule| Rule::new(service, rule)));
    }
    if rules.is_empty() {
        return Err(Failure::new(
            "none of the selected services is configured for watch, consider setting a 'develop' section",
        ));
    }
    if !given.on("no-up") {
        let images = Images { build: true, quiet: given.on("quiet"), ..Images::default() };
        apply::up(&host, &project, &Up { wishes: Wishes { services: names, ..Wishes::default() }, images })
            .await?;
    }
    let mut watched = Watched::new()?;
    for rule in &rules {
        watched.add(&rule.rule.path)?;
    }
    for rule in rules.iter().filter(|rule| rule.rule.initial_sync) {
        let mut all = BTreeSet::new();
        below(&rule.rule.path, &mut all);
        let files: Vec<PathBuf> = all.iter().filter_map(|path| rule.takes(path)).collect();
        sync(&host, &project, rule, &files).await?;
    }
    session.say("Watch enabled");
    loop {
        let changed = watched.changes().await?;
        if let Err(failure) = handle(&session, &host, &project, &rules, &changed).await {
            // One change that fails does not end the watch.
            session.complain(&failure);
        }
    }
}

async fn handle(
    session: &Session,
    host: &Host,
    project: &std::rc::Rc<Project>,
    rules: &[Rule<'_>],
    changed: &BTreeSet<PathBuf>,
) -> Result<(), Failure> {
    let (mut rebuilt, mut restarted): (BTreeSet<&str>, BTreeSet<&str>) = (BTreeSet::new(), BTreeSet::new());
    let mut execs: Vec<(&str, &Hook)> = Vec::new();
    for rule in rules {
        let files: Vec<PathBuf> = changed.iter().filter_map(|path| rule.takes(path)).collect();
        if files.is_empty() {
            continue;
        }
        let name = rule.service.name.as_str();
        match rule.rule.action.as_str() {
            "rebuild" => {
                rebuilt.insert(name);
                continue;
            }
            "restart" => {
                restarted.insert(name);
                continue;
            }
            "sync+restart" => {
                restarted.insert(name);
            }
            "sync+exec" => execs.extend(rule.rule.exec.as_ref().map(|hook| (name, hook))),
            _ => {}
        }
        session.say(&format!("Syncing service \"{name}\" after {} changes were detected", files.len()));
        sync(host, project, rule, &files).await?;
    }
    for name in rebuilt {
        session.say(&format!("Rebuilding service \"{name}\" after changes were detected..."));
        restarted.remove(name);
        apply::build(host, project, project.service(name)?, &BuildHow::default()).await?;
        let wishes = Wishes { services: vec![name.to_owned()], no_deps: true, ..Wishes::default() };
        apply::up(host, project, &Up { wishes, images: Images::default() }).await?;
    }
    for name in restarted {
        apply::restart(host, project, &[name.to_owned()], None, true).await?;
        session.say(&format!("service \"{name}\" restarted"));
    }
    for (name, hook) in execs {
        apply::run_hook(host, project, name, hook).await?;
    }
    Ok(())
}

/// Copies changed files into a service's containers; what is gone is removed there.
async fn sync(host: &Host, project: &Project, rule: &Rule<'_>, files: &[PathBuf]) -> Result<(), Failure> {
    let Some(target) = rule.rule.target.as_deref() else { return Ok(()) };
    let mut gone: Vec<String> = Vec::new();
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    let broken = |error: std::io::Error| Failure::new(format!("archive: {error}"));
    for file in files {
        let from =
            if file.as_os_str().is_empty() { rule.rule.path.clone() } else { rule.rule.path.join(file) };
        let to =
            if file.as_os_str().is_empty() { PathBuf::from(target) } else { Path::new(target).join(file) };
        match std::fs::symlink_metadata(&from) {
            Ok(_) => {
                archive.append_path_with_name(&from, to.strip_prefix("/").unwrap_or(&to)).map_err(broken)?
            }
            Err(_) => gone.push(to.to_string_lossy().into_owned()),
        }
    }
    let bytes = archive.into_inner().map_err(broken)?;
    for one in actual::containers(&host.client, &project.name).await? {
        if one.service != rule.service.name || one.oneoff || !one.runs() {
            continue;
        }
        if bytes.len() > 1024 {
            let path = query(&format!("/containers/{}/archive", encode(&one.id)), [("path", "/".to_owned())]);
            let body = body_of(Box::new(std::io::Cursor::new(bytes.clone())));
            host.client.upload(Method::PUT, &path, &[("content-type", "application/x-tar")], body).await?;
        }
        if !gone.is_empty() {
            let command =
                ["rm", "-rf", "--"].into_iter().map(str::to_owned).chain(gone.iter().cloned()).collect();
            let hook = Hook { command, user: Some("0".to_owned()), ..Hook::default() };
            apply::run_hook(host, project, &one.service, &hook).await?;
        }
    }
    Ok(())
}
