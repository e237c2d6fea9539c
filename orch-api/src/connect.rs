//! The hand-over of requests that are conversations: `exec`, `attach`, `portforward`, `log`,
//! `proxy`.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use orch_core::{Client, Environment, Target};

use crate::auth::UserInfo;

/// The body of a request or response, whatever it comes from.
pub type BoxBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What a [`Connector`] may use.
#[derive(Clone, Debug)]
pub struct ConnectContext {
    /// Who asks; already authorized and admitted.
    pub user: Arc<UserInfo>,
    /// The cluster, with all rights.
    pub client: Arc<dyn Client>,
    /// Clock and randomness.
    pub environment: Environment,
    /// What follows the subresource in the path, for `proxy`; begins with a slash or is empty.
    pub rest: String,
}

/// Answers the subresources that are connections to a node, a pod or a service. Object-safe.
///
/// `request` is the client's own: where its connection can be upgraded, its extensions hold
/// hyper's `OnUpgrade`. The answer goes back as it is.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Answers the request.
    async fn connect(
        &self,
        context: ConnectContext,
        target: Target,
        request: http::Request<BoxBody>,
    ) -> http::Response<BoxBody>;
}
