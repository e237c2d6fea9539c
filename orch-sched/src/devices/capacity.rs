//! What several claims may take of one device.
//!
//! Source: `structured/internal/incubating/consumable_capacity.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1 as api;
use orch_core::quantity::{Amount, Format};

use super::slice::amount;

/// Amounts by the name of a capacity.
pub(super) type Amounts = BTreeMap<String, Amount>;

/// A capacity of a device, and which parts of it can be had.
#[derive(Debug)]
pub(super) struct Capacity {
    whole: Amount,
    policy: Option<Policy>,
}

#[derive(Debug)]
struct Policy {
    default: Option<Amount>,
    values: Vec<Amount>,
    range: Option<Range>,
}

#[derive(Debug)]
struct Range {
    min: Amount,
    max: Option<Amount>,
    step: Option<Amount>,
}

impl Range {
    /// How far an amount is from the last step before it.
    fn rest(&self, of: Amount) -> i64 {
        let step = self.step.map_or(0, Amount::value);
        if step <= 0 { 0 } else { of.value().saturating_sub(self.min.value()) % step }
    }

    fn rounded_up(&self, wanted: Amount) -> Amount {
        if wanted < self.min {
            return self.min;
        }
        let (rest, step) = (self.rest(wanted), self.step.map_or(0, Amount::value));
        if step <= 0 {
            return wanted;
        }
        let up = if rest == 0 { 0 } else { step - rest };
        Amount::from_value(wanted.value().saturating_add(up), Format::BinarySI)
    }
}

impl Policy {
    fn read(policy: &api::CapacityRequestPolicy) -> Self {
        let range = policy.valid_range.as_ref();
        Self {
            default: policy.default.as_ref().map(amount),
            values: policy.valid_values.iter().flatten().map(amount).collect(),
            range: range.map(|range| Range {
                min: amount(&range.min),
                max: range.max.as_ref().map(amount),
                step: range.step.as_ref().map(amount),
            }),
        }
    }

    fn rounded_up(&self, wanted: Amount) -> Amount {
        match &self.range {
            Some(range) => range.rounded_up(wanted),
            None => self.values.iter().copied().find(|value| wanted <= *value).unwrap_or(wanted),
        }
    }

    fn allows(&self, taken: Amount) -> bool {
        if self.default == Some(taken) {
            return true;
        }
        match &self.range {
            Some(range) => range.max.is_none_or(|max| taken <= max) && range.rest(taken) == 0,
            None => self.values.is_empty() || self.values.contains(&taken),
        }
    }
}

impl Capacity {
    pub(super) fn read(capacity: &api::DeviceCapacity) -> Self {
        let policy = capacity.request_policy.as_ref().map(Policy::read);
        Self { whole: amount(&capacity.value), policy }
    }

    /// What a claim takes that asks for so much, or does not say.
    fn taken(&self, wanted: Option<Amount>) -> Amount {
        match (wanted, &self.policy) {
            (None, policy) => policy.as_ref().and_then(|of| of.default).unwrap_or(self.whole),
            (Some(wanted), None) => wanted,
            (Some(wanted), Some(policy)) => policy.rounded_up(wanted),
        }
    }
}

fn wanted_of(wanted: Option<&Amounts>, name: &str) -> Option<Amount> {
    wanted.and_then(|wanted| wanted.get(name)).copied()
}

/// What a claim takes of each capacity of a device.
pub(super) fn taken(capacities: &BTreeMap<String, Capacity>, wanted: Option<&Amounts>) -> Amounts {
    let of = |(name, capacity): (&String, &Capacity)| {
        (name.clone(), capacity.taken(wanted_of(wanted, name)))
    };
    capacities.iter().map(of).collect()
}

/// Whether a device has what a claim wants, beside what is used of it.
pub(super) fn is_enough(
    capacities: &BTreeMap<String, Capacity>,
    wanted: Option<&Amounts>,
    used: [Option<&Amounts>; 2],
) -> bool {
    if wanted.is_some_and(|wanted| wanted.keys().any(|name| !capacities.contains_key(name))) {
        return false;
    }
    capacities.iter().all(|(name, capacity)| {
        let taken = capacity.taken(wanted_of(wanted, name));
        let allowed = capacity.policy.as_ref().is_none_or(|policy| policy.allows(taken));
        let used = used.into_iter().flatten().filter_map(|used| used.get(name).copied());
        allowed && used.sum::<Amount>() + taken <= capacity.whole
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_rounded_up_to_what_can_be_had() {
        let check =
            |policy: serde_json::Value, wanted: Option<&str>, expected: &str, fits: bool| {
                let capacity = json!({"value": "10Gi", "requestPolicy": policy});
                let capacity = Capacity::read(&serde_json::from_value(capacity).unwrap());
                let capacities = BTreeMap::from([("memory".to_owned(), capacity)]);
                let wanted =
                    wanted.map(|text| Amounts::from([("memory".into(), text.parse().unwrap())]));
                let taken = taken(&capacities, wanted.as_ref())["memory"];
                assert_eq!(taken.to_string(), expected, "{policy}");
                let used = Amounts::from([("memory".to_owned(), "3Gi".parse().unwrap())]);
                let fitting = is_enough(&capacities, wanted.as_ref(), [Some(&used), None]);
                assert_eq!(fitting, fits, "{policy}");
            };
        check(json!(null), None, "10Gi", false);
        check(json!(null), Some("2Gi"), "2Gi", true);
        check(json!({"default": "1Gi"}), None, "1Gi", true);
        check(json!({"default": "1Gi", "validRange": {"min": "1Gi"}}), Some("1Mi"), "1Gi", true);
        let steps = json!({"validRange": {"min": "1Gi", "step": "2Gi", "max": "5Gi"}});
        check(steps.clone(), Some("2Gi"), "3Gi", true);
        check(steps.clone(), Some("3Gi"), "3Gi", true);
        check(steps, Some("6Gi"), "7Gi", false);
        let values = json!({"validValues": ["1Gi", "4Gi", "8Gi"]});
        check(values.clone(), Some("2Gi"), "4Gi", true);
        check(values.clone(), Some("5Gi"), "8Gi", false);
        check(values, Some("9Gi"), "9Gi", false);
    }

    #[test]
    fn nothing_has_what_it_does_not_tell_of() {
        let wanted = Amounts::from([("memory".to_owned(), Amount::ZERO)]);
        assert!(!is_enough(&BTreeMap::new(), Some(&wanted), [None, None]));
        assert!(is_enough(&BTreeMap::new(), None, [None, None]));
    }
}
