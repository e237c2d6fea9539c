//! Tests that need root, a network namespace and `nft`. What is missing is named, and the test is
//! counted as ignored.

use std::{net::IpAddr, process::Command, sync::Arc, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sched::{CloneFlags, unshare};
use orch_core::testing::require::{Requirement, missing};
use orch_net::{
    NftablesOptions, NftablesProxy,
    testing::{ConformanceNetwork, proxy_conformance},
};

fn main() {
    let arguments = Arguments::from_args();
    let why = missing(&[
        Requirement::Root,
        Requirement::NetworkNamespaces,
        Requirement::Nftables,
        Requirement::Command("ip"),
    ]);
    if let Some(why) = &why {
        eprintln!("skipped: the nftables proxy: {why}");
    }
    let trials = vec![
        Trial::test("nftables_conforms", || in_namespace(nftables_conforms))
            .with_ignored_flag(why.is_some()),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs a test on a thread with a network of its own, which is gone with the thread.
fn in_namespace<F: Future<Output = ()>>(
    test: impl FnOnce() -> F + Send + 'static,
) -> Result<(), Failed> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        // Programs that are started from here, and all on this one thread, are in it too.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test()).await })
    });
    thread.join().map_err(|_| "the test panicked")??;
    Ok(())
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn nftables_conforms() {
    run("ip", "link set lo up");
    run("ip", "link add orch0 type veth peer name orch1");
    run("ip", "link set orch1 up");
    run("ip", "addr add 10.201.0.1/24 dev orch0");
    run("ip", "link set orch0 up");
    run("ip", "route add default via 10.201.0.254 dev orch0");
    run("nft", "add table ip somebody-elses");
    let node: IpAddr = [10, 201, 0, 1].into();
    let network = ConformanceNetwork { service: [10, 96, 0, 9].into(), endpoint: node, node };
    let proxy = NftablesProxy::new(NftablesOptions::default());
    proxy_conformance(Arc::new(proxy), network).await;
    let left = run("nft", "list tables");
    assert_eq!(left.trim(), "table ip somebody-elses", "only its own table is gone");
}
