//! Tasks: containers as binaries, declared, scheduled and remembered.

pub mod backup;
pub mod body;
pub mod definition;
pub mod duration;
pub mod error;
pub mod history;
pub mod home;
pub mod notify;
pub mod once;
pub mod registry;
pub mod run;
pub mod schedule;
pub mod scheduler;
pub mod systemd;
pub mod target;

pub use definition::Definition;
pub use error::{Error, Result};
pub use history::{History, Key};
pub use home::Home;
pub use jiff::Timestamp;
