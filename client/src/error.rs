//! What can go wrong, sorted by what the caller does next: wait and try again, or change what was asked.

use std::{collections::HashMap, error::Error as _, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The server's codes for an incarnation that is over. Other conflicts may be solved by somebody.
const SUPERSEDED: [&str; 2] = ["older_incarnation", "incarnation_fenced"];

/// Why a call did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server's address cannot be used; nothing was sent.
    #[error("{address:?} cannot be the server's address: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server was not reached, or cannot answer now. What was asked may or may not have been done; every call
    /// may be repeated.
    #[error("{0}")]
    Unavailable(String),
    /// The server was reached, and cannot do it now, as when its store is away. As for `Unavailable`.
    #[error("{0}")]
    NotNow(String),
    /// No answer came in time. As for `Unavailable`.
    #[error("no answer within {}", crate::json::format_duration(*.0))]
    Deadline(Duration),
    /// The server understood and refused. Nothing was changed, and the same call will be refused again.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The agent has ended: it was deregistered, drained to the end, or superseded by a newer incarnation.
    #[error("the agent is no longer registered and has stopped")]
    Over,
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NotNow(_) | Self::Deadline(_))
    }

    /// Whether the server said that it does not know what was named.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == Code::NotFound)
    }

    /// Whether the server holds a newer incarnation, or an operator removed this one: it can never come back.
    pub fn is_superseded(&self) -> bool {
        matches!(self, Self::Refused(refusal) if SUPERSEDED.contains(&refusal.reason.as_str()))
    }
}

/// The server's answer to something that cannot be done: the status, and the `google.rpc.ErrorInfo` in its details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// The stable code of the error; empty if the server gave none.
    pub reason: String,
    /// The field at fault, as a path in the request.
    pub field: Option<String>,
    /// What was in it.
    pub value: Option<String>,
    /// What must hold for it.
    pub rule: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { write!(f, "{}", self.code) } else { f.write_str(&self.message) }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match status.code() {
            // Who only stands between, as a proxy or the transport, does not say why in this way.
            Code::Unavailable if status.get_details_error_info().is_some() => Self::NotNow(status.message().into()),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Aborted | Code::Cancelled | Code::DataLoss => {
                Self::Unavailable(with_causes(&status))
            }
            Code::DeadlineExceeded => Self::Unavailable("the server ran out of time".into()),
            code => Self::Refused(Box::new(refusal(code, &status))),
        }
    }
}

fn refusal(code: Code, status: &Status) -> Refusal {
    let info = status.get_details_error_info();
    let (reason, mut metadata) = info.map_or((String::new(), HashMap::new()), |info| (info.reason, info.metadata));
    Refusal {
        code,
        message: status.message().into(),
        reason,
        field: metadata.remove("field"),
        value: metadata.remove("value"),
        rule: metadata.remove("rule"),
    }
}

/// The status' message and the causes beneath it, each said once if it says anything: the transport hides `Connection
/// refused` three levels down.
fn with_causes(status: &Status) -> String {
    let mut text = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    let mut cause = status.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if said != "transport error" && !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    #[test]
    fn a_refusal_tells_field_value_and_rule() {
        let metadata = [("field", "ports[0].port"), ("value", "0"), ("rule", "1 to 65535")];
        let metadata: HashMap<String, String> =
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        let details = ErrorDetails::with_error_info("invalid_argument", "convoy", metadata);
        let status = Status::with_error_details(Code::InvalidArgument, "ports[0].port is 0", details);
        let Error::Refused(refusal) = Error::from(status) else { panic!("a refusal") };
        assert_eq!((refusal.reason.as_str(), refusal.message.as_str()), ("invalid_argument", "ports[0].port is 0"));
        assert_eq!((refusal.field.as_deref(), refusal.value.as_deref()), (Some("ports[0].port"), Some("0")));
        assert_eq!(refusal.rule.as_deref(), Some("1 to 65535"));
    }

    #[test]
    fn who_answers_that_it_cannot_was_reached() {
        let details = ErrorDetails::with_error_info("unavailable", "convoy", HashMap::new());
        let said = Error::from(Status::with_error_details(Code::Unavailable, "the store is away", details));
        assert!(matches!(&said, Error::NotNow(why) if why == "the store is away") && said.is_temporary());
        assert!(matches!(Error::from(Status::unavailable("no route")), Error::Unavailable(_)));
    }

    #[test]
    fn errors_are_sorted_by_what_to_do_next() {
        for (code, temporary, not_found) in [
            (Code::Unavailable, true, false),
            (Code::Internal, true, false),
            (Code::DeadlineExceeded, true, false),
            (Code::Cancelled, true, false),
            (Code::NotFound, false, true),
            (Code::InvalidArgument, false, false),
            (Code::FailedPrecondition, false, false),
            (Code::ResourceExhausted, false, false),
        ] {
            let error = Error::from(Status::new(code, "so it is"));
            assert_eq!((error.is_temporary(), error.is_not_found()), (temporary, not_found), "{code:?}");
        }
    }
}
