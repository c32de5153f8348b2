//! Answers that are no success, in one form.

use crate::response::json_response;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gmflow::FilesError;
use gmflow_files::Wrong;
use serde_json::{Value, json};

/// A request that is refused, or work that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// The field that is wrong.
    pub wrong: Option<Box<Wrong>>,
    /// Seconds after which to come again.
    pub retry_after: Option<u64>,
}

pub(crate) type Answer<T> = Result<T, Refusal>;

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), wrong: None, retry_after: None }
    }

    /// A field of the request that is unknown, of another type, or out of range.
    pub fn field(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Wrong::new(field, expected, got.to_string()).into()
    }

    /// What is more than this server takes.
    pub fn too_large(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        let refusal = Self::field(field, expected, got);
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: "too_large", ..refusal }
    }

    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", what)
    }

    /// A failure that is not the client's.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    pub fn draining() -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the server shuts down");
        refusal.after(5)
    }

    pub fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..self }
    }

    /// The object `error` of an answer.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        let field = self.wrong.as_ref().map(|wrong| &wrong.field);
        let mut body = json!({ "message": self.message, "type": kind, "param": field, "code": self.code });
        if let Some(wrong) = &self.wrong {
            let Wrong { field, expected, got } = &**wrong;
            body["field"] = json!(field);
            body["expected"] = json!(expected);
            body["got"] = json!(got);
        }
        body
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "invalid_field",
            message: wrong.to_string(),
            wrong: Some(Box::new(wrong)),
            retry_after: None,
        }
    }
}

impl From<gmflow::Error> for Refusal {
    fn from(error: gmflow::Error) -> Self {
        match error {
            gmflow::Error::Files(FilesError::Config { field, expected, got }) => Self::field(field, expected, got),
            gmflow::Error::Shape { what, expected, got } => Self::field(what, expected, got),
            gmflow::Error::Memory { field, got, need, there, advice } => {
                let expected = format!("a value that fits in memory: {advice}");
                Self::too_large(field, expected, format!("{got}, which needs {need}, and there are {there}"))
            }
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<gmflow_eval::Error> for Refusal {
    fn from(error: gmflow_eval::Error) -> Self {
        match error {
            gmflow_eval::Error::Files(FilesError::Config { field, expected, got }) => {
                Self::field(field, expected, got)
            }
            gmflow_eval::Error::Gmflow(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &json!({ "error": self.body() }));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_with_what_was_expected_and_got() {
        let refusal = Refusal::from(gmflow::Error::config("steps", "at least 1", 0));
        assert_eq!(refusal.status, StatusCode::UNPROCESSABLE_ENTITY);
        let expected = json!({
            "message": "steps: expected at least 1, got 0", "type": "invalid_request_error", "param": "steps",
            "code": "invalid_field", "field": "steps", "expected": "at least 1", "got": "0",
        });
        assert_eq!(refusal.body(), expected);
        let refusal = Refusal::failed("x").after(0);
        assert_eq!((refusal.body()["type"].as_str(), refusal.retry_after), (Some("server_error"), Some(1)));
    }
}
