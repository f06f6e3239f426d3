//! What a health probe's result makes of a container's health. Pure.

use crate::container::Healthcheck;
use crate::state::{Health, Probe};

/// Probes kept.
pub const PROBES: usize = 5;
/// Bytes of output kept of one probe.
pub const OUTPUT_BYTES: usize = 4096;

/// Takes a probe's result into account. `since_start` is the probe's start in nanoseconds after the container's.
/// Returns whether the status changed.
pub fn record(health: &mut Health, check: &Healthcheck, probe: Probe, since_start: i64) -> bool {
    let before = health.status.clone();
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        health.status = "healthy".to_owned();
    } else if before != "starting" || since_start >= check.start_period {
        health.failing_streak = health.failing_streak.saturating_add(1);
        if i64::from(health.failing_streak) >= check.retries.max(1) {
            health.status = "unhealthy".to_owned();
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(PROBES);
    health.log.drain(..surplus);
    health.status != before
}

/// Nanoseconds until the next probe.
pub fn next_interval(health: &Health, check: &Healthcheck, since_start: i64) -> i64 {
    let starting = health.status == "starting" && since_start < check.start_period;
    let wait = if starting { check.start_interval } else { check.interval };
    wait.max(1_000_000)
}

/// The argument vector of the probe.
pub fn command(check: &Healthcheck) -> Option<Vec<String>> {
    let test = check.test.as_deref()?;
    match test.split_first()? {
        (kind, [script, ..]) if kind == "CMD-SHELL" => {
            Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()])
        }
        (kind, argv) if kind == "CMD" && !argv.is_empty() => Some(argv.to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaks() {
        let check = Healthcheck {
            retries: 2,
            start_period: 100,
            interval: 5_000_000,
            start_interval: 2_000_000,
            ..Healthcheck::default()
        };
        let mut health = Health { status: "starting".into(), ..Health::default() };
        let mut feed = |code, at| {
            let changed = record(&mut health, &check, Probe { exit_code: code, ..Probe::default() }, at);
            (changed, health.status.clone(), health.failing_streak, next_interval(&health, &check, at))
        };
        assert_eq!(feed(1, 10), (false, "starting".into(), 0, 2_000_000));
        assert_eq!(feed(1, 150), (false, "starting".into(), 1, 5_000_000));
        assert_eq!(feed(0, 160), (true, "healthy".into(), 0, 5_000_000));
        assert_eq!(feed(1, 170), (false, "healthy".into(), 1, 5_000_000));
        assert_eq!(feed(1, 180), (true, "unhealthy".into(), 2, 5_000_000));
        assert_eq!(feed(0, 190), (true, "healthy".into(), 0, 5_000_000));
        assert_eq!(health.log.len(), PROBES);
    }
}
