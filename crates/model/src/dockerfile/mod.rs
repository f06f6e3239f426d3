//! The Dockerfile: text → [`syntax`] tree → typed [`instruction`]s → [`plan`]; and what each instruction does to an image's
//! configuration ([`effect`]). Pure: which files exist and what they hold is the builder's business.
//!
//! BuildKit's stable frontend is the reference for the grammar, the scopes of arguments and the texts of history entries.

pub mod chmod;
pub mod effect;
mod error;
pub mod expand;
pub mod instruction;
pub mod lint;
pub mod plan;
pub mod remote;
pub mod scope;
pub mod syntax;
mod typed;
mod words;

pub use error::excerpt;
pub use instruction::{Dockerfile, Instruction, Stage, Step};
pub use typed::{parse, triggers};

#[cfg(test)]
mod tests;
