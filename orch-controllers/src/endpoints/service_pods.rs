//! Which pods a Service selects, and under which ports it reaches them.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Container, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use orch_core::{
    Key,
    informer::{Change, Informer},
};

use crate::{
    context::Context,
    pods::{self, Labels},
};

/// Services by one pair of their selector, pods by every pair of their labels: a change of a pod
/// finds its services, and a service its pods, without a look at all the others.
const BY_PAIR: &str = "label-pair";

/// A service's port as one pod has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResolvedPort {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
    pub(crate) app_protocol: Option<String>,
}

/// Services and pods, each findable by the other.
#[derive(Clone)]
pub(crate) struct ServicePods {
    services: Informer<Service>,
    pods: Informer<Pod>,
}

fn pair(namespace: Option<&String>, key: &str, value: &str) -> String {
    format!("{}/{key}={value}", namespace.map_or("", String::as_str))
}

fn selector(service: &Service) -> Option<&Labels> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

impl ServicePods {
    pub(crate) fn new(context: &Context) -> Self {
        let (services, pods) = (context.informer::<Service>(), context.informer::<Pod>());
        services.add_index(BY_PAIR, |service| {
            let namespace = service.metadata.namespace.as_ref();
            let first = selector(service).and_then(|selector| selector.iter().next());
            first.map(|(key, value)| pair(namespace, key, value)).into_iter().collect()
        });
        pods.add_index(BY_PAIR, |pod| {
            let namespace = pod.metadata.namespace.as_ref();
            let labels = pod.metadata.labels.iter().flatten();
            labels.map(|(key, value)| pair(namespace, key, value)).collect()
        });
        Self { services, pods }
    }

    pub(crate) fn service(&self, key: &Key) -> Option<Arc<Service>> {
        self.services.get(key)
    }

    /// The pods that a service selects and that may be addressed: they have an address and are not
    /// over. They may be on their way out.
    pub(crate) fn pods(&self, service: &Service) -> Vec<Arc<Pod>> {
        let namespace = service.metadata.namespace.as_ref();
        let Some(selector) = selector(service) else { return Vec::new() };
        let first = selector.iter().next().map(|(key, value)| pair(namespace, key, value));
        let candidates = first.map(|first| self.pods.by_index(BY_PAIR, &first));
        let mut pods = candidates.unwrap_or_default();
        pods.retain(|pod| {
            includes(selector, pod.metadata.labels.as_ref()) && !pods::is_terminal(pod)
        });
        pods
    }

    /// The services that a change of a pod concerns.
    pub(crate) fn services_of(&self, change: &Change<Pod>) -> Vec<Key> {
        match change {
            Change::Added(pod) | Change::Deleted(pod) => self.selecting(pod),
            Change::Updated { old, new } => {
                let relabeled = old.metadata.labels != new.metadata.labels;
                if !relabeled && !changes_endpoint(old, new) {
                    return Vec::new();
                }
                let mut keys = self.selecting(new);
                if relabeled {
                    keys.extend(self.selecting(old));
                }
                keys
            }
        }
    }

    fn selecting(&self, pod: &Pod) -> Vec<Key> {
        let namespace = pod.metadata.namespace.as_ref();
        let labels = pod.metadata.labels.as_ref();
        labels
            .into_iter()
            .flatten()
            .flat_map(|(key, value)| self.services.by_index(BY_PAIR, &pair(namespace, key, value)))
            .filter(|service| selector(service).is_some_and(|s| includes(s, labels)))
            .map(|service| Key::of(&service.metadata))
            .collect()
    }
}

fn includes(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn changes_endpoint(old: &Pod, new: &Pod) -> bool {
    let seen = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            pods::is_ready(pod),
            pods::is_terminal(pod),
            pods::is_terminating(pod),
            status.and_then(|status| status.pod_ips.clone()),
            status.and_then(|status| status.pod_ip.clone()),
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        )
    };
    seen(old) != seen(new)
}

/// Whether the service's endpoints are to be found by its selector.
pub(crate) fn is_selecting(service: &Service) -> bool {
    let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    selector(service).is_some() && external != Some("ExternalName")
}

/// Whether the service has no address of its own, by wish.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The pod's address of one family.
pub(crate) fn address(pod: &Pod, v6: bool) -> Option<String> {
    let status = pod.status.as_ref()?;
    let many = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    many.chain(&status.pod_ip).find(|ip| ip.contains(':') == v6).cloned()
}

/// The name under which DNS knows the pod below the service.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let below = spec.subdomain.as_ref().is_some_and(|s| service.metadata.name.as_ref() == Some(s));
    spec.hostname.clone().filter(|hostname| below && !hostname.is_empty())
}

/// The service's ports, named ones as the pod's containers have them. A port that the pod does not
/// have is left out.
pub(crate) fn resolve_ports(service: &Service, pod: &Pod) -> Vec<ResolvedPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let resolve = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(ResolvedPort {
            name: port.name.clone().unwrap_or_default(),
            port: target_port(port, &protocol, pod)?,
            protocol,
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.iter().filter_map(resolve).collect()
}

fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|port| {
        port.name.as_ref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found.map(|port| port.container_port)
}
