//! The server's version.
//!
//! Source: `test/e2e/apimachinery/server_version.go`.

use super::world::World;

/// Major and minor version are numbers (some builds append a plus sign to the minor one).
pub(super) async fn should_find_the_server_version() {
    let world = World::start().await;
    let version = world.client.apiserver_version().await.unwrap();
    assert_eq!(version.major.parse::<u32>(), Ok(1));
    assert_eq!(version.minor.trim_end_matches('+').parse::<u32>(), Ok(36));
}
