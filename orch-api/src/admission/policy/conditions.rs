//! Match conditions: expressions that all have to hold, of webhooks and of policies.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions/matcher.go`.

use orch_cel::{Budget, Environment, RUNTIME_BUDGET_MATCH_CONDITIONS, library::Query};
use serde_json::Value;

use super::expression::{Expression, Gives, Scope, Stop};

/// The conditions of somebody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions(Vec<Expression>);

impl Conditions {
    /// Compiles a list of conditions.
    pub(crate) fn of(environment: &Environment, list: &Value) -> Self {
        let sources = list.as_array().into_iter().flatten();
        let sources = sources.filter_map(|condition| condition["expression"].as_str());
        Self(sources.map(|text| Expression::compile(environment, text, Gives::Truth)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold; `fails` is what becomes of errors: an error, or no match.
    pub(crate) fn hold(
        &self,
        scope: &Scope<'_>,
        fails: bool,
    ) -> Result<Result<bool, String>, Box<Query>> {
        let mut budget = Budget::new(RUNTIME_BUDGET_MATCH_CONDITIONS);
        let mut errors: Vec<String> = Vec::new();
        let failed = |why: String| if fails { Err(why) } else { Ok(false) };
        let mut all = true;
        for condition in &self.0 {
            match scope.evaluate(condition, &mut budget) {
                Ok(value) => all &= value.as_bool() != Some(false),
                Err(Stop::Failed(why)) => errors.push(why),
                Err(Stop::Spent(why)) => return Ok(failed(why)),
                Err(Stop::Asks(query)) => return Err(query),
            }
        }
        if !all {
            return Ok(Ok(false));
        }
        Ok(match errors.as_slice() {
            [] => Ok(true),
            [one] => failed(one.clone()),
            many => failed(format!("[{}]", many.join(", "))),
        })
    }
}
