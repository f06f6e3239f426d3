//! The bytes of a process: its streams to ours, our terminal and signals to it.

mod attach;
mod signals;
mod terminal;

pub use attach::{DetachKeys, End, Ends, copy};
pub use client::Demultiplexer;
pub use signals::{forward, resize, watch_size};
pub use terminal::{Raw, is_terminal, size};
