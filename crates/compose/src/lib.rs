//! Compose files to running projects, over the Docker Engine API alone.
//!
//! Three steps, the first two pure: files become a [`Project`] ([`load`]), a project and what is there become a [`plan::Plan`], the plan
//! is carried out ([`apply`]). Names and labels are Docker Compose's, so that either tool can take the other's project over.

pub mod actual;
pub mod apply;
pub mod body;
mod dotenv;
mod error;
mod interpolate;
pub mod labels;
mod load;
mod merge;
mod node;
pub mod order;
pub mod plan;
pub mod project;
pub mod render;
pub mod schema;
mod yaml;

pub use error::{Error, Result};
pub use load::{Environment, FILES, OVERRIDES, Read, Request, load, tree};
pub use node::{Entry, Map, Node, Place, Tag, Value};
pub use project::{Project, Service};
