//! Kernel parameters of pods.
//!
//! Source: `test/e2e/common/node/sysctl.go`.

use serde_json::json;

use super::world::World;

/// Names that can be no parameters are refused, and only they.
pub(super) async fn should_reject_invalid_sysctls() {
    let world = World::with_namespace("sysctl").await;
    let pods = world.of("v1", "Pod", "sysctl").await;
    let sysctls = json!([
        {"name": "foo-", "value": "bar"},
        {"name": "kernel.shmmax", "value": "100000000"},
        {"name": "safe-and-unsafe", "value": "100000000"},
        {"name": "bar..", "value": "42"},
    ]);
    let pod = json!({
        "metadata": {"name": "sysctl"},
        "spec": {"restartPolicy": "Never", "securityContext": {"sysctls": sysctls},
            "containers": [{"name": "test", "image": "busybox"}]},
    });
    let status = pods.try_create(pod).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    for (text, told) in [
        ("Invalid value: \"foo-\"", true),
        ("Invalid value: \"bar..\"", true),
        ("safe-and-unsafe", false),
        ("kernel.shmmax", false),
    ] {
        assert_eq!(status.message.contains(text), told, "{}", status.message);
    }
}
