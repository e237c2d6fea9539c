//! Values that only functions look into.

use std::any::Any;
use std::fmt::Debug;

use crate::types::Type;

/// A value of a type that the language does not know: a quantity, an address, or one that an
/// application's own functions make and read.
pub trait Opaque: Any + Debug + Send + Sync {
    /// The type, as the environment declares it.
    fn type_of(&self) -> Type;

    /// Whether it equals another value, which may be of another type.
    fn equals(&self, other: &dyn Opaque) -> bool;

    /// Itself, to be cast to the type that a function expects.
    fn as_any(&self) -> &dyn Any;

    /// Its size where the cost of a function depends on it; 1 by default.
    fn size(&self) -> u64 {
        1
    }

    /// Whether it is what its type has when nothing was said.
    fn is_zero(&self) -> bool {
        false
    }

    /// What `string(x)` gives, if it may be called.
    fn to_text(&self) -> Option<String> {
        None
    }
}
