//! Images by policy, with back-off.
//!
//! Source: `pkg/kubelet/images/image_manager.go`.

use std::{collections::BTreeMap, sync::Arc};

use base64::Engine as _;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use orch_core::{Client, Resources, backoff::Backoff};

use super::{events::PodEvents, spec};
use crate::runtime::{ImageError, ImageInfo, ImagePull, RegistryAuth};

/// What pulling needs besides the container.
pub(crate) struct ImagePuller<'a> {
    pub(crate) runtime: &'a dyn crate::Runtime,
    pub(crate) client: &'a Arc<dyn Client>,
    pub(crate) environment: &'a orch_core::Environment,
    pub(crate) events: PodEvents<'a>,
    pub(crate) backoff: &'a mut Backoff<String>,
}

/// Checks a reference and gives it a tag if it has none.
///
/// Source: `distribution/reference`.
pub(crate) fn with_default_tag(image: &str) -> Result<String, ImageError> {
    let invalid = |why: &str| ImageError::InvalidName { image: image.into(), why: why.into() };
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if let Some(digest) = digest {
        let hex = digest.split_once(':').map(|(_, hex)| hex).unwrap_or_default();
        if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid("invalid reference format"));
        }
    }
    let last = rest.rsplit('/').next().unwrap_or_default();
    let (name, tag) = match last.rsplit_once(':') {
        Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let ok = tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
        if !ok || tag.is_empty() || tag.len() > 128 || !word(tag.as_bytes()[0]) {
            return Err(invalid("invalid reference format"));
        }
    }
    let mut parts = name.split('/').peekable();
    let first = parts.peek().copied().unwrap_or_default();
    if name.contains('/') && (first.contains(['.', ':']) || first == "localhost") {
        parts.next();
    }
    for part in parts {
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("invalid reference format: repository name must be lowercase"));
        }
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        let edges =
            bytes.first().is_some_and(|&b| inner(b)) && bytes.last().is_some_and(|&b| inner(b));
        if !edges || !bytes.iter().all(|&b| inner(b) || matches!(b, b'.' | b'_' | b'-')) {
            return Err(invalid("invalid reference format"));
        }
    }
    let tagged = tag.is_some() || digest.is_some();
    Ok(if tagged { image.to_owned() } else { format!("{image}:latest") })
}

fn policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    let latest = !image.contains('@')
        && image
            .rsplit('/')
            .next()
            .is_some_and(|last| last.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest"));
    let default = if latest { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.as_deref().unwrap_or(default)
}

impl ImagePuller<'_> {
    /// Makes sure that a container's image is present.
    pub(crate) async fn ensure(
        &mut self,
        pod: &Pod,
        container: &Container,
    ) -> Result<ImageInfo, ImageError> {
        let image = container.image.as_deref().unwrap_or_default();
        let name = container.name.as_str();
        let reference = match with_default_tag(image) {
            Ok(reference) => reference,
            Err(error) => {
                let text = format!("Failed to apply default image tag \"{image}\": {error}");
                self.events.warn(Some(name), "InspectFailed", &text);
                return Err(error);
            }
        };
        let present = match self.runtime.image(&reference).await {
            Ok(present) => present,
            Err(error) => {
                let text = format!("Failed to inspect image \"{image}\": {error}");
                self.events.warn(Some(name), "InspectFailed", &text);
                return Err(error);
            }
        };
        match (present, policy(container)) {
            (Some(info), "Never" | "IfNotPresent") => {
                let text = format!(
                    "Container image \"{image}\" already present on machine and can be accessed \
                     by the pod"
                );
                self.events.normal(Some(name), "Pulled", &text);
                Ok(info)
            }
            (None, "Never") => {
                let error = ImageError::NeverPull { image: image.into() };
                self.events.warn(Some(name), "ErrImageNeverPull", &error.to_string());
                Err(error)
            }
            _ => self.pull(pod, container, image, reference).await,
        }
    }

    async fn pull(
        &mut self,
        pod: &Pod,
        container: &Container,
        image: &str,
        reference: String,
    ) -> Result<ImageInfo, ImageError> {
        let needs_entry_point = container.command.as_ref().is_none_or(Vec::is_empty);
        let container = container.name.as_str();
        let clock = &self.environment.clock;
        let key = reference.clone();
        let now = clock.now();
        if self.backoff.remaining_since_update(&key, now).is_some() {
            let text = format!("Back-off pulling image \"{image}\"");
            self.events.normal(Some(container), "BackOff", &text);
            let why = "the last pull failed".into();
            return Err(ImageError::BackOff { image: image.into(), why });
        }
        self.events.normal(Some(container), "Pulling", &format!("Pulling image \"{image}\""));
        let auth = pull_secrets(self.client, pod, &reference).await;
        let runtime_handler = spec::spec(pod).runtime_class_name.clone().unwrap_or_default();
        let pull = ImagePull { image: reference, auth, runtime_handler, needs_entry_point };
        match self.runtime.pull_image(pull).await {
            Ok(info) => {
                self.backoff.forget(&key);
                let took = clock.now().duration_since(now).as_millis();
                let text = format!(
                    "Successfully pulled image \"{image}\" in {took}ms ({took}ms including \
                     waiting). Image size: {} bytes.",
                    info.size_bytes
                );
                self.events.normal(Some(container), "Pulled", &text);
                Ok(info)
            }
            Err(error) => {
                let now = clock.now();
                self.backoff.next(key, now, now);
                let text = format!("Failed to pull image \"{image}\": {error}");
                self.events.warn(Some(container), "Failed", &text);
                self.events.warn(Some(container), "Failed", &format!("Error: {}", error.reason()));
                Err(error)
            }
        }
    }
}

/// The host that an image comes from.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The pod's pull secrets that are for the image's registry. A missing secret is no error: the
/// pull without it tells.
async fn pull_secrets(client: &Arc<dyn Client>, pod: &Pod, image: &str) -> Vec<RegistryAuth> {
    let secrets = Resources::<Secret>::namespaced(client.clone(), spec::namespace(pod));
    let mut found = Vec::new();
    for reference in spec::spec(pod).image_pull_secrets.iter().flatten() {
        if let Ok(Some(secret)) = secrets.get_opt(&reference.name).await {
            found.extend(credentials(&secret, registry_of(image)));
        }
    }
    found
}

fn credentials(secret: &Secret, registry: &str) -> Vec<RegistryAuth> {
    let data = secret.data.as_ref();
    let parse = |key: &str| -> Option<serde_json::Value> {
        serde_json::from_slice(&data?.get(key)?.0).ok()
    };
    let auths = parse(".dockerconfigjson")
        .and_then(|mut config| config.get_mut("auths").map(serde_json::Value::take))
        .or_else(|| parse(".dockercfg"));
    let auths: BTreeMap<String, serde_json::Value> =
        auths.and_then(|a| serde_json::from_value(a).ok()).unwrap_or_default();
    let host = |key: &str| -> String {
        let bare = key.trim_start_matches("https://").trim_start_matches("http://");
        let bare = bare.split('/').next().unwrap_or_default();
        if bare.ends_with("docker.io") { "docker.io".into() } else { bare.into() }
    };
    auths.into_iter().filter(|(key, _)| host(key) == registry).map(credential).collect()
}

fn credential((registry, entry): (String, serde_json::Value)) -> RegistryAuth {
    let text = |key: &str| entry.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth"));
    let pair = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (username, password) = match pair.split_once(':') {
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => (text("username"), text("password")),
    };
    RegistryAuth { registry, username, password, identity_token: text("identitytoken") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_checked_and_tagged() {
        for (image, expected) in [
            ("nginx", Some("nginx:latest")),
            ("nginx:1.25", Some("nginx:1.25")),
            ("host:5000/team/app", Some("host:5000/team/app:latest")),
            ("localhost/app:v1", Some("localhost/app:v1")),
            ("ghcr.io/a/b_c-d", Some("ghcr.io/a/b_c-d:latest")),
            ("Nginx", None),
            ("a b", None),
            ("", None),
            ("a:", None),
            ("a/", None),
            ("a@sha256:zz", None),
            ("InvalidImage:-x", None),
        ] {
            assert_eq!(with_default_tag(image).ok().as_deref(), expected, "{image}");
        }
        let error = with_default_tag("Nginx").unwrap_err();
        assert_eq!(error.reason(), "InvalidImageName");
    }

    #[test]
    fn pull_secrets_are_matched_by_registry() {
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"r.io":{}}}"#;
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "data": { ".dockerconfigjson":
                base64::engine::general_purpose::STANDARD.encode(config) }
        }))
        .unwrap();
        let found = credentials(&secret, registry_of("nginx:latest"));
        assert_eq!((found.len(), found[0].username.as_str()), (1, "u"));
        assert_eq!(found[0].password, "p");
        assert!(credentials(&secret, registry_of("other.io/x")).is_empty());
    }
}
