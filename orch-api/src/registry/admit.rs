//! The way through the admission chain.
//!
//! Source: `k8s.io/apiserver/pkg/admission/chain.go`, `reinvocation.go`.

use orch_core::{
    ApiError, Target,
    client::{DeleteOptions, WriteOptions},
};
use serde_json::{Map, Value};

use super::{Addressed, Caller};
use crate::{
    admission::{AdmissionRequest, Operation, Origin, RequestOptions, Step},
    server::Inner,
};

impl Inner {
    fn request(&self, caller: &Caller, at: &Addressed, operation: Operation) -> AdmissionRequest {
        let target = at.target.clone();
        AdmissionRequest {
            notes: caller.notes.clone(),
            origin: Origin {
                server: self.weak(),
                resource: Some(at.resource.clone()),
                ..Origin::default()
            },
            ..AdmissionRequest::new(caller.user.clone(), operation, target)
        }
    }

    /// A creation or an update on its way through admission.
    pub(super) fn admission_request(
        &self,
        caller: &Caller,
        at: &Addressed,
        operation: Operation,
        options: &WriteOptions,
    ) -> AdmissionRequest {
        AdmissionRequest {
            dry_run: options.dry_run,
            options: RequestOptions::Write(options.clone()),
            ..self.request(caller, at, operation)
        }
    }

    /// A deletion on its way through admission.
    pub(super) fn deletion_request(
        &self,
        caller: &Caller,
        at: &Addressed,
        options: &DeleteOptions,
    ) -> AdmissionRequest {
        AdmissionRequest {
            dry_run: options.dry_run,
            options: RequestOptions::Delete(options.clone()),
            ..self.request(caller, at, Operation::Delete)
        }
    }

    /// The mutating half. If a webhook changed the object, everybody may look at it once more.
    pub(super) async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        let step = Step::begin(self.metrics.as_ref(), "admit", request.operation);
        let mut admitted = self.mutate_once(request).await;
        if admitted.is_ok() && request.origin.webhooks.begin_again() {
            admitted = self.mutate_once(request).await;
        }
        step.end(None, admitted)
    }

    async fn mutate_once(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        for plugin in &self.admission {
            let one = Step::begin(self.metrics.as_ref(), "admit", request.operation);
            one.end(Some(plugin.name()), plugin.mutate(request).await)?;
        }
        Ok(())
    }

    /// The validating half.
    pub(super) async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let step = Step::begin(self.metrics.as_ref(), "validate", request.operation);
        for plugin in &self.admission {
            let one = Step::begin(self.metrics.as_ref(), "validate", request.operation);
            one.end(Some(plugin.name()), plugin.validate(request).await)
                .or_else(|error| step.end(None, Err(error)))?;
        }
        step.end(None, Ok(()))
    }

    /// Asks admission whether a connection may be opened.
    pub(crate) async fn admit_connect(
        &self,
        caller: &Caller,
        target: &Target,
        query: &str,
    ) -> Result<(), ApiError> {
        if self.admission.is_empty() {
            return Ok(());
        }
        let of = &target.resource;
        let resource = self.resource(&of.group, &of.version, &of.plural).await?;
        let strategy = resource.behaviour();
        let at = Addressed { resource, strategy, target: target.clone() };
        let mut request = self.request(caller, &at, Operation::Connect);
        let kind = at.subresource().map_or_else(String::new, |sub| sub.kind.to_string());
        request.object = Some(connect_options(&kind, query));
        self.mutate(&mut request).await?;
        self.validate(&request).await
    }
}

/// The options that a connection is asked for with, such as `PodExecOptions`: parameters of the
/// query, in the types that the kind gives them.
fn connect_options(kind: &str, query: &str) -> Value {
    let mut options = Map::new();
    options.insert("kind".into(), kind.into());
    options.insert("apiVersion".into(), "v1".into());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        match &*name {
            "stdin" | "stdout" | "stderr" | "tty" => {
                let on = value != "0" && !value.eq_ignore_ascii_case("false");
                options.insert(name.into_owned(), on.into());
            }
            "command" => push(&mut options, &name, value.into()),
            "ports" => {
                for port in value.split(',').filter_map(|port| port.parse::<i32>().ok()) {
                    push(&mut options, &name, port.into());
                }
            }
            "container" | "path" => {
                options.insert(name.into_owned(), value.into());
            }
            _ => {}
        }
    }
    Value::Object(options)
}

fn push(options: &mut Map<String, Value>, name: &str, value: Value) {
    let list = options.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn connections_are_asked_for_with_options() {
        let check = |kind: &str, query: &str, rest: Value| {
            let mut expected = json!({"kind": kind, "apiVersion": "v1"});
            for (name, value) in rest.as_object().unwrap() {
                expected[name] = value.clone();
            }
            assert_eq!(connect_options(kind, query), expected);
        };
        let query = "command=sh&command=-c&stdin=true&tty=false&container=a";
        let rest = json!({"command": ["sh", "-c"], "stdin": true, "tty": false, "container": "a"});
        check("PodExecOptions", query, rest);
        check("PodPortForwardOptions", "ports=80,81&ports=82", json!({"ports": [80, 81, 82]}));
    }
}
