//! Which backups go. Pure.

use super::Taken;
use crate::definition::BackupKeep;
use jiff::Timestamp;

/// The backups that `keep` does not keep, of one target's (the newest first). Where they are verified, the last one that was and
/// whatever is newer always stay; so does everything as long as none was.
pub fn doomed<'a>(own: &'a [Taken], keep: &BackupKeep, verifies: bool, now: Timestamp) -> Vec<&'a Taken> {
    let last = if verifies {
        match own.iter().position(|taken| taken.verified.is_some()) {
            Some(last) => last,
            None => return Vec::new(),
        }
    } else {
        // The newest stays in any case.
        0
    };
    let oldest = keep.age.and_then(|age| now.checked_sub(jiff::SignedDuration::try_from(age).ok()?).ok());
    let many = usize::try_from(keep.count.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    own.iter()
        .enumerate()
        .skip(last + 1)
        .filter(|(at, taken)| *at >= many || oldest.is_some_and(|oldest| taken.finished < oldest))
        .map(|(_, taken)| taken)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Backups of so many days ago; a `v` is verified.
    fn taken(days: &str) -> Vec<Taken> {
        let one = |text: &str| {
            let at = Timestamp::from_second(
                1_000_000_000 - 86_400 * text.trim_end_matches('v').parse::<i64>().unwrap(),
            )
            .unwrap();
            Taken {
                task: "t".to_owned(),
                run: text.to_owned(),
                target: String::new(),
                image: String::new(),
                started: at,
                finished: at,
                verified: text.ends_with('v').then_some(at),
                encrypted: false,
                files: Vec::new(),
                path: Default::default(),
            }
        };
        days.split_whitespace().map(one).collect()
    }

    #[test]
    fn never_below_the_last_verified_one() {
        let days = |days: u64| Some(Duration::from_secs(86_400 * days));
        for (own, count, age, verifies, want) in [
            ("0v 1v 2v 3v", Some(2), None, true, "2v 3v"),
            ("0 1 2v 3v", Some(2), None, true, "3v"),
            ("0 1 2v 3 4v", Some(1), None, true, "3 4v"),
            ("0 1 2 3", Some(1), None, true, ""),
            ("0 1 2 3", Some(1), None, false, "1 2 3"),
            ("0v 1v 9v", None, days(7), true, "9v"),
            ("8v 9v", None, days(7), true, "9v"),
            ("8 9", None, days(7), false, "9"),
            ("0v 1v 2v 9v", Some(3), days(7), true, "9v"),
            ("0v 1v 2v", Some(5), days(1), true, "2v"),
            ("0v 1v", None, None, true, ""),
            ("", Some(1), days(1), true, ""),
        ] {
            let own = taken(own);
            let keep = BackupKeep { count, age };
            let gone = doomed(&own, &keep, verifies, Timestamp::from_second(1_000_000_000).unwrap());
            let gone: Vec<&str> = gone.iter().map(|taken| taken.run.as_str()).collect();
            assert_eq!(gone.join(" "), want, "{own:?} {keep:?}");
        }
    }
}
