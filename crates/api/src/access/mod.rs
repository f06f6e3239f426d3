//! What those who connect to a listener may do: everything, or what `--read-only` and `--allow` leave.
//!
//! It is enforced at one place: on the route that the Router has found for a request, not on the request's spelling. A
//! version before the path, encoded slashes, HEAD for GET or an upgrade change nothing, because each route and method
//! has one row in [`table`], and what has none is refused. Environment variables and driver options are taken out of
//! the answers unless they are allowed too.

mod redact;
mod table;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use engine::model::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Failure;
use table::{ENVIRONMENT, GREETING, READING, capabilities, needed};

/// What may be done through a listener. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `None`: everything.
    allowed: Option<BTreeSet<&'static str>>,
    read_only: bool,
}

impl Access {
    /// From `--read-only` and the lists of `--allow`, each like `containers:read,logs,images`: a resource with a verb,
    /// a further verb of the same resource, a whole resource. Both together: what both leave.
    ///
    /// # Errors
    /// A capability is not known.
    pub fn new(read_only: bool, allow: &[String]) -> Result<Self> {
        let mut access = Self { allowed: None, read_only };
        if !allow.is_empty() {
            let mut allowed = BTreeSet::from([GREETING]);
            for list in allow {
                parse(list, &mut allowed)?;
            }
            access.allowed = Some(allowed);
        }
        Ok(access)
    }

    /// This, with the further limits of a query (`read-only&allow=…`).
    pub(crate) fn restricted(&self, query: &str) -> Result<Self> {
        let mut allow = Vec::new();
        let mut read_only = self.read_only;
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None if part == "read-only" => read_only = true,
                Some(("allow", list)) => allow.push(list.to_owned()),
                _ => return Err(Error::invalid(format!("unknown option {part:?}: use read-only or allow="))),
            }
        }
        let own = Self::new(read_only, &allow)?;
        let allowed = match (&self.allowed, own.allowed) {
            (Some(one), Some(other)) => Some(one.intersection(&other).copied().collect()),
            (one, other) => other.or_else(|| one.clone()),
        };
        Ok(Self { allowed, read_only })
    }

    /// Nothing is refused and nothing taken out.
    pub(crate) fn is_full(&self) -> bool {
        *self == Self::default()
    }

    fn permits(&self, method: &Method, needs: &str) -> bool {
        if self.read_only && !(READING.contains(&needs) && (method == Method::GET || method == Method::HEAD))
        {
            return false;
        }
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(needs))
    }

    fn shows_environment(&self) -> bool {
        !self.read_only && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(ENVIRONMENT))
    }
}

fn parse(list: &str, allowed: &mut BTreeSet<&'static str>) -> Result<()> {
    let of = |resource: &str| -> Vec<&'static str> {
        capabilities().filter(|known| known.split(':').next() == Some(resource)).collect()
    };
    let mut last = "containers".to_owned();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (resource, verb) = match item.split_once(':') {
            Some((resource, verb)) => (resource.to_owned(), verb),
            None if of(item).is_empty() => (last.clone(), item),
            None => (item.to_owned(), "*"),
        };
        let wanted = format!("{resource}:{verb}");
        let found: Vec<_> =
            of(&resource).into_iter().filter(|known| verb == "*" || *known == wanted).collect();
        if found.is_empty() {
            let known: BTreeSet<_> = capabilities().collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(
                Error::invalid(format!("unknown capability {item:?}")).hint(format!("there are: {known}"))
            );
        }
        allowed.extend(found);
        last = resource;
    }
    Ok(())
}

/// The middleware, around each route.
pub(crate) async fn enforce(
    State(access): State<Arc<Access>>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let needs = needed(method.as_str(), path.as_str());
    match needs {
        Some(needs) if access.permits(&method, needs) => {}
        _ => {
            crate::input::drain(request.into_body()).await;
            return refusal(&access, &method, path.as_str(), needs).into_response();
        }
    }
    let response = next.run(request).await;
    if access.shows_environment() { response } else { redact::answer(path.as_str(), response).await }
}

fn refusal(access: &Access, method: &Method, path: &str, needs: Option<&str>) -> Failure {
    let why = match (access.read_only, needs) {
        (true, _) => "the listener is read-only".to_owned(),
        (false, Some(needs)) => format!("the listener does not allow {needs}"),
        (false, None) => "the listener does not allow it".to_owned(),
    };
    Failure(Error::new(Kind::PermissionDenied, format!("{method} {path}: permission denied: {why}")))
}

#[cfg(test)]
mod tests;
