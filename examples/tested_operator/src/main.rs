//! Shows what each mistake of the operator leads to, and that without it nothing does.

use std::{any::Any, panic::AssertUnwindSafe};

use futures::{FutureExt, future::LocalBoxFuture};
use orch::testing::{self, TestCluster};
use tested_operator::{Mistakes, scenarios};

type Scenario = for<'c> fn(&'c TestCluster, Mistakes) -> LocalBoxFuture<'c, ()>;

fn main() {
    let correct = Mistakes::default();
    let all: [(&str, Scenario, Mistakes); 3] = [
        (
            "takes a conflict for success",
            |cluster, mistakes| {
                scenarios::every_site_gets_its_route(cluster, mistakes).boxed_local()
            },
            Mistakes { misses_conflicts: true, ..correct },
        ),
        (
            "believes its cache",
            |cluster, mistakes| scenarios::a_site_has_one_password(cluster, mistakes).boxed_local(),
            Mistakes { believes_its_cache: true, ..correct },
        ),
        (
            "cleans up nothing",
            |cluster, mistakes| {
                scenarios::nothing_outlives_its_site(cluster, mistakes).boxed_local()
            },
            Mistakes { leaks: true, ..correct },
        ),
    ];
    std::panic::set_hook(Box::new(|_| {}));
    for (mistake, scenario, mistakes) in all {
        let found = play(scenario, mistakes).expect_err("the mistake is found");
        let first = found.split(';').next().unwrap_or_default();
        println!("An operator that {mistake}:\n  {first}");
        play(scenario, correct).unwrap_or_else(|found| {
            eprintln!("{found}");
            std::process::exit(1)
        });
        println!("  Mended, it passes.");
    }
}

/// Plays a scenario in virtual time, and gives what it found.
fn play(scenario: Scenario, mistakes: Mistakes) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let cluster = testing::cluster().nodes(1).await;
        let played = AssertUnwindSafe(scenario(&cluster, mistakes)).catch_unwind().await;
        played.map_err(|panic| told(&*panic))
    })
}

fn told(panic: &(dyn Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned())
}
