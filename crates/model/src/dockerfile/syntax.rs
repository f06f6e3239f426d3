//! Text to syntax tree: directives, comments, continuation lines, heredocs, flags and arguments.

use std::collections::BTreeMap;

use super::error::{Source, suggestion};
use super::expand::Lexer;
use super::words;
use crate::{Result, limits};

/// A Dockerfile as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// Its instructions in order.
    pub nodes: Vec<Node>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// Parser directives (`syntax`, `escape`, `check`), keys in lower case.
    pub directives: BTreeMap<String, String>,
    /// What is legal and probably not meant.
    pub warnings: Vec<Warning>,
}

/// Something legal that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// First and last line, from 1.
    pub lines: (usize, usize),
    /// BuildKit's name of the check.
    pub check: &'static str,
    /// What is wrong.
    pub message: String,
}

/// One instruction as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// In lower case: `from`, `run`.
    pub keyword: String,
    /// `--name[=value]`, unquoted.
    pub flags: Vec<String>,
    /// Arguments, split as this instruction's grammar says, not expanded. `ENV` and `LABEL` have triples: name, value and `=` (or
    /// nothing in the old form with a blank).
    pub args: Vec<String>,
    /// They were written as a JSON array.
    pub json: bool,
    /// Of `ONBUILD`.
    pub child: Option<Box<Node>>,
    /// In the order of their markers.
    pub heredocs: Vec<Heredoc>,
    /// The joined line, without heredocs.
    pub original: String,
    /// First and last line, from 1.
    pub lines: (usize, usize),
    /// The comment lines right above.
    pub comments: Vec<String>,
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The marker word, which is also the file's name.
    pub name: String,
    /// The marker was not quoted: variables are expanded.
    pub expand: bool,
    /// `<<-`: leading tabs are dropped.
    pub chomp: bool,
    /// The descriptor in front of `<<`, 0 without one.
    pub descriptor: u32,
    /// The lines, with their line ends.
    pub content: String,
}

impl Heredoc {
    /// Reads one word such as `<<EOF`, `2<<-"EOF"`; `None` where it is none.
    pub fn marker(word: &str) -> Option<Self> {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let (descriptor, rest) = word.split_at(digits);
        let rest = rest.strip_prefix("<<")?;
        let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let plain = Lexer { skip_unset: true, ..Lexer::new('\\') };
        let raw = Lexer { raw_quotes: true, ..plain };
        let unset = |_: &str| None;
        let (raw, plain) = (raw.words(rest, &unset).ok()?, plain.words(rest, &unset).ok()?);
        let ([raw], [name]) = (raw.as_slice(), plain.as_slice()) else { return None };
        Some(Self {
            name: name.clone(),
            expand: raw == name,
            chomp,
            descriptor: descriptor.parse().unwrap_or(0),
            content: String::new(),
        })
    }
    /// The content, leading tabs dropped where `<<-` asks for it.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Keywords of the reference.
pub const KEYWORDS: [&str; 18] = [
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// Parses a Dockerfile. `file` is its name in errors.
///
/// # Errors
/// An invalid argument that names file, line and source line.
pub fn parse(file: &str, text: &str) -> Result<Syntax> {
    let source = Source { file, text };
    if text.len() as u64 > limits::DOCKERFILE_BYTES {
        return Err(
            source.error((1, 1), format!("the file is longer than {} bytes", limits::DOCKERFILE_BYTES))
        );
    }
    Parser {
        source,
        lines: text.strip_prefix('\u{feff}').unwrap_or(text).split_inclusive('\n').collect(),
        at: 0,
        directives_over: false,
        syntax: Syntax { nodes: Vec::new(), escape: '\\', directives: BTreeMap::new(), warnings: Vec::new() },
    }
    .run()
}

struct Parser<'a> {
    source: Source<'a>,
    lines: Vec<&'a str>,
    at: usize,
    directives_over: bool,
    syntax: Syntax,
}

impl<'a> Parser<'a> {
    fn run(mut self) -> Result<Syntax> {
        let mut comments: Vec<String> = Vec::new();
        while let Some(line) = self.next_line() {
            let line = line.trim_start();
            self.directive(line)?;
            if let Some(comment) = line.strip_prefix('#') {
                comments.push(comment.trim().to_owned());
                continue;
            }
            if line.is_empty() {
                comments.clear();
                continue;
            }
            let start = self.at;
            let joined = self.joined(line);
            if joined.is_empty() {
                comments.clear();
                continue;
            }
            let mut node = self.node(&joined, start, 0)?;
            node.comments = std::mem::take(&mut comments);
            self.heredocs(&mut node, &joined, start)?;
            node.lines = (start, self.at);
            if self.syntax.nodes.len() >= limits::DOCKERFILE_INSTRUCTIONS {
                return Err(self.source.error(
                    node.lines,
                    format!("more than {} instructions", limits::DOCKERFILE_INSTRUCTIONS),
                ));
            }
            self.syntax.nodes.push(node);
        }
        if self.syntax.nodes.is_empty() {
            return Err(self.source.error((0, 0), "file with no instructions"));
        }
        Ok(self.syntax)
    }
    /// The next line without its line end.
    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.at).copied()?;
        self.at += 1;
        Some(trim_newline(line))
    }
    /// `# name = value`, at the top only.
    fn directive(&mut self, line: &str) -> Result<()> {
        if self.directives_over {
            return Ok(());
        }
        let found = line.strip_prefix('#').and_then(|rest| rest.split_once('=')).and_then(|(key, value)| {
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            let named = matches!(key.as_str(), "syntax" | "escape" | "check");
            (named && !value.is_empty()).then_some((key, value))
        });
        let Some((key, value)) = found else {
            self.directives_over = true;
            return Ok(());
        };
        let lines = (self.at, self.at);
        if key == "escape" {
            self.syntax.escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    return Err(self
                        .source
                        .error(lines, format!("invalid escape token '{value}' does not match ` or \\")));
                }
            };
        }
        if self.syntax.directives.insert(key.clone(), value.to_owned()).is_some() {
            return Err(self.source.error(lines, format!("only one {key} parser directive can be used")));
        }
        Ok(())
    }
    /// The logical line that starts with this one.
    fn joined(&mut self, first: &str) -> String {
        let (mut line, mut over) = self.continued(first);
        let mut joined = line.to_owned();
        let (start, mut empty) = (self.at, false);
        while !over {
            let Some(next) = self.next_line() else { break };
            if next.trim_start().starts_with('#') {
                continue;
            }
            if next.trim_start().is_empty() {
                empty = true;
                continue;
            }
            (line, over) = self.continued(next);
            joined.push_str(line);
        }
        if empty {
            self.syntax.warnings.push(Warning {
                lines: (start, self.at),
                check: "NoEmptyContinuation",
                message: "Empty continuation line".to_owned(),
            });
        }
        joined
    }
    /// A line without its continuation character, and whether it is the last.
    fn continued<'b>(&self, line: &'b str) -> (&'b str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.syntax.escape) {
            Some(rest) if !rest.ends_with(self.syntax.escape) => (rest, false),
            _ => (line, true),
        }
    }
    fn node(&self, line: &str, start: usize, depth: usize) -> Result<Node> {
        let lines = (start, self.at);
        let (keyword, rest) = words::split_keyword(line);
        let lower = keyword.to_ascii_lowercase();
        if !KEYWORDS.contains(&lower.as_str()) {
            return Err(self.unknown(keyword, line, lines));
        }
        let (flags, args) = words::flags(rest);
        let args = args.trim();
        let mut node = Node {
            keyword: lower,
            flags,
            args: Vec::new(),
            json: false,
            child: None,
            heredocs: Vec::new(),
            original: line.to_owned(),
            lines,
            comments: Vec::new(),
        };
        if node.keyword == "onbuild" && !args.is_empty() {
            if depth > 0 {
                return Err(self.source.error(lines, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
            }
            node.child = Some(Box::new(self.node(args, start, depth + 1)?));
            return Ok(node);
        }
        let split = words::arguments(&node.keyword, args, self.syntax.escape)
            .map_err(|error| self.source.error(lines, error.message()))?;
        (node.args, node.json) = split;
        Ok(node)
    }
    fn unknown(&self, keyword: &str, line: &str, lines: (usize, usize)) -> crate::Error {
        if line.trim_start().starts_with('[') {
            return self.source.advice(
                lines,
                "unknown instruction: a JSON array with no instruction before it (did you mean CMD or ENTRYPOINT?)",
                "write CMD or ENTRYPOINT in front of the array",
            );
        }
        let meant = suggestion(keyword, KEYWORDS.iter().copied())
            .map(|word| format!(" (did you mean {}?)", word.to_ascii_uppercase()));
        self.source.error(lines, format!("unknown instruction: {keyword}{}", meant.unwrap_or_default()))
    }
    fn heredocs(&mut self, node: &mut Node, line: &str, start: usize) -> Result<()> {
        let holder = node.child.as_deref().unwrap_or(node);
        if !matches!(holder.keyword.as_str(), "add" | "copy" | "run") || holder.json || !line.contains("<<") {
            return Ok(());
        }
        let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\') };
        // A line that is no proper sequence of words (an open quote) is the shell's to judge.
        let Ok(words) = lexer.words(line, &|_| None) else { return Ok(()) };
        let mut found: Vec<Heredoc> = words.iter().filter_map(|word| Heredoc::marker(word)).collect();
        for heredoc in &mut found {
            loop {
                let Some(raw) = self.lines.get(self.at).copied() else {
                    return Err(self.source.error(
                        (start, self.at),
                        format!("unterminated heredoc: no line {:?} ends it", heredoc.name),
                    ));
                };
                self.at += 1;
                let bare = trim_newline(raw);
                let bare = if heredoc.chomp { bare.trim_start_matches('\t') } else { bare };
                if bare == heredoc.name {
                    break;
                }
                heredoc.content.push_str(raw);
            }
        }
        if let Some(child) = node.child.as_deref_mut() {
            child.heredocs.clone_from(&found);
            child.lines = (start, self.at);
        }
        node.heredocs = found;
        Ok(())
    }
}

fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}
