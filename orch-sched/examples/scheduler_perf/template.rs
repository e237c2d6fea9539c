//! Object templates: YAML with the few expressions over `.Index` and `.Count` that the benchmark
//! uses.

use serde_json::Value;

use crate::Error;

/// The value of one expression, `.Index` or `Mod .Index 25`.
fn evaluate(expression: &str, (index, count): (u64, u64)) -> Result<u64, Error> {
    let number = |word: &str| match word {
        ".Index" => Ok(index),
        ".Count" => Ok(count),
        other => other.parse::<u64>().map_err(|_| format!("{other:?} is no number")),
    };
    let words: Vec<&str> = expression.split_whitespace().collect();
    match words.as_slice() {
        [one] => Ok(number(one)?),
        [function, a, b] => {
            let (a, b) = (number(a)?, number(b)?);
            let value = match *function {
                "AddInt" => a.checked_add(b),
                "SubtractInt" => a.checked_sub(b),
                "MultiplyInt" => a.checked_mul(b),
                "DivideInt" => a.checked_div(b),
                "Mod" => a.checked_rem(b),
                other => return Err(format!("{other:?} is no function of templates").into()),
            };
            value.ok_or_else(|| format!("{expression:?} has no value for {index}").into())
        }
        _ => Err(format!("{expression:?} is no expression of templates").into()),
    }
}

/// A template as text.
pub(crate) fn render_text(text: &str, place: (u64, u64)) -> Result<String, Error> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, after) = after.split_once("}}").ok_or("a template's {{ is not closed")?;
        rendered.push_str(before);
        rendered.push_str(&evaluate(expression.trim(), place)?.to_string());
        rest = after;
    }
    rendered.push_str(rest);
    Ok(rendered)
}

/// A template, read once.
#[derive(Clone)]
pub(crate) enum Template {
    /// The same object every time.
    Plain(Value),
    /// An object that depends on its index.
    Indexed(String),
}

impl Template {
    pub(crate) fn parse(text: String) -> Result<Self, Error> {
        if text.contains("{{") {
            return Ok(Self::Indexed(text));
        }
        Ok(Self::Plain(serde_saphyr::from_str(&text)?))
    }

    /// The object at an index among so many.
    pub(crate) fn render(&self, index: u64, count: u64) -> Result<Value, Error> {
        match self {
            Self::Plain(object) => Ok(object.clone()),
            Self::Indexed(text) => Ok(serde_saphyr::from_str(&render_text(text, (index, count))?)?),
        }
    }
}
