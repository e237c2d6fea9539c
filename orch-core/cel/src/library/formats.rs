//! Named formats of strings.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/format.go`;
//! `k8s.io/apimachinery/pkg/util/validation` for the names and their messages;
//! `k8s.io/kube-openapi/pkg/validation/strfmt` for the formats of schemas.

use std::any::Any;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Opaque, Value, no_such_overload};

/// The estimated size of a format's name.
pub(crate) const FORMAT_SIZE_MAX: u64 = 64;
/// The estimated size of a format's pattern.
pub(crate) const PATTERN_SIZE_MAX: u64 = 128;

/// A format by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    name: &'static str,
    validate: fn(&str) -> Vec<String>,
    /// The length of its pattern, or of one like it.
    pattern_size: u64,
}

impl Format {
    pub(crate) fn pattern_size(&self) -> u64 {
        self.pattern_size
    }
}

fn format_type() -> Type {
    Type::object("kubernetes.NamedFormat")
}

impl Opaque for Format {
    fn type_of(&self) -> Type {
        format_type()
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.name == self.name)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The lengths of patterns that nothing here matches with, but that costs depend on.
const UUID_PATTERN: u64 = 94;
const TIME_PATTERN: u64 = 73;

const FORMATS: [(&str, Format); 13] = [
    ("dns1123Label", Format { name: "DNS1123Label", validate: label, pattern_size: 30 }),
    (
        "dns1123Subdomain",
        Format { name: "DNS1123Subdomain", validate: subdomain, pattern_size: 60 },
    ),
    ("dns1035Label", Format { name: "DNS1035Label", validate: label_1035, pattern_size: 30 }),
    ("qualifiedName", Format { name: "QualifiedName", validate: qualified, pattern_size: 60 }),
    (
        "dns1123LabelPrefix",
        Format { name: "DNS1123LabelPrefix", validate: |s| label(&unmasked(s)), pattern_size: 30 },
    ),
    (
        "dns1123SubdomainPrefix",
        Format {
            name: "DNS1123SubdomainPrefix",
            validate: |s| subdomain(&unmasked(s)),
            pattern_size: 60,
        },
    ),
    (
        "dns1035LabelPrefix",
        Format {
            name: "DNS1035LabelPrefix",
            validate: |s| label_1035(&unmasked(s)),
            pattern_size: 30,
        },
    ),
    ("labelValue", Format { name: "LabelValue", validate: label_value, pattern_size: 40 }),
    ("uri", Format { name: "URI", validate: uri, pattern_size: 1103 }),
    ("uuid", Format { name: "uuid", validate: uuid, pattern_size: UUID_PATTERN }),
    ("byte", Format { name: "byte", validate: byte, pattern_size: 84 }),
    ("date", Format { name: "date", validate: date, pattern_size: TIME_PATTERN }),
    ("datetime", Format { name: "datetime", validate: datetime, pattern_size: TIME_PATTERN }),
];

pub(super) fn install(functions: &mut Functions) {
    functions.add_type("kubernetes.NamedFormat", format_type());
    for (name, format) in FORMATS {
        let name = format!("format.{name}");
        let body = Constant(format);
        let form = Overload::function(name.clone(), [], format_type(), body);
        functions.add(name, form);
    }
    let result = Type::optional(format_type());
    let form = Overload::function("format-named", [Type::String], result, named);
    functions.add("format.named", form);
    let result = Type::optional(Type::list(Type::String));
    let args = [format_type(), Type::String];
    functions.add("validate", Overload::method("format-validate", args, result, validate));
}

struct Constant(Format);

impl crate::function::Body for Constant {
    fn call<'a>(&self, _: &mut Context<'_>, _: &[Value<'a>]) -> Result<Value<'a>, Error> {
        Ok(Value::opaque(self.0))
    }
}

fn named<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::String(name)] = args else { return no_such_overload() };
    let found = FORMATS.iter().find(|(candidate, _)| *candidate == &**name);
    Ok(match found {
        Some((_, format)) => Value::some(Value::opaque(*format)),
        None => Value::Optional(None),
    })
}

fn validate<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [format, Value::String(text)] = args else { return no_such_overload() };
    let Some(format) = format.downcast::<Format>() else { return no_such_overload() };
    let wrong = (format.validate)(text);
    if wrong.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(wrong.into_iter().map(Value::from).collect())))
}

/// A prefix may end with a dash, which something is put behind.
fn unmasked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut rest: String = rest.to_owned();
            rest.pop();
            rest + "a"
        }
        _ => text.to_owned(),
    }
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn explained(message: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    let examples = examples.join(" or ");
    format!("{message} (e.g. {examples}regex used for validation is '{pattern}')")
}

pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && label_shaped(text)
}

pub(super) fn is_service_account_name(text: &str) -> bool {
    text.len() <= 253 && subdomain_shaped(text)
}

fn label_shaped(text: &str) -> bool {
    let within = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(|c| within(*c)))
        && bytes.iter().all(|c| within(*c) || *c == b'-')
}

fn subdomain_shaped(text: &str) -> bool {
    text.split('.').all(label_shaped)
}

fn qualified_shaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()))
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

fn label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if !label_shaped(text) {
        wrong.push(if subdomain_shaped(text) {
            "must not contain dots".to_owned()
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
                           characters or '-', and must start and end with an alphanumeric character";
            explained(message, LABEL, &["my-name", "123-abc"])
        });
    }
    wrong
}

fn subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(too_long(253));
    }
    if !subdomain_shaped(text) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                       characters, '-' or '.', and must start and end with an alphanumeric \
                       character";
        wrong.push(explained(message, SUBDOMAIN, &["example.com"]));
    }
    wrong
}

fn label_1035(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if !label_shaped(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or \
                       '-', start with an alphabetic character, and end with an alphanumeric \
                       character";
        wrong.push(explained(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    wrong
}

fn qualified(text: &str) -> Vec<String> {
    let explanation = || {
        let message = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
                       and end with an alphanumeric character";
        explained(message, QUALIFIED, &["MyName", "my.name", "123-abc"])
    };
    let parts: Vec<&str> = text.split('/').collect();
    let mut wrong = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(subdomain(prefix).iter().map(|w| format!("prefix part {w}")));
            }
            name
        }
        _ => {
            let explanation = explanation();
            return vec![format!(
                "a qualified name {explanation} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !qualified_shaped(name) {
        wrong.push(format!("name part {}", explanation()));
    }
    wrong
}

fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if !text.is_empty() && !qualified_shaped(text) {
        let message = "a valid label must be an empty string or consist of alphanumeric \
                       characters, '-', '_' or '.', and must start and end with an alphanumeric \
                       character";
        let pattern = format!("({QUALIFIED})?");
        wrong.push(explained(message, &pattern, &["MyValue", "my_value", "12345"]));
    }
    wrong
}

fn unless(valid: bool, message: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![message.to_owned()] }
}

fn uri(text: &str) -> Vec<String> {
    super::urls::parse(text).err().into_iter().collect()
}

fn uuid(text: &str) -> Vec<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let shaped = matches!(lengths[..], [8, 4, 4, 4, 12] | [32]);
    let hex = groups.iter().all(|group| group.bytes().all(|c| c.is_ascii_hexdigit()));
    unless(shaped && hex, "does not match the UUID format")
}

fn byte(text: &str) -> Vec<String> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let valid = !text.is_empty()
        && text.len().is_multiple_of(4)
        && padding <= 2
        && digits.bytes().all(|c| c.is_ascii_alphanumeric() || b"+/".contains(&c));
    unless(valid, "invalid base64")
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn date(text: &str) -> Vec<String> {
    unless(is_date(text), "invalid date")
}

fn datetime(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let valid = lower.split_once('t').is_some_and(|(date, rest)| {
        let time = rest.split('t').next().unwrap_or_default();
        is_date(date) && is_time(time)
    });
    unless(valid, "invalid datetime")
}

/// `23:59:59`, a fraction, and `z` or an offset.
fn is_time(text: &str) -> bool {
    let Some((time, rest)) = text.split_at_checked(8) else { return false };
    let parts: Vec<&str> = time.split(':').collect();
    let two = |text: &str| text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit());
    let within = parts.iter().zip(["23", "59", "59"]).all(|(part, max)| two(part) && *part <= max);
    let zone = match rest.find(['z', '+', '-']) {
        Some(at) => &rest[at..],
        None => return false,
    };
    let fraction = &rest[..rest.len() - zone.len()];
    // Upstream's pattern takes any character for the dot.
    let mut digits = fraction.chars();
    let fractional = fraction.is_empty()
        || digits.next().is_some()
            && fraction.chars().count() > 1
            && digits.all(|c| c.is_ascii_digit());
    let zoned = zone == "z"
        || zone[1..].split_once(':').is_some_and(|(hours, minutes)| two(hours) && two(minutes));
    parts.len() == 3 && within && fractional && zoned
}
