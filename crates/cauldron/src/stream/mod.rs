//! The bytes of a process: its streams to ours, our terminal and signals to it.

mod attach;
mod demultiplex;
mod signals;
mod terminal;

pub use attach::{DetachKeys, End, Ends, copy};
pub use demultiplex::Demultiplexer;
pub use signals::{forward, resize, watch_size};
pub use terminal::{Raw, is_terminal, size};
