//! Sizes as go-units prints them.

/// `%.{digits}g` of C and Go.
pub fn general(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponential = format!("{:.*e}", digits.saturating_sub(1), value);
    let (mantissa, exponent) = exponential.split_once('e').unwrap_or((&exponential, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= i32::try_from(digits).unwrap_or(i32::MAX) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(i32::try_from(digits).unwrap_or(0) - 1 - exponent).unwrap_or(0);
    trim(&format!("{value:.decimals$}")).to_owned()
}

fn trim(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

fn scaled(size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let (mut size, mut unit) = (size, 0);
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", general(size, digits), units[unit])
}

/// Decimal units: `12.3MB`.
#[allow(clippy::cast_precision_loss)]
pub fn human(bytes: i64) -> String {
    human_with(bytes as f64, 3)
}

/// Decimal units with so many significant digits.
pub fn human_with(bytes: f64, digits: usize) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], digits)
}

/// Binary units: `1.5GiB`.
pub fn binary(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"], 4)
}

/// Reads `10`, `10b`, `64m`, `1.5g`, `2GiB`: binary units, as for memory.
///
/// # Errors
/// It is not a size.
pub fn parse(text: &str) -> Result<i64, String> {
    let wrong = || format!("invalid size: '{text}'");
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let number: f64 = text[..split].trim().parse().map_err(|_| wrong())?;
    if number < 0.0 || !number.is_finite() {
        return Err(wrong());
    }
    let unit = text[split..].trim().to_ascii_lowercase();
    let prefix = match unit.as_str() {
        "" | "b" => 0,
        _ => {
            let prefix = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
            match prefix {
                "k" => 1,
                "m" => 2,
                "g" => 3,
                "t" => 4,
                "p" => 5,
                _ => return Err(format!("invalid suffix: '{}'", text[split..].trim())),
            }
        }
    };
    #[allow(clippy::cast_possible_truncation)]
    Ok((number * 1024_f64.powi(prefix)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed() {
        for (bytes, want) in
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (2_012_345, "2.01MB"), (118_000_000, "118MB")]
        {
            assert_eq!(human(bytes), want);
        }
        assert_eq!(binary(1_572_864.0), "1.5MiB");
        assert_eq!(human_with(123_456_789.0, 4), "123.5MB");
    }

    #[test]
    fn read() {
        for (text, want) in [
            ("10", 10),
            ("10b", 10),
            ("64m", 67_108_864),
            ("64MB", 67_108_864),
            ("1.5k", 1536),
            ("2GiB", 1 << 31),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        assert!(parse("x").is_err() && parse("1z").is_err() && parse("-1").is_err() && parse("").is_err());
    }
}
