//! Who asks, whether they may, and how they are connected.

#[path = "auth/admission.rs"]
mod admission;
#[path = "auth/connections.rs"]
mod connections;
#[path = "auth/rbac.rs"]
mod rbac;
#[path = "auth/server.rs"]
mod server;
#[path = "auth/serving.rs"]
mod serving;
#[path = "auth/tokens.rs"]
mod tokens;
