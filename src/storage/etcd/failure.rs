//! What becomes of a call to etcd that fails, by what its caller does next.

use tonic::{Code, Status};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This member cannot be reached, does not answer or has no leader; another one may. Whether it did what was asked is
    /// not known.
    #[error("{0}")]
    Away(String),
    /// A new token is needed.
    #[error("etcd does not know the token: {0}")]
    Token(String),
    /// What was asked for is older than what etcd keeps.
    #[error("the revision has been compacted")]
    Compacted,
    /// More than one write may be.
    #[error("more than one write to etcd may be: {0}")]
    TooLarge(String),
    #[error(
        "etcd's space quota is used up (NOSPACE): compact and defragment it or raise --quota-backend-bytes, then disarm \
         the alarm (etcdctl alarm disarm)"
    )]
    Full,
    /// It would be refused again.
    #[error("etcd refuses: {0}")]
    Refused(String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message();
        let said = |text: &str| message.contains(text);
        match status.code() {
            Code::Unauthenticated => Self::Token(message.into()),
            Code::InvalidArgument if said("revision of auth store is old") => Self::Token(message.into()),
            Code::InvalidArgument if said("too many operations") || said("request is too large") => {
                Self::TooLarge(message.into())
            }
            Code::ResourceExhausted if said("database space exceeded") => Self::Full,
            Code::ResourceExhausted if said("larger than max") => Self::TooLarge(message.into()),
            Code::OutOfRange if said("has been compacted") => Self::Compacted,
            Code::InvalidArgument
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::Unimplemented
            | Code::DataLoss => Self::Refused(message.into()),
            _ => Self::Away(chain(&status)),
        }
    }
}

/// With the causes: «transport error» alone says nothing.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_what_to_do() {
        let of = |code, message: &str| Failure::from(Status::new(code, message));
        for (code, message) in [
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unknown, "h2 protocol error"),
            (Code::Cancelled, "operation was canceled"),
        ] {
            assert!(matches!(of(code, message), Failure::Away(_)), "{message}");
        }
        for message in ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"] {
            let code = if message.contains("old") { Code::InvalidArgument } else { Code::Unauthenticated };
            assert!(matches!(of(code, message), Failure::Token(_)), "{message}");
        }
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(of(Code::OutOfRange, compacted), Failure::Compacted);
        assert_eq!(of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), Failure::Full);
        for message in ["etcdserver: too many operations in txn request", "etcdserver: request is too large"] {
            assert!(matches!(of(Code::InvalidArgument, message), Failure::TooLarge(_)), "{message}");
        }
        let refused = of(Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");
        assert!(matches!(refused, Failure::Refused(_)));
    }
}
