//! `kubectl` commands that need no pod to run.
//!
//! Source: `test/e2e/kubectl/kubectl.go`.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    process::Child,
};

use super::shell::Served;

const IMAGE: &str = "registry.example/agnhost:2";
const OTHER: &str = "registry.example/busybox:1";

/// `v1` is among the versions.
pub(super) async fn kubectl_api_versions_should_check_if_v1_is_in_available_api_versions() {
    let served = Served::start().await;
    let said = served.kubectl(&["api-versions"]).await;
    assert!(said.lines().any(|line| line == "v1"), "{said}");
    served.stop().await;
}

/// The control plane is said to run.
pub(super) async fn should_check_if_kubernetes_control_plane_services_is_included() {
    let served = Served::start().await;
    let said = served.kubectl(&["cluster-info"]).await;
    for wanted in ["Kubernetes control plane", "is running at"] {
        assert!(said.contains(wanted), "{said}");
    }
    served.stop().await;
}

/// Both versions are told.
pub(super) async fn kubectl_version_should_check_is_all_data_is_printed() {
    let served = Served::start().await;
    let said = served.kubectl(&["version"]).await;
    for wanted in ["Client Version: ", "Server Version: v1.36"] {
        assert!(said.contains(wanted), "{said}");
    }
    let said = served.kubectl(&["version", "-o", "json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    for field in ["major", "minor", "gitVersion", "gitCommit", "buildDate", "platform"] {
        assert!(said["serverVersion"][field].is_string(), "{field}: {said}");
    }
    served.stop().await;
}

fn deployment(image: &str) -> String {
    let pod = json!({"containers": [{"name": "httpd", "image": image}]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "httpd-deployment"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "httpd"}},
            "template": {"metadata": {"labels": {"app": "httpd"}}, "spec": pod}},
    })
    .to_string()
}

/// The image that would change is shown as it is and as it would be.
pub(super) async fn kubectl_diff_should_check_if_kubectl_diff_finds_a_difference_for_deployments() {
    let served = Served::start().await;
    served.kubectl_with(&["create", "-f", "-"], &deployment(IMAGE)).await.ok();
    let (same, said) = served.kubectl_with(&["diff", "-f", "-"], &deployment(OTHER)).await.either();
    assert!(!same);
    let line = |sign: char, image: &str| {
        let wanted = format!("image: {image}");
        said.lines().any(|line| line.starts_with(sign) && line.contains(&wanted))
    };
    assert!(line('-', IMAGE) && line('+', OTHER), "{said}");
    served.stop().await;
}

/// `kubectl run` makes a pod with the image and the restart policy.
pub(super) async fn kubectl_run_pod_should_create_a_pod_from_an_image_when_restart_is_never() {
    let served = Served::start().await;
    let image = format!("--image={IMAGE}");
    served.kubectl(&["run", "e2e-test-httpd-pod", "--restart=Never", &image]).await;
    let pod = served.world.of("v1", "Pod", "default").await.get("e2e-test-httpd-pod").await;
    let containers = pod["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["image"], IMAGE);
    assert_eq!(pod["spec"]["restartPolicy"], "Never");
    served.stop().await;
}

/// A patch on trial answers with the new image and changes nothing.
pub(super) async fn kubectl_server_side_dry_run_should_check_if_kubectl_can_dry_run_update_pods() {
    let served = Served::start().await;
    let (image, name) = (format!("--image={IMAGE}"), "e2e-test-httpd-pod");
    served.kubectl(&["run", name, &image, "--labels=run=e2e-test-httpd-pod"]).await;
    let patch = json!({"spec": {"containers": [{"name": name, "image": OTHER}]}}).to_string();
    let path = "-o=jsonpath={.spec.containers[0].image}";
    let said =
        served.kubectl(&["patch", "pod", name, "-p", &patch, "--dry-run=server", path]).await;
    assert_eq!(said, OTHER);
    let pod = served.world.of("v1", "Pod", "default").await.get(name).await;
    assert_eq!(pod["spec"]["containers"][0]["image"], IMAGE);
    served.stop().await;
}

/// Starts a proxy and waits until it says where it is; what it says behind "on".
async fn proxy(served: &Served, arguments: &[&str]) -> (Child, String) {
    let all = [&["proxy", "--disable-filter"], arguments].concat();
    let mut child = served.command(&all).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, place)) = line.split_once("Starting to serve on ") {
            return (child, place.trim().to_owned());
        }
    }
    panic!("the proxy ended");
}

/// The versions that `/api/` names, asked for over an open connection.
async fn versions(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> usize {
    stream.write_all(b"GET /api/ HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    body["versions"].as_array().unwrap().len()
}

/// A proxy on any port tells which one it took, and leads to the server.
pub(super) async fn proxy_server_should_support_proxy_with_port_0() {
    let served = Served::start().await;
    let (mut child, place) = proxy(&served, &["-p", "0"]).await;
    assert!(versions(TcpStream::connect(&place).await.unwrap()).await > 0);
    child.kill().await.unwrap();
    served.stop().await;
}

/// So does one on a socket of the file system.
pub(super) async fn proxy_server_should_support_unix_socket_path() {
    let served = Served::start().await;
    let path = served.path("proxy.sock");
    let (mut child, place) = proxy(&served, &[&format!("--unix-socket={path}")]).await;
    assert_eq!(place, path);
    assert!(versions(UnixStream::connect(&path).await.unwrap()).await > 0);
    child.kill().await.unwrap();
    served.stop().await;
}
