//! When a task is due. Pure: the clock is passed in.
//!
//! Daylight saving: an expression whose minute or hour begins with `*` follows elapsed time (it runs in both of two equal
//! hours and not in one that does not exist); any other follows the wall's clock: exactly once a matching time, at the
//! first of two equal ones, and at the end of the gap where the time does not exist.

mod cron;
mod due;

use crate::duration;
pub use cron::Cron;
pub use due::{Due, Missed, Policy, due, is_late};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// The shortest `@every`.
const SHORTEST: Duration = Duration::from_secs(1);
/// Changes of a zone's offset that are passed at most on the way to the next slot.
const TRANSITIONS: usize = 400;

/// A schedule: what recurs, where, and how much it is spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    rule: Rule,
    zone: TimeZone,
    /// As it was written.
    pub text: String,
    /// Slots are put off by up to this, differently for each task and slot.
    pub jitter: Duration,
}

/// A schedule in systemd's words (systemd.time(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// `OnUnitActiveSec`.
    Every(Duration),
    /// `OnCalendar`, each of them.
    At(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Cron(Box<Cron>),
    /// At whole multiples of this since 1970: the same after a restart.
    Every(Duration),
}

impl Schedule {
    /// Reads a cron expression, an `@` word or `@every 4h`. `zone` is an IANA name; empty is the machine's own.
    ///
    /// # Errors
    /// Says what is wrong with the expression or the zone.
    pub fn parse(text: &str, zone: &str) -> Result<Self, String> {
        let rule = match text.trim().strip_prefix("@every") {
            Some(rest) => {
                let every = duration::parse(rest.trim())?;
                if every < SHORTEST {
                    return Err(format!("{text:?} is too often: once a second at most"));
                }
                Rule::Every(every)
            }
            None => Rule::Cron(Box::new(Cron::parse(text)?)),
        };
        Ok(Self { rule, zone: time_zone(zone)?, text: text.trim().to_owned(), jitter: Duration::ZERO })
    }

    /// The first slot after a point in time.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(every) => multiple(after, *every),
            Rule::Cron(cron) if cron.wild() => self.next_elapsed(cron, after),
            Rule::Cron(cron) => self.next_on_the_wall(cron, after),
        }
    }

    /// When a slot's run begins: the slot and its share of the jitter.
    pub fn start(&self, task: &str, slot: Timestamp) -> Timestamp {
        let limit = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        if limit == 0 {
            return slot;
        }
        let hash =
            Sha256::new().chain_update(task).chain_update([0]).chain_update(slot.to_string()).finalize();
        let seed = hash.iter().take(8).fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
        let offset = i64::try_from(seed % (limit + 1)).unwrap_or(0);
        slot.checked_add(SignedDuration::from_millis(offset)).unwrap_or(slot)
    }

    /// As systemd writes it.
    pub fn calendar(&self) -> Calendar {
        match &self.rule {
            Rule::Every(every) => Calendar::Every(*every),
            Rule::Cron(cron) => {
                let zone = self.zone.iana_name().map(|name| format!(" {name}")).unwrap_or_default();
                Calendar::At(cron.calendar().into_iter().map(|line| format!("{line}{zone}")).collect())
            }
        }
    }

    /// Civil time and elapsed time agree between two changes of the offset.
    fn next_elapsed(&self, cron: &Cron, after: Timestamp) -> Option<Timestamp> {
        let mut from = after;
        let mut changes = self.zone.following(after);
        for _ in 0..TRANSITIONS {
            let offset = self.zone.to_offset(from);
            let change = changes.next().map(|change| change.timestamp());
            let found =
                cron.after(offset.to_datetime(from)).and_then(|civil| offset.to_timestamp(civil).ok());
            match (found, change) {
                (Some(found), Some(change)) if found >= change => {}
                (found, _) => return found,
            }
            // The change's own instant may match: look from just before it.
            from = change?;
            let offset = self.zone.to_offset(from);
            let before = offset.to_datetime(from).checked_sub(SignedDuration::from_secs(1)).ok()?;
            let at_change = cron.after(before).and_then(|civil| offset.to_timestamp(civil).ok());
            if at_change == Some(from) {
                return at_change;
            }
        }
        None
    }

    fn next_on_the_wall(&self, cron: &Cron, after: Timestamp) -> Option<Timestamp> {
        let mut civil = self.zone.to_datetime(after);
        loop {
            civil = cron.after(civil)?;
            let ambiguous = self.zone.to_ambiguous_timestamp(civil);
            let at = match ambiguous.offset() {
                AmbiguousOffset::Gap { before, .. } => {
                    let within = before.to_timestamp(civil).ok()?;
                    self.zone
                        .preceding(within.checked_add(SignedDuration::from_nanos(1)).ok()?)
                        .next()?
                        .timestamp()
                }
                _ => ambiguous.compatible().ok()?,
            };
            if at > after {
                return Some(at);
            }
        }
    }

    /// The last slot in `(after, now]`.
    fn last(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if let Rule::Every(every) = &self.rule {
            let next = multiple(now, *every)?;
            let last = next.checked_sub(SignedDuration::try_from(*every).ok()?).ok()?;
            return Some(last).filter(|last| *last > after);
        }
        // Look back further and further, so that a year of downtime costs no more than a minute's.
        for minutes in [1, 60, 60 * 24, 60 * 24 * 32, 60 * 24 * 367, 60 * 24 * 367 * 9] {
            let floor = now
                .checked_sub(SignedDuration::from_mins(minutes))
                .ok()
                .map_or(after, |floor| floor.max(after));
            let mut found = None;
            let mut at = floor;
            while let Some(next) = self.next(at).filter(|next| *next <= now) {
                found = Some(next);
                at = next;
            }
            if found.is_some() || floor == after {
                return found;
            }
        }
        None
    }
}

/// The first whole multiple of `every` since 1970 after a point in time.
fn multiple(after: Timestamp, every: Duration) -> Option<Timestamp> {
    let every = i128::try_from(every.as_nanos()).ok()?;
    let slot = (after.as_nanosecond().div_euclid(every) + 1).checked_mul(every)?;
    Timestamp::from_nanosecond(slot).ok()
}

/// A time zone by its IANA name; empty or `local` is the machine's.
///
/// # Errors
/// There is no such zone.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "local" => Ok(TimeZone::system()),
        name => TimeZone::get(name)
            .map_err(|_| format!("{name:?} is not a time zone: use a name such as Europe/Berlin or UTC")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }
    fn slots(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let mut from = at(after);
        (0..count)
            .map(|_| {
                from = schedule.next(from).unwrap();
                from.to_string()
            })
            .collect()
    }

    /// Berlin: 2026-03-29 02:00 becomes 03:00 (01:00Z); 2026-10-25 03:00 becomes 02:00 (01:00Z).
    #[test]
    fn spring() {
        let after = "2026-03-28T12:00:00Z";
        assert_eq!(
            slots("30 2 * * *", "Europe/Berlin", after, 3),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
        );
        assert_eq!(
            slots("0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]
        );
        assert_eq!(
            slots("0 3 * * *", "Europe/Berlin", after, 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]
        );
        assert_eq!(
            slots("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:20:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
        );
        assert_eq!(
            slots("15 * * * *", "Europe/Berlin", "2026-03-29T00:20:00Z", 2),
            ["2026-03-29T01:15:00Z", "2026-03-29T02:15:00Z"]
        );
        // No minute of the hour that is not there.
        assert_eq!(slots("* 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 1), ["2026-03-30T00:00:00Z"]);
        assert_eq!(
            slots("0 0 * * *", "America/New_York", "2026-03-08T00:00:00Z", 2),
            ["2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"]
        );
    }

    #[test]
    fn autumn() {
        assert_eq!(
            slots("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // Between the two, and within the second: not again.
        assert_eq!(slots("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", 1), ["2026-10-26T01:30:00Z"]);
        assert_eq!(slots("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["2026-10-26T01:30:00Z"]);
        assert_eq!(
            slots("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
        assert_eq!(
            slots("0 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", 2),
            ["2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]
        );
        assert_eq!(
            slots("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T02:00:00Z", "2026-10-26T02:00:00Z"]
        );
    }

    #[test]
    fn half_an_hour_of_daylight_saving() {
        // Lord Howe: 2026-04-05 02:00 becomes 01:30 (2026-04-04T15:00Z); 2026-10-04 02:00 becomes 02:30 (2026-10-03T15:30Z).
        assert_eq!(
            slots("*/15 * * * *", "Australia/Lord_Howe", "2026-10-03T15:20:00Z", 2),
            ["2026-10-03T15:30:00Z", "2026-10-03T15:45:00Z"]
        );
        assert_eq!(
            slots("10 2 * * *", "Australia/Lord_Howe", "2026-10-03T10:00:00Z", 1),
            ["2026-10-03T15:30:00Z"]
        );
        assert_eq!(
            slots("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2),
            ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]
        );
    }

    #[test]
    fn every() {
        assert_eq!(
            slots("@every 4h", "", "2026-03-29T00:30:00Z", 2),
            ["2026-03-29T04:00:00Z", "2026-03-29T08:00:00Z"]
        );
        assert_eq!(
            slots("@every 90s", "UTC", "1970-01-01T00:00:00Z", 2),
            ["1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"]
        );
        assert!(Schedule::parse("@every 10ms", "").is_err() && Schedule::parse("@every", "").is_err());
        assert!(Schedule::parse("0 0 * * *", "Mars/Olympus").is_err());
    }

    #[test]
    fn jitter_is_the_same_for_a_slot_and_spreads_tasks() {
        let mut schedule = Schedule::parse("0 3 * * *", "UTC").unwrap();
        schedule.jitter = Duration::from_secs(300);
        let slot = at("2026-11-24T03:00:00Z");
        assert_eq!(schedule.start("backup", slot), schedule.start("backup", slot));
        let starts: std::collections::BTreeSet<Timestamp> =
            (0..200).map(|number| schedule.start(&format!("task{number}"), slot)).collect();
        assert!(starts.len() > 190, "{}", starts.len());
        let latest = slot.checked_add(SignedDuration::from_secs(300)).unwrap();
        assert!(starts.iter().all(|start| (slot..=latest).contains(start)));
    }
}
