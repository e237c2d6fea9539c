//! One controller, in three places: inside the test, over HTTP, and beside `orch up`.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use custom_controller::{greeting, manager};
use libtest_mimic::{Arguments, Trial};
use orch::{
    api::serve::{KubeconfigEntry, Pki, PkiOptions, kubeconfig},
    cluster::ServeSetup,
    core::{Client, Environment, informer::Informers},
    testing,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use tokio_util::sync::CancellationToken;

mod scenario;

/// So long nothing hangs that works, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let arguments = Arguments::from_args();
    let orch = orch_program();
    let up = test("it_works_beside_orch_up", || real(beside_orch_up()));
    let up = match orch.is_file() {
        true => up,
        false => up.with_kind("no orch program where cargo puts it").with_ignored_flag(true),
    };
    let trials = vec![
        test("it_works_inside_a_test_in_virtual_time", || virtually(inside_a_test())),
        test("it_works_through_a_plain_client_over_tls", || real(over_tls())),
        test("it_leaves_alone_what_belongs_to_others", || virtually(a_name_that_is_taken())),
        test("it_writes_nothing_when_nothing_changes", || virtually(at_rest())),
        up,
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn test(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn virtually(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(test);
}

fn real(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let test = async { tokio::time::timeout(PATIENCE, test).await.expect("it hangs") };
    runtime.expect("a runtime").block_on(test);
}

/// Cargo puts programs into the folder above the one of the tests.
fn orch_program() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let folder = test.parent().and_then(|folder| folder.parent()).expect("two folders");
    folder.join(format!("orch{}", std::env::consts::EXE_SUFFIX))
}

async fn inside_a_test() {
    let cluster = testing::cluster().nodes(1).await;
    greeting::define(cluster.core_client()).await.expect("the kind is defined");
    let stop = CancellationToken::new();
    tokio::spawn(manager(cluster.informers(), cluster.client()).run(stop.clone()));
    scenario::run(cluster.client()).await;
    stop.cancel();
}

async fn a_name_that_is_taken() {
    let cluster = testing::cluster().nodes(1).await;
    greeting::define(cluster.core_client()).await.expect("the kind is defined");
    let stop = CancellationToken::new();
    tokio::spawn(manager(cluster.informers(), cluster.client()).run(stop.clone()));
    scenario::run_with_a_name_that_is_taken(cluster.client()).await;
    stop.cancel();
}

async fn at_rest() {
    let cluster = testing::cluster().nodes(1).await;
    greeting::define(cluster.core_client()).await.expect("the kind is defined");
    let stop = CancellationToken::new();
    tokio::spawn(manager(cluster.informers(), cluster.client()).run(stop.clone()));
    scenario::create(cluster.client(), "quiet", 3).await;
    cluster.settle().await;
    let before = cluster.revision();
    cluster.advance(Duration::from_secs(600)).await;
    let changes = cluster.diff(before, cluster.revision()).await.expect("it is remembered");
    let changes = changes.to_string();
    assert!(!changes.contains("greetings") && !changes.contains("deployments"), "{changes}");
    stop.cancel();
}

/// The controllers as a program of their own has them: nothing but a `kube::Client`.
async fn beside(client: kube::Client) {
    let core: Arc<dyn Client> = Arc::new(client.clone());
    greeting::define(core.clone()).await.expect("the kind is defined");
    let informers = Informers::new(core, Environment::system());
    let stop = CancellationToken::new();
    let running = tokio::spawn(manager(&informers, client.clone()).run(stop.clone()));
    scenario::run(client).await;
    stop.cancel();
    running.await.expect("a graceful end");
    informers.stop();
}

async fn client_of(kubeconfig: &str) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await;
    kube::Client::try_from(config.expect("a cluster")).expect("a client")
}

async fn over_tls() {
    let pki = Pki::in_memory(&PkiOptions::default(), Environment::system().clock);
    let pki = Arc::new(pki.expect("certificates"));
    let address = "127.0.0.1:0".parse().expect("an address");
    let serve = ServeSetup::tls([address], pki.clone());
    let cluster = orch::Cluster::builder().simulated_nodes(1).serve(serve).start().await;
    let cluster = cluster.expect("it starts");
    let server = format!("https://{}", cluster.address().expect("it is served"));
    let entry = KubeconfigEntry {
        cluster: "test",
        user: "admin",
        server: &server,
        ca_pem: pki.ca_pem(),
        credentials: pki.admin(),
    };
    beside(client_of(&kubeconfig(&entry)).await).await;
    cluster.shutdown().await;
}

async fn beside_orch_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(orch_program())
        .args(["up", "--runtime", "simulated", "--store", "memory", "--nodes", "1"])
        .args(["--listen", "127.0.0.1:0", "--ingress", "off", "--proxy", "off", "--data-dir"])
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("orch starts");
    let output = child.stdout.take().expect("it is piped");
    let line = BufReader::new(output).lines().next_line().await.expect("text");
    assert!(line.as_deref().is_some_and(|line| line.contains("ready after")), "{line:?}");
    let kubeconfig = std::fs::read_to_string(folder.path().join("kubeconfig"));
    beside(client_of(&kubeconfig.expect("a kubeconfig")).await).await;
    child.kill().await.expect("it ends");
}
