//! `kubectl`'s commands that need no container that really runs, on simulated nodes.

use std::fs;

use libtest_mimic::Trial;
use orch_core::testing::require::Requirement::Kubectl;

use crate::{
    cluster::{Cluster, eventually, run},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("kubectl::applies_prunes_and_compares", &[Kubectl], applies_prunes_and_compares),
        trial("kubectl::creates_every_kind_it_knows", &[Kubectl], creates_every_kind_it_knows),
        trial("kubectl::sets_and_rolls_out", &[Kubectl], sets_and_rolls_out),
        trial("kubectl::prints_in_every_form", &[Kubectl], prints_in_every_form),
        trial("kubectl::asks_about_access", &[Kubectl], asks_about_access),
        trial("kubectl::cares_for_nodes", &[Kubectl], cares_for_nodes),
        trial("kubectl::leaves_its_trace_in_the_audit", &[Kubectl], leaves_its_trace),
        trial("kubectl::explains_custom_resources", &[Kubectl], explains_custom_resources),
    ]
}

fn up() -> Cluster {
    Cluster::up(&["--runtime", "simulated", "--store", "memory", "--nodes", "2"])
}

const WEB: &[&str] = &["create", "deployment", "web", "--image=example.com/web:v1"];

/// Waits until a deployment is as it was asked for.
fn rolled_out(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["rollout", "status", name, "--timeout=60s"]);
}

fn applies_prunes_and_compares() {
    let cluster = up();
    let map = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: a}}}}\n\
             data: {{k: \"{value}\"}}\n---\n"
        )
    };
    let both = map("one", "1") + &map("two", "2");
    cluster.apply(&both);
    let prune =
        ["apply", "-f", "-", "--prune", "-l", "set=a", "--prune-allowlist=core/v1/ConfigMap"];
    let said = cluster.kubectl_with(&prune, &map("one", "1")).ok();
    assert!(
        said.contains("configmap/one unchanged") && said.contains("configmap/two pruned"),
        "{said}"
    );
    let said = cluster.kubectl_with(&["diff", "-f", "-"], &map("one", "7"));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("-  k: \"1\"") && said.stdout.contains("+  k: \"7\""), "{said:?}");
    assert_eq!(cluster.kubectl_with(&["diff", "-f", "-"], &map("one", "1")).code, 0);
    let said = cluster.kubectl_with(&["replace", "--force", "-f", "-"], &map("one", "old")).ok();
    assert!(said.contains("deleted") && said.contains("configmap/one replaced"), "{said}");
    let last = cluster.kubectl_with(&["apply", "view-last-applied", "-f", "-"], &map("one", "old"));
    assert_eq!(last.code, 1, "a replaced object was never applied: {last:?}");
    let set = ["apply", "set-last-applied", "--create-annotation", "-f", "-"];
    cluster.kubectl_with(&set, &map("one", "old")).ok();
    let edited = run(
        cluster.kubectl_command(&["edit", "cm/one"]).env("KUBE_EDITOR", "sed -i s/old/new/"),
        "",
    );
    assert!(edited.ok().contains("configmap/one edited"));
    let conflict = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {k: x}\n";
    let apply = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let said = cluster.kubectl_with(&apply, conflict).failed();
    assert!(said.contains("conflict with \"kubectl-edit\""), "{said}");
    let forced = [&apply[..], &["--force-conflicts"]].concat();
    cluster.kubectl_with(&forced, conflict).ok();

    let folder = cluster.folder().join("kustomize");
    fs::create_dir(&folder).expect("a folder");
    let kustomization = "namePrefix: my-\nconfigMapGenerator: [{name: gen, literals: [a=b]}]\n";
    fs::write(folder.join("kustomization.yaml"), kustomization).expect("a file");
    let folder = folder.to_str().expect("UTF-8");
    assert!(cluster.kubectl(&["kustomize", folder]).contains("name: my-gen-"));
    assert!(cluster.kubectl(&["apply", "-k", folder]).contains("configmap/my-gen-"));
    assert!(cluster.kubectl(&["delete", "-k", folder]).contains("deleted"));
}

fn creates_every_kind_it_knows() {
    let cluster = up();
    for arguments in [
        "create namespace team",
        "create configmap m --from-literal=a=b",
        "create secret generic s --from-literal=a=b",
        "create secret docker-registry r --docker-username=u --docker-password=p",
        "create serviceaccount bot",
        "create role reader --verb=get,list --resource=pods,deployments.apps",
        "create rolebinding readers --role=reader --serviceaccount=default:bot",
        "create clusterrole all --verb=* --resource=*.*",
        "create clusterrole paths --verb=get --non-resource-url=/metrics",
        "create clusterrole sum --aggregation-rule=a=b",
        "create clusterrolebinding alls --clusterrole=all --user=ann",
        "create quota q --hard=pods=9",
        "create priorityclass high --value=10 --description=x",
        "create poddisruptionbudget pdb --selector=app=web --min-available=1",
        "create service clusterip c --tcp=80:80",
        "create service nodeport n --tcp=80:80",
        "create service externalname e --external-name=example.com",
        "create ingress i --rule=example.com/*=c:80",
        "create job j --image=example.com/j:v1",
        "create cronjob cj --image=example.com/j:v1 --schedule=*/5_*_*_*_*",
        "create job from --from=cronjob/cj",
        "create deployment web --image=example.com/web:v1 --replicas=2 --port=80",
    ] {
        let words: Vec<String> = arguments.split(' ').map(|word| word.replace('_', " ")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = cluster.kubectl(&words);
        assert!(said.contains("created"), "{arguments}: {said}");
        let said = cluster.kubectl_fails(&words);
        assert!(
            said.contains("(AlreadyExists)") || said.contains("already"),
            "{arguments}: {said}"
        );
    }
    assert!(cluster.kubectl(&["create", "token", "bot"]).matches('.').count() == 2);
    let said = cluster.kubectl(&["expose", "deployment/web", "--port=80", "--target-port=8080"]);
    assert_eq!(said, "service/web exposed\n");
    let said =
        cluster.kubectl(&["autoscale", "deployment/web", "--min=1", "--max=5", "--cpu-percent=80"]);
    assert!(said.contains("autoscaled"), "{said}");
    cluster.kubectl(&["run", "alone", "--image=example.com/a:v1", "--labels=x=y"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/alone", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/alone"]);
    let waited = ["wait", "--for=delete", "pod/alone", "--timeout=60s"];
    cluster.kubectl(&["delete", "pod/alone", "--wait=false"]);
    cluster.kubectl(&waited);
    cluster.kubectl(&["delete", "all", "--all", "--timeout=60s"]);
    let events = cluster.kubectl(&["events", "--for", "deployment/web"]);
    assert!(events.contains("ScalingReplicaSet"), "{events}");
    let events = cluster.kubectl(&["get", "events", "--field-selector=reason=ScalingReplicaSet"]);
    assert!(events.contains("Scaled up replica set"), "{events}");
}

fn sets_and_rolls_out() {
    let cluster = up();
    cluster.kubectl(WEB);
    rolled_out(&cluster, "deployment/web");
    for arguments in [
        "set image deployment/web web=example.com/web:v2",
        "set env deployment/web A=1",
        "set resources deployment/web --limits=memory=64Mi --requests=cpu=10m",
        "set serviceaccount deployment/web default",
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let said = cluster.kubectl(&words);
        assert!(said.contains("updated"), "{arguments}: {said}");
    }
    rolled_out(&cluster, "deployment/web");
    cluster.kubectl(&["annotate", "deployment/web", "kubernetes.io/change-cause=first"]);
    cluster.kubectl(&["rollout", "pause", "deployment/web"]);
    cluster.kubectl(&["rollout", "resume", "deployment/web"]);
    cluster.kubectl(&["rollout", "restart", "deployment/web"]);
    rolled_out(&cluster, "deployment/web");
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("first"), "{history}");
    cluster.kubectl(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(cluster.kubectl(&["get", "deployment/web", "-o", image]), "example.com/web:v1");
    let said =
        cluster.kubectl_fails(&["scale", "deployment/web", "--replicas=3", "--current-replicas=9"]);
    assert!(said.contains("Expected replicas to be 9, was 1"), "{said}");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
    rolled_out(&cluster, "deployment/web");
    let scale = ["patch", "deployment/web", "--subresource=scale", "--type=merge", "-p"];
    cluster.kubectl(&[&scale[..], &[r#"{"spec":{"replicas":1}}"#]].concat());
    let status = ["get", "deployment/web", "--subresource=status", "-o", "name"];
    assert_eq!(cluster.kubectl(&status), "deployment.apps/web\n");
    cluster.kubectl(&["create", "service", "clusterip", "sel", "--tcp=80:80"]);
    cluster.kubectl(&["set", "selector", "service/sel", "app=web"]);
    let subject = ["create", "rolebinding", "b", "--clusterrole=view", "--user=ann"];
    cluster.kubectl(&subject);
    cluster.kubectl(&["set", "subject", "rolebinding/b", "--user=bob"]);
    let users = cluster.kubectl(&["get", "rolebinding/b", "-o", "jsonpath={.subjects[*].name}"]);
    assert_eq!(users, "ann bob");
}

fn prints_in_every_form() {
    let cluster = up();
    cluster.kubectl(&[WEB, &["--replicas=2"]].concat());
    rolled_out(&cluster, "deployment/web");
    let get = |arguments: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        cluster.kubectl(&[&["get"], &words[..]].concat())
    };
    assert!(get("deploy web -o yaml").contains("kind: Deployment"));
    assert!(get("deploy web -o yaml --show-managed-fields").contains("manager: kubectl-create"));
    assert!(get("deploy web -o json").contains("\"apiVersion\": \"apps/v1\""));
    assert_eq!(get("deploy web -o name"), "deployment.apps/web\n");
    assert_eq!(get("deploy web -o jsonpath={.spec.replicas}"), "2");
    assert_eq!(get("deploy web -o go-template={{.spec.replicas}}"), "2");
    let columns = get("pods -o custom-columns=N:.metadata.name,P:.status.phase --no-headers");
    assert_eq!(columns.matches("Running").count(), 2, "{columns}");
    assert!(get("deploy -o wide").contains("example.com/web:v1"));
    assert!(get("pods --show-labels").contains("app=web"));
    assert!(get("pods -L app").contains("APP"));
    assert_eq!(
        get("ns --sort-by=.metadata.name -o name").lines().next(),
        Some("namespace/default")
    );
    assert!(get("deploy,rs,pods --show-kind").contains("replicaset.apps/web-"));
    assert_eq!(get("pods --field-selector=status.phase=Failed -o name"), "");
    assert!(get("pods --chunk-size=1 -A -o name").contains("pod/web-"));
    assert!(get("--raw /readyz?verbose").contains("[+]etcd ok\n"));
    let metrics = get("--raw /metrics");
    for family in [
        "apiserver_request_total counter",
        "workqueue_depth gauge",
        "ephemeral_volume_controller_create_total counter",
    ] {
        assert!(metrics.contains(&format!("# TYPE {family}\n")), "{family}");
    }
    assert!(metrics.contains("workqueue_adds_total{name=\"deployment-controller\"}"));
    assert!(get("--raw /apis/apps/v1").contains("\"name\":\"deployments/scale\""));
    assert!(cluster.kubectl(&["api-versions"]).contains("\nflowcontrol.apiserver.k8s.io/v1\n"));
    let resources =
        cluster.kubectl(&["api-resources", "--verbs=list", "--namespaced", "-o", "name"]);
    assert!(
        resources.contains("deployments.apps\n") && !resources.contains("nodes"),
        "{resources}"
    );
    let wide = cluster.kubectl(&["api-resources", "--api-group=apps", "-o", "wide"]);
    assert!(wide.contains("StatefulSet") && wide.contains("sts"), "{wide}");
    assert!(cluster.kubectl(&["version"]).contains("Server Version: v1.36"));
    let info = cluster.kubectl(&["cluster-info"]);
    assert!(info.contains("control plane"), "{info}");
    let dump = cluster.kubectl(&["cluster-info", "dump", "--namespaces=default"]);
    assert!(dump.contains("\"kind\": \"PodList\"") && dump.contains("==== START logs"), "{dump}");
    let explained = cluster.kubectl(&["explain", "deployment.spec.strategy", "--recursive"]);
    assert!(explained.contains("maxSurge\t<IntOrString>"), "{explained}");
    let explained = cluster.kubectl(&["explain", "cronjobs", "--api-version=batch/v1"]);
    assert!(explained.contains("VERSION:    v1"), "{explained}");
    assert!(cluster.kubectl_fails(&["get", "nothing"]).contains("doesn't have a resource type"));
    assert!(cluster.kubectl_fails(&["get", "pod", "x"]).contains("pods \"x\" not found"));
    let config =
        cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.users[0].name}"]);
    assert_eq!(config, "orch-admin");
    cluster.kubectl(&["config", "set-context", "--current", "--namespace=kube-system"]);
    assert!(cluster.kubectl(&["get", "sa"]).contains("default"));
}

fn asks_about_access() {
    let cluster = up();
    let can = |arguments: &[&str]| {
        let said = cluster.kubectl_with(&[&["auth", "can-i"], arguments].concat(), "");
        (said.code, said.stdout.trim().to_owned())
    };
    assert_eq!(can(&["*", "*"]), (0, "yes".into()));
    let whoami = cluster.kubectl(&["auth", "whoami"]);
    assert!(whoami.contains("system:masters"), "{whoami}");
    let list = cluster.kubectl(&["auth", "can-i", "--list"]);
    assert!(list.lines().any(|line| line.starts_with("*.*") && line.ends_with("[*]")), "{list}");
    assert!(
        list.lines().any(|line| line.contains("[*]") && line.trim_start().starts_with("[*]")),
        "{list}"
    );
    cluster.kubectl(&["create", "namespace", "team"]);
    cluster.kubectl(&[
        "create",
        "role",
        "r",
        "-n",
        "team",
        "--verb=get",
        "--resource=namespaces,pods",
    ]);
    cluster.kubectl(&["create", "rolebinding", "r", "-n", "team", "--role=r", "--user=ann"]);
    eventually("the binding counts", || {
        (can(&["get", "pods", "-n", "team", "--as=ann"]).0 == 0).then_some(())
    });
    assert_eq!(can(&["get", "pods", "--as=ann"]), (1, "no".into()));
    // A namespace itself is in itself.
    cluster.kubectl(&["get", "namespace", "team", "--as=ann"]);
    let said = cluster.kubectl_fails(&["get", "namespace", "default", "--as=ann"]);
    assert!(
        said.contains("User \"ann\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"default\""),
        "{said}"
    );
    let list = cluster.kubectl(&["auth", "can-i", "--list", "-n", "team", "--as=ann"]);
    assert!(list.contains("selfsubjectrulesreviews.authorization.k8s.io"), "{list}");
    assert!(list.lines().any(|l| l.starts_with("namespaces ") && l.ends_with("[get]")), "{list}");
    let roles = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: x}\n\
                 rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n";
    let said = cluster.kubectl_with(&["auth", "reconcile", "-f", "-"], roles).ok();
    assert!(said.contains("clusterrole.rbac.authorization.k8s.io/x"), "{said}");
    let request = "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\n\
                   metadata: {name: csr}\nspec: {signerName: example.com/signer, usages: [client auth], \
                   request: REQUEST}\n";
    cluster
        .kubectl_with(&["create", "-f", "-"], &request.replace("REQUEST", &signing_request()))
        .ok();
    assert!(cluster.kubectl(&["certificate", "approve", "csr"]).contains("approved"));
    assert!(cluster.kubectl(&["get", "csr"]).contains("Approved"));
    let said = cluster.kubectl_fails(&["certificate", "deny", "csr"]);
    assert!(said.contains("is already Approved"), "{said}");
}

/// A signing request that openssl made, as the API takes it.
fn signing_request() -> String {
    let openssl =
        "openssl req -new -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=ann | base64 -w0";
    run(std::process::Command::new("sh").args(["-c", openssl]), "").ok()
}

fn cares_for_nodes() {
    let cluster = up();
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"]);
    let node = nodes.lines().next().expect("a node").trim_start_matches("node/");
    assert!(cluster.kubectl(&["taint", "nodes", node, "k=v:NoSchedule"]).contains("tainted"));
    let said = cluster.kubectl_fails(&["taint", "nodes", node, "k=w:NoSchedule"]);
    assert!(said.contains("already has k taint(s) with same effect(s)"), "{said}");
    assert!(cluster.kubectl(&["taint", "nodes", node, "k-"]).contains("untainted"));
    cluster.kubectl(&["label", "node", node, "disk=ssd"]);
    let said = cluster.kubectl_fails(&["label", "node", node, "disk=hdd"]);
    assert!(said.contains("'disk' already has a value (ssd), and --overwrite is false"), "{said}");
    cluster.kubectl(&["label", "node", node, "disk=hdd", "--overwrite"]);
    cluster.kubectl(&["label", "node", node, "disk-"]);
    assert!(cluster.kubectl(&["cordon", node]).contains("cordoned"));
    assert!(cluster.kubectl(&["get", "node", node]).contains("SchedulingDisabled"));
    assert!(cluster.kubectl(&["drain", node, "--ignore-daemonsets"]).contains("drained"));
    assert!(cluster.kubectl(&["uncordon", node]).contains("uncordoned"));
    let described = cluster.kubectl(&["describe", "node", node]);
    assert!(described.contains("Allocated resources:"), "{described}");
}

fn leaves_its_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    let rules = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
                 rules: [{level: Request, resources: [{resources: [configmaps]}]}]\n";
    fs::write(&policy, rules).expect("a file");
    let [policy, log] = [policy, log].map(|path| path.to_str().expect("UTF-8").to_owned());
    let cluster = Cluster::up(&[
        "--runtime",
        "simulated",
        "--store",
        "memory",
        "--audit-policy",
        &policy,
        "--audit-log",
        &log,
    ]);
    cluster.kubectl(&["create", "configmap", "m", "--from-literal=a=b"]);
    let text = fs::read_to_string(&log).expect("the log");
    let line = text.lines().find(|line| line.contains("\"verb\":\"create\"")).expect("an event");
    let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(event["objectRef"]["name"], "m", "{event}");
    assert_eq!(event["requestObject"]["data"]["a"], "b", "{event}");
    assert_eq!(event["sourceIPs"], serde_json::json!(["127.0.0.1"]), "{event}");
    assert!(event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kubectl/")));
}

const GADGETS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget, shortNames: [gd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        description: A gadget.
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, description: How large it is., minimum: 1}
              parts: {type: array, items: {type: object, properties: {name: {type: string}}}}
          status: {type: object, properties: {size: {type: integer}}}
";

fn explains_custom_resources() {
    let cluster = up();
    cluster.apply(GADGETS);
    let gadget = "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: g}\nspec: {size: 3}\n";
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/gadgets.example.com"]);
    cluster.apply(gadget);
    let table = cluster.kubectl(&["get", "gd"]);
    assert_eq!(table, "NAME   SIZE\ng      3\n");
    let explained = cluster.kubectl(&["explain", "gadget.spec", "--recursive"]);
    assert!(explained.contains("KIND:       Gadget"), "{explained}");
    assert!(explained.contains("parts\t<[]Object>\n    name\t<string>"), "{explained}");
    let explained = cluster.kubectl(&["explain", "gadget.spec.size"]);
    assert!(explained.contains("How large it is."), "{explained}");
    assert!(cluster.kubectl(&["scale", "gadget/g", "--replicas=5"]).contains("scaled"));
    assert_eq!(cluster.kubectl(&["get", "gd/g", "-o", "jsonpath={.spec.size}"]), "5");
    let wrong = gadget.replace('3', "0");
    let said = cluster.kubectl_with(&["apply", "-f", "-"], &wrong).failed();
    assert!(said.contains("spec.size in body should be greater than or equal to 1"), "{said}");
    let unknown = gadget.replace("size", "seize");
    let said = cluster.kubectl_with(&["apply", "-f", "-"], &unknown).failed();
    assert!(said.contains("unknown field \"spec.seize\""), "{said}");
    assert!(cluster.kubectl(&["get", "all"]).contains("gadget.example.com/g"));
    cluster.kubectl(&["delete", "gd/g"]);
    cluster.kubectl(&["delete", "crd", "gadgets.example.com", "--timeout=60s"]);
    // kubectl remembers for a while what there was.
    let said = cluster.kubectl_fails(&["get", "gadgets.v1.example.com"]);
    let gone = "could not find the requested resource";
    assert!(said.contains(gone) || said.contains("doesn't have a resource type"), "{said}");
}
