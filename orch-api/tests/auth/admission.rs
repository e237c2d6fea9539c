//! Admission plugins, worded as upstream words them.

use std::sync::Arc;

use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{
        LimitRange, Namespace, PersistentVolumeClaim, Pod, ResourceQuota as Quota, ServiceAccount,
    },
    node::v1::RuntimeClass,
    resource::v1::{DeviceClass, ResourceClaim},
    scheduling::v1::PriorityClass,
    storage::v1::StorageClass,
};
use orch_api::{
    admission::{
        Admission, AdmissionRequest, CertificateApproval, CertificateSigning, LateClient,
        Operation, create_system_classes, defaults,
    },
    auth::{Attributes, Authorizer, Decision, UserInfo},
};
use orch_core::{
    ApiError, Client, Environment, Object, ResourceType, Resources, Target, resource::StaticScope,
    testing::MemoryClient,
};
use serde_json::{Value, json};

struct Setup {
    client: Arc<MemoryClient>,
    chain: Vec<Arc<dyn Admission>>,
}

fn setup() -> Setup {
    let environment = Environment::system();
    let client = Arc::new(MemoryClient::new(environment.clone()));
    let contract: Arc<dyn Client> = client.clone();
    let setup = Setup { chain: defaults(&contract, &environment), client };
    setup.seed::<Namespace>(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
    );
    setup.seed::<ServiceAccount>(json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "a"},
        "imagePullSecrets": [{"name": "registry"}]}));
    setup
}

fn request<K>(operation: Operation, object: Value) -> AdmissionRequest
where
    K: k8s_openapi::Resource,
    K::Scope: StaticScope,
{
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let namespace = object["metadata"]["namespace"].as_str();
    let target = Target::object(ResourceType::of::<K>(), namespace, &name);
    let user = Arc::new(UserInfo::authenticated("ann", &[]));
    AdmissionRequest { object: Some(object), ..AdmissionRequest::new(user, operation, target) }
}

impl Setup {
    fn seed<K>(&self, object: Value)
    where
        K: k8s_openapi::Resource,
        K::Scope: StaticScope,
    {
        self.client.seed(&ResourceType::of::<K>(), object).unwrap();
    }

    async fn admit(&self, mut request: AdmissionRequest) -> Result<AdmissionRequest, ApiError> {
        for plugin in &self.chain {
            plugin.mutate(&mut request).await?;
        }
        for plugin in &self.chain {
            plugin.validate(&request).await?;
        }
        Ok(request)
    }

    async fn create<K>(&self, object: Value) -> Result<Value, ApiError>
    where
        K: k8s_openapi::Resource,
        K::Scope: StaticScope,
    {
        let admitted = self.admit(request::<K>(Operation::Create, object)).await?;
        Ok(admitted.object.unwrap())
    }

    async fn refused<K>(&self, object: Value) -> String
    where
        K: k8s_openapi::Resource,
        K::Scope: StaticScope,
    {
        self.create::<K>(object).await.unwrap_err().to_string()
    }
}

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn sized(resources: &Value) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "resources": resources}]})
}

#[tokio::test]
async fn pods_get_an_account_a_token_and_tolerations() {
    let setup = setup();
    let admitted = setup.create::<Pod>(pod("web", &json!({}))).await.unwrap();
    let spec = &admitted["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["name"], volume);
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["priority"], 0);
    let again = setup.create::<Pod>(admitted.clone()).await.unwrap();
    assert_eq!(again, admitted, "admission is idempotent");
    let quiet = pod("web", &json!({"automountServiceAccountToken": false}));
    assert!(setup.create::<Pod>(quiet).await.unwrap()["spec"]["volumes"].is_null());
    let unknown = pod("web", &json!({"serviceAccountName": "nobody"}));
    assert_eq!(
        setup.refused::<Pod>(unknown).await,
        "pods \"web\" is forbidden: error looking up service account a/nobody: \
         serviceaccount \"nobody\" not found"
    );
}

#[tokio::test]
async fn namespaces_must_exist_and_live() {
    let setup = setup();
    let mut lost = pod("web", &json!({}));
    lost["metadata"]["namespace"] = json!("b");
    assert_eq!(setup.refused::<Pod>(lost).await, "namespaces \"b\" not found");
    setup.seed::<Namespace>(json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "b"}, "status": {"phase": "Terminating"}}));
    let mut late = pod("web", &json!({}));
    late["metadata"]["namespace"] = json!("b");
    let error = setup.create::<Pod>(late).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "pods \"web\" is forbidden: unable to create new content in namespace b because it is \
         being terminated"
    );
    let causes = error.status().details.as_ref().unwrap().causes.as_ref().unwrap();
    assert_eq!(causes[0].reason.as_deref(), Some("NamespaceTerminating"));
    let mut delete =
        request::<Namespace>(Operation::Delete, json!({"metadata": {"name": "kube-system"}}));
    delete.object = None;
    let refused = setup.admit(delete).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let setup = setup();
    setup.seed::<LimitRange>(json!({"apiVersion": "v1", "kind": "LimitRange",
    "metadata": {"name": "l", "namespace": "a"},
    "spec": {"limits": [{
        "type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"},
        "min": {"cpu": "50m"}, "max": {"cpu": "200m"},
    }]}}));
    let filled = setup.create::<Pod>(pod("web", &json!({}))).await.unwrap();
    assert_eq!(
        filled["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}})
    );
    assert_eq!(
        filled["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let own = sized(&json!({"limits": {"cpu": "150m"}}));
    let own = setup.create::<Pod>(pod("web", &own)).await.unwrap();
    assert_eq!(own["spec"]["containers"][0]["resources"]["requests"]["cpu"], "150m");
    for (resources, why) in [
        (
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}),
            "maximum cpu usage per Container is 200m, but limit is 1",
        ),
        (
            json!({"requests": {"cpu": "10m"}}),
            "minimum cpu usage per Container is 50m, but request is 10m",
        ),
    ] {
        let refused = setup.refused::<Pod>(pod("web", &sized(&resources))).await;
        assert_eq!(refused, format!("pods \"web\" is forbidden: {why}"));
    }
}

fn quota(hard: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}})
}

#[tokio::test]
async fn quotas_are_charged_and_never_exceeded() {
    let setup = setup();
    setup.seed::<Quota>(quota(&json!({"pods": "2", "requests.cpu": "1"})));
    let small = sized(&json!({"requests": {"cpu": "100m"}}));
    let refused = setup.refused::<Pod>(pod("silent", &json!({}))).await;
    assert_eq!(
        refused,
        "pods \"silent\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    for name in ["one", "two"] {
        let admitted = setup.create::<Pod>(pod(name, &small)).await.unwrap();
        setup.seed::<Pod>(admitted);
    }
    let quotas: Resources<Quota> = Resources::namespaced(setup.client.clone(), "a");
    let used = quotas.get("q").await.unwrap().status.clone().unwrap().used.unwrap();
    assert_eq!((used["pods"].0.as_str(), used["requests.cpu"].0.as_str()), ("2", "200m"));
    assert_eq!(
        setup.refused::<Pod>(pod("three", &small)).await,
        "pods \"three\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, \
         limited: pods=2"
    );
    let pods: Resources<Pod> = Resources::namespaced(setup.client.clone(), "a");
    pods.delete("one", Default::default()).await.unwrap();
    let big = sized(&json!({"requests": {"cpu": "950m"}}));
    assert_eq!(
        setup.refused::<Pod>(pod("big", &big)).await,
        "pods \"big\" is forbidden: exceeded quota: q, requested: requests.cpu=950m, \
         used: requests.cpu=100m, limited: requests.cpu=1"
    );
    assert!(setup.create::<Pod>(pod("three", &small)).await.is_ok(), "what is gone is not counted");
}

#[tokio::test]
async fn pods_and_claims_are_charged_for_the_same_devices() {
    let setup = setup();
    setup.seed::<DeviceClass>(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpus"},
        "spec": {"extendedResourceName": "example.com/gpu"},
    }));
    setup.seed::<Quota>(quota(&json!({"requests.example.com/gpu": "3"})));
    let gpus = |count: &str| json!({"example.com/gpu": count});
    let gpus = |count: &str| sized(&json!({"requests": gpus(count), "limits": gpus(count)}));
    let claim = |name: &str, count: u32| {
        let exactly = json!({"deviceClassName": "gpus", "allocationMode": "ExactCount",
                             "count": count});
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
               "metadata": {"name": name, "namespace": "a"},
               "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}})
    };
    let first = setup.create::<ResourceClaim>(claim("one", 2)).await.unwrap();
    setup.seed::<ResourceClaim>(first);
    let words = |what: &str, requested: u32, used: u32| {
        format!(
            "{what} is forbidden: exceeded quota: q, requested: \
             requests.example.com/gpu={requested}, used: requests.example.com/gpu={used}, \
             limited: requests.example.com/gpu=3"
        )
    };
    let refused = setup.refused::<Pod>(pod("web", &gpus("2"))).await;
    assert_eq!(refused, words("pods \"web\"", 2, 2));
    let web = setup.create::<Pod>(pod("web", &gpus("1"))).await.unwrap();
    setup.seed::<Pod>(web);
    let refused = setup.refused::<ResourceClaim>(claim("two", 1)).await;
    assert_eq!(refused, words("resourceclaims.resource.k8s.io \"two\"", 1, 3));
    // The pod is charged for what its own claim is for.
    let pods: Resources<Pod> = Resources::namespaced(setup.client.clone(), "a");
    let uid = pods.get("web").await.unwrap().metadata.uid.clone();
    let mut own = claim("own", 1);
    own["metadata"]["annotations"] =
        json!({"resource.kubernetes.io/extended-resource-claim": "true"});
    own["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid, "controller": true,
    }]);
    assert!(setup.create::<ResourceClaim>(own).await.is_ok());
}

#[tokio::test]
async fn who_read_a_quota_before_something_took_a_freed_place_loses_against_it() {
    let setup = setup();
    setup.seed::<Quota>(quota(&json!({"pods": "1"})));
    let first = setup.create::<Pod>(pod("one", &json!({}))).await.unwrap();
    setup.seed::<Pod>(first);
    let quotas: Resources<Quota> = Resources::namespaced(setup.client.clone(), "a");
    let pods: Resources<Pod> = Resources::namespaced(setup.client.clone(), "a");
    pods.delete("one", Default::default()).await.unwrap();
    let mut before = (*quotas.get("q").await.unwrap()).clone();
    setup.create::<Pod>(pod("two", &json!({}))).await.unwrap();
    // What a controller that has seen the deletion, but not the second pod, would write.
    before.status.as_mut().unwrap().used.as_mut().unwrap().get_mut("pods").unwrap().0 = "0".into();
    let lost = quotas.update_status(&before).await;
    assert!(lost.is_err_and(|error| error.is_conflict()), "the second pod would count for nothing");
}

#[tokio::test]
async fn what_is_admitted_at_once_is_counted_at_once() {
    let setup = setup();
    setup.seed::<Quota>(quota(&json!({"count/pods": "3"})));
    let create =
        |i: u32| setup.admit(request::<Pod>(Operation::Create, pod(&format!("p{i}"), &json!({}))));
    let all = futures::future::join_all((0..10).map(create)).await;
    assert_eq!(all.iter().filter(|admitted| admitted.is_ok()).count(), 3, "none is stored yet");
    drop(all);
    assert!(create(10).await.is_ok(), "none of them will be stored any more");
}

#[tokio::test]
async fn priorities_come_from_classes() {
    let setup = setup();
    let client: Arc<dyn Client> = setup.client.clone();
    create_system_classes(&client).await.unwrap();
    setup.seed::<PriorityClass>(json!({"apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}));
    let check = async |class: &str, value: i64| {
        let admitted = setup.create::<Pod>(pod("web", &json!({"priorityClassName": class}))).await;
        assert_eq!(admitted.unwrap()["spec"]["priority"], value);
    };
    check("high", 1000).await;
    check("system-node-critical", 2_000_001_000).await;
    assert_eq!(
        setup.refused::<Pod>(pod("web", &json!({"priorityClassName": "none"}))).await,
        "pods \"web\" is forbidden: no PriorityClass with name none was found"
    );
    let refused = setup.refused::<Pod>(pod("web", &json!({"priority": 5}))).await;
    assert!(
        refused.contains("the integer value of priority (5) must not be provided"),
        "{refused}"
    );
}

#[tokio::test]
async fn classes_are_looked_up() {
    let setup = setup();
    for (name, default, expands) in [("slow", "false", true), ("fast", "true", false)] {
        setup.seed::<StorageClass>(json!({"apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass", "provisioner": "p", "allowVolumeExpansion": expands,
            "metadata": {"name": name, "annotations":
                {"storageclass.kubernetes.io/is-default-class": default}}}));
    }
    let claim = |class: Option<&str>, size: &str| {
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "a"},
            "spec": {"resources": {"requests": {"storage": size}}}});
        if let Some(class) = class {
            claim["spec"]["storageClassName"] = json!(class);
        }
        claim
    };
    let admitted = setup.create::<PersistentVolumeClaim>(claim(None, "1Gi")).await.unwrap();
    assert_eq!(admitted["spec"]["storageClassName"], "fast");
    let none = setup.create::<PersistentVolumeClaim>(claim(Some(""), "1Gi")).await.unwrap();
    assert_eq!(none["spec"]["storageClassName"], "");
    let grow = |class: &str| {
        let old = Object::from_value(&claim(Some(class), "1Gi")).unwrap();
        let new = request::<PersistentVolumeClaim>(Operation::Update, claim(Some(class), "2Gi"));
        AdmissionRequest { old: Some(Arc::new(old)), ..new }
    };
    assert!(setup.admit(grow("slow")).await.is_ok());
    assert_eq!(setup.admit(grow("fast")).await.unwrap_err().code(), 403);

    setup.seed::<RuntimeClass>(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
        "metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}}}));
    let admitted =
        setup.create::<Pod>(pod("web", &json!({"runtimeClassName": "vm"}))).await.unwrap();
    assert_eq!(admitted["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(admitted["spec"]["nodeSelector"], json!({"vm": "yes"}));
    let unknown = pod("web", &json!({"runtimeClassName": "x"}));
    assert_eq!(
        setup.refused::<Pod>(unknown).await,
        "pods \"web\" is forbidden: pod rejected: RuntimeClass \"x\" not found"
    );
}

#[tokio::test]
async fn pod_security_is_what_the_namespace_says() {
    let setup = setup();
    let label = |level: &str| {
        setup.seed::<Namespace>(json!({"apiVersion": "v1", "kind": "Namespace", "metadata":
            {"name": "a", "labels": {"pod-security.kubernetes.io/enforce": level}}}));
    };
    label("restricted");
    assert_eq!(
        setup.refused::<Pod>(pod("web", &json!({}))).await,
        "pods \"web\" is forbidden: violates PodSecurity \"restricted:latest\": \
         allowPrivilegeEscalation != false (container \"c\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
    let careful = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    });
    assert!(setup.create::<Pod>(pod("web", &careful)).await.is_ok());
    label("baseline");
    assert!(setup.create::<Pod>(pod("web", &json!({}))).await.is_ok());
    let host = json!({
        "hostNetwork": true,
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
        "containers": [{"name": "c", "securityContext": {"privileged": true}}],
    });
    assert_eq!(
        setup.refused::<Pod>(pod("web", &host)).await,
        "pods \"web\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces \
         (hostNetwork=true), hostPath volumes (volume \"root\"), privileged (container \"c\" must \
         not set securityContext.privileged=true)"
    );
    label("privileged");
    assert!(setup.create::<Pod>(pod("web", &host)).await.is_ok());
}

#[tokio::test]
async fn nodes_write_only_their_own() {
    let setup = setup();
    let as_node = |mut request: AdmissionRequest| {
        request.user = Arc::new(UserInfo::authenticated("system:node:n1", &["system:nodes"]));
        request
    };
    let create = |object: Value| as_node(request::<Pod>(Operation::Create, object));
    assert_eq!(setup.admit(create(pod("web", &json!({})))).await.unwrap_err().code(), 403);
    let mut mirror = pod("web", &json!({"nodeName": "n1"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert!(setup.admit(create(mirror)).await.is_ok());
    let status = |node: &str| {
        let old = Object::from_value(&pod("web", &json!({"nodeName": node}))).unwrap();
        let mut update = request::<Pod>(Operation::Update, pod("web", &json!({"nodeName": node})));
        update.target = update.target.subresource("status");
        as_node(AdmissionRequest { old: Some(Arc::new(old)), ..update })
    };
    assert!(setup.admit(status("n1")).await.is_ok());
    assert_eq!(setup.admit(status("n2")).await.unwrap_err().code(), 403);
    let claims = |claims: Value| {
        let mut update = status("n1");
        update.object.as_mut().unwrap()["status"] = claims;
        update
    };
    let refused = async |told: Value, why: &str| {
        let error = setup.admit(claims(told)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    };
    assert!(setup.admit(claims(json!({"phase": "Running"}))).await.is_ok());
    let made = json!({"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "b"}]});
    refused(made, "node \"n1\" cannot update resource claim statues").await;
    let extended = json!({"extendedResourceClaimStatus": {"resourceClaimName": "b"}});
    refused(extended, "node \"n1\" cannot update extended resource claim status").await;
}

#[tokio::test]
async fn a_late_client_leads_somewhere_once_it_is_set() {
    let late = LateClient::new();
    let namespaces: Resources<Namespace> = Resources::all(late.clone());
    let early = tokio::spawn({
        let namespaces = namespaces.clone();
        async move { namespaces.get("a").await.is_ok() }
    });
    tokio::task::yield_now().await;
    assert!(!early.is_finished());
    let client: Arc<dyn Client> = setup().client;
    late.set(&client);
    assert!(early.await.unwrap());
    drop(client);
    assert!(namespaces.get("a").await.unwrap_err().is_retryable(), "it is held weakly");
}

/// Allows one verb on one name.
#[derive(Debug)]
struct Only(&'static str, &'static str);

#[async_trait::async_trait]
impl Authorizer for Only {
    async fn authorize(&self, attributes: &Attributes) -> Result<Decision, ApiError> {
        let asked = (&*attributes.verb, &*attributes.resource, &*attributes.name);
        let allowed = asked == (self.0, "signers", self.1);
        let reason = String::new();
        Ok(if allowed { Decision::Allow { reason } } else { Decision::NoOpinion { reason } })
    }
}

#[tokio::test]
async fn certificates_are_approved_and_signed_by_whom_the_signer_lets() {
    let signing_request = |status: Value| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "r"}, "spec": {"signerName": "example.com/one"}, "status": status})
    };
    let update = |subresource: &'static str, status: Value| {
        let new = signing_request(status);
        let mut update = request::<CertificateSigningRequest>(Operation::Update, new);
        update.target = update.target.subresource(subresource);
        let old = Object::from_value(&signing_request(json!({}))).unwrap();
        AdmissionRequest { old: Some(Arc::new(old)), ..update }
    };
    let approval = || update("approval", json!({"conditions": [{"type": "Approved"}]}));
    let certificate = || update("status", json!({"certificate": "eA=="}));
    let told = |result: Result<(), ApiError>| result.unwrap_err().to_string();
    let by = |verb, name| Arc::new(Only(verb, name));
    let approver = CertificateApproval::new(by("approve", "example.com/*"));
    let signer = CertificateSigning::new(by("sign", "example.com/one"));
    approver.validate(&approval()).await.unwrap();
    signer.validate(&certificate()).await.unwrap();
    // What changes nothing that counts, and other subresources, are nobody's business.
    signer.validate(&update("status", json!({}))).await.unwrap();
    signer.validate(&approval()).await.unwrap();
    let nobody = CertificateApproval::new(by("sign", "example.com/one"));
    let words = "user not permitted to approve requests with signerName \"example.com/one\"";
    let refused = told(nobody.validate(&approval()).await);
    assert!(refused.ends_with(words), "{refused}");
    let nobody = CertificateSigning::new(by("sign", "example.com/two"));
    let words = "user not permitted to sign requests with signerName \"example.com/one\"";
    let refused = told(nobody.validate(&certificate()).await);
    assert!(refused.ends_with(words), "{refused}");
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_of_the_masters() {
    let setup = setup();
    let asked = |organization: &str, signer: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let pem = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "r"}, "spec": {"signerName": signer, "request": pem}})
    };
    let client = "kubernetes.io/kube-apiserver-client";
    let create = async |object| setup.create::<CertificateSigningRequest>(object).await;
    create(asked("developers", client)).await.unwrap();
    create(asked("system:masters", "example.com/one")).await.unwrap();
    let refused = create(asked("system:masters", client)).await.unwrap_err().to_string();
    let words = format!("use of {client} signer with system:masters group is not allowed");
    assert!(refused.ends_with(&words), "{refused}");
}
