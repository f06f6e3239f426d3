//! From the value of `x-task` to a [`Definition`].

use super::{
    Backup, BackupKeep, Definition, Each, Encrypt, KEPT_RUNS, Keep, MOST_PARALLEL, Notify, Once, Overlap,
    Resources, Retries, Step, VolumesFrom, When, Wrong,
};
use crate::duration;
use crate::schedule::{Missed, Policy, Schedule};
use serde_json::{Map, Value};
use std::time::Duration;

const KEYS: &[&str] = &[
    "once",
    "version",
    "each",
    "volumes_from",
    "schedule",
    "timezone",
    "jitter",
    "missed",
    "deadline",
    "overlap",
    "timeout",
    "retries",
    "parallel",
    "before",
    "after",
    "on_success",
    "on_failure",
    "keep",
    "lock",
    "resources",
    "notify",
    "backup",
    "new_privileges",
];

impl Definition {
    /// Reads the value of `x-task`; `{}` or nothing is a task that runs when it is told to.
    ///
    /// # Errors
    /// Names the key and says what is wrong with it.
    pub fn parse(value: &Value) -> Result<Self, Wrong> {
        let empty = Map::new();
        let map = match value {
            Value::Null => &empty,
            Value::Object(map) => map,
            _ => return Err(wrong(&[], "want a mapping")),
        };
        let keys = Keys { path: Vec::new(), map };
        keys.known(KEYS)?;
        let once = once(&keys)?;
        let schedule = schedule(&keys)?;
        if once.is_some() && (schedule.is_some() || keys.has("each")) {
            return Err(wrong(
                &["once"],
                "a helper runs when a service that depends on it starts: it has neither schedule nor each",
            ));
        }
        let each = each(&keys)?;
        let lost = |names: &[&'static str]| names.iter().copied().find(|name| keys.has(name));
        if once.is_some()
            && let Some(key) = lost(&["on_success", "on_failure", "notify", "backup"])
        {
            return Err(keys.wrong(key, "nothing follows a helper: whoever needs it waits for it"));
        }
        if each.is_none()
            && let Some(key) = lost(&["before", "after", "parallel", "volumes_from"])
        {
            return Err(keys.wrong(key, "there is no target that it is for: say which with each"));
        }
        Ok(Self {
            once,
            each,
            volumes_from: keys.choice(
                "volumes_from",
                &[
                    ("false", VolumesFrom::No),
                    ("true", VolumesFrom::ReadWrite),
                    ("rw", VolumesFrom::ReadWrite),
                    ("ro", VolumesFrom::ReadOnly),
                ],
            )?,
            schedule,
            policy: Policy {
                missed: keys.choice("missed", &[("once", Missed::Once), ("skip", Missed::Skip)])?,
                deadline: keys.duration("deadline")?,
            },
            overlap: keys.choice(
                "overlap",
                &[("forbid", Overlap::Forbid), ("allow", Overlap::Allow), ("replace", Overlap::Replace)],
            )?,
            timeout: keys.duration("timeout")?.filter(|timeout| !timeout.is_zero()),
            retries: retries(&keys)?,
            parallel: usize::try_from(keys.number("parallel", 1, MOST_PARALLEL)?.unwrap_or(1)).unwrap_or(1),
            before: steps(&keys, "before")?,
            after: steps(&keys, "after")?,
            on_success: keys.words("on_success")?,
            on_failure: keys.words("on_failure")?,
            keep: keep(&keys)?,
            lock: keys.text("lock")?,
            resources: resources(&keys)?,
            notify: notify(&keys)?,
            backup: backup(&keys)?,
            new_privileges: keys.choice("new_privileges", &[("false", false), ("true", true)])?,
        })
    }
}

fn once(keys: &Keys) -> Result<Option<Once>, Wrong> {
    let version = keys.number("version", 0, u64::MAX >> 1)?;
    match keys.text("once")? {
        Some(volume) if volume.is_empty() => Err(keys.wrong("once", "want the name of a volume")),
        Some(volume) => Ok(Some(Once { volume, version })),
        None if version.is_some() => Err(keys.wrong("version", "only a helper (once: VOLUME) has a version")),
        None => Ok(None),
    }
}

fn each(keys: &Keys) -> Result<Option<Each>, Wrong> {
    let Some(inner) = keys.map("each")? else { return Ok(None) };
    inner.known(&["label", "name", "network", "service", "image", "link", "optional"])?;
    let each = Each {
        label: inner.words_or_pairs("label")?,
        name: inner.words("name")?,
        network: inner.words("network")?,
        service: inner.words("service")?,
        image: inner.words("image")?,
        link: inner.text("link")?,
        optional: inner.choice("optional", &[("false", false), ("true", true)])?,
    };
    if [&each.label, &each.name, &each.network, &each.service, &each.image].iter().all(|list| list.is_empty())
    {
        return Err(keys.wrong("each", "select containers by label, name, network, service or image"));
    }
    if let Some(link) = &each.link
        && (link.is_empty()
            || !link.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)))
    {
        return Err(
            inner.wrong("link", format!("{link:?} is not a name that a container can be linked under"))
        );
    }
    Ok(Some(each))
}

fn schedule(keys: &Keys) -> Result<Option<Schedule>, Wrong> {
    let zone = keys.text("timezone")?;
    let jitter = keys.duration("jitter")?;
    let Some(text) = keys.text("schedule")? else {
        for key in ["timezone", "jitter", "missed", "deadline"] {
            if keys.map.contains_key(key) {
                return Err(keys.wrong(key, "there is no schedule that it belongs to"));
            }
        }
        return Ok(None);
    };
    let zone = zone.unwrap_or_default();
    crate::schedule::time_zone(&zone).map_err(|message| keys.wrong("timezone", message))?;
    let mut schedule = Schedule::parse(&text, &zone).map_err(|message| keys.wrong("schedule", message))?;
    schedule.jitter = jitter.unwrap_or_default();
    Ok(Some(schedule))
}

fn retries(keys: &Keys) -> Result<Retries, Wrong> {
    if keys.map.get("retries").is_some_and(|value| value.is_u64() || value.is_string()) {
        return Ok(Retries { max: keys.number("retries", 0, 1000)?.unwrap_or(0), ..Retries::default() });
    }
    let Some(inner) = keys.map("retries")? else { return Ok(Retries::default()) };
    inner.known(&["max", "backoff", "max_backoff"])?;
    let usual = Retries::default();
    Ok(Retries {
        max: inner.number("max", 0, 1000)?.unwrap_or(1),
        backoff: inner.duration("backoff")?.unwrap_or(usual.backoff),
        most: inner.duration("max_backoff")?.unwrap_or(usual.most),
    })
}

fn keep(keys: &Keys) -> Result<Keep, Wrong> {
    let Some(inner) = keys.map("keep")? else { return Ok(Definition::default().keep) };
    inner.known(&["runs", "age"])?;
    let (runs, age) = (inner.number("runs", 1, u64::MAX >> 1)?, inner.duration("age")?);
    Ok(Keep { runs: runs.unwrap_or(if age.is_some() { u64::MAX >> 1 } else { KEPT_RUNS }), age })
}

fn backup(keys: &Keys) -> Result<Option<Backup>, Wrong> {
    let Some(inner) = keys.map("backup")? else { return Ok(None) };
    inner.known(&["to", "mount", "verify", "restore", "encrypt", "keep"])?;
    let Some(to) = inner.text("to")?.filter(|to| !to.is_empty()) else {
        return Err(inner.wrong("to", "want the directory that is to have the backups"));
    };
    let mount = inner.text("mount")?.unwrap_or_else(|| "/backups".to_owned());
    if !mount.starts_with('/') {
        return Err(inner.wrong("mount", format!("{mount:?} is not an absolute path in the container")));
    }
    let keep = match inner.map("keep")? {
        None => BackupKeep::default(),
        Some(keep) => {
            keep.known(&["count", "age"])?;
            BackupKeep { count: keep.number("count", 1, u64::MAX >> 1)?, age: keep.duration("age")? }
        }
    };
    let encrypt = match inner.map("encrypt")? {
        None => None,
        Some(how) => {
            how.known(&["recipients", "recipients_files", "identity"])?;
            let paths = how.words("recipients_files")?;
            let encrypt = Encrypt {
                recipients: how.words("recipients")?,
                recipients_files: paths.into_iter().map(Into::into).collect(),
                identity: how.text("identity")?.map(Into::into),
            };
            if encrypt.recipients.is_empty() && encrypt.recipients_files.is_empty() {
                return Err(inner.wrong("encrypt", "say for whom: recipients or recipients_files"));
            }
            Some(encrypt)
        }
    };
    Ok(Some(Backup {
        to: to.into(),
        mount,
        verify: inner.text("verify")?,
        restore: inner.text("restore")?,
        encrypt,
        keep,
    }))
}

fn steps(keys: &Keys, key: &str) -> Result<Vec<Step>, Wrong> {
    let Some(value) = keys.map.get(key).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let list = match value {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let mut steps = Vec::new();
    for value in list {
        match value {
            Value::String(word) => steps.push(match word.as_str() {
                "pause" => Step::Pause,
                "stop" => Step::Stop,
                other => {
                    return Err(keys.wrong(
                        key,
                        format!("{other:?} is not a step: want pause, stop or {{exec: [COMMAND]}}"),
                    ));
                }
            }),
            Value::Object(map) => {
                let inner = Keys { path: keys.below(key), map };
                inner.known(&["exec", "undo", "pause", "stop"])?;
                let (command, undo) = (inner.command("exec")?, inner.command("undo")?);
                if !command.is_empty() {
                    steps.push(Step::Exec { command, undo });
                } else if !undo.is_empty() {
                    return Err(inner.wrong("undo", "there is no exec that it takes back"));
                }
                for (name, step) in [("pause", Step::Pause), ("stop", Step::Stop)] {
                    if inner.choice(name, &[("false", false), ("true", true)])? {
                        steps.push(step);
                    }
                }
            }
            _ => return Err(keys.wrong(key, "want a step or a list of steps")),
        }
    }
    if key == "after" && steps.iter().any(|step| !matches!(step, Step::Exec { undo, .. } if undo.is_empty()))
    {
        return Err(keys.wrong(key, "after the task only commands are run: want {exec: [COMMAND]}"));
    }
    Ok(steps)
}

fn resources(keys: &Keys) -> Result<Resources, Wrong> {
    let Some(inner) = keys.map("resources")? else { return Ok(Resources::default()) };
    inner.known(&["memory", "cpus", "pids"])?;
    let memory = match inner.text("memory")? {
        Some(text) => Some(
            bytes(&text)
                .ok_or_else(|| inner.wrong("memory", format!("{text:?} is not a size: write 64m or 2g")))?,
        ),
        None => None,
    };
    let nano_cpus = match inner.text("cpus")? {
        Some(text) => {
            let cpus = text.parse::<f64>().ok().filter(|cpus| (0.001..=4096.0).contains(cpus));
            let cpus =
                cpus.ok_or_else(|| inner.wrong("cpus", format!("{text:?} is not a number of processors")))?;
            #[allow(clippy::cast_possible_truncation)]
            Some((cpus * 1e9).round() as i64)
        }
        None => None,
    };
    let pids = inner.number("pids", 1, 4_194_304)?.and_then(|pids| i64::try_from(pids).ok());
    Ok(Resources { memory, nano_cpus, pids })
}

fn bytes(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 10),
        'm' => (&lower[..lower.len() - 1], 20),
        'g' => (&lower[..lower.len() - 1], 30),
        't' => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    number.trim().parse::<i64>().ok().filter(|number| *number > 0)?.checked_mul(1 << shift)
}

fn notify(keys: &Keys) -> Result<Notify, Wrong> {
    let Some(inner) = keys.map("notify")? else { return Ok(Notify::default()) };
    inner.known(&["webhook", "webhook_file", "command", "on"])?;
    let notify = Notify {
        webhook: inner.text("webhook")?,
        webhook_file: inner.text("webhook_file")?,
        command: inner.command("command")?,
        on: inner.choice(
            "on",
            &[("always", When::Always), ("failure", When::Failure), ("success", When::Success)],
        )?,
    };
    if let Some(url) = &notify.webhook
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return Err(inner.wrong("webhook", "want an http:// or https:// address"));
    }
    Ok(notify)
}

fn wrong(path: &[&str], message: impl Into<String>) -> Wrong {
    Wrong { path: path.iter().map(|part| (*part).to_owned()).collect(), message: message.into() }
}

/// A mapping and where it stands.
struct Keys<'a> {
    path: Vec<String>,
    map: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn below(&self, key: &str) -> Vec<String> {
        self.path.iter().cloned().chain([key.to_owned()]).collect()
    }
    fn wrong(&self, key: &str, message: impl Into<String>) -> Wrong {
        Wrong { path: self.below(key), message: message.into() }
    }
    /// Every key is one of these.
    fn known(&self, keys: &[&str]) -> Result<(), Wrong> {
        for key in self.map.keys() {
            if !keys.contains(&key.as_str()) {
                let near = keys.iter().map(|known| (distance(key, known), known)).min();
                return Err(self.wrong(
                    key,
                    match near {
                        Some((far, near)) if far <= 2 => format!("unknown key; did you mean {near}?"),
                        _ => format!("unknown key; known are {}", keys.join(", ")),
                    },
                ));
            }
        }
        Ok(())
    }
    fn map(&self, key: &str) -> Result<Option<Keys<'_>>, Wrong> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Keys { path: self.below(key), map })),
            Some(_) => Err(self.wrong(key, "want a mapping")),
        }
    }
    /// Whether something is said about it.
    fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }
    /// A word; numbers and booleans as they are written.
    fn text(&self, key: &str) -> Result<Option<String>, Wrong> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => scalar(value).map(Some).ok_or_else(|| self.wrong(key, "want a single value")),
        }
    }
    fn duration(&self, key: &str) -> Result<Option<Duration>, Wrong> {
        match self.text(key)? {
            Some(text) => duration::parse(&text).map(Some).map_err(|message| self.wrong(key, message)),
            None => Ok(None),
        }
    }
    fn number(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, Wrong> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let range = if most > u64::from(u32::MAX) {
            format!("from {least} on")
        } else {
            format!("from {least} to {most}")
        };
        number.map(Some).ok_or_else(|| self.wrong(key, format!("{text:?} is not a whole number {range}")))
    }
    fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
        let text = self.text(key)?;
        let (_, first) = choices.first().copied().ok_or_else(|| self.wrong(key, "nothing to choose from"))?;
        let Some(text) = text else { return Ok(first) };
        choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.wrong(key, format!("{text:?} is none of {}", names.join(", ")))
        })
    }
    /// One word or a list of words.
    fn words(&self, key: &str) -> Result<Vec<String>, Wrong> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .map(|value| scalar(value).ok_or_else(|| self.wrong(key, "want a list of words")))
                .collect(),
            Some(value) => {
                Ok(vec![scalar(value).ok_or_else(|| self.wrong(key, "want a word or a list of words"))?])
            }
        }
    }
    /// As [`Keys::words`], or a mapping: `role: database` is `role=database`.
    fn words_or_pairs(&self, key: &str) -> Result<Vec<String>, Wrong> {
        let Some(Value::Object(map)) = self.map.get(key) else { return self.words(key) };
        map.iter()
            .map(|(name, value)| match value {
                Value::Null => Ok(name.clone()),
                value => scalar(value)
                    .map(|value| format!("{name}={value}"))
                    .ok_or_else(|| self.wrong(key, "want labels")),
            })
            .collect()
    }
    /// A command: a list of words; one string is for a shell.
    fn command(&self, key: &str) -> Result<Vec<String>, Wrong> {
        match self.map.get(key) {
            Some(Value::String(line)) if !line.is_empty() => {
                Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
            }
            _ => self.words(key),
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(boolean) => Some(boolean.to_string()),
        _ => None,
    }
}

/// How many letters differ (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
