//! What can go wrong with a runtime.

use std::{fmt, time::Duration};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a call about sandboxes, containers or streams failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no such sandbox, container or image, or it does not run.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// Which one.
        id: String,
    },
    /// This runtime does not do that.
    #[error("this runtime does not support {0}")]
    NotSupported(&'static str),
    /// The configuration can never work.
    #[error("{0}")]
    InvalidArgument(String),
    /// The program could not be started.
    #[error("{0}")]
    Start(String),
    /// It took too long.
    #[error("timed out after {}s", .0.as_secs())]
    Timeout(Duration),
    /// The runtime cannot be reached.
    #[error("the container runtime cannot be reached")]
    Unavailable(#[source] Source),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String, #[source] std::io::Error),
    /// The runtime refused.
    #[error("{0}")]
    Refused(String),
}

impl RuntimeError {
    /// A missing container.
    pub fn no_container(id: impl fmt::Display) -> Self {
        Self::NotFound { kind: "container", id: id.to_string() }
    }

    /// A missing sandbox.
    pub fn no_sandbox(id: impl fmt::Display) -> Self {
        Self::NotFound { kind: "sandbox", id: id.to_string() }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_) | Self::Io(..) | Self::Refused(_))
    }
}

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The reference cannot be parsed.
    #[error("couldn't parse image name {image:?}: {why}")]
    InvalidName {
        /// The reference.
        image: String,
        /// What is wrong with it.
        why: String,
    },
    /// It could not be pulled.
    #[error("failed to pull image {image:?}: {why}")]
    Pull {
        /// The reference.
        image: String,
        /// What the registry or the runtime said.
        why: String,
    },
    /// It could not be pulled lately, and it is too early to try again.
    #[error("Back-off pulling image {image:?}: {why}")]
    BackOff {
        /// The reference.
        image: String,
        /// Why it could not be pulled.
        why: String,
    },
    /// It is not present, and the policy is never to pull it.
    #[error("Container image {image:?} is not present with pull policy of Never")]
    NeverPull {
        /// The reference.
        image: String,
    },
    /// Whether it is present cannot be told.
    #[error("Failed to inspect image {image:?}: {why}")]
    Inspect {
        /// The reference.
        image: String,
        /// What the runtime said.
        why: String,
    },
    /// The registry cannot be reached.
    #[error("image pull failed for {image:?} because the registry is unavailable: {why}")]
    RegistryUnavailable {
        /// The reference.
        image: String,
        /// What went wrong.
        why: String,
    },
    /// The runtime cannot be reached.
    #[error("the container runtime cannot be reached")]
    Unavailable(#[source] Source),
}

impl ImageError {
    /// The reason that a container's waiting state shows.
    ///
    /// Source: `pkg/kubelet/images/types.go`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::BackOff { .. } => "ImagePullBackOff",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::Inspect { .. } => "ImageInspectError",
            Self::RegistryUnavailable { .. } => "RegistryUnavailable",
            Self::Pull { .. } | Self::Unavailable(_) => "ErrImagePull",
        }
    }
}
