//! Times: RFC 3339 in, Docker's phrases out. The clock is the caller's.

/// `About an hour`, from seconds.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let hours = (seconds as f64 / 3600.0 + 0.5) as i64;
    if seconds < 1 {
        "Less than a second".to_owned()
    } else if seconds == 1 {
        "1 second".to_owned()
    } else if seconds < 60 {
        format!("{seconds} seconds")
    } else if minutes == 1 {
        "About a minute".to_owned()
    } else if minutes < 60 {
        format!("{minutes} minutes")
    } else if hours == 1 {
        "About an hour".to_owned()
    } else if hours < 48 {
        format!("{hours} hours")
    } else if hours < 24 * 7 * 2 {
        format!("{} days", hours / 24)
    } else if hours < 24 * 30 * 2 {
        format!("{} weeks", hours / 24 / 7)
    } else if hours < 24 * 365 * 2 {
        format!("{} months", hours / 24 / 30)
    } else {
        format!("{} years", seconds / 3600 / 24 / 365)
    }
}

/// Days since 1970-01-01 of a civil date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The civil date and time of day (UTC) of a Unix time.
fn civil(seconds: i64) -> (i64, i64, i64, i64, i64, i64) {
    let (days, rest) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// Unix seconds and nanoseconds of an RFC 3339 time; a date, or a time without a zone (UTC), will do as well.
pub fn parse(text: &str) -> Option<(i64, u32)> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if text.len() == 10 {
        return Some((days(year, month, day) * 86_400, 0));
    }
    let (hour, minute) = (number(11..13)?, number(14..16)?);
    let mut rest = text.get(16..)?;
    let mut second = 0;
    if let Some(tail) = rest.strip_prefix(':') {
        second = tail.get(..2)?.parse().ok()?;
        rest = tail.get(2..)?;
    }
    let mut nanos = 0;
    if let Some(tail) = rest.strip_prefix('.') {
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        nanos = format!("{:0<9}", &tail[..end]).get(..9)?.parse().ok()?;
        rest = &tail[end..];
    }
    let offset = match rest {
        "" | "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    Some((days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos))
}

/// `2026-11-24 06:20:00 +0000 UTC`, as Go prints a time.
pub fn printed(seconds: i64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}

/// RFC 3339 with nanoseconds.
pub fn rfc3339(seconds: i64, nanos: u32) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// A duration as Go writes it, in nanoseconds: `1h30m`, `500ms`, `1.5s`, `0`.
///
/// # Errors
/// It is not a duration.
pub fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("time: invalid duration \"{text}\"");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0_f64;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("time: missing unit in duration \"{text}\""))?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    #[allow(clippy::cast_possible_truncation)]
    let nanos = total.round() as i64;
    Ok(if negative { -nanos } else { nanos })
}

/// `--since` and `--until`: a duration before `now`, a Unix time or a date, as the Unix time that the API wants.
///
/// # Errors
/// It is none of these.
pub fn moment(text: &str, now: (i64, u32)) -> Result<String, String> {
    if text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Ok(nanos) = duration(text) {
        let at = i128::from(now.0) * 1_000_000_000 + i128::from(now.1) - i128::from(nanos);
        return Ok(format!("{}.{:09}", at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000)));
    }
    parse(text)
        .map(|(seconds, nanos)| format!("{seconds}.{nanos:09}"))
        .ok_or_else(|| format!("failed to parse value as time or duration: \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases() {
        let table = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (3 * 3600, "3 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
            (90 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ];
        for (seconds, want) in table {
            assert_eq!(human_duration(seconds), want);
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse("1970-01-02T00:00:01.5Z"), Some((86_401, 500_000_000)));
        assert_eq!(parse("2026-11-24T07:25:00+01:00"), parse("2026-11-24T06:25:00Z"));
        assert_eq!(printed(parse("2026-11-24T06:25:00Z").unwrap().0), "2026-11-24 06:25:00 +0000 UTC");
        assert_eq!(rfc3339(86_401, 5), "1970-01-02T00:00:01.000000005Z");
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(duration("0"), Ok(0));
        assert!(duration("5").is_err() && duration("x").is_err() && duration("").is_err());
        assert_eq!(moment("10s", (100, 0)), Ok("90.000000000".to_owned()));
        assert_eq!(moment("17", (100, 0)), Ok("17".to_owned()));
    }
}
