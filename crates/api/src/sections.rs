//! The Router in sections, by the first segment of a path: each is built when it is first asked for. A command makes a few calls of
//! one section and lives for milliseconds; building all routes would be a third of its own work.

use axum::Router;
use axum::extract::Request;
use std::sync::{Arc, OnceLock};

use crate::access::{self, Access};
use crate::{Shared, archive, build, containers, doctor, error, events, exec, images, images_transfer};
use crate::{networks, stats, streams, system, usage, volumes};

type Routes = fn(Router<Shared>) -> Router<Shared>;

/// First segments, and the modules that have routes there; the last section takes everything else.
const SECTIONS: [(&[&str], &[Routes]); 6] = [
    (
        &["containers", "exec", "commit"],
        &[containers::routes, exec::routes, streams::routes, stats::routes, archive::routes],
    ),
    (&["images", "distribution", "auth"], &[images::routes, images_transfer::routes]),
    (&["networks"], &[networks::routes]),
    (&["volumes"], &[volumes::routes]),
    // What the Docker API lacks is everybody's.
    (
        &["build", "cauldron"],
        &[
            build::routes,
            containers::routes,
            archive::routes,
            images_transfer::routes,
            volumes::routes,
            doctor::routes,
        ],
    ),
    (&[], &[system::routes, events::routes, usage::routes]),
];

/// The sections of one engine for one kind of listener.
pub(crate) struct Sections {
    engine: Shared,
    access: Option<Arc<Access>>,
    built: [OnceLock<Router>; SECTIONS.len()],
}

impl Sections {
    /// With what `access` leaves of them; `None` is everything.
    pub(crate) fn new(engine: Shared, access: Option<Access>) -> Self {
        Self { engine, access: access.map(Arc::new), built: Default::default() }
    }
    /// The section of a request, whose version prefix is off.
    pub(crate) fn of(&self, request: &Request) -> Router {
        let first = request.uri().path().split('/').nth(1).unwrap_or_default();
        let at = SECTIONS.iter().position(|(segments, _)| segments.contains(&first));
        let at = at.unwrap_or(SECTIONS.len() - 1);
        self.built[at].get_or_init(|| self.build(SECTIONS[at].1)).clone()
    }
    fn build(&self, modules: &[Routes]) -> Router {
        let mut router = modules.iter().fold(Router::new(), |router, routes| routes(router));
        if let Some(access) = &self.access {
            // On the route that was found, not on the request's spelling.
            router =
                router.route_layer(axum::middleware::from_fn_with_state(Arc::clone(access), access::enforce));
        }
        router
            .fallback(error::no_such_page)
            .method_not_allowed_fallback(error::no_such_page)
            .with_state(Arc::clone(&self.engine))
    }
}
