//! Clients in other languages, as they come, over TLS.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::Trial;

use crate::{
    cluster::{Cluster, run},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let python = trial("clients::python_works_unmodified", &[], python_works_unmodified);
    let go = trial("clients::client_go_works_unmodified", &[], client_go_works_unmodified);
    let python = match python_with_client() {
        Some(_) => python,
        None => python.with_kind("no python3 with the module kubernetes").with_ignored_flag(true),
    };
    let go = match has_client_go() {
        true => go,
        false => go.with_kind("no go with client-go on its GOPATH").with_ignored_flag(true),
    };
    vec![python, go]
}

fn go(arguments: &[&str]) -> Command {
    let mut go = Command::new("go");
    go.args(arguments).current_dir(scenarios().join("go")).env("GO111MODULE", "off");
    go
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Whether the Go scenario has all that it is built from.
fn has_client_go() -> bool {
    go(&["list", "-deps", "."]).output().is_ok_and(|output| output.status.success())
}

fn client_go_works_unmodified() {
    let cluster = Cluster::up(&["--runtime", "simulated", "--store", "memory"]);
    let said = run(go(&["run", "."]).env("KUBECONFIG", cluster.kubeconfig()), "").ok();
    assert!(said.starts_with("client-go works unmodified"), "{said}");
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
    let script = scenarios().join("scenario.py");
    let mut python = Command::new(python_with_client().expect("it was there before"));
    python.arg(script).env("KUBECONFIG", cluster.kubeconfig());
    let said = run(&mut python, "").ok();
    assert!(said.ends_with("done\n"), "{said}");
}
