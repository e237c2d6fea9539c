//! The checks of the baseline and the restricted standard. Each gives its complaint as upstream
//! words it.
//!
//! Source: `k8s.io/pod-security-admission/policy/check_*.go`.

use serde_json::Value;

use super::super::pod_shape::containers;

const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: [&str; 9] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];
const RESTRICTED_VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn all(pod: &Value) -> impl Iterator<Item = &Value> {
    let spec = &pod["spec"];
    containers(spec, "initContainers")
        .chain(containers(spec, "containers"))
        .chain(containers(spec, "ephemeralContainers"))
}

fn names<'a>(of: impl Iterator<Item = &'a Value>) -> Vec<String> {
    of.map(|one| format!("\"{}\"", one["name"].as_str().unwrap_or_default())).collect()
}

fn plural<'a>(of: &[String], one: &'a str, many: &'a str) -> &'a str {
    if of.len() == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
fn of_containers(names: &[String]) -> String {
    format!("{} {}", plural(names, "container", "containers"), names.join(", "))
}

/// The containers that `bad` holds for, with what they must not or must do.
fn complain(
    pod: &Value,
    title: &str,
    demand: &str,
    bad: impl Fn(&Value) -> bool,
) -> Option<String> {
    let names = names(all(pod).filter(|container| bad(container)));
    (!names.is_empty()).then(|| format!("{title} ({} {demand})", of_containers(&names)))
}

fn host_namespaces(pod: &Value) -> Option<String> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|f| pod["spec"][**f] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    (!set.is_empty()).then(|| format!("host namespaces ({})", set.join(", ")))
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["volumes"].as_array().into_iter().flatten()
}

fn host_path(pod: &Value) -> Option<String> {
    let names = names(volumes(pod).filter(|volume| volume["hostPath"].is_object()));
    let noun = plural(&names, "volume", "volumes");
    (!names.is_empty()).then(|| format!("hostPath volumes ({noun} {})", names.join(", ")))
}

fn host_ports(pod: &Value) -> Option<String> {
    let ports = |container: &Value| -> Vec<String> {
        let ports = container["ports"].as_array().into_iter().flatten();
        let host = ports.filter_map(|port| port["hostPort"].as_i64().filter(|port| *port != 0));
        host.map(|port| port.to_string()).collect()
    };
    let users = names(all(pod).filter(|container| !ports(container).is_empty()));
    let used: Vec<String> = all(pod).flat_map(ports).collect();
    (!users.is_empty()).then(|| {
        format!(
            "hostPort ({} {} {} {})",
            of_containers(&users),
            plural(&users, "uses", "use"),
            plural(&used, "hostPort", "hostPorts"),
            used.join(", ")
        )
    })
}

fn capabilities<'a>(container: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    let list = container["securityContext"]["capabilities"][field].as_array();
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn baseline_capabilities(pod: &Value) -> Option<String> {
    let bad = |container: &Value| {
        capabilities(container, "add")
            .filter(|name| !BASELINE_CAPABILITIES.contains(name))
            .map(|name| format!("\"{name}\""))
            .collect::<std::collections::BTreeSet<String>>()
    };
    let users = names(all(pod).filter(|container| !bad(container).is_empty()));
    let added: std::collections::BTreeSet<String> = all(pod).flat_map(bad).collect();
    (!users.is_empty()).then(|| {
        let added: Vec<String> = added.into_iter().collect();
        format!(
            "non-default capabilities ({} must not include {} in securityContext.capabilities.add)",
            of_containers(&users),
            added.join(", ")
        )
    })
}

fn se_linux(pod: &Value) -> Option<String> {
    const TYPES: [&str; 5] =
        ["", "container_engine_t", "container_init_t", "container_kvm_t", "container_t"];
    let bad = |context: &Value| {
        let text = |field: &str| context["seLinuxOptions"][field].as_str().unwrap_or_default();
        !TYPES.contains(&text("type")) || !text("user").is_empty() || !text("role").is_empty()
    };
    let mut setters = Vec::new();
    if bad(&pod["spec"]["securityContext"]) {
        setters.push("pod".to_owned());
    }
    let users = names(all(pod).filter(|container| bad(&container["securityContext"])));
    if !users.is_empty() {
        setters.push(of_containers(&users));
    }
    (!setters.is_empty()).then(|| {
        format!(
            "seLinuxOptions ({} set forbidden securityContext.seLinuxOptions)",
            setters.join(" and ")
        )
    })
}

fn unconfined(context: &Value) -> bool {
    context["seccompProfile"]["type"] == "Unconfined"
}

fn baseline_seccomp(pod: &Value) -> Option<String> {
    let mut setters = Vec::new();
    if unconfined(&pod["spec"]["securityContext"]) {
        setters.push("pod".to_owned());
    }
    let users = names(all(pod).filter(|container| unconfined(&container["securityContext"])));
    if !users.is_empty() {
        setters.push(of_containers(&users));
    }
    (!setters.is_empty()).then(|| {
        format!(
            "seccompProfile ({} must not set securityContext.seccompProfile.type to \"Unconfined\")",
            setters.join(" and ")
        )
    })
}

fn sysctls(pod: &Value) -> Option<String> {
    let set = pod["spec"]["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let names = set.filter_map(|sysctl| sysctl["name"].as_str());
    let unsafe_: Vec<&str> = names.filter(|name| !SAFE_SYSCTLS.contains(name)).collect();
    (!unsafe_.is_empty()).then(|| format!("forbidden sysctls ({})", unsafe_.join(", ")))
}

/// The complaints of the baseline standard; without those that the restricted one words anew.
pub(super) fn baseline(pod: &Value, for_restricted: bool) -> Vec<String> {
    let context = |container: &Value| container["securityContext"].clone();
    let proc_mount = |container: &Value| {
        let mount = &container["securityContext"]["procMount"];
        mount.is_string() && mount != "Default"
    };
    let own = |check: Option<String>| check.filter(|_| !for_restricted);
    [
        own(baseline_capabilities(pod)),
        host_namespaces(pod),
        own(host_path(pod)),
        host_ports(pod),
        complain(pod, "privileged", "must not set securityContext.privileged=true", |c| {
            context(c)["privileged"] == true
        }),
        complain(pod, "procMount", "must not set securityContext.procMount", proc_mount),
        se_linux(pod),
        own(baseline_seccomp(pod)),
        sysctls(pod),
        complain(
            pod,
            "hostProcess",
            "must not set securityContext.windowsOptions.hostProcess=true",
            |c| context(c)["windowsOptions"]["hostProcess"] == true,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn restricted_capabilities(pod: &Value) -> Option<String> {
    let keeps = |c: &Value| !capabilities(c, "drop").any(|name| name == "ALL");
    let adds = |c: &Value| capabilities(c, "add").any(|name| name != "NET_BIND_SERVICE");
    let mut parts = Vec::new();
    let keeping = names(all(pod).filter(|c| keeps(c)));
    if !keeping.is_empty() {
        parts.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            of_containers(&keeping)
        ));
    }
    let adding = names(all(pod).filter(|c| adds(c)));
    if !adding.is_empty() {
        let added: std::collections::BTreeSet<String> = all(pod)
            .flat_map(|c| capabilities(c, "add"))
            .filter(|name| *name != "NET_BIND_SERVICE")
            .map(|name| format!("\"{name}\""))
            .collect();
        parts.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            of_containers(&adding),
            added.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    (!parts.is_empty()).then(|| format!("unrestricted capabilities ({})", parts.join("; ")))
}

fn restricted_volumes(pod: &Value) -> Option<String> {
    let kind = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten();
        fields.map(|(name, _)| name.clone()).find(|name| name != "name")
    };
    let bad: Vec<(&Value, String)> = volumes(pod)
        .filter_map(|volume| Some((volume, kind(volume)?)))
        .filter(|(_, kind)| !RESTRICTED_VOLUMES.contains(&kind.as_str()))
        .collect();
    let names = names(bad.iter().map(|(volume, _)| *volume));
    let kinds: std::collections::BTreeSet<String> =
        bad.iter().map(|(_, kind)| format!("\"{kind}\"")).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "restricted volume types ({} {} {} restricted volume {} {})",
            plural(&names, "volume", "volumes"),
            names.join(", "),
            plural(&names, "uses", "use"),
            plural(&kinds, "type", "types"),
            kinds.join(", ")
        )
    })
}

/// Containers that neither say something good themselves nor leave it to a pod that does.
fn undecided(pod: &Value, good: impl Fn(&Value) -> Option<bool>) -> (bool, Vec<String>) {
    let of_pod = good(&pod["spec"]["securityContext"]);
    let bad = |container: &&Value| !good(&container["securityContext"]).or(of_pod).unwrap_or(false);
    (of_pod == Some(false), names(all(pod).filter(bad)))
}

fn run_as_non_root(pod: &Value) -> Option<String> {
    let (pod_is_bad, names) = undecided(pod, |context| context["runAsNonRoot"].as_bool());
    let who = match (pod_is_bad, names.is_empty()) {
        (false, true) => return None,
        (true, true) => {
            return Some(
                "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)".into(),
            );
        }
        (_, false) => format!("pod or {}", of_containers(&names)),
    };
    Some(format!("runAsNonRoot != true ({who} must set securityContext.runAsNonRoot=true)"))
}

fn run_as_user(pod: &Value) -> Option<String> {
    let root = |context: &Value| context["runAsUser"] == 0;
    let mut setters = Vec::new();
    if root(&pod["spec"]["securityContext"]) {
        setters.push("pod".to_owned());
    }
    let users = names(all(pod).filter(|container| root(&container["securityContext"])));
    if !users.is_empty() {
        setters.push(of_containers(&users));
    }
    let who = setters.join(" and ");
    (!setters.is_empty()).then(|| format!("runAsUser=0 ({who} must not set runAsUser=0)"))
}

fn restricted_seccomp(pod: &Value) -> Option<String> {
    let (pod_is_bad, names) = undecided(pod, |context| {
        let kind = context["seccompProfile"]["type"].as_str()?;
        Some(matches!(kind, "RuntimeDefault" | "Localhost"))
    });
    let demand =
        "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    let who = match (pod_is_bad, names.is_empty()) {
        (false, true) => return None,
        (true, true) => "pod".to_owned(),
        (_, false) => format!("pod or {}", of_containers(&names)),
    };
    Some(format!("seccompProfile ({who} {demand})"))
}

/// The complaints that only the restricted standard has.
pub(super) fn restricted(pod: &Value) -> Vec<String> {
    let escalates = |c: &Value| c["securityContext"]["allowPrivilegeEscalation"] != false;
    [
        complain(
            pod,
            "allowPrivilegeEscalation != false",
            "must set securityContext.allowPrivilegeEscalation=false",
            escalates,
        ),
        restricted_capabilities(pod),
        restricted_volumes(pod),
        run_as_non_root(pod),
        run_as_user(pod),
        restricted_seccomp(pod),
    ]
    .into_iter()
    .flatten()
    .collect()
}
