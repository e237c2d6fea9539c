//! Extended resources of a pod that devices stand behind: which of them a node must give as
//! devices, and the claim for these.
//!
//! Source: `pkg/scheduler/framework/plugins/dynamicresources/extendeddynamicresources.go`.
//! Differs: a node that gives all of them itself has no claim, also if the pod has other claims.
//! Upstream makes one without requests then, and fails to tell of it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::ContainerExtendedResourceRequest,
        resource::v1::{DeviceClaim, DeviceRequest, ResourceClaim, ResourceClaimSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use orch_core::extended_resource::{CLAIM_ANNOTATION, may_be_devices};
use parking_lot::Mutex;

use crate::{
    devices::{Allocator, Devices, UNWRITTEN},
    node_info::NodeInfo,
    pod_info::PodInfo,
};

mod mapping;

/// Why a node is out of the question, whatever its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// An earlier cycle left a claim behind.
    Left,
    /// The node does not have a resource that no devices stand behind.
    Resource,
}

impl Unfit {
    /// Upstream's words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Left => "cannot schedule extended resource claim",
            Self::Resource => "cannot fit resource",
        }
    }
}

/// The resources that devices are to give, with their classes.
type Needs = BTreeMap<String, String>;

/// The claim for a pod's extended resources.
#[derive(Debug)]
pub(super) struct Own {
    /// As it will be written, but for its name.
    pub(super) claim: Arc<ResourceClaim>,
    /// For the pod's status.
    pub(super) mappings: Vec<ContainerExtendedResourceRequest>,
}

/// What a pod claims on nodes that give the same resources by themselves.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) own: Arc<Own>,
    /// For all claims of the pod that need devices; its own is the last.
    pub(super) allocator: Arc<Allocator>,
}

/// The extended resources of a pod in one cycle. Forks of the cycle share what is found out.
#[derive(Clone, Debug)]
pub(super) struct Extended {
    /// What the pod requests of each, and the class behind it.
    resources: Arc<BTreeMap<String, Option<String>>>,
    /// A claim that was made in an earlier cycle.
    pub(super) left: Option<Arc<ResourceClaim>>,
    /// As devices and claims are in this cycle.
    allocator: Arc<Allocator>,
    /// The pod's other claims that need devices.
    open: Arc<Vec<Arc<ResourceClaim>>>,
    variants: Arc<Mutex<BTreeMap<Needs, Arc<Variant>>>>,
}

/// The extended resources that a pod requests, with the classes behind them; `None` if devices
/// stand behind none of them.
pub(super) fn backed(pod: &PodInfo, devices: &Devices) -> Option<BTreeMap<String, Option<String>>> {
    let requested = pod.requests().scalar.iter();
    let requested = requested.filter(|(name, amount)| **amount != 0 && may_be_devices(name));
    let with_class = requested.map(|(name, _)| {
        let class = devices.behind(name).and_then(|class| class.metadata.name.clone());
        (name.clone(), class)
    });
    let found: BTreeMap<_, _> = with_class.collect();
    found.values().any(Option::is_some).then_some(found)
}

impl Extended {
    /// Of a pod with these resources. `allocator` has the devices as they are, for whatever claims.
    pub(super) fn new(
        resources: BTreeMap<String, Option<String>>,
        left: Option<Arc<ResourceClaim>>,
        allocator: Arc<Allocator>,
        open: Vec<Arc<ResourceClaim>>,
    ) -> Self {
        let (resources, open) = (Arc::new(resources), Arc::new(open));
        Self { resources, left, allocator, open, variants: Arc::default() }
    }

    /// What the pod claims on a node; `None` if the node gives everything by itself.
    pub(super) fn on(&self, pod: &PodInfo, node: &NodeInfo) -> Result<Option<Arc<Variant>>, Unfit> {
        if self.left.is_some() {
            return Err(Unfit::Left);
        }
        let own = &node.allocatable().scalar;
        let mut needs = Needs::new();
        for (name, class) in &*self.resources {
            match (class, own.get(name)) {
                (Some(class), None | Some(0)) => drop(needs.insert(name.clone(), class.clone())),
                (None, None) => return Err(Unfit::Resource),
                _ => {}
            }
        }
        if needs.is_empty() {
            return Ok(None);
        }
        let mut variants = self.variants.lock();
        if let Some(known) = variants.get(&needs) {
            return Ok(Some(known.clone()));
        }
        let variant = Arc::new(self.variant(pod, &needs));
        variants.insert(needs, variant.clone());
        Ok(Some(variant))
    }

    fn variant(&self, pod: &PodInfo, needs: &Needs) -> Variant {
        let (requests, mappings) = mapping::of(pod.pod(), needs);
        let claim = Arc::new(claim_of(pod, requests));
        let all: Vec<_> = self.open.iter().chain([&claim]).cloned().collect();
        let allocator = Arc::new(self.allocator.for_claims(&all));
        Variant { own: Arc::new(Own { claim, mappings }), allocator }
    }
}

/// The one claim of a pod for all of its extended resources. Until it is written it has the pod's
/// uid: a pod has one at a time.
fn claim_of(pod: &PodInfo, requests: Vec<DeviceRequest>) -> ResourceClaim {
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: pod.key().name.clone(),
        uid: pod.uid().to_string(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ResourceClaim {
        metadata: ObjectMeta {
            namespace: Some(pod.namespace().to_owned()),
            name: Some(UNWRITTEN.to_owned()),
            uid: Some(pod.uid().to_string()),
            generate_name: Some(format!("{}-extended-resources-", pod.key().name)),
            owner_references: Some(vec![owner]),
            annotations: Some([(CLAIM_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec {
            devices: Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() }),
        },
        status: None,
    }
}

/// Whether a claim exists in memory alone.
pub(super) fn is_unwritten(claim: &ResourceClaim) -> bool {
    claim.metadata.name.as_deref() == Some(UNWRITTEN)
}
