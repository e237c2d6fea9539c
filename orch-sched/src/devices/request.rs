//! What claims ask for, worked out once per cycle.

use std::sync::Arc;

use k8s_openapi::{
    api::resource::v1::{
        self as api, CapacityRequirements, DeviceClass, DeviceToleration, ResourceClaim,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{capacity::Amounts, constraint::Constraint, slice::amount};

/// Devices of one kind: a request, or one of its alternatives.
#[derive(Debug)]
pub(super) struct Ask {
    /// The request's name, and after a slash that of the alternative.
    pub(super) whole_name: String,
    /// The name by itself.
    pub(super) name: String,
    pub(super) class: Arc<DeviceClass>,
    /// How many; `None` is all that there are.
    pub(super) count: Option<usize>,
    pub(super) admin: Option<bool>,
    /// The expressions, those of the class first, each with words for its place.
    pub(super) selectors: Vec<(String, Arc<str>)>,
    pub(super) tolerations: Option<Vec<DeviceToleration>>,
    pub(super) capacity: Option<Amounts>,
}

/// One request with what satisfies it: one thing, or alternatives of which earlier ones are better.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) prioritized: bool,
    pub(super) asks: Vec<Ask>,
}

/// A claim that needs devices.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) claim: Arc<ResourceClaim>,
    pub(super) requests: Vec<Request>,
    pub(super) constraints: Vec<Constraint>,
}

/// Finds device classes by name.
pub(crate) type FindClass<'a> = &'a dyn Fn(&str) -> Option<Arc<DeviceClass>>;

/// Namespace and name, as messages show them.
pub(crate) fn shown(meta: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&meta.namespace), part(&meta.name))
}

/// The fields that requests and alternatives share.
struct Parts<'c> {
    name: &'c str,
    class: &'c str,
    mode: Option<&'c str>,
    count: Option<i64>,
    admin: Option<bool>,
    selectors: Option<&'c [api::DeviceSelector]>,
    tolerations: Option<&'c [DeviceToleration]>,
    capacity: Option<&'c CapacityRequirements>,
}

fn exactly<'c>(name: &'c str, exactly: &'c api::ExactDeviceRequest) -> Parts<'c> {
    Parts {
        name,
        class: &exactly.device_class_name,
        mode: exactly.allocation_mode.as_deref(),
        count: exactly.count,
        admin: exactly.admin_access,
        selectors: exactly.selectors.as_deref(),
        tolerations: exactly.tolerations.as_deref(),
        capacity: exactly.capacity.as_ref(),
    }
}

fn alternative(request: &api::DeviceSubRequest) -> Parts<'_> {
    Parts {
        name: &request.name,
        class: &request.device_class_name,
        mode: request.allocation_mode.as_deref(),
        count: request.count,
        admin: None,
        selectors: request.selectors.as_deref(),
        tolerations: request.tolerations.as_deref(),
        capacity: request.capacity.as_ref(),
    }
}

fn ask(
    parts: &Parts<'_>,
    parent: Option<&str>,
    claim: &ResourceClaim,
    find: FindClass<'_>,
) -> Result<Ask, String> {
    let claim = shown(&claim.metadata);
    let of = |words: String| format!("claim {claim}, request {}: {words}", parts.name);
    let own = expressions(parts.selectors, &format!("claim {claim}"));
    let own = own.map_err(|at| {
        let words = "CEL expression empty (unsupported selector type?)";
        format!("claim {claim}, request {}, selector #{at}: {words}", parts.name)
    })?;
    if parts.class.is_empty() {
        return Err(of("missing device class name (unsupported request type?)".into()));
    }
    let class = find(parts.class).ok_or_else(|| {
        let why = format!("deviceclass.resource.k8s.io {:?} not found", parts.class);
        of(format!("could not retrieve device class {}: {why}", parts.class))
    })?;
    let count = match parts.mode.unwrap_or("ExactCount") {
        "ExactCount" => Some(usize::try_from(parts.count.unwrap_or(1)).unwrap_or_default()),
        "All" => None,
        other => return Err(of(format!("unsupported count mode {other}"))),
    };
    let mut selectors =
        expressions(class.spec.selectors.as_deref(), &format!("class {}", parts.class))
            .map_err(|at| format!("class {}: selector #{at}: CEL expression empty", parts.class))?;
    selectors.extend(own);
    let requests = parts.capacity.and_then(|capacity| capacity.requests.as_ref());
    let whole_name =
        parent.map_or_else(|| parts.name.into(), |one| format!("{one}/{}", parts.name));
    Ok(Ask {
        whole_name,
        name: parts.name.to_owned(),
        class,
        count,
        admin: parts.admin,
        selectors,
        tolerations: parts.tolerations.map(<[_]>::to_vec).filter(|all| !all.is_empty()),
        capacity: requests
            .map(|all| all.iter().map(|(name, of)| (name.clone(), amount(of))).collect()),
    })
}

/// Expressions with words for their places, or the place of one that is not there.
pub(super) fn expressions(
    selectors: Option<&[api::DeviceSelector]>,
    of: &str,
) -> Result<Vec<(String, Arc<str>)>, usize> {
    let selectors = selectors.unwrap_or_default().iter().enumerate();
    let expressions = selectors.map(|(at, selector)| {
        let cel = selector.cel.as_ref().ok_or(at)?;
        Ok((format!("{of}: selector #{at}"), cel.expression.as_str().into()))
    });
    expressions.collect()
}

impl Request {
    fn read(
        request: &api::DeviceRequest,
        claim: &ResourceClaim,
        find: FindClass<'_>,
    ) -> Result<Self, String> {
        let alternatives = request.first_available.as_deref().unwrap_or_default();
        let name = request.name.clone();
        let asks = match &request.exactly {
            Some(one) => vec![ask(&exactly(&name, one), None, claim, find)?],
            None => {
                let asks = alternatives.iter().map(alternative);
                let asks = asks.map(|parts| ask(&parts, Some(&name), claim, find));
                asks.collect::<Result<_, _>>()?
            }
        };
        Ok(Self { prioritized: request.exactly.is_none(), name, asks })
    }
}

impl Wanted {
    /// Works a claim out.
    ///
    /// # Errors
    /// What is wrong with it, which is so on every node.
    pub(super) fn read(claim: &Arc<ResourceClaim>, find: FindClass<'_>) -> Result<Self, String> {
        let devices = claim.spec.devices.as_ref();
        let requests = devices.and_then(|devices| devices.requests.as_deref());
        let requests = requests.unwrap_or_default().iter();
        let requests = requests.map(|request| Request::read(request, claim, find));
        let requests = requests.collect::<Result<_, _>>()?;
        let constraints = devices.and_then(|devices| devices.constraints.as_deref());
        let constraints = constraints.unwrap_or_default().iter().enumerate();
        let constraints = constraints.map(|(at, constraint)| {
            Constraint::read(constraint).ok_or_else(|| {
                let words = "empty constraint (unsupported constraint type?)";
                format!("claim {}, constraint #{at}: {words}", shown(&claim.metadata))
            })
        });
        let constraints = constraints.collect::<Result<_, _>>()?;
        Ok(Self { claim: claim.clone(), requests, constraints })
    }
}
