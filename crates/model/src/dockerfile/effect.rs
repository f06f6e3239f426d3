//! What instructions do to an image's configuration, and the texts that history keeps of them.

use std::collections::BTreeMap;

use super::instruction::{Command, Copy, Instruction, Run};
use super::scope::{Argument, Scope};
use crate::container::{ContainerPath, Healthcheck, Port};
use crate::image::{Empty, ImageConfig, RunConfig};
use crate::{Error, Result};

/// The shell in front of the shell form.
pub fn shell(config: &RunConfig) -> Vec<String> {
    match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }
}

/// The argument vector of a command.
pub fn argv(command: &Command, config: &RunConfig) -> Vec<String> {
    if !command.shell {
        return command.words.clone();
    }
    let mut argv = shell(config);
    argv.extend(command.words.iter().cloned());
    argv
}

/// The directory that a relative one is meant from.
pub fn working_dir(config: &RunConfig) -> ContainerPath {
    ContainerPath::root().join(&config.working_dir)
}

/// Applies an (expanded) instruction that changes the configuration only. `cmd_set` remembers whether this stage has had a `CMD`:
/// `ENTRYPOINT` drops an inherited one. Returns history's text, or `None` for instructions that make files or leave no trace.
///
/// # Errors
/// A port, a signal or a name is malformed.
pub fn apply(
    config: &mut ImageConfig,
    instruction: &Instruction,
    cmd_set: &mut bool,
) -> Result<Option<String>> {
    let run = &mut config.config;
    Ok(Some(match instruction {
        Instruction::Env(pairs) => {
            for (name, value) in pairs {
                set_env(&mut run.env, name, value);
            }
            format!("ENV {}", joined(pairs))
        }
        Instruction::Label(pairs) => {
            run.labels.get_or_insert_default().extend(pairs.iter().cloned());
            format!("LABEL {}", joined(pairs))
        }
        Instruction::Maintainer(who) => {
            config.author = Some(who.clone());
            format!("MAINTAINER {who}")
        }
        Instruction::Cmd(command) => {
            let words = argv(command, run);
            let text = format!("CMD {}", quoted(&words));
            run.cmd = Some(words);
            run.args_escaped = true;
            *cmd_set = true;
            text
        }
        Instruction::Entrypoint(command) => {
            let words = argv(command, run);
            let text = format!("ENTRYPOINT {}", quoted(&words));
            run.entrypoint = Some(words);
            if !*cmd_set {
                run.cmd = None;
            }
            text
        }
        Instruction::Shell(words) => {
            run.shell = Some(words.clone());
            format!("SHELL [{}]", words.join(" "))
        }
        Instruction::User(user) => {
            run.user.clone_from(user);
            format!("USER {user}")
        }
        Instruction::Expose(ports) => expose(run, ports)?,
        Instruction::Volume(paths) => {
            let volumes = run.volumes.get_or_insert_default();
            for path in paths {
                if path.trim().is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                volumes.insert(path.clone(), Empty {});
            }
            format!("VOLUME [{}]", paths.join(" "))
        }
        Instruction::StopSignal(signal) => {
            if !valid_signal(signal) {
                return Err(Error::invalid(format!("invalid signal: {signal}")));
            }
            run.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Healthcheck(check) => {
            run.healthcheck = Some(check.clone());
            format!("HEALTHCHECK {}", check_text(check))
        }
        Instruction::Onbuild(trigger) => {
            run.on_build.get_or_insert_default().push(trigger.clone());
            return Ok(None);
        }
        Instruction::Arg(_) | Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => {
            return Ok(None);
        }
    }))
}

/// Replaces a variable where it stands, or adds it at the end.
pub fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let same = |other: &&mut String| other.split_once('=').map_or(other.as_str(), |(key, _)| key) == name;
    match env.iter_mut().find(same) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// `ARG` as history has it, with the values that count.
pub fn arg_text(args: &[Argument]) -> String {
    let mut text = "ARG".to_owned();
    for (name, value) in args {
        text.push_str(&format!(" {name}"));
        if let Some(value) = value {
            text.push_str(&format!("={value}"));
        }
    }
    text
}

/// `RUN` as history has it: `RUN |1 a=b /bin/sh -c … # buildkit`, with every declared argument.
pub fn run_text(argv: &[String], scope: &Scope) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in &scope.args {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let shown: Vec<String> =
        names.iter().map(|name| format!("{name}={} ", scope.get(name).unwrap_or_default())).collect();
    let prefix =
        if shown.is_empty() { String::new() } else { format!("|{} {}", shown.len(), shown.concat()) };
    format!("RUN {prefix}{} # buildkit", argv.join(" "))
}

/// `COPY` or `ADD` as history has it.
pub fn copy_text(copy: &Copy) -> String {
    let mut text = if copy.add { "ADD".to_owned() } else { "COPY".to_owned() };
    if let Some(chown) = &copy.chown {
        text.push_str(&format!(" --chown={chown}"));
    }
    if let Some(chmod) = &copy.chmod {
        text.push_str(&format!(" --chmod={chmod}"));
    }
    let files = copy.files.iter().map(|file| format!("<<{}", file.name));
    for source in copy.sources.iter().cloned().chain(files).chain([copy.target.clone()]) {
        text.push(' ');
        text.push_str(&source);
    }
    text + " # buildkit"
}

/// How a heredoc reaches its `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The argument vector.
    pub argv: Vec<String>,
    /// A file (name, content) that must lie in `/dev/pipes`, executable: a heredoc that starts with `#!`.
    pub file: Option<(String, String)>,
}

/// Where a heredoc with an interpreter lies while its `RUN` runs.
pub const PIPES: &str = "/dev/pipes";

/// The argument vector of `RUN`, heredocs worked in.
///
/// # Errors
/// Heredocs with the exec form.
pub fn script(run: &Run, config: &RunConfig) -> Result<Script> {
    let Some(first) = run.heredocs.first() else {
        return Ok(Script { argv: argv(&run.command, config), file: None });
    };
    let [line] = run.command.words.as_slice() else {
        return Err(Error::invalid("parsing produced an invalid run command: a heredoc with the exec form"));
    };
    let mut words = shell(config);
    if super::syntax::Heredoc::marker(line).is_none() {
        // The marker is part of a longer line: the shell reads the documents itself.
        let documents: Vec<String> =
            run.heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name)).collect();
        words.push(line.clone() + &documents.concat());
        return Ok(Script { argv: words, file: None });
    }
    if first.content.trim_start_matches('\t').starts_with("#!") && !first.name.contains('/') {
        words.push(format!("{PIPES}/{}", first.name));
        return Ok(Script { argv: words, file: Some((first.name.clone(), first.text())) });
    }
    words.push(first.text());
    Ok(Script { argv: words, file: None })
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn quoted(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "))
}

fn check_text(check: &Healthcheck) -> String {
    let test = check.test.as_deref().unwrap_or_default();
    format!(
        "&{{{} {:?} {:?} {:?} {:?} '\\x{:02x}'}}",
        quoted(test),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries
    )
}

/// Go's text of a duration in nanoseconds: `1m30s`, `500ms`, `1h0m0s`.
fn go_duration(nanoseconds: i64) -> String {
    let total = nanoseconds.unsigned_abs();
    if total < 1_000_000_000 && total > 0 {
        let (unit, size) = [("ms", 1_000_000), ("µs", 1000), ("ns", 1)]
            .into_iter()
            .find(|(_, size)| total >= *size)
            .unwrap_or(("ns", 1));
        return format!("{}{unit}", total as f64 / size as f64);
    }
    let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
    let seconds = format!("{}s", (total % 60_000_000_000) as f64 / 1e9);
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// Ports of one `EXPOSE` range at most: all there are.
fn expose(run: &mut RunConfig, specs: &[String]) -> Result<String> {
    let mut added: BTreeMap<String, Empty> = BTreeMap::new();
    for spec in specs {
        let bad = || {
            Error::invalid(format!("invalid containerPort: {spec}")).hint("EXPOSE PORT[-PORT][/tcp|udp|sctp]")
        };
        let (numbers, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
        // `HOST:CONTAINER` was legal once; the host's part never meant anything here.
        let numbers = numbers.rsplit(':').next().unwrap_or(numbers);
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let (first, last) =
            (first.parse::<u16>().map_err(|_| bad())?, last.parse::<u16>().map_err(|_| bad())?);
        if first > last {
            return Err(bad());
        }
        for number in first..=last {
            let port = Port::parse(&format!("{number}/{protocol}")).map_err(|_| bad())?;
            added.insert(port.to_string(), Empty {});
        }
    }
    let shown: Vec<&str> = added.keys().map(String::as_str).collect();
    let text = format!("EXPOSE [{}]", shown.join(" "));
    run.exposed_ports.get_or_insert_default().extend(added);
    Ok(text)
}

/// A number from 1 to 64, or a name with or without `SIG`.
fn valid_signal(signal: &str) -> bool {
    const NAMES: [&str; 34] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    if let Ok(number) = signal.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name) || name.starts_with("RTMIN") || name.starts_with("RTMAX")
}
