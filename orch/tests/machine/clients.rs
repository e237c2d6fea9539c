//! Clients in other languages, as they come, over TLS.

use std::{path::Path, process::Command};

use libtest_mimic::Trial;

use crate::{
    cluster::{Cluster, run},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let python = trial("clients::python_works_unmodified", &[], python_works_unmodified);
    vec![match python_with_client() {
        Some(_) => python,
        None => python.with_kind("no python3 with the module kubernetes").with_ignored_flag(true),
    }]
}

/// A Python that has the client: of the path, or the system's own, for which Debian packages it.
fn python_with_client() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let imports = Command::new(python).args(["-c", "import kubernetes.dynamic"]).output();
        imports.is_ok_and(|output| output.status.success())
    })
}

fn python_works_unmodified() {
    let cluster = Cluster::up(&["--runtime", "simulated", "--store", "memory"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/scenario.py");
    let mut python = Command::new(python_with_client().expect("it was there before"));
    python.arg(script).env("KUBECONFIG", cluster.kubeconfig());
    let said = run(&mut python, "").ok();
    assert!(said.ends_with("done\n"), "{said}");
}
