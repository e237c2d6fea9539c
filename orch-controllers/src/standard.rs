//! The standard controllers, as data.

use std::{fmt, sync::Arc};

use orch_core::informer::Informers;

use crate::{
    bootstrap_token::{bootstrap_signer, token_cleaner},
    certificates::{Signers, certificate_approving, certificate_cleaner, certificate_signing},
    cluster_role_aggregation::cluster_role_aggregation,
    cron_job::cron_job,
    daemon_set::daemon_set,
    deployment::deployment,
    device_taint_eviction::device_taint_eviction,
    disruption::disruption,
    endpoint_slice::{endpoint_slice, endpoint_slice_mirroring},
    endpoints::endpoints,
    garbage::garbage_collector,
    job::job,
    load_balancer::{LoadBalancer, ServiceOptions, service_load_balancer},
    manager::Runnable,
    namespace::namespace,
    node_ipam::{NodeRanges, node_ipam},
    node_lifecycle::{NodeLifecycleOptions, node_lifecycle},
    node_ttl::node_ttl,
    pod_autoscaler::{
        horizontal_pod_autoscaler,
        metrics::{Metrics, ResourceMetricsApi},
    },
    pod_gc::{PodGcOptions, pod_garbage_collector},
    pod_group_protection::pod_group_protection,
    replicas::{replica_set, replication_controller},
    resource_claim::{ResourceClaimMetrics, resource_claim},
    resource_quota::resource_quota,
    resource_types::ResourceTypes,
    service_account::{TokenGenerator, root_ca_publisher, service_account, service_account_token},
    stateful_set::stateful_set,
    storage_version::{storage_version_gc, storage_version_migrator},
    taint_eviction::taint_eviction,
    ttl_after_finished::ttl_after_finished,
    volumes::{
        AttachDetachOptions, Provisioner, StorageMetrics, VolumeExpander, attach_detach,
        attributes_class_protection, claim_protection, ephemeral_volume, volume_binder,
        volume_expansion, volume_protection,
    },
};

/// What the standard controllers need to know.
#[derive(Clone)]
pub struct StandardOptions {
    /// Which run, in the notation of `kube-controller-manager --controllers`: `*` is all but those
    /// of [`OFF_BY_DEFAULT`], a name is that one, `-name` is all but that one. Later entries outweigh
    /// earlier ones. Default `*`.
    pub controllers: Vec<String>,
    /// The kinds of objects there are, for garbage collection and for emptying namespaces.
    pub types: Arc<dyn ResourceTypes>,
    /// The certificates (PEM) by which clients know the API server. Without them the root CA
    /// publisher does not run. Default none.
    pub root_ca_pem: Option<String>,
    /// When pods that nobody else removes are removed.
    pub pod_gc: PodGcOptions,
    /// When a node counts as gone silent.
    pub node_lifecycle: NodeLifecycleOptions,
    /// Where autoscalers get their measurements. Default `metrics.k8s.io` of the cluster, where
    /// there is one.
    pub metrics: Option<Arc<dyn Metrics>>,
    /// What balances the load of Services of type `LoadBalancer`. Default nothing: they wait.
    pub load_balancer: Option<Arc<dyn LoadBalancer>>,
    /// Makes the tokens that lie in secrets. Default nobody: such secrets get none.
    pub tokens: Option<Arc<dyn TokenGenerator>>,
    /// Who signs for the signers of `kubernetes.io`. Default nobody.
    pub signers: Option<Signers>,
    /// Out of which ranges nodes get their pods' addresses. Default none: they get none.
    pub node_ipam: Option<NodeRanges>,
    /// What the controller of claims for devices counts. Keep a clone to read it.
    pub resource_claim_metrics: ResourceClaimMetrics,
    /// Who makes volumes for claims. Default nobody.
    pub provisioners: Vec<Arc<dyn Provisioner>>,
    /// Who makes volumes larger. Default nobody.
    pub expanders: Vec<Arc<dyn VolumeExpander>>,
    /// How volumes are detached from nodes that do not let them go.
    pub attach_detach: AttachDetachOptions,
    /// Where the controllers of volumes count. Default numbers that nobody reads.
    pub storage_metrics: StorageMetrics,
}

impl StandardOptions {
    /// All controllers, with upstream's defaults.
    pub fn new(types: impl ResourceTypes) -> Self {
        Self {
            controllers: vec!["*".to_owned()],
            types: Arc::new(types),
            root_ca_pem: None,
            pod_gc: PodGcOptions::default(),
            node_lifecycle: NodeLifecycleOptions::default(),
            metrics: None,
            load_balancer: None,
            tokens: None,
            signers: None,
            node_ipam: None,
            resource_claim_metrics: ResourceClaimMetrics::default(),
            provisioners: Vec::new(),
            expanders: Vec::new(),
            attach_detach: AttachDetachOptions::default(),
            storage_metrics: StorageMetrics::default(),
        }
    }

    /// Whether [`controllers`](Self::controllers) asks for the one of this name.
    pub fn enables(&self, name: &str) -> bool {
        is_enabled(name, &self.controllers)
    }
}

impl fmt::Debug for StandardOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandardOptions").field("controllers", &self.controllers).finish()
    }
}

/// No standard controller has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a standard controller; there are: {list}", list = names().collect::<Vec<_>>().join(", "))]
pub struct UnknownController(pub String);

/// Those that `*` does not stand for: they run if they are named.
///
/// Source: `ControllersDisabledByDefault` of kube-controller-manager, and the gates
/// `StorageVersionAPI`, `StorageVersionMigrator` and `GenericWorkload`, whose kinds are served by option
/// only.
pub const OFF_BY_DEFAULT: [&str; 5] = [
    "bootstrap-signer-controller",
    "token-cleaner-controller",
    "storageversion-garbage-collector-controller",
    "storage-version-migrator-controller",
    "podgroup-protection-controller",
];

type Build = fn(&Informers, &StandardOptions) -> Option<Runnable>;

/// Names, as upstream's, and how each is built.
const CONTROLLERS: &[(&str, Build)] = &[
    ("deployment-controller", |informers, _| Some(deployment(informers).into())),
    ("replicaset-controller", |informers, _| Some(replica_set(informers).into())),
    ("replicationcontroller-controller", |informers, _| {
        Some(replication_controller(informers).into())
    }),
    ("job-controller", |informers, _| Some(job(informers).into())),
    ("cronjob-controller", |informers, _| Some(cron_job(informers).into())),
    ("statefulset-controller", |informers, _| Some(stateful_set(informers).into())),
    ("daemonset-controller", |informers, _| Some(daemon_set(informers).into())),
    ("endpoints-controller", |informers, _| Some(endpoints(informers).into())),
    ("endpointslice-controller", |informers, _| Some(endpoint_slice(informers).into())),
    ("endpointslice-mirroring-controller", |informers, _| {
        Some(endpoint_slice_mirroring(informers).into())
    }),
    ("resourcequota-controller", |informers, options| {
        Some(resource_quota(informers, options.types.clone()))
    }),
    ("namespace-controller", |informers, options| {
        Some(namespace(informers, options.types.clone()).into())
    }),
    ("garbage-collector-controller", |informers, options| {
        Some(garbage_collector(informers, options.types.clone()))
    }),
    ("serviceaccount-controller", |informers, _| Some(service_account(informers).into())),
    ("serviceaccount-token-controller", |informers, options| {
        let (generator, root_ca) = (options.tokens.clone()?, options.root_ca_pem.as_deref());
        Some(service_account_token(informers, generator, root_ca).into())
    }),
    ("root-ca-certificate-publisher-controller", |informers, options| {
        let root_ca_pem = options.root_ca_pem.as_deref()?;
        Some(root_ca_publisher(informers, root_ca_pem).into())
    }),
    ("node-lifecycle-controller", |informers, options| {
        Some(node_lifecycle(informers, options.node_lifecycle).into())
    }),
    ("taint-eviction-controller", |informers, _| Some(taint_eviction(informers).into())),
    ("device-taint-eviction-controller", |informers, _| {
        Some(device_taint_eviction(informers).into())
    }),
    ("pod-garbage-collector-controller", |informers, options| {
        Some(pod_garbage_collector(informers, options.pod_gc))
    }),
    ("disruption-controller", |informers, _| Some(disruption(informers).into())),
    ("persistentvolume-binder-controller", |informers, options| {
        Some(volume_binder(informers, options.provisioners.clone()).into())
    }),
    ("persistentvolume-attach-detach-controller", |informers, options| {
        let metrics = options.storage_metrics.clone();
        Some(attach_detach(informers, options.attach_detach, metrics).into())
    }),
    ("persistentvolume-expander-controller", |informers, options| {
        Some(volume_expansion(informers, options.expanders.clone()).into())
    }),
    ("ephemeral-volume-controller", |informers, options| {
        Some(ephemeral_volume(informers, options.storage_metrics.clone()).into())
    }),
    ("volumeattributesclass-protection-controller", |informers, _| {
        Some(attributes_class_protection(informers).into())
    }),
    ("persistentvolumeclaim-protection-controller", |informers, _| {
        Some(claim_protection(informers).into())
    }),
    ("persistentvolume-protection-controller", |informers, _| {
        Some(volume_protection(informers).into())
    }),
    ("horizontal-pod-autoscaler-controller", |informers, options| {
        let api = || Arc::new(ResourceMetricsApi::new(informers.client().clone()));
        let metrics = options.metrics.clone().unwrap_or_else(|| api());
        Some(horizontal_pod_autoscaler(informers, options.types.clone(), metrics).into())
    }),
    ("clusterrole-aggregation-controller", |informers, _| {
        Some(cluster_role_aggregation(informers).into())
    }),
    ("service-lb-controller", |informers, options| {
        let balancer = options.load_balancer.clone()?;
        Some(service_load_balancer(informers, ServiceOptions::default(), balancer))
    }),
    ("certificatesigningrequest-signing-controller", |informers, options| {
        Some(certificate_signing(informers, options.signers.clone()?).into())
    }),
    ("certificatesigningrequest-approving-controller", |informers, _| {
        Some(certificate_approving(informers).into())
    }),
    ("certificatesigningrequest-cleaner-controller", |informers, _| {
        Some(certificate_cleaner(informers).into())
    }),
    ("ttl-controller", |informers, _| Some(node_ttl(informers).into())),
    ("node-ipam-controller", |informers, options| {
        let ranges = options.node_ipam.as_ref()?;
        Some(node_ipam(informers, ranges).into())
    }),
    ("bootstrap-signer-controller", |informers, _| Some(bootstrap_signer(informers).into())),
    ("token-cleaner-controller", |informers, _| Some(token_cleaner(informers).into())),
    ("storageversion-garbage-collector-controller", |informers, _| {
        Some(storage_version_gc(informers).into())
    }),
    ("storage-version-migrator-controller", |informers, options| {
        Some(storage_version_migrator(informers, options.types.clone()).into())
    }),
    ("resourceclaim-controller", |informers, options| {
        Some(resource_claim(informers, options.resource_claim_metrics.clone()))
    }),
    ("podgroup-protection-controller", |informers, _| Some(pod_group_protection(informers).into())),
    ("ttl-after-finished-controller", |informers, _| Some(ttl_after_finished(informers).into())),
];

/// The names of all standard controllers.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONTROLLERS.iter().map(|(name, _)| *name)
}

/// The standard controllers that the options ask for, ready for a
/// [`Manager`](crate::Manager). Call it inside a tokio runtime: their informers start at once.
///
/// # Errors
/// [`UnknownController`] if a name in the options is none of [`names`].
///
/// ```
/// # use std::sync::Arc;
/// # use k8s_openapi::api::core::v1::Pod;
/// use orch_controllers::{Manager, standard::{StandardOptions, standard}};
/// use orch_core::{Environment, ResourceType, informer::Informers, testing::MemoryClient};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let environment = Environment::system();
/// let cluster = Arc::new(MemoryClient::new(environment.clone()));
/// let mut options = StandardOptions::new(vec![ResourceType::of::<Pod>()]);
/// options.controllers.push("-garbage-collector-controller".into());
/// let mut manager = Manager::new();
/// manager.extend(standard(&Informers::new(cluster, environment), &options)?);
/// assert!(manager.names().any(|name| name == "deployment-controller"));
/// # Ok(()) }
/// ```
pub fn standard(
    informers: &Informers,
    options: &StandardOptions,
) -> Result<Vec<Runnable>, UnknownController> {
    for entry in &options.controllers {
        let name = entry.strip_prefix('-').unwrap_or(entry);
        if name != "*" && !names().any(|known| known == name) {
            return Err(UnknownController(name.to_owned()));
        }
    }
    let enabled = CONTROLLERS.iter().filter(|(name, _)| options.enables(name));
    Ok(enabled.filter_map(|(_, build)| build(informers, options)).collect())
}

fn is_enabled(name: &str, entries: &[String]) -> bool {
    let decides = entries.iter().rev().find_map(|entry| match entry.strip_prefix('-') {
        Some(disabled) => (disabled == name || disabled == "*").then_some(false),
        None if entry == "*" => Some(!OFF_BY_DEFAULT.contains(&name)),
        None => (entry == name).then_some(true),
    });
    decides.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_entries_outweigh_earlier_ones() {
        let check = |entries: &[&str], expected: bool| {
            let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
            assert_eq!(is_enabled("job-controller", &entries), expected, "{entries:?}");
        };
        check(&["*"], true);
        check(&["*", "-job-controller"], false);
        check(&["job-controller"], true);
        check(&["deployment-controller"], false);
        check(&["-*", "job-controller"], true);
    }

    #[test]
    fn the_table_of_names_is_whole() {
        let table = include_str!("../README.md");
        for name in names() {
            let row = table.lines().find(|line| line.starts_with(&format!("| `{name}` | `")));
            assert!(row.is_some(), "README.md names no module of {name}");
        }
    }

    #[test]
    fn some_run_only_if_they_are_named() {
        let entries = |all: &[&str]| all.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
        for name in OFF_BY_DEFAULT {
            assert!(names().any(|known| known == name), "{name}");
            assert!(!is_enabled(name, &entries(&["*"])));
            assert!(is_enabled(name, &entries(&["*", name])));
        }
    }
}
