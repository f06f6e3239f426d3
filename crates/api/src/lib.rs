//! The Docker Engine API over the engine: one Router, whoever asks. The only place with wire structs
//! (`bollard_stubs::models`, generated from Docker's own description) and the only one where a request becomes a
//! [`ContainerSpec`](engine::model::container::ContainerSpec).
//!
//! One module an API section; each adds its own `routes`, and [`sections`] puts them together. The engine is synchronous, so every call goes through
//! [`call`], which runs it on tokio's blocking threads.

mod access;
mod archive;
mod bridge;
mod build;
mod containers;
mod doctor;
mod door;
mod error;
mod events;
mod exec;
mod hijack;
mod images;
mod images_transfer;
mod input;
mod networks;
mod poll;
mod sections;
mod serve;
mod stats;
mod streams;
mod system;
#[cfg(test)]
mod test;
mod usage;
mod volumes;
mod websocket;

pub use engine::failpoint;

use axum::Router;
use engine::Engine;
use std::sync::Arc;
use tower::ServiceExt as _;

use sections::Sections;

pub use access::Access;
pub use engine::config::Registries;
pub use error::Failure;
pub use serve::{Host, Notice, Options, TlsFiles, serve};

/// The engine, shared by every handler.
pub type Shared = Arc<Engine>;

/// The newest API version that is spoken.
pub const API_VERSION: &str = "1.51";
/// The oldest.
pub const MIN_API_VERSION: &str = "1.24";

/// The version that a request's path names, kept as an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

impl<S: Sync> axum::extract::FromRequestParts<S> for ApiVersion {
    type Rejection = std::convert::Infallible;
    /// Without a version in the path it is the newest.
    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(u32::MAX, 0)))
    }
}

/// Opens the engine of these roots, for a Router in this process.
///
/// # Errors
/// As [`Engine::open`].
pub fn open(
    root: std::path::PathBuf,
    run_root: std::path::PathBuf,
    config: Option<std::path::PathBuf>,
) -> Result<Shared, Failure> {
    open_with(root, run_root, config, Registries::default())
}

/// As [`open`], with further registries than the configuration file has.
///
/// # Errors
/// As [`Engine::open`].
pub fn open_with(
    root: std::path::PathBuf,
    run_root: std::path::PathBuf,
    config: Option<std::path::PathBuf>,
    registries: Registries,
) -> Result<Shared, Failure> {
    Ok(Arc::new(Engine::open(engine::Roots { root, run_root, config })?.with_registries(registries)))
}

/// The whole API of an engine. The version prefix is taken off before anything is routed.
pub fn router(engine: Shared) -> axum::routing::RouterIntoService<axum::body::Body> {
    finish(Sections::new(engine, None))
}

/// The API with what a listener's access leaves of it.
pub(crate) fn listener_router(
    engine: Shared,
    access: &Access,
) -> axum::routing::RouterIntoService<axum::body::Body> {
    finish(Sections::new(engine, (!access.is_full()).then(|| access.clone())))
}

fn finish(sections: Sections) -> axum::routing::RouterIntoService<axum::body::Body> {
    let sections = Arc::new(sections);
    let route =
        tower::service_fn(move |request: axum::extract::Request| sections.of(&request).oneshot(request));
    Router::new().fallback_service(route).layer(axum::middleware::from_fn(door::enter)).into_service()
}

/// Runs a synchronous engine call without blocking the server.
pub(crate) async fn call<T: Send + 'static>(
    engine: &Shared,
    work: impl FnOnce(&Engine) -> engine::model::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let engine = Arc::clone(engine);
    match tokio::task::spawn_blocking(move || work(&engine).map_err(|error| engine.explain(error))).await {
        Ok(result) => result.map_err(Failure),
        Err(error) => Err(Failure(engine::model::Error::internal("engine call panicked").caused_by(error))),
    }
}
