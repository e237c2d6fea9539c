//! Amounts of resources in the units that the scheduler counts in.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::quantity::{Amount, QuantityError};

/// What a container without a request counts as when nodes are ranked: 0.1 CPU.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a request counts as when nodes are ranked: 200 MiB.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts per resource. All arithmetic saturates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Local storage in bytes.
    pub ephemeral_storage: i64,
    /// Pods.
    pub pods: i64,
    /// Everything else by name, in whole units.
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts of a resource list.
    ///
    /// # Errors
    /// [`QuantityError`] if an amount is not a quantity.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Result<Self, QuantityError> {
        let mut amounts = Amounts::new();
        for (name, quantity) in list.into_iter().flatten() {
            amounts.insert(name, quantity.0.parse()?);
        }
        Ok(Self::from_amounts(&amounts))
    }

    fn from_amounts(amounts: &Amounts<'_>) -> Self {
        let mut resources = Self::default();
        for (name, amount) in amounts {
            match *name {
                "cpu" => resources.milli_cpu = amount.milli_value(),
                "memory" => resources.memory = amount.value(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.value(),
                "pods" => resources.pods = amount.value(),
                other => {
                    resources.scalar.insert(other.to_owned(), amount.value());
                }
            }
        }
        resources
    }

    /// Adds, resource by resource.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Subtracts, resource by resource.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn combine(&mut self, other: &Self, combine: fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, other.milli_cpu);
        self.memory = combine(self.memory, other.memory);
        self.ephemeral_storage = combine(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let sum = combine(self.scalar(name), *amount);
            if let Some(have) = self.scalar.get_mut(name) {
                *have = sum;
            } else {
                self.scalar.insert(name.clone(), sum);
            }
        }
    }

    /// The amount of a resource other than the built-in ones; zero if there is none.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar.get(name).copied().unwrap_or(0)
    }

    /// Whether nothing but pods is counted here.
    pub fn is_nothing(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalar.values().all(|amount| *amount == 0)
    }
}

type Amounts<'a> = BTreeMap<&'a str, Amount>;

/// CPU and memory for ranking, where a container without requests counts as a small one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonZero {
    /// CPU in thousandths.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
}

/// What a pod requests: its containers together, or its init containers at their peak, plus
/// overhead; pod-level requests override both.
///
/// Source: `k8s.io/component-helpers/resource/helpers.go`, `PodRequests`.
pub(crate) fn pod_requests(spec: &PodSpec) -> Result<(Resources, NonZero), QuantityError> {
    let exact = sum(spec, false)?;
    let filled = sum(spec, true)?;
    let non_zero = NonZero {
        milli_cpu: filled.get("cpu").map_or(0, |amount| amount.milli_value()),
        memory: filled.get("memory").map_or(0, |amount| amount.value()),
    };
    Ok((Resources::from_amounts(&exact), non_zero))
}

fn sum(spec: &PodSpec, fill: bool) -> Result<Amounts<'_>, QuantityError> {
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &requests(container, fill)?);
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container, fill)?;
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut at_once = sidecars.clone();
            add(&mut at_once, &own);
            raise(&mut peak, &at_once);
        }
    }
    raise(&mut total, &peak);
    let pod_level = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    for (name, quantity) in pod_level.into_iter().flatten() {
        total.insert(name, quantity.0.parse()?);
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        *total.entry(name).or_default() += quantity.0.parse::<Amount>()?;
    }
    Ok(total)
}

fn requests(container: &Container, fill: bool) -> Result<Amounts<'_>, QuantityError> {
    let mut amounts = Amounts::new();
    if fill {
        amounts.insert("cpu", Amount::from_milli(DEFAULT_MILLI_CPU));
        let format = orch_core::quantity::Format::BinarySI;
        amounts.insert("memory", Amount::from_value(DEFAULT_MEMORY, format));
    }
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    for (name, quantity) in requests.into_iter().flatten() {
        amounts.insert(name, quantity.0.parse()?);
    }
    Ok(amounts)
}

fn add<'a>(total: &mut Amounts<'a>, more: &Amounts<'a>) {
    for (name, amount) in more {
        *total.entry(name).or_default() += *amount;
    }
}

fn raise<'a>(total: &mut Amounts<'a>, floor: &Amounts<'a>) {
    for (name, amount) in floor {
        let have = total.entry(name).or_default();
        *have = (*have).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(spec: serde_json::Value, milli_cpu: i64, memory: i64, non_zero: (i64, i64)) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let (requests, filled) = pod_requests(&spec).unwrap();
        assert_eq!((requests.milli_cpu, requests.memory), (milli_cpu, memory));
        assert_eq!((filled.milli_cpu, filled.memory), non_zero);
    }

    fn container(cpu: &str) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}})
    }

    #[test]
    fn requests_are_the_sum_or_the_peak() {
        let mib = 1 << 20;
        check(
            json!({"containers": [container("1"), container("500m")]}),
            1500,
            2 * mib,
            (1500, 2 * mib),
        );
        check(json!({"containers": [{"name": "c"}]}), 0, 0, (100, 200 * mib));
        check(
            json!({"containers": [container("1")], "initContainers": [container("3")]}),
            3000,
            mib,
            (3000, mib),
        );
        let mut sidecar = container("1");
        sidecar["restartPolicy"] = "Always".into();
        check(
            json!({"containers": [container("1")], "initContainers": [sidecar, container("3")]}),
            4000,
            2 * mib,
            (4000, 2 * mib),
        );
        check(
            json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}),
            1250,
            mib,
            (1250, mib),
        );
        check(
            json!({"containers": [container("1")], "resources": {"requests": {"cpu": "5"}}}),
            5000,
            mib,
            (5000, mib),
        );
    }
}
