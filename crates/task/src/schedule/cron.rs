//! Cron expressions: five fields, six with seconds in front, names, and the `@` words. Pure.
//!
//! A day matches as in Vixie's cron: where both the day of the month and the day of the week are restricted (neither
//! begins with `*`), one of the two is enough.

use jiff::civil::{Date, DateTime};

/// Days that are looked through for the next match: a leap day that is also a Monday comes within 40 years.
const DAYS: usize = 366 * 41;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    last_day: bool,
    months: u64,
    weekdays: u64,
    /// `1#2`: the second Monday; `1L`: the last one (0).
    nth: Vec<(u8, u8)>,
    any_day: bool,
    any_weekday: bool,
    wild: bool,
}

struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const SECOND: Field = Field { name: "second", least: 0, most: 59, names: &[] };
const MINUTE: Field = Field { name: "minute", least: 0, most: 59, names: &[] };
const HOUR: Field = Field { name: "hour", least: 0, most: 23, names: &[] };
const DAY: Field = Field { name: "day of the month", least: 1, most: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field = Field {
    name: "day of the week",
    least: 0,
    most: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Cron {
    /// Reads `0 3 * * *`, `*/10 * * * * *` or `@daily`.
    ///
    /// # Errors
    /// Says which field is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expanded = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            "@minutely" => "* * * * *",
            other if other.starts_with('@') => {
                return Err(format!(
                    "{other:?} is not a schedule: know @yearly, @monthly, @weekly, @daily, @hourly, @minutely and @every DURATION"
                ));
            }
            other => other,
        };
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let (second, fields) = match fields.len() {
            5 => ("0", &fields[..]),
            6 => (fields[0], &fields[1..]),
            count => return Err(format!("{text:?} has {count} fields: a schedule has 5, or 6 with seconds")),
        };
        let mut days = fields[2];
        let last_day = days.eq_ignore_ascii_case("l");
        if last_day {
            days = "31";
        }
        let mut nth = Vec::new();
        let mut weekdays = 0;
        for part in fields[4].split(',') {
            match occurrence(part)? {
                Some(found) => nth.push(found),
                None => weekdays |= WEEKDAY.bits(part)?,
            }
        }
        if weekdays & 1 << 7 != 0 {
            weekdays = weekdays & !(1 << 7) | 1;
        }
        let star = |field: &str| field.starts_with(['*', '?']);
        let cron = Self {
            seconds: SECOND.list(second)?,
            minutes: MINUTE.list(fields[0])?,
            hours: HOUR.list(fields[1])?,
            days: if last_day { 0 } else { DAY.list(days)? },
            last_day,
            months: MONTH.list(fields[3])?,
            weekdays,
            nth,
            any_day: star(fields[2]),
            any_weekday: star(fields[4]),
            wild: star(fields[0]) || star(fields[1]),
        };
        match cron.after(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)) {
            Some(_) => Ok(cron),
            None => Err(format!("{text:?} never comes: there is no such day")),
        }
    }

    /// Whether the expression follows elapsed time (its minute or hour begins with `*`) rather than the clock on the wall.
    pub fn wild(&self) -> bool {
        self.wild
    }

    /// The first matching time on the wall's clock after this one.
    pub fn after(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut floor = Some((from.hour(), from.minute(), from.second()));
        for _ in 0..DAYS {
            if !has(self.months, date.month()) {
                date = first_of_next_month(date)?;
                floor = None;
                continue;
            }
            if self.day_matches(date)
                && let Some((hour, minute, second)) = self.time_after(floor)
            {
                return DateTime::new(date.year(), date.month(), date.day(), hour, minute, second, 0).ok();
            }
            date = date.tomorrow().ok()?;
            floor = None;
        }
        None
    }

    /// The expression as calendar events of systemd, one of which must match.
    pub fn calendar(&self) -> Vec<String> {
        const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        let list = |bits: u64, least: i8, most: i8| match (least..=most).all(|value| has(bits, value)) {
            true => "*".to_owned(),
            false => {
                let values: Vec<String> = (least..=most)
                    .filter(|value| has(bits, *value))
                    .map(|value| format!("{value:02}"))
                    .collect();
                values.join(",")
            }
        };
        let months = list(self.months, 1, 12);
        let days = if self.last_day { "~01".to_owned() } else { format!("-{}", list(self.days, 1, 31)) };
        let names = |bits: u64| -> String {
            let names: Vec<&str> = [1, 2, 3, 4, 5, 6, 0]
                .into_iter()
                .filter(|day| bits & 1 << day != 0)
                .map(|day: usize| DAYS[day])
                .collect();
            format!("{} ", names.join(","))
        };
        let time = format!(
            "{}:{}:{}",
            list(self.hours, 0, 23),
            list(self.minutes, 0, 59),
            list(self.seconds, 0, 59)
        );
        let on_days = |weekdays: &str| format!("{weekdays}*-{months}{days} {time}");
        let every_weekday = list(self.weekdays, 0, 6) == "*";
        let on_weekdays = |days: &str| {
            let mut lines = Vec::new();
            if self.weekdays != 0 {
                lines.push(format!("{}*-{months}{days} {time}", names(self.weekdays)));
            }
            for (day, nth) in &self.nth {
                let range = match nth {
                    0 => "~1..7".to_owned(),
                    nth => format!("-{}..{}", (nth - 1) * 7 + 1, (nth * 7).min(31)),
                };
                lines.push(format!("{} *-{months}{range} {time}", DAYS[usize::from(*day) % 7]));
            }
            lines
        };
        match (self.any_day, self.any_weekday) {
            (false, false) => std::iter::once(on_days("")).chain(on_weekdays("-*")).collect(),
            _ if every_weekday => vec![on_days("")],
            // One of the two begins with `*`: both must match.
            _ => on_weekdays(&days),
        }
    }

    fn day_matches(&self, date: Date) -> bool {
        let day = has(self.days, date.day()) || self.last_day && date.day() == date.days_in_month();
        let weekday_number = date.weekday().to_sunday_zero_offset();
        let weekday = has(self.weekdays, weekday_number)
            || self.nth.iter().any(|(wanted, nth)| {
                i8::try_from(*wanted) == Ok(weekday_number)
                    && match nth {
                        0 => date.day() + 7 > date.days_in_month(),
                        nth => (date.day() - 1) / 7 + 1 == i8::try_from(*nth).unwrap_or(i8::MAX),
                    }
            });
        match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            _ => day && weekday,
        }
    }

    /// The first time of day after `floor`, or the day's first.
    fn time_after(&self, floor: Option<(i8, i8, i8)>) -> Option<(i8, i8, i8)> {
        let Some((hour, minute, second)) = floor else {
            return Some((least(self.hours, 0)?, least(self.minutes, 0)?, least(self.seconds, 0)?));
        };
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = least(self.seconds, second + 1)
            {
                return Some((hour, minute, second));
            }
            if let Some(minute) = least(self.minutes, minute + 1) {
                return Some((hour, minute, least(self.seconds, 0)?));
            }
        }
        Some((least(self.hours, hour + 1)?, least(self.minutes, 0)?, least(self.seconds, 0)?))
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & 1 << value != 0)
}

fn least(bits: u64, from: i8) -> Option<i8> {
    (from..64).find(|value| has(bits, *value))
}

fn first_of_next_month(date: Date) -> Option<Date> {
    match date.month() {
        12 => Date::new(date.year().checked_add(1)?, 1, 1).ok(),
        month => Date::new(date.year(), month + 1, 1).ok(),
    }
}

/// `mon#2`, `5L`.
fn occurrence(part: &str) -> Result<Option<(u8, u8)>, String> {
    let wrong = || format!("{part:?} is not a day of the week");
    if let Some((day, nth)) = part.split_once('#') {
        let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth)).ok_or_else(wrong)?;
        return Ok(Some((WEEKDAY.value(day)? % 7, nth)));
    }
    match part.strip_suffix(['l', 'L']) {
        Some("") => Err(wrong()),
        Some(day) => Ok(Some((WEEKDAY.value(day)? % 7, 0))),
        None => Ok(None),
    }
}

impl Field {
    fn list(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |bits, part| Ok(bits | self.bits(part)?))
    }

    /// One of `*`, `5`, `1-5`, each with `/step` or without; `5/10` goes on to the end.
    fn bits(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<u8>().ok().filter(|step| *step > 0);
                let wrong = || format!("{part:?} in the {} has no positive step", self.name);
                (range, Some(step.ok_or_else(wrong)?))
            }
            None => (part, None),
        };
        let (from, to) = match range {
            "*" | "?" => (self.least, if self.most == 7 { 6 } else { self.most }),
            _ => match range.split_once('-') {
                Some((from, to)) => (self.value(from)?, self.value(to)?),
                None => {
                    let value = self.value(range)?;
                    (value, if step.is_some() { self.most } else { value })
                }
            },
        };
        // `fri-sun` ends with the seventh day.
        let to = if self.most == 7 && to == 0 && from > 0 { 7 } else { to };
        if from > to {
            return Err(format!("{part:?} in the {} ends before it begins", self.name));
        }
        Ok((from..=to).step_by(usize::from(step.unwrap_or(1))).fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|name| *name == lower) {
            return Ok(u8::try_from(at).unwrap_or(0) + self.least);
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|value| digits && (self.least..=self.most).contains(value))
            .ok_or_else(|| format!("{text:?} is not a {} ({} to {})", self.name, self.least, self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(cron).unwrap();
        let mut at: DateTime = from.parse().unwrap();
        (0..count)
            .map(|_| {
                at = cron.after(at).unwrap();
                at.to_string()
            })
            .collect()
    }

    #[test]
    fn expressions() {
        // 2026-11-24 is a Tuesday.
        for (cron, want) in [
            ("0 3 * * *", &["2026-11-24T03:00:00", "2026-11-25T03:00:00"][..]),
            ("*/20 * * * *", &["2026-11-24T00:20:00", "2026-11-24T00:40:00", "2026-11-24T01:00:00"]),
            ("*/25 * * * * *", &["2026-11-24T00:00:25", "2026-11-24T00:00:50", "2026-11-24T00:01:00"]),
            ("15,45 8-9 * * mon-fri", &["2026-11-24T08:15:00", "2026-11-24T08:45:00", "2026-11-24T09:15:00"]),
            ("0 0 1 jan *", &["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
            ("0 0 29 2 *", &["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
            (
                "0 0 L * *",
                &["2026-11-30T00:00:00", "2026-12-31T00:00:00", "2027-01-31T00:00:00", "2027-02-28T00:00:00"],
            ),
            ("0 0 * * 7", &["2026-11-29T00:00:00", "2026-12-06T00:00:00"]),
            ("0 0 * * fri-sun", &["2026-11-27T00:00:00", "2026-11-28T00:00:00", "2026-11-29T00:00:00"]),
            ("0 0 * * mon#2", &["2026-12-14T00:00:00"]),
            ("0 0 * * 5L", &["2026-11-27T00:00:00", "2026-12-25T00:00:00"]),
            (
                "0 0 13 * fri",
                &["2026-11-27T00:00:00", "2026-12-04T00:00:00", "2026-12-11T00:00:00", "2026-12-13T00:00:00"],
            ),
            ("0 0 */10 * *", &["2026-12-01T00:00:00", "2026-12-11T00:00:00"]),
            ("10/20 * * * *", &["2026-11-24T00:10:00", "2026-11-24T00:30:00", "2026-11-24T00:50:00"]),
            ("@weekly", &["2026-11-29T00:00:00"]),
        ] {
            assert_eq!(next(cron, "2026-11-24T00:00:00", want.len()), want, "{cron}");
        }
    }

    #[test]
    fn calendar_events() {
        for (cron, want) in [
            ("0 3 * * *", &["*-*-* 03:00:00"][..]),
            ("0 0 * * */2", &["Tue,Thu,Sat,Sun *-*-* 00:00:00"]),
            ("0 0 L * */2", &["Tue,Thu,Sat,Sun *-*~01 00:00:00"]),
            ("0 0 */10 * mon-wed", &["Mon,Tue,Wed *-*-01,11,21,31 00:00:00"]),
            ("0 0 13 * fri", &["*-*-13 00:00:00", "Fri *-*-* 00:00:00"]),
            ("0 0 1 * *", &["*-*-01 00:00:00"]),
            ("0 0 * * mon#2", &["Mon *-*-8..14 00:00:00"]),
        ] {
            assert_eq!(Cron::parse(cron).unwrap().calendar(), want, "{cron}");
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "* * 31 2 *",
            "@often",
            "* * * * mon#6",
            "+5 * * * *",
            "1,,2 * * * *",
            "* * * * * * *",
        ] {
            assert!(Cron::parse(bad).is_err(), "{bad:?}");
        }
    }
}
