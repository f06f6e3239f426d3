//! What ran: an SQLite database in `history.db` (mode 0600, write-ahead log, schema version in `user_version`).
//!
//! A *run* is one start of a task; it has *tries*, one or more for each target. A run belongs to the process that started
//! it, which holds the lock `run-<id>`: an unfinished run whose lock is free was killed. Nothing secret is written here:
//! neither environment nor mounts, only what a process printed, bounded and compressed.

mod output;
mod query;

use crate::error::{Context as _, Error, Result};
use jiff::Timestamp;
pub use output::{Captured, Recorder};
pub use query::{RunRow, TryRow};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::Path;
use std::time::Duration;

/// How long a writer waits for another.
const BUSY: Duration = Duration::from_secs(30);
/// The schema's version.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, project TEXT NOT NULL, task TEXT NOT NULL, slot INTEGER, cause TEXT NOT NULL, pid INTEGER NOT NULL,
        started INTEGER NOT NULL, finished INTEGER, exit_code INTEGER, error TEXT, undo TEXT NOT NULL DEFAULT '[]'
    ) STRICT;
    CREATE INDEX runs_by_task ON runs (project, task, started);
    CREATE UNIQUE INDEX runs_by_slot ON runs (project, task, slot) WHERE slot IS NOT NULL;
    CREATE TABLE tries (
        id INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, target TEXT NOT NULL, target_id TEXT NOT NULL,
        attempt INTEGER NOT NULL, image TEXT NOT NULL, image_id TEXT NOT NULL, container TEXT NOT NULL DEFAULT '',
        started INTEGER NOT NULL, finished INTEGER, exit_code INTEGER, error TEXT, cpu_nanos INTEGER, memory_peak INTEGER,
        output BLOB, output_bytes INTEGER
    ) STRICT;
    CREATE INDEX tries_by_run ON tries (run, id);
    CREATE TABLE schedules (
        project TEXT NOT NULL, task TEXT NOT NULL, handled INTEGER NOT NULL, paused INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (project, task)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE marks (
        volume TEXT NOT NULL, helper TEXT NOT NULL, digest TEXT NOT NULL, version INTEGER, image TEXT NOT NULL,
        state TEXT NOT NULL, at INTEGER NOT NULL, container TEXT NOT NULL DEFAULT '', PRIMARY KEY (volume, helper, digest)
    ) STRICT, WITHOUT ROWID;
";

/// The history of all tasks of one root.
pub struct History {
    db: Connection,
}

/// A task as the history names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The compose project; empty for a task of the command line.
    pub project: String,
    /// The task.
    pub task: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.project.as_str() {
            "" => f.write_str(&self.task),
            project => write!(f, "{project}/{}", self.task),
        }
    }
}

/// A schedule's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Slots up to here are handled.
    pub handled: Timestamp,
    /// Nothing runs by itself.
    pub paused: bool,
}

/// A scheduled run that did not come to be.
#[derive(Clone, Copy, Debug)]
pub struct Unrun<'a> {
    /// The time that the schedule meant.
    pub slot: Timestamp,
    /// As of a run.
    pub cause: &'a str,
    /// As of a run.
    pub exit_code: i64,
    /// Why.
    pub error: &'a str,
}

/// How a try ended.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// When.
    pub finished: Timestamp,
    /// The process's exit code, where there was a process.
    pub exit_code: Option<i64>,
    /// Why it failed, where an exit code does not say it all.
    pub error: Option<String>,
    /// Processor time in nanoseconds, where it was measured.
    pub cpu_nanos: Option<i64>,
    /// Bytes of memory at the most, where it was measured.
    pub memory_peak: Option<i64>,
    /// What it printed.
    pub output: Captured,
}

impl History {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// It cannot be opened, or a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        // SQLite gives its other files the mode of this one.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .context(|| format!("open {}", path.display()))?;
        let db = Connection::open(path).context(|| format!("open {}", path.display()))?;
        db.busy_timeout(BUSY).context(|| "set the busy timeout")?;
        let version: i64 =
            db.query_row("PRAGMA user_version", [], |row| row.get(0)).context(|| "read the version")?;
        if version > VERSION {
            return Err(Error::new(format!(
                "{} was written by a newer version ({version}; this one knows {VERSION})",
                path.display()
            )));
        }
        if version < VERSION {
            write_ahead(&db).context(|| "set the journal's mode")?;
            create(&db)?;
        }
        db.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -256;")
            .context(|| "set up")?;
        Ok(Self { db })
    }

    /// Notes that a run begins. `false`: the slot was run already.
    ///
    /// # Errors
    /// The database refused.
    pub fn begin(
        &self,
        id: &str,
        key: &Key,
        slot: Option<Timestamp>,
        cause: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let changed = self.db.execute(
            "INSERT OR IGNORE INTO runs (id, project, task, slot, cause, pid, started) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![id, key.project, key.task, slot.map(micros), cause, std::process::id(), micros(now)],
        );
        changed.map(|count| count == 1).context(|| format!("note a run of {key}"))
    }

    /// Notes how a run ended.
    ///
    /// # Errors
    /// The database refused.
    pub fn finish(&self, id: &str, exit_code: i64, error: Option<&str>, now: Timestamp) -> Result<()> {
        self.execute(
            "UPDATE runs SET finished = ?2, exit_code = ?3, error = ?4, undo = '[]' WHERE id = ?1",
            params![id, micros(now), exit_code, error],
        )
    }

    /// Notes a run that did not come to be, unless its slot was run, and forgets what `keep` does not keep; the row's id.
    ///
    /// # Errors
    /// The database refused.
    pub fn note_unrun(
        &self,
        key: &Key,
        keep: &crate::definition::Keep,
        unrun: Unrun<'_>,
        now: Timestamp,
    ) -> Result<String> {
        let id = crate::run::new_id()?;
        if self.begin(&id, key, Some(unrun.slot), unrun.cause, now)? {
            self.finish(&id, unrun.exit_code, Some(unrun.error), now)?;
            self.prune(key, keep, now)?;
        }
        Ok(id)
    }

    /// Notes what is to be undone should the run's process die: JSON.
    ///
    /// # Errors
    /// The database refused.
    pub fn set_undo(&self, id: &str, undo: &str) -> Result<()> {
        self.execute("UPDATE runs SET undo = ?2 WHERE id = ?1", params![id, undo])
    }

    /// Notes that a try begins; gives its number.
    ///
    /// # Errors
    /// The database refused.
    pub fn begin_try(&self, row: &TryRow) -> Result<i64> {
        self.execute(
            "INSERT INTO tries (run, target, target_id, attempt, image, image_id, started) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![row.run, row.target, row.target_id, row.attempt, row.image, row.image_id, micros(row.started)],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    /// Notes a try's container.
    ///
    /// # Errors
    /// The database refused.
    pub fn set_container(&self, id: i64, container: &str) -> Result<()> {
        self.execute("UPDATE tries SET container = ?2 WHERE id = ?1", params![id, container])
    }

    /// Notes how a try ended.
    ///
    /// # Errors
    /// The database refused.
    pub fn finish_try(&self, id: i64, end: &End) -> Result<()> {
        self.execute(
            "UPDATE tries SET finished = ?2, exit_code = ?3, error = ?4, cpu_nanos = ?5, memory_peak = ?6, output = ?7, output_bytes = ?8
             WHERE id = ?1",
            params![
                id,
                micros(end.finished),
                end.exit_code,
                end.error,
                end.cpu_nanos,
                end.memory_peak,
                end.output.compressed,
                i64::try_from(end.output.bytes).unwrap_or(i64::MAX)
            ],
        )
    }

    /// Forgets what `keep` does not keep; runs that go on stay. What never came to a try is counted on its own: slots that
    /// were skipped put no run out.
    ///
    /// # Errors
    /// The database refused.
    pub fn prune(&self, key: &Key, keep: &crate::definition::Keep, now: Timestamp) -> Result<()> {
        let oldest = keep
            .age
            .and_then(|age| now.checked_sub(jiff::SignedDuration::try_from(age).ok()?).ok())
            .map_or(0, micros);
        self.execute(
            "DELETE FROM runs WHERE project = ?1 AND task = ?2 AND finished IS NOT NULL AND (started < ?3 OR id NOT IN
             (SELECT id FROM (SELECT id, row_number() OVER
                (PARTITION BY EXISTS (SELECT 1 FROM tries WHERE run = runs.id) ORDER BY started DESC) AS place
                FROM runs WHERE project = ?1 AND task = ?2) WHERE place <= ?4))",
            params![key.project, key.task, oldest, i64::try_from(keep.runs).unwrap_or(i64::MAX)],
        )
    }

    /// A schedule's state.
    ///
    /// # Errors
    /// The database refused.
    pub fn state(&self, key: &Key) -> Result<Option<State>> {
        let mut statement = self
            .db
            .prepare_cached("SELECT handled, paused FROM schedules WHERE project = ?1 AND task = ?2")
            .context(|| "read a schedule's state")?;
        statement
            .query_row(params![key.project, key.task], |row| {
                Ok(State { handled: time(row.get(0)?), paused: row.get::<_, i64>(1)? != 0 })
            })
            .optional()
            .context(|| "read a schedule's state")
    }

    /// Notes up to where slots are handled; a first note makes the state.
    ///
    /// # Errors
    /// The database refused.
    pub fn set_handled(&self, key: &Key, handled: Timestamp) -> Result<()> {
        self.execute(
            "INSERT INTO schedules (project, task, handled) VALUES (?1, ?2, ?3)
             ON CONFLICT (project, task) DO UPDATE SET handled = excluded.handled",
            params![key.project, key.task, micros(handled)],
        )
    }

    /// Pauses or resumes; what passed while a schedule was paused does not count as missed.
    ///
    /// # Errors
    /// The database refused.
    pub fn set_paused(&self, key: &Key, paused: bool, now: Timestamp) -> Result<()> {
        self.execute(
            "INSERT INTO schedules (project, task, handled, paused) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (project, task) DO UPDATE SET paused = excluded.paused,
             handled = CASE WHEN schedules.paused = 1 AND excluded.paused = 0 THEN excluded.handled ELSE schedules.handled END",
            params![key.project, key.task, micros(now), i64::from(paused)],
        )
    }

    /// Forgets a task: its runs and its schedule's state.
    ///
    /// # Errors
    /// The database refused.
    pub fn forget(&self, key: &Key) -> Result<()> {
        self.execute("DELETE FROM runs WHERE project = ?1 AND task = ?2", params![key.project, key.task])?;
        self.execute("DELETE FROM schedules WHERE project = ?1 AND task = ?2", params![key.project, key.task])
    }

    pub(crate) fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        let mut statement = self.db.prepare_cached(sql).context(|| "write")?;
        statement.execute(values).map(|_| ()).context(|| "write")
    }
}

/// Makes the tables, once, however many processes try.
/// Has the database write ahead. While others open it SQLite refuses that at once, whatever the busy timeout says.
fn write_ahead(db: &Connection) -> rusqlite::Result<()> {
    let end = std::time::Instant::now() + BUSY;
    loop {
        match db.pragma_update(None, "journal_mode", "wal") {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                    && std::time::Instant::now() < end =>
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn create(db: &Connection) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE").context(|| "make the tables")?;
    let version: i64 =
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).context(|| "read the version")?;
    if version < VERSION {
        db.execute_batch(SCHEMA).context(|| "make the tables")?;
        db.pragma_update(None, "user_version", VERSION).context(|| "write the version")?;
    }
    db.execute_batch("COMMIT").context(|| "make the tables")
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Keep;

    struct Dir(std::path::PathBuf);
    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("cauldron-history-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
        fn open(&self) -> History {
            History::open(&self.0.join("history.db")).unwrap()
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
    fn key() -> Key {
        Key { project: "shop".to_owned(), task: "backup".to_owned() }
    }

    #[test]
    fn a_run_and_its_tries() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = Dir::new("run");
        let history = dir.open();
        assert!(history.begin("1", &key(), Some(at(100)), "schedule", at(101)).unwrap());
        assert!(!history.begin("2", &key(), Some(at(100)), "schedule", at(102)).unwrap(), "one run a slot");
        let row = TryRow {
            run: "1".to_owned(),
            target: "db".to_owned(),
            attempt: 1,
            image: "b".to_owned(),
            started: at(101),
            ..TryRow::default()
        };
        let id = history.begin_try(&row).unwrap();
        let mut recorder = Recorder::default();
        recorder.write(1, b"out\n");
        recorder.write(2, b"err\n");
        let end = End { finished: at(103), exit_code: Some(3), output: recorder.finish(), ..End::default() };
        history.finish_try(id, &end).unwrap();
        history.finish("1", 3, None, at(103)).unwrap();
        let other = dir.open();
        let tries = other.tries(None, 10).unwrap();
        assert_eq!((tries.len(), tries[0].exit_code, tries[0].finished), (1, Some(3), Some(at(103))));
        assert_eq!(other.output(tries[0].id).unwrap(), [(1, b"out\n".to_vec()), (2, b"err\n".to_vec())]);
        for file in std::fs::read_dir(&dir.0).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn what_is_kept() {
        let dir = Dir::new("keep");
        let history = dir.open();
        for number in 0..10 {
            history.begin(&number.to_string(), &key(), None, "manual", at(number)).unwrap();
            history.finish(&number.to_string(), 0, None, at(number)).unwrap();
        }
        history.begin("live", &key(), None, "manual", at(0)).unwrap();
        history.prune(&key(), &Keep { runs: 3, age: None }, at(20)).unwrap();
        let ids = |history: &History| {
            history.runs(Some(&key()), 100).unwrap().into_iter().map(|run| run.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&history), ["9", "8", "7", "live"]);
        history.prune(&key(), &Keep { runs: 100, age: Some(Duration::from_secs(12)) }, at(20)).unwrap();
        assert_eq!(ids(&history), ["9", "8", "live"]);
    }

    #[test]
    fn many_may_open_a_new_one_at_once() {
        let dir = Dir::new("many");
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| dir.open().runs(None, 1).unwrap());
            }
        });
    }

    #[test]
    fn skipped_slots_put_no_run_out() {
        let dir = Dir::new("skipped");
        let history = dir.open();
        let keep = Keep { runs: 2, age: None };
        for number in 0..3 {
            let run = number.to_string();
            history.begin(&run, &key(), Some(at(number)), "schedule", at(number)).unwrap();
            history
                .begin_try(&TryRow { run: run.clone(), started: at(number), ..TryRow::default() })
                .unwrap();
            history.finish(&run, 0, None, at(number)).unwrap();
        }
        for number in 0..10 {
            let unrun = Unrun { slot: at(number), cause: "schedule", exit_code: 1, error: "skipped" };
            history.note_unrun(&key(), &keep, unrun, at(number)).unwrap();
        }
        let runs = history.runs(Some(&key()), 100).unwrap();
        let slots: Vec<i64> = runs.iter().map(|run| run.slot.unwrap().as_second()).collect();
        assert_eq!(slots, [9, 8, 2, 1], "two runs, two slots without one");
    }

    #[test]
    fn pause_and_resume() {
        let dir = Dir::new("pause");
        let history = dir.open();
        assert_eq!(history.state(&key()).unwrap(), None);
        history.set_handled(&key(), at(10)).unwrap();
        history.set_paused(&key(), true, at(20)).unwrap();
        assert_eq!(history.state(&key()).unwrap(), Some(State { handled: at(10), paused: true }));
        history.set_paused(&key(), false, at(30)).unwrap();
        assert_eq!(history.state(&key()).unwrap(), Some(State { handled: at(30), paused: false }));
        history.set_paused(&key(), false, at(40)).unwrap();
        assert_eq!(history.state(&key()).unwrap().unwrap().handled, at(30));
    }

    #[test]
    fn a_newer_database_is_refused() {
        let dir = Dir::new("newer");
        dir.open().db.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(History::open(&dir.0.join("history.db")).is_err());
    }
}
