//! What the runtime is told about sandboxes and containers.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_sandbox.go`, `kuberuntime_container.go`,
//! `pkg/kubelet/network/dns/dns.go`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Pod, PodSecurityContext, SecurityContext, VolumeMount,
};

use super::{
    Context, env,
    expand::expand,
    resources,
    spec::{self, Role},
    stop,
};
use crate::{
    runtime::{
        ContainerConfig, DnsConfig, HostNamespaces, ImageInfo, Mount, MountPropagation,
        PortMapping, Protocol, SandboxConfig, SandboxMetadata, labels,
    },
    volume::{PreparedVolume, make_dir},
};

const HOSTS: &str = "/etc/hosts";

/// A duration as Go prints whole seconds: `10s`, `2m40s`, `5m0s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    [
        (labels::POD_NAME, spec::name(pod)),
        (labels::POD_NAMESPACE, spec::namespace(pod)),
        (labels::POD_UID, spec::uid(pod)),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

pub(super) fn sandbox(
    context: &Context,
    pod: &Pod,
    attempt: u32,
    address: Option<IpAddr>,
) -> SandboxConfig {
    let spec = spec::spec(pod);
    let host_network = spec.host_network == Some(true);
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(pod_labels(pod));
    let security = spec.security_context.clone().unwrap_or_default();
    let sysctls = security.sysctls.iter().flatten();
    let (namespace, name, uid) = (spec::namespace(pod), spec::name(pod), spec::uid(pod));
    let own_hostname = spec.hostname.clone().filter(|h| !h.is_empty());
    let hostname = if host_network {
        context.node_name.clone()
    } else {
        own_hostname.unwrap_or_else(|| name.chars().take(63).collect())
    };
    SandboxConfig {
        metadata: SandboxMetadata {
            name: name.into(),
            namespace: namespace.into(),
            uid: uid.into(),
            attempt,
        },
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        hostname,
        log_directory: stop::log_directory(context, namespace, name, uid),
        dns: dns(context, pod),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        host_namespaces: HostNamespaces {
            network: host_network,
            pid: spec.host_pid == Some(true),
            ipc: spec.host_ipc == Some(true),
            share_process: spec.share_process_namespace == Some(true),
        },
        address,
        sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
        security,
        runtime_handler: spec.runtime_class_name.clone().unwrap_or_default(),
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let mapping = |port: &ContainerPort| {
        let host_port = u16::try_from(port.host_port?).ok().filter(|p| *p > 0)?;
        Some(PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            container_port: u16::try_from(port.container_port).ok()?,
            host_port,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    };
    spec::all_containers(pod)
        .flat_map(|(_, c)| c.ports.iter().flatten())
        .filter_map(mapping)
        .collect()
}

fn dns(context: &Context, pod: &Pod) -> DnsConfig {
    let spec = spec::spec(pod);
    let options = &context.options;
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = !options.cluster_dns.is_empty()
        && match policy {
            "ClusterFirstWithHostNet" => true,
            "ClusterFirst" => !host_network,
            _ => false,
        };
    let mut dns = if policy == "None" {
        DnsConfig::default()
    } else if cluster {
        let (namespace, domain) = (spec::namespace(pod), &options.cluster_domain);
        let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        DnsConfig {
            servers: options.cluster_dns.iter().map(ToString::to_string).collect(),
            searches: own.into_iter().chain(options.host_dns.searches.clone()).collect(),
            options: vec!["ndots:5".into()],
        }
    } else {
        options.host_dns.clone()
    };
    if let Some(more) = &spec.dns_config {
        dns.servers.extend(more.nameservers.clone().unwrap_or_default());
        dns.searches.extend(more.searches.clone().unwrap_or_default());
        for option in more.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            // A repeated option replaces the one from the policy.
            dns.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            dns.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    dns
}

/// The container's security context with what it takes from the pod's.
fn security(pod: &PodSecurityContext, own: Option<&SecurityContext>) -> SecurityContext {
    let own = own.cloned().unwrap_or_default();
    SecurityContext {
        run_as_user: own.run_as_user.or(pod.run_as_user),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root),
        seccomp_profile: own.seccomp_profile.or_else(|| pod.seccomp_profile.clone()),
        app_armor_profile: own.app_armor_profile.or_else(|| pod.app_armor_profile.clone()),
        se_linux_options: own.se_linux_options.or_else(|| pod.se_linux_options.clone()),
        ..own
    }
}

/// What a container's configuration is made from.
pub(super) struct ContainerInput<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) pod: &'a Pod,
    pub(super) role: Role,
    pub(super) container: &'a Container,
    pub(super) attempt: u32,
    pub(super) image: ImageInfo,
    pub(super) env: Vec<(String, String)>,
    pub(super) volumes: &'a BTreeMap<String, PreparedVolume>,
    pub(super) pod_ips: &'a [IpAddr],
}

pub(super) async fn container(input: ContainerInput<'_>) -> Result<ContainerConfig, String> {
    let ContainerInput { context, pod, role, container, attempt, image, env, volumes, pod_ips } =
        input;
    let variables: HashMap<String, String> = env.iter().cloned().collect();
    let pod_security = spec::spec(pod).security_context.clone().unwrap_or_default();
    let security = security(&pod_security, container.security_context.as_ref());
    verify_non_root(&security, &image)?;
    let mut groups = pod_security.supplemental_groups.clone().unwrap_or_default();
    groups.extend(pod_security.fs_group);
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        mounts.push(self::mount(context, mount, volumes, &variables).await?);
    }
    let mut annotations = annotations(pod, role, container, attempt);
    let mounts_hosts = mounts.iter().any(|m| m.container_path == Path::new(HOSTS));
    if !mounts_hosts && let Some(file) = hosts_file(context, pod, pod_ips).await? {
        mounts.push(Mount { container_path: HOSTS.into(), host_path: file, ..Mount::default() });
    }
    if let Some(file) = termination_file(context, pod, container, attempt).await? {
        let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        annotations
            .insert(labels::TERMINATION_MESSAGE_FILE.into(), file.to_string_lossy().into_owned());
        mounts.push(Mount { container_path: path.into(), host_path: file, ..Mount::default() });
    }
    let mut labels = pod_labels(pod);
    labels.insert(labels::CONTAINER_NAME.into(), container.name.clone());
    let memory = context.options.machine.memory_bytes();
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        image: container.image.clone().unwrap_or_default(),
        image_id: image.id,
        command: env::expand_all(container.command.as_ref(), &variables),
        args: env::expand_all(container.args.as_ref(), &variables),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        env,
        mounts,
        labels,
        annotations,
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources: resources::limits(pod, container, memory),
        security,
        supplemental_groups: groups,
    })
}

fn verify_non_root(security: &SecurityContext, image: &ImageInfo) -> Result<(), String> {
    if security.run_as_non_root != Some(true) {
        return Ok(());
    }
    match (security.run_as_user, image.user.as_deref()) {
        (Some(0), _) => Err("container's runAsUser breaks non-root policy".into()),
        (Some(_), _) => Ok(()),
        (None, Some(user)) if user.parse::<i64>().is_ok_and(|uid| uid != 0) => Ok(()),
        (None, Some(user)) if user.parse::<i64>().is_err() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify \
             user is non-root"
        )),
        _ => Err("container has runAsNonRoot and image will run as root".into()),
    }
}

fn annotations(
    pod: &Pod,
    role: Role,
    container: &Container,
    attempt: u32,
) -> BTreeMap<String, String> {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let grace = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30).to_string();
    [
        (labels::CONTAINER_HASH, spec::container_hash(container)),
        (labels::RESTART_COUNT, attempt.to_string()),
        (labels::TERMINATION_MESSAGE_PATH, path.to_owned()),
        (labels::TERMINATION_MESSAGE_POLICY, policy.to_owned()),
        (labels::POD_GRACE_PERIOD, grace),
        (labels::CONTAINER_KIND, role.label().to_owned()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

/// The pod's `/etc/hosts`: written by the agent, because every runtime needs it. Pods with the
/// host's network have the host's.
///
/// Source: `pkg/kubelet/kubelet_pods.go`, `ensureHostsFile`.
async fn hosts_file(
    context: &Context,
    pod: &Pod,
    pod_ips: &[IpAddr],
) -> Result<Option<PathBuf>, String> {
    let spec = spec::spec(pod);
    let Some(dir) = context.volumes.pod_dir(spec::uid(pod)) else { return Ok(None) };
    if spec.host_network == Some(true) {
        return Ok(None);
    }
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost \
         ip6-loopback\n",
    );
    let hostname = spec.hostname.as_deref().filter(|h| !h.is_empty());
    let hostname = hostname.unwrap_or_else(|| spec::name(pod));
    let domain = &context.options.cluster_domain;
    let full =
        spec.subdomain.as_deref().filter(|s| !s.is_empty()).map(|subdomain| {
            format!("{hostname}.{subdomain}.{}.svc.{domain}\t", spec::namespace(pod))
        });
    for ip in pod_ips {
        text.push_str(&format!("{ip}\t{}{hostname}\n", full.as_deref().unwrap_or_default()));
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    make_dir(dir.clone(), 0o755).await.map_err(|e| e.to_string())?;
    let file = dir.join("etc-hosts");
    tokio::fs::write(&file, text).await.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Some(file))
}

/// The file on the host that stands behind the container's termination message path.
async fn termination_file(
    context: &Context,
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> Result<Option<PathBuf>, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(dir) = context.volumes.pod_dir(spec::uid(pod)) else { return Ok(None) };
    let dir = dir.join("containers").join(&container.name);
    make_dir(dir.clone(), 0o755).await.map_err(|e| e.to_string())?;
    let file = dir.join(format!("{attempt}.termination"));
    let written = async {
        tokio::fs::write(&file, b"").await?;
        tokio::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).await
    };
    written.await.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Some(file))
}

async fn mount(
    context: &Context,
    mount: &VolumeMount,
    volumes: &BTreeMap<String, PreparedVolume>,
    variables: &HashMap<String, String>,
) -> Result<Mount, String> {
    let volume = volumes.get(&mount.name);
    let volume = volume.ok_or_else(|| format!("volume \"{}\" not found", mount.name))?;
    let mut host_path = volume.path.clone();
    let sub_path = match &mount.sub_path_expr {
        Some(template) => expand(template, variables),
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if !sub_path.is_empty() {
        let relative = Path::new(&sub_path);
        if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("subPath {sub_path:?} must be a relative path without '..'"));
        }
        host_path.push(relative);
        if context.info.has_files && !host_path.exists() && !volume.read_only {
            make_dir(host_path.clone(), 0o755).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(Mount {
        volume: mount.name.clone(),
        container_path: mount.mount_path.clone().into(),
        host_path,
        read_only: volume.read_only || mount.read_only == Some(true),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (seconds, text) in [(10, "10s"), (160, "2m40s"), (300, "5m0s"), (3600, "1h0m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let check = |user: Option<i64>, image: Option<&str>| {
            let security = SecurityContext {
                run_as_non_root: Some(true),
                run_as_user: user,
                ..SecurityContext::default()
            };
            let image = ImageInfo { user: image.map(Into::into), ..ImageInfo::default() };
            verify_non_root(&security, &image).is_ok()
        };
        assert!(check(Some(1000), None) && check(None, Some("1000")));
        assert!(!check(Some(0), None) && !check(None, None) && !check(None, Some("web")));
    }
}
