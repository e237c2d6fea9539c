//! Trials of the process runtime.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use orch_core::{Client, Environment, Resources, testing::MemoryClient};
use orch_node::{
    AgentOptions, NodeAgent, NodeFolders,
    addresses::AddressRange,
    logs,
    runtime::{
        ContainerConfig, ContainerId, ContainerState, ContainerStatus, Containers as _,
        ExecRequest, Inventory as _, Mount, ResourceLimits, RuntimeError, SandboxConfig, SandboxId,
        SandboxMetadata, Sandboxes as _, Streaming as _, TerminalSize,
        process::{ProcessOptions, ProcessRuntime},
    },
    testing::{RuntimeFixture, runtime_conformance},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a trial on a runtime of its own, and not for ever.
fn block_on(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let limited = async { tokio::time::timeout(PATIENCE, test).await };
    runtime.unwrap().block_on(limited).expect("it ends in time");
}

fn open(dir: &Path) -> ProcessRuntime {
    ProcessRuntime::open(ProcessOptions::new(dir.join("state")), Environment::system()).unwrap()
}

fn sh(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(Into::into).to_vec()
}

fn container(script: &str) -> ContainerConfig {
    ContainerConfig {
        name: "main".into(),
        image: "any".into(),
        command: sh(script),
        log_path: "main/0.log".into(),
        ..ContainerConfig::default()
    }
}

/// A runtime with a sandbox.
struct Bench {
    dir: TempDir,
    runtime: ProcessRuntime,
    sandbox: SandboxId,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = open(dir.path());
        let config = SandboxConfig {
            metadata: SandboxMetadata { uid: "u".into(), ..SandboxMetadata::default() },
            log_directory: dir.path().join("logs"),
            address: Some([127, 128, 0, 9].into()),
            ..SandboxConfig::default()
        };
        let sandbox = runtime.run_sandbox(config).await.unwrap();
        Self { dir, runtime, sandbox }
    }

    async fn start(&self, config: ContainerConfig) -> ContainerId {
        let id = self.runtime.create_container(&self.sandbox, config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Waits for an end, led by events.
    async fn ended(&self, id: &ContainerId) -> ContainerStatus {
        let mut events = self.runtime.events();
        loop {
            let all = self.runtime.containers(None).await.unwrap();
            let status = all.into_iter().find(|c| c.id == *id).unwrap();
            if status.state == ContainerState::Exited {
                return status;
            }
            events.next().await.unwrap();
        }
    }

    /// Waits until the log holds a line.
    async fn logged(&self, line: &str) -> String {
        let path = self.dir.path().join("logs/main/0.log");
        loop {
            let text = log_text(&path);
            if text.contains(line) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn close(self) {
        self.runtime.remove_sandbox(&self.sandbox).await.unwrap();
    }
}

fn log_text(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let entries = bytes.split(|&b| b == b'\n').filter_map(logs::parse);
    let lines =
        entries.map(|e| format!("{}: {}", e.stream.as_str(), String::from_utf8_lossy(e.text)));
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) fn keeps_the_runtime_contract() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let fixture = RuntimeFixture {
            runtime: Arc::new(open(dir.path())),
            image: "any".into(),
            runs: sh("exec sleep 1000"),
            exits_3: sh("exit 3"),
            log_directory: dir.path().join("logs"),
            address: Some([127, 128, 0, 1].into()),
        };
        runtime_conformance(&fixture).await;
    });
}

pub(crate) fn writes_logs_and_tells_why_it_ended() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.start(container("echo one; echo two >&2; printf three; kill -9 $$")).await;
        let ended = bench.ended(&id).await;
        assert_eq!(ended.exit_code, 137);
        let text = log_text(&ended.log_path);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["stderr: two", "stdout: one", "stdout: three"]);

        let mut missing = container("");
        missing.command = vec!["no-such-program".into()];
        let id = bench.runtime.create_container(&bench.sandbox, missing).await.unwrap();
        let error = bench.runtime.start_container(&id).await.unwrap_err();
        let expected = "executable file not found in $PATH";
        assert!(matches!(&error, RuntimeError::Start(why) if why.contains(expected)), "{error}");
        let ended = bench.ended(&id).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (128, "StartError"));

        let id = bench
            .start(container("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"))
            .await;
        bench.logged("stdout: up").await;
        bench.runtime.stop_container(&id, PATIENCE).await.unwrap();
        assert_eq!(bench.ended(&id).await.exit_code, 7);
        bench.close().await;
    });
}

pub(crate) fn runs_commands_with_their_streams() {
    block_on(async {
        let bench = Bench::new().await;
        let mut config = container("exec sleep 1000");
        config.env = vec![("COLOUR".into(), "red".into())];
        let id = bench.start(config).await;
        let run = sh("echo $COLOUR; echo no >&2; exit 4");
        let output = bench.runtime.exec_sync(&id, &run, None).await.unwrap();
        assert_eq!((output.exit_code, output.stdout.as_slice()), (4, b"red\n".as_slice()));
        assert_eq!(output.stderr, b"no\n");
        let limit = Some(Duration::from_millis(1));
        let slow = bench.runtime.exec_sync(&id, &sh("sleep 1000"), limit).await;
        assert!(matches!(slow, Err(RuntimeError::Timeout(_))), "{slow:?}");
        let missing = bench.runtime.exec_sync(&id, &["no-such".into()], None).await;
        assert!(matches!(missing, Err(RuntimeError::Start(_))), "{missing:?}");

        let request = ExecRequest {
            command: sh("read line; echo got $line"),
            stdin: true,
            stdout: true,
            ..ExecRequest::default()
        };
        let mut session = bench.runtime.exec(&id, request).await.unwrap();
        session.stdin.take().unwrap().write_all(b"hello\n").await.unwrap();
        let mut text = String::new();
        session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), session.exit.await.unwrap()), ("got hello\n", 0));

        let request = ExecRequest {
            command: sh("read go; stty size"),
            tty: true,
            stdin: true,
            stdout: true,
            ..ExecRequest::default()
        };
        let mut session = bench.runtime.exec(&id, request).await.unwrap();
        let size = TerminalSize { width: 132, height: 43 };
        let resize = session.resize.take().unwrap();
        resize.send(size).await.unwrap();
        // Taken once there is room for as many again.
        let _taken = resize.reserve_many(4).await.unwrap();
        session.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
        let mut text = String::new();
        session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        assert!(text.contains("43 132"), "{text:?}");
        bench.close().await;
    });
}

pub(crate) fn attaches_to_a_container() {
    block_on(async {
        let bench = Bench::new().await;
        let mut config = container("while read line; do echo \"<$line>\"; done; exit 5");
        (config.stdin, config.stdin_once) = (true, true);
        let id = bench.start(config).await;
        let request =
            ExecRequest { stdin: true, stdout: true, stderr: true, ..ExecRequest::default() };
        let mut session = bench.runtime.attach(&id, request).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"a\nb\n").await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
        let mut text = String::new();
        session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), session.exit.await.unwrap()), ("<a>\n<b>\n", 5));
        bench.close().await;
    });
}

pub(crate) fn adopts_what_runs() {
    block_on(async {
        let bench = Bench::new().await;
        let mut config = container("echo up; while read line; do echo $line; done; exit 6");
        (config.stdin, config.stdin_once) = (true, true);
        let id = bench.start(config).await;
        bench.logged("stdout: up").await;
        let before = bench.runtime.containers(None).await.unwrap();
        // A second one on the same folder is what a restarted agent has.
        let Bench { dir, sandbox, .. } = bench;
        let bench = Bench { runtime: open(dir.path()), dir, sandbox };
        let after = bench.runtime.containers(None).await.unwrap();
        assert_eq!(after, before);
        assert!(after[0].is_running());
        let request = ExecRequest { stdin: true, ..ExecRequest::default() };
        let mut session = bench.runtime.attach(&id, request).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"still here\n").await.unwrap();
        bench.logged("stdout: still here").await;
        stdin.shutdown().await.unwrap();
        drop(stdin);
        assert_eq!(bench.ended(&id).await.exit_code, 6);
        bench.close().await;
    });
}

pub(crate) fn mounts_volumes_at_their_paths() {
    block_on(async {
        let bench = Bench::new().await;
        let (source, target) = (bench.dir.path().join("source"), bench.dir.path().join("target"));
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "hello\n").unwrap();
        let (read, write) = (target.join("read"), target.join("write"));
        let mount = |path: &Path, read_only| Mount {
            volume: "v".into(),
            container_path: path.into(),
            host_path: source.clone(),
            read_only,
            ..Mount::default()
        };
        let script = format!(
            "cat {0}/file; touch {0}/x || touch {1}/made; exec sleep 1000",
            read.display(),
            write.display()
        );
        let mut config = container(&script);
        config.mounts = vec![mount(&read, true), mount(&write, false)];
        let id = bench.start(config).await;
        bench.logged("hello").await;
        let list = format!("ls {}", read.display());
        let listed = loop {
            let output = bench.runtime.exec_sync(&id, &sh(&list), None).await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            if text.contains("made") {
                break text;
            }
        };
        assert_eq!(listed, "file\nmade\n");
        let outside: Vec<_> = std::fs::read_dir(&read).unwrap().collect();
        assert!(outside.is_empty(), "the host does not see the mount");
        bench.close().await;
    });
}

pub(crate) fn kills_what_uses_too_much_memory() {
    block_on(async {
        let bench = Bench::new().await;
        let mut config = container("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo $x");
        config.resources =
            ResourceLimits { memory_limit_bytes: Some(16 << 20), ..ResourceLimits::default() };
        let id = bench.start(config).await;
        let ended = bench.ended(&id).await;
        assert_eq!(ended.reason, "OOMKilled", "{ended:?}");
        bench.close().await;
    });
}

pub(crate) fn runs_a_pod_from_the_cluster() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment::system();
        let client: Arc<dyn Client> = Arc::new(MemoryClient::new(environment.clone()));
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": { "name": "settings", "namespace": "default" },
            "data": { "greeting": "good morning" }
        }))
        .unwrap();
        Resources::namespaced(client.clone(), "default").create(&map).await.unwrap();
        let pods: Resources<Pod> = Resources::namespaced(client.clone(), "default");
        let folder = dir.path().join("mount");
        let script = "cat ${ORCH_VOLUME_CONFIG:-$FOLDER}/greeting; echo \" $POD_IP\" ; \
                      echo done > ${MESSAGE_FILE:-/dev/null}; exit 0";
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "hello", "namespace": "default" },
            "spec": {
                "nodeName": "here", "restartPolicy": "Never",
                "volumes": [{ "name": "config", "configMap": { "name": "settings" } }],
                "containers": [{
                    "name": "main", "image": "any", "command": sh(script),
                    "env": [
                        { "name": "FOLDER", "value": folder },
                        { "name": "POD_IP", "valueFrom": {
                            "fieldRef": { "fieldPath": "status.podIP" } } }
                    ],
                    "volumeMounts": [{ "name": "config", "mountPath": folder }]
                }]
            }
        }))
        .unwrap();
        pods.create(&pod).await.unwrap();
        let options = AgentOptions {
            folders: Some(NodeFolders::below(dir.path().join("node"))),
            pod_addresses: Some(Arc::new(AddressRange::new("127.128.0.0/16").unwrap())),
            ..AgentOptions::default()
        };
        let runtime = Arc::new(open(dir.path()));
        let agent = NodeAgent::builder(client, environment, "here", runtime.clone());
        let cancel = CancellationToken::new();
        let running = tokio::spawn(agent.options(options).build().run(cancel.clone()));
        let stream = pods.watch(Default::default()).await.unwrap();
        let done = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let pod = Resources::<Pod>::first_match(stream, done).await.unwrap().unwrap();
        let status = pod.status.as_ref().unwrap();
        let ip = status.pod_ip.clone().unwrap();
        let ended = runtime.containers(None).await.unwrap().remove(0);
        assert_eq!(status.phase.as_deref(), Some("Succeeded"), "{status:#?} {ended:#?}");
        assert!(ip.starts_with("127.128."), "{ip}");
        assert_eq!(log_text(&ended.log_path), format!("stdout: good morning {ip}"));
        cancel.cancel();
        running.await.unwrap();
    });
}
