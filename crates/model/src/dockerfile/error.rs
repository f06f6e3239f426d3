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
    /// `dockerfile parse error on line N: …` with the source lines as the hint. Line 0 is the file as a whole.
    pub(super) fn error(&self, lines: (usize, usize), message: impl std::fmt::Display) -> Error {
        if lines.0 == 0 {
            return Error::invalid(format!("{}: {message}", self.file));
        }
        Error::invalid(format!("dockerfile parse error on line {}: {message}", lines.0))
            .hint(self.excerpt(lines))
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

/// The candidate closest to a misspelt word, if one is close.
pub(super) fn suggestion<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let limit = if word.len() < 4 { 1 } else { 2 };
    candidates
        .map(|candidate| (distance(&word, candidate), candidate))
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
