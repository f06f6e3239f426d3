//! `--change` of `commit` and `import`: one Dockerfile instruction that changes an image's configuration, without
//! variables or continuation lines.

use std::collections::BTreeMap;

use crate::container::{Healthcheck, Port};
use crate::image::{Empty, RunConfig};
use crate::{Error, Result};

/// Applies one instruction.
///
/// # Errors
/// Shows the instruction and what is wrong.
pub fn apply(config: &mut RunConfig, line: &str) -> Result<()> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let bad = |why: &str| Error::invalid(format!("change {line:?}: {why}"));
    if rest.is_empty() {
        return Err(bad("it has no arguments"));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest));
            config.cmd = None;
        }
        "ENV" => {
            let pairs: Vec<String> = pairs(rest)
                .ok_or_else(|| bad("want NAME=value"))?
                .into_iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            config.env = crate::launch::merge_env(std::mem::take(&mut config.env), &pairs);
        }
        "LABEL" => {
            let labels = config.labels.get_or_insert_default();
            labels.extend(pairs(rest).ok_or_else(|| bad("want name=value"))?);
        }
        "EXPOSE" => {
            let ports = config.exposed_ports.get_or_insert_default();
            for text in rest.split_whitespace() {
                ports.insert(Port::parse(text)?.to_string(), Empty {});
            }
        }
        "VOLUME" => {
            let volumes = config.volumes.get_or_insert_default();
            let list = json(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            volumes.extend(list.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => {
            let base = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
            let path = crate::container::ContainerPath::parse(base)?.join(rest);
            path.as_str().clone_into(&mut config.working_dir);
        }
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        "HEALTHCHECK" => {
            config.healthcheck =
                Some(healthcheck(rest).ok_or_else(|| bad("want NONE, or [OPTIONS] CMD command"))?)
        }
        "SHELL" => config.shell = Some(json(rest).ok_or_else(|| bad("want a JSON array"))?),
        other => return Err(Error::invalid(format!("{other} is not a valid change command"))),
    }
    Ok(())
}

/// A JSON array of strings.
fn json(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// The exec form, or the shell form.
fn command(text: &str) -> Vec<String> {
    json(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `a=b "c d"=e f='g h'`, or the old form `a b c`.
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some([(name.to_owned(), value.trim().to_owned())].into());
    }
    words.into_iter().map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
}

/// Words with quotes and backslashes taken off; `None` where a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn healthcheck(text: &str) -> Option<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace)?;
        let (name, value) = option.split_once('=')?;
        match name {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => check.retries = value.parse().ok()?,
            _ => return None,
        }
        rest = after.trim_start();
    }
    let (word, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = Some(match (word.to_ascii_uppercase().as_str(), command.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", "") | ("NONE", _) => return None,
        ("CMD", command) => match json(command) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return None,
    });
    Some(check)
}

/// Go's durations (`1m30s`, `500ms`, `1.5h`) in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 6e10,
                "h" => 3.6e12,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && total < 9e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> Result<RunConfig> {
        let mut config = RunConfig { env: vec!["PATH=/bin".into(), "A=1".into()], ..RunConfig::default() };
        lines.iter().try_for_each(|line| apply(&mut config, line)).map(|()| config)
    }

    #[test]
    fn applies_instructions() {
        let config = changed(&[
            "CMD [\"a\", \"b c\"]",
            "ENV A=2 B='x y' C=\"z\\\"\"",
            "env OLD the old form",
            "LABEL tier=web \"with space\"=v",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/a\"]",
            "VOLUME /b /c",
            "USER www",
            "WORKDIR /srv",
            "WORKDIR sub",
            "STOPSIGNAL SIGQUIT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost",
        ])
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["a", "b c"]);
        assert_eq!(config.env, ["PATH=/bin", "A=2", "B=x y", "C=z\"", "OLD=the old form"]);
        assert_eq!(config.labels.unwrap()["with space"], "v");
        assert_eq!(config.exposed_ports.unwrap().into_keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.unwrap().into_keys().collect::<Vec<_>>(), ["/a", "/b", "/c"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("www", "/srv/sub"));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 2));
        assert_eq!(check.test.unwrap(), ["CMD-SHELL", "curl -f localhost"]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bad in ["RUN true", "CMD", "", "ENV A", "ENV A='x", "EXPOSE x", "HEALTHCHECK FOO", "SHELL sh"] {
            assert!(changed(&[bad]).is_err(), "{bad}");
        }
    }
}
