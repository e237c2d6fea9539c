//! A container's environment.
//!
//! Source: `pkg/kubelet/kubelet_pods.go`, `makeEnvironmentVariables`;
//! `pkg/kubelet/envvars/envvars.go`.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};
use orch_core::{Client, Resources};

use super::{expand::expand, spec};
use crate::downward::PodFields;

/// Variables in order, each name once.
#[derive(Debug, Default)]
struct Variables {
    values: HashMap<String, String>,
    order: Vec<String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }
}

/// Reads config maps and secrets once per container.
pub(crate) struct EnvSources<'a> {
    client: &'a Arc<dyn Client>,
    namespace: &'a str,
    config_maps: HashMap<String, Option<Arc<ConfigMap>>>,
    secrets: HashMap<String, Option<Arc<Secret>>>,
}

impl<'a> EnvSources<'a> {
    pub(crate) fn new(client: &'a Arc<dyn Client>, namespace: &'a str) -> Self {
        Self { client, namespace, config_maps: HashMap::new(), secrets: HashMap::new() }
    }

    async fn config_map(&mut self, name: &str) -> Result<Option<Arc<ConfigMap>>, String> {
        if !self.config_maps.contains_key(name) {
            let all = Resources::<ConfigMap>::namespaced(self.client.clone(), self.namespace);
            let found = all.get_opt(name).await.map_err(|e| e.to_string())?;
            self.config_maps.insert(name.to_owned(), found);
        }
        Ok(self.config_maps[name].clone())
    }

    async fn secret(&mut self, name: &str) -> Result<Option<Arc<Secret>>, String> {
        if !self.secrets.contains_key(name) {
            let all = Resources::<Secret>::namespaced(self.client.clone(), self.namespace);
            let found = all.get_opt(name).await.map_err(|e| e.to_string())?;
            self.secrets.insert(name.to_owned(), found);
        }
        Ok(self.secrets[name].clone())
    }

    /// All of a config map's or secret's entries under a prefix.
    async fn all_of(
        &mut self,
        source: &k8s_openapi::api::core::v1::EnvFromSource,
    ) -> Result<Vec<(String, String)>, String> {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut found = Vec::new();
        if let Some(wanted) = &source.config_map_ref {
            match self.config_map(&wanted.name).await? {
                Some(map) => found.extend(map.data.clone().unwrap_or_default()),
                None if wanted.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", wanted.name)),
            }
        }
        if let Some(wanted) = &source.secret_ref {
            match self.secret(&wanted.name).await? {
                Some(secret) => {
                    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                    let data = secret.data.iter().flatten();
                    found.extend(data.map(|(k, v)| (k.clone(), text(&v.0))));
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", wanted.name)),
            }
        }
        Ok(found.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)).collect())
    }

    /// `None` if the reference is optional and leads nowhere.
    async fn one(
        &mut self,
        source: &EnvVarSource,
        container: &str,
        fields: &PodFields<'_>,
    ) -> Result<Option<String>, String> {
        if let Some(field) = &source.field_ref {
            return fields.field(&field.field_path).map(Some);
        }
        if let Some(resource) = &source.resource_field_ref {
            return fields.resource(resource, container).map(Some);
        }
        if let Some(key) = &source.config_map_key_ref {
            let optional = key.optional == Some(true);
            let Some(map) = self.config_map(&key.name).await? else {
                let error = format!("configmap \"{}\" not found", key.name);
                return if optional { Ok(None) } else { Err(error) };
            };
            let value = map.data.as_ref().and_then(|d| d.get(&key.key)).cloned();
            return self.found(value, optional, &key.key, "ConfigMap", &key.name);
        }
        if let Some(key) = &source.secret_key_ref {
            let optional = key.optional == Some(true);
            let Some(secret) = self.secret(&key.name).await? else {
                let error = format!("secret \"{}\" not found", key.name);
                return if optional { Ok(None) } else { Err(error) };
            };
            let value = secret.data.as_ref().and_then(|d| d.get(&key.key));
            let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
            return self.found(value, optional, &key.key, "Secret", &key.name);
        }
        Err("this source of an environment variable is not supported".into())
    }

    fn found(
        &self,
        value: Option<String>,
        optional: bool,
        key: &str,
        kind: &str,
        name: &str,
    ) -> Result<Option<String>, String> {
        if value.is_none() && !optional {
            return Err(format!("couldn't find key {key} in {kind} {}/{name}", self.namespace));
        }
        Ok(value)
    }
}

/// The variables of a container, or why they cannot be had.
pub(crate) async fn environment(
    sources: &mut EnvSources<'_>,
    container: &Container,
    fields: &PodFields<'_>,
    services: &[Arc<Service>],
) -> Result<Vec<(String, String)>, String> {
    let mut variables = Variables::default();
    for source in container.env_from.iter().flatten() {
        for (name, value) in sources.all_of(source).await? {
            // Names that no shell takes are left out; upstream tells by an event.
            if !name.is_empty() && !name.contains(['=', '\0']) {
                variables.set(&name, value);
            }
        }
    }
    let service_variables: HashMap<String, String> =
        service_variables(fields.pod, services).into_iter().collect();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => sources.one(source, &container.name, fields).await?,
            None => {
                let mut known = service_variables.clone();
                known.extend(variables.values.clone());
                Some(expand(variable.value.as_deref().unwrap_or_default(), &known))
            }
        };
        if let Some(value) = value {
            variables.set(&variable.name, value);
        }
    }
    let mut rest: Vec<_> = service_variables.into_iter().collect();
    rest.sort();
    for (name, value) in rest {
        if !variables.values.contains_key(&name) {
            variables.set(&name, value);
        }
    }
    let Variables { mut values, order } = variables;
    Ok(order.into_iter().filter_map(|name| values.remove_entry(&name)).collect())
}

/// Commands or arguments with their `$(VAR)` replaced.
pub(crate) fn expand_all(
    words: Option<&Vec<String>>,
    env: &HashMap<String, String>,
) -> Vec<String> {
    words.into_iter().flatten().map(|word| expand(word, env)).collect()
}

/// The Docker-link-like variables of the namespace's services, and of `default/kubernetes`.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> Vec<(String, String)> {
    let links = spec::spec(pod).enable_service_links.unwrap_or(true);
    let mut found = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref();
        let is_master = namespace == Some("default") && name == "kubernetes";
        let is_linked = links && namespace == pod.metadata.namespace.as_deref();
        if is_master || is_linked {
            found.extend(variables_of(service, name));
        }
    }
    found
}

fn variables_of(service: &Service, name: &str) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ip.is_empty() || ip == "None" || ports.is_empty() {
        return Vec::new();
    }
    let word = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = word(name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let url = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        format!("{protocol}://{host}:{}", port.port)
    };
    let mut out = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string()),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{prefix}_SERVICE_PORT_{}", word(name)), port.port.to_string()));
        }
    }
    out.push((format!("{prefix}_PORT"), url(&ports[0])));
    for port in ports {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let prefix = format!("{prefix}_PORT_{}_{protocol}", port.port);
        out.push((prefix.clone(), url(port)));
        out.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{prefix}_PORT"), port.port.to_string()));
        out.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_become_variables() {
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "my-db", "namespace": "default" },
            "spec": { "clusterIP": "10.0.0.7", "ports": [
                { "name": "sql", "port": 5432, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }
            ] }
        }))
        .unwrap();
        let found: HashMap<_, _> = variables_of(&service, "my-db").into_iter().collect();
        assert_eq!(found["MY_DB_SERVICE_HOST"], "10.0.0.7");
        assert_eq!(found["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(found["MY_DB_PORT"], "tcp://10.0.0.7:5432");
        assert_eq!(found["MY_DB_PORT_53_UDP_ADDR"], "10.0.0.7");
        assert_eq!(found.len(), 12);
    }
}
