//! Tables.
//!
//! Source: `test/e2e/apimachinery/table_conversion.go`.

use serde_json::json;

use super::{objects::call, world::World};

/// What stores nothing and has no metadata cannot be printed as a table: 406.
pub(super) async fn should_return_a_406_for_a_backend_which_does_not_implement_metadata() {
    let world = World::start().await;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let headers = [
        ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
        ("content-type", "application/json"),
    ];
    let answer = call(&world.client, "POST", path, &headers, Some(review.to_string())).await;
    let status = answer.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (406, "NotAcceptable"), "{status:?}");
}
