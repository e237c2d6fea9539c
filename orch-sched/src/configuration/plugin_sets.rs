//! Which plugins a profile runs where.
//!
//! Source: `pkg/scheduler/apis/config/v1/default_plugins.go`, `mergePlugins`;
//! `pkg/scheduler/framework/runtime/framework.go`, `expandMultiPointPlugins`.

use std::collections::BTreeSet;

use super::reader::{Complaints, Reader};
use crate::{
    extension_point::ExtensionPoint,
    profile::{DEFAULT_PLUGINS, PluginEntry, PluginSet, Profile},
};

fn set(mut reader: Reader<'_>, complaints: &mut Complaints) -> PluginSet {
    let mut set = PluginSet::default();
    for mut one in reader.objects("enabled", complaints) {
        let name = one.get("name", complaints).unwrap_or_default();
        // None and zero are the default.
        let weight = one.get::<i32>("weight", complaints).filter(|weight| *weight != 0);
        set.enabled.push(PluginEntry { name, weight: weight.unwrap_or(1).into() });
        one.finish(complaints);
    }
    for mut one in reader.objects("disabled", complaints) {
        set.disabled.insert(one.get("name", complaints).unwrap_or_default());
        let _of_no_meaning_here = one.get::<i32>("weight", complaints);
        one.finish(complaints);
    }
    reader.finish(complaints);
    set
}

/// The default plugins with what the file changes: named ones in their place, others behind.
fn merged(set: &PluginSet) -> Vec<PluginEntry> {
    let own = |name: &str| set.enabled.iter().find(|entry| entry.name == name);
    let defaults = DEFAULT_PLUGINS.iter().filter(|(name, _)| !set.disables(name));
    let defaults = defaults.map(|(name, weight)| {
        own(name).cloned().unwrap_or(PluginEntry { name: (*name).into(), weight: *weight })
    });
    let mut all: Vec<PluginEntry> = defaults.collect();
    let mut replaced: BTreeSet<String> = all.iter().map(|entry| entry.name.clone()).collect();
    for entry in &set.enabled {
        // The first one of a name is in its place; one more is a mistake that shows later.
        if !replaced.remove(&entry.name) {
            all.push(entry.clone());
        }
    }
    all
}

/// What the file says about plugins, put into a profile.
pub(super) fn read(mut reader: Reader<'_>, profile: &mut Profile, complaints: &mut Complaints) {
    let multi_point = set(reader.object("multiPoint", complaints), complaints);
    profile.plugins = merged(&multi_point);
    for point in ExtensionPoint::ALL {
        if reader.has(point.field()) {
            let own = set(reader.object(point.field(), complaints), complaints);
            profile.points.insert(point, own);
        }
    }
    reader.finish(complaints);
}
