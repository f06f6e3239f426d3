//! Starts tasks when they are due. It only keeps time: each run is a process of its own, so that a scheduler that is killed takes
//! no run with it, and one that starts again finds in the history what was handled.
//!
//! One scheduler a root runs at a time (lock `scheduler`); others wait to take over. A slot is run once whatever dies when: the
//! run notes its slot before it does anything, and the scheduler notes the slot as handled after it started the run.

use crate::definition::{Definition, Keep};
use crate::error::Result;
use crate::history::{History, Key, Unrun};
use crate::home::Home;
use crate::schedule::{Due, Policy, Schedule, due};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often the clock and the definitions are looked at, at least.
const LOOK: Duration = Duration::from_secs(1);
/// Runs at the same time; further ones wait.
const MOST_RUNNING: usize = 64;
/// Bytes of what a run that did not begin said.
const SAID_BYTES: u64 = 8 * 1024;

/// A task with a schedule.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The task.
    pub key: Key,
    /// When.
    pub schedule: Schedule,
    /// What becomes of missed slots.
    pub policy: Policy,
    /// How much of the history stays.
    pub keep: Keep,
}

/// Where tasks come from and how they are started.
pub struct Source<'a> {
    /// Tells whether [`Source::load`] would answer differently.
    pub stamp: &'a dyn Fn() -> u64,
    /// All tasks with schedules.
    pub load: &'a dyn Fn() -> Vec<Planned>,
    /// The command that runs a task for a slot. Its stderr is read.
    pub command: &'a dyn Fn(&Key, Timestamp) -> Command,
    /// Says what a person should know.
    pub say: &'a dyn Fn(String),
}

/// Runs schedules until `stop` becomes true.
///
/// # Errors
/// The history does not work.
pub async fn serve(home: &Home, source: &Source<'_>, mut stop: watch::Receiver<bool>) -> Result<()> {
    let Some(_only) = home.wait_lock_unless("scheduler", &stop).await? else { return Ok(()) };
    let mut clock = Clock::new(History::open(&home.history())?);
    let mut running: JoinSet<(Key, Timestamp, Option<String>)> = JoinSet::new();
    let mut waiting: VecDeque<(Key, Timestamp)> = VecDeque::new();
    let (mut stamp, mut last) = (None, Timestamp::now());
    loop {
        let now = Timestamp::now();
        let fresh = (source.stamp)();
        if stamp != Some(fresh) || now < last {
            clock.load((source.load)(), now)?;
            stamp = Some(fresh);
        }
        last = now;
        while let Some((key, due)) = clock.step(now)? {
            if let Some(slot) = due.skipped {
                clock.missed(&key, slot, now)?;
            }
            if let Some(slot) = due.run {
                waiting.push_back((key, slot));
            }
        }
        while running.len() < MOST_RUNNING
            && let Some((key, slot)) = waiting.pop_front()
        {
            match (source.command)(&key, slot).spawn() {
                Ok(child) => {
                    running.spawn(watch_over(child, key.clone(), slot));
                }
                Err(error) => clock.failed(&key, slot, &format!("start: {error}"))?,
            }
            client::failpoint!("task: slot started");
            clock.history.set_handled(&key, slot)?;
        }
        let pause = clock.wake().map_or(LOOK, |wake| until(wake, Timestamp::now()).min(LOOK));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(Ok((key, slot, said))) = running.join_next(), if !running.is_empty() => {
                if let Some(said) = said {
                    (source.say)(format!("task {key}: {said}"));
                    clock.failed(&key, slot, &said)?;
                }
            }
            // True, or nobody is left who could say so.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

fn until(wake: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(wake.duration_since(now)).unwrap_or_default()
}

/// Waits for a run's process; what it said where it failed.
async fn watch_over(mut child: Child, key: Key, slot: Timestamp) -> (Key, Timestamp, Option<String>) {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut limited = stderr.take(SAID_BYTES);
        let _ = limited.read_to_end(&mut said).await;
        // The rest is read, so that the process never waits for us.
        let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
    }
    let failed = match child.wait().await {
        Ok(status) if status.success() => None,
        Ok(status) => {
            let text = String::from_utf8_lossy(&said).trim().to_owned();
            Some(if text.is_empty() { status.to_string() } else { text })
        }
        Err(error) => Some(error.to_string()),
    };
    (key, slot, failed)
}

/// Tasks by when to look at them.
struct Clock {
    history: History,
    tasks: HashMap<Key, (Planned, Timestamp)>,
    queue: BinaryHeap<Reverse<(Timestamp, Key)>>,
}

impl Clock {
    fn new(history: History) -> Self {
        Self { history, tasks: HashMap::new(), queue: BinaryHeap::new() }
    }

    /// Takes the tasks that there are now. One that is known goes on where it is, one that the history knows where the last
    /// scheduler left it: what passed since then was missed. For a new one, or a new schedule, nothing was.
    fn load(&mut self, tasks: Vec<Planned>, now: Timestamp) -> Result<()> {
        let mut known = std::mem::take(&mut self.tasks);
        self.queue.clear();
        for task in tasks {
            let handled = match (known.remove(&task.key), self.history.state(&task.key)?) {
                (Some((old, handled)), Some(_)) if old.schedule == task.schedule => handled,
                (None, Some(state)) => state.handled,
                _ => {
                    self.history.set_handled(&task.key, now)?;
                    now
                }
            };
            self.queue.push(Reverse((now, task.key.clone())));
            self.tasks.insert(task.key.clone(), (task, handled));
        }
        Ok(())
    }

    fn wake(&self) -> Option<Timestamp> {
        self.queue.peek().map(|Reverse((wake, _))| *wake)
    }

    /// The next task that is to be looked at by now, and what is to be done with it.
    fn step(&mut self, now: Timestamp) -> Result<Option<(Key, Due)>> {
        while let Some(Reverse((wake, _))) = self.queue.peek()
            && *wake <= now
        {
            let Some(Reverse((_, key))) = self.queue.pop() else { break };
            let Some((task, handled)) = self.tasks.get_mut(&key) else { continue };
            let state = self.history.state(&key)?;
            let paused = state.is_some_and(|state| state.paused);
            // What waits to be started is handled, though the history does not say so yet.
            let seen = state.map_or(*handled, |state| {
                if state.handled > now { state.handled } else { state.handled.max(*handled) }
            });
            let decided =
                due(&task.schedule, &key.to_string(), task.policy, if paused { now } else { seen }, now);
            *handled = if paused { *handled } else { decided.handled };
            if !paused && state.is_some_and(|state| state.handled > decided.handled) {
                // The clock was set back: the time until then counts again.
                self.history.set_handled(&key, decided.handled)?;
            }
            if let Some(wake) = decided.wake {
                self.queue.push(Reverse((wake, key.clone())));
            }
            if decided.run.is_some() || decided.skipped.is_some() {
                return Ok(Some((key, decided)));
            }
        }
        Ok(None)
    }

    fn missed(&self, key: &Key, slot: Timestamp, now: Timestamp) -> Result<()> {
        self.note(key, slot, 1, "skipped: missed while no scheduler ran", now)?;
        self.history.set_handled(key, slot)
    }

    /// A run that failed before it could note itself.
    fn failed(&self, key: &Key, slot: Timestamp, said: &str) -> Result<()> {
        self.note(key, slot, crate::run::NOT_RUN, said, Timestamp::now())
    }

    fn note(&self, key: &Key, slot: Timestamp, code: u8, error: &str, now: Timestamp) -> Result<()> {
        // A task that is forgotten by now keeps what any would.
        let keep = self.tasks.get(key).map_or_else(|| Definition::default().keep, |(task, _)| task.keep);
        let unrun = Unrun { slot, cause: "schedule", exit_code: i64::from(code), error };
        self.history.note_unrun(key, &keep, unrun, now).map(|_| ())
    }
}

/// The state of directories and files, in one number.
pub fn stamp(paths: &[std::path::PathBuf]) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    use std::os::unix::fs::MetadataExt as _;
    let mut hasher = DefaultHasher::new();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(meta) => (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()).hash(&mut hasher),
            Err(_) => 0.hash(&mut hasher),
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Missed;

    struct Dir(std::path::PathBuf);
    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("cauldron-scheduler-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
        /// A scheduler that starts.
        fn clock(&self) -> Clock {
            Clock::new(History::open(&self.0.join("history.db")).unwrap())
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    fn planned(schedule: &str, policy: Policy) -> Vec<Planned> {
        let schedule = Schedule::parse(schedule, "UTC").unwrap();
        let keep = Definition::default().keep;
        vec![Planned { key: Key { project: String::new(), task: "t".to_owned() }, schedule, policy, keep }]
    }

    /// What is run and what is given up by a time, noted as the loop does it.
    fn passes(clock: &mut Clock, now: &str) -> (Vec<Timestamp>, Vec<Timestamp>) {
        let (mut run, mut skipped) = (Vec::new(), Vec::new());
        while let Some((key, due)) = clock.step(at(now)).unwrap() {
            for slot in [due.run, due.skipped].into_iter().flatten() {
                clock.history.set_handled(&key, slot).unwrap();
            }
            run.extend(due.run);
            skipped.extend(due.skipped);
        }
        (run, skipped)
    }

    const ONCE: Policy = Policy { missed: Missed::Once, deadline: None };

    #[test]
    fn what_a_downtime_missed_is_caught_up() {
        let skip = Policy { missed: Missed::Skip, deadline: None };
        let hour = Policy { missed: Missed::Once, deadline: Some(Duration::from_secs(3600)) };
        let slot = vec![at("27T03:00")];
        for (number, (policy, start, want)) in [
            (ONCE, "27T09:00", (slot.clone(), vec![])),
            (skip, "27T09:00", (vec![], slot.clone())),
            (hour, "27T09:00", (vec![], slot.clone())),
            (hour, "27T03:50", (slot.clone(), vec![])),
        ]
        .into_iter()
        .enumerate()
        {
            let dir = Dir::new(&format!("downtime-{number}"));
            let mut clock = dir.clock();
            clock.load(planned("0 3 * * *", policy), at("24T02:00")).unwrap();
            assert_eq!(passes(&mut clock, "24T02:00"), (vec![], vec![]), "a new task has missed nothing");
            assert_eq!(passes(&mut clock, "24T03:00").0, [at("24T03:00")]);
            drop(clock);
            let mut clock = dir.clock();
            clock.load(planned("0 3 * * *", policy), at(start)).unwrap();
            assert_eq!(passes(&mut clock, start), want, "{policy:?} {start}");
            assert_eq!(passes(&mut clock, "27T10:00"), (vec![], vec![]));
        }
    }

    #[test]
    fn definitions_are_read_again() {
        let dir = Dir::new("reload");
        let mut clock = dir.clock();
        clock.load(planned("0 3 * * *", ONCE), at("24T02:00")).unwrap();
        // The slot waits to be started when the definitions change: it is not run once more, nor is a later one lost.
        assert!(clock.step(at("24T03:00")).unwrap().is_some());
        clock.load(planned("0 3 * * *", ONCE), at("24T03:00")).unwrap();
        assert_eq!(passes(&mut clock, "24T03:00"), (vec![], vec![]));
        clock.load(planned("0 3 * * *", ONCE), at("25T03:00")).unwrap();
        assert_eq!(passes(&mut clock, "25T03:00").0, [at("25T03:00")]);
        // What another schedule would have done is not caught up.
        clock.load(planned("0 5 * * *", ONCE), at("25T09:00")).unwrap();
        assert_eq!(passes(&mut clock, "25T09:00"), (vec![], vec![]));
    }

    #[test]
    fn a_clock_that_is_set_back() {
        let dir = Dir::new("back");
        let mut clock = dir.clock();
        clock.load(planned("* * * * *", ONCE), at("26T12:00")).unwrap();
        assert_eq!(passes(&mut clock, "26T12:01").0, [at("26T12:01")]);
        clock.load(planned("* * * * *", ONCE), at("24T08:00")).unwrap();
        assert_eq!(passes(&mut clock, "24T08:00"), (vec![], vec![]));
        assert_eq!(passes(&mut clock, "24T08:01").0, [at("24T08:01")]);
    }

    /// The clock on the wall is looked at every ten minutes over both changes of a year, then jumps.
    #[test]
    fn daylight_saving_and_a_clock_that_jumps() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        for (from, till, want) in [
            // 02:30 is not there: the end of the gap.
            (
                "2026-03-28T12:00:00Z",
                "2026-03-30T12:00:00Z",
                &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            ),
            // 02:30 is there twice: the first.
            (
                "2026-10-24T12:00:00Z",
                "2026-10-26T12:00:00Z",
                &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            ),
        ] {
            let dir = Dir::new(&from[..10]);
            let mut clock = dir.clock();
            let mut tasks = planned("30 2 * * *", ONCE);
            tasks[0].schedule = Schedule::parse("30 2 * * *", "Europe/Berlin").unwrap();
            let (mut now, mut ran) = (time(from), Vec::new());
            clock.load(tasks, now).unwrap();
            let mut look = |clock: &mut Clock, now: Timestamp| {
                while let Some((key, due)) = clock.step(now).unwrap() {
                    for slot in [due.run, due.skipped].into_iter().flatten() {
                        clock.history.set_handled(&key, slot).unwrap();
                    }
                    ran.extend(due.run);
                }
            };
            while now <= time(till) {
                look(&mut clock, now);
                now += jiff::SignedDuration::from_mins(10);
            }
            // Three days at once: what was missed is caught up once.
            look(&mut clock, now + jiff::SignedDuration::from_hours(72));
            assert_eq!(ran[..2], want.map(time), "{from}");
            assert_eq!(ran.len(), 3, "{from}: {ran:?}");
        }
    }
}
