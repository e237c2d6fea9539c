//! Serving the API on a socket: certificates, kubeconfig, the TLS listener.
//!
//! The API server itself is a tower `Service` and needs none of this in process.

mod kubeconfig;
mod listener;
mod pki;
mod private_file;
mod signing;

pub use kubeconfig::{KubeconfigEntry, kubeconfig, write_kubeconfig};
pub use listener::{Draining, Listener, ListenerOptions, PeerAddress, ServeError, ShutdownSignal};
pub use pki::{Credentials, Pki, PkiError, PkiOptions};
pub use signing::{SigningError, SigningTerms};
