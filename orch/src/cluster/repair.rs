//! Bringing the addresses and node ports of Services and the books about them together.
//!
//! Source: `pkg/controlplane/controller/kubernetesservice`, which repairs every three minutes.

use std::time::Duration;

use orch_api::ApiServer;
use orch_core::Environment;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(180);

/// Repairs until it is cancelled.
pub(super) async fn run(api: ApiServer, environment: Environment, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = environment.clock.sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        match api.repair_services().await {
            Ok(repaired) if repaired == Default::default() => {}
            Ok(repaired) => tracing::info!(?repaired, "the books of Services were mended"),
            Err(error) => tracing::warn!(%error, "the books of Services were not looked at"),
        }
    }
}
