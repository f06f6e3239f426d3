//! What a request says: query parameters with Docker's idea of a boolean, and JSON bodies with a limit, whatever
//! content type the client thought of.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use engine::model::filter::Filters;
use engine::model::image::Platform;
use engine::model::limits::JSON_BODY_BYTES;
use engine::model::time::Timestamp;
use engine::model::{Error, Kind, Result};
use engine::transfer::parse_platform;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::Failure;

/// Query parameters, in order; a name may come more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// The first value of a parameter, empty where it is absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
    /// Whether the parameter was given at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    /// A boolean: absent, empty, `0`, `no`, `false` and `none` are false; everything else is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }
    /// As [`Params::flag`], with a default where the parameter is absent.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        if !self.has(name) {
            return default;
        }
        !matches!(self.text(name).trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }
    /// A number; `None` where it is absent or empty.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        match self.text(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Error::invalid(format!("parameter {name}: {text:?} is not a number"))),
        }
    }
    /// A time, `seconds[.fraction]` or RFC 3339; `None` where it is absent, empty or 0.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>> {
        match self.text(name) {
            "" | "0" => Ok(None),
            text => Timestamp::parse_query(text)
                .map(Some)
                .ok_or_else(|| Error::invalid(format!("parameter {name}: {text:?} is not a time"))),
        }
    }
    /// The `platform` parameter: `os/architecture/variant`, or, as it is since API 1.48, a platform in OCI's JSON.
    pub(crate) fn platform(&self) -> Result<Option<Platform>> {
        let text = self.text("platform");
        if text.is_empty() {
            return Ok(None);
        }
        if !text.starts_with('{') {
            return parse_platform(text).map(Some);
        }
        let Platform { architecture, os, variant } = serde_json::from_str(text)
            .map_err(|error| Error::invalid("invalid platform").caused_by(error))?;
        let parts = [Some(os), Some(architecture), variant].into_iter().flatten();
        parse_platform(&parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")).map(Some)
    }
    /// The `filters` parameter.
    pub(crate) fn filters(&self) -> Result<Filters> {
        Filters::parse(self.text("filters"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Failure> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| Failure(Error::invalid("malformed query").caused_by(error)))?;
        Ok(Self(pairs))
    }
}

/// Bytes of a refused request that are read all the same.
const REFUSED_BYTES: usize = 1 << 20;
/// How long a refused request is read.
const REFUSED_TIME: std::time::Duration = std::time::Duration::from_secs(2);

/// Reads what a refused request still brings, within limits: a client that writes to a closed connection would not get to
/// see why.
pub(crate) async fn drain(body: axum::body::Body) {
    let whole = Limited::new(body, REFUSED_BYTES).collect();
    let _ = tokio::time::timeout(REFUSED_TIME, whole).await;
}

/// A JSON body. An empty one (or `null`) is the default value.
pub(crate) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Body<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, _: &S) -> std::result::Result<Self, Failure> {
        let bytes = bytes(request.into_body()).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        match serde_json::from_slice::<Option<T>>(&bytes) {
            Ok(value) => Ok(Self(value.unwrap_or_default())),
            Err(error) => Err(Failure(Error::invalid("invalid JSON in the request's body").caused_by(error))),
        }
    }
}

/// A whole small body.
pub(crate) async fn bytes(body: axum::body::Body) -> std::result::Result<Bytes, Failure> {
    match Limited::new(body, JSON_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Failure(Error::invalid(format!("the request's body is larger than {JSON_BODY_BYTES} bytes"))))
        }
        Err(error) => Err(Failure(Error::new(Kind::Cancelled, "read the request's body").caused_by(error))),
    }
}
