//! Services outside that take part in decisions.
//!
//! Source: `pkg/scheduler/extender.go`, `k8s.io/kube-scheduler/extender/v1`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    configuration::ExtenderConfiguration, error::Fault, node_info::NodeInfo, pod_info::PodInfo,
};

mod http;

pub(crate) use http::Http;

/// An extender's scores go to ten; a node's to a hundred.
const SCORE_FACTOR: i64 = 10;

/// Carries requests to extenders: one call is one POST of JSON. What [`SchedulerBuilder`] uses by
/// itself is HTTP.
///
/// [`SchedulerBuilder`]: crate::SchedulerBuilder
#[async_trait]
pub trait ExtenderTransport: fmt::Debug + Send + Sync {
    /// Posts `body` to `url` and gives the status code and the answer's body.
    ///
    /// # Errors
    /// What went wrong on the way. The caller bounds the time.
    async fn post(&self, url: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), Fault>;
}

/// A service outside, as one scheduler calls it.
#[derive(Clone, Debug)]
pub(crate) struct Extender {
    configuration: ExtenderConfiguration,
    transport: Arc<dyn ExtenderTransport>,
}

/// What an extender has against nodes: the reason by name, and whether it stays for good.
pub(crate) type Refused = BTreeMap<String, (String, bool)>;

/// Who would have to go from a node, and how many of them budgets protect.
pub(crate) type Victims = (Vec<Arc<PodInfo>>, usize);

/// Who would have to go from which node.
pub(crate) type VictimsByNode = BTreeMap<Arc<str>, Victims>;

/// Go reads field names without regard to case, and so extenders write them as they like.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    let found = value.as_object().and_then(|fields| {
        fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    });
    found.unwrap_or(&Value::Null)
}

impl Extender {
    pub(crate) fn new(
        configuration: ExtenderConfiguration,
        transport: Arc<dyn ExtenderTransport>,
    ) -> Self {
        Self { configuration, transport }
    }

    /// Whether it is to be asked about a pod.
    pub(crate) fn is_interested(&self, pod: &PodInfo) -> bool {
        let managed = &self.configuration.managed_resources;
        let manages = |name: &String| managed.iter().any(|one| one.name == *name);
        let spec = pod.spec();
        let containers =
            spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        managed.is_empty()
            || containers.into_iter().flatten().filter_map(|c| c.resources.as_ref()).any(|own| {
                let both = own.requests.iter().chain(&own.limits);
                both.flat_map(|amounts| amounts.keys()).any(manages)
            })
    }

    pub(crate) fn filters(&self) -> bool {
        !self.configuration.filter_verb.is_empty()
    }

    pub(crate) fn prioritizes(&self) -> bool {
        !self.configuration.prioritize_verb.is_empty()
    }

    pub(crate) fn preempts(&self) -> bool {
        !self.configuration.preempt_verb.is_empty()
    }

    pub(crate) fn binds(&self) -> bool {
        !self.configuration.bind_verb.is_empty()
    }

    /// Whether scheduling goes on without it when it fails.
    pub(crate) fn is_ignorable(&self) -> bool {
        self.configuration.ignorable
    }

    async fn send(&self, verb: &str, arguments: &Value) -> Result<Value, Fault> {
        let ExtenderConfiguration { url_prefix, http_timeout, .. } = &self.configuration;
        let url = format!("{}/{verb}", url_prefix.trim_end_matches('/'));
        let body = serde_json::to_vec(arguments)?;
        let answer = tokio::time::timeout(*http_timeout, self.transport.post(&url, body)).await;
        let (code, body) = answer.map_err(|_| {
            format!("Post {url:?}: context deadline exceeded (Client.Timeout exceeded)")
        })??;
        if code != 200 {
            return Err(format!("failed {verb} with extender at URL {url}, code {code}").into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// The pod and the nodes, by name if the extender knows them.
    fn arguments(&self, pod: &PodInfo, nodes: &[Arc<NodeInfo>]) -> Result<Value, Fault> {
        let pod = serde_json::to_value(&**pod.pod())?;
        if self.configuration.node_cache_capable {
            let names: Vec<&str> = nodes.iter().map(|node| &**node.name()).collect();
            return Ok(json!({"Pod": pod, "Nodes": null, "NodeNames": names}));
        }
        let nodes = nodes.iter().filter_map(|node| node.node());
        let nodes: Result<Vec<Value>, _> =
            nodes.map(|node| serde_json::to_value(&**node)).collect();
        Ok(json!({"Pod": pod, "Nodes": {"metadata": {}, "items": nodes?}, "NodeNames": null}))
    }

    /// Takes out the nodes that the extender does not want, and gives what it said about them.
    pub(crate) async fn filter(
        &self,
        pod: &PodInfo,
        nodes: &mut Vec<Arc<NodeInfo>>,
    ) -> Result<Refused, Fault> {
        let arguments = self.arguments(pod, nodes)?;
        let answer = self.send(&self.configuration.filter_verb, &arguments).await?;
        if let Some(error) = field(&answer, "Error").as_str().filter(|error| !error.is_empty()) {
            return Err(error.into());
        }
        let names = field(&answer, "NodeNames").as_array();
        let names = names.filter(|_| self.configuration.node_cache_capable);
        let kept: Vec<String> = match names {
            Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => {
                let items = field(field(&answer, "Nodes"), "items").as_array();
                let name = |node: &Value| node["metadata"]["name"].as_str().map(str::to_owned);
                items.into_iter().flatten().filter_map(name).collect()
            }
        };
        self.keep(nodes, &kept, &answer)
    }

    fn keep(
        &self,
        nodes: &mut Vec<Arc<NodeInfo>>,
        kept: &[String],
        answer: &Value,
    ) -> Result<Refused, Fault> {
        if let Some(unknown) = kept.iter().find(|name| !nodes.iter().any(|n| **n.name() == **name))
        {
            let url = &self.configuration.url_prefix;
            return Err(format!(
                "extender {url:?} claims a filtered node {unknown:?} which is not found in the \
                 input node list"
            )
            .into());
        }
        let mut refused = Refused::new();
        for (list, for_good) in [("FailedNodes", false), ("FailedAndUnresolvableNodes", true)] {
            for (node, reason) in field(answer, list).as_object().into_iter().flatten() {
                let reason = reason.as_str().unwrap_or_default().to_owned();
                refused.insert(node.clone(), (reason, for_good));
            }
        }
        nodes.retain(|node| kept.iter().any(|name| **name == **node.name()));
        Ok(refused)
    }

    /// What is added to each node's sum, by name.
    pub(crate) async fn prioritize(
        &self,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
    ) -> Result<BTreeMap<String, i64>, Fault> {
        let arguments = self.arguments(pod, nodes)?;
        let answer = self.send(&self.configuration.prioritize_verb, &arguments).await?;
        let scores = answer.as_array().into_iter().flatten().filter_map(|one| {
            let score = field(one, "Score").as_i64()?;
            let weighted = score.saturating_mul(self.configuration.weight);
            let host = field(one, "Host").as_str()?.to_owned();
            Some((host, weighted.saturating_mul(SCORE_FACTOR)))
        });
        Ok(scores.collect())
    }

    /// What the extender makes of the ways to make room.
    pub(crate) async fn preempt(
        &self,
        pod: &PodInfo,
        candidates: &VictimsByNode,
    ) -> Result<VictimsByNode, Fault> {
        let by_uid = self.configuration.node_cache_capable;
        let mut told = serde_json::Map::new();
        for (node, (victims, violations)) in candidates {
            let pods: Result<Vec<Value>, _> = victims
                .iter()
                .map(|victim| match by_uid {
                    true => Ok(json!({"UID": &**victim.uid()})),
                    false => serde_json::to_value(&**victim.pod()),
                })
                .collect();
            let victims = json!({"Pods": pods?, "NumPDBViolations": violations});
            told.insert(node.to_string(), victims);
        }
        let (full, meta) = if by_uid { (None, Some(told)) } else { (Some(told), None) };
        let arguments = json!({
            "Pod": serde_json::to_value(&**pod.pod())?,
            "NodeNameToVictims": full, "NodeNameToMetaVictims": meta,
        });
        let answer = self.send(&self.configuration.preempt_verb, &arguments).await?;
        let mut found = VictimsByNode::new();
        let nodes = field(&answer, "NodeNameToMetaVictims").as_object();
        for (node, victims) in nodes.into_iter().flatten() {
            let (node, victims) = self.victims(node, victims, candidates)?;
            found.insert(node, victims);
        }
        Ok(found)
    }

    fn victims(
        &self,
        node: &str,
        answer: &Value,
        candidates: &VictimsByNode,
    ) -> Result<(Arc<str>, Victims), Fault> {
        let known = candidates.get_key_value(node);
        let (node, (known, _)) =
            known.ok_or_else(|| format!("node {node:?} was not asked about"))?;
        let mut victims = Vec::new();
        for one in field(answer, "Pods").as_array().into_iter().flatten() {
            let uid = field(one, "UID").as_str().unwrap_or_default();
            let victim = known.iter().find(|victim| **victim.uid() == *uid).ok_or_else(|| {
                format!(
                    "extender: {} claims to preempt pod (UID: {uid}) on node: {node}, but the pod \
                     is not found on that node",
                    self.configuration.url_prefix
                )
            })?;
            victims.push(victim.clone());
        }
        if victims.is_empty() && !self.is_ignorable() {
            return Err(format!("expected at least one victim pod on node {node:?}").into());
        }
        let violations = field(answer, "NumPDBViolations").as_u64().unwrap_or(0);
        Ok((node.clone(), (victims, usize::try_from(violations).unwrap_or(usize::MAX))))
    }

    /// Binds a pod to a node in the scheduler's place.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), Fault> {
        let arguments = json!({
            "PodName": pod.key().name, "PodNamespace": pod.namespace(),
            "PodUID": &**pod.uid(), "Node": node,
        });
        let answer = self.send(&self.configuration.bind_verb, &arguments).await?;
        match field(&answer, "Error").as_str().filter(|error| !error.is_empty()) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}
