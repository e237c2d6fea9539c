//! Pods that Permit plugins hold back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

#[derive(Clone, Debug)]
enum Answer {
    /// These plugins have not allowed the pod yet.
    Pending(BTreeMap<Arc<str>, Instant>),
    Rejected {
        plugin: Arc<str>,
        message: String,
    },
}

/// Pods that Permit plugins hold back, by their uid. A plugin that holds pods keeps a clone and
/// lets them go here. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct WaitingPods {
    pods: Arc<Mutex<HashMap<Arc<str>, watch::Sender<Answer>>>>,
}

impl WaitingPods {
    /// The plugin no longer holds the pod back. `false` if no such pod waits.
    pub fn allow(&self, uid: &str, plugin: &str) -> bool {
        self.change(uid, |answer| {
            if let Answer::Pending(plugins) = answer {
                plugins.remove(plugin);
            }
        })
    }

    /// The pod goes back to the queue. `false` if no such pod waits.
    pub fn reject(&self, uid: &str, plugin: &str, message: &str) -> bool {
        let rejected = Answer::Rejected { plugin: plugin.into(), message: message.to_owned() };
        self.change(uid, |answer| *answer = rejected)
    }

    /// The uids of the pods that wait.
    pub fn uids(&self) -> Vec<Arc<str>> {
        self.pods.lock().keys().cloned().collect()
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Answer)) -> bool {
        let pods = self.pods.lock();
        let Some(answer) = pods.get(uid) else { return false };
        answer.send_modify(change);
        true
    }

    /// Announces a pod as waiting, so that it can be let go from now on.
    pub(crate) fn hold(&self, uid: &Arc<str>, waits: Vec<(Arc<str>, Duration)>) -> Held {
        let now = Instant::now();
        let plugins = waits.into_iter().map(|(plugin, timeout)| (plugin, now + timeout)).collect();
        let sender = watch::Sender::new(Answer::Pending(plugins));
        let answer = sender.subscribe();
        self.pods.lock().insert(uid.clone(), sender);
        Held { waiting: self.clone(), uid: uid.clone(), answer }
    }
}

/// A pod while it waits; it is forgotten when this is dropped.
pub(crate) struct Held {
    waiting: WaitingPods,
    uid: Arc<str>,
    answer: watch::Receiver<Answer>,
}

impl Held {
    /// Waits until all plugins allow the pod; otherwise which did not, and why.
    pub(crate) async fn allowed(mut self) -> Result<(), (Arc<str>, String)> {
        loop {
            let first = match &*self.answer.borrow_and_update() {
                Answer::Rejected { plugin, message } => {
                    return Err((plugin.clone(), message.clone()));
                }
                Answer::Pending(plugins) => {
                    let first = plugins.iter().min_by_key(|(_, at)| **at);
                    first.map(|(plugin, at)| (plugin.clone(), *at))
                }
            };
            let Some((plugin, at)) = first else { return Ok(()) };
            tokio::select! {
                changed = self.answer.changed() => {
                    if changed.is_err() {
                        return Err((plugin, "the scheduler stopped".into()));
                    }
                }
                () = tokio::time::sleep_until(at) => {
                    let words = format!("rejected due to timeout after waiting at plugin {plugin}");
                    return Err((plugin, words));
                }
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.pods.lock().remove(&self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_plugins_must_allow_in_time() {
        let waiting = WaitingPods::default();
        let uid: Arc<str> = "u".into();
        let waits =
            || vec![("a".into(), Duration::from_secs(5)), ("b".into(), Duration::from_secs(9))];
        let held = waiting.hold(&uid, waits());
        assert!(waiting.allow("u", "a") && waiting.allow("u", "b"));
        assert_eq!(held.allowed().await, Ok(()));
        let held = waiting.hold(&uid, waits());
        waiting.allow("u", "a");
        let (plugin, words) = held.allowed().await.unwrap_err();
        assert_eq!(words, "rejected due to timeout after waiting at plugin b");
        assert_eq!(&*plugin, "b");
        let held = waiting.hold(&uid, waits());
        waiting.reject("u", "b", "no");
        assert_eq!(held.allowed().await, Err(("b".into(), "no".into())));
        assert!(!waiting.allow("u", "a"), "nobody waits any more");
    }
}
