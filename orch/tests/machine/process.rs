//! The demo application on the process runtime.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use orch_core::testing::require::{
    Requirement::{self, Kubectl, Root},
    missing,
};
use serde_json::Value;

use crate::{
    cluster::{Cluster, Following, demo_manifest, eventually, free_port, http_get, images, run},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let tools = [Kubectl, Requirement::Command("tar"), Requirement::Command("script")];
    vec![
        trial("process::the_demo_application_answers", &[Kubectl], the_demo_application_answers),
        trial("process::dns_resolves_the_service", &[Kubectl, Root], dns_resolves_the_service),
        trial("process::kubectl_shows_and_explains", &[Kubectl], kubectl_shows_and_explains),
        trial("process::kubectl_changes_objects", &[Kubectl], kubectl_changes_objects),
        trial("process::kubectl_reaches_into_a_pod", &tools, kubectl_reaches_into_a_pod),
        trial("process::a_rolling_update_loses_no_request", &[Kubectl], rolling_update),
        trial("process::rollouts_pause_resume_and_go_back", &[Kubectl], rollouts),
        trial("process::a_killed_process_comes_back", &[Kubectl], killed_process),
        trial("process::a_restart_adopts_what_runs", &[Kubectl], restart_adopts),
        trial("process::a_set_keeps_its_data", &[Kubectl], set_keeps_data),
        trial("process::failing_containers_say_why", &[Kubectl], failing_containers),
        // Without a memory limit nothing would be killed.
        trial("process::too_much_memory_is_oom_killed", &[Kubectl, Root], oom_killed)
            .with_ignored_flag(missing(&[Kubectl, Root]).is_some() || !limits_memory()),
        trial("process::a_node_drains_and_a_namespace_empties", &[Kubectl], drain_and_delete),
        trial("process::a_service_account_may_what_rbac_says", &[Kubectl], service_account),
    ]
}

/// A cluster with one node that runs processes.
fn up() -> Cluster {
    let images = images();
    Cluster::up(&["--runtime", "process", "--images", images.to_str().expect("UTF-8")])
}

/// Such a cluster with the demo application, available.
fn up_with_demo() -> Cluster {
    let cluster = up();
    cluster.kubectl(&["apply", "-f", demo_manifest().to_str().expect("UTF-8")]);
    cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"]);
    cluster
}

fn node_port() -> SocketAddr {
    "127.0.0.1:30080".parse().expect("an address")
}

/// One of the demo application's pods that is not going away.
fn demo_pod(cluster: &Cluster) -> String {
    let pods = cluster.kubectl(&["get", "pods", "-l", "app=demo", "-o", "json"]);
    let pods: Value = serde_json::from_str(&pods).expect("kubectl writes JSON");
    let pod = pods["items"].as_array().expect("a list").iter().find(|pod| {
        let conditions = pod["status"]["conditions"].as_array();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.is_some_and(|conditions| {
                conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
            })
    });
    pod.expect("a pod")["metadata"]["name"].as_str().expect("a name").to_owned()
}

fn field(cluster: &Cluster, object: &str, path: &str) -> String {
    cluster.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
}

/// The process of a pod's only container.
fn pid_of(cluster: &Cluster, pod: &str) -> i32 {
    let id = field(cluster, &format!("pod/{pod}"), ".status.containerStatuses[0].containerID");
    let id = id.strip_prefix("process://").expect("a container of the process runtime");
    let nodes = fs::read_dir(cluster.folder().join("nodes")).expect("the folder of the nodes");
    let state = nodes.flatten().find_map(|node| {
        let folder = node.path().join("containers/containers").join(id);
        fs::read(folder.join("state.json")).ok()
    });
    let state: Value = serde_json::from_slice(&state.expect("a state")).expect("JSON");
    i32::try_from(state["process"]["pid"].as_i64().expect("a pid")).expect("a pid")
}

fn the_demo_application_answers() {
    let mut cluster = up_with_demo();
    assert!(cluster.ready.starts_with("orch: ready after "), "{}", cluster.ready);
    assert!(cluster.ready.contains("kubectl get nodes,pods -A"), "{}", cluster.ready);
    let (status, body) = http_get(node_port(), "localhost", "/").expect("the node port answers");
    assert_eq!((status, body.starts_with("hello from demo-")), (200, true), "{body}");
    let through_ingress = eventually("the ingress answers", || {
        http_get(cluster.ingress, "demo.localhost", "/").ok().filter(|answer| answer.0 == 200)
    });
    assert!(through_ingress.1.starts_with("hello from demo-"), "{}", through_ingress.1);
    assert_eq!(http_get(cluster.ingress, "other.localhost", "/").expect("an answer").0, 404);
    assert_eq!(cluster.stop(Signal::SIGTERM), 0);
}

/// The addresses that the cluster's DNS has for a name; none if it does not know the name.
fn resolve(name: &str) -> Vec<[u8; 4]> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a label"));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send_to(&query, "127.96.0.10:53").expect("DNS is sent to");
    let mut answer = [0; 1500];
    let Ok(length) = socket.recv(&mut answer) else { return Vec::new() };
    let mut rest = &answer[query.len()..length];
    let mut found = Vec::new();
    for _ in 0..answer[7] {
        // A name ends with an empty label, or with a pointer to one that was written before.
        while rest[0] != 0 && rest[0] < 0xc0 {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        rest = &rest[if rest[0] == 0 { 1 } else { 2 }..];
        // Type, class, time to live and length come before the address.
        found.push([rest[10], rest[11], rest[12], rest[13]]);
        rest = &rest[14..];
    }
    found
}

fn dns_resolves_the_service() {
    let cluster = up_with_demo();
    let address = field(&cluster, "service/demo", ".spec.clusterIP");
    let found = eventually("the service's name resolves", || {
        Some(resolve("demo.default.svc.cluster.local")).filter(|found| !found.is_empty())
    });
    let found: Vec<String> = found.iter().map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}")).collect();
    assert_eq!(found, [address]);
    assert!(resolve("nobody.default.svc.cluster.local").is_empty());
    // Inside a pod, the short name does.
    let pod = demo_pod(&cluster);
    let config = cluster.kubectl(&["exec", &pod, "--", "cat", "/etc/resolv.conf"]);
    assert!(config.contains("nameserver 127.96.0.10"), "{config}");
    assert!(config.contains("search default.svc.cluster.local"), "{config}");
}

fn kubectl_shows_and_explains() {
    let cluster = up_with_demo();
    let all = cluster.kubectl(&["get", "nodes,pods", "-A"]);
    assert!(all.contains("Ready") && all.matches("1/1").count() == 3, "{all}");
    let pod = format!("pod/{}", demo_pod(&cluster));
    for (object, expected) in [
        (pod.as_str(), "Started"),
        ("deployment/demo", "ScalingReplicaSet"),
        ("service/demo", "30080/TCP"),
        ("ingress/demo", "demo.localhost"),
        ("pvc/demo-data", "Bound"),
        ("nodes", "KubeletReady"),
    ] {
        let text = eventually("its events are written", || {
            Some(cluster.kubectl(&["describe", object])).filter(|text| text.contains(expected))
        });
        assert!(text.contains("Name:"), "describe {object}: {text}");
    }
    let explained = cluster.kubectl(&["explain", "pod.spec.containers"]);
    assert!(explained.contains("List of containers belonging to the pod"), "{explained}");
    assert!(explained.contains("livenessProbe\t<Probe>"), "{explained}");
    let account = "--as=system:serviceaccount:default:default";
    assert_eq!(cluster.kubectl(&["auth", "can-i", "create", "pods"]).trim(), "yes");
    let said = cluster.kubectl_with(&["auth", "can-i", "list", "secrets", account], "");
    assert_eq!((said.stdout.trim(), said.code), ("no", 1));
    let mut watch =
        Following::start(&mut cluster.kubectl_command(&["get", "pods", "-w", "-o", "name"]));
    (0..3).for_each(|_| assert!(watch.line().starts_with("pod/demo-")));
    cluster.kubectl(&["scale", "deployment/demo", "--replicas=4"]);
    assert!(watch.line().starts_with("pod/demo-"));
}

fn kubectl_changes_objects() {
    let cluster = up();
    cluster.kubectl(&["create", "configmap", "one", "--from-literal=a=1"]);
    cluster.kubectl(&["label", "configmap/one", "tier=x"]);
    cluster.kubectl(&["annotate", "configmap/one", "note=y"]);
    cluster.kubectl(&["patch", "configmap/one", "-p", r#"{"data":{"b":"2"}}"#]);
    let json = r#"[{"op":"replace","path":"/data/a","value":"3"}]"#;
    cluster.kubectl(&["patch", "configmap/one", "--type=json", "-p", json]);
    cluster.kubectl(&["patch", "configmap/one", "--type=merge", "-p", r#"{"data":{"b":null}}"#]);
    assert_eq!(field(&cluster, "configmap/one", ".data"), r#"{"a":"3"}"#);
    assert!(cluster.kubectl(&["get", "cm", "-l", "tier=x"]).contains("one"));
    let edited =
        run(cluster.kubectl_command(&["edit", "cm/one"]).env("EDITOR", "sed -i /a:/s/3/4/"), "");
    assert!(edited.ok().contains("edited"));
    assert_eq!(field(&cluster, "configmap/one", ".data.a"), "4");
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {a: b}\n";
    let apply = |more: &[&str]| {
        cluster.kubectl_with(&[&["apply", "-f", "-"], more].concat(), manifest).ok()
    };
    assert!(apply(&["--dry-run=server"]).contains("created (server dry run)"));
    assert!(apply(&[]).contains("created"));
    assert!(apply(&[]).contains("unchanged"));
    assert!(apply(&["--server-side"]).contains("serverside-applied"));
    // What the server added to a claim is not taken away by who starts to apply on the server.
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: claim}\nspec:\n  \
                 accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Mi}}\n";
    for more in [&[][..], &["--server-side"], &["--server-side"]] {
        cluster.kubectl_with(&[&["apply", "-f", "-"], more].concat(), claim).ok();
    }
    assert_eq!(cluster.kubectl(&["delete", "cm/two"]), "configmap \"two\" deleted\n");
    assert!(cluster.kubectl_fails(&["get", "cm/two"]).contains("(NotFound)"));
}

fn kubectl_reaches_into_a_pod() {
    let cluster = up_with_demo();
    let pod = demo_pod(&cluster);
    assert!(cluster.kubectl(&["logs", &pod]).contains("listens on"));
    let mut log = Following::start(&mut cluster.kubectl_command(&["logs", "-f", "--tail=0", &pod]));
    // The readiness probe asks every second.
    assert_eq!(log.line(), "/readyz 200 OK");
    let script = "echo out; echo err >&2; exit 3";
    let said = cluster.kubectl_with(&["exec", &pod, "--", "sh", "-c", script], "");
    assert_eq!((said.code, said.stdout.as_str()), (3, "out\n"));
    assert!(said.stderr.contains("err"), "{}", said.stderr);
    let said = cluster.kubectl_with(&["exec", "-i", &pod, "--", "cat"], "through\nstdin\n");
    assert_eq!(said.ok(), "through\nstdin\n");
    let mut terminal = Command::new("script");
    let line = format!("kubectl exec -it {pod} -- tty");
    terminal.env("KUBECONFIG", cluster.kubeconfig()).args(["-qec", &line, "/dev/null"]);
    let said = run(&mut terminal, "").ok();
    assert!(said.contains("/dev/pts/"), "{said}");

    let file = cluster.folder().join("file");
    fs::write(&file, "to be copied\n").expect("a file");
    let there = format!("{pod}:/data/copied");
    cluster.kubectl(&["cp", file.to_str().expect("UTF-8"), &there]);
    let back = cluster.folder().join("back");
    cluster.kubectl(&["cp", &there, back.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(back).expect("the copy"), "to be copied\n");

    let local = free_port();
    let ports = format!("{local}:80");
    let arguments = ["port-forward", "service/demo", &ports, "--address=127.0.0.1"];
    let mut forward = Following::start(&mut cluster.kubectl_command(&arguments));
    assert!(forward.line().starts_with("Forwarding from"));
    for _ in 0..2 {
        let answer = http_get(SocketAddr::from(([127, 0, 0, 1], local)), "localhost", "/");
        assert_eq!(answer.expect("it answers").0, 200);
    }
    let arguments = ["run", "-i", "--rm", "--restart=Never", "--image=orch.dev/sh", "--quiet"];
    let arguments =
        [&arguments[..], &["once", "--command", "--", "sh", "-c", "read x; echo got $x"]].concat();
    // A pod that reads to its end before it is attached to shows what it wrote from its log.
    assert!(cluster.kubectl_with(&arguments, "it\n").ok().contains("got it"));
}

fn rolling_update() {
    let cluster = up_with_demo();
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let done = done.clone();
            thread::spawn(move || {
                let mut answers = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    answers.push(http_get(node_port(), "localhost", "/"));
                    // As many as the machine can do would keep it from updating.
                    thread::park_timeout(Duration::from_millis(5));
                }
                answers
            })
        })
        .collect();
    cluster.kubectl(&["set", "env", "deployment/demo", "VERSION=v2"]);
    cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"]);
    eventually("the old pods are gone", || {
        (cluster.kubectl(&["get", "pods", "-o", "name"]).lines().count() == 3).then_some(())
    });
    done.store(true, Ordering::SeqCst);
    let answers: Vec<_> =
        callers.into_iter().flat_map(|caller| caller.join().expect("it ran")).collect();
    let lost: Vec<_> = answers
        .iter()
        .filter(|answer| !matches!(answer, Ok((200, body)) if body.starts_with("hello from")))
        .collect();
    assert!(lost.is_empty(), "of {} requests {} were lost: {lost:?}", answers.len(), lost.len());
    let saw = |version: &str| {
        answers.iter().flatten().any(|(_, body)| body.trim_end().ends_with(version))
    };
    assert!(saw("v1") && saw("v2"), "{} answers", answers.len());
}

fn rollouts() {
    let cluster = up();
    let manifest = fs::read_to_string(demo_manifest()).expect("the manifests");
    // What slows a rollout down is another test's matter.
    let manifest = manifest.replace("sleep: {seconds: 2}", "sleep: {seconds: 0}");
    cluster.apply(&manifest);
    let wait = || cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"]);
    let version = || {
        let path = ".spec.template.spec.containers[0].env[?(@.name==\"VERSION\")].value";
        field(&cluster, "deployment/demo", path)
    };
    wait();
    cluster.kubectl(&["set", "env", "deployment/demo", "VERSION=v2"]);
    wait();
    let history = cluster.kubectl(&["rollout", "history", "deployment/demo"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    cluster.kubectl(&["rollout", "undo", "deployment/demo"]);
    assert_eq!(version(), "v1");
    wait();
    cluster.kubectl(&["rollout", "pause", "deployment/demo"]);
    cluster.kubectl(&["set", "env", "deployment/demo", "VERSION=v3"]);
    let status = ["rollout", "status", "deployment/demo", "--timeout=1s"];
    assert!(cluster.kubectl_fails(&status).contains("timed out"));
    cluster.kubectl(&["rollout", "resume", "deployment/demo"]);
    assert!(wait().contains("successfully rolled out"));
    cluster.kubectl(&["rollout", "restart", "deployment/demo"]);
    wait();
    cluster.kubectl(&["scale", "deployment/demo", "--replicas=1"]);
    let scaled = "--for=jsonpath={.status.replicas}=1";
    cluster.kubectl(&["wait", scaled, "deployment/demo", "--timeout=60s"]);
    cluster.kubectl(&["delete", "deployment/demo"]);
    cluster.kubectl(&["wait", "--for=delete", "pod", "-l", "app=demo", "--timeout=60s"]);
}

fn killed_process() {
    let cluster = up_with_demo();
    let pod = demo_pod(&cluster);
    let object = format!("pod/{pod}");
    let before = pid_of(&cluster, &pod);
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("the container's process");
    let restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    cluster.kubectl(&["wait", restarted, &object, "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", &object, "--timeout=60s"]);
    assert_ne!(pid_of(&cluster, &pod), before);
    let last = ".status.containerStatuses[0].lastState.terminated.exitCode";
    assert_eq!(field(&cluster, &object, last), "137");
    assert!(cluster.kubectl(&["logs", "--previous", &pod]).contains("listens on"));
}

fn restart_adopts() {
    let mut cluster = up_with_demo();
    let visit = || {
        let (status, body) = http_get(node_port(), "localhost", "/visits").expect("it answers");
        assert_eq!(status, 200, "{body}");
        body.trim().parse::<u64>().expect("a number")
    };
    assert_eq!(visit(), 1);
    // The claim's data survive the pods.
    cluster.kubectl(&["delete", "pods", "-l", "app=demo"]);
    cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"]);
    eventually("the node port answers", || http_get(node_port(), "localhost", "/").ok());
    let mut visits = visit();
    assert!(visits >= 2, "the data are lost");
    let pod = demo_pod(&cluster);
    let (object, before) = (format!("pod/{pod}"), pid_of(&cluster, &pod));
    let started = field(&cluster, &object, ".status.containerStatuses[0].state.running");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let code = cluster.stop(signal);
        assert_eq!(code, if signal == Signal::SIGTERM { 0 } else { 137 });
        cluster = cluster.again();
        cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"]);
        eventually("the node port answers", || http_get(node_port(), "localhost", "/").ok());
        let more = visit();
        assert!(more > visits, "the data are lost");
        visits = more;
        let restarts = ".status.containerStatuses[0].restartCount";
        assert_eq!(field(&cluster, &object, restarts), "0", "after {signal}");
        let running = field(&cluster, &object, ".status.containerStatuses[0].state.running");
        assert_eq!((pid_of(&cluster, &pod), running), (before, started.clone()), "after {signal}");
        assert!(cluster.kubectl(&["exec", &pod, "--", "echo", "here"]).contains("here"));
        assert!(cluster.kubectl(&["logs", "--tail=1", &pod]).contains("200 OK"));
    }
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("the adopted container's process");
    let restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    cluster.kubectl(&["wait", restarted, &object, "--timeout=60s"]);
}

/// A pod with one container of the demo application.
fn pod(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{name: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, {container}}}\n"
    )
}

fn waiting_reason(cluster: &Cluster, pod: &str, reason: &str) {
    let condition =
        format!("--for=jsonpath={{.status.containerStatuses[0].state.waiting.reason}}={reason}");
    cluster.kubectl(&["wait", &condition, &format!("pod/{pod}"), "--timeout=60s"]);
}

fn failing_containers() {
    let cluster = up();
    cluster.apply(&pod("crash", r#"image: orch.dev/sh, command: [sh, -c, "echo no; exit 7"]"#));
    cluster.apply(&pod("absent", "image: orch.dev/no-such-program"));
    waiting_reason(&cluster, "absent", "ErrImagePull");
    waiting_reason(&cluster, "absent", "ImagePullBackOff");
    waiting_reason(&cluster, "crash", "CrashLoopBackOff");
    let code = ".status.containerStatuses[0].lastState.terminated.exitCode";
    assert_eq!(field(&cluster, "pod/crash", code), "7");
    let pods = cluster.kubectl(&["get", "pods"]);
    assert!(pods.contains("CrashLoopBackOff") && pods.contains("ImagePullBackOff"), "{pods}");
}

/// Whether control groups for memory can be made here.
fn limits_memory() -> bool {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let folder = if controllers.is_ok_and(|list| list.contains("memory")) {
        "/sys/fs/cgroup/orch"
    } else {
        "/sys/fs/cgroup/memory/orch"
    };
    let folder = Path::new(folder).join("probe");
    fs::create_dir_all(&folder).and_then(|()| fs::remove_dir(&folder)).is_ok()
}

fn oom_killed() {
    let cluster = up();
    cluster.apply(&pod(
        "hungry",
        r#"image: orch.dev/demo-app, resources: {limits: {memory: 32Mi}},
     env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]"#,
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/hungry", "--timeout=60s"]);
    let address = field(&cluster, "pod/hungry", ".status.podIP");
    let to = format!("{address}:8080").parse().expect("an address");
    assert!(http_get(to, "localhost", "/allocate?mib=256").is_err(), "it is killed");
    let reason = ".status.containerStatuses[0].lastState.terminated.reason";
    let killed = format!("--for=jsonpath={{{reason}}}=OOMKilled");
    cluster.kubectl(&["wait", &killed, "pod/hungry", "--timeout=60s"]);
}

fn drain_and_delete() {
    let cluster = up();
    cluster.kubectl(&["create", "namespace", "team"]);
    let create =
        ["create", "deployment", "web", "--image=orch.dev/sleep", "--replicas=2", "-n", "team"];
    cluster.kubectl(&[&create[..], &["--", "sleep", "1000"]].concat());
    let available = ["wait", "--for=condition=Available", "deployment/web", "-n", "team"];
    cluster.kubectl(&[&available[..], &["--timeout=60s"]].concat());
    let node = cluster.kubectl(&["get", "nodes", "-o", "name"]).trim().to_owned();
    let node = node.trim_start_matches("node/");
    cluster.kubectl(&["drain", node, "--timeout=60s"]);
    let nodes = cluster.kubectl(&["get", "nodes"]);
    assert!(nodes.contains("Ready,SchedulingDisabled"), "{nodes}");
    let pending = cluster.kubectl(&["get", "pods", "-n", "team"]);
    assert_eq!(pending.matches("Pending").count(), 2, "{pending}");
    cluster.kubectl(&["uncordon", node]);
    cluster.kubectl(&[&available[..], &["--timeout=60s"]].concat());
    cluster.kubectl(&["delete", "namespace", "team", "--timeout=60s"]);
    assert!(cluster.kubectl_fails(&["get", "namespace", "team"]).contains("(NotFound)"));
    let left =
        cluster.kubectl(&["get", "all,configmaps,serviceaccounts", "-n", "team", "-o", "name"]);
    assert_eq!(left, "");
}

fn service_account() {
    let cluster = up_with_demo();
    let pod = demo_pod(&cluster);
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let inside = |what: &str| cluster.kubectl(&["exec", &pod, "--", "sh", "-c", what]);
    assert_eq!(inside(&format!("cat {folder}/namespace")), "default");
    assert!(inside(&format!("cat {folder}/ca.crt")).contains("BEGIN CERTIFICATE"));
    assert!(inside("echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT").ends_with(":443\n"));
    let token = inside(&format!("cat {folder}/token"));
    let server =
        cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    // With the token alone: the administrator's certificate would win.
    let authority = cluster.folder().join("pki/ca.crt");
    let with_token = |arguments: &[&str]| {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", "/dev/null").args(["--server", &server, "--token", &token]);
        run(command.arg("--certificate-authority").arg(&authority).args(arguments), "")
    };
    assert!(with_token(&["get", "--raw", "/version"]).ok().contains("v1.36"));
    let refused = with_token(&["get", "pods", "-n", "default"]).failed();
    let who = r#"User "system:serviceaccount:default:default" cannot list resource "pods""#;
    assert!(refused.contains("(Forbidden)") && refused.contains(who), "{refused}");
    cluster.kubectl(&["create", "role", "reader", "--verb=list,get", "--resource=pods"]);
    let subject = "--serviceaccount=default:default";
    cluster.kubectl(&["create", "rolebinding", "reader", "--role=reader", subject]);
    let listed = eventually("the role is granted", || {
        Some(with_token(&["get", "pods", "-n", "default"])).filter(|said| said.code == 0)
    });
    assert!(listed.stdout.contains("demo-"), "{}", listed.stdout);
    assert!(with_token(&["delete", "pod", &pod, "-n", "default"]).failed().contains("(Forbidden)"));
    assert_eq!(cluster.kubectl(&["create", "token", "default"]).trim().split('.').count(), 3);
}

/// A StatefulSet of one pod that writes its version into its volume whenever it starts.
fn diary(version: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: diary}}
spec:
  serviceName: diary
  selector: {{matchLabels: {{app: diary}}}}
  template:
    metadata: {{labels: {{app: diary}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: orch.dev/sh
        command: [sh, -c, 'echo {version} >> "${{ORCH_VOLUME_DATA:-/tmp/orch-diary}}/log"; exec sleep 1000']
        volumeMounts: [{{name: data, mountPath: /tmp/orch-diary}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
"#
    )
}

fn set_keeps_data() {
    let cluster = up();
    let settle = |cluster: &Cluster| {
        cluster.kubectl(&["rollout", "status", "statefulset/diary", "--timeout=60s"]);
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/diary-0", "--timeout=60s"]);
    };
    let volume = |cluster: &Cluster| field(cluster, "pvc/data-diary-0", ".spec.volumeName");
    cluster.apply(&diary("one"));
    settle(&cluster);
    let name = volume(&cluster);
    let path = field(&cluster, &format!("pv/{name}"), ".spec.hostPath.path");
    let log = |expected: &[&str]| {
        let path = Path::new(&path).join("log");
        eventually("the diary is written", || {
            let text = fs::read_to_string(&path).ok()?;
            (text.lines().collect::<Vec<_>>() == expected).then_some(())
        });
    };
    log(&["one"]);
    // Another pod of the same name on the same node, another process, another version.
    cluster.kubectl(&["delete", "pod", "diary-0"]);
    settle(&cluster);
    log(&["one", "one"]);
    kill(Pid::from_raw(pid_of(&cluster, "diary-0")), Signal::SIGKILL).expect("its process");
    log(&["one", "one", "one"]);
    cluster.apply(&diary("two"));
    settle(&cluster);
    log(&["one", "one", "one", "two"]);
    // The whole cluster, with the pod gone for the time between.
    cluster.kubectl(&["scale", "statefulset/diary", "--replicas=0"]);
    cluster.kubectl(&["wait", "--for=delete", "pod/diary-0", "--timeout=60s"]);
    let cluster = cluster.again();
    cluster.kubectl(&["scale", "statefulset/diary", "--replicas=1"]);
    settle(&cluster);
    log(&["one", "one", "one", "two", "two"]);
    assert_eq!(volume(&cluster), name);

    // The volume may grow; it goes with its claim, and only with that.
    let more = r#"{"spec":{"resources":{"requests":{"storage":"5Mi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "data-diary-0", "-p", more]);
    let grown = "--for=jsonpath={.status.capacity.storage}=5Mi";
    cluster.kubectl(&["wait", grown, "pvc/data-diary-0", "--timeout=60s"]);
    cluster.kubectl(&["delete", "statefulset", "diary", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=delete", "pod/diary-0", "--timeout=60s"]);
    assert!(Path::new(&path).exists());
    cluster.kubectl(&["delete", "pvc", "data-diary-0", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=delete", &format!("pv/{name}"), "--timeout=60s"]);
    assert!(!Path::new(&path).exists());
}
