//! Lifecycle hooks.
//!
//! Source: `pkg/kubelet/lifecycle/handlers.go`.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};

use super::{
    Context,
    prober::{self, Outcome, ProbeTarget},
};
use crate::runtime::ContainerId;

/// Runs a hook to its end.
pub(super) async fn run(
    context: &Context,
    container: &Container,
    id: &ContainerId,
    address: Option<IpAddr>,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        let output = context.runtime.exec_sync(id, command, None).await;
        let output = output.map_err(|e| e.to_string())?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("command exited with {}: {said}", output.exit_code));
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
        context.environment.clock.sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    if let Some(http) = &hook.http_get {
        return get(context, container, id, address, http).await;
    }
    Err("invalid handler: neither exec, httpGet nor sleep".into())
}

async fn get(
    context: &Context,
    container: &Container,
    id: &ContainerId,
    address: Option<IpAddr>,
    action: &HTTPGetAction,
) -> Result<(), String> {
    if context.runtime.answer_probe(id).await.is_some() {
        return Ok(());
    }
    let target = ProbeTarget { runtime: &*context.runtime, container_id: id, container, address };
    match prober::http_get(target, action).await {
        Outcome::Success => Ok(()),
        Outcome::Failure(why) | Outcome::Error(why) => Err(why),
    }
}
