//! Whoever brings no credentials.

use async_trait::async_trait;
use orch_core::ApiError;

use super::{Authenticator, UserInfo};

/// Takes every request as `system:anonymous`. Must be the last of the authenticators.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(
        &self,
        _request: &http::request::Parts,
    ) -> Result<Option<UserInfo>, ApiError> {
        Ok(Some(UserInfo::anonymous()))
    }
}
