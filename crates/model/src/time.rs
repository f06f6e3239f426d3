//! Points in time as RFC 3339 text with nanoseconds, in UTC: what Docker writes into its JSON.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Seconds and nanoseconds since 1970-01-01T00:00:00Z. The zero value prints as Docker's "never",
/// `0001-01-01T00:00:00Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// Docker's "never".
    pub const NEVER: Self = Self { seconds: 0, nanos: 0 };

    /// From a clock reading that the caller took.
    pub fn from_system(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() },
            Err(_) => Self::NEVER,
        }
    }
    /// Whether this is [`Timestamp::NEVER`].
    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }
    /// Nanoseconds since the epoch, saturating.
    pub fn total_nanos(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }
    /// Parses what Docker's API takes for `since` and `until`: `seconds[.fraction]` since the epoch, or RFC 3339.
    pub fn parse_query(text: &str) -> Option<Self> {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Self::parse(text);
        }
        let Ok(seconds) = seconds.parse() else { return Self::parse(text) };
        let nanos = format!("{:0<9.9}", fraction).parse().ok()?;
        Some(Self { seconds, nanos })
    }
    /// Parses RFC 3339 (`2026-11-24T05:47:51.123456789Z`, or with `+01:00`).
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0001-01-01T00:00:00Z" {
            return Some(Self::NEVER);
        }
        let bytes = text.as_bytes();
        let digits = |from: usize, to: usize| -> Option<i64> {
            let part = text.get(from..to)?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
        };
        let sep = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|b| any.contains(b));
        if !(sep(4, b"-") && sep(7, b"-") && sep(10, b"Tt ") && sep(13, b":") && sep(16, b":")) {
            return None;
        }
        let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
        let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut rest = text.get(19..)?;
        let mut nanos = 0u32;
        if let Some(fraction) = rest.strip_prefix('.') {
            let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if length == 0 {
                return None;
            }
            let mut scale = 100_000_000u32;
            for digit in fraction.bytes().take(length.min(9)) {
                nanos += u32::from(digit - b'0') * scale;
                scale /= 10;
            }
            rest = &fraction[length..];
        }
        let offset = match rest {
            "Z" | "z" => 0,
            _ => {
                let sign = match rest.as_bytes().first()? {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                let (hours, minutes) = rest.get(1..)?.split_once(':')?;
                sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
            }
        };
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Self { seconds, nanos })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let (days, second_of_day) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanos != 0 {
            let fraction = format!("{:09}", self.nanos);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("not an RFC 3339 time: {text:?}")))
    }
}

/// Days since the epoch of a proleptic Gregorian date (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_query_times() {
        assert_eq!(
            Timestamp::parse_query("1136073600.000000001"),
            Some(Timestamp { seconds: 1_136_073_600, nanos: 1 })
        );
        assert_eq!(Timestamp::parse_query("5.25"), Some(Timestamp { seconds: 5, nanos: 250_000_000 }));
        assert_eq!(Timestamp::parse_query("5"), Some(Timestamp { seconds: 5, nanos: 0 }));
        assert_eq!(Timestamp::parse_query("1970-01-01T00:00:05Z"), Some(Timestamp { seconds: 5, nanos: 0 }));
        assert_eq!(
            Timestamp::parse_query("1970-01-01T00:00:05.5Z"),
            Some(Timestamp { seconds: 5, nanos: 500_000_000 })
        );
        assert_eq!(Timestamp::parse_query("yesterday"), None);
    }

    #[test]
    fn prints_what_it_parses() {
        for text in [
            "2026-11-24T05:47:51Z",
            "1970-01-01T00:00:01.5Z",
            "2000-02-29T23:59:59.123456789Z",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Timestamp::parse("2026-03-29T03:00:00+02:00").unwrap().to_string(),
            "2026-03-29T01:00:00Z"
        );
        for bad in ["", "2026", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Z"] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }
}
