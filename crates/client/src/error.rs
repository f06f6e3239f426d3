//! What can go wrong between a client and an engine.

use std::fmt;

/// The client's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a call.
#[derive(Debug)]
pub enum Error {
    /// The engine answered with an error.
    Engine {
        /// HTTP status.
        status: u16,
        /// The engine's own words; further lines are hints.
        message: String,
    },
    /// The engine cannot be reached.
    Connect(String),
    /// The connection broke, or the answer was not what the API promises.
    Protocol(String),
    /// The choice of an engine is malformed.
    Options(String),
}

impl Error {
    /// The HTTP status of an engine's error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Engine { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine { message, .. }
            | Self::Connect(message)
            | Self::Protocol(message)
            | Self::Options(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl From<bollard::errors::Error> for Error {
    fn from(error: bollard::errors::Error) -> Self {
        match error {
            bollard::errors::Error::DockerResponseServerError { status_code, message } => {
                Self::Engine { status: status_code, message }
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}
