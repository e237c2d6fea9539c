//! An apply configuration merged without ownership, as mutating policies do it.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`.

use serde_json::Value;

use super::typed::{self, Node};
use crate::schema::Model;

/// Merges a configuration into an object by its schema. Lists, maps and objects that are owned as
/// a whole may not be in it: what it does not say of them would be lost.
///
/// # Errors
/// Upstream's text for a configuration that does not fit the schema, or has such a value.
pub fn merge_configuration<'a>(
    model: impl Into<Model<'a>>,
    live: &Value,
    config: &Value,
) -> Result<Value, String> {
    let node = Node::root(model.into());
    if let Some(why) = typed::undeclared(node, config, &mut String::new()) {
        return Err(format!("failed to convert patch object to typed object: {why}"));
    }
    let mut atomics = Vec::new();
    typed::atomics(node, config, &mut String::new(), &mut atomics);
    if !atomics.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomics.join(", ")
        ));
    }
    typed::merge(node, live, config).map_err(|why| format!("failed to merge patch: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema;

    #[test]
    fn configurations_are_merged_by_the_schema() {
        let deployment = schema::of("apps", "v1", "Deployment");
        let live = json!({"spec": {"replicas": 1, "template": {"spec": {
            "containers": [{"name": "a", "image": "x"}]}}}});
        let config = json!({"spec": {"template": {"spec": {
            "containers": [{"name": "b", "image": "y"}, {"name": "a", "stdin": true}]}}}});
        let merged = merge_configuration(deployment, &live, &config).unwrap();
        let containers = &merged["spec"]["template"]["spec"]["containers"];
        let all: Vec<&Value> = containers.as_array().unwrap().iter().collect();
        assert!(all.contains(&&json!({"name": "a", "image": "x", "stdin": true})), "{all:?}");
        assert!(all.contains(&&json!({"name": "b", "image": "y"})), "{all:?}");
        assert_eq!(merged["spec"]["replicas"], 1);
        let config = json!({"spec": {"template": {"spec": {
            "containers": [{"name": "a", "args": ["x"]}]}}}});
        let error = merge_configuration(deployment, &live, &config).unwrap_err();
        assert_eq!(
            error,
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.template.spec.containers[0].args"
        );
        let error = merge_configuration(deployment, &live, &json!({"spec": {"x": 1}}));
        assert!(error.unwrap_err().contains(".spec.x: field not declared in schema"));
    }
}
