//! The operator passes every scenario, and with each mistake fails the one that looks for it.

use orch::{
    core::testing::rounds,
    sim::Exploration,
    testing::{self, TestCluster},
};
use tested_operator::{Mistakes, exploring, scenarios};

async fn cluster() -> TestCluster {
    testing::cluster().nodes(1).await
}

const CORRECT: Mistakes =
    Mistakes { misses_conflicts: false, believes_its_cache: false, leaks: false };

#[tokio::test(start_paused = true)]
async fn every_site_gets_its_route() {
    scenarios::every_site_gets_its_route(&cluster().await, CORRECT).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "expected ConfigMap routes to lead to [\"blog\", \"docs\", \"shop\"]")]
async fn a_missed_conflict_is_found() {
    let mistakes = Mistakes { misses_conflicts: true, ..CORRECT };
    scenarios::every_site_gets_its_route(&cluster().await, mistakes).await;
}

#[tokio::test(start_paused = true)]
async fn a_site_has_one_password() {
    scenarios::a_site_has_one_password(&cluster().await, CORRECT).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "expected all Secrets to be one password")]
async fn a_stale_read_is_found() {
    let mistakes = Mistakes { believes_its_cache: true, ..CORRECT };
    scenarios::a_site_has_one_password(&cluster().await, mistakes).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_its_site() {
    scenarios::nothing_outlives_its_site(&cluster().await, CORRECT).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "expected ConfigMap routes to lead to [\"docs\"]")]
async fn a_leak_is_found() {
    let mistakes = Mistakes { leaks: true, ..CORRECT };
    scenarios::nothing_outlives_its_site(&cluster().await, mistakes).await;
}

#[test]
fn whatever_happens_it_ends_well() {
    for seed in 0..u64::from(rounds(5)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let cluster = testing::cluster().seed(seed).nodes(1).await;
            scenarios::whatever_happens_it_ends_well(&cluster, CORRECT).await;
        });
    }
}

#[test]
fn everything_may_fail_and_it_ends_well() {
    let exploration = Exploration::of(exploring::simulation(CORRECT)).shrink(1, 50).quiet();
    exploration.run(exploring::sites_come_and_go, 0..u64::from(rounds(5))).assert_holds();
}

#[test]
fn exploring_finds_every_mistake_by_itself() {
    let mistakes = [
        (Mistakes { misses_conflicts: true, ..CORRECT }, "routes are"),
        (Mistakes { believes_its_cache: true, ..CORRECT }, "passwords are"),
        (Mistakes { leaks: true, ..CORRECT }, "routes are"),
    ];
    for (mistakes, found) in mistakes {
        let exploration = Exploration::of(exploring::simulation(mistakes));
        let exploration = exploration.stop_at_first().shrink(0, 0).quiet();
        let explored = exploration.run(exploring::sites_come_and_go, 0..20).to_string();
        assert!(explored.contains(found), "{mistakes:?}: {explored}");
    }
}
