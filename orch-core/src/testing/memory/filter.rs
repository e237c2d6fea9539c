//! Which objects a list or a watch is about.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    client::{ListOptions, WatchOptions},
    object::Object,
    resource::Target,
    selector::{FieldSelector, Selector},
    status::ApiError,
};

/// The fields that upstream lets a resource be selected by, besides name and namespace.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("replicasets", &["status.replicas"]),
    ("replicationcontrollers", &["status.replicas"]),
    ("jobs", &["status.successful"]),
    ("certificatesigningrequests", &["spec.signerName"]),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
];

pub(super) struct Filter {
    namespace: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Filter {
    pub(super) fn of_list(target: &Target, options: &ListOptions) -> Result<Self, ApiError> {
        Self::new(target, options.label_selector.as_deref(), options.field_selector.as_deref())
    }

    pub(super) fn of_watch(target: &Target, options: &WatchOptions) -> Result<Self, ApiError> {
        Self::new(target, options.label_selector.as_deref(), options.field_selector.as_deref())
    }

    fn new(target: &Target, labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        let bad = |error: crate::selector::SelectorError| ApiError::bad_request(error.to_string());
        let labels = labels.unwrap_or_default().parse().map_err(bad)?;
        let fields: FieldSelector = fields.unwrap_or_default().parse().map_err(bad)?;
        let known = FIELDS.iter().find(|(plural, _)| *plural == target.resource.plural);
        let known = known.map_or(&[][..], |(_, fields)| fields);
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            if !matches!(field, "metadata.name" | "metadata.namespace") && !known.contains(&field) {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
        }
        Ok(Self { namespace: target.namespace.clone(), labels, fields })
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        let meta = object.metadata();
        if let Some(namespace) = &self.namespace
            && meta.namespace.as_ref() != Some(namespace)
        {
            return false;
        }
        self.labels.matches_labels_of(meta) && self.matches_fields(object)
    }

    fn matches_fields(&self, object: &Object) -> bool {
        if self.fields.requirements().is_empty() {
            return true;
        }
        let value = object.to_value();
        self.fields.matches(|path| {
            let found = path.split('.').try_fold(&value, |at, part| at.get(part))?;
            Some(match found {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                Value::Null => Cow::Borrowed(""),
                other => Cow::Owned(other.to_string()),
            })
        })
    }
}
