//! Reading a container's log: `containers/<id>/<id>-json.log` in Docker's json-file format, with `….1`, `….2` (`.gz` where they are compressed) before it.
//!
//! The monitor is the only writer. A reader takes no lock: it keeps the file that it reads open, finds by inode what came
//! after it when the monitor has rotated, and follows through inotify until the container has ended. What a container
//! wrote is bounded line by line and never trusted to be an entry.

use model::error::Context as _;
use model::log::{STORED_LINE_BYTES, Show};
use model::{ContainerId, Error, Kind, Result};
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Engine;
use crate::container::Container;
use crate::watch::Watch;

/// Rotated files that are looked for, at most.
const FILES: u32 = 1000;
/// Bytes that one call of [`Logs::read`] hands out, about.
const PIECE: usize = 64 << 10;

/// How long a container has run at least whose log is read once.
const FIRST_WORDS: Duration = Duration::from_millis(100);

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more: read again.
    More,
    /// Nothing now: poll the descriptor, then read again.
    Wait,
    /// That was all.
    Over,
}

/// A container's log, read from a point on.
pub struct Logs {
    watch: Option<Watch>,
    path: PathBuf,
    dir: PathBuf,
    run_dir: PathBuf,
    current: Option<Opened>,
    queue: VecDeque<PathBuf>,
    partial: Vec<u8>,
    show: Show,
    over: bool,
}

impl Engine {
    /// Opens a container's log at its last `tail` entries, or at its beginning.
    ///
    /// # Errors
    /// No such container, a log driver that keeps nothing, or no output wanted.
    pub fn logs(&self, name: &str, show: Show, tail: Option<u64>, follow: bool) -> Result<Logs> {
        if !show.stdout && !show.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let container = self.find(name)?;
        if container.spec.log.driver == "none" {
            return Err(Error::new(
                Kind::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        if !follow {
            first_words(&container)?;
        }
        Logs::open(&container, show, tail, follow)
    }
}

/// Engines take long enough to start a container that what a short one says is in its log when they are done, and their
/// users count on it: a log that is read at once, and not followed, is that of a container which has run for [`FIRST_WORDS`]
/// or has ended.
fn first_words(container: &Container) -> Result<()> {
    let Some(live) = &container.live else { return Ok(()) };
    let age = crate::now().total_nanos().saturating_sub(container.state.started_at.total_nanos());
    let age = Duration::from_nanos(u64::try_from(age).unwrap_or_default());
    match FIRST_WORDS.checked_sub(age) {
        Some(left) if !left.is_zero() => runtime::wait_exit(live, Some(left)).map(drop),
        _ => Ok(()),
    }
}

impl Logs {
    pub(crate) fn open(container: &Container, show: Show, tail: Option<u64>, follow: bool) -> Result<Self> {
        Self::at(&container.log_path(), &container.dir, &container.run_dir, show, tail, follow)
    }
    fn at(
        path: &Path,
        dir: &Path,
        run_dir: &Path,
        show: Show,
        tail: Option<u64>,
        follow: bool,
    ) -> Result<Self> {
        let watch = if follow { Some(Watch::new()?) } else { None };
        if let Some(watch) = &watch {
            watch.add(dir)?;
            watch.add(run_dir)?;
        }
        let mut queue: VecDeque<PathBuf> = older_files(path).into();
        queue.push_back(path.to_owned());
        let mut logs = Self {
            watch,
            path: path.to_owned(),
            dir: dir.to_owned(),
            run_dir: run_dir.to_owned(),
            current: None,
            queue,
            partial: Vec::new(),
            show,
            over: false,
        };
        if let Some(tail) = tail {
            logs.seek_tail(tail)?;
        }
        Ok(logs)
    }
    /// Drops the files, and moves to the place in one, before the last `count` entries.
    fn seek_tail(&mut self, mut count: u64) -> Result<()> {
        let mut later = VecDeque::new();
        while let Some(path) = self.queue.pop_back() {
            let Some(mut opened) = open(&path)? else { continue };
            let (start, found) =
                tail_of(&opened.file, count).context(|| format!("read log {}", path.display()))?;
            count -= found.min(count);
            if count == 0 || self.queue.is_empty() {
                opened
                    .file
                    .seek(SeekFrom::Start(start))
                    .context(|| format!("read log {}", path.display()))?;
                self.current = Some(opened);
                self.queue.clear();
                break;
            }
            later.push_front(path);
        }
        self.queue.extend(later);
        Ok(())
    }
    /// Appends the next entries as a client gets them. Never blocks.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Result<Next> {
        if let Some(watch) = &self.watch {
            watch.clear();
        }
        // Before the file is read: what is written before the end is then read after it was seen.
        let ended = self.watch.is_none() || self.has_ended()?;
        let start = out.len();
        let mut buffer = [0; 16 << 10];
        while !self.over && out.len() - start < PIECE {
            let Some(Opened { file, .. }) = &mut self.current else {
                if self.advance()? {
                    continue;
                }
                return Ok(if ended { Next::Over } else { Next::Wait });
            };
            let count = file.read(&mut buffer).context(|| format!("read log {}", self.path.display()))?;
            if count > 0 {
                self.take(&buffer[..count], out);
            } else if !self.advance()? {
                return Ok(if ended { Next::Over } else { Next::Wait });
            }
        }
        Ok(if self.over { Next::Over } else { Next::More })
    }
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.len() + piece.len() <= STORED_LINE_BYTES {
                self.partial.extend_from_slice(piece);
            }
            if !piece.ends_with(b"\n") {
                continue;
            }
            if let Some(entry) = model::log::parse(&self.partial) {
                self.show.render(&entry, out);
                self.over |= self.show.is_past(&entry);
            }
            self.partial.clear();
        }
    }
    /// Goes on to the next file; false where there is none (yet).
    fn advance(&mut self) -> Result<bool> {
        while let Some(path) = self.queue.pop_front() {
            if let Some(opened) = open(&path)? {
                self.current = Some(opened);
                return Ok(true);
            }
        }
        let Ok(now) = std::fs::metadata(&self.path) else { return Ok(false) };
        match &self.current {
            Some(opened) if now.ino() == opened.inode => Ok(false),
            Some(opened) => {
                // Rotated. What was written to the old file meanwhile comes first.
                let read = (&opened.file).stream_position().unwrap_or(0);
                if opened.file.metadata().is_ok_and(|meta| meta.len() > read) {
                    return Ok(true);
                }
                let mut newer: Vec<PathBuf> = vec![self.path.clone()];
                for path in older_files(&self.path).into_iter().rev() {
                    if opened.is(&path) {
                        break;
                    }
                    newer.push(path);
                }
                self.queue.extend(newer.into_iter().rev());
                self.current = None;
                self.partial.clear();
                Ok(true)
            }
            None => {
                self.current = open(&self.path)?;
                Ok(self.current.is_some())
            }
        }
    }
    /// Whether nobody will write any more: the container has run and is over, or is gone.
    fn has_ended(&self) -> Result<bool> {
        if runtime::live(&self.run_dir)?.is_some() {
            return Ok(false);
        }
        if let Some(watch) = &self.watch {
            // The run directory of a container that was not started yet comes with its start.
            watch.add(&self.run_dir)?;
        }
        let state: Option<model::state::State> = crate::container::read_json(&self.dir.join("state.json"))?;
        let never_started = state.is_some_and(|state| state.started_at.is_never() && state.error.is_empty());
        Ok(!(never_started && crate::container::lookup::has_spec(&self.dir)))
    }
    /// Waits until there may be more. For callers without an event loop.
    ///
    /// # Errors
    /// The wait itself failed.
    pub fn wait(&self) -> Result<()> {
        match &self.watch {
            Some(watch) => watch.wait(None).map(drop),
            None => Ok(()),
        }
    }
    /// The descriptor to poll; `None` where nothing is followed.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }
}

/// What a log is about: its container, and whether it has a terminal.
#[derive(Clone, Debug)]
pub struct LogOf {
    /// The container.
    pub id: ContainerId,
    /// Its output is a terminal's: no frames.
    pub tty: bool,
}

impl Engine {
    /// Finds whose log this name means.
    ///
    /// # Errors
    /// Those of [`Engine::find`].
    pub fn log_of(&self, name: &str) -> Result<LogOf> {
        let container = self.find(name)?;
        Ok(LogOf { id: container.id().clone(), tty: container.spec.process.tty })
    }
}

/// A file of the log, and what it is known by.
struct Opened {
    /// What is read: the file, or what was in it where it is compressed.
    file: File,
    /// The file's; 0 where it is compressed.
    inode: u64,
    /// When a compressed file's last entry was written.
    written: Option<SystemTime>,
}

impl Opened {
    /// Whether this is the file at a path. One that was compressed meanwhile has another inode, and its time.
    fn is(&self, path: &Path) -> bool {
        let Ok(now) = std::fs::metadata(path) else { return false };
        let written = self.written.or_else(|| self.file.metadata().ok()?.modified().ok());
        now.ino() == self.inode || is_compressed(path) && now.modified().ok() == written
    }
}

fn is_compressed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b".gz")
}

fn open(path: &Path) -> Result<Option<Opened>> {
    let what = || format!("read log {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // It may have been compressed since it was found.
            let compressed = if is_compressed(path) { None } else { Some(with_ending(path, ".gz")) };
            return match compressed.filter(|path| path.exists()) {
                Some(path) => open(&path),
                None => Ok(None),
            };
        }
        Err(error) => return Err(error).context(what),
    };
    let meta = file.metadata().context(what)?;
    if !is_compressed(path) {
        return Ok(Some(Opened { file, inode: meta.ino(), written: None }));
    }
    // Unpacked into a file without a name: what is looked for is at its end.
    let dir = path.parent().unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let plain = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)
        .map_err(std::io::Error::from)
        .context(|| format!("create a file in {}", dir.display()))?;
    let mut plain = File::from(plain);
    let mut source = store::tree::stream::decompress(file).context(what)?;
    std::io::copy(&mut source, &mut plain).context(what)?;
    plain.rewind().context(what)?;
    Ok(Some(Opened { file: plain, inode: 0, written: meta.modified().ok() }))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// `….N`, …, `….1`, or `….N.gz`: the oldest first.
fn older_files(path: &Path) -> Vec<PathBuf> {
    let numbered = |number: u32| {
        let plain = with_ending(path, &format!(".{number}"));
        let compressed = with_ending(&plain, ".gz");
        [plain, compressed].into_iter().find(|path| path.exists())
    };
    let mut files: Vec<PathBuf> = (1..FILES).map_while(numbered).collect();
    files.reverse();
    files
}

/// Where the last `count` lines begin, and how many were found.
fn tail_of(file: &File, count: u64) -> std::io::Result<(u64, u64)> {
    let mut end = file.metadata()?.len();
    if count == 0 {
        return Ok((end, 0));
    }
    let mut buffer = vec![0; 64 << 10];
    let mut newlines = 0;
    while end > 0 {
        let length = end.min(buffer.len() as u64);
        let piece = &mut buffer[..length as usize];
        file.read_exact_at(piece, end - length)?;
        for (at, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline that ends the last line is none between two.
            if newlines == count {
                return Ok((end - length + at as u64 + 1, count));
            }
            newlines += 1;
        }
        end -= length;
    }
    Ok((0, newlines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    struct Dir(PathBuf);
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn dir(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("cauldron-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("run")).unwrap();
        Dir(dir)
    }
    fn append(path: &Path, words: &[&str]) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        for word in words {
            writeln!(file, r#"{{"log":"{word}\n","stream":"stdout","time":"2026-11-24T05:47:51Z"}}"#)
                .unwrap();
        }
    }
    fn logs(dir: &Dir, tail: Option<u64>, follow: bool) -> Logs {
        let show = Show { stdout: true, stderr: true, raw: true, ..Show::default() };
        Logs::at(&dir.0.join("log"), &dir.0, &dir.0.join("run"), show, tail, follow).unwrap()
    }
    fn all(logs: &mut Logs) -> (String, Next) {
        let mut out = Vec::new();
        loop {
            let next = logs.read(&mut out).unwrap();
            if next != Next::More {
                return (String::from_utf8(out).unwrap().replace('\n', " "), next);
            }
        }
    }

    #[test]
    fn reads_over_rotated_files() {
        let dir = dir("rotated");
        append(&dir.0.join("log.2"), &["a", "b"]);
        append(&dir.0.join("log.1"), &["c", "d"]);
        append(&dir.0.join("log"), &["e", "f"]);
        assert_eq!(all(&mut logs(&dir, None, false)), ("a b c d e f ".into(), Next::Over));
        for (tail, wanted) in
            [(0, ""), (1, "f "), (2, "e f "), (3, "d e f "), (5, "b c d e f "), (9, "a b c d e f ")]
        {
            assert_eq!(all(&mut logs(&dir, Some(tail), false)).0, wanted, "tail {tail}");
        }
    }

    /// As the monitor does it.
    fn compress(dir: &Dir, name: &str) {
        let path = dir.0.join(name);
        let status = std::process::Command::new("gzip").arg(&path).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn reads_compressed_files() {
        let dir = dir("compressed");
        append(&dir.0.join("log.2"), &["a", "b"]);
        append(&dir.0.join("log.1"), &["c", "d"]);
        append(&dir.0.join("log"), &["e"]);
        std::fs::write(dir.0.join("spec.json"), "{}").unwrap();
        std::fs::write(dir.0.join("state.json"), "{}").unwrap();
        let mut follower = logs(&dir, Some(1), true);
        assert_eq!(all(&mut follower), ("e ".into(), Next::Wait));
        compress(&dir, "log.2");
        compress(&dir, "log.1");
        for (tail, wanted) in [(None, "a b c d e "), (Some(2), "d e "), (Some(4), "b c d e ")] {
            assert_eq!(all(&mut logs(&dir, tail, false)).0, wanted, "{tail:?}");
        }
        // What is followed is rotated and compressed.
        std::fs::rename(dir.0.join("log.2.gz"), dir.0.join("log.3.gz")).unwrap();
        std::fs::rename(dir.0.join("log.1.gz"), dir.0.join("log.2.gz")).unwrap();
        std::fs::rename(dir.0.join("log"), dir.0.join("log.1")).unwrap();
        compress(&dir, "log.1");
        append(&dir.0.join("log"), &["f"]);
        assert_eq!(all(&mut follower), ("f ".into(), Next::Wait));
    }

    #[test]
    fn follows_over_a_rotation() {
        let dir = dir("follow");
        let path = dir.0.join("log");
        // A container that was not started yet is waited for.
        std::fs::write(dir.0.join("spec.json"), "{}").unwrap();
        std::fs::write(dir.0.join("state.json"), "{}").unwrap();
        append(&path, &["a"]);
        let mut logs = logs(&dir, Some(0), true);
        assert_eq!(all(&mut logs), (String::new(), Next::Wait));
        append(&path, &["b"]);
        std::fs::rename(&path, dir.0.join("log.1")).unwrap();
        append(&path, &["c"]);
        std::fs::rename(dir.0.join("log.1"), dir.0.join("log.2")).unwrap();
        std::fs::rename(&path, dir.0.join("log.1")).unwrap();
        append(&path, &["d"]);
        logs.wait().unwrap();
        assert_eq!(all(&mut logs), ("b c d ".into(), Next::Wait));
        std::fs::write(dir.0.join("state.json"), r#"{"started_at":"2026-11-24T05:47:51Z"}"#).unwrap();
        append(&path, &["e"]);
        assert_eq!(all(&mut logs), ("e ".into(), Next::Over));
    }

    #[test]
    fn lines_that_are_none_are_skipped() {
        let dir = dir("bad");
        append(&dir.0.join("log"), &["a"]);
        let mut file = File::options().append(true).open(dir.0.join("log")).unwrap();
        file.write_all(&vec![b'x'; 3 * STORED_LINE_BYTES]).unwrap();
        file.write_all(b"\n\0\n").unwrap();
        append(&dir.0.join("log"), &["b"]);
        assert_eq!(all(&mut logs(&dir, None, false)).0, "a b ");
    }
}
