//! Questions to the history.

use super::{History, Key, output, time};
use crate::error::{Context as _, Result};
use jiff::Timestamp;
use rusqlite::{Row, params};

/// One start of a task.
#[derive(Clone, Debug, Default)]
pub struct RunRow {
    /// Its id.
    pub id: String,
    /// The compose project; empty for a task of the command line.
    pub project: String,
    /// The task.
    pub task: String,
    /// The time that the schedule meant.
    pub slot: Option<Timestamp>,
    /// `manual`, `schedule`, `after TASK`.
    pub cause: String,
    /// The process that it belongs to.
    pub pid: i64,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// One code for all of it.
    pub exit_code: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
    /// What is to be undone should its process die.
    pub undo: String,
}

/// One try on one target.
#[derive(Clone, Debug, Default)]
pub struct TryRow {
    /// Its number.
    pub id: i64,
    /// The run that it belongs to.
    pub run: String,
    /// The compose project of the task.
    pub project: String,
    /// The task.
    pub task: String,
    /// The target's name; empty where the task has none.
    pub target: String,
    /// The target's id.
    pub target_id: String,
    /// 1 for the first.
    pub attempt: i64,
    /// The image as it was named.
    pub image: String,
    /// The image's digest.
    pub image_id: String,
    /// The container.
    pub container: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// The process's exit code.
    pub exit_code: Option<i64>,
    /// Why it failed, where an exit code does not say it all.
    pub error: Option<String>,
    /// Processor time in nanoseconds.
    pub cpu_nanos: Option<i64>,
    /// Bytes of memory at the most.
    pub memory_peak: Option<i64>,
    /// Bytes that it printed.
    pub output_bytes: Option<i64>,
}

const RUN: &str = "id, project, task, slot, cause, pid, started, finished, exit_code, error, undo";
const TRY: &str = "tries.id, run, project, task, target, target_id, attempt, image, image_id, container, tries.started, tries.finished,
    tries.exit_code, tries.error, cpu_nanos, memory_peak, output_bytes";

impl History {
    /// Runs, newest first.
    ///
    /// # Errors
    /// The database refused.
    pub fn runs(&self, key: Option<&Key>, limit: u32) -> Result<Vec<RunRow>> {
        let (all, project, task) = parts(key);
        self.select(
            &format!("SELECT {RUN} FROM runs WHERE ?1 OR project = ?2 AND task = ?3 ORDER BY started DESC, rowid DESC LIMIT ?4"),
            params![all, project, task, limit],
            run,
        )
    }

    /// Runs that have not ended, oldest first.
    ///
    /// # Errors
    /// The database refused.
    pub fn unfinished(&self) -> Result<Vec<RunRow>> {
        self.select(&format!("SELECT {RUN} FROM runs WHERE finished IS NULL ORDER BY started"), [], run)
    }

    /// One run, by its id or the beginning of it.
    ///
    /// # Errors
    /// The database refused.
    pub fn run(&self, id: &str) -> Result<Option<RunRow>> {
        let rows = self.select(
            &format!("SELECT {RUN} FROM runs WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2"),
            params![id],
            run,
        )?;
        Ok(if rows.len() == 1 { rows.into_iter().next() } else { None })
    }

    /// Tries of a task or of all, newest first.
    ///
    /// # Errors
    /// The database refused.
    pub fn tries(&self, key: Option<&Key>, limit: u32) -> Result<Vec<TryRow>> {
        let (all, project, task) = parts(key);
        self.select(
            &format!(
                "SELECT {TRY} FROM tries JOIN runs ON runs.id = run WHERE ?1 OR project = ?2 AND task = ?3
                 ORDER BY tries.id DESC LIMIT ?4"
            ),
            params![all, project, task, limit],
            attempt,
        )
    }

    /// Tries of one run, in order.
    ///
    /// # Errors
    /// The database refused.
    pub fn tries_of(&self, run: &str) -> Result<Vec<TryRow>> {
        self.select(
            &format!("SELECT {TRY} FROM tries JOIN runs ON runs.id = run WHERE run = ?1 ORDER BY tries.id"),
            params![run],
            attempt,
        )
    }

    /// What a try printed: pieces with their stream (1 stdout, 2 stderr, 0 a note of ours).
    ///
    /// # Errors
    /// The database refused.
    pub fn output(&self, id: i64) -> Result<Vec<(u8, Vec<u8>)>> {
        let rows = self.select("SELECT output FROM tries WHERE id = ?1", params![id], |row| {
            row.get::<_, Option<Vec<u8>>>(0)
        })?;
        Ok(rows.into_iter().next().flatten().map(|bytes| output::unpack(&bytes)).unwrap_or_default())
    }

    pub(crate) fn select<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.db.prepare_cached(sql).context(|| "read")?;
        let rows = statement.query_map(values, read).context(|| "read")?;
        rows.collect::<rusqlite::Result<_>>().context(|| "read")
    }
}

fn parts(key: Option<&Key>) -> (bool, &str, &str) {
    key.map_or((true, "", ""), |key| (false, &key.project, &key.task))
}

fn run(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: row.get(0)?,
        project: row.get(1)?,
        task: row.get(2)?,
        slot: row.get::<_, Option<i64>>(3)?.map(time),
        cause: row.get(4)?,
        pid: row.get(5)?,
        started: time(row.get(6)?),
        finished: row.get::<_, Option<i64>>(7)?.map(time),
        exit_code: row.get(8)?,
        error: row.get(9)?,
        undo: row.get(10)?,
    })
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<TryRow> {
    Ok(TryRow {
        id: row.get(0)?,
        run: row.get(1)?,
        project: row.get(2)?,
        task: row.get(3)?,
        target: row.get(4)?,
        target_id: row.get(5)?,
        attempt: row.get(6)?,
        image: row.get(7)?,
        image_id: row.get(8)?,
        container: row.get(9)?,
        started: time(row.get(10)?),
        finished: row.get::<_, Option<i64>>(11)?.map(time),
        exit_code: row.get(12)?,
        error: row.get(13)?,
        cpu_nanos: row.get(14)?,
        memory_peak: row.get(15)?,
        output_bytes: row.get(16)?,
    })
}
