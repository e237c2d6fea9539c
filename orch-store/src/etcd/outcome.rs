//! What became of a call that failed, as far as etcd's answer tells.

use std::error::Error as _;

use tonic::{Code, ConnectError, Status};

use super::options::error_chain;
use crate::{
    StoreError,
    store::{LeaseId, Revision},
};

/// What a failed call means. All but [`Cause::Lost`] say that nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Compacted,
    Future,
    NothingToKeep,
    LeaseNotFound,
    LeaseExists,
    Invalid,
    Corrupt,
    /// The token is missing, has ended or is older than the rules: with a new one it may go.
    Token,
    /// Authentication failed or the user may not.
    Denied,
    /// Authentication is not enabled; only `Authenticate` gets this.
    NoAuthentication,
    /// The member knows no leader, and refused the call for it.
    NoLeader,
    /// The call did not reach etcd, or was turned away at the door.
    NotExecuted,
    /// Nobody knows.
    Lost,
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) status: Status,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { cause: cause(&status), status }
    }
}

/// What a call was about, to tell its errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Whether doing it twice is as good as once.
    pub(super) repeatable: bool,
    /// The oldest revision that it asks for.
    pub(super) oldest: Revision,
    /// The newest revision that it asks for.
    pub(super) newest: Revision,
    /// The lease that it is about, or 0.
    pub(super) lease: LeaseId,
}

impl Call {
    pub(super) fn read(revision: Revision) -> Self {
        Self { repeatable: true, oldest: revision, newest: revision, lease: 0 }
    }

    pub(super) fn write(lease: Option<LeaseId>) -> Self {
        Self { repeatable: false, oldest: 0, newest: 0, lease: lease.unwrap_or(0) }
    }

    pub(super) fn compact(revision: Revision) -> Self {
        Self { repeatable: false, ..Self::read(revision) }
    }
}

impl Failure {
    /// The deadline has passed.
    pub(super) fn timed_out() -> Self {
        Self { cause: Cause::Lost, status: Status::deadline_exceeded("no answer in time") }
    }

    /// Whether etcd itself says that it has troubles which pass.
    pub(super) fn passes(&self) -> bool {
        let said = self.status.source().is_none() && self.status.code() == Code::Unavailable;
        self.cause == Cause::NoLeader || (self.cause == Cause::Lost && said)
    }

    /// Whether it was the member that failed, and not the call.
    pub(super) fn blames_member(&self) -> bool {
        matches!(self.cause, Cause::NoLeader | Cause::NotExecuted | Cause::Lost)
    }

    pub(super) fn store_error(self, call: Call) -> StoreError {
        let message = || error_chain(&self.status);
        match self.cause {
            Cause::Compacted => StoreError::Compacted { requested: call.oldest, compacted: 0 },
            Cause::Future => StoreError::Future { requested: call.newest, current: 0 },
            Cause::NothingToKeep => StoreError::NothingToKeep,
            Cause::LeaseNotFound => StoreError::LeaseNotFound(call.lease),
            Cause::LeaseExists => StoreError::LeaseExists(call.lease),
            Cause::Invalid => StoreError::Invalid(self.status.message().into()),
            Cause::Corrupt => StoreError::Corrupt(self.status.message().into()),
            Cause::Lost if !call.repeatable => StoreError::Unknown(self.status.into()),
            Cause::Token
            | Cause::Denied
            | Cause::NoAuthentication
            | Cause::NoLeader
            | Cause::NotExecuted
            | Cause::Lost => StoreError::Unavailable(message()),
        }
    }
}

/// Whether the request was never given to a connection.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        // Over HTTP/2, hyper says "canceled" of a request that it still held, and of no other.
        let canceled = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if canceled || error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Judges by what etcd says, word for word, because its codes do not tell what was done: much of
/// what is "unavailable" was proposed before, and "out of space" is said of a write that took the
/// last of it. Codes that the transport made up, and words that are not etcd's, tell nothing.
///
/// Source: etcd's `api/v3rpc/rpctypes/error.go` and where the server returns each;
/// `server/etcdserver/apply/quota.go` for the space.
fn cause(status: &Status) -> Cause {
    if never_sent(status) {
        return Cause::NotExecuted;
    }
    if status.source().is_some() {
        return Cause::Lost;
    }
    let Some(said) = status.message().strip_prefix("etcdserver: ") else {
        return match status.code() {
            Code::Unimplemented => Cause::NotExecuted,
            Code::ResourceExhausted
                if status.message().starts_with("grpc: received message larger than max") =>
            {
                Cause::Invalid
            }
            _ => Cause::Lost,
        };
    };
    match said {
        "mvcc: required revision has been compacted" => Cause::Compacted,
        "mvcc: required revision is a future revision" => Cause::Future,
        "key not found" => Cause::NothingToKeep,
        "requested lease not found" => Cause::LeaseNotFound,
        "lease already exists" => Cause::LeaseExists,
        "key is not provided"
        | "value is provided"
        | "lease is provided"
        | "too many operations in txn request"
        | "duplicate key given in txn request"
        | "invalid sort option"
        | "too large lease TTL"
        | "request is too large" => Cause::Invalid,
        "corrupt cluster" => Cause::Corrupt,
        "invalid auth token" | "revision of auth store is old" | "user name is empty" => {
            Cause::Token
        }
        "permission denied" | "authentication failed, invalid user ID or password" => Cause::Denied,
        "authentication is not enabled" => Cause::NoAuthentication,
        "no leader" => Cause::NoLeader,
        "too many requests"
        | "not capable"
        | "rpc not supported for learner"
        | "invalid client api version" => Cause::NotExecuted,
        _ => Cause::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: Code, message: &str, call: Call) -> String {
        let error = Failure::from(Status::new(code, message)).store_error(call);
        let name = format!("{error:?}");
        name.split([' ', '(']).next().unwrap_or_default().to_owned()
    }

    /// What a write and a read get for each of etcd's answers.
    #[test]
    fn every_answer_has_its_error() {
        let etcd = |code, message: &str, write: &str, read: &str| {
            let message = format!("etcdserver: {message}");
            assert_eq!(outcome(code, &message, Call::write(Some(7))), write, "{message}");
            assert_eq!(outcome(code, &message, Call::read(5)), read, "{message}");
        };
        let out = Code::OutOfRange;
        etcd(out, "mvcc: required revision has been compacted", "Compacted", "Compacted");
        etcd(out, "mvcc: required revision is a future revision", "Future", "Future");
        etcd(out, "too large lease TTL", "Invalid", "Invalid");
        let invalid = Code::InvalidArgument;
        etcd(invalid, "key not found", "NothingToKeep", "NothingToKeep");
        etcd(invalid, "key is not provided", "Invalid", "Invalid");
        etcd(invalid, "duplicate key given in txn request", "Invalid", "Invalid");
        etcd(invalid, "too many operations in txn request", "Invalid", "Invalid");
        etcd(invalid, "request is too large", "Invalid", "Invalid");
        etcd(invalid, "user name is empty", "Unavailable", "Unavailable");
        etcd(invalid, "revision of auth store is old", "Unavailable", "Unavailable");
        let failed = "authentication failed, invalid user ID or password";
        etcd(invalid, failed, "Unavailable", "Unavailable");
        etcd(Code::Unauthenticated, "invalid auth token", "Unavailable", "Unavailable");
        etcd(Code::PermissionDenied, "permission denied", "Unavailable", "Unavailable");
        etcd(Code::NotFound, "requested lease not found", "LeaseNotFound", "LeaseNotFound");
        let precondition = Code::FailedPrecondition;
        etcd(precondition, "lease already exists", "LeaseExists", "LeaseExists");
        etcd(precondition, "not capable", "Unavailable", "Unavailable");
        etcd(precondition, "not leader", "Unknown", "Unavailable");
        etcd(Code::DataLoss, "corrupt cluster", "Corrupt", "Corrupt");
        // Turned away before anything was proposed.
        etcd(Code::Unavailable, "no leader", "Unavailable", "Unavailable");
        etcd(Code::Unavailable, "rpc not supported for learner", "Unavailable", "Unavailable");
        etcd(Code::ResourceExhausted, "too many requests", "Unavailable", "Unavailable");
        // Proposed, and perhaps committed.
        let space = "mvcc: database space exceeded";
        etcd(Code::ResourceExhausted, space, "Unknown", "Unavailable");
        for lost in [
            "request timed out",
            "request timed out, possibly due to previous leader failure",
            "request timed out, possibly due to connection lost",
            "request timed out, waiting for the applied index took too long",
            "leader changed",
            "server stopped",
            "unhealthy cluster",
            "something that a later version says",
        ] {
            etcd(Code::Unavailable, lost, "Unknown", "Unavailable");
        }
        etcd(Code::Cancelled, "request canceled", "Unknown", "Unavailable");
        etcd(Code::DeadlineExceeded, "context deadline exceeded", "Unknown", "Unavailable");
    }

    #[test]
    fn words_that_are_not_etcds_tell_nothing() {
        let check = |code, message: &str, write: &str| {
            assert_eq!(outcome(code, message, Call::write(None)), write, "{code:?} {message}");
            assert_eq!(outcome(code, message, Call::compact(3)), write, "{code:?} {message}");
        };
        check(Code::Unknown, "raft: stopped", "Unknown");
        check(Code::Unavailable, "transport is closing", "Unknown");
        check(Code::Cancelled, "context canceled", "Unknown");
        check(Code::NotFound, "no such page", "Unknown");
        check(Code::PermissionDenied, "a proxy", "Unknown");
        check(Code::ResourceExhausted, "grpc: trying to send message larger than max", "Unknown");
        let larger = "grpc: received message larger than max (9 vs. 1)";
        check(Code::ResourceExhausted, larger, "Invalid");
        check(Code::Unimplemented, "unknown service etcdserverpb.KV", "Unavailable");
    }

    #[test]
    fn a_request_that_was_never_sent_is_known_by_its_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let connect = Status::from_error(Box::new(ConnectError(refused.into())));
        assert_eq!(cause(&connect), Cause::NotExecuted);
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(cause(&Status::from_error(Box::new(reset))), Cause::Lost);
        assert!(matches!(
            Failure::timed_out().store_error(Call::write(None)),
            StoreError::Unknown(_)
        ));
    }

    #[test]
    fn errors_name_what_was_asked_for() {
        let status = |message: &str| Failure::from(Status::out_of_range(message));
        let call = Call { repeatable: true, oldest: 3, newest: 9, lease: 0 };
        let compacted = status("etcdserver: mvcc: required revision has been compacted");
        let error = compacted.store_error(call);
        assert!(matches!(error, StoreError::Compacted { requested: 3, .. }), "{error}");
        let future = status("etcdserver: mvcc: required revision is a future revision");
        let error = future.store_error(call);
        assert!(matches!(error, StoreError::Future { requested: 9, .. }), "{error}");
    }
}
