//! What can go wrong with a project: in its files, with a place; at the engine; or in what was asked for.

use crate::node::Place;
use std::fmt;

/// Compose's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that a person can act on.
#[derive(Debug)]
pub enum Error {
    /// A file of the project is wrong.
    File {
        /// Where.
        place: Place,
        /// What is wrong, with the key's path.
        message: String,
        /// What helps.
        hint: Option<String>,
    },
    /// What was asked for makes no sense for this project, or something in it failed.
    Project(String),
    /// The engine said no, or is not there; with what was being done.
    Engine(String, client::Error),
    /// A command of the project ended so; everything was said.
    Exit(u8),
}

impl Error {
    /// A failure at a place of a file.
    pub fn at(place: &Place, message: impl Into<String>) -> Self {
        Self::File { place: place.clone(), message: message.into(), hint: None }
    }
    /// A failure without a place.
    pub fn project(message: impl Into<String>) -> Self {
        Self::Project(message.into())
    }
    /// Gives a failure without a place the one that asked for it.
    #[must_use]
    pub(crate) fn placed(self, place: &Place) -> Self {
        match self {
            Self::Project(message) => Self::at(place, message),
            other => other,
        }
    }
    /// Adds what helps, to a failure in a file.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::File { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }
    /// The HTTP status of an engine's error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Engine(_, error) => error.status(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { place, message, hint } => {
                write!(f, "{place}: {message}")?;
                match hint {
                    Some(hint) => write!(f, "\n{hint}"),
                    None => Ok(()),
                }
            }
            Self::Project(message) => f.write_str(message),
            Self::Engine(what, error) if what.is_empty() => write!(f, "{error}"),
            Self::Engine(what, error) => write!(f, "{what}: {error}"),
            Self::Exit(code) => write!(f, "exit code {code}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        Self::Engine(String::new(), error)
    }
}

/// The name among `known` that was probably meant: at most two edits away.
pub fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.into_iter().map(|other| (distance(name, other), other)).min()?;
    (best.0 <= 2 && best.0 < name.chars().count()).then_some(best.1)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let (mut before, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    let mut last = None;
    for (i, x) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (row[j] + usize::from(x != *y)).min(row[j + 1] + 1).min(next[j] + 1);
            // Two letters that changed places are one mistake.
            if j > 0 && last == Some(*y) && b[j - 1] == x && i > 0 {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(x);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let known = ["ports", "image", "volumes", "build"];
        assert_eq!(meant("prots", known), Some("ports"));
        assert_eq!(meant("imge", known), Some("image"));
        assert_eq!(meant("zzz", known), None);
        assert_eq!(meant("x", known), None);
    }
}
