//! Which objects of a collection a reader wants.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use orch_core::{
    ApiError, Object,
    selector::{FieldSelector, Selector},
};
use serde::Deserialize;

use crate::{
    catalog::{Behaviour, Resource},
    strategy::Strategy,
};

/// A cached object with what selections need of it. Two pointers: there may be a great many.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) object: Arc<Object>,
    /// Nothing for kinds that are selected by their metadata alone.
    selected: Option<Arc<Selected>>,
}

/// What else a built-in kind is selected by.
struct Selected {
    /// Pods only: the node, because kubelets list and watch by it.
    node: Option<String>,
    /// Computed when somebody selects by one of them.
    fields: OnceLock<Box<[Option<String>]>>,
}

/// What there is to select by in a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selectable {
    /// Its metadata.
    Metadata,
    /// Fields of the kind too.
    Fields,
    /// Those and the node.
    Node,
}

impl Selectable {
    pub(crate) fn of(resource: &Resource) -> Self {
        match resource.behaviour() {
            _ if resource.prefix == "/registry/pods/" => Self::Node,
            Behaviour::BuiltIn(strategy) if !strategy.selectable_fields().is_empty() => {
                Self::Fields
            }
            // Those of custom resources are not kept: the definition may change.
            _ => Self::Metadata,
        }
    }
}

#[derive(Deserialize)]
struct PodHead {
    #[serde(default)]
    spec: PodSpecHead,
}

#[derive(Deserialize, Default)]
struct PodSpecHead {
    #[serde(rename = "nodeName", default)]
    node_name: Option<String>,
}

impl Item {
    pub(crate) fn new(object: Arc<Object>, by: Selectable) -> Self {
        if by == Selectable::Metadata {
            return Self { object, selected: None };
        }
        let node = (by == Selectable::Node)
            .then(|| serde_json::from_slice::<PodHead>(object.stored_json()).ok())
            .flatten()
            .and_then(|head| head.spec.node_name)
            .filter(|node| !node.is_empty());
        Self { object, selected: Some(Arc::new(Selected { node, fields: OnceLock::new() })) }
    }

    /// The node of a pod that has one.
    pub(crate) fn node(&self) -> Option<&str> {
        self.selected.as_ref()?.node.as_deref()
    }

    /// A selectable field that is not of the metadata, computed once an object.
    fn field(&self, strategy: &dyn Strategy, name: &str) -> Option<&str> {
        let names = strategy.selectable_fields();
        let at = names.iter().position(|field| *field == name)?;
        let fields = self.selected.as_ref()?.fields.get_or_init(|| {
            let value = self.object.to_value();
            let own = |field: &&str| strategy.selectable_field(&value, field).map(Cow::into_owned);
            names.iter().map(own).collect()
        });
        fields[at].as_deref()
    }
}

/// Whether a kind may be selected by a field that is not of the metadata.
fn selects(behaviour: &Behaviour, group: &str, field: &str) -> bool {
    match behaviour {
        Behaviour::BuiltIn(strategy) => strategy.selects_in(group, field),
        Behaviour::Custom(version) => version.selects(field),
    }
}

/// A selection of a collection's objects.
pub(crate) struct Filter {
    pub(crate) namespace: Option<String>,
    /// `metadata.name` must be this.
    pub(crate) name: Option<String>,
    /// `spec.nodeName` must be this (pods only).
    pub(crate) node: Option<String>,
    is_pod: bool,
    labels: Selector,
    fields: FieldSelector,
    strategy: Behaviour,
}

impl Filter {
    /// Parses the selectors of a list or watch.
    ///
    /// # Errors
    /// `BadRequest` for malformed ones and for fields that the kind does not have.
    pub(crate) fn parse(
        resource: &Resource,
        strategy: Behaviour,
        namespace: Option<&str>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, ApiError> {
        let labels: Selector = match labels.filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?,
            None => Selector::everything(),
        };
        let fields: FieldSelector = match fields.filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?,
            None => FieldSelector::everything(),
        };
        let is_pod = resource.of.plural == "pods" && resource.of.group.is_empty();
        let (mut name, mut node) = (None, None);
        for one in fields.requirements() {
            match one.field.as_str() {
                "metadata.name" if one.equals => name = Some(one.value.clone()),
                "metadata.name" => {}
                "metadata.namespace" if resource.is_namespaced() => {}
                "spec.nodeName" if is_pod && one.equals && !one.value.is_empty() => {
                    node = Some(one.value.clone());
                }
                "spec.nodeName" if is_pod => {}
                other if selects(&strategy, &resource.of.group, other) => {}
                other => {
                    let why = if resource.of.group.is_empty() || is_pod {
                        format!("field label not supported: {other}")
                    } else {
                        format!(
                            "{other:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                        )
                    };
                    return Err(ApiError::bad_request(why));
                }
            }
        }
        let namespace = namespace.filter(|_| resource.is_namespaced()).map(str::to_owned);
        Ok(Self { namespace, name, node, is_pod, labels, fields, strategy })
    }

    /// Whether the selection is everything of its namespace.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.requirements().is_empty()
    }

    pub(crate) fn matches(&self, item: &Item) -> bool {
        let namespace = item.object.namespace();
        if self.namespace.as_deref().is_some_and(|wanted| wanted != namespace) {
            return false;
        }
        if !self.labels.is_everything() && !self.labels.matches_labels_of(item.object.metadata()) {
            return false;
        }
        self.fields.matches(|field| match field {
            "metadata.name" => Some(Cow::Borrowed(item.object.name())),
            "metadata.namespace" => Some(Cow::Borrowed(namespace)),
            "spec.nodeName" if self.is_pod => item.node().map(Cow::Borrowed),
            other => match &self.strategy {
                Behaviour::BuiltIn(strategy) => item.field(*strategy, other).map(Cow::Borrowed),
                // Not kept with the object: the definition may change.
                Behaviour::Custom(version) => {
                    let value = item.object.to_value();
                    let found = version.selectable_field(&value, other).map(Cow::into_owned);
                    found.map(Cow::Owned)
                }
            },
        })
    }
}
