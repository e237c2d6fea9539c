//! One etcd: the conformance suite, restarts, TLS, authentication.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use orch_store::{
    EtcdCredentials, EtcdIdentity, EtcdOptions, EtcdStore, EtcdTls, KeyRange, Precondition, Put,
    PutLease, RangeRequest, Step, Store, StoreError, StoreReader, Transaction, WatchItem,
    WatchRequest, WatchStream, Write, WriteOutcome, testing,
};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::etcd::{Etcd, connect, etcdctl};

pub(crate) async fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path(), "http", &[]);
    let store = etcd.connect().await;
    testing::conformance(Arc::new(store.clone())).await;
    testing::lease_conformance(&store).await;
}

async fn put(store: &EtcdStore, key: &str, value: &str) {
    let outcome = store.write(Write::put(key.to_owned(), value.to_owned())).await;
    assert!(matches!(outcome, Ok(WriteOutcome::Committed { .. })), "{key}: {outcome:?}");
}

async fn watch(store: &EtcdStore, prefix: &'static str) -> WatchStream {
    let request = WatchRequest { range: KeyRange::prefix(prefix), from: None };
    store.watch(request).await.unwrap()
}

/// The keys of the next events.
async fn keys(watch: &mut WatchStream, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    while keys.len() < count {
        if let WatchItem::Events(events) = watch.next().await.unwrap().unwrap() {
            let key = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            keys.extend(events.iter().map(|event| key(&event.entry.key)));
        }
    }
    keys
}

pub(crate) async fn watch_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(folder.path(), "http", &[]);
    let store = etcd.connect().await;
    let mut seen = watch(&store, "/r/").await;
    put(&store, "/r/1", "before").await;
    etcd.stop();
    let down = store.write(Write::put("/r/x", "down")).await;
    // Refused once the broken connection is noticed.
    assert!(matches!(down, Err(StoreError::Unavailable(_) | StoreError::Unknown(_))), "{down:?}");
    let down = store.write(Write::put("/r/x", "down")).await;
    assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
    etcd.restart();
    let store = etcd.connect().await;
    for name in ["/r/2", "/r/3"] {
        put(&store, name, "after").await;
    }
    assert_eq!(keys(&mut seen, 3).await, ["/r/1", "/r/2", "/r/3"]);
}

pub(crate) async fn compaction_during_a_break_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(folder.path(), "http", &[]);
    let store = etcd.connect().await;
    let mut seen = watch(&store, "/c/").await;
    put(&store, "/c/1", "seen").await;
    assert_eq!(keys(&mut seen, 1).await, ["/c/1"]);
    // From here on nobody reads the watch; it notices the break when it is read again.
    etcd.stop();
    etcd.restart();
    let again = etcd.connect().await;
    for _ in 0..3 {
        put(&again, "/c/2", "x").await;
    }
    let newest = again.range(RangeRequest::new(KeyRange::key("/c/2"))).await.unwrap().revision;
    again.compact(newest).await.unwrap();
    let end = loop {
        match seen.next().await.unwrap() {
            Ok(WatchItem::Events(events)) => panic!("events across a compaction: {events:?}"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, StoreError::Compacted { .. }), "{end}");
    assert!(seen.next().await.is_none(), "an error is the last item");
}

/// A watcher that does not read holds up nobody, and misses nothing. What it reads later is cut
/// into fragments by etcd, in the middle of revisions.
pub(crate) async fn a_slow_watcher_holds_up_nobody() {
    const WRITES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path(), "http", &[]);
    let store = etcd.connect().await;
    let mut slow = Vec::new();
    for _ in 0..6 {
        slow.push(watch(&store, "/s/").await);
    }
    // More than all that a connection would take without a limit for each watch.
    let value: Bytes = "x".repeat(450 << 10).into();
    let put = |key: String| {
        Step::Put(Put { key: key.into(), value: Some(value.clone()), lease: PutLease::Set(None) })
    };
    for number in 0..WRITES {
        let success = vec![put(format!("/s/{number}/a")), put(format!("/s/{number}/b"))];
        store.transact(Transaction { success, ..Transaction::default() }).await.unwrap();
    }
    let expected = |number| ["a", "b"].map(|name| format!("/s/{number}/{name}"));
    for watch in &mut slow {
        let mut seen = 0;
        while seen < WRITES {
            let WatchItem::Events(events) = watch.next().await.unwrap().unwrap() else { continue };
            for revision in events.chunk_by(|a, b| a.entry.mod_revision == b.entry.mod_revision) {
                let keys: Vec<_> = revision.iter().map(|event| event.entry.key.clone()).collect();
                assert_eq!(keys, expected(seen), "a revision is split, missing or repeated");
                seen += 1;
            }
        }
    }
}

/// etcd says that it has no space left of a write that took the last of it, too.
pub(crate) async fn no_space_is_an_unknown_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path(), "http", &[("--quota-backend-bytes", "4194304")]);
    let store = etcd.connect().await;
    let value: Bytes = "x".repeat(512 << 10).into();
    let mut written = 0;
    let full = loop {
        match store.write(Write::create(format!("/n/{written}"), value.clone())).await {
            Ok(WriteOutcome::Committed { .. }) => written += 1,
            Ok(refused) => panic!("{refused:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Unknown(_)), "{full:?}");
    assert!(written > 0);
    let there = store.range(RangeRequest::new(KeyRange::prefix("/n/"))).await.unwrap();
    assert!(there.count == written || there.count == written + 1, "{written}, {}", there.count);
    let deletion = store.write(Write::delete("/n/0", Precondition::None)).await;
    assert!(matches!(deletion, Ok(WriteOutcome::Committed { .. })), "{deletion:?}");
}

/// A certificate authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> EtcdIdentity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let (certificate_pem, key_pem) = (certificate.pem().into(), key.serialize_pem().into());
        EtcdIdentity { certificate_pem, key_pem }
    }

    fn trust(&self) -> EtcdTls {
        EtcdTls { server_name: Some("etcd.test".into()), ..EtcdTls::new(self.0.pem()) }
    }
}

fn start_with_tls(folder: &Path, authority: &Authority) -> Etcd {
    let identity = authority.sign("etcd.test");
    let file = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let arguments = [
        ("--cert-file", file("server.pem", &identity.certificate_pem)),
        ("--key-file", file("server.key", &identity.key_pem)),
        ("--trusted-ca-file", file("ca.pem", authority.0.pem().as_bytes())),
    ];
    let mut arguments: Vec<_> = arguments.iter().map(|(name, value)| (*name, &**value)).collect();
    arguments.push(("--client-cert-auth", "true"));
    Etcd::start(&folder.join("data"), "https", &arguments)
}

pub(crate) async fn tls_with_client_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let etcd = start_with_tls(folder.path(), &authority);
    let client = authority.sign("client");
    let identity = Some(client.clone());
    let options = |tls| EtcdOptions { tls: Some(tls), ..etcd.options() };
    let store = connect(options(EtcdTls { identity: identity.clone(), ..authority.trust() })).await;
    let mut seen = watch(&store, "/tls/").await;
    put(&store, "/tls/1", "private").await;
    assert_eq!(keys(&mut seen, 1).await, ["/tls/1"]);

    let stranger = Authority::new();
    let trust = authority.trust();
    for (why, tls) in [
        ("no client certificate", trust.clone()),
        (
            "a client certificate of a stranger",
            EtcdTls { identity: Some(stranger.sign("client")), ..trust.clone() },
        ),
        ("a server of a stranger", EtcdTls { identity: identity.clone(), ..stranger.trust() }),
        (
            "a server of another name",
            EtcdTls { identity: identity.clone(), server_name: None, ..trust },
        ),
    ] {
        let refused = EtcdStore::connect(options(tls)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{why}: {refused:?}");
    }
    let nothing = EtcdTls { identity, ..EtcdTls::new("no certificate") };
    let key_pem = b"no key".to_vec();
    let no_key = EtcdIdentity { key_pem, ..client };
    let no_key = EtcdTls { identity: Some(no_key), ..authority.trust() };
    for tls in [nothing, no_key] {
        let refused = EtcdStore::connect(options(tls)).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
}

/// A user `app` that may do everything under `/a/`.
async fn enable_authentication(endpoint: &str) {
    for arguments in [
        "user add root:top",
        "user grant-role root root",
        "role add app",
        "role grant-permission app readwrite /a/ --prefix=true",
        "user add app:secret",
        "user grant-role app app",
        "auth enable",
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        etcdctl(endpoint, &arguments).await;
    }
}

pub(crate) async fn authentication_survives_tokens() {
    const TOKEN_TTL: Duration = Duration::from_secs(1);
    let folder = tempfile::tempdir().unwrap();
    let ttl = TOKEN_TTL.as_secs().to_string();
    let mut etcd = Etcd::start(folder.path(), "http", &[("--auth-token-ttl", &ttl)]);
    let credentials = |password: &str| EtcdOptions {
        credentials: Some(EtcdCredentials { user: "app".into(), password: password.into() }),
        ..etcd.options()
    };
    // Without authentication enabled credentials do no harm.
    put(&connect(credentials("any")).await, "/open", "x").await;
    enable_authentication(&etcd.client).await;
    let anonymous = EtcdStore::connect(etcd.options()).await;
    assert!(matches!(anonymous, Err(StoreError::Unavailable(_))), "{anonymous:?}");
    let wrong = EtcdStore::connect(credentials("wrong")).await;
    assert!(matches!(wrong, Err(StoreError::Invalid(_))), "{wrong:?}");

    let store = connect(credentials("secret")).await;
    let elsewhere = store.write(Write::put("/b/1", "x")).await;
    assert!(matches!(elsewhere, Err(StoreError::Unavailable(_))), "{elsewhere:?}");
    let mut seen = watch(&store, "/a/").await;
    put(&store, "/a/1", "x").await;
    // Nobody uses the token until it has ended; etcd looks every second.
    tokio::time::sleep(TOKEN_TTL * 2 + Duration::from_millis(500)).await;
    put(&store, "/a/2", "x").await;
    assert_eq!(keys(&mut seen, 2).await, ["/a/1", "/a/2"]);

    // etcd does not know its tokens after a restart, and the watch begins anew.
    etcd.stop();
    etcd.restart();
    let again = connect(EtcdOptions {
        credentials: Some(EtcdCredentials { user: "app".into(), password: "secret".into() }),
        ..etcd.options()
    });
    put(&again.await, "/a/3", "x").await;
    assert_eq!(keys(&mut seen, 1).await, ["/a/3"]);
    put(&store, "/a/4", "x").await;
    assert_eq!(keys(&mut seen, 1).await, ["/a/4"]);

    // Another password ends the token, and there is no new one.
    let root = ["--user", "root:top", "user", "delete", "app"];
    etcdctl(&etcd.client, &root).await;
    let denied = store.write(Write::put("/a/5", "x")).await;
    assert!(matches!(denied, Err(StoreError::Unavailable(_))), "{denied:?}");
}
