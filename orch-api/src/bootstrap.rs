//! What a cluster has before anybody does anything: namespaces, classes, roles, the `kubernetes`
//! Service.
//!
//! Source: `pkg/controlplane/controller/systemnamespaces`, `kubernetesservice`.

use std::net::SocketAddr;

use orch_core::{
    ApiError, ClientError, ResourceType, Scope, Target,
    client::{Read, Write, WriteOptions},
    status::Reason,
};
use serde_json::{Value, json};

use crate::{
    admission, aggregation::register_built_in, allocator::DEFAULT_SERVICE_CIDR, auth::rbac,
    registry::Caller, server::ApiServer,
};

const SERVICES: ResourceType =
    ResourceType::new("", "v1", "services", "Service", Scope::Namespaced);
const CONFIG_MAPS: ResourceType =
    ResourceType::new("", "v1", "configmaps", "ConfigMap", Scope::Namespaced);
const ENDPOINTS: ResourceType =
    ResourceType::new("", "v1", "endpoints", "Endpoints", Scope::Namespaced);
const ENDPOINT_SLICES: ResourceType = ResourceType::new(
    "discovery.k8s.io",
    "v1",
    "endpointslices",
    "EndpointSlice",
    Scope::Namespaced,
);

const SERVICE_CIDRS: ResourceType =
    ResourceType::new("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", Scope::Cluster);

/// What aggregated API servers read to learn whom to believe.
const AUTHENTICATION: &str = "extension-apiserver-authentication";
/// The name that the certificate of a front proxy has to bear.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// What [`ApiServer::bootstrap`] creates besides the namespaces and priority classes.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Create upstream's default roles and bindings. Default: not.
    pub roles: bool,
    /// Create the APIServices of the built-in group versions. Default: not. The server serves them
    /// in any case.
    pub api_services: bool,
    /// The authority that signed clients' certificates and the front proxy's, in PEM: makes the
    /// ConfigMap by which aggregated API servers learn whom to believe. Default: none, and there
    /// is no such ConfigMap.
    pub client_authority: Option<String>,
    /// Where pods reach the server: makes the `kubernetes` Service and its endpoints. Default:
    /// none, and there is no such Service.
    pub address: Option<SocketAddr>,
}

impl ApiServer {
    /// Creates what a cluster has from the start, where it is missing. Idempotent.
    ///
    /// # Errors
    /// [`ClientError`] of the first call that failed; what was done until then stays.
    pub async fn bootstrap(&self, what: &Bootstrap) -> Result<(), ClientError> {
        let client = self.inner.own_client();
        admission::create_system_namespaces(&client).await?;
        admission::create_system_classes(&client).await?;
        self.default_service_cidr().await?;
        if what.roles {
            rbac::bootstrap::reconcile(&client).await?;
        }
        if what.api_services {
            register_built_in(&client, &self.inner.built_in).await?;
        }
        if let Some(pem) = &what.client_authority {
            self.publish_authority(pem).await?;
        }
        if let Some(address) = what.address {
            self.kubernetes_service(address).await?;
        }
        Ok(())
    }

    /// Shows the ranges that the server was configured with as the object that upstream has for
    /// them.
    async fn default_service_cidr(&self) -> Result<(), ClientError> {
        let client = self.inner.own_client();
        let ranges: Vec<String> =
            self.inner.options.service_ranges.cluster_ips.iter().map(ToString::to_string).collect();
        let name = DEFAULT_SERVICE_CIDR;
        let body = json!({"metadata": {"name": name}, "spec": {"cidrs": ranges}});
        match client.read(Read::Get(Target::object(SERVICE_CIDRS, None, name))).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map(drop),
        }
        let collection = Target::collection(SERVICE_CIDRS, None);
        let write = Write::Create(collection, body, WriteOptions::default());
        match client.write(write).await {
            // Another server on the same store was first.
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Source: `pkg/controlplane/controller/clusterauthenticationtrust`. Differs: one authority
    /// signs clients and the front proxy, which is told apart by its name.
    async fn publish_authority(&self, pem: &str) -> Result<(), ClientError> {
        let client = self.inner.own_client();
        let body = json!({
            "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"},
            "data": {
                "client-ca-file": pem,
                "requestheader-client-ca-file": pem,
                "requestheader-allowed-names": json!([FRONT_PROXY]).to_string(),
                "requestheader-username-headers": r#"["X-Remote-User"]"#,
                "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
                "requestheader-group-headers": r#"["X-Remote-Group"]"#,
                "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            },
        });
        let target = Target::collection(CONFIG_MAPS, Some("kube-system"));
        let create = Write::Create(target, body.clone(), WriteOptions::default());
        match client.write(create).await {
            // The authority may be another one than before.
            Err(error) if error.is_already_exists() => {
                let target = Target::object(CONFIG_MAPS, Some("kube-system"), AUTHENTICATION);
                let update = Write::Update(target, body, WriteOptions::default());
                client.write(update).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Creates the Service unless it exists. Asked for first: creating it once more would fail for
    /// its address, not for its name.
    async fn ensure_service(&self, body: Value) -> Result<(), ClientError> {
        let client = self.inner.own_client();
        let own = Target::object(SERVICES, Some("default"), "kubernetes");
        match client.read(Read::Get(own)).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map(drop),
        }
        let collection = Target::collection(SERVICES, Some("default"));
        let write = Write::Create(collection, body, WriteOptions::default());
        match client.write(write).await {
            // Another server on the same store was first.
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn kubernetes_service(&self, address: SocketAddr) -> Result<(), ClientError> {
        let ranges = &self.inner.options.service_ranges;
        let first = ranges.cluster_ips.first().and_then(|range| range.hosts().next());
        let first = first.ok_or_else(|| ApiError::internal("there is no range of cluster IPs"))?;
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let service = json!({
            "metadata": {"name": "kubernetes", "labels": labels},
            "spec": {
                "clusterIP": first.to_string(), "type": "ClusterIP",
                "ports": [{"name": "https", "port": 443, "targetPort": address.port()}],
            },
        });
        self.ensure_service(service).await?;
        let ports = json!([{"name": "https", "port": address.port(), "protocol": "TCP"}]);
        let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        let ip = address.ip().to_string();
        let endpoints = json!({
            "metadata": {"name": "kubernetes", "labels": skip},
            "subsets": [{"addresses": [{"ip": ip}], "ports": ports}],
        });
        self.replace(ENDPOINTS, endpoints).await?;
        let slice = json!({
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": if address.is_ipv6() { "IPv6" } else { "IPv4" },
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
            "ports": ports,
        });
        self.replace(ENDPOINT_SLICES, slice).await
    }

    /// Creates an object, or brings the existing one up to date: the address may have changed.
    async fn replace(&self, of: ResourceType, body: Value) -> Result<(), ClientError> {
        let collection = Target::collection(of.clone(), Some("default"));
        let create = Write::Create(collection, body.clone(), WriteOptions::default());
        // Upstream forbids clients loopback addresses here; a server that only this machine
        // reaches has no other.
        let caller = Caller::unchecked("kube-apiserver");
        match self.inner.write(&caller, create).await {
            Err(error) if error.reason() == Reason::AlreadyExists => {
                let target = Target::object(of, Some("default"), "kubernetes");
                let update = Write::Update(target, body, WriteOptions::default());
                Ok(self.inner.write(&caller, update).await.map(drop)?)
            }
            other => Ok(other.map(drop)?),
        }
    }
}
