//! Failures of a command: words for a person and an exit code.

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// Said on stderr; further lines are hints. Empty: nothing more is said.
    pub message: String,
    /// The exit code; `None` takes the verb's own.
    pub code: Option<u8>,
    /// Whether the engine said it.
    pub from_engine: bool,
}

/// A command's result: its exit code.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// Said by us.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: None, from_engine: false }
    }
    /// Nothing more to say.
    pub fn silent(code: u8) -> Self {
        Self { message: String::new(), code: Some(code), from_engine: false }
    }
    /// With this exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = Some(code);
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let from_engine = matches!(error, client::Error::Engine { .. });
        Self { message: error.to_string(), code: None, from_engine }
    }
}

impl From<compose::Error> for Failure {
    fn from(error: compose::Error) -> Self {
        let from_engine = matches!(error, compose::Error::Engine(_, client::Error::Engine { .. }));
        match error {
            compose::Error::Exit(code) => Self::silent(code),
            error => Self { message: error.to_string(), code: None, from_engine },
        }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

/// Names the file that an i/o error was about.
pub fn file(what: &str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure {
    let text = format!("{what} {}", path.display());
    move |error| Failure::new(format!("{text}: {}", reason(&error)))
}

/// An i/o error as Docker's users know it.
pub fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => {
            let text = error.to_string();
            text.rsplit_once(" (os error").map_or(text.clone(), |(words, _)| {
                let mut letters = words.chars();
                letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
            })
        }
    }
}
