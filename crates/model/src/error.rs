//! One error for the whole engine: what the caller should do about it (`kind`), what it was about
//! (`message`), what helps (`hint`) and what caused it (`source`).
//!
//! The kinds follow containerd's `errdefs`. One table, in `api`, maps a kind to an HTTP status; another, in
//! the binary, maps it to an exit code. There is no blanket conversion from `std::io::Error`: every failing
//! call names its object through [`Context`].

use std::fmt;

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong: mend it (HTTP 400).
    InvalidArgument,
    /// The named object does not exist (404).
    NotFound,
    /// The name or address is taken (409).
    AlreadyExists,
    /// The object is in a state that forbids this (409).
    Conflict,
    /// Already so: nothing was done (304).
    NotModified,
    /// The caller, or the kernel on its behalf, may not do this (403).
    PermissionDenied,
    /// Credentials are missing or wrong (401).
    Unauthorized,
    /// A limit, a disk or an address pool is exhausted (500, with the name of the limit).
    ResourceExhausted,
    /// Another machine or process does not answer now: try again (503).
    Unavailable,
    /// This engine does not do that (501).
    NotImplemented,
    /// The process in the container could not be executed: not executable (400, exit code 126).
    CannotExecute,
    /// The process in the container could not be executed: not found (400, exit code 127).
    CommandNotFound,
    /// The caller went away or asked to stop.
    Cancelled,
    /// Anything else (500).
    Internal,
}

/// An error that a person can act on.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    undo: Vec<Error>,
}

impl Error {
    /// An error of this kind about the object that `message` names.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                hint: None,
                source: None,
                undo: Vec::new(),
            }),
        }
    }
    /// Shorthand for [`Kind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }
    /// Shorthand for [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    /// Shorthand for [`Kind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
    /// Shorthand for [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
    /// Adds what the reader should do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }
    /// Adds the cause. It is shown after the message.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }
    /// Puts `what` (the operation and its object) in front of the message.
    #[must_use]
    pub fn within(mut self, what: impl fmt::Display) -> Self {
        self.inner.message = format!("{what}: {}", self.inner.message);
        self
    }
    /// Attaches failures met while undoing: shown, never dropped.
    #[must_use]
    pub fn with_undo_failures(mut self, failures: impl IntoIterator<Item = Error>) -> Self {
        self.inner.undo.extend(failures);
        self
    }
    /// Whether a full file system, or an exhausted quota, is behind it.
    pub fn is_out_of_space(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        self.io_kinds().any(|kind| matches!(kind, StorageFull | QuotaExceeded))
    }
    /// Whether the system said that something is busy (`EBUSY`).
    pub fn is_busy(&self) -> bool {
        self.io_kinds().any(|kind| kind == std::io::ErrorKind::ResourceBusy)
    }
    /// What the system said, in all of its causes.
    fn io_kinds(&self) -> impl Iterator<Item = std::io::ErrorKind> {
        std::iter::successors(std::error::Error::source(self), |error| error.source())
            .filter_map(|error| error.downcast_ref::<std::io::Error>().map(std::io::Error::kind))
    }
    /// What the caller should do.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }
    /// The message without cause, hint or undo failures.
    pub fn message(&self) -> &str {
        &self.inner.message
    }
    /// What helps, if anything is known to.
    pub fn hint_text(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        if let Some(source) = &self.inner.source {
            write!(f, ": {}", kernel_words(&source.to_string()))?;
        }
        for failure in &self.inner.undo {
            write!(f, "; undoing also failed: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// A text of the standard library that ends in `(os error N)`, in the words of Docker and strerror(3): small letter, no
/// number, and glibc's wording where musl has its own.
pub fn kernel_words(text: &str) -> String {
    let Some((words, number)) = text
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once(" (os error "))
        .filter(|(words, _)| !words.is_empty())
    else {
        return text.to_owned();
    };
    // Another text may stand before it, as in `a: b: Not a directory (os error 20)`.
    let (before, words) = words.rsplit_once(": ").map_or(("", words), |(before, words)| (before, words));
    let words = match number {
        "5" => "input/output error".to_owned(),
        "7" => "argument list too long".to_owned(),
        "16" => "device or resource busy".to_owned(),
        "18" => "invalid cross-device link".to_owned(),
        "24" => "too many open files".to_owned(),
        "34" => "numerical result out of range".to_owned(),
        "36" => "file name too long".to_owned(),
        "40" => "too many levels of symbolic links".to_owned(),
        "95" => "operation not supported".to_owned(),
        "98" => "address already in use".to_owned(),
        "99" => "cannot assign requested address".to_owned(),
        "122" => "disk quota exceeded".to_owned(),
        _ => {
            let mut letters = words.chars();
            letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
        }
    };
    if before.is_empty() { words } else { format!("{before}: {words}") }
}

/// Turns a foreign error into ours by naming the object it was about.
pub trait Context<T> {
    /// `what` is evaluated on failure only: "open /var/lib/cauldron/format.json".
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => Kind::NotFound,
                std::io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
                std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Kind::ResourceExhausted
                }
                _ => Kind::Internal,
            };
            Error::new(kind, what().to_string()).caused_by(error)
        })
    }
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.within(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words() {
        for (number, words) in [
            (2, "no such file or directory"),
            (13, "permission denied"),
            (34, "numerical result out of range"),
            (98, "address already in use"),
        ] {
            let error = Error::internal("open x").caused_by(std::io::Error::from_raw_os_error(number));
            assert_eq!(error.to_string(), format!("open x: {words}"));
        }
        assert_eq!(kernel_words("a: B (os error 20)"), "a: b");
        assert_eq!(kernel_words("no number)"), "no number)");
    }
}
