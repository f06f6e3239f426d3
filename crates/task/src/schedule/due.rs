//! What a scheduler does at a moment, given what was handled last: pure, so that downtime and clock jumps are tables.

use super::Schedule;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A start later than this after its time is a missed one.
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// A clock that is set back by more than this makes the past count again.
const SET_BACK: SignedDuration = SignedDuration::from_secs(60);

/// What becomes of slots that passed while nobody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// One run, however many were missed.
    #[default]
    Once,
    /// None.
    Skip,
}

/// How missed slots are treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Once or not at all.
    pub missed: Missed,
    /// No catching up later than this after the slot.
    pub deadline: Option<Duration>,
}

/// The scheduler's next step for one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The slot to run now.
    pub run: Option<Timestamp>,
    /// The latest slot that is given up.
    pub skipped: Option<Timestamp>,
    /// Everything up to here is handled: to be passed in as `handled` next time.
    pub handled: Timestamp,
    /// When to look again; `None`: never.
    pub wake: Option<Timestamp>,
}

/// Whether a start at `now` comes later than its slot's time allows.
pub fn is_late(schedule: &Schedule, task: &str, slot: Timestamp, now: Timestamp) -> bool {
    now.duration_since(schedule.start(task, slot)) > LATE
}

/// Decides. `handled` is the last slot that was run or given up, or when the task was enabled or resumed.
pub fn due(schedule: &Schedule, task: &str, policy: Policy, handled: Timestamp, now: Timestamp) -> Due {
    // The clock was set back: what is in the future cannot have been handled.
    let handled = if handled.duration_since(now) > SET_BACK + jitter(schedule) { now } else { handled };
    let mut due = Due { run: None, skipped: None, handled, wake: None };
    if let Some(latest) = schedule.last(handled, now) {
        // The latest slot stands for those before it; while it is put off by jitter, the first one may be due already.
        let first = schedule.next(handled).unwrap_or(latest);
        let starts = [latest, first].map(|slot| (schedule.start(task, slot), slot));
        let Some((start, slot)) = starts.into_iter().find(|(start, _)| *start <= now) else {
            due.wake = starts.into_iter().map(|(start, _)| start).min();
            return due;
        };
        due.handled = slot;
        let overdue = policy.deadline.is_some_and(|deadline| {
            now.duration_since(start) > SignedDuration::try_from(deadline).unwrap_or(SignedDuration::MAX)
        });
        if is_late(schedule, task, slot, now) && (policy.missed == Missed::Skip || overdue) {
            due.skipped = Some(slot);
        } else {
            due.run = Some(slot);
        }
        if slot != latest {
            due.wake = Some(schedule.start(task, latest));
            return due;
        }
    }
    due.wake = schedule.next(now.max(due.handled)).map(|slot| schedule.start(task, slot));
    due
}

fn jitter(schedule: &Schedule) -> SignedDuration {
    SignedDuration::try_from(schedule.jitter).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn step(
        schedule: &str,
        policy: Policy,
        handled: &str,
        now: &str,
    ) -> (Option<String>, Option<String>, String) {
        let schedule = Schedule::parse(schedule, "UTC").unwrap();
        let due = due(&schedule, "t", policy, at(handled), at(now));
        let text = |slot: Option<Timestamp>| slot.map(|slot| slot.to_string());
        (text(due.run), text(due.skipped), text(due.wake).unwrap())
    }

    const ONCE: Policy = Policy { missed: Missed::Once, deadline: None };
    const SKIP: Policy = Policy { missed: Missed::Skip, deadline: None };
    const HOUR: Policy = Policy { missed: Missed::Once, deadline: Some(Duration::from_secs(3600)) };

    #[test]
    fn decisions() {
        let s = |text: &str| Some(text.to_owned());
        for (policy, handled, now, run, skipped, wake) in [
            // Nothing yet.
            (ONCE, "2026-11-24T03:00:00Z", "2026-11-24T12:00:00Z", None, None, "2026-11-25T03:00:00Z"),
            // On time.
            (
                ONCE,
                "2026-11-24T03:00:00Z",
                "2026-11-25T03:00:00.2Z",
                s("2026-11-25T03:00:00Z"),
                None,
                "2026-11-26T03:00:00Z",
            ),
            (
                SKIP,
                "2026-11-24T03:00:00Z",
                "2026-11-25T03:00:30Z",
                s("2026-11-25T03:00:00Z"),
                None,
                "2026-11-26T03:00:00Z",
            ),
            // Three days of downtime: once, or not at all.
            (
                ONCE,
                "2026-11-24T03:00:00Z",
                "2026-11-27T09:00:00Z",
                s("2026-11-27T03:00:00Z"),
                None,
                "2026-11-28T03:00:00Z",
            ),
            (
                SKIP,
                "2026-11-24T03:00:00Z",
                "2026-11-27T09:00:00Z",
                None,
                s("2026-11-27T03:00:00Z"),
                "2026-11-28T03:00:00Z",
            ),
            // The deadline for catching up.
            (
                HOUR,
                "2026-11-24T03:00:00Z",
                "2026-11-27T03:50:00Z",
                s("2026-11-27T03:00:00Z"),
                None,
                "2026-11-28T03:00:00Z",
            ),
            (
                HOUR,
                "2026-11-24T03:00:00Z",
                "2026-11-27T09:00:00Z",
                None,
                s("2026-11-27T03:00:00Z"),
                "2026-11-28T03:00:00Z",
            ),
            // Ten years of downtime.
            (
                ONCE,
                "2016-11-24T03:00:00Z",
                "2026-11-27T02:00:00Z",
                s("2026-11-26T03:00:00Z"),
                None,
                "2026-11-27T03:00:00Z",
            ),
            // The clock was set back by two days.
            (ONCE, "2026-11-27T03:00:00Z", "2026-11-25T02:00:00Z", None, None, "2026-11-25T03:00:00Z"),
            // Set back by a little: no second run.
            (ONCE, "2026-11-25T03:00:00Z", "2026-11-25T02:59:30Z", None, None, "2026-11-26T03:00:00Z"),
        ] {
            assert_eq!(
                step("0 3 * * *", policy, handled, now),
                (run, skipped, wake.to_owned()),
                "{handled} {now}"
            );
        }
    }

    #[test]
    fn frequent() {
        let (run, _, wake) = step("*/5 * * * * *", ONCE, "2026-01-01T00:00:00Z", "2026-11-24T12:00:03Z");
        assert_eq!((run.as_deref(), wake.as_str()), (Some("2026-11-24T12:00:00Z"), "2026-11-24T12:00:05Z"));
        let (run, _, wake) = step("@every 1s", ONCE, "2020-01-01T00:00:00Z", "2026-11-24T12:00:03.5Z");
        assert_eq!((run.as_deref(), wake.as_str()), (Some("2026-11-24T12:00:03Z"), "2026-11-24T12:00:04Z"));
    }

    #[test]
    fn put_off_by_jitter() {
        let mut schedule = Schedule::parse("0 3 * * *", "UTC").unwrap();
        schedule.jitter = Duration::from_secs(300);
        let (handled, slot) = (at("2026-11-24T03:00:00Z"), at("2026-11-25T03:00:00Z"));
        let start = schedule.start("t", slot);
        assert!(start > slot);
        let early = due(&schedule, "t", ONCE, handled, slot);
        assert_eq!((early.run, early.wake), (None, Some(start)));
        assert_eq!(due(&schedule, "t", ONCE, handled, start).run, Some(slot));
    }

    #[test]
    fn more_jitter_than_time_between_slots() {
        let mut schedule = Schedule::parse("@every 1m", "UTC").unwrap();
        schedule.jitter = Duration::from_secs(300);
        let (mut handled, mut now, mut runs) = (at("2026-11-24T03:00:00Z"), at("2026-11-24T03:00:00Z"), 0);
        let end = at("2026-11-24T05:00:00Z");
        while now < end {
            let due = due(&schedule, "t", ONCE, handled, now);
            runs += usize::from(due.run.is_some());
            handled = due.handled;
            now = due.wake.unwrap().max(now.checked_add(SignedDuration::from_millis(1)).unwrap());
        }
        assert!((20..=120).contains(&runs), "{runs}");
    }
}
