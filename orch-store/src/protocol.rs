//! etcd v3's wire protocol, for the client and the server: the messages and calls that are used.
//!
//! Generated with protox 0.10 and tonic-prost-build 0.14 from etcd's API definitions (`rpc.proto`
//! and `kv.proto`, Apache-2.0, as the etcd-client 0.21.1 crate carries them), reduced to the calls
//! that the services below have and without comments; committed so that nobody who builds this
//! needs a protobuf compiler.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_methods,
    reason = "generated"
)]
#[rustfmt::skip]
pub(crate) mod etcdserverpb;
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
#[rustfmt::skip]
pub(crate) mod mvccpb;
