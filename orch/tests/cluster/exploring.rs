//! Exploration of a component of somebody's own, that has a bug.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use orch::sim::{
    Component, Disturbance, Exploration, FaultPlan, Invariant, Simulation, Step, Trouble, World,
    invariant::always,
};
use serde_json::json;

const COPIED: &str = "example.com/copied";
const COPY_OF: &str = "example.com/copy-of";

/// Makes one copy of each map, and then notes that: whoever crashes in between makes another one.
async fn copy_all(maps: &Api<ConfigMap>) -> Result<(), kube::Error> {
    for map in maps.list(&ListParams::default().labels("copy=wanted")).await? {
        if map.annotations().contains_key(COPIED) {
            continue;
        }
        let name = map.name_any();
        let mut copy = ConfigMap {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                ..ObjectMeta::default()
            },
            data: map.data.clone(),
            ..ConfigMap::default()
        };
        copy.annotations_mut().insert(COPY_OF.to_owned(), name.clone());
        maps.create(&PostParams::default(), &copy).await?;
        let noted = Patch::Merge(json!({"metadata": {"annotations": {COPIED: "yes"}}}));
        maps.patch(&name, &PatchParams::default(), &noted).await?;
    }
    Ok(())
}

async fn operator(client: kube::Client) {
    let maps = Api::default_namespaced(client);
    loop {
        if copy_all(&maps).await.is_err() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn scenario(world: World) {
    for number in 0..10 {
        let name = format!("map-{number}");
        world
            .create(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": "default", "name": name, "labels": {"copy": "wanted"}},
            }))
            .await;
        tokio::time::sleep(Duration::from_secs(1 + world.random().below(10))).await;
    }
}

fn one_copy(_staleness: Duration) -> Vec<Box<dyn Invariant>> {
    vec![always("one copy of each map", |step: &Step<'_>| {
        let Some(new) = step.changes.iter().find_map(|change| change.created::<ConfigMap>()) else {
            return Ok(());
        };
        let Some(of) = new.annotations().get(COPY_OF) else { return Ok(()) };
        let maps = step.view.list::<ConfigMap>();
        match maps.iter().filter(|map| map.annotations().get(COPY_OF) == Some(of)).count() {
            1 => Ok(()),
            count => Err(format!("{of} has {count} copies")),
        }
    })]
}

fn simulation() -> Simulation {
    Simulation::new(0)
        .nodes(0)
        .length(Duration::from_secs(120))
        .invariants(one_copy)
        .component("operator", operator)
}

#[test]
fn a_bug_of_an_operator_is_found_and_made_small() {
    let exploration = Exploration::of(simulation().faults(FaultPlan::drawn)).shrink(1, 100).quiet();
    let explored = exploration.run(scenario, 0..20);
    assert_eq!(explored.seeds, 20);
    let failure = explored.failures.first().expect("somebody crashes in between");
    let smallest = failure.smallest.as_ref().expect("not everything that goes wrong is needed");
    let plan = &smallest.plan;
    let chances = plan.rates != Default::default() || plan.store != Default::default();
    assert!(plan.disturbances.len() + usize::from(chances) == 1, "{}", plan.to_code());
    let told = explored.to_string();
    assert!(told.contains(&format!(".seed({}).plan({})", smallest.seed, plan.to_code())), "{told}");

    let again = simulation().seed(smallest.seed).plan(plan.clone()).run(scenario);
    assert_eq!(again.violation, smallest.violation);
    let written = again.timeline.last().expect("a last step");
    assert!(written.contains(" operator: ConfigMap default/map-"), "{written}");
}

#[test]
fn a_component_crashes_where_the_plan_says() {
    let plan = |carried_out| FaultPlan {
        disturbances: vec![Disturbance {
            at: Duration::from_secs(5),
            component: Component::Named("operator".to_owned()),
            // It lists once in a second, and the second map comes after that.
            trouble: Trouble::Crash { calls: 1, carried_out, restart: Duration::from_secs(3) },
        }],
        ..FaultPlan::none()
    };
    for (carried_out, seed) in [(false, 1), (true, 1), (true, 2)] {
        let report = simulation().seed(seed).plan(plan(carried_out)).run(scenario);
        report.assert_holds();
    }
    assert!(simulation().seed(1).run(scenario).violation.is_none(), "nothing is wrong by itself");
}

#[test]
fn a_scenario_that_panics_is_told_of() {
    let explored = Exploration::of(Simulation::new(0).nodes(0)).quiet().run(
        |world: World| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let drawn = world.random().below(4);
            assert!(drawn > 0, "drew zero");
        },
        0..16,
    );
    let seeds: Vec<u64> = explored.failures.iter().map(|failure| failure.found.seed).collect();
    assert!(!seeds.is_empty() && seeds.len() < 16 && seeds.is_sorted(), "{seeds:?}");
    let violation = explored.failures[0].found.violation.as_ref().expect("a violation");
    assert_eq!((&*violation.invariant, &*violation.message), ("the scenario", "drew zero"));
}
