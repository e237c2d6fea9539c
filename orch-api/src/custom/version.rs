//! The behaviour of one served version of a custom resource.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource/strategy.go`,
//! `status_strategy.go`.

use std::borrow::Cow;

use orch_core::{schema::Structural, status::FieldError};
use serde_json::Value;

use super::{columns::Columns, conversion::ConversionWebhook, path::JsonPath, rules::Rules};
use crate::strategy::{ScaleFields, Strategy, carry};

/// A version of a definition, compiled.
#[derive(Debug)]
pub(crate) struct CustomVersion {
    list_kind: Option<String>,
    schema: Value,
    structural: Structural,
    rules: Rules,
    columns: Columns,
    has_status: bool,
    scale: Option<ScaleFields>,
    /// What may be selected by, as clients write it, and where it lies.
    selectable: Vec<(String, String)>,
    deprecation: Option<String>,
    reads_differ: bool,
    converter: Option<ConversionWebhook>,
    terminating: bool,
}

impl CustomVersion {
    /// Compiles a version of a definition.
    pub(super) fn of(definition: &Value, version: &Value, terminating: bool) -> Self {
        let spec = &definition["spec"];
        let schema = &version["schema"]["openAPIV3Schema"];
        let structural = Structural::of(schema);
        let versions = spec["versions"].as_array().map_or(0, Vec::len);
        let stored = definition["status"]["storedVersions"].as_array().map_or(0, Vec::len);
        Self {
            reads_differ: versions > 1 || stored > 1 || structural.has_defaults(),
            list_kind: list_kind_of(definition),
            schema: schema.clone(),
            structural,
            rules: Rules::of(schema),
            columns: Columns::of(version),
            has_status: version["subresources"]["status"].is_object(),
            scale: scale_of(&version["subresources"]["scale"]),
            selectable: selectable_of(version),
            deprecation: deprecation_of(spec, version),
            converter: ConversionWebhook::of(&spec["conversion"]),
            terminating,
        }
    }

    /// What a list of these objects calls itself.
    pub(crate) fn list_kind(&self) -> Option<&str> {
        self.list_kind.as_deref()
    }

    /// The schema as the definition has it.
    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    /// What the schema says about the fields.
    pub(crate) fn structural(&self) -> &Structural {
        &self.structural
    }

    /// Whether objects may be read otherwise than they are stored.
    pub(crate) fn reads_differ(&self) -> bool {
        self.reads_differ
    }

    /// Who converts between the versions, if a webhook does.
    pub(crate) fn converter(&self) -> Option<&ConversionWebhook> {
        self.converter.as_ref()
    }

    /// What clients of this version are warned of.
    pub(crate) fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    /// Whether the definition is being deleted: nothing new is made then.
    pub(crate) fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// The columns of the table.
    pub(crate) fn column_definitions(&self) -> Value {
        self.columns.definitions()
    }

    /// Whether a field may be selected by.
    pub(crate) fn selects(&self, field: &str) -> bool {
        self.selectable.iter().any(|(name, _)| name == field)
    }
}

impl Strategy for CustomVersion {
    fn set_defaults(&self, object: &mut Value) {
        self.structural.set_defaults(object);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        if self.has_status {
            carry(object, &Value::Null, "status");
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        if self.has_status {
            carry(new, old, "status");
        }
    }

    /// Nothing changes but the status, and who manages it.
    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        let mut kept = old.clone();
        carry(&mut kept, new, "status");
        carry(&mut kept["metadata"], &new["metadata"], "managedFields");
        // Conversion may have brought the new object to another version than the old one has.
        carry(&mut kept, new, "apiVersion");
        *new = kept;
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn generation_changes(&self, new: &Value, old: &Value) -> bool {
        let ignored = |name: &str| {
            matches!(name, "metadata" | "apiVersion" | "kind")
                || self.has_status && name == "status"
        };
        let counts = |object: &Value| {
            let mut object = object.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.retain(|name, _| !ignored(name));
            }
            object
        };
        counts(new) != counts(old)
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        self.rules.check_object(object, None)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.rules.check_object(new, Some(old))
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.rules.check_object(new, Some(old))
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        let (_, pointer) = self.selectable.iter().find(|(name, _)| name == field)?;
        Some(match object.pointer(pointer) {
            None | Some(Value::Null) => Cow::Borrowed(""),
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(other) => Cow::Owned(other.to_string()),
        })
    }

    fn scale(&self) -> Option<ScaleFields> {
        self.scale.clone()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        self.columns.row(object, now)
    }
}

fn list_kind_of(definition: &Value) -> Option<String> {
    let kind = definition["status"]["acceptedNames"]["listKind"].as_str();
    kind.filter(|kind| !kind.is_empty()).map(str::to_owned)
}

fn pointer_of(path: &Value) -> Option<String> {
    JsonPath::parse(path.as_str()?).ok()?.pointer()
}

fn scale_of(scale: &Value) -> Option<ScaleFields> {
    Some(ScaleFields {
        spec_replicas: pointer_of(&scale["specReplicasPath"])?.into(),
        status_replicas: pointer_of(&scale["statusReplicasPath"])?.into(),
        selector: pointer_of(&scale["labelSelectorPath"]).map_or(Cow::Borrowed("/-"), Cow::Owned),
    })
}

fn selectable_of(version: &Value) -> Vec<(String, String)> {
    let fields = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
    let pair = |field: &Value| {
        let path = field.get("jsonPath")?;
        let name = path.as_str()?.trim_start_matches('.').to_owned();
        Some((name, pointer_of(path)?))
    };
    fields.filter_map(pair).collect()
}

fn deprecation_of(spec: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(match version["deprecationWarning"].as_str() {
        Some(warning) => warning.to_owned(),
        None => format!(
            "{}/{} {} is deprecated",
            text(&spec["group"]),
            text(&version["name"]),
            text(&spec["names"]["kind"])
        ),
    })
}
