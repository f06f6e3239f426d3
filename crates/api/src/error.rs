//! Errors as Docker's clients expect them: a status code and `{"message": …}`.

use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use engine::model::{Error, Kind};

/// An engine error on its way to the client.
#[derive(Debug)]
pub struct Failure(pub Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl Failure {
    /// The message; a hint follows on a line of its own.
    pub fn text(&self) -> String {
        match self.0.hint_text() {
            Some(hint) => format!("{}\n{hint}", self.0),
            None => self.0.to_string(),
        }
    }
}

/// The table from kind to HTTP status.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::InvalidArgument | Kind::CannotExecute | Kind::CommandNotFound => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::AlreadyExists | Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::PermissionDenied => StatusCode::FORBIDDEN,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::ResourceExhausted | Kind::Cancelled | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status(self.0.kind());
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        let message = self.text();
        (status, Json(serde_json::json!({ "message": message }))).into_response()
    }
}

/// 404 for a path that the API does not have.
pub async fn no_such_page(uri: Uri, body: Body) -> Response {
    crate::input::drain(body).await;
    let message = format!("page not found: {}", uri.path());
    (StatusCode::NOT_FOUND, Json(serde_json::json!({ "message": message }))).into_response()
}
