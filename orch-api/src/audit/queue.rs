//! Events that nobody waits for.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/buffered`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};

use super::{Event, Sink, SinkError};

/// What can be chosen about a [`Queued`].
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// How many events wait; more are lost, counted and logged, and no request is held up.
    /// Default: 10,000.
    pub events_max: usize,
    /// How many events are handed on at once. Default: 400.
    pub batch_max: usize,
    /// How long an event waits for others to come along. Default: 30 s.
    pub wait_max: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { events_max: 10_000, batch_max: 400, wait_max: Duration::from_secs(30) }
    }
}

/// Hands events on to another sink in batches, from a bounded queue: a sink that is slow or away
/// holds up no request.
#[derive(Debug)]
pub struct Queued {
    waiting: mpsc::Sender<Arc<Event>>,
    lost: Arc<AtomicU64>,
    worker: Mutex<Option<tokio::task::JoinHandle<()>>>,
    stop: tokio_util::sync::CancellationToken,
}

impl Queued {
    /// A queue before a sink. Call it inside a tokio runtime.
    pub fn new(sink: Arc<dyn Sink>, options: QueueOptions) -> Self {
        let (waiting, events) = mpsc::channel(options.events_max.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let stop = tokio_util::sync::CancellationToken::new();
        let worker = tokio::spawn(hand_on(sink, events, options, lost.clone(), stop.clone()));
        Self { waiting, lost, worker: Mutex::new(Some(worker)), stop }
    }

    /// How many events were lost, because the queue was full or the sink failed.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Hands on what waits, and ends. Later events are lost.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        if let Some(worker) = self.worker.lock().await.take() {
            // A worker that panicked has nothing more to hand on.
            let _ = worker.await;
        }
    }
}

async fn hand_on(
    sink: Arc<dyn Sink>,
    mut events: mpsc::Receiver<Arc<Event>>,
    options: QueueOptions,
    lost: Arc<AtomicU64>,
    stop: tokio_util::sync::CancellationToken,
) {
    let size = options.batch_max.max(1);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            read = events.recv_many(&mut batch, size) => if read == 0 { return },
            () = stop.cancelled() => return,
        }
        let fill = async {
            while batch.len() < size {
                let room = size - batch.len();
                if events.recv_many(&mut batch, room).await == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            () = fill => {}
            () = tokio::time::sleep(options.wait_max) => {}
            () = stop.cancelled() => {}
        }
        if let Err(error) = sink.keep(batch).await {
            lost.fetch_add(error.lost as u64, Relaxed);
            tracing::error!(%error, "the audit has a gap");
        }
    }
}

#[async_trait]
impl Sink for Queued {
    async fn keep(&self, events: Vec<Arc<Event>>) -> Result<(), SinkError> {
        let mut lost = 0;
        for event in events {
            lost += usize::from(self.waiting.try_send(event).is_err());
        }
        if lost == 0 {
            return Ok(());
        }
        self.lost.fetch_add(lost as u64, Relaxed);
        Err(SinkError { lost, why: "the queue is full".into() })
    }
}
