//! Docker's flag grammar to the API's request: pure, but for the files that flags name.

pub mod create;
pub mod files;
pub mod ignore;
pub mod mount;
pub mod network;
pub mod ports;
pub mod resources;
