//! Compiled selectors of devices.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::resource::v1 as api;
use orch_cel::{
    Error,
    device::{Attribute, Device, Selector, SelectorError},
};
use parking_lot::Mutex;

/// How many are kept. In practice there are as many as there are device classes.
const KEPT_MAX: usize = 256;

pub(super) type Compiled = Result<Selector, SelectorError>;

/// Selectors that were compiled before.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    compiled: Mutex<HashMap<Arc<str>, Arc<Compiled>>>,
}

impl Selectors {
    pub(super) fn get(&self, expression: &Arc<str>) -> Arc<Compiled> {
        let mut compiled = self.compiled.lock();
        if let Some(found) = compiled.get(expression) {
            return found.clone();
        }
        if compiled.len() >= KEPT_MAX {
            compiled.clear();
        }
        let new = Arc::new(Selector::compile(expression));
        compiled.insert(expression.clone(), new.clone());
        new
    }
}

fn attribute<'d>(name: &str, of: &'d api::DeviceAttribute) -> Result<Attribute<'d>, Error> {
    Ok(match of {
        api::DeviceAttribute { int: Some(int), .. } => Attribute::Int(*int),
        api::DeviceAttribute { bool: Some(bool), .. } => Attribute::Bool(*bool),
        api::DeviceAttribute { string: Some(string), .. } => Attribute::String(string),
        api::DeviceAttribute { version: Some(version), .. } => Attribute::Version(version),
        _ => return Err(Error::failed(format!("attribute {name}: unsupported attribute value"))),
    })
}

/// Whether a selector selects a device of a driver.
pub(super) fn matches(
    selector: &Selector,
    driver: &str,
    device: &api::Device,
) -> Result<bool, Error> {
    let mut seen = Device::new(driver, device.allow_multiple_allocations == Some(true));
    for (name, of) in device.attributes.iter().flatten() {
        seen.attribute(name, attribute(name, of)?)?;
    }
    for (name, of) in device.capacity.iter().flatten() {
        seen.capacity(name, &of.value.0)?;
    }
    selector.matches(&seen.finish()?)
}
