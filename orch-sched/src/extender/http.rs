//! HTTP through the client that the crate has anyway.

use std::fmt;

use async_trait::async_trait;
use http::Request;
use http_body_util::BodyExt;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::ExtenderTransport;
use crate::{configuration::ExtenderConfiguration, error::Fault};

/// One extender's connections, made when they are first needed. TLS needs one of kube's TLS features
/// in the application.
pub(crate) struct Http {
    server: String,
    /// How the server is reached, in the shape of a kubeconfig.
    access: Value,
    client: OnceCell<Client>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", self.server)
    }
}

impl Http {
    /// Reaches an extender as its configuration says.
    pub(crate) fn new(configuration: &ExtenderConfiguration) -> Self {
        let server = configuration.url_prefix.trim_end_matches('/').to_owned();
        let server = match server.split_once("://") {
            Some((_, rest)) if configuration.enable_https => format!("https://{rest}"),
            _ => server,
        };
        let tls = configuration.tls.clone().unwrap_or_default();
        let [cert_file, key_file, ca_file] = tls.files.map(|f| (!f.is_empty()).then_some(f));
        let [cert_data, key_data, ca_data] = tls.data.map(|d| (!d.is_empty()).then_some(d));
        // As upstream has it: without an authority, TLS is spoken unverified.
        let unverified = configuration.enable_https && ca_file.is_none() && ca_data.is_none();
        let server_name = (!tls.server_name.is_empty()).then_some(tls.server_name);
        let access = json!({
            "clusters": [{"name": "extender", "cluster": {
                "server": server, "tls-server-name": server_name,
                "insecure-skip-tls-verify": tls.insecure || unverified,
                "certificate-authority": ca_file, "certificate-authority-data": ca_data,
            }}],
            "users": [{"name": "extender", "user": {
                "client-certificate": cert_file, "client-certificate-data": cert_data,
                "client-key": key_file, "client-key-data": key_data,
            }}],
            "contexts": [{"name": "extender",
                          "context": {"cluster": "extender", "user": "extender"}}],
            "current-context": "extender",
        });
        Self { server, access, client: OnceCell::new() }
    }

    async fn client(&self) -> Result<&Client, Fault> {
        let connect = async || {
            let access: Kubeconfig = serde_json::from_value(self.access.clone())?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(access, &options).await?;
            Ok::<Client, Fault>(Client::try_from(config)?)
        };
        self.client.get_or_try_init(connect).await
    }
}

#[async_trait]
impl ExtenderTransport for Http {
    async fn post(&self, url: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), Fault> {
        // The client puts the server's address before the last part.
        let verb = url.rsplit('/').next().unwrap_or_default();
        let request = Request::post(format!("/{verb}"));
        let request = request.header("Content-Type", "application/json").body(Body::from(body))?;
        let response = self.client().await?.send(request).await?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((code, body.to_vec()))
    }
}
