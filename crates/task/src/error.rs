//! What can go wrong with a task, in words for a person.

use std::fmt;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that a person can act on. Further lines of the text are hints.
#[derive(Debug)]
pub struct Error {
    message: String,
    /// HTTP status, where an engine said it.
    status: Option<u16>,
}

impl Error {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: None }
    }
    /// Adds a line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.message = format!("{}\n{hint}", self.message);
        self
    }
    /// Puts the operation and its object in front.
    #[must_use]
    pub fn within(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
    /// The status of an engine's answer.
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        Self { status: error.status(), message: error.to_string() }
    }
}

/// Names the object that a foreign error was about.
pub trait Context<T> {
    /// `what` is evaluated on failure only.
    ///
    /// # Errors
    /// The error, with its object.
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::new(format!("{}: {error}", what())))
    }
}
impl<T> Context<T> for rusqlite::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::new(format!("task history: {}: {error}", what())))
    }
}
impl<T> Context<T> for serde_json::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::new(format!("{}: {error}", what())))
    }
}
