//! What people and scripts read: tables, Go templates, sizes and times as Docker prints them.

pub mod json;
pub mod list;
pub mod size;
pub mod table;
pub mod template;
pub mod time;
