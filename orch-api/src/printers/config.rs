//! The tables of ConfigMaps, Secrets and service accounts.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, age_cell, name, text};
use crate::{kinds::Field, strategy::Column};

pub(crate) const CONFIG_MAPS: [Column; 3] = [NAME, text("Data", "How many keys it has."), AGE];
pub(crate) const SECRETS: [Column; 4] =
    [NAME, text("Type", "What it is for."), text("Data", "How many keys it has."), AGE];
pub(crate) const SERVICE_ACCOUNTS: [Column; 3] =
    [NAME, text("Secrets", "How many Secrets it lists."), AGE];

fn count(object: &Value, map: &str) -> usize {
    object[map].as_object().map_or(0, serde_json::Map::len)
}

pub(crate) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = count(object, "data") + count(object, "binaryData");
    vec![name(object), keys.into(), age_cell(object, now)]
}

pub(crate) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    let kind = object["type"].clone();
    vec![name(object), kind, count(object, "data").into(), age_cell(object, now)]
}

pub(crate) fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), Field::root(object).len("secrets").into(), age_cell(object, now)]
}
