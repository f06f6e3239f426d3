//! Stages that need nothing of each other are built side by side.
//!
//! What they say is not mixed: the first unfinished stage, in the plan's order, speaks as it goes, and the others' words
//! are kept until it is their turn. When a stage fails, the steps of the others are killed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use model::state::Live;
use model::{Error, Kind, Result};

use super::{Build, Builder, Built, Failed, Message, Report};

/// Stages that are built at the same time, at most.
const WORKERS: usize = 8;
/// Bytes of output that are kept of a stage whose turn has not come. The oldest go first.
const KEPT: usize = 1 << 20;

/// Stages that wait, and what came of the others.
struct Work {
    waiting: VecDeque<usize>,
    failed: Option<Failed>,
}

impl Build<'_> {
    /// Builds every stage of the plan.
    pub(super) fn solve(&self, report: Report<'_>) -> Built<()> {
        let order = &self.plan.order;
        let workers = self.plan.width().min(WORKERS);
        let chorus = Chorus::new(order, report, self.options.interleave);
        let work = Mutex::new(Work { waiting: order.iter().copied().collect(), failed: None });
        let changed = Condvar::new();
        if workers < 2 {
            self.work(&work, &changed, &chorus);
        } else {
            std::thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(|| self.work(&work, &changed, &chorus));
                }
            });
        }
        let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
        work.failed.map_or(Ok(()), Err)
    }
    /// Takes stages whose needs are met until there are none, or one has failed.
    fn work(&self, work: &Mutex<Work>, changed: &Condvar, chorus: &Chorus<'_>) {
        let mut held = lock(work);
        loop {
            if held.failed.is_some() {
                return;
            }
            let is_ready =
                |index: &usize| self.plan.needs[*index].iter().all(|&need| self.finished(need).is_ok());
            let Some(place) = held.waiting.iter().position(is_ready) else {
                if held.waiting.is_empty() {
                    return;
                }
                held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(index) = held.waiting.remove(place) else { return };
            drop(held);
            let voice = |message| chorus.say(index, message);
            let built = Builder { build: self, report: &voice, index }.stage();
            held = lock(work);
            let told = chorus.finish(index);
            match built.and_then(|state| Ok(told.map(|()| state)?)) {
                Ok(state) => {
                    let _ = self.states[index].set(state);
                }
                Err(failed) if held.failed.is_none() => {
                    held.failed = Some(failed);
                    chorus.stop();
                    self.cancel.stop();
                }
                // It was stopped for the first one's sake.
                Err(_) => {}
            }
            changed.notify_all();
        }
    }
}

/// Stops a build: from another thread, or because one of its stages has failed.
#[derive(Debug)]
pub struct Cancel(Mutex<Option<Vec<Live>>>);

impl Default for Cancel {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Cancel {
    /// Kills what runs and lets nothing begin any more. Idempotent.
    pub fn stop(&self) {
        let running = lock(&self.0).take();
        for live in running.into_iter().flatten() {
            // One that has ended by itself needs no signal.
            let _ = runtime::kill(&live, 9);
        }
    }
    /// # Errors
    /// The build was stopped.
    pub(super) fn check(&self) -> Result<()> {
        if lock(&self.0).is_some() { Ok(()) } else { Err(stopped()) }
    }
    /// Registers a step's container while it runs.
    ///
    /// # Errors
    /// The build was stopped: the container is killed.
    pub(super) fn watch(&self, live: &Live) -> Result<()> {
        match &mut *lock(&self.0) {
            Some(running) => {
                running.push(live.clone());
                Ok(())
            }
            None => {
                let _ = runtime::kill(live, 9);
                Err(stopped())
            }
        }
    }
    /// The step's container is over.
    ///
    /// # Errors
    /// The build was stopped, and so probably the container.
    pub(super) fn unwatch(&self, live: &Live) -> Result<()> {
        match &mut *lock(&self.0) {
            Some(running) => {
                running.retain(|other| other.monitor_pid != live.monitor_pid);
                Ok(())
            }
            None => Err(stopped()),
        }
    }
}

fn stopped() -> Error {
    Error::new(Kind::Cancelled, "the build was cancelled")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives each stage its turn to speak.
struct Chorus<'a> {
    report: Report<'a>,
    /// Everybody speaks at once.
    interleave: bool,
    turns: Mutex<Turns>,
}

struct Turns {
    /// Stages that have not had their turn, in order, with what they have said so far.
    left: VecDeque<Turn>,
    stopped: bool,
}

struct Turn {
    stage: usize,
    finished: bool,
    kept: VecDeque<Message>,
    bytes: usize,
    dropped: usize,
}

impl<'a> Chorus<'a> {
    fn new(order: &[usize], report: Report<'a>, interleave: bool) -> Self {
        let turn =
            |&stage: &usize| Turn { stage, finished: false, kept: VecDeque::new(), bytes: 0, dropped: 0 };
        let turns = Turns { left: order.iter().map(turn).collect(), stopped: false };
        Self { report, interleave, turns: Mutex::new(turns) }
    }
    fn say(&self, stage: usize, message: Message) -> Result<()> {
        let mut turns = lock(&self.turns);
        if turns.stopped {
            return Err(stopped());
        }
        if self.interleave || turns.left.front().is_none_or(|first| first.stage == stage) {
            return (self.report)(message);
        }
        if let Some(turn) = turns.left.iter_mut().find(|turn| turn.stage == stage) {
            turn.keep(message);
        }
        Ok(())
    }
    /// A stage is over, one way or the other. Whoever is next speaks.
    fn finish(&self, stage: usize) -> Result<()> {
        let mut turns = lock(&self.turns);
        if let Some(turn) = turns.left.iter_mut().find(|turn| turn.stage == stage) {
            turn.finished = true;
        }
        while turns.left.front().is_some_and(|first| first.finished) {
            if let Some(mut first) = turns.left.pop_front() {
                first.tell(self.report)?;
            }
        }
        match turns.left.front_mut() {
            Some(next) => next.tell(self.report),
            None => Ok(()),
        }
    }
    /// One has failed: it says what it still has to say, the others are silent from now on.
    fn stop(&self) {
        let mut turns = lock(&self.turns);
        turns.stopped = true;
        for turn in turns.left.iter_mut().filter(|turn| turn.finished) {
            // The failure itself is reported by other means.
            let _ = turn.tell(self.report);
        }
    }
}

impl Turn {
    fn keep(&mut self, message: Message) {
        self.bytes += length(&message);
        self.kept.push_back(message);
        while self.bytes > KEPT {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= length(&oldest);
            self.dropped += length(&oldest);
        }
    }
    fn tell(&mut self, report: Report<'_>) -> Result<()> {
        if self.dropped > 0 {
            report(Message::Stream(format!("[{} bytes of output left out]\n", self.dropped)))?;
            self.dropped = 0;
        }
        self.bytes = 0;
        std::mem::take(&mut self.kept).into_iter().try_for_each(report)
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Stream(text) | Message::Warnings(text) => text.len(),
        Message::Step(_, event) => event.length(),
        Message::Pull(_) | Message::Image(_) => 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(script: impl FnOnce(&Chorus<'_>)) -> Vec<String> {
        let heard = Mutex::new(Vec::new());
        let report = |message| {
            if let Message::Stream(text) = message {
                lock(&heard).push(text);
            }
            Ok(())
        };
        script(&Chorus::new(&[3, 1, 2], &report, false));
        heard.into_inner().unwrap()
    }
    fn say(chorus: &Chorus<'_>, stage: usize, text: &str) {
        chorus.say(stage, Message::Stream(text.to_owned())).unwrap();
    }

    #[test]
    fn stages_speak_one_after_the_other() {
        let heard = heard(|chorus| {
            say(chorus, 2, "c1");
            say(chorus, 3, "a1");
            say(chorus, 1, "b1");
            chorus.finish(2).unwrap();
            say(chorus, 3, "a2");
            chorus.finish(3).unwrap();
            say(chorus, 1, "b2");
            chorus.finish(1).unwrap();
        });
        assert_eq!(heard, ["a1", "a2", "b1", "b2", "c1"]);
    }

    #[test]
    fn one_that_failed_is_heard_and_the_others_are_stopped() {
        let heard = heard(|chorus| {
            say(chorus, 1, "why");
            chorus.finish(1).unwrap();
            chorus.stop();
            assert_eq!(chorus.say(3, Message::Stream("late".into())).unwrap_err().kind(), Kind::Cancelled);
        });
        assert_eq!(heard, ["why"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let heard = heard(|chorus| {
            for _ in 0..3 {
                say(chorus, 1, &"x".repeat(KEPT / 2));
            }
            chorus.finish(3).unwrap();
        });
        assert_eq!(heard[0], format!("[{} bytes of output left out]\n", KEPT / 2));
        assert_eq!(heard[1..].iter().map(String::len).collect::<Vec<_>>(), [KEPT / 2, KEPT / 2]);
    }
}
