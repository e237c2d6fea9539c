//! What is noted of one request while it is on its way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use orch_core::Environment;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Audit, Event, Level, ObjectReference, Stage, User, policy::Verdict};
use crate::{auth::UserInfo, http::request_info::RequestInfo};

/// The record of a request that is audited.
#[derive(Debug)]
pub(crate) struct Record {
    audit: Audit,
    environment: Environment,
    verdict: Verdict,
    event: Mutex<Event>,
}

/// What is known of a request before anybody has looked at it.
pub(crate) struct Received<'a> {
    pub(crate) audit_id: String,
    pub(crate) uri: String,
    pub(crate) source_ips: Vec<String>,
    pub(crate) user_agent: String,
    pub(crate) info: &'a RequestInfo,
}

impl Record {
    /// Begins the record of a request; nothing, if the policy wants to know nothing of it.
    pub(crate) fn begin(
        audit: &Audit,
        environment: &Environment,
        received: Received<'_>,
        user: &UserInfo,
    ) -> Option<Self> {
        let verdict = audit.policy().of(received.info, user);
        if verdict.level == Level::None {
            return None;
        }
        let now = micros(environment.clock.now());
        let info = received.info;
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: verdict.level,
            audit_id: received.audit_id,
            stage: Stage::RequestReceived,
            request_uri: received.uri,
            verb: info.verb.clone().into_owned(),
            user: User::from(user),
            impersonated_user: None,
            source_ips: received.source_ips,
            user_agent: received.user_agent,
            object_ref: info.is_resource.then(|| ObjectReference {
                resource: info.resource.clone(),
                namespace: info.namespace.clone(),
                name: info.name.clone(),
                api_group: info.group.clone(),
                api_version: info.version.clone(),
                subresource: info.subresource.clone(),
                ..ObjectReference::default()
            }),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: now.clone(),
            stage_timestamp: now,
            annotations: BTreeMap::new(),
        };
        let (audit, environment) = (audit.clone(), environment.clone());
        Some(Self { audit, environment, verdict, event: Mutex::new(event) })
    }

    pub(crate) fn audit_id(&self) -> String {
        self.event.lock().audit_id.clone()
    }

    /// Notes something that authorization or admission has to say. The first word stands.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        event.annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    pub(crate) fn impersonates(&self, user: &UserInfo) {
        self.event.lock().impersonated_user = Some(User::from(user));
    }

    /// Notes the patch that was sent.
    pub(crate) fn sent_patch(&self, patch: &Value) {
        if self.verdict.level >= Level::Request {
            self.event.lock().request_object = Some(patch.clone());
        }
    }

    /// Notes the object that was sent.
    pub(crate) fn sent(&self, object: &Value) {
        let mut event = self.event.lock();
        if let Some(reference) = &mut event.object_ref {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            for (known, said) in [
                (&mut reference.name, "name"),
                (&mut reference.namespace, "namespace"),
                (&mut reference.uid, "uid"),
                (&mut reference.resource_version, "resourceVersion"),
            ] {
                if known.is_empty() {
                    text(said).clone_into(known);
                }
            }
        }
        if self.verdict.level >= Level::Request {
            event.request_object = Some(self.shown(object.clone()));
        }
    }

    /// Whether the body of the answer is noted.
    pub(crate) fn wants_answer(&self) -> bool {
        self.verdict.level == Level::RequestResponse
    }

    /// Notes the answer: its code, and what is known of its body.
    pub(crate) fn answered(&self, code: u16, body: Option<Value>) {
        let mut event = self.event.lock();
        let mut status = json!({"metadata": {}});
        if let Some(body) = body {
            if body["kind"] == "Status" && body["apiVersion"] == "v1" {
                for field in ["status", "message", "reason", "details"] {
                    if let Some(value) = body.get(field).filter(|value| !value.is_null()) {
                        status[field] = value.clone();
                    }
                }
            }
            if self.wants_answer() {
                event.response_object = Some(self.shown(body));
            }
        }
        status["code"] = code.into();
        event.response_status = Some(status);
    }

    /// Notes that the handler panicked.
    pub(crate) fn panicked(&self) {
        self.event.lock().response_status = Some(json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "APIServer panic'd: the handler of this request panicked",
        }));
    }

    /// Sends the event of a stage to the sinks.
    pub(crate) async fn reach(&self, stage: Stage) {
        if self.verdict.omits(stage) {
            return;
        }
        let event = {
            let mut event = self.event.lock();
            event.stage = stage;
            if stage != Stage::RequestReceived {
                event.stage_timestamp = micros(self.environment.clock.now());
            }
            event.clone()
        };
        self.audit.keep(event).await;
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.verdict.omit_managed_fields {
            omit_managed_fields(&mut object);
        }
        object
    }
}

fn omit_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(omit_managed_fields);
    }
}

fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}
