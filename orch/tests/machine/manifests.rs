//! What `kubectl apply` says of manifests, compared with what Kubernetes 1.36 says.
//!
//! The manifests of upstream's examples lie beside the workspace, where they lie at all. Each is
//! applied twice in a namespace of its own: what was accepted once is accepted again.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::Trial;
use orch_core::testing::require::Requirement;

use crate::{
    cluster::{Cluster, eventually},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let kubectl = [Requirement::Kubectl];
    let examples = trial("manifests::examples_are_judged", &kubectl, examples_are_judged);
    let examples = match folder().is_dir() {
        true => examples,
        false => examples.with_kind("no manifests beside the workspace").with_ignored_flag(true),
    };
    vec![
        examples,
        trial("manifests::removed_versions_are_refused", &kubectl, removed_versions_are_refused),
        trial("manifests::wrong_manifests_are_refused", &kubectl, wrong_manifests_are_refused),
    ]
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/upstream/manifests")
}

fn up() -> Cluster {
    Cluster::up(&["--runtime", "simulated", "--store", "memory"])
}

/// Where a manifest is applied.
#[derive(Clone, Copy)]
enum Place {
    /// A new namespace.
    Own,
    /// A namespace that another manifest made, with what was applied there before.
    In(&'static str),
    /// A new namespace of a new cluster: the name is taken in the one before.
    NewCluster,
}

use Place::{In, NewCluster, Own};

/// What is said.
#[derive(Clone, Copy)]
enum Verdict {
    /// What was created.
    Created(&'static str),
    /// What was created, and the warning.
    Warned(&'static str, &'static str),
    /// The refusal; `FILE` stands for the manifest's path.
    Refused(&'static str),
}

use Verdict::{Created, Refused, Warned};

const NO_KIND: &str = "error: error validating \"FILE\": error validating data: \
    [apiVersion not set, kind not set]; if you choose to ignore these errors, \
    turn validation off with --validate=false";

/// Every example with its verdict, in the order in which they are applied.
const EXAMPLES: &[(&str, Place, Verdict)] = &[
    ("admin/daemon.yaml", Own, Created("daemonset.apps/prometheus-node-exporter")),
    // Manifests for a kubelet's folder are ordinary pods to the API server.
    ("admin/high-availability/etcd.yaml", Own, Created("pod/etcd-server")),
    ("admin/high-availability/kube-apiserver.yaml", Own, Created("pod/kube-apiserver")),
    (
        "admin/high-availability/kube-controller-manager.yaml",
        Own,
        Created("pod/kube-controller-manager"),
    ),
    // It mounts a volume of a token that it does not declare.
    (
        "admin/high-availability/kube-scheduler.yaml",
        Own,
        Refused(
            "The Pod \"kube-scheduler\" is invalid: spec.containers[0].volumeMounts[1].name: \
             Not found: \"default-token-s8ejd\"",
        ),
    ),
    ("admin/limitrange/namespace.yaml", Own, Created("namespace/limit-example")),
    ("admin/limitrange/limits.yaml", In("limit-example"), Created("limitrange/mylimits")),
    ("admin/limitrange/valid-pod.yaml", In("limit-example"), Created("pod/valid-pod")),
    (
        "admin/limitrange/invalid-pod.yaml",
        In("limit-example"),
        Refused(
            "Error from server (Forbidden): error when creating \"FILE\": pods \"invalid-pod\" is \
             forbidden: [maximum cpu usage per Pod is 2, but limit is 3, maximum cpu usage per \
             Container is 2, but limit is 3]",
        ),
    ),
    ("admin/namespaces/namespace-dev.json", Own, Created("namespace/development")),
    ("admin/namespaces/namespace-prod.json", Own, Created("namespace/production")),
    ("admin/resourcequota/namespace.yaml", Own, Created("namespace/quota-example")),
    ("admin/resourcequota/quota.yaml", In("quota-example"), Created("resourcequota/quota")),
    // The quota counts compute resources: a pod that names none is refused without defaults.
    (
        "user-guide/pod.yaml",
        In("quota-example"),
        Refused(
            "Error from server (Forbidden): error when creating \"FILE\": pods \"nginx\" is \
             forbidden: failed quota: quota: must specify cpu for: nginx; memory for: nginx",
        ),
    ),
    ("admin/resourcequota/limits.yaml", In("quota-example"), Created("limitrange/limits")),
    ("user-guide/configmap/configmap.yaml", Own, Created("configmap/test-configmap")),
    ("user-guide/deployment.yaml", Own, Created("deployment.apps/nginx-deployment")),
    ("user-guide/job.yaml", Own, Created("job.batch/pi")),
    ("user-guide/multi-pod.yaml", Own, Created("pod/redis-master\npod/valid-pod")),
    (
        "user-guide/persistent-volumes/claims/claim-01.yaml",
        Own,
        Created("persistentvolumeclaim/myclaim-1"),
    ),
    (
        "user-guide/persistent-volumes/claims/claim-02.yaml",
        Own,
        Created("persistentvolumeclaim/myclaim-2"),
    ),
    (
        "user-guide/persistent-volumes/claims/claim-03.json",
        Own,
        Created("persistentvolumeclaim/myclaim-3"),
    ),
    ("user-guide/persistent-volumes/volumes/gce.yaml", Own, Created("persistentvolume/pv0003")),
    (
        "user-guide/persistent-volumes/volumes/local-01.yaml",
        Own,
        Created("persistentvolume/pv0001"),
    ),
    (
        "user-guide/persistent-volumes/volumes/local-02.yaml",
        Own,
        Warned(
            "persistentvolume/pv0002",
            "Warning: spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is \
             deprecated. Instead, the recommended approach is to use dynamic provisioning.",
        ),
    ),
    ("user-guide/pod.yaml", Own, Created("pod/nginx")),
    ("user-guide/replicaset/redis-slave.yaml", Own, Created("replicaset.apps/redis-slave")),
    ("user-guide/replication.yaml", Own, Created("replicationcontroller/nginx")),
    ("user-guide/secrets/secret-env-pod.yaml", Own, Created("pod/secret-env-pod")),
    ("user-guide/secrets/secret.yaml", Own, Created("secret/test-secret")),
    ("user-guide/update-demo/images/kitten/html/data.json", Own, Refused(NO_KIND)),
    ("user-guide/update-demo/images/nautilus/html/data.json", Own, Refused(NO_KIND)),
    ("user-guide/walkthrough/podtemplate.json", Own, Created("podtemplate/nginx")),
    // Another volume of that name was made before; two differ in what cannot be changed.
    (
        "user-guide/persistent-volumes/volumes/nfs.yaml",
        NewCluster,
        Created("persistentvolume/pv0003"),
    ),
];

fn examples_are_judged() {
    let mut cluster = up();
    let mut wrong = String::new();
    for (at, (file, place, verdict)) in EXAMPLES.iter().enumerate() {
        if matches!(place, NewCluster) {
            cluster = up();
        }
        let own = format!("example-{at}");
        let namespace = match place {
            In(namespace) => *namespace,
            Own | NewCluster => {
                cluster.kubectl(&["create", "namespace", &own]);
                &own
            }
        };
        eventually("the namespace has its service account", || {
            let get = ["get", "serviceaccount", "default", "--namespace", namespace];
            (cluster.kubectl_with(&get, "").code == 0).then_some(())
        });
        for found in differences(&cluster, &folder().join(file), namespace, *verdict) {
            wrong.push_str(&format!("{file}: {found}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let judged: BTreeSet<String> = EXAMPLES.iter().map(|(file, ..)| (*file).to_owned()).collect();
    let mut present = BTreeSet::new();
    files(&folder(), "", &mut present);
    assert_eq!(judged, present, "every example has a verdict");
}

/// In what a cluster's judgement differs from the verdict.
fn differences(cluster: &Cluster, file: &Path, namespace: &str, verdict: Verdict) -> Vec<String> {
    let file = file.to_string_lossy();
    let apply = |done: &[&str]| {
        let said = cluster.kubectl_with(&["apply", "--namespace", namespace, "-f", &file], "");
        let mut stdout = said.stdout.trim_end().to_owned();
        for word in done {
            stdout = stdout.replace(word, "");
        }
        (said.code, stdout, said.stderr.trim_end().replace(&*file, "FILE"))
    };
    let first = apply(&[" created"]);
    let expected = match verdict {
        Created(what) => (0, what, ""),
        Warned(what, warning) => (0, what, warning),
        Refused(why) => (1, "", why),
    };
    let mut found = Vec::new();
    if (first.0, &*first.1, &*first.2) != expected {
        found.push(format!("{first:?} instead of {expected:?}"));
    }
    if let Created(what) | Warned(what, _) = verdict {
        // kubectl calls a pod configured whose volumes the server added one to: it compares the
        // length of lists.
        let again = apply(&[" unchanged", " configured"]);
        if (again.0, &*again.1) != (0, what) {
            found.push(format!("{again:?} when it is applied again"));
        }
    }
    found
}

fn files(folder: &Path, below: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("it can be read").flatten() {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name);
        }
    }
}

fn removed_versions_are_refused() {
    let cluster = up();
    for (version, kind) in [
        ("apps/v1beta1", "Deployment"),
        ("apps/v1beta2", "DaemonSet"),
        ("autoscaling/v2beta2", "HorizontalPodAutoscaler"),
        ("batch/v1beta1", "CronJob"),
        ("discovery.k8s.io/v1beta1", "EndpointSlice"),
        ("extensions/v1beta1", "Deployment"),
        ("extensions/v1beta1", "Ingress"),
        ("flowcontrol.apiserver.k8s.io/v1beta3", "FlowSchema"),
        ("networking.k8s.io/v1beta1", "Ingress"),
        ("policy/v1beta1", "PodDisruptionBudget"),
        ("policy/v1beta1", "PodSecurityPolicy"),
        ("rbac.authorization.k8s.io/v1beta1", "ClusterRole"),
        ("v2", "Pod"),
        ("v1", "Novel"),
    ] {
        let manifest = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: old}}\n");
        let said = cluster.kubectl_with(&["apply", "-f", "-"], &manifest).failed();
        let refusal = format!(
            "error: resource mapping not found for name: \"old\" namespace: \"\" from \"STDIN\": \
             no matches for kind \"{kind}\" in version \"{version}\"\nensure CRDs are installed first\n"
        );
        assert_eq!(said, refusal);
    }
}

fn wrong_manifests_are_refused() {
    let cluster = up();
    eventually("the namespace has its service account", || {
        (cluster.kubectl_with(&["get", "serviceaccount", "default"], "").code == 0).then_some(())
    });
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: wrong}\nspec:\n  containers: ";
    let bad = "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" \
               cannot be handled as a Pod: ";
    let invalid = "The Pod \"wrong\" is invalid: ";
    for (containers, refusal) in [
        (
            "[{name: c, image: i, novel: 1}]",
            [bad, "strict decoding error: unknown field \"spec.containers[0].novel\""],
        ),
        (
            "{name: c}",
            [
                bad,
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ],
        ),
        ("[]", [invalid, "spec.containers: Required value"]),
        (
            "[{name: C, image: i}]",
            [
                invalid,
                "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        ("[{name: c}]", [invalid, "spec.containers[0].image: Required value"]),
        (
            "[{name: c, image: i, ports: [{containerPort: 0}]}]",
            [invalid, "spec.containers[0].ports[0].containerPort: Required value"],
        ),
    ] {
        let said = cluster.kubectl_with(&["apply", "-f", "-"], &format!("{head}{containers}"));
        assert_eq!(said.failed().trim_end(), refusal.concat(), "{containers}");
    }
    assert_eq!(cluster.kubectl(&["get", "pods", "--output", "name"]), "", "nothing is stored");
}
