//! A call that waits until it is let go.

use std::sync::Arc;

use orch_core::awaited::Awaited;

/// Where a call waits.
#[derive(Debug)]
pub(crate) struct Gate(Awaited<(bool, bool)>);

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Awaited::new((false, false))))
    }

    fn change(&self, change: impl FnOnce(&mut bool, &mut bool)) {
        self.0.update(|(reached, open)| {
            change(reached, open);
            true
        });
    }

    /// Waits in front of it.
    pub(super) async fn pass(&self) {
        self.change(|reached, _| *reached = true);
        self.0.wait_for(|(_, open)| open).await;
    }
}

/// A call that is held back. Dropping this lets it go.
///
/// What a test does while it waits happens before the call reaches the server: so a write can be
/// overtaken on purpose.
#[derive(Debug)]
#[must_use = "dropping it lets the call go"]
pub struct Held(pub(super) Arc<Gate>);

impl Held {
    /// Waits until such a call has been made and waits.
    pub async fn reached(&self) {
        self.0.0.wait_for(|(reached, _)| reached).await;
    }

    /// Lets it go.
    pub fn release(self) {}
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.change(|_, open| *open = true);
    }
}
