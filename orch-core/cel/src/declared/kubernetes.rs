//! The declarations that admission has: its request, and the namespace of the object.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/cel/compile.go` (`BuildRequestType`,
//! `BuildNamespaceType`).

use super::{Declared, DeclaredList};

/// Upstream's `-1`, which it reads as the largest number there is.
const UNBOUNDED: u64 = u64::MAX;

fn object(name: &str, fields: Vec<(&str, Declared)>) -> Declared {
    let fields = fields.into_iter().map(|(field, declared)| (field.to_owned(), declared));
    Declared::object(&format!("kubernetes.{name}"), fields)
}

fn strings(names: &[&'static str]) -> Vec<(&'static str, Declared)> {
    names.iter().map(|name| (*name, Declared::string())).collect()
}

fn list(items: Declared) -> Declared {
    Declared::list(items, DeclaredList::Atomic, UNBOUNDED)
}

/// The variable `request` of admission policies and match conditions.
pub fn admission_request() -> Declared {
    let kind = || object("GroupVersionKind", strings(&["group", "version", "kind"]));
    let resource = || object("GroupVersionResource", strings(&["group", "version", "resource"]));
    let mut user = strings(&["username", "uid"]);
    user.push(("groups", list(Declared::string())));
    user.push(("extra", Declared::map(list(Declared::string()), UNBOUNDED)));
    let mut fields = strings(&["subResource", "requestSubResource", "name", "namespace"]);
    fields.extend([
        ("kind", kind()),
        ("resource", resource()),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("operation", Declared::string()),
        ("userInfo", object("UserInfo", user)),
        ("dryRun", Declared::boolean()),
        ("options", Declared::any()),
    ]);
    object("AdmissionRequest", fields)
}

/// The variable `namespaceObject` of admission policies.
pub fn namespace() -> Declared {
    let mut condition = strings(&["status", "type", "message", "reason"]);
    condition.push(("lastTransitionTime", Declared::timestamp()));
    let conditions = list(object("NamespaceCondition", condition));
    let status = vec![("conditions", conditions), ("phase", Declared::string())];
    let mut metadata = strings(&["name", "generateName", "namespace", "UID", "resourceVersion"]);
    let labels = || Declared::map(Declared::string(), UNBOUNDED);
    metadata.extend([
        ("labels", labels()),
        ("annotations", labels()),
        ("creationTimestamp", Declared::timestamp()),
        ("deletionGracePeriodSeconds", Declared::integer()),
        ("deletionTimestamp", Declared::timestamp()),
        ("generation", Declared::integer()),
        ("finalizers", list(Declared::string())),
    ]);
    let spec = vec![("finalizers", list(Declared::string()))];
    object(
        "Namespace",
        vec![
            ("metadata", object("NamespaceMetadata", metadata)),
            ("spec", object("NamespaceSpec", spec)),
            ("status", object("NamespaceStatus", status)),
        ],
    )
}
