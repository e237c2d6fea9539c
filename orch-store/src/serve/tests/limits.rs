//! What is too large, too many, or unknown.

use super::*;

#[tokio::test]
async fn a_large_request_is_refused_and_a_larger_message_as_well() {
    let server = Server::with(ServeOptions { request_bytes_max: 1000, ..<_>::default() }).await;
    assert_eq!(server.put("k", &"x".repeat(900)).await, 2);
    let large = put("k", &"x".repeat(1000));
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    assert_eq!(said(server.kv().put(large.clone()).await), too_large);
    let request = pb::TxnRequest { success: vec![put_op(large)], ..<_>::default() };
    assert_eq!(said(server.kv().txn(request).await), too_large);
    // What does not write may be larger.
    let reads = vec![range_op(range("k", "")); 128];
    let request = pb::TxnRequest { success: reads, ..<_>::default() };
    assert_eq!(server.kv().txn(request).await.unwrap().into_inner().responses.len(), 128);
    let larger = server.kv().put(put("k", &"x".repeat(600 << 10))).await;
    assert_eq!(said(larger).0, Code::OutOfRange);
    assert_eq!(server.put("k", "and on it goes").await, 3);
}

#[tokio::test]
async fn the_default_takes_what_etcd_takes() {
    let server = Server::start().await;
    assert_eq!(server.put("k", &"x".repeat((3 << 19) - 100)).await, 2);
    let answer = server.kv().put(put("k", &"x".repeat(3 << 19))).await;
    assert_eq!(said(answer).1, "etcdserver: request is too large");
}

#[tokio::test]
async fn operations_per_transaction_are_an_option() {
    let options = ServeOptions { transaction_operations_max: 2, ..<_>::default() };
    let server = Server::with(options).await;
    let reads =
        |count| pb::TxnRequest { success: vec![range_op(range("k", "")); count], ..<_>::default() };
    assert!(server.kv().txn(reads(2)).await.is_ok());
    let refused = said(server.kv().txn(reads(3)).await);
    assert_eq!(refused.1, "etcdserver: too many operations in txn request");
}

/// What is stored does not hold the buffers that it came in.
#[test]
fn small_values_are_copied_and_large_ones_are_not() {
    let buffer = Bytes::from(vec![b'x'; 64 << 10]);
    let small = super::super::convert::owned(&buffer.slice(10..20));
    assert!(small.is_unique());
    let large = buffer.slice(..32 << 10);
    assert_eq!(super::super::convert::owned(&large).as_ptr(), large.as_ptr());
}
