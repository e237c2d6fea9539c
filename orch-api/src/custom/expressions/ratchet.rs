//! What a write leaves as it was may stay wrong: the rule may be younger than the object.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`,
//! `ratchetingOptions`, and KEP-4008.

use serde_json::Value;

type Pair<'a> = (&'a Value, &'a Value);

/// A value with what it was before, and the nearest value around it that has a before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ratchet<'a> {
    current: Option<Pair<'a>>,
    around: Option<Pair<'a>>,
}

impl<'a> Ratchet<'a> {
    pub(super) fn root(new: &'a Value, old: Option<&'a Value>) -> Self {
        Self { current: old.map(|old| (new, old)), around: None }
    }

    /// A field of an object.
    pub(super) fn field(self, name: &str, new: &'a Value, old: Option<&'a Value>) -> Self {
        let at_root = self.current.is_some() && self.around.is_none();
        if at_root && matches!(name, "apiVersion" | "kind") {
            // Both were converted to the same: a change would not be seen.
            return Self::default();
        }
        self.inside(new, old)
    }

    /// What is inside of a value.
    pub(super) fn inside(self, new: &'a Value, old: Option<&'a Value>) -> Self {
        match self.current {
            None => self,
            Some(_) => Self { current: old.map(|old| (new, old)), around: self.current },
        }
    }

    /// Without what the value was itself.
    pub(super) fn forgotten(self) -> Self {
        Self { current: None, around: self.around }
    }

    pub(super) fn is_unchanged(self) -> bool {
        self.current.or(self.around).is_some_and(|(new, old)| new == old)
    }
}
