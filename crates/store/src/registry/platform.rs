//! Platforms as Go names them, and which runs what.

use model::image::Platform;
use model::{Error, Result};

/// The platform of this machine, in Go's words.
pub fn host_platform() -> Platform {
    Platform {
        architecture: go_architecture(std::env::consts::ARCH).to_owned(),
        os: "linux".to_owned(),
        variant: None,
    }
}

/// Parses `[os/]architecture[/variant]`.
///
/// # Errors
/// Anything else, and what is not linux.
pub fn parse_platform(text: &str) -> Result<Platform> {
    let bad = || Error::invalid(format!("invalid platform {text:?}: want linux/ARCHITECTURE[/VARIANT]"));
    let parts: Vec<&str> = text.split('/').collect();
    let valid = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    if !parts.iter().all(valid) {
        return Err(bad());
    }
    let (os, architecture, variant) = match parts[..] {
        ["linux"] => return Ok(host_platform()),
        [architecture] => ("linux", architecture, None),
        [os, architecture] => (os, architecture, None),
        [os, architecture, variant] => (os, architecture, Some(variant)),
        _ => return Err(bad()),
    };
    Ok(Platform {
        architecture: go_architecture(&architecture.to_ascii_lowercase()).to_owned(),
        os: os.to_ascii_lowercase(),
        variant: variant.map(str::to_ascii_lowercase),
    })
}

fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "powerpc64" => "ppc64le",
        "armhf" => "arm",
        other => other,
    }
}

/// `linux/amd64`.
pub(crate) fn platform_text(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if let Some(variant) = &platform.variant {
        text.push('/');
        text.push_str(variant);
    }
    text
}

/// How well an image for `have` suits who wants `wanted`: 0 is best, `None` not at all. A machine runs what is made for older
/// variants of its architecture (containerd's `platforms.Only`).
pub(crate) fn rank(have: &Platform, wanted: &Platform) -> Option<usize> {
    if have.os != wanted.os {
        return None;
    }
    let (architecture, variant) = normal(have);
    runs(wanted).iter().position(|(known, older)| *known == architecture && *older == variant)
}

/// Architecture and variant, with the variant that is meant where none is named.
fn normal(platform: &Platform) -> (&str, &str) {
    let variant = platform.variant.as_deref().unwrap_or_default();
    let variant = match (platform.architecture.as_str(), variant) {
        ("arm64", "" | "8") => "v8",
        ("arm", "" | "7") => "v7",
        ("arm", "5" | "6" | "8") => match variant {
            "5" => "v5",
            "6" => "v6",
            _ => "v8",
        },
        ("amd64", "v1") => "",
        (_, variant) => variant,
    };
    (platform.architecture.as_str(), variant)
}

/// What a machine runs, best first.
fn runs(wanted: &Platform) -> Vec<(&str, &str)> {
    const ARM: [&str; 4] = ["v8", "v7", "v6", "v5"];
    const AMD64: [&str; 4] = ["v4", "v3", "v2", ""];
    let (architecture, variant) = normal(wanted);
    let older = |known: &[&'static str], name: &'static str| -> Vec<(&str, &str)> {
        match known.iter().position(|known| *known == variant) {
            Some(at) => known[at..].iter().map(|older| (name, *older)).collect(),
            None => vec![(architecture, variant)],
        }
    };
    match architecture {
        "arm" => older(&ARM, "arm"),
        "amd64" => older(&AMD64, "amd64"),
        _ => vec![(architecture, variant)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let text = |text: &str| parse_platform(text).map(|platform| platform_text(&platform));
        assert_eq!(text("linux/amd64").unwrap(), "linux/amd64");
        assert_eq!(text("x86_64").unwrap(), "linux/amd64");
        assert_eq!(text("Linux/arm64/v8").unwrap(), "linux/arm64/v8");
        assert_eq!(text("aarch64").unwrap(), "linux/arm64");
        for bad in ["", "a/b/c/d", "linux/", "/amd64", "li nux/amd64"] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn older_variants_run() {
        let rank = |have: &str, wanted: &str| {
            super::rank(&parse_platform(have).unwrap(), &parse_platform(wanted).unwrap())
        };
        assert_eq!(rank("linux/arm64", "linux/arm64/v8"), Some(0));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), Some(1));
        assert_eq!(rank("linux/arm/v5", "linux/arm"), Some(2));
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), Some(2));
        for (have, wanted) in [
            ("linux/arm/v7", "linux/arm/v6"),
            ("linux/amd64/v2", "linux/amd64"),
            ("linux/arm/v7", "linux/arm64"),
            ("windows/amd64", "linux/amd64"),
            ("linux/386", "linux/amd64"),
        ] {
            assert_eq!(rank(have, wanted), None, "{have} for {wanted}");
        }
    }
}
