//! The command line's shape: one table of verbs, from which parsing, help, completion and man pages all come.

use crate::args::{Given, flag, list, opt};
use crate::command;
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

/// A command on its way.
pub type Task = Pin<Box<dyn Future<Output = Outcome>>>;

/// One verb: `cauldron container run` and its short form `cauldron run`.
pub struct Verb {
    /// The management group; empty for a verb without one.
    pub group: &'static str,
    /// Its name in the group, then other names.
    pub names: &'static [&'static str],
    /// Its names without the group.
    pub top: &'static [&'static str],
    /// After the flags in the usage line.
    pub usage: &'static str,
    /// One line of what it does.
    pub about: &'static str,
    /// Examples and notes, below the help.
    pub more: &'static str,
    /// Its flags and arguments.
    pub args: fn() -> Vec<Arg>,
    /// What it does.
    pub run: fn(Session, ArgMatches) -> Task,
    /// The exit code of an engine's error.
    pub failure: u8,
    /// Not listed in the help.
    pub hidden: bool,
}

/// The defaults of a verb.
pub const VERB: Verb = Verb {
    group: "",
    names: &[],
    top: &[],
    usage: "",
    about: "",
    more: "",
    args: Vec::new,
    run: |_, _| Box::pin(async { Ok(0) }),
    failure: 1,
    hidden: false,
};

/// Management groups.
const GROUPS: &[(&str, &str)] = &[
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("manifest", "Look at manifests in registries"),
    ("network", "Manage networks"),
    ("volume", "Manage volumes"),
    ("task", "Containers as binaries: run them for other containers, on schedules, with a history"),
    ("helper", "What prepares a volume once: its ledger"),
    ("system", "Manage the engine"),
    ("tls", "Make certificates for engines and clients that meet over TCP"),
    ("builder", "Manage builds"),
    ("context", "Manage contexts"),
    ("buildx", "Build, under the name that newer Docker versions use"),
    ("compose", "Define and run multi-container applications"),
];

/// Every verb.
pub fn verbs() -> impl Iterator<Item = &'static Verb> {
    command::ALL.iter().flat_map(|verbs| verbs.iter())
}

fn globals() -> Vec<Arg> {
    vec![
        list(
            "host",
            "H",
            "list",
            "Engine to use instead of this process: unix://, tcp://, http://, https://, ssh://",
        ),
        opt(
            "context",
            "c",
            "string",
            "Name of a Docker CLI context to use (DOCKER_CONTEXT); 'default' is this process",
        ),
        opt("root", "", "dir", "Durable state [CAULDRON_ROOT, /var/lib/cauldron]"),
        opt("run-root", "", "dir", "State that dies with the boot [CAULDRON_RUN_ROOT, /run/cauldron]"),
        opt("config-file", "", "file", "Configuration [CAULDRON_CONFIG, /etc/cauldron/config.toml]"),
        opt("config", "", "dir", "Location of client config files (credentials, contexts)"),
        flag("debug", "D", "Accepted for compatibility"),
        opt("log-level", "l", "string", "Accepted for compatibility"),
        flag("tls", "", "Use TLS; implied by --tlsverify"),
        opt("tlscacert", "", "file", "Trust certs signed only by this CA"),
        opt("tlscert", "", "file", "Path to TLS certificate file"),
        opt("tlskey", "", "file", "Path to TLS key file"),
        flag("tlsverify", "", "Use TLS and verify the remote"),
        Arg::new("version")
            .long("version")
            .short('v')
            .action(ArgAction::SetTrue)
            .help("Print version information and quit"),
    ]
}

/// `wanted`: with its flags, which only the verb that runs needs.
fn leaf(name: &'static str, verb: &'static Verb, path: &str, wanted: bool) -> Command {
    let mut command = Command::new(name).about(verb.about).hide(verb.hidden);
    if !verb.more.is_empty() {
        command = command.after_help(verb.more);
    }
    if !wanted {
        return command;
    }
    let args = (verb.args)();
    let options = if args.iter().any(|arg| !arg.is_positional()) { " [OPTIONS]" } else { "" };
    let short_taken = args.iter().any(|arg| arg.get_short() == Some('h'));
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print usage");
    command
        .disable_help_flag(true)
        .args_override_self(true)
        .override_usage(format!(
            "{path}{options}{}{}",
            if verb.usage.is_empty() { "" } else { " " },
            verb.usage
        ))
        .args(args)
        .arg(if short_taken { help } else { help.short('h') })
}

/// What of the command line `argv` could mean. Building every verb is a good part of a short command's own work, so where a word
/// names a verb only those that are named are built; all are where help is asked for, or where nothing is named.
#[derive(Clone, Copy)]
struct Wanted<'a>(Option<&'a [OsString]>);

impl Wanted<'_> {
    fn has(self, names: &[&str]) -> bool {
        self.0.is_none_or(|argv| argv.iter().any(|word| names.iter().any(|name| word == name)))
    }
    /// This, or everything where it would leave none of `all`.
    fn some_of<'n>(self, mut all: impl Iterator<Item = &'n [&'n str]>) -> Self {
        let help = ["help", "--help", "-h"];
        let asked = self.0.is_some_and(|argv| argv.iter().any(|word| help.iter().any(|name| word == name)));
        Self(self.0.filter(|_| !asked && all.any(|names| self.has(names))))
    }
}

/// The command line: every verb that `argv` could mean, with the flags of those that it names (of all without one).
pub fn root(program: &str, argv: Option<&[OsString]>) -> Command {
    let flags = Wanted(argv);
    let groups = GROUPS.iter().map(|(group, _)| std::slice::from_ref(group));
    let built = flags.some_of(groups.chain(verbs().map(|verb| verb.top)));
    let name: &'static str = if program == "docker" { "docker" } else { "cauldron" };
    let mut root = Command::new(name)
        .about("A container engine for everything that is not a server. It needs no daemon.")
        .after_help("Run 'cauldron COMMAND --help' for more about a command, with examples.\n\nWith no -H, context or DOCKER_HOST the engine is this process; state is below --root.")
        .disable_help_subcommand(false)
        .subcommand_required(false)
        .args_override_self(true)
        .args(globals());
    for (group, about) in GROUPS.iter().filter(|(group, _)| built.has(&[group])) {
        let below = built.some_of(verbs().filter(|verb| verb.group == *group).map(|verb| verb.names));
        let mut command = Command::new(*group)
            .about(*about)
            .disable_help_subcommand(true)
            .subcommand_required(true)
            .arg_required_else_help(true);
        if ["compose", "task", "helper"].contains(group) {
            command = command.args_override_self(true).args(command::compose::globals());
        }
        for verb in verbs().filter(|verb| verb.group == *group && below.has(verb.names)) {
            let (first, others) = verb.names.split_first().unwrap_or((&"", &[]));
            command = command.subcommand(
                leaf(first, verb, &format!("{name} {group} {first}"), flags.has(verb.names))
                    .aliases(others.iter().copied()),
            );
        }
        root = root.subcommand(command);
    }
    for verb in verbs() {
        if let Some((first, others)) = verb.top.split_first().filter(|_| built.has(verb.top)) {
            root = root.subcommand(
                leaf(first, verb, &format!("{name} {first}"), flags.has(verb.top))
                    .aliases(others.iter().copied()),
            );
        }
    }
    root
}

/// What another verb does with these arguments, as if they had been typed.
///
/// # Errors
/// As that verb.
pub async fn delegate(session: &Session, top: &'static str, argv: Vec<String>) -> Outcome {
    let verb = verbs().find(|verb| verb.top.first() == Some(&top));
    let verb = verb.ok_or_else(|| Failure::new(format!("'{top}' is not a command")))?;
    let command = leaf(top, verb, top, true);
    let matches = command
        .try_get_matches_from(std::iter::once(top.to_owned()).chain(argv))
        .map_err(|error| Failure::new(error.render().to_string()))?;
    (verb.run)(session.clone(), matches).await
}

/// Parses, runs and tells the exit code.
pub fn main(argv: &[OsString]) -> ExitCode {
    let program =
        argv.first().map(PathBuf::from).and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let program = match program.as_deref() {
        Some("docker") => "docker",
        _ => "cauldron",
    };
    // Never dropped: taking hundreds of arguments apart costs time, and the process is short-lived.
    let mut command = std::mem::ManuallyDrop::new(root(program, Some(argv)));
    let matches = match command.try_get_matches_from_mut(argv) {
        Ok(matches) => matches,
        Err(error) => return ExitCode::from(malformed(program, &error)),
    };
    let group = matches.subcommand().map(|(_, inner)| inner.clone());
    let session =
        Session::new(engine(&matches), program.to_owned(), matches.text("config").map(PathBuf::from), group);
    if matches.get_flag("version") {
        let text = format!("Cauldron version {}\n", env!("CARGO_PKG_VERSION"));
        return exit(&session, session.out(&text).map(|()| 0), 1);
    }
    let Some((name, inner)) = matches.subcommand() else {
        let help = root(program, Some(&[])).render_help().to_string();
        return exit(&session, session.out(&help).map(|()| 0), 1);
    };
    let (verb, inner) = match inner.subcommand() {
        Some((leaf, inner)) => {
            (verbs().find(|verb| verb.group == name && verb.names.first() == Some(&leaf)), inner)
        }
        None => (verbs().find(|verb| verb.top.first() == Some(&name)), inner),
    };
    let Some(verb) = verb else {
        return exit(&session, Err(Failure::new(format!("'{name}' is not a command"))), 1);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(async {
                tokio::select! {
                    biased;
                    outcome = (verb.run)(session.clone(), inner.clone()) => outcome,
                    number = crate::stop::unheld() => Err(Failure::silent(128 + number)),
                }
            });
            // A thread that still reads stdin must not hold the exit up.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::new(format!("start the runtime: {error}"))),
    };
    exit(&session, outcome, verb.failure)
}

fn exit(session: &Session, outcome: Outcome, code: u8) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            session.complain(&failure);
            ExitCode::from(failure.code.unwrap_or(code))
        }
    }
}

fn engine(matches: &ArgMatches) -> client::Options {
    let path = |flag: &str| matches.text(flag).map(PathBuf::from);
    let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    client::Options {
        host: matches.texts("host").pop(),
        context: matches.text("context").map(str::to_owned),
        config: path("config"),
        tls: client::TlsFiles {
            enabled: matches.on("tls") || matches.on("tlsverify"),
            verify: matches.on("tlsverify"),
            ca: path("tlscacert"),
            cert: path("tlscert"),
            key: path("tlskey"),
        },
        roots: client::Roots {
            root: absolute(
                path("root").or_else(|| env("CAULDRON_ROOT")).unwrap_or_else(|| "/var/lib/cauldron".into()),
            ),
            run_root: absolute(
                path("run-root")
                    .or_else(|| env("CAULDRON_RUN_ROOT"))
                    .unwrap_or_else(|| "/run/cauldron".into()),
            ),
            config: path("config-file").or_else(|| env("CAULDRON_CONFIG")),
        },
    }
}

/// Says what is wrong with the command line, as Docker does: 125 for a flag, 1 for the rest; help is no error.
fn malformed(program: &str, error: &clap::Error) -> u8 {
    use std::io::Write;
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(" ")),
        _ => None,
    };
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let _ = error.print();
        return 0;
    }
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let rendered = error.render().to_string();
    let usage = rendered.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default().to_owned();
    let path: Vec<&str> = usage
        .split_whitespace()
        .take_while(|word| {
            !word.starts_with(['[', '<', '-']) && !word.contains(|c: char| c.is_ascii_uppercase())
        })
        .collect();
    let arguments = usage.split_whitespace().skip(path.len()).collect::<Vec<_>>().join(" ");
    let path = if path.is_empty() { program.to_owned() } else { path.join(" ") };
    let (text, code) = match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with("--") => {
            (format!("unknown flag: {}", argument.split('=').next().unwrap_or(&argument)), 125)
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => (
            format!("unknown shorthand flag: '{}' in {argument}", argument.chars().nth(1).unwrap_or('-')),
            125,
        ),
        ErrorKind::UnknownArgument
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues => (format!("'{path}' {}", Arity::of(&arguments).words()), 1),
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("unknown command: {path} {name}"), 1)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            let flag = argument.split([' ', '=', '[']).next().unwrap_or_default().to_owned();
            if value.is_empty() {
                (format!("flag needs an argument: {flag}"), 125)
            } else {
                let flag = crate::args::shown(flag.trim_start_matches('-'));
                // Only switches are read by the parser itself.
                (
                    format!(
                        "invalid argument \"{value}\" for \"{flag}\" flag: strconv.ParseBool: parsing \"{value}\": invalid syntax"
                    ),
                    125,
                )
            }
        }
        _ => (rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(), 125),
    };
    let _ = writeln!(std::io::stderr(), "{program}: {text}\nSee '{path} --help'.");
    code
}

/// How many arguments a usage line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arity {
    least: usize,
    most: Option<usize>,
}

impl Arity {
    /// Reads what stands after the flags: `CONTAINER [CONTAINER...]`, `PATH | URL | -`, `A B  |  C D`.
    fn of(arguments: &str) -> Self {
        let mut arity = Self { least: 0, most: Some(0) };
        let words: Vec<&str> =
            arguments.split_whitespace().filter(|word| !["[OPTIONS]", "[FLAGS]"].contains(word)).collect();
        let mut words = words.split(|word| *word == "|").next().unwrap_or_default().iter();
        for word in words.by_ref() {
            // `[ps OPTIONS]` is one.
            if word.ends_with(']') && !word.contains('[') {
                arity.most = None;
                continue;
            }
            arity.least += usize::from(!word.starts_with('['));
            arity.most = match arity.most {
                Some(most) if !word.contains("...") => Some(most + 1),
                _ => None,
            };
        }
        arity
    }
    /// Docker's words (docker/cli `cli/required.go`).
    fn words(self) -> String {
        let some = |count: usize| format!("{count} argument{}", if count == 1 { "" } else { "s" });
        match (self.least, self.most) {
            (_, Some(0)) => "accepts no arguments".to_owned(),
            (least, Some(most)) if least == most => format!("requires {}", some(most)),
            (0, Some(most)) => format!("requires at most {}", some(most)),
            (least, Some(most)) => format!("requires at least {least} and at most {}", some(most)),
            (least, None) => format!("requires at least {}", some(least)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_counted_by_the_usage_line() {
        for (usage, words) in [
            ("", "accepts no arguments"),
            ("[OPTIONS]", "accepts no arguments"),
            ("[OPTIONS] CONTAINER", "requires 1 argument"),
            ("CONTAINER NEW_NAME", "requires 2 arguments"),
            ("[OPTIONS] CONTAINER [CONTAINER...]", "requires at least 1 argument"),
            ("[OPTIONS] CONTAINER COMMAND [ARG...]", "requires at least 2 arguments"),
            ("CONTAINER [ps OPTIONS]", "requires at least 1 argument"),
            ("[OPTIONS] [REPOSITORY[:TAG]]", "requires at most 1 argument"),
            ("[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "requires at least 1 and at most 2 arguments"),
            ("[OPTIONS] PATH | URL | -", "requires 1 argument"),
            ("[OPTIONS] C:SRC DEST|-  |  SRC|- C:DEST", "requires 2 arguments"),
        ] {
            assert_eq!(Arity::of(usage).words(), words, "{usage}");
        }
    }

    fn run(args: &[&str]) -> Result<ArgMatches, clap::Error> {
        root("cauldron", None).try_get_matches_from(std::iter::once("cauldron").chain(args.iter().copied()))
    }

    #[test]
    fn the_table_is_sound() {
        let mut command = root("cauldron", None);
        command.build();
        command.debug_assert();
    }

    #[test]
    fn what_is_built_is_enough() {
        let parse = |args: &[&str]| {
            let argv: Vec<OsString> = std::iter::once(&"cauldron").chain(args).map(OsString::from).collect();
            root("cauldron", Some(&argv)).try_get_matches_from(&argv)
        };
        for verb in verbs() {
            for name in verb.top {
                let error = parse(&[name, "--no-such-flag"]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{name}");
            }
            for name in verb.names.iter().filter(|_| !verb.group.is_empty()) {
                let error = parse(&["--root", "/x", verb.group, name, "--no-such-flag"]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{} {name}", verb.group);
            }
        }
        let help = |args: &[&str]| parse(args).unwrap_err().render().to_string();
        assert!(help(&["--help"]).contains("commit") && help(&["help"]).contains("commit"));
        assert!(help(&["container"]).contains("prune") && help(&["container", "--help"]).contains("prune"));
        assert_eq!(parse(&["nope", "run"]).unwrap_err().kind(), ErrorKind::InvalidSubcommand);
        // A word of the container's own command that is a verb too.
        let matches = parse(&["run", "image", "ps", "container"]).unwrap();
        assert_eq!(matches.subcommand().unwrap().1.texts("args"), ["image", "ps", "container"]);
    }

    #[test]
    fn docker_spellings() {
        let matches = run(&[
            "-H",
            "unix:///x",
            "run",
            "-itd",
            "--rm=false",
            "--detach=true",
            "-e",
            "A=1",
            "-eB=2",
            "--memory-swap",
            "-1",
            "img",
            "--rm",
            "-x",
            "--",
            "y",
        ])
        .unwrap();
        let (_, run) = matches.subcommand().unwrap();
        assert!(run.on("interactive") && run.on("tty") && run.on("detach") && !run.on("rm"));
        assert_eq!(run.texts("env"), ["A=1", "B=2"]);
        assert_eq!(run.text("memory-swap"), Some("-1"));
        assert_eq!(run.texts("args"), ["img", "--rm", "-x", "--", "y"]);
    }

    #[test]
    fn refused() {
        for args in
            [&["run"][..], &["run", "--nope", "img"], &["nope"], &["ps", "extra"], &["run", "--rm=x", "img"]]
        {
            assert!(run(args).is_err(), "{args:?}");
        }
    }
}
