//! The reference for volumes. A pod of the tests has one claim at most.

use serde_json::Value;

use crate::{
    reference::{label, list, name, term_holds},
    world::World,
};

const ZONES: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];

pub(crate) fn fits(world: &World, pod: &Value, node: &Value) -> bool {
    let claims = list(&pod["spec"]["volumes"]).iter();
    claims.filter_map(|v| v["persistentVolumeClaim"]["claimName"].as_str()).all(|claim| {
        let namespace = &pod["metadata"]["namespace"];
        let found = world
            .claims
            .iter()
            .find(|c| name(c) == claim && c["metadata"]["namespace"] == *namespace);
        found.is_some_and(|claim| claim_fits(world, claim, node))
    })
}

/// Whether something about the pod's claims rules all nodes out at once.
pub(crate) fn is_hopeless(world: &World, pod: &Value) -> bool {
    let claims = list(&pod["spec"]["volumes"]).iter();
    !claims.filter_map(|v| v["persistentVolumeClaim"]["claimName"].as_str()).all(|claim| {
        let namespace = &pod["metadata"]["namespace"];
        let found = world
            .claims
            .iter()
            .find(|c| name(c) == claim && c["metadata"]["namespace"] == *namespace);
        found.is_some_and(|claim| {
            claim["spec"]["volumeName"].is_string() || waits_for_consumer(world, claim)
        })
    })
}

fn waits_for_consumer(world: &World, claim: &Value) -> bool {
    let class = &claim["spec"]["storageClassName"];
    let class = world.classes.iter().find(|one| one["metadata"]["name"] == *class);
    class.is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer")
}

fn claim_fits(world: &World, claim: &Value, node: &Value) -> bool {
    if let Some(volume) = claim["spec"]["volumeName"].as_str() {
        let volume = world.volumes.iter().find(|one| name(one) == volume);
        return volume.is_some_and(|volume| reaches(volume, node) && same_zone(volume, node));
    }
    let class = &claim["spec"]["storageClassName"];
    let class = world.classes.iter().find(|one| one["metadata"]["name"] == *class);
    let class = class.expect("every class exists");
    if class["volumeBindingMode"] != "WaitForFirstConsumer" {
        return false;
    }
    let provisionable = class["provisioner"] != "kubernetes.io/no-provisioner";
    provisionable
        || world.volumes.iter().any(|volume| {
            volume["spec"]["storageClassName"] == claim["spec"]["storageClassName"]
                && volume["status"]["phase"] == "Available"
                && reaches(volume, node)
        })
}

fn reaches(volume: &Value, node: &Value) -> bool {
    let required = &volume["spec"]["nodeAffinity"]["required"];
    required.is_null()
        || list(&required["nodeSelectorTerms"]).iter().any(|term| term_holds(term, node))
}

/// Only a node that has any label of zones or regions can be in the wrong one. The old and the new
/// name of the label stand for each other.
fn same_zone(volume: &Value, node: &Value) -> bool {
    let here = ZONES.iter().find_map(|key| label(node, key));
    here.is_none()
        || ZONES
            .iter()
            .filter_map(|key| label(volume, key))
            .all(|zones| zones.split("__").any(|zone| Some(zone) == here))
}
