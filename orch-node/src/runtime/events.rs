//! The sending side of [`super::RuntimeEvents`].

use futures::StreamExt;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{RuntimeEvent, RuntimeEvents};

/// Tells every subscriber what happened. A subscriber that is more than the queue's length behind
/// gets [`RuntimeEvent::Lost`] in place of what it missed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RuntimeEventSender(broadcast::Sender<RuntimeEvent>);

impl RuntimeEventSender {
    /// A sender that keeps at most `queue` events for the slowest subscriber.
    pub fn new(queue: usize) -> Self {
        Self(broadcast::Sender::new(queue.max(1)))
    }

    /// Tells that something about a pod changed. Without subscribers it does nothing.
    pub fn pod_changed(&self, pod_uid: &str) {
        // Without a subscriber there is nobody to tell.
        let _nobody_listens = self.0.send(RuntimeEvent::PodChanged { pod_uid: pod_uid.to_owned() });
    }

    /// What is sent from now on.
    pub fn subscribe(&self) -> RuntimeEvents {
        let stream = BroadcastStream::new(self.0.subscribe());
        stream
            .map(|event| match event {
                Ok(event) => event,
                Err(BroadcastStreamRecvError::Lagged(_)) => RuntimeEvent::Lost,
            })
            .boxed()
    }
}
