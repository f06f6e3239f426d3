//! BuildKit's build checks, by their names: what is legal and probably not meant.
//!
//! <https://docs.docker.com/reference/build-checks/> lists them. Which of them count is the `check` directive's to say
//! ([`Choice`]).

use std::collections::BTreeMap;

use super::error::suggestion;
use super::instruction::{Command, Copy, Dockerfile, Instruction, Stage, Step};
use super::plan::Plan;
use super::remote;
use super::scope::{DEFAULT_PATH, Global, Scope};
use super::syntax::{Node, Syntax, Warning};
use crate::ignore::{Ignore, is_pattern};
use crate::image::{ImageConfig, Platform};
use crate::{Error, Reference, Result};

/// Checks that run only where they are asked for.
const EXPERIMENTAL: [&str; 1] = ["InvalidDefinitionDescription"];

/// Which checks count: `skip=A,B;error=true;experimental=all`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    skipped: Vec<String>,
    experimental: Vec<String>,
    /// A warning fails the build.
    pub error: bool,
}

impl Choice {
    /// Reads the value of the directive, or of the argument `BUILDKIT_DOCKERFILE_CHECK`.
    ///
    /// # Errors
    /// An option that does not exist.
    pub fn parse(text: &str) -> Result<Self> {
        let mut choice = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = || Error::invalid(format!("invalid check option {part:?}"));
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            let list = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key.trim() {
                "skip" => choice.skipped = list(),
                "experimental" => choice.experimental = list(),
                "error" => match value.trim() {
                    "true" | "1" => choice.error = true,
                    "false" | "0" => choice.error = false,
                    _ => return Err(bad()),
                },
                _ => return Err(bad()),
            }
        }
        Ok(choice)
    }
    fn counts(&self, check: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == "all" || name == check);
        !named(&self.skipped) && (!EXPERIMENTAL.contains(&check) || named(&self.experimental))
    }
}

/// What the checks look at beside the Dockerfile.
pub struct Inputs<'a> {
    /// The arguments before the first `FROM`, evaluated.
    pub global: &'a Global,
    /// Where each stage starts.
    pub plan: &'a Plan,
    /// The context's ignore file.
    pub ignore: &'a Ignore,
    /// The platform of the image.
    pub platform: &'a Platform,
    /// A base image's configuration, if it is known.
    pub image: &'a dyn Fn(&str) -> Option<ImageConfig>,
}

/// Looks at a Dockerfile. The warnings come in the order of their lines.
pub fn check(syntax: &Syntax, dockerfile: &Dockerfile, choice: &Choice, inputs: &Inputs<'_>) -> Vec<Warning> {
    let mut lint = Lint { inputs, escape: dockerfile.escape, warnings: syntax.warnings.clone() };
    lint.casing(&syntax.nodes);
    syntax.nodes.iter().for_each(|node| lint.node(node));
    lint.stage_names(&dockerfile.stages);
    lint.bases(dockerfile);
    let mut ends: Vec<Reached> = Vec::new();
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        let start = lint.start(index, &ends);
        ends.push(lint.stage(stage, start));
    }
    let mut warnings = lint.warnings;
    warnings.retain(|warning| choice.counts(warning.check));
    warnings.sort_by_key(|warning| warning.lines.0);
    warnings.dedup();
    warnings
}

/// Where docs.docker.com explains a check.
pub fn url(check: &str) -> String {
    let letters: Vec<char> = check.chars().collect();
    let mut name = String::new();
    for (at, c) in letters.iter().enumerate() {
        let next_is_lower = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if c.is_ascii_uppercase() && at > 0 && (letters[at - 1].is_ascii_lowercase() || next_is_lower) {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    format!("https://docs.docker.com/go/dockerfile/rule/{name}/")
}

/// All warnings, as `--check` shows them.
pub fn report(file: &str, text: &str, warnings: &[Warning]) -> String {
    let mut out = match warnings.len() {
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let rule = "-".repeat(20);
    for warning in warnings {
        let (first, last) = warning.lines;
        out += &format!("\nWARNING: {} - {}\n", warning.check, url(warning.check));
        out += &format!("{}\n{file}:{first}\n{rule}\n", warning.message);
        let around = first.saturating_sub(3)..last.max(first) + 2;
        for (index, line) in text.lines().enumerate().skip(around.start).take(around.len()) {
            let mark = if (first..=last.max(first)).contains(&(index + 1)) { ">>>" } else { "   " };
            out += &format!("{:4} | {mark} {}\n", index + 1, line.trim_end());
        }
        out += &format!("{rule}\n");
    }
    out
}

/// One line for each warning, as a build ends with them; empty without any.
pub fn summary(warnings: &[Warning]) -> String {
    let mut out = match warnings.len() {
        0 => return String::new(),
        1 => " 1 warning found (use build --check to expand):\n".to_owned(),
        count => format!(" {count} warnings found (use build --check to expand):\n"),
    };
    for warning in warnings {
        out += &format!(" - {}: {} (line {})\n", warning.check, warning.message, warning.lines.0);
    }
    out
}

/// What is known at the end of a stage.
#[derive(Clone, Default)]
struct Reached {
    scope: Scope,
    /// The image's variables are not known.
    unknown: bool,
    shell: bool,
    workdir: bool,
}

struct Lint<'a> {
    inputs: &'a Inputs<'a>,
    escape: char,
    warnings: Vec<Warning>,
}

impl Lint<'_> {
    fn warn(&mut self, lines: (usize, usize), check: &'static str, message: impl Into<String>) {
        self.warnings.push(Warning { lines, check, message: message.into() });
    }
    /// `ConsistentInstructionCasing`.
    fn casing(&mut self, nodes: &[Node]) {
        let words: Vec<(&str, (usize, usize))> = nodes.iter().map(|node| (word(node), node.lines)).collect();
        let lower = |word: &str| !word.contains(|c: char| c.is_ascii_uppercase());
        let upper = |word: &str| !word.contains(|c: char| c.is_ascii_lowercase());
        let (lows, ups) = (
            words.iter().filter(|(word, _)| lower(word)).count(),
            words.iter().filter(|(word, _)| upper(word)).count(),
        );
        for (word, lines) in words {
            let right = if lows > ups { lower(word) } else { upper(word) };
            if !right {
                let majority = if lows > ups { "lowercase" } else { "uppercase" };
                let text =
                    format!("Command '{word}' should match the case of the command majority ({majority})");
                self.warn(lines, "ConsistentInstructionCasing", text);
            }
        }
    }
    /// What one instruction's text shows.
    fn node(&mut self, node: &Node) {
        let keyword = node.keyword.to_ascii_uppercase();
        match node.keyword.as_str() {
            "env" | "label" if node.args.get(2).is_some_and(String::is_empty) => self.warn(
                node.lines,
                "LegacyKeyValueFormat",
                format!(
                    "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                ),
            ),
            "maintainer" => self.warn(
                node.lines,
                "MaintainerDeprecated",
                "Maintainer instruction is deprecated in favor of using label",
            ),
            "from" => {
                let from = word(node);
                let Some(word) = node.args.get(1).filter(|_| node.args.len() == 3) else { return };
                let is_lower = |text: &str| !text.contains(|c: char| c.is_ascii_uppercase());
                if is_lower(from) != is_lower(word) {
                    let text = format!("'{word}' and '{from}' keywords' casing do not match");
                    self.warn(node.lines, "FromAsCasing", text);
                }
                let name = &node.args[2];
                if name.contains(|c: char| c.is_ascii_uppercase()) {
                    let text = format!("Stage name '{name}' should be lowercase");
                    self.warn(node.lines, "StageNameCasing", text);
                }
                self.description(node, name);
            }
            "arg" => {
                let names = node.args.iter().map(|arg| arg.split('=').next().unwrap_or_default());
                if let [name] = names.collect::<Vec<_>>().as_slice() {
                    self.description(node, name);
                }
            }
            _ => {}
        }
    }
    /// `InvalidDefinitionDescription`: a comment right above that does not begin with the name.
    fn description(&mut self, node: &Node, name: &str) {
        let Some(comment) = node.comments.last().filter(|comment| !comment.is_empty()) else { return };
        if comment.split_whitespace().next() != Some(name) {
            let text = "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
            self.warn(node.lines, "InvalidDefinitionDescription", text);
        }
    }
    fn stage_names(&mut self, stages: &[Stage]) {
        for (index, stage) in stages.iter().enumerate() {
            let Some(name) = stage.name.as_deref() else { continue };
            if matches!(name, "scratch" | "context") {
                let text = format!("Stage name should not use the same name as reserved stage {name:?}");
                self.warn(stage.lines, "ReservedStageName", text);
            }
            if stages[..index].iter().any(|other| other.name.as_deref() == Some(name)) {
                let text = format!("Duplicate stage name {name:?}, stage names should be unique");
                self.warn(stage.lines, "DuplicateStageName", text);
            }
        }
    }
    /// `FROM`: its variables, its platform, and what becomes of it without `--build-arg`.
    fn bases(&mut self, dockerfile: &Dockerfile) {
        let global = self.inputs.global;
        let declared: Vec<&str> = global.args.iter().map(|(name, _)| name.as_str()).collect();
        let defaults = dockerfile.global_args.as_slice();
        let escape = self.escape;
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let platform = stage.platform.as_deref().unwrap_or_default();
            for name in [stage.base.as_str(), platform].into_iter().flat_map(|text| variables(text, escape)) {
                if !declared.contains(&name.as_str()) {
                    let meant = suggestion(&name, declared.iter().copied())
                        .map(|other| format!(" (did you mean {other}?)"))
                        .unwrap_or_default();
                    let text = format!("FROM argument '{name}' is not declared{meant}");
                    self.warn(stage.lines, "UndefinedArgInFrom", text);
                }
            }
            if matches!(platform, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
                let text = format!(
                    "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
                );
                self.warn(stage.lines, "RedundantTargetPlatform", text);
            }
            if !platform.is_empty() && !platform.contains('$') {
                let named = |part: &str| stage.name.as_deref().is_some_and(|name| name.contains(part));
                if !platform.split('/').any(named) {
                    let text = format!("FROM --platform flag should not use constant value {platform:?}");
                    self.warn(stage.lines, "FromPlatformFlagConstDisallowed", text);
                }
            }
            if stage.base.contains('$')
                && !global.default_of(&stage.base, defaults).is_some_and(|base| usable(&base))
            {
                let text = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base
                );
                self.warn(stage.lines, "InvalidDefaultArgInFrom", text);
            }
            self.base_platform(index, stage);
        }
    }
    fn base_platform(&mut self, index: usize, stage: &Stage) {
        let super::plan::Origin::Named(name) = &self.inputs.plan.bases[index] else { return };
        let Some(image) = (self.inputs.image)(name) else { return };
        let target = format!("{}/{}", self.inputs.platform.os, self.inputs.platform.architecture);
        let expected = self.inputs.plan.platforms[index].clone().unwrap_or(target);
        let have = format!("{}/{}", image.os, image.architecture);
        if expected != have && !expected.starts_with(&format!("{have}/")) {
            let text = format!(
                "Base image {name} was pulled with platform {have:?}, expected {expected:?} for current build"
            );
            self.warn(stage.lines, "InvalidBaseImagePlatform", text);
        }
    }
    /// What a stage starts with.
    fn start(&self, index: usize, ends: &[Reached]) -> Reached {
        match &self.inputs.plan.bases[index] {
            super::plan::Origin::Scratch => Reached {
                scope: Scope { env: vec![format!("PATH={DEFAULT_PATH}")], ..Scope::default() },
                ..Reached::default()
            },
            super::plan::Origin::Stage(base) => {
                let mut start = ends[*base].clone();
                start.scope.args.clear();
                start
            }
            super::plan::Origin::Named(name) => match (self.inputs.image)(name) {
                Some(image) => {
                    let mut env = vec![format!("PATH={DEFAULT_PATH}")];
                    env.extend(image.config.env);
                    Reached {
                        scope: Scope { env, ..Scope::default() },
                        shell: image.config.shell.is_some_and(|shell| !shell.is_empty()),
                        ..Reached::default()
                    }
                }
                None => Reached { unknown: true, ..Reached::default() },
            },
        }
    }
    fn stage(&mut self, stage: &Stage, mut at: Reached) -> Reached {
        let mut once: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for step in &stage.steps {
            let keyword = step.instruction.keyword();
            if matches!(keyword, "CMD" | "ENTRYPOINT" | "HEALTHCHECK")
                && let Some(before) = once.insert(keyword, step.lines)
            {
                let text = format!(
                    "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
                );
                self.warn(before, "MultipleInstructionsDisallowed", text);
            }
            if !at.unknown {
                self.undefined(step, &at.scope);
            }
            self.step(step, &mut at);
        }
        at
    }
    fn step(&mut self, step: &Step, at: &mut Reached) {
        match &step.instruction {
            Instruction::Shell(_) => at.shell = true,
            Instruction::Cmd(command) | Instruction::Entrypoint(command) => {
                self.json(step, command, at.shell);
            }
            Instruction::Workdir(path) => {
                if !at.workdir && !path.starts_with('/') && !path.starts_with('$') {
                    let text = format!(
                        "Relative workdir {path:?} can have unexpected results if the base image changes"
                    );
                    self.warn(step.lines, "WorkdirRelativePath", text);
                }
                at.workdir = true;
            }
            Instruction::Arg(args) => {
                for (name, default) in args {
                    self.secret(step, "ARG", name);
                    let default = default.as_ref().and_then(|text| at.scope.expand(text, self.escape).ok());
                    at.scope.declare(name, default.as_deref(), self.inputs.global);
                }
            }
            Instruction::Env(pairs) => {
                let values: Vec<String> = pairs
                    .iter()
                    .map(|(_, value)| at.scope.expand(value, self.escape).unwrap_or_default())
                    .collect();
                for ((name, _), value) in pairs.iter().zip(values) {
                    self.secret(step, "ENV", name);
                    at.scope.hide(name);
                    super::effect::set_env(&mut at.scope.env, name, &value);
                }
            }
            Instruction::Copy(copy) => self.ignored(step, copy, &at.scope),
            Instruction::Expose(ports) => ports.iter().for_each(|port| self.port(step, port)),
            _ => {}
        }
    }
    /// `JSONArgsRecommended`; whoever sets `SHELL` wants one.
    fn json(&mut self, step: &Step, command: &Command, shell: bool) {
        if command.shell && !shell {
            let keyword = step.instruction.keyword();
            let text = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            self.warn(step.lines, "JSONArgsRecommended", text);
        }
    }
    /// `SecretsUsedInArgOrEnv`.
    fn secret(&mut self, step: &Step, keyword: &str, name: &str) {
        const SECRETS: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        let words: Vec<String> = name.split('_').map(str::to_ascii_lowercase).collect();
        if words.iter().any(|word| SECRETS.contains(&word.as_str()))
            && !words.iter().any(|word| word == "public")
        {
            let text = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
            self.warn(step.lines, "SecretsUsedInArgOrEnv", text);
        }
    }
    /// `CopyIgnoredFile`.
    fn ignored(&mut self, step: &Step, copy: &Copy, scope: &Scope) {
        if copy.from.is_some() {
            return;
        }
        for source in &copy.sources {
            let Ok(path) = scope.expand(source, self.escape) else { continue };
            if is_pattern(&path)
                || (copy.add && (remote::is_http(&path) || remote::Git::parse(&path).is_some()))
            {
                continue;
            }
            let clean: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            let clean = clean.join("/");
            if self.inputs.ignore.excludes(&clean) && !self.inputs.ignore.may_include_below(&clean) {
                let verb = if copy.add { "Add" } else { "Copy" };
                let text = format!("Attempting to {verb} file {source:?} that is excluded by .dockerignore");
                self.warn(step.lines, "CopyIgnoredFile", text);
            }
        }
    }
    /// `ExposeProtoCasing` and `ExposeInvalidFormat`.
    fn port(&mut self, step: &Step, port: &str) {
        let (numbers, protocol) = port.split_once('/').unwrap_or((port, ""));
        if protocol.contains(|c: char| c.is_ascii_uppercase()) && !protocol.contains('$') {
            let text = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.warn(step.lines, "ExposeProtoCasing", text);
        }
        if numbers.contains(':') && !numbers.contains("${") {
            let text = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            );
            self.warn(step.lines, "ExposeInvalidFormat", text);
        }
    }
    /// `UndefinedVar`: in what is expanded, a name that neither `ENV` nor `ARG` has.
    fn undefined(&mut self, step: &Step, scope: &Scope) {
        let mut scope = scope.clone();
        let mut words: Vec<String> = Vec::new();
        match &step.instruction {
            Instruction::Arg(args) => {
                for (name, default) in args {
                    self.unmatched(step, default.as_slice(), &scope);
                    scope.declare(name, Some(""), self.inputs.global);
                }
                return;
            }
            Instruction::Env(pairs) | Instruction::Label(pairs) => {
                words.extend(pairs.iter().flat_map(|(name, value)| [name.clone(), value.clone()]));
            }
            Instruction::Copy(copy) => {
                words.extend(copy.sources.iter().cloned());
                words.push(copy.target.clone());
                words.extend([&copy.chown, &copy.chmod, &copy.checksum].into_iter().flatten().cloned());
            }
            Instruction::Workdir(word) | Instruction::User(word) | Instruction::StopSignal(word) => {
                words.push(word.clone());
            }
            Instruction::Volume(list) | Instruction::Expose(list) => words.extend(list.iter().cloned()),
            Instruction::Run(run) => {
                words.extend(run.mounts.iter().flatten().filter_map(|(_, value)| value.clone()));
            }
            _ => return,
        }
        self.unmatched(step, &words, &scope);
    }
    fn unmatched(&mut self, step: &Step, words: &[String], scope: &Scope) {
        let declared = |name: &str| scope.args.iter().any(|(arg, _)| arg == name);
        for name in words.iter().flat_map(|word| variables(word, self.escape)).collect::<Vec<_>>() {
            if scope.get(&name).is_some() || declared(&name) {
                continue;
            }
            let env = scope.env.iter().filter_map(|entry| entry.split('=').next());
            let known = env.chain(scope.args.iter().map(|(name, _)| name.as_str()));
            let meant = suggestion(&name, known)
                .map(|other| format!(" (did you mean ${other}?)"))
                .unwrap_or_default();
            let text = format!("Usage of undefined variable '${name}'{meant}");
            self.warn(step.lines, "UndefinedVar", text);
        }
    }
}

/// An instruction's keyword as it is written.
fn word(node: &Node) -> &str {
    node.original.split_whitespace().next().unwrap_or_default()
}

/// Whether a base's name can be one.
fn usable(name: &str) -> bool {
    !name.is_empty() && Reference::parse(name).is_ok()
}

/// The names of `$name` and `${name}` in a word; those with a modifier have an answer for what is unset.
fn variables(text: &str, escape: char) -> Vec<String> {
    let mut names = Vec::new();
    let mut single = false;
    let mut double = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c == escape && !single => {
                chars.next();
            }
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '$' if !single => {
                let braced = chars.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                let plain = !braced || chars.peek() == Some(&'}');
                if plain && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    names.push(name);
                }
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{parse, scope::Platforms, syntax};

    fn found(text: &str) -> Vec<String> {
        let platform = Platform { architecture: "amd64".into(), os: "linux".into(), variant: None };
        let dockerfile = parse("D", text).unwrap();
        let syntax = syntax::parse("D", text).unwrap();
        let choice = Choice::parse(syntax.directives.get("check").map_or("", String::as_str)).unwrap();
        let platforms = Platforms { build: &platform, target: &platform };
        let global = Global::new(&dockerfile.global_args, &BTreeMap::new(), platforms, "", '\\').unwrap();
        let plan = Plan::new(&dockerfile, &global, "", &Default::default(), ("D", text));
        let plan = plan.unwrap_or_else(|error| panic!("{text}: {error}"));
        let ignore = Ignore::parse("*.log\n!keep.log\nout\n").unwrap();
        let image = |name: &str| {
            let mut config =
                ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
            config.config.env.push("HERE=/bin".to_owned());
            (name != "unknown").then_some(config)
        };
        let inputs =
            Inputs { global: &global, plan: &plan, ignore: &ignore, platform: &platform, image: &image };
        let shown = |warning: &Warning| format!("{}:{} {}", warning.lines.0, warning.check, warning.message);
        check(&syntax, &dockerfile, &choice, &inputs).iter().map(shown).collect()
    }

    #[test]
    fn checks_find_what_they_are_named_after() {
        for (text, wanted) in [
            ("FROM a AS Build", "1:StageNameCasing Stage name 'Build' should be lowercase"),
            ("FROM a as b", "1:FromAsCasing 'as' and 'FROM' keywords' casing do not match"),
            ("FROM a\nRUN x \\\n\n  y", "2:NoEmptyContinuation Empty continuation line"),
            (
                "FROM a\nrun x\nCMD [\"y\"]",
                "2:ConsistentInstructionCasing Command 'run' should match the case of the command majority (uppercase)",
            ),
            (
                "FROM a AS x\nFROM b AS x",
                "2:DuplicateStageName Duplicate stage name \"x\", stage names should be unique",
            ),
            (
                "FROM a AS context",
                "1:ReservedStageName Stage name should not use the same name as reserved stage \"context\"",
            ),
            (
                "FROM a\nCMD x",
                "2:JSONArgsRecommended JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ),
            (
                "FROM a\nMAINTAINER me",
                "2:MaintainerDeprecated Maintainer instruction is deprecated in favor of using label",
            ),
            (
                "ARG VERSION=1\nFROM a:${VERSION}${VERSIN:-x}$VERSON",
                "2:UndefinedArgInFrom FROM argument 'VERSON' is not declared (did you mean VERSION?)",
            ),
            (
                "FROM a\nWORKDIR app",
                "2:WorkdirRelativePath Relative workdir \"app\" can have unexpected results if the base image changes",
            ),
            (
                "FROM a\nENV X=$PAHT",
                "2:UndefinedVar Usage of undefined variable '$PAHT' (did you mean $PATH?)",
            ),
            (
                "FROM a\nCMD [\"x\"]\nCMD [\"y\"]",
                "2:MultipleInstructionsDisallowed Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            ),
            (
                "FROM a\nENV x y",
                "2:LegacyKeyValueFormat \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ),
            (
                "FROM --platform=$TARGETPLATFORM a",
                "1:RedundantTargetPlatform Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            (
                "FROM a\nARG API_TOKEN",
                "2:SecretsUsedInArgOrEnv Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\")",
            ),
            (
                "FROM --platform=linux/amd64 a",
                "1:FromPlatformFlagConstDisallowed FROM --platform flag should not use constant value \"linux/amd64\"",
            ),
            (
                "FROM a\nCOPY x.log /",
                "2:CopyIgnoredFile Attempting to Copy file \"x.log\" that is excluded by .dockerignore",
            ),
            (
                "FROM a\nEXPOSE 80/TCP",
                "2:ExposeProtoCasing Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            ),
            (
                "FROM a\nEXPOSE 127.0.0.1:80:80",
                "2:ExposeInvalidFormat EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
            ),
            (
                "FROM --platform=${BUILDPLATFORM:+linux/arm64} a",
                "1:InvalidBaseImagePlatform Base image a was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build",
            ),
            (
                "# check=experimental=all\n\n# other text\nARG x\nFROM a",
                "4:InvalidDefinitionDescription Comment for build stage",
            ),
        ] {
            let found = found(text);
            assert!(found.len() == 1 && found[0].starts_with(wanted), "{text:?}: {found:?}");
        }
        assert_eq!(
            found("ARG TAG=latest:\nFROM a:$TAG AS x\n# check that a default is none\nFROM b")[0],
            "2:InvalidDefaultArgInFrom Default value for ARG a:$TAG results in empty or invalid base image name"
        );
    }

    #[test]
    fn what_is_meant_is_not_warned_of() {
        for text in [
            "FROM a AS build\nSHELL [\"/bin/bash\", \"-c\"]\nCMD x\nWORKDIR /app\nWORKDIR sub",
            "ARG V=1\nFROM a:$V\nARG V\nENV X=$V Y=${Z:-d} W=\\$Q V2='$R'\nCOPY keep.log *.log /",
            "FROM unknown\nENV X=$ANYTHING",
            "FROM --platform=$BUILDPLATFORM a AS b\nARG PUBLIC_KEY\nARG KEYBOARD\nEXPOSE 80/tcp 90",
            "FROM --platform=linux/amd64 a AS build_amd64",
            "from a as b\nrun x",
            "FROM a AS b\nARG X=1\nFROM b\nENV Y=$X",
            "# check=skip=JSONArgsRecommended,MaintainerDeprecated\nFROM a\nCMD x\nMAINTAINER y",
            "# check=skip=all\nFROM a\nCMD x",
        ] {
            assert_eq!(found(text), Vec::<String>::new(), "{text:?}");
        }
        assert!(Choice::parse("skip=all;error=true").unwrap().error);
        assert!(Choice::parse("error=perhaps").is_err() && Choice::parse("other").is_err());
    }

    #[test]
    fn addresses() {
        assert!(url("JSONArgsRecommended").ends_with("/rule/json-args-recommended/"));
        assert!(url("UndefinedArgInFrom").ends_with("/rule/undefined-arg-in-from/"));
    }
}
