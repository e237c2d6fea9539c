//! Which FlowSchema a request belongs to, and which queues its flow may use.
//!
//! Source: `k8s.io/apiserver/pkg/util/flowcontrol/rule.go`, `pkg/util/shufflesharding`.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use sha2::{Digest as _, Sha256};

use crate::{auth::UserInfo, http::request_info::RequestInfo};

/// Whether a schema is about a request.
pub(super) fn matches(spec: &FlowSchemaSpec, info: &RequestInfo, user: &UserInfo) -> bool {
    let rule = |rule: &PolicyRulesWithSubjects| {
        if !rule.subjects.iter().any(|subject| is(subject, user)) {
            return false;
        }
        if info.is_resource {
            return rule.resource_rules.iter().flatten().any(|rule| is_about(rule, info));
        }
        rule.non_resource_rules.iter().flatten().any(|rule| leads_to(rule, info))
    };
    spec.rules.iter().flatten().any(rule)
}

fn is(subject: &Subject, user: &UserInfo) -> bool {
    match subject.kind.as_str() {
        "User" => {
            subject.user.as_ref().is_some_and(|named| named.name == "*" || named.name == user.name)
        }
        "Group" => subject
            .group
            .as_ref()
            .is_some_and(|named| named.name == "*" || user.in_group(&named.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|named| {
            let account = user.name.strip_prefix("system:serviceaccount:");
            let account = account.and_then(|rest| rest.split_once(':'));
            account.is_some_and(|(namespace, name)| {
                namespace == named.namespace && (named.name == "*" || named.name == name)
            })
        }),
        _ => false,
    }
}

fn has(list: &[String], one: &str) -> bool {
    matches!(list, [only] if only == "*") || list.iter().any(|item| item == one)
}

fn is_about(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    let joined;
    let resource = if info.subresource.is_empty() {
        &info.resource
    } else {
        joined = format!("{}/{}", info.resource, info.subresource);
        &joined
    };
    has(&rule.verbs, &info.verb)
        && has(&rule.resources, resource)
        && has(&rule.api_groups, &info.group)
        && if info.namespace.is_empty() {
            rule.cluster_scope.unwrap_or_default()
        } else {
            has(rule.namespaces.as_deref().unwrap_or_default(), &info.namespace)
        }
}

fn leads_to(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    has(&rule.verbs, &info.verb)
        && rule.non_resource_urls.iter().any(|url| {
            let prefix = url.trim_end_matches('*').trim_end_matches('/');
            url == "*"
                || *url == info.path
                || info.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        })
}

/// What tells flows apart.
pub(super) fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let digest = Sha256::new().chain_update(schema).chain_update([0]).chain_update(distinguisher);
    let digest = digest.finalize();
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// The hand of a flow: `hand` different queues out of `queues`.
pub(super) fn deal(hash: u64, queues: usize, hand: usize) -> Vec<usize> {
    let (mut rest, mut dealt) = (hash, Vec::with_capacity(hand));
    for round in 0..hand.min(queues) {
        let left = (queues - round) as u64;
        let mut card = (rest % left) as usize;
        rest /= left;
        // The card's number counts the cards that are still there.
        let mut before: Vec<usize> = dealt.clone();
        before.sort_unstable();
        for taken in before {
            card += usize::from(taken <= card);
        }
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_hold_different_queues_and_all_of_them_are_used() {
        let mut used = std::collections::BTreeSet::new();
        for flow in 0..200u32 {
            let hand = deal(flow_hash("schema", &flow.to_string()), 16, 4);
            let different: std::collections::BTreeSet<_> = hand.iter().copied().collect();
            assert_eq!((hand.len(), different.len()), (4, 4), "{hand:?}");
            assert!(hand.iter().all(|queue| *queue < 16), "{hand:?}");
            used.extend(different);
        }
        assert_eq!(used.len(), 16);
        assert_eq!(deal(7, 1, 1), [0]);
    }
}
