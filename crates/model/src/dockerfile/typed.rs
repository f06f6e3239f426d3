//! Syntax tree to typed instructions.

use super::error::{Source, suggestion};
use super::instruction::{Command, Copy, Dockerfile, Instruction, Network, Run, Stage, Step};
use super::syntax::{self, Heredoc, Node};
use crate::container::Healthcheck;
use crate::{Error, Result};

/// Parses a Dockerfile down to typed instructions. `file` is its name in errors.
///
/// # Errors
/// An invalid argument that names file, line and source line.
pub fn parse(file: &str, text: &str) -> Result<Dockerfile> {
    let syntax = syntax::parse(file, text)?;
    let source = Source { file, text };
    let mut dockerfile = Dockerfile { global_args: Vec::new(), stages: Vec::new(), escape: syntax.escape };
    for node in &syntax.nodes {
        let located = |error: Error| match error.hint_text() {
            Some(hint) => source.advice(node.lines, error.message(), hint),
            None => source.error(node.lines, error.message()),
        };
        if node.keyword == "from" {
            dockerfile.stages.push(stage(node).map_err(located)?);
            continue;
        }
        let instruction = instruction(node).map_err(located)?;
        match (dockerfile.stages.last_mut(), instruction) {
            (Some(stage), instruction) => stage.steps.push(Step {
                instruction,
                lines: node.lines,
                text: node.original.trim().to_owned(),
            }),
            (None, Instruction::Arg(args)) => dockerfile.global_args.extend(args),
            (None, other) => {
                let error = Error::invalid(format!(
                    "no build stage in current context: {} before the first FROM",
                    other.keyword()
                ));
                return Err(located(error.hint("start with FROM; only ARG may stand before it")));
            }
        }
    }
    if dockerfile.stages.is_empty() {
        return Err(source.error((0, 0), "no build stage: the file has no FROM"));
    }
    Ok(dockerfile)
}

/// Parses the `ONBUILD` triggers of a base image. They stand at the stage's beginning.
///
/// # Errors
/// A trigger is malformed or is one that may not be.
pub fn triggers(texts: &[String]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for text in texts {
        let file = "ONBUILD trigger";
        for node in &syntax::parse(file, text)?.nodes {
            let located = |error: Error| Source { file, text }.error(node.lines, error.message());
            forbidden_trigger(&node.keyword).map_err(located)?;
            let instruction = instruction(node).map_err(located)?;
            steps.push(Step { instruction, lines: node.lines, text: node.original.trim().to_owned() });
        }
    }
    Ok(steps)
}

fn forbidden_trigger(keyword: &str) -> Result<()> {
    match keyword {
        "onbuild" => Err(Error::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "from" | "maintainer" => Err(Error::invalid(format!(
            "{} isn't allowed as an ONBUILD trigger",
            keyword.to_ascii_uppercase()
        ))),
        _ => Ok(()),
    }
}

fn stage(node: &Node) -> Result<Stage> {
    let flags = Flags::of(node, &["platform"])?;
    let (base, name) = match node.args.as_slice() {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(name.to_ascii_lowercase())),
        _ => {
            return Err(Error::invalid("FROM requires either one or three arguments")
                .hint("FROM [--platform=PLATFORM] IMAGE [AS NAME]"));
        }
    };
    if let Some(name) = &name {
        let legal = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if !legal || !name.as_bytes()[0].is_ascii_lowercase() {
            return Err(Error::invalid(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            )));
        }
    }
    Ok(Stage {
        name,
        base: base.clone(),
        platform: flags.value("platform")?,
        steps: Vec::new(),
        lines: node.lines,
        text: node.original.trim().to_owned(),
    })
}

fn instruction(node: &Node) -> Result<Instruction> {
    let flags = Flags::of(node, allowed_flags(&node.keyword))?;
    let one = || match node.args.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::invalid(format!(
            "{} requires exactly one argument",
            node.keyword.to_ascii_uppercase()
        ))),
    };
    let some = || match node.args.as_slice() {
        [] => Err(Error::invalid(format!(
            "{} requires at least one argument",
            node.keyword.to_ascii_uppercase()
        ))),
        args => Ok(args.to_vec()),
    };
    Ok(match node.keyword.as_str() {
        "add" | "copy" => Instruction::Copy(copy(node, &flags)?),
        "arg" => Instruction::Arg(some()?.iter().map(|word| arg(word)).collect::<Result<_>>()?),
        "cmd" => Instruction::Cmd(command(node)),
        "entrypoint" => Instruction::Entrypoint(command(node)),
        "env" => Instruction::Env(pairs(node)?),
        "label" => Instruction::Label(pairs(node)?),
        "expose" => Instruction::Expose(some()?),
        "healthcheck" => Instruction::Healthcheck(healthcheck(node, &flags)?),
        "maintainer" => Instruction::Maintainer(one()?),
        "onbuild" => Instruction::Onbuild(onbuild(node)?),
        "run" => Instruction::Run(run(node, &flags)?),
        "shell" if node.json && !node.args.is_empty() => Instruction::Shell(node.args.clone()),
        "shell" => return Err(Error::invalid("SHELL requires the arguments to be in JSON form")),
        "stopsignal" => Instruction::StopSignal(one()?),
        "user" => Instruction::User(one()?),
        "volume" => {
            let paths = some()?;
            if paths.iter().any(|path| path.trim().is_empty()) {
                return Err(Error::invalid("VOLUME specified can not be an empty string"));
            }
            Instruction::Volume(paths)
        }
        "workdir" => Instruction::Workdir(one()?),
        other => return Err(Error::invalid(format!("unknown instruction: {}", other.to_ascii_uppercase()))),
    })
}

fn allowed_flags(keyword: &str) -> &'static [&'static str] {
    match keyword {
        "add" => &["chown", "chmod", "link", "keep-git-dir", "checksum", "exclude", "unpack"],
        "copy" => &["from", "chown", "chmod", "link", "parents", "exclude"],
        "healthcheck" => &["interval", "timeout", "start-period", "start-interval", "retries"],
        "run" => &["mount", "network", "security", "device"],
        _ => &[],
    }
}

/// The flags of one instruction, checked against the names that it has.
struct Flags<'a> {
    found: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Flags<'a> {
    fn of(node: &'a Node, allowed: &[&str]) -> Result<Self> {
        let mut found: Vec<(&str, Option<&str>)> = Vec::new();
        for flag in &node.flags {
            let bare = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) =
                bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
            if !allowed.contains(&name) {
                let meant = suggestion(name, allowed.iter().copied())
                    .map(|name| format!(" (did you mean --{name}?)"));
                return Err(Error::invalid(format!("unknown flag: --{name}{}", meant.unwrap_or_default())));
            }
            if found.iter().any(|(other, _)| *other == name)
                && !matches!(name, "mount" | "exclude" | "device")
            {
                return Err(Error::invalid(format!("duplicate flag specified: --{name}")));
            }
            found.push((name, value));
        }
        Ok(Self { found })
    }
    fn value(&self, name: &str) -> Result<Option<String>> {
        match self.found.iter().find(|(flag, _)| *flag == name) {
            None => Ok(None),
            Some((_, Some(value))) => Ok(Some((*value).to_owned())),
            Some((_, None)) => Err(Error::invalid(format!("missing a value on flag: --{name}"))),
        }
    }
    fn values(&self, name: &str) -> Result<Vec<&'a str>> {
        let all = self.found.iter().filter(|(flag, _)| *flag == name);
        all.map(|(_, value)| {
            value.ok_or_else(|| Error::invalid(format!("missing a value on flag: --{name}")))
        })
        .collect()
    }
    fn boolean(&self, name: &str) -> Result<Option<bool>> {
        match self.found.iter().find(|(flag, _)| *flag == name) {
            None => Ok(None),
            Some((_, None | Some("true"))) => Ok(Some(true)),
            Some((_, Some("false"))) => Ok(Some(false)),
            Some((_, Some(value))) => {
                Err(Error::invalid(format!("expecting boolean value for flag --{name}, not: {value}")))
            }
        }
    }
}

fn command(node: &Node) -> Command {
    Command { words: node.args.clone(), shell: !node.json && !node.args.is_empty() }
}

fn arg(word: &str) -> Result<(String, Option<String>)> {
    let (name, value) =
        word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
    if name.is_empty() {
        return Err(Error::invalid("ARG names can not be blank"));
    }
    Ok((name.to_owned(), value))
}

fn pairs(node: &Node) -> Result<Vec<(String, String)>> {
    let keyword = node.keyword.to_ascii_uppercase();
    if node.args.is_empty() {
        return Err(Error::invalid(format!("{keyword} requires at least one argument")));
    }
    let pair = |triple: &[String]| match triple {
        [name, value, _] if !name.is_empty() => Ok((name.clone(), value.clone())),
        _ => Err(Error::invalid(format!("{keyword} names can not be blank"))),
    };
    node.args.chunks(3).map(pair).collect()
}

fn run(node: &Node, flags: &Flags<'_>) -> Result<Run> {
    if node.args.is_empty() {
        return Err(Error::invalid("RUN requires at least one argument"));
    }
    let network = match flags.value("network")?.as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            return Err(
                Error::invalid(format!("invalid network mode {other:?}")).hint("default, none or host")
            );
        }
    };
    let insecure = match flags.value("security")?.as_deref() {
        None | Some("sandbox") => false,
        Some("insecure") => true,
        Some(other) => {
            return Err(
                Error::invalid(format!("security {other:?} is not valid")).hint("sandbox or insecure")
            );
        }
    };
    if !flags.values("device")?.is_empty() {
        return Err(Error::invalid("RUN --device is not supported"));
    }
    let mounts = flags.values("mount")?.into_iter().map(mount).collect::<Result<_>>()?;
    Ok(Run { command: command(node), heredocs: node.heredocs.clone(), mounts, network, insecure })
}

/// Keys of `--mount`, all types taken together.
const MOUNT_KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "size",
    "required",
    "mode",
    "uid",
    "gid",
    "env",
];

/// `--mount=key=value,…`: a line of comma-separated values, which may be quoted.
fn mount(text: &str) -> Result<Vec<(String, Option<String>)>> {
    let mut options = Vec::new();
    for field in comma_separated(text) {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value.to_owned())));
        let key = key.trim().to_ascii_lowercase();
        if !MOUNT_KEYS.contains(&key.as_str()) {
            let meant =
                suggestion(&key, MOUNT_KEYS.iter().copied()).map(|key| format!(" (did you mean {key}?)"));
            return Err(Error::invalid(format!(
                "unexpected key '{key}' in '{field}'{}",
                meant.unwrap_or_default()
            )));
        }
        if value.is_none() && !matches!(key.as_str(), "readonly" | "ro" | "readwrite" | "rw" | "required") {
            return Err(Error::invalid(format!("invalid field '{field}' must be a key=value pair")));
        }
        if key == "from" && value.as_deref().is_some_and(|value| value.contains('$')) {
            return Err(Error::invalid(
                "'from' doesn't support variable expansion, define alias stage instead",
            ));
        }
        options.push((key, value));
    }
    Ok(options)
}

fn comma_separated(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

fn copy(node: &Node, flags: &Flags<'_>) -> Result<Copy> {
    let keyword = node.keyword.to_ascii_uppercase();
    let [sources @ .., target] = node.args.as_slice() else {
        return Err(Error::invalid(format!(
            "{keyword} requires at least two arguments, but only 0 were provided"
        )));
    };
    if sources.is_empty() {
        let hint = format!("{keyword} SOURCE… DESTINATION");
        return Err(Error::invalid(format!("{keyword} requires at least two arguments, but only one was provided. Destination could not be determined")).hint(hint));
    }
    let inline = |word: &str| if node.json { None } else { Heredoc::marker(word) };
    if inline(target).is_some() {
        return Err(Error::invalid(format!("{keyword} cannot accept a heredoc as a destination")));
    }
    let mut copy = Copy {
        add: node.keyword == "add",
        target: target.clone(),
        from: flags.value("from")?,
        chown: flags.value("chown")?,
        chmod: flags.value("chmod")?,
        link: flags.boolean("link")?.unwrap_or(false),
        parents: flags.boolean("parents")?.unwrap_or(false),
        exclude: flags.values("exclude")?.into_iter().map(str::to_owned).collect(),
        checksum: flags.value("checksum")?,
        keep_git_dir: flags.boolean("keep-git-dir")?.unwrap_or(false),
        unpack: flags.boolean("unpack")?,
        ..Copy::default()
    };
    if copy.from.as_deref().is_some_and(|from| from.contains('$')) {
        let hint = "define a new stage with FROM using ARG from global scope as a workaround";
        return Err(Error::invalid("variable expansion is not supported for --from").hint(hint));
    }
    if let Some(chmod) = copy.chmod.as_deref().filter(|chmod| !chmod.contains('$')) {
        super::chmod::Chmod::parse(chmod)?;
    }
    if copy.checksum.is_some() && sources.len() > 1 {
        return Err(Error::invalid("checksum can't be specified for multiple sources"));
    }
    if copy.checksum.is_some() && !sources.iter().all(|source| remote_or_variable(source)) {
        return Err(Error::invalid("checksum can't be specified for non-HTTP(S) or git sources"));
    }
    for source in sources {
        match inline(source)
            .and_then(|marker| node.heredocs.iter().rfind(|heredoc| heredoc.name == marker.name))
        {
            Some(heredoc) => copy.files.push(heredoc.clone()),
            None => copy.sources.push(source.clone()),
        }
    }
    Ok(copy)
}

/// A source that is fetched, or may turn out to be one when its variables are known.
fn remote_or_variable(source: &str) -> bool {
    source.contains('$') || super::remote::is_http(source) || super::remote::Git::parse(source).is_some()
}

fn onbuild(node: &Node) -> Result<String> {
    let Some(child) = &node.child else {
        return Err(Error::invalid("ONBUILD requires at least one argument"));
    };
    forbidden_trigger(&child.keyword)?;
    // What is malformed now would only fail in another's build.
    instruction(child)?;
    let mut text = child.original.trim().to_owned();
    for heredoc in &child.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn healthcheck(node: &Node, flags: &Flags<'_>) -> Result<Healthcheck> {
    let [kind, words @ ..] = node.args.as_slice() else {
        return Err(Error::invalid("HEALTHCHECK requires at least one argument")
            .hint("HEALTHCHECK [OPTIONS] CMD command, or HEALTHCHECK NONE"));
    };
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if !words.is_empty() => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "NONE" => return Ok(Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() }),
        "CMD" if words.is_empty() => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        "CMD" => {}
        _ => return Err(Error::invalid(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"))),
    }
    let form = if node.json { "CMD" } else { "CMD-SHELL" };
    let duration = |name: &str| -> Result<i64> {
        let Some(text) = flags.value(name)? else { return Ok(0) };
        let nanoseconds = duration(&text)
            .ok_or_else(|| Error::invalid(format!("invalid duration {text:?} for --{name}")))?;
        if nanoseconds != 0 && nanoseconds < 1_000_000 {
            return Err(Error::invalid(format!("Interval {name:?} cannot be less than 1ms")));
        }
        Ok(nanoseconds)
    };
    let retries = match flags.value("retries")? {
        None => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(count) if count >= 0 => count,
            Ok(count) => return Err(Error::invalid(format!("--retries cannot be negative ({count})"))),
            Err(_) => return Err(Error::invalid(format!("--retries {text:?} is not a number"))),
        },
    };
    Ok(Healthcheck {
        test: Some(std::iter::once(form.to_owned()).chain(words.iter().cloned()).collect()),
        interval: duration("interval")?,
        timeout: duration("timeout")?,
        start_period: duration("start-period")?,
        start_interval: duration("start-interval")?,
        retries,
    })
}

/// Go's duration (`1h30m`, `1.5s`, `300ms`, `0`) in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units: [(&str, f64); 8] = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("μs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 6e10),
            ("h", 3.6e12),
        ];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * scale;
    }
    (total < 9.2e18).then_some(total.round() as i64)
}
