//! What functions may use besides their arguments.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

use crate::error::Error;
use crate::library::{Authorize, Decision, Query, compile_pattern};
use crate::value::{Comparison, Value};

/// The patterns that an expression may build and have compiled. Each takes some memory and time
/// that is not in its cost.
const PATTERNS_MAX: usize = 256;
/// The strings that one evaluation makes take so many bytes at most. Parts of strings that were
/// bound are none that it makes.
///
/// Differs: upstream has no limit but its memory. No request is larger than 3 MiB.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// The lists and maps that functions make at once hold so many values at most.
///
/// Differs: upstream has no limit but its memory.
const VALUES_MAX: usize = 4 << 20;
/// One comparison looks at so many values at most.
const COMPARISON_STEPS: u64 = 1 << 24;

/// Constant patterns of a program, compiled.
pub(crate) type Patterns = HashMap<Arc<str>, Regex>;

/// What functions may use besides their arguments: the authorizer, and what one evaluation has
/// compiled so far.
pub struct Context<'e> {
    constant: Option<&'e Patterns>,
    compiled: HashMap<String, Regex>,
    authorizer: Option<&'e dyn Authorize>,
    text_left: usize,
    values_left: usize,
}

impl<'e> Context<'e> {
    pub(crate) fn new(
        constant: Option<&'e Patterns>,
        authorizer: Option<&'e dyn Authorize>,
    ) -> Self {
        Self {
            constant,
            compiled: HashMap::new(),
            authorizer,
            text_left: TEXT_BYTES_MAX,
            values_left: VALUES_MAX,
        }
    }

    /// A pattern, compiled.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it is none, [`Error::CostLimit`] if the expression has built too many.
    pub fn pattern(&mut self, pattern: &str) -> Result<&Regex, Error> {
        if let Some(found) = self.constant.and_then(|constant| constant.get(pattern)) {
            return Ok(found);
        }
        if !self.compiled.contains_key(pattern) {
            if self.compiled.len() >= PATTERNS_MAX {
                return Err(Error::CostLimit);
            }
            let compiled = compile_pattern(pattern)?;
            self.compiled.insert(pattern.to_owned(), compiled);
        }
        Ok(&self.compiled[pattern])
    }

    /// What the authorizer says.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsAuthorization`] if it has no answer yet, [`Error::Failed`] if there is none.
    pub fn authorize(&self, query: &Query) -> Result<Decision, Error> {
        let Some(authorizer) = self.authorizer else {
            return Err(Error::failed("there is no authorizer"));
        };
        authorizer.decide(query).ok_or_else(|| Error::NeedsAuthorization(Box::new(query.clone())))
    }

    /// Whether two values are equal as `==` has it.
    ///
    /// # Errors
    ///
    /// [`Error::CostLimit`] if there is too much to compare.
    pub fn equal(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Error> {
        self.comparison().equal(left, right)
    }

    pub(crate) fn comparison(&mut self) -> Comparison {
        Comparison::of_steps(COMPARISON_STEPS)
    }

    /// Lets a string of so many bytes be made. All that one evaluation makes is bounded.
    ///
    /// # Errors
    ///
    /// [`Error::CostLimit`] if it is too much.
    pub fn reserve_text(&mut self, bytes: usize) -> Result<(), Error> {
        self.text_left = self.text_left.checked_sub(bytes).ok_or(Error::CostLimit)?;
        Ok(())
    }

    /// Lets a list or map of so many values be made. All that one evaluation makes is bounded.
    ///
    /// # Errors
    ///
    /// [`Error::CostLimit`] if it is too much.
    pub fn reserve_values(&mut self, values: usize) -> Result<(), Error> {
        self.values_left = self.values_left.checked_sub(values).ok_or(Error::CostLimit)?;
        Ok(())
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}
