//! ClusterRoles that are the union of others.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/clusterroleaggregation`.

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use orch_core::{
    Key, ResourceType, Target,
    client::{Client, PatchKind, Write, WriteOptions},
    informer::{Informer, Informers},
};
use serde_json::json;

use crate::{Action, Controller, Reconciler, context::Context, pods, reconciler::Reconciled};

const NAME: &str = "clusterrole-aggregation-controller";

/// The controller that gives ClusterRoles with an `aggregationRule` the rules of those that it
/// selects.
pub fn cluster_role_aggregation(informers: &Informers) -> Controller {
    let context = Context::new(informers, NAME);
    let roles = context.informer::<ClusterRole>();
    let all = roles.clone();
    context
        .builder()
        // Any role may be or have been a part of any that aggregates.
        .watches::<ClusterRole>(move |_| {
            let all = all.list();
            let aggregating = all.iter().filter(|role| role.aggregation_rule.is_some());
            aggregating.map(|role| Key::of(&role.metadata)).collect()
        })
        .build(AggregationReconciler { context, roles })
}

struct AggregationReconciler {
    context: Context,
    roles: Informer<ClusterRole>,
}

impl AggregationReconciler {
    /// The rules of all other roles that the role selects, by name, each once.
    fn union(&self, role: &ClusterRole) -> Vec<PolicyRule> {
        let mut rules: Vec<PolicyRule> = Vec::new();
        let selectors =
            role.aggregation_rule.as_ref().and_then(|a| a.cluster_role_selectors.as_ref());
        for selector in selectors.into_iter().flatten() {
            for part in self.roles.list() {
                let labels = part.metadata.labels.as_ref();
                if part.metadata.name == role.metadata.name || !pods::selects(selector, labels) {
                    continue;
                }
                for rule in part.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        rules
    }
}

#[async_trait]
impl Reconciler for AggregationReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(role) = self.roles.get(&key) else { return Ok(Action::Done) };
        if role.aggregation_rule.is_none() {
            return Ok(Action::Done);
        }
        let rules = self.union(&role);
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Action::Done);
        }
        let target = Target::object(ResourceType::of::<ClusterRole>(), None, &key.name);
        let applied = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": key.name}, "rules": rules,
        });
        let options = WriteOptions {
            field_manager: Some(NAME.into()),
            force: true,
            ..WriteOptions::default()
        };
        let write = Write::Patch(target, PatchKind::Apply, applied, options);
        match self.context.client().write(write).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::Done),
        }
    }
}
