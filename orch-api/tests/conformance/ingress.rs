//! Ingresses as objects.
//!
//! Source: `test/e2e/network/ingress.go`.

use serde_json::json;

use super::{
    objects::{MERGE, call, name},
    operations::every_verb,
    world::World,
};

/// All verbs of ingresses, in a namespace and over all, and of their status.
pub(super) async fn should_support_creating_ingress_api_operations() {
    let world = World::with_namespace("ingress").await;
    let group = "networking.k8s.io";
    world.discover(group, "v1", &["ingresses", "ingresses/status"]).await;
    let ingresses = world.of("networking.k8s.io/v1", "Ingress", "ingress").await;
    let everywhere = world.all("networking.k8s.io/v1", "Ingress").await;
    let make = |_| {
        let backend = json!({"service": {"name": "test-backend", "port": {"number": 8080}}});
        json!({
            "metadata": {"generateName": "e2e-example-ing"},
            "spec": {
                "defaultBackend": {"service": {"name": "default-backend", "port": {"number": 80}}},
                "rules": [{"host": "foo.bar.com", "http": {
                    "paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
            },
        })
    };
    every_verb(&ingresses, Some(&everywhere), make, async |ingresses, first| {
        let at = format!("{}/status", name(&first));
        let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
            "status": {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}});
        let mut patched = ingresses.patch(&at, MERGE, patch).await;
        assert_eq!(patched["status"]["loadBalancer"]["ingress"], json!([{"ip": "169.1.1.1"}]));
        assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
        let two = json!([{"ip": "169.1.1.2"}]);
        patched["status"]["loadBalancer"]["ingress"] = two.clone();
        let updated = ingresses.replace_status(patched).await;
        assert_eq!(updated["status"]["loadBalancer"]["ingress"], two);
        let path = format!("{}/{at}", ingresses.path);
        let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
        assert_eq!(read["status"]["loadBalancer"]["ingress"], two);
        assert_eq!(read["metadata"]["uid"], first["metadata"]["uid"]);
    })
    .await;
}
