//! The demo application on containerd, and the contract of the CRI runtime.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use orch_core::testing::require::Requirement;
use orch_node::{
    runtime::cri::CriRuntime,
    testing::{RuntimeFixture, runtime_conformance},
};

use crate::{
    cluster::{Cluster, demo_manifest, eventually, http_get, run},
    containerd::{Containerd, DEMO, NODE, PODS, in_own_network},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let requirements = [
        Requirement::Root,
        Requirement::NetworkNamespaces,
        Requirement::Nftables,
        Requirement::CniPlugins,
        Requirement::Kubectl,
        Requirement::Command("containerd"),
        Requirement::Command("ctr"),
        Requirement::Command("runc"),
        Requirement::Command("iptables"),
        Requirement::Command("busybox"),
        Requirement::Command("curl"),
    ];
    let trial = |name: &str, test: fn()| trial(name, &requirements, test);
    vec![
        trial("cri::keeps_the_runtime_contract", || in_own_network(keeps_the_runtime_contract)),
        trial("cri::the_demo_application_answers", || in_own_network(the_demo_application_answers)),
        trial("cri::pods_find_services_and_the_api", || {
            in_own_network(pods_find_services_and_the_api);
        }),
        trial("cri::tells_why_containers_end", || in_own_network(tells_why_containers_end)),
        trial("cri::adopts_what_runs_and_keeps_data", || {
            in_own_network(adopts_what_runs_and_keeps_data);
        }),
    ]
}

fn keeps_the_runtime_contract() {
    let containerd = Containerd::start();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let logs = tempfile::tempdir().expect("a folder");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // The connection is made by tasks, so the runtime is made where they run.
    tokio.expect("a runtime").block_on(async {
        let runtime = CriRuntime::new(&containerd.socket()).expect("a path");
        let fixture = RuntimeFixture {
            runtime: Arc::new(runtime),
            image: DEMO.to_owned(),
            runs: words(&["/bin/demo-app"]),
            exits_3: words(&["/bin/sh", "-c", "exit 3"]),
            log_directory: logs.path().to_owned(),
            address: None,
        };
        runtime_conformance(&fixture).await;
    });
    assert_eq!(containerd.containers(), [""; 0], "the suite leaves nothing behind");
}

/// A cluster on that containerd, with the demo application.
fn demo(containerd: &Containerd) -> Cluster {
    let cluster = Cluster::up(&["--runtime", &format!("cri={}", containerd.socket())]);
    cluster.kubectl(&["apply", "-f", demo_manifest().to_str().expect("UTF-8")]);
    cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=120s"]);
    cluster
}

/// The words of a JSON path of objects in the default namespace.
fn look(cluster: &Cluster, objects: &[&str], path: &str) -> Vec<String> {
    let output = format!("jsonpath={{{path}}}");
    let arguments = [&["get"], objects, &["--output", &output]].concat();
    cluster.kubectl(&arguments).split_whitespace().map(str::to_owned).collect()
}

fn one(cluster: &Cluster, objects: &[&str], path: &str) -> String {
    look(cluster, objects, path).join(" ")
}

fn greeting(to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().expect("an address");
    http_get(to, "demo", "/").map(|(status, body)| format!("{status} {body}"))
}

fn the_demo_application_answers() {
    let containerd = Containerd::start();
    let mut cluster = demo(&containerd);
    let addresses = look(&cluster, &["pods"], ".items[*].status.podIP");
    assert_eq!(addresses.len(), 3);
    assert!(addresses.iter().all(|address| address.starts_with(PODS)), "{addresses:?}");
    assert_eq!(one(&cluster, &["nodes"], ".items[0].status.addresses[0].address"), NODE);

    let node_port = format!("{NODE}:30080");
    let cluster_ip = format!("{}:80", one(&cluster, &["service", "demo"], ".spec.clusterIP"));
    for address in [&node_port, &cluster_ip, &format!("{}:8080", addresses[0])] {
        let answer = eventually("the service answers", || greeting(address).ok());
        assert!(answer.starts_with("200 hello from demo-"), "{address}: {answer}");
    }
    let answer = eventually("the ingress answers", || {
        http_get(cluster.ingress, "demo.localhost", "/").ok().filter(|answer| answer.0 == 200)
    });
    assert!(answer.1.starts_with("hello from demo-"), "{}", answer.1);

    loses_no_request_during_an_update(&cluster, &[node_port, cluster_ip]);

    cluster.kubectl(&["delete", "-f", demo_manifest().to_str().expect("UTF-8")]);
    eventually("nothing is left of the pods", || containerd.containers().is_empty().then_some(()));
    assert_eq!(cluster.stop(Signal::SIGTERM), 0);
    let rules = run(Command::new("nft").args(["list", "tables"]), "").ok();
    assert!(!rules.contains("orch-proxy"), "the proxy cleans up: {rules}");
}

fn loses_no_request_during_an_update(cluster: &Cluster, addresses: &[String]) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let ask = |address: &str| {
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                answers.push(greeting(address).unwrap_or_else(|error| error.to_string()));
            }
            answers
        };
        let asking = addresses.iter().map(|address| scope.spawn(move || ask(address)));
        let asking: Vec<_> = asking.collect();
        cluster.kubectl(&["set", "env", "deployment/demo", "VERSION=v2"]);
        let said =
            cluster.kubectl_with(&["rollout", "status", "deployment/demo", "--timeout=120s"], "");
        done.store(true, Ordering::Relaxed);
        said.ok();
        for answers in asking {
            let answers = answers.join().expect("it asks to the end");
            let lost: Vec<_> = answers.iter().filter(|a| !a.starts_with("200 hello")).collect();
            assert_eq!(lost, [""; 0], "of {} requests", answers.len());
            let new = answers.iter().filter(|answer| answer.contains(" v2")).count();
            assert!(new > 0 && new < answers.len(), "{new} of {} from v2", answers.len());
        }
    });
}

fn pods_find_services_and_the_api() {
    let containerd = Containerd::start();
    let cluster = demo(&containerd);
    let pod = look(&cluster, &["pods"], ".items[0].metadata.name").remove(0);
    let inside = |command: &[&str]| cluster.kubectl(&[&["exec", &pod, "--"], command].concat());

    let cluster_ip = one(&cluster, &["service", "demo"], ".spec.clusterIP");
    let found = inside(&["nslookup", "demo.default.svc.cluster.local"]);
    assert!(found.contains(&format!("Address: {cluster_ip}")), "{found}");
    for host in ["demo", "demo.default.svc.cluster.local", &format!("{NODE}:30080")] {
        // Often enough to be led to every pod, the asking one included.
        for _ in 0..8 {
            let answer = inside(&["wget", "-qO-", &format!("http://{host}/")]);
            assert!(answer.starts_with("hello from demo-"), "{host}: {answer}");
        }
    }
    inside(&["nc", "-w", "5", "kubernetes.default.svc", "443"]);

    let token = inside(&["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]);
    let mut review = Command::new("curl");
    review.args(["--silent", "--show-error", "--max-time", "30", "--cacert"]);
    review.arg(cluster.folder().join("pki/ca.crt"));
    review.args(["--header", &format!("Authorization: Bearer {token}")]);
    // To the service's address: the certificate is for that too.
    let api = one(&cluster, &["service", "kubernetes"], ".spec.clusterIP");
    let answer = run(review.arg(format!("https://{api}/api/v1/namespaces/default/pods")), "").ok();
    let denied = "User \\\"system:serviceaccount:default:default\\\" cannot list resource";
    assert!(answer.contains(denied), "known by its token: {answer}");

    let ends = cluster.kubectl_with(&["exec", &pod, "--", "sh", "-c", "exit 3"], "");
    assert_eq!(ends.code, 3, "{}", ends.stderr);
    let echoed = cluster.kubectl_with(&["exec", "-i", &pod, "--", "cat"], "to and fro").ok();
    assert_eq!(echoed, "to and fro");
    let logs = cluster.kubectl(&["logs", &pod]);
    assert!(logs.starts_with("demo-app v1 listens on"), "{logs}");
    forwards_a_port(&cluster, &pod);
    tells_why_a_port_is_not_forwarded(&cluster, &pod);
}

fn forwards_a_port(cluster: &Cluster, pod: &str) {
    let mut command = cluster.kubectl_command(&["port-forward", pod, ":8080"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let first = lines.next().map(|line| line.expect("UTF-8")).unwrap_or_default();
    let port = first.strip_prefix("Forwarding from 127.0.0.1:").and_then(|l| l.split(' ').next());
    let answer = port.map(|port| greeting(&format!("127.0.0.1:{port}")));
    let _ended = child.kill();
    let _status = child.wait();
    let answer = answer.unwrap_or_else(|| panic!("it says {first:?}")).expect("an answer");
    assert_eq!(answer, format!("200 hello from {pod} v1\n"));
}

/// A port that nothing listens on: kubectl says so.
fn tells_why_a_port_is_not_forwarded(cluster: &Cluster, pod: &str) {
    let mut command = cluster.kubectl_command(&["port-forward", pod, ":81"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let first = lines.next().map(|line| line.expect("UTF-8")).unwrap_or_default();
    let port = first.strip_prefix("Forwarding from 127.0.0.1:").and_then(|l| l.split(' ').next());
    let answer = port.map(|port| greeting(&format!("127.0.0.1:{port}")));
    // It ends by itself, because its connection to the pod is lost.
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let told = said.find_map(|line| line.ok().filter(|line| line.contains("connection refused")));
    let _ended = child.kill();
    let _status = child.wait();
    assert!(answer.is_some_and(|answer| answer.is_err()), "it says {first:?}");
    assert!(told.is_some(), "it does not say why");
}

const FAILING_PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: no-image}
spec:
  containers:
    # A registry that nobody serves.
    - {name: c, image: '127.0.0.1:1/none:v1'}
---
apiVersion: v1
kind: Pod
metadata: {name: crashes}
spec:
  containers:
    - {name: c, image: 'orch.dev/demo-app:v1', command: [sh, -c, 'echo bye; exit 7']}
";

fn tells_why_containers_end() {
    let containerd = Containerd::start();
    let cluster = demo(&containerd);
    cluster.apply(FAILING_PODS);
    let names = look(&cluster, &["pods", "-l", "app=demo"], ".items[*].metadata.name");
    let [greedy, killed] = [&names[0], &names[1]];
    let status = |pod: &str, path: &str| {
        one(&cluster, &["pod", pod], &format!(".status.containerStatuses[0].{path}"))
    };

    // More than its limit of 64 MiB: the connection breaks, because the process is killed.
    let address = one(&cluster, &["pod", greedy], ".status.podIP");
    let to = format!("{address}:8080").parse().expect("an address");
    assert!(http_get(to, "demo", "/allocate?mib=200").is_err(), "it got more than its limit");
    eventually("it was killed for its memory", || {
        (status(greedy, "lastState.terminated.reason") == "OOMKilled").then_some(())
    });
    assert_eq!(status(greedy, "lastState.terminated.exitCode"), "137");

    kill(containerd.process(&status(killed, "containerID")), Signal::SIGKILL).expect("it runs");
    for pod in [greedy, killed] {
        eventually("it runs again", || {
            (status(pod, "restartCount") == "1" && status(pod, "ready") == "true").then_some(())
        });
    }
    assert_eq!(status(killed, "lastState.terminated.reason"), "Error");
    assert_eq!(status(killed, "lastState.terminated.exitCode"), "137");

    eventually("the image is waited for", || {
        (status("no-image", "state.waiting.reason") == "ImagePullBackOff").then_some(())
    });
    let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=Failed"]);
    assert!(events.contains("Error: ErrImagePull"), "{events}");
    eventually("it is left alone for a while", || {
        (status("crashes", "state.waiting.reason") == "CrashLoopBackOff").then_some(())
    });
    assert_eq!(status("crashes", "lastState.terminated.exitCode"), "7");
    assert_eq!(cluster.kubectl(&["logs", "crashes"]), "bye\n");
}

const VOLUMES: &str = "
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {word: sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: volumes}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
    - name: first
      image: orch.dev/demo-app:v1
      command: [sh, -c, 'echo from the first > /scratch/note']
      volumeMounts: [{name: scratch, mountPath: /scratch}]
  containers:
    - name: c
      image: orch.dev/demo-app:v1
      command: [sleep, '100000']
      volumeMounts:
        - {name: config, mountPath: /config}
        - {name: secret, mountPath: /secret}
        - {name: scratch, mountPath: /scratch}
        - {name: host, mountPath: /host, readOnly: true}
        - {name: all, mountPath: /all}
        - {name: config, mountPath: /single, subPath: greeting}
  volumes:
    - {name: config, configMap: {name: demo}}
    - {name: secret, secret: {secretName: key}}
    - {name: scratch, emptyDir: {}}
    - {name: host, hostPath: {path: HOST_FOLDER, type: Directory}}
    - name: all
      projected:
        sources:
          - serviceAccountToken: {path: token, audience: vault}
          - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
";

fn adopts_what_runs_and_keeps_data() {
    let containerd = Containerd::start();
    let cluster = demo(&containerd);
    let host = tempfile::tempdir().expect("a folder");
    std::fs::write(host.path().join("file"), "of the host").expect("a file");
    cluster.apply(&VOLUMES.replace("HOST_FOLDER", host.path().to_str().expect("UTF-8")));
    cluster.kubectl(&["wait", "pod/volumes", "--for=condition=Ready", "--timeout=120s"]);
    let files =
        ["/config/greeting", "/secret/word", "/single", "/all/name", "/host/file", "/scratch/note"];
    let said = cluster.kubectl(&[&["exec", "volumes", "--", "cat"], &files[..]].concat());
    assert_eq!(said, "hellosesamehellovolumesof the hostfrom the first\n");
    let said = cluster.kubectl_fails(&["exec", "volumes", "--", "mkdir", "/host/new"]);
    assert!(said.contains("Read-only"), "{said}");
    let node_port: SocketAddr = format!("{NODE}:30080").parse().expect("an address");
    let visit = || http_get(node_port, "demo", "/visits").ok().filter(|visit| visit.0 == 200);
    eventually("a visit is counted", visit);

    let ids = ".items[*].status.containerStatuses[0].containerID";
    let before = look(&cluster, &["pods"], ids);
    let processes = || before.iter().map(|id| containerd.process(id)).collect::<Vec<_>>();
    let then = processes();
    let cluster = cluster.again();
    eventually("its node is ready again", || {
        let path = ".items[0].status.conditions[?(@.type=='Ready')].status";
        (one(&cluster, &["nodes"], path) == "True").then_some(())
    });
    cluster.kubectl(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=120s"]);
    assert_eq!(look(&cluster, &["pods"], ids), before, "nothing was restarted");
    let restarts = look(&cluster, &["pods"], ".items[*].status.containerStatuses[0].restartCount");
    assert!(restarts.iter().all(|count| count == "0"), "{restarts:?}");
    assert_eq!(processes(), then);

    let measured = eventually("its containers are measured", || {
        let said = cluster.kubectl_with(&["top", "pods", "--selector", "app=demo"], "");
        (said.code == 0).then_some(said.stdout)
    });
    assert!(measured.contains("demo-") && measured.contains("Mi"), "{measured}");

    cluster.kubectl(&["delete", "pod", "--selector", "app=demo"]);
    cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=120s"]);
    let visits = eventually("a visit is counted", visit);
    assert_eq!(visits.1, "2\n", "the claim outlives pods and clusters");
}
