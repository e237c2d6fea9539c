//! How a store is served.

use std::{path::PathBuf, time::Duration};

use orch_core::Environment;

/// How an [`EtcdServer`](super::EtcdServer) behaves.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The version that clients are told, in `Status` and `/version`. Clients look at it to find
    /// out what they may use: kube-apiserver requests progress of watches from servers of 3.4.31,
    /// 3.5.13 or newer only. Default: `3.6.5`, whose calls these are.
    pub version: String,
    /// The name of the one member, in the list of members. Default: `default`, as etcd's.
    pub member_name: String,
    /// The id of the cluster, in every response. Not 0. Default: a constant; servers of different
    /// stores may have the same.
    pub cluster_id: u64,
    /// The id of the one member, in every response. Not 0. Default: a constant.
    pub member_id: u64,
    /// The URLs that clients are told to use, such as `https://10.0.0.1:2379`. Default: none,
    /// which means the address that is listened on.
    pub advertise_client_urls: Vec<String>,
    /// The largest write, in bytes of its encoding; a message may be 512 KiB larger before the
    /// transport refuses it. Default: 1.5 MiB, as etcd's `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// How many comparisons, or operations in one branch, a transaction may have, inner ones
    /// included. Default: 128, as etcd's `--max-txn-ops`.
    pub transaction_operations_max: usize,
    /// The shortest time to live of a lease in seconds, at least 1; shorter ones become it.
    /// Default: 2, which is what etcd has with its default election timeout.
    pub lease_ttl_s_min: i64,
    /// How often a watch that asked to be notified of progress, and was silent since the last
    /// time, is notified; a tenth is added at random. At least 100 ms. Default: 10 min, as etcd's
    /// `--watch-progress-notify-interval`.
    pub watch_progress_interval: Duration,
    /// How many requests one connection may have open at once; a stream of watches is one.
    /// Default: 4096.
    pub connection_streams_max: u32,
    /// How many connections are served at once; more wait in the kernel's queue. Default: no
    /// limit.
    pub connections_max: Option<usize>,
    /// How long a client may take for the TLS handshake. Default: 10 s.
    pub handshake_timeout: Duration,
    /// A connection that is silent for so long is pinged, and closed if it does not answer within
    /// 20 s. Default: 2 h, as etcd's `--grpc-keepalive-interval`.
    pub keepalive_interval: Duration,
    /// How long open requests may go on once the shutdown began. Default: 5 s.
    pub shutdown_grace: Duration,
    /// The folder whose files are the store, to tell its size. Default: none; the living keys and
    /// values are summed up instead, at most every 10 s.
    pub data_folder: Option<PathBuf>,
    /// The server's certificate. Default: none; connections are not encrypted.
    pub tls: Option<ServerTls>,
    /// Time and randomness. Default: the machine's.
    pub environment: Environment,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            version: "3.6.5".into(),
            member_name: "default".into(),
            cluster_id: 0x6f72_6368_0000_0001,
            member_id: 0x6f72_6368_0000_0002,
            advertise_client_urls: Vec::new(),
            request_bytes_max: 3 << 19,
            transaction_operations_max: 128,
            lease_ttl_s_min: 2,
            watch_progress_interval: Duration::from_secs(600),
            connection_streams_max: 4096,
            connections_max: None,
            handshake_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(7200),
            shutdown_grace: Duration::from_secs(5),
            data_folder: None,
            tls: None,
            environment: Environment::system(),
        }
    }
}

/// What a server needs for TLS, in PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// The server's certificate, followed by those that lead to its authority.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
    /// The authorities of clients; a client without a certificate of one of them is refused.
    /// `None` takes every client.
    pub client_ca_pem: Option<Vec<u8>>,
}

impl std::fmt::Debug for ServerTls {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verifies_clients = self.client_ca_pem.is_some();
        f.debug_struct("ServerTls").field("verifies_clients", &verifies_clients).finish()
    }
}
