//! `/containers`: create, list, inspect, and what changes their state. Streams (attach, logs, exec) are elsewhere.

mod convert;
mod mounts;
pub(crate) mod ports;
mod resources;

use crate::Shared;
use axum::Router;

pub fn routes() -> Router<Shared> {
    Router::new()
}
