//! The rules that the workspace keeps about itself: which crate may depend on which, and under
//! which licences its dependencies come.

use std::process::Command;

use serde_json::Value;

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

#[test]
fn component_crates_do_not_depend_on_each_other() {
    let metadata = metadata(&["--no-deps"]);
    let allowed = |from: &str, to: &str| match from {
        "orch-core" | "orch-cel" => false,
        "orch-api" => matches!(to, "orch-core" | "orch-cel" | "orch-store"),
        "orch-sched" => matches!(to, "orch-core" | "orch-cel"),
        "orch" => to != "orch",
        _ => to == "orch-core",
    };
    for package in list(&metadata["packages"]) {
        let from = package["name"].as_str().unwrap_or_default();
        let is_ours = |name: &str| name == "orch" || name.starts_with("orch-");
        if !is_ours(from) {
            continue;
        }
        for dependency in list(&package["dependencies"]) {
            let to = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            assert!(!normal || !is_ours(to) || allowed(from, to), "{from} depends on {to}");
        }
    }
}

#[test]
fn no_library_chooses_the_kubernetes_version() {
    let metadata = metadata(&["--no-deps"]);
    for package in list(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        if !name.starts_with("orch-") {
            continue;
        }
        for dependency in list(&package["dependencies"]) {
            let versions = list(&dependency["features"]).iter().filter_map(Value::as_str);
            let chosen = versions.filter(|f| f.starts_with("v1_")).count();
            let normal = dependency["kind"].is_null();
            assert!(!normal || chosen == 0, "{name} enables a version of k8s-openapi");
        }
    }
}

#[test]
fn every_dependency_has_a_permissive_licence() {
    const PERMISSIVE: [&str; 12] = [
        "MIT",
        "MIT-0",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BlueOak-1.0.0",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "CC0-1.0",
        "Unlicense",
    ];
    /// By decision: file-level copyleft in dependencies that we do not change.
    const BY_DECISION: [(&str, &str); 3] =
        [("imbl", "MPL-2.0+"), ("bitmaps", "MPL-2.0+"), ("imbl-sized-chunks", "MPL-2.0+")];
    // What other platforms would need has not been downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = metadata(&["--filter-platform", &platform]);
    let mut refused = Vec::new();
    for package in list(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        // Every part of an AND must be permissive; one part of an OR is enough.
        let expression = licence.replace(['(', ')'], "").replace('/', " OR ");
        let permissive = expression.split(" AND ").all(|part| {
            part.split(" OR ").any(|choice| {
                let choice = choice.trim();
                PERMISSIVE.contains(&choice)
                    || choice == "BSL-1.0"
                    || choice == "CDLA-Permissive-2.0"
            })
        });
        if !permissive && !BY_DECISION.contains(&(name, licence)) {
            refused.push(format!("{name}: {licence:?}"));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}
