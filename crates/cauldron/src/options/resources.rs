//! Limits and devices.

use client::bollard::models::{
    DeviceMapping, ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy, ThrottleDevice,
};

/// `--cpus 1.5` as billionths of a processor.
///
/// # Errors
/// Not a number.
pub fn cpus(text: &str) -> Result<i64, String> {
    let value: f64 = text.parse().map_err(|_| format!("failed to parse {text} as a rational number"))?;
    if !(0.0..1e9).contains(&value) {
        return Err(format!("invalid value for --cpus: {text}"));
    }
    #[allow(clippy::cast_possible_truncation)]
    Ok((value * 1e9).round() as i64)
}

/// `--ulimit nofile=1024[:2048]`; a single value is both.
///
/// # Errors
/// It is malformed.
pub fn ulimit(text: &str) -> Result<ResourcesUlimits, String> {
    let wrong = || format!("invalid ulimit argument: {text}");
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let known = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    if !known.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        text => {
            text.parse::<i64>().map_err(|_| format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
        }
    };
    if values.matches(':').count() > 1 {
        return Err(format!(
            "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
        ));
    }
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

/// `--device /dev/x[:/dev/y][:rwm]`.
///
/// # Errors
/// It is malformed.
pub fn device(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |part: &str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if is_mode(mode) => (*host, *container, *mode),
        [_, _, mode] => return Err(format!("bad mode specified: {mode}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if host.is_empty() || !container.starts_with('/') {
        return Err(format!("invalid device specification: {text}: paths are absolute"));
    }
    Ok(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(mode.to_owned()),
    })
}

/// `--restart no|always|unless-stopped|on-failure[:n]`.
///
/// # Errors
/// There is no such policy.
pub fn restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => {
            let count = count.parse::<i64>().map_err(|_| {
                "invalid restart policy format: maximum retry count must be an integer".to_owned()
            })?;
            (name, Some(count))
        }
        None => (text, None),
    };
    if count.is_some() && name != "on-failure" {
        return Err(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'".to_owned()
        );
    }
    let policy = name.parse().map_err(|_| format!("invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"))?;
    Ok(RestartPolicy { name: Some(policy), maximum_retry_count: count })
}

/// `--device-read-bps /dev/sda:1mb`.
///
/// # Errors
/// It is malformed.
pub fn throttle_bytes(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device_value(text)?;
    let rate = crate::render::size::parse(rate).ok().filter(|rate| *rate >= 0).ok_or_else(|| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
    })?;
    Ok(ThrottleDevice { path: Some(path.to_owned()), rate: Some(rate) })
}

/// `--device-read-iops /dev/sda:1000`.
///
/// # Errors
/// It is malformed.
pub fn throttle_operations(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device_value(text)?;
    let rate = rate.parse::<i64>().ok().filter(|rate| *rate >= 0).ok_or_else(|| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer")
    })?;
    Ok(ThrottleDevice { path: Some(path.to_owned()), rate: Some(rate) })
}

/// A path below /dev, and what is said about it.
fn device_value(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

/// `--blkio-weight-device /dev/sda:500`.
///
/// # Errors
/// It is malformed.
pub fn weight(text: &str) -> Result<ResourcesBlkioWeightDevice, String> {
    let (path, weight) = device_value(text)?;
    match weight.parse() {
        Ok(weight @ (0 | 10..=1000)) => {
            Ok(ResourcesBlkioWeightDevice { path: Some(path.to_owned()), weight: Some(weight) })
        }
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

/// `--device-cgroup-rule 'c 1:3 rwm'`.
///
/// # Errors
/// It is malformed.
pub fn device_rule(text: &str) -> Result<String, String> {
    let bad = || format!("invalid device cgroup format '{text}'");
    let mut words = text.split(' ');
    let (Some("a" | "b" | "c"), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    let number = |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let numbers = numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
    let access = (1..=3).contains(&access.len()) && access.bytes().all(|b| b"rwm".contains(&b));
    if numbers && access { Ok(text.to_owned()) } else { Err(bad()) }
}

/// `--sysctl NAME=VALUE`, of what namespaces have of their own.
///
/// # Errors
/// It is of the whole host, or malformed.
pub fn sysctl(text: &str) -> Result<String, String> {
    const KNOWN: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.domainname",
    ];
    let known = text.split_once('=').is_some_and(|(name, _)| {
        KNOWN.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
    });
    if known { Ok(text.to_owned()) } else { Err(format!("sysctl '{text}' is not allowed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read() {
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert!(cpus("x").is_err());
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(10), Some(20)));
        assert!(ulimit("nofile=20:10").is_err() && ulimit("nope=1").is_err() && ulimit("nofile").is_err());
        assert_eq!(device("/dev/a:r").unwrap().path_in_container.as_deref(), Some("/dev/a"));
        assert_eq!(device("/dev/a:/dev/b:rw").unwrap().cgroup_permissions.as_deref(), Some("rw"));
        assert!(device("/dev/a:/dev/b:x").is_err());
        assert_eq!(restart("on-failure:3").unwrap().maximum_retry_count, Some(3));
        assert!(restart("always:3").is_err() && restart("sometimes").is_err());
    }
}
