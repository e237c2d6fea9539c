//! What went wrong, for the person at the terminal: one line that says what and how to mend it.

use std::{error::Error, fmt};

/// A line for standard error.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// What went wrong, and what to do about it.
    pub(crate) fn new(what: impl fmt::Display, mend: impl fmt::Display) -> Self {
        Self(format!("{what}; {mend}"))
    }

    /// An error with its causes, and what to do about it.
    pub(crate) fn of(error: &dyn Error, mend: impl fmt::Display) -> Self {
        let mut what = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some errors repeat their cause in their own words.
            if !what.contains(&cause_text) {
                what.push_str(": ");
                what.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::new(what, mend)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace('\n', " "))
    }
}
