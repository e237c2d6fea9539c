//! Objects of the benchmark, made from its templates through the API.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::CSINode,
};
use orch_core::{
    Client, ClientError, ResourceType, Target,
    client::{PatchKind, Write, WriteOptions},
    resource::Scope,
};
use serde_json::{Value, json};

use crate::{
    Error,
    config::{LabelNodes, NodeAllocatable},
    template::Template,
};

/// How many requests are on their way at a time.
const CONCURRENT: usize = 64;

/// Creates what workloads ask for.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Arc<dyn Client>,
    folder: PathBuf,
    resources: Arc<Vec<ResourceType>>,
    numbers: Arc<AtomicU64>,
    /// How many features each node declares.
    declared_features: u64,
}

/// The template of nodes when none is named.
fn bare_node() -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"generateName": "scheduler-perf-"},
        "status": {
            "capacity": {"pods": "110", "cpu": "4", "memory": "32Gi"},
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// The template of pods when none is named.
fn bare_pod() -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"generateName": "pod-"},
        "spec": {"containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.10",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "100m", "memory": "500Mi"},
                          "requests": {"cpu": "100m", "memory": "500Mi"}},
        }]},
    })
}

impl Objects {
    pub(crate) fn new(
        client: Arc<dyn Client>,
        folder: &Path,
        resources: Vec<ResourceType>,
    ) -> Self {
        let numbers = Arc::new(AtomicU64::new(0));
        let resources = Arc::new(resources);
        Self { client, folder: folder.to_owned(), resources, numbers, declared_features: 0 }
    }

    /// With so many features on each node.
    pub(crate) fn declaring(self, declared_features: u64) -> Self {
        Self { declared_features, ..self }
    }

    pub(crate) fn client(&self) -> &Arc<dyn Client> {
        &self.client
    }

    pub(crate) fn template(&self, path: &str) -> Result<Template, Error> {
        let path = self.folder.join(path);
        let text = std::fs::read_to_string(&path);
        Template::parse(text.map_err(|error| format!("{}: {error}", path.display()))?)
    }

    fn template_or(&self, path: Option<&str>, otherwise: Value) -> Result<Template, Error> {
        path.map_or(Ok(Template::Plain(otherwise)), |path| self.template(path))
    }

    /// What distinguishes an object's name.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Names an object that leaves its name to the server, for those who need it before.
    fn name(&self, object: &mut Value, prefix: &str) -> String {
        let metadata = &mut object["metadata"];
        if let Some(name) = metadata["name"].as_str() {
            return name.to_owned();
        }
        let own = metadata["generateName"].as_str().unwrap_or(prefix);
        let name = format!("{own}{:05}", self.number());
        metadata["name"] = name.as_str().into();
        name
    }

    fn resource_of(&self, object: &Value) -> Result<ResourceType, Error> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (kind, api_version) = (text("kind"), text("apiVersion"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = self.resources.iter().find(|one| one.kind == kind && one.group == group);
        let found = found.ok_or_else(|| format!("nothing serves {kind} of {api_version}"))?;
        Ok(ResourceType { version: version.to_owned().into(), ..found.clone() })
    }

    async fn create(
        &self,
        of: ResourceType,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, Error> {
        let target = Target::collection(of, namespace);
        let write = Write::Create(target, object, WriteOptions::default());
        Ok(self.client.write(write).await?.to_value())
    }

    /// Writes a status, which a create leaves out.
    async fn write_status(&self, target: Target, status: &Value) -> Result<(), Error> {
        let patch = json!({"status": status});
        let target = target.subresource("status");
        let write = Write::Patch(target, PatchKind::Merge, patch, WriteOptions::default());
        self.client.write(write).await?;
        Ok(())
    }

    pub(crate) async fn namespace(
        &self,
        name: &str,
        template: Option<&Template>,
    ) -> Result<(), Error> {
        let mut object = match template {
            Some(template) => template.render(0, 1)?,
            None => json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {}}),
        };
        object["metadata"]["name"] = name.into();
        match self.create(ResourceType::of::<Namespace>(), None, object).await {
            Err(error) if error.downcast_ref().is_some_and(ClientError::is_already_exists) => {}
            other => drop(other?),
        }
        Ok(())
    }

    pub(crate) async fn nodes(
        &self,
        count: u64,
        template: Option<&str>,
        allocatable: Option<&NodeAllocatable>,
        labels: Option<&LabelNodes>,
    ) -> Result<(), Error> {
        let template = self.template_or(template, bare_node())?;
        for index in 0..count {
            let mut node = template.render(index, count)?;
            let name = self.name(&mut node, "node-");
            node["metadata"]["labels"]["kubernetes.io/hostname"] = name.as_str().into();
            if let Some(labels) = labels {
                let value = &labels.label_values[index as usize % labels.label_values.len()];
                node["metadata"]["labels"][&labels.label_key] = value.as_str().into();
            }
            if node["status"]["allocatable"].is_null() {
                // As the server would fill it in, were the node created with its status.
                node["status"]["allocatable"] = node["status"]["capacity"].clone();
            }
            if self.declared_features > 0 {
                let names = (0..self.declared_features).map(|n| format!("Feature-{n:03}"));
                node["status"]["declaredFeatures"] = names.collect();
            }
            for (resource, amount) in allocatable.iter().flat_map(|own| &own.node_allocatable) {
                for list in ["capacity", "allocatable"] {
                    node["status"][list][resource] = amount.as_str().into();
                }
            }
            let status = node["status"].take();
            self.create(ResourceType::of::<Node>(), None, node).await?;
            let target = Target::object(ResourceType::of::<Node>(), None, &name);
            self.write_status(target, &status).await?;
            if let Some(own) = allocatable {
                self.csi_node(&name, own).await?;
            }
        }
        Ok(())
    }

    async fn csi_node(&self, name: &str, own: &NodeAllocatable) -> Result<(), Error> {
        let drivers = own.csi_node_allocatable.iter().map(|(driver, allocatable)| {
            json!({"name": driver, "nodeID": driver, "allocatable": allocatable})
        });
        let drivers: Vec<Value> = drivers.collect();
        if drivers.is_empty() && own.migrated_plugins.is_empty() {
            return Ok(());
        }
        let mut annotations = BTreeMap::new();
        if !own.migrated_plugins.is_empty() {
            let plugins = own.migrated_plugins.join(",");
            annotations.insert("storage.alpha.kubernetes.io/migrated-plugins", plugins);
        }
        let object = json!({
            "kind": "CSINode", "apiVersion": "storage.k8s.io/v1",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"drivers": drivers},
        });
        self.create(ResourceType::of::<CSINode>(), None, object).await?;
        Ok(())
    }

    /// Creates pods, with volumes of their own where templates for these are given.
    pub(crate) async fn pods(
        &self,
        namespace: &str,
        count: u64,
        template: Option<&str>,
        volumes: Option<(&str, &str)>,
    ) -> Result<(), Error> {
        let template = self.template_or(template, bare_pod())?;
        let volumes = match volumes {
            Some((volume, claim)) => Some((self.template(volume)?, self.template(claim)?)),
            None => None,
        };
        let created = stream::iter(0..count).map(|index| {
            let (this, template) = (self.clone(), template.clone());
            let (volumes, namespace) = (volumes.clone(), namespace.to_owned());
            let create =
                async move { this.pod(&namespace, (index, count), &template, volumes).await };
            async { tokio::spawn(create).await? }
        });
        created.buffer_unordered(CONCURRENT).try_for_each(|()| async { Ok(()) }).await
    }

    async fn pod(
        &self,
        namespace: &str,
        (index, count): (u64, u64),
        template: &Template,
        volumes: Option<(Template, Template)>,
    ) -> Result<(), Error> {
        let mut pod = template.render(index, count)?;
        if let Some((volume, claim)) = volumes {
            let claim = self.volume(namespace, (index, count), &volume, &claim).await?;
            let volume = json!({"name": "vol", "persistentVolumeClaim": {"claimName": claim}});
            pod["spec"]["volumes"] = json!([volume]);
        }
        self.create(ResourceType::of::<Pod>(), Some(namespace), pod).await?;
        Ok(())
    }

    /// A volume and a claim that are bound to each other. Gives the claim's name.
    async fn volume(
        &self,
        namespace: &str,
        (index, count): (u64, u64),
        volume: &Template,
        claim: &Template,
    ) -> Result<String, Error> {
        let (mut volume, mut claim) = (volume.render(index, count)?, claim.render(index, count)?);
        // Templates of pods name claims so.
        let claim_name = format!("pvc-{index}");
        claim["metadata"]["name"] = claim_name.as_str().into();
        let volume_name = self.name(&mut volume, "pv-");
        claim["spec"]["volumeName"] = volume_name.as_str().into();
        let claims = ResourceType::of::<PersistentVolumeClaim>();
        let claim = self.create(claims.clone(), Some(namespace), claim).await?;
        if !volume["spec"]["csi"].is_null() {
            volume["spec"]["csi"]["volumeHandle"] = volume_name.as_str().into();
        }
        volume["spec"]["claimRef"] = json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": namespace,
            "name": claim_name, "uid": claim["metadata"]["uid"],
        });
        self.create(ResourceType::of::<PersistentVolume>(), None, volume).await?;
        let bound = json!({"phase": "Bound"});
        let target = Target::object(ResourceType::of::<PersistentVolume>(), None, &volume_name);
        self.write_status(target, &bound).await?;
        self.write_status(Target::object(claims, Some(namespace), &claim_name), &bound).await?;
        Ok(claim_name)
    }

    /// Creates an object of any kind. Gives where it is.
    pub(crate) async fn any(
        &self,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Target, Error> {
        let of = self.resource_of(&object)?;
        let namespace = namespace.filter(|_| of.scope == Scope::Namespaced);
        let status = object["status"].clone();
        let created = self.create(of.clone(), namespace, object).await?;
        let name = created["metadata"]["name"].as_str().unwrap_or_default();
        let target = Target::object(of, namespace, name);
        if !status.is_null() {
            self.write_status(target.clone(), &status).await?;
        }
        Ok(target)
    }

    /// Updates the object that a template names, and its status.
    pub(crate) async fn update(
        &self,
        namespace: Option<&str>,
        mut object: Value,
        subresources: &[String],
    ) -> Result<(), Error> {
        let of = self.resource_of(&object)?;
        let namespace = namespace.filter(|_| of.scope == Scope::Namespaced);
        let name = object["metadata"]["name"].as_str().ok_or("an update needs a name")?;
        let whole = Target::object(of, namespace, name);
        let mut target = whole.clone();
        for subresource in subresources {
            target = match subresource.as_str() {
                "status" => target.subresource("status"),
                "resize" => target.subresource("resize"),
                other => return Err(format!("{other:?} cannot be updated").into()),
            };
        }
        if target.resource.kind == "Node" && object["status"]["allocatable"].is_null() {
            object["status"]["allocatable"] = object["status"]["capacity"].clone();
        }
        let update = Write::Update(target, object.clone(), WriteOptions::default());
        self.client.write(update).await?;
        // As the template has it, be it nothing.
        let update = Write::Update(whole.subresource("status"), object, WriteOptions::default());
        self.client.write(update).await?;
        Ok(())
    }
}
