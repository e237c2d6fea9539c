//! What goes wrong in a run, as it comes to pass, and how it ends.

use std::time::Duration;

use orch_store::Store;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::World;
use crate::sim::faults::{Component, FaultPlan, Trouble};

/// For how long nothing may change until a cluster that its invariants accept has come to rest.
const QUIET: Duration = Duration::from_secs(60);
/// How long a revision takes at most until it is observed, if nothing else happens.
const OBSERVED_AFTER: Duration = Duration::from_millis(2);

impl World {
    pub(in crate::sim) async fn troubles(self, plan: FaultPlan) {
        let start = Instant::now();
        let mut pending: Vec<AbortOnDropHandle<()>> = Vec::new();
        if let Some(every) = plan.store.compacts_every {
            let compacts = self.clone().compact(every);
            pending.push(AbortOnDropHandle::new(tokio::spawn(compacts)));
        }
        for disturbance in plan.disturbances {
            tokio::time::sleep_until(start + disturbance.at).await;
            self.note(&format!("{}: {:?}", disturbance.component, disturbance.trouble));
            let (world, component) = (self.clone(), disturbance.component);
            let task = tokio::spawn(world.befall(component, disturbance.trouble));
            pending.push(AbortOnDropHandle::new(task));
        }
        std::future::pending::<()>().await;
    }

    /// Lets a trouble befall a component, and waits until it is over.
    async fn befall(self, component: Component, trouble: Trouble) {
        let Some(process) = self.0.processes.get(&component) else { return };
        match trouble {
            Trouble::Crash { calls, carried_out, restart } => {
                process.set_restart(restart);
                process.line.crash_at(calls, carried_out);
            }
            Trouble::CutOff { length } => {
                process.line.cut(true);
                tokio::time::sleep(length).await;
                process.line.cut(false);
            }
            Trouble::PowerLoss { restart } => {
                process.set_restart(restart);
                self.0.machines.lose_power(&component);
                process.kill();
            }
            Trouble::RuntimeFails { length } => {
                self.0.machines.fail(&component, true);
                tokio::time::sleep(length).await;
                self.0.machines.fail(&component, false);
            }
        }
    }

    /// Nothing fails any more.
    pub(in crate::sim) fn calm(&self) {
        self.note("nothing fails any more");
        if let Some(control) = &self.0.store_faults {
            control.spare(true);
        }
        for (component, process) in &self.0.processes {
            process.line.calm();
            self.0.machines.fail(component, false);
        }
    }

    /// Lets the store forget everything but what there is, again and again.
    async fn compact(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            // What nobody has observed yet must not be lost to the observer.
            while self.look(|view| view.revision()) < self.0.store.revision() {
                tokio::time::sleep(OBSERVED_AFTER).await;
            }
            // Compacting twice at one revision is refused, and changes nothing.
            let _compacted = self.0.store.compact(self.0.store.revision()).await;
        }
    }

    /// Waits until the cluster has come to rest as its invariants want it, or for as long as it has.
    pub(in crate::sim) async fn settle(&self, most: Duration) {
        let deadline = Instant::now() + most;
        let mut looked = Instant::now();
        loop {
            let now = self.0.environment.clock.now();
            let moved = now.duration_since(self.0.observer.lock().moved()).unsigned_abs();
            let since = moved.min(looked.elapsed());
            let due = Instant::now() + QUIET.saturating_sub(since);
            if since >= QUIET {
                if self.0.observer.lock().is_settled() {
                    return;
                }
                looked = Instant::now();
                continue;
            }
            if due >= deadline {
                tokio::time::sleep_until(deadline).await;
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}
