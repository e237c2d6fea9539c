//! IngressClasses as objects.
//!
//! Source: `test/e2e/network/ingressclass.go`.

use serde_json::json;

use super::{
    operations::{every_verb, nothing_more},
    world::World,
};

/// All verbs of ingress classes.
pub(super) async fn should_support_creating_ingressclass_api_operations() {
    let world = World::start().await;
    world.discover("networking.k8s.io", "v1", &["ingressclasses"]).await;
    let classes = world.all("networking.k8s.io/v1", "IngressClass").await;
    let make = |number| {
        json!({"metadata": {"name": format!("ingressclass{number}")},
            "spec": {"controller": "example.com/controller"}})
    };
    every_verb(&classes, None, make, nothing_more).await;
}
