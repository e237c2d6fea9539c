//! Role-based access control.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac`,
//! `pkg/registry/rbac/validation`.

pub mod bootstrap;
mod controllers;
pub mod escalation;
mod policy;
pub mod rules;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use orch_core::{
    ApiError, Key,
    informer::{Informer, Informers, Watchable},
};
use parking_lot::RwLock;

use super::{Attributes, Authorizer, Decision, Rules, UserInfo};
use rules::allows;

const BY_SUBJECT: &str = "rbac.subject";
/// Decisions remembered for one state of the roles and bindings.
const DECISIONS_MAX: usize = 8192;

/// Decides by the cluster's roles and bindings. Cheap to clone.
///
/// Reads local copies that follow the cluster, indexed by subject, so that the cost of a decision
/// depends on the bindings of the user and not on the size of the cluster; decisions are
/// remembered until a role or binding changes.
#[derive(Clone)]
pub struct Rbac(Arc<Inner>);

struct Inner {
    roles: Informer<Role>,
    cluster_roles: Informer<ClusterRole>,
    bindings: Informer<RoleBinding>,
    cluster_bindings: Informer<ClusterRoleBinding>,
    /// Raised by every change of the four copies.
    generation: Arc<AtomicU64>,
    decisions: RwLock<(u64, HashMap<Attributes, Decision>)>,
}

impl fmt::Debug for Rbac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rbac")
    }
}

/// The subject under which an index finds a binding. Service accounts are found as the users that
/// they authenticate as.
fn subject_key(place: &str, kind: &str, name: &str) -> String {
    format!("{place}|{kind}|{name}")
}

fn subject_keys(place: &str, subjects: Option<&Vec<Subject>>) -> Vec<String> {
    let of = |subject: &Subject| match subject.kind.as_str() {
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().unwrap_or(place);
            let user = format!("system:serviceaccount:{namespace}:{}", subject.name);
            subject_key(place, "User", &user)
        }
        kind => subject_key(place, kind, &subject.name),
    };
    subjects.into_iter().flatten().map(of).collect()
}

fn user_keys(place: &str, user: &UserInfo) -> Vec<String> {
    let groups = user.groups.iter().map(|group| subject_key(place, "Group", group));
    std::iter::once(subject_key(place, "User", &user.name)).chain(groups).collect()
}

fn described(subjects: Option<&Vec<Subject>>, place: &str, key: &str) -> String {
    let matching = subjects.into_iter().flatten().find(|subject| {
        subject_keys(place, Some(&vec![(*subject).clone()])).iter().any(|k| k == key)
    });
    matching.map_or_else(String::new, |subject| match &subject.namespace {
        Some(namespace) => format!("{} \"{}/{namespace}\"", subject.kind, subject.name),
        None => format!("{} \"{}\"", subject.kind, subject.name),
    })
}

/// The rules of a role, with no copy of them made.
enum Held {
    Cluster(Arc<ClusterRole>),
    Namespaced(Arc<Role>),
}

impl Held {
    fn rules(&self) -> &[PolicyRule] {
        let rules = match self {
            Self::Cluster(role) => &role.rules,
            Self::Namespaced(role) => &role.rules,
        };
        rules.as_deref().unwrap_or_default()
    }
}

/// What [`Rbac::visit`] hands out: the rules, what gives them, and whether they hold for paths.
struct Grant<'a> {
    rules: &'a [PolicyRule],
    why: &'a dyn Fn() -> String,
}

impl Rbac {
    /// Follows the cluster's roles and bindings. Call it inside a tokio runtime.
    pub fn new(informers: &Informers) -> Self {
        let generation = Arc::new(AtomicU64::new(0));
        let bindings = counted::<RoleBinding>(informers, &generation);
        bindings.add_index(BY_SUBJECT, |binding| {
            let place = binding.metadata.namespace.as_deref().unwrap_or_default();
            subject_keys(place, binding.subjects.as_ref())
        });
        let cluster_bindings = counted::<ClusterRoleBinding>(informers, &generation);
        cluster_bindings
            .add_index(BY_SUBJECT, |binding| subject_keys("", binding.subjects.as_ref()));
        Self(Arc::new(Inner {
            roles: counted(informers, &generation),
            cluster_roles: counted(informers, &generation),
            bindings,
            cluster_bindings,
            generation,
            decisions: RwLock::default(),
        }))
    }

    /// Waits until all roles and bindings were read once.
    pub async fn synced(&self) {
        self.0.roles.synced().await;
        self.0.cluster_roles.synced().await;
        self.0.bindings.synced().await;
        self.0.cluster_bindings.synced().await;
    }

    fn held(&self, namespace: &str, reference: &RoleRef) -> Option<Held> {
        match reference.kind.as_str() {
            "ClusterRole" => {
                self.0.cluster_roles.get(&Key::cluster(&*reference.name)).map(Held::Cluster)
            }
            _ => self.0.roles.get(&Key::new(namespace, &*reference.name)).map(Held::Namespaced),
        }
    }

    /// Shows every grant that holds for a user in a namespace (in none: cluster-wide ones only)
    /// until `visitor` says that it has seen enough.
    fn visit(&self, user: &UserInfo, namespace: &str, mut visitor: impl FnMut(&Grant<'_>) -> bool) {
        for key in user_keys("", user) {
            for binding in self.0.cluster_bindings.by_index(BY_SUBJECT, &key) {
                let Some(held) = self.held("", &binding.role_ref) else { continue };
                let why = || {
                    format!(
                        "RBAC: allowed by ClusterRoleBinding \"{}\" of {} \"{}\" to {}",
                        binding.metadata.name.as_deref().unwrap_or_default(),
                        binding.role_ref.kind,
                        binding.role_ref.name,
                        described(binding.subjects.as_ref(), "", &key),
                    )
                };
                if visitor(&Grant { rules: held.rules(), why: &why }) {
                    return;
                }
            }
        }
        if namespace.is_empty() {
            return;
        }
        for key in user_keys(namespace, user) {
            for binding in self.0.bindings.by_index(BY_SUBJECT, &key) {
                let Some(held) = self.held(namespace, &binding.role_ref) else { continue };
                let why = || {
                    format!(
                        "RBAC: allowed by RoleBinding \"{}/{namespace}\" of {} \"{}\" to {}",
                        binding.metadata.name.as_deref().unwrap_or_default(),
                        binding.role_ref.kind,
                        binding.role_ref.name,
                        described(binding.subjects.as_ref(), namespace, &key),
                    )
                };
                if visitor(&Grant { rules: held.rules(), why: &why }) {
                    return;
                }
            }
        }
    }

    fn decide(&self, attributes: &Attributes) -> Decision {
        let mut allowed = None;
        self.visit(&attributes.user, &attributes.namespace, |grant| {
            if grant.rules.iter().any(|rule| allows(rule, attributes)) {
                allowed = Some((grant.why)());
            }
            allowed.is_some()
        });
        match allowed {
            Some(reason) => Decision::Allow { reason },
            None => Decision::NoOpinion { reason: String::new() },
        }
    }

    /// All rules that hold for a user in a namespace.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let mut all = Vec::new();
        self.visit(user, namespace, |grant| {
            all.extend_from_slice(grant.rules);
            false
        });
        all
    }

    /// The rules of a role that a binding in `namespace` (empty: cluster-wide) refers to; `None`
    /// if there is no such role.
    pub fn role_rules(&self, namespace: &str, reference: &RoleRef) -> Option<Vec<PolicyRule>> {
        self.held(namespace, reference).map(|held| held.rules().to_vec())
    }
}

fn counted<K: Watchable>(informers: &Informers, generation: &Arc<AtomicU64>) -> Informer<K> {
    let informer = informers.of::<K>();
    let generation = generation.clone();
    informer.on_change(move |_| {
        generation.fetch_add(1, Ordering::Release);
    });
    informer
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes) -> Result<Decision, ApiError> {
        self.synced().await;
        // Read before deciding: a decision made while roles changed is not remembered as newer
        // than it is.
        let generation = self.0.generation.load(Ordering::Acquire);
        {
            let decisions = self.0.decisions.read();
            if decisions.0 == generation
                && let Some(decision) = decisions.1.get(attributes)
            {
                return Ok(decision.clone());
            }
        }
        let decision = self.decide(attributes);
        let mut decisions = self.0.decisions.write();
        if decisions.0 != generation || decisions.1.len() >= DECISIONS_MAX {
            *decisions = (generation, HashMap::new());
        }
        decisions.1.insert(attributes.clone(), decision.clone());
        Ok(decision)
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        self.synced().await;
        Rules { rules: self.rules_of(user, namespace), ..Rules::default() }
    }
}

/// The rules of the role `system:node`.
pub(super) fn node_rules() -> Vec<PolicyRule> {
    policy::NODE_RULES.iter().map(|rule| rule.rule()).collect()
}
