//! Single rules: what one allows, and whether some cover another.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/rbac/v1/evaluation_helpers.go`,
//! `k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::auth::Attributes;

fn list(field: Option<&Vec<String>>) -> &[String] {
    field.map_or(&[], Vec::as_slice)
}

fn has(field: &[String], wanted: &str) -> bool {
    field.iter().any(|entry| entry == "*" || entry == wanted)
}

/// Whether a rule allows a request.
pub fn allows(rule: &PolicyRule, wanted: &Attributes) -> bool {
    if !has(&rule.verbs, &wanted.verb) {
        return false;
    }
    if !wanted.is_resource_request() {
        return list(rule.non_resource_urls.as_ref())
            .iter()
            .any(|url| path_matches(url, &wanted.path));
    }
    let names = list(rule.resource_names.as_ref());
    has(list(rule.api_groups.as_ref()), &wanted.group)
        && list(rule.resources.as_ref())
            .iter()
            .any(|entry| resource_matches(entry, &wanted.resource, &wanted.subresource))
        && (names.is_empty() || names.contains(&wanted.name))
}

fn path_matches(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn resource_matches(entry: &str, resource: &str, subresource: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if subresource.is_empty() {
        return entry == resource;
    }
    entry.split_once('/').is_some_and(|(r, s)| s == subresource && (r == "*" || r == resource))
}

/// Splits a rule into rules of one verb, one group, one resource, one name or path each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut single = Vec::new();
    let one = |value: &String| Some(vec![value.clone()]);
    for verb in &rule.verbs {
        let base = PolicyRule { verbs: vec![verb.clone()], ..PolicyRule::default() };
        for group in list(rule.api_groups.as_ref()) {
            for resource in list(rule.resources.as_ref()) {
                let base =
                    PolicyRule { api_groups: one(group), resources: one(resource), ..base.clone() };
                let names = list(rule.resource_names.as_ref());
                if names.is_empty() {
                    single.push(base.clone());
                }
                single.extend(
                    names.iter().map(|n| PolicyRule { resource_names: one(n), ..base.clone() }),
                );
            }
        }
        let urls = list(rule.non_resource_urls.as_ref()).iter();
        single.extend(urls.map(|u| PolicyRule { non_resource_urls: one(u), ..base.clone() }));
    }
    single
}

/// Whether a rule covers everything of another, which came out of [`break_down`].
fn covers_single(owner: &PolicyRule, wanted: &PolicyRule) -> bool {
    let all = |field: &[String], wanted: &[String]| {
        field.iter().any(|f| f == "*") || wanted.iter().all(|w| field.contains(w))
    };
    let urls = list(wanted.non_resource_urls.as_ref());
    let owner_urls = list(owner.non_resource_urls.as_ref());
    let names = list(wanted.resource_names.as_ref());
    let owner_names = list(owner.resource_names.as_ref());
    let resource = |wanted: &String| {
        let (name, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
        list(owner.resources.as_ref()).iter().any(|r| r == wanted || resource_matches(r, name, sub))
    };
    all(&owner.verbs, &wanted.verbs)
        && all(list(owner.api_groups.as_ref()), list(wanted.api_groups.as_ref()))
        && list(wanted.resources.as_ref()).iter().all(resource)
        && urls.iter().all(|url| owner_urls.iter().any(|o| path_matches(o, url)))
        && (owner_names.is_empty() || (!names.is_empty() && all(owner_names, names)))
}

/// The parts of `wanted` that none of `owned` covers; empty if they are all covered.
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(break_down);
    parts.filter(|part| !owned.iter().any(|owner| covers_single(owner, part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            verbs: list(verbs),
            api_groups: Some(list(groups)),
            resources: Some(list(resources)),
            resource_names: (!names.is_empty()).then(|| list(names)),
            non_resource_urls: None,
        }
    }

    #[test]
    fn rules_match_as_upstreams() {
        let wants = |verb: &str, group: &str, resource: &str, sub: &str, name: &str| Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: sub.into(),
            name: name.into(),
            ..Attributes::default()
        };
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        let scale = rule(&["get"], &["*"], &["*/scale"], &[]);
        let named = rule(&["get"], &[""], &["pods"], &["a"]);
        let all = rule(&["*"], &["*"], &["*"], &[]);
        for (rule, attributes, expected) in [
            (&pods, wants("get", "", "pods", "", "a"), true),
            (&pods, wants("get", "", "pods", "log", "a"), false),
            (&pods, wants("list", "", "pods", "", ""), false),
            (&pods, wants("get", "apps", "pods", "", ""), false),
            (&scale, wants("get", "apps", "deployments", "scale", "a"), true),
            (&scale, wants("get", "apps", "deployments", "", "a"), false),
            (&named, wants("get", "", "pods", "", "a"), true),
            (&named, wants("get", "", "pods", "", ""), false),
            (&all, wants("escalate", "x", "y", "z", ""), true),
        ] {
            assert_eq!(allows(rule, &attributes), expected, "{rule:?} {attributes:?}");
        }
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        for (url, path, expected) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api", false),
            ("*", "/anything", true),
        ] {
            assert_eq!(path_matches(url, path), expected, "{url} {path}");
        }
    }

    #[test]
    fn what_is_not_owned_is_found() {
        let owned = [rule(&["get", "list"], &[""], &["pods", "secrets"], &[])];
        let check = |wanted: PolicyRule, missing: usize| {
            assert_eq!(
                uncovered(&owned, std::slice::from_ref(&wanted)).len(),
                missing,
                "{wanted:?}"
            );
        };
        check(rule(&["get"], &[""], &["pods"], &[]), 0);
        check(rule(&["get"], &[""], &["pods"], &["a"]), 0);
        check(rule(&["get", "delete"], &[""], &["pods", "secrets"], &[]), 2);
        check(rule(&["*"], &[""], &["pods"], &[]), 1);
        check(rule(&["get"], &[""], &["*"], &[]), 1);
        check(rule(&["get"], &[""], &["pods/log"], &[]), 1);
        let named = [rule(&["get"], &[""], &["pods"], &["a"])];
        assert_eq!(uncovered(&named, &[rule(&["get"], &[""], &["pods"], &[])]).len(), 1);
        assert_eq!(uncovered(&named, &[rule(&["get"], &[""], &["pods"], &["a"])]).len(), 0);
    }
}
