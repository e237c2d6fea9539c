//! Creations and deletions that failed without an answer: they may have been carried out.
//!
//! `Differs:` upstream takes them for failures at once, and may make a pod too many.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use orch_core::{
    ClientError, Key, Object, Resources, client::ListOptions, informer::Watchable, status::Reason,
};
use tokio::time::Instant;

use super::{Labels, PodControl};
use crate::ownership::controller_of;

/// Between two questions; doubled with every question.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// After so long nobody asks any more: expectations expire by themselves.
const ASKED_MAX: Duration = Duration::from_secs(120);

/// Whether a call may have been carried out although it failed.
pub(super) fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Transport(_)) || error.reason() == Reason::Timeout
}

/// The labels that all of these have.
fn common(pods: impl Iterator<Item = Pod>) -> Labels {
    let labels = pods.map(|pod| pod.metadata.labels.unwrap_or_default());
    let both = |mut a: Labels, b: Labels| {
        a.retain(|key, value| b.get(key) == Some(value));
        a
    };
    labels.reduce(both).unwrap_or_default()
}

impl<O: Watchable> PodControl<'_, O> {
    /// Waits until the local copy has every pod of the owner that the cluster has, or has got past
    /// that: what was created without an answer is seen then, or was not created, or is gone.
    ///
    /// # Errors
    /// If that takes too long: the version at which it is so, if that could be found out.
    pub(super) async fn catches_up(
        &self,
        resources: &Resources<Pod>,
        created: impl Iterator<Item = Pod>,
    ) -> Result<(), Option<String>> {
        let selector: Vec<String> =
            common(created).iter().map(|(key, value)| format!("{key}={value}")).collect();
        let options =
            ListOptions { label_selector: Some(selector.join(",")), ..ListOptions::default() };
        let known = self.context.informer::<Pod>();
        let owner = self.owner.metadata().uid.as_deref();
        let is_new = |object: &Arc<Object>| {
            let meta = object.metadata();
            let own = controller_of(meta).is_some_and(|of| Some(of.uid.as_str()) == owner);
            own && known.get(&object.key()).is_none_or(|pod| pod.metadata.uid != meta.uid)
        };
        let (mut pause, since, mut version) = (PAUSE_MIN, Instant::now(), None);
        loop {
            if let Ok(list) = resources.list_objects(options.clone()).await {
                let past = list.resource_version.parse().is_ok_and(|at| known.position() >= at);
                if past || !list.items.iter().any(is_new) {
                    return Ok(());
                }
                version = Some(list.resource_version);
            }
            if since.elapsed() >= ASKED_MAX {
                return Err(version);
            }
            self.context.environment().clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether a pod that was deleted without an answer is going or gone. `None` if that cannot be
    /// found out.
    pub(super) async fn is_going(&self, resources: &Resources<Pod>, pod: &Pod) -> Option<bool> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let (mut pause, since) = (PAUSE_MIN, Instant::now());
        loop {
            if let Ok(live) = resources.get_opt(name).await {
                let same = live.filter(|live| live.metadata.uid == pod.metadata.uid);
                if same.is_none() {
                    self.is_gone(pod);
                }
                return Some(same.is_none_or(|live| super::is_terminating(&live)));
            }
            if since.elapsed() >= ASKED_MAX {
                return None;
            }
            self.context.environment().clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The pod is gone. If it went before anybody waited for that, the copy tells of it no more.
    fn is_gone(&self, pod: &Pod) {
        let known = self.context.informer::<Pod>().get(&Key::of(&pod.metadata));
        if known.is_none_or(|known| known.metadata.uid != pod.metadata.uid) {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            self.expectations.deletion_observed(&Key::of(self.owner.metadata()), uid);
        }
    }
}
