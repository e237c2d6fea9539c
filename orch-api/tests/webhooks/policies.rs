//! Source: `test/e2e/apimachinery/validatingadmissionpolicy.go`, `mutatingadmissionpolicy.go`; and
//! what policies may ask.

use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding,
    },
    apps::v1::Deployment,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orch_api::{admission::AuditAnnotations, auth::UserInfo};
use serde_json::{Value, json};
use tower::Service as _;

use super::support::{Cluster, cluster, map, refusal, typed};

fn deployment(name: &str, replicas: u32) -> Deployment {
    let labels = json!({"a": "b"});
    typed(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }))
}

fn constraints(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{
        "operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"],
        "resources": [resource],
    }]})
}

fn merge(mut spec: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

impl Cluster {
    fn deployments(&self) -> Api<Deployment> {
        Api::default_namespaced(self.client.clone())
    }

    async fn deploy(&self, name: &str, replicas: u32) -> Result<Deployment, kube::Error> {
        self.deployments().create(&PostParams::default(), &deployment(name, replicas)).await
    }

    /// A validating policy for a resource, bound with an action.
    async fn rule(&self, target: (&str, &str), spec: impl Into<Value>, binding: impl Into<Value>) {
        let spec =
            merge(json!({"matchConstraints": constraints(target.0, target.1)}), &spec.into());
        let policy = typed(json!({"metadata": {"name": "rule"}, "spec": spec}));
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        policies.create(&PostParams::default(), &policy).await.unwrap();
        let spec = json!({"policyName": "rule", "validationActions": ["Deny"]});
        let spec = merge(spec, &binding.into());
        let binding = typed(json!({"metadata": {"name": "bound"}, "spec": spec}));
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        bindings.create(&PostParams::default(), &binding).await.unwrap();
    }

    /// A mutating policy for a resource, bound.
    async fn change(&self, name: &str, target: (&str, &str), spec: impl Into<Value>) {
        let base = json!({
            "matchConstraints": constraints(target.0, target.1), "reinvocationPolicy": "Never",
        });
        let spec = merge(base, &spec.into());
        let policy = typed(json!({"metadata": {"name": name}, "spec": spec}));
        let policies: Api<MutatingAdmissionPolicy> = Api::all(self.client.clone());
        policies.create(&PostParams::default(), &policy).await.unwrap();
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
        let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        bindings.create(&PostParams::default(), &typed(binding)).await.unwrap();
    }
}

#[tokio::test]
async fn should_validate_against_a_deployment() {
    let cluster = cluster().await;
    let spec = json!({"validations": [{
        "expression": "object.spec.replicas > 1",
        "messageExpression": "'wants replicas, got ' + string(object.spec.replicas)",
    }]});
    cluster.rule(("apps", "deployments"), spec, json!({})).await;
    cluster.deploy("replicated", 2).await.unwrap();
    let (code, message) = refusal(cluster.deploy("single", 1).await);
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "deployments.apps \"single\" is forbidden: ValidatingAdmissionPolicy 'rule' with binding \
         'bound' denied request: wants replicas, got 1"
    );
}

#[tokio::test]
async fn should_allow_expressions_to_refer_variables() {
    let cluster = cluster().await;
    let spec = json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
        ],
        "validations": [
            {"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas", "message": "odd only", "reason": "Forbidden"},
        ],
    });
    cluster.rule(("apps", "deployments"), spec, json!({})).await;
    cluster.deploy("three", 3).await.unwrap();
    let (code, message) = refusal(cluster.deploy("one", 1).await);
    assert_eq!((code, message.ends_with("failed expression: variables.replicas > 1")), (422, true));
    let (code, message) = refusal(cluster.deploy("two", 2).await);
    assert_eq!((code, message.ends_with("denied request: odd only")), (403, true), "{message}");
}

#[tokio::test]
async fn should_mutate_a_deployment() {
    let cluster = cluster().await;
    let expression = "Object{spec: Object.spec{replicas: object.spec.replicas + 1}}";
    let spec = json!({"mutations": [{
        "patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression},
    }]});
    cluster.change("grow", ("apps", "deployments"), spec).await;
    let made = cluster.deploy("d", 1).await.unwrap();
    let spec = made.spec.unwrap();
    assert_eq!(spec.replicas, Some(2));
    assert_eq!(spec.template.spec.unwrap().containers[0].image.as_deref(), Some("i"));
}

#[tokio::test]
async fn should_mutate_a_deployment_with_annotations() {
    let cluster = cluster().await;
    let expression = "Object{metadata: Object.metadata{annotations: {'my-foo-annotation': 'myAnnotationValue'}}}";
    let spec = json!({
        "matchConditions": [
            {"name": "unmarked", "expression": "!has(object.metadata.annotations)"},
        ],
        "mutations": [{
            "patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression},
        }],
    });
    cluster.change("annotate", ("apps", "deployments"), spec).await;
    let made = cluster.deploy("d", 1).await.unwrap();
    assert_eq!(made.metadata.annotations.unwrap()["my-foo-annotation"], "myAnnotationValue");
    let mut marked = deployment("e", 1);
    marked.metadata.annotations = typed(json!({"own": "yes"}));
    let made = cluster.deployments().create(&PostParams::default(), &marked).await.unwrap();
    assert!(!made.metadata.annotations.unwrap().contains_key("my-foo-annotation"));
}

#[tokio::test]
async fn patches_are_made_of_expressions_too() {
    let cluster = cluster().await;
    let add = |key: &str, when: &str| {
        let expression = format!(
            "[JSONPatch{{op: 'test', path: '/data/{when}', value: 'yes'}}, \
             JSONPatch{{op: 'add', path: '/data/' + jsonpatch.escapeKey('{key}'), value: 'yes'}}]"
        );
        json!({
            "reinvocationPolicy": "IfNeeded",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        })
    };
    // The first waits for what the second does, and is asked again.
    cluster.change("a-first", ("", "configmaps"), add("third", "second")).await;
    cluster.change("b-second", ("", "configmaps"), add("second", "first")).await;
    let made = cluster.create_map("m", json!({"first": "yes"})).await.unwrap();
    let keys: Vec<String> = made.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["first", "second", "third"]);
    let made = cluster.create_map("n", json!({"other": "yes"})).await.unwrap();
    assert_eq!(made.data.unwrap().len(), 1, "a test that fails changes nothing");
}

#[tokio::test]
async fn parameters_are_lent_by_bindings() {
    let cluster = cluster().await;
    let limit = map("limit", json!({"max": "3"}));
    cluster.maps("default").create(&PostParams::default(), &limit).await.unwrap();
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.max)"}],
    });
    let params = |name: &str| json!({"paramRef": {"name": name, "namespace": "default"}});
    cluster.rule(("apps", "deployments"), spec, params("limit")).await;
    cluster.deploy("few", 3).await.unwrap();
    refusal(cluster.deploy("many", 4).await);
    let patch = Patch::Merge(json!({"data": {"max": "4"}}));
    cluster.maps("default").patch("limit", &PatchParams::default(), &patch).await.unwrap();
    cluster.deploy("many", 4).await.unwrap();
    cluster.maps("default").delete("limit", &DeleteParams::default()).await.unwrap();
    let (_, message) = refusal(cluster.deploy("none", 1).await);
    let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(message.ends_with(why), "{message}");
}

#[tokio::test]
async fn bindings_may_warn_and_audit() {
    let cluster = cluster().await;
    let spec = json!({
        "validations": [{"expression": "has(object.data)", "message": "no data"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'made ' + object.metadata.name"}],
    });
    let actions = json!({"validationActions": ["Warn", "Audit"]});
    cluster.rule(("", "configmaps"), spec, actions).await;
    let body = json!({"metadata": {"name": "m"}}).to_string();
    let request = http::Request::post("/api/v1/namespaces/default/configmaps")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let response = cluster.server.clone().call(request).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(
        response.headers()["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'rule' with binding 'bound': no data\""
    );
    let told = response.extensions().get::<AuditAnnotations>().unwrap();
    assert_eq!(told.0["rule/name"], "made m");
    let failures: Value =
        serde_json::from_str(&told.0["validation.policy.admission.k8s.io/validation_failure"])
            .unwrap();
    assert_eq!(failures[0]["message"], "no data");
    assert_eq!(failures[0]["expressionIndex"], 0);
}

#[tokio::test]
async fn requests_namespaces_and_permissions_may_be_asked_about() {
    let cluster = cluster().await;
    let expression = "request.userInfo.username == 'test' && request.operation == 'CREATE' && \
        namespaceObject.metadata.name == request.namespace && \
        authorizer.group('').resource('pods').check('get').allowed() && \
        authorizer.requestResource.check('delete').allowed()";
    let spec = json!({"validations": [{"expression": expression}]});
    cluster.rule(("", "configmaps"), spec, json!({})).await;
    cluster.create_map("m", json!({})).await.unwrap();
    let other = cluster.server.kube_client(UserInfo::master("other"), "default");
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::default_namespaced(other);
    refusal(maps.create(&PostParams::default(), &map("n", json!({}))).await);
}

#[tokio::test]
async fn failures_are_refusals_unless_the_policy_ignores_them() {
    let cluster = cluster().await;
    let spec = json!({"validations": [{"expression": "object.data.missing == 'x'"}]});
    cluster.rule(("", "configmaps"), spec, json!({})).await;
    let (code, message) = refusal(cluster.create_map("m", json!({"a": "b"})).await);
    assert_eq!(code, 422);
    let why = "expression 'object.data.missing == 'x'' resulted in error: no such key: missing";
    assert!(message.ends_with(why), "{message}");
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(cluster.client.clone());
    let ignore = Patch::Merge(json!({"spec": {"failurePolicy": "Ignore"}}));
    policies.patch("rule", &PatchParams::default(), &ignore).await.unwrap();
    cluster.create_map("m", json!({"a": "b"})).await.unwrap();
}

#[tokio::test]
async fn policies_are_checked_as_upstream_does() {
    let cluster = cluster().await;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(cluster.client.clone());
    let check = async |spec: Value, expected: &str| {
        let spec = merge(json!({"matchConstraints": constraints("", "pods")}), &spec);
        let policy = typed(json!({"metadata": {"name": "p"}, "spec": spec}));
        let (code, message) = refusal(policies.create(&PostParams::default(), &policy).await);
        assert_eq!((code, message.contains(expected)), (422, true), "{message}");
    };
    let one = |expression: &str| json!({"validations": [{"expression": expression}]});
    check(json!({}), "spec.validations: Required value: validations or auditAnnotations must contain at least one item").await;
    check(
        one("1"),
        "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
    )
    .await;
    check(
        one("params.x"),
        "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
    )
    .await;
    let variables = json!({
        "variables": [{"name": "in", "expression": "1"}], "validations": [{"expression": "true"}],
    });
    check(
        variables,
        "spec.variables[0].name: Invalid value: \"in\": name is not a valid CEL identifier",
    )
    .await;
    let condition = json!({
        "matchConditions": [{"name": "x", "expression": "'a'"}], "validations": [{"expression": "true"}],
    });
    check(condition, "spec.matchConditions[0].expression: Invalid value: \"'a'\": must evaluate to bool but got string").await;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(cluster.client.clone());
    let spec = json!({"policyName": "p", "validationActions": ["Deny", "Warn"], "paramRef": {}});
    let binding = typed(json!({"metadata": {"name": "b"}, "spec": spec}));
    let (_, message) = refusal(bindings.create(&PostParams::default(), &binding).await);
    assert!(message.contains("must not contain both Deny and Warn"), "{message}");
    assert!(
        message.contains("spec.paramRef: Required value: one of name or selector"),
        "{message}"
    );
}
