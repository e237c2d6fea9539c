//! Bearer tokens from a fixed list.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/token/tokenfile`.

use std::{collections::HashMap, fmt};

use async_trait::async_trait;
use orch_core::ApiError;
use sha2::{Digest as _, Sha256};

use super::{Authenticator, UserInfo, bearer_token};

/// A fixed set of bearer tokens. Tokens that are not in the set are left to other authenticators.
#[derive(Clone, Default)]
pub struct StaticTokens {
    /// By the token's digest, so that finding one takes the same time however much of it is right.
    users: HashMap<[u8; 32], UserInfo>,
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.users.len())
    }
}

impl StaticTokens {
    /// No tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more token.
    #[must_use]
    pub fn with(mut self, token: &str, user: UserInfo) -> Self {
        self.users.insert(Sha256::digest(token).into(), user);
        self
    }
}

#[async_trait]
impl Authenticator for StaticTokens {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
    ) -> Result<Option<UserInfo>, ApiError> {
        let Some(token) = bearer_token(&request.headers) else { return Ok(None) };
        let digest: [u8; 32] = Sha256::digest(token).into();
        Ok(self.users.get(&digest).cloned())
    }
}
