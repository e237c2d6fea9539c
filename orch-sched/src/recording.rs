//! What a scheduler saw and decided, line by line, and the same decisions out of it again.
//!
//! A recording is a file of JSON lines. The first line is the header with the format's version and
//! the plugins of each profile. Then comes, in the order in which it took effect, every change of a
//! node or a placed pod, every change of what plugins look up (claims, volumes, namespaces,
//! services, ...), the begin of every cycle with its pod and the seed that breaks its ties, and
//! what became of the place that it took. [`Replay`] makes all decisions anew, in process, without
//! a clock, a queue or an API server.
//!
//! ```
//! use std::io::Write;
//! # use std::sync::{Arc, Mutex};
//! # use orch_core::{Environment, informer::Informers, testing::MemoryClient};
//! # use orch_sched::{Recorder, Replay, Scheduler};
//! # use tokio_util::sync::CancellationToken;
//! # #[derive(Clone, Default)]
//! # struct File(Arc<Mutex<Vec<u8>>>);
//! # impl Write for File {
//! #     fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
//! #         self.0.lock().unwrap().write(bytes)
//! #     }
//! #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let environment = Environment::system();
//! # let client = Arc::new(MemoryClient::new(environment.clone()));
//! # let informers = Informers::new(client, environment);
//! # let file = File::default();
//! # let cancel = CancellationToken::new();
//! # cancel.cancel();
//! let recorder = Recorder::to(file.clone()); // a File, or whatever can be written to
//! let scheduler = Scheduler::builder(&informers).record(recorder.clone()).build()?;
//! scheduler.run(cancel).await;
//! recorder.finish()?;
//!
//! # let file = file.0.lock().unwrap().clone();
//! let replayed = Replay::default().run(&file[..]).await?;
//! assert!(replayed.differences.is_empty());
//! # Ok(()) }
//! ```

use std::io::{self, Write};

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{
        Namespace, PersistentVolume, PersistentVolumeClaim, ReplicationController, Service,
    },
    policy::v1::PodDisruptionBudget,
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use orch_core::{
    Key,
    informer::{Change, Informers, Watchable},
    recording::LineWriter,
};

pub(crate) use self::line::{Line, VERSION, Whole};

mod feed;
mod line;
mod replay;

pub use replay::{Difference, Replay, ReplayError, Replayed, ReplayedPlacement};

/// Writes down what a scheduler sees and decides; give it to
/// [`SchedulerBuilder::record`](crate::SchedulerBuilder::record). Cheap to clone.
///
/// Lines are buffered. A recording that ends in the middle of a line, as after a crash, is as good
/// as one that ends before it. The scheduler does not wait for the disk otherwise, and goes on if
/// it is full: then the recording ends there, and [`Recorder::finish`] says so.
#[derive(Clone, Debug)]
pub struct Recorder {
    lines: LineWriter,
}

impl Recorder {
    /// A recorder that writes to a file, or whatever can be written to.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self { lines: LineWriter::to(out) }
    }

    /// Writes out what is buffered. The recording may go on.
    ///
    /// # Errors
    /// The first error of the file; nothing was recorded after it.
    pub fn finish(&self) -> io::Result<()> {
        self.lines.finish()
    }

    pub(crate) fn write(&self, line: &Line) {
        self.lines.write(line);
    }

    /// Follows what plugins look up. Nodes and pods are written down where they take effect.
    pub(crate) fn follow(&self, informers: &Informers) {
        each_kind(&mut Follow { recorder: self, informers });
    }
}

struct Follow<'a> {
    recorder: &'a Recorder,
    informers: &'a Informers,
}

impl Visit for Follow<'_> {
    fn kind<K: Watchable>(&mut self) {
        let recorder = self.recorder.clone();
        self.informers.of::<K>().on_change(move |change| {
            let line = match change {
                Change::Added(new) | Change::Updated { new, .. } => Line::set(&**new),
                Change::Deleted(old) => {
                    let Key { namespace, name } = Key::of(old.metadata());
                    Line::Gone { kind: K::KIND.to_owned(), namespace, name }
                }
            };
            recorder.write(&line);
        });
    }
}

/// Something that is done for every kind that plugins look up.
trait Visit {
    fn kind<K: Watchable>(&mut self);
}

fn each_kind(visit: &mut impl Visit) {
    visit.kind::<Namespace>();
    visit.kind::<PodDisruptionBudget>();
    visit.kind::<PersistentVolumeClaim>();
    visit.kind::<PersistentVolume>();
    visit.kind::<StorageClass>();
    visit.kind::<CSINode>();
    visit.kind::<CSIDriver>();
    visit.kind::<CSIStorageCapacity>();
    visit.kind::<VolumeAttachment>();
    visit.kind::<Service>();
    visit.kind::<ReplicationController>();
    visit.kind::<ReplicaSet>();
    visit.kind::<StatefulSet>();
    visit.kind::<ResourceSlice>();
    visit.kind::<DeviceClass>();
    visit.kind::<ResourceClaim>();
}
