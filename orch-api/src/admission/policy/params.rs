//! The objects that a binding lends to its policy.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/generic/policy_dispatcher.go`,
//! `CollectParams`.

use orch_core::{
    ClientError, Target,
    client::{ListOptions, Read, ReadReply},
    selector::Selector,
};
use serde_json::Value;

use crate::{catalog::Catalog, server::Inner};

/// What a policy says of its parameters.
#[derive(Clone, Debug)]
pub(super) struct ParamKind {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// Which objects a binding lends.
#[derive(Clone, Debug)]
pub(super) struct ParamRef {
    name: String,
    namespace: String,
    selector: Value,
    denies: bool,
}

impl ParamKind {
    pub(super) fn of(spec: &Value) -> Option<Self> {
        let text = |field: &str| spec["paramKind"][field].as_str().map(str::to_owned);
        Some(Self { api_version: text("apiVersion")?, kind: text("kind")? })
    }
}

impl ParamRef {
    pub(super) fn of(spec: &Value) -> Option<Self> {
        let own = spec.get("paramRef").filter(|own| !own.is_null())?;
        let text = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
        Some(Self {
            name: text("name"),
            namespace: text("namespace"),
            selector: own["selector"].clone(),
            denies: text("parameterNotFoundAction") != "Allow",
        })
    }
}

/// The parameters that a policy is to be evaluated with, once for each; `null` where it takes none.
pub(super) async fn collect(
    server: &Inner,
    catalog: &Catalog,
    kind: Option<&ParamKind>,
    wanted: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(wanted)) = (kind, wanted) else { return Ok(vec![Value::Null]) };
    let unknown = || {
        let ParamKind { api_version, kind } = kind;
        format!("paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known")
    };
    let resource = catalog.of_kind(&kind.api_version, &kind.kind).ok_or_else(unknown)?;
    let namespace = if resource.is_namespaced() {
        let own = if wanted.namespace.is_empty() { namespace } else { wanted.namespace.as_str() };
        if own.is_empty() {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.into());
        }
        Some(own)
    } else if wanted.namespace.is_empty() {
        None
    } else {
        let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
        return Err(why.into());
    };
    let client = server.own_client();
    let found = if wanted.name.is_empty() {
        let parsed = serde_json::from_value(wanted.selector.clone()).ok();
        let selector = Selector::from_label_selector(parsed.as_ref());
        let selector = selector.map_err(|error| error.to_string())?;
        let options = ListOptions {
            label_selector: (!selector.is_everything()).then(|| selector.to_string()),
            ..ListOptions::default()
        };
        let target = Target::collection(resource.of.clone(), namespace);
        client.read(Read::List(target, options)).await
    } else {
        let target = Target::object(resource.of.clone(), namespace, &wanted.name);
        client.read(Read::Get(target)).await
    };
    let params: Vec<Value> = match found {
        Ok(ReadReply::Object(object)) => vec![object.to_value()],
        Ok(ReadReply::List(list)) => list.items.iter().map(|object| object.to_value()).collect(),
        Ok(_) => Vec::new(),
        Err(ClientError::Api(error)) if error.code() == 404 => Vec::new(),
        Err(error) => return Err(error.to_string()),
    };
    if params.is_empty() && wanted.denies {
        let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(why.into());
    }
    Ok(params)
}
