//! What is wrong with an expression before it runs.
//!
//! Source: cel-go `common/error.go`, `common/errors.go`.

use std::fmt;

/// More than these are counted, not shown.
const SHOWN_MAX: usize = 100;
/// A longer line is not repeated under its error.
const SNIPPET_MAX: usize = 16384;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// What is wrong.
    pub message: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in code points, from 0. `Issues` shows it from 1, as upstream does.
    pub column: usize,
}

/// Why an expression does not compile. `Display` shows every issue with its line of the source
/// and a caret below, in upstream's form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Issues {
    issues: Vec<Issue>,
    uncounted: usize,
    lines: Vec<String>,
}

impl Issues {
    pub(crate) fn new(source: &str) -> Self {
        let lines = source.split('\n').map(str::to_owned).collect();
        Self { issues: Vec::new(), uncounted: 0, lines }
    }

    /// Reports what is wrong at an offset in code points.
    pub(crate) fn report(&mut self, offset: usize, message: impl Into<String>) {
        if self.issues.len() >= SHOWN_MAX {
            self.uncounted += 1;
            return;
        }
        let mut column = offset;
        let mut line = 1;
        for text in &self.lines {
            let length = text.chars().count();
            if column <= length || line == self.lines.len() {
                break;
            }
            column -= length + 1;
            line += 1;
        }
        self.issues.push(Issue { message: message.into(), line, column });
    }

    /// Reports what is wrong with the expression as a whole, which has no place.
    pub(crate) fn report_whole(&mut self, message: impl Into<String>) {
        self.issues.push(Issue { message: message.into(), line: 0, column: 0 });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    /// Puts the issues into the order of the source.
    pub(crate) fn sorted(mut self) -> Self {
        self.issues.sort_by_key(|issue| (issue.line, issue.column));
        self
    }

    /// The issues, in the order of the source.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, issue: &Issue) -> fmt::Result {
        // A place that is none is shown as upstream shows it.
        let (line, column) =
            if issue.line == 0 { (-1, 0) } else { (issue.line as i64, issue.column as i64 + 1) };
        write!(f, "ERROR: <input>:{line}:{column}: {}", issue.message)?;
        let Some(text) = issue.line.checked_sub(1).and_then(|at| self.lines.get(at)) else {
            return Ok(());
        };
        if text.len() > SNIPPET_MAX {
            return Ok(());
        }
        write!(f, "\n | {}\n | ", text.replace('\t', " "))?;
        let mut characters = text.chars();
        for character in characters.by_ref().take(issue.column) {
            f.write_str(if character.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
        }
        let wide = characters.next().is_some_and(|c| c.len_utf8() > 1);
        f.write_str(if wide { "\u{ff3e}" } else { "^" })
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, issue) in self.issues.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            self.show(f, issue)?;
        }
        match self.uncounted {
            0 => Ok(()),
            more => write!(f, "\n{more} more errors were truncated"),
        }
    }
}
