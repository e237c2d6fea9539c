//! What the devices of a claim must have in common, or not.
//!
//! Source: `structured/internal/incubating/allocator_incubating.go` and `constraint.go`.
//! Differs: the devices of one request are told apart too where an attribute must be distinct;
//! upstream looks at the last one of each request.

use k8s_openapi::api::resource::v1 as api;

/// A value that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attribute {
    String(String),
    Int(i64),
    Bool(bool),
    Version(String),
}

impl Attribute {
    fn read(attribute: &api::DeviceAttribute) -> Option<Self> {
        let string = attribute.string.clone().map(Self::String);
        let string = string.or_else(|| attribute.int.map(Self::Int));
        let string = string.or_else(|| attribute.bool.map(Self::Bool));
        string.or_else(|| attribute.version.clone().map(Self::Version))
    }
}

/// An attribute of a device by its whole name. Names without a domain are in the driver's.
fn find<'d>(device: &'d api::Device, driver: &str, name: &str) -> Option<&'d api::DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        attributes.get(id).filter(|_| domain == driver)
    })
}

/// A constraint, and the values of the devices that it holds for.
#[derive(Clone, Debug)]
pub(super) struct Constraint {
    /// The requests that it is about; none is all.
    requests: Vec<String>,
    attribute: String,
    distinct: bool,
    values: Vec<Attribute>,
}

impl Constraint {
    /// A constraint before any device; `None` if it is of a kind that is not known.
    pub(super) fn read(constraint: &api::DeviceConstraint) -> Option<Self> {
        let matched = constraint.match_attribute.clone().map(|name| (name, false));
        let (attribute, distinct) =
            matched.or_else(|| constraint.distinct_attribute.clone().map(|name| (name, true)))?;
        let requests = constraint.requests.clone().unwrap_or_default();
        Some(Self { requests, attribute, distinct, values: Vec::new() })
    }

    /// Whether it is about a request, or one of its alternatives.
    fn is_about(&self, request: &str, whole: &str) -> bool {
        let mut named = self.requests.iter();
        self.requests.is_empty() || named.any(|name| name == request || name == whole)
    }

    /// Takes a device in, if it holds for it too.
    pub(super) fn add(
        &mut self,
        (request, whole): (&str, &str),
        device: &api::Device,
        driver: &str,
    ) -> bool {
        if !self.is_about(request, whole) {
            return true;
        }
        let value = find(device, driver, &self.attribute).and_then(Attribute::read);
        let Some(value) = value else { return false };
        let holds = match self.distinct {
            true => !self.values.contains(&value),
            false => self.values.first().is_none_or(|first| *first == value),
        };
        if holds {
            self.values.push(value);
        }
        holds
    }

    /// Takes the device out again that was taken in last.
    pub(super) fn remove(&mut self, (request, whole): (&str, &str)) {
        if self.is_about(request, whole) {
            self.values.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(attribute: &str, value: i64) -> api::Device {
        let attributes = json!({attribute: {"int": value}});
        serde_json::from_value(json!({"name": "d", "attributes": attributes})).unwrap()
    }

    fn check(constraint: serde_json::Value, values: &[i64], holds: &[bool]) {
        let constraint: api::DeviceConstraint = serde_json::from_value(constraint).unwrap();
        let mut constraint = Constraint::read(&constraint).unwrap();
        let devices = values.iter().map(|value| device("slot", *value));
        let outcomes: Vec<bool> =
            devices.map(|device| constraint.add(("r", "r/a"), &device, "dra.example")).collect();
        assert_eq!(outcomes, holds, "{constraint:?}");
    }

    #[test]
    fn values_are_the_same_or_all_different() {
        let same = json!({"matchAttribute": "dra.example/slot"});
        check(same, &[1, 1, 2, 1], &[true, true, false, true]);
        let distinct = json!({"distinctAttribute": "dra.example/slot"});
        check(distinct, &[1, 2, 1, 3], &[true, true, false, true]);
        let other_driver = json!({"matchAttribute": "other/slot"});
        check(other_driver, &[1], &[false]);
        for name in ["r", "r/a"] {
            let about = json!({"matchAttribute": "dra.example/slot", "requests": [name]});
            check(about, &[1, 2], &[true, false]);
        }
        let other_request = json!({"matchAttribute": "dra.example/slot", "requests": ["r/b"]});
        check(other_request, &[1, 2], &[true, true]);
    }

    #[test]
    fn what_is_taken_out_no_longer_counts() {
        let constraint = json!({"matchAttribute": "a/b"});
        let mut constraint =
            Constraint::read(&serde_json::from_value(constraint).unwrap()).unwrap();
        let (one, two) = (device("a/b", 1), device("a/b", 2));
        assert!(constraint.add(("r", "r"), &one, "d"));
        assert!(!constraint.add(("r", "r"), &two, "d"));
        constraint.remove(("r", "r"));
        assert!(constraint.add(("r", "r"), &two, "d"));
    }
}
