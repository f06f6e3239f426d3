//! What a build says: the same events for whoever draws them, and the classic builder's words for whoever reads those.

use model::{Digest, Error, Result};

use crate::transfer::Progress;

/// What a build says while it goes on.
#[derive(Clone, Debug)]
pub enum Message {
    /// Text for people, about the build as a whole.
    Stream(String),
    /// What the build checks found, for people.
    Warnings(String),
    /// Something happened in the step that a stage (by its index) is at.
    Step(usize, Event),
    /// A base image is being pulled.
    Pull(Progress),
    /// The image's id.
    Image(Digest),
}

/// What happens in a step. Each begins, may say something, and is over when the next one of its stage begins or with [`Event::Done`].
#[derive(Clone, Debug)]
pub enum Event {
    /// It begins.
    Begin(Begin),
    /// It runs in a container of this id (its first digits).
    Running(String),
    /// Its layer is in the cache.
    Cached,
    /// Its command printed this.
    Output {
        /// On standard error.
        error: bool,
        /// Whole characters, not lines.
        text: String,
    },
    /// It says something itself.
    Note(String),
    /// It is done. The first digits of the id that the image so far would have; empty for nothing at all.
    Done(String),
}

/// A step that begins.
#[derive(Clone, Debug)]
pub struct Begin {
    /// As it stands in the Dockerfile, its lines joined.
    pub text: String,
    /// Its number among the steps of all stages, from 1, and how many there are; `None` for a trigger of the base image.
    pub number: Option<(usize, usize)>,
    /// The stage's name, or what stands for it; empty where there is only one.
    pub stage: String,
    /// Its place among the stage's steps that make files, from 1, and how many those are; `None` where it makes none.
    pub place: Option<(usize, usize)>,
}

/// Told of every message; an error stops the build (the listener is gone).
pub type Report<'a> = &'a (dyn Fn(Message) -> Result<()> + Sync);

impl Event {
    /// The classic builder's words. `mark_errors`: standard error in red.
    pub fn classic(&self, mark_errors: bool) -> String {
        match self {
            Self::Begin(Begin { text, number: Some((number, all)), .. }) => {
                format!("Step {number}/{all} : {text}\n")
            }
            Self::Begin(begin) => format!("Trigger : {}\n", begin.text),
            Self::Running(id) => format!(" ---> Running in {id}\n"),
            Self::Cached => " ---> Using cache\n".to_owned(),
            Self::Output { error: true, text } if mark_errors => format!("\x1b[91m{text}\x1b[0m"),
            Self::Output { text, .. } | Self::Note(text) => text.clone(),
            Self::Done(id) if id.is_empty() => " --->\n".to_owned(),
            Self::Done(id) => format!(" ---> {id}\n"),
        }
    }
    /// Bytes that it takes to keep it.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Output { text, .. } | Self::Note(text) => text.len(),
            Self::Begin(begin) => begin.text.len() + 16,
            Self::Running(_) | Self::Cached | Self::Done(_) => 16,
        }
    }
}

/// Why a build failed.
#[derive(Debug)]
pub struct Failed {
    /// The exit code of the command that failed.
    pub code: Option<i32>,
    /// The error.
    pub error: Error,
    /// The step that failed.
    pub step: Option<FailedStep>,
}

/// Where a build failed.
#[derive(Clone, Debug, Default)]
pub struct FailedStep {
    /// Index of its stage.
    pub stage: usize,
    /// `FILE:LINE` and the lines around it, those of the step marked.
    pub excerpt: String,
    /// The command that failed, its words joined; empty where none did.
    pub command: String,
    /// An image of the state before the step, where it was asked for.
    pub before: Option<String>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { code: None, error, step: None }
    }
}

/// A build's result.
pub type Built<T> = std::result::Result<T, Failed>;

/// Lines shown around a step that failed.
const AROUND: usize = 2;
/// Lines of the step itself that are shown at most.
const SHOWN: usize = 12;

/// `FILE:LINE` and the lines around a step, its own marked with `>>>`.
pub(super) fn excerpt(file: &str, text: &str, (first, last): (usize, usize)) -> String {
    let last = last.max(first);
    let shown = first.saturating_sub(AROUND)..=(last + AROUND).min(first + SHOWN);
    let rule = "-".repeat(20);
    let mut out = format!("{file}:{first}\n{rule}\n");
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        if shown.contains(&number) {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            out.push_str(&format!("{number:>4} | {mark} {}\n", line.trim_end()));
        }
    }
    out + &rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_lines_are_marked() {
        let text = "FROM a\nENV b=c\nRUN d \\\n  e\nCMD f\n";
        assert_eq!(
            excerpt("Dockerfile", text, (3, 4)),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     ENV b=c\n   3 | >>> RUN d \\\n   4 | >>>   e\n   5 |     CMD f\n--------------------"
        );
    }
}
