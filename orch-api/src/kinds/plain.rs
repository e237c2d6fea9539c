//! Kinds without behaviour of their own.

use serde_json::Value;

use crate::strategy::Strategy;

/// A kind with `spec` and, perhaps, `status`: the generation counts changes of everything but
/// metadata and status.
#[derive(Debug)]
pub(crate) struct Plain;

impl Strategy for Plain {
    fn has_generation(&self) -> bool {
        true
    }

    fn generation_changes(&self, new: &Value, old: &Value) -> bool {
        let rest = |object: &Value| {
            let mut object = object.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.remove("metadata");
                fields.remove("status");
            }
            object
        };
        rest(new) != rest(old)
    }
}
