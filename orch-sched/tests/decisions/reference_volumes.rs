//! The reference for volumes. A pod of the tests has one claim at most.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    reference::{label, list, name, selects, term_holds},
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
    provisionable && has_space(world, claim, node)
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

/// The driver of the tests publishes its capacity, zone by zone.
fn has_space(world: &World, claim: &Value, node: &Value) -> bool {
    world.capacities.iter().any(|capacity| {
        capacity["storageClassName"] == claim["spec"]["storageClassName"]
            && capacity["capacity"].as_str().expect("a size").ends_with("Gi")
            && selects(&capacity["nodeTopology"], node)
    })
}

fn claim_names(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = list(&pod["spec"]["volumes"]).iter();
    volumes.filter_map(|v| v["persistentVolumeClaim"]["claimName"].as_str())
}

fn claim<'a>(world: &'a World, pod: &Value, claim: &str) -> Option<&'a Value> {
    let namespace = &pod["metadata"]["namespace"];
    world.claims.iter().find(|c| name(c) == claim && c["metadata"]["namespace"] == *namespace)
}

/// Whether a claim of the pod that only one pod may use has one.
fn alone_is_used(world: &World, pod: &Value) -> bool {
    claim_names(pod).any(|own| {
        let modes = claim(world, pod, own).map(|claim| list(&claim["spec"]["accessModes"]));
        modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
            && world.pods.values().any(|other| {
                other["metadata"]["namespace"] == pod["metadata"]["namespace"]
                    && world.nodes.contains_key(other["spec"]["nodeName"].as_str().unwrap_or(""))
                    && claim_names(other).any(|theirs| theirs == own)
            })
    })
}

fn disks(pod: &Value) -> impl Iterator<Item = &Value> {
    let volumes = list(&pod["spec"]["volumes"]).iter();
    volumes.map(|volume| &volume["gcePersistentDisk"]).filter(|disk| !disk.is_null())
}

/// Upstream does not look at other pods, not even at those that wait for room, when the pod has no
/// disk of an old kind and nobody uses its claims.
pub(crate) fn disks_matter(world: &World, pod: &Value) -> bool {
    disks(pod).next().is_some() || alone_is_used(world, pod)
}

pub(crate) fn disks_are_free(world: &World, pod: &Value, node: &Value) -> bool {
    let taken = |disk: &Value| {
        world.pods_on(name(node)).flat_map(disks).any(|other| {
            other["pdName"] == disk["pdName"]
                && !(other["readOnly"] == true && disk["readOnly"] == true)
        })
    };
    world.without_disks || !disks(pod).any(taken) && !alone_is_used(world, pod)
}

/// The volumes of a pod that count against the node's limit, by what tells them apart.
fn attached(world: &World, pod: &Value) -> Vec<String> {
    let one = |own: &str| {
        let claim = claim(world, pod, own)?;
        if let Some(volume) = claim["spec"]["volumeName"].as_str() {
            return Some(volume.to_owned());
        }
        let class = &claim["spec"]["storageClassName"];
        let class = world.classes.iter().find(|one| one["metadata"]["name"] == *class)?;
        (class["provisioner"] == "example.com/disk").then(|| format!("new {own}"))
    };
    claim_names(pod).filter_map(one).collect()
}

pub(crate) fn can_be_attached(world: &World, pod: &Value, node: &Value) -> bool {
    let csi_node = world.csi_nodes.iter().find(|one| name(one) == name(node));
    let limit = csi_node.and_then(|one| one["spec"]["drivers"][0]["allocatable"]["count"].as_u64());
    let Some(limit) = limit else { return true };
    let mut all: BTreeSet<String> =
        world.pods_on(name(node)).flat_map(|pod| attached(world, pod)).collect();
    let before = all.len();
    all.extend(attached(world, pod));
    all.len() == before || all.len() as u64 <= limit
}
