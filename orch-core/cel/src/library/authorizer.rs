//! `authorizer`: what an expression asks about permissions.
//!
//! Expressions are evaluated at once, authorizers may have to wait. So the application's
//! authorizer answers from what it has at hand. If it has no answer, the evaluation ends with
//! [`Error::NeedsAuthorization`](crate::Error::NeedsAuthorization), which holds the question: the
//! application finds the answer, keeps it, and evaluates again.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/authz.go`.

use std::any::Any;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::library::formats::{is_label, is_service_account_name};
use crate::types::Type;
use crate::value::{Opaque, Text, Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

/// Answers questions about permissions from what is at hand.
pub trait Authorize {
    /// The answer, or `None` if it has to be found first.
    fn decide(&self, query: &Query) -> Option<Decision>;
}

impl<F: Fn(&Query) -> Option<Decision>> Authorize for F {
    fn decide(&self, query: &Query) -> Option<Decision> {
        self(query)
    }
}

/// A question: may somebody do something?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Query {
    /// Who; `None` for whoever made the request that is evaluated.
    pub service_account: Option<ServiceAccount>,
    /// The verb: of a resource an API verb, of a path an HTTP method in lower case.
    pub verb: String,
    /// What.
    pub target: Target,
}

/// A service account that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What somebody may do something with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A path that is no resource.
    Path(String),
    /// A resource.
    Resource(Box<ResourceCheck>),
}

/// A resource that is asked about, in any version. What is empty is not restricted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceCheck {
    /// Who; `None` for whoever made the request that is evaluated.
    pub service_account: Option<ServiceAccount>,
    /// The API group.
    pub group: String,
    /// The resource, as `pods`.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// The selector of fields, as it was written.
    pub field_selector: String,
    /// The selector of labels, as it was written.
    pub label_selector: String,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: String,
    /// What went wrong in finding out.
    pub error: Option<String>,
}

/// The value of the variable `authorizer`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorizer {
    service_account: Option<ServiceAccount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PathCheck {
    service_account: Option<ServiceAccount>,
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct GroupCheck {
    service_account: Option<ServiceAccount>,
    group: String,
}

/// The type of the variable `authorizer`.
pub fn authorizer_type() -> Type {
    Type::object("kubernetes.authorization.Authorizer")
}

/// The type of the variable `authorizer.requestResource`.
pub fn resource_check_type() -> Type {
    Type::object("kubernetes.authorization.ResourceCheck")
}

fn path_check_type() -> Type {
    Type::object("kubernetes.authorization.PathCheck")
}

fn group_check_type() -> Type {
    Type::object("kubernetes.authorization.GroupCheck")
}

fn decision_type() -> Type {
    Type::object("kubernetes.authorization.Decision")
}

macro_rules! opaque {
    ($of:ty, $type_of:path) => {
        impl Opaque for $of {
            fn type_of(&self) -> Type {
                $type_of()
            }

            fn equals(&self, other: &dyn Opaque) -> bool {
                other.as_any().downcast_ref() == Some(self)
            }

            fn as_any(&self) -> &dyn Any {
                self
            }
        }
    };
}

opaque!(Authorizer, authorizer_type);
opaque!(PathCheck, path_check_type);
opaque!(GroupCheck, group_check_type);
opaque!(ResourceCheck, resource_check_type);
opaque!(Decision, decision_type);

pub(super) fn install(functions: &mut Functions) {
    let types = [
        authorizer_type(),
        path_check_type(),
        group_check_type(),
        resource_check_type(),
        decision_type(),
    ];
    for of in types {
        functions.add_type(of.name().to_owned(), of);
    }
    builders(functions);
    let mut add = |name: &'static str, form| functions.add(name, form);
    let (path, resource) = (path_check_type, resource_check_type);
    let args = [path(), Type::String];
    add("check", Overload::method("pathcheck_check", args, decision_type(), check));
    let args = [resource(), Type::String];
    add("check", Overload::method("resourcecheck_check", args, decision_type(), check));
    let decision = || [decision_type()];
    add("errored", Overload::method("decision_errored", decision(), Type::Bool, errored));
    add("error", Overload::method("decision_error", decision(), Type::String, error));
    add("allowed", Overload::method("decision_allowed", decision(), Type::Bool, allowed));
    add("reason", Overload::method("decision_reason", decision(), Type::String, reason));
}

fn builders(functions: &mut Functions) {
    type Body = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;
    let authorizer = authorizer_type;
    let resource = resource_check_type;
    let forms: [(&'static str, &'static str, Type, Type, Body); 8] = [
        ("path", "authorizer_path", authorizer(), path_check_type(), path),
        ("group", "authorizer_group", authorizer(), group_check_type(), group),
        ("resource", "groupcheck_resource", group_check_type(), resource(), of_resource),
        ("subresource", "resourcecheck_subresource", resource(), resource(), subresource),
        ("namespace", "resourcecheck_namespace", resource(), resource(), namespace),
        ("name", "resourcecheck_name", resource(), resource(), name),
        ("fieldSelector", "authorizer_fieldselector", resource(), resource(), field_selector),
        ("labelSelector", "authorizer_labelselector", resource(), resource(), label_selector),
    ];
    for (name, id, from, to, body) in forms {
        functions.add(name, Overload::method(id, [from, Type::String], to, body));
    }
    let args = [authorizer(), Type::String, Type::String];
    let form = Overload::method("authorizer_serviceaccount", args, authorizer(), service_account);
    functions.add("serviceAccount", form);
}

/// The receiver of a method and its text.
fn given<'v, T: Opaque>(args: &'v [Value<'_>]) -> Result<(&'v T, &'v str), Error> {
    match args {
        [receiver, Value::String(text)] => receiver
            .downcast()
            .map(|receiver| (receiver, &**text))
            .ok_or_else(Error::no_such_overload),
        _ => Err(Error::no_such_overload()),
    }
}

fn path<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (of, path) = given::<Authorizer>(args)?;
    if path.trim().is_empty() {
        return Err(Error::failed("path must not be empty"));
    }
    let service_account = of.service_account.clone();
    Ok(Value::opaque(PathCheck { service_account, path: path.to_owned() }))
}

fn group<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (of, group) = given::<Authorizer>(args)?;
    let service_account = of.service_account.clone();
    Ok(Value::opaque(GroupCheck { service_account, group: group.to_owned() }))
}

fn service_account<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [_, Value::String(namespace), Value::String(name)] = args else {
        return no_such_overload();
    };
    if !is_service_account_name(name) {
        return Err(Error::failed("Invalid service account name"));
    }
    if !is_label(namespace) {
        return Err(Error::failed("Invalid service account namespace"));
    }
    let account = ServiceAccount { namespace: namespace.to_string(), name: name.to_string() };
    Ok(Value::opaque(Authorizer { service_account: Some(account) }))
}

fn of_resource<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (of, resource) = given::<GroupCheck>(args)?;
    if resource.trim().is_empty() {
        return Err(Error::failed("resource must not be empty"));
    }
    Ok(Value::opaque(ResourceCheck {
        service_account: of.service_account.clone(),
        group: of.group.clone(),
        resource: resource.to_owned(),
        ..ResourceCheck::default()
    }))
}

/// The resource with one more restriction.
fn restricted<'a>(args: &[Value<'_>], set: impl FnOnce(&mut ResourceCheck, String)) -> Outcome<'a> {
    let (of, text) = given::<ResourceCheck>(args)?;
    let mut check = of.clone();
    set(&mut check, text.to_owned());
    Ok(Value::opaque(check))
}

fn subresource<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    restricted(args, |check, text| check.subresource = text)
}

fn namespace<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    restricted(args, |check, text| check.namespace = text)
}

fn name<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    restricted(args, |check, text| check.name = text)
}

fn field_selector<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    restricted(args, |check, text| check.field_selector = text)
}

fn label_selector<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    restricted(args, |check, text| check.label_selector = text)
}

fn check<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let query = if let Ok((of, verb)) = given::<PathCheck>(args) {
        Query {
            service_account: of.service_account.clone(),
            verb: verb.to_owned(),
            target: Target::Path(of.path.clone()),
        }
    } else {
        let (of, verb) = given::<ResourceCheck>(args)?;
        Query {
            service_account: of.service_account.clone(),
            verb: verb.to_owned(),
            target: Target::Resource(Box::new(of.clone())),
        }
    };
    context.authorize(&query).map(Value::opaque)
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, Error> {
    args.first().and_then(Value::downcast).ok_or_else(Error::no_such_overload)
}

fn errored<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(decision(args)?.error.is_some()))
}

fn error<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::string(decision(args)?.error.as_deref().unwrap_or_default()))
}

fn allowed<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(decision(args)?.allowed))
}

fn reason<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::String(Text::Owned(decision(args)?.reason.as_str().into())))
}
