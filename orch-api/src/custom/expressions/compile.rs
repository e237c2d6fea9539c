//! Compiling the rules of one value.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/compilation.go`.

use orch_cel::{CompileError, Declared, DeclaredSizes, Environment, Program, Type};
use serde_json::Value;

use super::field_path;

/// A rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) program: Result<Program, String>,
    pub(super) message: String,
    pub(super) message_expression: String,
    pub(super) message_program: Option<Program>,
    pub(super) message_error: Option<String>,
    pub(super) reason: Option<String>,
    /// The path of the field that is told, below the value's own.
    pub(super) field_path: Option<String>,
    pub(super) uses_old: bool,
    /// The old value is an optional, and the rule is evaluated without one too.
    pub(super) optional_old: bool,
    /// What the rule and its message cost at most.
    pub(super) cost: u64,
    pub(super) message_cost: u64,
}

impl Rule {
    /// What names the rule in a message.
    pub(super) fn shown(&self) -> &str {
        if self.message.is_empty() { self.text.trim() } else { self.message.trim() }
    }

    pub(super) fn message_or_default(&self) -> String {
        if self.message.is_empty() {
            return format!("failed rule: {}", self.shown());
        }
        self.message.trim().to_owned()
    }
}

/// The rules of a value that is declared so. Empty ones, which no definition may have, are left out.
pub(super) fn compile(validation: &Value, schema: &Value, declared: &Declared) -> Vec<Rule> {
    let rules = validation["x-kubernetes-validations"].as_array();
    let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return Vec::new() };
    // Upstream's name is another one every time, so that nobody relies on it.
    let declared = declared.clone().named("selfType");
    let environment = Environment::kubernetes().variable("self", &declared).build();
    let before = environment.extend().variable("oldSelf", &declared).build();
    let optional = Type::optional(declared.type_of());
    let maybe_before = environment.extend().variable("oldSelf", optional).build();
    let compiled = rules.iter().map(|rule| {
        let optional = rule["optionalOldSelf"] == true;
        compile_rule(rule, schema, &declared, if optional { &maybe_before } else { &before })
    });
    compiled.filter(|rule| !rule.text.trim().is_empty()).collect()
}

fn compile_rule(
    rule: &Value,
    schema: &Value,
    declared: &Declared,
    environment: &Environment,
) -> Rule {
    let text = |name: &str| rule[name].as_str().unwrap_or_default().to_owned();
    let (source, message_expression) = (text("rule"), text("messageExpression"));
    let program =
        compiled(environment, &source, &Type::Bool, "").and_then(|program| match program {
            Some(program) => Ok(program),
            None => Err("cel expression must evaluate to a bool".to_owned()),
        });
    let message_program = match &program {
        Ok(_) if !message_expression.is_empty() => {
            compiled(environment, &message_expression, &Type::String, "messageExpression ")
        }
        _ => Ok(None),
    };
    let is_mistyped = program.is_ok() && !message_expression.is_empty();
    let message_error = match &message_program {
        Err(error) => Some(error.clone()),
        Ok(None) if is_mistyped => Some("messageExpression must evaluate to a string".to_owned()),
        Ok(_) => None,
    };
    let message_program = message_program.ok().flatten();
    let cost = |program: &Program| program.estimate(&DeclaredSizes(declared)).max;
    let path = text("fieldPath");
    Rule {
        uses_old: program.as_ref().is_ok_and(|program| program.uses("oldSelf")),
        optional_old: rule["optionalOldSelf"] == true,
        cost: program.as_ref().map_or(0, cost),
        message_cost: message_program.as_ref().map_or(0, cost),
        message: text("message"),
        reason: rule["reason"].as_str().map(str::to_owned),
        field_path: (!path.is_empty()).then(|| field_path::normalized(&path, schema)).flatten(),
        text: source,
        program,
        message_expression,
        message_program,
        message_error,
    }
}

/// The program, or nothing if its value is of another type.
fn compiled(
    environment: &Environment,
    source: &str,
    wanted: &Type,
    what: &str,
) -> Result<Option<Program>, String> {
    match environment.compile(source) {
        Ok(program) => Ok((program.result_type() == wanted).then_some(program)),
        Err(CompileError::Instantiation(error)) => {
            let what = if what.is_empty() { "program " } else { what };
            Err(format!("{what}instantiation failed: {error}"))
        }
        Err(error) => Err(format!("{what}compilation failed: {error}")),
    }
}
