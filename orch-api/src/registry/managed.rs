//! Who manages which fields, and server-side apply.

use orch_core::{ApiError, Object, client::WriteOptions, status::Reason};
use serde_json::Value;

use super::{Addressed, Caller};
use crate::server::Inner;

impl Inner {
    pub(super) fn manage_create(
        &self,
        _caller: &Caller,
        _at: &Addressed,
        _new: &mut Value,
        _options: &WriteOptions,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    pub(super) fn manage_update(
        &self,
        _caller: &Caller,
        _at: &Addressed,
        _new: &mut Value,
        _old: &Value,
        _applied: bool,
        _options: &WriteOptions,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    pub(super) fn apply_server_side(
        &self,
        _caller: &Caller,
        _at: &Addressed,
        _old: &Object,
        _patch: &Value,
        _options: &WriteOptions,
    ) -> Result<(Value, bool), ApiError> {
        Err(ApiError::new(Reason::UnsupportedMediaType, "server-side apply is not supported yet"))
    }
}
