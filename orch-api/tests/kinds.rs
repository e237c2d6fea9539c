//! The behaviour of the built-in kinds, on JSON values: no server, no store.

#[path = "kinds/defaults.rs"]
mod defaults;
#[path = "kinds/manifests.rs"]
mod manifests;
#[path = "kinds/rules.rs"]
mod rules;
#[path = "kinds/server.rs"]
mod server;
#[path = "kinds/service_network.rs"]
mod service_network;
#[path = "kinds/tables.rs"]
mod tables;
#[path = "kinds/updates.rs"]
mod updates;
#[path = "kinds/validation.rs"]
mod validation;

use orch_api::{kinds::strategy, strategy::Strategy};
use serde_json::{Value, json};

/// A value from YAML.
fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What a server makes of a new object before it validates it.
fn created(of: &dyn Strategy, mut object: Value) -> Value {
    let meta = &mut object["metadata"];
    if meta["name"].is_null() {
        meta["name"] = json!("x");
    }
    of.set_defaults(&mut object);
    object["metadata"]["uid"] = json!("uid-1");
    of.prepare_for_create(&mut object);
    object
}

/// The complaints about a new object, one a line.
fn complaints(group: &str, plural: &str, text: &str) -> String {
    let of = strategy(group, plural);
    let object = created(of, yaml(text));
    lines(&of.validate(&object))
}

fn lines(errors: &[orch_core::status::FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
