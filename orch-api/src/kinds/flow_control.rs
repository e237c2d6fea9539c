//! What FlowSchemas and PriorityLevelConfigurations may say.
//!
//! Source: `pkg/apis/flowcontrol/validation`.

use orch_core::status::FieldError;
use serde_json::Value;

use super::field::{Errors, Field};
use crate::names;

const EXEMPT: &str = "exempt";
const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const ENTROPY_BITS_MAX: f64 = 60.0;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// Checks a FlowSchema.
pub(super) fn flow_schema(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let root = Field::root(object);
    let (name, spec) = (root.get("metadata").str("name"), root.get("spec"));
    let precedence = spec.int("matchingPrecedence").unwrap_or_default();
    let mut refuse = |why: &str| errors.push(spec.invalid("matchingPrecedence", why));
    if precedence <= 0 {
        refuse("must be a positive value");
    } else if precedence > PRECEDENCE_MAX {
        refuse("must not be greater than 10000");
    } else if precedence == 1 && name != EXEMPT {
        refuse("only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.opt("distinguisherMethod") {
        method.one_of("type", &["ByNamespace", "ByUser"], false, &mut errors);
    }
    let level = spec.get("priorityLevelConfiguration");
    if level.str("name").is_empty() {
        errors.push(level.required("name", "must reference a priority level"));
    } else {
        let wrong = names::dns_subdomain(level.str("name"));
        errors.extend(wrong.into_iter().map(|why| level.invalid("name", why)));
    }
    for rule in spec.items("rules") {
        rules(&rule, &mut errors);
    }
    errors
}

fn rules(rule: &Field<'_>, errors: &mut Errors) {
    if rule.len("subjects") == 0 {
        errors.push(rule.required("subjects", "subjects must contain at least one value"));
    }
    for one in rule.items("subjects") {
        subject(&one, errors);
    }
    if rule.len("resourceRules") == 0 && rule.len("nonResourceRules") == 0 {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(&rule.path, why));
    }
    for one in rule.items("resourceRules") {
        resource_rule(&one, errors);
    }
    for one in rule.items("nonResourceRules") {
        verbs(&one, errors);
        some(&one, "nonResourceURLs", "nonResourceURLs must contain at least one value", errors);
        alone(&one, "nonResourceURLs", "other non-resource URLs", errors);
        for (at, path) in one.strs("nonResourceURLs").enumerate().filter(|(_, path)| *path != "*") {
            if let Some(why) = url_complaint(path) {
                let at = format!("{}[{at}]", one.at("nonResourceURLs"));
                errors.push(FieldError::invalid(at, path, why));
            }
        }
    }
}

/// A subject says who it is in the field of its kind, and in no other.
fn subject(subject: &Field<'_>, errors: &mut Errors) {
    let kinds = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.str("kind");
    if !kinds.iter().any(|(known, _)| *known == kind) {
        let known = ["Group", "ServiceAccount", "User"];
        errors.push(FieldError::not_supported(subject.at("kind"), kind, &known));
        return;
    }
    for (of, field) in kinds {
        match subject.opt(field) {
            Some(_) if of != kind => {
                let why = format!("{field} is forbidden when subject kind is not '{of}'");
                errors.push(subject.forbidden(field, why));
            }
            None if of == kind => {
                let why = format!("{field} is required when subject kind is '{of}'");
                errors.push(subject.required(field, why));
            }
            Some(who) => {
                who.not_empty("name", errors);
                if field == "serviceAccount" {
                    account(&who, errors);
                }
            }
            None => {}
        }
    }
}

fn account(account: &Field<'_>, errors: &mut Errors) {
    let name = account.str("name");
    if !name.is_empty() && name != "*" {
        let wrong = names::dns_subdomain(name);
        errors.extend(wrong.into_iter().map(|why| account.invalid("name", why)));
    }
    if account.str("namespace").is_empty() {
        errors.push(account.required("namespace", "must specify namespace for service account"));
    } else {
        let wrong = names::dns_label(account.str("namespace"));
        errors.extend(wrong.into_iter().map(|why| account.invalid("namespace", why)));
    }
}

fn some(rule: &Field<'_>, list: &str, why: &str, errors: &mut Errors) {
    if rule.len(list) == 0 {
        errors.push(rule.required(list, why));
    }
}

/// Everything and something else besides is a mistake.
fn alone(rule: &Field<'_>, list: &str, others: &str, errors: &mut Errors) {
    if rule.len(list) > 1 && rule.strs(list).any(|one| one == "*") {
        let why = format!("if '*' is present, must not specify {others}");
        errors.push(rule.invalid(list, why));
    }
}

fn verbs(rule: &Field<'_>, errors: &mut Errors) {
    some(rule, "verbs", "verbs must contain at least one value", errors);
    if rule.strs("verbs").any(|verb| verb == "*") {
        alone(rule, "verbs", "other verbs", errors);
    } else if rule.strs("verbs").any(|verb| !VERBS.contains(&verb)) {
        let given = rule.raw("verbs").to_string();
        errors.push(FieldError::not_supported(rule.at("verbs"), given, &VERBS));
    }
}

fn resource_rule(rule: &Field<'_>, errors: &mut Errors) {
    verbs(rule, errors);
    some(rule, "apiGroups", "resource rules must supply at least one api group", errors);
    alone(rule, "apiGroups", "other api groups", errors);
    some(rule, "resources", "resource rules must supply at least one resource", errors);
    alone(rule, "resources", "other resources", errors);
    if rule.len("namespaces") == 0 && !rule.bool("clusterScope") {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(rule.required("namespaces", why));
    }
    alone(rule, "namespaces", "other namespaces", errors);
    for (at, namespace) in rule.strs("namespaces").enumerate().filter(|(_, one)| *one != "*") {
        let path = format!("{}[{at}]", rule.at("namespaces"));
        let wrong = names::dns_label(namespace);
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, namespace, why)));
    }
}

fn url_complaint(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        path if !path.starts_with('/') => Some("must start with slash"),
        path if path.contains(' ') => Some("must not contain white-space"),
        path if path.contains("//") => Some("must not contain double slash"),
        path if stars > 1 || stars == 1 && !path.ends_with("/*") => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

/// Checks a PriorityLevelConfiguration.
pub(super) fn priority_level(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let root = Field::root(object);
    let (name, spec) = (root.get("metadata").str("name"), root.get("spec"));
    let kind = spec.str("type");
    if (name == EXEMPT) != (kind == "Exempt") {
        let why = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(spec.invalid("type", why));
    }
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                errors.push(spec.forbidden("limited", "must be nil if the type is not Limited"));
            }
            if let Some(exempt) = spec.opt("exempt") {
                shares(&exempt, &mut errors);
            }
        }
        "Limited" => {
            if spec.has("exempt") {
                errors.push(spec.forbidden("exempt", "must be nil if the type is Limited"));
            }
            match spec.opt("limited") {
                Some(limited) => self::limited(&limited, &mut errors),
                None => {
                    let why = "must not be empty when type is Limited";
                    errors.push(spec.required("limited", why));
                }
            }
        }
        other => {
            let known = ["Exempt", "Limited"];
            errors.push(FieldError::not_supported(spec.at("type"), other, &known));
        }
    }
    errors
}

fn shares(level: &Field<'_>, errors: &mut Errors) {
    if level.int("nominalConcurrencyShares").is_some_and(|shares| shares < 0) {
        errors.push(level.invalid("nominalConcurrencyShares", "must be a non-negative integer"));
    }
    if level.int("lendablePercent").is_some_and(|part| !(0..=100).contains(&part)) {
        errors.push(level.invalid("lendablePercent", "must be between 0 and 100, inclusive"));
    }
}

fn limited(limited: &Field<'_>, errors: &mut Errors) {
    shares(limited, errors);
    if limited.int("borrowingLimitPercent").is_some_and(|part| part < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(limited.invalid("borrowingLimitPercent", why));
    }
    let response = limited.get("limitResponse");
    match (response.str("type"), response.opt("queuing")) {
        ("Reject", Some(_)) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(response.forbidden("queuing", why));
        }
        ("Queue", None) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(response.required("queuing", why));
        }
        ("Queue", Some(queuing)) => self::queuing(&queuing, errors),
        ("Reject", None) => {}
        (other, _) => {
            let known = ["Queue", "Reject"];
            errors.push(FieldError::not_supported(response.at("type"), other, &known));
        }
    }
}

fn queuing(queuing: &Field<'_>, errors: &mut Errors) {
    let number = |name: &str| queuing.int(name).unwrap_or_default();
    if number("queueLengthLimit") <= 0 {
        errors.push(queuing.invalid("queueLengthLimit", "must be positive"));
    }
    let (queues, hand) = (number("queues"), number("handSize"));
    if queues <= 0 {
        errors.push(queuing.invalid("queues", "must be positive"));
    } else if queues > QUEUES_MAX {
        let why = format!("must not be greater than {QUEUES_MAX}");
        errors.push(queuing.invalid("queues", why));
    }
    if hand <= 0 {
        errors.push(queuing.invalid("handSize", "must be positive"));
    } else if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        errors.push(queuing.invalid("handSize", why));
    } else if entropy_bits(queues, hand) > ENTROPY_BITS_MAX {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater \
             than {ENTROPY_BITS_MAX}"
        );
        errors.push(queuing.invalid("handSize", why));
    }
}

/// How many bits of a hash it takes to deal a hand out of a deck, with some to spare.
///
/// Source: `k8s.io/apiserver/pkg/util/shufflesharding`, `RequiredEntropyBits`.
fn entropy_bits(deck: i64, hand: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are ten million queues at most")]
    let bits = (deck as f64).log2() * hand as f64;
    bits.ceil()
}
