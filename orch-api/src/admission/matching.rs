//! Which requests a webhook or a policy is about: rules, selectors, and versions that are the same
//! resource.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/predicates`,
//! `k8s.io/apiserver/pkg/admission/plugin/policy/matching`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::LabelSelector};
use orch_core::{ApiError, ResourceType, Resources, selector::Selector};
use serde_json::Value;

use super::{AdmissionRequest, Operation};
use crate::{
    auth::service_account::into_api_error,
    catalog::{Catalog, Resource},
    server::Inner,
};

type Labels = BTreeMap<String, String>;

/// Where a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Cluster,
    Namespaced,
    Anywhere,
}

/// What requests a rule picks.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resources and subresources, each of which may be `*`.
    resources: Vec<(String, String)>,
    names: Vec<String>,
    scope: Where,
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(items: &[String], wanted: &str) -> bool {
    items.iter().any(|item| item == "*" || item == wanted)
}

impl Operation {
    /// The operation as reviews and rules name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

impl Rule {
    /// The rules of a list.
    pub(super) fn list(value: &Value) -> Vec<Self> {
        value.as_array().into_iter().flatten().map(Self::of).collect()
    }

    fn of(value: &Value) -> Self {
        let split = |text: String| match text.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: texts(&value["operations"]),
            groups: texts(&value["apiGroups"]),
            versions: texts(&value["apiVersions"]),
            resources: texts(&value["resources"]).into_iter().map(split).collect(),
            names: texts(&value["resourceNames"]),
            scope: match value["scope"].as_str() {
                Some("Cluster") => Where::Cluster,
                Some("Namespaced") => Where::Namespaced,
                _ => Where::Anywhere,
            },
        }
    }

    /// Whether the rule picks a request, if its resource is taken for `of`.
    fn matches(&self, request: &AdmissionRequest, of: &ResourceType) -> bool {
        let subresource = request.target.subresource.as_deref().unwrap_or_default();
        let fits = |wanted: &str, is: &str| wanted == "*" || wanted == is;
        let in_scope = match self.scope {
            Where::Anywhere => true,
            _ if is_namespace(of) => self.scope == Where::Cluster,
            Where::Cluster => request.namespace().is_empty(),
            Where::Namespaced => !request.namespace().is_empty(),
        };
        in_scope
            && has(&self.operations, request.operation.as_str())
            && has(&self.groups, &of.group)
            && has(&self.versions, &of.version)
            && self
                .resources
                .iter()
                .any(|(resource, sub)| fits(resource, &of.plural) && fits(sub, subresource))
            && (self.names.is_empty() || self.names.contains(&request.object_name()))
    }
}

fn is_namespace(of: &ResourceType) -> bool {
    of.group.is_empty() && of.plural == "namespaces"
}

impl AdmissionRequest {
    /// The name of the object, empty while a generated one is not known yet.
    pub(super) fn object_name(&self) -> String {
        let own = self.object.as_ref().and_then(|o| o["metadata"]["name"].as_str());
        self.target.name.as_deref().or(own).unwrap_or_default().to_owned()
    }

    /// The namespace as upstream's attributes have it: namespaces are in themselves.
    pub(super) fn namespace_attribute(&self) -> String {
        if is_namespace(&self.target.resource) {
            return self.object_name();
        }
        self.namespace().to_owned()
    }

    /// Whether the request is about the configuration of admission, which no webhook and no policy
    /// may keep anybody from changing.
    pub(super) fn is_exempt(&self) -> bool {
        let of = &self.target.resource;
        of.group == "admissionregistration.k8s.io"
            && matches!(
                &*of.plural,
                "validatingwebhookconfigurations"
                    | "mutatingwebhookconfigurations"
                    | "validatingadmissionpolicies"
                    | "validatingadmissionpolicybindings"
                    | "mutatingadmissionpolicies"
                    | "mutatingadmissionpolicybindings"
            )
    }
}

/// The resource that a list of rules picks a request as: the request's own, or, if `equivalent`,
/// another version of it. Rules are tried in their order.
pub(super) fn picked(
    rules: &[Rule],
    equivalent: bool,
    request: &AdmissionRequest,
    catalog: &Catalog,
) -> Option<Arc<Resource>> {
    let own = request.origin.resource.as_ref()?;
    if rules.iter().any(|rule| rule.matches(request, &own.of)) {
        return Some(own.clone());
    }
    if !equivalent {
        return None;
    }
    let subresource = request.target.subresource.as_deref();
    let others: Vec<&Arc<Resource>> = catalog
        .same_as(own)
        .filter(|other| other.of != own.of)
        .filter(|other| subresource.is_none_or(|name| other.subresource(name).is_some()))
        .collect();
    rules.iter().find_map(|rule| {
        let other = others.iter().find(|other| rule.matches(request, &other.of));
        other.map(|other| Arc::clone(other))
    })
}

/// The selectors of namespaces and objects.
#[derive(Clone, Debug)]
pub(super) struct Selectors {
    namespaces: Selector,
    objects: Selector,
}

fn selector(value: &Value) -> Selector {
    let parsed: Option<LabelSelector> = serde_json::from_value(value.clone()).ok();
    match &parsed {
        None if value.is_null() => Selector::everything(),
        // Validation lets none through that cannot be read; such a one picks nothing.
        None => Selector::nothing(),
        some => {
            Selector::from_label_selector(some.as_ref()).unwrap_or_else(|_| Selector::nothing())
        }
    }
}

impl Selectors {
    /// The selectors of a webhook, or of a policy's `matchConstraints`.
    pub(super) fn of(value: &Value) -> Self {
        let of = |field: &str| selector(value.get(field).unwrap_or(&Value::Null));
        Self { namespaces: of("namespaceSelector"), objects: of("objectSelector") }
    }

    /// Whether the labels of the object, as it is or as it was, are selected.
    pub(super) fn select_object(&self, request: &AdmissionRequest) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        let new =
            request.object.as_ref().is_some_and(|object| self.objects.matches(&labels_of(object)));
        new || request.old.as_ref().is_some_and(|old| {
            let none = Labels::new();
            self.objects.matches(old.metadata().labels.as_ref().unwrap_or(&none))
        })
    }

    /// Whether the namespace of the request is selected. Requests about cluster-scoped objects
    /// always are, except for namespaces, which have labels of their own.
    pub(super) async fn select_namespace(
        &self,
        server: &Inner,
        request: &AdmissionRequest,
    ) -> Result<bool, ApiError> {
        let own = is_namespace(&request.target.resource);
        let namespace = request.namespace_attribute();
        if self.namespaces.is_everything() || (namespace.is_empty() && !own) {
            return Ok(true);
        }
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if own && request.target.subresource.is_none() && writes {
            let object = request.object.as_ref().unwrap_or(&Value::Null);
            return Ok(self.namespaces.matches(&labels_of(object)));
        }
        let namespaces: Resources<Namespace> = Resources::all(server.own_client());
        let found = namespaces.get(&namespace).await.map_err(into_api_error)?;
        let none = Labels::new();
        Ok(self.namespaces.matches(found.metadata.labels.as_ref().unwrap_or(&none)))
    }
}

fn labels_of(object: &Value) -> Labels {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use orch_core::{Scope, Target};
    use serde_json::json;

    use super::*;
    use crate::auth::UserInfo;

    const PODS: ResourceType = ResourceType::new("", "v1", "pods", "Pod", Scope::Namespaced);
    const NAMESPACES: ResourceType =
        ResourceType::new("", "v1", "namespaces", "Namespace", Scope::Cluster);

    fn request(target: Target) -> AdmissionRequest {
        AdmissionRequest::new(Arc::new(UserInfo::anonymous()), Operation::Update, target)
    }

    #[test]
    fn rules_pick_as_upstreams_do() {
        let pod = request(Target::object(PODS, Some("a"), "p"));
        let status = request(Target::object(PODS, Some("a"), "p").subresource("status"));
        let namespace = request(Target::object(NAMESPACES, None, "a"));
        let check = |rule: Value, request: &AdmissionRequest, expected: bool| {
            let mut whole = json!({
                "operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["*"],
            });
            for (name, value) in rule.as_object().unwrap() {
                whole[name] = value.clone();
            }
            let found = Rule::of(&whole).matches(request, &request.target.resource);
            assert_eq!(found, expected, "{rule}");
        };
        check(json!({}), &pod, true);
        check(json!({}), &status, false);
        check(json!({"resources": ["*/*"]}), &status, true);
        check(json!({"resources": ["*/*"]}), &pod, true);
        check(json!({"resources": ["pods/status"]}), &pod, false);
        check(json!({"resources": ["pods/*"]}), &status, true);
        check(json!({"resources": ["*/scale"]}), &status, false);
        check(json!({"resources": ["services", "pods"]}), &pod, true);
        check(json!({"operations": ["CREATE", "DELETE"]}), &pod, false);
        check(json!({"operations": ["*"]}), &pod, true);
        check(json!({"apiGroups": ["apps"]}), &pod, false);
        check(json!({"apiGroups": ["*"], "apiVersions": ["*"]}), &pod, true);
        check(json!({"scope": "Namespaced"}), &pod, true);
        check(json!({"scope": "Cluster"}), &pod, false);
        check(json!({"scope": "Cluster"}), &namespace, true);
        check(json!({"scope": "Namespaced"}), &namespace, false);
        check(json!({"resourceNames": ["p"]}), &pod, true);
        check(json!({"resourceNames": ["q"]}), &pod, false);
    }

    #[test]
    fn objects_are_selected_as_they_are_or_were() {
        let selectors = Selectors::of(&json!({"objectSelector": {"matchLabels": {"a": "b"}}}));
        let mut request = request(Target::object(PODS, Some("a"), "p"));
        assert!(!selectors.select_object(&request));
        request.object = Some(json!({"metadata": {"labels": {"a": "b"}}}));
        assert!(selectors.select_object(&request));
        let old = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}});
        request.object = Some(json!({"metadata": {}}));
        request.old = Some(Arc::new(orch_core::Object::from_value(&old).unwrap()));
        assert!(selectors.select_object(&request));
        assert!(Selectors::of(&json!({})).select_object(&request));
    }
}
