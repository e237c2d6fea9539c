//! From text to expressions.

pub(crate) mod ast;
mod balance;
mod literal;
mod macros;
mod parser;
mod token;

pub(crate) use macros::ACCUMULATOR;
pub(crate) use parser::{RESERVED, parse};
