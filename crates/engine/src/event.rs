//! The events log: `<run root>/events.jsonl`, one JSON object a line, and `events.jsonl.1`, what was before it.
//!
//! Whoever does a thing appends its event with one `write(2)` on an `O_APPEND` descriptor, so lines of many processes
//! never mix. At [`LOG_BYTES`] the file is renamed to `events.jsonl.1` under `locks/events`; a writer that still holds
//! the old file writes there, which is why a reader goes on reading it too. An event that cannot be written never
//! fails what it tells of.

use model::error::Context as _;
use model::event::Event;
use model::filter::Filters;
use model::time::Timestamp;
use model::{ContainerId, Result};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::Engine;
use crate::watch::Watch;

/// Bytes of `events.jsonl` at which it is rotated.
pub const LOG_BYTES: u64 = 2 << 20;
/// Bytes of one event; a larger one keeps only the attributes that Docker's own tools read.
pub const EVENT_BYTES: usize = 64 << 10;

/// Attributes that the engine itself sets; labels may be dropped where an event is too large, these never.
const OWN_ATTRIBUTES: [&str; 10] = [
    "name",
    "image",
    "exitCode",
    "signal",
    "execID",
    "container",
    "type",
    "driver",
    "destination",
    "execDuration",
];

impl Engine {
    /// Appends an event about this object.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        append(&self.store.layout.events(), &Event::new(kind, action, id, attributes, crate::now()));
    }
    /// Appends a container's event: its labels, image and name, and what this action adds.
    pub fn emit_container(
        &self,
        action: &str,
        id: &ContainerId,
        name: &str,
        image: &str,
        labels: &BTreeMap<String, String>,
        more: &[(&str, &str)],
    ) {
        let mut attributes = labels.clone();
        let own = [("name", name), ("image", image)];
        attributes
            .extend(own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.emit("container", action, id.as_str(), attributes);
    }
    /// Opens the log. What is already there is told only where `since` or `until` is given, as in Docker.
    ///
    /// # Errors
    /// The log cannot be read or watched.
    pub fn events(
        &self,
        filters: Filters,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Events> {
        Events::open(&self.store.layout.events(), filters, since, until)
    }
}

/// Appends one event. Nothing is told about a failure: the deed is done, and its record is best effort.
fn append(path: &Path, event: &Event) {
    let Some(line) = line(event) else { return };
    let open = || std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let Ok(mut file) = open() else { return };
    let written = file.write_all(&line);
    if written.is_ok() && file.metadata().is_ok_and(|meta| meta.len() >= LOG_BYTES) {
        let _ = rotate(path);
    }
}

/// The line of an event, bounded.
fn line(event: &Event) -> Option<Vec<u8>> {
    let mut text = serde_json::to_vec(event).ok()?;
    if text.len() > EVENT_BYTES {
        let mut small = event.clone();
        small
            .actor
            .attributes
            .retain(|key, value| OWN_ATTRIBUTES.contains(&key.as_str()) && value.len() < 1024);
        small.action = small.action.chars().take(1024).collect();
        text = serde_json::to_vec(&small).ok()?;
    }
    text.push(b'\n');
    Some(text)
}

fn rotate(path: &Path) -> std::io::Result<()> {
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.with_file_name("locks").join("events"))?;
    lock.lock()?;
    if std::fs::metadata(path)?.len() >= LOG_BYTES {
        std::fs::rename(path, older(path))?;
    }
    Ok(())
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// One file of the log that is being read.
struct Source {
    file: File,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Source {
    fn open(path: &Path) -> Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata().context(|| format!("read events {}", path.display()))?.ino();
                Ok(Some(Self { file, inode, partial: Vec::new() }))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("read events {}", path.display())),
        }
    }
    /// Takes what was appended, line by line. A line that is no event is skipped.
    fn read(&mut self, mut take: impl FnMut(Event)) -> Result<()> {
        let mut buffer = [0; 32 << 10];
        loop {
            let count = self.file.read(&mut buffer).context(|| "read events")?;
            if count == 0 {
                return Ok(());
            }
            for piece in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
                if self.partial.len() + piece.len() <= 2 * EVENT_BYTES {
                    self.partial.extend_from_slice(piece);
                }
                if piece.ends_with(b"\n") {
                    if let Ok(event) = serde_json::from_slice(&self.partial) {
                        take(event);
                    }
                    self.partial.clear();
                }
            }
        }
    }
}

/// Events as they are appended. Poll its descriptor, then [`Events::read`].
pub struct Events {
    watch: Watch,
    path: PathBuf,
    /// The rotated file and the current one, in this order; at most two.
    sources: VecDeque<Source>,
    filters: Filters,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Events {
    fn open(
        path: &Path,
        filters: Filters,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Self> {
        let watch = Watch::new()?;
        if let Some(dir) = path.parent() {
            watch.add(dir)?;
        }
        let replay = since.is_some() || until.is_some();
        let mut sources = VecDeque::new();
        if replay {
            sources.extend(Source::open(&older(path))?);
        }
        if let Some(mut current) = Source::open(path)? {
            if !replay {
                current.file.seek(SeekFrom::End(0)).context(|| "read events")?;
            }
            sources.push_back(current);
        }
        Ok(Self { watch, path: path.to_owned(), sources, filters, since, until })
    }
    /// When the stream is to end by itself.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }
    /// What was appended since the last call, filtered. Never blocks.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        self.watch.clear();
        let mut events = Vec::new();
        self.drain(&mut events)?;
        let current = std::fs::metadata(&self.path).ok().map(|meta| meta.ino());
        if current.is_some() && self.sources.back().map(|source| source.inode) != current {
            self.sources.extend(Source::open(&self.path)?);
            while self.sources.len() > 2 {
                self.sources.pop_front();
            }
            self.drain(&mut events)?;
        }
        Ok(events)
    }
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let (filters, since, until) = (&self.filters, self.since, self.until);
        for source in &mut self.sources {
            source.read(|event| {
                let after = since.is_none_or(|since| event.time_nano >= since.total_nanos());
                let before = until.is_none_or(|until| event.time_nano <= until.total_nanos());
                if after && before && event.matches(filters) {
                    events.push(event);
                }
            })?;
        }
        Ok(())
    }
    /// Waits until something is appended; false when the time is over. For callers without an event loop.
    ///
    /// # Errors
    /// The wait itself failed.
    pub fn wait(&self, timeout: Option<std::time::Duration>) -> Result<bool> {
        self.watch.wait(timeout)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cauldron-event-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("locks")).unwrap();
        dir
    }
    fn event(action: &str, seconds: i64) -> Event {
        let attributes = [("name".to_owned(), "web".to_owned())].into();
        Event::new("container", action, "abc", attributes, Timestamp { seconds, nanos: 1 })
    }
    fn actions(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.action.as_str()).collect()
    }

    #[test]
    fn follows_what_is_appended() {
        let dir = root("follow");
        let path = dir.join("events.jsonl");
        append(&path, &event("before", 1));
        let mut events = Events::open(&path, Filters::default(), None, None).unwrap();
        assert!(events.read().unwrap().is_empty(), "what was before is not told");
        append(&path, &event("start", 2));
        assert!(events.wait(None).unwrap());
        assert_eq!(actions(&events.read().unwrap()), ["start"]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn replays_between_since_and_until() {
        let dir = root("replay");
        let path = dir.join("events.jsonl");
        for second in 1..=5 {
            append(&path, &event(&format!("e{second}"), second));
        }
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let read = |since, until| {
            let mut events = Events::open(&path, Filters::default(), since, until).unwrap();
            events.read().unwrap().into_iter().map(|event| event.action).collect::<Vec<_>>()
        };
        assert_eq!(read(at(2), at(4)), ["e2", "e3"]);
        assert_eq!(read(at(4), None), ["e4", "e5"]);
        assert_eq!(read(None, at(2)), ["e1"]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn rotation_loses_nothing_of_a_follower() {
        let dir = root("rotate");
        let path = dir.join("events.jsonl");
        append(&path, &event("first", 1));
        let mut events = Events::open(&path, Filters::default(), Some(Timestamp::NEVER), None).unwrap();
        // A writer that opened the file before the rotation and writes after it.
        let mut late = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&vec![b'\n'; LOG_BYTES as usize])
            .unwrap();
        append(&path, &event("second", 2));
        assert!(older(&path).exists(), "rotated");
        late.write_all(&line(&event("late", 2)).unwrap()).unwrap();
        append(&path, &event("third", 3));
        assert_eq!(actions(&events.read().unwrap()), ["first", "second", "late", "third"]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_huge_event_is_cut_to_what_tools_read() {
        let mut huge = event("start", 1);
        huge.actor.attributes.insert("label".to_owned(), "x".repeat(EVENT_BYTES));
        let line = line(&huge).unwrap();
        assert!(line.len() < EVENT_BYTES);
        let back: Event = serde_json::from_slice(&line).unwrap();
        assert_eq!(back.actor.attributes.keys().collect::<Vec<_>>(), ["name"]);
    }
}
