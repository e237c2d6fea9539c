//! Owner references: which object manages which.
//!
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1/controller_ref.go`.

use k8s_openapi::{
    Metadata,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// The reference that makes `owner` the managing controller of an object. Deleting the owner in
/// the foreground waits for the object.
pub fn controller_reference<K: Metadata<Ty = ObjectMeta>>(owner: &K) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: Some(true),
        controller: Some(true),
        ..owner_reference(owner)
    }
}

/// A plain reference to `owner`: the object goes when its last owner goes.
pub fn owner_reference<K: Metadata<Ty = ObjectMeta>>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// The reference to the managing controller, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object of this uid is the managing controller.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// Whether the object of this uid is among the owners.
pub fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;

    use super::*;

    #[test]
    fn references_name_the_owner() {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some("web".into());
        set.metadata.uid = Some("u1".into());
        let reference = controller_reference(&set);
        assert_eq!(
            (reference.api_version.as_str(), reference.kind.as_str()),
            ("apps/v1", "ReplicaSet")
        );
        let plain = OwnerReference { uid: "u2".into(), ..OwnerReference::default() };
        let meta =
            ObjectMeta { owner_references: Some(vec![plain, reference]), ..ObjectMeta::default() };
        assert_eq!(controller_of(&meta).map(|owner| owner.name.as_str()), Some("web"));
        assert!(is_controlled_by(&meta, "u1") && !is_controlled_by(&meta, "u2"));
        assert!(is_owned_by(&meta, "u2") && !is_owned_by(&meta, "u3"));
    }
}
