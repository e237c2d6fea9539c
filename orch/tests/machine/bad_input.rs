//! What is refused: manifests with a `Status` that names the field, and command lines with one
//! line that says how to mend them.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::Command,
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use orch_core::testing::require::Requirement;
use serde_json::Value;

use crate::{
    cluster::{Cluster, Following, ORCH, Said, http, run},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let kubectl = [Requirement::Kubectl];
    vec![
        trial("bad_input::manifests_are_refused_with_a_status", &kubectl, manifests_are_refused),
        trial("bad_input::kubectl_shows_what_is_wrong", &kubectl, kubectl_shows_what_is_wrong),
        trial("bad_input::flags_are_refused_in_one_line", &[], flags_are_refused_in_one_line),
        trial("bad_input::folders_and_ports_in_use_are_told", &[], folders_and_ports),
    ]
}

const SIMULATED: [&str; 4] = ["--runtime", "simulated", "--store", "memory"];
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// What a request is answered with: code, reason, message, and the first field that is named.
fn refusal(to: SocketAddr, path: &str, media: &str, body: &str) -> (u16, String, String, String) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, answer) = http(to, &request).expect("an answer");
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
    assert_eq!(answer["kind"], "Status", "{answer}");
    assert_eq!(answer["code"], status, "{answer}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let field = text(&answer["details"]["causes"][0]["field"]);
    (status, text(&answer["reason"]), text(&answer["message"]), field)
}

fn manifests_are_refused() {
    let cluster = Cluster::up(&SIMULATED);
    let mut proxy = Following::start(&mut cluster.kubectl_command(&["proxy", "--port=0"]));
    let line = proxy.line();
    let to = line.rsplit(' ').next().and_then(|address| address.parse().ok());
    let to: SocketAddr = to.unwrap_or_else(|| panic!("{line}"));
    let json = "application/json";
    let before = cluster.kubectl(&["get", "configmaps,pods", "-A", "-o", "name"]);
    let map = |rest: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap",{rest}}}"#);
    let named = |rest: &str| map(&format!(r#""metadata":{{"name":"x"}},{rest}"#));
    let pod = |container: &str| {
        let spec = format!(r#""spec":{{"containers":[{{"name":"c","image":"i",{container}}}]}}"#);
        format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"x"}},{spec}}}"#)
    };
    for (path, media, body, code, reason, says, field) in [
        (MAPS, json, r#"{"kind""#.to_owned(), 400, "BadRequest", "parse", ""),
        (MAPS, json, "[]".to_owned(), 400, "BadRequest", "ConfigMap", ""),
        (MAPS, json, map(r#""metadata":{"name":3}"#), 400, "BadRequest", "metadata.name", ""),
        (MAPS, json, named(r#""data":{"a":1}"#), 400, "BadRequest", "data", ""),
        (MAPS, "application/yaml", "a: [".to_owned(), 400, "BadRequest", "YAML", ""),
        (MAPS, "text/plain", "a".to_owned(), 415, "UnsupportedMediaType", "unknown format", ""),
        (
            MAPS,
            json,
            r#"{"apiVersion":"v1","kind":"Other"}"#.to_owned(),
            400,
            "BadRequest",
            "Other",
            "",
        ),
        (
            MAPS,
            json,
            map(r#""metadata":{"name":"A_"}"#),
            422,
            "Invalid",
            "RFC 1123",
            "metadata.name",
        ),
        (
            "/api/v1/namespaces/default/others",
            json,
            "{}".to_owned(),
            404,
            "NotFound",
            "could not find the requested resource",
            "",
        ),
        (
            "/api/v1/namespaces/absent/configmaps",
            json,
            named(r#""data":{}"#),
            404,
            "NotFound",
            "absent",
            "",
        ),
        (
            PODS,
            json,
            pod(r#""ports":[{"containerPort":"y"}]"#),
            400,
            "BadRequest",
            "containerPort",
            "",
        ),
        (
            PODS,
            json,
            pod(r#""ports":[{"containerPort":99999}]"#),
            422,
            "Invalid",
            "between 1 and 65535",
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            PODS,
            json,
            pod(r#""resources":{"limits":{"cpu":"much"}}"#),
            400,
            "BadRequest",
            "quantities",
            "",
        ),
    ] {
        let (was_code, was_reason, message, was_field) = refusal(to, path, media, &body);
        let body: String = body.chars().take(200).collect();
        assert_eq!((was_code, was_reason.as_str()), (code, reason), "{body}: {message}");
        assert!(message.contains(says), "{body}: {message}");
        assert_eq!(was_field, field, "{body}: {message}");
    }
    let after = cluster.kubectl(&["get", "configmaps,pods", "-A", "-o", "name"]);
    assert_eq!(after, before, "nothing of it is stored");
}

fn kubectl_shows_what_is_wrong() {
    let cluster = Cluster::up(&SIMULATED);
    let fails = |kind: &str, rest: &str| {
        let manifest = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: bad}}\n{rest}\n");
        cluster.kubectl_with(&["apply", "-f", "-"], &manifest).failed()
    };
    let unknown = fails("Pod", "spec: {containers: [{name: a, image: b}], other: 1}");
    assert!(unknown.contains(r#"unknown field "spec.other""#), "{unknown}");
    let wrong = fails("Pod", "spec: {containers: [{name: a, image: b, stdin: 1}]}");
    assert!(wrong.contains("stdin") && wrong.contains("bool"), "{wrong}");
    let invalid = fails("Pod", "spec: {containers: [{name: a}]}");
    assert!(invalid.contains("spec.containers[0].image: Required value"), "{invalid}");
    assert!(fails("Podd", "spec: {}").contains(r#"no matches for kind "Podd""#));
    // Beyond what kubectl's annotation may have, and beyond what one request may have.
    let long = fails("ConfigMap", &format!("data: {{a: {}}}", "x".repeat(1 << 20)));
    assert!(long.contains("metadata.annotations: Too long"), "{long}");
    let manifest = cluster.folder().join("big.yaml");
    let big = "x".repeat(4 << 20);
    let text =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: bad}}\ndata: {{a: {big}}}\n");
    fs::write(&manifest, text).expect("a file");
    let refused = cluster.kubectl_fails(&["create", "-f", manifest.to_str().expect("UTF-8")]);
    assert!(refused.contains("(RequestEntityTooLarge)"), "{refused}");
    for object in ["pod/bad", "configmap/bad"] {
        assert!(cluster.kubectl_fails(&["get", object]).contains("(NotFound)"));
    }
}

/// `orch up` with these arguments, which has to end by itself.
fn up(arguments: &[&str]) -> Said {
    run(Command::new(ORCH).arg("up").args(arguments), "")
}

/// The one line that it ended with.
#[track_caller]
fn one_line(said: Said) -> String {
    let line = said.failed();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("orch: ") && line.contains("; "), "{line}");
    line
}

fn flags_are_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    for (arguments, says) in [
        (&["--listen", "nowhere"][..], "--listen"),
        (&["--nodes", "0"], "--nodes"),
        (&["--nodes", "many"], "--nodes"),
        (&["--store", "paper"], "memory, durable or etcd=URL"),
        (&["--runtime", "docker"], "auto, process, cri"),
        (&["--proxy", "none"], "auto, userspace, nftables or off"),
        (&["--ingress", "yes"], "--ingress"),
        (&["--log", "a=b=c"], "--log"),
        (&["--frob"], "--frob"),
        (&["--runtime", "cri=/no/such.sock", "--nodes", "2"], "--nodes"),
        (&["--runtime", "cri=/no/such.sock"], "/no/such.sock"),
        (&["--runtime", "process", "--images", "/no/such/folder"], "--images"),
        (&["--store", "etcd=http://127.0.0.1:1", "--runtime", "simulated"], "is etcd running at"),
    ] {
        let more = ["--data-dir", data];
        let line = one_line(up(&[arguments, &more[..]].concat()));
        assert!(line.contains(says), "{arguments:?}: {line}");
    }
}

fn folders_and_ports() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let other = folder.path().join("other");
    let other = other.to_str().expect("UTF-8");
    let simulated = |data: &str, listen: &str, ingress: &str| {
        let more = ["--data-dir", data, "--listen", listen, "--ingress", ingress];
        one_line(up(&[&["--runtime", "simulated"][..], &more].concat()))
    };
    let any = "127.0.0.1:0";
    let line = simulated(file.to_str().expect("UTF-8"), any, "off");
    assert!(line.contains("cannot be used") && line.contains("--data-dir"), "{line}");
    let taken = TcpListener::bind(any).expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let line = simulated(other, &taken, "off");
    assert!(line.contains(&taken) && line.contains("--listen"), "{line}");
    let listener = TcpListener::bind(any).expect("a port");
    let taken = listener.local_addr().expect("an address").to_string();
    let line = simulated(other, any, &taken);
    assert!(line.contains(&taken) && line.contains("--ingress"), "{line}");

    let mut first = Cluster::up(&["--runtime", "simulated"]);
    let line = simulated(first.folder().to_str().expect("UTF-8"), any, "off");
    assert!(line.contains("in use by another process") && line.contains("--data-dir"), "{line}");
    assert_eq!(first.stop(Signal::SIGTERM), 0);
}
