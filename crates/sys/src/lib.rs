//! The unsafe leaf: what the kernel offers and the standard library does not, as safe functions that return
//! `std::io::Result`. No domain nouns here.

pub mod fs;
pub mod overlay;
pub mod view;
