//! When a job has succeeded before all of its indexes have.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/job/success_policy.go`.

use k8s_openapi::api::batch::v1::{SuccessPolicy, SuccessPolicyRule};

use super::indexes::Indexes;

/// What to say of the first rule that is met.
pub(super) fn met(policy: &SuccessPolicy, completions: u32, succeeded: &Indexes) -> Option<String> {
    let at = policy.rules.iter().position(|rule| is_met(rule, completions, succeeded))?;
    Some(format!("Matched rules at index {at}"))
}

fn is_met(rule: &SuccessPolicyRule, completions: u32, succeeded: &Indexes) -> bool {
    let wanted = rule.succeeded_count.map(|count| usize::try_from(count).unwrap_or(0));
    let Some(text) = rule.succeeded_indexes.as_deref() else {
        return wanted.is_some_and(|wanted| succeeded.len() >= wanted);
    };
    let required = Indexes::parse(text, completions);
    let done = required.common(succeeded);
    done >= wanted.unwrap_or(required.len()) && !required.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_first_rule_that_is_met_counts() {
        let check = |rules: Value, succeeded: &[u32], expected: Option<usize>| {
            let policy = serde_json::from_value(json!({"rules": rules})).unwrap();
            let succeeded = succeeded.iter().copied().collect();
            let expected = expected.map(|at| format!("Matched rules at index {at}"));
            assert_eq!(met(&policy, 10, &succeeded), expected, "{rules} {succeeded:?}");
        };
        let all = json!([{"succeededIndexes": "0-2"}]);
        check(all.clone(), &[0, 1], None);
        check(all, &[0, 1, 2, 7], Some(0));
        let some = json!([{"succeededIndexes": "0-2", "succeededCount": 2}, {"succeededCount": 4}]);
        check(some.clone(), &[2, 5], None);
        check(some.clone(), &[0, 2], Some(0));
        check(some, &[2, 5, 6, 7], Some(1));
        check(json!([]), &[0], None);
    }
}
