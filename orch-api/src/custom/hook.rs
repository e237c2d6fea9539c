//! What the writing of a definition does besides: its names are settled among the others'.

use async_trait::async_trait;
use orch_core::{
    ApiError, ClientError, ResourceType, Scope, Target,
    client::{ListOptions, Read, ReadReply, Write, WriteOptions},
};
use serde_json::Value;

use super::status;
use crate::strategy::{Hook, WriteContext};

/// The resource of definitions.
pub(crate) const DEFINITIONS: ResourceType = ResourceType::new(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    Scope::Cluster,
);

/// Keeps the status of definitions.
#[derive(Debug)]
pub(crate) struct SettleNames;

async fn others(ctx: &WriteContext) -> Result<Vec<Value>, ApiError> {
    let target = Target::collection(DEFINITIONS, None);
    match ctx.client.read(Read::List(target, ListOptions::default())).await {
        Ok(ReadReply::List(list)) => Ok(list.items.iter().map(|item| item.to_value()).collect()),
        Ok(_) => Err(ApiError::internal("a list gave something else")),
        Err(ClientError::Api(error)) => Err(error),
        Err(error) => Err(ApiError::internal(error)),
    }
}

#[async_trait]
impl Hook for SettleNames {
    async fn before_create(&self, ctx: &WriteContext, new: &mut Value) -> Result<(), ApiError> {
        status::settle(new, &others(ctx).await?, ctx.environment.clock.now());
        Ok(())
    }

    async fn before_update(
        &self,
        ctx: &WriteContext,
        new: &mut Value,
        _old: &Value,
    ) -> Result<(), ApiError> {
        status::settle(new, &others(ctx).await?, ctx.environment.clock.now());
        Ok(())
    }

    /// Who waits for the names that are free now gets them.
    async fn after_delete(&self, ctx: &WriteContext, old: &Value) {
        let Ok(all) = others(ctx).await else { return };
        let waits = |one: &&Value| {
            one["spec"]["group"] == old["spec"]["group"]
                && one["metadata"]["name"] != old["metadata"]["name"]
                && !status::is_true(one, "NamesAccepted")
        };
        for one in all.iter().filter(waits) {
            let name = one["metadata"]["name"].as_str().unwrap_or_default();
            let target = Target::object(DEFINITIONS, None, name);
            let mut body = one.clone();
            status::settle(&mut body, &all, ctx.environment.clock.now());
            let target = target.subresource("status");
            let write = Write::Update(target, body, WriteOptions::default());
            if let Err(error) = ctx.client.write(write).await {
                tracing::warn!(%name, %error, "a definition's names could not be settled");
            }
        }
    }
}
