//! What a plugin decides.

use std::{borrow::Cow, time::Duration};

use smallvec::{SmallVec, smallvec};

/// Why something does not fit, in words for users: `Insufficient cpu`.
pub type Reasons = SmallVec<[Cow<'static, str>; 1]>;

/// The outcome of an extension point. An outcome is a value; an error is a fault.
///
/// Source: `k8s.io/kube-scheduler/framework`, `Status` and `Code`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It fits; go on.
    Success,
    /// The plugin has nothing to say about this pod. After PreFilter and PreScore its Filter and
    /// its Score are not called in this cycle; after Bind the next binding plugin is asked.
    Skip,
    /// From Permit only: go on once [`crate::WaitingPods::allow`] was called, fail after the
    /// duration.
    Wait(Duration),
    /// It does not fit, but would if other pods went away.
    Unschedulable(Reasons),
    /// It does not fit, and no pod that goes away changes that.
    UnschedulableAndUnresolvable(Reasons),
}

impl Verdict {
    /// [`Verdict::Unschedulable`] for one reason.
    pub fn unschedulable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unschedulable(smallvec![reason.into()])
    }

    /// [`Verdict::UnschedulableAndUnresolvable`] for one reason.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::UnschedulableAndUnresolvable(smallvec![reason.into()])
    }

    /// [`Verdict::Success`] or [`Verdict::unschedulable`].
    pub fn success_if(fits: bool, reason: &'static str) -> Self {
        if fits { Self::Success } else { Self::unschedulable(reason) }
    }

    /// Whether the pod cannot go there.
    pub fn is_rejection(&self) -> bool {
        matches!(self, Self::Unschedulable(_) | Self::UnschedulableAndUnresolvable(_))
    }

    /// The reasons of a rejection; none for anything else.
    pub fn reasons(&self) -> &[Cow<'static, str>] {
        match self {
            Self::Unschedulable(reasons) | Self::UnschedulableAndUnresolvable(reasons) => reasons,
            _ => &[],
        }
    }

    /// The reasons, joined as upstream joins them.
    pub fn message(&self) -> String {
        self.reasons().join(", ")
    }
}
