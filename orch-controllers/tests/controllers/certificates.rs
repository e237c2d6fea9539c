//! CertificateSigningRequests.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use orch_controllers::certificates::{
    API_CLIENT, AuthorityError, CertificateAuthority, CertificateTerms, KUBELET_CLIENT,
    KUBELET_SERVING, LEGACY_UNKNOWN, Signers, certificate_approving, certificate_cleaner,
    certificate_signing,
};
use orch_core::client::PatchKind;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DnType, Issuer, KeyPair, SanType};
use serde_json::json;

use crate::world::World;

/// An authority in memory.
struct Authority(Issuer<'static, KeyPair>);

fn seconds(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap())
}

impl Authority {
    fn signs() -> Arc<dyn CertificateAuthority> {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Arc::new(Self(Issuer::new(params, KeyPair::generate().unwrap())))
    }
}

impl CertificateAuthority for Authority {
    fn not_after(&self) -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    fn sign(&self, request_pem: &str, terms: &CertificateTerms) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem);
        let mut request = request.map_err(|error| AuthorityError(error.to_string()))?;
        request.params.not_before = rcgen::date_time_ymd(1970, 1, 1) + seconds(terms.not_before);
        request.params.not_after = rcgen::date_time_ymd(1970, 1, 1) + seconds(terms.not_after);
        let signed = request.signed_by(&self.0);
        signed.map(|signed| signed.pem()).map_err(|error| AuthorityError(error.to_string()))
    }
}

/// A request of a node, in PEM.
fn request_pem(node: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
    params.subject_alt_names.extend(names);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

struct Asked<'a> {
    name: &'a str,
    signer: &'a str,
    usages: &'a [&'a str],
    pem: String,
    user: &'a str,
    group: &'a str,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            name: "a",
            signer: KUBELET_CLIENT,
            usages: &["client auth", "digital signature"],
            pem: request_pem("a", &[]),
            user: "system:node:a",
            group: "system:nodes",
        }
    }
}

async fn ask(world: &World, asked: Asked<'_>) {
    let request = json!({
        "metadata": {"name": asked.name},
        "spec": {
            "signerName": asked.signer, "usages": asked.usages, "expirationSeconds": 3600,
            "request": k8s_openapi::ByteString(asked.pem.into_bytes()),
            "username": asked.user, "groups": [asked.group],
        },
    });
    world.create_cluster::<CertificateSigningRequest>(request).await;
}

async fn approve(world: &World, name: &str) {
    let patch = json!({"status": {"conditions": [{"type": "Approved", "status": "True",
        "reason": "ByHand", "lastUpdateTime": "2026-01-01T00:00:00Z"}]}});
    let requests = world.all::<CertificateSigningRequest>();
    requests.patch_status(name, PatchKind::Merge, patch).await.unwrap();
}

async fn certificate(world: &World, name: &str) -> Option<Vec<u8>> {
    let request = world.all::<CertificateSigningRequest>().get_opt(name).await.unwrap()?;
    Some(request.status.as_ref()?.certificate.as_ref()?.0.clone())
}

async fn condition(world: &World, name: &str, type_: &str) -> Option<(String, String)> {
    let request = world.all::<CertificateSigningRequest>().get_opt(name).await.unwrap()?;
    let conditions = request.status.as_ref()?.conditions.clone()?;
    let found = conditions.into_iter().find(|one| one.type_ == type_)?;
    Some((found.reason?, found.message.unwrap_or_default()))
}

#[tokio::test(start_paused = true)]
async fn what_is_approved_is_signed_by_its_signer() {
    let world = World::start(|informers| {
        vec![certificate_signing(informers, Signers::all(&Authority::signs()))]
    });
    ask(&world, Asked::default()).await;
    world.pass(60).await;
    assert!(certificate(&world, "a").await.is_none(), "nobody approved it");
    approve(&world, "a").await;
    let pem = world.eventually("a certificate", async |world| certificate(world, "a").await).await;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let signed = pem.parse_x509().unwrap();
    assert_eq!(
        signed.subject().iter_common_name().next().unwrap().as_str().unwrap(),
        "system:node:a"
    );
    // An hour, from five minutes before it was signed on.
    let lives = signed.validity().not_after.timestamp() - signed.validity().not_before.timestamp();
    assert_eq!(lives, 3900);
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    // What does not suit its signer fails for good.
    let serving = Asked {
        name: "b",
        signer: KUBELET_SERVING,
        usages: &["server auth", "digital signature"],
        ..Asked::default()
    };
    ask(&world, serving).await;
    approve(&world, "b").await;
    let failed = async |world: &World| condition(world, "b", "Failed").await;
    let (reason, message) = world.eventually("a failure", failed).await;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("SignerValidationFailure", "DNS or IP subjectAltName is required")
    );
    assert!(certificate(&world, "b").await.is_none());

    // Other signers are left to whoever has them; the legacy one takes anything.
    let usages = &["any"];
    let pem = || request_pem("c", &["example.com"]);
    ask(
        &world,
        Asked { name: "c", signer: "example.com/own", pem: pem(), usages, ..Asked::default() },
    )
    .await;
    ask(
        &world,
        Asked { name: "d", signer: LEGACY_UNKNOWN, pem: pem(), usages, ..Asked::default() },
    )
    .await;
    for name in ["c", "d"] {
        approve(&world, name).await;
    }
    world.eventually("a certificate", async |world| certificate(world, "d").await).await;
    assert!(certificate(&world, "c").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn clients_of_node_agents_are_approved_if_they_may() {
    let world = World::start(|informers| vec![certificate_approving(informers)]);
    ask(&world, Asked { name: "own", ..Asked::default() }).await;
    let other = Asked { name: "other", user: "system:node:b", ..Asked::default() };
    ask(&world, other).await;
    let user = "system:bootstrap:abcdef";
    let first = Asked { name: "first", user, group: "system:bootstrappers", ..Asked::default() };
    ask(&world, first).await;
    ask(&world, Asked { name: "client", signer: API_CLIENT, ..Asked::default() }).await;
    let named =
        Asked { name: "named", pem: request_pem("a", &["a.example.com"]), ..Asked::default() };
    ask(&world, named).await;
    let approved = async |name: &str| {
        let found = async |world: &World| condition(world, name, "Approved").await;
        world.eventually("an approval", found).await
    };
    let expected = "Auto approving self kubelet client certificate after SubjectAccessReview.";
    assert_eq!(approved("own").await, ("AutoApproved".to_owned(), expected.to_owned()));
    let expected = "Auto approving kubelet client certificate after SubjectAccessReview.";
    assert_eq!(approved("first").await.1, expected);
    world.pass(60).await;
    for name in ["other", "client", "named"] {
        assert_eq!(condition(&world, name, "Approved").await, None, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_go_when_they_are_done_with() {
    let world = World::start(|informers| {
        let signers = Signers::all(&Authority::signs());
        vec![certificate_cleaner(informers), certificate_signing(informers, signers)]
    });
    for name in ["pending", "approved", "denied"] {
        ask(&world, Asked { name, ..Asked::default() }).await;
    }
    approve(&world, "approved").await;
    let patch = json!({"status": {"conditions": [{"type": "Denied", "status": "True",
        "reason": "ByHand", "lastUpdateTime": "2026-01-01T00:30:00Z"}]}});
    let requests = world.all::<CertificateSigningRequest>();
    requests.patch_status("denied", PatchKind::Merge, patch).await.unwrap();
    let left = async || {
        let requests = requests.list(Default::default()).await.unwrap();
        requests.iter().filter_map(|one| one.metadata.name.clone()).collect::<Vec<_>>()
    };
    world.pass(3500).await;
    assert_eq!(left().await, ["approved", "denied", "pending"]);
    world.pass(200).await;
    assert_eq!(left().await, ["denied", "pending"]);
    world.pass(1800).await;
    assert_eq!(left().await, ["pending"]);
    world.pass(79_000).await;
    assert_eq!(left().await, ["pending"]);
    world.pass(3000).await;
    assert!(left().await.is_empty());
}
