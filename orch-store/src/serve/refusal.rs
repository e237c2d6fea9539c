//! What goes wrong, in etcd's codes and words: clients match on both.
//!
//! Source: `api/v3rpc/rpctypes/error.go`.

use tonic::{Code, Status};

use crate::StoreError;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $code:ident, $message:literal;)*) => {
        $($(#[$doc])* pub(super) fn $name() -> Status {
            Status::new(Code::$code, $message)
        })*
    };
}

refusals! {
    empty_key: InvalidArgument, "etcdserver: key is not provided";
    key_not_found: InvalidArgument, "etcdserver: key not found";
    value_provided: InvalidArgument, "etcdserver: value is provided";
    lease_provided: InvalidArgument, "etcdserver: lease is provided";
    too_many_operations: InvalidArgument, "etcdserver: too many operations in txn request";
    duplicate_key: InvalidArgument, "etcdserver: duplicate key given in txn request";
    invalid_sort_option: InvalidArgument, "etcdserver: invalid sort option";
    request_too_large: InvalidArgument, "etcdserver: request is too large";
    lease_ttl_too_large: OutOfRange, "etcdserver: too large lease TTL";
    compacted: OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    future_revision: OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    lease_not_found: NotFound, "etcdserver: requested lease not found";
    lease_exists: FailedPrecondition, "etcdserver: lease already exists";
    auth_not_enabled: FailedPrecondition, "etcdserver: authentication is not enabled";
    watch_canceled: Cancelled, "etcdserver: watch canceled";
    stopped: Unavailable, "etcdserver: server stopped";
    /// The outcome of a write is unknown, which is what this says to etcd's clients.
    timed_out: Unavailable, "etcdserver: request timed out";
    no_space: ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    corrupt: DataLoss, "etcdserver: corrupt cluster";
}

/// A store's error as etcd tells it. What is wrong with the store itself is logged as well,
/// because etcd's words for it say little.
pub(super) fn of(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => compacted(),
        StoreError::Future { .. } => future_revision(),
        StoreError::NothingToKeep => key_not_found(),
        StoreError::LeaseNotFound(_) => lease_not_found(),
        StoreError::LeaseExists(_) => lease_exists(),
        StoreError::Invalid(why) => Status::invalid_argument(format!("etcdserver: {why}")),
        StoreError::Unknown(_) => timed_out(),
        StoreError::Unavailable(_) => stopped(),
        StoreError::NoSpace(_) => {
            tracing::warn!(%error, "a write was refused");
            no_space()
        }
        StoreError::Corrupt(_) => {
            tracing::error!(%error, "the store cannot be served");
            corrupt()
        }
        StoreError::Locked(_) | StoreError::Io(..) => {
            tracing::error!(%error, "the store cannot be served");
            Status::unavailable(format!("etcdserver: {error}"))
        }
    }
}
