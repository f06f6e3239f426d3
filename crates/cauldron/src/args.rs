//! Flags in the spellings that Docker's users write: `--flag`, `--flag=true`, `-itd`, `-e X`, `--env=X`, the last
//! one of a repeated flag, values that begin with a hyphen.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches};

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("invalid argument {text:?}: not a boolean")),
    }
}

fn named(name: &'static str, short: &str, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help);
    match short.chars().next() {
        Some(c) => arg.short(c),
        None => arg,
    }
}

/// A switch; `--name=false` turns it off.
pub fn flag(name: &'static str, short: &str, help: &'static str) -> Arg {
    named(name, short, help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .action(ArgAction::Set)
        .value_parser(ValueParser::new(boolean))
        .hide_possible_values(true)
        .value_name("bool")
}

/// A flag with one value; the last one counts.
pub fn opt(name: &'static str, short: &str, value: &'static str, help: &'static str) -> Arg {
    named(name, short, help).action(ArgAction::Set).value_name(value).allow_hyphen_values(true)
}

/// A flag that may be repeated.
pub fn list(name: &'static str, short: &str, value: &'static str, help: &'static str) -> Arg {
    named(name, short, help).action(ArgAction::Append).value_name(value).allow_hyphen_values(true)
}

/// One positional argument.
pub fn one(name: &'static str) -> Arg {
    Arg::new(name).required(true)
}

/// One positional argument that may be left out.
pub fn maybe(name: &'static str) -> Arg {
    Arg::new(name)
}

/// At least one positional argument.
pub fn some(name: &'static str) -> Arg {
    Arg::new(name).required(true).num_args(1..)
}

/// Any number of positional arguments.
pub fn any(name: &'static str) -> Arg {
    Arg::new(name).num_args(0..)
}

/// Positional arguments from the first of which on nothing is a flag of ours.
pub fn rest(name: &'static str, least: usize) -> Arg {
    Arg::new(name).required(least > 0).num_args(least..).trailing_var_arg(true)
}

/// `--filter`.
pub fn filter() -> Arg {
    list("filter", "f", "filter", "Filter output based on conditions provided")
}

/// `--format` without a short form.
pub fn format() -> Arg {
    opt("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
}

/// `--quiet`.
pub fn quiet() -> Arg {
    flag("quiet", "q", "Only display IDs or names")
}

/// `--no-trunc`.
pub fn no_trunc() -> Arg {
    flag("no-trunc", "", "Don't truncate output")
}

/// `--filter` of prunes, where `-f` is `--force`.
pub fn prune_filter() -> Arg {
    list("filter", "", "filter", "Provide filter values (e.g. \"until=<timestamp>\")")
}

/// `--force` of prunes.
pub fn force() -> Arg {
    flag("force", "f", "Do not prompt for confirmation")
}

/// A flag as Docker's messages name it: `-m, --memory`.
pub fn shown(name: &str) -> String {
    const SHORT: [(&str, char); 11] = [
        ("attach", 'a'),
        ("cpu-shares", 'c'),
        ("env", 'e'),
        ("hostname", 'h'),
        ("label", 'l'),
        ("memory", 'm'),
        ("publish", 'p'),
        ("tag", 't'),
        ("timeout", 't'),
        ("user", 'u'),
        ("volume", 'v'),
    ];
    match SHORT.iter().find(|(long, _)| *long == name) {
        Some((_, short)) => format!("-{short}, --{name}"),
        None => format!("--{name}"),
    }
}

/// Docker's words for a flag whose value is wrong; exit code 125.
pub fn invalid(name: &str, value: &str, why: impl std::fmt::Display) -> crate::fail::Failure {
    crate::fail::Failure::new(format!("invalid argument \"{value}\" for \"{}\" flag: {why}", shown(name)))
        .code(125)
}

/// A flag's number, if it was given.
pub fn number<T: std::str::FromStr>(
    given: &ArgMatches,
    name: &str,
) -> Result<Option<T>, crate::fail::Failure> {
    given.text(name).map(|text| read_number(name, text)).transpose()
}

/// A flag's value as a number.
pub fn read_number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, crate::fail::Failure> {
    let wrong = || invalid(name, text, format_args!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
    text.parse().map_err(|_| wrong())
}

/// What was given, by a flag's name.
pub trait Given {
    /// Whether a switch is on.
    fn on(&self, name: &str) -> bool;
    /// A switch's value, if it was given.
    fn switch(&self, name: &str) -> Option<bool>;
    /// A value, if it was given.
    fn text(&self, name: &str) -> Option<&str>;
    /// Every value.
    fn texts(&self, name: &str) -> Vec<String>;
}

impl Given for ArgMatches {
    fn on(&self, name: &str) -> bool {
        self.switch(name).unwrap_or(false)
    }
    fn switch(&self, name: &str) -> Option<bool> {
        self.try_get_one::<bool>(name).ok().flatten().copied()
    }
    fn text(&self, name: &str) -> Option<&str> {
        self.try_get_one::<String>(name).ok().flatten().map(String::as_str)
    }
    fn texts(&self, name: &str) -> Vec<String> {
        self.try_get_many::<String>(name)
            .ok()
            .flatten()
            .map(|values| values.cloned().collect())
            .unwrap_or_default()
    }
}
