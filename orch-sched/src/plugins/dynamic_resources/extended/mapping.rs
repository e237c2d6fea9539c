//! The requests of a claim for extended resources, and which of them each container uses.
//!
//! Source: `pkg/scheduler/framework/plugins/dynamicresources/extendeddynamicresources.go`,
//! `createRequestsAndMappings`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    core::v1::{Container, ContainerExtendedResourceRequest, Pod},
    resource::v1::{DeviceRequest, ExactDeviceRequest},
};
use orch_core::quantity::Amount;

type Mappings = Vec<ContainerExtendedResourceRequest>;

/// A container with its place among all, init containers first.
type Placed<'p> = (usize, &'p Container);

/// A request for so many devices.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    count: i64,
}

/// What one container wants of one resource, beyond what it uses of others.
#[derive(Debug, Default)]
struct Share {
    request: Option<Wanted>,
    mappings: Mappings,
}

/// Requests for the resources `needs`, which are by class, and who uses them.
pub(super) fn of(pod: &Pod, needs: &BTreeMap<String, String>) -> (Vec<DeviceRequest>, Mappings) {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let all = init.iter().chain(main).enumerate();
    let ends = |(at, container): &Placed<'_>| {
        *at < init.len() && container.restart_policy.as_deref() != Some("Always")
    };
    let (short, long): (Vec<Placed<'_>>, Vec<Placed<'_>>) = all.partition(ends);
    let (mut requests, mut mappings) = (Vec::new(), Mappings::new());
    for (resource, class) in needs {
        let (wanted, used) = of_resource(resource, &short, &long);
        requests.extend(wanted.into_iter().map(|one| one.into_request(class)));
        mappings.extend(used);
    }
    requests.sort_by(|a: &DeviceRequest, b| a.name.cmp(&b.name));
    (requests, mappings)
}

/// Containers that end before others begin use the devices of those, and share what they want
/// beyond them.
fn of_resource(
    resource: &str,
    short: &[Placed<'_>],
    long: &[Placed<'_>],
) -> (Vec<Wanted>, Mappings) {
    let mut lasting: Vec<(usize, Wanted)> = Vec::new();
    let mut mappings = Mappings::new();
    for one in long {
        let share = share(*one, resource, std::iter::empty());
        lasting.extend(share.request.map(|request| (one.0, request)));
        mappings.extend(share.mappings);
    }
    let (mut most, mut names, mut passing): (Option<Wanted>, BTreeSet<String>, Mappings) =
        Default::default();
    for one in short {
        let later = lasting.iter().filter(|(at, _)| *at >= one.0).map(|(_, wanted)| wanted);
        let share = share(*one, resource, later);
        passing.extend(share.mappings);
        let Some(request) = share.request else { continue };
        names.insert(request.name.clone());
        if most.as_ref().is_none_or(|most| most.count < request.count) {
            most = Some(request);
        }
    }
    if let Some(most) = &most {
        let shared = passing.iter_mut().filter(|one| names.contains(&one.request_name));
        shared.for_each(|one| one.request_name.clone_from(&most.name));
    }
    mappings.extend(passing);
    let wanted = most.into_iter().chain(lasting.into_iter().map(|(_, wanted)| wanted));
    (wanted.collect(), mappings)
}

fn share<'w>(
    (at, container): Placed<'_>,
    resource: &str,
    reusable: impl Iterator<Item = &'w Wanted>,
) -> Share {
    let requests = container.resources.as_ref().and_then(|all| all.requests.as_ref());
    let amount = requests.and_then(|all| all.get(resource)?.0.parse::<Amount>().ok());
    let (Some(requests), Some(amount)) = (requests, amount) else { return Share::default() };
    let count = amount.value();
    if count == 0 {
        return Share::default();
    }
    let mapping = |request: &str| ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request.to_owned(),
    };
    let (mut have, mut mappings) = (0, Mappings::new());
    for one in reusable {
        have += one.count;
        mappings.push(mapping(&one.name));
        if have >= count {
            return Share { request: None, mappings };
        }
    }
    // The map is sorted by name.
    let place = requests.keys().position(|name| name == resource).unwrap_or_default();
    let name = format!("container-{at}-request-{place}");
    mappings.push(mapping(&name));
    Share { request: Some(Wanted { name, count: count - have }), mappings }
}

impl Wanted {
    fn into_request(self, class: &str) -> DeviceRequest {
        let exactly = ExactDeviceRequest {
            device_class_name: class.to_owned(),
            allocation_mode: Some("ExactCount".to_owned()),
            count: Some(self.count),
            ..ExactDeviceRequest::default()
        };
        DeviceRequest { name: self.name, exactly: Some(exactly), first_available: None }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GPU: &str = "example.com/gpu";
    const NIC: &str = "example.com/nic";

    fn container(name: &str, requests: &Value) -> Value {
        json!({"name": name, "resources": {"requests": requests}})
    }

    fn gpus(name: &str, count: u32) -> Value {
        container(name, &json!({"cpu": "1", GPU: count.to_string()}))
    }

    fn sidecar(name: &str, count: u32) -> Value {
        let mut sidecar = gpus(name, count);
        sidecar["restartPolicy"] = "Always".into();
        sidecar
    }

    /// The requests as `name=class:count`, and who uses them as `container/resource=request`.
    #[track_caller]
    fn check(init: &[Value], main: &[Value], expected: &[&str], used: &[&str]) {
        let spec = json!({"spec": {"initContainers": init, "containers": main}});
        let pod: Pod = serde_json::from_value(spec).unwrap();
        let classes = [(GPU, "gpus"), (NIC, "nics")];
        let needs = classes.map(|(name, class)| (name.to_owned(), class.to_owned())).into();
        let (requests, mappings) = of(&pod, &needs);
        let request = |one: &DeviceRequest| {
            let exactly = one.exactly.as_ref().unwrap();
            let count = exactly.count.unwrap();
            format!("{}={}:{count}", one.name, exactly.device_class_name)
        };
        let requests: Vec<_> = requests.iter().map(request).collect();
        assert_eq!(requests, expected);
        let mapping = |one: &ContainerExtendedResourceRequest| {
            let resource = one.resource_name.rsplit('/').next().unwrap();
            format!("{}/{resource}={}", one.container_name, one.request_name)
        };
        let mappings: Vec<_> = mappings.iter().map(mapping).collect();
        assert_eq!(mappings, used);
    }

    #[test]
    fn each_container_has_its_requests() {
        check(
            &[],
            &[gpus("a", 2)],
            &["container-0-request-1=gpus:2"],
            &["a/gpu=container-0-request-1"],
        );
        let both = container("b", &json!({GPU: "1", NIC: "3"}));
        check(
            &[],
            &[gpus("a", 2), both, gpus("none", 0)],
            &[
                "container-0-request-1=gpus:2",
                "container-1-request-0=gpus:1",
                "container-1-request-1=nics:3",
            ],
            &[
                "a/gpu=container-0-request-1",
                "b/gpu=container-1-request-0",
                "b/nic=container-1-request-1",
            ],
        );
    }

    #[test]
    fn what_ends_first_leaves_its_devices_to_what_follows() {
        // Enough is there for it.
        check(
            &[gpus("i", 2)],
            &[gpus("a", 1), gpus("b", 2)],
            &["container-1-request-1=gpus:1", "container-2-request-1=gpus:2"],
            &[
                "a/gpu=container-1-request-1",
                "b/gpu=container-2-request-1",
                "i/gpu=container-1-request-1",
                "i/gpu=container-2-request-1",
            ],
        );
        // Those that want more share the largest request.
        check(
            &[gpus("i", 3), gpus("j", 5)],
            &[gpus("a", 1)],
            &["container-1-request-1=gpus:4", "container-2-request-1=gpus:1"],
            &[
                "a/gpu=container-2-request-1",
                "i/gpu=container-2-request-1",
                "i/gpu=container-1-request-1",
                "j/gpu=container-2-request-1",
                "j/gpu=container-1-request-1",
            ],
        );
        // A sidecar that began before is not there for it, one that begins later is.
        check(
            &[sidecar("s", 2), gpus("i", 1), sidecar("t", 1)],
            &[container("a", &json!({}))],
            &["container-0-request-1=gpus:2", "container-2-request-1=gpus:1"],
            &[
                "s/gpu=container-0-request-1",
                "t/gpu=container-2-request-1",
                "i/gpu=container-2-request-1",
            ],
        );
    }
}
