//! More cases.

/// Name and test.
pub const ALL: &[(&str, fn())] = &[];
