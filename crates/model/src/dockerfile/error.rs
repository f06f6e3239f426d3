//! Errors that show where: file, line, the source lines, what was meant.

use crate::Error;

/// A Dockerfile's text under its name.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// As the user named it.
    pub file: &'a str,
    /// All of it.
    pub text: &'a str,
}

/// Source lines shown at most.
const SHOWN: usize = 6;

impl Source<'_> {
    /// `dockerfile parse error on line N: …` with the source lines as the hint, and marked in them the word that the message
    /// names. Line 0 is the file as a whole.
    pub(super) fn error(&self, lines: (usize, usize), message: impl std::fmt::Display) -> Error {
        if lines.0 == 0 {
            return Error::invalid(format!("{}: {message}", self.file));
        }
        let message = message.to_string();
        let shown = match self.place(lines, &message) {
            Some(place) => marked(self.file, self.text, lines, place),
            None => self.excerpt(lines),
        };
        Error::invalid(format!("dockerfile parse error on line {}: {message}", lines.0)).hint(shown)
    }
    /// The same, with a word on what to do.
    pub(super) fn advice(
        &self,
        lines: (usize, usize),
        message: impl std::fmt::Display,
        advice: &str,
    ) -> Error {
        let error = self.error(lines, message);
        let shown = error.hint_text().map(|shown| format!("{shown}\n{advice}"));
        error.hint(shown.unwrap_or_else(|| advice.to_owned()))
    }
    /// Where the first word stands that the message quotes, or the instruction's own.
    fn place(&self, (first, last): (usize, usize), message: &str) -> Option<Place> {
        let lines = || self.text.lines().enumerate().skip(first - 1).take(last.max(first) + 1 - first);
        let found = |word: &str| {
            lines().find_map(|(line, text)| {
                let at = text.find(word)?;
                let column = text[..at].chars().count() + 1;
                Some(Place { line: line + 1, column, width: word.chars().count() })
            })
        };
        let keyword = || {
            let (line, text) = lines().next()?;
            let word = text.split_whitespace().next()?;
            let column = text.chars().take_while(|c| c.is_whitespace()).count() + 1;
            Some(Place { line: line + 1, column, width: word.chars().count() })
        };
        quoted(message).into_iter().find_map(found).or_else(keyword)
    }
    /// The lines with their numbers, the first of them marked.
    pub(super) fn excerpt(&self, lines: (usize, usize)) -> String {
        excerpt(self.file, self.text, lines)
    }
}

/// `FILE:LINE` and the source lines with their numbers.
pub fn excerpt(file: &str, text: &str, (first, last): (usize, usize)) -> String {
    let mut shown = format!("{file}:{first}");
    let last = last.max(first).min(first + SHOWN - 1);
    for (index, line) in text.lines().enumerate().skip(first.saturating_sub(1)).take(last + 1 - first) {
        let number = index + 1;
        let mark = if number == first { '>' } else { ' ' };
        shown.push_str(&format!("\n{mark} {number:>4} | {}", line.trim_end()));
    }
    shown
}

/// A word of the source: line and column from 1, and how many characters.
#[derive(Clone, Copy)]
struct Place {
    line: usize,
    column: usize,
    width: usize,
}

/// The excerpt with a caret below one word.
fn marked(file: &str, text: &str, lines: (usize, usize), place: Place) -> String {
    let plain = excerpt(file, text, lines);
    let mut shown = String::new();
    for (index, line) in plain.lines().enumerate() {
        match index {
            0 => shown.push_str(&format!("{file}:{}:{}", place.line, place.column)),
            _ => {
                shown.push('\n');
                shown.push_str(line);
            }
        }
        if index == place.line + 1 - lines.0 {
            let source = text.lines().nth(place.line - 1).unwrap_or_default();
            // Tabs stay tabs, so that the caret stands where the word does.
            let gap: String =
                source.chars().take(place.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
            shown.push_str(&format!("\n       | {gap}{}", "^".repeat(place.width.max(1))));
        }
    }
    shown
}

/// What a message quotes of the source: in quotes, or behind a colon.
fn quoted(message: &str) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    for quote in ['\'', '"'] {
        words.extend(message.split(quote).skip(1).step_by(2));
    }
    words.extend(message.split(": ").skip(1).filter_map(|rest| rest.split_whitespace().next()));
    words.retain(|word| !word.is_empty() && word.len() < 200);
    words
}

/// The candidate closest to a misspelt word, if one is close.
pub(super) fn suggestion<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let limit = if word.len() < 4 { 1 } else { 2 };
    candidates
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(far, _)| *far <= limit)
        .min()
        .map(|(_, word)| word)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        best = best.min(rows[i - 2][j - 2] + 1);
                    }
                    best
                }
            };
        }
    }
    rows[a.len()][b.len()]
}
