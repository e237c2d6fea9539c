//! Brings the default roles and bindings into a cluster, and keeps them up to date.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/rbac/rest/storage_rbac.go`,
//! `k8s.io/component-helpers/auth/rbac/reconciliation`.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::rbac::v1::{
        AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
        Subject,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use orch_core::{Client, ClientError, Key, Resources, client::ListOptions, informer::Watchable};

use super::{
    controllers::{CONTROLLERS, PREFIX},
    policy::{BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, ROLES, RoleData, RuleData},
    rules::uncovered,
};

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = "rbac.authorization.k8s.io";
/// Writes under way at once: a durable store commits them together.
const PARALLEL: usize = 16;

/// Creates what is missing of upstream's default roles and bindings, and adds what is missing to
/// those that exist, unless they carry `rbac.authorization.kubernetes.io/autoupdate: "false"`.
/// Rights and subjects that somebody added stay. The namespaces `kube-system` and `kube-public`
/// must exist. Idempotent.
///
/// Aggregated roles (`admin`, `edit`, `view`) are put together here from every cluster role with
/// the fitting label. `Differs:` upstream's aggregation controller does so whenever a role changes.
///
/// # Errors
/// [`ClientError`] of the first call that failed; what was done until then stays.
pub async fn reconcile(client: &Arc<dyn Client>) -> Result<(), ClientError> {
    let parts: Vec<ClusterRole> = cluster_roles();
    reconcile_all(client, "", parts).await?;
    aggregate(client).await?;
    reconcile_all(client, "", cluster_bindings()).await?;
    for namespace in ["kube-public", "kube-system"] {
        let roles = ROLES.iter().filter(|(place, ..)| *place == namespace);
        let roles: Vec<Role> = roles
            .map(|(_, name, rules)| Role {
                metadata: metadata(name, Some(namespace)),
                rules: Some(compact(rules)),
            })
            .collect();
        reconcile_all(client, namespace, roles).await?;
        let bindings = BINDINGS.iter().filter(|(place, ..)| *place == namespace);
        let bindings: Vec<RoleBinding> = bindings
            .map(|(_, name, role, to)| RoleBinding {
                metadata: metadata(name, Some(namespace)),
                role_ref: reference("Role", role),
                subjects: subjects(to),
            })
            .collect();
        reconcile_all(client, namespace, bindings).await?;
    }
    Ok(())
}

fn metadata(name: &str, namespace: Option<&str>) -> ObjectMeta {
    let one = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: one("kubernetes.io/bootstrapping", "rbac-defaults"),
        annotations: one(AUTOUPDATE, "true"),
        ..ObjectMeta::default()
    }
}

fn compact(rules: &[RuleData]) -> Vec<PolicyRule> {
    rules.iter().map(|rule| rule.rule()).collect()
}

fn reference(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.into()), kind: kind.into(), name: name.into() }
}

fn subjects(of: &[&str]) -> Option<Vec<Subject>> {
    let subject = |text: &&str| {
        let of = |kind: &str, name: &str| Subject {
            kind: kind.into(),
            name: name.into(),
            api_group: Some(GROUP.into()),
            namespace: None,
        };
        match (text.strip_prefix("group:"), text.strip_prefix("user:"), text.split_once('/')) {
            (Some(group), ..) => of("Group", group),
            (_, Some(user), _) => of("User", user),
            (_, _, Some((namespace, account))) => Subject {
                api_group: None,
                namespace: Some(namespace.into()),
                ..of("ServiceAccount", account)
            },
            _ => of("User", text),
        }
    };
    (!of.is_empty()).then(|| of.iter().map(subject).collect())
}

fn label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

fn cluster_role(data: &RoleData) -> ClusterRole {
    let mut role = ClusterRole {
        metadata: metadata(data.name, None),
        rules: Some(compact(data.rules)),
        aggregation_rule: None,
    };
    if !data.part_of.is_empty() {
        role.metadata.labels.get_or_insert_default().insert(label(data.part_of), "true".into());
    }
    if data.aggregates {
        let labels = BTreeMap::from([(label(data.name), "true".to_owned())]);
        let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        role.aggregation_rule =
            Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
    }
    role
}

fn cluster_roles() -> Vec<ClusterRole> {
    let controllers = CONTROLLERS.iter().map(|(name, rules)| ClusterRole {
        metadata: metadata(&format!("{PREFIX}{name}"), None),
        rules: Some(compact(rules)),
        aggregation_rule: None,
    });
    CLUSTER_ROLES.iter().map(cluster_role).chain(controllers).collect()
}

fn cluster_bindings() -> Vec<ClusterRoleBinding> {
    let named = CLUSTER_BINDINGS.iter().map(|(role, to)| ClusterRoleBinding {
        metadata: metadata(role, None),
        role_ref: reference("ClusterRole", role),
        subjects: subjects(to),
    });
    let controllers = CONTROLLERS.iter().map(|(name, _)| {
        let role = format!("{PREFIX}{name}");
        ClusterRoleBinding {
            metadata: metadata(&role, None),
            role_ref: reference("ClusterRole", &role),
            subjects: subjects(&[&format!("kube-system/{name}")]),
        }
    });
    named.chain(controllers).collect()
}

/// How an existing object takes in what a default one has more.
trait Reconcilable: Watchable + Clone {
    /// Whether something was added.
    fn take_in(&mut self, default: &Self) -> bool;
}

fn add_rules(rules: &mut Option<Vec<PolicyRule>>, default: Option<&Vec<PolicyRule>>) -> bool {
    let wanted = default.map_or(&[][..], Vec::as_slice);
    let missing = uncovered(rules.as_deref().unwrap_or_default(), wanted);
    if missing.is_empty() {
        return false;
    }
    rules.get_or_insert_default().extend(missing);
    true
}

fn add_subjects(subjects: &mut Option<Vec<Subject>>, default: Option<&Vec<Subject>>) -> bool {
    let has = |list: &Option<Vec<Subject>>, wanted: &Subject| {
        list.iter().flatten().any(|s| {
            s.kind == wanted.kind && s.name == wanted.name && s.namespace == wanted.namespace
        })
    };
    let wanted = default.into_iter().flatten();
    let missing: Vec<Subject> = wanted.filter(|s| !has(subjects, s)).cloned().collect();
    if missing.is_empty() {
        return false;
    }
    subjects.get_or_insert_default().extend(missing);
    true
}

impl Reconcilable for ClusterRole {
    fn take_in(&mut self, default: &Self) -> bool {
        if default.aggregation_rule.is_some() {
            let changed = self.aggregation_rule != default.aggregation_rule;
            self.aggregation_rule.clone_from(&default.aggregation_rule);
            return changed;
        }
        add_rules(&mut self.rules, default.rules.as_ref())
    }
}

impl Reconcilable for Role {
    fn take_in(&mut self, default: &Self) -> bool {
        add_rules(&mut self.rules, default.rules.as_ref())
    }
}

impl Reconcilable for ClusterRoleBinding {
    fn take_in(&mut self, default: &Self) -> bool {
        add_subjects(&mut self.subjects, default.subjects.as_ref())
    }
}

impl Reconcilable for RoleBinding {
    fn take_in(&mut self, default: &Self) -> bool {
        add_subjects(&mut self.subjects, default.subjects.as_ref())
    }
}

fn add_labels(meta: &mut ObjectMeta, default: &ObjectMeta) -> bool {
    let mut changed = false;
    for (key, value) in default.labels.iter().flatten() {
        let labels = meta.labels.get_or_insert_default();
        if !labels.contains_key(key) {
            labels.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    changed
}

async fn reconcile_all<K: Reconcilable>(
    client: &Arc<dyn Client>,
    namespace: &str,
    defaults: Vec<K>,
) -> Result<(), ClientError> {
    let resources: Resources<K> = Resources::namespaced(client.clone(), namespace);
    let list = resources.list_objects(ListOptions::default()).await?;
    let existing: BTreeMap<Key, _> = list.items.into_iter().map(|o| (o.key(), o)).collect();
    let writes = defaults.into_iter().map(|default| {
        let resources = resources.clone();
        let found = existing.get(&Key::of(default.metadata())).cloned();
        async move {
            let Some(found) = found else {
                return match resources.create(&default).await {
                    Err(error) if !error.is_already_exists() => Err(error),
                    _ => Ok(()),
                };
            };
            let mut object = K::clone(&*found.decode::<K>()?);
            let annotations = object.metadata().annotations.as_ref();
            if annotations.and_then(|a| a.get(AUTOUPDATE)).is_some_and(|v| v != "true") {
                return Ok(());
            }
            let labelled = add_labels(object.metadata_mut(), default.metadata());
            if object.take_in(&default) || labelled {
                resources.update(&object).await?;
            }
            Ok(())
        }
    });
    stream::iter(writes).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// Gives every default aggregated role the rules of its parts, innermost first.
async fn aggregate(client: &Arc<dyn Client>) -> Result<(), ClientError> {
    let roles: Resources<ClusterRole> = Resources::all(client.clone());
    for name in ["view", "edit", "admin"] {
        let options = ListOptions {
            label_selector: Some(format!("{}=true", label(name))),
            ..ListOptions::default()
        };
        let mut rules: Vec<PolicyRule> = Vec::new();
        for part in roles.list_objects(options).await?.items {
            for rule in part.decode::<ClusterRole>()?.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        let current = roles.get(name).await?;
        if current.rules.as_ref() != Some(&rules) {
            roles.update(&ClusterRole { rules: Some(rules), ..(*current).clone() }).await?;
        }
    }
    Ok(())
}
