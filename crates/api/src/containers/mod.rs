//! `/containers`: create, list, inspect, and what changes their state. Streams (attach, logs, exec) are elsewhere.

mod convert;
mod echo;
mod inspect;
mod lifecycle;
mod list;
mod mounts;
pub(crate) mod ports;
mod resources;

pub(crate) use lifecycle::until;
pub(crate) use list::summary;

use crate::Shared;
use axum::Router;

pub fn routes(router: Router<Shared>) -> Router<Shared> {
    inspect::routes(list::routes(lifecycle::routes(router)))
}

#[cfg(test)]
mod tests;
