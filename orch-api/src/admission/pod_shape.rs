//! Reading pods as JSON: their containers and what these ask for.

pub(super) use orch_core::quota::{Amounts, amount, amounts, containers, pod_total, requirement};
use serde_json::{Map, Value};

/// Runs over the init containers and the containers to change them.
pub(super) fn each_container(spec: &mut Value, mut change: impl FnMut(&mut Map<String, Value>)) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}
