//! Ranges, puts, deletions, transactions and compactions.

use compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};

use super::*;

async fn ask(server: &Server, request: pb::RangeRequest) -> pb::RangeResponse {
    soon("a range", server.kv().range(request)).await.unwrap().into_inner()
}

/// Keys whose orders by key, version, creation, change and value all differ.
async fn filled() -> Server {
    let server = Server::start().await;
    for (key, value) in [("b", "5"), ("c", "1"), ("a", "4"), ("d", "3"), ("c", "2"), ("b", "0")] {
        server.put(key, value).await;
    }
    server.put("c", "1").await;
    server
}

#[tokio::test]
async fn ranges_sort_filter_and_limit() {
    let server = filled().await;
    let all = || range("a", "e");
    let sorted = |target: SortTarget, order: SortOrder| pb::RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        ..all()
    };
    let limited = |request: pb::RangeRequest| pb::RangeRequest { limit: 2, ..request };
    for (request, expected, count, more) in [
        (all(), "abcd", 4, false),
        (limited(all()), "ab", 4, true),
        (pb::RangeRequest { limit: 4, ..all() }, "abcd", 4, false),
        (pb::RangeRequest { limit: -1, ..all() }, "abcd", 4, false),
        (range("b", "\0"), "bcd", 3, false),
        (range("\0", "\0"), "abcd", 4, false),
        (range("c", ""), "c", 1, false),
        (range("c", "b"), "", 0, false),
        (range("x", ""), "", 0, false),
        (sorted(SortTarget::Key, SortOrder::Ascend), "abcd", 4, false),
        (sorted(SortTarget::Key, SortOrder::Descend), "dcba", 4, false),
        (limited(sorted(SortTarget::Key, SortOrder::Descend)), "dc", 4, true),
        (sorted(SortTarget::Version, SortOrder::Descend), "cb", 4, false),
        (sorted(SortTarget::Create, SortOrder::Ascend), "bcad", 4, false),
        (sorted(SortTarget::Mod, SortOrder::Ascend), "adbc", 4, false),
        (limited(sorted(SortTarget::Mod, SortOrder::Descend)), "cb", 4, true),
        (sorted(SortTarget::Value, SortOrder::Ascend), "bcda", 4, false),
        // Without an order the limit comes first, and one more is looked at.
        (limited(sorted(SortTarget::Mod, SortOrder::None)), "ab", 4, true),
        (pb::RangeRequest { min_mod_revision: 7, ..all() }, "bc", 4, false),
        (pb::RangeRequest { max_mod_revision: 5, ..all() }, "ad", 4, false),
        (pb::RangeRequest { max_create_revision: 3, ..all() }, "bc", 4, false),
        (pb::RangeRequest { min_create_revision: 4, limit: 1, ..all() }, "a", 4, true),
        (pb::RangeRequest { min_mod_revision: 5, max_mod_revision: 7, ..all() }, "bd", 4, false),
        (pb::RangeRequest { count_only: true, limit: 1, ..all() }, "", 4, false),
        (pb::RangeRequest { revision: 4, ..all() }, "abc", 3, false),
        (pb::RangeRequest { serializable: true, ..all() }, "abcd", 4, false),
    ] {
        let answer = ask(&server, request.clone()).await;
        let found = keys(&answer).concat();
        // Versions of a and d are the same, which leaves their order open.
        let found = if request.sort_target == 1 { &found[..2] } else { &found };
        assert_eq!((found, answer.count, answer.more), (expected, count, more), "{request:?}");
        let header = answer.header.unwrap();
        assert_eq!((header.revision, header.raft_term), (8, 2), "the newest revision");
        assert!(header.cluster_id != 0 && header.member_id != 0);
    }
}

#[tokio::test]
async fn keys_only_gives_everything_but_values() {
    let server = filled().await;
    for target in [SortTarget::Key, SortTarget::Value] {
        let request = pb::RangeRequest {
            keys_only: true,
            sort_target: target as i32,
            sort_order: SortOrder::Ascend as i32,
            ..range("a", "e")
        };
        let answer = ask(&server, request).await;
        assert!(answer.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
        let expected = if target == SortTarget::Key { "abcd" } else { "bcda" };
        assert_eq!(keys(&answer).concat(), expected);
    }
}

#[tokio::test]
async fn puts_keep_what_they_are_told_to() {
    let server = Server::start().await;
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 7 };
    server.lease().lease_grant(grant).await.unwrap();
    let first = pb::PutRequest { lease: 7, ..put("k", "1") };
    assert_eq!(server.kv().put(first).await.unwrap().into_inner().prev_kv, None);
    let kept = pb::PutRequest { ignore_lease: true, prev_kv: true, ..put("k", "2") };
    let previous = server.kv().put(kept).await.unwrap().into_inner().prev_kv.unwrap();
    assert_eq!((&previous.value[..], previous.lease, previous.version), (&b"1"[..], 7, 1));
    let kept = pb::PutRequest { ignore_value: true, ..put("k", "") };
    server.kv().put(kept).await.unwrap();
    let kv = ask(&server, range("k", "")).await.kvs.remove(0);
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"2"[..], 0, 3));
    let plain = pb::PutRequest { prev_kv: true, ..put("k", "3") };
    let answer = server.kv().put(plain).await.unwrap().into_inner();
    assert_eq!(answer.prev_kv.unwrap().mod_revision, answer.header.unwrap().revision - 1);
}

#[tokio::test]
async fn what_etcd_refuses_is_refused_in_its_words() {
    let server = filled().await;
    server.compact(4).await;
    let invalid = Code::InvalidArgument;
    for (request, code, message) in [
        (put("", "x"), invalid, "etcdserver: key is not provided"),
        (
            pb::PutRequest { ignore_value: true, ..put("a", "x") },
            invalid,
            "etcdserver: value is provided",
        ),
        (
            pb::PutRequest { ignore_lease: true, lease: 1, ..put("a", "x") },
            invalid,
            "etcdserver: lease is provided",
        ),
        (
            pb::PutRequest { ignore_lease: true, ..put("none", "x") },
            invalid,
            "etcdserver: key not found",
        ),
        (
            pb::PutRequest { lease: 99, ..put("a", "x") },
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
    ] {
        let answer = server.kv().put(request.clone()).await;
        assert_eq!(said(answer), (code, message.to_owned()), "{request:?}");
    }
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    let at = |revision| pb::RangeRequest { revision, ..range("a", "") };
    for (request, code, message) in [
        (range("", ""), invalid, "etcdserver: key is not provided"),
        (at(3), Code::OutOfRange, compacted),
        (at(9), Code::OutOfRange, future),
        (
            pb::RangeRequest { sort_order: 9, ..range("a", "") },
            invalid,
            "etcdserver: invalid sort option",
        ),
    ] {
        let answer = server.kv().range(request.clone()).await;
        assert_eq!(said(answer), (code, message.to_owned()), "{request:?}");
    }
    for (revision, message) in [(4, compacted), (-1, compacted), (9, future)] {
        let answer = server.kv().compact(pb::CompactionRequest { revision, physical: false }).await;
        assert_eq!(said(answer), (Code::OutOfRange, message.to_owned()), "{revision}");
    }
    let nothing = server.kv().delete_range(pb::DeleteRangeRequest::default()).await;
    assert_eq!(said(nothing), (invalid, "etcdserver: key is not provided".into()));
}

#[tokio::test]
async fn deletions_tell_what_they_removed() {
    let server = filled().await;
    let delete = |key: &str, range_end: &str| pb::DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv: true,
    };
    for (request, removed, revision) in [
        (delete("a", ""), "a", 9),
        (delete("a", ""), "", 9),
        (delete("b", "d"), "bc", 10),
        (delete("b", "d"), "", 10),
        (delete("\0", "\0"), "d", 11),
    ] {
        let answer = server.kv().delete_range(request.clone()).await.unwrap().into_inner();
        let keys: Vec<_> = answer.prev_kvs.iter().map(|kv| &kv.key[..]).collect();
        assert_eq!(keys.concat(), removed.as_bytes(), "{request:?}");
        assert_eq!(answer.deleted, removed.len() as i64);
        assert_eq!(answer.header.unwrap().revision, revision, "{request:?}");
    }
}

/// Every target and operator, for keys that are there and keys that are not.
#[tokio::test]
async fn comparisons_are_etcds() {
    let server = filled().await;
    let same = CompareResult::Equal;
    let other = CompareResult::NotEqual;
    let (more, less) = (CompareResult::Greater, CompareResult::Less);
    let value = |text: &str| TargetUnion::Value(bytes(text));
    let (by_mod, by_version) = (CompareTarget::Mod, CompareTarget::Version);
    for (key, result, target, union, holds) in [
        ("c", same, by_version, TargetUnion::Version(3), true),
        ("c", more, by_version, TargetUnion::Version(2), true),
        ("c", less, by_version, TargetUnion::Version(3), false),
        ("c", more, by_version, TargetUnion::Version(-1), true),
        ("c", same, by_version, TargetUnion::Version(-1), false),
        ("c", same, by_mod, TargetUnion::ModRevision(8), true),
        ("c", other, by_mod, TargetUnion::ModRevision(8), false),
        ("x", same, by_mod, TargetUnion::ModRevision(0), true),
        ("c", same, CompareTarget::Create, TargetUnion::CreateRevision(3), true),
        ("c", same, CompareTarget::Value, value("1"), true),
        ("c", less, CompareTarget::Value, value("2"), true),
        ("x", other, CompareTarget::Value, value("2"), false),
        ("x", same, CompareTarget::Lease, TargetUnion::Lease(0), true),
        ("c", more, CompareTarget::Lease, TargetUnion::Lease(-5), true),
        // An operand of another kind counts as zero.
        ("c", same, by_mod, TargetUnion::Version(8), false),
        ("x", same, by_mod, TargetUnion::Version(8), true),
    ] {
        let comparison = compare(key, result, target, union);
        let request = pb::TxnRequest { compare: vec![comparison.clone()], ..<_>::default() };
        let answer = server.kv().txn(request).await.unwrap().into_inner();
        assert_eq!(answer.succeeded, holds, "{comparison:?}");
    }
    for (key, range_end, version, holds) in
        [("a", "e", 0, true), ("a", "e", 1, false), ("b", "d", 1, true), ("x", "z", -1, true)]
    {
        let greater = compare(key, more, by_version, TargetUnion::Version(version));
        let wide = pb::Compare { range_end: bytes(range_end), ..greater };
        let request = pb::TxnRequest { compare: vec![wide], ..<_>::default() };
        let answer = server.kv().txn(request).await.unwrap().into_inner();
        assert_eq!(answer.succeeded, holds, "{key}..{range_end} > {version}");
    }
}

#[tokio::test]
async fn transactions_are_one_revision() {
    let server = Server::start().await;
    server.put("a", "1").await;
    let inner = pb::TxnRequest {
        compare: vec![mod_revision_is("none", 5)],
        success: vec![put_op(put("wrong", ""))],
        failure: vec![put_op(put("c", "3")), range_op(range("a", "d"))],
    };
    let request = pb::TxnRequest {
        compare: vec![mod_revision_is("a", 2)],
        success: vec![
            range_op(range("b", "")),
            put_op(pb::PutRequest { prev_kv: true, ..put("b", "2") }),
            txn_op(inner),
            delete_op("a", "", true),
        ],
        failure: vec![],
    };
    let answer = server.kv().txn(request).await.unwrap().into_inner();
    assert!(answer.succeeded);
    assert_eq!(answer.header.unwrap().revision, 3);
    let mut responses = answer.responses.into_iter().map(|op| op.response.unwrap());
    let Some(response_op::Response::ResponseRange(before)) = responses.next() else { panic!() };
    assert_eq!((before.count, before.header.unwrap().revision), (0, 2));
    let Some(response_op::Response::ResponsePut(first)) = responses.next() else { panic!() };
    assert_eq!((first.prev_kv, first.header.unwrap().revision), (None, 3));
    let Some(response_op::Response::ResponseTxn(inner)) = responses.next() else { panic!() };
    assert_eq!((inner.succeeded, inner.responses.len()), (false, 2));
    let Some(response_op::Response::ResponseRange(seen)) = &inner.responses[1].response else {
        panic!()
    };
    assert_eq!(keys(seen), ["a", "b", "c"], "a range sees what was put before it");
    let Some(response_op::Response::ResponseDeleteRange(gone)) = responses.next() else { panic!() };
    assert_eq!((gone.deleted, gone.prev_kvs[0].mod_revision), (1, 2));
    let left = ask(&server, range("a", "z")).await;
    assert!(left.kvs.iter().all(|kv| kv.mod_revision == 3));
    assert_eq!(keys(&left), ["b", "c"]);
}

#[tokio::test]
async fn transactions_are_refused_whole() {
    let server = filled().await;
    let success = |ops: Vec<pb::RequestOp>| pb::TxnRequest { success: ops, ..<_>::default() };
    let twice = "etcdserver: duplicate key given in txn request";
    let many = "etcdserver: too many operations in txn request";
    let inner = |ops| txn_op(success(ops));
    let deep = (0..2).fold(inner(vec![put_op(put("k", ""))]), |op, _| inner(vec![op; 50]));
    for (request, message) in [
        (success(vec![put_op(put("a", "1")), put_op(put("a", "2"))]), twice),
        (success(vec![put_op(put("b", "1")), delete_op("a", "c", false)]), twice),
        (success(vec![put_op(put("a", "1")), inner(vec![put_op(put("a", "2"))])]), twice),
        (
            success(vec![inner(vec![put_op(put("a", "2"))]), inner(vec![put_op(put("a", ""))])]),
            twice,
        ),
        (success(vec![range_op(range("a", "")); 129]), many),
        (success(vec![inner(vec![range_op(range("a", "")); 128])]), many),
        (success(vec![deep]), twice),
        (success(vec![put_op(put("", "1"))]), "etcdserver: key is not provided"),
        (success(vec![pb::RequestOp { request: None }]), "etcdserver: key not found"),
        (
            pb::TxnRequest { compare: vec![mod_revision_is("", 0)], ..<_>::default() },
            "etcdserver: key is not provided",
        ),
    ] {
        let answer = server.kv().txn(request).await;
        assert_eq!(said(answer), (Code::InvalidArgument, message.to_owned()));
    }
    let orphan = pb::PutRequest { lease: 4, ..put("new", "1") };
    let request = success(vec![put_op(put("first", "1")), put_op(orphan)]);
    let answer = server.kv().txn(request).await;
    let expected = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
    assert_eq!(said(answer), expected);
    let now = ask(&server, range("first", "")).await;
    assert_eq!((now.count, now.header.unwrap().revision), (0, 8), "nothing was written");
    // The two branches may change the same key.
    let either = pb::TxnRequest {
        compare: vec![],
        success: vec![put_op(put("a", "1"))],
        failure: vec![put_op(put("a", "2"))],
    };
    assert!(server.kv().txn(success(vec![txn_op(either)])).await.is_ok());
}

#[tokio::test]
async fn a_compaction_forgets_what_was_before() {
    let server = filled().await;
    server.compact(6).await;
    let at = |revision| pb::RangeRequest { revision, ..range("a", "e") };
    let kept = ask(&server, at(6)).await;
    assert_eq!(keys(&kept), ["a", "b", "c", "d"]);
    assert_eq!(said(server.kv().range(at(5)).await).0, Code::OutOfRange);
}
