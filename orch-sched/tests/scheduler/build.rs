//! What does not fit together fails when the scheduler is built.

use std::sync::Arc;

use orch_core::{informer::Informers, testing::MemoryClient};
use orch_sched::{BuildError, Plugin, Profile, Scheduler, SchedulerBuilder};

use crate::cluster::environment;

#[derive(Debug)]
struct Named(&'static str);

impl Plugin for Named {
    fn name(&self) -> &str {
        self.0
    }
}

fn built(configure: impl FnOnce(SchedulerBuilder) -> SchedulerBuilder) -> Result<(), BuildError> {
    let environment = environment(1);
    let client = Arc::new(MemoryClient::new(environment.clone()));
    let informers = Informers::new(client, environment);
    configure(Scheduler::builder(&informers)).build().map(drop)
}

#[track_caller]
fn check(configure: impl FnOnce(SchedulerBuilder) -> SchedulerBuilder, message: &str) {
    assert_eq!(built(configure).unwrap_err().to_string(), message);
}

#[tokio::test]
async fn mistakes_are_named() {
    let default = Profile::default;
    check(
        |b| b.profile(default().enable("Nope", 1)),
        "profile \"default-scheduler\" names the plugin \"Nope\", which does not exist",
    );
    check(
        |b| b.profile(default().enable("NodeName", 1)),
        "profile \"default-scheduler\" names the plugin \"NodeName\" twice",
    );
    check(
        |b| b.profile(default()).profile(default()),
        "there are two profiles for the scheduler name \"default-scheduler\"",
    );
    check(
        |b| b.profile(default().disable("PrioritySort")),
        "profile \"default-scheduler\" has no plugin for QueueSort",
    );
    check(
        |b| b.profile(default().disable("DefaultBinder")),
        "profile \"default-scheduler\" has no plugin for Bind",
    );
    check(
        |b| b.plugin(Named("A")).plugin(Named("A")),
        "a plugin called \"A\" is registered already",
    );
    check(|b| b.plugin(Named("NodeName")), "a plugin called \"NodeName\" is registered already");
    check(
        |b| b.weighted_plugin(Named("A"), 0),
        "profile \"default-scheduler\" gives the plugin \"A\" a weight of 0, not 1 to 1000000",
    );
    check(
        |b| b.profile(default().percentage_of_nodes_to_score(0)),
        "profile \"default-scheduler\" asks for 0 percent of the nodes, not 1 to 100",
    );
    assert!(built(|b| b.register(Named("A")).profile(default().enable("A", 3))).is_ok());
}
