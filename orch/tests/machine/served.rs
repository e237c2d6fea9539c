//! What a cluster gives besides running pods: addresses, measurements, certificates.

use std::{fs, net::SocketAddr, process::Command};

use libtest_mimic::Trial;
use orch_core::testing::require::Requirement::{self, Kubectl};

use crate::{
    cluster::{Cluster, demo_manifest, eventually, http_get, images, run},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let openssl = [Kubectl, Requirement::Command("openssl")];
    vec![
        trial("served::load_balancers_and_measurements", &[Kubectl], balanced_and_measured),
        trial("served::certificates_that_were_asked_for", &openssl, certificates),
        trial("served::tokens_that_lie_in_secrets", &[Kubectl], tokens_in_secrets),
    ]
}

const BALANCED: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: balanced}\n\
                        spec: {type: LoadBalancer, selector: {app: demo}, \
                        ports: [{port: 8080, targetPort: http}]}\n";

fn balanced_and_measured() {
    let images = images();
    let cluster =
        Cluster::up(&["--runtime", "process", "--images", images.to_str().expect("UTF-8")]);
    cluster.kubectl(&["apply", "-f", demo_manifest().to_str().expect("UTF-8")]);
    cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"]);
    cluster.apply(BALANCED);
    let address = eventually("an address", || {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        let said = cluster.kubectl(&["get", "service", "balanced", "-o", path]);
        (!said.is_empty()).then_some(said)
    });
    assert!(address.starts_with("127.97."), "{address}");
    assert!(cluster.kubectl(&["get", "service", "balanced"]).contains(&address));
    let address: SocketAddr = format!("{address}:8080").parse().expect("an address");
    let (status, body) = eventually("the load balancer answers", || {
        http_get(address, "localhost", "/").ok().filter(|answer| answer.0 == 200)
    });
    assert_eq!((status, body.starts_with("hello from demo-")), (200, true), "{body}");

    // The APIService is in discovery, so that kubectl finds it without being told.
    let service = "apiservice/v1beta1.metrics.k8s.io";
    cluster.kubectl(&["wait", "--for=condition=Available", service, "--timeout=30s"]);
    let resources = cluster.kubectl(&["api-resources", "--api-group=metrics.k8s.io"]);
    assert!(resources.contains("NodeMetrics") && resources.contains("PodMetrics"), "{resources}");
    let top = |arguments: &[&str]| {
        eventually("measurements", || {
            let said = cluster.kubectl_with(arguments, "");
            (said.code == 0 && said.stdout.contains("demo")).then_some(said.stdout)
        })
    };
    let pods = top(&["top", "pods", "--containers"]);
    assert_eq!(pods.lines().count(), 4, "three containers and a head: {pods}");
    assert!(pods.contains("Mi"), "{pods}");
    let nodes = cluster.kubectl(&["top", "nodes"]);
    assert!(nodes.contains('%') && !nodes.contains("<unknown>"), "{nodes}");
    let name = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let page = format!("/api/v1/nodes/{name}/proxy/metrics/resource");
    let page = cluster.kubectl(&["get", "--raw", &page]);
    assert!(page.contains("container_cpu_usage_seconds_total{container=\"demo\""), "{page}");
    assert!(page.contains("\nresource_scrape_error 0\n"), "{page}");
    let raw = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dother";
    assert!(cluster.kubectl(&["get", "--raw", raw]).contains("\"items\":[]"));
}

fn certificates() {
    let cluster = Cluster::up(&["--runtime", "simulated"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments), "").ok();
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/O=readers/CN=ann",
        "-keyout",
        &file("ann.key"),
        "-out",
        &file("ann.csr"),
    ]);
    let encoded = run(Command::new("base64").args(["-w0", &file("ann.csr")]), "").ok();
    let request = "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\n\
                   metadata: {name: ann}\nspec: {signerName: kubernetes.io/kube-apiserver-client, \
                   usages: [client auth], expirationSeconds: 3600, request: REQUEST}\n";
    cluster.kubectl_with(&["create", "-f", "-"], &request.replace("REQUEST", &encoded)).ok();
    cluster.kubectl(&["certificate", "approve", "ann"]);
    let signed = eventually("a certificate", || {
        let path = "jsonpath={.status.certificate}";
        let said = cluster.kubectl(&["get", "csr", "ann", "-o", path]);
        (!said.is_empty()).then_some(said)
    });
    assert!(cluster.kubectl(&["get", "csr", "ann"]).contains("Approved,Issued"));
    let decoded = run(Command::new("base64").arg("-d"), &signed).ok();
    fs::write(file("ann.crt"), decoded).expect("it is written");
    let text = openssl(&["x509", "-in", &file("ann.crt"), "-noout", "-text"]);
    assert!(text.contains("TLS Web Client Authentication"), "{text}");
    assert!(text.contains("CA:FALSE") && !text.contains("Server Authentication"), "{text}");

    // Who has it is known by it, with what the request named.
    let (certificate, key) = (file("ann.crt"), file("ann.key"));
    let key = ["--client-certificate", &certificate, "--client-key", &key];
    cluster.kubectl(&[&["config", "set-credentials", "ann"], &key[..]].concat());
    let said = cluster.kubectl(&["--user", "ann", "auth", "whoami"]);
    assert!(said.contains("ann") && said.contains("readers"), "{said}");
}

fn tokens_in_secrets() {
    let cluster = Cluster::up(&["--runtime", "simulated"]);
    cluster.kubectl(&["create", "serviceaccount", "robot"]);
    cluster.apply(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\n\
         metadata: {name: robot, annotations: {kubernetes.io/service-account.name: robot}}\n",
    );
    let token = eventually("a token", || {
        let path = "jsonpath={.data.token}";
        let said = cluster.kubectl(&["get", "secret", "robot", "-o", path]);
        (!said.is_empty()).then_some(said)
    });
    let token = run(Command::new("base64").arg("-d"), &token).ok();
    cluster.kubectl(&["config", "set-credentials", "robot", "--token", &token]);
    let said = cluster.kubectl(&["--user", "robot", "auth", "whoami"]);
    let binding = ["create", "rolebinding", "robot", "--clusterrole=view"];
    cluster.kubectl(&[&binding[..], &["--serviceaccount=default:robot"]].concat());
    // Who may view may see what is used.
    eventually("the right to see measurements", || {
        let may = ["--user", "robot", "auth", "can-i", "list", "pods.metrics.k8s.io"];
        (cluster.kubectl_with(&may, "").code == 0).then_some(())
    });
    assert!(said.contains("system:serviceaccount:default:robot"), "{said}");
    cluster.kubectl(&["delete", "secret", "robot"]);
    let said = cluster.kubectl_fails(&["--user", "robot", "get", "pods"]);
    assert!(said.contains("Unauthorized") || said.contains("must be logged in"), "{said}");
}
