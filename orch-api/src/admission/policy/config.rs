//! The policies and their bindings as they are written now.
//!
//! They are compiled from the watch cache when somebody asks and they have changed; a policy that
//! has not changed stays compiled.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use orch_core::{ApiError, Object, ResourceType, Scope};
use parking_lot::Mutex;
use serde_json::Value;

use super::{
    super::{
        AdmissionRequest,
        matching::{Rule, Selectors, picked},
    },
    conditions::Conditions,
    expression::{Composed, Expression, Gives, Uses},
    params::{ParamKind, ParamRef},
};
use crate::{
    cache::Collection,
    catalog::{Catalog, Resource},
    server::Inner,
};

const fn resource(plural: &'static str, kind: &'static str) -> ResourceType {
    ResourceType::new("admissionregistration.k8s.io", "v1", plural, kind, Scope::Cluster)
}

const VALIDATING: [ResourceType; 2] = [
    resource("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    resource("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
];
const MUTATING: [ResourceType; 2] = [
    resource("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
    resource("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
];

/// Which requests a policy or a binding is about.
#[derive(Debug)]
pub(super) struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    selectors: Selectors,
    equivalent: bool,
}

impl Constraints {
    fn of(value: &Value) -> Self {
        Self {
            rules: Rule::list(&value["resourceRules"]),
            excluded: Rule::list(&value["excludeResourceRules"]),
            selectors: Selectors::of(value),
            equivalent: value["matchPolicy"] != "Exact",
        }
    }

    /// The resource in the version that a rule names, if the request is picked. Where there are
    /// no rules every request is.
    pub(super) async fn pick(
        &self,
        server: &Inner,
        request: &AdmissionRequest,
        catalog: &Catalog,
    ) -> Result<Option<Arc<Resource>>, ApiError> {
        if picked(&self.excluded, self.equivalent, request, catalog).is_some() {
            return Ok(None);
        }
        let found = if self.rules.is_empty() {
            request.origin.resource.clone()
        } else {
            picked(&self.rules, self.equivalent, request, catalog)
        };
        let Some(found) = found else { return Ok(None) };
        let selected = self.selectors.select_object(request)
            && self.selectors.select_namespace(server, request).await?;
        Ok(selected.then_some(found))
    }
}

/// A validation of a policy.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: String,
}

/// A mutation of a policy.
#[derive(Debug)]
pub(super) enum Mutation {
    Apply(Expression),
    Patch(Expression),
}

/// A policy, compiled.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) constraints: Constraints,
    pub(super) fails: bool,
    pub(super) param_kind: Option<ParamKind>,
    pub(super) conditions: Conditions,
    pub(super) composed: Composed,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<(String, Expression)>,
    pub(super) mutations: Vec<Mutation>,
    pub(super) reinvoked: bool,
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Policy {
    fn of(object: &Object) -> Self {
        let value = object.to_value();
        let spec = &value["spec"];
        let param_kind = ParamKind::of(spec);
        let variables: Vec<(&str, &str)> =
            items(&spec["variables"]).map(|v| (text(v, "name"), text(v, "expression"))).collect();
        let patches = spec["mutations"].is_array();
        let uses = Uses { params: param_kind.is_some(), authorizer: true, patches };
        let (composed, environment) = Composed::compile(uses, &variables);
        let compile = |source: &str, gives| Expression::compile(&environment, source, gives);
        let validation = |one: &Value| Validation {
            expression: compile(text(one, "expression"), Gives::Truth),
            message: text(one, "message").trim().to_owned(),
            message_expression: one["messageExpression"]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(|text| compile(text, Gives::Text)),
            reason: text(one, "reason").to_owned(),
        };
        let annotation = |one: &Value| {
            let source = text(one, "valueExpression").trim();
            (text(one, "key").to_owned(), compile(source, Gives::TextOrNull))
        };
        let mutation = |one: &Value| match text(one, "patchType") {
            "JSONPatch" => {
                Mutation::Patch(compile(text(&one["jsonPatch"], "expression"), Gives::Patches))
            }
            _ => {
                let source = text(&one["applyConfiguration"], "expression");
                Mutation::Apply(compile(source, Gives::Object))
            }
        };
        Self {
            name: object.key().name,
            constraints: Constraints::of(&spec["matchConstraints"]),
            fails: text(spec, "failurePolicy") != "Ignore",
            conditions: Conditions::of(&environment, &spec["matchConditions"]),
            validations: items(&spec["validations"]).map(validation).collect(),
            annotations: items(&spec["auditAnnotations"]).map(annotation).collect(),
            mutations: items(&spec["mutations"]).map(mutation).collect(),
            reinvoked: text(spec, "reinvocationPolicy") == "IfNeeded",
            param_kind,
            composed,
        }
    }
}

/// What puts a policy to work.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) constraints: Option<Constraints>,
    pub(super) params: Option<ParamRef>,
    pub(super) actions: Vec<String>,
}

impl Binding {
    /// A binding, and the name of its policy.
    fn of(object: &Object) -> (String, Self) {
        let value = object.to_value();
        let spec = &value["spec"];
        let constraints = spec.get("matchResources").filter(|own| !own.is_null());
        let actions = items(&spec["validationActions"]).filter_map(Value::as_str);
        let binding = Self {
            name: object.key().name,
            constraints: constraints.map(Constraints::of),
            params: ParamRef::of(spec),
            actions: actions.map(str::to_owned).collect(),
        };
        (text(spec, "policyName").to_owned(), binding)
    }
}

/// A policy with its bindings; one without any does nothing.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) policy: Arc<Policy>,
    pub(super) bindings: Vec<Binding>,
}

/// The policies of both kinds.
#[derive(Default)]
pub(crate) struct Policies {
    validating: Mutex<Compiled>,
    mutating: Mutex<Compiled>,
}

#[derive(Default)]
struct Compiled {
    policies: HashMap<String, (Option<u64>, Arc<Policy>)>,
    /// Where policies and bindings are, so that nobody looks for them once they are known.
    collections: Option<[Arc<Collection>; 2]>,
    revisions: [Option<u64>; 2],
    bound: Arc<[Bound]>,
}

impl Compiled {
    /// What is compiled, if nothing has changed since.
    fn unchanged(&self) -> Option<Arc<[Bound]>> {
        let [policies, bindings] = self.collections.as_ref()?;
        let [first, second] = self.revisions;
        (policies.is_at(first) && bindings.is_at(second)).then(|| self.bound.clone())
    }

    /// Takes in what has changed. The policies come ordered by name.
    fn renew(&mut self, policies: &[Arc<Object>], bindings: &[Arc<Object>]) {
        let mut by_policy: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
        for object in bindings {
            let (policy, binding) = Binding::of(object);
            by_policy.entry(policy).or_default().push(binding);
        }
        let mut known = std::mem::take(&mut self.policies);
        let mut bound = Vec::new();
        for object in policies {
            let name = object.key().name;
            let Some(bindings) = by_policy.remove(&name) else { continue };
            let kept = known.remove(&name).filter(|(of, _)| *of == object.revision());
            let policy = kept.map_or_else(|| Arc::new(Policy::of(object)), |(_, policy)| policy);
            self.policies.insert(name, (object.revision(), policy.clone()));
            bound.push(Bound { policy, bindings });
        }
        self.bound = bound.into();
    }
}

impl Inner {
    async fn bound(
        &self,
        of: &[ResourceType; 2],
        kept: &Mutex<Compiled>,
    ) -> Result<Arc<[Bound]>, ApiError> {
        if let Some(bound) = kept.lock().unchanged() {
            return Ok(bound);
        }
        let find = |of| self.built_in.resource(of).ok_or_else(ApiError::no_such_path);
        let policies = self.cache.collection(find(&of[0])?).await?;
        let bindings = self.cache.collection(find(&of[1])?).await?;
        let mut kept = kept.lock();
        let [of_policies, of_bindings] = kept.revisions;
        let reloading = crate::cache::reloading;
        let changed = policies.newer_than(of_policies).ok_or_else(reloading)?.1.is_some()
            || bindings.newer_than(of_bindings).ok_or_else(reloading)?.1.is_some();
        if changed {
            let (first, objects) = policies.newer_than(None).ok_or_else(reloading)?;
            let (second, others) = bindings.newer_than(None).ok_or_else(reloading)?;
            kept.renew(&objects.unwrap_or_default(), &others.unwrap_or_default());
            kept.revisions = [Some(first), Some(second)];
        }
        kept.collections = Some([policies, bindings]);
        Ok(kept.bound.clone())
    }

    /// The validating policies that are put to work.
    pub(super) async fn validating_policies(&self) -> Result<Arc<[Bound]>, ApiError> {
        self.bound(&VALIDATING, &self.policies.validating).await
    }

    /// The mutating policies that are put to work.
    pub(super) async fn mutating_policies(&self) -> Result<Arc<[Bound]>, ApiError> {
        self.bound(&MUTATING, &self.policies.mutating).await
    }
}
