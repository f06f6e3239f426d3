//! What happens to every request before it is routed and to every answer: the API version is negotiated and taken off
//! the path, and the headers that Docker's clients look at are set.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::{API_VERSION, ApiVersion, Failure, MIN_API_VERSION};
use engine::model::Error;

fn parse(text: &str) -> Option<ApiVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ApiVersion(major.parse().ok()?, minor.parse().ok()?))
}

/// The middleware.
pub(crate) async fn enter(request: Request, next: Next) -> Response {
    let mut response = match negotiate(request) {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("api-version", HeaderValue::from_static(API_VERSION));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert(
        header::SERVER,
        HeaderValue::from_static(concat!("Cauldron/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    response
}

/// Takes the version off the path (`/v1.41/…`), and scheme and host off an absolute URI.
fn negotiate(mut request: Request) -> Result<Request, Failure> {
    let path = request.uri().path();
    let (version, rest) = split_version(path);
    let version = match version {
        None => None,
        Some(text) => {
            let version = parse(text)
                .ok_or_else(|| Failure(Error::invalid(format!("invalid API version {text:?}"))))?;
            if Some(version) > parse(API_VERSION) {
                return Err(Failure(Error::invalid(format!(
                    "client version {text} is too new. Maximum supported API version is {API_VERSION}"
                ))));
            }
            if Some(version) < parse(MIN_API_VERSION) {
                return Err(Failure(Error::invalid(format!(
                    "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, please \
                     upgrade your client to a newer version"
                ))));
            }
            Some(version)
        }
    };
    let folded = fold_image_name(request.method(), rest);
    let rest = folded.as_deref().unwrap_or(rest);
    let with_query = match request.uri().query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    *request.uri_mut() = with_query
        .parse::<Uri>()
        .map_err(|error| Failure(Error::invalid(format!("malformed path {rest:?}")).caused_by(error)))?;
    if let Some(version) = version {
        request.extensions_mut().insert(version);
    }
    Ok(request)
}

/// Makes an image's name one segment: `/images/host:5000/a/b/push` → `/images/host:5000%2Fa%2Fb/push`, so that routes can
/// say `{name}`.
fn fold_image_name(method: &Method, path: &str) -> Option<String> {
    let (prefix, rest) = ["/images/", "/distribution/", "/cauldron/v1/distribution/"]
        .iter()
        .find_map(|prefix| Some((*prefix, path.strip_prefix(prefix)?)))?;
    let (name, verb) = match rest.rsplit_once('/') {
        _ if *method == Method::DELETE => (rest, None),
        Some((name, verb)) => (name, Some(verb)),
        None => return None,
    };
    if !name.contains('/') {
        return None;
    }
    let name = name.replace('/', "%2F");
    Some(verb.map_or_else(|| format!("{prefix}{name}"), |verb| format!("{prefix}{name}/{verb}")))
}

/// `/v1.41/containers/json` → (`1.41`, `/containers/json`).
fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else { return (None, path) };
    let end = rest.find('/').unwrap_or(rest.len());
    let version = &rest[..end];
    let numeric = version.contains('.') && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !numeric {
        return (None, path);
    }
    (Some(version), if end == rest.len() { "/" } else { &rest[end..] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_versions_only() {
        assert_eq!(split_version("/v1.41/containers/json"), (Some("1.41"), "/containers/json"));
        assert_eq!(split_version("/volumes"), (None, "/volumes"));
        assert_eq!(split_version("/v1.41"), (Some("1.41"), "/"));
        assert_eq!(split_version("/version"), (None, "/version"));
        assert!(parse("1.9") < parse("1.24"));
    }
}
