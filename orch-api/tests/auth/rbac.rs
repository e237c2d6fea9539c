//! Roles, bindings, default policy, nodes, reviews.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::Pod,
    rbac::v1::{ClusterRole, Role, RoleBinding},
};
use orch_api::{
    admission::{Admission, AdmissionRequest, Operation},
    auth::{
        Attributes, Authorizer, Authorizers, Decision, Masters, UserInfo,
        impersonation::impersonated,
        node::NodeAuthorizer,
        rbac::{Rbac, bootstrap, escalation::EscalationCheck},
        reviews::{SelfSubjectAccessReviews, SelfSubjectRulesReviews},
    },
    strategy::{VirtualResource, WriteContext},
};
use orch_core::{
    Client, Environment, ResourceType, Target,
    informer::{Change, Informers},
    testing::MemoryClient,
};
use serde_json::{Value, json};

struct Cluster {
    client: Arc<MemoryClient>,
    informers: Informers,
    rbac: Rbac,
}

async fn cluster() -> Cluster {
    let environment = Environment::system();
    let client = Arc::new(MemoryClient::new(environment.clone()));
    let contract: Arc<dyn Client> = client.clone();
    bootstrap::reconcile(&contract).await.unwrap();
    let informers = Informers::new(contract, environment);
    let rbac = Rbac::new(&informers);
    rbac.synced().await;
    Cluster { client, informers, rbac }
}

impl Cluster {
    /// Puts an object in and waits until the local copies have it.
    async fn put<K: orch_core::informer::Watchable>(&self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let (seen, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        self.informers.of::<K>().on_change(move |change: &Change<K>| {
            let _ = seen.send(change.object().metadata().name.clone());
        });
        self.client.seed(&ResourceType::of::<K>(), object).unwrap();
        while arrived.recv().await.unwrap() != Some(name.clone()) {}
    }
}

fn wants(user: &UserInfo, verb: &str, what: &str, namespace: &str, name: &str) -> Attributes {
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user: Arc::new(user.clone()),
        verb: verb.into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        path: String::new(),
    }
}

async fn allowed(authorizer: &dyn Authorizer, wanted: &Attributes) -> bool {
    matches!(authorizer.authorize(wanted).await.unwrap(), Decision::Allow { .. })
}

fn binding(name: &str, namespace: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    })
}

#[tokio::test]
async fn a_binding_gives_what_its_role_says_where_it_lives() {
    let cluster = cluster().await;
    let ann = UserInfo::authenticated("ann", &[]);
    let get = |ns: &str| wants(&ann, "get", "pods", ns, "web");
    assert!(!allowed(&cluster.rbac, &get("a")).await);
    cluster.put::<RoleBinding>(binding("ann", "a", "ClusterRole", "view", "ann")).await;
    assert!(allowed(&cluster.rbac, &get("a")).await);
    for (verb, what, namespace, expected) in [
        ("get", "pods", "b", false),
        ("delete", "pods", "a", false),
        ("get", "secrets", "a", false),
        ("list", "deployments.apps", "a", true),
        ("list", "pods", "", false),
    ] {
        let wanted = wants(&ann, verb, what, namespace, "");
        assert_eq!(allowed(&cluster.rbac, &wanted).await, expected, "{wanted:?}");
    }
    let decision = cluster.rbac.authorize(&get("a")).await.unwrap();
    let reason = "RBAC: allowed by RoleBinding \"ann/a\" of ClusterRole \"view\" to User \"ann\"";
    assert_eq!(decision, Decision::Allow { reason: reason.into() });
}

#[tokio::test]
async fn default_roles_are_upstreams() {
    let cluster = cluster().await;
    let check = async |user: &UserInfo, verb: &str, what: &str, expected: bool| {
        let wanted = wants(user, verb, what, "default", "x");
        assert_eq!(allowed(&cluster.rbac, &wanted).await, expected, "{wanted:?}");
    };
    let scheduler = UserInfo::authenticated("system:kube-scheduler", &[]);
    check(&scheduler, "create", "pods/binding", true).await;
    check(&scheduler, "update", "deployments.apps", false).await;
    let name = "system:serviceaccount:kube-system:deployment-controller";
    let controller = UserInfo::authenticated(name, &["system:serviceaccounts"]);
    check(&controller, "create", "replicasets.apps", true).await;
    check(&controller, "create", "pods", false).await;
    let anyone = UserInfo::authenticated("anyone", &[]);
    check(&anyone, "create", "selfsubjectaccessreviews.authorization.k8s.io", true).await;
    let path = |user: &UserInfo, path: &str| Attributes {
        user: Arc::new(user.clone()),
        verb: "get".into(),
        path: path.into(),
        ..Attributes::default()
    };
    assert!(allowed(&cluster.rbac, &path(&anyone, "/apis/apps/v1")).await);
    assert!(!allowed(&cluster.rbac, &path(&anyone, "/metrics")).await);
    let anonymous = UserInfo::anonymous();
    assert!(allowed(&cluster.rbac, &path(&anonymous, "/version")).await);
    assert!(!allowed(&cluster.rbac, &path(&anonymous, "/apis")).await);
}

#[tokio::test]
async fn reconciling_adds_what_is_missing_and_keeps_what_was_added() {
    let cluster = cluster().await;
    let client: Arc<dyn Client> = cluster.client.clone();
    let roles = orch_core::Resources::<ClusterRole>::all(client.clone());
    let admin = roles.get("admin").await.unwrap();
    let has = |role: &ClusterRole, resource: &str| {
        role.rules
            .iter()
            .flatten()
            .any(|rule| rule.resources.iter().flatten().any(|r| r == resource))
    };
    assert!(has(&admin, "rolebindings") && has(&admin, "deployments") && has(&admin, "pods/log"));
    let revision = cluster.client.revision();
    bootstrap::reconcile(&client).await.unwrap();
    assert_eq!(cluster.client.revision(), revision, "nothing to do writes nothing");

    let mut role = (*roles.get("system:kube-dns").await.unwrap()).clone();
    let own = serde_json::from_value(json!({
        "verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"],
    }));
    role.rules = Some(vec![own.unwrap()]);
    roles.update(&role).await.unwrap();
    bootstrap::reconcile(&client).await.unwrap();
    let role = roles.get("system:kube-dns").await.unwrap();
    assert!(has(&role, "configmaps") && has(&role, "endpoints"));
}

#[tokio::test]
async fn nodes_read_only_what_their_pods_use() {
    let cluster = cluster().await;
    let nodes = NodeAuthorizer::new(&cluster.informers);
    let node = UserInfo::authenticated("system:node:n1", &["system:nodes"]);
    let secret = wants(&node, "get", "secrets", "a", "key");
    assert!(!allowed(&nodes, &secret).await);
    cluster
        .put::<Pod>(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "builder",
                "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "env"}}]}],
                "volumes": [
                    {"name": "s", "secret": {"secretName": "key"}},
                    {"name": "p", "persistentVolumeClaim": {"claimName": "data"}},
                ],
            },
        }))
        .await;
    for (verb, what, namespace, name, expected) in [
        ("get", "secrets", "a", "key", true),
        ("get", "secrets", "b", "key", false),
        ("list", "secrets", "a", "", false),
        ("delete", "secrets", "a", "key", false),
        ("get", "configmaps", "a", "env", true),
        ("get", "configmaps", "a", "other", false),
        ("get", "persistentvolumeclaims", "a", "data", true),
        ("create", "serviceaccounts/token", "a", "builder", true),
        ("create", "serviceaccounts/token", "a", "default", false),
        ("patch", "nodes/status", "", "n1", true),
        ("patch", "nodes/status", "", "n2", false),
        ("update", "leases.coordination.k8s.io", "kube-node-lease", "n1", true),
        ("update", "leases.coordination.k8s.io", "kube-node-lease", "n2", false),
        ("list", "pods", "", "", true),
        ("create", "deployments.apps", "a", "", false),
    ] {
        let wanted = wants(&node, verb, what, namespace, name);
        assert_eq!(allowed(&nodes, &wanted).await, expected, "{wanted:?}");
    }
}

fn write_context(cluster: &Cluster, user: UserInfo) -> WriteContext {
    WriteContext {
        user: Arc::new(user),
        client: cluster.client.clone(),
        environment: Environment::system(),
        dry_run: false,
    }
}

#[tokio::test]
async fn can_i_answers_for_the_caller() {
    let cluster = cluster().await;
    let authorizer: Arc<dyn Authorizer> =
        Arc::new(Authorizers(vec![Arc::new(Masters), Arc::new(cluster.rbac.clone())]));
    cluster.put::<RoleBinding>(binding("ann", "a", "ClusterRole", "view", "ann")).await;
    let reviews = SelfSubjectAccessReviews(authorizer.clone());
    let resource = ResourceType::new(
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        orch_core::Scope::Cluster,
    );
    let target = Target::collection(resource, None);
    let ask = async |user: UserInfo, verb: &str| {
        let spec =
            json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "a"}});
        let ctx = write_context(&cluster, user);
        reviews.create(&ctx, &target, json!({"spec": spec})).await.unwrap()["status"].clone()
    };
    let ann = || UserInfo::authenticated("ann", &[]);
    assert_eq!(ask(ann(), "get").await["allowed"], true);
    assert_eq!(ask(ann(), "delete").await, json!({"allowed": false}));
    assert_eq!(ask(UserInfo::master("root"), "delete").await["allowed"], true);
    let ctx = write_context(&cluster, ann());
    let empty = reviews.create(&ctx, &target, json!({"spec": {}})).await.unwrap_err();
    assert_eq!(empty.code(), 422);

    let list = SelfSubjectRulesReviews(authorizer);
    let body = json!({"spec": {"namespace": "a"}});
    let status = &list.create(&ctx, &target, body).await.unwrap()["status"];
    let rules = status["resourceRules"].as_array().unwrap();
    assert!(rules.iter().any(|r| r["resources"].as_array().unwrap().contains(&json!("pods"))));
    assert_eq!(status["incomplete"], false);
}

#[tokio::test]
async fn impersonation_needs_the_right_to_it() {
    let cluster = cluster().await;
    let authorizer = Authorizers(vec![Arc::new(Masters), Arc::new(cluster.rbac.clone())]);
    let mut headers = http::HeaderMap::new();
    let root = Arc::new(UserInfo::master("root"));
    assert_eq!(impersonated(&headers, &root, &authorizer).await.unwrap(), None);
    headers.insert("impersonate-user", "system:serviceaccount:a:b".parse().unwrap());
    let user = impersonated(&headers, &root, &authorizer).await.unwrap().unwrap();
    assert!(user.in_group("system:serviceaccounts:a") && user.in_group("system:authenticated"));
    let ann = Arc::new(UserInfo::authenticated("ann", &[]));
    let refused = impersonated(&headers, &ann, &authorizer).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "serviceaccounts \"b\" is forbidden: User \"ann\" cannot impersonate resource \
         \"serviceaccounts\" in API group \"\" in the namespace \"a\""
    );
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let cluster = cluster().await;
    cluster.put::<RoleBinding>(binding("ann", "a", "ClusterRole", "admin", "ann")).await;
    let check = EscalationCheck::new(cluster.rbac.clone(), Arc::new(cluster.rbac.clone()));
    let create = |resource: ResourceType, object: Value| {
        let target = Target::collection(resource, Some("a"));
        let user = Arc::new(UserInfo::authenticated("ann", &[]));
        let request = AdmissionRequest::new(user, Operation::Create, target);
        AdmissionRequest { object: Some(object), ..request }
    };
    let role = |resource: &str| {
        let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]);
        let object = json!({"metadata": {"name": "r", "namespace": "a"}, "rules": rules});
        create(ResourceType::of::<Role>(), object)
    };
    assert!(check.validate(&role("pods")).await.is_ok());
    let refused = check.validate(&role("nodes")).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"ann\" \
         (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently \
         held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
    let mut several = role("nodes");
    let object = several.object.as_mut().unwrap();
    object["rules"][0]["verbs"] = json!(["list", "get"]);
    object["rules"][0]["resources"] = json!(["pods", "nodes", "nodes/proxy"]);
    let refused = check.validate(&several).await.unwrap_err().to_string();
    let (_, lines) = refused.split_once("held:\n").unwrap();
    assert_eq!(
        lines,
        "{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"list\" \"get\"]}\n\
         {APIGroups:[\"\"], Resources:[\"nodes/proxy\"], Verbs:[\"list\" \"get\"]}"
    );
    let sum = json!({"metadata": {"name": "sum"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let refused = check.validate(&create(ResourceType::of::<ClusterRole>(), sum)).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "clusterroles.rbac.authorization.k8s.io \"sum\" is forbidden: must have cluster-admin \
         privileges to use the aggregationRule"
    );
    let bind = |role: &str| {
        create(ResourceType::of::<RoleBinding>(), binding("b", "a", "ClusterRole", role, "bob"))
    };
    assert!(check.validate(&bind("edit")).await.is_ok());
    assert_eq!(check.validate(&bind("cluster-admin")).await.unwrap_err().code(), 403);
    assert_eq!(check.validate(&bind("nothing")).await.unwrap_err().code(), 404);
}
