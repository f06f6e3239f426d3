//! Pure nouns and decisions: no file system, environment, clock, randomness or threads.
//!
//! Every other crate speaks in these types. Whatever enters from outside (a request body, a file that
//! another program wrote) is parsed into them at the door; below it nothing is checked twice.
#![forbid(unsafe_code)]

pub mod build_cache;
pub mod bundle;
pub mod capability;
pub mod change;
pub mod container;
pub mod detach;
pub mod digest;
pub mod dns;
pub mod dockerfile;
pub mod error;
pub mod event;
pub mod filter;
pub mod finding;
pub mod health;
pub mod hosts;
pub mod id;
pub mod ignore;
pub mod image;
pub mod launch;
pub mod limits;
pub mod link;
pub mod log;
pub mod network;
pub mod reference;
pub mod restart;
pub mod signal;
pub mod state;
pub mod time;
pub mod user;

pub use digest::Digest;
pub use error::{Error, Kind, Result};
pub use id::{ContainerId, NetworkId};
pub use reference::Reference;
