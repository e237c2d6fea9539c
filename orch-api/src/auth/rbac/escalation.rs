//! Nobody may hand out rights that they do not have.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/rbac/*/policybased`.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use orch_core::ApiError;
use serde_json::Value;

use super::{Rbac, rules::uncovered};
use crate::{
    admission::{Admission, AdmissionRequest, Operation},
    auth::{Attributes, Authorizer, Decision, GROUP_MASTERS},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses roles with rights that their author does not have (unless the author may `escalate`
/// the role), and bindings to such roles (unless the author may `bind` the role).
#[derive(Debug)]
pub struct EscalationCheck {
    rbac: Rbac,
    authorizer: Arc<dyn Authorizer>,
}

impl EscalationCheck {
    /// Checks against the rules that `rbac` knows; `authorizer` decides on `escalate` and `bind`.
    pub fn new(rbac: Rbac, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { rbac, authorizer }
    }

    async fn may(
        &self,
        request: &AdmissionRequest,
        verb: &str,
        resource: &str,
        name: &str,
    ) -> Result<bool, ApiError> {
        let namespace = request.target.namespace.clone().unwrap_or_default();
        let attributes = Attributes {
            user: request.user.clone(),
            verb: verb.into(),
            group: GROUP.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace,
            name: name.into(),
            ..Attributes::default()
        };
        Ok(matches!(self.authorizer.authorize(&attributes).await?, Decision::Allow { .. }))
    }

    async fn check(
        &self,
        request: &AdmissionRequest,
        wanted: &[PolicyRule],
    ) -> Result<(), ApiError> {
        self.rbac.synced().await;
        let namespace = request.target.namespace.as_deref().unwrap_or_default();
        let missing = uncovered(&self.rbac.rules_of(&request.user, namespace), wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let lines: BTreeSet<String> = compacted(missing).iter().map(printed).collect();
        let lines: Vec<String> = lines.into_iter().collect();
        let user = &request.user;
        Err(request.refuse(&format!(
            "user \"{}\" (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            serde_json::json!(user.groups).to_string().replace("\",\"", "\" \""),
            lines.join("\n"),
        )))
    }
}

/// Parts of rules, those that differ in their verbs alone put together.
///
/// Source: `k8s.io/kubernetes/pkg/registry/rbac/validation/policy_compact.go`.
fn compacted(parts: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut all: Vec<PolicyRule> = Vec::new();
    for part in parts {
        let same = |one: &&mut PolicyRule| {
            part.resources.is_some()
                && (&one.api_groups, &one.resources, &one.resource_names)
                    == (&part.api_groups, &part.resources, &part.resource_names)
        };
        match all.iter_mut().find(same) {
            Some(one) => one.verbs.extend(part.verbs),
            None => all.push(part),
        }
    }
    all
}

/// A rule as upstream prints it.
fn printed(rule: &PolicyRule) -> String {
    let fields = [
        ("APIGroups", rule.api_groups.as_ref()),
        ("Resources", rule.resources.as_ref()),
        ("NonResourceURLs", rule.non_resource_urls.as_ref()),
        ("ResourceNames", rule.resource_names.as_ref()),
        ("Verbs", Some(&rule.verbs)),
    ];
    let parts: Vec<String> = fields
        .iter()
        .filter_map(|(name, list)| {
            let quoted: Vec<String> = (*list)?.iter().map(|one| format!("{one:?}")).collect();
            (!quoted.is_empty()).then(|| format!("{name}:[{}]", quoted.join(" ")))
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}

fn rules(object: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(object["rules"].clone()).unwrap_or_default()
}

#[async_trait]
impl Admission for EscalationCheck {
    fn name(&self) -> &'static str {
        "EscalationCheck"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let resource = &request.target.resource;
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(object) = request
            .object
            .as_ref()
            .filter(|_| writes && resource.group == GROUP && !request.user.in_group(GROUP_MASTERS))
        else {
            return Ok(());
        };
        let old = request.old.as_ref().map(|old| old.to_value());
        let unchanged = |field: &str| old.as_ref().is_some_and(|old| old[field] == object[field]);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match &*resource.plural {
            plural @ ("roles" | "clusterroles") => {
                let same = unchanged("rules") && unchanged("aggregationRule");
                if same || self.may(request, "escalate", plural, name).await? {
                    return Ok(());
                }
                let aggregates = |object: &Value| !object["aggregationRule"].is_null();
                if aggregates(object) || old.as_ref().is_some_and(aggregates) {
                    let everything = r#"[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]},{"verbs":["*"],"nonResourceURLs":["*"]}]"#;
                    let everything: Vec<PolicyRule> =
                        serde_json::from_str(everything).unwrap_or_default();
                    if self.check(request, &everything).await.is_err() {
                        return Err(request.refuse(
                            "must have cluster-admin privileges to use the aggregationRule",
                        ));
                    }
                }
                self.check(request, &rules(object)).await
            }
            "rolebindings" | "clusterrolebindings" => {
                let Ok(reference) = serde_json::from_value::<RoleRef>(object["roleRef"].clone())
                else {
                    return Ok(());
                };
                let role_resource =
                    if reference.kind == "ClusterRole" { "clusterroles" } else { "roles" };
                let same = unchanged("roleRef") && unchanged("subjects");
                if same || self.may(request, "bind", role_resource, &reference.name).await? {
                    return Ok(());
                }
                self.rbac.synced().await;
                let namespace = request.target.namespace.as_deref().unwrap_or_default();
                let Some(rules) = self.rbac.role_rules(namespace, &reference) else {
                    return Err(ApiError::not_found(GROUP, role_resource, &reference.name));
                };
                self.check(request, &rules).await
            }
            _ => Ok(()),
        }
    }
}
