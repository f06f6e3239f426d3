//! `.dockerignore`: patterns with `*`, `?`, `[…]`, `**` and `!`, matched as Docker's patternmatcher does.

use crate::{Error, Result, limits};

/// An ordered list of patterns; the last that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    exceptions: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    exception: bool,
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    /// `**`: any number of components.
    Deep,
    Glob(Vec<Atom>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    Star,
    One,
    Class(bool, Vec<(char, char)>),
    Literal(char),
}

impl Ignore {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// A malformed pattern (named), or too many of them.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines =
            text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
        Self::from_patterns(lines)
    }
    /// From patterns without comments (`--exclude`).
    ///
    /// # Errors
    /// As [`Ignore::parse`].
    pub fn from_patterns<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut ignore = Self::default();
        for line in lines {
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if exception && pattern.is_empty() {
                return Err(Error::invalid("illegal exclusion pattern: \"!\""));
            }
            let cleaned = clean(pattern);
            // The context itself cannot be left out.
            if cleaned.is_empty() {
                continue;
            }
            if ignore.patterns.len() >= limits::IGNORE_PATTERNS {
                return Err(Error::invalid(format!("more than {} ignore patterns", limits::IGNORE_PATTERNS)));
            }
            let components = cleaned.iter().map(|part| component(part)).collect::<Result<Vec<_>>>()?;
            ignore.patterns.push(Pattern { exception, components });
            ignore.exceptions |= exception;
        }
        Ok(ignore)
    }
    /// Whether there are no patterns at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
    /// Whether a path (relative to the context, without a leading slash) is left out. A pattern that matches a directory
    /// matches what is below it.
    pub fn excludes(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut excluded = false;
        for pattern in &self.patterns {
            if pattern.exception == excluded
                && (1..=parts.len()).any(|length| matches(&pattern.components, &parts[..length]))
            {
                excluded = !pattern.exception;
            }
        }
        excluded
    }
    /// Whether something below an excluded directory may be let in again: if not, the directory need not be read.
    pub fn may_include_below(&self, directory: &str) -> bool {
        if !self.exceptions {
            return false;
        }
        let parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
        self.patterns
            .iter()
            .filter(|pattern| pattern.exception)
            .any(|pattern| prefix_possible(&pattern.components, &parts))
    }
}

/// A cleaned pattern's components: `.`, `..` and slashes as Go's `filepath.Clean` and a dropped leading slash leave them.
fn clean(pattern: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

fn component(text: &str) -> Result<Component> {
    if text == "**" {
        return Ok(Component::Deep);
    }
    let bad = || Error::invalid(format!("syntax error in pattern: {text:?}"));
    let (mut atoms, mut chars) = (Vec::new(), text.chars().peekable());
    while let Some(c) = chars.next() {
        atoms.push(match c {
            '*' => {
                while chars.peek() == Some(&'*') {
                    chars.next();
                }
                Atom::Star
            }
            '?' => Atom::One,
            '\\' => Atom::Literal(chars.next().ok_or_else(bad)?),
            '[' => {
                let negated = chars.next_if(|c| matches!(c, '^' | '!')).is_some();
                let (mut ranges, mut first) = (Vec::new(), true);
                loop {
                    let low = match chars.next().ok_or_else(bad)? {
                        ']' if !first => break,
                        '\\' => chars.next().ok_or_else(bad)?,
                        c => c,
                    };
                    first = false;
                    let high = match chars.next_if_eq(&'-') {
                        Some(_) => match chars.next().ok_or_else(bad)? {
                            '\\' => chars.next().ok_or_else(bad)?,
                            ']' => return Err(bad()),
                            c => c,
                        },
                        None => low,
                    };
                    ranges.push((low, high));
                }
                Atom::Class(negated, ranges)
            }
            c => Atom::Literal(c),
        });
    }
    Ok(Component::Glob(atoms))
}

fn matches(pattern: &[Component], path: &[&str]) -> bool {
    // Reachable pattern positions after each path component: linear in both, whatever the number of `**`.
    let mut states = closure(pattern, [0].into());
    for part in path {
        states = step(pattern, &states, part);
        if states.is_empty() {
            return false;
        }
    }
    states.contains(&pattern.len())
}

fn prefix_possible(pattern: &[Component], path: &[&str]) -> bool {
    let mut states = closure(pattern, [0].into());
    for part in path {
        states = step(pattern, &states, part);
    }
    states.iter().any(|&state| state < pattern.len())
        // A pattern that matches a directory lets in all below it.
        || (1..=path.len()).any(|length| matches(pattern, &path[..length]))
}

type States = std::collections::BTreeSet<usize>;

fn closure(pattern: &[Component], mut states: States) -> States {
    for at in 0..pattern.len() {
        // The last `**` wants at least one component; `step` gives it.
        if states.contains(&at) && pattern[at] == Component::Deep && at + 1 < pattern.len() {
            states.insert(at + 1);
        }
    }
    states
}

fn step(pattern: &[Component], states: &States, part: &str) -> States {
    let mut next = States::new();
    for &state in states {
        match pattern.get(state) {
            Some(Component::Deep) => {
                next.insert(state);
                if state + 1 == pattern.len() {
                    next.insert(state + 1);
                }
            }
            Some(Component::Glob(atoms)) if glob(atoms, part) => {
                next.insert(state + 1);
            }
            _ => {}
        }
    }
    closure(pattern, next)
}

fn glob(atoms: &[Atom], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut atom, mut retry) = (0, 0, None);
    while at < text.len() {
        let matched = match atoms.get(atom) {
            Some(Atom::Star) => {
                retry = Some((atom, at));
                atom += 1;
                continue;
            }
            Some(Atom::One) => true,
            Some(Atom::Literal(c)) => *c == text[at],
            Some(Atom::Class(negated, ranges)) => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&text[at])) != *negated
            }
            None => false,
        };
        if matched {
            (at, atom) = (at + 1, atom + 1);
        } else if let Some((star, from)) = retry {
            (at, atom) = (from + 1, star + 1);
            retry = Some((star, from + 1));
        } else {
            return false;
        }
    }
    atoms[atom..].iter().all(|atom| *atom == Atom::Star)
}

/// Whether a path component has pattern characters.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// Whether a single component (`*.txt`) matches a name, as Go's `filepath.Match` does.
///
/// # Errors
/// A malformed pattern.
pub fn component_matches(pattern: &str, name: &str) -> Result<bool> {
    match component(pattern)? {
        Component::Deep => Ok(true),
        Component::Glob(atoms) => Ok(glob(&atoms, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_dockers() {
        for (patterns, path, excluded) in [
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("**/*.md", "docs/README.md", true),
            ("**/*.md", "README.md", true),
            ("docs", "docs/a/b", true),
            ("docs/", "docs/a", true),
            ("/docs", "docs", true),
            ("./docs/../x", "x", true),
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/*/temp*", "somedir/temp", false),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("*\n!keep", "keep/below", false),
            ("dir\n!dir/keep", "dir/keep", false),
            ("dir\n!dir/keep\ndir/keep/x", "dir/keep/x", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-open.md", false),
            ("README-secret.md\n*.md\n!README*.md", "README-secret.md", false),
            ("# comment\n\n  a  ", "a", true),
            (" # no comment", "# no comment", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("**", "anything/at/all", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            (".", "a", false),
            ("/", "a", false),
            ("a**b", "axxb", true),
            ("안녕*", "안녕하세요", true),
        ] {
            let ignore = Ignore::parse(patterns).unwrap();
            assert_eq!(ignore.excludes(path), excluded, "{patterns:?} on {path:?}");
        }
        for bad in ["[", "[a", "a[b-]", "!", "x\\"] {
            assert!(Ignore::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn excluded_directories_are_read_only_where_an_exception_may_lie_below() {
        let ignore = Ignore::parse("*\n!src/main.c\n!lib").unwrap();
        assert!(ignore.may_include_below("src"));
        assert!(ignore.may_include_below("lib"));
        assert!(!ignore.may_include_below("docs"));
        assert!(!Ignore::parse("node_modules").unwrap().may_include_below("node_modules"));
        assert!(Ignore::parse("a\n!**/b").unwrap().may_include_below("a/x"));
    }
}
