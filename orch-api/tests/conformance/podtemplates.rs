//! PodTemplates as objects.
//!
//! Source: `test/e2e/common/node/podtemplates.go`.

use serde_json::{Value, json};

use super::{
    objects::{STRATEGIC, annotate, names},
    world::World,
};

const NAMESPACE: &str = "podtemplate";

fn template(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {label: "true"}},
        "template": {"spec": {"containers": [{"name": "nginx", "image": "nginx"}]}},
    })
}

/// A template is found over all namespaces, patched, read, and gone after its deletion.
pub(super) async fn should_run_the_lifecycle_of_podtemplates() {
    let world = World::with_namespace(NAMESPACE).await;
    let templates = world.of("v1", "PodTemplate", NAMESPACE).await;
    let everywhere = world.all("v1", "PodTemplate").await;
    let selector = "podtemplate-static=true";
    assert_eq!(everywhere.list(selector).await.len(), 0);
    let made = templates.create(template("nginx-pod-template", "podtemplate-static")).await;
    let read = templates.get("nginx-pod-template").await;
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    let patched = templates.label(STRATEGIC, &made, "podtemplate", "patched").await;
    assert_eq!(patched["template"], made["template"]);
    let read = templates.get("nginx-pod-template").await;
    assert_eq!(read["metadata"]["labels"]["podtemplate"], "patched");
    templates.delete("nginx-pod-template").await;
    assert_eq!(everywhere.list(selector).await.len(), 0);
}

/// Templates are found by their label and deleted by it.
pub(super) async fn should_delete_a_collection_of_pod_templates() {
    let world = World::with_namespace(NAMESPACE).await;
    let templates = world.of("v1", "PodTemplate", NAMESPACE).await;
    let made = ["test-podtemplate-1", "test-podtemplate-2", "test-podtemplate-3"];
    for name in made {
        templates.create(template(name, "podtemplate-set")).await;
    }
    assert_eq!(names(&templates.list("podtemplate-set=true").await), made);
    templates.delete_all("podtemplate-set=true").await;
    assert_eq!(templates.list("podtemplate-set=true").await.len(), 0);
}

/// An annotation that an update sets is read afterwards.
pub(super) async fn should_replace_a_pod_template() {
    let world = World::with_namespace(NAMESPACE).await;
    let templates = world.of("v1", "PodTemplate", NAMESPACE).await;
    let mut made = templates.create(template("e2e-template", "e2e")).await;
    annotate(&mut made, "updated", "true");
    let updated = templates.replace(made).await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    let read = templates.get("e2e-template").await;
    assert_eq!(read["metadata"]["annotations"]["updated"], "true");
}
