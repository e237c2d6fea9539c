//! HorizontalPodAutoscalers: as many pods as what they use asks for.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/podautoscaler`.

mod conditions;
mod evaluation;
mod limits;
pub mod metrics;
mod usage;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    autoscaling::v2::{
        HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
        MetricSpec,
    },
    core::v1::Pod,
};
use orch_core::{
    Client, ClientError, Key, ResourceType, Scope, Target,
    client::{Read, ReadReply, Write, WriteOptions},
    informer::{Change, Informer, Informers},
    selector::Selector,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use self::{
    evaluation::Subject,
    limits::History,
    metrics::Metrics,
    usage::{Question, Tolerances},
};
use crate::{
    Action, Controller, ReconcileError, Reconciler,
    context::{Context, EventType},
    reconciler::Reconciled,
    resource_types::ResourceTypes,
};

/// How often every autoscaler is looked at.
///
/// Source: `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: Duration = Duration::from_secs(15);

/// How far from the target is near enough.
///
/// Source: `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// The controller of HorizontalPodAutoscalers, with measurements of `metrics`. What they scale is
/// found among `types`.
pub fn horizontal_pod_autoscaler(
    informers: &Informers,
    types: Arc<dyn ResourceTypes>,
    metrics: Arc<dyn Metrics>,
) -> Controller {
    let name = "horizontal-pod-autoscaler-controller";
    let context = Context::reporting(informers, name, "horizontal-pod-autoscaler");
    let (scalers, pods) = (context.informer::<HorizontalPodAutoscaler>(), context.informer());
    context
        .builder()
        .reads::<Pod>()
        // Its own writes of the status are no reason to look again.
        .watches_own_if::<HorizontalPodAutoscaler>(|change| match change {
            Change::Updated { old, new } => old.spec != new.spec,
            _ => true,
        })
        .build(Autoscaler { context, scalers, pods, types, metrics, histories: Mutex::default() })
}

struct Autoscaler {
    context: Context,
    scalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    types: Arc<dyn ResourceTypes>,
    metrics: Arc<dyn Metrics>,
    histories: Mutex<HashMap<Key, History>>,
}

/// The `scale` of a target.
struct Scaled {
    target: Target,
    value: Value,
    wanted: i32,
    counted: i32,
    selector: String,
}

/// What the metrics ask for.
struct Wish {
    replicas: i32,
    /// The metric that asks for the most.
    name: String,
}

/// One look at one autoscaler.
struct Look<'a> {
    autoscaler: &'a Autoscaler,
    key: Key,
    scaler: HorizontalPodAutoscaler,
    spec: HorizontalPodAutoscalerSpec,
    /// The status as it is to become.
    status: HorizontalPodAutoscalerStatus,
}

#[async_trait]
impl Reconciler for Autoscaler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(scaler) = self.scalers.get(&key) else {
            self.histories.lock().remove(&key);
            return Ok(Action::Done);
        };
        let mut look = Look {
            autoscaler: self,
            key,
            spec: scaler.spec.clone(),
            status: scaler.status.clone().unwrap_or_default(),
            scaler: Arc::unwrap_or_clone(scaler),
        };
        // Boxed: it holds the autoscaler.
        Box::pin(look.run()).await?;
        Ok(Action::RequeueAfter(PERIOD))
    }
}

impl Autoscaler {
    async fn scale(
        &self,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Result<Scaled, ReconcileError> {
        let of = &spec.scale_target_ref;
        let api_version = of.api_version.as_deref().unwrap_or_default();
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let types = self.types.resource_types().await?;
        let found = types.into_iter().find(|known: &ResourceType| {
            known.scope == Scope::Namespaced && known.group == group && known.kind == of.kind
        });
        let Some(resource) = found else {
            let kind = &of.kind;
            let why = format!("no matches for kind {kind:?} in group {group:?}");
            return Err(ReconcileError::message(why));
        };
        let target = Target::object(resource, Some(&key.namespace), &of.name).subresource("scale");
        let ReadReply::Object(scale) =
            self.context.client().read(Read::Get(target.clone())).await?
        else {
            return Err(ReconcileError::message("a scale was answered with a list"));
        };
        let value = scale.to_value();
        let number = |pointer: &str| {
            let number = value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
            i32::try_from(number).unwrap_or(i32::MAX)
        };
        let selector = value.pointer("/status/selector").and_then(Value::as_str);
        Ok(Scaled {
            wanted: number("/spec/replicas"),
            counted: number("/status/replicas"),
            selector: selector.unwrap_or_default().to_owned(),
            target,
            value,
        })
    }
}

impl Look<'_> {
    fn event(&self, kind: EventType, reason: &str, message: String) {
        self.autoscaler.context.event(&self.scaler, kind, reason, message);
    }

    async fn run(&mut self) -> Result<(), ReconcileError> {
        let result = self.sync().await;
        self.write_status().await?;
        result
    }

    async fn sync(&mut self) -> Result<(), ReconcileError> {
        let scaled = match self.autoscaler.scale(&self.key, &self.spec).await {
            Ok(scaled) => scaled,
            Err(error) => {
                self.event(EventType::Warning, "FailedGetScale", error.to_string());
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {error}"
                );
                self.set("AbleToScale", false, "FailedGetScale", &message);
                return Err(error);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", true, "SucceededGetScale", message);
        self.status.current_replicas = Some(scaled.counted);
        let (wanted, reason) = match self.wish(&scaled).await? {
            Some(wish) => wish,
            None => {
                self.status.desired_replicas = 0;
                return Ok(());
            }
        };
        self.status.desired_replicas = wanted;
        if wanted == scaled.wanted {
            return Ok(());
        }
        self.rescale(scaled, wanted, &reason).await
    }

    /// How many pods there should be and why; `None` if scaling is switched off.
    async fn wish(&mut self, scaled: &Scaled) -> Result<Option<(i32, String)>, ReconcileError> {
        let (least, most) = (self.spec.min_replicas.unwrap_or(1), self.spec.max_replicas);
        let current = scaled.wanted;
        if current == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", message);
            return Ok(None);
        }
        if current > most {
            return Ok(Some((
                most,
                "Current number of replicas above Spec.MaxReplicas".to_owned(),
            )));
        }
        if current < least {
            let reason = "Current number of replicas below Spec.MinReplicas";
            return Ok(Some((least, reason.to_owned())));
        }
        let wish = self.evaluate(scaled).await?;
        let reason = match wish.replicas.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{} above target", wish.name),
            _ => "All metrics below target".to_owned(),
        };
        let limited = {
            let mut histories = self.autoscaler.histories.lock();
            let history = histories.entry(self.key.clone()).or_default();
            history.limit(&self.spec, Instant::now(), current, wish.replicas)
        };
        match limited.stabilized {
            Some((reason, message)) => self.set("AbleToScale", true, reason, message),
            None => {
                let message = "recommended size matches current size";
                self.set("AbleToScale", true, "ReadyForNewScale", message);
            }
        }
        let (differs, (why, message)) = limited.bound;
        self.set("ScalingLimited", differs, why, message);
        Ok(Some((limited.replicas, reason)))
    }

    /// What the metrics ask for: the most that any of them does.
    async fn evaluate(&mut self, scaled: &Scaled) -> Result<Wish, ReconcileError> {
        let Ok(query) = scaled.selector.parse::<Selector>() else {
            return Err(self.no_selector(
                "InvalidSelector",
                "couldn't convert selector into a corresponding internal selector object",
            ));
        };
        if scaled.selector.is_empty() {
            return Err(
                self.no_selector("InvalidSelector", "the HPA target's scale is missing a selector")
            );
        }
        let all = self.autoscaler.pods.list_in(&self.key.namespace);
        let pods: Vec<Arc<Pod>> = all
            .into_iter()
            .filter(|pod| {
                query.matches(pod.metadata.labels.as_ref().unwrap_or(&Default::default()))
            })
            .collect();
        let subject = Subject {
            metrics: &*self.autoscaler.metrics,
            namespace: &self.key.namespace,
            selector: &scaled.selector,
            question: Question {
                current: scaled.wanted,
                pods: &pods,
                is_cpu: false,
                tolerances: self.tolerances(),
                now: self.autoscaler.context.now(),
            },
            counted: scaled.counted,
        };
        let specs: Vec<MetricSpec> = self.spec.metrics.clone().unwrap_or_default();
        let (mut wish, mut statuses, mut failures) = (None::<Wish>, Vec::new(), Vec::new());
        for spec in &specs {
            match subject.evaluate(spec).await {
                Ok(evaluated) => {
                    if wish.as_ref().is_none_or(|wish| evaluated.replicas > wish.replicas) {
                        wish = Some(Wish { replicas: evaluated.replicas, name: evaluated.name });
                    }
                    statuses.push(evaluated.status);
                }
                Err(failed) => failures.push(failed),
            }
        }
        self.status.current_metrics = (!statuses.is_empty()).then_some(statuses);
        self.conclude(wish, &failures, specs.len(), scaled.wanted)
    }

    fn no_selector(&mut self, reason: &'static str, message: &str) -> ReconcileError {
        self.event(EventType::Warning, reason, message.to_owned());
        self.set("ScalingActive", false, reason, message);
        ReconcileError::message(message)
    }

    fn tolerances(&self) -> Tolerances {
        let behavior = self.spec.behavior.as_ref();
        let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
            let tolerance = rules.and_then(|rules| rules.tolerance.as_ref());
            tolerance.and_then(usage::milli).map_or(TOLERANCE, |milli| milli as f64 / 1000.0)
        };
        Tolerances {
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        }
    }

    /// What is not known must not lead to fewer pods.
    fn conclude(
        &mut self,
        wish: Option<Wish>,
        failures: &[evaluation::Failed],
        count: usize,
        current: i32,
    ) -> Result<Wish, ReconcileError> {
        for (reason, message) in failures {
            self.event(EventType::Warning, reason, message.clone());
        }
        let shrinks = wish.as_ref().is_none_or(|wish| wish.replicas < current);
        match (wish, failures.first()) {
            (Some(wish), first) if first.is_none() || !shrinks => {
                let name = &wish.name;
                let message = format!(
                    "the HPA was able to successfully calculate a replica count from {name}"
                );
                self.set("ScalingActive", true, "ValidMetricFound", &message);
                Ok(wish)
            }
            (_, first) => {
                let (reason, why) = first.cloned().unwrap_or_default();
                let message = format!("the HPA was unable to compute the replica count: {why}");
                self.set("ScalingActive", false, reason, &message);
                let message = format!(
                    "invalid metrics ({} invalid out of {count}), first error is: {why}",
                    failures.len()
                );
                self.event(EventType::Warning, "FailedComputeMetricsReplicas", message.clone());
                self.status.desired_replicas = current;
                Err(ReconcileError::message(message))
            }
        }
    }

    async fn rescale(
        &mut self,
        scaled: Scaled,
        wanted: i32,
        reason: &str,
    ) -> Result<(), ReconcileError> {
        let mut value = scaled.value;
        value["spec"]["replicas"] = wanted.into();
        let write = Write::Update(scaled.target, value, WriteOptions::default());
        if let Err(error) = self.autoscaler.context.client().write(write).await {
            let message = format!("New size: {wanted}; reason: {reason}; error: {error}");
            self.event(EventType::Warning, "FailedRescale", message);
            let message =
                format!("the HPA controller was unable to update the target scale: {error}");
            self.set("AbleToScale", false, "FailedUpdateScale", &message);
            self.status.desired_replicas = scaled.wanted;
            return Err(error.into());
        }
        let message = format!("the HPA controller was able to update the target scale to {wanted}");
        self.set("AbleToScale", true, "SucceededRescale", &message);
        let message = format!("New size: {wanted}; reason: {reason}");
        self.event(EventType::Normal, "SuccessfulRescale", message);
        self.status.last_scale_time = Some(self.autoscaler.context.time());
        let mut histories = self.autoscaler.histories.lock();
        let history = histories.entry(self.key.clone()).or_default();
        history.note_scaling(Instant::now(), scaled.wanted, wanted);
        Ok(())
    }

    async fn write_status(&self) -> Result<(), ClientError> {
        let known = self.scaler.status.clone().unwrap_or_default();
        if known == self.status {
            return Ok(());
        }
        let updated =
            HorizontalPodAutoscaler { status: Some(self.status.clone()), ..self.scaler.clone() };
        let scalers = self.autoscaler.context.resources(&self.key.namespace);
        scalers.update_status(&updated).await.map(drop)
    }
}
