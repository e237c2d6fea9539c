//! Volume attributes classes that volumes or claims name do not go.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/vacprotection`.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttributesClass,
};
use orch_core::{
    Key,
    informer::{Change, Informers, Watchable},
};

use super::protection::set_finalizer;
use crate::{Action, Controller, context::Context};

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// Volumes and claims by the volume attributes classes that they name.
const BY_ATTRIBUTES_CLASS: &str = "volume-attributes-class";

/// The controller that keeps volume attributes classes while a volume or a claim names them.
pub fn attributes_class_protection(informers: &Informers) -> Controller {
    let context = Context::new(informers, "volumeattributesclass-protection-controller");
    let classes = context.informer::<VolumeAttributesClass>();
    let volumes = context.informer::<PersistentVolume>();
    let claims = context.informer::<PersistentVolumeClaim>();
    volumes.add_index(BY_ATTRIBUTES_CLASS, |volume| of_volume(volume).into_iter().collect());
    claims.add_index(BY_ATTRIBUTES_CLASS, |claim| of_claim(claim).into_iter().collect());
    context
        .builder()
        .watches_own::<VolumeAttributesClass>()
        .watches::<PersistentVolume>(|change| no_longer_named(change, of_volume))
        .watches::<PersistentVolumeClaim>(|change| no_longer_named(change, of_claim))
        .build(move |key: Key| {
            let (context, class) = (context.clone(), classes.get(&key));
            let used = volumes.count_by_index(BY_ATTRIBUTES_CLASS, &key.name) > 0
                || claims.count_by_index(BY_ATTRIBUTES_CLASS, &key.name) > 0;
            async move {
                let Some(class) = class else { return Ok(Action::Done) };
                let going = class.metadata.deletion_timestamp.is_some();
                if !(going && used) {
                    let meta = &class.metadata;
                    set_finalizer::<VolumeAttributesClass>(&context, meta, FINALIZER, !going)
                        .await?;
                }
                Ok(Action::Done)
            }
        })
}

fn of_volume(volume: &PersistentVolume) -> BTreeSet<String> {
    let named = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    named.into_iter().filter(|name| !name.is_empty()).collect()
}

/// The class that a claim asks for, the one that it has, and the one that it is on its way to.
fn of_claim(claim: &PersistentVolumeClaim) -> BTreeSet<String> {
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    let modify = status.and_then(|status| status.modify_volume_status.as_ref());
    let named = [
        spec.and_then(|spec| spec.volume_attributes_class_name.clone()),
        status.and_then(|status| status.current_volume_attributes_class_name.clone()),
        modify.and_then(|modify| modify.target_volume_attributes_class_name.clone()),
    ];
    named.into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

/// The classes that an object named before a change and does not name any more.
fn no_longer_named<K: Watchable>(
    change: &Change<K>,
    names: fn(&K) -> BTreeSet<String>,
) -> Vec<Key> {
    let gone = match change {
        Change::Added(_) => return Vec::new(),
        Change::Updated { old, new } => &names(old) - &names(new),
        Change::Deleted(object) => names(object),
    };
    gone.into_iter().map(Key::cluster).collect()
}
