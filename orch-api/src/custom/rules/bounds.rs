//! Limits of numbers, and of what can be counted.

use orch_core::status::FieldError;
use serde_json::{Number, Value};

use super::field;

/// Limits of numbers, texts, lists and maps.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    minimum: Option<(Number, bool)>,
    maximum: Option<(Number, bool)>,
    multiple_of: Option<Number>,
    pub(super) length: (Option<u64>, Option<u64>),
    pub(super) items: (Option<u64>, Option<u64>),
    pub(super) properties: (Option<u64>, Option<u64>),
}

impl Bounds {
    pub(super) fn of(schema: &Value) -> Self {
        let number = |name: &str| match schema.get(name) {
            Some(Value::Number(number)) => Some(number.clone()),
            _ => None,
        };
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        Self {
            minimum: number("minimum").map(|limit| (limit, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|limit| (limit, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            length: (count("minLength"), count("maxLength")),
            items: (count("minItems"), count("maxItems")),
            properties: (count("minProperties"), count("maxProperties")),
        }
    }

    /// What is wrong with a number.
    pub(super) fn check_number(&self, number: &Number, path: &str, errors: &mut Vec<FieldError>) {
        let Some(value) = number.as_f64() else { return };
        let mut wrong = |why: String| {
            let why = format!("{path} in body should be {why}");
            errors.push(FieldError::invalid(field(path), number.clone(), why));
        };
        if let Some((limit, exclusive)) = &self.maximum {
            let most = limit.as_f64().unwrap_or(f64::INFINITY);
            if *exclusive && value >= most {
                wrong(format!("less than {limit}"));
            } else if value > most {
                wrong(format!("less than or equal to {limit}"));
            }
        }
        if let Some((limit, exclusive)) = &self.minimum {
            let least = limit.as_f64().unwrap_or(f64::NEG_INFINITY);
            if *exclusive && value <= least {
                wrong(format!("greater than {limit}"));
            } else if value < least {
                wrong(format!("greater than or equal to {limit}"));
            }
        }
        if let Some(step) = &self.multiple_of
            && let Some(of) = step.as_f64().filter(|of| *of > 0.0)
            && (value / of).fract() != 0.0
        {
            wrong(format!("a multiple of {step}"));
        }
    }
}
