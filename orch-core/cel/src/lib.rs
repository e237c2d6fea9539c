#![doc = include_str!("../README.md")]

mod check;
mod cost;
mod declared;
pub mod device;
mod environment;
mod error;
mod evaluate;
mod function;
mod issue;
pub mod library;
mod syntax;
#[cfg(feature = "testing")]
pub mod testing;
mod types;
mod value;

pub use cost::{
    Budget, Cost, DeclaredSizes, PER_CALL_LIMIT, RUNTIME_BUDGET, RUNTIME_BUDGET_MATCH_CONDITIONS,
    Range, Sizes,
};
pub use declared::{
    Declared, DeclaredList, REQUEST_BYTES_MAX, admission_request, escape, is_identifier, namespace,
};
pub use environment::{CompileError, Environment, EnvironmentBuilder, Program, VariableType};
pub use error::Error;
pub use evaluate::{Bindings, Context, Variables};
pub use function::{Body, Functions, Library, Overload};
pub use issue::{Issue, Issues};
pub use types::Type;
pub use value::{List, ListKind, Map, Moment, Opaque, Text, Value};
