//! Security contexts.

use orch_core::status::FieldError;

use crate::{
    kinds::field::{Errors, Field},
    names,
};

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

fn ids(context: &Field<'_>, names: &[&str], errors: &mut Errors) {
    for name in names {
        if context.int(name).is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
            errors.push(context.invalid(name, ID_RANGE));
        }
    }
}

/// Checks the pod's own context and what goes with it.
pub(super) fn pod(spec: &Field<'_>, errors: &mut Errors) {
    let Some(context) = spec.opt("securityContext") else { return };
    ids(&context, &["fsGroup", "runAsUser", "runAsGroup"], errors);
    for (i, group) in context.raw("supplementalGroups").as_array().into_iter().flatten().enumerate()
    {
        if group.as_i64().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
            let path = format!("{}[{i}]", context.at("supplementalGroups"));
            errors.push(FieldError::invalid(path, group.clone(), ID_RANGE));
        }
    }
    context.one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"], true, errors);
    context.one_of("supplementalGroupsPolicy", &["Merge", "Strict"], true, errors);
    if spec.bool("shareProcessNamespace") && spec.bool("hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(spec.invalid("shareProcessNamespace", why));
    }
    let mut seen = std::collections::BTreeSet::new();
    for sysctl in context.items("sysctls") {
        let name = sysctl.str("name");
        if name.is_empty() {
            errors.push(sysctl.required("name", ""));
        } else if !names::sysctl(name) {
            let why = "must have at most 253 characters and match regex \
                       ([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            errors.push(sysctl.invalid("name", why));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(sysctl.at("name"), name));
        }
        seen.insert(name);
    }
    profiles(&context, errors);
}

/// Checks a container's context.
pub(super) fn container(container: &Field<'_>, errors: &mut Errors) {
    let Some(context) = container.opt("securityContext") else { return };
    ids(&context, &["runAsUser", "runAsGroup"], errors);
    context.one_of("procMount", &["Default", "Unmasked"], true, errors);
    if context.raw("allowPrivilegeEscalation").as_bool() == Some(false) {
        let mut refuse = |why: &str| {
            let value = context.value.clone();
            errors.push(FieldError::invalid(&context.path, value, why));
        };
        if context.bool("privileged") {
            refuse("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.get("capabilities");
        if added.strs("add").any(|c| c == "CAP_SYS_ADMIN") {
            refuse(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    profiles(&context, errors);
}

fn profiles(context: &Field<'_>, errors: &mut Errors) {
    for name in ["seccompProfile", "appArmorProfile"] {
        let Some(profile) = context.opt(name) else { continue };
        profile.one_of("type", &["Localhost", "RuntimeDefault", "Unconfined"], false, errors);
        let local = profile.str("type") == "Localhost";
        if local && profile.str("localhostProfile").is_empty() {
            errors.push(profile.required(
                "localhostProfile",
                "must be set when seccomp type is Localhost".replace(
                    "seccomp type",
                    if name == "seccompProfile" { "seccomp type" } else { "AppArmor type" },
                ),
            ));
        } else if !local && profile.has("localhostProfile") {
            let why = "can only be set when seccomp type is Localhost".replace(
                "seccomp type",
                if name == "seccompProfile" { "seccomp type" } else { "AppArmor type" },
            );
            errors.push(profile.invalid("localhostProfile", why));
        }
    }
}
