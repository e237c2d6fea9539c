//! Selectors: queries over labels and over fields.
//!
//! Source: `k8s.io/apimachinery/pkg/labels`, `k8s.io/apimachinery/pkg/fields`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::{
    names::{label_value_errors, qualified_name_errors},
    status::FieldError,
};

mod fields;
mod parser;

pub use fields::{FieldRequirement, FieldSelector};

/// The text or the structure is not a selector. Display is upstream's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value is among those given.
    In,
    /// The value is not among those given, or the label is absent.
    NotIn,
    /// The value is the one given; written `=`.
    Equals,
    /// The value is the one given; written `==`.
    DoubleEquals,
    /// The value is not the one given, or the label is absent.
    NotEquals,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is an integer greater than the one given.
    Gt,
    /// The value is an integer less than the one given.
    Lt,
}

impl Operator {
    /// The operator of a `LabelSelectorRequirement` or a `NodeSelectorRequirement`.
    pub fn from_api(name: &str) -> Option<Self> {
        Some(match name {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            _ => return None,
        })
    }
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Requirement {
    /// A validated condition.
    ///
    /// # Errors
    /// [`SelectorError`] if the key, a value or their number does not fit, in upstream's words.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, SelectorError> {
        let key = key.into();
        check_key(&key)?;
        let values: BTreeSet<String> = values.into_iter().collect();
        check_values(operator, &values)?;
        for (index, value) in values.iter().enumerate() {
            let errors = label_value_errors(value);
            if !errors.is_empty() {
                let field = format!("values[{index}][{key}]");
                return Err(invalid(&field, value.as_str(), &errors.join("; ")));
            }
        }
        Ok(Self { key, operator, values })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the label is compared.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What the label is compared with, sorted.
    pub fn values(&self) -> &BTreeSet<String> {
        &self.values
    }

    /// Whether the labels satisfy the condition.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_value(labels.get(&self.key).map(String::as_str))
    }

    /// Whether a label of this value (`None`: absent) satisfies the condition.
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => {
                value.is_some_and(|v| self.values.contains(v))
            }
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt | Operator::Lt => {
                let limit = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.and_then(|v| v.parse::<i64>().ok()), limit) {
                    (Some(value), Some(limit)) if self.operator == Operator::Gt => value > limit,
                    (Some(value), Some(limit)) => value < limit,
                    _ => false,
                }
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let errors = qualified_name_errors(key);
    // Upstream has no field to name here and prints its nil path.
    if errors.is_empty() { Ok(()) } else { Err(invalid("<nil>", key, &errors.join("; "))) }
}

fn check_values(operator: Operator, values: &BTreeSet<String>) -> Result<(), SelectorError> {
    let complaint = match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            "for 'in', 'notin' operators, values set can't be empty"
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            "exact-match compatibility requires one single value"
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            "values set must be empty for exists and does not exist"
        }
        Operator::Gt | Operator::Lt if values.len() != 1 => {
            "for 'Gt', 'Lt' operators, exactly one value is required"
        }
        Operator::Gt | Operator::Lt => {
            return match values.first() {
                Some(value) if value.parse::<i64>().is_err() => Err(invalid(
                    "values[0]",
                    value.as_str(),
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                )),
                _ => Ok(()),
            };
        }
        _ => return Ok(()),
    };
    Err(invalid("values", values.iter().cloned().collect::<Vec<_>>(), complaint))
}

fn invalid(field: &str, value: impl Into<serde_json::Value>, detail: &str) -> SelectorError {
    SelectorError(FieldError::invalid(field, value, detail).to_string())
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::DoesNotExist => return write!(f, "!{}", self.key),
            Operator::Exists => return f.write_str(&self.key),
            Operator::In => " in ",
            Operator::NotIn => " notin ",
            Operator::Equals => "=",
            Operator::DoubleEquals => "==",
            Operator::NotEquals => "!=",
            Operator::Gt => ">",
            Operator::Lt => "<",
        };
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let values = values.join(",");
        if matches!(self.operator, Operator::In | Operator::NotIn) {
            write!(f, "{}{operator}({values})", self.key)
        } else {
            write!(f, "{}{operator}{values}", self.key)
        }
    }
}

/// A query over labels: conditions that must all hold, or one that nothing fulfils.
///
/// ```
/// use orch_core::selector::Selector;
/// let selector: Selector = "app in (web, api), tier!=cache".parse()?;
/// let labels = [("app".to_owned(), "web".to_owned())].into();
/// assert!(selector.matches(&labels));
/// # Ok::<(), orch_core::selector::SelectorError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Option<Vec<Requirement>>);

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self(Some(Vec::new()))
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// All of these conditions.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self(Some(requirements))
    }

    /// Exactly these labels, unchecked, as a Service's or a ReplicationController's selector has
    /// them. An empty map matches everything.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: BTreeSet::from([value.clone()]),
        };
        Self(Some(labels.iter().map(equals).collect()))
    }

    /// A `LabelSelector` of the API: `None` matches nothing, an empty one everything.
    ///
    /// # Errors
    /// [`SelectorError`] if an operator, a key or a value is not legal.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::In, [value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            requirements.push(requirement_of(expression)?);
        }
        Ok(Self::new(requirements))
    }

    /// Whether the labels satisfy every condition.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.as_ref().is_some_and(|all| all.iter().all(|one| one.matches(labels)))
    }

    /// Whether the labels of an object satisfy every condition; no labels are an empty map.
    pub fn matches_labels_of(
        &self,
        meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    ) -> bool {
        match &meta.labels {
            Some(labels) => self.matches(labels),
            None => self.matches(&BTreeMap::new()),
        }
    }

    /// Whether there is no condition, so that everything matches.
    pub fn is_everything(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether nothing can match.
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// The conditions, by key; none for a selector that matches nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.0.as_deref().unwrap_or_default()
    }
}

fn requirement_of(expression: &LabelSelectorRequirement) -> Result<Requirement, SelectorError> {
    let operator = match expression.operator.as_str() {
        "In" | "NotIn" | "Exists" | "DoesNotExist" => Operator::from_api(&expression.operator),
        _ => None,
    };
    let operator = operator.ok_or_else(|| {
        SelectorError(format!("{:?} is not a valid label selector operator", expression.operator))
    })?;
    Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default())
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parser::parse(text).map(Self::new)
    }
}

impl fmt::Display for Selector {
    /// The form that parses back. A selector that matches nothing has none and prints as empty,
    /// as upstream's does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[track_caller]
    fn check(text: &str, printed: &str, yes: &[(&str, &str)], no: &[(&str, &str)]) {
        let selector: Selector = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(selector.to_string(), printed, "{text:?}");
        assert_eq!(printed.parse::<Selector>().unwrap(), selector, "{text:?}");
        assert!(selector.matches(&labels(yes)), "{text:?} {yes:?}");
        assert!(!selector.matches(&labels(no)), "{text:?} {no:?}");
    }

    #[test]
    fn the_whole_grammar() {
        check("a=b", "a=b", &[("a", "b")], &[("a", "c")]);
        check(" a == b ", "a==b", &[("a", "b")], &[]);
        check("a!=b", "a!=b", &[], &[("a", "b")]);
        check("a in (x, y)", "a in (x,y)", &[("a", "y")], &[("a", "z")]);
        check("a notin (x)", "a notin (x)", &[], &[("a", "x")]);
        check("a", "a", &[("a", "")], &[]);
        check("!a", "!a", &[], &[("a", "")]);
        check("a>3", "a>3", &[("a", "4")], &[("a", "3")]);
        check("a<3", "a<3", &[("a", "2")], &[("a", "x")]);
        check("a=", "a=", &[("a", "")], &[("a", "x")]);
        check("b=1,a=2", "a=2,b=1", &[("a", "2"), ("b", "1")], &[("a", "2")]);
        check("in in (in,notin)", "in in (in,notin)", &[("in", "in")], &[("in", "x")]);
        check("a in (,x)", "a in (,x)", &[("a", "")], &[("a", "y")]);
        check("x.io/a=b", "x.io/a=b", &[("x.io/a", "b")], &[]);
        assert!("".parse::<Selector>().unwrap().is_everything());
    }

    #[test]
    fn errors_are_upstreams() {
        for (text, message) in [
            ("a,", "found '', expected: identifier after ','"),
            ("=b", "found '=', expected: !, identifier, or 'end of string'"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), message, "{text:?}");
        }
        let bad = "a b/c=d".parse::<Selector>().unwrap_err().to_string();
        assert!(bad.starts_with("unable to parse requirement: found 'b/c', expected: in"), "{bad}");
        let bad = "-a=d".parse::<Selector>().unwrap_err().to_string();
        assert!(
            bad.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part"),
            "{bad}"
        );
    }

    #[test]
    fn label_selectors_of_the_api() {
        let none = Selector::from_label_selector(None).unwrap();
        assert!(!none.matches(&labels(&[])));
        let empty = Selector::from_label_selector(Some(&LabelSelector::default())).unwrap();
        assert!(empty.matches(&labels(&[("a", "b")])));
        let selector = LabelSelector {
            match_labels: Some(labels(&[("a", "b")])),
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "c".into(),
                operator: "Exists".into(),
                values: None,
            }]),
        };
        let selector = Selector::from_label_selector(Some(&selector)).unwrap();
        assert!(selector.matches(&labels(&[("a", "b"), ("c", "")])));
        assert!(!selector.matches(&labels(&[("a", "b")])));
        let bad = LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "c".into(),
                operator: "Near".into(),
                values: None,
            }]),
            ..LabelSelector::default()
        };
        assert_eq!(
            Selector::from_label_selector(Some(&bad)).unwrap_err().to_string(),
            "\"Near\" is not a valid label selector operator"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[a-z=!<>(), \\\\é]{0,16}") {
            if let Ok(selector) = text.parse::<Selector>() {
                proptest::prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
            }
        }
    }
}
