//! Schedules, and when they come due.
#![no_main]

use libfuzzer_sys::fuzz_target;
use task::schedule::Schedule;

fuzz_target!(|text: &str| {
    let (zone, text) = text.split_once('|').unwrap_or(("UTC", text));
    let Ok(schedule) = Schedule::parse(text, zone) else { return };
    let mut at = jiff::Timestamp::from_second(1_795_000_000).expect("a time");
    for _ in 0..8 {
        let Some(next) = schedule.next(at) else { break };
        assert!(next > at, "{text}: {next} is not after {at}");
        let _ = schedule.start("task", next);
        at = next;
    }
    let _ = schedule.calendar();
});
