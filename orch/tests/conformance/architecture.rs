//! Source: `test/e2e/architecture/conformance.go`.

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn should_have_at_least_two_untainted_nodes() {
    let world = World::start(2).await;
    assert!(world.schedulable_nodes().await.len() >= 2);
    world.shutdown().await;
}
