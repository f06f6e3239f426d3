//! `cauldron`: a container engine for everything that is not a server.
//!
//! The role comes first: a re-executed monitor leaves `main` before any thread or argument parser exists.
//! Everything else is arguments → client calls → rendering; the engine is behind the client.

mod args;
mod cli;
mod command;
mod fail;
mod options;
mod render;
mod session;
mod stop;
mod stream;

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(code) = runtime::role(&argv) {
        return code;
    }
    cli::main(&argv)
}
