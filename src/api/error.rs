//! Errors at the border: one table of codes for both APIs.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

use crate::{model::Invalid, registry::command::Error};

/// The domain of the codes in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "convoy";

/// An error as both APIs say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable; see the table.
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
}

/// Code, HTTP status, gRPC code.
const TABLE: [(&str, StatusCode, Code); 14] = [
    ("invalid_argument", StatusCode::BAD_REQUEST, Code::InvalidArgument),
    ("not_found", StatusCode::NOT_FOUND, Code::NotFound),
    ("lease_not_found", StatusCode::NOT_FOUND, Code::NotFound),
    ("older_incarnation", StatusCode::CONFLICT, Code::FailedPrecondition),
    ("incarnation_fenced", StatusCode::CONFLICT, Code::FailedPrecondition),
    ("lease_of_other_incarnation", StatusCode::CONFLICT, Code::FailedPrecondition),
    ("protocol_conflict", StatusCode::CONFLICT, Code::FailedPrecondition),
    ("not_empty", StatusCode::CONFLICT, Code::FailedPrecondition),
    ("limit_reached", StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
    ("unavailable", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
    ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
    ("query_too_expensive", StatusCode::UNPROCESSABLE_ENTITY, Code::ResourceExhausted),
    // What only HTTP has.
    ("too_large", StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
    ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented),
];

impl Problem {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let (field, value, rule) = Default::default();
        Self { code: code.to_owned(), message: message.into(), field, value, rule }
    }

    fn of(code: &str, message: String, field: &str, value: impl ToString, rule: &str) -> Self {
        Self { field: field.into(), value: value.to_string(), rule: rule.into(), ..Self::new(code, message) }
    }

    /// Whether it says that a proxy is not connected.
    pub(super) fn is_no_proxy(&self) -> bool {
        self.code == "not_found" && self.field == "node"
    }

    fn row(&self) -> (StatusCode, Code) {
        let row = TABLE.iter().find(|(code, ..)| *code == self.code);
        row.map_or((StatusCode::INTERNAL_SERVER_ERROR, Code::Internal), |(_, http, grpc)| (*http, *grpc))
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let message = invalid.to_string();
        let Invalid { field, value, rule } = invalid;
        Self { field, value, rule, ..Self::new("invalid_argument", message) }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(invalid) => invalid.into(),
            Error::NotFound { kind, name } => Self::of("not_found", message, kind, name, "it must exist"),
            Error::OlderIncarnation { given, current, .. } => {
                let rule = format!("at least {}", current.0);
                Self::of("older_incarnation", message, "incarnation", given.0, &rule)
            }
            Error::Fenced { incarnation, .. } => {
                let rule = format!("more than {}", incarnation.0);
                Self::of("incarnation_fenced", message, "incarnation", incarnation.0, &rule)
            }
            Error::LeaseNotFound { lease } => {
                Self::of("lease_not_found", message, "lease", lease, "a lease that holds")
            }
            Error::LeaseIncarnation { given, current, .. } => {
                let rule = format!("that of the lease, {}", current.0);
                Self::of("lease_of_other_incarnation", message, "incarnation", given.0, &rule)
            }
            Error::ProtocolConflict { fixed, given, .. } => {
                let rule = format!("the protocol of the service's port, {}", fixed.as_str());
                Self::of("protocol_conflict", message, "protocol", given.as_str(), &rule)
            }
            Error::NotEmpty { service, .. } => {
                Self::of("not_empty", message, "service", service, "a service without instances")
            }
            Error::LimitReached { what, limit } => {
                Self::of("limit_reached", message, &what, limit, &format!("at most {limit}"))
            }
            Error::TooLarge { .. } => Self::new("limit_reached", message),
            Error::Unavailable { .. } => Self::new("unavailable", message),
        }
    }
}

impl From<Problem> for tonic::Status {
    fn from(problem: Problem) -> Self {
        let (_, code) = problem.row();
        let mut metadata = std::collections::HashMap::new();
        for (name, text) in [("field", problem.field), ("value", problem.value), ("rule", problem.rule)] {
            if !text.is_empty() {
                metadata.insert(name.to_owned(), text);
            }
        }
        Self::with_error_details(code, problem.message, ErrorDetails::with_error_info(problem.code, DOMAIN, metadata))
    }
}

/// The body of an HTTP error.
#[derive(Debug, Serialize, Deserialize)]
pub struct Body {
    pub error: Problem,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, _) = self.row();
        (status, Json(Body { error: self })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Incarnation, LeaseId, PortName, Protocol, RemovalCause, parse};

    /// Every error has a row, and the same code in both APIs.
    #[test]
    fn every_error_is_in_the_table() {
        let key = parse::instance_key("", "web", "1").expect("a key");
        let (older, newer, lease) = (Incarnation(1), Incarnation(2), LeaseId(1));
        let port = PortName::parse("", "http").expect("a label");
        let service = key.service.clone();
        for error in [
            Error::Invalid(Invalid::new("field", "value", "rule")),
            Error::no_instance(&key),
            Error::OlderIncarnation { key: key.clone(), given: older, current: newer },
            Error::Fenced { key, incarnation: older, cause: RemovalCause::Drained },
            Error::LeaseNotFound { lease },
            Error::LeaseIncarnation { lease, given: older, current: newer },
            Error::ProtocolConflict { service: service.clone(), port, fixed: Protocol::Http, given: Protocol::Tcp },
            Error::NotEmpty { service, instances: 1 },
            Error::LimitReached { what: "watchers".into(), limit: 1 },
            Error::TooLarge { what: "changes".into() },
            Error::Unavailable { reason: "why".into() },
        ] {
            let problem = Problem::from(error);
            assert!(TABLE.iter().any(|(code, ..)| *code == problem.code), "{problem:?}");
            let status = tonic::Status::from(problem.clone());
            let info = status.get_details_error_info().expect("details");
            assert_eq!(info.reason, problem.code);
            assert_eq!(info.metadata.get("field").cloned().unwrap_or_default(), problem.field);
        }
    }
}
