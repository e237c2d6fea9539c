//! Which evictions would go beyond what PodDisruptionBudgets allow.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use orch_core::selector::Selector;

use crate::pod_info::PodInfo;

struct Budget {
    namespace: String,
    selector: Selector,
    allowed: i32,
    /// Pods that are on their way out already: the budget has counted them.
    disrupted: BTreeSet<String>,
}

/// All budgets of the cluster, as one cycle sees them.
pub(super) struct Budgets(Vec<Budget>);

impl Budgets {
    /// Budgets whose selector is empty or cannot be understood are about no pod.
    pub(super) fn of(all: &[Arc<PodDisruptionBudget>]) -> Self {
        let budget = |one: &Arc<PodDisruptionBudget>| {
            let spec = one.spec.as_ref()?;
            let selector = Selector::from_label_selector(spec.selector.as_ref()).ok()?;
            let status = one.status.clone().unwrap_or_default();
            (!selector.is_everything() && !selector.is_nothing()).then(|| Budget {
                namespace: one.metadata.namespace.clone().unwrap_or_default(),
                selector,
                allowed: status.disruptions_allowed.unwrap_or(0),
                disrupted: status
                    .disrupted_pods
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name)
                    .collect(),
            })
        };
        Self(all.iter().filter_map(budget).collect())
    }

    /// Those of the pods whose eviction a budget does not allow once those before them are gone,
    /// and the others. The order stays.
    pub(super) fn split(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut left: Vec<i32> = self.0.iter().map(|budget| budget.allowed).collect();
        pods.into_iter().partition(|pod| {
            let mut violated = false;
            for (budget, left) in self.0.iter().zip(&mut left) {
                let counts = !pod.labels().is_empty()
                    && budget.namespace == pod.namespace()
                    && budget.selector.matches(pod.labels())
                    && !budget.disrupted.contains(&pod.key().name);
                if counts {
                    *left -= 1;
                    violated |= *left < 0;
                }
            }
            violated
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn budget(selector: &Value, allowed: i32, disrupted: &[&str]) -> Arc<PodDisruptionBudget> {
        let disrupted = disrupted.iter().map(|name| (*name, "2026-01-01T00:00:00Z"));
        let disrupted: BTreeMap<&str, &str> = disrupted.collect();
        let budget = json!({
            "metadata": {"name": "b", "namespace": "d"}, "spec": {"selector": selector},
            "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted,
                       "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
        });
        Arc::new(serde_json::from_value(budget).unwrap())
    }

    fn pod(name: &str, namespace: &str, app: Option<&str>) -> Arc<PodInfo> {
        let labels = app.map_or(json!({}), |app| json!({"app": app}));
        let pod = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels},
                         "spec": {"containers": []}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    #[test]
    fn a_budget_allows_the_first_ones() {
        let web = json!({"matchLabels": {"app": "web"}});
        let check = |budgets: &[Arc<PodDisruptionBudget>], violating: &[&str]| {
            let pods = vec![
                pod("a", "d", Some("web")),
                pod("b", "d", Some("web")),
                pod("c", "d", Some("db")),
                pod("d", "other", Some("web")),
                pod("e", "d", None),
            ];
            let (found, others) = Budgets::of(budgets).split(pods);
            let names: Vec<&str> = found.iter().map(|pod| &*pod.key().name).collect();
            assert_eq!(names, violating);
            assert_eq!(found.len() + others.len(), 5);
        };
        check(&[], &[]);
        check(&[budget(&web, 2, &[])], &[]);
        check(&[budget(&web, 1, &[])], &["b"]);
        check(&[budget(&web, 0, &[])], &["a", "b"]);
        check(&[budget(&web, 0, &["a"])], &["b"]);
        check(&[budget(&json!({}), 0, &[])], &[]);
        check(&[budget(&Value::Null, 0, &[])], &[]);
        let not_db = json!({"matchExpressions": [
            {"key": "app", "operator": "NotIn", "values": ["db"]}]});
        check(&[budget(&web, 1, &[]), budget(&not_db, 1, &[])], &["b"]);
    }
}
