//! The ways to change an object by less than the whole object.
//!
//! ```
//! use orch_core::{patch, schema};
//! use serde_json::json;
//!
//! let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
//! let change = json!({"spec": {"containers": [{"name": "b", "image": "nginx"}]}});
//! patch::strategic_merge_patch(schema::of("", "v1", "Pod"), &mut pod, &change)?;
//! assert_eq!(pod["spec"]["containers"][1]["image"], "nginx");
//! assert_eq!(pod["spec"]["containers"][0]["name"], "a");
//! # Ok::<(), patch::PatchError>(())
//! ```

mod apply;
mod fields;
mod json;
mod managed;
mod merge;
mod strategic;
mod typed;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};

pub use apply::{ApplyError, Conflict, apply, check_declared};
pub use fields::FieldSet;
pub use json::{json_patch, merge_patch};
pub use managed::{Writer, update};
pub use merge::merge_configuration;
pub use strategic::strategic_merge_patch;

use crate::status::{ApiError, Reason};

/// A patch that cannot be read or does not fit the object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch itself is malformed. 400.
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch has too many operations. 413.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {found}")]
    TooManyOperations {
        /// How many are allowed.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// The `copy` operations of a JSON patch copy too much. 422.
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {bytes}, exceeding the limit {max}"
    )]
    TooMuchCopied {
        /// How many bytes are allowed.
        max: usize,
        /// How many would have been copied.
        bytes: usize,
    },
    /// An operation of a JSON patch does not fit the object: a path that is not there, a test that
    /// does not hold. 422.
    #[error("{0}")]
    DoesNotFit(String),
    /// The kind has no strategic merge patch. 415.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )]
    NotSupported,
    /// The patch or the object is nested too deeply. 400.
    #[error("the object is nested more than {0} levels deep")]
    TooDeep(usize),
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let message = error.to_string();
        match error {
            PatchError::TooManyOperations { .. } => {
                Self::new(Reason::RequestEntityTooLarge, message)
            }
            PatchError::DoesNotFit(_) | PatchError::TooMuchCopied { .. } => {
                let cause = StatusCause {
                    reason: Some("UnexpectedServerResponse".into()),
                    message: Some(message),
                    field: None,
                };
                Self::new(
                    Reason::Invalid,
                    "the server rejected our request due to an error in our request",
                )
                .with_details(StatusDetails {
                    causes: Some(vec![cause]),
                    ..StatusDetails::default()
                })
            }
            PatchError::NotSupported => Self::new(Reason::UnsupportedMediaType, message),
            PatchError::Malformed(_) | PatchError::TooDeep(_) => Self::bad_request(message),
        }
    }
}
