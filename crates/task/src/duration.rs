//! Durations as people write them: `10s`, `1h30m`, `1.5d`, `2w`. Pure.

use std::time::Duration;

/// The longest one: ten years.
const LONGEST: f64 = 10.0 * 366.0 * 86_400.0;

const UNITS: &[(&str, f64)] = &[
    ("ms", 0.001),
    ("us", 0.000_001),
    ("ns", 0.000_000_001),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
];

/// Reads a duration.
///
/// # Errors
/// It is none, or longer than ten years.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write 10s, 5m, 1h30m, 2d or 1w");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest.get(..end).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
        rest = &rest[end..];
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = &rest[..end];
        rest = &rest[end..];
        match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, size)) => seconds += number * size,
            None if number == 0.0 && unit.is_empty() => {}
            None => return Err(wrong()),
        }
    }
    if seconds > LONGEST {
        return Err(format!("{text:?} is longer than ten years"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// The shortest way to write a duration: `1h30m`.
pub fn show(duration: Duration) -> String {
    let total = duration.as_secs();
    if total == 0 {
        return match duration.as_millis() {
            0 => "0s".to_owned(),
            millis => format!("{millis}ms"),
        };
    }
    let parts = [(total / 86_400, "d"), (total / 3600 % 24, "h"), (total / 60 % 60, "m"), (total % 60, "s")];
    parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_shown() {
        for (text, shown) in [
            ("10s", "10s"),
            ("1h30m", "1h30m"),
            ("90m", "1h30m"),
            ("1.5d", "1d12h"),
            ("2w", "14d"),
            ("500ms", "500ms"),
            ("0", "0s"),
        ] {
            assert_eq!(show(parse(text).unwrap()), shown);
        }
        for bad in ["", "5", "x", "5x", "-1s", "1..5s", "999999999h", "s"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
