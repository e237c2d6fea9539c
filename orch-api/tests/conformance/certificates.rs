//! CertificateSigningRequests as objects, their approval and their status.
//!
//! Source: `test/e2e/auth/certificates.go`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, generate_simple_self_signed};
use serde_json::{Value, json};

use super::{
    objects::{MERGE, Objects, annotate, call, name},
    world::World,
};

const SIGNER: &str = "example.com/e2e-certificates";
const NAME: &str = "e2e.example.com";

fn request() -> Value {
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({
        "metadata": {"generateName": "e2e-example-csr-"},
        "spec": {
            "request": STANDARD.encode(pem), "signerName": SIGNER, "expirationSeconds": 3600,
            "usages": ["digital signature", "key encipherment", "server auth"],
        },
    })
}

fn kinds(object: &Value) -> Vec<&str> {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().filter_map(|one| one["type"].as_str()).collect()
}

/// Reads, patches and replaces `approval`: it writes conditions.
async fn approval(world: &World, requests: &Objects, made: &Value) -> Value {
    let at = format!("{}/approval", name(made));
    let path = format!("{}/{at}", requests.path);
    let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!(
        (&read["kind"], &read["metadata"]["uid"]),
        (&json!("CertificateSigningRequest"), &made["metadata"]["uid"])
    );
    let patch = json!({"metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [
            {"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let mut patched = requests.patch(&at, MERGE, patch).await;
    assert_eq!(kinds(&patched), ["ApprovalPatch"]);
    assert_eq!(patched["metadata"]["annotations"]["patchedapproval"], "true");
    let approved = json!({"type": "Approved", "status": "True", "reason": "E2E",
        "message": "Set from an e2e test"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(approved);
    let updated = requests.try_replace("/approval", patched).await.unwrap();
    assert_eq!(kinds(&updated), ["ApprovalPatch", "Approved"]);
    updated
}

/// Reads, patches and replaces `status`: it writes the certificate, and conditions that are no
/// approval.
async fn status(world: &World, requests: &Objects, made: &Value) {
    let at = format!("{}/status", name(made));
    let path = format!("{}/{at}", requests.path);
    let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    let certificate = generate_simple_self_signed(vec![NAME.to_owned()]).unwrap().cert.pem();
    let certificate = STANDARD.encode(certificate);
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"certificate": certificate}});
    let mut patched = requests.patch(&at, MERGE, patch).await;
    assert_eq!(patched["status"]["certificate"], certificate);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E",
        "message": "Set from an e2e test"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(condition);
    let updated = requests.replace_status(patched).await;
    assert_eq!(kinds(&updated), ["ApprovalPatch", "Approved", "StatusUpdate"]);
}

/// All verbs of requests, and of `approval` and `status`.
pub(super) async fn should_support_csr_api_operations() {
    let world = World::start().await;
    let resources = [
        "certificatesigningrequests",
        "certificatesigningrequests/approval",
        "certificatesigningrequests/status",
    ];
    world.discover("certificates.k8s.io", "v1", &resources).await;
    let requests = world.all("certificates.k8s.io/v1", "CertificateSigningRequest").await;
    requests.create(request()).await;
    requests.create(request()).await;
    let made = requests.create(request()).await;
    assert_eq!(made["spec"]["username"], "e2e");
    let read = requests.get(name(&made)).await;
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(read["spec"]["expirationSeconds"], 3600);
    let by_signer = format!("spec.signerName={SIGNER}");
    assert_eq!(requests.list_by_field(&by_signer).await.len(), 3);

    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let query = format!("fieldSelector=metadata.name%3D{}&resourceVersion={version}", name(&made));
    let mut watch = requests.watch_by(&query).await;
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let mut patched = requests.patch(name(&made), MERGE, patch).await;
    watch.expect_object("MODIFIED", &patched).await;
    annotate(&mut patched, "updated", "true");
    let updated = requests.replace(patched).await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    watch.expect_object("MODIFIED", &updated).await;

    approval(&world, &requests, &made).await;
    status(&world, &requests, &made).await;

    requests.delete(name(&made)).await;
    requests.gone(name(&made)).await;
    assert_eq!(requests.list_by_field(&by_signer).await.len(), 2);
    requests
        .delete_by(&format!("fieldSelector=spec.signerName%3D{}", SIGNER.replace('/', "%2F")))
        .await;
    assert_eq!(requests.list_by_field(&by_signer).await.len(), 0);
}
