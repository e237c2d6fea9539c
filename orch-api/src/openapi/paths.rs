//! Endpoints as OpenAPI paths and operations.

use orch_core::schema::{self, Definition};
use serde_json::{Map, Value, json};

use super::{
    Endpoint,
    parameters::{of_action, of_path, written},
    schemas::{Dialect, Schemas},
};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// The strategic one, last, is for built-in kinds only.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

/// `api/v1`, `apis/apps/v1`.
pub(super) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The paths of one document.
pub(super) struct Paths {
    dialect: Dialect,
    paths: Map<String, Value>,
}

/// What is sent or answered.
#[derive(Clone, Copy)]
enum Held<'a> {
    BuiltIn(&'static Definition),
    /// The name of a custom kind's definition.
    Custom(&'a str),
}

impl Held<'_> {
    fn reference(self, schemas: &mut Schemas) -> Value {
        match self {
            Self::BuiltIn(definition) => schemas.reference(definition),
            Self::Custom(name) => schemas.named(name),
        }
    }
}

/// Verb, method, action, what is sent, what is answered.
type Row<'a> = (&'static str, &'static str, &'static str, Option<Held<'a>>, Option<Held<'a>>);

/// One operation, before it is written in a dialect.
struct Operation<'a> {
    endpoint: &'a Endpoint,
    method: &'static str,
    action: &'static str,
    /// What is sent: nothing, an object of the kind, a patch, or delete options.
    body: Option<Held<'a>>,
    answer: Option<Held<'a>>,
}

impl Paths {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, paths: Map::new() }
    }

    pub(super) fn finish(self) -> Map<String, Value> {
        self.paths
    }

    /// Adds all paths of an endpoint.
    pub(super) fn add(&mut self, endpoint: &Endpoint, schemas: &mut Schemas) {
        let base = format!("/{}", group_version(&endpoint.group, &endpoint.version));
        let place = if endpoint.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{base}{place}/{}", endpoint.plural);
        let (group, version, kind) = &endpoint.kind;
        let custom = schemas.custom(endpoint);
        let (object, list) = match &custom {
            Some((name, list)) => (Some(Held::Custom(name)), Some(Held::Custom(list))),
            None => {
                let of = |kind: &str| schema::of(group, version, kind).map(Held::BuiltIn);
                (of(kind), of(&format!("{kind}List")))
            }
        };
        let meta = |name: &str| schema::definition(&format!("{META}.{name}")).map(Held::BuiltIn);
        let (patch, options, status) = (meta("Patch"), meta("DeleteOptions"), meta("Status"));
        if let Some(sub) = &endpoint.subresource {
            let path = format!("{collection}/{{name}}/{sub}");
            if object.is_none() || kind.ends_with("Options") {
                // Proxies, logs and streams take and answer no objects.
                self.operations(
                    &path,
                    endpoint,
                    schemas,
                    &[
                        ("get", "get", "connect", None, None),
                        ("create", "post", "connect", None, None),
                        ("update", "put", "connect", None, None),
                        ("patch", "patch", "connect", None, None),
                        ("delete", "delete", "connect", None, None),
                    ],
                );
                return;
            }
            self.operations(
                &path,
                endpoint,
                schemas,
                &[
                    ("get", "get", "get", None, object),
                    ("create", "post", "post", object, object),
                    ("update", "put", "put", object, object),
                    ("patch", "patch", "patch", patch, object),
                ],
            );
            return;
        }
        self.operations(
            &collection,
            endpoint,
            schemas,
            &[
                ("list", "get", "list", None, list),
                ("create", "post", "post", object, object),
                ("deletecollection", "delete", "deletecollection", options, status),
            ],
        );
        self.operations(
            &format!("{collection}/{{name}}"),
            endpoint,
            schemas,
            &[
                ("get", "get", "get", None, object),
                ("update", "put", "put", object, object),
                ("patch", "patch", "patch", patch, object),
                ("delete", "delete", "delete", options, status),
            ],
        );
        if endpoint.namespaced {
            let everywhere = format!("{base}/{}", endpoint.plural);
            self.operations(&everywhere, endpoint, schemas, &[("list", "get", "list", None, list)]);
        }
    }

    /// Adds those operations of a path that the endpoint has the verbs for.
    fn operations(
        &mut self,
        path: &str,
        endpoint: &Endpoint,
        schemas: &mut Schemas,
        operations: &[Row<'_>],
    ) {
        let mut item = Map::new();
        for (verb, method, action, body, answer) in operations {
            if endpoint.verbs.iter().any(|has| has == verb) {
                let (body, answer) = (*body, *answer);
                let operation = Operation { endpoint, method, action, body, answer };
                item.insert((*method).to_owned(), operation.written(self.dialect, path, schemas));
            }
        }
        if !item.is_empty() {
            item.insert("parameters".into(), of_path(self.dialect, path).into());
            self.paths.insert(path.to_owned(), Value::Object(item));
        }
    }
}

impl Operation<'_> {
    fn written(&self, dialect: Dialect, path: &str, schemas: &mut Schemas) -> Value {
        let (group, version, kind) = &self.endpoint.kind;
        let mut parameters: Vec<Value> = of_action(self.action)
            .iter()
            .map(|parameter| written(dialect, "query", parameter))
            .collect();
        let mut operation = json!({
            "operationId": self.id(path),
            "description": self.description(),
            "tags": [self.tag()],
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let types = self.media_types();
        let body = self.body.map(|body| body.reference(schemas));
        let answer = self.answer.map(|answer| answer.reference(schemas));
        match dialect {
            Dialect::V2 => {
                if let Some(schema) = body {
                    let required = self.action != "delete" && self.action != "deletecollection";
                    let mut body = json!({"name": "body", "in": "body", "schema": schema});
                    if required {
                        body["required"] = true.into();
                    }
                    parameters.push(body);
                }
                let mut ok = json!({"description": "OK"});
                if let Some(schema) = answer {
                    ok["schema"] = schema;
                }
                operation["consumes"] = json!(types);
                operation["produces"] = json!([super::JSON]);
                operation["schemes"] = json!(["https"]);
                operation["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
            }
            Dialect::V3 => {
                if let Some(schema) = body {
                    let content: Map<String, Value> = types
                        .iter()
                        .map(|ty| ((*ty).to_owned(), json!({"schema": schema})))
                        .collect();
                    operation["requestBody"] = json!({"content": content});
                }
                let mut ok = json!({"description": "OK"});
                if let Some(schema) = answer {
                    ok["content"] = json!({super::JSON: {"schema": schema}});
                }
                operation["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
            }
        }
        operation["parameters"] = Value::Array(parameters);
        operation
    }

    fn media_types(&self) -> &'static [&'static str] {
        match self.action {
            "patch" if self.endpoint.schema.is_some() => &PATCH_TYPES[..3],
            "patch" => &PATCH_TYPES,
            _ => &["*/*"],
        }
    }

    fn tag(&self) -> String {
        let group = self.endpoint.group.split('.').next().unwrap_or_default();
        let group = if group.is_empty() { "core" } else { group };
        format!("{group}_{}", self.endpoint.version)
    }

    /// A name that no other operation of the server has.
    fn id(&self, path: &str) -> String {
        let verb = match (self.action, self.method) {
            ("post", _) => "create",
            ("put", _) => "replace",
            ("get", _) => "read",
            ("connect", "get") => "connectGet",
            ("connect", "post") => "connectPost",
            ("connect", "put") => "connectPut",
            ("connect", "patch") => "connectPatch",
            ("connect", _) => "connectDelete",
            (action, _) => action,
        };
        let group = self.endpoint.group.split('.').next().unwrap_or_default();
        let group = if group.is_empty() { "core" } else { group };
        let within = if path.contains("{namespace}") { "Namespaced" } else { "" };
        let everywhere = self.endpoint.namespaced && within.is_empty();
        let sub = self.endpoint.subresource.as_deref().unwrap_or_default();
        format!(
            "{verb}{}{}{within}{}{}{}",
            capitalized(group),
            capitalized(&self.endpoint.version),
            capitalized(&self.endpoint.plural),
            capitalized(sub),
            if everywhere { "ForAllNamespaces" } else { "" },
        )
    }

    fn description(&self) -> String {
        let kind = &self.endpoint.kind.2;
        let of = match &self.endpoint.subresource {
            Some(sub) => format!("{sub} of the {} resource", self.endpoint.plural),
            None => kind.clone(),
        };
        match self.action {
            "list" => format!("list or watch objects of kind {of}"),
            "post" => format!("create a {of}"),
            "put" => format!("replace the specified {of}"),
            "patch" => format!("partially update the specified {of}"),
            "deletecollection" => format!("delete a collection of {of}"),
            "connect" => format!("connect {} requests to {of}", self.method.to_uppercase()),
            "get" => format!("read the specified {of}"),
            action => format!("{action} a {of}"),
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
