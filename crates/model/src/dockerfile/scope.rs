//! Arguments and environment: which value a name has at which instruction, and expansion of an instruction with them.

use std::collections::BTreeMap;

use super::expand::Lexer;
use super::instruction::{Copy, Instruction};
use super::syntax::Heredoc;
use crate::{Result, image::Platform};

/// Arguments that every `RUN` has in its environment without an `ARG`, when given; they are no part of cache keys or history.
pub const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// `PATH` where an image has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One argument with its value, if it has one.
pub type Argument = (String, Option<String>);

/// The arguments before the first `FROM`, those of the platform included.
#[derive(Clone, Debug, Default)]
pub struct Global {
    /// In order of declaration; a later one of the same name counts.
    pub args: Vec<Argument>,
    /// `--build-arg`.
    pub given: BTreeMap<String, String>,
    /// The escape character.
    pub escape: char,
}

impl Global {
    /// Evaluates the global arguments.
    ///
    /// # Errors
    /// A value cannot be expanded.
    pub fn new(
        declared: &[Argument],
        given: &BTreeMap<String, String>,
        platforms: Platforms<'_>,
        target: &str,
        escape: char,
    ) -> Result<Self> {
        let mut global = Self { args: platform_args(platforms, target), given: given.clone(), escape };
        for arg in &mut global.args {
            if let Some(value) = given.get(&arg.0) {
                arg.1 = Some(value.clone());
            }
        }
        for (name, default) in declared {
            let value = match (given.get(name), default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(global.expand(default)?),
                (None, None) => global.get(name),
            };
            global.args.push((name.clone(), value));
        }
        Ok(global)
    }
    fn get(&self, name: &str) -> Option<String> {
        last(&self.args, name).flatten()
    }
    /// A word of `FROM` as it is without any `--build-arg`; `None` where it cannot be expanded.
    pub fn default_of(&self, text: &str, declared: &[Argument]) -> Option<String> {
        let of_platform = self.args.len().saturating_sub(declared.len());
        let mut plain =
            Self { args: self.args[..of_platform].to_vec(), given: BTreeMap::new(), escape: self.escape };
        for (name, default) in declared {
            let value = default.as_ref().and_then(|default| plain.expand(default).ok());
            plain.args.push((name.clone(), value));
        }
        plain.expand(text).ok()
    }
    /// Expands a word of `FROM`.
    ///
    /// # Errors
    /// It cannot be expanded.
    pub fn expand(&self, text: &str) -> Result<String> {
        Lexer::new(self.escape).word(text, &|name| self.get(name))
    }
}

/// The platforms of a build.
#[derive(Clone, Copy, Debug)]
pub struct Platforms<'a> {
    /// Of the machine that builds.
    pub build: &'a Platform,
    /// Of the image.
    pub target: &'a Platform,
}

fn platform_args(platforms: Platforms<'_>, target: &str) -> Vec<Argument> {
    let mut args = Vec::new();
    for (prefix, platform) in [("BUILD", platforms.build), ("TARGET", platforms.target)] {
        let variant = platform.variant.clone().unwrap_or_default();
        let mut name = format!("{}/{}", platform.os, platform.architecture);
        if !variant.is_empty() {
            name = format!("{name}/{variant}");
        }
        for (key, value) in [
            ("PLATFORM", &name),
            ("OS", &platform.os),
            ("OSVERSION", &String::new()),
            ("ARCH", &platform.architecture),
            ("VARIANT", &variant),
        ] {
            args.push((format!("{prefix}{key}"), Some(value.clone())));
        }
    }
    args.push((
        "TARGETSTAGE".to_owned(),
        Some(if target.is_empty() { "default".to_owned() } else { target.to_owned() }),
    ));
    args
}

fn last(args: &[Argument], name: &str) -> Option<Option<String>> {
    args.iter().rev().find(|(arg, _)| arg == name).map(|(_, value)| value.clone())
}

/// What is in scope at one place of a stage.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// `NAME=value` of the image so far.
    pub env: Vec<String>,
    /// The `ARG`s of this stage so far.
    pub args: Vec<Argument>,
    /// Values of `ARG`s, of this stage and of those that it stands on, that no later `ENV` has replaced.
    pub values: Vec<(String, String)>,
}

impl Scope {
    /// The value of a name: of `ENV` and `ARG`, the later one counts.
    pub fn get(&self, name: &str) -> Option<String> {
        let env =
            || self.env.iter().rev().find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name));
        let arg = self.values.iter().find(|(arg, _)| arg == name).map(|(_, value)| value.clone());
        arg.or_else(|| env().map(|(_, value)| value.to_owned()))
    }
    /// Declares an argument in this stage and returns its value. The default is expanded.
    pub fn declare(&mut self, name: &str, default: Option<&str>, global: &Global) -> Option<String> {
        let value = match (global.given.get(name), default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => Some(default.to_owned()),
            (None, None) => global.get(name),
        };
        self.args.push((name.to_owned(), value.clone()));
        if let Some(value) = &value {
            self.hide(name);
            self.values.push((name.to_owned(), value.clone()));
        }
        value
    }
    /// `ENV` sets this name: an argument's value counts no longer.
    pub fn hide(&mut self, name: &str) {
        self.values.retain(|(other, _)| other != name);
    }
    /// Expands one word.
    ///
    /// # Errors
    /// It cannot be expanded.
    pub fn expand(&self, text: &str, escape: char) -> Result<String> {
        Lexer::new(escape).word(text, &|name| self.get(name))
    }
    /// The instruction with its variables replaced, where this instruction has them replaced. `ARG` is left as it is: each of
    /// its defaults is to be expanded when those before it are declared.
    ///
    /// # Errors
    /// A word cannot be expanded.
    pub fn expanded(&self, instruction: &Instruction, escape: char) -> Result<Instruction> {
        let word = |text: &String| self.expand(text, escape);
        let words = |texts: &[String]| texts.iter().map(word).collect::<Result<Vec<_>>>();
        let pairs = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, value)| Ok((word(name)?, word(value)?))).collect::<Result<Vec<_>>>()
        };
        Ok(match instruction {
            Instruction::Env(list) => Instruction::Env(pairs(list)?),
            Instruction::Label(list) => Instruction::Label(pairs(list)?),
            Instruction::Copy(copy) => Instruction::Copy(self.expanded_copy(copy, escape)?),
            Instruction::Workdir(path) => Instruction::Workdir(word(path)?),
            Instruction::User(user) => Instruction::User(word(user)?),
            Instruction::StopSignal(signal) => Instruction::StopSignal(word(signal)?),
            Instruction::Volume(paths) => Instruction::Volume(words(paths)?),
            Instruction::Expose(ports) => {
                let lexer = Lexer::new(escape);
                let split = ports
                    .iter()
                    .map(|port| lexer.words(port, &|name| self.get(name)))
                    .collect::<Result<Vec<_>>>()?;
                Instruction::Expose(split.concat())
            }
            Instruction::Run(run) => {
                let mut run = run.clone();
                for (key, value) in run.mounts.iter_mut().flatten() {
                    if let Some(text) = value.as_ref().filter(|text| key != "from" && text.contains('$')) {
                        *value = Some(word(text)?);
                    }
                }
                Instruction::Run(run)
            }
            other => other.clone(),
        })
    }
    fn expanded_copy(&self, copy: &Copy, escape: char) -> Result<Copy> {
        let word = |text: &String| self.expand(text, escape);
        let maybe = |text: &Option<String>| text.as_ref().map(word).transpose();
        let body = Lexer { skip_quotes: true, ..Lexer::new('\\') };
        let file = |heredoc: &Heredoc| -> Result<Heredoc> {
            let mut file = Heredoc { content: heredoc.text(), chomp: false, ..heredoc.clone() };
            if file.expand {
                file.content = body.word(&file.content, &|name| self.get(name))?;
            }
            Ok(file)
        };
        Ok(Copy {
            sources: copy.sources.iter().map(word).collect::<Result<_>>()?,
            files: copy.files.iter().map(file).collect::<Result<_>>()?,
            target: word(&copy.target)?,
            chown: maybe(&copy.chown)?,
            chmod: maybe(&copy.chmod)?,
            checksum: maybe(&copy.checksum)?,
            exclude: copy.exclude.iter().map(word).collect::<Result<_>>()?,
            ..copy.clone()
        })
    }
}
