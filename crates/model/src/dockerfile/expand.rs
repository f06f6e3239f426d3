//! Words: quotes, escapes and `${…}` expansion, as BuildKit's shell lexer does them.

use crate::{Error, Result, limits};

/// Looks a variable up; `None` is unset.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How words are read. The fields are BuildKit's lexer options of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    /// `\`, or what the `escape` directive says.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are characters like any other (heredoc bodies).
    pub skip_quotes: bool,
    /// Leave references to unset variables as they are written.
    pub skip_unset: bool,
}

/// How deep `${a:-${b:-…}}` may nest.
const DEPTH: usize = 64;

impl Lexer {
    /// The usual lexer with this escape character.
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }
    /// Expands to one word, blanks included.
    ///
    /// # Errors
    /// An unclosed quote or brace, a bad substitution, a variable that `?` demands.
    pub fn word(&self, text: &str, env: Lookup<'_>) -> Result<String> {
        Ok(self.run(text, env)?.0)
    }
    /// Expands and splits at blanks that are not quoted; blanks inside a variable's value split as well.
    ///
    /// # Errors
    /// As [`Lexer::word`].
    pub fn words(&self, text: &str, env: Lookup<'_>) -> Result<Vec<String>> {
        Ok(self.run(text, env)?.1)
    }
    fn run(&self, text: &str, env: Lookup<'_>) -> Result<(String, Vec<String>)> {
        let mut scan = Scan { lexer: *self, chars: text.chars().collect(), at: 0, env, depth: 0 };
        scan.until(None, self.raw_escapes)
            .map_err(|error| error.within(format!("failed to process {text:?}")))
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
    inside: bool,
}

impl Words {
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.add_raw(c);
        } else if self.inside {
            self.done.push(std::mem::take(&mut self.word));
            self.inside = false;
        }
    }
    fn add_raw(&mut self, c: char) {
        self.word.push(c);
        self.inside = true;
    }
    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Scan<'a> {
    lexer: Lexer,
    chars: Vec<char>,
    at: usize,
    env: Lookup<'a>,
    depth: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }
    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }
    /// Reads until `stop` (which is consumed) or the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>)> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if text.len() > limits::DOCKERFILE_VALUE_BYTES {
                return Err(Error::invalid(format!(
                    "the value is longer than {} bytes",
                    limits::DOCKERFILE_VALUE_BYTES
                )));
            }
            if Some(c) == stop {
                self.at += 1;
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.add(c));
                    text.push_str(&value);
                }
                '\'' | '"' if !self.lexer.skip_quotes => {
                    let value =
                        if c == '"' { self.double_quoted(raw_escapes)? } else { self.single_quoted()? };
                    words.word.push_str(&value);
                    words.inside = true;
                    text.push_str(&value);
                }
                c if c == self.lexer.escape => {
                    self.at += 1;
                    if raw_escapes {
                        words.add_raw(c);
                        text.push(c);
                    }
                    let Some(c) = self.next() else { break };
                    words.add_raw(c);
                    text.push(c);
                }
                c => {
                    self.at += 1;
                    words.add(c);
                    text.push(c);
                }
            }
        }
        match stop {
            Some(stop) => {
                Err(Error::invalid(format!("unexpected end of statement while looking for matching {stop}")))
            }
            None => Ok((text, words.finish())),
        }
    }
    fn single_quoted(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        while let Some(c) = self.next() {
            if c == '\'' {
                let raw = usize::from(!self.lexer.raw_quotes);
                return Ok(self.chars[start + raw..self.at - raw].iter().collect());
            }
        }
        Err(Error::invalid("unexpected end of statement while looking for matching single-quote"))
    }
    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String> {
        let mut text = String::new();
        self.at += 1;
        if self.lexer.raw_quotes {
            text.push('"');
        }
        while let Some(c) = self.peek() {
            if c == '$' {
                let value = self.dollar()?;
                text.push_str(&value);
                continue;
            }
            self.at += 1;
            if c == '"' {
                if self.lexer.raw_quotes {
                    text.push('"');
                }
                return Ok(text);
            }
            if c != self.lexer.escape {
                text.push(c);
                continue;
            }
            match self.peek() {
                None => {}
                Some(next) if next == '"' || next == '$' || next == self.lexer.escape => {
                    self.at += 1;
                    if raw_escapes {
                        text.push(c);
                    }
                    text.push(next);
                }
                Some(_) => text.push(c),
            }
        }
        Err(Error::invalid("unexpected end of statement while looking for matching double-quote"))
    }
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while self.peek().is_some_and(char::is_numeric) {
                    self.at += 1;
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => {
                while self.peek().is_some_and(|c| c.is_alphabetic() || c.is_numeric() || c == '_') {
                    self.at += 1;
                }
            }
        }
        self.chars[start..self.at].iter().collect()
    }
    fn dollar(&mut self) -> Result<String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match (self.env)(&name) {
                Some(value) => value,
                None if self.lexer.skip_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Error::invalid(format!("substitutions nest deeper than {DEPTH}")));
        }
        let value = self.braces();
        self.depth -= 1;
        value
    }
    /// `${…}`, standing at the brace.
    fn braces(&mut self) -> Result<String> {
        self.at += 1;
        match self.peek() {
            None => return Err(missing_brace()),
            Some('{' | '}' | ':') => return Err(Error::invalid("syntax error: bad substitution")),
            Some(_) => {}
        }
        let name = self.name();
        let Some(first) = self.next() else { return Err(missing_brace()) };
        match first {
            '}' => Ok(match (self.env)(&name) {
                Some(value) => value,
                None if self.lexer.skip_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            ':' => match self.next() {
                None => Err(missing_brace()),
                Some(modifier @ ('+' | '-' | '?')) => self.modified(&name, modifier, true),
                Some(other) => Err(unsupported(&format!(":{other}"))),
            },
            '+' | '-' | '?' | '#' | '%' => self.modified(&name, first, false),
            '/' => self.replaced(&name),
            other => Err(unsupported(&other.to_string())),
        }
    }
    /// `${name-word}` and its siblings, standing after the modifier.
    fn modified(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Result<String> {
        let pattern = matches!(modifier, '#' | '%');
        let word = match self.until(Some('}'), pattern || self.lexer.raw_escapes) {
            Ok((word, _)) => word,
            Err(_) if self.peek().is_none() => return Err(missing_brace()),
            Err(error) => return Err(error),
        };
        let value = (self.env)(name);
        if self.lexer.skip_unset && value.is_none() {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let usable = value.as_deref().filter(|value| !(empty_is_unset && value.is_empty()));
        match modifier {
            '-' => Ok(usable.map_or(word, str::to_owned)),
            '+' => Ok(if usable.is_some() { word } else { String::new() }),
            '?' => match (usable, value.is_some()) {
                (Some(value), _) => Ok(value.to_owned()),
                (None, _) if !word.is_empty() => Err(Error::invalid(format!("{name}: {word}"))),
                (None, true) => Err(Error::invalid(format!("{name}: is not allowed to be empty"))),
                (None, false) => Err(Error::invalid(format!("{name}: is not allowed to be unset"))),
            },
            _ => {
                let (longest, pattern) = match word.strip_prefix(modifier) {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                trimmed(&value.unwrap_or_default(), pattern, self.lexer.escape, modifier == '%', longest)
            }
        }
    }
    /// `${name/pattern/replacement}`, standing after the first slash.
    fn replaced(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let (pattern, _) = self.until(Some('/'), true).map_err(|_| missing_brace())?;
        let (replacement, _) = self.until(Some('}'), self.lexer.raw_escapes).map_err(|_| missing_brace())?;
        let Some(value) = (self.env)(name) else {
            let slashes = if all { "//" } else { "/" };
            return Ok(if self.lexer.skip_unset {
                format!("${{{name}{slashes}{pattern}/{replacement}}}")
            } else {
                String::new()
            });
        };
        let text: Vec<char> = matchable(&value)?;
        let pattern = Glob::new(&pattern, self.lexer.escape);
        let (mut out, mut at) = (String::new(), 0);
        while at < text.len() {
            match pattern.ends(&text[at..]).last().copied().filter(|&length| length > 0) {
                Some(length) => {
                    out.push_str(&replacement);
                    at += length;
                    if !all {
                        break;
                    }
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
        }
        out.extend(&text[at..]);
        Ok(out)
    }
}

fn missing_brace() -> Error {
    Error::invalid("syntax error: missing '}'")
}

fn unsupported(modifier: &str) -> Error {
    Error::invalid(format!("unsupported modifier ({modifier}) in substitution"))
}

fn matchable(value: &str) -> Result<Vec<char>> {
    if value.len() > limits::DOCKERFILE_PATTERN_BYTES {
        return Err(Error::invalid(format!(
            "a pattern is matched against {} bytes at most",
            limits::DOCKERFILE_PATTERN_BYTES
        )));
    }
    Ok(value.chars().collect())
}

fn trimmed(value: &str, pattern: &str, escape: char, suffix: bool, longest: bool) -> Result<String> {
    let mut text = matchable(value)?;
    let mut glob = Glob::new(pattern, escape);
    if suffix {
        text.reverse();
        glob.0.reverse();
    }
    let ends = glob.ends(&text);
    let cut = if longest { ends.last() } else { ends.first() };
    text.drain(..cut.copied().unwrap_or(0));
    if suffix {
        text.reverse();
    }
    Ok(text.into_iter().collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Atom {
    Any,
    One,
    Literal(char),
}

/// A shell pattern of `*`, `?` and literals.
struct Glob(Vec<Atom>);

impl Glob {
    fn new(pattern: &str, escape: char) -> Self {
        let mut atoms = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            atoms.push(match c {
                '*' => Atom::Any,
                '?' => Atom::One,
                c if c == escape => Atom::Literal(chars.next().unwrap_or(c)),
                c => Atom::Literal(c),
            });
        }
        atoms.dedup_by(|a, b| *a == Atom::Any && *b == Atom::Any);
        Self(atoms)
    }
    /// The lengths of all prefixes of `text` that match, in ascending order.
    fn ends(&self, text: &[char]) -> Vec<usize> {
        let size = self.0.len();
        let mut states = vec![false; size + 1];
        states[0] = true;
        let mut ends = Vec::new();
        for at in 0..=text.len() {
            for state in 0..size {
                if states[state] && self.0[state] == Atom::Any {
                    states[state + 1] = true;
                }
            }
            if states[size] {
                ends.push(at);
            }
            let Some(&c) = text.get(at) else { break };
            let mut next = vec![false; size + 1];
            let mut alive = false;
            for (state, atom) in self.0.iter().enumerate().filter(|(state, _)| states[*state]) {
                let to = match atom {
                    Atom::Any => state,
                    Atom::One => state + 1,
                    Atom::Literal(l) if *l == c => state + 1,
                    Atom::Literal(_) => continue,
                };
                next[to] = true;
                alive = true;
            }
            if !alive {
                break;
            }
            states = next;
        }
        ends
    }
}
