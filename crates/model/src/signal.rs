//! Signals by name and number (`signal(7)`, x86-64 and arm64).

use crate::{Error, Result};

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that programs may use (the C library keeps 32 and 33).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `SIGKILL`.
pub const KILL: i32 = 9;
/// `SIGTERM`.
pub const TERM: i32 = 15;

/// The number of `SIGTERM`, `term`, `15`, `RTMIN+3`.
///
/// # Errors
/// Docker's text for an unknown signal.
pub fn parse(text: &str) -> Result<i32> {
    let bad = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Ok(index as i32 + 1);
    }
    match name {
        "IOT" => return Ok(6),
        "CLD" => return Ok(17),
        "POLL" => return Ok(29),
        _ => {}
    }
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() { Some(0) } else { rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from) }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + offset(rest, '+').ok_or_else(bad)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        RTMAX - offset(rest, '-').ok_or_else(bad)?
    } else {
        return Err(bad());
    };
    if (RTMIN..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) }
}

/// The name of a number, without `SIG`, where it has one.
pub fn name(number: i32) -> Option<&'static str> {
    usize::try_from(number).ok()?.checked_sub(1).and_then(|index| NAMES.get(index).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("term", 15),
            ("15", 15),
            ("KILL", 9),
            ("SIGWINCH", 28),
            ("sigusr2", 12),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "-1", "SIGFOO", "RTMIN+99", "RTMIN-1", "SIG"] {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("invalid signal: {text}"));
        }
        assert_eq!(name(15), Some("TERM"));
        assert_eq!(name(0), None);
    }
}
