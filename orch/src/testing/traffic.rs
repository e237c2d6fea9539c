//! Traffic between clients and a cluster, written down, and a cluster that consists of it.
//!
//! A [`Recorder`] stands between a `kube::Client` and its cluster, one of [`orch::testing`](super)
//! or any other, and writes down what is asked and answered: a file of JSON lines with a header,
//! then every request, every answer, and every part of a watch with the time at which it came. A
//! [`Replay`] answers a controller out of that file, without a cluster: on a paused clock in no
//! time, and alike in every run.
//!
//! ```
//! # use k8s_openapi::api::core::v1::ConfigMap;
//! # use kube::{Api, api::PostParams};
//! # use orch::testing::{self, traffic::{Recorder, Replay}};
//! # #[derive(Clone, Default)]
//! # struct File(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);
//! # impl std::io::Write for File {
//! #     fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> { self.0.lock().write(bytes) }
//! #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
//! # }
//! # async fn the_controller(client: kube::Client) -> Result<(), kube::Error> {
//! #     let maps: Api<ConfigMap> = Api::default_namespaced(client);
//! #     let map = serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}})).unwrap();
//! #     maps.create(&PostParams::default(), &map).await?;
//! #     maps.get("a").await.map(drop)
//! # }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let file = File::default();
//! let cluster = testing::cluster().await;
//! let recorder = Recorder::to(file.clone()); // a File, or whatever can be written to
//! the_controller(recorder.client(&cluster.client())).await?;
//! recorder.finish()?;
//!
//! # let file = file.0.lock().clone();
//! let replay = Replay::of(&file[..])?;
//! the_controller(replay.client()).await?;
//! replay.check()?; // nothing else was asked, and nothing was left out
//! # Ok(()) }
//! ```
//!
//! Requests are matched by method, path, query, body and their order: the first one in the
//! recording that is alike and has not been asked for yet answers. Answers take as long as they
//! took, and a part of a watch comes as long after the watch was begun as it did, but not before
//! every write has been asked for that had been when it was recorded: a controller never sees what
//! follows from a write that it has not made.

mod exchange;
mod line;
mod record;
mod replay;
mod secrets;

pub use record::{Record, Recorded, Recorder};
pub use replay::{Replay, ReplayError};
