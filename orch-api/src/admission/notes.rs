//! What is told besides the answer.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Warnings for the client, and annotations for the audit log. Clones are the same notes, so that
/// several plugins may write at once.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

/// What admission noted for the audit log about a request. The server puts it into the extensions
/// of its answer, where a layer around the server finds it.
///
/// Source: `k8s.io/apiserver/pkg/audit/context.go`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditAnnotations(pub BTreeMap<String, String>);

impl Notes {
    /// Warns the client; saying the same twice warns once.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut written = self.0.lock();
        if !written.warnings.contains(&warning) {
            written.warnings.push(warning);
        }
    }

    /// Notes something for the audit log. What is there already stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.0.lock().annotations.entry(key.into()).or_insert_with(|| value.into());
    }

    /// The warnings so far; they are told once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().warnings)
    }

    /// The annotations so far.
    pub fn annotations(&self) -> AuditAnnotations {
        AuditAnnotations(self.0.lock().annotations.clone())
    }
}
