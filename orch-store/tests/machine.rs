//! Tests that need something that the machine may lack, or a process of their own. What is
//! missing is named, and the test is counted as ignored.
//!
//! `ORCH_TEST_ROUNDS=100 cargo test -p orch-store --test machine` is the long form: 500 kills of
//! the durable store and 100 rounds of faults in an etcd cluster.

#[path = "machine/cluster.rs"]
mod cluster;
#[path = "machine/differential.rs"]
mod differential;
#[path = "machine/etcd.rs"]
mod etcd;
#[path = "machine/full.rs"]
mod full;
#[path = "machine/kill.rs"]
mod kill;
#[path = "machine/load.rs"]
mod load;
#[path = "machine/model.rs"]
mod model;
#[path = "machine/proxy.rs"]
mod proxy;
#[path = "machine/single.rs"]
mod single;

use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use orch_core::testing::{
    require::{Requirement, missing},
    rounds,
};

const TIMEOUT: Duration = Duration::from_secs(120);

fn main() {
    if runtime().block_on(kill::write_if_asked_to()) {
        return;
    }
    let arguments = Arguments::from_args();
    let etcd = missing(&[Requirement::Etcd]);
    let etcdctl = missing(&[Requirement::Etcd, Requirement::Command("etcdctl")]);
    let with_etcd = |trial: Trial| trial.with_ignored_flag(etcd.is_some());
    let with_etcdctl = |trial: Trial| trial.with_ignored_flag(etcdctl.is_some());
    let root = missing(&[Requirement::Root, Requirement::Command("mount")]);
    let trials = vec![
        Trial::test("durable_survives_kill_9", || run(kill::survives_kill_9())),
        Trial::test("durable_survives_a_full_disk", || run(full::a_full_disk_is_survived()))
            .with_ignored_flag(root.is_some()),
        with_etcd(Trial::test("etcd_conforms", || run(single::conforms()))),
        with_etcd(Trial::test("etcd_watch_outlives_a_restart", || {
            run(single::watch_outlives_a_restart())
        })),
        with_etcd(Trial::test("etcd_compaction_during_a_break_is_told", || {
            run(single::compaction_during_a_break_is_told())
        })),
        with_etcd(Trial::test("etcd_slow_watcher_holds_up_nobody", || {
            run(single::a_slow_watcher_holds_up_nobody())
        })),
        with_etcd(Trial::test("etcd_no_space_is_an_unknown_outcome", || {
            run(single::no_space_is_an_unknown_outcome())
        })),
        with_etcd(Trial::test("etcd_agrees_with_memory", || run(differential::agrees()))),
        with_etcd(Trial::test("etcd_tls_with_client_certificates", || {
            run(single::tls_with_client_certificates())
        })),
        with_etcdctl(Trial::test("etcd_authentication_survives_tokens", || {
            run(single::authentication_survives_tokens())
        })),
        with_etcdctl(Trial::test("etcd_cluster_survives_faults", || {
            run(cluster::survives_faults())
        })),
    ];
    if let Some(why) = etcd.or(etcdctl) {
        eprintln!("skipped: {why} (Debian: apt-get install etcd-server etcd-client)");
    }
    if let Some(why) = root {
        eprintln!("skipped: {why}");
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    runtime().block_on(async { tokio::time::timeout(TIMEOUT * rounds(1), test).await })?;
    Ok(())
}
