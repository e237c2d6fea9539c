//! The configuration as the objects state it.
//!
//! Source: `k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go`.

use std::sync::Arc;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, FlowSchemaSpec, PriorityLevelConfiguration};

use super::{matching, objects};
use crate::{auth::UserInfo, http::request_info::RequestInfo};

/// Schemas in the order in which they are asked, and the levels.
#[derive(Default)]
pub(super) struct Configuration {
    schemas: Vec<Schema>,
    pub(super) levels: Vec<LevelSpec>,
}

pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) level: String,
    spec: FlowSchemaSpec,
}

/// What a level is like.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LevelSpec {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) exempt: bool,
    pub(super) shares: i32,
    pub(super) lendable_percent: i32,
    pub(super) borrowing_percent: Option<i32>,
    /// Queues, hand size and length of a queue; none where what finds no seat is refused.
    pub(super) queuing: Option<(usize, usize, usize)>,
}

impl LevelSpec {
    fn of(object: &PriorityLevelConfiguration) -> Option<Self> {
        let (meta, spec) = (&object.metadata, object.spec.as_ref()?);
        let exempt = spec.type_ == "Exempt";
        let limited = spec.limited.clone().unwrap_or_default();
        let exemption = spec.exempt.clone().unwrap_or_default();
        let queuing = limited.limit_response.as_ref().filter(|response| response.type_ == "Queue");
        let size = |number: Option<i32>, or| {
            usize::try_from(number.unwrap_or(or)).unwrap_or_default().max(1)
        };
        Some(Self {
            name: meta.name.clone()?,
            uid: meta.uid.clone().unwrap_or_default(),
            exempt,
            shares: if exempt {
                exemption.nominal_concurrency_shares.unwrap_or(0)
            } else {
                limited.nominal_concurrency_shares.unwrap_or(30)
            },
            lendable_percent: if exempt {
                exemption.lendable_percent.unwrap_or(0)
            } else {
                limited.lendable_percent.unwrap_or(0)
            },
            borrowing_percent: limited.borrowing_limit_percent.filter(|_| !exempt),
            queuing: queuing.map(|response| {
                let queuing = response.queuing.clone().unwrap_or_default();
                (
                    size(queuing.queues, 64),
                    size(queuing.hand_size, 8),
                    size(queuing.queue_length_limit, 50),
                )
            }),
        })
    }
}

impl Configuration {
    /// Schemas that lead nowhere are left out; mandatory objects that are not there are imagined.
    pub(super) fn of(
        schemas: &[Arc<FlowSchema>],
        priorities: &[Arc<PriorityLevelConfiguration>],
    ) -> Self {
        let mut levels: Vec<LevelSpec> =
            priorities.iter().filter_map(|object| LevelSpec::of(object)).collect();
        for mandatory in objects::levels().filter(objects::is_mandatory) {
            let name = mandatory.metadata.name.as_deref();
            if !levels.iter().any(|level| Some(&*level.name) == name) {
                levels.extend(LevelSpec::of(&mandatory));
            }
        }
        let imagined: Vec<Arc<FlowSchema>> = objects::schemas()
            .filter(objects::is_mandatory)
            .filter(|one| !schemas.iter().any(|known| known.metadata.name == one.metadata.name))
            .map(Arc::new)
            .collect();
        let mut found: Vec<Schema> = schemas
            .iter()
            .chain(&imagined)
            .filter_map(|object| {
                let spec = object.spec.clone()?;
                let level = spec.priority_level_configuration.name.clone();
                levels.iter().any(|one| one.name == level).then(|| Schema {
                    name: object.metadata.name.clone().unwrap_or_default(),
                    uid: object.metadata.uid.clone().unwrap_or_default(),
                    level,
                    spec,
                })
            })
            .collect();
        let precedence = |schema: &Schema| schema.spec.matching_precedence.unwrap_or(1000);
        found.sort_by(|a, b| (precedence(a), &a.name).cmp(&(precedence(b), &b.name)));
        Self { schemas: found, levels }
    }

    /// The schema of a request, and what tells its flow from others; the last resort is
    /// `catch-all`.
    pub(super) fn classify(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
    ) -> Option<(&Schema, String)> {
        let schema = self
            .schemas
            .iter()
            .find(|schema| matching::matches(&schema.spec, info, user))
            .or_else(|| self.schemas.iter().find(|schema| schema.name == "catch-all"))?;
        let method = schema.spec.distinguisher_method.as_ref().map(|method| method.type_.as_str());
        let flow = match method {
            Some("ByUser") => user.name.clone(),
            Some("ByNamespace") => info.namespace.clone(),
            _ => String::new(),
        };
        Some((schema, flow))
    }
}
